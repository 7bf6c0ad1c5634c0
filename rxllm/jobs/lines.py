"""A result as a line of the journal, and back.

A line has the form of OpenAI's batch output, and facts of rxllm under one key of its own::

    {"id": "…", "custom_id": "7", "response": {"status_code": 200, "request_id": "…", "body": {…}}, "error": null,
     "rxllm": {"version": 1, "request": "<digest of the model and the request>", "row": 6}}

Source: https://platform.openai.com/docs/api-reference/batch/request-output.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from ..misuse import MisuseError
from ..values.message import Message
from ..values.parts import Part, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from ..values.persisted import message_fields, message_record, plain, plain_fields
from ..values.usage import Usage
from ..values.vocabulary import FinishReason, Logprobs
from .result import UNNUMBERED, Failure, Result

__all__ = ["BEGINNING", "Line", "line_of", "read_line", "result_of"]

_VERSION = 1  # of the form of a line
BEGINNING = b'{"id":"rxllm-'
"""The first bytes of each line that rxllm writes."""


class _Facts(msgspec.Struct, omit_defaults=True):
    version: int = 0
    request: str = ""
    row: int = UNNUMBERED
    attempt: int = 1
    kind: str | None = None
    status: int | None = None
    raw_finish_reason: str | None = None
    provider: str | None = None
    usage: dict[str, Any] | None = None
    message: dict[str, Any] | None = None


class _Error(msgspec.Struct):
    code: str | None = None
    message: str = ""


class Line(msgspec.Struct):
    """The fields of a line that opening a journal reads."""

    custom_id: str
    rxllm: _Facts
    error: _Error | None = None


class _Function(msgspec.Struct):
    name: str
    arguments: str


class _Call(msgspec.Struct):
    id: str
    function: _Function


class _Answer(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] = []


class _Choice(msgspec.Struct):
    message: _Answer
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Counts(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class _Body(msgspec.Struct):
    choices: list[_Choice]
    id: str | None = None
    model: str | None = None
    created: float | None = None
    usage: _Counts | None = None


class _Response(msgspec.Struct):
    body: _Body


L = TypeVar("L", bound=Line)


class _WholeLine(Line):
    response: _Response | None = None


_read = msgspec.json.Decoder(_WholeLine).decode
_head = msgspec.json.Decoder(Line).decode
_write = msgspec.json.Encoder().encode


def read_line(line: bytes) -> Line:
    """Return the fields of a line that opening a journal reads.

    Raises:
        ValueError: the line is not one of a job.
    """
    return _checked(_head(line))


def _checked(line: L) -> L:
    """Return a line.

    Raises:
        MisuseError: a later version of rxllm wrote it.
    """
    if line.rxllm.version > _VERSION:
        raise MisuseError(
            f"A later rxllm wrote this journal, in form {line.rxllm.version}; this version reads forms up to "
            f"{_VERSION}. Upgrade rxllm."
        )
    return line


def line_of(result: Result) -> bytes:
    """Return the line of a result, with its end.

    Raises:
        MisuseError: the answer holds a value that JSON cannot express.
    """
    try:
        return _write(_record(result)) + b"\n"
    except (TypeError, ValueError, OverflowError) as wrong:  # MisuseError is a TypeError
        raise MisuseError(f"The answer of the row {result.id!r} can't be written as JSON: {wrong}") from None


def _record(result: Result) -> dict[str, Any]:
    facts = _Facts(_VERSION, result.request, result.row, result.attempt)
    response, error = None, None
    if result.answer is not None:
        answer = result.answer
        if answer.raw_finish_reason != _reason(answer):
            facts.raw_finish_reason = answer.raw_finish_reason
        facts.provider = answer.provider
        if answer.usage is not None and not _is_plain(answer.usage):
            facts.usage = plain_fields(answer.usage)
        contents = answer.reasoning, answer.text, answer.refusal, answer.tool_calls
        if answer.name or answer.extra or answer.metadata or answer.parts != _simple_parts(*contents):
            facts.message = message_record(answer)
        response = {"status_code": 200, "request_id": answer.id or "", "body": _body(answer, *contents)}
    elif result.failure is not None:
        failure = result.failure
        facts.kind, facts.status = failure.kind, failure.status
        error = {"code": failure.code, "message": failure.message}
    return {
        "id": f"rxllm-{result.request[:16]}",
        "custom_id": result.id,
        "response": response,
        "error": error,
        "rxllm": facts,
    }


def result_of(line: bytes) -> Result:
    """Return the result in a line.

    Raises:
        ValueError: the line is not one of a job.
    """
    read = _checked(_read(line))
    facts, answer, failure = read.rxllm, None, None
    if read.error is not None:
        failure = Failure(facts.kind or "RxllmError", read.error.message, facts.status, read.error.code)
    elif facts.message is not None:
        answer = Message(**message_fields(facts.message))
    elif read.response is not None:
        answer = _answer(read.response.body, facts)
    return Result(read.custom_id, answer, failure, facts.row, facts.request, facts.attempt)


def _simple_parts(reasoning: str, text: str, refusal: str, calls: Iterable[ToolCallPart]) -> tuple[Part, ...]:
    """Return the parts that the body of a chat completion can hold."""
    return (
        *([ReasoningPart(reasoning)] if reasoning else []),
        *([TextPart(text)] if text else []),
        *([RefusalPart(refusal)] if refusal else []),
        *(ToolCallPart(call.id, call.name, call.arguments, index) for index, call in enumerate(calls)),
    )


def _reason(answer: Message) -> str | None:
    """Return the finish reason in OpenAI's word."""
    return "tool_calls" if answer.finish_reason == "tool_call" else answer.finish_reason


