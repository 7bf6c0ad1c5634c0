"""The reader of OpenAI's chat and completions responses, from OpenAI and from compatible servers.

`ChatDecoder` reads both the frames of a stream (`Frame`) and whole responses (`Answer`), which differ in one word.
A comment marks each place where the reader handles another server's deviation. The reader ignores unknown fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from ..bounds import CALLS, PARTS
from ..errors import ProtocolError, ProviderError
from ..values.chunk import Chunk, text_chunk
from ..values.parts import Part, RawPart, ReasoningPart, RefusalPart, TextPart
from ..values.usage import Usage
from ..values.vocabulary import finish_of
from ..wire.error_documents import provider_error, stated_error, tells_error
from ._calls import Calls
from ._choices import Choices
from ._content import Files, Tally, bounded, citations, joined_text, sources
from ._details import DETAILS, IN_DETAILS, Details
from ._documents import UNREADABLE, identity_of, json_of, list_of, object_of, text_of, token_of, unreadable
from ._finish import broken_off, finish_with, is_early, word_of
from ._limits import DEFAULT, WHOLE, Limits
from ._openai_frames import (
    NO_CHOICE,
    Choice,
    Delta,
    FirstChoice,
    FirstFrame,
    Frame,
    decode_answer,
    decode_first,
    decode_frame,
    decode_plain,
    decode_plain_answer,
    speaks,
)
from ._openai_turns import SUMMARY
from ._openai_usage import usage_of

__all__ = ["ChatDecoder", "whole_answer"]


class ChatDecoder:
    """The reader of one stream. The stream is complete after ``[DONE]`` or a finish_reason, unless an error came."""

    __slots__ = (
        "_calls",
        "_choices",
        "_cited",
        "_decode",
        "_details",
        "_files",
        "_goes_on",
        "_has_thought",
        "_id",
        "_is_plain",
        "_is_usual",
        "_maker",
        "_model",
        "_spoken",
        "_tally",
        "_thinks_apart",
        "complete",
        "ended",
        "failure",
    )

    def __init__(
        self,
        tools: Iterable[str] = (),
        audio_format: str = "",
        maker: str = "openai",
        limits: Limits = DEFAULT,
        *,
        thinks_apart: bool = False,
    ) -> None:
        self.complete = False
        self.ended = False
        self.failure: ProviderError | None = None
        self._maker = maker
        self._thinks_apart = thinks_apart  # see `Server`
        self._calls = Calls(tools, maker)
        self._details: dict[str, Details] = {}
        self._choices: Choices[Choice] = Choices()
        self._files = Files(audio_format, limits)
        self._tally = Tally(limits)
        self._decode: Callable[[bytes], Frame] = decode_first
        self._cited = False  # the sources of the answer were emitted; Perplexity repeats them in each frame
        self._goes_on = False  # the finish_reason came before any content, or content came after it
        self._has_thought = False  # a field with the text of the reasoning came, so the details repeat it
        self._is_plain = False  # the next frame with only text continues a text, so it needs no bookkeeping
        self._is_usual = True  # `decode_plain` has not failed; a server may send frames that it cannot read
        self._spoken = False  # the first chunk, with id and model, was emitted
        self._id = ""
        self._model = ""

    @property
    def finished(self) -> bool:
        """Whether the finish_reason or ``[DONE]`` came, and no error, and the answer does not go on after it."""
        return self.complete and not self._goes_on

    def chunk(self, data: bytes) -> Chunk | None:
        """Return the content of a frame as a chunk; None if it has no content."""
        if self._is_plain and self._is_usual:
            try:
                return text_chunk(decode_plain(data).choices[0].delta.content)
            except UNREADABLE:
                self._is_usual = False
        try:
            frame = self._decode(data)
        except UNREADABLE as error:
            return self._other(data, error)
        if frame.choices and (choice := frame.choices[0]) is not None:
            delta, text = choice.delta, None
            if (
                choice.index
                or choice.finish_reason
                or frame.usage
                or frame.error
                or choice.error
                or choice.logprobs
                or choice.annotations
            ):  # Groq and Moonshot send their usage with the finish_reason
                pass
            elif delta is None:
                text = choice.text
            elif not (
                delta.reasoning_content
                or delta.reasoning
                or delta.reasoning_text
                or delta.tool_calls
                or delta.refusal
                or delta.function_call
                or delta.images
                or delta.audio
                or delta.annotations
                or delta.reasoning_details
                or delta.thinking_blocks
                or delta.reasoning_opaque
            ):
                text = delta.content
            if text and type(text) is str and len(frame.choices) == 1:
                if self._is_plain:
                    return text_chunk(text)
                if not self._spoken and not self.ended and self._choices.first is None:
                    return self._begun(text, frame)
        return self.read(frame, data)

    def rest(self) -> Chunk | None:
        """Return the parts that the decoder held back. Call it after the last frame."""
        parts, logprobs, raw = self._content_of(self._choices.released())
        parts += self._calls.released(everything=True)
        parts += self._files.released()
        parts += self._detailed()
        return self._chunk_of(parts, None, raw, logprobs)

    def _other(self, data: bytes, error: Exception) -> Chunk | None:
        word = data.strip()
        if self.ended or not word:  # some gateways send pings without data
            return None
        if word == b"[DONE]":
            self.ended, self._goes_on, self._is_plain = True, False, False
            self.complete = self.failure is None
            return None
        if document := list_of(json_of(data)):
            raise provider_error(document, data)
        raise unreadable("a chunk of a chat completion", error, data) from None

    def read(self, frame: Frame, data: bytes) -> Chunk | None:
        """Return the content of a frame or a whole response as a chunk; None if it has no content."""
        if self.ended:
            return None
        self._identify(frame)
        first = next((choice for choice in frame.choices or () if choice), NO_CHOICE)
        choices = self._choices.taken(frame.choices, speaks=speaks(first))
        self._is_plain = self._is_plain and self._choices.is_plain
        parts, logprobs, raw = self._content_of(choices)
        if not self._cited and (raw is not None or not frame.choices) and (cited := [*sources(data)]):
            parts += cited
            self._cited = True
        groq = object_of(frame.x_groq)
        counts, error = frame.usage, stated_error(frame.error)
        for choice in (first, *choices):
            counts, error = counts or choice.usage, error or stated_error(choice.error)
        usage = usage_of(counts or groq.get("usage"), thinks_apart=self._thinks_apart)
        failure = self._failure(frame, error or stated_error(groq.get("error")), raw, data)
        finished = raw is not None or (not choices and _finish_word(first) is not None)
        if raw is not None:
            parts += self._calls.released(everything=True)
            parts += self._files.released()
            parts += self._detailed()
        chunk = self._chunk_of(parts, usage, raw, logprobs)
        if chunk is None and failure:
            raise failure  # and leave the state as it is, because the reader may ignore the event
        self.failure = failure
        self.complete = (self.complete or finished) and failure is None
        if finished:
            self._goes_on = is_early(chunk.finish_reason if chunk else None, has_content=self._tally.has_content)
            self._is_plain = False  # so that the next text comes here
        elif self.complete and any(getattr(part, "text", True) for part in parts):
            self._goes_on = True
        return chunk

    def _content_of(self, choices: Iterable[Choice]) -> tuple[list[Part], dict[str, list[object]], str | None]:
        """Return the parts of the choices, their logprobs, and the last finish_reason."""
        parts: list[Part] = []
        logprobs: dict[str, list[object]] = {}
        raw: str | None = None
        for choice in choices:
            if isinstance(choice, FirstChoice) and choice.delta is None and choice.message:
                choice.delta = msgspec.convert(choice.message, Delta)
            parts += self._parts(choice)
            parts += self._calls.released(everything=False)
            for name, each in object_of(choice.logprobs).items():
                if each:
                    logprobs.setdefault(name, []).extend(list_of(each))
            raw = _finish_word(choice) or raw
        return parts, logprobs, raw

    def _chunk_of(
        self,
        parts: Sequence[Part],
        usage: Usage | None = None,
        raw: str | None = None,
        logprobs: Mapping[str, Sequence[object]] | None = None,
    ) -> Chunk | None:
        """Return a chunk, or None if it would be empty. The first chunk has the id, the model and the provider."""
        if parts:
            self._is_plain = self._tally.add(parts) and self._choices.is_plain and not self.ended
        if logprobs:
            self._tally.hold_logprobs(logprobs)
        if not (parts or usage or raw or logprobs):
            return None
        first, self._spoken, self._decode = not self._spoken, True, decode_frame
        return Chunk(
            parts=parts,
            usage=usage,
            finish_reason=finish_with(raw, calls=self._calls.has_some),
            raw_finish_reason=raw,
            logprobs={name: tuple(each) for name, each in logprobs.items()} if logprobs else None,
            id=(self._id or None) if first else None,
            model=(self._model or None) if first else None,
            provider=self._maker if first and (self._id or self._model) else None,
        )

    def _begun(self, text: str, frame: Frame) -> Chunk:
        """Return the chunk with the first text. This is a faster `read` for a frame with nothing but text."""
        self._identify(frame)
        self._choices.begin()
        self._tally.begin()
        self._is_plain = self._spoken = True
        self._decode = decode_frame
        provider = self._maker if self._id or self._model else None
        return Chunk(text, id=self._id or None, model=self._model or None, provider=provider)

    def _identify(self, frame: Frame) -> None:
        if isinstance(frame, FirstFrame):
            # Azure sends an empty id in its first frame, Snowflake in every frame.
            self._id = self._id or identity_of(frame.id)
            self._model = self._model or text_of(frame.model)

    def _failure(self, frame: Frame, error: object, raw: str | None, data: bytes) -> ProviderError | None:
        """Return the error that a frame reports. The decoder emits the frame's other content first."""
        if error:
            # TGI and others send a text, and its type beside it.
            return provider_error(json_of(data) if isinstance(frame.error, str) else {"error": error}, data)
        if not frame.choices and not frame.usage and tells_error(document := json_of(data)):
            return provider_error(document, data)
        return broken_off(raw)

    def _parts(self, choice: Choice) -> Iterator[Part]:
        if choice.delta is None:  # Together sends its text in both places, so read only one
            yield from self._content(choice.text)
            return
        delta = choice.delta
        yield from self._thoughts(delta)
        yield from self._content(choice.text if delta.content is None else delta.content)
        if isinstance(delta.refusal, str) and delta.refusal:
            yield RefusalPart(delta.refusal)
        if annotations := delta.annotations or choice.annotations:
            yield from citations(annotations)
        if delta.images:
            yield from self._files.images(delta.images)
        if delta.audio:
            yield from self._files.audio(delta.audio)
        # Old versions of TGI send an object instead of a list.
        calls = list_of(delta.tool_calls) or list(filter(None, [object_of(delta.tool_calls)]))
        if len(calls) > CALLS:
            raise ProtocolError(f"The server sent a frame with more than {CALLS:,} tool calls.")
        for position, call in enumerate(calls):
            yield from self._calls.add(position, object_of(call))
        if delta.function_call and not calls:  # the predecessor of tool_calls; it has no id to wait for
            yield from self._calls.add(0, {"index": 0, "function": delta.function_call})
            yield from self._calls.released(everything=True)

    def _thoughts(self, delta: Delta) -> Iterator[ReasoningPart]:
        """Yield the reasoning of a frame, and keep its details, which repeat it or are all there is of it."""
        text = joined_text(delta.reasoning_content) or joined_text(delta.reasoning) or joined_text(delta.reasoning_text)
        self._has_thought = self._has_thought or bool(text)
        if text:
            yield ReasoningPart(text, provider=self._maker)  # its server expects it back in the next request
        for name in DETAILS:
            if details := getattr(delta, name):
                kept = self._details.setdefault(name, Details(self._maker, name))
                is_alone = name == "reasoning_details" and not self._has_thought
                text = kept.add(details)
                if text and is_alone:
                    form = None if self._tally.ends_in_reasoning else IN_DETAILS
                    yield ReasoningPart(text, provider=self._maker, extra=form)

    def _detailed(self) -> list[RawPart]:
        details, self._details = self._details, {}
        return [each.part() for each in details.values()]

    def _content(self, content: object) -> Iterator[Part]:
        if text := token_of(content):
            yield TextPart(text)
            return
        items = list_of(content) or list(filter(None, [object_of(content)]))
        for item in bounded(items, PARTS, "parts"):  # Mistral
            match item:
                case str(text) if text:
                    yield TextPart(text)
                case {"text": str(text)} if text and object_of(item).get("type") in (None, "text", "output_text"):
                    yield TextPart(text)
                case {"type": "thinking"}:
                    text, signature = (
                        joined_text(object_of(item).get("thinking")),
                        text_of(object_of(item).get("signature")),
                    )
                    if text or signature:
                        yield ReasoningPart(text, signature or None, provider=self._maker)
                case {"type": "reasoning"}:  # Databricks
                    yield from self._summary(object_of(item).get("summary"))
                case {"type": "image_url"}:
                    yield from self._files.images([item])
                case {"type": "input_audio" | "output_audio" | "audio"}:
                    yield from self._files.audio(
                        object_of(item).get("input_audio") or object_of(item).get("audio") or item
                    )
                case {"type": str(kind)} if kind not in ("text", "output_text", "thinking", "reasoning"):
                    yield RawPart(self._maker, object_of(item))  # such as Mistral's references
                case _:
                    pass  # an empty text

    def _summary(self, items: object) -> Iterator[ReasoningPart]:
        """Yield the pieces of a summary. The first says that the server wants its reasoning back in this form."""
        for item in map(object_of, list_of(items)):
            text, signature = text_of(item.get("text")), text_of(item.get("signature")) or None
            if text or signature:
                form = None if self._tally.ends_in_reasoning else SUMMARY
                yield ReasoningPart(text, signature, provider=self._maker, extra=form)


