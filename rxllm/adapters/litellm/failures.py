"""`litellm_error`: an error of rxllm as the exception that LiteLLM raises for it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

import httpx

from ...errors import ProviderError, RxllmError, Timeout, TransportError
from ...misuse import MisuseError

__all__ = ["litellm_error"]

_CLASSES: Mapping[int, str] = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
    500: "InternalServerError",
    502: "BadGatewayError",
    503: "ServiceUnavailableError",
    529: "ServiceUnavailableError",
}


def litellm_error(error: Exception, provider: str, model: str) -> Exception:
    """Return the exception of LiteLLM for an error, with the error as its cause; any other exception itself.

    LiteLLM's router decides by the class whether to wait, to retry or to take another model.

    Args:
        error: the error.
        provider: the name under which the model is registered.
        model: the name of the model.
    """
    exceptions = import_module("litellm.exceptions")
    told = {"message": str(error), "llm_provider": provider, "model": model}
    found: Any
    match error:
        case ProviderError(code=str(code)) if "context_length" in code:
            found = exceptions.ContextWindowExceededError(**told)
        case ProviderError(status=int(status)) if status in _CLASSES:
            found = getattr(exceptions, _CLASSES[status])(**told, response=_response(error, status))
        case ProviderError():
            found = exceptions.APIError(error.status or 500, **told)
        case Timeout():
            found = exceptions.Timeout(**told)
        case TransportError():
            found = exceptions.APIConnectionError(**told)
        case MisuseError():
            found = exceptions.BadRequestError(**told)
        case RxllmError():
            found = exceptions.APIError(500, **told)
        case _:
            return error
    found.__cause__ = error
    return cast("Exception", found)


def _response(error: ProviderError, status: int) -> httpx.Response:
    """Return a response, from which LiteLLM takes the time to wait."""
    headers = {} if error.retry_after is None else {"retry-after": f"{error.retry_after:g}"}
    return httpx.Response(status, headers=headers, text=error.body, request=httpx.Request("POST", "http://rxllm"))
