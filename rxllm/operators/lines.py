"""`lines`: cut text into lines."""

from __future__ import annotations

from collections.abc import Callable

from reactivex import Observable

from ._pieces import Pieces, Texts, cutting
from .stage import makes_operator

__all__ = ["lines"]


_LINE = r"\n|\r(?=[^\n])"


@makes_operator(adds_up="list")
def lines() -> Callable[[Texts], Observable[str]]:
    r"""Emit the text line by line, for output such as JSON Lines, CSV or a list.

    ::

        -Hel-lo\nwor-ld\n-bye-|
        lines()
        -----Hello\n-world\n--bye|

    Shape: takes chunks or strings; emits strings. A line includes its end, which is ``\n``, ``\r\n`` or ``\r``. A line
    is emitted at its ``\n``, or when another character than ``\n`` follows its ``\r``; the last line at the end.

    Errors: those of the source, after the held text. `MisuseError` for a ``reset``, as for `text`.
    """
    return cutting(lambda observer: Pieces(observer, _LINE, skips_blank=False))