def _finish_word(choice: Choice) -> str | None:
    word = word_of(choice.finish_reason)
    if word in ("", "null"):  # DashScope sends "null" until the end
        return None
    own = word_of(choice.native_finish_reason)  # OpenRouter's own word for a call that Gemini wrote wrongly is "stop"
    return own if own and finish_of(own) == "error" else word


def whole_answer(body: bytes, audio_format: str = "", maker: str = "openai", *, thinks_apart: bool = False) -> Chunk:
    """Read a response that was not streamed. It counts as complete even without a finish_reason.

    Raises:
        ProviderError: the body reports an error, although its status was 200. The error's `partial` holds the body's
            other content.
        ProtocolError: the body is neither a chat completion nor an error.
    """
    plain = _plain_answer(body, maker, thinks_apart=thinks_apart)
    return plain or _any_answer(body, audio_format, maker, thinks_apart=thinks_apart)


def _plain_answer(body: bytes, maker: str, *, thinks_apart: bool = False) -> Chunk | None:
    """Return an answer that is one text, as nearly all are; None for any other. It takes a tenth of the time."""
    try:
        answer = decode_plain_answer(body)
    except UNREADABLE:
        return None
    if [*sources(body)]:
        return None
    choice, usage = answer.choices[0], answer.usage
    return Chunk(
        choice.delta.content,
        usage=usage_of(usage, thinks_apart=thinks_apart) if usage else None,
        finish_reason=choice.finish_reason,
        raw_finish_reason=choice.finish_reason,
        id=answer.id or None,
        model=answer.model or None,
        provider=maker if answer.id or answer.model else None,
    )


def _any_answer(body: bytes, audio_format: str, maker: str, *, thinks_apart: bool = False) -> Chunk:
    decoder = ChatDecoder((), audio_format, maker, WHOLE, thinks_apart=thinks_apart)
    try:
        answer = decode_answer(body)
        chunk = decoder.read(answer, body)
        # Without a finish_reason, `read` has released nothing.
        if (chunk is None or chunk.raw_finish_reason is None) and (rest := decoder.rest()):
            chunk = chunk + rest if chunk else rest
    except UNREADABLE as error:
        if document := list_of(json_of(body)):
            raise provider_error(document, body) from None
        raise ProtocolError(f"The response is not a chat completion: {error}.", frame=body) from None
    if decoder.failure:
        decoder.failure.partial = chunk.message() if chunk else None
        raise decoder.failure
    if not answer.choices:
        raise ProtocolError("The response is not a chat completion: it has no choices.", frame=body)
    choices = [choice for choice in answer.choices if choice is not None]
    silent = all(choice.delta is None and choice.text is None for choice in choices)
    if silent and (chunk is None or chunk.finish_reason in (None, "stop")):  # other reasons explain an empty message
        raise ProtocolError("The response is not a chat completion: its choice has no message.", frame=body)
    return chunk or Chunk()
