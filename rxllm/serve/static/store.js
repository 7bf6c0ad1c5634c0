// Conversations in this browser's storage, and what they need of it.

const INDEX = "rxllm:conversations";
const ONE = "rxllm:conversation:";

export const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

export class Store {
  constructor(storage) {
    this.storage = storage;
  }

  /** Returns the { id, title, at } of all conversations, the latest first. */
  list() {
    return this.#read(INDEX) ?? [];
  }

  load(id) {
    return this.#read(ONE + id);
  }

  /** Saves a conversation. If the storage is full, the oldest ones make room; false if even that does not suffice. */
  save(conversation) {
    const { id, title } = conversation;
    for (;;) {
      const others = this.list().filter((each) => each.id !== id);
      try {
        this.storage.setItem(ONE + id, JSON.stringify(conversation));
        this.storage.setItem(INDEX, JSON.stringify([{ id, title, at: Date.now() }, ...others]));
        return true;
      } catch {
        if (!others.length) return false;
        this.remove(others.at(-1).id);
      }
    }
  }

  remove(id) {
    this.storage.removeItem(ONE + id);
    this.storage.setItem(INDEX, JSON.stringify(this.list().filter((each) => each.id !== id)));
  }

  setting(name, value) {
    if (value === undefined) return this.#read(`rxllm:${name}`);
    this.storage.setItem(`rxllm:${name}`, JSON.stringify(value));
  }

  #read(key) {
    try {
      return JSON.parse(this.storage.getItem(key)) ?? undefined;
    } catch {
      return undefined;
    }
  }
}
