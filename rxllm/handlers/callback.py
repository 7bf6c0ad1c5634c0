"""`CallbackHandler`: a hook for each thing that happens, by the names of langchain-core."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar

import attrs

from ..events import (
    Cancelled,
    Custom,
    Event,
    Failed,
    Finished,
    Handler,
    Retried,
    Run,
    RunChunk,
    Started,
    ToolFinished,
    ToolStarted,
)
from ..misuse import MisuseError
from ..results import LLMResult
from ..values.chunk import Chunk
from ..values.message import Message
from ._later import Lines, discard

__all__ = ["CallbackHandler"]

_MODELS = ("llm", "chat_model")


class CallbackHandler(Handler):
    """Hooks to override, ``def`` or ``async def``, with the names and arguments that langchain-core has for them.

    ::

        class Tokens(rxllm.CallbackHandler):
            def on_llm_new_token(self, token, **kwargs):
                print(token, end="")

            async def on_llm_end(self, response, **kwargs):
                await store(kwargs["run_id"], response.llm_output["token_usage"])

        llm = rxllm.OpenAI("gpt-5-mini", handlers=[Tokens()])

    Each hook is told, by keyword, `run_id`, `parent_run_id` (None for a root), `tags`, `metadata` and the run's `name`
    (but `on_custom_event`, whose `name` is the event's); so take ``**kwargs``. Every model's tokens are heard, streamed
    or not: an answer that comes whole is one of them. Hooks that are not overridden are not prepared for.

    A ``def`` hook runs where the stream does, so it must not block, and what it raises is logged, or with
    `raise_error` fails the run. An ``async def`` hook runs beside the stream, which does not wait for it: those of one
    run run one after another, on its loop and in its context. Leaving ``async with`` and ``await llm.ainvoke(…)`` wait
    for them, ``llm.invoke(…)`` does not. What they raise is logged. A context variable that a hook sets, of either
    kind, is seen by the later hooks of the run.

    Subscribed to a model's answer itself, it hears `on_llm_new_token` and `on_llm_error`, and `run_id` is None.

    Raises:
        MisuseError: where the class is made, if it has an ``async def`` hook and `raise_error`, which can't be.
    """

    _tells: ClassVar[Mapping[type, Callable[[Any, Any], Any]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = {name for name in _HOOKS if getattr(cls, name) is not getattr(CallbackHandler, name)}
        _refuse_misspelt(cls)
        if cls.raise_error and any(inspect.iscoroutinefunction(getattr(cls, name)) for name in own):
            raise MisuseError(_NOT_BOTH)
        cls._tells = {kind: tell for kind, (tell, names) in _TELLS.items() if not own.isdisjoint(names)}

    def on_event(self, event: Event) -> None:
        """Calls the event's hook."""
        tell = self._tells.get(type(event))
        if tell is not None:
            made = tell(self, event)
            if made is not None and inspect.isawaitable(made):
                self._run_later(event, made)

    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], **kwargs: Any) -> Any:
        """A model that continues texts was asked. `serialized` has its ``name``, ``provider`` and ``model``."""

    def on_chat_model_start(self, serialized: dict[str, Any], messages: list[list[Message]], **kwargs: Any) -> Any:
        """A model that converses was asked; unless this is overridden, `on_llm_start` hears it, with the texts."""
        return self.on_llm_start(serialized, [_text(conversation) for conversation in messages], **kwargs)

    def on_llm_new_token(self, token: str, **kwargs: Any) -> Any:
        """A model's chunk came. `token` is its text, which may be empty; the keyword `chunk` is all of it."""

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> Any:
        """A model's answer is whole."""

    def on_llm_error(self, error: Exception, **kwargs: Any) -> Any:
        """A model failed; what had arrived is ``error.partial``, where it is an `RxllmError`."""

    def on_chain_start(self, serialized: dict[str, Any], inputs: Any, **kwargs: Any) -> Any:
        """A pipeline began."""

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> Any:
        """A pipeline is over."""

    def on_chain_error(self, error: Exception, **kwargs: Any) -> Any:
        """A pipeline failed."""

    def on_tool_start(self, serialized: dict[str, Any], input_str: str, **kwargs: Any) -> Any:
        """A tool was called; the keyword `inputs` is what it was given, before it was made a text."""

    def on_tool_end(self, output: Any, **kwargs: Any) -> Any:
        """A tool gave its result."""

    def on_tool_error(self, error: Exception, **kwargs: Any) -> Any:
        """A tool failed."""

    def on_retry(self, retry_state: Retried, **kwargs: Any) -> Any:
        """A model is asked again: `retry_state` tells the `attempt` that failed, its `error` and the `delay`."""

    def on_cancel(self, partial: Any, **kwargs: Any) -> Any:
        """Who subscribed to a run left before its end; `partial` is what had come, None if nothing had."""

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> Any:
        """The program told of something, by `dispatch`."""

    def _run_later(self, event: Event, awaitable: Awaitable[Any]) -> None:
        if self.raise_error:
            discard(awaitable)
            raise MisuseError(_NOT_BOTH)
        # Not made in __init__, which a subclass may have without calling this one's.
        lines: Lines = vars(self).setdefault("_lines", Lines())
        lines.put(_run_of(event).id, awaitable)


