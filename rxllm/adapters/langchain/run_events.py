"""`RunEvents`: tells LangChain's callbacks of the runs within a pipeline of rxllm, as they happen.

Tracers, ``astream_events`` and other callbacks then see the models, the tools and the pipelines within it, with the
names and the parents that rxllm's own handlers see.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from attrs import frozen
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.callbacks.manager import ahandle_event, handle_event
from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, Generation, LLMResult

from ...events import (
    Cancelled,
    Custom,
    Emitted,
    Event,
    Failed,
    Finished,
    Run,
    RunChunk,
    Started,
    ToolFinished,
    ToolStarted,
)
from ...misuse import MisuseError
from ...values.message import Message
from ...values.request import Request
from .answers import converted, message_of
from .generations import ChatWriter, TextWriter
from .history import langchain_messages

__all__ = ["RunEvents"]

_HOOKS = {"chat_model": "llm", "llm": "llm", "tool": "tool", "chain": "chain", "agent": "chain"}
_IGNORED_IF = {"llm": "ignore_llm", "tool": "ignore_agent", "chain": "ignore_chain"}


@frozen
class _Call:
    """A call of a hook of the handlers. Handlers with a true attribute `ignored_if` do not get it."""

    hook: str
    ignored_if: str
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]


class RunEvents:
    """Tells the handlers of one run of LangChain of the runs within it.

    Attributes:
        handlers: the handlers that the inner runs inherit.
    """

    def __init__(self, manager: Any) -> None:
        """Create it for the run manager of LangChain's run."""
        self.handlers: list[BaseCallbackHandler] = manager.inheritable_handlers
        self._root: UUID = manager.run_id
        self._tags: Sequence[str] = manager.inheritable_tags
        self._metadata: Mapping[str, Any] = manager.inheritable_metadata
        self._open: dict[str, Run] = {}
        self._answers: dict[str, ChatWriter | TextWriter] = {}
        self._taps: dict[str, list[_Tap]] = {}

    def tell(self, event: Event) -> None:
        """Tell the handlers of an event."""
        for call in self._calls(event):
            handle_event(self.handlers, call.hook, call.ignored_if, *call.arguments, **call.keywords)

    async def atell(self, event: Event) -> None:
        """Tell the handlers of an event, and await those that are coroutine functions."""
        for call in self._calls(event):
            await ahandle_event(self.handlers, call.hook, call.ignored_if, *call.arguments, **call.keywords)
        if isinstance(event, Emitted):
            await self._emit(event.run, event.value)
        elif isinstance(event, RunChunk) and event.run.id not in self._answers:  # of an agent
            await self._emit(event.run, AIMessageChunk(content=event.text))

    def end(self) -> None:
        """End the runs that are still open, because the reader has left."""
        for run in reversed([*self._open.values()]):
            self.tell(Cancelled(run=run))

    async def aend(self) -> None:
        """Do the same as `end`."""
        for run in reversed([*self._open.values()]):
            await self.atell(Cancelled(run=run))

    def _calls(self, event: Event) -> Iterator[_Call]:
        match event:
            case RunChunk(run=run) if run.id in self._answers:
                for generation in self._answers[run.id].write(event):
                    yield self._call(run, "on_llm_new_token", (generation.text,), chunk=generation)
            case Started(run=run, input=value) | ToolStarted(run=run, input=value):
                self._open[run.id] = run
                yield self._start(run, value)
            case Finished(run=run, output=output) | ToolFinished(run=run, output=output):
                yield from self._end(run, output)
            case Failed(run=run) | Cancelled(run=run):
                error: BaseException = event.error if isinstance(event, Failed) else asyncio.CancelledError()
                yield self._ended(run, "error", error)
            case Custom(run=run, topic=topic, data=data):
                keywords = {"run_id": self._id(run.id), "tags": [*self._tags, *run.tags], "metadata": self._facts(run)}
                yield _Call("on_custom_event", "ignore_custom_event", (topic, data), keywords)
            case _:
                pass  # LangChain has no hook for it

    def _call(self, run: Run, hook: str, arguments: tuple[Any, ...], **more: Any) -> _Call:
        parent = self._id(run.parent_ids[-1]) if run.parent_ids else self._root
        keywords = {"run_id": self._id(run.id), "parent_run_id": parent, "tags": [*self._tags, *run.tags], **more}
        return _Call(hook, _IGNORED_IF[_HOOKS[run.kind]], arguments, keywords)

    def _id(self, run_id: str) -> UUID:
        """Return LangChain's id of a run. The root of rxllm's runs is the run of LangChain."""
        return UUID(run_id) if run_id in self._open else self._root

    def _facts(self, run: Run) -> dict[str, Any]:
        return {**self._metadata, **run.metadata}

    def _start(self, run: Run, value: Any) -> _Call:
        facts: dict[str, Any] = {"name": run.name, "metadata": self._facts(run)}
        made_by = {"lc": 1, "type": "not_implemented", "id": ["rxllm", run.name], "name": run.name}
        if isinstance(value, Request) and run.kind == "chat_model":
            self._answers[run.id] = ChatWriter(model=run.service.model if run.service else None)
            call = self._call(run, "on_chat_model_start", (made_by, [_shown(value, run)]), **facts)
            return _Call(call.hook, "ignore_chat_model", call.arguments, call.keywords)
        if isinstance(value, Request) and run.kind == "llm":
            self._answers[run.id] = TextWriter()
            return self._call(run, "on_llm_start", (made_by, [value.text]), **facts)
        if run.kind == "tool":
            return self._call(run, "on_tool_start", (made_by, str(value)), inputs=value, **facts)
        return self._call(run, "on_chain_start", (made_by, converted(value, own_tools=())), **facts)

    def _end(self, run: Run, output: Any) -> Iterator[_Call]:
        if (answer := self._answers.get(run.id)) is not None:
            for generation in answer.end() if answer.has_facts else ():
                yield self._call(run, "on_llm_new_token", (generation.text,), chunk=generation)
            yield self._ended(run, "end", _result(output, is_text=isinstance(answer, TextWriter)))
        else:
            yield self._ended(run, "end", converted(output, own_tools=()))

    def _ended(self, run: Run, phase: str, value: object) -> _Call:
        """Return the call for the end of a run, and forget the run."""
        call = self._call(run, f"on_{_HOOKS[run.kind]}_{phase}", (value,))
        self._answers.pop(run.id, None)
        self._taps.pop(run.id, None)
        del self._open[run.id]
        return call

    async def _emit(self, run: Run, value: Any) -> None:
        """Tell of a value of a pipeline. LangChain has no hook for it: ``astream_events`` reads the stream itself."""
        if run.id not in self._taps:
            taps = [getattr(handler, "tap_output_aiter", None) for handler in self.handlers]
            self._taps[run.id] = [_Tap(tap, self._id(run.id)) for tap in taps if tap is not None]
        for tap in self._taps[run.id]:
            await tap.send(converted(value, own_tools=()))


class _Tap:
    """A stream that a handler reads, value by value."""

    def __init__(self, tap: Any, run_id: UUID) -> None:
        self._value: Any = None
        self._read: AsyncGenerator[Any] = tap(run_id, self._values())

    async def _values(self) -> AsyncGenerator[Any]:
        while True:
            yield self._value

    async def send(self, value: Any) -> None:
        """Let the handler read a value."""
        self._value = value
        await anext(self._read)


def _result(answer: Message, *, is_text: bool) -> LLMResult:
    if is_text:
        return LLMResult(generations=[[Generation(text=answer.text)]])
    return LLMResult(generations=[[ChatGeneration(message=message_of(answer))]])


def _shown(request: Request, run: Run) -> list[BaseMessage]:
    """Return the messages of a request, for a trace."""
    try:
        return langchain_messages(request.messages, run.service.provider if run.service else None)
    except MisuseError:  # LangChain has no counterpart of an approval
        return [HumanMessage(request.text)]
