// An answer from its events, the messages that go back, the storage, and reading over several connections.

import assert from "node:assert/strict";
import { test } from "node:test";

import { apply, isDecided, messagesOf, newAnswer, total } from "../../../rxllm/serve/static/message.js";
import { newId, Store } from "../../../rxllm/serve/static/store.js";
import { eventsOf, follow, refusal, Refused } from "../../../rxllm/serve/static/stream.js";

const signed = (signature) => ({ rxllm: { signature } });

function answered(events, answer = newAnswer("m", "c-0")) {
  for (const event of events) apply(answer, event);
  return answer;
}

test("texts and reasoning grow part by part", () => {
  const answer = answered([
    { type: "start", messageId: "msg" },
    { type: "start-step" },
    { type: "reasoning-start", id: "0" },
    { type: "reasoning-delta", id: "0", delta: "hm" },
    { type: "reasoning-end", id: "0" },
    { type: "text-start", id: "1" },
    { type: "text-delta", id: "1", delta: "Hel" },
    { type: "text-delta", id: "1", delta: "lo" },
    { type: "text-end", id: "1" },
    { type: "text-delta", id: "9", delta: "of no open text" },
    { type: "a-later-invention", anything: 1 },
    { type: "finish", finishReason: "stop", messageMetadata: { usage: { inputTokens: 3, outputTokens: 2 } } },
  ]);
  assert.deepEqual(answer.parts, [{ type: "step-start" }, { type: "reasoning", text: "hm" }, { type: "text", text: "Hello" }]);
  assert.deepEqual([answer.messageId, answer.state, answer.usage.outputTokens], ["msg", "done", 2]);
});

test("a tool call goes back with its signatures", () => {
  const answer = answered([
    { type: "tool-input-start", toolCallId: "c", toolName: "pay" },
    { type: "tool-input-delta", toolCallId: "c", inputTextDelta: '{"to":' },
    { type: "tool-input-available", toolCallId: "c", toolName: "pay", input: { to: "me" }, providerMetadata: signed("s1") },
    { type: "tool-approval-request", toolCallId: "c", approvalId: "a", signature: "s2" },
  ]);
  assert.equal(isDecided(answer), false);
  const [part] = answer.parts;
  assert.equal(part.state, "approval-requested");
  Object.assign(part, { state: "approval-responded", approval: { ...part.approval, approved: true } });
  assert.equal(isDecided(answer), true);
  answered([{ type: "tool-output-available", toolCallId: "c", output: 7, providerMetadata: signed("s3") }], answer);
  const turns = [{ id: "q", text: "hi", answers: [answer] }, { id: "r", text: "more", answers: [] }];
  const [question, message, next] = messagesOf(turns, "m");
  assert.deepEqual([question.role, message.role, next.parts[0].text], ["user", "assistant", "more"]);
  assert.deepEqual(message.parts, [
    {
      type: "tool-pay", toolCallId: "c", state: "output-available", input: { to: "me" }, output: 7,
      approval: { id: "a", signature: "s2", approved: true },
      callProviderMetadata: signed("s1"), resultProviderMetadata: signed("s3"),
    },
  ]);
});

test("calls that fail or are denied say so", () => {
  const start = (id) => ({ type: "tool-input-start", toolCallId: id, toolName: "t" });
  const { parts } = answered([
    start("a"), { type: "tool-input-error", toolCallId: "a", input: "{", errorText: "bad" },
    start("b"), { type: "tool-output-error", toolCallId: "b", errorText: "broke" },
    start("c"), { type: "tool-output-denied", toolCallId: "c" },
    { type: "tool-output-denied", toolCallId: "unknown" },
  ]);
  assert.deepEqual(parts.map((part) => part.state), ["output-error", "output-error", "output-denied"]);
});

test("an answer that begins again forgets its step", () => {
  const answer = answered([
    { type: "start-step" }, { type: "text-start", id: "0" }, { type: "text-delta", id: "0", delta: "wrong" }, { type: "reset-step" },
    { type: "text-start", id: "0" }, { type: "text-delta", id: "0", delta: "right" },
  ]);
  assert.deepEqual(answer.parts.map((part) => part.text), [undefined, "right"]);
});

test("each model gets its own answers", () => {
  const text = (model, words) => ({ ...newAnswer(model, "c"), messageId: words, parts: [{ type: "text", text: words }] });
  const turns = [
    { id: "1", text: "a", answers: [text("x", "from x"), text("y", "from y")] },
    { id: "2", text: "b", answers: [text("x", "only x")] },
    { id: "3", text: "c", answers: [newAnswer("y", "c")] },
  ];
  assert.deepEqual(messagesOf(turns, "y").map((message) => message.parts[0].text), ["a", "from y", "b", "only x", "c"]);
});

