"""The tool calls of one round: the calls that run, and the result that the model gets for each call."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any, Literal, cast

import msgspec
from attrs import frozen
from reactivex import abc

from ..errors import Interrupted, Timeout, ToolFailure
from ..misuse import MisuseError, is_mapping
from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.gate import Gate
from ..runtime.scheduler import Scheduler
from ..runtime.source import connect
from ..tools.tool import BadArguments, Tool
from ..values.characters import whole
from ..values.chunk import Chunk
from ..values.message import Message
from ..values.parts import Approval, Outcome, Part, ToolCallPart, ToolResultPart
from ..values.plain import encodable
from ..values.tools import unquoted

__all__ = ["Calls", "Ready", "Waiting", "decided", "denied", "not_run", "planned"]


@frozen(eq=False)
class Ready:
    """A call that can run: its tool, and the arguments with the types of the tool's parameters."""

    call: ToolCallPart
    tool: Tool[Any, Any]
    arguments: Mapping[str, Any]


@frozen
class Waiting:
    """A call that needs an approval."""

    call: ToolCallPart


_PLAIN: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_EXACT: msgspec.json.Decoder[Any] = msgspec.json.Decoder(float_hook=Decimal)


def _arguments_of(call: ToolCallPart, decoder: msgspec.json.Decoder[Any] = _PLAIN) -> dict[str, Any]:
    """Return the arguments of a call. Some models write no text, or null, for a call without arguments.

    Raises:
        BadArguments: the text is not a JSON object.
    """
    try:
        arguments: object = decoder.decode(unquoted(call.arguments) or "{}")
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadArguments(f"The arguments are not valid JSON: {error}. Write a JSON object.") from None
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise BadArguments(f"The arguments must be a JSON object, not {type(arguments).__name__}.")
    return cast("dict[str, Any]", arguments)


def planned(
    call: ToolCallPart,
    tools: Mapping[str, Tool[Any, Any] | None],
    needs_approval: Callable[[Tool[Any, Any], Mapping[str, Any]], bool],
) -> Ready | Waiting | ToolResultPart:
    """Return the state of a call: ready to run, waiting for an approval, or refused because of a mistake of the model.

    Args:
        call: the call.
        tools: the tools that the model may call.
        needs_approval: returns whether a call needs an approval, from the tool and the arguments.

    Raises:
        Exception: the exception of a function that decides about approvals.
    """
    tool = tools.get(call.name)
    if tool is None:
        names = f"The tools are: {', '.join(tools)}." if tools else "There are no tools."
        return _result(call, f"There is no tool {call.name!r}. {names}", "error")
    try:
        arguments = _arguments_of(call)
        read = tool.read(arguments if tool.given_parameters is not None else _arguments_of(call, _EXACT))
    except BadArguments as error:
        return _result(call, str(error), "error")
    return Waiting(call) if needs_approval(tool, arguments) else Ready(call, tool, read)


def decided(approval: Approval, tools: Mapping[str, Tool[Any, Any]]) -> Ready | Waiting | ToolResultPart:
    """Return the state of a call that was approved or denied."""
    if approval.yes:
        return planned(approval.call, tools, _is_approved)
    return denied(approval.call, approval.note)


def denied(call: ToolCallPart, note: str) -> ToolResultPart:
    """Return the result of a call that the user denied."""
    text = f"The user denied this call: {note}" if note else "The user denied this call."
    return _result(call, text, "denied")


def _is_approved(tool: Tool[Any, Any], arguments: Mapping[str, Any]) -> bool:
    """Return that a call needs no approval, because it has one."""
    return False


def not_run(call: ToolCallPart, reason: str) -> ToolResultPart:
    """Return the result of a call that did not run."""
    return _result(call, f"This call did not run, because {reason}.", "error")


def _result(call: ToolCallPart, content: str | Iterable[Part], outcome: Outcome = "ok") -> ToolResultPart:
    return ToolResultPart(call.id, cast("tuple[Part, ...]", content), outcome, call.name)


def _succeeded(call: ToolCallPart, value: Any) -> ToolResultPart:
    """Return the result of a call: text and parts unchanged, any other value as JSON.

    Raises:
        MisuseError: JSON cannot express the value, or it has parts among other values.
    """
    kind = type(value).__name__
    if isinstance(value, ToolResultPart):
        return _result(call, value.content, value.outcome)
    if isinstance(value, (Message, Chunk)):  # of an agent that is a tool: its calls and its reasoning are its own
        return _result(call, value.text)
    if isinstance(value, str):
        return _result(call, value)
    items = [*cast("Iterable[Any]", value)] if isinstance(value, (list, tuple)) else [value]
    if any(isinstance(item, Part) for item in items) and all(isinstance(item, (Part, str)) for item in items):
        return _result(call, items)
    single = cast("object", value)
    within: Iterable[Any] = single.values() if is_mapping(single) else items
    if any(isinstance(item, Part) for item in within):  # as JSON, a picture would be a long text
        raise MisuseError(
            f"The tool {call.name} returned parts among other values. Return parts and texts only, in a list."
        )
    if not isinstance(value, (bytes, bytearray, memoryview)):
        with suppress(TypeError, ValueError, RecursionError):
            return _result(call, _json(cast("object", value)))
    raise MisuseError(
        f"The tool {call.name} returned {kind}, which JSON cannot express. Return text, parts such as "
        "rxllm.FilePart(media_type, data), or plain values."
    )


