"""`Blocks`: Markdown at a terminal, block by block.

A block is finished when the next one has begun: no later line changes it, because a block of Markdown depends on its
own lines only. The parser does not know what would break this rule or would hide a part of the answer: definitions of
links, HTML, and images. They stay as they are written.

Source: https://spec.commonmark.org/0.31.2/#phase-1-block-structure for blocks, which stay closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..terminal import printable

if TYPE_CHECKING:
    from markdown_it.token import Token
    from rich.console import Console, RenderableType
    from rich.segment import Segment, SegmentLines

__all__ = ["Blocks"]

_HEAD = 2  # lines of a block that say what it is: the fence of code, or the head of a table


class Blocks:
    """Markdown, which is finished block by block."""

    def __init__(self) -> None:
        from markdown_it import MarkdownIt

        parser = MarkdownIt().enable(["strikethrough", "table"])
        self._parser = parser.disable(["html_block", "html_inline", "image", "reference"])
        self._has_printed = False

    def split(self, text: str) -> tuple[str, str]:
        """Return all blocks but the last one, and the rest. Only whole lines say where a block begins."""
        lines = text.split("\n")
        blocks = [
            token.map[0]
            for token in self._parser.parse("\n".join([*lines[:-1], ""]))
            if token.map is not None and token.level == 0
        ]
        if len(blocks) < 2:
            return "", text
        return "\n".join([*lines[: blocks[-1]], ""]), "\n".join(lines[blocks[-1] :])

    def show(self, console: Console, text: str) -> None:
        """Print blocks, with an empty line between two of them."""
        lines = self._lines(console, text)
        self._has_printed = True
        console.print(lines, end="")

    def drawn(self, console: Console, text: str) -> RenderableType:
        """Return the last block: its first lines, and at least those of its last lines that the terminal can show."""
        columns, height = console.size
        lines = text.split("\n")
        if len(lines) > 2 * height:
            text = "\n".join([*lines[:_HEAD], *lines[-2 * height :]])
        return self._lines(console, text[-2 * height * columns :])

    def _lines(self, console: Console, text: str) -> SegmentLines:
        """Return blocks as lines, with an empty one before them if there is text above, instead of rich's own ones."""
        from rich.markdown import Markdown
        from rich.segment import SegmentLines

        markdown = Markdown("", hyperlinks=False)  # so that the address of a link is shown
        markdown.parsed = [_printable(token) for token in self._parser.parse(text)]
        lines = list(map(_trimmed, console.render_lines(markdown, pad=False)))
        while lines and not lines[0]:
            del lines[0]
        while lines and not lines[-1]:
            del lines[-1]
        return SegmentLines([[], *lines] if self._has_printed and lines else lines, new_lines=True)


def _trimmed(line: list[Segment]) -> list[Segment]:
    """Return a line without the spaces at its end, unless they are coloured."""
    line = [*line]
    while line and not line[-1].text.strip() and not (line[-1].style and line[-1].style.bgcolor):
        del line[-1]
    return line


def _printable(token: Token) -> Token:
    """Return a token without control characters: the text may have had them as entities, such as ``&#13;``."""
    token.content = printable(token.content)
    token.attrs = {name: printable(value) if isinstance(value, str) else value for name, value in token.attrs.items()}
    token.children = None if token.children is None else [_printable(child) for child in token.children]
    return token
