"""`RxllmRunnable`: a pipeline of rxllm as a runnable of LangChain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from typing import Any, cast

from attrs import frozen
from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import merge_configs
from reactivex import Observable

from ...bridges import AsyncStream, SyncStream
from ...events import Emitted, Event, Finished, RunChunk, Started
from ...pipeline import Pipeline
from ...values.chunk import Chunk
from .._written import Writer, written
from .answers import converted
from .calls import runs_tools
from .generations import ChatWriter
from .messages import prompt_of
from .run_events import RunEvents

__all__ = ["RxllmRunnable"]


@frozen
class _Value:
    """A value of the stream."""

    value: Any


@frozen
class _Answer:
    """What the stream adds up to."""

    value: Any


class RxllmRunnable(Runnable[Any, Any]):
    """A pipeline of rxllm as a runnable of LangChain. `to_langchain` makes it.

    Prompts and messages of LangChain become those of rxllm, and chunks and answers of rxllm become LangChain's
    messages. Other values pass through. LangChain's callbacks hear of the runs within the pipeline, too.
    """

    def __init__(self, pipeline: Pipeline[Any, Any, Any]) -> None:
        self.pipeline = pipeline
        self.name = pipeline.run_name or "Pipeline"
        self._own_tools: Collection[str] | None = () if runs_tools(pipeline) else None

    def __repr__(self) -> str:
        return f"RxllmRunnable({self.pipeline!r})"

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Return what the stream adds up to."""
        return self._call_with_config(self._invoke, input, self._config(config), **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Return what the stream adds up to, without blocking the event loop."""
        return await self._acall_with_config(self._ainvoke, input, self._config(config), **kwargs)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """Yield the values of the stream."""
        return self._transform_stream_with_config(iter([input]), self._stream, self._config(config), **kwargs)

    def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:
        """Yield the values of the stream, without blocking the event loop."""
        return self._atransform_stream_with_config(_only(input), self._astream, self._config(config), **kwargs)

    def _config(self, config: RunnableConfig | None) -> RunnableConfig:
        """Return the config with the tags and the metadata of the pipeline."""
        own = RunnableConfig(tags=[*self.pipeline.tags], metadata=dict(self.pipeline.metadata))
        return merge_configs(own, config)

    def _items(self, value: Any, settings: Any) -> Observable[_Value | _Answer | Event]:
        events = self.pipeline.events(_input(value), **settings)
        return events.pipe(written(lambda: _Outputs(self._own_tools)))

    def _read(self, value: Any, settings: Any, told: RunEvents) -> Iterator[_Value | _Answer]:
        with SyncStream(self._items(value, settings)) as items:
            try:
                for item in items:
                    if isinstance(item, (_Value, _Answer)):
                        yield item
                    else:
                        told.tell(item)
            finally:
                told.end()

    async def _aread(self, value: Any, settings: Any, told: RunEvents) -> AsyncIterator[_Value | _Answer]:
        async with AsyncStream(self._items(value, settings)) as items:
            try:
                async for item in items:
                    if isinstance(item, (_Value, _Answer)):
                        yield item
                    else:
                        await told.atell(item)
            finally:
                await told.aend()

    def _invoke(self, value: Any, run_manager: CallbackManagerForChainRun, **settings: Any) -> Any:
        *_, last = self._read(value, settings, RunEvents(run_manager))
        return last.value

    async def _ainvoke(self, value: Any, run_manager: AsyncCallbackManagerForChainRun, **settings: Any) -> Any:
        *_, last = [item async for item in self._aread(value, settings, RunEvents(run_manager))]
        return last.value

    def _stream(self, inputs: Iterator[Any], run_manager: CallbackManagerForChainRun, **settings: Any) -> Iterator[Any]:
        [value] = inputs
        for item in self._read(value, settings, RunEvents(run_manager)):
            if isinstance(item, _Value):
                yield item.value

    async def _astream(
        self, inputs: AsyncIterator[Any], run_manager: AsyncCallbackManagerForChainRun, **settings: Any
    ) -> AsyncIterator[Any]:
        [value] = [value async for value in inputs]
        async for item in self._aread(value, settings, RunEvents(run_manager)):
            if isinstance(item, _Value):
                yield item.value


async def _only(value: Any) -> AsyncIterator[Any]:
    yield value


def _input(value: Any) -> Any:
    """Return an input with rxllm's prompt for one of LangChain."""
    if isinstance(value, PromptValue):
        return prompt_of(value.to_messages())
    if isinstance(value, BaseMessage):
        return prompt_of([value])
    if isinstance(value, list):
        items = cast("list[object]", value)
        messages = [item for item in items if isinstance(item, BaseMessage)]
        return prompt_of(messages) if messages and len(messages) == len(items) else items
    return value


class _Outputs(Writer[Event, _Value | _Answer | Event]):
    """Turns the events of the pipeline itself into its values and its answer. The events of inner runs stay."""

    def __init__(self, own_tools: Collection[str] | None) -> None:
        """Create it; `own_tools` is that of `message_of`."""
        self._own_tools = own_tools
        self._root: str | None = None  # the id of the pipeline's run, whose event is the first
        self._writer: ChatWriter | None = None  # for a pipeline of chunks

    def write(self, value: Event) -> Iterable[_Value | _Answer | Event]:
        """Return the values, or the event."""
        run_id = cast("Started", value).run_id
        self._root = self._root or run_id
        if run_id != self._root:
            return [value]
        if isinstance(value, (Emitted, RunChunk)):
            return self._values(value.value if isinstance(value, Emitted) else value)
        if isinstance(value, Finished):
            rest = self._writer.end() if self._writer and self._writer.has_facts else ()
            return [*(_Value(chunk.message) for chunk in rest), _Answer(converted(value.output, self._own_tools))]
        return ()

    def _values(self, value: Any) -> Iterable[_Value]:
        if not isinstance(value, Chunk):
            return [_Value(converted(value, self._own_tools))]
        self._writer = self._writer or ChatWriter(own_tools=self._own_tools)
        return [_Value(chunk.message) for chunk in self._writer.write(value)]
