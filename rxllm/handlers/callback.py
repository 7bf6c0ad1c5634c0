"""`CallbackHandler`: one hook per kind of event, named as in langchain-core."""

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
from ..operators.observer import ignore
from ..results import LLMResult
from ..values.chunk import Chunk
from ..values.message import Message
from ._later import HookQueues, discard

__all__ = ["CallbackHandler"]

_MODELS = ("llm", "chat_model")
_CHAINS = ("chain", "agent")


class CallbackHandler(Handler):
    """Hooks to override, ``def`` or ``async def``, with the names and arguments of langchain-core.

    ::

        class Tokens(rxllm.CallbackHandler):
            def on_llm_new_token(self, token, **kwargs):
                print(token, end="")

            async def on_llm_end(self, response, **kwargs):
                await store(kwargs["run_id"], response.llm_output["token_usage"])

        llm = rxllm.OpenAI("gpt-5-mini", handlers=[Tokens()])

    Each hook receives the keywords `run_id`, `parent_run_id` (None for a root run), `tags`, `metadata` and the run's
    `name`, so accept ``**kwargs``. The `name` of `on_custom_event` is the event's. `on_llm_new_token` is called for
    streamed and for whole answers; a whole answer is one chunk. A hook that is not overridden costs nothing.

    A ``def`` hook runs on the stream's thread and must not block. Its exception is logged; with `raise_error` the
    exception fails the run. An ``async def`` hook runs beside the stream, and the stream does not wait for it. The
    async hooks of one run run one after another, on the run's event loop and in its context. The end of ``async with``
    and ``await llm.ainvoke(…)`` wait for them; ``llm.invoke(…)`` does not. Their exceptions are logged. A context
    variable that a hook sets is visible to the later hooks of the run.

    Subscribed directly to a model's answer, the handler receives `on_llm_new_token` and `on_llm_error`, with `run_id`
    None.

    Raises:
        MisuseError: at class definition, if the class has both an ``async def`` hook and `raise_error`.
    """

    _hook_callers: ClassVar[Mapping[type, Callable[[Any, Any], Any]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = {name for name in _HOOKS if getattr(cls, name) is not getattr(CallbackHandler, name)}
        _refuse_misspelt(cls)
        if cls.raise_error and any(inspect.iscoroutinefunction(getattr(cls, name)) for name in own):
            raise MisuseError(_ASYNC_AND_RAISE_ERROR)
        cls._hook_callers = {kind: call for kind, (call, names) in _HOOK_CALLERS.items() if not own.isdisjoint(names)}

    def _chunk_receiver(self, run: Run) -> Callable[[Chunk], object] | None:
        return None if RunChunk in self._hook_callers else ignore

    def on_event(self, event: Event) -> None:
        """Call the hook for the event."""
        call_hook = self._hook_callers.get(type(event))
        if call_hook is not None:
            result = call_hook(self, event)
            if result is not None and inspect.isawaitable(result):
                self._run_later(event, result)

    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], **kwargs: Any) -> Any:
        """A text-completion model starts. `serialized` has its ``name``, ``provider`` and ``model``."""

    def on_chat_model_start(self, serialized: dict[str, Any], messages: list[list[Message]], **kwargs: Any) -> Any:
        """A chat model starts. The default calls `on_llm_start` with the text of the messages."""
        return self.on_llm_start(serialized, [_text(conversation) for conversation in messages], **kwargs)

    def on_llm_new_token(self, token: str, **kwargs: Any) -> Any:
        """A model emits a chunk. `token` is the chunk's text, possibly empty; keyword `chunk` is the whole `Chunk`."""

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> Any:
        """A model completes its answer."""

    def on_llm_error(self, error: Exception, **kwargs: Any) -> Any:
        """A model fails. For an `RxllmError`, ``error.partial`` is the part of the answer that had arrived."""

    def on_chain_start(self, serialized: dict[str, Any], inputs: Any, **kwargs: Any) -> Any:
        """A pipeline starts."""

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> Any:
        """A pipeline completes."""

    def on_chain_error(self, error: Exception, **kwargs: Any) -> Any:
        """A pipeline fails."""

    def on_tool_start(self, serialized: dict[str, Any], input_str: str, **kwargs: Any) -> Any:
        """A tool is called with `input_str`.

        Keyword `inputs` holds the original input, before its conversion to text.
        """

    def on_tool_end(self, output: Any, **kwargs: Any) -> Any:
        """A tool returns its result."""

    def on_tool_error(self, error: Exception, **kwargs: Any) -> Any:
        """A tool fails."""

    def on_retry(self, retry_state: Retried, **kwargs: Any) -> Any:
        """A model is asked again. `retry_state` has the failed `attempt`, its `error` and the `delay` in seconds."""

    def on_cancel(self, partial: Any, **kwargs: Any) -> Any:
        """The subscriber cancels the run. `partial` is the part that had arrived, or None."""

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> Any:
        """The program dispatches an event of its own with `dispatch`."""

    def _run_later(self, event: Event, awaitable: Awaitable[Any]) -> None:
        if self.raise_error:
            discard(awaitable)
            raise MisuseError(_ASYNC_AND_RAISE_ERROR)
        # Not created in __init__: a subclass may define __init__ without calling super().__init__().
        queues: HookQueues = vars(self).setdefault("_hook_queues", HookQueues())
        queues.put(_run_of(event).id, awaitable)


