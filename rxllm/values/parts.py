"""Parts: the pieces of content that a message is made of.

A part that a model has made may carry facts that its maker wants back when the answer goes into the next request:
a signature, an id, further fields. `provider` names the maker; no other provider ever gets these facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeGuard, get_args

from attrs import field, frozen
from attrs.validators import optional

from ..misuse import MisuseError, is_text, must_be, shown
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
"""How the call of a tool ended. ``interrupted``: nobody knows whether the tool has run."""


def is_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether the value is a dict, or like one."""
    return isinstance(value, Mapping)


def _citations(given: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    return tuple(map(frozen_json, given))


def _content(given: object) -> tuple[Part, ...]:
    from .content import parts_of

    if is_mapping(given) and "type" not in given:
        raise MisuseError(
            f"The content of a ToolResultPart must be text or parts, not {shown(given)}: json.dumps makes it text."
        )
    return parts_of(given)


_EXTRA = must_be("a dict of further fields in the provider's own form", is_mapping)


@frozen
class TextPart:
    """Text to be read.

    Attributes:
        text: the text.
        citations: the sources that it cites, in the provider's own form.
        index: its place among the provider's blocks, where it directly follows another text and is to stay apart.
        signature: an opaque proof that its maker wants back with exactly this text; a signed text joins with no other.
        provider: who made it, where it carries facts for its maker.
        extra: further facts for its maker, in the maker's own form.
    """

    text: str = field(validator=must_be("text", is_text))
    citations: tuple[Mapping[str, Any], ...] = field(default=(), converter=_citations, hash=False)
    index: int | None = None
    signature: str | None = None
    provider: str | None = field(default=None, eq=False)
    extra: Mapping[str, Any] | None = field(default=None, converter=frozen_json, validator=optional(_EXTRA), hash=False)

    __repr__ = brief


@frozen
class ReasoningPart:
    """What the model thought.

    Attributes:
        text: the thought, or a summary of it; empty where the provider only gives it encrypted.
        signature: an opaque proof, or the encrypted thought; it closes the part and goes back with it to its maker.
        index: its place among the provider's blocks, if known.
        id: the provider's id of it.
        provider: who made it. Reasoning goes back to nobody else.
        extra: further facts for its maker, in the maker's own form.
    """

    text: str = ""
    signature: str | None = None
    index: int | None = None
    id: str | None = None
    provider: str | None = field(default=None, eq=False)
    extra: Mapping[str, Any] | None = field(default=None, converter=frozen_json, validator=optional(_EXTRA), hash=False)

    __repr__ = brief


@frozen
class RefusalPart:
    """The model's words of refusal, which are not its answer."""

    text: str

    __repr__ = brief


@frozen
class ToolCallPart:
    """A call of a tool, or a fragment of one.

    Attributes:
        id: the call's id, which its result repeats.
        name: the tool's name.
        arguments: JSON text as it came, which need not be valid.
        index: its place among the calls of the answer.
        signature: an opaque proof that its maker wants back with the call.
        provider: who made it, where it carries facts for its maker.
        extra: further facts for its maker, in the maker's own form.
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
class ToolResultPart:
    """What a tool answered to the call `id`.

    Attributes:
        id: the id of the call.
        content: the answer, as parts: text, pictures, files. Text is one part.
        outcome: how the call ended.
        name: the tool's name, which some providers want.
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
        """All text of the answer, joined."""
        return text_of(self.content, TextPart)

    @property
    def is_error(self) -> bool:
        """Whether the call ended in any other way than well."""
        return self.outcome != "ok"


@frozen
class FilePart:
    """A picture, a document, a sound, a film: its bytes, or where to get it.

    Attributes:
        media_type: like ``image/png``.
        data: the bytes.
        url: where the provider finds it.
        name: the file's name.
        file_id: the id under which the provider keeps it.
        provider: the provider that keeps it under this id.
        detail: how closely to look at a picture: ``low``, ``high`` or ``auto``.
        title: a document's title, where it is not its name.
        context: what to know about the document, which is not cited.
        citable: whether the model is to cite passages of the document.
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

    __repr__ = brief


@frozen
class CachePoint:
    """A mark in a prompt: the provider may keep everything before it, and charge less for it the next time.

    Attributes:
        ttl: how long to keep it, in the provider's words, such as ``"5m"`` or ``"1h"``; None takes its default.
    """

    ttl: str | None = field(default=None, validator=optional(must_be("text such as '1h'", is_text)))

    __repr__ = brief


@frozen
class RawPart:
    """Something of one provider's that must be sent back untouched: redacted thinking, blocks of server tools."""

    provider: str
    data: Mapping[str, Any] = field(converter=frozen_json, validator=must_be("a dict", is_mapping))

    __repr__ = brief

    def __hash__(self) -> int:
        return hash((self.provider, frozenset(self.data)))


Part = TextPart | ReasoningPart | RefusalPart | ToolCallPart | ToolResultPart | FilePart | CachePoint | RawPart


def text_of(parts: Iterable[Part], kind: type[TextPart] | type[ReasoningPart] | type[RefusalPart]) -> str:
    """The text of all parts of a kind, joined."""
    return "".join([part.text for part in parts if isinstance(part, kind)])
