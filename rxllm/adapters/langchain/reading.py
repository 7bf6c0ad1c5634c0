"""`Reader`: the stream of a model or a chain of LangChain in rxllm's chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata, add_usage

from ...misuse import MisuseError, is_mapping, shown
from ...values.chunk import Chunk, text_chunk
from ...values.parts import Part, RawPart, ReasoningPart, RefusalPart, ToolCallPart
from .messages import answer_of, content_of, id_of, named, outcome_of, usage_of
from .parts import parts_of_block
from .vendors import rxllm_name

__all__ = ["Reader"]

_IN_EACH = {"model_provider"}  # the fields that the packages of vendors put in each chunk
_SERVER_TOOLS = ("server_tool_call", "server_tool_call_chunk", "server_tool_result")


class Reader:
    """Reads the items of one stream, in order.

    Attributes:
        reason: why the answer ended, in the vendor's word; None until the stream tells it.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._usage: UsageMetadata | None = None
        self._has_calls = False
        self._provider: str | None = None
        self._server_call: dict[str, Any] | None = None  # the call of a vendor's own tool, until it is whole

    def read(self, item: object) -> Iterator[Chunk]:
        """Yield the chunks of an item: a text, a chunk of a message, or a whole message.

        Raises:
            MisuseError: the item is something else.
        """
        if isinstance(item, str):
            if item:
                yield text_chunk(item)
        elif isinstance(item, AIMessageChunk):
            yield from self._chunk(item)
        elif isinstance(item, AIMessage):
            answer = answer_of(item)
            self.reason = answer.raw_finish_reason
            yield Chunk.of(answer)
        else:
            raise MisuseError(
                f"A model or a chain of LangChain must give text or messages here, not {shown(item)}. End the chain "
                "with a StrOutputParser, or before its output parser."
            )

    def end(self) -> Iterator[Chunk]:
        """Yield what is held back at the end of the stream."""
        parts = self._flushed()
        if parts:
            yield Chunk(parts=parts)

    def _chunk(self, chunk: AIMessageChunk) -> Iterator[Chunk]:
        metadata = chunk.response_metadata
        others = chunk.additional_kwargs or chunk.tool_call_chunks or chunk.usage_metadata or self._server_call
        if type(chunk.content) is str and not others and metadata.keys() <= _IN_EACH:  # most chunks
            if chunk.content:
                yield text_chunk(chunk.content)
            return
        self._provider = rxllm_name(named(metadata, "model_provider")) or self._provider
        facts = self._facts(chunk)
        parts = [*self._parts(chunk)]
        if parts or any(fact is not None for fact in facts.values()):
            yield Chunk(parts=parts, **facts)

    def _parts(self, chunk: AIMessageChunk) -> Iterator[Part]:
        if thought := named(chunk.additional_kwargs, "reasoning_content", "reasoning"):
            yield ReasoningPart(thought, provider=self._provider)
        for item in content_of(chunk):
            if is_mapping(item) and item.get("type") in _SERVER_TOOLS:
                yield from self._server_tool(item)
            else:
                yield from self._flushed()
                yield from parts_of_block(item, self._provider, is_answer=True)
        if refusal := named(chunk.additional_kwargs, "refusal"):
            yield RefusalPart(refusal)
        for call in chunk.tool_call_chunks:
            self._has_calls = True
            yield ToolCallPart(call["id"] or "", call["name"] or "", call["args"] or "", _index(call["index"]))

    def _server_tool(self, block: Mapping[str, Any]) -> Iterator[Part]:
        """Yield the parts of the vendor's own tools, which go back as they came. The fragments of a call are joined."""
        open_call, is_result = self._server_call, block["type"] == "server_tool_result"
        if open_call is not None and not is_result and open_call.get("index") == block.get("index"):
            open_call["args"] = (open_call.get("args") or "") + (block.get("args") or "")
            return
        yield from self._flushed()
        if block["type"] == "server_tool_call_chunk":
            self._server_call = dict(block)
        else:
            yield RawPart(self._provider or "", block)

    def _flushed(self) -> list[Part]:
        call, self._server_call = self._server_call, None
        return [] if call is None else [RawPart(self._provider or "", {**call, "type": "server_tool_call"})]

    def _facts(self, chunk: AIMessageChunk) -> dict[str, Any]:
        """Return the facts of a chunk. LangChain's counts are differences, rxllm's are running totals."""
        metadata = chunk.response_metadata
        facts: dict[str, Any] = {"model": named(metadata, "model_name", "model"), "id": id_of(chunk)}
        if chunk.usage_metadata is not None:
            self._usage = add_usage(self._usage, chunk.usage_metadata)
            facts["usage"] = usage_of(self._usage)
        reason, raw = outcome_of(metadata, has_calls=self._has_calls or bool(chunk.tool_call_chunks))
        if raw is not None:
            self.reason = raw
            facts.update(finish_reason=reason, raw_finish_reason=raw)
        logprobs: object = metadata.get("logprobs")
        if is_mapping(logprobs):
            facts["logprobs"] = {name: items for name, items in logprobs.items() if isinstance(items, list)} or None
        if self._provider is not None and facts.keys() - {"model", "id"}:
            facts["provider"] = self._provider
        return facts


def _index(index: object) -> int:
    return index if isinstance(index, int) else 0
