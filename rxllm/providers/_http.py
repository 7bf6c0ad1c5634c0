"""What every provider over HTTP is made of; a vendor's file adds its request body and its frames.

It is one room because its reader has no use but the request that this class sends.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, Unpack, cast
from urllib.parse import urlsplit

import attrs
import msgspec
from attrs import field, frozen
from attrs.validators import optional
from reactivex import Observable, abc

from ..bounds import AFTER_FINISH, DOCUMENT_BYTES, DOCUMENT_BYTES_PER_VALUE
from ..errors import BadRequest, Interrupted, ProtocolError, ProviderError, RxllmError, Timeout, TransportError
from ..events import Service
from ..llm import LLM, Fields
from ..misuse import MisuseError
from ..operators.attempts import RETRIED_ABOVE, retried
from ..operators.backoff import is_retryable
from ..operators.timeouts import Watch
from ..runtime.scheduler import Scheduler, scheduler_for
from ..runtime.source import Source, connect
from ..values.chunk import Chunk, join
from ..values.parameters import number
from ..values.request import Request
from ..wire.http import Signing, Timeouts, address, post, timeouts_of
from ..wire.sse import BYTE_ORDER_MARK, DEFAULT_LIMIT, Frame, SSEDecoder, is_json, valid_utf8
from ..wire.weights import check_weight
from ._arguments import (
    check_base,
    check_client,
    check_extra,
    check_given_headers,
    check_key,
    check_model,
    without_credentials,
)
from ._documents import excerpt, is_cut, json_of, provider_error
from ._mending import Halves, mended
from ._pickling import check_key_again, pickled
from ._secrets import Secrets

if TYPE_CHECKING:
    import asyncio

    from ..wire.clients import Client

__all__ = ["Decoder", "HTTPProvider"]

T = TypeVar("T")

BEGINNING = 1000  # bytes that are shown of what is no answer
LINGER = 0.05  # seconds that the HTTP body may still take to end after the answer's end marker
WHOLE_LIMIT = DOCUMENT_BYTES  # of an answer that is not streamed; a larger event_limit raises it


class Decoder(Protocol):
    """One stream's state: frames in, chunks out.

    Attributes:
        complete: whether the protocol's end was seen, and no error.
        ended: whether nothing more is to come, although the connection may still be open.
        failure: an error that the last frame told of; it is raised after that frame's chunk.
    """

    complete: bool
    ended: bool
    failure: ProviderError | None

    @property
    def finished(self) -> bool:
        """Whether the reason of the end was seen, and no error; the end marker may still be missing."""
        ...

    def chunk(self, data: bytes) -> Chunk | None:
        """What one frame says, None if nothing.

        Raises:
            ProviderError: it says an error.
            ProtocolError: it is no frame of this protocol.
        """
        ...

    def rest(self) -> Chunk | None:
        """What was held back until more would come, when nothing more comes; None if nothing was."""
        ...


class Frames(Protocol):
    """The framing of a stream: bytes in, frames out, however the bytes are chopped."""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes.

        Raises:
            ProtocolError: the bytes are not of this framing, or a frame is over its limit.
        """
        ...

    def flush(self) -> list[Frame]:
        """At the end of the stream: the last frame, if only its end mark is missing."""
        ...

    def begins(self, beginning: bytes) -> bool:
        """Whether a stream may begin with these bytes, rather than one JSON document or something else."""
        ...


class HTTPFields(Fields, total=False):
    """Further keywords of every provider over HTTP."""

    event_limit: int
    max_retries: int


