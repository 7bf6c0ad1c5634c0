"""The parts that contain no other part. `parts.py` adds `ToolResultPart`, which contains parts.

A part of an answer may carry data that its provider requires when the answer goes into the next request: a signature,
an id, further fields. `provider` names this provider. rxllm never sends the data to another provider.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import evolve, field, frozen
from attrs.validators import optional

from ..misuse import is_mapping, is_text, must_be
from ..public import Public
from ..showing import brief
from .frozen import frozen_json
from .plain import plain

__all__ = [
    "CachePoint",
    "FilePart",
    "LeafPart",
    "RawPart",
    "ReasoningPart",
    "RefusalPart",
    "TextPart",
    "ToolCallPart",
    "text_of",
]


def _text(text: str) -> str:
    return plain(text)


def _citations(citations: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    return tuple(map(frozen_json, citations))


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

    text: str = field(converter=_text, validator=must_be("text", is_text))
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


def _media_type(kind: Any) -> Any:
    """Return the media type as its registry writes it: it ignores case, and ``image/jpg`` is a common mistake."""
    kind = kind.lower() if isinstance(kind, str) else kind
    return "image/jpeg" if kind == "image/jpg" else kind


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
        signature: an opaque proof that the provider requires back with the file.
        path: the path of a file that is not read yet; see `rxllm.file`. A request has the bytes instead.
    """

    media_type: str = field(
        converter=_media_type, validator=must_be("like image/png", lambda kind: isinstance(kind, str) and "/" in kind)
    )
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
    path: str | None = field(default=None, validator=optional(must_be("text", is_text)))

    __repr__ = brief

    def read(self) -> FilePart:
        """Return the part with the bytes of its file, which this method reads; the part itself if it has no path.

        Raises:
            MisuseError: the file cannot be read or sent.
        """
        if self.path is None:
            return self
        from .disk import check_size, content_of, media_type_of  # imported here, because only files need it

        data = content_of(self.path)
        media_type = media_type_of(self.path, self.media_type, data)
        check_size(len(data), media_type, self.name)
        return evolve(self, media_type=media_type, data=data, path=None)


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


LeafPart = TextPart | ReasoningPart | RefusalPart | ToolCallPart | FilePart | CachePoint | RawPart
"""A part that contains no other part."""


def text_of(parts: Iterable[object], kind: type[TextPart] | type[ReasoningPart] | type[RefusalPart]) -> str:
    """Return the text of all parts of a type, joined."""
    return "".join([part.text for part in parts if isinstance(part, kind)])
