"""Files and citations in the answers of chat servers, and the bounds on their number."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from typing import Any

from ..bounds import CITATIONS, EVENT_BYTES, PARTS
from ..errors import ProtocolError
from ..values.parts import FilePart, Part, RawPart, TextPart, ToolCallPart
from ._documents import identity_of, list_of, object_of, text_of

__all__ = ["Files", "Tally", "bounded", "citations"]

_AUDIO_TYPES = {"mp3": "audio/mpeg", "opus": "audio/ogg", "pcm16": "audio/pcm"}
_AUDIO_SIGNATURES = {
    b"RIFF": "audio/wav",
    b"ID3": "audio/mpeg",
    b"\xff\xfb": "audio/mpeg",
    b"OggS": "audio/ogg",
    b"fLaC": "audio/flac",
}


def bounded(items: list[Any], bound: int, what: str) -> list[Any]:
    """Return the items unchanged.

    Raises:
        ProtocolError: the answer has more items than the bound allows.
    """
    if len(items) > bound:
        raise ProtocolError(f"The response has more than {bound:,} {what}.")
    return items


def citations(annotations: object) -> Iterator[TextPart]:
    """Yield the citations as an empty TextPart, which joins with the text before it."""
    found = tuple(item for item in map(object_of, bounded(list_of(annotations), CITATIONS, "citations")) if item)
    if found:
        yield TextPart("", found)


class Files:
    """The files of one answer: pictures, which arrive whole, and audio, which arrives in pieces."""

    __slots__ = ("_audio_id", "_audio_type", "_pieces", "_size")

    def __init__(self, audio_format: str = "") -> None:
        self._audio_id = ""
        self._audio_type = _audio_type(audio_format)
        self._pieces: list[str] = []  # base64
        self._size = 0

    def images(self, items: object) -> Iterator[FilePart]:
        """Yield the pictures: objects with an ``image_url``, a ``url`` or a ``b64_json``, or texts with a URL."""
        for item in bounded(list_of(items), PARTS, "parts"):
            fields = object_of(item)
            place = fields.get("image_url") or fields
            url = text_of(place) or text_of(object_of(place).get("url")) or text_of(item)
            if not url and (data := text_of(fields.get("b64_json"))):
                url = "data:image/png;base64," + data
            if url:
                yield _image(url)

    def audio(self, sound: object) -> Iterator[TextPart]:
        """Add a piece of audio. Yield its transcript at once; `released` returns the audio when the answer ends.

        Raises:
            ProtocolError: the audio is larger than an event may be.
        """
        fields = object_of(sound)
        self._audio_id = self._audio_id or identity_of(fields.get("id"))
        self._audio_type = self._audio_type or _audio_type(text_of(fields.get("format")))
        if piece := text_of(fields.get("data")):
            self._pieces.append(piece)
            self._size += len(piece)
            if self._size > EVENT_BYTES:
                raise ProtocolError(f"The audio of the answer is larger than {EVENT_BYTES:,} bytes of base64.")
        if transcript := text_of(fields.get("transcript")):
            yield TextPart(transcript)

    def released(self) -> list[FilePart]:
        """Return the audio as a file. A second call returns nothing.

        Raises:
            ProtocolError: the audio is not valid base64.
        """
        if not self._pieces:
            return []
        pieces, self._pieces = self._pieces, []
        whole = "".join(pieces)
        # Some servers encode each piece separately, with padding; others cut one long base64 text into pieces.
        texts = pieces if "=" in whole.rstrip("=") else [whole]
        try:
            data = b"".join([base64.b64decode(text, validate=True) for text in texts])
        except binascii.Error as error:
            raise ProtocolError(f"The audio of the answer is not valid base64: {error}.") from None
        kind = self._audio_type or next(
            (kind for start, kind in _AUDIO_SIGNATURES.items() if data.startswith(start)), "audio/*"
        )
        return [FilePart(kind, data, file_id=self._audio_id or None)]


def _audio_type(name: str) -> str:
    return _AUDIO_TYPES.get(name, f"audio/{name}") if name else ""


def _image(url: str) -> FilePart:
    head, comma, data = url.partition(",")
    kind = head.removeprefix("data:").removesuffix(";base64")
    if comma and head.startswith("data:") and head.endswith(";base64") and "/" in kind:
        try:
            return FilePart(kind, base64.b64decode(data, validate=True))
        except binascii.Error:
            pass
    return FilePart("image/*", url=url)


class Tally:
    """Counts the parts and citations that one answer will have after joining. `Calls` counts the tool calls."""

    __slots__ = ("_citations", "_last", "_parts")

    def __init__(self) -> None:
        self._parts = self._citations = 0
        self._last: tuple[type, int | None] | None = None

    def begin(self) -> None:
        """Count a text as the first part."""
        self._parts, self._last = 1, (TextPart, None)

    def add(self, parts: Sequence[Part]) -> bool:
        """Count these parts. Return whether a plain text would join with the last part.

        Raises:
            ProtocolError: the answer has too many parts or citations.
        """
        for part in parts:
            kind = type(part)
            place = kind, getattr(part, "index", None)
            if kind is TextPart and place[1] is None and self._last and self._last[0] is TextPart:
                place = self._last
            is_new = bool(part.id) if isinstance(part, ToolCallPart) else place != self._last
            if is_new or isinstance(part, (FilePart, RawPart)):
                self._parts += 1
                if self._parts > PARTS:
                    raise ProtocolError(f"The response has more than {PARTS:,} parts.")
            # What follows a signed part is a part of its own.
            self._last = None if getattr(part, "signature", None) else place
            if isinstance(part, TextPart) and part.citations:
                self._citations += len(part.citations)
                if self._citations > CITATIONS:
                    raise ProtocolError(f"The response has more than {CITATIONS:,} citations.")
        return self.ends_in_text

    @property
    def ends_in_text(self) -> bool:
        """Whether the last part is text."""
        return self._last is not None and self._last[0] is TextPart
