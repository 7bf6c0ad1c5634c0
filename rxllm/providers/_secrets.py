"""What we sent in secret is kept out of errors: some servers say the key back."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress

from ..errors import ProtocolError, ProviderError, RxllmError

__all__ = ["CUT", "Clean", "without_secrets"]

_SECRET = ("auth", "key", "token", "secret", "password", "cookie")  # in a header's name
MIN_SECRET = 4  # characters; a shorter key would blank out ordinary words
MIN_GIVEN = 8  # the same where only the user knows whether it is a secret
CUT = "…"  # what an excerpt ends with

Clean = Callable[[Exception], Exception]


def without_secrets(*sent: Mapping[str, str], given: Iterable[str] = ()) -> Clean:
    """A function that blanks what these headers hold in secret out of an error.

    Where no more than the beginning of what came is kept, the beginning of a secret at its end is blanked, too.

    Args:
        sent: headers by their names in lower case; the name tells whether there is a secret.
        given: the names of those that the user has given, whose long values are all taken for secrets.
    """
    given = [name.lower() for name in given]

    def secrets() -> list[str]:
        found = {
            form
            for headers in sent
            for name, value in headers.items()
            for secret in _secrets(name, value, MIN_GIVEN if name in given else math.inf)
            for form in _forms(secret)
        }
        return sorted(found, key=len, reverse=True)  # one may be a part of another

    def clean(error: Exception) -> Exception:
        for secret in secrets() if isinstance(error, RxllmError) else ():
            error.args = tuple(_blanked(str(argument), secret) for argument in error.args)
            # The end of these is where they were cut, or where the server was.
            if isinstance(error, ProviderError):
                error.body = _blanked(error.body + CUT, secret)[:-1]
                error.code = error.code and _blanked(error.code, secret)
            if isinstance(error, ProtocolError):
                error.frame = _blanked(error.frame.decode("latin-1") + CUT, secret)[:-1].encode("latin-1")
        return error

    return clean


def _secrets(name: str, value: str, least: float) -> Iterator[str]:
    """What must not be seen of a header that is sent: the key, the password in it, each of its cookies."""
    if any(word in name for word in _SECRET):
        least = MIN_SECRET
    return (secret for secret in _parts(name, value) if len(secret) >= least)


def _parts(name: str, value: str) -> Iterator[str]:
    scheme, _, rest = value.partition(" ")
    known = scheme.lower() in ("basic", "bearer")
    if not known:
        yield value
    if known or "authorization" in name:  # other schemes are said there only
        yield rest.strip()
    if scheme.lower() == "basic":
        with suppress(ValueError):
            yield base64.b64decode(rest).decode().partition(":")[2]
    if "cookie" in name:
        for cookie in value.split(";"):
            yield cookie.partition("=")[2].strip()


def _forms(secret: str) -> Iterator[str]:
    """The secret as it is, and as JSON may have it."""
    written = json.dumps(secret)[1:-1]
    yield from (secret, written, written.replace("/", "\\/"))


def _blanked(text: str, secret: str) -> str:
    """The text without the secret, and without the beginning of it before a cut."""
    text = text.replace(secret, "***")
    if secret[:MIN_SECRET] in text:
        for size in range(len(secret) - 1, MIN_SECRET - 1, -1):
            text = text.replace(secret[:size] + CUT, "***" + CUT)
    return text
