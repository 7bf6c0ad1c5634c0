"""`provider_error`: the error that a provider's JSON document describes.

The tables serve each protocol of each vendor, and the exceptions of other libraries, which carry such documents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from ..errors import ProviderError
from ..misuse import is_mapping
from ..secrecy import CUT
from .rates import retry_after, wait_in

__all__ = ["excerpt", "provider_error", "stated_error", "tells_error"]

_BODY_LIMIT = 64 * 1024
_SUCCESS = (None, 0, 200, "", "0", "200")  # codes beside a `msg`
_EXCERPT = 200  # characters
_MESSAGES = ("message", "detail", "msg", "error_message")
_NAMES = ("type", "code", "status", "error_type")

# Words in an error's type or code, without case and punctuation, and the status that each stands for. The first match
# counts. Inside a stream the HTTP status is 200, so only the type and the code distinguish the errors.
_STATUS_OF = {
    "quota": 429,
    "ratelimit": 429,
    "toomanyrequests": 429,
    "throttl": 429,
    "resourceexhausted": 429,
    "overloaded": 529,
    "capacity": 529,
    "slowdown": 503,
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
    "deadline": 504,
    "upstream": 502,
    "servererror": 500,
    "internal": 500,
    "apierror": 500,
}
# Errors of a spent quota, which a retry does not solve. These are texts, not compiled patterns, to keep imports cheap.
_SPENT = "insufficientquota|currentquota|billing|spendlimit|spendinglimit"
# llama.cpp sends the status 500 for files that its model cannot read.
_REFUSED_BY_MESSAGE = "^(image|audio|video) input is not supported"
_SPENT_BY_MESSAGE = "(?i:spend(ing)?[ _-]limit|insufficient balance)"
# Z.ai sends the status 429 for a spent balance. https://docs.z.ai/api-reference/api-code
_SPENT_CODES = ("1113",)
# MiniMax sends the HTTP status 200 with these codes. https://platform.minimax.io/docs/api-reference/errorcode
_STATUS_OF_MINIMAX = {
    1000: 500,  # unknown error
    1001: 504,  # timeout
    1002: 429,  # rate limit
    1004: 401,  # API key
    1008: 402,  # balance
    1024: 500,  # internal error
    1026: 400,  # refused input
    1033: 500,  # error of a server behind it
}


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
    names = {key: name for key in _NAMES if isinstance(name := error.get(key), str) and name}
    plain = [re.sub("[^a-z]", "", name.lower()) for name in names.values()]
    found = next((value for name in _MESSAGES if (value := error.get(name))), "")
    message = found if isinstance(found, str) else msgspec.json.encode(found).decode()
    if cause := _cause_of(error):
        message = f"{message}: {cause}" if message else cause
    lower = {name.lower(): value for name, value in (headers or {}).items()}
    if status is None or status < 300:
        status = _status_of(error, plain)
        message = message or "The provider reports an error: " + (excerpt(body) or "it gives no details.")
    else:
        message = f"{message or excerpt(body) or 'The provider gives no details'} (HTTP {status})"
    spent = (
        any(re.search(_SPENT, name) for name in plain)
        or names.get("code") in _SPENT_CODES
        or bool(re.search(_SPENT_BY_MESSAGE, message))
    )
    waits = (retry_after(lower), _delay(error), wait_in(message))
    refused = bool(re.search(_REFUSED_BY_MESSAGE, message))
    advice = lower.get("x-should-retry", "").lower()
    passing = status is not None and (status in (408, 409, 429) or status >= 500)
    return ProviderError.class_for_status(400 if refused else status)(
        message,
        status=status,
        body=_shown(body),
        retry_after=next((wait for wait in waits if wait is not None), None),
        code=names.get("code") or names.get("type") or names.get("error_type"),
        retryable=not (spent or refused) and (advice == "true" or (passing and advice != "false")),
    )


def _fields_of(document: object) -> Mapping[str, Any]:
    """Return the object with the message, type and code: ``{"error": {…}}``, ``{"error": "…"}``, or the document."""
    if isinstance(document, list):  # Gemini's compatible endpoint sends its errors in a list
        document = next(iter(cast("list[object]", document)), None)
    if isinstance(document, str):
        return {"message": document}
    fields = _object(document)
    error = fields.get("error") or next(iter(_list(fields.get("errors"))), None)
    if error and isinstance(error, str):
        return {"message": error, **fields}
    return _object(error) or _refusal(fields) or fields


def _cause_of(error: Mapping[str, Any]) -> str:
    """Return the error of the server behind OpenRouter, whose own message is only "Provider returned error"."""
    raw = _object(error.get("metadata")).get("raw")
    if not raw:
        return ""
    try:
        document = msgspec.json.decode(raw) if isinstance(raw, str) else raw
    except (msgspec.DecodeError, RecursionError):
        document = raw
    fields = _fields_of(document)
    texts = [text for name in _MESSAGES if isinstance(text := fields.get(name), str)]
    return excerpt((next(iter(texts), "") or str(raw)).encode("utf-8", "replace"))


def tells_error(document: object) -> bool:
    """Return whether a document without content is an error, in a form that `provider_error` reads."""
    if _list(document):
        return True
    fields = _object(document)
    names = ("error", "message", "detail", "errors", "error_code", "error_message")
    told = any(stated_error(fields.get(name)) for name in names) or (
        fields.get("msg") and fields.get("code") not in _SUCCESS
    )
    return fields.get("object") == "error" or bool(told or _refusal(fields))


def stated_error(error: object) -> object:
    """Return the value of a field for errors; None if it states none.

    Some gateways send an object of empty values with each answer.
    Source: https://github.com/BerriAI/litellm/issues/18407
    """
    return error if error and (not is_mapping(error) or any(error.values())) else None


def _refusal(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the error that MiniMax sends in ``base_resp``."""
    base = _object(fields.get("base_resp"))
    code = base.get("status_code")
    status = _STATUS_OF_MINIMAX.get(code) if isinstance(code, int) else None
    return {"message": base.get("status_msg"), "code": str(code), "status": status} if code else {}


def _delay(error: Mapping[str, Any]) -> float | None:
    """Return the seconds until a retry, which Google states in a detail of the error.

    Source: ``RetryInfo`` of https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto
    """
    delays = [_object(detail).get("retryDelay") for detail in _list(error.get("details"))]
    texts = [delay.removesuffix("s") for delay in delays if isinstance(delay, str) and delay.endswith("s")]
    return retry_after({"retry-after": texts[0]}) if texts else None


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


def _object(value: object) -> Mapping[str, Any]:
    return value if is_mapping(value) else {}


def _list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []
