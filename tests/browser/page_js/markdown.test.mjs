// The page's Markdown, in whatever pieces it arrives.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Markdown } from "../../../rxllm/serve/static/markdown.js";
import { document, inner } from "./dom.mjs";

function shown(pieces) {
  const root = document.createElement("div"), markdown = new Markdown(root, document);
  for (const piece of pieces) markdown.write(piece);
  markdown.end();
  return inner(root).replaceAll("<figcaption><span></span><button>Copy</button></figcaption>", "");
}

const CASES = {
  "a paragraph": ["Hello, world.", "<p>Hello, world.</p>"],
  "two paragraphs": ["a\n\n\nb\n", "<p>a</p><p>b</p>"],
  "a line break is kept": ["roses\nviolets", "<p>roses<br>violets</p>"],
  "headings": ["# a\n### b c\n#no\n####### no", "<h1>a</h1><h3>b c</h3><p>#no<br>####### no</p>"],
  "emphasis": ["*a* **b** ***c*** _d_ __e__ ~~f~~", "<p><em>a</em> <strong>b</strong> <strong><em>c</em></strong> <em>d</em> <strong>e</strong> <del>f</del></p>"],
  "emphasis within emphasis": ["**a *b* c** *d **e** f*", "<p><strong>a <em>b</em> c</strong> <em>d <strong>e</strong> f</em></p>"],
  "emphasis ends together": ["**a *b*** and *c **d***", "<p><strong>a <em>b</em></strong> and <em>c <strong>d</strong></em></p>"],
  "stars that are no emphasis": ["2 * 3 * 4, *args, **kwargs, snake_case_name, __init", "<p>2 * 3 * 4, *args, **kwargs, snake_case_name, __init</p>"],
  "marks in code": ["`a*b*` ``c`d`` **`**`**", "<p><code>a*b*</code> <code>c`d</code> <strong><code>**</code></strong></p>"],
  "an open code span is text": ["a `b *c*\n\nd", "<p>a `b <em>c</em></p><p>d</p>"],
  "escapes": ["\\*a\\* \\[b\\](c) \\d", "<p>*a* [b](c) \\d</p>"],
  "links": ["[a *b*](https://x.y/z_(1) \"t\") <https://q.r> mailto", "<p><a href=\"https://x.y/z_(1)\"><span>a <em>b</em></span></a> <a href=\"https://q.r\">https://q.r</a> mailto</p>"],
  "bare addresses": ["see https://a.b/c?d=e. And (http://f.g)!", "<p>see <a href=\"https://a.b/c?d=e\">https://a.b/c?d=e</a>. And (<a href=\"http://f.g\">http://f.g</a>)!</p>"],
  "brackets that are no link": ["[1] is [ ] and ![x] a [b]c", "<p>[1] is [ ] and ![x] a [b]c</p>"],
  "a picture is a link": ["![cat](https://x.y/cat.png)", "<p><a href=\"https://x.y/cat.png\"><span>cat</span></a></p>"],
  "scripts are no links": ["[a](javascript:alert(1)) [b](JaVaScRiPt:x) [c]( data:text/html,x) [d](vbscript:x) [e](/local) [f](java\\script:x)",
    "<p><span>a</span> <span>b</span> <span>c</span> <span>d</span> <span>e</span> <span>f</span></p>"],
  "HTML is text": ["<img src=x onerror=alert(1)>\n<script>alert(1)</script>", "<p>&lt;img src=x onerror=alert(1)><br>&lt;script>alert(1)&lt;/script></p>"],
  "a list": ["- a\n- b\n* c\n\nd", "<ul><li><p>a</p></li><li><p>b</p></li><li><p>c</p></li></ul><p>d</p>"],
  "an ordered list": ["1. a\n2. b\n", "<ol><li><p>a</p></li><li><p>b</p></li></ol>"],
  "a list that goes on": ["3) a\n\n4) b", "<ol start=\"3\"><li><p>a</p></li><li><p>b</p></li></ol>"],
  "nested lists": ["- a\n  - b\n    1. c\n- d", "<ul><li><p>a</p><ul><li><p>b</p><ol><li><p>c</p></li></ol></li></ul></li><li><p>d</p></li></ul>"],
  "a list after a paragraph": ["a:\n- b\n- c", "<p>a:</p><ul><li><p>b</p></li><li><p>c</p></li></ul>"],
  "two kinds of lists": ["- a\n\n1. b", "<ul><li><p>a</p></li></ul><ol><li><p>b</p></li></ol>"],
  "an item of several blocks": ["1. a\n\n   b\n\n   ```\n   c\n     d\n   ```\n2. e", "<ol><li><p>a</p><p>b</p><figure><pre><code>c\n  d\n</code></pre></figure></li><li><p>e</p></li></ol>"],
  "numbers that are no list": ["2024 was\n10.5 is", "<p>2024 was<br>10.5 is</p>"],
  "a rule": ["a\n\n---\n***\n- - -\nb", "<p>a</p><hr><hr><hr><p>b</p>"],
  "bold at the beginning of a line": ["**a**: b\n*c*", "<p><strong>a</strong>: b<br><em>c</em></p>"],
  "a quote": ["> a\n> b\n>\n> - c\n\nd", "<blockquote><p>a<br>b</p><ul><li><p>c</p></li></ul></blockquote><p>d</p>"],
  "a quote within a quote": ["> a\n>> b", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>"],
  "code": ["```python\nif a < b:\n\n    *c*\n```\nd", "<figure><figcaption><span>python</span><button>Copy</button></figcaption><pre><code>if a &lt; b:\n\n    *c*\n</code></pre></figure><p>d</p>"],
  "code with a longer fence": ["````\n```\n``\n````", "<figure><pre><code>```\n``\n</code></pre></figure>"],
  "code that stays open": ["~~~\na\n``", "<figure><pre><code>a\n``</code></pre></figure>"],
  "code in a quote": ["> ```\n> a\n>  b\n> ```\nc", "<blockquote><figure><pre><code>a\n b\n</code></pre></figure></blockquote><p>c</p>"],
  "a table": ["| a | *b* |\n|---|:-:|\n| c \\| d | `e` |\n| f | g |\n\nh",
    "<div class=\"table\"><table><tr><th>a</th><th><em>b</em></th></tr><tr><td>c | d</td><td><code>e</code></td></tr><tr><td>f</td><td>g</td></tr></table></div><p>h</p>"],
  "bars that are no table": ["| a |\n| b |\nc", "<p>| a |</p><p>| b |<br>c</p>"],
  "a lone bar at the end": ["| a", "<p>| a</p>"],
  "carriage returns": ["a\r\n\r\n- b\r\n", "<p>a</p><ul><li><p>b</p></li></ul>"],
  "spaces at the end of a line": ["a  \nb \n", "<p>a  <br>b </p>"],
};

for (const [name, [source, expected]] of Object.entries(CASES)) {
  test(`${name}`, () => {
    assert.equal(shown([source]), expected);
    assert.equal(shown([...source]), expected, "character by character");
    for (const size of [2, 3, 5, 7]) {
      const pieces = source.match(new RegExp(`[^]{1,${size}}`, "g"));
      assert.equal(shown(pieces), expected, `in pieces of ${size}`);
    }
  });
}

test("text appears as soon as it is decided", () => {
  const root = document.createElement("div"), markdown = new Markdown(root, document);
  markdown.write("Hello **wor");
  assert.equal(inner(root), "<p>Hello </p>");
  markdown.write("ld** now");
  assert.equal(inner(root), "<p>Hello <strong>world</strong> now</p>");
  markdown.write("\n```\ncode");
  assert.match(inner(root), /<pre><code>code<\/code><\/pre>/);
});

test("what was written stays the same node", () => {
  const root = document.createElement("div"), markdown = new Markdown(root, document);
  markdown.write("a");
  const [paragraph] = root.children, [text] = paragraph.children;
  for (const piece of [" b", " **c**", " d\n\ne", "\n- f"]) markdown.write(piece);
  assert.equal(root.children[0], paragraph);
  assert.equal(paragraph.children[0], text);
});

test("an open construct does not hold a long text back", () => {
  const root = document.createElement("div"), markdown = new Markdown(root, document);
  markdown.write("*" + "a".repeat(1200));
  assert.match(inner(root), /^<p>\*a+<\/p>$/);
});

test("a long text in one piece takes linear time", () => {
  const time = (source) => {
    const before = process.cpuUsage().user;
    shown([source]);
    return process.cpuUsage(undefined).user - before;
  };
  const texts = [(n) => "**a ".repeat(n), (n) => `|a|\n|-|\n|${"**a ".repeat(n)}|\n`, (n) => `|a|\n-${" ".repeat(4 * n)}x\n`, (n) => " ".repeat(4 * n)];
  for (const text of texts) {
    time(text(500));
    const small = Math.min(time(text(2500)), time(text(2500)));
    const large = Math.min(time(text(10_000)), time(text(10_000)));
    assert.ok(large < 12 * Math.max(small, 30_000), `${text(3)}: four times the text takes ${large / small} times as long`);
  }
});

test("no text takes more than linear time", () => {
  const time = (source) => {
    const before = process.cpuUsage().user; // a busy machine does not count
    shown(source.match(/[^]{1,7}/g));
    return process.cpuUsage(undefined).user - before;
  };
  for (const seed of ["*", "`", "[", "**a ", "> ", "- ", "| ", "<", "[a](", "``` `", "![", "1. ", "(http://a", "- a\n"]) {
    time(seed.repeat(500));
    const small = Math.min(time(seed.repeat(2000)), time(seed.repeat(2000)));
    const large = Math.min(time(seed.repeat(8000)), time(seed.repeat(8000)));
    assert.ok(large < 12 * Math.max(small, 30_000), `${seed}: four times the text takes ${large / small} times as long`);
  }
});
