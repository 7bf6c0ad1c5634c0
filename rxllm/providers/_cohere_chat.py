"""The decoder of Cohere's chat API, version 2, for streams and for whole answers."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from ..bounds import CALLS, CITATIONS, PARTS
from ..errors import ProtocolError, ProviderError
from ..values.chunk import Chunk, part_chunk, text_chunk
from ..values.parts import Part, ReasoningPart, TextPart, ToolCallPart
from ..values.usage import Usage
from ..wire.error_documents import provider_error, tells_error
from ._cohere_turns import MAKER, PLAN
from ._content import Tally, bounded
from ._documents import UNREADABLE, count, identity_of, json_of, list_of, object_of, text_of, unreadable
from ._finish import broken_off, finish_with, word_of
from ._limits import DEFAULT, Limits

__all__ = ["CohereDecoder", "whole_answer"]


# A field is Any if a future kind of event may give it another type.
class _Message(Struct, gc=False):
    content: Any = None
    tool_plan: Any = None
    tool_calls: Any = None
    citations: Any = None


class _Delta(Struct, gc=False):
    message: _Message | None = None
    finish_reason: Any = None
    usage: Any = None
    error: Any = None


class _Event(Struct, gc=False):
    type: str = ""
    index: int | None = None
    id: Any = None
    delta: _Delta | None = None
    logprobs: Any = None


_decode_event = msgspec.json.Decoder(_Event).decode
_NOTHING = _Message()


class CohereDecoder:
    """Decodes one stream, which is complete after a ``message-end`` without an error."""

    __slots__ = (
        "_bare",
        "_calls",
        "_id",
        "_plans",
        "_spoken",
        "_tally",
        "_text",
        "complete",
        "ended",
        "failure",
        "finished",
    )

    def __init__(self, limits: Limits = DEFAULT) -> None:
        self.complete = False
        self.ended = False
        self.failure: ProviderError | None = None
        self.finished = False
        self._bare: set[int] = set()  # the indices of calls whose arguments have not arrived
        self._calls = 0
        self._id: str | None = None
        self._plans = False  # the last part is a plan
        self._spoken = False
        self._tally = Tally(limits)
        self._text: int | None = -1  # the index of the block that plain text continues; -1 after anything else

    def chunk(self, data: bytes) -> Chunk | None:
        """Return the content of an event as a chunk; None if it has no content."""
        if self.ended:
            return None
        try:
            event = _decode_event(data)
        except UNREADABLE as error:
            if data.strip() in (b"[DONE]", b""):
                return None
            raise unreadable("an event of Cohere's chat API", error, data) from None
        delta = event.delta
        if event.type == "content-delta" and delta is not None and delta.message is not None:
            content = object_of(delta.message.content)
            text = content.get("text")
            if event.index == self._text and type(text) is str and event.logprobs is None:
                return text_chunk(text) if text else None
            return self._grown(event.index, content, event.logprobs)
        return self._event(event, data)

    def rest(self) -> Chunk | None:
        """Return None: the decoder holds back no content."""
        return None

    def _event(self, event: _Event, data: bytes) -> Chunk | None:
        message = event.delta.message if event.delta and event.delta.message else _NOTHING
        match event.type:
            case "message-start":
                self._id = identity_of(event.id) or None
                return None
            case "content-start":
                return self._grown(event.index, object_of(message.content))
            case "tool-plan-delta":
                return self._planned(text_of(message.tool_plan))
            case "tool-call-start" | "tool-call-delta":
                call = object_of(next(iter(list_of(message.tool_calls)), message.tool_calls))  # gateways send a list
                return self._call(event.index or 0, call, starts=event.type.endswith("start"))
            case "tool-call-end" if (event.index or 0) in self._bare:
                self._bare.discard(event.index or 0)
                return self._chunk_of([ToolCallPart(arguments="{}", index=event.index or 0)])
            case "citation-start":
                citation = object_of(message.citations)
                return self._chunk_of([TextPart("", (citation,), provider=MAKER)]) if citation else None
            case "message-end":
                return self._ended(event.delta or _Delta(), data)
            case _:
                document = json_of(data)
                if tells_error(document):
                    raise provider_error(document, data)
                return None

    def _ended(self, delta: _Delta, data: bytes) -> Chunk | None:
        raw = word_of(delta.finish_reason) or None
        self.failure = broken_off(raw)
        if delta.error:
            message = text_of(delta.error) or "The model failed in the middle of its answer."
            self.failure = ProviderError(message, code=raw, body=data.decode("utf-8", "replace"), retryable=True)
        self.finished = self.complete = self.failure is None
        self.ended = True
        bare, self._bare = sorted(self._bare), set()
        return self._chunk_of([ToolCallPart(arguments="{}", index=index) for index in bare], _usage(delta.usage), raw)

    def _chunk_of(
        self, parts: list[Part], usage: Usage | None = None, raw: str | None = None, logprobs: object = None
    ) -> Chunk | None:
        """Return a chunk, or None if it would be empty. Only the first chunk names the provider."""
        if parts:
            self._tally.add(parts)
        if logprobs:
            self._tally.hold_logprobs(logprobs)
        if not (parts or usage or raw):
            return None
        first, self._spoken = not self._spoken, True
        return Chunk(
            parts=parts,
            usage=usage,
            finish_reason=finish_with(raw, calls=self._calls),
            raw_finish_reason=raw,
            id=self._id if first else None,
            logprobs={"content": [logprobs]} if logprobs else None,
            provider=MAKER if first else None,
        )

    def _grown(self, index: int | None, content: dict[str, Any], logprobs: object = None) -> Chunk | None:
        if text := text_of(content.get("text")):
            # The text of a new block stays apart from the text before it, because each block has its own citations.
            apart = index if self._tally.ends_in_text and index != self._text else None
            self._text, self._plans = index, False
            return self._chunk_of([TextPart(text, (), apart)], logprobs=logprobs)
        if thought := text_of(content.get("thinking")):
            self._plans = False
            return self._fragment(ReasoningPart(thought, index=index, provider=MAKER))
        return None

    def _planned(self, text: str) -> Chunk | None:
        if not text:
            return None
        facts: dict[str, Any] = {} if self._plans else {"provider": MAKER, "extra": PLAN}
        self._plans = True
        return self._fragment(ReasoningPart(text, **facts))

    def _call(self, index: int, call: dict[str, Any], *, starts: bool) -> Chunk | None:
        function = object_of(call.get("function"))
        arguments = text_of(function.get("arguments"))
        self._plans = False
        if arguments:
            self._bare.discard(index)
        if not starts:
            return self._fragment(ToolCallPart(arguments=arguments, index=index)) if arguments else None
        self._calls += 1
        if self._calls > CALLS:
            raise ProtocolError(f"The response has more than {CALLS:,} tool calls.")
        if not arguments:
            self._bare.add(index)
        self._text = -1
        return self._chunk_of(
            [ToolCallPart(identity_of(call.get("id")), text_of(function.get("name")), arguments, index)]
        )

    def _fragment(self, part: ReasoningPart | ToolCallPart) -> Chunk | None:
        self._text = -1
        if not self._spoken:
            return self._chunk_of([part])
        self._tally.add((part,))
        return part_chunk(part)


def whole_answer(body: bytes) -> Chunk:
    """Return a whole answer as a chunk.

    Raises:
        ProviderError: the body is an error although its status is 200, or the server stopped the answer.
        ProtocolError: the body is neither an answer nor an error.
    """
    document = json_of(body)
    answer = object_of(document)
    message = object_of(answer.get("message"))
    if not message:
        if tells_error(document):
            raise provider_error(document, body)
        raise ProtocolError("The answer is not a response of Cohere's chat API: it has no message.", frame=body)
    raw = word_of(answer.get("finish_reason")) or None
    logprobs = list_of(answer.get("logprobs"))
    calls = _calls(message)
    chunk = Chunk(
        parts=[*_parts(message), *calls],
        usage=_usage(answer.get("usage")),
        finish_reason=finish_with(raw, calls=calls),
        raw_finish_reason=raw,
        id=identity_of(answer.get("id")) or None,
        logprobs={"content": logprobs} if logprobs else None,
        provider=MAKER,
    )
    if failure := broken_off(raw):
        failure.partial = chunk.message()
        raise failure
    return chunk


def _parts(message: dict[str, Any]) -> list[Part]:
    """Return the plan, the reasoning and the texts, each text with its citations."""
    plan = text_of(message.get("tool_plan"))
    parts: list[Part] = [ReasoningPart(plan, provider=MAKER, extra=PLAN)] if plan else []
    content = message.get("content")
    blocks = [{"text": content}] if isinstance(content, str) else list_of(content)
    citations = [object_of(each) for each in bounded(list_of(message.get("citations")), CITATIONS, "citations")]
    texts = [index for index, block in enumerate(blocks) if text_of(object_of(block).get("text"))]
    for index, block in enumerate(map(object_of, bounded(blocks, PARTS, "parts"))):
        if text := text_of(block.get("text")):
            # A citation that names no text block belongs to the first text.
            cited = [c for c in citations if c and (c.get("content_index") == index or _is_stray(c, texts, index))]
            apart = index if parts and isinstance(parts[-1], TextPart) else None
            parts.append(TextPart(text, cited, apart, provider=MAKER if cited else None))
        elif thought := text_of(block.get("thinking")):
            parts.append(ReasoningPart(thought, index=index, provider=MAKER))
    return parts


def _is_stray(citation: dict[str, Any], texts: list[int], index: int) -> bool:
    return index == texts[0] and citation.get("content_index") not in texts


def _calls(message: dict[str, Any]) -> list[Part]:
    calls = map(object_of, bounded(list_of(message.get("tool_calls")), CALLS, "tool calls"))
    parts: list[Part] = []
    for index, call in enumerate(calls):
        function = object_of(call.get("function"))
        arguments = text_of(function.get("arguments")) or "{}"
        parts.append(ToolCallPart(identity_of(call.get("id")), text_of(function.get("name")), arguments, index))
    return parts


def _usage(document: object) -> Usage | None:
    """Return the token counts; without them, the counts of billed tokens."""
    counts = object_of(document)
    if not counts:
        return None
    place = "tokens" if object_of(counts.get("tokens")) else "billed_units"
    return Usage(
        input_tokens=count(counts, place, "input_tokens"),
        output_tokens=count(counts, place, "output_tokens"),
        cache_read_input_tokens=count(counts, "cached_tokens"),
    )