@frozen(init=False)
class HTTPProvider(LLM):
    """A model behind an HTTP API.

    Attributes:
        model: its name there.
        api_key: the key; None takes it from the vendor's environment variable.
        base_url: where to ask; None takes it from the vendor's environment variable, else the vendor.
        client: the `httpx.AsyncClient` to use, on the first event loop that it is used on; or a function that makes
            one. The function is called once for each loop; its client is closed with the loop, or once the function
            is gone. Two models share a client if they are given the same function. None shares one fast client a loop.
        headers: to send, too; they win over the provider's own.
        timeout: `Timeouts`; one number bounds every silence, None bounds none.
        event_limit: bytes that one event of the stream may have; 8 MiB, since tool arguments and images are large. A
            larger one is the limit of an answer that is not streamed, too. See the page on bounds.
        max_retries: how often to ask again after a failure that may pass, before the first chunk, as `retry` does; but
            not after a `Timeout`. Within `retry`, and within `fallback` and `hedge` but for their last one, it rests.
    """

    _shared_by_copies: ClassVar[tuple[str, ...]] = (*LLM._shared_by_copies, "client")
    # Fields of the body that the provider adds unasked, and leaves out where a server refuses them by their name.
    _UNASKED: ClassVar[tuple[str, ...]] = ()

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
        """What is pickled: an `api_key` is not, and after loading the environment variable counts."""
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
        """What cuts the bytes of a stream into frames: server-sent events, unless a provider overrides it."""
        return SSEDecoder(limit=self.event_limit)

    def _signing(self, request: Request) -> Signing | None:
        """What signs a request as it is sent; None where its headers hold the key."""
        return None

    def _whole(self, body: bytes, request: Request) -> Chunk:
        raise NotImplementedError

    def _error(self, status: int, body: bytes, headers: Mapping[str, str]) -> ProviderError:
        raise NotImplementedError

    def _resumed(self, decoder: Decoder) -> str | None:
        """Where the rest of an answer is, whose connection broke; None where the server does not keep it."""
        return None

    def identity(self) -> str:
        """Who answers, and to whom: the model, the address, the key and all other headers, as a digest.

        Raises:
            MisuseError: a `client`, or a function that gives the key, may say otherwise who asks.
        """
        changing = "client" if self.client is not None else "api_key" if callable(self.api_key) else None
        if changing:
            raise MisuseError(
                f"cached() cannot derive a key for this {type(self).__name__}, since its {changing}= may say who asks, "
                "and whom. Say cached(…, name='…'): whoever uses the same name in the same store shares the answers."
            )
        request = Request.ask("", self.parameters)
        try:
            own = self._headers(request)
        except MisuseError:  # there is no key yet: the request will say so
            own = {}
        headers = {**own, **{name.lower(): value for name, value in (self.headers or {}).items()}}
        return self._digest({**dict.fromkeys(_HOW), "base_url": self._url(request), "headers": headers})

    def service(self, request: Request) -> Service:
        """Who answers, and where."""
        try:
            place = urlsplit(self._url(request))
            port = place.port or {"https": 443, "http": 80}.get(place.scheme)
        except (ValueError, MisuseError):  # `chunks` refuses it in a sentence
            return super().service(request)
        return attrs.evolve(super().service(request), address=place.hostname, port=port)

    def chunks(self, request: Request) -> Observable[Chunk]:
        """The answer as it comes. `request.stream` False asks for it whole, as one chunk."""
        streams = request.stream is not False
        url = self._url(request)
        _, _, credentials = address(url)  # a bad one is a sentence, before anything else reads it
        try:
            check_extra(request.extra)
            fields = self._body(request)
            if request.extra:
                fields = {name: value for name, value in fields.items() if request.extra.get(name, value) is not None}
            body = msgspec.json.encode(fields)
        except (TypeError, ValueError, RecursionError) as error:
            if isinstance(error, MisuseError):
                raise
            raise MisuseError(f"The request cannot be written as JSON: {error}.") from None
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if streams else "application/json",
            **self._headers(request),
            **{name.lower(): value for name, value in (self.headers or {}).items()},
        }
        if not self.api_key and self.api_key is not None:
            check_key_again(self.api_key, headers)
        timeouts = _needed(self.timeout, streams=streams)
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
            """The same request without the unasked fields that the error names, if it names any."""
            told = f"{error} {error.body}"
            refused = {name for name in self._UNASKED if name in told and name in fields and name not in request.extra}
            kept = {name: value for name, value in fields.items() if name not in refused}
            return send(msgspec.json.encode(kept)) if refused else None

        def rest(decoder: Decoder) -> Observable[bytes] | None:
            """The rest of an answer whose connection broke, if the server keeps it."""
            place = self._resumed(decoder)
            if place is None:
                return None
            others = {name: value for name, value in headers.items() if name != "content-type"}
            return asked(place, b"", headers=others, method="GET")

        chunks = _read(send(body), self, request, secrets, without_refused, rest)
        return _patient(chunks, self.max_retries, self.timeout.first_chunk) if self.max_retries else chunks


_HOW = ("api_key", "client", "timeout", "event_limit", "max_retries")  # to ask: no matter to the answer, or told else