_ASYNC_AND_RAISE_ERROR = (
    "An async hook cannot be used with raise_error: the hook runs beside the stream, which may have ended when the "
    "hook fails. Write the hook as a plain def, or leave raise_error out and the failure is logged."
)
_NO_RUN = Run("", "", "llm")


def _run_of(event: Event) -> Run:
    """Return the event's run, or `_NO_RUN` for a handler that is subscribed directly to an answer."""
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
    if run.kind in _CHAINS:
        return handler.on_chain_start(_serialized(run), event.input, **_ids(run))
    return _tool_started(handler, event)


def _chunk(handler: CallbackHandler, chunk: Chunk) -> Any:
    run = _run_of(chunk)
    if run.kind in _MODELS:  # a pipeline repeats the chunks of its models
        return handler.on_llm_new_token(chunk.text, chunk=chunk, **_ids(run))
    return None


def _finished(handler: CallbackHandler, event: Finished) -> Any:
    run = event.run
    if run.kind in _MODELS:
        return handler.on_llm_end(LLMResult.of([event.message]), **_ids(run))
    end = handler.on_chain_end if run.kind in _CHAINS else handler.on_tool_end
    return end(event.output, **_ids(run))


def _failed(handler: CallbackHandler, event: Failed) -> Any:
    run = _run_of(event)
    hooks = {**dict.fromkeys(_CHAINS, handler.on_chain_error), "tool": handler.on_tool_error}
    return hooks.get(run.kind, handler.on_llm_error)(event.error, **_ids(run))


def _tool_started(handler: CallbackHandler, event: ToolStarted | Started) -> Any:
    value = event.input
    text = value if isinstance(value, str) else str(value)
    return handler.on_tool_start(_serialized(event.run), text, inputs=value, **_ids(event.run))


def _tool_finished(handler: CallbackHandler, event: ToolFinished) -> Any:
    return handler.on_tool_end(event.output, **_ids(event.run))


def _retried(handler: CallbackHandler, event: Retried) -> Any:
    return handler.on_retry(event, **_ids(event.run))


def _cancelled(handler: CallbackHandler, event: Cancelled) -> Any:
    return handler.on_cancel(event.partial, **_ids(event.run))


def _custom(handler: CallbackHandler, event: Custom) -> Any:
    ids = _ids(event.run)
    del ids["name"]  # `name` is the event's name for this hook
    return handler.on_custom_event(event.topic, event.data, **ids)


_HOOK_CALLERS: Mapping[type, tuple[Callable[[Any, Any], Any], tuple[str, ...]]] = {
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
_HOOKS = {name for _, names in _HOOK_CALLERS.values() for name in names}
_NAMES_ELSEWHERE = {  # names that astream_events has for these hooks
    "on_chat_model_end": "on_llm_end",
    "on_chat_model_error": "on_llm_error",
    "on_chat_model_new_token": "on_llm_new_token",
    "on_chat_model_stream": "on_llm_new_token",
    "on_llm_stream": "on_llm_new_token",
}
_MIN_SIMILARITY = 0.85  # of 1; a method name at least this similar to a hook's is a spelling mistake


def _refuse_misspelt(handler: type[CallbackHandler]) -> None:
    """Check the method names of a handler class: a hook with a misspelt name would never be called.

    Raises:
        MisuseError: a method's name is similar to that of a hook.
    """
    import difflib  # imported here, so that only programs with hooks load it

    names = {*_HOOKS, "on_event", "on_next", "on_error", "on_completed"}
    for name in dir(handler):
        if name.startswith("on_") and name not in names and callable(getattr(handler, name)):
            similar = difflib.get_close_matches(name, names, 1, _MIN_SIMILARITY)
            hook = _NAMES_ELSEWHERE.get(name) or next(iter(similar), None)
            if hook is not None:
                raise MisuseError(
                    f"{handler.__name__}.{name} is never called, because there is no hook of this name. Did you mean "
                    f"{hook}?"
                )
