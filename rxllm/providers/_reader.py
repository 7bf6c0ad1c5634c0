"""`Reader`: the bytes of a response to frames and to chunks, or to one chunk if the response is one JSON document."""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import inf
from operator import length_hint
from typing import TYPE_CHECKING, TypeVar

from reactivex import abc

from ..bounds import AFTER_FINISH, DOCUMENT_BYTES, DOCUMENT_BYTES_PER_VALUE, USAGE_AFTER_FINISH
from ..errors import BadRequest, Interrupted, ProtocolError, ProviderError, RxllmError, Timeout, TransportError
from ..operators.timeouts import Watch
from ..runtime.scheduler import Scheduler
from ..runtime.source import connect
from ..values.chunk import Chunk, join
from ..wire.error_documents import excerpt, provider_error
from ..wire.sse import BYTE_ORDER_MARK, DEFAULT_LIMIT, Frame, is_json, may_be_whole, valid_utf8
from ..wire.weights import check_weight
from ._documents import is_cut, json_of
from ._mending import NO_NEWS, Halves, mended, separated, simpler

if TYPE_CHECKING:
    import asyncio

    from ._exchange import Exchange

__all__ = ["Reader"]

T = TypeVar("T")
BEGINNING = 1000  # bytes of an unexpected response that an error shows
LINGER = 0.05  # seconds that the HTTP body may still take to end after the answer's end marker
WHOLE_LIMIT = DOCUMENT_BYTES  # of an answer that is not streamed; a larger event_limit raises it


RESUMED = 3  # how often a stream is resumed without a new chunk


