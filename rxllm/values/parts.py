"""Parts: the pieces of content that a message is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import field, frozen
from attrs.validators import optional

from ..misuse import is_text, must_be
from ..showing import brief
from .frozen import frozen_json

__all__ = ["FilePart", "Part", "RawPart", "ReasoningPart", "RefusalPart", "TextPart", "ToolCallPart", "ToolResultPart"]


def is_mapping(value: object) -> bool:
    """Whether the value is a dict, or like one."""
    return isinstance(value, Mapping)


def _citations(given: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    return tuple(map(frozen_json, given))


@frozen
class TextPart:
    """Text to be read.

    Attributes:
        text: the text.
        citations: the sources that it cites, in the provider's own form.
        index: its place among the provider's blocks, where it directly follows another text and is to stay apart.
    """

    text: str = field(validator=must_be("text", is_text))
    citations: tuple[Mapping[str, Any], ...] = field(default=(), converter=_citations, hash=False)
    index: int | None = None

    __repr__ = brief


@frozen
class ReasoningPart:
    """What the model thought. `signature` closes it and must be sent back with it; `index` is its place, if known."""

    text: str = ""
    signature: str | None = None
    index: int | None = None

    __repr__ = brief


@frozen
class RefusalPart:
    """The model's words of refusal, which are not its answer."""

    text: str


@frozen
class ToolCallPart:
    """A call of a tool, or a fragment of one. `arguments` is JSON text as it came, which need not be valid."""

    id: str = ""
    name: str = ""
    arguments: str = ""
    index: int = 0

    __repr__ = brief


@frozen
class ToolResultPart:
    """What a tool answered to the call `id`."""

    id: str = field(validator=must_be("text", is_text))
    content: str = field(validator=must_be("text (json.dumps makes it)", is_text))
    is_error: bool = False
    name: str = ""

    __repr__ = brief


@frozen
class FilePart:
    """A picture, a document, a sound: its bytes, or where to get it. `media_type` is like ``image/png``."""

    media_type: str = field(validator=must_be("like image/png", lambda kind: isinstance(kind, str) and "/" in kind))
    data: bytes | None = field(
        default=None,
        validator=optional(must_be("bytes", lambda data: isinstance(data, bytes))),
        repr=lambda data: "None" if data is None else f"<{len(data)} bytes>",
    )
    url: str | None = field(default=None, validator=optional(must_be("text", is_text)))
    name: str | None = None

    __repr__ = brief


@frozen
class RawPart:
    """Something of one provider's that must be sent back untouched: redacted thinking, blocks of server tools."""

    provider: str
    data: Mapping[str, Any] = field(converter=frozen_json, validator=must_be("a dict", is_mapping))

    def __hash__(self) -> int:
        return hash((self.provider, frozenset(self.data)))


Part = TextPart | ReasoningPart | RefusalPart | ToolCallPart | ToolResultPart | FilePart | RawPart


def text_of(parts: Iterable[Part], kind: type[TextPart] | type[ReasoningPart] | type[RefusalPart]) -> str:
    """The text of all parts of a kind, joined."""
    return "".join([part.text for part in parts if isinstance(part, kind)])
