"""`Reader`: the bytes of a response to frames and to chunks, or to one chunk if the response is one JSON document."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from reactivex import Observable, abc

from ..bounds import AFTER_FINISH, DOCUMENT_BYTES, DOCUMENT_BYTES_PER_VALUE
from ..errors import BadRequest, Interrupted, ProtocolError, ProviderError, RxllmError, Timeout, TransportError
from ..operators.timeouts import Watch
from ..runtime.scheduler import Scheduler
from ..runtime.source import connect
from ..values.chunk import Chunk, join
from ..values.request import Request
from ..wire.sse import BYTE_ORDER_MARK, DEFAULT_LIMIT, Frame, is_json, valid_utf8
from ..wire.weights import check_weight
from ._documents import excerpt, is_cut, json_of, provider_error
from ._mending import Halves, mended
from ._secrets import Secrets

if TYPE_CHECKING:
    import asyncio

    from ._http import HTTPProvider

__all__ = ["Again", "Decoder", "Frames", "Reader", "Rest"]

T = TypeVar("T")

BEGINNING = 1000  # bytes of an unexpected response that an error shows
LINGER = 0.05  # seconds that the HTTP body may still take to end after the answer's end marker
WHOLE_LIMIT = DOCUMENT_BYTES  # of an answer that is not streamed; a larger event_limit raises it


class Decoder(Protocol):
    """The state of one stream: frames in, chunks out.

    Attributes:
        complete: whether the end of the answer arrived without an error.
        ended: whether the end marker arrived; the connection may still be open.
        failure: the error in the last frame. The reader raises it after the chunk of that frame.
    """

    complete: bool
    ended: bool
    failure: ProviderError | None

    @property
    def finished(self) -> bool:
        """Whether the finish reason arrived without an error; the end marker may still be missing."""
        ...

    def chunk(self, data: bytes) -> Chunk | None:
        """Decode one frame; return None if it has no content.

        Raises:
            ProviderError: the frame describes an error.
            ProtocolError: the frame violates the protocol.
        """
        ...

    def rest(self) -> Chunk | None:
        """Return the content that is still held back at the end of the stream, or None."""
        ...


class Frames(Protocol):
    """The framing of a stream: bytes in, frames out. The cuts between the bytes do not matter."""

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes.

        Raises:
            ProtocolError: the bytes violate the framing, or a frame exceeds its limit.
        """
        ...

    def flush(self) -> list[Frame]:
        """Return, at the end of the stream, the last frame if only its end mark is missing."""
        ...

    def begins(self, beginning: bytes) -> bool:
        """Return whether a stream may begin with these bytes, as opposed to a JSON document or something else."""
        ...


Again = Callable[[BadRequest], Observable[bytes] | None]
Rest = Callable[[Decoder], Observable[bytes] | None]
RESUMED = 3  # how often a stream is resumed without a new chunk


