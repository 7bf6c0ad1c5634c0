"""Notebooks: outputs that change, and Markdown of a model as HTML in which nothing of the model can run.

JupyterLab trusts the output of a cell that ran in it: it runs scripts and event handlers in its HTML, also in the HTML
within Markdown. Such a script can run code in the kernel, and a model may repeat what an attacker wrote on a page. So
the HTML is made here. HTML in the Markdown becomes text, and so does a link with ``javascript:``. A picture becomes a
link: a browser that loads a picture sends its address, which may carry what the model has read.

Source: https://github.com/jupyterlab/jupyterlab/blob/main/packages/rendermime/src/renderers.ts
"""

from __future__ import annotations

import functools
import importlib
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

__all__ = ["Output", "as_html", "in_notebook", "numbered"]

_MATH = re.compile(r"\$\$.+?\$\$|\$(?![\s\d]).*?(?<!\s)\$(?!\d)|\\\(.+?\\\)|\\\[.+?\\\]", re.DOTALL)


def in_notebook() -> bool:
    """Return whether this program runs in the kernel of a notebook."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class Output:
    """An output of the current cell, which appears with its first content."""

    def __init__(self) -> None:
        self._handle: Any = None

    def put(self, text: str, html: str | None = None) -> None:
        """Show this content in place of the content before it."""
        bundle = {"text/plain": text} if html is None else {"text/plain": text, "text/html": html}
        if self._handle is None:
            display = importlib.import_module("IPython.display").display
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def as_html(text: str) -> str:
    """Return Markdown as HTML; without markdown-it-py, the text as it is."""
    from html import escape  # imported here, because only notebooks need it

    parser = _parser()
    return f'<pre style="white-space:pre-wrap">{escape(text)}</pre>' if parser is None else str(parser.render(text))


def numbered(items: Iterable[str]) -> str:
    """Return pieces of HTML as a list, numbered from 0."""
    return f"<ol start=0>{''.join(f'<li>{item}</li>' for item in items)}</ol>"


@functools.cache
def _parser() -> MarkdownIt | None:
    try:
        from markdown_it import MarkdownIt
    except ImportError:
        return None
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("image")
    parser.inline.ruler.before("escape", "math", _math)
    return parser


def _math(state: Any, silent: bool) -> bool:
    """Pass formulas on as they are, for the notebook to draw: Markdown would take their backslashes away."""
    found = _MATH.match(state.src, state.pos)
    if found is None:
        return False
    if not silent:
        state.push("text", "", 0).content = found[0]
    state.pos = found.end()
    return True
