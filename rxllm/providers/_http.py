"""`HTTPProvider`: the base of all providers over HTTP. A vendor's file adds the request body and the decoder."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, Unpack
from urllib.parse import urlsplit

import attrs
import msgspec
import reactivex as rx
from attrs import field, frozen
from attrs.validators import optional
from reactivex import Observable, abc
from reactivex import operators as ops

from ..bridges import astream, stream
from ..errors import ProviderError, Timeout
from ..events import Service
from ..extensible import state_of
from ..llm import LLM, Fields
from ..misuse import MisuseError
from ..operators.attempts import RETRIED_ABOVE, retried
from ..operators.backoff import is_retryable
from ..operators.reading import read_files
from ..runtime.scheduler import scheduler_for
from ..runtime.source import Source, connect
from ..secrecy import is_secret
from ..values.chunk import Chunk
from ..values.parameters import Settings, number
from ..values.preview import Preview
from ..values.request import Prompt, Request
from ..wire.error_documents import provider_error
from ..wire.http import Signing, address, post
from ..wire.sse import DEFAULT_LIMIT, SSEDecoder
from ..wire.timeouts import Timeouts, timeouts_of
from ._arguments import (
    check_base,
    check_client,
    check_extra,
    check_given_headers,
    check_key,
    check_model,
    key_from,
    without_credentials,
)
from ._attachments import check_files
from ._decoding import Decoder, Frames
from ._documents import encoded, error_in, refused
from ._exchange import Exchange
from ._ids import with_own_ids, with_valid_names
from ._models import listed
from ._parameters import check_tools, without_blanks
from ._pickling import check_key_again, pickled
from ._reader import Reader
from ._secrets import Secrets

if TYPE_CHECKING:
    from ..wire.clients import Client
    from ..wire.repeats import Sending

__all__ = ["Decoder", "Frames", "HTTPProvider"]

T = TypeVar("T")


class HTTPFields(Fields, total=False):
    """The keywords that the constructors of all HTTP providers accept, besides `model`."""

    api_key: str | None
    base_url: str | None
    client: Client | None
    headers: Mapping[str, str] | None
    timeout: Timeouts | float | None
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
            the other limits on the size of an answer. See the page on bounds.
        max_retries: how often to retry a transient failure before the first chunk, as `retry` does. A `Timeout` is not
            retried. Inside `retry`, and for all but the last model of `fallback` and `hedge`, the provider does not
            retry, because the combinator does.
    """

    _shared_by_copies: ClassVar[tuple[str, ...]] = (*LLM._shared_by_copies, "client")
    # The fields that the provider adds to the body on its own. It retries without those that a server rejects by name.
    _UNASKED: ClassVar[tuple[str, ...]] = ()
    # Whether the vendor rejects a conversation in which calls of two rounds have the same id.
    _UNIQUE_IDS: ClassVar[bool] = False
    # Whether errors keep the exceptions of the client as causes. A program that passes its own client knows them.
    _KEEPS_CAUSES: ClassVar[bool] = False

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

    def __init__(self, model: str, **settings: Unpack[HTTPFields]) -> None:
        self._settle(model=model, **settings)

    def __getstate__(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """Return the state without the `api_key`. The unpickled model reads the environment variable."""
        values, fields = state_of(self)
        return values, pickled(type(self).__name__, fields)

    def kind(self, request: Request) -> Literal["llm", "chat_model"]:
        """Return ``"chat_model"``: the protocol carries conversations."""
        return "chat_model"

    @property
    def _own_headers(self) -> dict[str, str]:
        """The user's headers, with their names in lower case."""
        return {name.lower(): value for name, value in (self.headers or {}).items()}

    def _key_or(self, *variables: str) -> str:
        """Return the `api_key`, else the key in the first of these environment variables that is set, else ``""``."""
        if self.api_key:
            return self.api_key.strip()
        return next((key for variable in variables if (key := key_from(variable))), "")

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

    def _signing(self, request: Request, method: str = "POST") -> Signing | None:
        """Return the function that signs a request before it is sent; None if a header carries the key."""
        return None

    def _whole(self, body: bytes, request: Request) -> Chunk:
        raise NotImplementedError

    def _error(self, status: int, body: bytes, headers: Mapping[str, str]) -> ProviderError:
        return provider_error(error_in(body), body, status=status, headers=headers)

    def _pictures(self) -> tuple[str, tuple[str, ...]]:
        """Return the name of the provider for error messages, and the subtypes of image/ that it reads."""
        return type(self).__name__, self.declaration.pictures

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
        headers = {**own, **self._own_headers}
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
        vendor, pictures = self._pictures()
        try:
            request = without_blanks(check_files(request, vendor, pictures, self.declaration.picture_bytes))
            if not isinstance(messages := request.prompt, str):
                own = with_valid_names(messages, self.declaration.tool_names, request.tools or ())
                own = with_own_ids(own, in_all_rounds=self._UNIQUE_IDS)
                request = request if own is messages else attrs.evolve(request, prompt=own)
            check_extra(request.extra)
            fields = self._body(request)
            check_tools(request, vendor, self.declaration.tool_names)
        except (TypeError, ValueError, RecursionError) as error:
            raise refused(error, request) from None
        if request.extra:
            fields = {name: value for name, value in fields.items() if request.extra.get(name, value) is not None}
        headers = {
            "content-type": "application/json",
            "accept": "application/json" if request.stream is False else "text/event-stream",
            **self._headers(request),
            **self._own_headers,
        }
        if not self.api_key and self.api_key is not None:
            check_key_again(self.api_key, headers)
        return url, headers, fields

    def preview(self, prompt: Prompt, **settings: Unpack[Settings]) -> Preview:
        """Return the HTTP request that this prompt becomes, without its secrets; nothing is sent. Files are read.

        Headers that only the HTTP client adds are not shown, and neither is a signature.

        Raises:
            MisuseError: the request can't be sent.
        """
        llm = self.bind(**settings) if settings else self
        prompt = prompt.updated(settings) if isinstance(prompt, Request) else prompt  # as in `invoke`
        request = read_files(Request.ask(prompt, llm.parameters))
        if request.shape is not None:
            request = llm._plan(request).request
        url, headers, _ = self._written(request)
        _, target, login = address(url)
        headers = {**headers, **login}
        secrets = Secrets(request, headers, self.headers or ())
        shown = {name: "***" if is_secret(name) else secrets.blanked(value) for name, value in headers.items()}
        body = encoded(self._written(request.without_secrets())[2])
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
            raise MisuseError(f"{self._pictures()[0]} has no list of its models.")
        return listed(self._fetched, url)

    def _fetched(
        self,
        url: str,
        body: bytes = b"",
        media_type: str = "",
        method: Literal["POST", "GET"] = "GET",
        more: Mapping[str, str] | None = None,
    ) -> Observable[bytes]:
        """Return the response to a request that asks for no answer of the model, such as for a list."""
        request = Request.ask("", self.parameters.updated({"stream": False}))
        headers = {"accept": "application/json", **(more or {}), **self._headers(request), **self._own_headers}
        if media_type:
            headers["content-type"] = media_type
        secrets = Secrets(request, headers, self.headers or (), keeps_causes=self._KEEPS_CAUSES)
        signing = self._signing(request, method)
        pieces = self._send(url, body, headers, self.timeout, secrets.send, signing, method, is_whole=True)
        return pieces.pipe(ops.catch(lambda error, _: rx.throw(secrets.clean(error))))

    def _send(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        timeouts: Timeouts,
        sending: Sending,
        signing: Signing | None,
        method: Literal["POST", "GET"],
        *,
        is_whole: bool,
    ) -> Observable[bytes]:
        """Return the bytes of the response to a request, as `post` does. An adapter sends with another client."""
        return post(
            url,
            body,
            headers=headers,
            failure=self._error,
            client=self.client,
            timeouts=timeouts,
            sending=sending,
            signing=signing,
            method=method,
            is_whole=is_whole,
        )

    def chunks(self, request: Request) -> Observable[Chunk]:
        """Stream the answer. If `request.stream` is False, request the whole answer, as one chunk."""
        url, headers, fields = self._written(request)
        timeouts = _needed(self.timeout, streams=request.stream is not False)
        exchange = Exchange(self, request, url, headers, fields, timeouts)
        chunks = _read(exchange.answer(), exchange)
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

    def subscribe(observer: abc.ObserverBase[Chunk], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
        scheduler = scheduler_for(requested)
        return connect(chunks if scheduler.carried(RETRIED_ABOVE) else again, observer, scheduler)

    return Source(subscribe)


def _is_passing(error: Exception) -> bool:
    # A timeout is not retried: a limit of one second must end the request after one second.
    return is_retryable(error) and not isinstance(error, Timeout)


def _read(answer: Observable[bytes], exchange: Exchange) -> Source[Chunk]:
    """Return the chunks of a response."""

    def subscribe(observer: abc.ObserverBase[Chunk], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
        reader = Reader(observer, scheduler_for(requested), exchange)
        reader.upstream.disposable = connect(answer, reader, reader.scheduler)
        return reader

    return Source(subscribe)
