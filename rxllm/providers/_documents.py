"""Helpers that read and write the JSON documents of all vendors. `error_documents` reads those of errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from ..errors import ProtocolError
from ..misuse import MisuseError
from ..values.plain import encodable
from ..values.refusing import about
from ..values.request import Request
from ..values.tools import unquoted
from ..wire.error_documents import excerpt, tells_error
from ..wire.sse import BYTE_ORDER_MARK, SSEDecoder, valid_utf8

__all__ = [
    "UNREADABLE",
    "arguments_of",
    "count",
    "error_in",
    "identity_of",
    "is_cut",
    "is_same_object",
    "json_of",
    "list_of",
    "merged",
    "object_of",
    "object_text",
    "refuse_several",
    "refused",
    "text_of",
    "token_of",
    "unreadable",
]

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""The exceptions of decoding, for invalid JSON, an unexpected structure, invalid UTF-8, or too deep nesting."""


def unreadable(what: str, error: Exception, frame: bytes, *, kind: str = "frame") -> ProtocolError:
    """Return the error for a frame that is not what the protocol says, as `error` tells."""
    return ProtocolError(
        f"The server sent a {kind} that is not {what}: {error}. It begins: {excerpt(frame)}", frame=frame
    )


def json_of(body: bytes) -> object:
    """Return the decoded body, or None if it is not JSON."""
    try:
        return msgspec.json.decode(valid_utf8(body.removeprefix(BYTE_ORDER_MARK)))
    except UNREADABLE:
        return None


def error_in(body: bytes) -> object:
    """Return the document of an error response, or None if there is none.

    Some servers that were asked for a stream send the error as an event, too.
    """
    document = json_of(body)
    if document is not None:
        return document
    return next(filter(tells_error, (json_of(data) for _, data in SSEDecoder().feed(body + b"\n\n"))), None)


def is_cut(body: bytes) -> bool:
    """Return whether the body is a truncated JSON object or array."""
    if not body.lstrip().startswith((b"{", b"[")):
        return False
    try:
        msgspec.json.decode(body, type=msgspec.Raw)  # validates the whole body without building objects
    except msgspec.DecodeError as error:
        # If the cut is in a number, msgspec reports the byte after the last one as wrong.
        return str(error).endswith(("truncated", f"(byte {len(body)})"))
    except RecursionError:
        pass
    return False


def is_same_object(one: str, other: str) -> bool:
    """Return whether two texts are the same JSON object. White space may differ, and either may be a JSON text."""
    first, second = (json_of(unquoted(text).encode("utf-8", "replace")) for text in (one, other))
    return isinstance(first, dict) and first == second


def object_of(value: object) -> dict[str, Any]:
    """Return the value if it is a JSON object, else an empty dict."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def list_of(value: object) -> list[object]:
    """Return the value if it is a JSON array, else an empty list."""
    return cast("list[object]", value) if isinstance(value, list) else []


def arguments_of(text: str) -> dict[str, Any]:
    """Return the arguments of a call as an object, for protocols that require an object.

    Invalid JSON becomes the field ``INVALID_JSON``, as Anthropic's documentation of fine-grained tool streaming says.
    """
    try:
        return msgspec.json.decode(unquoted(text) or "{}", type=dict[str, Any] | None) or {}
    except UNREADABLE:
        return {"INVALID_JSON": text}


def object_text(arguments: str) -> str:
    """Return the arguments of a call as JSON text that is an object, for protocols that send text; see `arguments_of`.

    The text of an object stays as it is.
    """
    try:
        msgspec.json.decode(arguments, type=dict[str, msgspec.Raw])
    except UNREADABLE:
        return msgspec.json.encode(arguments_of(arguments)).decode()
    return arguments


def text_of(value: object) -> str:
    """Return the value if it is text, else an empty text."""
    return value if isinstance(value, str) else ""


def token_of(value: object) -> str:
    """Return text unchanged, a number or a boolean as JSON text, else an empty text.

    Cloudflare sends the tokens of an answer that look like a number as numbers.
    """
    return msgspec.json.encode(value).decode() if isinstance(value, (bool, int, float)) else text_of(value)


def identity_of(value: object) -> str:
    """Return the value as an id: text unchanged, a number as text, else an empty text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return msgspec.json.encode(value).decode()
    return text_of(value)


def count(document: object, *path: str) -> int | None:
    """Return the number at this path of the document, or None if there is no valid count.

    Some gateways write numbers as text.
    """
    for name in path:
        document = cast("dict[str, object]", document).get(name) if isinstance(document, dict) else None
    if type(document) is int and document >= 0:  # as nearly always
        return document
    if isinstance(document, str) and document.isdecimal() and len(document) < 16:
        return int(document)
    if not isinstance(document, (int, float)) or isinstance(document, bool) or not 0 <= document < math.inf:
        return None
    return int(document)


def refuse_several(extra: Mapping[str, Any]) -> None:
    """Check that `extra` does not request several answers.

    Raises:
        MisuseError: `n` or `best_of` is greater than one.
    """
    for name in ("n", "best_of"):
        number = extra.get(name)
        if number not in (None, 1):
            raise MisuseError(
                f"{name}={number} requests several answers, but a stream has one. Call llm.batch([prompt] * {number})."
            )


def encoded(fields: Mapping[str, Any]) -> bytes:
    """Return the body of a request as JSON.

    Raises:
        MisuseError: JSON cannot express a value.
    """
    try:
        return msgspec.json.encode(fields, enc_hook=encodable)
    except (TypeError, ValueError, RecursionError) as error:
        raise unwritable(error) from None


def refused(error: Exception, request: Request) -> MisuseError:
    """Return the error for a request that the vendor's protocol cannot carry; `error` is what writing it raised."""
    return about(request, error if isinstance(error, MisuseError) else unwritable(error))


def unwritable(error: Exception) -> MisuseError:
    """Return the error for a request that JSON cannot express."""
    if isinstance(error, UnicodeEncodeError):
        return MisuseError(
            f"The request has half a character, {error.object[error.start]!r}, which no encoding can express. It comes "
            "from bytes that were decoded wrongly, or from a text that was cut within a character. "
            "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace') replaces it."
        )
    return MisuseError(f"The request cannot be written as JSON: {error}.")


def merged(body: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body with the extra fields. Nested objects are merged; for other values, the extra field wins.

    None removes a field.
    """
    whole = dict(body)
    for name, value in extra.items():
        existing = whole.get(name)
        if isinstance(existing, dict) and isinstance(value, Mapping):
            whole[name] = merged(cast("dict[str, Any]", existing), cast("Mapping[str, Any]", value))
        elif value is None:
            whole.pop(name, None)
        else:
            whole[name] = value
    return whole
