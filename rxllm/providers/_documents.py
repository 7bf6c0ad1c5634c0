"""What the JSON documents of all vendors have in common: how to read them, and the errors that they tell of."""

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
"""What decoding raises for what is no JSON, not of the shape asked for, no UTF-8, or nested too deeply."""

_BODY_LIMIT = 64 * 1024
_MESSAGES = ("message", "detail", "msg", "error_message")
_EXCERPT = 200  # characters

# What an error's type or code says, without case and punctuation, and the status it stands for; the first that is
# found counts. Inside a stream the HTTP status was 200, so that this is all there is to tell the errors apart.
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
# Waiting does not refill an account. (Texts, because most programs meet no error that has to be compared with them.)
_SPENT = "insufficientquota|billing|spendlimit|spendinglimit"
_SPENT_BY_MESSAGE = "(?i:spend(ing)?[ _-]limit)"


def provider_error(
    document: object,
    body: bytes,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> ProviderError:
    """The error that a decoded `document` tells of.

    Args:
        document: the decoded JSON of the body or frame; None if it was none.
        body: the same as it came.
        status: the HTTP status; without one, or with one of success, the document's own words decide.
        headers: of the HTTP answer.
    """
    error = _fields_of(document)
    names = [name for key in ("type", "code", "status") if isinstance(name := error.get(key), str) and name]
    plain = [re.sub("[^a-z]", "", name.lower()) for name in names]
    shown = next((told for name in _MESSAGES if (told := error.get(name))), "")
    message = shown if isinstance(shown, str) else msgspec.json.encode(shown).decode()
    told = {name.lower(): value for name, value in (headers or {}).items()}
    if status is None or status < 300:
        status = _status_of(error, plain)
        message = message or "The provider reports an error: " + (excerpt(body) or "it gives no details.")
    else:
        message = f"{message or excerpt(body) or 'No details were given'} (HTTP {status})"
    spent = any(re.search(_SPENT, name) for name in plain) or bool(re.search(_SPENT_BY_MESSAGE, message))
    advice = told.get("x-should-retry", "").lower()
    passing = status is not None and (status in (408, 409, 429) or status >= 500)
    return ProviderError.class_for_status(status)(
        message,
        status=status,
        body=_shown(body),
        retry_after=retry_after(told),
        code=next((name for key in ("code", "type") if isinstance(name := error.get(key), str) and name), None),
        retryable=not spent and (advice == "true" or (passing and advice != "false")),
    )


def _fields_of(document: object) -> dict[str, Any]:
    """The object with the error's message, type and code: ``{"error": {…}}``, ``{"error": "…"}``, or the whole."""
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
    """What the body says as JSON, None if it is none."""
    try:
        return msgspec.json.decode(valid_utf8(body.removeprefix(BYTE_ORDER_MARK)))
    except UNREADABLE:
        return None


def tells_error(document: object) -> bool:
    """Whether a frame or an answer without content is an error in one of the forms that are not ``{"error": …}``."""
    fields = object_of(document)
    told = ("message", "detail", "errors", "error_code", "error_message")
    return fields.get("object") == "error" or any(fields.get(name) for name in told) or bool(_refusal(fields))


def _refusal(fields: dict[str, Any]) -> dict[str, Any]:
    """What MiniMax says beside an answer that is none."""
    told = object_of(fields.get("base_resp"))
    return {"message": told.get("status_msg"), "code": str(told["status_code"])} if told.get("status_code") else {}


def is_cut(body: bytes) -> bool:
    """Whether it is the beginning of a JSON object or array."""
    if not body.lstrip().startswith((b"{", b"[")):
        return False
    try:
        msgspec.json.decode(body, type=msgspec.Raw)  # looks at all of it, and builds nothing
    except msgspec.DecodeError as error:
        # A number's end may be missed, too: then the first wrong byte is the one after the last.
        return str(error).endswith(("truncated", f"(byte {len(body)})"))
    except RecursionError:
        pass
    return False


def object_of(value: object) -> dict[str, Any]:
    """The value if it is a JSON object, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def list_of(value: object) -> list[object]:
    """The value if it is a JSON array, else an empty one."""
    return cast("list[object]", value) if isinstance(value, list) else []


def arguments_of(text: str) -> dict[str, Any]:
    """The arguments of a call as an object, for the protocols that want one.

    Text that is no JSON object goes under the name that Anthropic's documentation of fine-grained tool streaming
    gives it.
    """
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, Any])
    except UNREADABLE:
        return {"INVALID_JSON": text}


def text_of(value: object) -> str:
    """The value if it is text, else an empty one."""
    return value if isinstance(value, str) else ""


def identity_of(value: object) -> str:
    """The value as an id: text as it is, a number as text; else an empty one."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return msgspec.json.encode(value).decode()
    return text_of(value)


def count(document: object, *path: str) -> int | None:
    """The number at that place of the document, None if there is none, or one that counts nothing."""
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
    """As much of what came as fits a sentence."""
    text = _shown(body).strip()
    return text if len(text) <= _EXCERPT else text[:_EXCERPT] + CUT


def refuse_several(extra: Mapping[str, Any]) -> None:
    """Refuse body fields that ask for several answers.

    Raises:
        MisuseError: `n` or `best_of` is more than one.
    """
    for name in ("n", "best_of"):
        wanted = extra.get(name)
        if wanted not in (None, 1):
            raise MisuseError(
                f"{name}={wanted} asks for several answers, but a stream has one; call llm.batch([prompt] * {wanted})."
            )


def merged(body: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The body with the extra fields in it; objects within objects are united, and elsewhere the extra field wins."""
    whole = dict(body)
    for name, value in extra.items():
        known = whole.get(name)
        if isinstance(known, dict) and isinstance(value, Mapping):
            whole[name] = merged(cast("dict[str, Any]", known), cast("Mapping[str, Any]", value))
        else:
            whole[name] = value
    return whole
