"""Files and citations in the answers of chat servers, and the bounds on their number."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from ..bounds import CITATIONS, PARTS
from ..errors import ProtocolError
from ..misuse import MisuseError
from ..values.content import file_of_url
from ..values.parts import FilePart, Part, RawPart, ReasoningPart, TextPart, ToolCallPart
from ..wire.weights import BYTES, weight_of
from ._documents import identity_of, json_of, list_of, object_of, text_of, token_of
from ._limits import DEFAULT, Limits

__all__ = ["Files", "Tally", "bounded", "bytes_of", "citations", "joined_text", "sources"]

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


def bytes_of(data: object, what: str) -> bytes:
    """Return the bytes of base64 in an answer. `what` names them in the error.

    Raises:
        ProtocolError: the data is not valid base64.
    """
    try:
        return base64.b64decode(text_of(data), validate=True)
    except ValueError as error:
        raise ProtocolError(f"{what} of the answer is not valid base64: {error}.") from None


def citations(annotations: object) -> Iterator[TextPart]:
    """Yield the citations as an empty TextPart, which joins with the text before it."""
    found = tuple(item for item in map(object_of, bounded(list_of(annotations), CITATIONS, "citations")) if item)
    if found:
        yield TextPart("", found)


def sources(data: bytes) -> Iterator[TextPart]:
    """Yield the sources that Perplexity and xAI list beside the choices, as citations of the text before them."""
    if b'"search_results"' in data or b'"citations"' in data:
        document = object_of(json_of(data))
        urls = list_of(document.get("citations"))  # Perplexity sends both; its `search_results` say more
        yield from citations(list_of(document.get("search_results")) or [{"url": url} for url in urls if url])


def joined_text(texts: object) -> str:
    """Return a text as it is; return the text of an object, and join those of a list of objects."""
    if text := token_of(texts):
        return text
    items = list_of(texts) or [texts]
    return "".join([text_of(object_of(item).get("text") or object_of(item).get("content")) for item in items])


class Files:
    """The files of one answer: pictures, which arrive whole, and audio, which arrives in pieces."""

    __slots__ = ("_audio_id", "_audio_type", "_limits", "_pieces", "_size")

    def __init__(self, audio_format: str = "", limits: Limits = DEFAULT) -> None:
        self._limits = limits
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
            ProtocolError: the audio is larger than `Limits.size`.
        """
        fields = object_of(sound)
        self._audio_id = self._audio_id or identity_of(fields.get("id"))
        self._audio_type = self._audio_type or _audio_type(text_of(fields.get("format")))
        if piece := text_of(fields.get("data")):
            self._pieces.append(piece)
            self._size += len(piece)
            self._limits.check_size(self._size, "The audio")
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
        data = b"".join([bytes_of(text, "The audio") for text in texts])
        kind = self._audio_type or next(
            (kind for start, kind in _AUDIO_SIGNATURES.items() if data.startswith(start)), "audio/*"
        )
        return [FilePart(kind, data, file_id=self._audio_id or None)]


def _audio_type(name: str) -> str:
    return _AUDIO_TYPES.get(name, f"audio/{name}") if name else ""


def _image(url: str) -> FilePart:
    try:
        return file_of_url(url, "image/*")
    except MisuseError:  # a malformed data URL stays a URL
        return FilePart("image/*", url=url)


class Tally:
    """Counts what one answer will have after joining: parts, citations, values. `Calls` counts the tool calls.

    Attributes:
        limits: the bounds.
        has_content: whether a part that is neither reasoning nor raw was counted.
    """

    __slots__ = ("_citations", "_last", "_most", "_parts", "_values", "has_content", "limits")

    def __init__(self, limits: Limits = DEFAULT) -> None:
        self.limits = limits
        self._most = limits.answer_values
        self._parts = self._citations = self._values = 0
        self._last: tuple[type, int | None] | None = None
        self.has_content = False

    def begin(self) -> None:
        """Count a text as the first part."""
        self._parts, self._last, self.has_content = 1, (TextPart, None), True

    def add(self, parts: Sequence[Part]) -> bool:
        """Count these parts. Return whether a plain text would join with the last part.

        Raises:
            ProtocolError: the answer has too many parts, citations or values.
        """
        for part in parts:
            kind = type(part)
            kept = part.data if isinstance(part, RawPart) else getattr(part, "extra", None)
            if kept:
                self.hold(kept)
            elif isinstance(part, FilePart) and part.data:
                self._count(len(part.data) // BYTES)
            place = kind, getattr(part, "index", None)
            if kind is TextPart and place[1] is None and self._last and self._last[0] is TextPart:
                place = self._last
            is_new = bool(part.id) if isinstance(part, ToolCallPart) else place != self._last
            if is_new or isinstance(part, (FilePart, RawPart)):
                self._parts += 1
                self.has_content = self.has_content or kind not in (ReasoningPart, RawPart)
                if self._parts > PARTS:
                    raise ProtocolError(f"The response has more than {PARTS:,} parts.")
            # A fragment after a signed part begins a new part.
            self._last = None if getattr(part, "signature", None) else place
            if isinstance(part, TextPart) and part.citations:
                self._citations += len(part.citations)
                self.hold(part.citations)
                if self._citations > CITATIONS:
                    raise ProtocolError(f"The response has more than {CITATIONS:,} citations.")
        return self.ends_in_text

    def hold(self, data: object) -> int:
        """Count the values of some JSON, which may be encoded. Return their number.

        Raises:
            ProtocolError: the answer has too many values.
        """
        return self._count(weight_of(data if isinstance(data, bytes) else msgspec.json.encode(data)))

    def hold_logprobs(self, logprobs: object) -> None:
        """Count log probabilities, unless the request asked for them.

        Raises:
            ProtocolError: the answer has too many values.
        """
        if self.limits.counts_logprobs:
            self.hold(logprobs)

    def release(self, values: int) -> None:
        """Forget so many values of a block that was held; `add` counts the block when it is whole."""
        self._values -= values

    def _count(self, values: int) -> int:
        self._values += values
        if self._values > self._most:
            raise ProtocolError(
                f"The answer has more than {self._most:,} values beside its text: raw blocks, files, citations or log "
                "probabilities; if that is expected, raise event_limit."
            )
        return values

    @property
    def ends_in_text(self) -> bool:
        """Whether the last part is text."""
        return self._last is not None and self._last[0] is TextPart

    @property
    def ends_in_reasoning(self) -> bool:
        """Whether the last part is reasoning without a signature."""
        return self._last is not None and self._last[0] is ReasoningPart