@functools.lru_cache(16)
def _needed(timeouts: Timeouts, *, streams: bool) -> Timeouts:
    """Without `read` where the limits of chunks end each silence as soon: its timer is set anew for each packet."""
    limits = (timeouts.first_chunk, timeouts.idle) if streams else (timeouts.first_chunk,)
    longest = inf if timeouts.read is None else timeouts.read
    if all(limit is not None and limit <= longest for limit in limits):
        return attrs.evolve(timeouts, read=None)
    return timeouts


def _patient(chunks: Observable[Chunk], retries: int, within: float | None) -> Source[Chunk]:
    """Asks again, unless an outer combinator does; the limit of the first chunk bounds all attempts and waits."""
    again = retried(lambda: chunks, retries + 1, when=_is_passing, within=within)

    def subscribe(observer: abc.ObserverBase[Chunk], given: abc.SchedulerBase | None) -> abc.DisposableBase:
        scheduler = scheduler_for(given)
        return connect(chunks if scheduler.carried(RETRIED_ABOVE) else again, observer, scheduler)

    return Source(subscribe)


def _is_passing(error: Exception) -> bool:
    # Who set a limit of a second waits for a second, not for three.
    return is_retryable(error) and not isinstance(error, Timeout)


Again = Callable[[BadRequest], Observable[bytes] | None]
Rest = Callable[[Decoder], Observable[bytes] | None]
RESUMED = 3  # times that a stream is resumed without any news


def _read(
    answer: Observable[bytes], llm: HTTPProvider, request: Request, secrets: Secrets, again: Again, rest: Rest
) -> Observable[Chunk]:
    """Bytes to chunks."""

    def subscribe(observer: abc.ObserverBase[Chunk], given: abc.SchedulerBase | None) -> abc.DisposableBase:
        reader = _Reader(observer, scheduler_for(given), llm, request, secrets, again, rest)
        reader.upstream.disposable = connect(answer, reader, reader.scheduler)
        return reader

    return Source(subscribe)


