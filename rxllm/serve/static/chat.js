// The chat page. It speaks only /api/chat, keeps its conversations in the browser, and its key in memory.

import { AnswerView, element, priced } from "./answer.js";
import { apply, isDecided, messagesOf, newAnswer, total } from "./message.js";
import { follow, refusal } from "./stream.js";
import { newId, Store } from "./store.js";

const $ = (id) => document.getElementById(id);
const API = new URL("api/chat", document.baseURI).href;
const SAVE = 500; // milliseconds between two saves of a growing answer
const store = new Store(localStorage);

let key; // of the caller; never stored
let models = [];
let conversation;
const views = new Map(); // of the answers on the page
const runs = new Map(); // the AbortController of each answer that runs

// ── the server ─────────────────────────────────────────────────────────────────────────────────────────────────────

let asking;

/** Asks for a key, once for all requests that need it. Returns whether the user gave one. */
function askForKey(wrong) {
  asking ??= new Promise((resolve) => {
    $("wrong").textContent = wrong ? "The server does not know this key." : "";
    $("keys").showModal();
    $("keys").addEventListener("close", () => {
      const given = $("key").value.trim();
      key = given || key;
      $("key").value = "";
      asking = undefined;
      resolve(given !== "");
    }, { once: true });
  });
  return asking;
}

/** Fetches from the server; asks for a key as long as the server wants another one. */
async function call(path, { headers, ...options } = {}) {
  for (;;) {
    const used = key;
    const authorization = used ? { authorization: `Bearer ${used}` } : {};
    const response = await fetch(API + path, { ...options, headers: { ...headers, ...authorization }, cache: "no-store" });
    if (response.status !== 401) return response;
    if (used === key && !(await askForKey(Boolean(used)))) return response;
  }
}

