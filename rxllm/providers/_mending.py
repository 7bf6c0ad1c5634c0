"""Frames that are almost JSON: `mended` makes them JSON, `Halves` joins the characters that a server has cut in two.

Python's encoder writes NaN and Infinity, which become null. JavaScript's encoder writes half of a character (a lone
surrogate) where a server cuts a text in the middle of one. The other half may begin the next frame, so `mended` marks
each half with three noncharacters of Unicode, which no text has, and `Halves` looks for the marks in the chunks.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar, cast

import attrs

from ..bounds import MENDED_BYTES
from ..values.chunk import Chunk
from ..values.parts import Part, RawPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from ._documents import json_of

__all__ = ["Halves", "mended"]

T = TypeVar("T")

_HALF = "[\ud800-\udfff]"
_MARK = "[\ufdd0-\ufdef]{3}"
_FIRST_MARK, _FIRST_HALF = 0xFDD0, 0xD800
_LOST = "\ufffd"


def mended(body: bytes, *, marked: bool = False) -> bytes | None:
    """The document as JSON has it, where a server's encoder writes what JSON has not; None if that is not so.

    Args:
        body: the document.
        marked: whether halves of characters are marked for `Halves`; else each becomes U+FFFD.
    """
    if len(body) > MENDED_BYTES or json_of(body) is not None:
        return None
    try:
        document = json.loads(body, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    text = json.dumps(document, ensure_ascii=False)
    return re.sub(_HALF, _mark if marked else _LOST, text).encode()


def _mark(half: re.Match[str]) -> str:
    number = ord(half[0]) - _FIRST_HALF
    return "".join(chr(_FIRST_MARK + (number >> shift & 31)) for shift in (10, 5, 0))


def _half(mark: re.Match[str]) -> str:
    high, middle, low = (ord(letter) - _FIRST_MARK for letter in mark[0])
    number = high << 10 | middle << 5 | low
    return chr(_FIRST_HALF + number) if number < 0x800 else _LOST


def _resolved(text: str) -> tuple[str, str]:
    """The text without marks, and the first half of a character that it ends with, still marked."""
    held = ""
    if (last := re.search(f"{_MARK}\\Z", text)) and "\ud800" <= _half(last) <= "\udbff":
        text, held = text[:-3], last[0]
    halves = re.sub(_MARK, _half, text)
    return halves.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), held


def _plain(value: T) -> T:
    """The same value; in the texts within it there are no marks."""
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
    """The chunks of a stream whose frames were marked, with whole characters."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[tuple[type, int | None], str] = {}  # by the kind and the index of the part

    def joined(self, chunk: Chunk | None) -> Chunk | None:
        """What the chunk says; the half that a text ends with is held back until that text goes on, or ends."""
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
        """The halves that nothing followed."""
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
        """For each text that ends because another kind of part comes, or none: what stands for its lost half."""
        ended = [key for key in self._held if key[0] is not kind]
        parts: list[Part] = []
        for key in ended:
            del self._held[key]
            made, index = key
            if made is ToolCallPart:
                parts.append(ToolCallPart(arguments=_LOST, index=index or 0))
            elif made is RefusalPart:
                parts.append(RefusalPart(_LOST))
            else:
                parts.append(ReasoningPart(_LOST, index=index) if made is ReasoningPart else TextPart(_LOST))
        return parts
