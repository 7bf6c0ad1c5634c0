"""Readers of content dicts in the forms of OpenAI's and Anthropic's clients. `parts.parts_of` calls them.

Nothing is lost in silence: a field that no part can carry raises MisuseError with the name of the field.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast
from urllib.parse import unquote, unquote_to_bytes

from ..misuse import MisuseError, shown
from .leaf_parts import FilePart, LeafPart, RawPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart

__all__ = ["READERS", "Fields", "file_of_url", "location_of"]


class Fields:
    """A reader of a dict that a user wrote. Each method removes a field from the dict; `end` raises if a field is left.

    Raises:
        MisuseError: each method raises it for a wrong value, with the name of the dict and of the field.

    Attributes:
        rest: the fields that no method has taken yet.
        what: the name of the dict for error messages.
    """

    def __init__(self, fields: Mapping[str, Any], what: str) -> None:
        self.rest = dict(fields)
        self.what = what

    def text(self, name: str, default: str | None = None) -> str:
        """Take a text. Without a default, the field is required."""
        value = self.rest.pop(name, default)
        if not isinstance(value, str):
            raise MisuseError(f"The {name!r} of {self.what} must be text, not {shown(value)}.")
        return value

    def optional(self, name: str) -> str | None:
        """Take a text that may be missing or None."""
        if self.rest.get(name) is None:
            self.rest.pop(name, None)
            return None
        return self.text(name)

    def fields(self, name: str) -> Fields:
        """Take a nested dict, and return a reader of it."""
        value = self.rest.pop(name, None)
        if not isinstance(value, Mapping):
            raise MisuseError(f"The {name!r} of {self.what} must be a dict, not {shown(value)}.")
        return Fields(cast("Mapping[str, Any]", value), f"the {name!r} of {self.what}")

    def items(self, name: str) -> list[Mapping[str, Any]]:
        """Take a list of dicts. It is empty if the field is missing or None."""
        value: Any = self.rest.pop(name, None) or []
        if not isinstance(value, (list, tuple)) or not all(
            isinstance(item, Mapping) for item in cast("list[object]", value)
        ):
            raise MisuseError(
                f"The {name!r} of {self.what} must be a list of dicts, not {shown(cast('object', value))}."
            )
        return list(cast("list[Mapping[str, Any]]", value))

    def flag(self, name: str) -> bool:
        """Take a bool. It is False if the field is missing or None."""
        value = self.rest.pop(name, None) or False
        if not isinstance(value, bool):
            raise MisuseError(f"The {name!r} of {self.what} must be True or False, not {shown(value)}.")
        return value

    def end(self) -> None:
        """Check that every field was taken."""
        left = [name for name, value in self.rest.items() if value is not None]
        if left:
            raise MisuseError(
                f"rxllm can't carry the field {left[0]!r} of {self.what}. Write the message with rxllm's own parts, "
                "or pass a field that only one provider knows in a RawPart or in extra={…} of the Message."
            )


def _text(fields: Fields) -> LeafPart:
    return TextPart(fields.text("text"), citations=(*fields.items("annotations"), *fields.items("citations")))


def _output_text(fields: Fields) -> LeafPart:
    """Read the text of an answer as OpenAI's SDK holds it, without the fields that tell a model nothing."""
    for name in ("logprobs", "parsed"):
        fields.rest.pop(name, None)
    return _text(fields)


def _thinking(fields: Fields) -> LeafPart:
    return ReasoningPart(fields.text("thinking"), fields.optional("signature"), provider="anthropic")


def _redacted(fields: Fields) -> LeafPart:
    return RawPart("anthropic", {"type": "redacted_thinking", "data": fields.text("data")})


def _block(kind: str, fields: Fields) -> LeafPart:
    """Keep a block that only Anthropic understands, such as the work of its own tools."""
    block = {name: value for name, value in fields.rest.items() if value is not None}
    fields.rest.clear()
    return RawPart("anthropic", {"type": kind, **block})


_BLOCKS = (
    "server_tool_use", "web_search_tool_result", "web_fetch_tool_result", "code_execution_tool_result",
    "bash_code_execution_tool_result", "text_editor_code_execution_tool_result", "tool_search_tool_result",
    "mcp_tool_use", "mcp_tool_result", "container_upload", "search_result",
)  # fmt: skip


def _refusal(fields: Fields) -> LeafPart:
    return RefusalPart(fields.text("refusal"))


def _tool_use(fields: Fields) -> LeafPart:
    import msgspec

    arguments = fields.rest.pop("input", None)
    if not isinstance(arguments, Mapping):
        raise MisuseError(f"The 'input' of {fields.what} must be a dict, not {shown(arguments)}.")
    try:
        text = msgspec.json.encode(arguments).decode()
    except (TypeError, ValueError) as error:
        raise MisuseError(f"The 'input' of {fields.what} can't be written as JSON: {error}.") from None
    caller = fields.rest.pop("caller", None)  # which Anthropic requires back
    facts: dict[str, Any] = {"provider": "anthropic", "extra": {"caller": caller}} if caller else {}
    return ToolCallPart(fields.text("id"), fields.text("name"), text, **facts)