def _body(answer: Message, reasoning: str, text: str, refusal: str, calls: tuple[ToolCallPart, ...]) -> dict[str, Any]:
    """Return an answer, which has these contents, as a ``chat.completion``."""
    message: dict[str, Any] = {"role": "assistant", "content": text or (None if answer.parts else "")}
    if refusal:
        message["refusal"] = refusal
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": _reason(answer)}
    if answer.logprobs is not None:
        choice["logprobs"] = plain("logprobs", answer.logprobs)
    body = {
        "id": answer.id,
        "object": "chat.completion",
        "created": int(answer.created or time.time()),
        "model": answer.model,
        "choices": [choice],
    }
    return body if answer.usage is None else {**body, "usage": _counts(answer.usage)}


def _is_plain(usage: Usage) -> bool:
    """Return whether the counts of a chat completion say everything."""
    has_both = usage.input_tokens is not None and usage.output_tokens is not None
    return has_both and usage.cache_creation_input_tokens is None and not usage.estimated and usage.last_round is None


def _counts(usage: Usage) -> dict[str, Any]:
    prompt, completion = usage.input_tokens or 0, usage.output_tokens or 0
    counts: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if usage.cache_read_input_tokens is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": usage.cache_read_input_tokens}
    if usage.reasoning_output_tokens is not None:
        counts["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_output_tokens}
    return counts


def _answer(body: _Body, facts: _Facts) -> Message:
    choice = body.choices[0]
    message = choice.message
    parts: list[Part] = [
        *([ReasoningPart(message.reasoning_content)] if message.reasoning_content else []),
        *([TextPart(message.content)] if message.content else []),
        *([RefusalPart(message.refusal)] if message.refusal else []),
        *(
            ToolCallPart(call.id, call.function.name, call.function.arguments, index)
            for index, call in enumerate(message.tool_calls)
        ),
    ]
    reason: Any = "tool_call" if choice.finish_reason == "tool_calls" else choice.finish_reason
    finish: FinishReason | None = reason
    return Message(
        "assistant",
        tuple(parts),
        usage=_usage(body, facts),
        finish_reason=finish,
        raw_finish_reason=facts.raw_finish_reason or choice.finish_reason,
        model=body.model,
        id=body.id,
        provider=facts.provider,
        logprobs=choice.logprobs,
        created=body.created,
    )


def _usage(body: _Body, facts: _Facts) -> Usage | None:
    if facts.usage is not None:
        return msgspec.convert(facts.usage, Usage)
    if (counts := body.usage) is None:
        return None
    prompt, completion = counts.prompt_tokens_details, counts.completion_tokens_details
    return Usage(
        input_tokens=counts.prompt_tokens,
        output_tokens=counts.completion_tokens,
        cache_read_input_tokens=prompt.cached_tokens if prompt else None,
        reasoning_output_tokens=completion.reasoning_tokens if completion else None,
    )
