"""`response_for`: a request of rxllm as a response of `llm`, which is sent when it is read."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, cast

import msgspec

from ...misuse import MisuseError
from ...values.refusing import refusing
from ...values.request import Request
from ...values.tools import ResponseSchema, ToolSpec
from .writing import Turn, messages_for

__all__ = ["response_for"]

_OPTIONS: Mapping[str, tuple[str, ...]] = {  # the parameters, and what the plugins call them
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "top_k": ("top_k",),
    "max_tokens": ("max_tokens", "max_output_tokens", "max_completion_tokens", "num_predict"),
    "stop_sequences": ("stop_sequences", "stop"),
    "seed": ("seed", "random_seed"),
    "effort": ("effort", "reasoning_effort", "thinking_effort", "thinking_level"),
    "parallel_tool_calls": ("parallel_tool_calls",),
}


def response_for(model: Any, request: Request) -> Any:
    """Return the response for a request.

    Raises:
        MisuseError: the model lacks an option or a feature, or a part of the prompt has no counterpart.
    """
    with refusing(request):
        return _written(model, request)


def _written(model: Any, request: Request) -> Any:
    library = import_module("llm")
    if request.model is not None:
        raise MisuseError("The model of llm has its name already. Leave model=… out.")
    is_asynchronous = isinstance(model, (library.AsyncModel, library.AsyncKeyModel))
    form = request.response_format
    if isinstance(form, Mapping):
        raise MisuseError("llm takes a JSON schema as the response format. Use shape=…, or response_format={schema}.")
    turn = Turn(messages := messages_for(request.messages))
    _check_attachments(model, messages)
    tools = [*_tools(request)]
    try:
        prompt = _prompt_class()(
            turn.text,
            model,
            messages=messages,
            system=turn.system,
            attachments=turn.attachments,
            tool_results=turn.results,
            schema=_plain(form.schema) if isinstance(form, ResponseSchema) else None,
            tools=tools,
            options=model.Options(**_options(model, request)),
        )
        kind = library.AsyncResponse if is_asynchronous else library.Response
        return kind(prompt, model, bool(model.can_stream and request.stream is not False))
    except ValueError as error:  # llm and pydantic say what the model does not support
        raise MisuseError(f"The model {model.model_id} of llm refuses the request: {error}") from error


class _Prompt:
    """A prompt that knows whether the plugin has read its messages.

    Attributes:
        is_read: whether it has.
    """

    is_read = False

    @property
    def messages(self) -> list[Any]:
        """The whole conversation."""
        self.is_read = True
        messages: list[Any] = cast("Any", super()).messages
        return messages


@functools.cache
def _prompt_class() -> Any:
    """Return the class of prompts. Its base exists only where llm is installed."""
    return type("Prompt", (_Prompt, import_module("llm").Prompt), {})


def _options(model: Any, request: Request) -> dict[str, Any]:
    fields: Mapping[str, Any] = model.Options.model_fields
    options: dict[str, Any] = {}
    asked: dict[str, Any] = {name: getattr(request, name) for name in _OPTIONS}
    if request.response_format == "json":
        asked["json_object" if "json_object" in fields else "response_format"] = "json"
    if request.tool_choice not in (None, "auto", "none"):
        asked["tool_choice"] = request.tool_choice
    for name, value in asked.items():
        if value is not None:
            theirs = next((each for each in _OPTIONS.get(name, (name,)) if each in fields), None)
            if theirs is None:
                raise MisuseError(f"The model {model.model_id} of llm has no option for {name}. Leave {name}=… out.")
            options[theirs] = _taken(model, theirs, value)
    if "extra" in fields and request.extra:  # a model of rxllm itself
        return {**options, "extra": _plain(request.extra)}
    return {**options, **_plain(request.extra)}


def _taken(model: Any, name: str, value: Any) -> Any:
    """Return the form of a value that an option takes. Some options take one text, others a list or True."""
    forms: list[Any] = [True] if name == "json_object" else []
    if name in _OPTIONS["stop_sequences"]:
        forms = [[*value], *(value if len(value) == 1 else ())]
    for form in forms:
        try:
            model.Options(**{name: form})
        except ValueError:
            continue
        return form
    return value


def _tools(request: Request) -> Iterator[Any]:
    library = import_module("llm")
    for tool in request.tools or () if request.tool_choice != "none" else ():
        if isinstance(tool, ToolSpec):
            yield library.Tool(tool.name, tool.description or None, _plain(tool.parameters))
        else:
            yield library.ServerSideTool(_plain(tool))


def _plain(value: Any) -> dict[str, Any]:
    """Return a copy of a JSON object that llm may change and write."""
    return msgspec.json.decode(msgspec.json.encode(value), type=dict[str, Any])


def _check_attachments(model: Any, messages: list[Any]) -> None:
    """Check the media types, as `llm` does for the attachments of a prompt."""
    parts = import_module("llm.parts")
    for part in (part for message in messages for part in message.parts if isinstance(part, parts.AttachmentPart)):
        if part.attachment.type not in model.attachment_types:
            taken = ", ".join(sorted(model.attachment_types)) or "no files"
            raise MisuseError(f"The model {model.model_id} of llm takes {taken}, not {part.attachment.type}.")