test("tokens and costs add up, and unknown ones stay unknown", () => {
  const answers = [{ usage: { inputTokens: 1, outputTokens: 2 }, cost: 0.5 }, {}, { usage: { inputTokens: 3, outputTokens: 4 } }];
  assert.deepEqual(total(answers), { input: 4, output: 6, cost: 0.5 });
  assert.deepEqual(total([{}]), { input: undefined, output: undefined, cost: undefined });
});

class Memory {
  values = new Map();
  constructor(room = Infinity) {
    this.room = room;
  }
  getItem = (name) => this.values.get(name) ?? null;
  removeItem = (name) => this.values.delete(name);
  setItem(name, value) {
    const others = [...this.values].filter(([each]) => each !== name).reduce((sum, [, each]) => sum + each.length, 0);
    if (others + value.length > this.room) throw new Error("full");
    this.values.set(name, value);
  }
}

test("the oldest conversations make room", () => {
  const store = new Store(new Memory(1500));
  for (const id of ["a", "b", "c"]) assert.ok(store.save({ id, title: id, turns: ["x".repeat(400)] }));
  assert.ok(store.save({ id: "d", title: "d", turns: ["x".repeat(700)] }));
  assert.equal(store.list()[0].id, "d");
  assert.equal(store.load("a"), undefined);
  assert.equal(store.save({ id: "e", title: "e", turns: ["x".repeat(3000)] }), false);
  assert.match(newId(), /^[0-9a-f]{24}$/);
});

const body = (...pieces) => new Response(new ReadableStream({
  start(controller) {
    for (const piece of pieces) controller.enqueue(new TextEncoder().encode(piece));
    controller.close();
  },
}));

const event = (id, text) => `id: 1-${id}\ndata: {"type":"text-delta","delta":"${text}"}\n\n`;

test("events come whole, in whatever pieces", async () => {
  const text = `: ping\n\n${event(1, "ä")}\r\ndata: a\r\ndata: b\r\n\r\ndata: cut`;
  const bytes = new TextEncoder().encode(text), pieces = Array.from(bytes, (byte) => Uint8Array.of(byte));
  const stream = new ReadableStream({ start(c) { pieces.forEach((piece) => c.enqueue(piece)); c.close(); } });
  const events = await Array.fromAsync(eventsOf(stream));
  assert.deepEqual(events.map((each) => each.data), ['{"type":"text-delta","delta":"ä"}', "a\nb"]);
  assert.equal(events[0].id, "1-1");
});

async function followed(responses, options = {}) {
  const heard = [], asked = [], pauses = [];
  const connect = async (last) => {
    asked.push(last);
    const response = responses.shift();
    if (response instanceof Error) throw response;
    return response;
  };
  const end = await follow({ connect, heard: (each) => heard.push(each.delta ?? each.type), pause: async (ms) => pauses.push(ms), ...options })
    .then(() => "whole", (error) => error);
  return { heard: heard.join(""), asked, pauses, end };
}

test("a broken connection goes on after the last event", async () => {
  const { heard, asked, end } = await followed([
    body(event(1, "a"), event(2, "b"), "id: 1-3\ndata: {"), new TypeError("network"), body(), body(event(3, "c"), "id: 1-9\ndata: [DONE]\n\n"),
  ]);
  assert.deepEqual([heard, end], ["abc", "whole"]);
  assert.deepEqual(asked, [undefined, "1-2", "1-2", "1-2"]);
});

test("an answer is never asked twice", async () => {
  const { asked, end } = await followed([new TypeError("network")]);
  assert.deepEqual([asked.length, end.message], [1, "The server cannot be reached."]);
});

test("the page gives up at last", async () => {
  const { end, pauses } = await followed([body(event(1, "a")), ...Array.from({ length: 9 }, () => new TypeError("network"))]);
  assert.deepEqual([end instanceof Refused, pauses.length], [true, 5]);
});

test("an answer that the server has lost has broken off", async () => {
  const { end } = await followed([body(event(1, "a")), new Response(null, { status: 204 })]);
  assert.equal(end.message, "The answer broke off.");
});

test("errors have the words of the server", async () => {
  assert.equal((await refusal(new Response('{"error":"Slow down."}', { status: 429 }))).message, "Slow down.");
  assert.equal((await refusal(new Response("<html>", { status: 502 }))).message, "<html>");
  assert.match((await refusal(new Response("", { status: 500 }))).message, /status 500/);
});
