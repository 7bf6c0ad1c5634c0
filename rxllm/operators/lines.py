"""`lines`: text cut into lines."""

from __future__ import annotations

from collections.abc import Callable

from reactivex import Observable

from ._pieces import Pieces, Texts, cutting
from .stage import makes_operator

__all__ = ["lines"]


_LINE = r"\n|\r(?=[^\n])"


@makes_operator(adds_up="list")
def lines() -> Callable[[Texts], Observable[str]]:
    r"""The text line by line, for output such as JSON Lines, CSV or a list.

    ::

        -Hel-lo\nwor-ld\n-bye-|
        lines()
        -----Hello\n-world\n--bye|

    Shape: a line carries its end, which is ``\n``, ``\r\n`` or ``\r``; an empty line is nothing but its end. It is
    complete with its ``\n``, or when something else than a ``\n`` follows its ``\r``; the last comes at the end.

    Errors: of the source, after what was held back. `MisuseError` for a ``reset``, as of `text`.
    """
    return cutting(lambda observer: Pieces(observer, _LINE, skips_blank=False))
