"""What a job and its worker processes send to each other: lines of JSON with plain values.

To a worker: `Load` once for each model, then `Ask` for each request, and `Drop` for a request that is disposed. From a
worker: `Ready` first; then, for each request, `Response` for each response of a server, `Part` for each chunk, and
`End`.
"""

from __future__ import annotations

import asyncio
import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

import attrs
import msgspec

from .. import errors
from ..errors import RxllmError
from ..misuse import MisuseError, check_numbers
from ..runtime.loops import Loop
from ..values.message import Message
from ..values.parameters import PARAMETERS
from ..values.persisted import message_fields, message_record
from ..values.request import Request
from ..values.tools import ResponseSchema, ToolLike, ToolSpec

__all__ = [
    "Ask",
    "Drop",
    "End",
    "Failed",
    "Load",
    "Part",
    "Peer",
    "Ready",
    "Response",
    "error_of_record",
    "error_record",
    "line",
    "request_of_record",
    "request_record",
    "to_parent",
    "to_worker",
]


class Load(msgspec.Struct, tag="load", array_like=True):
    """A model, as the pickle of a function that returns it. Only the parent of a worker sends pickles."""

    model: int
    pickled: bytes


class Ask(msgspec.Struct, tag="ask", array_like=True):
    """A request.

    Attributes:
        number: names the request in all messages about it.
        model: the model to ask.
        request: what `request_record` returns.
        key: what the scheduler carries as `IDEMPOTENCY_KEY`.
        is_retried: what it carries as `RETRIED_ABOVE`.
        is_heard: whether a limiter wants to hear the responses of servers.
    """

    number: int
    model: int
    request: dict[str, Any]
    key: str = ""
    is_retried: bool = False
    is_heard: bool = False


class Drop(msgspec.Struct, tag="drop", array_like=True):
    """A request that the job has dropped."""

    number: int


class Ready(msgspec.Struct, tag="ready", array_like=True):
    """The worker has started."""


class Response(msgspec.Struct, tag="response", array_like=True):
    """The beginning of a server's response: what `ON_RESPONSE` gets, with the headers about limits."""

    number: int
    place: str
    status: int
    headers: dict[str, str]


class Part(msgspec.Struct, tag="part", array_like=True):
    """A chunk, as `records.to_json` returns it."""

    number: int
    chunk: dict[str, Any]


class Failed(msgspec.Struct):
    """An error.

    Attributes:
        kind: the name of its class.
        base: the nearest class of rxllm's tree.
        message: its text.
        state: its attributes with plain values.
        partial: the answer that arrived before it.
    """

    kind: str
    base: str
    message: str
    state: dict[str, Any] = {}
    partial: dict[str, Any] | None = None


class End(msgspec.Struct, tag="end", array_like=True):
    """The end of an answer, or its error."""

    number: int
    error: Failed | None = None


_encode = msgspec.json.Encoder().encode
to_worker = msgspec.json.Decoder(Load | Ask | Drop).decode
to_parent = msgspec.json.Decoder(Ready | Response | Part | End).decode


def line(message: msgspec.Struct) -> bytes:
    """Return a message as a line, with its end.

    Raises:
        TypeError, ValueError: it holds a value that JSON cannot express.
    """
    return _encode(message) + b"\n"