_NOT_BOTH = (
    "An async hook runs beside the stream, which has gone on when it fails, so raise_error can't be had with it; "
    "write the hook as a plain def, or leave raise_error out, and failures are logged."
)
_NO_RUN = Run("", "", "llm")


def _run_of(event: Event) -> Run:
    """The event's run; who is subscribed to an answer itself hears of none."""
    run: Run = getattr(event, "run", _NO_RUN)
    return run if run.id else _NO_RUN


def _ids(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.id or None,
        "parent_run_id": run.parent_ids[-1] if run.parent_ids else None,
        "tags": list(run.tags),
        "metadata": dict(run.metadata),
        "name": run.name,
    }


def _serialized(run: Run) -> dict[str, Any]:
    return {"name": run.name, **(attrs.asdict(run.service) if run.service else {})}


def _text(messages: Sequence[Message]) -> str:
    return "\n\n".join(message.text for message in messages if message.text)


# ── from events to hooks ─────────────────────────────────────────────────────────────────────────────────────────


def _started(handler: CallbackHandler, event: Started) -> Any:
    run = event.run
    if run.kind == "llm":
        return handler.on_llm_start(_serialized(run), [event.request.text], **_ids(run))
    if run.kind == "chat_model":
        return handler.on_chat_model_start(_serialized(run), [list(event.request.messages)], **_ids(run))
    if run.kind == "chain":
        return handler.on_chain_start(_serialized(run), event.input, **_ids(run))
    return _tool_started(handler, event)


def _chunk(handler: CallbackHandler, chunk: Chunk) -> Any:
    run = _run_of(chunk)
    if run.kind in _MODELS:  # a pipeline gives again what its models gave
        return handler.on_llm_new_token(chunk.text, chunk=chunk, **_ids(run))
    return None


def _finished(handler: CallbackHandler, event: Finished) -> Any:
    run = event.run
    if run.kind in _MODELS:
        return handler.on_llm_end(LLMResult.of([event.message]), **_ids(run))
    end = handler.on_chain_end if run.kind == "chain" else handler.on_tool_end
    return end(event.output, **_ids(run))


def _failed(handler: CallbackHandler, event: Failed) -> Any:
    run = _run_of(event)
    hooks = {"chain": handler.on_chain_error, "tool": handler.on_tool_error}
    return hooks.get(run.kind, handler.on_llm_error)(event.error, **_ids(run))


def _tool_started(handler: CallbackHandler, event: ToolStarted | Started) -> Any:
    given = event.input
    text = given if isinstance(given, str) else str(given)
    return handler.on_tool_start(_serialized(event.run), text, inputs=given, **_ids(event.run))


def _tool_finished(handler: CallbackHandler, event: ToolFinished) -> Any:
    return handler.on_tool_end(event.output, **_ids(event.run))


def _retried(handler: CallbackHandler, event: Retried) -> Any:
    return handler.on_retry(event, **_ids(event.run))


def _cancelled(handler: CallbackHandler, event: Cancelled) -> Any:
    return handler.on_cancel(event.partial, **_ids(event.run))


def _custom(handler: CallbackHandler, event: Custom) -> Any:
    ids = _ids(event.run)
    del ids["name"]  # the hook calls the event's so
    return handler.on_custom_event(event.topic, event.data, **ids)


_TELLS: Mapping[type, tuple[Callable[[Any, Any], Any], tuple[str, ...]]] = {
    Started: (_started, ("on_llm_start", "on_chat_model_start", "on_chain_start", "on_tool_start")),
    RunChunk: (_chunk, ("on_llm_new_token",)),
    Chunk: (_chunk, ("on_llm_new_token",)),
    Finished: (_finished, ("on_llm_end", "on_chain_end", "on_tool_end")),
    Failed: (_failed, ("on_llm_error", "on_chain_error", "on_tool_error")),
    ToolStarted: (_tool_started, ("on_tool_start",)),
    ToolFinished: (_tool_finished, ("on_tool_end",)),
    Retried: (_retried, ("on_retry",)),
    Cancelled: (_cancelled, ("on_cancel",)),
    Custom: (_custom, ("on_custom_event",)),
}
_HOOKS = {name for _, names in _TELLS.values() for name in names}
_OTHER_NAMES = {  # which astream_events has for these
    "on_chat_model_end": "on_llm_end",
    "on_chat_model_error": "on_llm_error",
    "on_chat_model_new_token": "on_llm_new_token",
    "on_chat_model_stream": "on_llm_new_token",
    "on_llm_stream": "on_llm_new_token",
}
_ALIKE = 0.85  # of 1, how much a name must be like that of a hook to be a slip


def _refuse_misspelt(handler: type[CallbackHandler]) -> None:
    """A hook of a wrong name would never be called.

    Raises:
        MisuseError: there is a method whose name is nearly that of a hook.
    """
    import difflib  # only who writes hooks pays for it

    known = {*_HOOKS, "on_event", "on_next", "on_error", "on_completed"}
    for name in dir(handler):
        if name.startswith("on_") and name not in known and callable(getattr(handler, name)):
            near = _OTHER_NAMES.get(name) or next(iter(difflib.get_close_matches(name, known, 1, _ALIKE)), None)
            if near is not None:
                raise MisuseError(
                    f"{handler.__name__}.{name} is never called, because there is no hook of this name. Did you mean "
                    f"{near}?"
                )
