"""The bodies of OpenAI's clients as `Request`s."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from ..combinators.agent import tools_of_agents
from ..misuse import MisuseError, is_mapping, shown
from ..values.chat_body import CHAT_PARAMETERS, message_in, parameters_in
from ..values.parts import FilePart, Part, RawPart, ToolResultPart
from ..values.request import Request
from ..values.tools import ToolLike, ToolSpec
from .json_fields import flag_in, is_web_address, object_of

__all__ = [
    "asks_for_usage",
    "chat_request",
    "check_tools",
    "checked",
    "completion_request",
    "tool_names",
]

_NAMES: Mapping[str, str] = {**CHAT_PARAMETERS, "top_k": "top_k"}
"""rxllm's names of the parameters. OpenAI has no top_k, but many servers of its protocol do."""

_FUNCTION = ("type", "name", "description", "parameters", "strict")
_WITHOUT_EFFECT: Mapping[str, tuple[object, ...]] = {
    "echo": (None, False),
    "suffix": (None, ""),
    "best_of": (None, 1),
    "logprobs": (None,),
}
"""The values of unsupported fields that ask for nothing."""


def chat_request(body: Mapping[str, Any]) -> Request:
    """Return the request of a body for ``/v1/chat/completions``. Parameters that rxllm does not have are ignored.

    Raises:
        MisuseError: the body requests a feature that rxllm does not have.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise MisuseError("'messages' must be a list with at least one message.")
    return checked(Request(prompt=tuple(map(message_in, cast("list[object]", messages))), **_parameters(body)))


def completion_request(body: Mapping[str, Any]) -> Request:
    """Return the request of a body for ``/v1/completions``.

    Raises:
        MisuseError: the body requests a feature that rxllm does not have.
    """
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(cast("list[object]", prompt)) == 1:
        prompt = cast("list[object]", prompt)[0]
    if not isinstance(prompt, str):
        raise MisuseError("'prompt' must be one text. Send a request for each prompt.")
    for name, harmless in _WITHOUT_EFFECT.items():
        if body.get(name) not in harmless:
            raise MisuseError(f"{name!r} is not supported here. Leave it out.")
    return Request(prompt=prompt, **_parameters(body))


def checked(request: Request) -> Request:
    """Return a request of a client, unless it uses what belongs to the server.

    Raises:
        MisuseError: a tool runs at the model's vendor, a file is an id of the vendor or has another address than one
            of the web, or a message has fields or blocks of the vendor's.
    """
    for tool in request.tools or ():
        if not isinstance(tool, ToolSpec):
            _check_tool(tool)
    for message in request.messages:
        if message.extra is not None:
            raise MisuseError("The field 'extra' of a message is not served. Leave it out.")
        _check_parts(message.parts)
    return request


def check_tools(model: object, request: Request) -> None:
    """Check that a client neither sends tools to an agent nor the results of an agent's own tools.

    Raises:
        MisuseError: the client does so.
    """
    own = tools_of_agents(model)
    if own is None:
        return
    if request.tools:
        raise MisuseError("This model is an agent with tools of its own, and takes no others. Leave 'tools' out.")
    for call in (call for message in request.messages for call in message.tool_calls):
        if call.name in own:
            raise MisuseError(
                f"The tool {call.name!r} runs on this server, which sends no calls of it. Leave the call out."
            )


def _check_tool(tool: Mapping[str, Any]) -> None:
    """Check a tool whose definition is still a dict, because it has more fields than a ToolSpec.

    A vendor distinguishes tools by their type. So a field named ``function`` does not make a tool a function.
    """
    if tool.get("type") != "function":
        raise MisuseError(f"Only tools of the type 'function' are served, not {shown(tool.get('type'))}.")
    unknown = [name for name in tool if name not in _FUNCTION]
    if "function" not in tool and unknown:  # as in /v1/responses
        raise MisuseError(f"The field {unknown[0]!r} of a tool is not served. Leave it out.")
    if not is_mapping(tool.get("function")):
        raise MisuseError(f"A tool needs its 'function' as an object, not {shown(tool.get('function'))}.")


def _check_parts(parts: Iterable[Part]) -> None:
    for part in parts:
        if isinstance(part, ToolResultPart):  # a result may contain another result
            _check_parts(part.content)
        elif isinstance(part, FilePart):
            _check_file(part)
        elif isinstance(part, RawPart):  # a file of the vendor's account, or the work of a tool of the vendor
            raise MisuseError(f"Content of the type {shown(part.data.get('type'))} is not served. Leave it out.")


def _check_file(file: FilePart) -> None:
    if file.file_id is not None:
        raise MisuseError("A file must be sent with its data, because this server stores no files for its clients.")
    if file.url is not None and not is_web_address(file.url):
        raise MisuseError(f"A file must be a base64 data URL or an https address, not {shown(file.url)}.")


def tool_names(request: Request) -> frozenset[str]:
    """Return the names of the tools that the client sent."""
    return frozenset(map(_name_of, request.tools or ()))


def _name_of(tool: ToolLike) -> str:
    if isinstance(tool, ToolSpec):
        return tool.name
    function = tool.get("function")  # a dict with more fields than a ToolSpec stays a dict
    return str((function if is_mapping(function) else tool).get("name"))


def asks_for_usage(body: Mapping[str, Any]) -> bool:
    """Return whether the client asked for the usage of a stream."""
    options = body.get("stream_options")
    return options is not None and flag_in(object_of(options, "'stream_options'"), "include_usage")


def _parameters(body: Mapping[str, Any]) -> dict[str, Any]:
    if body.get("n") not in (None, 1):
        raise MisuseError("'n' must be 1. Send a request for each answer.")
    parameters = parameters_in(body, _NAMES)
    if parameters.get("stop_sequences") == []:
        del parameters["stop_sequences"]
    return parameters