class Reader(Watch, abc.ObserverBase[bytes]):
    """Converts bytes to frames and chunks; or, if the answer is one JSON document, to one chunk.

    Some servers answer with a document although the request asks for a stream. The first byte tells.

    The reader enforces the limits on silence itself, because it knows which chunks arrived together. An operator would
    have to read the clock for each chunk.
    """

    scheduler: Scheduler

    __slots__ = (
        "beginning",
        "decode",
        "decoder",
        "document",
        "ends_at",
        "exchange",
        "frames",
        "halves",
        "has_repeated",
        "linger",
        "llm",
        "observer",
        "request",
        "resumed",
        "usual_idle",
        "will_flush",
    )

    def __init__(self, observer: abc.ObserverBase[Chunk], scheduler: Scheduler, exchange: Exchange) -> None:
        self.observer = observer
        self.exchange = exchange
        self.has_repeated = False  # the request, without the fields that the server refused
        self.resumed = 0
        self.usual_idle = inf
        self.llm = llm = exchange.llm
        self.request = request = exchange.request
        self.begin()
        # This must be the last statement: from here on, `late` may run, in another thread.
        super().__init__(scheduler, llm.timeout.first_chunk, None if request.stream is False else llm.timeout.idle)

    def begin(self) -> None:
        """Reset the state, before the first byte of a response."""
        self.halves: Halves | None = None  # set as soon as a server has split a character
        self.beginning: bytes | None = b""  # the first bytes, until the first frame
        self.document: bytearray | None = bytearray()
        if self.request.stream is not False:
            self.expect_stream()
        self.linger: asyncio.TimerHandle | None = None
        self.will_flush = False  # the timer will look for a frame without its end mark
        self.ends_at: float | None = None  # set by the finish reason: when the stream ends in spite of further usage

    def expect_stream(self) -> None:
        """Make the framing and the decoder, in place of a document, which needs neither of them."""
        self.document = None
        self.frames = self.llm._frames(self.request)  # pyright: ignore[reportPrivateUsage]
        self.decoder = self.llm._decoder(self.request)  # pyright: ignore[reportPrivateUsage]
        self.decode = self.decoder.chunk

    def on_next(self, value: bytes) -> None:
        if self.linger is not None:
            return
        try:
            frames = self.frames.feed(value) if self.beginning is None else self.opened(value)
        except RxllmError as error:
            self.fail(error)
        else:
            if self.document is None:
                self.read(frames)
            if not self.will_flush and self.may_flush():
                self.will_flush = True
                self.sleep(AFTER_FINISH)

    def may_flush(self) -> bool:
        """Return whether what arrived may be whole without its end mark."""
        return self.frames.may_flush if self.document is None else may_be_whole(self.document)

    def look(self, *_: object) -> None:
        """Read what arrived without its end mark, if it is complete; then see to the limits."""
        if self.will_flush:
            self.will_flush = False
            if self.may_flush() and not self.flush():
                return
        super().look()

    def flush(self) -> bool:
        """Read what arrived without its end mark, if it is complete. Return whether the stream goes on."""
        if self.document is None:
            return self.drain()
        if not is_json(bytes(self.document)):
            return True
        if self.finish():
            self.end()
        return False

    def opened(self, data: bytes) -> list[Frame]:
        """Return the frames in the first bytes. A document returns none; the reader keeps it until it is whole."""
        if not self.document:
            beginning = ((self.beginning or b"") + data).removeprefix(BYTE_ORDER_MARK).lstrip()
            if self.is_stream(beginning):
                if self.document is not None:
                    self.expect_stream()
                frames = self.first_frames(data, beginning)
                self.beginning = None if frames else beginning[:BEGINNING]
                if frames and self.request.stream is False and not isinstance(self.observer, _Joined):
                    self.observer = _Joined(self.observer)
                return frames
            self.document = bytearray()
            data = beginning
        self.document += data
        limit = self.document_limit()
        if len(self.document) > limit:
            frame = bytes(self.document[:BEGINNING])
            self.document.clear()  # frees the memory, because the traceback of the error references the document
            text = f"The answer is longer than {limit >> 20} MiB, unpacked. To allow longer answers, raise event_limit."
            raise ProtocolError(text, frame=frame)
        return []

    def first_frames(self, data: bytes, beginning: bytes) -> list[Frame]:
        """Return the frames in the first bytes. If they are not a stream, the error shows how they begin."""
        try:
            return self.frames.feed(data)
        except ProtocolError:
            if self.frames.begins(beginning):
                raise
            raise _other(beginning) from None

    def is_stream(self, beginning: bytes) -> bool:
        """Return whether a response that begins with these bytes is read as frames, not as one JSON document."""
        asked_whole = self.request.stream is False
        if beginning.startswith((b"{", b"[")):
            return not asked_whole and self.frames.begins(beginning)
        return not asked_whole or self.llm._frames(self.request).begins(beginning)  # pyright: ignore[reportPrivateUsage]

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
        decoder, upstream = self.decoder, self.upstream
        emit = self.observer.on_next if self.ends_at is None else self.after_finish
        decode, is_news = self.decode, True
        for name, data in (rest := iter(frames)):
            try:
                try:
                    chunk = decode(data)
                except ProtocolError as error:
                    chunk = self.mend((name, data), error, frames, len(frames) - length_hint(rest))
                    decode = self.decode
            except Exception as error:
                if name in NO_NEWS:
                    continue
                if name == "error" and not isinstance(error, ProviderError):  # such as a plain text
                    error = provider_error(json_of(data), data)
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
        finished = decoder.finished
        is_over = finished and self.ends_at is not None and self.clock() > self.ends_at
        if is_over or (decoder.ended and decoder.complete):
            # The HTTP body should end now, too, which frees the connection for the next request. If it does not end
            # within LINGER seconds, the reader closes the connection.
            self.alarm.dispose()
            self.linger = self.scheduler.loop.call_later(LINGER, self.end)
        elif finished and self.ends_at is None:
            self.started, self.last = True, self.clock()
            self.usual_idle, self.idle = self.idle, min(self.idle, AFTER_FINISH)
            self.ends_at = self.last + USAGE_AFTER_FINISH
            self.sleep(AFTER_FINISH)
        elif self.ends_at is not None and not finished:  # some gateways go on with another response
            self.ends_at, self.idle = None, self.usual_idle

    def after_finish(self, chunk: Chunk) -> None:
        """Emit a chunk after the finish reason. Only content, which usage is not, may go on for ever."""
        if chunk.parts:
            self.ends_at = self.clock() + USAGE_AFTER_FINISH
        self.observer.on_next(chunk)

    def mend(self, frame: Frame, error: ProtocolError, frames: list[Frame], place: int) -> Chunk | None:
        """Decode a frame that is not valid JSON. From the first split character on, `joined` decodes each frame."""
        name, data = frame
        if name != "error" and (objects := separated(data)):  # they become the next frames, which begin at `place`
            frames[place:place] = [(name, each) for each in objects]
            return None
        if (simple := simpler(data)) is not None and simple != data:
            return self.decode(simple) if simple else None
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
        if self.linger is None and not self.flush():
            return
        # A connection that breaks after the end of the answer is not an error.
        if self.linger is not None or (
            self.document is None and self.decoder.complete and isinstance(error, Interrupted)
        ):
            self.end()
        else:
            self.fail(error)

    def on_completed(self) -> None:
        if self.linger is not None or self.finish():
            self.end()

    def late(self, error: Timeout) -> None:
        """Handle a time limit. The answer may be whole nevertheless, without its end marker or its last blank line."""
        self.alarm.dispose()
        if not self.flush():
            return
        if self.document is None and (self.decoder.finished or self.decoder.complete):
            self.end()
            return
        if self.started:  # else a held fragment of a tool call would count as an answer and prevent a fallback
            self.say_rest()
        self.observer.on_error(self.exchange.secrets.clean(error))

    def fail(self, error: Exception) -> None:
        """End the stream with an error, unless a retry without rejected fields or a resumption is possible."""
        if isinstance(error, BadRequest) and error.status in (400, 422) and not (self.has_repeated or self.started):
            self.has_repeated = True
            answer = self.exchange.without_refused(error, self.llm._UNASKED)  # pyright: ignore[reportPrivateUsage]
            if answer is not None:
                self.begin()
                self.upstream.disposable = connect(answer, self, self.scheduler)
                return
        if isinstance(error, TransportError) and not isinstance(error, Timeout) and self.resume():
            return
        self.alarm.dispose()
        self.say_rest()
        self.observer.on_error(self.exchange.secrets.clean(error))

    def resume(self) -> bool:
        """Continue the answer where the connection broke, if the server keeps it. Return whether it does."""
        if self.document is not None or self.resumed >= RESUMED:
            return False
        answer = self.exchange.rest(self.decoder)
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
        if self.document is not None:
            return
        rest = self.decoder.rest()
        if self.halves is not None:
            rest = join(filter(None, (self.halves.joined(rest), self.halves.rest()))) or None
        if rest is not None:
            self.observer.on_next(rest)

    def finish(self) -> bool:
        """Emit the rest of the answer. Return whether the answer is whole."""
        if self.request.stream is False and self.beginning == b"":
            self.document = self.document or bytearray()  # the response was empty, or only blank
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
