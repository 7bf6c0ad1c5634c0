"""`words`: text cut into words."""

from __future__ import annotations

import re
from collections.abc import Callable

from reactivex import Observable, abc

from ._pieces import Pieces, Texts, cutting
from .sentences import OPENING
from .stage import makes_operator

__all__ = ["words"]


_WITHOUT_SPACES = r"\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"


_SPACELESS = "\u3000"  # below it are letters of languages with spaces


# Patterns are compiled when something is cut: to do so takes longer than to import all of this. Each of these matches
# the character before a boundary.
_SPACED_WORD = r"\s(?=\S)"


_WORD = rf"\s(?=\S)|[^\s{OPENING}](?=[{OPENING}{_WITHOUT_SPACES}])"


@makes_operator(adds_up="text")
def words() -> Callable[[Texts], Observable[str]]:
    r"""The text word by word.

    ::

        -Hel-lo wor-ld, this-|
        words()
        -----Hello--world,---this|

    Shape: a word carries the whitespace after it, the first word also what stands before it. It is complete when the
    next one begins; the last comes at the end. Chinese and Japanese, which put no spaces, come letter by letter; other
    languages without spaces (Thai, Khmer) up to the next space.

    Errors: of the source, after what was held back. `MisuseError` for a ``reset``, as of `text`.
    """
    return cutting(_Words)


class _Words(Pieces):
    """Without a pattern where a chunk is but one word, as most are: that takes half the time."""

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
        elif value[0].isspace():  # which belongs to the word before, even if that has whitespace already
            size = value.index(words[0])
            self.held = [value[size:]]
            self.emit("".join([*held, value[:size]]))
        elif held[-1][-1].isspace():
            self.held = [value]
            self.emit(held[0] if len(held) == 1 else "".join(held))
        else:
            held.append(value)
