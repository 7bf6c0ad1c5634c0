"""What notebooks get: HTML of a model's Markdown, in which nothing can run. tests/clients runs it in kernels."""

import re
import sys
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import rxllm
from rxllm import (
    FilePart,
    Message,
    Pending,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    Usage,
    notebook,
)
from rxllm.notebook import as_html

HARMLESS = {
    *("p", "br", "em", "strong", "s", "code", "pre", "blockquote", "hr", "ul", "ol", "li", "a"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "details", "summary"),
}
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a <b onclick=alert(1)>b</b>",
    "[x](javascript:alert(1))",
    "[x](JAVA&#115;CRIPT:alert(1))",
    "<javascript:alert(1)>",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x]: vbscript:alert(1)\n\n[x]",
    "![x](http://192.0.2.1/?secret)",
    "![x][y]\n\n[y]: http://192.0.2.1/?secret",
    '```"><script>alert(1)</script>\nx\n```',
    '[x](http://a "\\"onmouseover=alert(1) x=\\"")',
    "$<img src=x onerror=alert(1)>$ \\(<script>\\)",
    "- ```\n  x\n<script>alert(1)</script>",
    "$$\n```\n$$\n<script>alert(1)</script>",
]


class Tags(HTMLParser):
    """The tags of HTML, and its attributes."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.texts = set(), [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        """Keep a tag and its attributes."""
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        """Keep a text."""
        self.texts.append(data)


def check_harmless(html):
    """Fail unless the HTML has only tags and attributes that run nothing and load nothing."""
    found = Tags(html)
    assert found.tags <= HARMLESS
    for name, value in found.attributes:
        assert name in ("href", "title", "class", "style", "start", "open")
        if name == "href":
            assert re.match(r"(?!(javascript|vbscript|file|data):)", value.strip(), re.IGNORECASE)
        if name == "style":
            assert value in ("opacity:.6;font-size:85%", "white-space:pre-wrap", "text-align:left") or re.fullmatch(
                r"text-align:(left|right|center)", value
            )


# ── Markdown ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_in_markdown_can_run_or_load(text):
    """HTML is text. Links to scripts are text, and pictures are links."""
    check_harmless(as_html(text))


@given(st.text(st.sampled_from("<>&\"'`$\\()[]!#*_-|:/ \n\tajsx"), max_size=40))
@example("[<img>](x)")
def test_no_mixture_of_marks_can_run_or_load(text):
    """The same for any text of these marks."""
    check_harmless(as_html(text))
    check_harmless(
        Message("assistant", [ReasoningPart(text), TextPart(text), ToolCallPart("1", text, text)])._repr_html_()
    )


def test_markdown_is_drawn():
    """Headings, emphasis, code, lists, tables, links."""
    html = as_html(
        "# A\n\n*b* **c** `d`\n\n* e\n\n| f |\n|---|\n| g |\n\n[h](https://example.com)\n\n```py\ni < j\n```"
    )
    assert {"h1", "em", "strong", "code", "ul", "li", "table", "th", "td", "a", "pre"} <= Tags(html).tags
    assert "i &lt; j" in html


def test_formulas_keep_their_marks():
    """The notebook draws them. Markdown would take backslashes and underscores away."""
    formulas = [r"$a_b*c*d$", r"$$\frac{1}{2} \\ x$$", r"\(x_1*x_2*\)", "\\[\n a_b \\\\ c_d\n\\]"]
    for formula in formulas:
        assert formula in "".join(Tags(as_html(f"See {formula} here")).texts)
    assert "<em>b</em>" in as_html("It costs $5 *b* and $6.")


def test_markdown_is_plain_text_without_markdown_it(monkeypatch):
    """The text appears as it is; nothing can run in it either."""
    monkeypatch.setitem(sys.modules, "markdown_it", None)
    notebook._parser.cache_clear()
    try:
        assert '<pre style="white-space:pre-wrap">*a* &lt;b&gt;\nc</pre>' == as_html("*a* <b>\nc")
    finally:
        notebook._parser.cache_clear()


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_message_shows_its_parts_and_what_they_took():
    """Reasoning and results are folded, calls are code; below are the model, the tokens and an unusual end."""
    message = Message(
        "assistant",
        [
            ReasoningPart("I *think*."),
            TextPart("Tea is *ho"),
            TextPart("t*."),
            ToolCallPart("1", "weather", '{"city": "<Oslo>"}'),
            rxllm.ToolResultPart("1", "<rain>", name="weather"),
            rxllm.ToolResultPart("2", "no", outcome="error"),
            Pending(ToolCallPart("2", "mail", "{}")),
            FilePart("image/png", b"abc"),
            RawPart("openai", {"secret": "blob"}),
        ],
        usage=Usage(input_tokens=3, output_tokens=4000),
        model="<m>",
        finish_reason="length",
        interrupted=True,
    )
    assert (
        "<details><summary>Reasoning</summary><p>I <em>think</em>.</p></details>"
        "<p>Tea is <em>hot</em>.</p>"
        "<p><code>weather({&quot;city&quot;: &quot;&lt;Oslo&gt;&quot;})</code></p>"
        "<details><summary>Result of weather</summary><pre>&lt;rain&gt;</pre></details>"
        "<details><summary>Result (error)</summary><pre>no</pre></details>"
        "<p><code>mail({})</code> waits for an approval</p>"
        "<p><code>FilePart(&#x27;image/png&#x27;, &lt;3 bytes&gt;)</code></p>"
        '<p style="opacity:.6;font-size:85%">'
        "&lt;m&gt; · 3 input tokens · 4,000 output tokens · ended by length · interrupted</p>"
    ) == message._repr_html_().replace("\n", "")


@pytest.mark.parametrize(
    ("parts", "html"),
    [
        ([ReasoningPart("a")], "<details open><summary>Reasoning</summary><p>a</p></details>"),
        ([ReasoningPart("", signature="s"), TextPart("a")], "<p>a</p>"),
        ([RefusalPart("*no*")], "<p><em>no</em></p>"),
        ([], ""),
    ],
)
def test_message_shows_what_it_has(parts, html):
    """Reasoning is open until the text begins; encrypted reasoning is not shown."""
    assert html == Message("assistant", parts)._repr_html_().replace("\n", "")


def test_results_of_generate_are_a_list_of_answers():
    """With the numbers of their prompts."""
    result = rxllm.Embedded(seed=1, max_tokens=3).generate(["a", "b"])
    html = result._repr_html_()
    check_harmless(html)
    assert html.startswith("<ol start=0><li><p>")
    assert 2 == html.count("<li>")
    assert result.generations[0][0]._repr_html_() in html


def test_message_offers_no_raw_markdown():
    """JupyterLab would run the HTML within it."""
    assert not hasattr(Message("user", "hi"), "_repr_markdown_")


# ── the kernel ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_script_is_no_notebook(monkeypatch):
    """Neither without IPython, nor in the shell of IPython on a terminal."""
    assert not notebook.in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", type("IPython", (), {"get_ipython": staticmethod(lambda: object())}))
    assert not notebook.in_notebook()
