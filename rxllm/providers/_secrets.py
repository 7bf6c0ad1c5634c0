"""`Secrets` removes the secrets of a request from errors and log records, because some servers echo them."""

from __future__ import annotations

import base64
import contextvars
import logging
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

_SECRET = ("auth", "key", "token", "secret", "password", "cookie")  # words in the name of a secret header
_ORDINARY = {  # headers that are not secret, unless the user set them
    "accept", "accept-encoding", "accept-language", "anthropic-version", "connection", "content-length",
    "content-type", "host", "transfer-encoding", "user-agent",
}  # fmt: skip
_MIN_UNNAMED = 8  # the minimum length of a secret in a header whose name does not mark it as secret
_MAX_SENT = 16  # how many HTTP requests of one prompt are remembered; each subscription sends one

_sending: contextvars.ContextVar[Secrets | None] = contextvars.ContextVar("rxllm_sending", default=None)


class Secrets:
    """The secrets of one request to a model, which must not appear in errors or log records.

    The search for secrets starts only when an error or a log record needs it.

    Args:
        request: the request. Its fields `extra` and `tools` may contain keys for the server.
        headers: the headers, by their names in lower case. The name tells whether the value is secret.
        user_headers: the names of the headers that the user set. All their long values count as secrets.
        keeps_causes: whether errors keep exceptions of other libraries as causes, unless they show a secret.
    """

    def __init__(
        self,
        request: Request,
        headers: Mapping[str, str],
        user_headers: Iterable[str],
        *,
        keeps_causes: bool = False,
    ) -> None:
        self._keeps_causes = keeps_causes
        self._request = request
        self._headers = headers
        self._user_headers = user_headers
        self._sent: list[tuple[httpx.Request, httpx.AsyncClient | None]] = []

    def send(self, request: httpx.Request, client: httpx.AsyncClient | None) -> None:
        """Remember an HTTP request before it is sent: a user's client adds headers, cookies, a query and a login.

        Only a user's client writes log records.
        """
        self._sent.append((request, client))
        del self._sent[:-_MAX_SENT]
        if client is not None:
            _sending.set(self)

    def blanked(self, text: str) -> str:
        """Return the text with its secrets replaced."""
        return blanked(text, self._found())

    def clean(self, error: E) -> E:
        """Remove the secrets from the message, the attributes and the causes of an error, and return the error.

        The error keeps only the causes that are rxllm's errors or Python's own network errors. The exceptions of other
        libraries may contain requests, proxies with passwords, and unread bytes of the server. A MisuseError, and with
        `keeps_causes` every error, keeps all exceptions if none of them shows a secret.
        """
        if isinstance(error, (RxllmError, MisuseError)):
            self._clean(error, {*self._found()})
        return error

    def _clean(self, error: Exception, secrets: set[str]) -> None:
        error.args = tuple(blanked(str(argument), secrets) for argument in error.args)
        # CUT at the end marks a secret that was truncated there.
        if isinstance(error, ProviderError):
            error.body = blanked(error.body + CUT, secrets)[:-1]
            error.code = error.code and blanked(error.code, secrets)
        if isinstance(error, ProtocolError):
            error.frame = blanked(error.frame.decode("latin-1") + CUT, secrets)[:-1].encode("latin-1")
        causes = [*_causes(error)]
        if self._keeps_causes or isinstance(error, MisuseError):
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
            arguments = [blanked(each, secrets) if isinstance(each, str) else each for each in cause.args]
            return type(cause)(*(each for each in arguments if isinstance(each, (str, int))))
        return None

    def _found(self) -> Iterator[str]:
        own = {name.lower() for name in self._user_headers}
        yield from _in_headers(self._headers, own)
        yield from secrets_in(self._request.extra, keys=True)
        yield from secrets_in((self._request.tools, self._request.tool_choice))
        for proxy in getproxies().values():
            yield from _in_address(proxy)
        for request, client in self._sent:
            yield from _in_headers(request.headers, own)
            yield from _in_address(str(request.url))
            yield from _in_proxies(client)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen = {id(error)}
    cause = error.__cause__ or error.__context__
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _in_headers(headers: Mapping[str, str], user_headers: set[str]) -> Iterator[str]:
    for name, value in headers.items():
        named = any(word in name for word in _SECRET)
        if named or name in user_headers or name not in _ORDINARY:
            least = MIN_SECRET if named else _MIN_UNNAMED
            yield from (part for part in _parts(name, value) if len(part) >= least)


def _parts(name: str, value: str) -> Iterator[str]:
    """Yield the secret parts of a header: a key, a user name, a password, each cookie."""
    scheme, _, rest = value.partition(" ")
    has_scheme = scheme.lower() in ("basic", "bearer")
    if not has_scheme:
        yield value
    if has_scheme or "authorization" in name:  # other schemes occur in authorization headers only
        yield rest.strip()
    if scheme.lower() == "basic":
        with suppress(ValueError):
            yield from _login(*base64.b64decode(rest).decode().partition(":")[::2])
    if "cookie" in name:
        for cookie in value.split(";"):
            yield cookie.partition("=")[2].strip()


def _in_address(url: str) -> Iterator[str]:
    """Yield the login and the secret query values of a URL."""
    with suppress(ValueError):
        parts = urlsplit(url if "://" in url else f"//{url}")
        user, at, _ = parts.netloc.rpartition("@")
        if at:
            yield from _login(*map(unquote, user.partition(":")[::2]))
            yield base64.b64encode(unquote(user).encode()).decode()
        for name, value in parse_qsl(parts.query):
            least = MIN_SECRET if is_secret(name) else _MIN_UNNAMED
            if len(value) >= least and "version" not in name:
                yield value


def _in_proxies(client: Any) -> Iterator[str]:
    """Yield the logins of a client's proxies, which httpx stores in private attributes."""
    mounts: dict[Any, Any] = getattr(client, "_mounts", None) or {}
    for transport in (getattr(client, "_transport", None), *mounts.values()):
        pool = getattr(transport, "_pool", None)
        headers: list[tuple[bytes, bytes]] = getattr(pool, "_proxy_headers", None) or []
        for name, value in headers:
            yield from _in_headers({name.decode("latin-1").lower(): value.decode("latin-1")}, set())
        yield from _login(*(each.decode() for each in getattr(pool, "_proxy_auth", None) or (b"", b"")))


def _login(user: str, password: str) -> Iterator[str]:
    """Yield the password, and the user name if it is long, because a long user name may be a token."""
    if len(user) >= _MIN_UNNAMED:
        yield user
    if len(password) >= MIN_SECRET:
        yield password


class _WithoutSecrets(logging.Filter):
    """Replaces the secrets of the current request in log records.

    httpx logs URLs with their query. At the level DEBUG, httpcore logs responses, and hpack logs request headers.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        secrets = _sending.get()
        if secrets is not None:
            with suppress(Exception):  # the log handler reports a record that cannot be formatted
                message = record.getMessage()
                if (clean := secrets.blanked(message)) != message:
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
