// Markdown as it arrives: writes DOM nodes, appends only, and never parses text twice.
//
// What cannot be decided yet is held back: the beginning of a line until its block is known, and an inline construct,
// such as a link, until it is closed. At the end of its block an open construct is plain text. Raw HTML is plain text.

const HELD = 1000; // characters that an open inline construct may have; a longer one is plain text
const SPECIAL = /[\\`*_~[!<\n]|https?:\/\//;
const SAFE = /^(?:https?:\/\/|mailto:)/i;
const WORD = /[\p{L}\p{N}]/u;
const WAIT = "wait"; // more text decides

const LINK = /^!?\[((?:\\.|[^[\]\\]|\[[^[\]]*\])*)\]\(\s*(?:<([^<>\n]*)>|((?:\\.|[^\s()\\]|\([^\s()]*\))*))(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/;
const OPEN_LINK = /^!?\[(?:\\.|[^[\]\\\n]|\[[^[\]\n]*\]?)*(?:\](?:\([^\n]*)?)?$/;
const ADDRESS = /^https?:\/\/[^\s<>"'`*\\]+/;

const element = (d, tag, ...content) => {
  const node = d.createElement(tag);
  node.append(...content);
  return node;
};

function anchor(d, href, content) {
  const target = href.replace(/\\([!-/:-@[-`{-~])/g, "$1").trim();
  if (!SAFE.test(target)) return content;
  const node = element(d, "a", content);
  node.setAttribute("href", target);
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
  return node;
}

const run = (text, index) => {
  let end = index;
  while (text[end] === text[index]) end++;
  return end - index;
};

/** The index of the run that closes a code span, or -1. */
function endOfCode(text, start) {
  const length = run(text, start);
  for (let index = start + length; index < text.length; index++) {
    if (text[index] !== "`") continue;
    const found = run(text, index);
    if (found === length) return index;
    index += found - 1;
  }
  return -1;
}

/** The index of the mark that closes an emphasis, or -1. */
function endOfEmphasis(text, mark) {
  for (let index = mark.length; index < text.length; index++) {
    if (text[index] === "\\") index++;
    else if (text[index] === "`") {
      const end = endOfCode(text, index);
      if (end > 0) index = end + run(text, end) - 1;
    } else if (text[index] === mark[0]) {
      const found = run(text, index), closes = !/\s/.test(text[index - 1]);
      if (closes && (found === mark.length || found >= 3)) return index + found - mark.length;
      index += found - 1;
    }
  }
  return -1;
}

// Each inline construct, from the text at its beginning: { node, used }, WAIT, or nothing.
const INLINE = [
  function escape({ text, final, d }) {
    if (text[0] !== "\\") return;
    if (text.length === 1) return final ? undefined : WAIT;
    if (text[1] === "\n") return { node: element(d, "br"), used: 2 };
    if (/[!-/:-@[-`{-~]/.test(text[1])) return { node: d.createTextNode(text[1]), used: 2 };
  },
  function lineBreak({ text, d }) {
    if (text[0] === "\n") return { node: element(d, "br"), used: 1 };
  },
  function code({ text, final, d }) {
    if (text[0] !== "`") return;
    const length = run(text, 0), end = endOfCode(text, 0);
    if (end < 0 || (!final && end + length === text.length)) return WAIT;
    const content = text.slice(length, end).replace(/\n/g, " ");
    const trimmed = /^ .*[^ ].* $/.test(content) ? content.slice(1, -1) : content;
    return { node: element(d, "code", d.createTextNode(trimmed)), used: end + length };
  },
  // A picture is a link: to load it would tell its server who reads the answer, and what the model was made to say.
  function link({ text, final, d }) {
    if (text[0] !== "[" && text[0] !== "!") return;
    const found = LINK.exec(text);
    if (!found) return final || (text !== "!" && !OPEN_LINK.test(text)) ? undefined : WAIT;
    const href = found[2] ?? found[3];
    const label = found[1] ? written(d, "span", found[1]) : d.createTextNode(href);
    return { node: anchor(d, href, label), used: found[0].length };
  },
  function bracketed({ text, final, d }) {
    const found = /^<((?:https?:\/\/|mailto:)[^\s<>]+)>/i.exec(text);
    if (found) return { node: anchor(d, found[1], d.createTextNode(found[1])), used: found[0].length };
    if (!final && /^<[^\s<>]*$/.test(text)) return WAIT;
  },
  function address({ text, final, d }) {
    const found = ADDRESS.exec(text);
    if (!found) return !final && /^https?:\/\/$/.test(text) ? WAIT : undefined;
    if (!final && found[0].length === text.length) return WAIT;
    const href = found[0].replace(/[.,:;!?)\]]*$/, "");
    return { node: anchor(d, href, d.createTextNode(href)), used: href.length };
  },
  function emphasis({ text, final, d, last }) {
    const char = text[0], length = "*_~".includes(char) ? run(text, 0) : 0;
    if (!length || length > 3 || (char === "_" && WORD.test(last))) return;
    if (length === text.length) return final ? undefined : WAIT;
    if (char === "~" && length !== 2) return;
    if (/\s/.test(text[length])) return;
    const mark = char.repeat(Math.min(length, 2)), end = endOfEmphasis(text, mark);
    if (end < 0 || (!final && end + mark.length === text.length)) return WAIT;
    if (char === "_" && WORD.test(text[end + mark.length] ?? "")) return;
    const tag = char === "~" ? "del" : mark.length === 2 ? "strong" : "em";
    return { node: written(d, tag, text.slice(mark.length, end)), used: end + mark.length };
  },
];

/** Writes inline text into a node. */
class Inline {
  constructor(node, d) {
    this.node = node;
    this.d = d;
    this.held = "";
    this.last = ""; // the last character that was written
  }

  write(text) {
    this.held += text;
    this.#consume(false);
  }

  end() {
    this.held = this.held.replace(/\s+$/, "");
    this.#consume(true);
  }

  #consume(final) {
    while (this.held) {
      const found = SPECIAL.exec(this.held);
      if (!found) {
        // "https:/" may become an address
        const partial = final ? null : /(?<![\p{L}\p{N}])h(?:t(?:t(?:p(?:s?(?::\/?)?)?)?)?)?$/u.exec(this.held);
        this.#text(partial ? partial.index : this.held.length);
        return;
      }
      if (found.index) this.#text(found.index);
      else if (!this.#special(final)) return;
    }
  }

  /** Writes the construct at the beginning of what is held; false if more text may decide it. */
  #special(final) {
    const text = this.held.slice(0, HELD); // else each mark of a long text would be looked up in all of it
    let waits = false;
    for (const construct of INLINE) {
      const found = construct({ text, final, d: this.d, last: this.last });
      if (found === WAIT) waits = true;
      else if (found) {
        this.node.append(found.node);
        this.last = text[found.used - 1];
        this.held = this.held.slice(found.used);
        return true;
      }
    }
    if (waits && !final && text.length < HELD) return false;
    this.#text(/^[*_~`]/.test(text) ? run(text, 0) : text.startsWith("http") ? 4 : 1);
    return true;
  }

  #text(length) {
    if (!length) return;
    const text = this.held.slice(0, length);
    this.held = this.held.slice(length);
    this.last = text.at(-1);
    const previous = this.node.lastChild;
    if (previous?.nodeType === 3) previous.appendData(text);
    else this.node.append(this.d.createTextNode(text));
  }
}

function written(d, tag, text) {
  const node = element(d, tag), inline = new Inline(node, d);
  inline.write(text);
  inline.end();
  return node;
}

const MARKER = /^(?:[-*+]|(\d{1,9})[.)]) +(?=\S)/;
const DEPTH = 24; // quotes and lists within each other; deeper ones are text
const RULE_LENGTH = 200;
const RULE = /^([-*_])(?:[ \t]*\1){2,}[ \t]*\n$/;
const RULE_SO_FAR = /^([-*_])(?:[ \t]*\1)*[ \t]*$/;
const FENCE = /^(`{3,}|~{3,})[ \t]*([^`\n]*)\n$/;
const DELIMITERS = /^\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*\n$/;

