"""Finds keys, passwords and tokens in values, and in texts that repeat them.

Servers and proxies repeat what a request sent: literally, in JSON, percent-encoded, in HTML, as the repr of bytes, in
base64 or in hexadecimal digits. `blanked` finds a secret in each of these forms, and in mixtures of them.

`with_secrets` is the one place that lets a pickle keep them.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import accumulate
from typing import Any, TypeVar, cast

__all__ = ["CUT", "MIN_SECRET", "blanked", "hidden", "is_secret", "keeps_secrets", "secrets_in", "with_secrets"]

T = TypeVar("T")

MIN_SECRET = 4  # characters; a shorter secret would match ordinary words
CUT = "…"  # the end of an excerpt
BLANK = "***"

_CUTS = 4  # the last cuts of a text; a server may send any number of this character
_MIN_ENCODED = 8  # characters of a base64 or hexadecimal form
_WORDS = {
    "apikey", "auth", "authorization", "bearer", "cookie", "credential", "credentials", "jwt", "key", "passphrase",
    "passwd", "password", "pat", "secret", "signature", "token",
}  # fmt: skip
_WORD = re.compile("[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_KEY = re.compile(r"(?=\D*\d)(?=[^a-zA-Z]*[a-zA-Z])\S{16,}")


_keeps_secrets: ContextVar[bool] = ContextVar("rxllm_keeps_secrets", default=False)


@contextmanager
def with_secrets() -> Generator[None]:
    """Let the pickles of models keep their secrets within the block.

    It is for a process that this one has started, and gets them through a socket of its own.
    """
    token = _keeps_secrets.set(True)
    try:
        yield
    finally:
        _keeps_secrets.reset(token)


def keeps_secrets() -> bool:
    """Return whether this code runs within `with_secrets`."""
    return _keeps_secrets.get()


def is_secret(name: str) -> bool:
    """Whether a field of this name holds a secret: ``api_key``, ``accessToken``, but not ``max_tokens``."""
    return any(word.lower() in _WORDS for word in _WORD.findall(name))


def hidden(value: T, *, keys: bool = False) -> T:
    """Return a JSON-like value with ``***`` for each secret, or the value itself if it contains none.

    Args:
        value: the value; a secret is a text in a field whose name `is_secret`, a value of a URL's query under such a
            name, or the password of a URL.
        keys: whether a text that looks like a key is a secret under any name: 16 characters or more, with letters and
            digits, without white space.
    """
    return cast("T", _hidden(value, keys=keys, named=False))


def secrets_in(value: object, *, keys: bool = False, named: bool = False) -> Iterator[str]:
    """Yield the texts that `hidden` replaces."""
    if isinstance(value, str):
        if _is_hidden(value, keys=keys, named=named):
            yield value
        elif "://" in value:
            yield from _in_url(value)
    elif isinstance(value, Mapping):
        for name, item in cast("dict[Any, Any]", value).items():
            yield from secrets_in(item, keys=keys or name == "headers", named=is_secret(str(name)))
    elif isinstance(value, (list, tuple)):
        for item in cast("list[Any]", value):
            yield from secrets_in(item, keys=keys, named=named)


def _in_url(text: str) -> Iterator[str]:
    from urllib.parse import parse_qsl, unquote, urlsplit  # imported here, because few requests contain a URL

    try:
        parts = urlsplit(text)
    except ValueError:  # it only looks like a URL
        return
    named = {name: value for name, value in parse_qsl(parts.query) if is_secret(name)}
    named["password"] = unquote(parts.netloc.rpartition("@")[0].partition(":")[2])
    yield from (value for value in named.values() if len(value) >= MIN_SECRET)


def _is_hidden(text: str, *, keys: bool, named: bool) -> bool:
    return (named and len(text) >= MIN_SECRET) or (keys and bool(_KEY.fullmatch(text)))


def _hidden(value: Any, *, keys: bool, named: bool) -> Any:
    if next(secrets_in(value, keys=keys, named=named), None) is None:
        return value
    if isinstance(value, str):
        return BLANK if _is_hidden(value, keys=keys, named=named) else blanked(value, _in_url(value))
    if isinstance(value, Mapping):
        return {
            name: _hidden(item, keys=keys or name == "headers", named=is_secret(str(name)))
            for name, item in cast("dict[Any, Any]", value).items()
        }
    return type(value)(_hidden(item, keys=keys, named=named) for item in value)


def blanked(text: str, secrets: Iterable[str]) -> str:
    """Return the text with ``***`` for each secret in any form, and for the beginning of a secret before a cut."""
    secrets = {*secrets}
    plain, offsets = _read(text)
    spans = {
        # Search the text as it stands, too: a part of the secret itself may look like an escape.
        *(span for secret in secrets for form in _literal_forms(secret) for span in _spans(form, text)),
        *(
            (offsets[start], offsets[stop])
            for secret in secrets
            for form in _decoded_forms(secret)
            for start, stop in _spans(form, plain)
        ),
    }
    pieces: list[str] = []
    end = 0
    for start, stop in sorted(spans):
        if start >= end:
            pieces += [text[end:start], BLANK]
        end = max(end, stop)
    return "".join([*pieces, text[end:]]) if spans else text


def _literal_forms(secret: str) -> Iterator[str]:
    """Yield the secret literally and as JSON may write it."""
    import json

    quoted = json.dumps(secret)[1:-1]
    yield from (secret, quoted, quoted.replace("/", "\\/"))


def _decoded_forms(secret: str) -> Iterator[str]:
    """Yield the forms of a secret in a text without escapes: `_read` of its encodings, base64 and hexadecimal."""
    data = secret.encode("utf-8", "surrogatepass")
    units = secret.encode("utf-16-le", "surrogatepass")
    for spelling in (
        secret,
        secret.replace(" ", "+"),
        data.decode("latin-1"),
        "".join(chr(units[i] | units[i + 1] << 8) for i in range(0, len(units), 2)),
    ):
        yield _read(spelling)[0]
    for shift in range(3):  # the offset of the secret in the encoded data, modulo 3
        encoded = base64.b64encode(bytes(shift) + data).decode().rstrip("=")
        encoded = encoded[(0, 2, 3)[shift] : -1 if (shift + len(data)) % 3 else None]
        if len(encoded) >= _MIN_ENCODED:
            yield from (encoded, encoded.translate({43: 45, 47: 95}))
    if len(data) * 2 >= _MIN_ENCODED:
        yield from (data.hex(), data.hex().upper())


_ENCODED = re.compile(
    r"%(?:25)*(?P<percent>[0-9a-fA-F]{2})"
    r"|\\+(?:u(?P<unit>[0-9a-fA-F]{4})|x(?P<byte>[0-9a-fA-F]{2})|(?P<itself>[\"'/]))?"
    r"|&(?:amp;)*(?:\#0*(?P<decimal>[0-9]{1,3})|\#[xX]0*(?P<hexadecimal>[0-9a-fA-F]{1,2})|(?P<name>amp|lt|gt|quot|apos));"
)
_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}


def _read(text: str) -> tuple[str, list[int]]:
    """Return the text with its escapes decoded, and the offset in `text` of each character and of the end."""
    pieces: list[str] = []
    sizes: list[int] = []
    end = 0
    for match in _ENCODED.finditer(text):
        plain = text[end : match.start()]
        pieces += [plain, _character(match)]
        sizes += [1] * len(plain) + [len(match[0])]
        end = match.end()
    pieces.append(text[end:])
    sizes += [1] * (len(text) - end)
    return "".join(pieces), [0, *accumulate(sizes)]


def _character(match: re.Match[str]) -> str:
    kind, value = match.lastgroup, match[match.lastgroup or 0]
    if kind == "name":
        return _NAMED[value]
    if kind == "decimal":
        return chr(int(value))
    if kind == "itself":
        return value
    return chr(int(value, 16)) if kind else "\\"


def _spans(needle: str, text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of the needle in the text, and of its beginning before a cut."""
    place = text.find(needle)
    while place >= 0:
        yield place, place + len(needle)
        place = text.find(needle, place + len(needle))
    place = len(text)
    for _ in range(_CUTS):
        place = text.rfind(CUT, 0, place)
        if place < 0:
            return
        for size in range(min(len(needle) - 1, place), MIN_SECRET - 1, -1):
            if text.startswith(needle[:size], place - size):
                yield place - size, place
                break
