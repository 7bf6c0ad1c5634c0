"""`words`: cut text into words."""

from __future__ import annotations

import re
from collections.abc import Callable

from reactivex import Observable, abc

from ._pieces import Pieces, Texts, cutting
from .sentences import OPENING
from .stage import makes_operator

__all__ = ["words"]


_WITHOUT_SPACES = r"\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"


_SPACELESS = "\u3000"  # the first character of the scripts without spaces


# Patterns are compiled at the subscription, because compiling takes longer than the import of this module. Each pattern
# matches the character before a boundary.
_SPACED_WORD = r"\s(?=\S)"


_WORD = rf"\s(?=\S)|[^\s{OPENING}](?=[{OPENING}{_WITHOUT_SPACES}])"


@makes_operator(adds_up="text")
def words() -> Callable[[Texts], Observable[str]]:
    r"""Emit the text word by word.

    ::

        -Hel-lo wor-ld, this-|
        words()
        -----Hello -world, --this|

    Shape: takes chunks or strings; emits strings. A word includes the whitespace after it, the first word also the
    whitespace before it. A word is emitted when the next one begins, the last word at the end. Chinese and Japanese
    text, which has no spaces, is emitted character by character; text in other scripts without spaces (Thai, Khmer) up
    to the next space.

    Errors: those of the source, after the held text. `MisuseError` for a ``reset``, as for `text`.
    """
    return cutting(_Words)


class _Words(Pieces):
    """Uses no pattern for a chunk of one word, which is the usual chunk: this halves the time."""

    __slots__ = ("search_spaced",)

    def __init__(self, observer: abc.ObserverBase[str]) -> None:
        super().__init__(observer, _WORD, skips_blank=True)
        self.search_spaced = re.compile(_SPACED_WORD).search

    def on_next(self, value: str) -> None:
        held = self.held
        if not value.isascii() and max(value) >= _SPACELESS:
            self.take(value, self.search)
        elif self.skips_blank or not held or len(words := value.split(None, 1)) != 1:
            self.take(value, self.search_spaced)
        elif value[0].isspace():  # this whitespace belongs to the word before, even after other whitespace
            size = value.index(words[0])
            self.held = [value[size:]]
            self.emit("".join([*held, value[:size]]))
        elif held[-1][-1].isspace():
            self.held = [value]
            self.emit(held[0] if len(held) == 1 else "".join(held))
        else:
            held.append(value)
