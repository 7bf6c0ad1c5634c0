r"""Text from models and servers, made safe for terminals and logs.

A terminal obeys control characters: an escape sequence in a model's answer can write to the clipboard (OSC 52), change
the window's title, or hide what stands above it. A carriage return can overwrite a line, a bidirectional override can
show it in another order, and a line separator can forge a line of a log. `printable` shows each of these characters
as JSON would write it, such as ``\u001b``, so the terminal never receives it.

These characters stay, because ordinary text needs them: tab and newline; the marks LRM, RLM and ALM of right-to-left
text; the joiners that emoji and several scripts are made of.

Source: https://invisible-island.net/xterm/ctlseqs/ctlseqs.html for what terminals obey, C1 controls included;
https://www.unicode.org/reports/tr9/ for the bidirectional formatting characters.
"""

from __future__ import annotations

import re

__all__ = ["one_line", "printable"]

_OBEYED = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1
    "\u2028\u2029"  # separators of lines and paragraphs
    "\u202a-\u202e\u2066-\u2069"  # bidirectional embeddings, overrides and isolates
    "\ud800-\udfff"  # halves of characters, which no encoding can write
    "]"
)


def printable(text: str) -> str:
    r"""The text with its control characters shown instead of sent; tab and newline stay.

    Each character is replaced on its own, so an escape sequence that is split over several chunks is no exception.
    Inside a JSON string the replacement is the character's own escape: ``printable(json.dumps(value))`` reads back as
    the same value.
    """
    return text if text.isprintable() else _OBEYED.sub(_escaped, text)


def one_line(text: str) -> str:
    """The same on one line: each run of white space becomes a space."""
    return printable(" ".join(text.split()))


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
