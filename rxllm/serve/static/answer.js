// An answer on the page: each part has a view, which grows with it.

import { Markdown } from "./markdown.js";

export function element(tag, values = {}, ...content) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(values)) {
    if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (name in node && name !== "list") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...content);
  return node;
}

const STATES = {
  "input-streaming": "is being called",
  "input-available": "runs",
  "approval-requested": "waits for you",
  "approval-responded": "is decided",
  "output-available": "done",
  "output-error": "failed",
  "output-denied": "denied",
};

const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

function textView(part) {
  const node = element("div", { className: "markdown" }), markdown = new Markdown(node);
  markdown.write(part.text);
  if (part.open === undefined) markdown.end();
  return { node, update: ({ delta, ended }) => (ended ? markdown.end() : delta && markdown.write(delta)) };
}

function reasoningView(part) {
  const { node: body, update } = textView(part);
  return { node: element("details", { className: "fold" }, element("summary", {}, "Reasoning"), body), update };
}

function toolView(part, decide) {
  const state = element("span", { className: "state" }), input = element("pre", { tabIndex: 0 }), output = element("pre", { tabIndex: 0 });
  const name = part.type.replace("tool-", "");
  const choose = (approved) => () => decide(part, approved);
  const buttons = element("p", { className: "decide" },
    element("button", { type: "button", className: "first", on: { click: choose(true) } }, `Allow ${name}`),
    element("button", { type: "button", on: { click: choose(false) } }, "Deny"));
  const node = element("details", { className: "fold tool" }, element("summary", {}, element("code", {}, name), " ", state), input, output, buttons);
  const update = () => {
    const waits = part.state === "approval-requested";
    state.textContent = part.state === "approval-responded" ? (part.approval.approved ? "allowed" : "denied") : STATES[part.state];
    node.dataset.state = part.state;
    input.textContent = part.input === undefined ? part.raw ?? "" : shown(part.input);
    output.textContent = part.errorText ?? (part.output === undefined ? "" : shown(part.output));
    output.hidden = !output.textContent;
    buttons.hidden = !waits;
    if (waits) node.open = true;
  };
  update();
  return { node, update };
}

function fileView(part) {
  const isPicture = /^data:image\/(?:png|jpeg|gif|webp);/.test(part.url);
  const link = /^(?:data:|https:\/\/)/.test(part.url) ? { href: part.url, download: "" } : {};
  const node = isPicture ? element("img", { src: part.url, alt: "A picture of the answer" }) : element("a", link, `File (${part.mediaType})`);
  return { node, update() {} };
}

function sourceView(part) {
  const isSafe = /^https?:\/\//.test(part.url);
  const link = isSafe ? { href: part.url, target: "_blank", rel: "noopener noreferrer nofollow" } : {};
  return { node: element("p", { className: "source" }, "Source: ", element("a", link, part.title ?? part.url)), update() {} };
}

function viewOf(part, decide) {
  if (part.type === "text") return textView(part);
  if (part.type === "reasoning") return reasoningView(part);
  if (part.type === "file") return fileView(part);
  if (part.type === "source-url") return sourceView(part);
  return part.type.startsWith("tool-") ? toolView(part, decide) : undefined;
}

const number = new Intl.NumberFormat("en");
const NOTES = { stopped: "stopped", length: "cut at the limit of tokens", "content-filter": "cut by the content filter" };

/** Returns the line on tokens and cost. */
export function priced({ input, output, cost }) {
  const tokens = output === undefined ? [] : [`${number.format(input ?? 0)} tokens in`, `${number.format(output)} out`];
  return [...tokens, ...(cost === undefined ? [] : [`$${cost < 0.01 ? cost.toFixed(5) : cost.toFixed(3)}`])].join(" · ");
}

export class AnswerView {
  constructor(answer, { decide, again, timeline, isLast }) {
    this.answer = answer;
    this.decide = decide;
    this.views = new Map();
    this.body = element("div", { className: "body" });
    this.problem = element("p", { className: "error", hidden: true });
    this.facts = element("span", { className: "facts" });
    this.copy = element("button", { type: "button", on: { click: () => navigator.clipboard?.writeText(this.text) } }, "Copy");
    this.again = element("button", { type: "button", on: { click: again } }, "Regenerate");
    this.again.hidden = !isLast;
    this.picture = element("div", { className: "picture" });
    this.timeline = element("details", { className: "fold", on: { toggle: () => this.draw(timeline) } }, element("summary", {}, "Timeline"), this.picture);
    const foot = element("footer", {}, this.facts, this.copy, this.again);
    this.node = element("article", { className: "answer", "aria-label": `Answer of ${answer.model}` }, element("h2", {}, answer.model), this.body, this.problem, this.timeline, foot);
    this.reset();
  }

  get text() {
    return this.answer.parts.filter((part) => part.type === "text").map((part) => part.text).join("\n\n");
  }

  reset() {
    this.views.clear();
    this.body.replaceChildren();
    for (const part of this.answer.parts) this.change({ part });
    this.update();
  }

  change({ part, ...change }) {
    const view = this.views.get(part);
    if (view) return view.update(change);
    const added = viewOf(part, (...decision) => this.decide(...decision));
    if (!added) return;
    this.views.set(part, added);
    this.body.append(added.node);
  }

  /** Draws what happened so far, each time the timeline is opened. */
  async draw(timeline) {
    if (!this.timeline.open) return;
    try {
      const { svg, description } = await timeline();
      this.picture.replaceChildren(element("img", { src: `data:image/svg+xml,${encodeURIComponent(svg)}`, alt: description }));
    } catch (error) {
      this.picture.replaceChildren(error.message);
    }
  }

  update() {
    const { state, error, reason, usage, cost } = this.answer, runs = state === "running";
    this.node.dataset.state = state;
    this.node.setAttribute("aria-busy", String(runs));
    this.problem.hidden = state !== "failed";
    this.problem.textContent = state === "failed" ? error : "";
    const line = priced({ input: usage?.inputTokens, output: usage?.outputTokens, cost });
    this.facts.textContent = [line, NOTES[state] ?? NOTES[reason]].filter(Boolean).join(" · ");
    this.timeline.hidden = !this.answer.epoch;
    this.copy.hidden = runs || !this.text;
    this.again.disabled = runs;
  }
}
