// The few functions of the DOM that the page's Markdown uses; `outer` shows a tree.

class Text {
  nodeType = 3;
  constructor(data) {
    this.data = data;
  }
  appendData(text) {
    this.data += text;
  }
}

class Element {
  nodeType = 1;
  children = [];
  attributes = {};
  constructor(tag) {
    this.tag = tag;
  }
  append(...nodes) {
    this.children.push(...nodes);
  }
  get lastChild() {
    return this.children.at(-1);
  }
  setAttribute(name, value) {
    this.attributes[name] = value;
  }
}

export const document = {
  createElement: (tag) => new Element(tag),
  createTextNode: (data) => new Text(data),
};

const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");

export function outer(node) {
  if (node.nodeType === 3) return escaped(node.data);
  const attributes = Object.entries(node.attributes)
    .filter(([name]) => !["target", "rel", "tabindex", "type"].includes(name))
    .map(([name, value]) => ` ${name}="${value}"`)
    .join("");
  if (node.tag === "br" || node.tag === "hr") return `<${node.tag}>`;
  return `<${node.tag}${attributes}>${inner(node)}</${node.tag}>`;
}

export const inner = (node) => node.children.map(outer).join("");
