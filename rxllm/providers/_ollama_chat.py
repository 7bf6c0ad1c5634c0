"""The decoder of Ollama's own protocol: one JSON object per line. The last object has ``"done": true``.

The decoder also reads answers of ``/api/generate``, which have their text in another field.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from ..bounds import CALLS, PARTS
from ..errors import Interrupted, ProtocolError, ProviderError, RxllmError
from ..values.chunk import Chunk, join, text_chunk
from ..values.disk import type_of_bytes
from ..values.parts import FilePart, Part, ReasoningPart, TextPart, ToolCallPart
from ..values.usage import Usage
from ..values.vocabulary import FinishReason
from ..wire.error_documents import provider_error, tells_error
from ..wire.ndjson import NDJSONDecoder
from ..wire.sse import is_json
from ._content import Tally, bounded, bytes_of
from ._documents import UNREADABLE, count, identity_of, json_of, list_of, object_of, text_of, unreadable
from ._finish import broken_off, finish_with, word_of
from ._ids import call_name_of, valid_id
from ._limits import DEFAULT, WHOLE, Limits
from ._ollama_turns import MAKER

__all__ = ["OllamaDecoder", "whole_answer"]


class _Message(Struct, gc=False):
    content: Any = None
    thinking: Any = None
    tool_calls: Any = None
    images: Any = None


class _Line(Struct, gc=False):
    message: _Message | None = None
    done: Any = None
    error: Any = None
    logprobs: Any = None
    response: Any = None  # of /api/generate
    thinking: Any = None  # of /api/generate


class _Whole(_Line, gc=False):
    """The further fields of the first line, of the last line and of lines with tool calls."""

    model: Any = None
    created_at: Any = None
    done_reason: Any = None
    prompt_eval_count: Any = None
    eval_count: Any = None


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_whole = msgspec.json.Decoder(_Whole).decode
_FOREIGN = "The answer is not a response of Ollama's chat: it has no message. Check base_url."


class OllamaDecoder:
    """Decodes one stream, which is complete after a line with ``"done": true``, unless an error arrived."""

    __slots__ = ("_calls", "_is_plain", "_spoken", "_tally", "complete", "ended", "failure", "seen")

    def __init__(self, limits: Limits = DEFAULT) -> None:
        self.complete = False
        self.ended = False
        self.failure: ProviderError | None = None
        self.seen = False  # a line of the protocol arrived
        self._calls = 0
        self._is_plain = False  # the last part is text, so the next text continues it
        self._spoken = False  # a chunk with the model's name was emitted
        self._tally = Tally(limits)

    @property
    def finished(self) -> bool:
        """Whether the answer ended without an error."""
        return self.complete

    def chunk(self, data: bytes) -> Chunk | None:
        """Return the content of a line as a chunk; None if it has no content."""
        if self.ended:
            return None
        try:
            if self._is_plain:
                line = _decode_line(data)
                message = line.message
                if message is not None and not (line.done or line.error or line.logprobs):
                    text = message.content
                    if text and type(text) is str and not (message.thinking or message.tool_calls or message.images):
                        return text_chunk(text)
            return self._read(_decode_whole(data), data)
        except UNREADABLE as error:
            if document := list_of(json_of(data)):
                raise provider_error(document, data) from None
            raise unreadable("a response of Ollama's chat", error, data, kind="line") from None

    def rest(self) -> Chunk | None:
        """Return None: the decoder holds back no content."""
        return None

    def _read(self, line: _Whole, data: bytes) -> Chunk | None:
        if line.error:
            self.complete = False
            raise provider_error(json_of(data), data)
        self.seen = self.seen or line.message is not None or line.response is not None
        if not (self.seen or line.model or line.done) and object_of(document := json_of(data)):
            raise provider_error(document, data) if tells_error(document) else ProtocolError(_FOREIGN, frame=data)
        message = line.message or _Message()
        parts: list[Part] = []
        if thought := text_of(message.thinking or line.thinking):
            parts.append(ReasoningPart(thought, provider=MAKER))
        if text := text_of(message.content or line.response):
            parts.append(TextPart(text))
        parts += map(_image, bounded(list_of(message.images), PARTS, "pictures"))
        parts += [self._call(object_of(call), line.created_at) for call in list_of(message.tool_calls)]
        raw, finish = self._ended(line) if line.done else (None, None)
        if parts:
            self._is_plain = self._tally.add(parts)
        usage = _usage(line)
        logprobs = list_of(line.logprobs)
        if logprobs:
            self._tally.hold_logprobs(logprobs)
        if not (parts or finish or usage or logprobs):
            return None
        first, self._spoken = not self._spoken, True
        model = text_of(line.model) or None
        return Chunk(
            parts=parts,
            usage=usage,
            finish_reason=finish,
            raw_finish_reason=raw,
            logprobs={"content": logprobs} if logprobs else None,
            model=model if first else None,
            provider=MAKER if first and model else None,
        )

    def _ended(self, line: _Whole) -> tuple[str | None, FinishReason | None]:
        """Return the reason of the end. Older servers send none."""
        raw = word_of(line.done_reason) or None
        self.failure = broken_off(raw)
        self.ended, self.complete = True, self.failure is None
        return raw, finish_with(raw or "stop", calls=self._calls)

    def _call(self, call: dict[str, Any], created: object) -> ToolCallPart:
        """Return a tool call, which arrives whole."""
        index, self._calls = self._calls, self._calls + 1
        if self._calls > CALLS:
            raise ProtocolError(f"The response has more than {CALLS:,} tool calls.")
        function = object_of(call.get("function"))
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            arguments = msgspec.json.encode(object_of(arguments)).decode()
        # Older servers send no ids. A generated id contains the time, so that it is unique in a conversation.
        identity = identity_of(call.get("id")) or valid_id(f"{text_of(created)} {index}", r"\w+")
        return ToolCallPart(identity, call_name_of(function.get("name")), arguments, index, provider=MAKER)


def _image(data: object) -> FilePart:
    content = bytes_of(data, "A picture")
    return FilePart(type_of_bytes(content) or "image/*", content, provider=MAKER)


def _usage(line: _Whole) -> Usage | None:
    usage = Usage(input_tokens=count(line.prompt_eval_count), output_tokens=count(line.eval_count))
    return usage if usage != Usage() else None


def whole_answer(body: bytes) -> Chunk:
    """Return a whole answer: one document, or lines, because some servers stream in any case.

    Raises:
        ProviderError: the body is an error although its status is 200.
        ProtocolError: the body is neither an answer nor an error.
        Interrupted: the last line is missing.
    """
    decoder = OllamaDecoder(WHOLE)
    is_document = is_json(body)
    frames = NDJSONDecoder(limit=len(body) + 1)
    lines = [body] if is_document else [line for _, line in (*frames.feed(body), *frames.flush())]
    chunks: list[Chunk] = []
    try:
        chunks += filter(None, map(decoder.chunk, lines))
        if decoder.failure:
            raise decoder.failure
        if not decoder.seen:
            raise ProtocolError(_FOREIGN, frame=body)
        if not is_document and not decoder.complete:
            raise Interrupted("The answer ended before its last line.")
    except RxllmError as error:
        error.partial = join(chunks).message() if chunks else None
        raise
    return join(chunks)
