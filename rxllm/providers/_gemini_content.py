"""What comes back by Gemini's generateContent, as a stream of responses or as one.

Each event is a response with some parts of the answer. There is no end marker: an answer is complete when a candidate
has said why it ended. A call comes whole, or at Vertex AI in pieces that name the places of their values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ..bounds import CALLS, PARTS
from ..errors import ProtocolError, ProviderError
from ..values.chunk import Chunk, join, text_chunk
from ..values.message import FinishReason
from ..values.parts import Part, RawPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from ..values.usage import Usage
from ._content import Tally, bounded
from ._documents import (
    UNREADABLE,
    identity_of,
    json_of,
    list_of,
    object_of,
    provider_error,
    tells_error,
    text_of,
)
from ._finish import broken_off, finish_of
from ._gemini_parts import Counts, file_of, sources_of, usage_of
from ._partial_arguments import PartialArguments

__all__ = ["GeminiDecoder", "whole_answer"]


# What is read of the common frame, a piece of plain text; any other is read once more, as a document.
class _Part(Struct, gc=False):
    text: Any = None
    thought: Any = None
    thoughtSignature: Any = None  # noqa: N815 (as the protocol has it)


class _Content(Struct, gc=False):
    parts: list[_Part | None] | None = None


class _Candidate(Struct, gc=False, rename="camel"):
    content: _Content | None = None
    finish_reason: Any = None
    grounding_metadata: Any = None
    citation_metadata: Any = None
    logprobs_result: Any = None
    index: Any = None


_NONE = msgspec.Raw()


class _Response(Struct, gc=False, rename="camel"):
    candidates: list[_Candidate | None] | None = None
    usage_metadata: msgspec.Raw = _NONE
    error: Any = None


_decode = msgspec.json.Decoder(_Response).decode


class GeminiDecoder:
    """One stream. Complete once a candidate, or the prompt's feedback, says why the answer ended, if no error came."""

    __slots__ = (
        "_calls",
        "_counts",
        "_id",
        "_is_plain",
        "_maker",
        "_model",
        "_partial",
        "_raw",
        "_sources",
        "_spoken",
        "_tally",
        "complete",
        "ended",
        "failure",
    )

    def __init__(self, maker: str = "gcp.gemini") -> None:
        self.complete = False
        self.ended = False
        self.failure: ProviderError | None = None
        self._maker = maker
        self._id = self._model = ""
        self._is_plain = False  # the next text continues the last part, which is a text
        self._spoken = False  # id and model went out with the first chunk
        self._tally = Tally()
        self._calls = 0
        self._partial: PartialArguments | None = None  # of the call that is not yet whole
        self._counts: Counts | None = None  # the latest, which are totals
        self._raw = _NONE  # those of the latest text, which count only where none come later
        self._sources: list[dict[str, Any]] = []  # what the text is based on, as the latest frame has it

    @property
    def finished(self) -> bool:
        """Whether the reason of the end came, and no error."""
        return self.complete

    def chunk(self, data: bytes) -> Chunk | None:
        """What a frame says."""
        try:
            frame = _decode(data)
        except UNREADABLE as error:
            return self._other(data, error)
        if self._is_plain and frame.candidates and frame.error is None:
            candidate = frame.candidates[0]
            if (
                candidate is not None
                and (content := candidate.content) is not None
                and content.parts
                and len(content.parts) == 1
                and (part := content.parts[0]) is not None
                and not (
                    candidate.finish_reason
                    or candidate.index
                    or candidate.grounding_metadata
                    or candidate.citation_metadata
                    or candidate.logprobs_result
                    or part.thought
                    or part.thoughtSignature
                )
                and part.text
                and type(part.text) is str
            ):
                if (raw := frame.usage_metadata) is not _NONE:
                    self._raw = raw
                return text_chunk(part.text)
        return self.read(json_of(data), data)

    def rest(self) -> Chunk | None:
        """What was held back, when nothing more comes."""
        return self._said([*self._closed(cut=True), *self._cited()], self._usage())

    def _other(self, data: bytes, error: Exception) -> Chunk | None:
        word = data.strip()
        if not word or word == b"[DONE]":  # of gateways
            return None
        document = json_of(data)
        if list_of(document) or object_of(document).get("error"):
            raise provider_error(document, data)
        raise ProtocolError(f"A frame is not a response of generateContent: {error}.", frame=data) from None

    def read(self, document: object, data: bytes) -> Chunk | None:
        """All that a response says."""
        response = object_of(document)
        candidates = [each for each in map(object_of, list_of(response.get("candidates"))) if each]
        blocked = object_of(response.get("promptFeedback"))
        if response.get("error") or (not candidates and not blocked and tells_error(response)):
            self.complete = False
            raise provider_error(document, data)
        self._count(response.get("usageMetadata"))
        self._id = self._id or identity_of(response.get("responseId"))
        self._model = self._model or text_of(response.get("modelVersion"))
        candidate = next((each for each in candidates if not each.get("index")), dict[str, Any]())
        parts: list[Part] = []
        for part in bounded(list_of(object_of(candidate.get("content")).get("parts")), PARTS, "parts"):
            parts += self._parts(object_of(part))
        self._sources = sources_of(candidate) or self._sources
        raw = text_of(candidate.get("finishReason")) or None
        finish = finish_of(raw) if raw else None
        if not candidates and (reason := text_of(blocked.get("blockReason"))):
            raw, finish = reason, "content_filter"
            told = text_of(blocked.get("blockReasonMessage"))
            parts += [RefusalPart(told)] if told else []
        if raw:
            self.complete = True
            parts += [*self._closed(), *self._cited()]
            if finish == "stop" and self._calls:  # Gemini has no word of its own for it
                finish = "tool_call"
            elif finish == "error":
                self.complete = False
                self.failure = broken_off(raw, text_of(candidate.get("finishMessage")))
        logprobs = object_of(candidate.get("logprobsResult"))
        return self._said(parts, self._usage() if self.complete or raw else None, finish, raw, logprobs)

    def _said(
        self,
        parts: Sequence[Part],
        usage: Usage | None = None,
        finish: FinishReason | None = None,
        raw: str | None = None,
        logprobs: Mapping[str, Any] | None = None,
    ) -> Chunk | None:
        """Return a chunk, or None if it would be empty. The first chunk has the id, the model and the provider."""
        if parts:
            self._is_plain = self._tally.add(parts)
        if not (parts or usage or raw or logprobs):
            return None
        first, self._spoken = not self._spoken, True
        return Chunk(
            parts=parts,
            usage=usage,
            finish_reason=finish,
            raw_finish_reason=raw,
            logprobs={name: (*list_of(each),) for name, each in logprobs.items()} if logprobs else None,
            id=(self._id or None) if first else None,
            model=(self._model or None) if first else None,
            provider=self._maker if first and (self._id or self._model) else None,
        )

    def _count(self, document: object) -> None:
        """Note the counts of a response, each of which has totals. Some tell only of the traffic."""
        if object_of(document).get("promptTokenCount") is not None:
            self._counts, self._raw = msgspec.convert(document, Counts), _NONE

    def _usage(self) -> Usage | None:
        """The latest counts, if no chunk has told them."""
        self._count(json_of(bytes(self._raw)))
        counts, self._counts = self._counts, None
        return usage_of(counts) if counts else None

    def _parts(self, part: dict[str, Any]) -> Sequence[Part]:
        text, signature = part.get("text"), text_of(part.get("thoughtSignature")) or None
        maker = self._maker if signature else None
        if call := object_of(part.get("functionCall")):
            return self._called(call, signature)
        if part.keys() <= {"text", "thought", "thoughtSignature"}:
            if not (text and isinstance(text, str)) and not signature:
                return ()
            if part.get("thought"):
                return (ReasoningPart(text_of(text), signature, provider=self._maker),)
            return (TextPart(text_of(text), signature=signature, provider=maker),)
        file = None if part.get("thought") else file_of(part, signature, maker)
        return (file or RawPart(self._maker, part),)

    def _called(self, call: dict[str, Any], signature: str | None) -> Sequence[Part]:
        """A call, or a piece of one: its name at once, its arguments when they are whole."""
        parts: list[Part] = []
        name = text_of(call.get("name"))
        if name or self._partial is None:
            parts += self._closed()
            index, self._calls = self._calls, self._calls + 1
            if self._calls > CALLS:
                raise ProtocolError(f"The response has more than {CALLS:,} tool calls.")
            # Only some models give ids. One of ours names the response, so that no two turns have the same.
            identity = identity_of(call.get("id")) or f"call_{self._id}_{index}"
            arguments = ""
            if not call.get("willContinue") and "partialArgs" not in call:
                arguments = msgspec.json.encode(object_of(call.get("args"))).decode()
            else:
                self._partial = PartialArguments(object_of(call.get("args")))
            parts.append(ToolCallPart(identity, name, arguments, index, signature, self._maker))
        if self._partial is not None:
            for piece in list_of(call.get("partialArgs")):
                self._partial.add(object_of(piece))
            if not call.get("willContinue"):
                parts += self._closed()
        return parts

    def _closed(self, *, cut: bool = False) -> Sequence[ToolCallPart]:
        """The arguments of the call that came in pieces. Where the stream breaks off, their JSON does, too."""
        partial, self._partial = self._partial, None
        if partial is None:
            return ()
        text = partial.text()
        return (ToolCallPart(arguments=text[:-1] if cut else text, index=self._calls - 1),)

    def _cited(self) -> Sequence[TextPart]:
        sources, self._sources = self._sources, []
        return (TextPart("", sources),) if sources else ()


def whole_answer(body: bytes, maker: str = "gcp.gemini") -> Chunk:
    """The answer that was not streamed, or that was streamed as a JSON array, as it is without ``alt=sse``.

    A document that could be read is whole, whether or not it says why it ended.

    Raises:
        ProviderError: the body is an error, although its status was 200, or tells that the server gave up.
        ProtocolError: the body is neither.
    """
    document = json_of(body)
    decoder = GeminiDecoder(maker)
    told: list[Chunk | None] = []
    for response in map(object_of, list_of(document) or [document]):
        known = any(response.get(name) for name in ("candidates", "promptFeedback", "error"))
        if not known and not tells_error(response):
            raise ProtocolError("The answer is not a response of generateContent: no candidates.", frame=body)
        told.append(decoder.read(response, body))
    told.append(decoder.rest())
    chunk = join(filter(None, told))
    if decoder.failure:
        decoder.failure.partial = chunk.message()
        raise decoder.failure
    return chunk
