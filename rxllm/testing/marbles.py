"""`MarbleLLM`: an LLM written as a marble diagram."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen
from reactivex import Notification
from reactivex.notification import OnNext
from reactivex.observable.marbles import parse

from ..errors import TransportError
from ..misuse import MisuseError
from ..values.chunk import Chunk
from ..values.message import Message
from ..values.request import Request
from .timed import Score, Timed

__all__ = ["MarbleLLM"]


def _diagrams(diagrams: str | Sequence[str]) -> tuple[str, ...]:
    return (diagrams,) if isinstance(diagrams, str) else tuple(diagrams)


def _chunks(values: Mapping[str, str | Chunk | Message]) -> dict[str, Chunk]:
    return {name: Chunk.of(value) for name, value in values.items()}


@frozen
class MarbleLLM(Timed):
    """An LLM whose answer is a marble diagram, on virtual time and on an event loop.

    ::

        MarbleLLM("--Hel-lo|")               # "Hel" after 2 seconds, "lo" at 6, the end at 8
        MarbleLLM("-a--#", error=rxllm.RateLimited("Slow down.", retry_after=3))
        MarbleLLM("-a-------------")         # one chunk, then silence for ever
        MarbleLLM(["-#", "-a|"])             # the first request fails, the second and all others succeed

    On virtual time the answer takes no real time, and can be compared with another diagram::

        with reactivex.testing.marbles.marbles_testing() as (start, cold, hot, expected):
            answer = MarbleLLM("--a---b|")("hi").pipe(rxllm.text(), rxllm.idle_timeout(3))
            assert start(answer) == expected("--a--#", None, …)

    The syntax is that of `reactivex.from_marbles`. Each character takes `timespan` seconds, a space none. ``-`` is
    time, ``|`` the end, ``#`` the error, ``(a,b)`` two chunks at once. Any other word is looked up in `values`, or is a
    chunk of this text with a space for each ``_``, as in ``--Hello_-world|``. (A number is looked up and emitted in
    Python's notation.)

    Attributes:
        diagrams: one diagram per request; the last one repeats.
        values: the chunks that words stand for: a text, a Chunk or a Message each.
        error: the error for ``#``; each answer raises its own copy, with its request and the part that had arrived.
        timespan: the seconds per character.
    """

    diagrams: tuple[str, ...] = field(converter=_diagrams)
    values: Mapping[str, Chunk] = field(factory=dict[str, Chunk], converter=_chunks, kw_only=True)
    error: Exception = field(
        factory=lambda: TransportError("The connection broke, as the marble diagram says."),
        kw_only=True,
        repr=False,
        eq=False,  # models with different errors are equal, because no answer shows the error
    )
    timespan: float = field(default=1.0, kw_only=True)
    _scores: tuple[Score, ...] = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if not self.diagrams:
            raise MisuseError("A MarbleLLM needs a diagram, such as '-a-b-|'.")
        object.__setattr__(self, "_scores", tuple(map(self._read, self.diagrams)))

    def _read(self, diagram: str) -> Score:
        try:
            events: list[Any] = parse(diagram, timespan=self.timespan, error=self.error, raise_stopped=True)
            for group in re.findall(r"\(([^)]*)", diagram):
                for event in group.replace(" ", "").split(","):
                    if len(event) > 1 and set(event) & set("|#"):
                        raise ValueError(f"a comma separates what comes at once, so that {event!r} is one text.")
        except ValueError as error:
            raise MisuseError(f"{diagram!r} is not a marble diagram: {error}") from None
        return [(at, self._as_chunk(event)) for at, event in events]

    def _as_chunk(self, event: Notification[Any]) -> Notification[Chunk]:
        if not isinstance(event, OnNext):
            return event
        name = str(event.value)
        return OnNext(self.values[name] if name in self.values else Chunk(name.replace("_", " ")))

    def score(self, request: Request) -> Score:
        """Return the diagram of this request."""
        return self._scores[min(len(self.requests), len(self._scores) - 1)]
