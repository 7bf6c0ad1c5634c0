// An answer as it arrives: the events of the UI Message Stream change its parts, which go back to the server as they are.

/** Returns an answer without parts. `chat` is the id under which the server knows it. */
export const newAnswer = (model, chat) => ({ model, chat, parts: [], state: "running" });

/**
 * Changes an answer by one event.
 *
 * Returns the part that changed, with the text that it gained; nothing if no part changed. An event of a type that this
 * page does not know changes nothing.
 */
export function apply(answer, event) {
  const { parts } = answer;
  const call = () => parts.findLast((part) => part.toolCallId === event.toolCallId);
  const open = (type) => parts.findLast((part) => part.type === type && part.open === event.id);
  const added = (part) => {
    parts.push(part);
    return { part };
  };
  const changed = (part, values) => part && { part: Object.assign(part, values) };
  switch (event.type) {
    case "start":
      answer.messageId = event.messageId ?? answer.messageId;
      return;
    case "start-step":
      return void parts.push({ type: "step-start" });
    case "text-start":
    case "reasoning-start":
      return added({ type: event.type.replace("-start", ""), text: "", open: event.id });
    case "text-delta":
    case "reasoning-delta": {
      const part = open(event.type.replace("-delta", ""));
      if (!part) return;
      part.text += event.delta;
      return { part, delta: event.delta };
    }
    case "text-end":
    case "reasoning-end": {
      const part = open(event.type.replace("-end", ""));
      if (part) delete part.open;
      return part && { part, ended: true };
    }
    case "tool-input-start":
      return added({ type: `tool-${event.toolName}`, toolCallId: event.toolCallId, state: "input-streaming", raw: "" });
    case "tool-input-delta":
      return changed(call(), { raw: (call()?.raw ?? "") + event.inputTextDelta });
    case "tool-input-available": {
      const values = { state: "input-available", input: event.input, callProviderMetadata: event.providerMetadata };
      return changed(call() ?? added({ type: `tool-${event.toolName}`, toolCallId: event.toolCallId }).part, values);
    }
    case "tool-input-error":
      return changed(call(), { state: "output-error", input: event.input, errorText: event.errorText });
    case "tool-approval-request":
      return changed(call(), { state: "approval-requested", approval: { id: event.approvalId, signature: event.signature } });
    case "tool-output-available":
      return changed(call(), { state: "output-available", output: event.output, resultProviderMetadata: event.providerMetadata });
    case "tool-output-error":
      return changed(call(), { state: "output-error", errorText: event.errorText, resultProviderMetadata: event.providerMetadata });
    case "tool-output-denied":
      return changed(call(), { state: "output-denied" });
    case "file":
      return added({ type: "file", mediaType: event.mediaType, url: event.url });
    case "source-url":
      return added({ type: "source-url", sourceId: event.sourceId, url: event.url, title: event.title });
    case "reset-step":
      parts.length = parts.findLastIndex((part) => part.type === "step-start") + 1;
      answer.reset = true;
      return;
    case "finish":
      answer.state = "done";
      answer.reason = event.finishReason;
      answer.usage = event.messageMetadata?.usage;
      answer.cost = event.messageMetadata?.cost;
      return;
    case "abort":
      answer.state = "stopped";
      return;
    case "error":
      answer.state = "failed";
      answer.error = event.errorText;
      return;
  }
}

/** Returns the messages of a conversation that the model `name` gets, up to the turn `last`. */
export function messagesOf(turns, name, last = turns.length - 1) {
  return turns.slice(0, last + 1).flatMap((turn, index) => {
    const user = { id: turn.id, role: "user", parts: [{ type: "text", text: turn.text }] };
    const answer = turn.answers.find((each) => each.model === name) ?? turn.answers[0];
    if (index === last && !answer?.continues) return [user];
    return answer?.parts.length ? [user, { id: answer.messageId, role: "assistant", parts: answer.parts.map(sent) }] : [user];
  });
}

/** Returns a part without what only this page needs. */
const sent = ({ open, raw, ...part }) => part;

/** Whether the user has decided on all calls of an answer that wait. */
export const isDecided = (answer) =>
  answer.parts.some((part) => part.state === "approval-responded") &&
  !answer.parts.some((part) => part.state === "approval-requested");

/** Adds up the tokens and the cost of answers; a sum is undefined if no answer has it. */
export function total(answers) {
  const sum = (read) => {
    const values = answers.map(read).filter((value) => value !== undefined);
    return values.length ? values.reduce((a, b) => a + b) : undefined;
  };
  return {
    input: sum((answer) => answer.usage?.inputTokens),
    output: sum((answer) => answer.usage?.outputTokens),
    cost: sum((answer) => answer.cost),
  };
}