/** Writes Markdown into an element: `write` as often as text arrives, then `end`. */
export class Markdown {
  constructor(root, d = globalThis.document) {
    this.d = d;
    this.containers = [{ kind: "root", node: root }]; // root, quotes, lists and their items
    this.leaf = null; // the open block: { kind: "text" | "code" | "table", … }
    this.line = ""; // the beginning of a line whose block is not known yet
    this.row = null; // the line that may be the head of a table
    this.decided = false; // whether the block of this line is known
    this.patient = false; // whether only the whole line decides
  }

  write(piece) {
    const text = piece.replaceAll("\r", "");
    for (let start = 0; start < text.length; ) {
      if (this.decided) {
        const newline = text.indexOf("\n", start);
        const end = newline < 0 ? text.length : newline;
        this.#content(text.slice(start, end));
        if (newline >= 0) this.#endOfLine();
        start = newline < 0 ? text.length : newline + 1;
      } else if (this.patient) {
        const newline = text.indexOf("\n", start), end = newline < 0 ? text.length : newline + 1;
        this.line += text.slice(start, end);
        start = end;
        if (newline >= 0) this.#begin();
      } else {
        this.line += text[start++];
        this.#begin();
      }
    }
  }

  end() {
    if (!this.decided && this.line) {
      this.line += "\n";
      this.#begin();
    }
    if (this.row !== null) this.#headIsText();
    this.#close(0);
  }

