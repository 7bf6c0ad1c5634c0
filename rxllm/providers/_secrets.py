"""What a request sends in secret is kept out of errors and of the log: some servers repeat it."""

from __future__ import annotations

import base64
import contextvars
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit
from urllib.request import getproxies

from ..errors import MisuseError, ProtocolError, ProviderError, RxllmError
from ..secrecy import CUT, MIN_SECRET, blanked, is_secret, secrets_in

if TYPE_CHECKING:
    import httpx

    from ..values.request import Request

__all__ = ["CUT", "Secrets"]

E = TypeVar("E", bound=Exception)

_SECRET = ("auth", "key", "token", "secret", "password", "cookie")  # in a header's name
_ORDINARY = {  # headers that hold no secret unless the user says so
    "accept", "accept-encoding", "accept-language", "anthropic-version", "connection", "content-length",
    "content-type", "host", "transfer-encoding", "user-agent",
}  # fmt: skip
_MIN_GIVEN = 8  # characters of a secret where the name does not tell; a shorter value is an ordinary word
_KEPT = 16  # requests whose secrets are remembered, for one that is subscribed to again and again

_sending: contextvars.ContextVar[Secrets | None] = contextvars.ContextVar("rxllm_sending", default=None)


class Secrets:
    """The secrets of one request to a model: what to blank in whatever a server says about it.

    Nothing is looked for until an error or a log record needs it.

    Args:
        request: its fields `extra` and `tools` may hold keys for the server.
        headers: by their names in lower case; the name tells whether the value is secret.
        given: the names of the headers that the user has given, whose long values all count as secrets.
    """

    def __init__(self, request: Request, headers: Mapping[str, str], given: Iterable[str]) -> None:
        self._request = request
        self._headers = headers
        self._given = {name.lower() for name in given}
        self._sent: deque[tuple[httpx.Request, httpx.AsyncClient]] = deque(maxlen=_KEPT)

    def send(self, request: httpx.Request, client: httpx.AsyncClient) -> None:
        """Notes what is about to be sent: a client of the user's own adds headers, cookies, a query and a login."""
        self._sent.append((request, client))
        _sending.set(self)

    def blanked(self, text: str) -> str:
        """The text without the secrets."""
        return blanked(text, self._found())

    def clean(self, error: E) -> E:
        """The error without the secrets, in its message, its facts and its causes.

        Of its causes only those stay that are rxllm's or Python's own errors of the network: other libraries put
        requests, proxies with their passwords and unread bytes of the server into theirs. A mistake in the calling
        program keeps that program's exceptions, if none of them shows a secret.
        """
        if isinstance(error, (RxllmError, MisuseError)):
            self._clean(error, {*self._found()})
        return error

    def _clean(self, error: Exception, secrets: set[str]) -> None:
        error.args = tuple(blanked(str(argument), secrets) for argument in error.args)
        # The end of these is where they were cut, or where the server was.
        if isinstance(error, ProviderError):
            error.body = blanked(error.body + CUT, secrets)[:-1]
            error.code = error.code and blanked(error.code, secrets)
        if isinstance(error, ProtocolError):
            error.frame = blanked(error.frame.decode("latin-1") + CUT, secrets)[:-1].encode("latin-1")
        causes = [*_causes(error)]
        if isinstance(error, MisuseError):
            shown = "".join(f"{each} {each!r} {vars(each)}" for each in causes)
            if blanked(shown, secrets) == shown:
                return
        error.__cause__ = next((cause for link in causes if (cause := self._kept(link, secrets))), None)
        error.__context__ = None

    def _kept(self, cause: BaseException, secrets: set[str]) -> BaseException | None:
        if isinstance(cause, RxllmError):
            self._clean(cause, secrets)
            return cause
        if isinstance(cause, OSError) and type(cause).__module__ in ("builtins", "socket", "ssl"):
            facts = [blanked(fact, secrets) if isinstance(fact, str) else fact for fact in cause.args]
            return type(cause)(*(fact for fact in facts if isinstance(fact, (str, int))))
        return None

    def _found(self) -> Iterator[str]:
        yield from _in_headers(self._headers, self._given)
        yield from secrets_in(self._request.extra, keys=True)
        yield from secrets_in((self._request.tools, self._request.tool_choice))
        for proxy in getproxies().values():
            yield from _in_address(proxy)
        for request, client in self._sent:
            yield from _in_headers(request.headers, self._given)
            yield from _in_address(str(request.url))
            yield from _in_proxies(client)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen = {id(error)}
    cause = error.__cause__ or error.__context__
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _in_headers(headers: Mapping[str, str], given: set[str]) -> Iterator[str]:
    for name, value in headers.items():
        named = any(word in name for word in _SECRET)
        if named or name in given or name not in _ORDINARY:
            least = MIN_SECRET if named else _MIN_GIVEN
            yield from (part for part in _parts(name, value) if len(part) >= least)


