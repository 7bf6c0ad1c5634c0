"""`sentences`: cut text into sentences, as for speech."""

from __future__ import annotations

import re
from collections.abc import Callable

from reactivex import Observable, abc

from ._pieces import Pieces, Texts, cutting
from .stage import makes_operator

__all__ = ["sentences"]


OPENING = r"「『（《〈【〔［｛"


@makes_operator(adds_up="text")
def sentences() -> Callable[[Texts], Observable[str]]:
    """Emit the text sentence by sentence, for speech, translation and moderation.

    ::

        -He is Mr. -Smith. She- is not.-|
        sentences()
        ------------He is Mr. Smith. ---She is not.|

    Shape: takes chunks or strings; emits strings. A sentence includes the whitespace after it, and is emitted when the
    next one begins, the last one at the end. A sentence ends

    * with ``. ! ? …`` (and their like in Arabic, Hindi, Armenian), then perhaps quotes, brackets or Markdown's
      asterisks, then whitespace, unless a small letter follows;
    * with ``。！？`` and perhaps quotes or brackets, without whitespace, unless hiragana follows the quotation;
    * with a blank line, and with a line end before an item of a list, a heading, a quotation or a table's row.

    A sentence does not end after titles and other common abbreviations (Mr., Dr., z. B., e.g., No. 5), single letters
    (J. S. Bach) and the number of a list item (1.). Known mistakes: a sentence that ends with ``Plan B.`` is joined to
    the next one, and German ordinals (``am 3. Oktober``) are cut.

    Errors: those of the source, after the held text. `MisuseError` for a ``reset``, as for `text`.

    Source: Unicode Standard Annex 29, for the marks and the characters that may close them.
    """
    return cutting(_Sentences)


_SPACED = ".!?…‼⁇⁈⁉؟۔।॥։"


_UNSPACED = "。！？｡"


_CLOSING = "\"'”’»›)]}*_`~" + "」』）》〉】〕］｝"


_MARK = rf"[{_SPACED}{_UNSPACED}\n\r]"


_MAYBE = rf"(?<=\s)(?=\S)|(?<=[{_UNSPACED}{re.escape(_CLOSING)}])(?=[^\s{_SPACED}{_UNSPACED}{re.escape(_CLOSING)}])"


_BLOCK = r"[-*+•–>#|\d]"  # begins an item of a list, a quotation, a heading or a row


_TOKEN = r"[^\s(\[{\"'“‘«„¿¡—–*_/]*\Z"  # noqa: S105  (not a secret)


_BEFORE_ANYTHING = (
    "mr|mrs|ms|mx|dr|prof|st|mt|sr|sra|srta|ud|uds|dott|sig|messrs|rev|hon|gen|col|capt|cpt|lt|sgt|maj|cmdr|adm|gov|sen"
    "|rep|pres|supt|insp|vs|al|cf|viz|approx|ca|bzw|ggf|evtl|vgl|hr|hrn|fr|dipl|ing|sog|inkl|exkl|zzgl|allg"
)


_BEFORE_NUMBERS = "nos?|nr|nro|figs?|abb|tab|eqs?|sec|ch|chap|kap|art|vol|bd|pp|pg|pág|op|ref|ver"


_FAR = 64  # characters before a possible end of a sentence that are considered


class _Sentences(Pieces):
    """Decides each possible end of a sentence by the characters before it and the character after it.

    Attributes:
        open: whether the text so far may be the end of a sentence. If not, a chunk without a mark needs no search.
    """

    __slots__ = ("candidates", "open")

    def __init__(self, observer: abc.ObserverBase[str]) -> None:
        super().__init__(observer, _MARK, skips_blank=True)
        self.candidates = re.compile(_MAYBE).finditer
        self.open = False

    def on_next(self, value: str) -> None:
        if not self.open and self.search(value) is None:
            self.held.append(value)
            return
        before = self.before()
        window, offset = before + value, len(before)
        start = 0
        for match in self.candidates(window, offset):
            end = match.start()
            if _ends(window[max(start, end - _FAR) : end], window[end]):
                if end > max(start, offset):
                    self.held.append(window[max(start, offset) : end])
                start = end
                self.cut()
        if window[max(start, offset) :]:
            self.held.append(window[max(start, offset) :])
        body, gap = _stripped(window[max(start, len(window) - _FAR) :])
        self.open = body[-1:] in _MARKS or "\n" in gap or "\r" in gap

    def before(self) -> str:
        """The end of the held text, as far as it is considered."""
        pieces: list[str] = []
        size = 0
        for piece in reversed(self.held):
            pieces.append(piece[-_FAR:])
            size += len(pieces[-1])
            if size >= _FAR:
                break
        return "".join(reversed(pieces))[-_FAR:]


_MARKS = frozenset(_SPACED + _UNSPACED)


def _stripped(before: str) -> tuple[str, str]:
    """The text without its final whitespace and closing quotes or brackets; and that whitespace."""
    body = before.rstrip()
    return body.rstrip(_CLOSING), before[len(body) :]


def _ends(before: str, following: str) -> bool:
    """Whether a sentence ends after `before`, when the character `following` comes next."""
    body, gap = _stripped(before)
    line_ends = gap.replace("\r\n", "\n").replace("\r", "\n").count("\n")
    if line_ends > 1 or (line_ends and re.match(_BLOCK, following)):
        return True
    mark = body[-1:]
    if mark not in _MARKS:
        return False
    if mark in _UNSPACED:
        quoted = before[len(body) :].strip() != ""
        return not (quoted and "ぁ" <= following <= "ん")
    return gap != "" and not following.islower() and not (mark == "." and _abbreviates(body[:-1], following))


def _abbreviates(before: str, following: str) -> bool:
    """Whether the full stop after `before` belongs to its last word."""
    match = re.search(_TOKEN, before)
    token = match.group().casefold() if match else ""
    if token.isdecimal():
        return (
            not before[: -len(token)].rstrip(" \t*_#>")[-1:].strip()
        )  # at the start of its line: the number of a list item
    last = token.rpartition(".")[2]
    if len(last) == 1 and last.isalpha():
        return True
    return bool(re.fullmatch(_BEFORE_ANYTHING, last) or (following.isdecimal() and re.fullmatch(_BEFORE_NUMBERS, last)))
