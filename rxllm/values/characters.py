"""`whole`: values without halves of characters; `json_bytes` and `json_of`, which encode any value without them.

Python decodes bytes of an unknown encoding to surrogates, as in a file name that `os.listdir` returns. A surrogate is
half of a character, and no encoding can express it.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast, get_args

import attrs
import msgspec

from .parts import Part
from .plain import encodable

__all__ = ["json_bytes", "json_of", "whole"]

T = TypeVar("T")

_encode = msgspec.json.Encoder(enc_hook=encodable).encode

# The path of a file must stay as it is, to be read.
_FIELDS = {kind: [field.name for field in attrs.fields(kind) if field.name != "path"] for kind in get_args(Part)}


def whole(value: T) -> T:
    """Return a text with U+FFFD for each half of a character; also of a part, or of a dict, list or tuple with texts.

    A value without such halves is returned as it is.
    """
    item: Any = value
    if isinstance(item, str):
        return cast("T", _whole_text(item))
    if (names := _FIELDS.get(type(item))) is not None:
        fields = ((name, getattr(item, name)) for name in names)
        changes = {name: new for name, old in fields if old and (new := whole(old)) is not old}
        return attrs.evolve(item, **changes) if changes else value
    changed: Any
    if isinstance(item, tuple):
        changed = tuple(map(whole, cast("tuple[object, ...]", item)))
    elif isinstance(item, list):
        changed = [*map(whole, cast("list[object]", item))]
    elif isinstance(item, dict):
        changed = {whole(key): whole(each) for key, each in cast("dict[object, object]", item).items()}
    else:
        return value
    return value if changed == item else changed


def json_bytes(value: object) -> bytes:
    """Return a value as JSON, with U+FFFD for each half of a character.

    Raises:
        TypeError: JSON has no such value.
    """
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(whole(msgspec.to_builtins(value, str_keys=True, enc_hook=encodable)))


def json_of(value: object) -> str:
    """Return a value as JSON text, with U+FFFD for each half of a character. The error is that of `json_bytes`."""
    return json_bytes(value).decode()


def _whole_text(text: str) -> str:
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
