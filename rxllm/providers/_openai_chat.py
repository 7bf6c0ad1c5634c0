"""What comes back by OpenAI's chat and completions protocols, from OpenAI and the many servers compatible with it.

A frame is `_Frame`, a whole answer `_Answer`, and `ChatDecoder` reads both. What other servers do differently is noted
where it is read; anything unknown is ignored. It is one room because frames and whole answers differ in one word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ..bounds import CALLS, PARTS
from ..errors import ProtocolError, ProviderError
from ..values.chunk import Chunk, text_chunk
from ..values.parts import Part, RawPart, ReasoningPart, RefusalPart, TextPart
from ..values.usage import Usage
from ._calls import Calls
from ._choices import Choices
from ._content import Files, Tally, bounded, citations
from ._details import Details
from ._documents import (
    UNREADABLE,
    count,
    identity_of,
    json_of,
    list_of,
    object_of,
    provider_error,
    tells_error,
    text_of,
)
from ._finish import broken_off, finish_of, word_of

__all__ = ["ChatDecoder", "whole_answer"]


# What is read of a frame. Fields that some server fills differently are Any and looked at only where they are set,
# so that the common frame, a delta of plain text, costs one decoding and one look.
class _Delta(Struct, gc=False):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None
    images: Any = None  # OpenRouter
    audio: Any = None
    annotations: Any = None
    reasoning_details: Any = None  # OpenRouter


class _Choice(Struct, gc=False):
    delta: _Delta | None = None
    text: Any = None  # of completions
    finish_reason: Any = None
    usage: Any = None  # Moonshot
    logprobs: Any = None
    error: Any = None  # OpenRouter
    index: Any = None  # usually 0, see `Choices`


class _Frame(Struct, gc=False):
    choices: list[_Choice | None] | None = None
    usage: Any = None
    error: Any = None
    x_groq: Any = None


class _FirstChoice(_Choice, gc=False):
    message: Any = None  # from gateways that send a whole answer as a stream of one


class _First(_Frame, gc=False):
    """The frames until there is something to say, which also say who says it."""

    choices: list[_FirstChoice | None] | None = None  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleVariableOverride]
    id: Any = None
    model: Any = None


# A whole answer differs in one word. (Perplexity sends this word in each frame too, with all the text so far.)
class _WholeChoice(_Choice, gc=False):
    delta: _Delta | None = msgspec.field(default=None, name="message")


class _Answer(_First, gc=False):
    choices: list[_WholeChoice | None] | None = None  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleVariableOverride]


_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_first = msgspec.json.Decoder(_First).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_NO_CHOICE = _Choice()


class ChatDecoder:
    """One stream. Complete on ``[DONE]`` or a finish_reason, if no error came."""

    __slots__ = (
        "_calls",
        "_choices",
        "_decode",
        "_details",
        "_files",
        "_id",
        "_is_plain",
        "_maker",
        "_model",
        "_spoken",
        "_tally",
        "complete",
        "ended",
        "failure",
    )

    def __init__(self, tools: Iterable[str] = (), audio_format: str = "", maker: str = "openai") -> None:
        self.complete = False
        self.ended = False
        self.failure: ProviderError | None = None
        self._maker = maker
        self._calls = Calls(tools, maker)
        self._details: Details | None = None
        self._choices = Choices[_Choice]()
        self._files = Files(audio_format)
        self._tally = Tally()
        self._decode: Callable[[bytes], _Frame] = _decode_first
        self._is_plain = False  # a frame of mere text follows text, and is to be emitted as it is
        self._spoken = False  # id and model went out with the first chunk
        self._id = ""
        self._model = ""

    @property
    def finished(self) -> bool:
        """Whether the reason of the end came, and no error."""
        return self.complete

    def chunk(self, data: bytes) -> Chunk | None:
        """What a frame says."""
        try:
            frame = self._decode(data)
        except UNREADABLE as error:
            return self._other(data, error)
        if frame.choices and (choice := frame.choices[0]) is not None:
            delta, text = choice.delta, None
            if (
                choice.index or choice.finish_reason or frame.usage or frame.error or choice.error or choice.logprobs
            ):  # Groq's and Moonshot's own usage comes with the finish_reason
                pass
            elif delta is None:
                text = choice.text
            elif not (
                delta.reasoning_content
                or delta.reasoning
                or delta.tool_calls
                or delta.refusal
                or delta.function_call
                or delta.images
                or delta.audio
                or delta.annotations
                or delta.reasoning_details
            ):
                text = delta.content
            if text and type(text) is str:
                if self._is_plain:
                    return text_chunk(text)
                if not self._spoken and not self.ended and self._choices.first is None and len(frame.choices) == 1:
                    return self._begun(text, frame)
        return self.read(frame, data)

    def rest(self) -> Chunk | None:
        """What was held back, when nothing more comes."""
        parts, logprobs, raw = self._heard(self._choices.released())
        parts += self._calls.released(everything=True)
        parts += self._files.released()
        parts += self._detailed()
        return self._said(parts, None, raw, logprobs)

    def _other(self, data: bytes, error: Exception) -> Chunk | None:
        word = data.strip()
        if self.ended or not word:  # some gateways' pings have no data
            return None
        if word == b"[DONE]":
            self.ended, self._is_plain = True, False
            self.complete = self.failure is None
            return None
        if document := list_of(json_of(data)):
            raise provider_error(document, data)
        raise ProtocolError(f"A frame is not a chunk of a chat completion: {error}.", frame=data) from None

    def read(self, frame: _Frame, data: bytes) -> Chunk | None:
        """All that a frame, or a whole answer, says."""
        if self.ended:
            return None
        self._identify(frame)
        first = next((choice for choice in frame.choices or () if choice), _NO_CHOICE)
        choices = self._choices.taken(frame.choices, speaks=_speaks(first))
        self._is_plain = self._is_plain and self._choices.is_plain
        parts, logprobs, raw = self._heard(choices)
        groq = object_of(frame.x_groq)
        usage = _usage(frame.usage or first.usage or groq.get("usage"))
        self._fail(frame, frame.error or first.error or groq.get("error"), raw, data)
        finished = raw is not None or (not choices and _finish_word(first) is not None)
        self.complete = (self.complete or finished) and self.failure is None
        if raw is not None:
            parts += self._calls.released(everything=True)
            parts += self._files.released()
            parts += self._detailed()
        chunk = self._said(parts, usage, raw, logprobs)
        if chunk is None and self.failure:
            raise self.failure
        return chunk

    def _heard(self, choices: Iterable[_Choice]) -> tuple[list[Part], dict[str, list[object]], str | None]:
        """The parts of choices of the answer, their logprobs, and why the last of them ended."""
        parts: list[Part] = []
        logprobs: dict[str, list[object]] = {}
        raw: str | None = None
        for choice in choices:
            if isinstance(choice, _FirstChoice) and choice.delta is None and choice.message:
                choice.delta = msgspec.convert(choice.message, _Delta)
            parts += self._parts(choice)
            parts += self._calls.released(everything=False)
            for name, each in object_of(choice.logprobs).items():
                if each:
                    logprobs.setdefault(name, []).extend(list_of(each))
            raw = _finish_word(choice) or raw
        return parts, logprobs, raw

    def _said(
        self,
        parts: Sequence[Part],
        usage: Usage | None = None,
        raw: str | None = None,
        logprobs: Mapping[str, Sequence[object]] | None = None,
    ) -> Chunk | None:
        """A chunk, if there is anything to say. The first one also tells who says it."""
        if parts:
            self._is_plain = self._tally.add(parts) and self._choices.is_plain and not self.ended
        if not (parts or usage or raw or logprobs):
            return None
        first, self._spoken, self._decode = not self._spoken, True, _decode_frame
        return Chunk(
            parts=parts,
            usage=usage,
            finish_reason=finish_of(raw) if raw else None,
            raw_finish_reason=raw,
            logprobs={name: tuple(each) for name, each in logprobs.items()} if logprobs else None,
            id=(self._id or None) if first else None,
            model=(self._model or None) if first else None,
            provider=self._maker if first and (self._id or self._model) else None,
        )

    def _begun(self, text: str, frame: _Frame) -> Chunk:
        """The first text, as `read` does, which is for all that a frame may say."""
        self._identify(frame)
        self._choices.begin()
        self._tally.begin()
        self._is_plain = self._spoken = True
        self._decode = _decode_frame
        who = self._maker if self._id or self._model else None
        return Chunk(text, id=self._id or None, model=self._model or None, provider=who)

    def _identify(self, frame: _Frame) -> None:
        if isinstance(frame, _First):
            # Azure's first frame and all of Snowflake's have empty ids.
            self._id = self._id or identity_of(frame.id)
            self._model = self._model or text_of(frame.model)

    def _fail(self, frame: _Frame, error: object, raw: str | None, data: bytes) -> None:
        """Note the failure that a frame tells of; what else it says is emitted first."""
        if error:
            self.failure = provider_error({"error": error}, data)
        elif not frame.choices and not frame.usage and tells_error(document := json_of(data)):
            self.failure = provider_error(document, data)
        elif failure := broken_off(raw):
            self.failure = failure

    def _parts(self, choice: _Choice) -> Iterator[Part]:
        if choice.delta is None:  # Together says its text in both places
            yield from self._content(choice.text)
            return
        delta = choice.delta
        # `reasoning_details`, too, has texts; OpenRouter repeats there what it says here.
        reasoning = delta.reasoning_content or delta.reasoning
        if isinstance(reasoning, str) and reasoning:
            # What came in this field is wanted back in it.
            yield ReasoningPart(reasoning, provider=self._maker if delta.reasoning_content else None)
        if delta.reasoning_details:
            self._details = self._details or Details(self._maker)
            self._details.add(delta.reasoning_details)
        yield from self._content(choice.text if delta.content is None else delta.content)
        if isinstance(delta.refusal, str) and delta.refusal:
            yield RefusalPart(delta.refusal)
        if delta.annotations:
            yield from citations(delta.annotations)
        if delta.images:
            yield from self._files.images(delta.images)
        if delta.audio:
            yield from self._files.audio(delta.audio)
        calls = list_of(delta.tool_calls) or list(filter(None, [object_of(delta.tool_calls)]))  # TGI's was no list once
        if len(calls) > CALLS:
            raise ProtocolError(f"A frame has more than {CALLS:,} tool calls.")
        for position, call in enumerate(calls):
            yield from self._calls.add(position, object_of(call))
        if delta.function_call and not calls:  # what tool_calls were once; they had no ids that could come late
            yield from self._calls.add(0, {"index": 0, "function": delta.function_call})
            yield from self._calls.released(everything=True)

    def _detailed(self) -> list[RawPart]:
        details, self._details = self._details, None
        return [details.part()] if details else []

    def _content(self, content: object) -> Iterator[Part]:
        if isinstance(content, str):
            if content:
                yield TextPart(content)
            return
        for item in bounded(list_of(content), PARTS, "parts"):  # Mistral
            match item:
                case str(text) if text:
                    yield TextPart(text)
                case {"type": "text", "text": str(text)} if text:
                    yield TextPart(text)
                case {"type": "thinking"} if text := _joined(object_of(item).get("thinking")):
                    yield ReasoningPart(text)
                case {"type": "reasoning"} if text := _joined(object_of(item).get("summary")):  # Databricks
                    yield ReasoningPart(text)
                case {"type": "image_url"}:
                    yield from self._files.images([item])
                case {"type": "input_audio" | "output_audio" | "audio"}:
                    yield from self._files.audio(
                        object_of(item).get("input_audio") or object_of(item).get("audio") or item
                    )
                case _:
                    pass


def _finish_word(choice: _Choice) -> str | None:
    word = word_of(choice.finish_reason)
    return word if word not in ("", "null") else None  # DashScope says "null" until the end


def _speaks(choice: _Choice) -> bool:
    """Whether a choice has content, and not only a role or the reason of the end."""
    delta = choice.delta
    if delta is None:
        return bool(choice.text) or bool(isinstance(choice, _FirstChoice) and choice.message)
    return bool(
        delta.content
        or choice.text
        or delta.reasoning_content
        or delta.reasoning
        or delta.refusal
        or delta.tool_calls
        or delta.function_call
        or delta.images
        or delta.audio
    )


def whole_answer(body: bytes, audio_format: str = "", maker: str = "openai") -> Chunk:
    """The answer that was not streamed: a document that could be read is whole, whether or not it says why it ended.

    Raises:
        ProviderError: the body is an error, although its status was 200; what else it says is the error's `partial`.
        ProtocolError: the body is neither.
    """
    decoder = ChatDecoder((), audio_format, maker)
    try:
        answer = _decode_answer(body)
        chunk = decoder.read(answer, body)
        if rest := decoder.rest():  # it need not say why it ended
            chunk = chunk + rest if chunk else rest
    except UNREADABLE as error:
        if document := list_of(json_of(body)):
            raise provider_error(document, body) from None
        raise ProtocolError(f"The answer is not a chat completion: {error}.", frame=body) from None
    if decoder.failure:
        decoder.failure.partial = chunk.message() if chunk else None
        raise decoder.failure
    if not answer.choices:
        raise ProtocolError("The answer is not a chat completion: it has no choices.", frame=body)
    told = [choice for choice in answer.choices if choice is not None]
    silent = all(choice.delta is None and choice.text is None for choice in told)
    if silent and (chunk is None or chunk.finish_reason in (None, "stop")):  # there are reasons to say nothing
        raise ProtocolError("The answer is not a chat completion: its choice has no message.", frame=body)
    return chunk or Chunk()


def _joined(texts: object) -> str:
    """The text of a text, or of a list of objects with one."""
    if isinstance(texts, str):
        return texts
    return "".join([text_of(object_of(item).get("text")) for item in list_of(texts)])


def _usage(document: object) -> Usage | None:
    if not object_of(document):
        return None
    return Usage(
        input_tokens=count(document, "prompt_tokens"),
        output_tokens=count(document, "completion_tokens"),
        cache_read_input_tokens=count(document, "prompt_tokens_details", "cached_tokens"),
        cache_creation_input_tokens=count(document, "prompt_tokens_details", "cache_write_tokens"),
        reasoning_output_tokens=count(document, "completion_tokens_details", "reasoning_tokens"),
    )
