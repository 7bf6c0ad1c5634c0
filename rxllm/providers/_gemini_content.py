"""The decoder of Gemini's generateContent, for streams and for whole responses.

Each event is a response with some parts of the answer. The protocol has no end marker: an answer is complete when a
candidate has a finish reason. A tool call arrives whole, or, on Vertex AI, in pieces that name the places of their
values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..bounds import CALLS, PARTS
from ..errors import ProtocolError, ProviderError
from ..values.chunk import Chunk, join, text_chunk
from ..values.parts import Part, RawPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from ..values.usage import Usage
from ..values.vocabulary import FinishReason
from ..wire.error_documents import provider_error, tells_error
from ._content import Tally, bounded
from ._documents import UNREADABLE, arguments_of, identity_of, json_of, list_of, object_of, text_of, unreadable
from ._finish import broken_off, finish_with, is_early, word_of
from ._gemini_frames import NO_COUNTS, Counts, decode_frame
from ._gemini_parts import MADE_ID, file_of, sources_of, usage_of
from ._limits import DEFAULT, WHOLE, Limits
from ._partial_arguments import PartialArguments

__all__ = ["GeminiDecoder", "whole_answer"]


_RUN = frozenset(("executableCode", "toolCall"))  # the fields of a part for a tool that the server runs


class GeminiDecoder:
    """Decodes one stream, which is complete when a candidate or the prompt's feedback has the reason of the end."""

    __slots__ = (
        "_calls",
        "_counts",
        "_id",
        "_is_early",
        "_is_plain",
        "_known",
        "_maker",
        "_model",
        "_partial",
        "_raw",
        "_runs",
        "_sources",
        "_spoken",
        "_tally",
        "complete",
        "ended",
        "failure",
    )

    def __init__(self, maker: str = "gcp.gemini", limits: Limits = DEFAULT) -> None:
        self.complete = False
        self.ended = False
        self.failure: ProviderError | None = None
        self._maker = maker
        self._id = self._model = ""
        self._is_early = False  # the finish reason came before any content, so the answer may go on
        self._is_plain = False  # the last part is text, so the next text continues it
        self._spoken = False  # a chunk with the id and the model was emitted
        self._tally = Tally(limits)
        self._calls = 0
        self._known: dict[tuple[str, str, bytes], int] = {}  # the index of each whole call with an id
        self._partial: PartialArguments | None = None  # of the incomplete tool call
        self._counts: Counts | None = None  # the latest counts, which are totals
        self._raw = NO_COUNTS  # the latest counts of a plain text, not decoded yet
        self._runs = False  # the last part is for a tool that the server runs
        self._sources: list[dict[str, Any]] = []  # the sources of the text, in the latest frame

    @property
    def finished(self) -> bool:
        """Whether the answer ended without an error.

        If the server runs a tool, or the finish reason was early, the answer goes on after its end.
        """
        return self.complete and not (self._runs or self._is_early)

    def chunk(self, data: bytes) -> Chunk | None:
        """Return the content of a frame as a chunk; None if it has no content."""
        try:
            frame = decode_frame(data)
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
                if (raw := frame.usage_metadata) is not NO_COUNTS:
                    self._raw = raw
                return text_chunk(part.text)
        return self.read(json_of(data), data)

    def rest(self) -> Chunk | None:
        """Return the held-back content at the end of the stream: an incomplete tool call, sources and usage."""
        return self._chunk_of([*self._closed(cut=True), *self._cited()], self._usage())

    def _other(self, data: bytes, error: Exception) -> Chunk | None:
        word = data.strip()
        if not word or word == b"[DONE]":  # gateways send these
            return None
        document = json_of(data)
        if list_of(document) or object_of(document).get("error"):
            raise provider_error(document, data)
        raise unreadable("a response of generateContent", error, data) from None

    def read(self, document: object, data: bytes) -> Chunk | None:
        """Return the content of a whole response as a chunk; None if it has no content."""
        response = _response_in(document)
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
        if parts:
            self._runs = isinstance(last := parts[-1], RawPart) and not _RUN.isdisjoint(last.data)
        self._sources = sources_of(candidate) or self._sources
        raw = word_of(candidate.get("finishReason")) or None
        finish = finish_with(raw, calls=self._calls)
        if not candidates and (reason := word_of(blocked.get("blockReason"))):
            raw, finish = reason, "content_filter"
            message = text_of(blocked.get("blockReasonMessage"))
            parts += [RefusalPart(message)] if message else []
        if raw:
            self.complete = True
            parts += [*self._closed(), *self._cited()]
            if finish == "error":
                self.complete = False
                self.failure = broken_off(raw, text_of(candidate.get("finishMessage")))
            elif finish == "content_filter" and (message := text_of(candidate.get("finishMessage"))):
                parts.append(RefusalPart(message))
        elif self.complete and any(getattr(part, "text", True) for part in parts):
            self.complete = False  # a tool has run, and the model goes on until the next finish reason
        logprobs = object_of(candidate.get("logprobsResult"))
        chunk = self._chunk_of(parts, self._usage() if self.complete or raw else None, finish, raw, logprobs)
        self._is_plain = self._is_plain and not self.complete
        if raw:
            self._is_early = is_early(finish, has_content=self._tally.has_content)
        return chunk

    def _chunk_of(
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
        if logprobs:
            self._tally.hold_logprobs(logprobs)
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
        """Keep the token counts of a response, which are totals. Vertex AI sends documents without counts, too."""
        if object_of(document):
            counts = msgspec.convert(document, Counts)
            if usage_of(counts).counts:
                self._counts, self._raw = counts, NO_COUNTS

    def _usage(self) -> Usage | None:
        """Return the latest counts; None if a chunk with them was emitted."""
        self._count(json_of(bytes(self._raw)))
        counts, self._counts = self._counts, None
        return usage_of(counts) if counts else None

    def _parts(self, part: dict[str, Any]) -> Sequence[Part]:
        text, signature = part.get("text"), text_of(part.get("thoughtSignature")) or None
        maker = self._maker if signature else None
        if (call := part.get("functionCall")) is not None:
            return self._called(object_of(call), signature)
        if part.keys() <= {"text", "thought", "thoughtSignature"}:
            if not (text and isinstance(text, str)) and not signature:
                return ()
            if part.get("thought"):
                return (ReasoningPart(text_of(text), signature, provider=self._maker),)
            return (TextPart(text_of(text), signature=signature, provider=maker),)
        file = None if part.get("thought") else file_of(part, signature, maker)
        return (file or RawPart(self._maker, part),)

    def _called(self, call: dict[str, Any], signature: str | None) -> Sequence[Part]:
        """Return the parts of a tool call or of a piece of one. The arguments follow when they are complete.

        The last piece of a call is often an empty object.
        """
        parts: list[Part] = []
        name = text_of(call.get("name"))
        if name or (call and self._partial is None):
            parts += self._closed()
            identity, arguments = identity_of(call.get("id")), ""
            if not call.get("willContinue") and "partialArgs" not in call:
                arguments = text_of(call.get("args")) or msgspec.json.encode(object_of(call.get("args"))).decode()
            if identity and arguments:
                key = identity, name, msgspec.json.encode(arguments_of(arguments), order="sorted")
                if (index := self._known.setdefault(key, self._calls)) < self._calls:  # the server repeats the call
                    return [*parts, ToolCallPart(index=index, signature=signature)] if signature else parts
            index, self._calls = self._calls, self._calls + 1
            if self._calls > CALLS:
                raise ProtocolError(f"The response has more than {CALLS:,} tool calls.")
            if not arguments:
                self._partial = PartialArguments(object_of(call.get("args")), self._tally.limits)
            # Only some models send ids. A generated id contains the response's id, so it is unique in a conversation.
            identity = identity or f"{MADE_ID}{self._id}_{index}"
            parts.append(ToolCallPart(identity, name, arguments, index, signature, self._maker))
        elif signature and self._calls:
            parts.append(ToolCallPart(index=self._calls - 1, signature=signature))
        if self._partial is not None:
            for piece in list_of(call.get("partialArgs")):
                self._partial.add(object_of(piece))
            if not call.get("willContinue"):
                parts += self._closed()
        return parts

    def _closed(self, *, cut: bool = False) -> Sequence[ToolCallPart]:
        """Return the arguments of an incomplete call. If the stream is cut, the JSON is cut, too."""
        partial, self._partial = self._partial, None
        if partial is None:
            return ()
        text = partial.text()
        return (ToolCallPart(arguments=text[:-1] if cut else text, index=self._calls - 1),)

    def _cited(self) -> Sequence[TextPart]:
        sources, self._sources = self._sources, []
        return (TextPart("", sources),) if sources else ()


def whole_answer(body: bytes, maker: str = "gcp.gemini") -> Chunk:
    """Return a whole answer: one response, or a JSON array of responses, which the API sends without ``alt=sse``.

    The answer counts as complete even if it has no finish reason, because its document is complete.

    Raises:
        ProviderError: the body is an error although its status is 200, or the server stopped the answer.
        ProtocolError: the body is neither an answer nor an error.
    """
    document = json_of(body)
    decoder = GeminiDecoder(maker, WHOLE)
    chunks: list[Chunk | None] = []
    for response in map(_response_in, list_of(document) or [document]):
        is_response = any(response.get(name) for name in ("candidates", "promptFeedback", "error"))
        if not is_response and not tells_error(response):
            raise ProtocolError("The answer is not a response of generateContent: it has no candidates.", frame=body)
        chunks.append(decoder.read(response, body))
    chunks.append(decoder.rest())
    chunk = join(filter(None, chunks))
    if decoder.failure:
        decoder.failure.partial = chunk.message()
        raise decoder.failure
    return chunk


def _response_in(document: object) -> dict[str, Any]:
    """Return the response. Google's Code Assist, which serves Gemini's command line, wraps it in another object."""
    fields = object_of(document)
    return object_of(fields.get("response")) or fields
