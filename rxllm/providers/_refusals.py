"""The errors for requests that a protocol cannot carry, the same for every vendor; and the text of an empty result."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..misuse import MissingKey, MisuseError, shown
from ..values.message import Message
from ..values.parameters import Parameters
from ..values.parts import Approval, FilePart, Part, Pending
from ..values.vocabulary import Role

__all__ = [
    "NO_DETAILS",
    "check_effort",
    "check_fields",
    "check_parallel",
    "check_readable",
    "foreign_tool",
    "foreign_value",
    "missing_key",
    "no_messages",
    "tools_and_format",
    "unsupported_part",
    "unsupported_result",
]

NO_DETAILS = "The tool gave no details."
"""The text of a failed result that has none. Claude's API rejects such a result without content.

Source: https://github.com/can1357/oh-my-pi/pull/2250
"""


def unsupported_part(vendor: str, part: Part, role: Role) -> MisuseError:
    """Return the error for a part that the vendor does not accept in a message with this role."""
    if isinstance(part, (Pending, Approval)):
        return MisuseError(
            f"The conversation has a call of {part.call.name} that waits for an approval, and only the agent with this "
            "tool can run it. Ask the agent, or go on with the next message of the user, which denies the call."
        )
    return MisuseError(
        f"{vendor} does not accept this {_kind(part)} in a message of the role {role!r}. Leave it out, or send it in a "
        "message of another role."
    )


def unsupported_result(vendor: str, part: Part) -> MisuseError:
    """Return the error for a part that the vendor does not accept in the result of a tool."""
    return MisuseError(
        f"{vendor} does not accept this {_kind(part)} in the result of a tool. Convert it to text, or send it in a "
        "user message."
    )


def _kind(part: Part) -> str:
    return f"{part.media_type} file" if isinstance(part, FilePart) else type(part).__name__


def no_messages(vendor: str) -> MisuseError:
    """Return the error for a conversation in which only the system's messages have content."""
    return MisuseError(f"{vendor} needs at least one message with content that is not the system's.")


def check_fields(vendor: str, message: Message, *allowed: str) -> None:
    """Check that the vendor knows the further fields of a message.

    Raises:
        MisuseError: the message has another field in `extra`.
    """
    for name in message.extra or ():
        if name not in allowed:
            raise MisuseError(f"{vendor}'s messages have no field {name!r}. Remove it from the extra of the message.")


def check_readable(vendor: str, part: FilePart, maker: str | None) -> None:
    """Check that the vendor can read a file.

    Args:
        vendor: the name of the vendor for the error message.
        part: the file.
        maker: the provider name under which the vendor stores files; None if the vendor stores none.

    Raises:
        MisuseError: the part has no content, or another provider stores the file.
    """
    if part.file_id is None:
        if part.data is None and part.url is None:
            raise MisuseError("This FilePart has no content. Pass data, url or file_id.")
    elif maker is None:
        raise MisuseError(f"{vendor} stores no files, so it cannot read the file {part.file_id!r}. Pass data or url.")
    elif part.provider not in (None, maker):
        raise MisuseError(
            f"The file {part.file_id!r} is stored at {part.provider}, so {vendor} cannot read it. Pass its data."
        )


def foreign_tool(tool: Mapping[str, Any]) -> MisuseError:
    """Return the error for a tool in the form of another vendor."""
    return MisuseError(
        f"This tool has fields that only another provider knows: {shown(tool)}. "
        "Pass a rxllm.ToolSpec, which suits all providers."
    )


def foreign_value(name: str, value: object) -> MisuseError:
    """Return the error for a parameter in the form of another vendor."""
    return MisuseError(f"This {name} has fields that only another provider knows: {shown(value)}.")


def tools_and_format(model: str) -> MisuseError:
    """Return the error for a request with tools and a response format, for a model that takes one of them only."""
    return MisuseError(f"{model} takes either tools or a response_format, not both. Leave one of them out.")


def check_effort(vendor: str, effort: str, efforts: Collection[str]) -> None:
    """Check that the vendor's models know an effort.

    Raises:
        MisuseError: they do not.
    """
    if effort not in efforts:
        raise MisuseError(f"{vendor}'s models know the efforts {', '.join(efforts)}, not {effort!r}.")


def check_parallel(vendor: str, parameters: Parameters) -> None:
    """Check that the request does not forbid parallel tool calls, for a vendor without this setting.

    Raises:
        MisuseError: it does.
    """
    if parameters.parallel_tool_calls is False:
        raise MisuseError(f"{vendor} cannot forbid parallel tool calls. Leave out parallel_tool_calls.")


def missing_key(host: str | None, provider: str, variable: str) -> MissingKey:
    """Return the error for a request without a key.

    Args:
        host: the host that requires the key.
        provider: the name of the class.
        variable: the environment variable of the key.
    """
    return MissingKey(f"There is no key for {host}: set {variable}, or pass {provider}(…, api_key=…).")