const asJson = (body) => ({ method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

// ── answers ────────────────────────────────────────────────────────────────────────────────────────────────────────

const answersOf = (talk) => talk.turns.flatMap((turn) => turn.answers);

/** Reads an answer to its end. Without `question` it reads on what the server has. */
async function run(talk, answer, question) {
  const controller = new AbortController(), { signal } = controller;
  runs.set(answer, controller);
  answer.state = "running";
  views.get(answer)?.update();
  update();
  const connect = (last) => {
    if (last === undefined && question) return call("", { ...asJson(question), signal });
    return call(`/${answer.chat}/stream`, { headers: last === undefined ? {} : { "last-event-id": last }, signal });
  };
  const heard = (event, id) => {
    answer.epoch = id?.split("-")[0] ?? answer.epoch;
    const change = apply(answer, event), view = views.get(answer);
    if (answer.reset) {
      delete answer.reset;
      view?.reset();
    }
    if (change) view?.change(change);
    soon(talk);
  };
  try {
    await follow({ connect, heard, last: question || !answer.epoch ? undefined : `${answer.epoch}-0`, signal });
    if (answer.state === "running") throw new Error("The answer broke off.");
  } catch (error) {
    answer.state = signal.aborted ? "stopped" : "failed";
    answer.error = error.message;
  }
  runs.delete(answer);
  delete answer.before;
  if (!store.save(talk)) say("This browser's storage is full; the conversation is not saved.");
  views.get(answer)?.update();
  update();
  if (talk === conversation && !runs.size) say(answer.state === "done" ? "The answer is complete." : `The answer ${answer.state}.`);
}

let saving;
function soon(talk) {
  scroll();
  saving ??= setTimeout(() => {
    saving = undefined;
    store.save(talk);
  }, SAVE);
}

/** Asks for an answer, or for the rest of one whose calls are decided. */
function ask(talk, turn, answer, trigger) {
  const messages = messagesOf(talk.turns, answer.model, talk.turns.indexOf(turn));
  answer.before = structuredClone(answer.parts);
  delete answer.epoch;
  store.save(talk);
  return run(talk, answer, { id: answer.chat, model: answer.model, messages, trigger, messageId: answer.messageId });
}

function send(text) {
  if (!conversation.turns.length) conversation.title = text.slice(0, 60);
  const chosen = chosenModels();
  const answers = chosen.map((name) => newAnswer(name, `${conversation.id}-${models.indexOf(name)}`));
  const turn = { id: newId(), text, answers };
  conversation.turns.push(turn);
  show(turn);
  $("log").scrollTop = $("log").scrollHeight;
  for (const answer of answers) ask(conversation, turn, answer, "submit-message");
  lists();
}

function again(turn, answer) {
  const fresh = newAnswer(answer.model, answer.chat);
  turn.answers[turn.answers.indexOf(answer)] = fresh;
  const view = viewOf(turn, fresh);
  views.get(answer).node.replaceWith(view.node);
  views.delete(answer);
  ask(conversation, turn, fresh, "regenerate-message");
}

function decide(turn, answer, part, approved) {
  part.state = "approval-responded";
  part.approval = { ...part.approval, approved };
  views.get(answer).change({ part });
  if (!isDecided(answer)) return;
  answer.continues = true;
  ask(conversation, turn, answer, "submit-message");
  delete answer.continues;
}

async function stop() {
  const own = answersOf(conversation).filter((answer) => runs.has(answer));
  for (const answer of own) {
    const controller = runs.get(answer);
    const response = await call(`/${answer.chat}/stop`, asJson({})).catch(() => undefined);
    if (!response?.ok) controller.abort(); // the server has no such answer: stop reading
  }
}

// ── the page ───────────────────────────────────────────────────────────────────────────────────────────────────────

const say = (sentence) => ($("status").textContent = sentence);
const chosenModels = () => {
  const chosen = (store.setting("models") ?? []).filter((name) => models.includes(name));
  return chosen.length ? chosen : models.slice(0, 1);
};

function viewOf(turn, answer) {
  const view = new AnswerView(answer, {
    decide: (part, approved) => decide(turn, answer, part, approved),
    again: () => again(turn, answer),
    timeline: async () => {
      const response = await call(`/${answer.chat}/timeline/${answer.epoch}`);
      if (!response.ok) throw await refusal(response);
      return response.json();
    },
    isLast: turn === conversation.turns.at(-1),
  });
  views.set(answer, view);
  return view;
}

function show(turn) {
  for (const view of views.values()) view.again.hidden = true;
  const question = element("div", { className: "question" }, element("p", {}, turn.text));
  const answers = element("div", { className: "answers" }, ...turn.answers.map((answer) => viewOf(turn, answer).node));
  answers.dataset.count = String(Math.min(turn.answers.length, 4));
  $("log").append(element("section", { className: "turn" }, question, answers));
}

function open(talk) {
  conversation = talk;
  views.clear();
  $("log").replaceChildren();
  if (!talk.turns.length) $("log").append(element("p", { className: "welcome" }, "Ask, and watch the answer arrive."));
  for (const turn of talk.turns) show(turn);
  for (const answer of answersOf(talk)) {
    if (answer.state !== "running" || runs.has(answer)) continue;
    answer.parts = structuredClone(answer.before ?? []);
    views.get(answer).reset();
    run(talk, answer);
  }
  store.setting("open", talk.id);
  $("log").scrollTop = $("log").scrollHeight;
  side(false);
  lists();
  update();
}

const started = () => ({ id: newId(), title: "New conversation", turns: [] });

/** Returns a conversation: the one on the page, one whose answers still run, or the stored one. */
function known(id) {
  if (conversation?.id === id) return conversation;
  return live.get(id) ?? store.load(id) ?? started();
}
const live = new Map(); // the conversations of this visit

function lists() {
  live.set(conversation.id, conversation);
  $("list").replaceChildren(...store.list().map(({ id, title }) => {
    const isOpen = id === conversation.id;
    const link = element("button", { type: "button", on: { click: () => open(known(id)) } }, title);
    if (isOpen) link.setAttribute("aria-current", "true");
    const remove = element("button", { type: "button", className: "remove", "aria-label": `Delete ${title}`, on: { click: () => forget(id) } }, "×");
    return element("li", {}, link, remove);
  }));
}

function forget(id) {
  for (const answer of live.has(id) ? answersOf(live.get(id)) : []) runs.get(answer)?.abort();
  live.delete(id);
  store.remove(id);
  if (id === conversation.id) open(started());
  else lists();
}

function update() {
  const answers = answersOf(conversation), busy = answers.some((answer) => runs.has(answer));
  document.title = $("title").textContent = conversation.title;
  $("stop").hidden = !busy;
  $("send").hidden = busy;
  $("log").setAttribute("aria-busy", String(busy));
  $("total").textContent = priced(total(answers));
  if (busy) say("Answering.");
}

let scrolling = false, sticks = true;
function scroll() {
  if (scrolling) return;
  scrolling = true;
  requestAnimationFrame(() => {
    scrolling = false;
    if (sticks) $("log").scrollTop = $("log").scrollHeight;
  });
}

function side(isOpen) {
  document.body.classList.toggle("side", isOpen);
  $("menu").setAttribute("aria-expanded", String(isOpen));
  if (isOpen) $("new").focus();
}

function choices() {
  const chosen = chosenModels();
  $("chosen").textContent = chosen.join(", ");
  $("models").hidden = models.length < 2;
  $("choices").replaceChildren(...models.map((name) => {
    const box = element("input", { type: "checkbox", checked: chosen.includes(name), on: { change: choose } });
    return element("label", {}, box, name);
  }));
}

function choose() {
  const boxes = [...$("choices").querySelectorAll("input")];
  store.setting("models", models.filter((_, index) => boxes[index].checked));
  const [chosen, names] = [chosenModels(), $("chosen")];
  names.textContent = chosen.join(", ");
  boxes.forEach((box, index) => (box.checked = chosen.includes(models[index])));
}

function grow() {
  const { value } = $("text");
  $("text").rows = Math.min(8, value.split("\n").length + Math.floor(value.length / 90));
}

async function submit(event) {
  event.preventDefault();
  await ready;
  const text = $("text").value.trim();
  if (!text || !models.length || !$("stop").hidden) return;
  $("log").querySelector(".welcome")?.remove();
  $("text").value = "";
  $("models").open = false;
  grow();
  sticks = true;
  send(text);
}

function pressed(event) {
  if (event.key === "Escape" && ($("models").open || document.body.classList.contains("side"))) {
    $("models").open = false;
    side(false);
  } else if (event.key === "Escape" && !$("stop").hidden) stop();
  else if (event.key === "Enter" && event.target === $("text") && !event.shiftKey && !event.isComposing) submit(event);
}

function clicked(event) {
  const copies = event.target.closest("figcaption button");
  if (copies) navigator.clipboard?.writeText(copies.closest("figure").querySelector("code").textContent).then(() => say("Copied."));
  if (!event.target.closest("#models")) $("models").open = false;
}

$("ask").addEventListener("submit", submit);
$("text").addEventListener("input", grow);
$("stop").addEventListener("click", stop);
$("new").addEventListener("click", () => {
  open(started());
  $("text").focus();
});
$("menu").addEventListener("click", () => side(!document.body.classList.contains("side")));
$("veil").addEventListener("click", () => side(false));
$("down").addEventListener("click", () => ($("log").scrollTop = $("log").scrollHeight));
$("log").addEventListener("scroll", () => {
  const { scrollTop, scrollHeight, clientHeight } = $("log");
  sticks = scrollHeight - scrollTop - clientHeight < 40;
  $("down").hidden = sticks;
});
document.addEventListener("keydown", pressed);
document.addEventListener("click", clicked);
addEventListener("pagehide", () => conversation?.turns.length && store.save(conversation));

async function begin() {
  const response = await call("");
  if (!response.ok) throw await refusal(response);
  models = (await response.json()).models;
  choices();
  open(store.load(store.setting("open")) ?? started());
  $("text").focus();
}

const ready = begin().catch((error) => $("log").replaceChildren(element("p", { className: "error", role: "alert" }, error.message)));
