"""`raise_known`: the exception of another library as an error of rxllm, with the exception as its cause."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from ..secrecy import blanked
from ..values.request import Request
from ._failures import Reading, rxllm_error, shown_with

__all__ = ["raise_known"]


def raise_known(
    error: Exception,
    *,
    has_begun: bool,
    secrets: Sequence[str] = (),
    known: Exception | None = None,
    reading: Reading | None = None,
    request: Request | None = None,
    document: object = None,
) -> NoReturn:
    """Raise the error of rxllm for an exception of another library. An exception of another kind is raised as it is.

    The exception becomes the cause, unless a traceback of it would show a secret.

    Args:
        error: the exception.
        has_begun: whether a part of the answer has arrived.
        secrets: the secrets that no message may show.
        known: the error of rxllm, if the caller knows it; None for the one that `rxllm_error` finds.
        reading: where the library writes requests and reads responses. If `rxllm_error` finds nothing, it tells whether
            one of these failed.
        request: the request, which `reading` needs.
        document: the response, if the library keeps it.
    """
    known = known or rxllm_error(error, started=has_begun, secrets=secrets)
    if known is error and reading is not None and request is not None:
        known = reading.error_for(error, request, secrets, document) or error
    if known is error:
        raise error
    shown = "".join(f"{each} {each!r}" for each in shown_with(error))
    raise known from None if blanked(shown, secrets) != shown else error
