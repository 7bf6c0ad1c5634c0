"""Requests as they come in: the caller's key, the JSON body, and a request that is refused without a model."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from ..errors import MisuseError, RxllmError
from ..misuse import is_mapping, shown
from ..surface import Surface
from .failures import HTTPFailure, Refused, failure_of, log

__all__ = [
    "Callers",
    "Endpoint",
    "ModelsOf",
    "Served",
    "failed",
    "guarded",
    "json_body",
    "model_named",
    "models_by_caller",
    "refusal",
]

_BODY_BYTES = 32 * 2**20
_BODY_SILENCE = 30.0  # seconds for which a body may make no progress

_KINDS = {401: "authentication_error"}

Endpoint = Callable[[HTTPRequest], Awaitable[Response]]
Served = Surface[Any, Any, Any]
ModelsOf = Callable[[str | None], Mapping[str, Served]]
"""Returns the models of a caller, by the caller's name; None if callers have no keys."""


def refusal(status: int, code: str, message: str) -> Refused:
    """Return the error for a request that is answered without a model."""
    return Refused(HTTPFailure(status, _KINDS.get(status, "invalid_request_error"), code, message))


def models_by_caller(function: str, models: Mapping[str, Served] | ModelsOf) -> ModelsOf:
    """Return the models of a server as a function of the caller. `function` names what the user called.

    Raises:
        MisuseError: there is no model, or a value is neither a model nor a pipeline.
    """
    if callable(models):
        return models
    served = dict(models)
    if not served:
        raise MisuseError(f"{function}() needs at least one model, as in {{'fast': rxllm.OpenAI('gpt-5-mini')}}.")
    for name, model in served.items():
        if not isinstance(model, Surface):  # pyright: ignore[reportUnnecessaryIsInstance]  (callers are untyped)
            raise MisuseError(f"{function}() serves models and pipelines, but {name!r} is {shown(model)}.")
    return lambda _: served


def model_named(name: object, models: Mapping[str, Served]) -> Served:
    """Return the model that a request names.

    Raises:
        Refused: there is no such model.
    """
    model = models.get(name) if isinstance(name, str) else None
    if model is None:
        served = ", ".join(sorted(models))
        raise refusal(404, "model_not_found", f"There is no model {shown(name)} here, only: {served}.")
    return model


class Callers:
    """The callers of a server, by their keys. Without keys every caller counts, and none has a name.

    Raises:
        MisuseError: a key is empty, or has characters that HTTP headers cannot carry.
    """

    def __init__(self, keys: Mapping[str, str] | None) -> None:
        self._keys: Mapping[str, bytes] | None = None
        if keys is None:
            return
        for name, key in keys.items():
            if not isinstance(key, str) or not key.strip():  # pyright: ignore[reportUnnecessaryIsInstance]
                raise MisuseError(
                    f"The key of the caller {name!r} is empty, so every program without a key would be this caller. "
                    "Set the key, or leave the caller out."
                )
            if not key.isascii() or not key.isprintable():
                raise MisuseError(
                    f"The key of the caller {name!r} has characters that clients cannot send in a header. "
                    "Use letters, digits and punctuation of ASCII."
                )
        self._keys = {name: key.encode() for name, key in keys.items()}

    def name_of(self, http: HTTPRequest) -> str | None:
        """Return the name of the caller; None if callers have no keys.

        Raises:
            Refused: the key is missing or wrong.
        """
        if self._keys is None:
            return None
        scheme, _, sent = http.headers.get("authorization", "").partition(" ")
        key = sent.strip().encode() if scheme.lower() == "bearer" else b""
        names = [name for name, known in self._keys.items() if hmac.compare_digest(key, known)]  # in constant time
        if not names:
            raise refusal(401, "invalid_api_key", "The API key is missing or wrong. Send 'Authorization: Bearer KEY'.")
        return names[0]


def failed(failure: HTTPFailure, refuse: Callable[[HTTPFailure], bytes]) -> Response:
    """Return the response of a failed request, with the JSON of `refuse`."""
    headers = {name.decode(): value.decode() for name, value in failure.headers()}
    return Response(refuse(failure), failure.status, headers, "application/json")


def guarded(endpoint: Endpoint, refuse: Callable[[HTTPFailure], bytes]) -> Endpoint:
    """Return an endpoint that answers a refused request with the JSON of `refuse`."""

    async def answer(request: HTTPRequest) -> Response:
        try:
            return await endpoint(request)
        except (Refused, MisuseError, RxllmError) as error:
            failure = failure_of(error)
            log(error, failure)
        except ClientDisconnect:
            return Response(status_code=499)
        return failed(failure, refuse)

    return answer


async def json_body(http: HTTPRequest) -> Mapping[str, Any]:
    """Return the JSON object of a request.

    Only JSON counts, since a form of a foreign web page cannot send it without asking the browser's user.

    Raises:
        Refused: the body is of another type, too large, too slow, or not a JSON object.
    """
    if http.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise refusal(415, "unsupported_media_type", "Send the request as application/json.")
    data = bytearray()
    try:
        async with asyncio.timeout(_BODY_SILENCE) as silence:
            async for piece in http.stream():
                data += piece
                if len(data) > _BODY_BYTES:
                    raise refusal(413, "request_too_large", f"The request is larger than {_BODY_BYTES >> 20} MiB.")
                silence.reschedule(asyncio.get_running_loop().time() + _BODY_SILENCE)
    except TimeoutError:
        sentence = f"The rest of the request did not come within {_BODY_SILENCE:g} s."
        raise refusal(408, "request_timeout", sentence) from None
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refusal(400, "invalid_json", f"The request is not valid JSON: {error}.") from None
    if not is_mapping(body):
        raise refusal(400, "invalid_json", "The request must be a JSON object.")
    return body
