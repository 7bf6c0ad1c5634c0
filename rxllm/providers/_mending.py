"""Repair of frames that are almost JSON: `mended` repairs a document, `Halves` joins characters that a server split.

Python's encoder writes NaN and Infinity; `mended` replaces them by null. Some servers do not escape control characters
in texts; `mended` does. JavaScript's encoder writes a lone surrogate, half of a character, if a server cuts a text in
the middle of a character. The next frame may begin with the other half. So `mended` replaces each half by three Unicode
noncharacters, which never occur in text, and `Halves` finds them in the chunks and joins the halves.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar, cast

import attrs

from ..bounds import MENDED_BYTES
from ..values.chunk import Chunk
from ..values.parts import Part, RawPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from ..wire.error_documents import tells_error
from ._documents import json_of

__all__ = ["NO_NEWS", "Halves", "mended", "separated", "simpler"]

NO_NEWS = ("ping", "heartbeat", "keepalive", "keep-alive", "tool_status")
"""The names of events without content, whose data may be anything. Some gateways send these words as data.

Friendli sends ``tool_status`` while it runs a tool of its own, also with an error of the tool.
Source: https://docs.friendli.ai, the chunk object of tool-assisted chat completions
"""

T = TypeVar("T")

_HALF = "[\ud800-\udfff]"
_MARK = "[\ufdd0-\ufdef]{3}"
_FIRST_MARK, _FIRST_HALF = 0xFDD0, 0xD800
_LOST = "\ufffd"


def mended(body: bytes, *, marked: bool = False) -> bytes | None:
    """Return the repaired document; None if it is valid JSON, or if it cannot be repaired.

    Args:
        body: the document.
        marked: True marks the halves of characters for `Halves`; False replaces each half by U+FFFD.
    """
    if len(body) > MENDED_BYTES or json_of(body) is not None:
        return None
    try:
        document = json.loads(body, strict=False, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    text = json.dumps(document, ensure_ascii=False)
    return re.sub(_HALF, _mark if marked else _LOST, text).encode()


def simpler(data: bytes) -> bytes | None:
    """Return what a frame stands for that gateways write in a form of their own; None if this is not known.

    The result is empty if the frame is only a ping, or a comment that was sent as data.
    """
    word = data.strip().strip(b'"').lower()
    if word in (b"null", *map(str.encode, NO_NEWS)) or word.startswith(b":"):
        return b""
    if word in (b"[done]", b"done"):
        return b"[DONE]"
    return data[5:].strip() if data.startswith(b"data:") else None


def separated(data: bytes) -> list[bytes]:
    """Return the objects of a frame that has several, without line ends between them; else an empty list.

    A server whose answer breaks in the middle of a frame may append the object of the error. Then only this counts.
    """
    if len(data) > MENDED_BYTES:
        return []
    objects: list[bytes] = []
    text, place = data.decode("utf-8", "replace"), 0
    decoder = json.JSONDecoder(parse_constant=lambda _: None)
    try:
        while place < len(text):
            if text[place].isspace():
                place += 1
                continue
            _, end = decoder.raw_decode(text, place)
            objects.append(text[place:end].encode())
            place = end
    except (ValueError, RecursionError):
        last = data.rpartition(b"\n")[2]
        return [last] if last != data and tells_error(json_of(last)) else []
    return objects if len(objects) > 1 else []


def _mark(half: re.Match[str]) -> str:
    number = ord(half[0]) - _FIRST_HALF
    return "".join(chr(_FIRST_MARK + (number >> shift & 31)) for shift in (10, 5, 0))


def _half(mark: re.Match[str]) -> str:
    high, middle, low = (ord(letter) - _FIRST_MARK for letter in mark[0])
    number = high << 10 | middle << 5 | low
    return chr(_FIRST_HALF + number) if number < 0x800 else _LOST


def _resolved(text: str) -> tuple[str, str]:
    """Return the text without marks, and the marked first half of a character at its end, if there is one."""
    held = ""
    if (last := re.search(f"{_MARK}\\Z", text)) and "\ud800" <= _half(last) <= "\udbff":
        text, held = text[:-3], last[0]
    halves = re.sub(_MARK, _half, text)
    return halves.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), held


def _plain(value: T) -> T:
    """Return the value with all marks in its texts removed."""
    if isinstance(value, str):
        text, held = _resolved(value)
        return cast("T", text + _LOST * bool(held))
    if isinstance(value, dict):
        return cast("T", {_plain(name): _plain(item) for name, item in cast("dict[Any, Any]", value).items()})
    if isinstance(value, (list, tuple)):
        items = [_plain(item) for item in cast("list[Any]", value)]
        return cast("T", tuple(items) if isinstance(value, tuple) else items)
    return value


class Halves:
    """Joins the halves of characters in the chunks of a stream whose frames `mended` has marked."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[tuple[type, int | None], str] = {}  # the held halves, by the type and index of the part

    def joined(self, chunk: Chunk | None) -> Chunk | None:
        """Return the chunk with whole characters. A half at the end of a text is held back until the text continues."""
        if chunk is None:
            return None
        parts: list[Part] = []
        for part in chunk.parts:
            parts += self._ended(type(part))
            parts.append(self._joined(part))
        if chunk.finish_reason:
            parts += self._ended(None)
        facts = {field: getattr(chunk, field) for field in ("usage", "finish_reason", "raw_finish_reason", "reset")}
        whole = Chunk(
            parts=parts,
            **facts,
            model=_plain(chunk.model),
            id=_plain(chunk.id),
            logprobs=_plain(chunk.logprobs),
            provider=chunk.provider,
        )
        return whole or None

    def rest(self) -> Chunk | None:
        """Return a replacement character for each half that is still held back."""
        return Chunk(parts=self._ended(None)) or None

    def _joined(self, part: Part) -> Part:
        name = "arguments" if isinstance(part, ToolCallPart) else "text"
        if not isinstance(part, (TextPart, ReasoningPart, RefusalPart, ToolCallPart)):
            return attrs.evolve(part, data=_plain(part.data)) if isinstance(part, RawPart) else part
        key = type(part), getattr(part, "index", None)
        text, held = _resolved(self._held.pop(key, "") + getattr(part, name))
        if held:
            self._held[key] = held
        fields: dict[str, Any] = {field.name: _plain(getattr(part, field.name)) for field in attrs.fields(type(part))}
        fields[name] = text
        return type(part)(**fields)

    def _ended(self, kind: type | None) -> list[Part]:
        """Return a replacement character for each held half of a text that ends before a part of this type."""
        ended = [key for key in self._held if key[0] is not kind]
        parts: list[Part] = []
        for key in ended:
            del self._held[key]
            part_type, index = key
            if part_type is ToolCallPart:
                parts.append(ToolCallPart(arguments=_LOST, index=index or 0))
            elif part_type is RefusalPart:
                parts.append(RefusalPart(_LOST))
            else:
                parts.append(ReasoningPart(_LOST, index=index) if part_type is ReasoningPart else TextPart(_LOST))
        return parts