def _image_url(fields: Fields) -> LeafPart:
    fields.rest.pop("index", None)  # the place of a picture in an answer
    if isinstance(fields.rest.get("image_url"), str):
        return file_of_url(fields.text("image_url"), "image/*", detail=fields.optional("detail"))
    image = fields.fields("image_url")
    part = file_of_url(image.text("url"), "image/*", detail=image.optional("detail"))
    image.end()
    return part


def _input_image(fields: Fields) -> LeafPart:
    detail = fields.optional("detail")
    if (file_id := fields.optional("file_id")) is not None:
        return FilePart("image/*", file_id=file_id, provider="openai", detail=detail)
    return file_of_url(fields.text("image_url"), "image/*", detail=detail)


def _source(fields: Fields) -> LeafPart:
    source = fields.fields("source")
    kind = source.text("type")
    title, context = fields.optional("title"), fields.optional("context")
    citable = False
    if fields.rest.get("citations") is not None:
        citations = fields.fields("citations")
        citable = citations.flag("enabled")
        citations.end()
    attributes: dict[str, Any] = {"title": title, "context": context, "citable": citable}
    any_type = "image/*" if fields.what.endswith("'image'") else "application/pdf"
    match kind:
        case "base64":
            media_type = source.text("media_type")
            part = FilePart(media_type, _bytes(source.text("data"), source.what), **attributes)
        case "text":
            media_type = source.text("media_type", "text/plain")
            part = FilePart(media_type, source.text("data").encode(), **attributes)
        case "url":
            part = FilePart(any_type, url=source.text("url"), **attributes)
        case "file":
            part = FilePart(any_type, file_id=source.text("file_id"), provider="anthropic", **attributes)
        case _:
            raise MisuseError(f"The type of {source.what} must be base64, text, url or file, not {kind!r}.")
    source.end()
    return part


def _file(fields: Fields) -> LeafPart:
    inner = fields.fields("file") if "file" in fields.rest else fields
    name = inner.optional("filename")
    file_id, url, data = inner.optional("file_id"), inner.optional("file_url"), inner.optional("file_data")
    if inner is not fields:
        inner.end()
    if file_id is not None:
        return FilePart("application/*", file_id=file_id, provider="openai", name=name)
    if data is not None:
        return file_of_url(data, "application/pdf", name=name)
    if url is None:
        raise MisuseError(f"{inner.what.capitalize()} needs a 'file_data', a 'file_id' or a 'file_url'.")
    return FilePart("application/pdf", url=url, name=name)


def _input_audio(fields: Fields) -> LeafPart:
    sound = fields.fields("input_audio")
    kind = sound.text("format", "wav")
    part = FilePart(f"audio/{'mpeg' if kind == 'mp3' else kind}", _bytes(sound.text("data"), sound.what))
    sound.end()
    return part


READERS: Mapping[str, Callable[[Fields], LeafPart]] = {
    "text": _text,
    "input_text": _text,
    "output_text": _output_text,
    "thinking": _thinking,
    "redacted_thinking": _redacted,
    "refusal": _refusal,
    "tool_use": _tool_use,
    "image_url": _image_url,
    "input_image": _input_image,
    "image": _source,
    "document": _source,
    "file": _file,
    "input_file": _file,
    "input_audio": _input_audio,
    **{kind: partial(_block, kind) for kind in _BLOCKS},
}


def file_of_url(url: str, media_type: str, **attributes: Any) -> FilePart:
    """Return a FilePart for a URL. A data URL becomes its bytes, with the media type that it names."""
    head, comma, data = url.lstrip().partition(",")
    scheme, _, form = head.lower().partition(":")
    if not comma or scheme != "data":
        return FilePart(media_type, url=url, **attributes)
    kind, *options = form.split(";")
    if "base64" in options:
        content = _bytes(unquote(data) if "%" in data else data, "a data URL")
    else:
        content = unquote_to_bytes(data)
    return FilePart(kind or media_type, content, **attributes)


def location_of(part: FilePart) -> str | None:
    """Return the data URL of a file's bytes. A file without bytes has its own URL, or None."""
    return part.url if part.data is None else f"data:{part.media_type};base64,{base64.b64encode(part.data).decode()}"


_URL_SAFE = str.maketrans("-_", "+/")  # of base64url, which Gmail and others write, also without padding


def _bytes(data: str, what: str) -> bytes:
    try:
        text = "".join(data.split()).translate(_URL_SAFE)  # MIME breaks base64 into lines
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise MisuseError(f"The data of {what} is not valid base64: {error}.") from None
