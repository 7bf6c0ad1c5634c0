// Server-sent events of a response, and an answer that is read to its end over several connections.

const PAUSES = [300, 1000, 2000, 4000, 8000]; // milliseconds before each attempt to connect again

/** Yields the { id, data } of each event. */
export async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    let rest = "", id, data = [];
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines.map((each) => each.replace(/\r$/, ""))) {
        if (line.startsWith("id: ")) id = line.slice(4);
        else if (line.startsWith("data: ")) data.push(line.slice(6));
        else if (line === "" && data.length) {
          yield { id, data: data.join("\n") };
          data = [];
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** An answer of the server that is not a stream. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function refusal(response) {
  const text = await response.text().catch(() => "");
  try {
    return new Refused(response.status, JSON.parse(text).error ?? text);
  } catch {
    return new Refused(response.status, text || `The server answered with the status ${response.status}.`);
  }
}

/**
 * Reads an answer to its end, and connects again after the last event if the connection breaks.
 *
 * `connect(last)` returns a response: of the question if `last` is undefined, else of what follows the event `last`.
 * `heard(event, id)` gets each event once; `pause(ms)` waits. An answer that cannot be read to its end throws.
 */
export async function follow({ connect, heard, last, signal, pause = wait }) {
  let failures = 0;
  for (;;) {
    try {
      const response = await connect(last);
      if (response.status === 204) throw new Refused(204, "The answer broke off.");
      if (!response.ok) throw await refusal(response);
      for await (const { id, data } of eventsOf(response.body)) {
        if (data === "[DONE]") return;
        last = id ?? last;
        failures = 0;
        const event = JSON.parse(data);
        heard(event, id);
        if (event.type === "error" || event.type === "abort") return;
      }
    } catch (error) {
      if (error instanceof Refused || signal?.aborted) throw error;
    }
    if (last === undefined || failures >= PAUSES.length) throw new Refused(0, "The server cannot be reached.");
    await pause(PAUSES[failures++]);
  }
}

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
