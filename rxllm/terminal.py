r"""Makes text from models and servers safe for terminals and logs.

A terminal executes control characters. An escape sequence in a model's answer can write to the clipboard (OSC 52),
change the window's title, or hide the text above. A carriage return can overwrite a line. A bidirectional override can
reorder a line. A line separator can forge a line of a log. `printable` replaces each of these characters by its JSON
escape, such as ``\u001b``, so the terminal never receives it.

Ordinary text needs some characters, so they stay: tab and newline; the marks LRM, RLM and ALM of right-to-left text;
the joiners of emoji and of several scripts.

Source: https://invisible-island.net/xterm/ctlseqs/ctlseqs.html for the control characters of terminals, C1 included;
https://www.unicode.org/reports/tr9/ for the bidirectional formatting characters.
"""

from __future__ import annotations

import re
from typing import TextIO

__all__ = ["is_terminal", "one_line", "printable", "shortened"]

_CONTROL = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1
    "\u2028\u2029"  # separators of lines and paragraphs
    "\u202a-\u202e\u2066-\u2069"  # bidirectional embeddings, overrides and isolates
    "\ud800-\udfff"  # surrogates, which cannot be encoded
    "]"
)


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether the stream is a terminal. Standard streams are None in a process without a console."""
    return stream is not None and stream.isatty()


def printable(text: str) -> str:
    r"""Return the text with its control characters as escapes; tab and newline stay.

    Each character is replaced on its own, so a split escape sequence is handled, too. Inside a JSON string the
    replacement is the character's own escape: ``printable(json.dumps(value))`` reads back as the same value.
    """
    return text if text.isprintable() else _CONTROL.sub(_escaped, text)


def one_line(text: str) -> str:
    """Return the printable text on one line: each run of white space becomes a space."""
    return printable(" ".join(text.split()))


def shortened(text: str, width: int) -> str:
    """Return the text with at most `width` characters. A text that is cut ends with ``…``."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