def _parts(name: str, value: str) -> Iterator[str]:
    """What must not be seen of a header: the key, the name and the password in it, each of its cookies."""
    scheme, _, rest = value.partition(" ")
    known = scheme.lower() in ("basic", "bearer")
    if not known:
        yield value
    if known or "authorization" in name:  # other schemes stand only there
        yield rest.strip()
    if scheme.lower() == "basic":
        with suppress(ValueError):
            yield from _login(*base64.b64decode(rest).decode().partition(":")[::2])
    if "cookie" in name:
        for cookie in value.split(";"):
            yield cookie.partition("=")[2].strip()


def _in_address(url: str) -> Iterator[str]:
    """The login and the query of an address."""
    with suppress(ValueError):
        parts = urlsplit(url if "://" in url else f"//{url}")
        user, at, _ = parts.netloc.rpartition("@")
        if at:
            yield from _login(*map(unquote, user.partition(":")[::2]))
            yield base64.b64encode(unquote(user).encode()).decode()
        for name, value in parse_qsl(parts.query):
            least = MIN_SECRET if is_secret(name) else _MIN_GIVEN
            if len(value) >= least and "version" not in name:
                yield value


def _in_proxies(client: Any) -> Iterator[str]:
    """The logins of a client's own proxies, which httpx keeps in private attributes."""
    mounts: dict[Any, Any] = getattr(client, "_mounts", None) or {}
    for transport in (getattr(client, "_transport", None), *mounts.values()):
        pool = getattr(transport, "_pool", None)
        headers: list[tuple[bytes, bytes]] = getattr(pool, "_proxy_headers", None) or []
        for name, value in headers:
            yield from _in_headers({name.decode("latin-1").lower(): value.decode("latin-1")}, set())
        yield from _login(*(each.decode() for each in getattr(pool, "_proxy_auth", None) or (b"", b"")))


def _login(user: str, password: str) -> Iterator[str]:
    """A short name is an ordinary word; a long one may be a token."""
    if len(user) >= _MIN_GIVEN:
        yield user
    if len(password) >= MIN_SECRET:
        yield password


class _WithoutSecrets(logging.Filter):
    """Blanks the secrets of the request that is being sent.

    httpx logs addresses with their query; at the level DEBUG httpcore logs what a server answers, and hpack the headers
    that are sent.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        secrets = _sending.get()
        if secrets is not None:
            with suppress(Exception):  # a record that cannot be formatted is reported by its handler
                said = record.getMessage()
                if (clean := secrets.blanked(said)) != said:
                    record.msg, record.args = clean, ()
        return True


def _watch_logs() -> None:
    without_secrets: Any = _WithoutSecrets()
    for name in (
        "httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy", "httpcore.socks",
        "hpack.hpack", "hpack.table",
    ):  # fmt: skip
        logging.getLogger(name).addFilter(without_secrets)


_watch_logs()
