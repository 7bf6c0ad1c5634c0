"""Cassettes: answers recorded once, and replayed at their own pace, faster, or on virtual time.

A cassette is a file of JSON lines. Each answer has a head, one line per chunk with the seconds since the previous line,
and an end. All lines of an answer share its `run`, since several answers may be recorded at the same time::

    {"run": "5f0c…", "rxllm": 1, "request": "9b1d…", "asked": "'A song about tea.'"}
    {"run": "5f0c…", "after": 0.412, "text": "Tea"}
    {"run": "5f0c…", "after": 0.021, "text": " is hot"}
    {"run": "5f0c…", "after": 0.002, "end": "complete"}

A cassette contains a digest and an excerpt of each request, and the answers, but no keys.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, cast

import attrs
import msgspec
from attrs import field, frozen
from reactivex import Notification
from reactivex.notification import OnCompleted, OnError, OnNext

from .. import errors
from ..errors import Interrupted
from ..events import Event, Failed, Finished, Run, Started, run_chunk
from ..misuse import MisuseError, shown
from ..records import fingerprint, of_json
from ..terminal import shortened
from ..values.chunk import Chunk, join
from ..values.request import Request
from .timed import Score, Timed

__all__ = ["VERSION", "Cassette", "Replay", "described", "error_record", "path_of"]

VERSION = 1
_BEGINNING = b'{"run":"'  # of each line, as `record` writes it
_SHOWN = 60  # the length of a prompt in an error message, in characters
_LISTED = 10  # the number of requests in an error message
_FACTS = {"retryable", "status", "retry_after", "code", "body", "text"}  # the recorded attributes of errors


@frozen
class _Take:
    """One recorded answer."""

    request: str
    asked: str
    score: list[tuple[float, Notification[Chunk]]] = field(factory=list[tuple[float, Notification[Chunk]]])

    @property
    def length(self) -> float:
        return self.score[-1][0] if self.score else 0.0

    def events(self, name: str) -> Iterator[Event]:
        """Yield the events of a run of this name that starts at the time 0."""
        run, arrived = Run(name, name, "llm"), list[Chunk]()
        yield Started(Request(prompt=self.asked), run=run, time=0.0)
        for at, notification in self.score:
            if isinstance(notification, OnNext):
                arrived.append(notification.value)
                event = run_chunk(notification.value, run)
                object.__setattr__(event, "time", at)
                yield event
            elif isinstance(notification, OnError):
                yield Failed(notification.exception, join(arrived).message() if arrived else None, run=run, time=at)
            else:
                yield Finished(join(arrived).message(), run=run, time=at)

    @property
    def has_end(self) -> bool:
        return bool(self.score) and not isinstance(self.score[-1][1], OnNext)


@frozen(eq=False)
class Cassette:
    """The recorded answers of one file, and the position of the replay.

    Attributes:
        path: the file.
    """

    path: Path
    _takes: list[_Take] = field(repr=False)
    _played: Counter[str] = field(factory=Counter[str], init=False, repr=False)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Cassette:
        """Read the cassette in a file.

        Raises:
            MisuseError: the file cannot be read, or a line has the wrong format.
        """
        file = path_of(path)
        try:
            lines = file.read_bytes().splitlines(keepends=True)
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            raise MisuseError(f"The cassette {str(file)!r} cannot be read: {reason}.") from None
        takes: dict[str, _Take] = {}
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                break  # the recording process was killed while writing
            try:
                for record in _records(line):
                    _read(record, takes)
            except (MisuseError, ValueError) as error:
                raise MisuseError(f"Line {number} of {str(file)!r} is not a cassette line: {error}") from None
        for take in takes.values():
            if not take.has_end:
                ending = Interrupted("The recording ends here, because it was interrupted.")
                take.score.append((take.length, OnError(ending)))
        return cls(file, list(takes.values()))

    def next(self, request: Request) -> Score:
        """Return the next recorded answer to this request; after the last one, return the last one again.

        Raises:
            MisuseError: the request was not recorded; the message lists the recorded requests.
        """
        key = fingerprint(request)
        takes = [take for take in self._takes if take.request == key]
        if not takes:
            recorded = list(dict.fromkeys(take.asked for take in self._takes))
            more = f" and {len(recorded) - _LISTED} more" if len(recorded) > _LISTED else ""
            raise MisuseError(
                f"{str(self.path)!r} has no answer to {described(request)}; it has answers to "
                f"{'; '.join(recorded[:_LISTED]) or 'nothing'}{more}."
            )
        turn = self._played[key]
        self._played[key] += 1
        return takes[min(turn, len(takes) - 1)].score

    def events(self) -> list[Event]:
        """Return the recorded answers as events of runs, in the order of their times, for ``rxllm.Timeline.of``.

        Each answer is a run that starts at the time 0, because a cassette does not tell when it was asked.
        """
        events = [event for number, take in enumerate(self._takes, 1) for event in take.events(f"answer {number}")]
        return sorted(events, key=lambda event: cast("Finished", event).time)


class _Line(msgspec.Struct):
    """The fields of a line, besides those of a chunk."""

    run: str
    rxllm: int | None = None
    request: str = ""
    asked: str = ""
    after: float = 0.0
    end: Literal["complete", "cancelled", "error"] | None = None
    error: dict[str, Any] | None = None


def _records(line: bytes) -> list[Any]:
    """Return the record of a line. After half a record, which a killed process left, the next one is in the same line.

    Raises:
        ValueError: the line is not JSON.
    """
    try:
        return [msgspec.json.decode(line)]
    except msgspec.DecodeError:
        start = line.rfind(_BEGINNING, 1)  # not within a text, where quotation marks have backslashes
        if start < 0 or not (line.startswith(_BEGINNING) or _BEGINNING.startswith(line[:start])):
            raise
    records: list[Any] = []
    with suppress(msgspec.DecodeError):  # only the end of the line may be missing
        records.append(msgspec.json.decode(line[:start]))
    return [*records, msgspec.json.decode(line[start:])]


def _read(record: Any, takes: dict[str, _Take]) -> None:
    read = msgspec.convert(record, _Line)
    if read.rxllm is not None:
        if read.rxllm != VERSION:
            raise MisuseError(f"it has the format {read.rxllm}, but this rxllm reads only the format {VERSION}.")
        takes[read.run] = _Take(read.request, read.asked)
        return
    take = takes.get(read.run)
    if take is None:
        raise MisuseError("the head line of its answer is missing.")
    if read.end is None:
        notification: Notification[Chunk] = OnNext(of_json(record))
    elif read.end == "complete":
        notification = OnCompleted()
    elif read.end == "cancelled":
        notification = OnError(Interrupted("The recording ends here, because its subscriber cancelled."))
    else:
        notification = OnError(_error_of(read.error or {}))
    take.score.append((take.length + read.after, notification))


def described(request: Request) -> str:
    """Describe a request for an error message: an excerpt of its text, and the names of its parameters."""
    text = " ".join(request.text.split())
    shown = repr(shortened(text, _SHOWN))
    names = [name for name in attrs.fields_dict(Request) if name not in ("prompt", "stream", "extra")]
    parameters = {name: getattr(request, name) for name in names} | dict.fromkeys(request.extra, ...)
    plain = [
        f"{name}={value!r}" if isinstance(value, (int, float)) or name == "model" else f"{name}=…"
        for name, value in parameters.items()
        if value is not None
    ]
    return " ".join([shown, *plain])


def error_record(error: Exception) -> dict[str, Any]:
    """Return an error as a record with its nearest class of rxllm; the message names a foreign class."""
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


def path_of(path: object) -> Path:
    """Return the path of a cassette.

    Raises:
        MisuseError: the argument is not a path.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise MisuseError(f"The path of a cassette must be a str or a path, not {shown(path)}.")
    return Path(cast("str", path))


