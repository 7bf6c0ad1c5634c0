"""`from_pydantic_ai`: a model of Pydantic AI as a model of rxllm."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Iterable, Iterator
from importlib import import_module
from typing import Any, Literal, Unpack, cast

import attrs
from attrs import field, frozen

from ...errors import Interrupted, ProtocolError
from ...events import Service
from ...llm import LLM, Fields
from ...misuse import MisuseError, shown
from ...secrecy import blanked
from ...shapes.dialects import ANY
from ...shapes.modes import Offer
from ...values.chunk import Chunk, text_chunk
from ...values.parts import FilePart, Part, RawPart, ReasoningPart, TextPart, ToolCallPart
from ...values.refusing import about, refusing
from ...values.request import Request
from ...values.usage import Usage
from ...wire.clients import of_loop
from .._failures import Reading, unreadable
from .._foreign import raise_known
from .reading import raw_part
from .writing import history_of, parameters_of, settings_for

__all__ = ["from_pydantic_ai"]

# The systems that always send a finish reason. Pydantic AI takes a stream that broke off before it for a whole answer.
_ENDING = ("anthropic", "azure", "openai")


@frozen
class PydanticAI(LLM):
    """The model.

    Attributes:
        model: the model of Pydantic AI, or a function that returns one for each event loop.
        sample: a model of the same kind, which tells its name and features.
    """

    model: Any = field(repr=False)
    sample: Any = field(eq=False, repr=lambda model: repr(model.model_name))

    def kind(self, request: Request) -> Literal["llm", "chat_model"]:
        """Return ``"chat_model"``: the history is a conversation."""
        return "chat_model"

    def service(self, request: Request) -> Service:
        """Return the description of the service."""
        service = super().service(request)
        return attrs.evolve(service, provider=self.sample.system, model=self.sample.model_name)

    def _offers(self, request: Request) -> tuple[Offer, ...]:
        native = (Offer("native", ANY),) if self.sample.profile.get("supports_json_schema_output") else ()
        return (*native, Offer("tool", ANY))

    async def chunks(self, request: Request) -> AsyncGenerator[Chunk]:
        """Stream the answer. If `request.stream` is False, request the whole answer, as one chunk."""
        direct = import_module("pydantic_ai.direct")
        with refusing(request):
            if request.model is not None:
                raise MisuseError("The model of Pydantic AI has its name already. Leave model=… out.")
            asked = {
                "model_settings": settings_for(request),
                "model_request_parameters": parameters_of(request),
            }
            history = history_of(request.messages)
        model = await of_loop(asyncio.get_running_loop(), self.model, _checked, _close, is_renewed=True)
        model._refresh_http_client()  # its HTTP client works on one event loop; an agent does the same
        has_begun = False
        try:
            if request.stream is False:
                yield _whole(await direct.model_request(model, history, **asked), model.system)
                return
            async with direct.model_request_stream(model, history, **asked) as stream:
                async for event in stream:
                    for part in _parts(event, model.system):
                        has_begun = True
                        yield text_chunk(part.text) if isinstance(part, TextPart) else Chunk(parts=[part])
                response = stream.get()
        except Exception as error:
            secrets = _secrets(model)
            known = _known(error, secrets) or _refusal(error, secrets, request)
            raise_known(error, has_begun=has_begun, secrets=secrets, known=known, reading=_reading(), request=request)
        ends = _raw_reason(response) is not None or response.finish_reason not in (None, "stop")
        if response.state == "incomplete" or (not ends and model.system in _ENDING):
            raise Interrupted("The stream ended before the answer did: its finish reason is missing.")
        raw = raw_part(response)
        yield _facts(response, [raw] if raw else [])


def from_pydantic_ai(model: Any, **settings: Unpack[Fields]) -> LLM:
    """Return a model of rxllm that asks a model of Pydantic AI.

    ::

        llm = from_pydantic_ai(OpenAIResponsesModel("gpt-5"))
        llm = from_pydantic_ai("google-gla:gemini-3-flash")

    Streams stream, and leaving one closes the connection of Pydantic AI. Tools, JSON schemas, files, reasoning, usage
    and finish reasons go both ways. An answer goes back into a conversation as it came, with its ids and signatures.
    The errors are those of rxllm, with the exception of Pydantic AI as their cause.

    Args:
        model: a `pydantic_ai.models.Model`, which works on one event loop at a time; the name of one; or a function
            that returns one, which is called once for each event loop.
        settings: parameters, and the config of the runs. The fields of `extra` are settings of Pydantic AI, such as
            ``extra={"openai_service_tier": "flex"}``.

    Raises:
        MisuseError: the value is not a model, or Pydantic AI is not installed.
    """
    try:
        models = import_module("pydantic_ai.models")
    except ImportError:
        raise MisuseError("from_pydantic_ai needs Pydantic AI: pip install pydantic-ai-slim.") from None
    make = functools.partial(models.infer_model, model) if isinstance(model, str) else model
    return PydanticAI(make, _checked(_made(make)), **cast("Any", settings))


def _made(make: Any) -> object:
    """Return the model, or what the function returns. A model of rxllm is callable, but no such function."""
    if not callable(make) or isinstance(make, LLM):
        return make
    try:
        return make()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise MisuseError(f"Pydantic AI has no such model, or the function that returns one raised {reason}") from error


def _checked(model: object) -> Any:
    if not isinstance(model, import_module("pydantic_ai.models").Model):
        raise MisuseError(
            "from_pydantic_ai needs a model of Pydantic AI, the name of one, or a function that returns one, not "
            f"{shown(model)}."
        )
    return model


async def _close(model: Any) -> None:
    """Close the HTTP client that a model has made: Pydantic AI closes it with the last exit."""
    async with model:
        pass


def _secrets(model: Any) -> list[str]:
    key = getattr(getattr(model, "client", None), "api_key", None)
    return [key] if key and isinstance(key, str) else []


def _known(error: Exception, secrets: Iterable[str]) -> ProtocolError | None:
    """Return the error for a response that Pydantic AI refuses; None for any other exception."""
    kind = import_module("pydantic_ai.exceptions").UnexpectedModelBehavior
    return unreadable("Pydantic AI", error, secrets) if isinstance(error, kind) else None


def _refusal(error: Exception, secrets: Iterable[str], request: Request) -> MisuseError | None:
    """Return the error for a request that Pydantic AI does not send; None for any other exception."""
    if not isinstance(error, import_module("pydantic_ai.exceptions").UserError):
        return None
    return about(request, MisuseError(f"Pydantic AI refuses the request: {blanked(str(error), secrets)}"))


def _reading() -> Reading:
    models, function = import_module("pydantic_ai.models"), import_module("pydantic_ai.models.function")
    return Reading(
        "Pydantic AI",
        ("request", "request_stream", "_get_event_iterator"),
        (models.Model, models.StreamedResponse),
        callers=(function.FunctionModel, function.FunctionStreamedResponse),
    )


def _parts(event: Any, system: str) -> Iterator[Part]:
    """Yield what an event says; the ends of parts, and what only the response contains, say nothing."""
    if event.event_kind == "part_start":
        yield from _begun(event.part, event.index, system)
    elif event.event_kind == "part_delta":
        delta = event.delta
        match delta.part_delta_kind:
            case "text" if delta.content_delta:
                yield TextPart(delta.content_delta)
            case "thinking" if delta.content_delta or delta.signature_delta:
                text, provider = delta.content_delta or "", delta.provider_name or system
                yield ReasoningPart(text, delta.signature_delta, index=event.index, provider=provider)
            case "tool_call" if isinstance(delta.args_delta, str) and delta.args_delta:
                yield ToolCallPart(arguments=delta.args_delta, index=event.index)
            case _:
                pass


def _begun(part: Any, index: int, system: str) -> Iterator[Part]:
    match part.part_kind:
        case "text":
            if part.content:
                yield TextPart(part.content)
        case "thinking":
            yield ReasoningPart(part.content, part.signature, index, id=part.id, provider=part.provider_name or system)
        case "tool-call":
            arguments = part.args_as_json_str() if part.args else ""
            yield ToolCallPart(part.tool_call_id, part.tool_name, arguments, index)
        case "file":
            yield FilePart(part.content.media_type, part.content.data)
        case _:
            pass


def _whole(response: Any, system: str) -> Chunk:
    parts: list[Part] = [said for n, part in enumerate(response.parts) for said in _begun(part, n, system)]
    raw = raw_part(response)
    return _facts(response, [*parts, *([raw] if raw else [])])


def _raw_reason(response: Any) -> str | None:
    details: dict[str, Any] = response.provider_details or {}
    return details.get("finish_reason")


def _facts(response: Any, parts: list[Part] | list[RawPart]) -> Chunk:
    usage, reason = response.usage, response.finish_reason
    counts = Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_input_tokens=usage.cache_read_tokens or None,
        cache_creation_input_tokens=usage.cache_write_tokens or None,
        reasoning_output_tokens=usage.details.get("reasoning_tokens"),
    )
    return Chunk(
        parts=parts,
        usage=counts if usage.has_values() else None,
        finish_reason=reason or "other",
        raw_finish_reason=_raw_reason(response),
        model=response.model_name,
        id=response.provider_response_id,
        provider=response.provider_name,
    )
