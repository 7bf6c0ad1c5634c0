"""Helpers that read the JSON documents of all vendors, and `provider_error`, which reads error documents."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from ..errors import ProviderError
from ..misuse import MisuseError
from ..wire.rates import retry_after
from ..wire.sse import BYTE_ORDER_MARK, valid_utf8
from ._secrets import CUT

__all__ = [
    "UNREADABLE",
    "arguments_of",
    "count",
    "excerpt",
    "identity_of",
    "is_cut",
    "json_of",
    "list_of",
    "merged",
    "object_of",
    "provider_error",
    "refuse_several",
    "tells_error",
    "text_of",
]

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""The exceptions of decoding, for invalid JSON, an unexpected structure, invalid UTF-8, or too deep nesting."""

_BODY_LIMIT = 64 * 1024
_MESSAGES = ("message", "detail", "msg", "error_message")
_EXCERPT = 200  # characters

# Words in an error's type or code, without case and punctuation, and the status that each stands for. The first match
# counts. Inside a stream the HTTP status is 200, so only the type and the code distinguish the errors.
_STATUS_OF = {
    "quota": 429,
    "ratelimit": 429,
    "toomanyrequests": 429,
    "throttl": 429,
    "overloaded": 529,
    "unavailable": 503,
    "authentication": 401,
    "unauthorized": 401,
    "apikey": 401,
    "permission": 403,
    "accessdenied": 403,
    "billing": 402,
    "notfound": 404,
    "toolarge": 413,
    "invalidrequest": 400,
    "badrequest": 400,
    "validation": 400,
    "contextlength": 400,
    "timeout": 504,
    "servererror": 500,
    "internalserver": 500,
    "apierror": 500,
}
# Errors of a spent quota, which a retry does not solve. These are texts, not compiled patterns, to keep imports cheap.
_SPENT = "insufficientquota|billing|spendlimit|spendinglimit"
_SPENT_BY_MESSAGE = "(?i:spend(ing)?[ _-]limit)"


def provider_error(
    document: object,
    body: bytes,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> ProviderError:
    """Return the error that a decoded `document` describes.

    Args:
        document: the decoded JSON of the body or frame; None if it is not JSON.
        body: the undecoded body or frame.
        status: the HTTP status. If it is None or a success, the words in the document decide.
        headers: the headers of the HTTP response.
    """
    error = _fields_of(document)
    names = [name for key in ("type", "code", "status") if isinstance(name := error.get(key), str) and name]
    plain = [re.sub("[^a-z]", "", name.lower()) for name in names]
    found = next((value for name in _MESSAGES if (value := error.get(name))), "")
    message = found if isinstance(found, str) else msgspec.json.encode(found).decode()
    lower = {name.lower(): value for name, value in (headers or {}).items()}
    if status is None or status < 300:
        status = _status_of(error, plain)
        message = message or "The provider reports an error: " + (excerpt(body) or "it gives no details.")
    else:
        message = f"{message or excerpt(body) or 'The provider gives no details'} (HTTP {status})"
    spent = any(re.search(_SPENT, name) for name in plain) or bool(re.search(_SPENT_BY_MESSAGE, message))
    advice = lower.get("x-should-retry", "").lower()
    passing = status is not None and (status in (408, 409, 429) or status >= 500)
    return ProviderError.class_for_status(status)(
        message,
        status=status,
        body=_shown(body),
        retry_after=retry_after(lower),
        code=next((name for key in ("code", "type") if isinstance(name := error.get(key), str) and name), None),
        retryable=not spent and (advice == "true" or (passing and advice != "false")),
    )


def _fields_of(document: object) -> dict[str, Any]:
    """Return the object with the message, type and code: ``{"error": {…}}``, ``{"error": "…"}``, or the document."""
    if isinstance(document, list):  # Gemini's compatible endpoint sends its errors in a list
        document = next(iter(cast("list[object]", document)), None)
    if isinstance(document, str):
        return {"message": document}
    fields = object_of(document)
    error = fields.get("error") or next(iter(list_of(fields.get("errors"))), None)
    if error and isinstance(error, str):
        return {"message": error, **fields}
    return object_of(error) or _refusal(fields) or fields


def json_of(body: bytes) -> object:
    """Return the decoded body, or None if it is not JSON."""
    try:
        return msgspec.json.decode(valid_utf8(body.removeprefix(BYTE_ORDER_MARK)))
    except UNREADABLE:
        return None


def tells_error(document: object) -> bool:
    """Return whether a document without content is an error, in a form that `provider_error` reads."""
    if list_of(document):
        return True
    fields = object_of(document)
    names = ("error", "message", "detail", "errors", "error_code", "error_message")
    return fields.get("object") == "error" or any(fields.get(name) for name in names) or bool(_refusal(fields))


def _refusal(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the error that MiniMax sends in ``base_resp``."""
    base = object_of(fields.get("base_resp"))
    return {"message": base.get("status_msg"), "code": str(base["status_code"])} if base.get("status_code") else {}


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
        return msgspec.json.decode(text or "{}", type=dict[str, Any])
    except UNREADABLE:
        return {"INVALID_JSON": text}


def text_of(value: object) -> str:
    """Return the value if it is text, else an empty text."""
    return value if isinstance(value, str) else ""


def identity_of(value: object) -> str:
    """Return the value as an id: text unchanged, a number as text, else an empty text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return msgspec.json.encode(value).decode()
    return text_of(value)


def count(document: object, *path: str) -> int | None:
    """Return the number at this path of the document, or None if there is no valid count."""
    for name in path:
        document = object_of(document).get(name)
    if not isinstance(document, (int, float)) or isinstance(document, bool) or not 0 <= document < math.inf:
        return None
    return int(document)


def _status_of(error: Mapping[str, Any], names: list[str]) -> int | None:
    for key in ("status_code", "code", "status"):
        number = error.get(key)
        if isinstance(number, str) and number.isdecimal() and len(number) == 3:
            number = int(number)
        if isinstance(number, int) and 400 <= number < 600:
            return number
    return next((status for word, status in _STATUS_OF.items() if any(word in name for name in names)), None)


def _shown(body: bytes) -> str:
    return body[:_BODY_LIMIT].decode("utf-8", "replace")


def excerpt(body: bytes) -> str:
    """Return the beginning of a body, short enough for an error message."""
    text = _shown(body).strip()
    return text if len(text) <= _EXCERPT else text[:_EXCERPT] + CUT


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
        return msgspec.json.encode(fields)
    except (TypeError, ValueError, RecursionError) as error:
        raise unwritable(error) from None


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
