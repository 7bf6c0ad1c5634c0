"""Answers in the format of OpenAI's ``/v1/chat/completions`` and ``/v1/completions``: streams and whole answers.

Source: https://platform.openai.com/docs/api-reference/chat-streaming.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from typing import Any

from ..values.characters import json_bytes
from ..values.chat_answer import ChatDeltas, chat_message, finish_reason, is_picture, new_id, usage_counts
from ..values.chunk import Chunk
from ..values.message import Message
from ..values.parts import FilePart, Part
from ..values.usage import Usage
from ..values.vocabulary import FinishReason
from .failures import HTTPFailure
from .wording import chunk_of, message_of, refuse_file, refuse_reset

__all__ = ["ChatEvents", "CompletionEvents", "WholeChat", "WholeCompletion", "error_body", "error_fields"]

_DONE = b"data: [DONE]\n\n"


def error_fields(failure: HTTPFailure) -> dict[str, Any]:
    """Return the fields of an error as OpenAI's clients read them."""
    return {"message": failure.message, "type": failure.kind, "param": None, "code": failure.code}


def error_body(failure: HTTPFailure) -> bytes:
    """Return an error as OpenAI's clients read it."""
    return json_bytes({"error": error_fields(failure)})


def _check_files(parts: Iterable[Part], *, pictures: bool) -> None:
    """Raise an error for a file of an answer, which would be lost. `pictures` says whether these have a place."""
    for part in parts:
        if isinstance(part, FilePart) and not (pictures and is_picture(part)):
            raise refuse_file(part)


class _Failures:
    """Encodes errors for OpenAI's clients. A failed stream has no ``[DONE]``, so that no client takes it for whole."""

    def fail(self, failure: HTTPFailure) -> bytes:
        """Return an error frame."""
        return b"data: " + error_body(failure) + b"\n\n"

    def refuse(self, failure: HTTPFailure) -> bytes:
        """Return the body of an error response."""
        return error_body(failure)


class _Events(_Failures):
    """The state that both kinds of event streams share: the end of the answer and its usage."""

    media_type = "text/event-stream"
    ping = b": ping\n\n"
    object_type: str
    prefix: str

    def __init__(self, model: str, *, usage: bool) -> None:
        self._head = {
            "id": new_id(self.prefix),
            "object": self.object_type,
            "created": int(time.time()),
            "model": model,
        }
        self._with_usage = usage
        self._usage: Usage | None = None
        self._reason: FinishReason | None = None
        self._spoken = False

    def _event(self, choice: dict[str, Any]) -> bytes:
        return b"data: " + json_bytes({**self._head, "choices": [choice]}) + b"\n\n"

    def _note(self, chunk: Chunk) -> None:
        if chunk.reset and self._spoken:
            raise refuse_reset()
        self._usage = chunk.usage or self._usage
        self._reason = chunk.finish_reason or self._reason

    def _last(self, choice: dict[str, Any]) -> bytes:
        last = self._event(choice)
        if self._with_usage:
            counts = usage_counts(self._usage or Usage())
            last += b"data: " + json_bytes({**self._head, "choices": [], "usage": counts}) + b"\n\n"
        return last + _DONE


class ChatEvents(_Events):
    """A stream of ``chat.completion.chunk`` events."""

    object_type, prefix = "chat.completion.chunk", "chatcmpl-"

    def __init__(self, model: str, *, tools: Collection[str] = (), usage: bool = False) -> None:
        super().__init__(model, usage=usage)
        self._deltas = ChatDeltas(frozenset(tools).__contains__)
        whole = self._delta({"content": ""})
        before, _, after = whole.partition(b'"content":""')
        self._before, self._after = before + b'"content":', after  # the bytes around each text

    def begin(self) -> bytes:
        """Return the event with the role."""
        return self._delta({"role": "assistant", "content": ""})

    def encode(self, item: object) -> bytes:
        """Return the events of one item."""
        chunk = chunk_of(item)
        if chunk.rest is None:
            self._spoken = self._spoken or bool(chunk.text)
            return self._before + json_bytes(chunk.text) + self._after if chunk.text else b""
        self._note(chunk)
        _check_files(chunk.parts, pictures=True)
        return b"".join(self._delta(delta) for part in chunk.parts if (delta := self._content(part)))

    def end(self) -> bytes:
        """Return the event with the finish reason, the usage if the client asked for it, and ``[DONE]``."""
        reason = finish_reason(self._reason, calls=self._deltas.calls.count > 0)
        return self._last({"index": 0, "delta": {}, "finish_reason": reason})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return self._event({"index": 0, "delta": delta, "finish_reason": None})

    def _content(self, part: Part) -> dict[str, Any] | None:
        delta = self._deltas.of(part)
        self._spoken = self._spoken or delta is not None
        return delta


class CompletionEvents(_Events):
    """A stream of ``text_completion`` events."""

    object_type, prefix = "text_completion", "cmpl-"

    def begin(self) -> bytes:
        """Return no bytes: a completion has no first event of its own."""
        return b""

    def encode(self, item: object) -> bytes:
        """Return the event of one item."""
        chunk = chunk_of(item)
        self._note(chunk)
        _check_files(chunk.parts, pictures=False)
        if not chunk.text:
            return b""
        self._spoken = True
        return self._event({"index": 0, "text": chunk.text, "logprobs": None, "finish_reason": None})

    def end(self) -> bytes:
        """Return the event with the finish reason, the usage if the client asked for it, and ``[DONE]``."""
        reason = finish_reason(self._reason, calls=False)
        return self._last({"index": 0, "text": "", "logprobs": None, "finish_reason": reason})


class _Whole(_Failures):
    """A whole answer as one JSON document. A ping is a space, which JSON allows before a document."""

    media_type = "application/json"
    ping = b" "

    def __init__(self, model: str) -> None:
        self._model = model

    def begin(self) -> bytes:
        """Return no bytes: the document is the only item."""
        return b""

    def end(self) -> bytes:
        """Return no bytes: the document is complete."""
        return b""

    def _document(self, answer: Message, kind: str, prefix: str, choice: dict[str, Any]) -> bytes:
        return json_bytes(
            {
                "id": new_id(prefix),
                "object": kind,
                "created": int(time.time()),
                "model": self._model,
                "choices": [{"index": 0, **choice, "logprobs": None}],
                "usage": usage_counts(answer.usage or Usage()),
            }
        )


class WholeChat(_Whole):
    """A ``chat.completion`` document."""

    def __init__(self, model: str, tools: Collection[str] = ()) -> None:
        super().__init__(model)
        self._tools = frozenset(tools)

    def encode(self, item: object) -> bytes:
        """Return the document of an answer."""
        answer = message_of(item)
        _check_files(answer.parts, pictures=True)
        message = chat_message(answer, self._tools.__contains__)
        reason = finish_reason(answer.finish_reason, calls="tool_calls" in message)
        return self._document(answer, "chat.completion", "chatcmpl-", {"message": message, "finish_reason": reason})


class WholeCompletion(_Whole):
    """A ``text_completion`` document."""

    def encode(self, item: object) -> bytes:
        """Return the document of an answer."""
        answer = message_of(item)
        _check_files(answer.parts, pictures=False)
        reason = finish_reason(answer.finish_reason, calls=False)
        return self._document(answer, "text_completion", "cmpl-", {"text": answer.text, "finish_reason": reason})
