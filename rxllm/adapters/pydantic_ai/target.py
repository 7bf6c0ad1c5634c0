"""`to_pydantic_ai`: a model of rxllm as a model of Pydantic AI."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, cast

from ...bridges import AsyncStream
from ...combinators.agent import tools_of_agents
from ...errors import ProtocolError, ProviderError, RxllmError
from ...llm import LLM
from ...misuse import MisuseError, shown
from ...operators.message import one_chunk
from ...values.chunk import Chunk, join
from ...values.parts import FilePart, Part, ReasoningPart, RefusalPart, TextPart, ToolCallPart, ToolResultPart
from ...values.request import Request
from ...values.usage import Usage
from .._echo import ECHO, echo_of
from .._places import Places
from .._written import refused_reset
from .reading import messages_of, settings_of

__all__ = ["to_pydantic_ai"]


def to_pydantic_ai(llm: LLM) -> Any:
    """Return a model of rxllm as a `pydantic_ai.models.Model`, for agents and direct requests.

    ::

        agent = Agent(to_pydantic_ai(rxllm.fallback(rxllm.OpenAI("gpt-5-mini"), rxllm.Embedded())), tools=[weather])

    Streams stream, and leaving or cancelling one closes its request. Tools, structured output in each mode, files,
    reasoning, usage and finish reasons go both ways. What a vendor requires back, such as signatures, travels in the
    details of the response. The calls that an agent of rxllm answers itself are native tool calls.

    Errors: an error of the provider is a `ModelHTTPError` with its status, any other a `ModelAPIError`; the error of
    rxllm is its cause. A stream that begins its answer again fails so, because Pydantic AI cannot take text back.

    Raises:
        MisuseError: the value is not a model, or Pydantic AI is not installed.
    """
    if not isinstance(llm, LLM):  # pyright: ignore[reportUnnecessaryIsInstance]  (callers are untyped)
        raise MisuseError(f"to_pydantic_ai needs a model, such as rxllm.OpenAI('gpt-5-mini'), not {shown(llm)}.")
    try:
        return _classes()[0](llm)
    except ImportError:
        raise MisuseError("to_pydantic_ai needs Pydantic AI: pip install pydantic-ai-slim.") from None


@functools.cache
def _classes() -> tuple[Any, Any]:
    """Return the class of models and the class of streams. Their bases exist only where Pydantic AI is installed."""
    models = import_module("pydantic_ai.models")
    return type("RxllmModel", (_Model, models.Model), {}), type("RxllmStream", (_Stream, models.StreamedResponse), {})


class _Model:
    """A model of rxllm, for the class of models. Pydantic AI warns of the settings that it ignores."""

    unsupported_settings = frozenset({"extra_headers", "max_retries", "timeout"})

    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self.own_tools = tools_of_agents(llm) or frozenset[str]()
        self._service = llm.service(Request.ask("", llm.parameters))
        profile = {
            "supports_json_schema_output": True,
            "supports_json_object_output": True,
            "supports_thinking": True,
            "supports_tools": not self.own_tools,
        }
        cast("Any", super()).__init__(profile=profile)

    @property
    def provider(self) -> None:
        """None: rxllm has the clients."""
        return

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the model for a pickle, because pickle finds no class that a function has made."""
        return to_pydantic_ai, (self.llm,), vars(self)

    @property
    def model_name(self) -> str:
        """The name of the model."""
        return self._service.model or type(self.llm).__name__

    @property
    def system(self) -> str:
        """The provider."""
        return self._service.provider

    async def request(self, messages: Any, model_settings: Any, model_request_parameters: Any) -> Any:
        """Return a whole answer."""
        async with self._opened(messages, model_settings, model_request_parameters, stream=False) as stream:
            async for _ in stream:
                pass
            return stream.get()

    @asynccontextmanager
    async def request_stream(
        self, messages: Any, model_settings: Any, model_request_parameters: Any, run_context: Any = None
    ) -> AsyncGenerator[Any]:
        """Open a stream, and close it at the end of the block."""
        async with self._opened(messages, model_settings, model_request_parameters, stream=True) as opened:
            yield opened

    @asynccontextmanager
    async def _opened(self: Any, messages: Any, settings: Any, parameters: Any, *, stream: bool) -> AsyncGenerator[Any]:
        import_module("pydantic_ai.models").check_allow_model_requests()
        settings, parameters = self.prepare_request(settings, parameters)
        prompt = messages_of(messages, self._get_instruction_parts(messages, parameters) or ())
        asked = settings_of(settings or {}, parameters)
        answer = self.llm.bind(**asked)(prompt) if stream else one_chunk(self.llm.bind(**asked, stream=False)(prompt))
        async with AsyncStream(answer) as chunks:
            yield _classes()[1](self, parameters, chunks)