class Reader(Watch, abc.ObserverBase[bytes]):
    """Converts bytes to frames and chunks; or, if the answer is one JSON document, to one chunk.

    Some servers answer with a document although the request asks for a stream. The first byte tells.

    The reader enforces the limits on silence itself, because it knows which chunks arrived together. An operator would
    have to read the clock for each chunk.
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
        # This must be the last statement: from here on, `late` may run, in another thread.
        super().__init__(scheduler, llm.timeout.first_chunk, None if request.stream is False else llm.timeout.idle)

    def begin(self) -> None:
        """Reset the state, before the first byte of a response."""
        self.frames = self.llm._frames(self.request)  # pyright: ignore[reportPrivateUsage]
        self.decoder = self.llm._decoder(self.request)  # pyright: ignore[reportPrivateUsage]
        self.decode = self.decoder.chunk
        self.halves: Halves | None = None  # set as soon as a server has split a character
        self.beginning: bytes | None = b""  # the first bytes, until the first frame
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
        """Return the frames in the first bytes. A document returns none; the reader keeps it until it is whole."""
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
            self.document.clear()  # frees the memory, because the traceback of the error references the document
            text = f"The answer is longer than {limit >> 20} MiB, unpacked. To allow longer answers, raise event_limit."
            raise ProtocolError(text, frame=frame)
        return []

    def is_stream(self, beginning: bytes) -> bool:
        """Return whether a response that begins with these bytes is read as frames, not as one JSON document."""
        asked_whole = self.request.stream is False
        if beginning.startswith((b"{", b"[")):
            return not asked_whole and self.frames.begins(beginning)
        return not asked_whole or self.frames.begins(beginning)

    def document_limit(self) -> int:
        """Return the maximum size of a document in bytes."""
        return max(WHOLE_LIMIT, self.llm.event_limit if self.llm.event_limit > DEFAULT_LIMIT else 0)

    def drain(self) -> bool:
        """Emit the last frames once no more bytes come. Return whether there was no error."""
        try:
            frames = self.frames.flush()
        except RxllmError as error:
            self.fail(error)
            return False
        return self.read(frames)

    def read(self, frames: list[Frame]) -> bool:
        """Emit the chunks of the frames. Return False after an error. Exceptions of the subscriber propagate."""
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
                if upstream.is_disposed:  # the subscriber has disposed or raised
                    return False
            elif name == "error" and not decoder.ended:
                self.fail(provider_error(json_of(data), data))
                return False
            if decoder.failure is not None:
                self.fail(decoder.failure)
                return False
        if not is_news:
            self.last = self.clock()  # the time that the subscriber took does not count as silence
        self.settle()
        return True

    def settle(self) -> None:
        """End the stream soon after the answer has ended."""
        decoder = self.decoder
        if decoder.ended and decoder.complete:
            # The HTTP body should end now, too, which frees the connection for the next request. If it does not end
            # within LINGER seconds, the reader closes the connection.
            self.alarm.dispose()
            self.linger = self.scheduler.loop.call_later(LINGER, self.end)
        elif decoder.finished and self.idle > AFTER_FINISH:
            self.started, self.last, self.idle = True, self.clock(), AFTER_FINISH
            self.sleep(AFTER_FINISH)

    def mend(self, data: bytes, error: ProtocolError) -> Chunk | None:
        """Decode a frame that is not valid JSON. From the first split character on, `joined` decodes each frame."""
        better = mended(data, marked=True)
        if better is None:
            raise error
        if self.halves is None:
            self.halves = Halves()
            self.decode = self.joined
        try:
            return self.halves.joined(self.decoder.chunk(better))
        except RxllmError:
            return self.decoder.chunk(mended(data) or data)  # raises the same error without marks in its text

    def joined(self, data: bytes) -> Chunk | None:
        """Decode a frame, and join the halves of split characters."""
        chunk = self.decoder.chunk(data)
        return self.halves.joined(chunk) if self.halves else chunk

    def on_error(self, error: Exception) -> None:
        if self.linger is None and not self.drain():
            return
        # A connection that breaks after the end of the answer is not an error.
        if self.linger is not None or (self.decoder.complete and isinstance(error, Interrupted)):
            self.end()
        else:
            self.fail(error)

    def on_completed(self) -> None:
        if self.linger is not None or self.finish():
            self.end()

    def late(self, error: Timeout) -> None:
        """Handle a time limit. The answer may be whole nevertheless, without its end marker or its last blank line."""
        self.alarm.dispose()
        if self.document is not None:
            if is_json(bytes(self.document)) and self.finish():
                return self.end()
        elif not self.drain():
            return None
        elif self.decoder.finished or self.decoder.complete:
            return self.end()
        if self.started:  # else a held fragment of a tool call would count as an answer and prevent a fallback
            self.say_rest()
        self.observer.on_error(self.clean(error))
        return None

    def fail(self, error: Exception) -> None:
        """End the stream with an error, unless a retry without rejected fields or a resumption is possible."""
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
        """Continue the answer where the connection broke, if the server keeps it. Return whether it does."""
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
        """Complete the stream."""
        if self.linger is not None:
            self.linger.cancel()
        self.alarm.dispose()
        self.say_rest()
        self.observer.on_completed()

    def say_rest(self) -> None:
        """Emit the content that the decoder still holds back."""
        rest = self.decoder.rest()
        if self.halves is not None:
            rest = join(filter(None, (self.halves.joined(rest), self.halves.rest()))) or None
        if rest is not None:
            self.observer.on_next(rest)

    def finish(self) -> bool:
        """Emit the rest of the answer. Return whether the answer is whole."""
        if self.document is None and self.request.stream is False and not self.beginning and self.beginning is not None:
            self.document = bytearray()  # the response was empty
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
        elif not self.drain():
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
    """Emits the chunks of a stream as one chunk, if the request asked for a whole answer."""

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
_NO_NEWS = ("ping", "heartbeat", "keepalive", "keep-alive")  # events without content, whose data may be anything


def _other(beginning: bytes) -> ProtocolError:
    return ProtocolError(
        f"The response is not a stream of events. Check base_url. The response begins: {excerpt(beginning)}",
        frame=beginning,
    )


def _once_more(read: Callable[[bytes], T], data: bytes, error: ProtocolError) -> T:
    """Read the repaired document. If it cannot be repaired, raise the error."""
    better = mended(data)
    if better is None:
        raise error
    return read(better)


def _fault(error: Exception, data: bytes) -> RxllmError:
    """Return the error for an exception that the decoder raised."""
    if isinstance(error, RxllmError):
        return error
    fault = ProtocolError(f"The response could not be read: its decoder raised {type(error).__name__}.", frame=data)
    fault.__cause__ = error
    return fault
