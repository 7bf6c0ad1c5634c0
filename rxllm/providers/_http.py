"""`HTTPProvider`: the base of all providers over HTTP. A vendor's file adds the request body and the decoder."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, Unpack, cast
from urllib.parse import urlsplit

import attrs
import msgspec
import reactivex as rx
from attrs import field, frozen
from attrs.validators import optional
from reactivex import Observable, abc
from reactivex import operators as ops

from ..bridges import astream, stream
from ..errors import BadRequest, ProviderError, Timeout
from ..events import Service
from ..llm import LLM, Fields
from ..misuse import MisuseError
from ..operators.attempts import RETRIED_ABOVE, retried
from ..operators.backoff import is_retryable
from ..runtime.scheduler import scheduler_for
from ..runtime.source import Source, connect
from ..secrecy import is_secret
from ..values.chunk import Chunk
from ..values.parameters import Settings, number
from ..values.request import Prompt, Request
from ..wire.http import Signing, Timeouts, address, post, timeouts_of
from ..wire.sse import DEFAULT_LIMIT, SSEDecoder
from ._arguments import (
    check_base,
    check_client,
    check_extra,
    check_given_headers,
    check_key,
    check_model,
    without_credentials,
)
from ._documents import names_of_models
from ._pickling import check_key_again, pickled
from ._reader import Again, Decoder, Frames, Reader, Rest
from ._secrets import Secrets

if TYPE_CHECKING:
    from ..wire.clients import Client
    from .preview import Preview

__all__ = ["Decoder", "Frames", "HTTPProvider"]

T = TypeVar("T")


class HTTPFields(Fields, total=False):
    """The keywords that all HTTP providers add to those of an LLM."""

    event_limit: int
    max_retries: int


@frozen(init=False)
class HTTPProvider(LLM):
    """A model behind an HTTP API.

    Attributes:
        model: the name of the model.
        api_key: the key; None reads the vendor's environment variable.
        base_url: the base URL; None reads the vendor's environment variable, else it is the vendor's own URL.
        client: an `httpx.AsyncClient`, which works on the first event loop that uses it; or a function that returns a
            client. rxllm calls the function once for each event loop, and closes the client with the loop or when the
            function is garbage-collected. Models with the same function share a client. None shares one fast client
            for each loop.
        headers: further headers. They win over the provider's own headers.
        timeout: `Timeouts`. One number limits every wait; None disables all limits.
        event_limit: the maximum size of one event of a stream in bytes; 8 MiB by default. A larger value also raises
            the limit of an answer that is not streamed. See the page on bounds.
        max_retries: how often to retry a transient failure before the first chunk, as `retry` does. A `Timeout` is not
            retried. Inside `retry`, and for all but the last model of `fallback` and `hedge`, the provider does not
            retry, because the combinator does.
    """

    _shared_by_copies: ClassVar[tuple[str, ...]] = (*LLM._shared_by_copies, "client")
    # The fields that the provider adds to the body on its own. It retries without those that a server rejects by name.
    _UNASKED: ClassVar[tuple[str, ...]] = ()
    # What the list of providers tells: the environment variables of the key, and what a request may have.
    _KEYS: ClassVar[tuple[str, ...]] = ()
    _OFFERS: ClassVar[frozenset[str]] = frozenset()

    model: str = field(validator=check_model)
    api_key: str | None = field(default=None, kw_only=True, repr=False, validator=optional(check_key))
    base_url: str | None = field(default=None, kw_only=True, repr=without_credentials, validator=optional(check_base))
    client: Client | None = field(default=None, kw_only=True, repr=False, validator=optional(check_client))
    headers: Mapping[str, str] | None = field(
        default=None, kw_only=True, repr=False, validator=optional(check_given_headers), hash=False
    )
    timeout: Timeouts = field(default=Timeouts(), converter=timeouts_of, kw_only=True)
    event_limit: int = field(default=DEFAULT_LIMIT, kw_only=True, validator=number(1, whole=True))
    max_retries: int = field(default=2, kw_only=True, validator=number(0, whole=True))

    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        client: Client | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Timeouts | float | None = Timeouts(),
        **settings: Unpack[HTTPFields],
    ) -> None:
        self._settle(
            model=model,
            api_key=api_key,
            base_url=base_url,
            client=client,
            headers=headers,
            timeout=timeout,
            **settings,
        )

    def __getstate__(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """Return the state without the `api_key`. The unpickled model reads the environment variable."""
        state: Any = object.__getstate__(self)
        parts = cast("tuple[Any, Any]", state if isinstance(state, tuple) else (None, state))
        return parts[0], pickled(type(self).__name__, parts[1])

    def _url(self, request: Request) -> str:
        raise NotImplementedError

    def _headers(self, request: Request) -> dict[str, str]:
        raise NotImplementedError

    def _body(self, request: Request) -> dict[str, Any]:
        raise NotImplementedError

    def _decoder(self, request: Request) -> Decoder:
        raise NotImplementedError

    def _frames(self, request: Request) -> Frames:
        """Return the framing of the stream: server-sent events, unless a provider overrides this method."""
        return SSEDecoder(limit=self.event_limit)

    def _signing(self, request: Request) -> Signing | None:
        """Return the function that signs a request before it is sent; None if a header carries the key."""
        return None

    def _whole(self, body: bytes, request: Request) -> Chunk:
        raise NotImplementedError

    def _error(self, status: int, body: bytes, headers: Mapping[str, str]) -> ProviderError:
        raise NotImplementedError

    def _resumed(self, decoder: Decoder) -> str | None:
        """Return the URL of the rest of an answer after the connection broke; None if the server does not keep it."""
        return None

    def identity(self) -> str:
        """Return a digest of the model, the URL, the key and all other headers.

        Raises:
            MisuseError: a `client`, or a function that returns the key, may change the sender of the request.
        """
        changing = "client" if self.client is not None else "api_key" if callable(self.api_key) else None
        if changing:
            raise MisuseError(
                f"cached() cannot derive a stable key for this {type(self).__name__}, because its {changing}= may "
                "change the sender and the server. Pass cached(…, name='…'); models with the same name in the same "
                "store share their answers."
            )
        request = Request.ask("", self.parameters)
        try:
            own = self._headers(request)
        except MisuseError:  # the key is missing; the request raises for it
            own = {}
        headers = {**own, **{name.lower(): value for name, value in (self.headers or {}).items()}}
        return self._digest({**dict.fromkeys(_HOW), "base_url": self._url(request), "headers": headers})

    def service(self, request: Request) -> Service:
        """Return the description of the service, with its address and port."""
        try:
            place = urlsplit(self._url(request))
            port = place.port or {"https": 443, "http": 80}.get(place.scheme)
        except (ValueError, MisuseError):  # `chunks` raises MisuseError for the URL
            return super().service(request)
        return attrs.evolve(super().service(request), address=place.hostname, port=port)

    def _written(self, request: Request) -> tuple[str, dict[str, str], dict[str, Any]]:
        """The address, the headers and the body of a request."""
        url = self._url(request)
        address(url)  # raises MisuseError for an invalid URL
        try:
            check_extra(request.extra)
            fields = self._body(request)
        except (TypeError, ValueError, RecursionError) as error:
            if isinstance(error, MisuseError):
                raise
            raise MisuseError(f"The request cannot be written as JSON: {error}.") from None
        if request.extra:
            fields = {name: value for name, value in fields.items() if request.extra.get(name, value) is not None}
        headers = {
            "content-type": "application/json",
            "accept": "application/json" if request.stream is False else "text/event-stream",
            **self._headers(request),
            **{name.lower(): value for name, value in (self.headers or {}).items()},
        }
        if not self.api_key and self.api_key is not None:
            check_key_again(self.api_key, headers)
        return url, headers, fields

    def preview(self, prompt: Prompt, **settings: Unpack[Settings]) -> Preview:
        """Return the HTTP request that this prompt becomes, without its secrets; nothing is sent.

        Headers that only the HTTP client adds are not shown, and neither is a signature.

        Raises:
            MisuseError: the request can't be sent.
        """
        from .preview import Preview

        llm = self.bind(**settings) if settings else self
        request = Request.ask(prompt, llm.parameters)
        url, headers, _ = self._written(request)
        _, target, _ = address(url)
        secrets = Secrets(request, headers, self.headers or ())
        shown = {name: "***" if is_secret(name) else secrets.blanked(value) for name, value in headers.items()}
        body = msgspec.json.encode(self._written(request.without_secrets())[2])
        return Preview("POST", secrets.blanked(target), shown, msgspec.json.decode(body))

    def models(self) -> tuple[str, ...]:
        """Return the names of the models that the server lists.

        Raises:
            MisuseError: the provider has no such list.
        """
        with self._listed().pipe(stream()) as answers:
            return next(iter(answers))

    async def amodels(self) -> tuple[str, ...]:
        """Return the same as `models`."""
        async with self._listed().pipe(astream()) as answers:
            return await anext(aiter(answers))

    def _models_url(self) -> str | None:
        """Where the server lists its models; None if it does not."""
        return None

    def _listed(self) -> Observable[tuple[str, ...]]:
        url = self._models_url()
        if url is None:
            raise MisuseError(f"{type(self).__name__} has no list of its models here.")
        request = Request.ask("", self.parameters)
        own = {name.lower(): value for name, value in (self.headers or {}).items()}
        headers = {"accept": "application/json", **self._headers(request), **own}
        secrets = Secrets(request, headers, self.headers or ())
        pieces = post(
            url,
            b"",
            headers=headers,
            failure=self._error,
            client=self.client,
            timeouts=_needed(self.timeout, streams=False),
            sending=secrets.send,
            method="GET",
        )
        return pieces.pipe(
            ops.catch(lambda error, _: rx.throw(secrets.clean(error))), ops.to_list(), ops.map(names_of_models)
        )

    def chunks(self, request: Request) -> Observable[Chunk]:
        """Stream the answer. If `request.stream` is False, request the whole answer, as one chunk."""
        url, headers, fields = self._written(request)
        _, _, credentials = address(url)
        try:
            body = msgspec.json.encode(fields)
        except (TypeError, ValueError, RecursionError) as error:
            raise MisuseError(f"The request cannot be written as JSON: {error}.") from None
        timeouts = _needed(self.timeout, streams=request.stream is not False)
        secrets = Secrets(request, {**headers, **credentials}, self.headers or ())
        asked = functools.partial(
            post,
            failure=self._error,
            client=self.client,
            timeouts=timeouts,
            sending=secrets.send,
            signing=self._signing(request),
        )
        send = functools.partial(asked, url, headers=headers)

        def without_refused(error: BadRequest) -> Observable[bytes] | None:
            """Repeat the request without those `_UNASKED` fields that the error names, if it names any."""
            text = f"{error} {error.body}"
            refused = {name for name in self._UNASKED if name in text and name in fields and name not in request.extra}
            kept = {name: value for name, value in fields.items() if name not in refused}
            return send(msgspec.json.encode(kept)) if refused else None

        def rest(decoder: Decoder) -> Observable[bytes] | None:
            """Request the rest of an answer after the connection broke, if the server keeps it."""
            place = self._resumed(decoder)
            if place is None:
                return None
            others = {name: value for name, value in headers.items() if name != "content-type"}
            return asked(place, b"", headers=others, method="GET")

        chunks = _read(send(body), self, request, secrets, without_refused, rest)
        return _patient(chunks, self.max_retries, self.timeout.first_chunk) if self.max_retries else chunks


# Fields that do not change the answer, or that `identity` covers by the headers.
_HOW = ("api_key", "client", "timeout", "event_limit", "max_retries")


@functools.lru_cache(16)
def _needed(timeouts: Timeouts, *, streams: bool) -> Timeouts:
    """Return the timeouts without `read` if the limits on chunks are shorter: `read` sets a timer per packet."""
    limits = (timeouts.first_chunk, timeouts.idle) if streams else (timeouts.first_chunk,)
    longest = inf if timeouts.read is None else timeouts.read
    if all(limit is not None and limit <= longest for limit in limits):
        return attrs.evolve(timeouts, read=None)
    return timeouts


def _patient(chunks: Observable[Chunk], retries: int, within: float | None) -> Source[Chunk]:
    """Retry, unless an outer combinator does. The limit on the first chunk covers all attempts and waits."""
    again = retried(lambda: chunks, retries + 1, when=_is_passing, within=within)

    def subscribe(observer: abc.ObserverBase[Chunk], given: abc.SchedulerBase | None) -> abc.DisposableBase:
        scheduler = scheduler_for(given)
        return connect(chunks if scheduler.carried(RETRIED_ABOVE) else again, observer, scheduler)

    return Source(subscribe)


def _is_passing(error: Exception) -> bool:
    # A timeout is not retried: a limit of one second must end the request after one second.
    return is_retryable(error) and not isinstance(error, Timeout)


def _read(
    answer: Observable[bytes], llm: HTTPProvider, request: Request, secrets: Secrets, again: Again, rest: Rest
) -> Observable[Chunk]:
    """Return the chunks of a response."""

    def subscribe(observer: abc.ObserverBase[Chunk], given: abc.SchedulerBase | None) -> abc.DisposableBase:
        reader = Reader(observer, scheduler_for(given), llm, request, secrets, again, rest)
        reader.upstream.disposable = connect(answer, reader, reader.scheduler)
        return reader

    return Source(subscribe)
