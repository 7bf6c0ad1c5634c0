"""What we sent in secret is kept out of errors: some servers say the key back."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from ..errors import ProtocolError, ProviderError, RxllmError

__all__ = ["CUT", "Clean", "without_secrets"]

_SECRET = re.compile("auth|key|token|secret|password|cookie")  # in a header's name
MIN_SECRET = 4  # characters; a shorter key would blank out ordinary words
CUT = "…"  # what an excerpt ends with

Clean = Callable[[Exception], Exception]


def without_secrets(*sent: Mapping[str, str]) -> Clean:
    """A function that blanks what these headers hold in secret out of an error.

    Where no more than the beginning of what came is kept, the beginning of a secret at its end is blanked, too.
    """
    secrets = [secret for headers in sent for name, value in headers.items() for secret in _secrets(name, value)]

    def clean(error: Exception) -> Exception:
        for secret in secrets if isinstance(error, RxllmError) else ():
            error.args = tuple(_blanked(str(argument), secret) for argument in error.args)
            # The end of these is where they were cut, or where the server was.
            if isinstance(error, ProviderError):
                error.body = _blanked(error.body + CUT, secret)[:-1]
            if isinstance(error, ProtocolError):
                error.frame = _blanked(error.frame.decode("latin-1") + CUT, secret)[:-1].encode("latin-1")
        return error

    return clean


def _secrets(name: str, value: str) -> Iterator[str]:
    """What must not be seen of a header that is sent: the key, and the password in it."""
    if _SECRET.search(name):
        scheme, _, secret = value.rpartition(" ")
        if len(secret) >= MIN_SECRET:
            yield secret
        if scheme.lower() == "basic":
            with suppress(ValueError):
                password = base64.b64decode(secret).decode().partition(":")[2]
                if len(password) >= MIN_SECRET:
                    yield password


def _blanked(text: str, secret: str) -> str:
    """The text without the secret, and without the beginning of it before a cut."""
    text = text.replace(secret, "***")
    if secret[:MIN_SECRET] in text:
        for size in range(len(secret) - 1, MIN_SECRET - 1, -1):
            text = text.replace(secret[:size] + CUT, "***" + CUT)
    return text
