"""`ChatWriter` and `TextWriter`: the stream of an answer in LangChain's chunks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, GenerationChunk

from ...values.chunk import Chunk, join, with_parts
from ...values.parts import (
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ends_round,
)
from .._written import Writer, refused_reset
from .answers import V1, in_blocks, is_plain, metadata_of, usage_metadata
from .blocks import Block, annotation_of, block_of, facts_of

__all__ = ["ChatWriter", "TextWriter"]


class _Block:
    """A block of the content that is being streamed.

    Attributes:
        index: the position of the block in the content.
        part: the first fragment of the block.
        is_own: whether it is a call that the calling program runs.
        sent: the names of the facts that LangChain has. It would join the texts of a fact that came twice.
    """

    __slots__ = ("index", "is_own", "part", "sent")

    def __init__(self, index: int, part: Part, *, is_own: bool = False) -> None:
        self.index = index
        self.part = part
        self.is_own = is_own
        self.sent: set[str] = set()

    def new(self, facts: Mapping[str, Any]) -> Block:
        """Return the facts that LangChain does not have yet."""
        new = {name: fact for name, fact in facts.items() if fact and name not in self.sent}
        self.sent.update(new)
        return new


class ChatWriter(Writer[Chunk, ChatGenerationChunk]):
    """Writes LangChain's chunks for the chunks with content, and at the end one with the usage and the other facts.

    ::

        -Hel-lo-(usage)-|
        -Hel-lo---------(last, with usage)|

    Each part has a block of its own, whose fragments LangChain joins by its index. `write` raises Interrupted for a
    chunk with ``reset`` after the first content.
    """

    def __init__(
        self, *, model: str | None = None, own_tools: Collection[str] | None = None, in_blocks: bool = False
    ) -> None:
        """Create a writer.

        Args:
            model: the name of the model, for an answer without it.
            own_tools: as for `message_of`.
            in_blocks: whether text is a block, too, as a chat model with ``output_version="v1"`` needs it. Otherwise
                it is one from the first part on that is neither plain text nor a plain call.
        """
        self._model = model
        self._own_tools = own_tools
        self._in_blocks = in_blocks
        self._metadata: Mapping[str, Any] = V1  # what each chunk says of its content; empty after content without block
        self._last: _Block | None = None
        self._calls: dict[int, _Block] = {}  # of this round, by the index of the part
        self._reasoning: dict[int, _Block] = {}
        self._count = 0  # of the blocks
        self._facts: list[Chunk] = []  # the chunks that tell more than content, without their content

    @property
    def has_facts(self) -> bool:
        """Whether the last chunk tells more than that it is the last."""
        return bool(self._facts) or self._in_blocks

    def write(self, value: Chunk) -> Iterable[ChatGenerationChunk]:
        """Return the chunks for a chunk."""
        if value.rest is None:
            return self._write(TextPart(value.text)) if self._in_blocks else self._write_text(value.text)
        if value.reset and self._last is not None:
            raise refused_reset("LangChain")
        facts = with_parts(value, ())
        if facts:
            self._facts.append(facts)
        return [generation for part in value.parts for generation in self._write(part)]

    def end(self) -> Iterable[ChatGenerationChunk]:
        """Return the last chunk."""
        facts = join(self._facts)
        metadata = metadata_of(facts, self._model)
        if self._in_blocks and self._metadata:
            metadata.update(in_blocks(facts))
        counts = usage_metadata(facts.usage)
        return [_generation("", response_metadata=metadata, usage_metadata=counts, chunk_position="last")]

    def _write_text(self, text: str) -> Iterable[ChatGenerationChunk]:
        """Return a text that is not a block."""
        if not text:
            return ()
        if self._last is None or type(self._last.part) is not TextPart:
            self._open(TextPart(text))
        self._metadata = {}
        return (_text_generation(text),)

    def _write(self, part: Part) -> Iterable[ChatGenerationChunk]:
        """Return a part, or a fragment of one."""
        if is_plain(part) and not (self._in_blocks and part.text):
            return self._write_text(part.text)
        block = self._block_for(part)
        fragment = _fragment(part, block)
        if not block.is_own:
            self._in_blocks = True
            return [_generation([fragment], response_metadata=self._metadata)]
        call = {name: fragment.get(name) for name in ("type", "id", "name", "args", "index")}
        self._in_blocks = self._in_blocks or "extras" in fragment
        if not self._in_blocks:
            self._metadata = {}
        content = [fragment] if self._in_blocks else ""
        return [_generation(content, tool_call_chunks=[call], response_metadata=self._metadata)]

    def _block_for(self, part: Part) -> _Block:
        """Return the block that a fragment continues, by the rules of `rxllm.values.joining`, else a new one."""
        last = self._last
        match part:
            case TextPart() if last and isinstance(last.part, TextPart):
                is_signed = part.signature is not None or "signature" in last.sent
                if part.index in (None, last.part.index) and not is_signed:
                    return last
            case ReasoningPart():
                found = last if part.index is None else self._reasoning.get(part.index)
                if found and isinstance(found.part, ReasoningPart) and _continues(part, found.part, found.sent):
                    return found
            case RefusalPart() if last and isinstance(last.part, RefusalPart):
                return last
            case ToolCallPart():
                found = self._calls.get(part.index)
                if found and isinstance(found.part, ToolCallPart) and part.id in ("", found.part.id):
                    return found
            case _ if ends_round(part):
                self._calls.clear()
                self._reasoning.clear()
            case _:
                pass
        return self._open(part)

    def _open(self, part: Part) -> _Block:
        """Return a new block."""
        block = self._last = _Block(self._count, part)
        self._count += 1
        if isinstance(part, ToolCallPart):
            self._calls[part.index] = block
            block.is_own = self._own_tools is None or part.name in self._own_tools
        elif isinstance(part, ReasoningPart) and part.index is not None:
            self._reasoning[part.index] = block
        return block


def _generation(content: Any, **facts: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content=content, **facts))


_MESSAGE, _CHUNK = AIMessageChunk(content="").__getstate__(), _generation("").__getstate__()  # as pickle takes them
_MESSAGE_FIELDS, _CHUNK_FIELDS = _MESSAGE["__dict__"], _CHUNK["__dict__"]


def _text_generation(text: str) -> ChatGenerationChunk:
    """Return ``_generation(text)``, made as unpickling makes it: validation is half of the cost of a token."""
    fields: dict[str, Any] = {
        **_MESSAGE_FIELDS,
        "content": text,
        "additional_kwargs": {},
        "response_metadata": {},
        "tool_calls": [],
        "invalid_tool_calls": [],
        "tool_call_chunks": [],
    }
    told: dict[str, Any] = {"__dict__": fields, "__pydantic_extra__": {}, "__pydantic_fields_set__": {"content"}}
    message: AIMessageChunk = AIMessageChunk.__new__(AIMessageChunk)
    message.__setstate__({**_MESSAGE, **told})
    fields = {**_CHUNK_FIELDS, "message": message, "text": text}
    chunk: ChatGenerationChunk = ChatGenerationChunk.__new__(ChatGenerationChunk)
    chunk.__setstate__({**_CHUNK, "__dict__": fields, "__pydantic_fields_set__": {"message", "text"}})
    return chunk


def _continues(part: ReasoningPart, first: ReasoningPart, sent: Collection[str]) -> bool:
    """Return whether reasoning belongs to the block before it. A signature closes a block."""
    return part.index == first.index and ("signature" not in sent or not part.text)


def _fragment(part: Part, block: _Block) -> Block:
    """Return the block of a fragment, with the facts that are new."""
    match part:
        case ToolCallPart():
            kind = "tool_call_chunk" if block.is_own else "server_tool_call_chunk"
            fragment: Block = {"type": kind, "args": part.arguments}
            fragment.update(block.new({"id": part.id, "name": part.name}))
        case TextPart():
            fragment = {"type": "text", "text": part.text}
            if part.citations:
                fragment["annotations"] = [annotation_of(citation) for citation in part.citations]
        case ReasoningPart():
            fragment = {"type": "reasoning", "reasoning": part.text, **block.new({"id": part.id})}
        case _:
            return {**block_of(part), "index": block.index}
    fragment["index"] = block.index
    if facts := block.new(facts_of(part)):
        fragment["extras"] = facts
    return fragment


class TextWriter(Writer[Chunk, GenerationChunk]):
    """Writes the text of each chunk in LangChain's form for completions, and at the end the other facts."""

    def __init__(self) -> None:
        self._has_text = False
        self._facts: list[Chunk] = []

    @property
    def has_facts(self) -> bool:
        """Whether a chunk has told more than text."""
        return bool(self._facts)

    def write(self, value: Chunk) -> Iterable[GenerationChunk]:
        """Return the text of a chunk."""
        if value.reset and self._has_text:
            raise refused_reset("LangChain")
        if value.rest is not None and (facts := with_parts(value, ())):
            self._facts.append(facts)
        if not value.text:
            return ()
        self._has_text = True
        return [GenerationChunk(text=value.text)]

    def end(self) -> Iterable[GenerationChunk]:
        """Return a chunk without text."""
        facts = join(self._facts)
        info = metadata_of(facts)
        if counts := usage_metadata(facts.usage):
            info["usage_metadata"] = counts
        return [GenerationChunk(text="", generation_info=info)]
