"""The results of MCP tools, as values that an agent gives to its model."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

import msgspec

from ..errors import ProtocolError, ToolFailure
from ..misuse import MisuseError
from ..values.parts import FilePart, Part, TextPart

if TYPE_CHECKING:
    from mcp_types import CallToolResult, ContentBlock

__all__ = ["value_of"]


def value_of(result: CallToolResult, tool: str) -> str | list[Part]:
    """Return the result of a call: text; if it has pictures or other files, its parts.

    Raises:
        ToolFailure: the tool failed. The error has its text.
        ProtocolError: a file is not valid base64, or has no valid media type.
    """
    parts = [_part(block, tool) for block in result.content]
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    if result.structured_content is not None and not texts:
        texts = [msgspec.json.encode(result.structured_content).decode()]
        parts.append(TextPart(texts[0]))
    if result.is_error:
        files = [f"[a file of type {part.media_type}]" for part in parts if isinstance(part, FilePart)]
        raise ToolFailure("\n".join([*texts, *files]) or f"The tool {tool} failed without a reason.")
    return "\n".join(texts) if len(texts) == len(parts) else parts


def _part(block: ContentBlock, tool: str) -> Part:
    from mcp_types import AudioContent, ImageContent, ResourceLink, TextContent, TextResourceContents

    match block:
        case TextContent(text=text):
            return TextPart(text)
        case ImageContent(data=data, mime_type=kind) | AudioContent(data=data, mime_type=kind):
            return _file(kind, data, tool)
        case ResourceLink():
            return TextPart(f"{block.title or block.name}: {block.uri}")
        case _:
            pass
    resource = block.resource
    if isinstance(resource, TextResourceContents):
        return TextPart(resource.text)
    return _file(resource.mime_type or "application/octet-stream", resource.blob, tool)


def _file(kind: str, data: str, tool: str) -> FilePart:
    try:
        return FilePart(kind, base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError):
        raise ProtocolError(f"The tool {tool} of an MCP server returned a file that is not base64.") from None
    except MisuseError as error:  # the server's fault, not the program's
        raise ProtocolError(f"The tool {tool} of an MCP server returned a file of an unknown type: {error}") from None