class _Stream:
    """An answer that streams, for the class of streams."""

    def __init__(self, model: Any, parameters: Any, chunks: Any) -> None:
        cast("Any", super()).__init__(model_request_parameters=parameters)
        self._chunks = chunks
        self._own_tools: frozenset[str] = model.own_tools
        self._provider: str = model.system
        self._name: str = model.model_name
        self._timestamp = datetime.now(UTC)

    async def _get_event_iterator(self: Any) -> AsyncIterator[Any]:
        events = _Events(self._parts_manager, self._provider, self._own_tools)
        chunks: list[Chunk] = []
        try:
            async for chunk in self._chunks:
                if chunk.reset and self._parts_manager.get_parts():
                    raise refused_reset("Pydantic AI")
                chunks.append(chunk)
                for event in events.of(chunk):
                    yield event
        except RxllmError as error:
            raise _mapped(error, self._name) from error
        answer = join(chunks).message()
        self._name = answer.model or self._name
        self.provider_response_id = answer.id
        self.finish_reason = answer.finish_reason if answer.finish_reason != "other" else None
        if answer.usage is not None:
            self._usage = _counts(answer.usage)
        if record := echo_of(answer):
            self.provider_details = {ECHO: record}

    async def close_stream(self) -> None:
        """Close the request."""
        await self._chunks.aclose()

    @property
    def model_name(self) -> str:
        """The name of the model that answers."""
        return self._name

    @property
    def provider_name(self) -> str:
        """The provider."""
        return self._provider

    @property
    def provider_url(self) -> None:
        """None: a model may have several."""
        return

    @property
    def timestamp(self) -> datetime:
        """When the request was sent."""
        return self._timestamp


class _Events:
    """The events of one answer, made with the parts manager of its stream.

    Attributes:
        own_tools: the names of the tools that the model itself runs. Their calls are native.
    """

    def __init__(self, manager: Any, provider: str, own_tools: frozenset[str]) -> None:
        self.manager = manager
        self.provider = provider
        self.own_tools = own_tools
        self.places = Places()
        self.messages = import_module("pydantic_ai.messages")

    def of(self, chunk: Chunk) -> Iterator[Any]:
        """Yield the events for a chunk."""
        for part in chunk.parts:
            yield from self._of_part(part, self.places.of(part))

    def _of_part(self, part: Part, place: int) -> Iterator[Any]:
        manager = self.manager
        match part:
            case TextPart() | RefusalPart():
                yield from manager.handle_text_delta(vendor_part_id=place, content=part.text)
            case ReasoningPart():
                name = part.provider or self.provider
                yield from manager.handle_thinking_delta(
                    vendor_part_id=place, content=part.text, signature=part.signature, id=part.id, provider_name=name
                )
            case ToolCallPart(name=name) if name in self.own_tools:
                call = self.messages.NativeToolCallPart(
                    tool_name=name, args=part.arguments, tool_call_id=part.id, provider_name=self.provider
                )
                yield manager.handle_part(vendor_part_id=place, part=call)
            case ToolCallPart():
                yield from manager.handle_tool_call_delta_events(
                    vendor_part_id=place,
                    tool_name=part.name or None,
                    args=part.arguments or None,
                    tool_call_id=part.id or None,
                )
            case ToolResultPart():
                result = self.messages.NativeToolReturnPart(
                    tool_name=part.name, content=part.text, tool_call_id=part.id, provider_name=self.provider
                )
                yield manager.handle_part(vendor_part_id=None, part=result)
            case FilePart(data=bytes(data)):
                content = self.messages.BinaryContent(data=data, media_type=part.media_type)
                yield manager.handle_part(vendor_part_id=None, part=self.messages.FilePart(content=content))
            case _:
                pass  # `echo_of` keeps it


def _mapped(error: RxllmError, model: str) -> Exception:
    """Return the exception of Pydantic AI for an error."""
    exceptions = import_module("pydantic_ai.exceptions")
    found: Any
    if isinstance(error, ProviderError) and error.status:
        found = exceptions.ModelHTTPError(error.status, model, error.body or str(error))
    elif isinstance(error, ProtocolError):
        found = exceptions.UnexpectedModelBehavior(str(error))
    else:
        found = exceptions.ModelAPIError(model, str(error))
    return cast("Exception", found)


def _counts(usage: Usage) -> Any:
    """Return the usage in the form of Pydantic AI."""
    reasoning = usage.reasoning_output_tokens
    return import_module("pydantic_ai.usage").RequestUsage(
        input_tokens=usage.input_tokens or 0,
        output_tokens=usage.output_tokens or 0,
        cache_read_tokens=usage.cache_read_input_tokens or 0,
        cache_write_tokens=usage.cache_creation_input_tokens or 0,
        details={} if reasoning is None else {"reasoning_tokens": reasoning},
    )
