"""Cassettes: answers that are recorded once, and then replayed at their pace, faster, or on virtual time.

A cassette is a file of JSON lines. Each answer has a head, a line for each chunk with the seconds since the one
before, and an end; all carry the answer's own `run`, since several may be recorded at the same time::

    {"run": "5f0c…", "rxllm": 1, "request": "9b1d…", "asked": "'A song about tea.'"}
    {"run": "5f0c…", "after": 0.412, "text": "Tea"}
    {"run": "5f0c…", "after": 0.021, "text": " is hot"}
    {"run": "5f0c…", "after": 0.002, "end": "complete"}

It holds what was asked, as a digest and as the beginning of its text, and what was answered, but no keys.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import attrs
import msgspec
from attrs import field, frozen
from reactivex import Notification
from reactivex.notification import OnCompleted, OnError, OnNext

from .. import errors
from ..errors import Interrupted
from ..misuse import MisuseError, shown
from ..records import fingerprint, of_json
from ..values.chunk import Chunk
from ..values.request import Request
from .timed import Score, Timed

__all__ = ["VERSION", "Cassette", "Replay", "described", "error_record", "path_of"]

VERSION = 1
_SHOWN = 60  # characters of a prompt that an error shows
_LISTED = 10  # requests that an error shows
_FACTS = {"retryable", "status", "retry_after", "code", "body", "text"}  # of errors


@frozen
class _Take:
    """One recorded answer."""

    request: str
    asked: str
    score: list[tuple[float, Notification[Chunk]]] = field(factory=list[tuple[float, Notification[Chunk]]])

    @property
    def length(self) -> float:
        return self.score[-1][0] if self.score else 0.0

    @property
    def has_end(self) -> bool:
        return bool(self.score) and not isinstance(self.score[-1][1], OnNext)


@frozen(eq=False)
class Cassette:
    """What is recorded in a file, and how far it has been played.

    Attributes:
        path: the file.
    """

    path: Path
    _takes: list[_Take] = field(repr=False)
    _played: Counter[str] = field(factory=Counter[str], init=False, repr=False)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Cassette:
        """The cassette in a file.

        Raises:
            MisuseError: there is no such file, or a line of it is none of a cassette.
        """
        file = path_of(path)
        try:
            lines = file.read_bytes().splitlines(keepends=True)
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            raise MisuseError(f"The cassette {str(file)!r} can't be read: {reason}.") from None
        takes: dict[str, _Take] = {}
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                break  # whoever wrote it was killed
            try:
                _read(line, takes)
            except (MisuseError, ValueError) as error:
                raise MisuseError(f"Line {number} of {str(file)!r} is none of a cassette: {error}") from None
        for take in takes.values():
            if not take.has_end:
                ending = Interrupted("The recording ends here: it was broken off.")
                take.score.append((take.length, OnError(ending)))
        return cls(file, list(takes.values()))

    def next(self, request: Request) -> Score:
        """The next recorded answer to this request; after the last one, that again.

        Raises:
            MisuseError: there is none; the sentence says what there is.
        """
        wanted = fingerprint(request)
        takes = [take for take in self._takes if take.request == wanted]
        if not takes:
            known = list(dict.fromkeys(take.asked for take in self._takes))
            more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
            raise MisuseError(
                f"{str(self.path)!r} has no answer to {described(request)}; it has answers to "
                f"{'; '.join(known[:_LISTED]) or 'nothing'}{more}."
            )
        turn = self._played[wanted]
        self._played[wanted] += 1
        return takes[min(turn, len(takes) - 1)].score


class _Line(msgspec.Struct):
    """What a line of a cassette may have besides a chunk."""

    run: str
    rxllm: int | None = None
    request: str = ""
    asked: str = ""
    after: float = 0.0
    end: Literal["complete", "cancelled", "error"] | None = None
    error: dict[str, Any] | None = None


def _read(line: bytes, takes: dict[str, _Take]) -> None:
    record = msgspec.json.decode(line)
    read = msgspec.convert(record, _Line)
    if read.rxllm is not None:
        if read.rxllm != VERSION:
            raise MisuseError(f"it has the format {read.rxllm}, and this rxllm reads {VERSION}.")
        takes[read.run] = _Take(read.request, read.asked)
        return
    take = takes.get(read.run)
    if take is None:
        raise MisuseError("its answer has no head.")
    if read.end is None:
        what: Notification[Chunk] = OnNext(of_json(record))
    elif read.end == "complete":
        what = OnCompleted()
    elif read.end == "cancelled":
        what = OnError(Interrupted("The recording ends here: its subscriber left."))
    else:
        what = OnError(_error_of(read.error or {}))
    take.score.append((take.length + read.after, what))


def described(request: Request) -> str:
    """A request as an error shows it: the beginning of its text, and the names of what else it says."""
    text = " ".join(request.text.split())
    shown = repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")
    names = [name for name in attrs.fields_dict(Request) if name not in ("prompt", "stream", "extra")]
    said = {name: getattr(request, name) for name in names} | dict.fromkeys(request.extra, ...)
    plain = [
        f"{name}={value!r}" if isinstance(value, (int, float)) or name == "model" else f"{name}=…"
        for name, value in said.items()
        if value is not None
    ]
    return " ".join([shown, *plain])


def error_record(error: Exception) -> dict[str, Any]:
    """An error as its nearest class in rxllm's tree; one of others is named in its message."""
    kind = next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in errors.__all__), None)
    message = str(error) if kind else f"{type(error).__name__}: {error}"
    facts = {name: getattr(error, name, None) for name in sorted(_FACTS)}
    plain = {name: fact for name, fact in facts.items() if isinstance(fact, (bool, int, float, str))}
    return {"type": kind or "RxllmError", "message": message, **(plain if kind else {})}


