"""`refusing`: marks the errors of a model that cannot carry a request."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from ..misuse import MisuseError
from .request import Request

__all__ = ["about", "refusing"]


@contextlib.contextmanager
def refusing(request: Request) -> Generator[None]:
    """Raise each `MisuseError` of the block as one about the request. The block reads nothing but the request.

    A server sends the sentence of such an error to the client that sent the request. Every other `MisuseError` is a
    mistake of the program that serves, and its words are not for clients.

    Raises:
        MisuseError: the block raised it.
    """
    try:
        yield
    except MisuseError as error:
        raise about(request, error)  # noqa: B904  (the same error)


def about(request: Request, error: MisuseError) -> MisuseError:
    """Return the error with its `request`, unless a model within this one has set that."""
    if error.request is None:
        with contextlib.suppress(RecursionError):  # what is nested too deep cannot be searched for secrets
            error.request = request.without_secrets()
    return error