def _json(value: object) -> str:
    """Return a value as JSON for a model. Infinity and NaN have Python's words: msgspec would write null for them."""
    plain = msgspec.to_builtins(value, str_keys=True, enc_hook=encodable)
    return whole(json.dumps(plain, ensure_ascii=False, separators=(",", ":")))


def _failed(call: ToolCallPart, error: Exception) -> ToolResultPart:
    """Return the result of a call that raised: the text of a ToolFailure; for other exceptions only the class's name.

    The text of any other exception may hold secrets, or text that a stranger wrote.
    """
    if isinstance(error, ToolFailure):
        return _result(call, str(error), "error")
    if isinstance(error, (Timeout, TimeoutError)):
        return _result(call, f"The tool {call.name} timed out.", "interrupted")
    if isinstance(error, Interrupted):  # such as of the connection to the server that runs the tool
        return _result(
            call, f"The tool {call.name} was interrupted. It may or may not have done its work.", "interrupted"
        )
    return _result(call, f"The tool {call.name} failed: {type(error).__name__}.", "error")


class Calls(abc.DisposableBase):
    """Runs the calls of one round, at most `concurrency` at a time, and emits each result at once.

    States of a call: queued, running, done. All of them change on the event loop of the scheduler.

    Attributes:
        on_result: gets each result.
        on_failure: gets the error that ends the answer. No result comes after it.
        on_done: is called after the last result.
    """

    def __init__(
        self,
        ready: Iterable[Ready],
        scheduler: Scheduler,
        concurrency: int,
        errors: Literal["tell", "raise"],
        *,
        on_result: Callable[[ToolResultPart], object],
        on_failure: Callable[[Exception], object],
        on_done: Callable[[], object],
    ) -> None:
        self.queued = deque(ready)
        self.running: dict[Ready, abc.DisposableBase] = {}
        self.scheduler = scheduler.with_gate(Gate())  # a slow reader of the answer does not pause the tools
        self.concurrency = concurrency
        self.errors = errors
        self.on_result = on_result
        self.on_failure = on_failure
        self.on_done = on_done
        self.ended = False

    def start(self) -> None:
        """Start calls while there is room."""
        while self.queued and len(self.running) < self.concurrency and not self.ended:
            self._run(self.queued.popleft())
        if not self.queued and not self.running and not self.ended:
            self.ended = True
            self.on_done()

    def _run(self, ready: Ready) -> None:
        subscription = self.running[ready] = LockFreeSerialDisposable()
        running = ready.tool.call(ready.arguments, metadata={"tool_call_id": ready.call.id})
        subscription.disposable = connect(running, _Call(self, ready), self.scheduler)

    def finished(self, ready: Ready, value: object, error: Exception | None) -> None:
        """Emit the result of a call, and start the next one."""
        if self.ended or self.running.pop(ready, None) is None:
            return
        try:
            if error is None:
                result = _succeeded(ready.call, value)
            elif self._becomes_result(error):
                result = _failed(ready.call, error)
            else:
                raise error
        except Exception as failure:
            self.dispose()
            self.on_failure(failure)
            return
        self.on_result(whole(result))  # the name of a file may have half of a character, which no request can have
        self.start()

    def _becomes_result(self, error: Exception) -> bool:
        """Return whether the error becomes the result of the call. An exit and a misuse of rxllm end the answer."""
        if not isinstance(error, Exception) or isinstance(error, MisuseError):  # pyright: ignore[reportUnnecessaryIsInstance]
            return False
        return self.errors == "tell" or isinstance(error, ToolFailure)

    def interrupt(self, reason: str) -> list[ToolResultPart]:
        """Cancel all calls. Return the results of those that had not ended."""
        interrupted = [
            _result(ready.call, f"The call was interrupted: {reason}.", "interrupted") for ready in self.running
        ]
        skipped = [not_run(ready.call, reason) for ready in self.queued]
        self.dispose()
        return [*interrupted, *skipped]

    def dispose(self) -> None:
        """Cancel the running calls. The queued ones never start."""
        self.ended = True
        self.queued.clear()
        running, self.running = self.running, {}
        for subscription in running.values():
            subscription.dispose()


class _Call(abc.ObserverBase[Any]):
    """One running call."""

    def __init__(self, calls: Calls, ready: Ready) -> None:
        self.calls = calls
        self.ready = ready
        self.value: object = None

    def on_next(self, value: Any) -> None:
        self.value = value

    def on_error(self, error: Exception) -> None:
        self.calls.finished(self.ready, None, error)

    def on_completed(self) -> None:
        self.calls.finished(self.ready, self.value, None)
