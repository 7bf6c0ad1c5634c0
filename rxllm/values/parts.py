"""Parts: the pieces of content in a message.

A part of an answer may carry data that its provider requires when the answer goes into the next request: a signature,
an id, further fields. `provider` names this provider. rxllm never sends the data to another provider.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeGuard, get_args

from attrs import field, frozen
from attrs.validators import optional

from ..misuse import MisuseError, is_text, must_be, shown
from ..public import Public
from ..showing import brief
from .frozen import frozen_json

__all__ = [
    "CachePoint",
    "FilePart",
    "Outcome",
    "Part",
    "RawPart",
    "ReasoningPart",
    "RefusalPart",
    "TextPart",
    "ToolCallPart",
    "ToolResultPart",
]

Outcome = Literal["ok", "error", "denied", "interrupted"]
"""How a tool call ended. ``interrupted`` means: it is unknown whether the tool has run."""


def is_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Return whether the value is a Mapping, such as a dict."""
    return isinstance(value, Mapping)


def _citations(citations: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    return tuple(map(frozen_json, citations))


def _content(content: object) -> tuple[Part, ...]:
    from .content import parts_of

    if is_mapping(content) and "type" not in content:
        raise MisuseError(
            f"The content of a ToolResultPart must be text or parts, not {shown(content)}. Convert it to text with "
            "json.dumps."
        )
    return parts_of(content)


_EXTRA = must_be("a dict of further fields in the provider's own form", is_mapping)


@frozen
class TextPart(metaclass=Public):
    """Text for the reader.

    Attributes:
        text: the text.
        citations: the sources of the text, in the provider's own form.
        index: the index of the provider's block, if the text must stay apart from the text directly before it.
        signature: an opaque proof that the provider requires back with exactly this text. A signed text never joins.
        provider: the name of the provider, if the part carries data for it.
        extra: further data for the provider, in the provider's own form.
    """

    text: str = field(validator=must_be("text", is_text))
    citations: tuple[Mapping[str, Any], ...] = field(default=(), converter=_citations, hash=False)
    index: int | None = None
    signature: str | None = None
    provider: str | None = field(default=None, eq=False)
    extra: Mapping[str, Any] | None = field(default=None, converter=frozen_json, validator=optional(_EXTRA), hash=False)

    __repr__ = brief


@frozen
class ReasoningPart(metaclass=Public):
    """Reasoning of the model.

    Attributes:
        text: the reasoning or a summary of it; empty if the provider sends it only in encrypted form.
        signature: an opaque proof, or the encrypted reasoning. It closes the part, and the provider requires it back.
        index: the index of the provider's block, if known.
        id: the provider's id of the reasoning.
        provider: the name of the provider. rxllm sends reasoning back to this provider only.
        extra: further data for the provider, in the provider's own form.
    """

    text: str = ""
    signature: str | None = None
    index: int | None = None
    id: str | None = None
    provider: str | None = field(default=None, eq=False)
    extra: Mapping[str, Any] | None = field(default=None, converter=frozen_json, validator=optional(_EXTRA), hash=False)

    __repr__ = brief


@frozen
class RefusalPart(metaclass=Public):
    """The model's explanation why it refuses to answer."""

    text: str

    __repr__ = brief


@frozen
class ToolCallPart(metaclass=Public):
    """A tool call, or a fragment of one.

    Attributes:
        id: the id of the call, which the result repeats.
        name: the name of the tool.
        arguments: the arguments as JSON text, exactly as the model wrote it. The JSON may be invalid.
        index: the position of the call in the answer.
        signature: an opaque proof that the provider requires back with the call.
        provider: the name of the provider, if the part carries data for it.
        extra: further data for the provider, in the provider's own form.
    """

    id: str = ""
    name: str = ""
    arguments: str = ""
    index: int = 0
    signature: str | None = None
    provider: str | None = field(default=None, eq=False)
    extra: Mapping[str, Any] | None = field(default=None, converter=frozen_json, validator=optional(_EXTRA), hash=False)

    __repr__ = brief


@frozen
class ToolResultPart(metaclass=Public):
    """The result of a tool call.

    Attributes:
        id: the id of the call.
        content: the result, as parts: text, pictures, files. The constructor also accepts text.
        outcome: how the call ended.
        name: the name of the tool, which some providers require.
    """

    id: str = field(validator=must_be("text", is_text))
    content: tuple[Part, ...] = field(converter=_content)
    outcome: Outcome = field(  # pyright: ignore[reportAssignmentType]
        default="ok",
        validator=must_be(f"one of {', '.join(get_args(Outcome))}", lambda outcome: outcome in get_args(Outcome)),
    )
    name: str = ""

    __repr__ = brief

    @property
    def text(self) -> str:
        """All text of the result, joined."""
        return text_of(self.content, TextPart)

    @property
    def is_error(self) -> bool:
        """Whether the outcome is anything but ``"ok"``."""
        return self.outcome != "ok"


@frozen
class FilePart(metaclass=Public):
    """A picture, a document, an audio or a video file: its bytes, its URL, or its id at the provider.

    Attributes:
        media_type: the media type, such as ``image/png``.
        data: the bytes of the file.
        url: the URL from which the provider downloads the file.
        name: the name of the file.
        file_id: the id of the file at the provider.
        provider: the name of the provider that stores the file under this id.
        detail: the resolution at which the model sees a picture: ``low``, ``high`` or ``auto``.
        title: the title of a document, if it differs from the name.
        context: information about the document, which the model does not cite.
        citable: whether the model should cite passages of the document.
        signature: an opaque proof that the provider that made the file wants back with it.
    """

    media_type: str = field(validator=must_be("like image/png", lambda kind: isinstance(kind, str) and "/" in kind))
    data: bytes | None = field(
        default=None,
        validator=optional(must_be("bytes", lambda data: isinstance(data, bytes))),
        repr=lambda data: "None" if data is None else f"<{len(data)} bytes>",
    )
    url: str | None = field(default=None, validator=optional(must_be("text", is_text)))
    name: str | None = field(default=None, validator=optional(must_be("text", is_text)))
    file_id: str | None = field(default=None, validator=optional(must_be("text", is_text)))
    provider: str | None = None
    detail: str | None = field(default=None, validator=optional(must_be("text such as 'low'", is_text)))
    title: str | None = field(default=None, validator=optional(must_be("text", is_text)))
    context: str | None = field(default=None, validator=optional(must_be("text", is_text)))
    citable: bool = False
    signature: str | None = None

    __repr__ = brief


@frozen
class CachePoint(metaclass=Public):
    """A mark in a prompt. The provider may cache everything before the mark, and charge less for it the next time.

    Attributes:
        ttl: how long the provider keeps the cache entry, in the provider's words, such as ``"5m"`` or ``"1h"``. None
            selects the provider's default.
    """

    ttl: str | None = field(default=None, validator=optional(must_be("text such as '1h'", is_text)))

    __repr__ = brief


@frozen
class RawPart(metaclass=Public):
    """Data of one provider that must go back unchanged: redacted reasoning, blocks of server tools.

    Attributes:
        provider: the name of the provider.
        data: the data, in the provider's own form.
    """

    provider: str = field(eq=False)
    data: Mapping[str, Any] = field(converter=frozen_json, validator=must_be("a dict", is_mapping))

    __repr__ = brief

    def __hash__(self) -> int:
        return hash(frozenset(self.data))


Part = TextPart | ReasoningPart | RefusalPart | ToolCallPart | ToolResultPart | FilePart | CachePoint | RawPart


def text_of(parts: Iterable[Part], kind: type[TextPart] | type[ReasoningPart] | type[RefusalPart]) -> str:
    """Return the text of all parts of a type, joined."""
    return "".join([part.text for part in parts if isinstance(part, kind)])
