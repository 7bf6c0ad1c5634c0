"""`OpenTelemetryHandler`: spans and metrics by the semantic conventions for generative AI.

Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/. The conventions are still in development, so `Names` holds
every name. The module is longer than 300 lines because names, metrics and content schemas are one convention.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from attrs import define

from ..errors import ProviderError
from ..events import (
    Cancelled,
    Event,
    Failed,
    Finished,
    Handler,
    Retried,
    Run,
    RunChunk,
    Started,
    ToolFinished,
    ToolStarted,
)
from ..misuse import MisuseError, shown
from ..operators.observer import ignore
from ..values.chunk import Chunk
from ..values.message import Message
from ..values.parts import (
    Approval,
    CachePoint,
    FilePart,
    Part,
    Pending,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from ..values.request import Request
from ._counts import counts

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, Meter, MeterProvider
    from opentelemetry.trace import Span, TracerProvider

__all__ = ["OpenTelemetryHandler"]


class Names:
    """Every attribute, event and metric name that this handler exports."""

    OPERATION: Final = "gen_ai.operation.name"
    PROVIDER: Final = "gen_ai.provider.name"
    CONVERSATION: Final = "gen_ai.conversation.id"
    WORKFLOW: Final = "gen_ai.workflow.name"
    AGENT: Final = "gen_ai.agent.name"
    TOOL: Final = "gen_ai.tool.name"
    TOOL_CALL: Final = "gen_ai.tool.call.id"
    TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
    TOOL_RESULT: Final = "gen_ai.tool.call.result"
    MODEL: Final = "gen_ai.request.model"
    STREAM: Final = "gen_ai.request.stream"
    PARAMETERS: Final = {
        "temperature": "gen_ai.request.temperature",
        "max_tokens": "gen_ai.request.max_tokens",
        "top_p": "gen_ai.request.top_p",
        "top_k": "gen_ai.request.top_k",
        "seed": "gen_ai.request.seed",
        "stop_sequences": "gen_ai.request.stop_sequences",
    }
    RESPONSE_ID: Final = "gen_ai.response.id"
    RESPONSE_MODEL: Final = "gen_ai.response.model"
    FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
    FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
    USAGE: Final = {
        "input_tokens": "gen_ai.usage.input_tokens",
        "output_tokens": "gen_ai.usage.output_tokens",
        "cache_read_input_tokens": "gen_ai.usage.cache_read.input_tokens",
        "cache_creation_input_tokens": "gen_ai.usage.cache_creation.input_tokens",
        "reasoning_output_tokens": "gen_ai.usage.reasoning.output_tokens",
    }
    INPUT: Final = "gen_ai.input.messages"
    OUTPUT: Final = "gen_ai.output.messages"
    SYSTEM: Final = "gen_ai.system_instructions"
    ERROR: Final = "error.type"
    STATUS: Final = "http.response.status_code"
    ADDRESS: Final = "server.address"
    PORT: Final = "server.port"
    CANCELLED: Final = "rxllm.cancelled"
    RETRIED: Final = "rxllm.retried"
    ATTEMPT: Final = "rxllm.attempt"
    INPUT_OR_OUTPUT: Final = "gen_ai.token.type"
    DURATION_METRIC: Final = "gen_ai.client.operation.duration"
    FIRST_CHUNK_METRIC: Final = "gen_ai.client.operation.time_to_first_chunk"
    PER_CHUNK_METRIC: Final = "gen_ai.client.operation.time_per_output_chunk"
    TOKENS_METRIC: Final = "gen_ai.client.token.usage"
    OPERATIONS: Final = {
        "chat_model": "chat",
        "llm": "text_completion",
        "chain": "invoke_workflow",
        "agent": "invoke_agent",
        "tool": "execute_tool",
    }


_SECONDS = [0.01 * 2**power for power in range(14)]
_TOKENS = [float(4**power) for power in range(14)]


@define
class _OpenSpan:
    """A span that has not ended.

    Attributes:
        span: the OpenTelemetry span.
        attributes: the attributes of the span's metrics.
        started: the start time, by `time.perf_counter`.
        streaming: whether the handler times the run's chunks.
        last_chunk: the time of the last chunk; 0.0 before the first.
    """

    span: Span
    attributes: dict[str, Any]
    started: float
    streaming: bool = False
    last_chunk: float = 0.0


class OpenTelemetryHandler(Handler):
    """Reports each run to OpenTelemetry: a span, and for a model's run its duration and its tokens.

    ::

        llm = rxllm.OpenAI("gpt-5-mini", handlers=[rxllm.OpenTelemetryHandler()])

    A span starts when its run starts, at ``subscribe``, and ends when the run completes, fails or is cancelled. The
    parent span is the enclosing run's, else the span that is current at the subscription. The handler never makes a
    span current, because a stream's consumer may end the stream in another context. One handler may report any number
    of runs at once.

    A run with ``conversation_id`` in its metadata reports that id. Prompts, answers and error texts are exported only
    with `capture_content`.

    Args:
        tracer_provider: the tracer provider; the default is the global one.
        meter_provider: the meter provider; the default is the global one.
        capture_content: whether to export prompts, answers, arguments and results of tools, and error texts. Of files,
            only the type and size are exported.

    Raises:
        MisuseError: OpenTelemetry is not installed, or an argument has the wrong type.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        capture_content: bool = False,
    ) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError:
            raise MisuseError("OpenTelemetry is not installed: pip install 'rxllm[otel]'.") from None
        for name, provider, method in (
            ("tracer_provider", tracer_provider, "get_tracer"),
            ("meter_provider", meter_provider, "get_meter"),
        ):
            if provider is not None and not callable(getattr(provider, method, None)):
                raise MisuseError(f"{name} must be an OpenTelemetry provider with {method}(), not {shown(provider)}.")
        if not isinstance(capture_content, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise MisuseError(f"capture_content must be True or False, not {shown(capture_content)}.")
        self._trace = trace
        self._tracer = trace.get_tracer("rxllm", tracer_provider=tracer_provider)
        meter = metrics.get_meter("rxllm", meter_provider=meter_provider)
        self._duration = _seconds(meter, Names.DURATION_METRIC, "Duration of a model's run.")
        self._first_chunk = _seconds(meter, Names.FIRST_CHUNK_METRIC, "Time from the request to the first chunk.")
        self._per_chunk = _seconds(meter, Names.PER_CHUNK_METRIC, "Time between two chunks.")
        self._tokens = meter.create_histogram(
            Names.TOKENS_METRIC,
            unit="{token}",
            description="Tokens of a model's input and output.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self._capture_content = capture_content
        self._open: dict[str, _OpenSpan] = {}

    def _chunk_receiver(self, run: Run) -> Callable[[Chunk], object]:
        open_span = self._open.get(run.id)
        return ignore if open_span is None or not open_span.streaming else lambda _: self._chunk(open_span)

    def on_event(self, event: Event) -> None:
        """Start, time or end the span of the event's run."""
        match event:
            case RunChunk(run=run):
                self._chunk_receiver(run)(event)
            case Started(run=run, input=value) | ToolStarted(run=run, input=value):
                self._begin(run, value)
            case Finished(run=run, output=output) | ToolFinished(run=run, output=output):
                self._end(run, output)
            case Failed(run=run, error=error, partial=partial):
                self._end(run, partial, error)
            case Cancelled(run=run, partial=partial):
                self._end(run, partial, cancelled=True)
            case Retried(run=run, attempt=attempt, error=error):
                if open_span := self._open.get(run.id):
                    open_span.span.add_event(Names.RETRIED, _retried(attempt, error))
            case _:
                pass

    def _begin(self, run: Run, value: object) -> None:
        if run.id in self._open:
            return
        operation, service = Names.OPERATIONS[run.kind], run.service
        shared: dict[str, Any] = {Names.OPERATION: operation}
        if service:
            shared[Names.PROVIDER] = service.provider
            shared[Names.MODEL] = service.model
            shared[Names.ADDRESS] = service.address
            shared[Names.PORT] = service.port
        shared = _without_none(shared)
        outer = next((self._open[ancestor] for ancestor in reversed(run.parent_ids) if ancestor in self._open), None)
        span = self._tracer.start_span(
            f"{operation} {(service and service.model) or run.name}",
            context=self._trace.set_span_in_context(outer.span) if outer else None,
            kind=self._trace.SpanKind.CLIENT if service and service.address else self._trace.SpanKind.INTERNAL,
            attributes={**shared, **_request_attributes(run, value)},
        )
        streaming = service is not None and service.streaming
        self._open[run.id] = _OpenSpan(span, shared, time.perf_counter(), streaming)
        if self._capture_content:
            span.set_attributes(_input_content(run, value))

    def _chunk(self, open_span: _OpenSpan) -> None:
        now = time.perf_counter()
        if open_span.last_chunk:
            self._per_chunk.record(now - open_span.last_chunk, open_span.attributes)
        else:
            self._first_chunk.record(now - open_span.started, open_span.attributes)
            open_span.span.set_attribute(Names.FIRST_CHUNK, now - open_span.started)
        open_span.last_chunk = now

    def _end(self, run: Run, output: object, error: Exception | None = None, *, cancelled: bool = False) -> None:
        open_span = self._open.pop(run.id, None)
        if open_span is None:
            return
        span = open_span.span
        try:
            shared = open_span.attributes
            if cancelled:
                span.set_attribute(Names.CANCELLED, True)
            if error is not None:
                shared[Names.ERROR] = _kind_of(error)
                span.set_attributes(_without_none({Names.ERROR: shared[Names.ERROR], Names.STATUS: _status_of(error)}))
                description = str(error) if self._capture_content else None
                span.set_status(self._trace.StatusCode.ERROR, description)
            if run.service:
                self._record_answer(open_span, output if isinstance(output, Message) else None)
            if self._capture_content and output is not None:
                span.set_attributes(_output_content(run, output))
        finally:
            span.end()

    def _record_answer(self, open_span: _OpenSpan, answer: Message | None) -> None:
        shared = open_span.attributes
        if answer:
            reason = answer.finish_reason or answer.raw_finish_reason
            tokens = counts(answer.usage)
            shared.update(_without_none({Names.RESPONSE_MODEL: answer.model}))
            open_span.span.set_attributes(
                _without_none(
                    {
                        Names.RESPONSE_ID: answer.id,
                        Names.RESPONSE_MODEL: answer.model,
                        Names.FINISH_REASONS: [reason] if reason else None,
                        **{name: tokens.get(field) for field, name in Names.USAGE.items()},
                    }
                )
            )
            for kind in "input", "output":
                if (count := tokens.get(f"{kind}_tokens")) is not None:
                    self._tokens.record(count, {**shared, Names.INPUT_OR_OUTPUT: kind})
        self._duration.record(time.perf_counter() - open_span.started, shared)


def _seconds(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(name, unit="s", description=description, explicit_bucket_boundaries_advisory=_SECONDS)


def _without_none(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def _kind_of(error: Exception) -> str:
    """Return the error's class name; the error's text may contain the prompt."""
    kind = type(error)
    is_public = kind.__module__ == "builtins" or kind.__module__.startswith("rxllm.")
    return kind.__qualname__ if is_public else f"{kind.__module__}.{kind.__qualname__}"


def _retried(attempt: int, error: Exception) -> dict[str, Any]:
    return {Names.ATTEMPT: attempt, Names.ERROR: _kind_of(error)}


def _status_of(error: Exception) -> int | None:
    return error.status if isinstance(error, ProviderError) else None


def _request_attributes(run: Run, value: object) -> dict[str, Any]:
    """Return the attributes of the request, without its content."""
    conversation = {Names.CONVERSATION: run.metadata.get("conversation_id")}
    if isinstance(value, Request) and run.service:
        parameters = {name: getattr(value, field) for field, name in Names.PARAMETERS.items()}
        return _without_none({Names.STREAM: run.service.streaming, **parameters, **conversation})
    name = {"tool": Names.TOOL, "agent": Names.AGENT}.get(run.kind, Names.WORKFLOW)
    call = run.metadata.get("tool_call_id") if run.kind == "tool" else None
    return _without_none({name: run.name, Names.TOOL_CALL: call, **conversation})


# ── content ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _input_content(run: Run, value: object) -> dict[str, str]:
    if isinstance(value, Request):
        messages = [_message(message) for message in value.messages if message.role != "system"]
        rules = [part for message in value.messages if message.role == "system" for part in _parts(message.parts)]
        return {Names.INPUT: _json(messages), **({Names.SYSTEM: _json(rules)} if rules else {})}
    if run.kind == "tool":
        return {Names.TOOL_ARGUMENTS: value if isinstance(value, str) else _json(value)}
    return {Names.INPUT: _json([_as_message("user", value)])}


def _output_content(run: Run, output: object) -> dict[str, str]:
    if run.kind == "tool":
        return {Names.TOOL_RESULT: output if isinstance(output, str) else _json(output)}
    return {Names.OUTPUT: _json([_as_message("assistant", output)])}


def _as_message(role: str, value: object) -> dict[str, Any]:
    """Return any pipeline input or output as a message of the convention."""
    if isinstance(value, Message):
        return _message(value)
    return {"role": role, "parts": [{"type": "text", "content": value if isinstance(value, str) else _json(value)}]}


def _message(message: Message) -> dict[str, Any]:
    reason = {"finish_reason": message.finish_reason} if message.finish_reason else {}
    return {"role": message.role, "parts": _parts(message.parts), **reason}


def _parts(parts: Iterable[Part]) -> list[dict[str, Any]]:
    return [_part(part) for part in parts]


def _part(part: Part) -> dict[str, Any]:
    """Return a part in the convention's message schema."""
    match part:
        case TextPart(text=text):
            return {"type": "text", "content": text}
        case ReasoningPart(text=text):
            return {"type": "reasoning", "content": text}
        case RefusalPart(text=text):
            return {"type": "refusal", "content": text}
        case ToolCallPart(id=id, name=name, arguments=arguments):
            return {"type": "tool_call", "id": id, "name": name, "arguments": _parsed(arguments)}
        case ToolResultPart(id=id):
            return {"type": "tool_call_response", "id": id, "response": part.text}
        case FilePart(media_type=media_type, data=data, url=url):
            place: dict[str, Any] = {"type": "uri", "uri": url}
            if data is not None or part.path is not None:
                place = {"type": "file", **({} if data is None else {"size": len(data)})}
            return {**place, "modality": media_type.partition("/")[0], "mime_type": media_type}
        case CachePoint():
            return {"type": "cache_point"}
        case RawPart(provider=provider):
            return {"type": "raw", "provider": provider}
        case Pending(call=call):
            return {"type": "pending", "id": call.id, "name": call.name}
        case Approval(call=call, yes=yes):
            return {"type": "approval", "id": call.id, "name": call.name, "approved": yes}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text


def _json(value: object) -> str:
    """Return the value as JSON; values that JSON lacks appear as their repr, which hides secrets."""
    try:
        return json.dumps(value, default=repr)
    except (TypeError, ValueError, RecursionError):
        return repr(value)