def _above_zero(_: object, attribute: object, speed: object) -> None:
    if not isinstance(speed, (int, float)) or isinstance(speed, bool) or not speed > 0:
        raise MisuseError(f"The speed of a replay must be a factor above 0, or math.inf, not {shown(speed)}.")


def _cassette(path: str | os.PathLike[str] | Cassette) -> Cassette:
    return path if isinstance(path, Cassette) else Cassette.read(path)


@frozen
class Replay(Timed):
    """An LLM that replays recorded answers, with the same chunks at the same pace.

    ::

        llm = rxllm.testing.record(rxllm.OpenAI("gpt-5-mini"), "tea.jsonl")     # once, with a key
        llm = rxllm.testing.Replay("tea.jsonl", speed=math.inf)                 # from then on, without

    The same request gets its recorded answers in order, then the last one again. A recorded error is raised again with
    the same class; an interrupted recording raises `Interrupted`. On a virtual-time scheduler the pace is exact to the
    microsecond and takes no real time.

    Errors: `MisuseError` for a request that was not recorded. Its prompt and parameters must equal those of the call of
    the recording model; bound parameters of the model inside are not compared.

    Attributes:
        cassette: the cassette, or the path of its file.
        speed: the factor by which the replay is faster; ``math.inf`` has no pauses.
    """

    cassette: Cassette = field(converter=_cassette)
    speed: float = field(default=1.0, kw_only=True, validator=_above_zero)

    def identity(self) -> str:
        """Return the identity of the file."""
        return self._digest({"cassette": str(self.cassette.path.absolute())})

    def score(self, request: Request) -> Score:
        """Return the next recorded answer to the request."""
        return [(at / self.speed, notification) for at, notification in self.cassette.next(request)]
