"""What comes back by Ollama's own protocol: JSON objects, one a line, of which the last says that it is done.

Answers of ``/api/generate`` have their text in another place, and are read, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from ..bounds import CALLS
from ..errors import Interrupted, ProtocolError, ProviderError, RxllmError
from ..values.chunk import Chunk, join, text_chunk
from ..values.message import FinishReason
from ..values.parts import Part, ReasoningPart, TextPart, ToolCallPart
from ..values.usage import Usage
from ..wire.ndjson import NDJSONDecoder
from ._content import Tally
from ._documents import UNREADABLE, count, identity_of, json_of, list_of, object_of, provider_error, text_of
from ._finish import broken_off, finish_of
from ._ids import valid_id
from ._ollama_turns import MAKER

__all__ = ["OllamaDecoder", "whole_answer"]


class _Message(Struct, gc=False):
    content: Any = None
    thinking: Any = None
    tool_calls: Any = None


class _Line(Struct, gc=False):
    message: _Message | None = None
    done: Any = None
    error: Any = None
    logprobs: Any = None
    response: Any = None  # of /api/generate
    thinking: Any = None  # likewise


class _Whole(_Line, gc=False):
    """What the first line, the last one and those with calls say besides."""

    model: Any = None
    created_at: Any = None
    done_reason: Any = None
    prompt_eval_count: Any = None
    eval_count: Any = None


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_whole = msgspec.json.Decoder(_Whole).decode


class OllamaDecoder:
    """One stream. Complete on a line that is done, if no error came."""

    __slots__ = ("_calls", "_decode", "_is_plain", "_spoken", "_tally", "complete", "ended", "failure", "seen")

    def __init__(self) -> None:
        self.complete = False
        self.ended = False
        self.failure: ProviderError | None = None
        self.seen = False  # a line of the protocol came
        self._calls = 0
        self._decode: Callable[[bytes], _Line] = _decode_line
        self._is_plain = False  # the next text continues the last part, which is a text
        self._spoken = False  # the model's name went out with the first chunk
        self._tally = Tally()

    @property
    def finished(self) -> bool:
        """Whether the end came, and no error."""
        return self.complete

    def chunk(self, data: bytes) -> Chunk | None:
        """What a line says."""
        if self.ended:
            return None
        try:
            line = self._decode(data)
            message = line.message
            if self._is_plain and message is not None and not (line.done or line.error or line.logprobs):
                text = message.content
                if text and type(text) is str and not (message.thinking or message.tool_calls):
                    return text_chunk(text)
            return self._read(_decode_whole(data), data)
        except UNREADABLE as error:
            raise ProtocolError(f"A line is not a response of Ollama's chat: {error}.", frame=data) from None

    def rest(self) -> Chunk | None:
        """Nothing is held back."""
        return None

    def _read(self, line: _Whole, data: bytes) -> Chunk | None:
        if line.error:
            self.complete = False
            raise provider_error(json_of(data), data)
        self.seen = self.seen or line.message is not None or line.response is not None
        message = line.message or _Message()
        parts: list[Part] = []
        if thought := text_of(message.thinking or line.thinking):
            parts.append(ReasoningPart(thought, provider=MAKER))
        if text := text_of(message.content or line.response):
            parts.append(TextPart(text))
        parts += [self._call(object_of(call), line.created_at) for call in list_of(message.tool_calls)]
        raw, finish = self._ended(line) if line.done else (None, None)
        if parts:
            self._is_plain = self._tally.add(parts)
        usage = _usage(line)
        logprobs = list_of(line.logprobs)
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

    def _ended(self, line: _Whole) -> tuple[str | None, FinishReason]:
        """The reason of the end; older servers give none."""
        raw = text_of(line.done_reason) or None
        finish = finish_of(raw) if raw else "stop"
        self.failure = broken_off(raw)
        self.ended, self.complete = True, self.failure is None
        return raw, "tool_call" if finish == "stop" and self._calls else finish

    def _call(self, call: dict[str, Any], created: object) -> ToolCallPart:
        """A call, which comes whole."""
        index, self._calls = self._calls, self._calls + 1
        if self._calls > CALLS:
            raise ProtocolError(f"The response has more than {CALLS:,} tool calls.")
        function = object_of(call.get("function"))
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            arguments = msgspec.json.encode(object_of(arguments)).decode()
        # Older servers give no ids. One that is made of the time differs from those of other turns.
        identity = identity_of(call.get("id")) or valid_id(f"{text_of(created)} {index}", r"\w+")
        return ToolCallPart(identity, text_of(function.get("name")), arguments, index, provider=MAKER)


def _usage(line: _Whole) -> Usage | None:
    told = Usage(input_tokens=count(line.prompt_eval_count), output_tokens=count(line.eval_count))
    return told if told != Usage() else None


def whole_answer(body: bytes) -> Chunk:
    """The answer that was not streamed, or that came in lines all the same.

    Raises:
        ProviderError: the body is an error, although its status was 200.
        ProtocolError: the body is neither.
        Interrupted: the lines break off.
    """
    decoder = OllamaDecoder()
    is_document = json_of(body) is not None
    frames = NDJSONDecoder(limit=len(body) + 1)
    lines = [body] if is_document else [line for _, line in (*frames.feed(body), *frames.flush())]
    chunks: list[Chunk] = []
    try:
        chunks += filter(None, map(decoder.chunk, lines))
        if decoder.failure:
            raise decoder.failure
        if not decoder.seen:
            raise ProtocolError("The answer is not a response of Ollama's chat: it has no message.", frame=body)
        if not is_document and not decoder.complete:
            raise Interrupted("The answer ended before its last line.")
    except RxllmError as error:
        error.partial = join(chunks).message() if chunks else None
        raise
    return join(chunks)