def _error_of(record: Mapping[str, Any]) -> Exception:
    kind = record.get("type")
    error: Exception = getattr(errors, kind if kind in errors.__all__ else "RxllmError")(record.get("message", ""))
    for name in _FACTS & record.keys():
        setattr(error, name, record[name])
    return error


def path_of(given: object) -> Path:
    """The path of a cassette.

    Raises:
        MisuseError: this is no path.
    """
    if not isinstance(given, (str, os.PathLike)):
        raise MisuseError(f"A cassette is a file; give its path, not {shown(given)}.")
    return Path(cast("str", given))


def _faster_than_nothing(_: object, attribute: object, speed: object) -> None:
    if not isinstance(speed, (int, float)) or isinstance(speed, bool) or not speed > 0:
        raise MisuseError(f"The speed of a replay is a factor above 0, math.inf for at once, not {shown(speed)}.")


def _cassette(given: str | os.PathLike[str] | Cassette) -> Cassette:
    return given if isinstance(given, Cassette) else Cassette.read(given)


@frozen
class Replay(Timed):
    """An LLM that answers what was recorded, in the same chunks, which come as they came.

    ::

        llm = rxllm.testing.record(rxllm.OpenAI("gpt-5-mini"), "tea.jsonl")     # once, with a key
        llm = rxllm.testing.Replay("tea.jsonl", speed=math.inf)                 # from then on, without

    The same request gets its recorded answers in their order, and then the last of them again. A recorded error is
    raised again, as the same class; a recording that was broken off raises `Interrupted`. On a virtual-time scheduler
    the pace is kept to the microsecond, and takes no time.

    Errors: `MisuseError` for a request that was not recorded. Its prompt and its parameters must be those that the
    recording model was called with; parameters of the model within it do not matter.

    Attributes:
        cassette: the file, or what was read of it.
        speed: how many times as fast it goes; ``math.inf`` is at once.
    """

    cassette: Cassette = field(converter=_cassette)
    speed: float = field(default=1.0, kw_only=True, validator=_faster_than_nothing)

    def identity(self) -> str:
        """That of its file."""
        return self._digest({"cassette": str(self.cassette.path.absolute())})

    def score(self, request: Request) -> Score:
        """The recorded answer whose turn it is."""
        return [(at / self.speed, what) for at, what in self.cassette.next(request)]
