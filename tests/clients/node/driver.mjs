// Real clients of chat pages' protocols, for tests: reads one task a line, and writes one result a line.
import { createInterface } from "node:readline";
import { HttpAgent } from "@ag-ui/client";
import OpenAI from "openai";
import * as six from "ai6";
import * as seven from "ai7";

class State {
  status = "ready";
  error = undefined;
  messages = [];
  pushMessage = (message) => void (this.messages = [...this.messages, message]);
  popMessage = () => void (this.messages = this.messages.slice(0, -1));
  replaceMessage = (index, message) =>
    void (this.messages = this.messages.map((each, number) => (number === index ? message : each)));
  snapshot = (value) => structuredClone(value);
}

// What `useChat` is without React.
function chatOf(ai, url, heard, { id, messages = [] } = {}) {
  class Chat extends ai.AbstractChat {}
  return new Chat({
    id,
    state: Object.assign(new State(), { messages }),
    transport: new ai.DefaultChatTransport({ api: url }),
    sendAutomaticallyWhen: ai.lastAssistantMessageIsCompleteWithApprovalResponses,
    onFinish: ({ isAbort, isDisconnect, isError }) => Object.assign(heard, { isAbort, isDisconnect, isError }),
  });
}

const until = async (condition) => {
  while (!condition()) await new Promise((done) => setTimeout(done, 5));
};

const textOf = (chat) =>
  chat.messages
    .filter((message) => message.role === "assistant")
    .flatMap((message) => message.parts)
    .filter((part) => part.type === "text")
    .map((part) => part.text)
    .join("");

async function chat(ai, { url, texts, decide, stop, answer }) {
  const heard = {};
  const chat = chatOf(ai, url, heard);
  for (const text of texts) {
    const sent = chat.sendMessage({ text });
    if (stop) {
      await until(() => textOf(chat).includes(stop));
      await chat.stop();
    }
    await sent;
    const waiting = () =>
      chat.lastMessage.parts.filter((part) => part.state === "approval-requested");
    if (decide !== undefined && waiting().length) {
      for (const part of waiting())
        await chat.addToolApprovalResponse({ id: part.approval.id, approved: decide, reason: "because" });
      await until(() => chat.status === "ready" || chat.status === "error");
    }
    if (answer !== undefined) {
      const part = chat.lastMessage.parts.find((each) => each.state === "input-available");
      if (part) await chat.addToolOutput({ tool: part.type.slice(5), toolCallId: part.toolCallId, output: answer });
    }
  }
  return { status: chat.status, error: chat.error?.message, messages: chat.messages, text: textOf(chat), ...heard };
}

// A page that is left in the middle of its answer, and opened again with what it had kept.
async function resumed(ai, { url, cut, keeps, go }) {
  const heard = {};
  const left = chatOf(ai, url, heard);
  const sent = left.sendMessage({ text: "hi" });
  await until(() => textOf(left).includes(cut));
  await left.stop();
  await sent;
  const messages = keeps ? left.messages : left.messages.slice(0, 1);
  const chat = chatOf(ai, url, heard, { id: left.id, messages: structuredClone(messages) });
  const reading = chat.resumeStream();
  await until(() => textOf(chat).includes(cut));
  await fetch(go);
  await reading;
  await chat.resumeStream(); // nothing runs any more
  return { status: chat.status, error: chat.error?.message, messages: chat.messages, text: textOf(chat), ...heard };
}

// A page that asks the server to stop.
async function stopped(ai, { url, cut }) {
  const heard = {};
  const chat = chatOf(ai, url, heard);
  const sent = chat.sendMessage({ text: "hi" });
  await until(() => textOf(chat).includes(cut));
  const json = { "content-type": "application/json" };
  const answer = await fetch(`${url}/${chat.id}/stop`, { method: "POST", headers: json, body: "{}" });
  await sent;
  return { stopped: answer.status, status: chat.status, error: chat.error?.message, text: textOf(chat), ...heard };
}

const WHERE = { name: "where", description: "The place.", parameters: { type: "object", properties: {} } };

async function agUI({ url, texts, decide, stop, answer }) {
  const agent = new HttpAgent({ url });
  const events = [];
  const subscriber = { onEvent: ({ event }) => void events.push(event) };
  let error;
  const run = async (parameters) => {
    const running = agent.runAgent(parameters, subscriber);
    if (stop) {
      await until(() => events.some((event) => event.delta === stop));
      agent.abortRun();
    }
    await running.catch((failure) => void (error = String(failure.message ?? failure)));
  };
  for (const [number, content] of texts.entries()) {
    agent.addMessage({ id: `user-${number}`, role: "user", content });
    await run(answer === undefined ? {} : { tools: [WHERE] });
    if (decide !== undefined && agent.pendingInterrupts.length) {
      const decision = { status: "resolved", payload: { approved: decide, reason: "because" } };
      await run({ resume: agent.pendingInterrupts.map(({ id }) => ({ interruptId: id, ...decision })) });
    }
    const calls = agent.messages.at(-1).toolCalls ?? [];
    if (answer !== undefined && calls.length)
      agent.addMessage({ id: `result-${number}`, role: "tool", toolCallId: calls[0].id, content: answer });
  }
  return { messages: agent.messages, events, error, interrupts: agent.pendingInterrupts };
}

async function openai({ url, kind }) {
  const client = new OpenAI({ baseURL: url, apiKey: "k" });
  const messages = [{ role: "user", content: "hi" }];
  try {
    if (kind === "responses") {
      const stream = client.responses.stream({ model: "m", input: "hi" });
      return { text: (await stream.finalResponse()).output_text };
    }
    if (kind === "whole") {
      const answer = await client.chat.completions.create({ model: "m", messages });
      return { text: answer.choices[0].message.content, usage: answer.usage };
    }
    const stream = client.chat.completions.stream({ model: "m", messages });
    return { text: await stream.finalContent() };
  } catch (error) {
    return { error: error.constructor.name, status: error.status };
  }
}

process.on("unhandledRejection", () => undefined); // an aborted run of AG-UI rejects a promise that nobody awaits

const sdk = (ai) => (task) => ({ resumed, stopped })[task.does]?.(ai, task) ?? chat(ai, task);
const clients = { ai6: sdk(six), ai7: sdk(seven), agui: agUI, openai };

for await (const line of createInterface({ input: process.stdin })) {
  const { client, ...task } = JSON.parse(line);
  let result;
  try {
    result = await clients[client](task);
  } catch (error) {
    result = { thrown: String(error.stack) };
  }
  process.stdout.write(JSON.stringify(result) + "\n");
}
