"""`snapshots`: the answer so far, at each chunk."""

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
    """Emit the answer so far at each chunk, for a page that renders the whole text each time.

    ::

        -Hel-lo-|
        snapshots()
        -Hel-Hello-|

    Shape: takes chunks; emits the sum of all chunks so far. The answer of a pipeline that ends with it is the last sum.
    (``ops.scan(add)`` emits the same values, but a pipeline cannot know that each of them replaces the one before.)

    Errors: those of the source.
    """

    def running(source: Observable[Chunk]) -> Observable[Chunk]:
        sums = source.pipe(ops.scan(_add))
        return Source(lambda observer, scheduler: connect(sums, observer, scheduler))

    return running


def _add(total: Chunk, chunk: Chunk) -> Chunk:
    return total + chunk