class Peer(asyncio.Protocol, ABC):
    """One end of the connection between a job and a worker process."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._rest: list[bytes] = []  # pieces of a line that has not ended
        self._out: list[bytes] = []

    @abstractmethod
    def received(self, message: bytes) -> None:
        """Handle a line of the other end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Cut the bytes into lines."""
        first, *others = data.split(b"\n")
        self._rest.append(first)
        for other in others:
            message = b"".join(self._rest)
            self._rest = [other]
            self.received(message)

    def send(self, message: bytes) -> None:
        """Send a line soon, together with the others of this turn of the event loop."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(message)

    def _flush(self) -> None:
        messages, self._out = self._out, []
        if not self._transport.is_closing():
            self._transport.write(b"".join(messages))

    def close(self) -> None:
        """Close the connection."""
        self._transport.abort()


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def request_record(request: Request) -> dict[str, Any]:
    """Return a request, whose files are read, as plain values.

    Raises:
        MisuseError: it holds a value that JSON cannot express.
    """
    record: dict[str, Any] = {}
    for name, field in PARAMETERS.items():
        value = getattr(request, name)
        if value is not None and value != field.default and (value or name != "extra"):
            record[name] = value
    if request.tools is not None:
        record["tools"] = [*map(_tool_record, request.tools)]
    if isinstance(form := request.response_format, ResponseSchema):
        record["response_format"] = {"neutral": attrs.asdict(form, recurse=False)}
    elif isinstance(form, Mapping):
        record["response_format"] = {"own": form}
    prompt = request.prompt
    record["prompt"] = prompt if isinstance(prompt, str) else [*map(message_record, prompt)]
    try:
        plain = msgspec.to_builtins(record)
    except (TypeError, ValueError) as error:
        raise MisuseError(f"A worker process cannot get this request, because it is not JSON: {error}.") from None
    for name, value in plain.items():
        if name != "prompt":
            check_numbers(name, value)
    return cast("dict[str, Any]", plain)


def request_of_record(record: dict[str, Any]) -> Request:
    """Return the request that `request_record` wrote."""
    fields = dict(record)
    if not isinstance(prompt := fields["prompt"], str):
        fields["prompt"] = tuple(Message(**message_fields(message)) for message in prompt)
    if "tools" in fields:
        fields["tools"] = [*map(_tool_of_record, fields["tools"])]
    match fields.get("response_format"):
        case {"neutral": neutral}:
            fields["response_format"] = ResponseSchema(**cast("dict[str, Any]", neutral))
        case {"own": own}:
            fields["response_format"] = own
        case _:
            pass
    return Request(**fields)


def _tool_record(tool: ToolLike) -> dict[str, Any]:
    return {"neutral": attrs.asdict(tool, recurse=False)} if isinstance(tool, ToolSpec) else {"own": tool}


def _tool_of_record(record: dict[str, Any]) -> ToolLike:
    return ToolSpec(**record["neutral"]) if "neutral" in record else cast("ToolLike", record["own"])


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_NOT_STATE = ("request", "partial", "shape", "usage")  # the parent sets the request again
_PLAIN = (str, int, float, bool, type(None))


def error_record(error: Exception) -> Failed:
    """Return an error as plain values. Its request and its cause are left out."""
    kinds = (kind for kind in type(error).__mro__ if getattr(errors, kind.__name__, None) is kind)
    record = Failed(type(error).__name__, next(kinds, RxllmError).__name__, _sendable(str(error)))
    record.state = {name: value for name, value in vars(error).items() if name not in _NOT_STATE and _is_plain(value)}
    if isinstance(error, RxllmError):
        record.state["retryable"] = error.retryable
        if error.partial is not None:
            with suppress(TypeError, ValueError):  # JSON cannot express the answer; the error is what matters
                partial = message_record(error.partial)
                msgspec.json.encode(partial)
                record.partial = partial
    return record


def _sendable(text: str) -> str:
    """Return a text without halves of characters, which no encoding can express."""
    return text.encode("utf-8", "backslashreplace").decode()


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, cast("list[object]", value)))
    return isinstance(value, _PLAIN) and not (isinstance(value, str) and value != _sendable(value))


def error_of_record(record: Failed) -> Exception:
    """Return the error that `error_record` wrote. That of another library becomes an RxllmError of the same name."""
    error = _class_of(record.kind, record.base)(record.message)
    vars(error).update(record.state)
    if record.partial is not None and isinstance(error, RxllmError):
        error.partial = Message(**message_fields(record.partial))
    return error


@functools.lru_cache(64)
def _class_of(kind: str, base: str) -> type[Exception]:
    known: type[Exception] = getattr(errors, base)
    return known if kind == base else type(kind, (known,), {})