  get top() {
    return this.containers.at(-1);
  }

  #add(tag) {
    const node = this.d.createElement(tag);
    this.top.node.append(node);
    return node;
  }

  #content(text) {
    if (!text) return;
    if (this.leaf.kind === "code") this.leaf.text.appendData(text);
    else this.leaf.inline.write(text);
  }

  #endOfLine() {
    if (this.leaf.kind === "code") this.leaf.text.appendData("\n");
    else if (this.leaf.heading) this.#closeLeaf();
    this.#nextLine();
  }

  #nextLine() {
    this.line = "";
    this.decided = this.patient = false;
  }

  #closeLeaf() {
    this.leaf?.inline?.end();
    this.leaf = null;
  }

  #close(matched) {
    this.#closeLeaf();
    this.containers.length = Math.max(1, matched);
  }

  /** Decides the block of a line, if its beginning suffices. */
  #begin() {
    const whole = this.line.endsWith("\n");
    let position = 0, matched = 1;
    for (; matched < this.containers.length; matched++) {
      const container = this.containers[matched], rest = this.line.slice(position);
      if (container.kind === "quote") {
        const mark = /^ {0,3}>( ?)/.exec(rest);
        if (!mark) {
          if (!whole && /^ {0,3}$/.test(rest)) return;
          break;
        }
        if (!whole && mark[0].length === rest.length && !mark[1]) return;
        position += mark[0].length;
      } else if (container.kind === "item") {
        const spaces = /^ */.exec(rest)[0].length;
        if (spaces < container.indent) {
          if (!whole && spaces === rest.length) return;
          if (rest !== "\n") break;
        } else position += container.indent;
      }
    }
    const rest = this.line.slice(position);
    if (this.leaf?.kind === "code") this.#codeLine(rest, matched, whole);
    else this.#block(rest, matched, whole);
  }

  #codeLine(rest, matched, whole) {
    const left = this.containers.slice(matched);
    if (left.some((container) => container.kind === "quote")) {
      this.#close(matched);
      return this.#begin();
    }
    const indent = left.reduce((sum, container) => sum + (container.indent ?? 0), this.leaf.indent);
    const text = rest.replace(new RegExp(`^ {0,${indent}}`), "");
    const { fence } = this.leaf, marks = text.trim();
    if ([...marks].every((char) => char === fence[0])) {
      if (!whole) return; // the line may be the closing fence
      if (marks.length >= fence.length) {
        this.leaf = null;
        return this.#nextLine();
      }
    }
    this.#rest(text, whole);
  }

  #block(rest, matched, whole) {
    const spaces = /^ */.exec(rest)[0].length, text = rest.slice(spaces);
    if (!text) return spaces > RULE_LENGTH ? this.#wait() : undefined;
    if (this.row !== null) return this.#afterHead(rest, matched, whole);
    if (text === "\n") {
      this.#closeLeaf();
      const quote = this.containers.findIndex((container, index) => index >= matched && container.kind === "quote");
      if (quote > 0) this.#close(quote);
      return this.#nextLine();
    }
    if (this.leaf?.kind === "table" && text[0] === "|") {
      if (!whole) return this.#wait();
      this.#tableRow(text, "td");
      return this.#nextLine();
    }
    switch (text[0]) {
      case "#": {
        if (/^#{1,6}$/.test(text)) return;
        const mark = /^(#{1,6})[ \n]/.exec(text);
        if (!mark) break;
        this.#open(matched);
        this.leaf = { kind: "text", heading: true, inline: new Inline(this.#add(`h${mark[1].length}`), this.d) };
        return this.#rest(text.slice(mark[0].length), whole);
      }
      case ">":
        if (text === ">") return;
        if (this.containers.length > DEPTH) break;
        this.#open(matched);
        this.containers.push({ kind: "quote", node: this.#add("blockquote") });
        return this.#begin();
      case "`":
      case "~": {
        if (!whole && /^(`{1,2}|~{1,2})$/.test(text)) return;
        if (!whole && /^(`{3}|~{3})/.test(text)) return this.#wait();
        const fence = FENCE.exec(text);
        if (!fence) break;
        this.#open(matched);
        this.leaf = { kind: "code", fence: fence[1], indent: spaces, text: this.#codeBlock(fence[2].trim()) };
        return this.#nextLine();
      }
      case "|":
        if (!whole) return this.#wait();
        this.#open(matched);
        this.row = text;
        return this.#nextLine();
      case "-":
      case "*":
      case "_":
      case "+":
      case "0": case "1": case "2": case "3": case "4": case "5": case "6": case "7": case "8": case "9": {
        if (RULE.test(text)) {
          this.#open(matched);
          this.#add("hr");
          return this.#nextLine();
        }
        if (!whole && text.length < RULE_LENGTH && (RULE_SO_FAR.test(text) || /^(?:\+ *|\d{1,9}[.)]? *)$/.test(text))) return;
        const marker = MARKER.exec(text);
        if (!marker || this.containers.length > DEPTH) break;
        return this.#item(marker, spaces, matched, text);
      }
    }
    this.#paragraph(text, matched, whole);
  }

  /** Closes what a new block ends: the open paragraph, and containers that its line does not continue. */
  #open(matched) {
    this.#closeLeaf();
    while (this.containers.length > matched) this.containers.pop();
    if (this.top.kind === "list") this.containers.pop();
  }

  #wait() {
    this.patient = true;
  }

  #rest(text, whole) {
    this.decided = true;
    this.#content(whole ? text.slice(0, -1) : text);
    if (whole) this.#endOfLine();
  }

  #paragraph(text, matched, whole) {
    if (this.leaf?.inline && !this.leaf.heading) {
      this.leaf.inline.write("\n"); // a line break of the model is a line break
    } else {
      this.#open(matched);
      this.leaf = { kind: "text", inline: new Inline(this.#add("p"), this.d) };
    }
    this.#rest(text, whole);
  }

  #item(marker, spaces, matched, text) {
    const ordered = marker[1] !== undefined;
    this.#closeLeaf();
    while (this.containers.length > matched) this.containers.pop();
    if (this.top.kind === "list" && this.top.ordered !== ordered) this.containers.pop();
    if (this.top.kind !== "list") {
      const node = this.#add(ordered ? "ol" : "ul");
      if (ordered && Number(marker[1]) !== 1) node.setAttribute("start", String(Number(marker[1])));
      this.containers.push({ kind: "list", ordered, node });
    }
    this.containers.push({ kind: "item", indent: spaces + marker[0].length, node: this.#add("li") });
    // The rest of the line is read as a line inside of the item, to which the marker is indentation.
    this.line = this.line.slice(0, this.line.length - text.length) + " ".repeat(marker[0].length) + text.slice(marker[0].length);
    this.#begin();
  }

  #codeBlock(language) {
    const { d } = this, text = d.createTextNode(""), pre = element(d, "pre", element(d, "code", text));
    pre.setAttribute("tabindex", "0");
    const copy = element(d, "button", d.createTextNode("Copy"));
    copy.setAttribute("type", "button");
    this.#add("figure").append(element(d, "figcaption", element(d, "span", d.createTextNode(language)), copy), pre);
    return text;
  }

  #afterHead(rest, matched, whole) {
    if (!whole) {
      if (/^[ \t|:-]*$/.test(rest)) return rest.length > RULE_LENGTH ? this.#wait() : undefined;
    } else if (DELIMITERS.test(rest.replace(/[ \t]+/g, " "))) { // one space each keeps the match linear
      const box = this.#add("div"), node = element(this.d, "table");
      box.setAttribute("class", "table");
      box.append(node);
      this.leaf = { kind: "table", node };
      const head = this.row;
      this.row = null;
      this.#tableRow(head, "th");
      return this.#nextLine();
    }
    this.#headIsText();
    this.#block(rest, matched, whole);
  }

  #headIsText() {
    const text = this.row;
    this.row = null;
    this.leaf = { kind: "text", inline: new Inline(this.#add("p"), this.d) };
    this.leaf.inline.write(text.trimEnd());
  }

  #tableRow(text, tag) {
    const row = this.d.createElement("tr");
    const cells = text.trim().replace(/^\||(?<!\\)\|$/g, "").split(/(?<!\\)\|/);
    for (const cell of cells) row.append(written(this.d, tag, cell.trim().replace(/\\\|/g, "|")));
    this.leaf.node.append(row);
  }
}