class _Reader(Watch, abc.ObserverBase[bytes]):
    """Bytes to frames to chunks; or, of an answer that is one JSON document, to one chunk.

    Some servers answer with such a document though they were asked for a stream; its first byte tells.

    It bounds silence by itself, for it knows which chunks came at once: an operator would note the time of each.
    """

    scheduler: Scheduler

    __slots__ = (
        "again",
        "beginning",
        "clean",
        "decode",
        "decoder",
        "document",
        "frames",
        "halves",
        "linger",
        "llm",
        "observer",
        "remaining",
        "request",
        "resumed",
    )

    def __init__(
        self,
        observer: abc.ObserverBase[Chunk],
        scheduler: Scheduler,
        llm: HTTPProvider,
        request: Request,
        secrets: Secrets,
        again: Again | None = None,
        remaining: Rest | None = None,
    ) -> None:
        self.observer = observer
        self.clean = secrets.clean
        self.again = again
        self.remaining = remaining
        self.resumed = 0
        self.llm, self.request = llm, request
        self.begin()
        # At last, since from here on it may be late, in another thread.
        super().__init__(scheduler, llm.timeout.first_chunk, None if request.stream is False else llm.timeout.idle)

    def begin(self) -> None:
        """Nothing of a response was read."""
        self.frames = self.llm._frames(self.request)  # pyright: ignore[reportPrivateUsage]
        self.decoder = self.llm._decoder(self.request)  # pyright: ignore[reportPrivateUsage]
        self.decode = self.decoder.chunk
        self.halves: Halves | None = None  # once a character was cut in two
        self.beginning: bytes | None = b""  # of what came, as long as it was no frame
        self.document: bytearray | None = None
        self.linger: asyncio.TimerHandle | None = None

    def on_next(self, value: bytes) -> None:
        if self.linger is not None:
            return
        try:
            frames = self.frames.feed(value) if self.beginning is None else self.opened(value)
        except RxllmError as error:
            self.fail(error)
        else:
            self.read(frames)

    def opened(self, data: bytes) -> list[Frame]:
        """The frames of the first bytes; of a document none, for it is kept until it is whole."""
        if self.document is None:
            beginning = ((self.beginning or b"") + data).removeprefix(BYTE_ORDER_MARK).lstrip()
            if self.is_stream(beginning):
                frames = self.frames.feed(data)
                self.beginning = None if frames else beginning[:BEGINNING]
                if frames and self.request.stream is False and not isinstance(self.observer, _Joined):
                    self.observer = _Joined(self.observer)
                return frames
            self.document, data = bytearray(), beginning
        self.document += data
        limit = self.document_limit()
        if len(self.document) > limit:
            frame = bytes(self.document[:BEGINNING])
            self.document.clear()  # the error's traceback holds on to it
            told = f"The answer is longer than {limit >> 20} MiB, unpacked; if that is meant, raise event_limit."
            raise ProtocolError(told, frame=frame)
        return []

    def is_stream(self, beginning: bytes) -> bool:
        """Whether a response that begins so is read as frames, not as one JSON document."""
        asked_whole = self.request.stream is False
        if beginning.startswith((b"{", b"[")):
            return not asked_whole and self.frames.begins(beginning)
        return not asked_whole or self.frames.begins(beginning)

    def document_limit(self) -> int:
        return max(WHOLE_LIMIT, self.llm.event_limit if self.llm.event_limit > DEFAULT_LIMIT else 0)

    def read(self, frames: list[Frame]) -> bool:
        """Emits what the frames say; whether it was no error. What the subscriber raises is none of ours."""
        decoder, emit, upstream = self.decoder, self.observer.on_next, self.upstream
        decode, is_news = self.decode, True
        for name, data in frames:
            try:
                try:
                    chunk = decode(data)
                except ProtocolError as error:
                    chunk = self.mend(data, error)
                    decode = self.decode
            except Exception as error:
                if name in _NO_NEWS:
                    continue
                self.fail(_fault(error, data))
                return False
            if chunk is not None:
                if is_news:
                    self.last, self.started, is_news = self.clock(), True, False
                    self.resumed = 0
                emit(chunk)
                if upstream.is_disposed:  # who heard it has left, or raised
                    return False
            elif name == "error" and not decoder.ended:
                self.fail(provider_error(json_of(data), data))
                return False
            if decoder.failure is not None:
                self.fail(decoder.failure)
                return False
        if not is_news:
            self.last = self.clock()  # they may have taken their time to hear all that
        self.settle()
        return True

    def settle(self) -> None:
        """Sees to it that the stream ends soon once the answer has."""
        decoder = self.decoder
        if decoder.ended and decoder.complete:
            # The HTTP body should end now, too, which frees the connection for the next request. If it does not soon,
            # the connection is given up.
            self.alarm.dispose()
            self.linger = self.scheduler.loop.call_later(LINGER, self.end)
        elif decoder.finished and self.idle > AFTER_FINISH:
            self.started, self.last, self.idle = True, self.clock(), AFTER_FINISH
            self.sleep(AFTER_FINISH)

    def mend(self, data: bytes, error: ProtocolError) -> Chunk | None:
        """What a frame says that is not JSON. From the first cut character on, each chunk is looked at."""
        better = mended(data, marked=True)
        if better is None:
            raise error
        if self.halves is None:
            self.halves = Halves()
            self.decode = self.joined
        try:
            return self.halves.joined(self.decoder.chunk(better))
        except RxllmError:
            return self.decoder.chunk(mended(data) or data)  # which tells the same error without marks

    def joined(self, data: bytes) -> Chunk | None:
        """What a frame says, with whole characters."""
        chunk = self.decoder.chunk(data)
        return self.halves.joined(chunk) if self.halves else chunk

    def on_error(self, error: Exception) -> None:
        if self.linger is None and not self.read(self.frames.flush()):
            return
        # A connection that breaks after the answer's end takes nothing away.
        if self.linger is not None or (self.decoder.complete and isinstance(error, Interrupted)):
            self.end()
        else:
            self.fail(error)

    def on_completed(self) -> None:
        if self.linger is not None or self.finish():
            self.end()

    def late(self, error: Timeout) -> None:
        """No chunk came for too long; all the same the answer may be whole, without its end marker or a blank line."""
        self.alarm.dispose()
        if self.document is not None:
            if is_json(bytes(self.document)) and self.finish():
                return self.end()
        elif not self.read(self.frames.flush()):
            return None
        elif self.decoder.finished or self.decoder.complete:
            return self.end()
        if self.started:  # else half a call that is held back would pass for an answer, and nobody else be asked
            self.say_rest()
        self.observer.on_error(self.clean(error))
        return None

    def fail(self, error: Exception) -> None:
        if isinstance(error, BadRequest) and error.status in (400, 422) and self.again and not self.started:
            answer, self.again = self.again(error), None
            if answer is not None:
                self.begin()
                self.upstream.disposable = connect(answer, self, self.scheduler)
                return
        if isinstance(error, TransportError) and not isinstance(error, Timeout) and self.resume():
            return
        self.alarm.dispose()
        self.say_rest()
        self.observer.on_error(self.clean(error))

    def resume(self) -> bool:
        """Go on where the connection broke, if the server keeps the answer."""
        if self.remaining is None or self.document is not None or self.resumed >= RESUMED:
            return False
        answer = self.remaining(self.decoder)
        if answer is None:
            return False
        self.resumed += 1
        self.frames = self.llm._frames(self.request)  # pyright: ignore[reportPrivateUsage]
        self.beginning = b""
        self.upstream.disposable = connect(answer, self, self.scheduler)
        return True

    def end(self) -> None:
        if self.linger is not None:
            self.linger.cancel()
        self.alarm.dispose()
        self.say_rest()
        self.observer.on_completed()

    def say_rest(self) -> None:
        rest = self.decoder.rest()
        if self.halves is not None:
            rest = join(filter(None, (self.halves.joined(rest), self.halves.rest()))) or None
        if rest is not None:
            self.observer.on_next(rest)

    def finish(self) -> bool:
        """Emits what is left; whether the answer is whole."""
        if self.document is None and self.request.stream is False and not self.beginning and self.beginning is not None:
            self.document = bytearray()  # nothing came
        if self.document is not None:
            body = valid_utf8(bytes(self.document).removeprefix(BYTE_ORDER_MARK))
            whole = functools.partial(self.llm._whole, request=self.request)  # pyright: ignore[reportPrivateUsage]
            try:
                check_weight(body, self.document_limit() // DOCUMENT_BYTES_PER_VALUE)
                try:
                    chunk = whole(body)
                except ProtocolError as error:
                    chunk = _once_more(whole, body, error)
            except Exception as error:
                self.fail(Interrupted(_CUT_SHORT) if is_cut(body) else _fault(error, body))
                return False
            self.observer.on_next(chunk)
        elif not self.read(self.frames.flush()):
            return False
        elif not self.decoder.complete:
            self.fail(
                Interrupted(_NO_END)
                if not self.beginning or self.frames.begins(self.beginning)
                else _other(self.beginning)
            )
            return False
        return True


class _Joined(abc.ObserverBase[Chunk]):
    """Emits the chunks of a stream as one, where a whole answer was asked for."""

    __slots__ = ("chunks", "observer")

    def __init__(self, observer: abc.ObserverBase[Chunk]) -> None:
        self.observer = observer
        self.chunks: list[Chunk] = []

    def on_next(self, value: Chunk) -> None:
        self.chunks.append(value)

    def on_error(self, error: Exception) -> None:
        if self.chunks:
            self.observer.on_next(join(self.chunks))
        self.observer.on_error(error)

    def on_completed(self) -> None:
        if self.chunks:
            self.observer.on_next(join(self.chunks))
        self.observer.on_completed()


_CUT_SHORT = "The answer ended before it was whole: its JSON is cut."
_NO_END = "The stream ended before the answer did: its end marker is missing."
_NO_NEWS = ("ping", "heartbeat", "keepalive", "keep-alive")  # names of events that some fill with anything


def _other(beginning: bytes) -> ProtocolError:
    return ProtocolError(
        f"The answer is no stream of events; is base_url right? It says: {excerpt(beginning)}", frame=beginning
    )


def _once_more(read: Callable[[bytes], T], data: bytes, error: ProtocolError) -> T:
    """What it says as JSON has it, where its encoder has written what JSON has not; else the error stands."""
    better = mended(data)
    if better is None:
        raise error
    return read(better)


def _fault(error: Exception, data: bytes) -> RxllmError:
    """The error for what was raised while the provider's bytes were read."""
    if isinstance(error, RxllmError):
        return error
    fault = ProtocolError(f"What came could not be read; its decoder raised {type(error).__name__}.", frame=data)
    fault.__cause__ = error
    return fault
