"""The answer so far, again and again: `snapshots`."""

from __future__ import annotations

from collections.abc import Callable

from reactivex import Observable
from reactivex import operators as ops

from ..runtime.source import Source, connect
from ..values.chunk import Chunk
from .stage import makes_operator

__all__ = ["snapshots"]


@makes_operator(adds_up="last")
def snapshots() -> Callable[[Observable[Chunk]], Observable[Chunk]]:
    """The answer so far, at each chunk: for a page that is drawn anew each time.

    ::

        -Hel-lo-|
        snapshots()
        -Hel-Hello-|

    Shape: takes chunks; each value is the sum of all that came. In a pipeline they add up to the last one.
    (``ops.scan(add)`` gives the same values, but a pipeline does not know that each of them replaces the one before.)

    Errors: of the source.
    """

    def running(source: Observable[Chunk]) -> Observable[Chunk]:
        sums = source.pipe(ops.scan(_add))
        return Source(lambda observer, scheduler: connect(sums, observer, scheduler))

    return running


def _add(total: Chunk, chunk: Chunk) -> Chunk:
    return total + chunk
