# ruff: noqa: S101, SIM300  (a contract consists of asserts; expected == actual)
"""The required behaviour of every model, as test classes to inherit: `LLMContract`, and `ProviderContract` over HTTP.

::

    class TestParrot(LLMContract):
        def create_model(self):
            return Parrot()

    class TestMyProvider(ProviderContract):
        def provider(self, url):
            return MyProvider("m", base_url=url, api_key=self.key)

        def stream(self, text, *, usage=None, finish="stop"):
            return [*(frame(piece) for piece in text), last_frame(usage, finish)]

A provider may lack some features: `whole`, `impatient` and `error_frame` skip their tests unless they are overridden.
The contracts need only pytest: asynchronous tests create their own event loop, without any plug-in.

The module is longer than 300 lines because it is one list: a provider that passes it works.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import time
import traceback
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, ClassVar, TypeVar, Unpack

import pytest
import reactivex as rx
from reactivex import operators as ops

from ..bridges import astream, stream
from ..errors import (
    AuthenticationError,
    BadRequest,
    Interrupted,
    Overloaded,
    ProviderError,
    RateLimited,
    RxllmError,
    Timeout,
    TransportError,
)
from ..events import Cancelled, Event, Failed, Finished, RunChunk, Started
from ..llm import LLM
from ..misuse import MisuseError
from ..values.chunk import Chunk
from ..values.message import Message
from ..values.parameters import Settings
from ..values.usage import Usage
from ..values.vocabulary import FinishReason
from .leaks import nothing_left_behind
from .servers import End, Endless, Exchange, FakeServer, Received, Reply, Signal, Step

__all__ = ["LLMContract", "ProviderContract"]

T = TypeVar("T")

STATUSES: Sequence[tuple[int, type[ProviderError], bool]] = (
    (400, BadRequest, False),
    (401, AuthenticationError, False),
    (403, AuthenticationError, False),
    (404, BadRequest, False),
    (413, BadRequest, False),
    (429, RateLimited, True),
    (500, ProviderError, True),
    (503, Overloaded, True),
    (529, Overloaded, True),
)


def _comparable(answer: Message) -> tuple[Any, ...]:
    """Return the facts that every way of asking must return alike; ids and counts may differ."""
    return answer.parts, answer.finish_reason


class LLMContract:
    """The required behaviour of any LLM. The model must give the same answer each time, so a random one needs a seed.

    Attributes:
        prompt: the prompt of all tests.
        patience: seconds to wait for an expected event.
        promptness: seconds within which a cancellation must take effect.
    """

    prompt: ClassVar[str] = "sparkling water"
    patience: ClassVar[float] = 60.0
    promptness: ClassVar[float] = 5.0

    def create_model(self) -> LLM:
        """Return the model to test. Override this."""
        raise NotImplementedError(f"{type(self).__name__} must override create_model, which returns the model to test.")

    @pytest.fixture
    def llm(self, request: pytest.FixtureRequest) -> LLM:
        """The model to test."""
        return self.create_model()

    @pytest.fixture
    def first_streamed_then_whole(self, request: pytest.FixtureRequest) -> LLM:
        """The model to test, for a test that asks first for a stream and then for a whole answer."""
        llm: LLM = request.getfixturevalue("llm")
        return llm

    @pytest.fixture(autouse=True)
    def leaks(self) -> Generator[None]:
        """Fail a test that leaves a thread, a task or a socket open."""
        with nothing_left_behind(self.patience):
            yield

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Return the result of a coroutine, run on a new event loop within `patience`."""
        return asyncio.run(asyncio.wait_for(main, self.patience))

    # ── the answer ───────────────────────────────────────────────────────────────────────────────────────────────

    def test_sum_of_the_chunks_is_the_answer(self, llm: LLM) -> None:
        """A streamed and a whole request give the same Message; no chunk is empty."""
        chunks = list(llm.stream(self.prompt))
        assert {Chunk} == {type(chunk) for chunk in chunks}
        assert all(chunks), "a model must not emit empty chunks"
        assert _comparable(llm.invoke(self.prompt)) == _comparable(sum(chunks, Chunk()).message())

    def test_whole_answer_is_one_chunk(self, first_streamed_then_whole: LLM) -> None:
        """stream=False gives one chunk with the same answer."""
        llm = first_streamed_then_whole
        expected = _comparable(llm.invoke(self.prompt))
        assert [expected] == [_comparable(chunk.message()) for chunk in llm.stream(self.prompt, stream=False)]

    def test_async_and_sync_answers_are_equal(self, llm: LLM) -> None:
        """On two event loops in turn, and without one."""

        async def ask() -> tuple[Message, Message]:
            chunks = [chunk async for chunk in llm.astream(self.prompt)]
            return sum(chunks, Chunk()).message(), await llm.ainvoke(self.prompt)

        answers = [*self.run(ask()), *self.run(ask()), llm.invoke(self.prompt)]
        assert [_comparable(answers[-1])] * 5 == [_comparable(answer) for answer in answers]

    def test_each_subscription_is_a_new_request(self, llm: LLM) -> None:
        """The answer is a cold observable and can be subscribed to again."""
        answer = llm(self.prompt)
        first, second = [_comparable(sum(answer.pipe(stream()), Chunk()).message()) for _ in range(2)]
        assert first == second

    def test_batch_equals_single_answers(self, llm: LLM) -> None:
        """A batch returns the same answers, in the order of the prompts."""
        expected = [_comparable(llm.invoke(self.prompt))] * 9
        assert expected == [_comparable(each) for each in llm.batch([self.prompt] * 9, max_concurrency=4)]
        assert expected == [
            _comparable(answer) for answer in self.run(llm.abatch([self.prompt] * 9, max_concurrency=4))
        ]

    def test_model_is_an_operator(self, llm: LLM) -> None:
        """The model answers an observable's prompt, once or per item, with a plain Observable."""
        expected = llm.invoke(self.prompt).text
        for stream_of_texts in (llm(rx.of(self.prompt)), rx.of(self.prompt).pipe(ops.concat_map(llm))):
            texts = stream_of_texts.pipe(ops.map(str), stream())
            assert expected == "".join(texts)

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────

    def test_events_of_a_run(self, llm: LLM) -> None:
        """Started, the chunks and Finished belong to one run; the runs of inner models are its descendants."""
        events: list[Event] = list(llm.events(self.prompt).pipe(stream()))
        root, others = _root_and_others(events)
        started, *chunks, finished = root
        assert (Started, Finished) == (type(started), type(finished))
        assert {RunChunk} >= {type(chunk) for chunk in chunks}
        assert [] == [event for event in others if started.run.id not in event.run.parent_ids]
        assert isinstance(finished, Finished)
        assert _comparable(llm.invoke(self.prompt)) == _comparable(finished.message)

    def test_run_ends_once(self, llm: LLM) -> None:
        """A run that the subscriber cancels ends with one event: Cancelled, or Finished just before."""
        events: list[Event] = []
        with llm.with_config(handlers=[events.append]).stream(self.prompt) as chunks:
            next(chunks)
        deadline = time.monotonic() + self.patience
        while not (ends := _ends(_root_and_others(events)[0])) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert 1 == len(ends)
        root, _ = _root_and_others(events)
        assert isinstance(root[-1], (Finished, Cancelled))

    def test_subscribers_context_is_visible(self, llm: LLM) -> None:
        """Operators and handlers see the subscriber's context variables."""
        mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="nobody")
        seen: list[str] = []

        async def ask() -> None:
            mark.set("me")
            chunks = llm.with_config(handlers=[lambda _: seen.append(mark.get())])(self.prompt)
            async for _ in chunks.pipe(ops.do_action(lambda _: seen.append(mark.get())), astream()):
                pass

        self.run(ask())
        assert {"me"} == set(seen)

    # ── cancellation ─────────────────────────────────────────────────────────────────────────────────────────────

    def test_break_is_not_an_error(self, llm: LLM) -> None:
        """A loop may end in the middle, and nothing keeps running."""
        for _ in llm.stream(self.prompt):
            break

        async def leave() -> None:
            async with llm.astream(self.prompt) as chunks:
                await anext(chunks)

        self.run(leave())

    def test_reading_task_can_be_cancelled(self, llm: LLM) -> None:
        """A task that is cancelled between two chunks ends as cancelled."""

        async def cancel() -> None:
            has_chunk = asyncio.Event()

            async def read() -> None:
                async for _ in llm.astream(self.prompt):
                    has_chunk.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(read())
            await has_chunk.wait()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

        self.run(cancel())

    def test_disposed_subscriber_receives_nothing(self, llm: LLM) -> None:
        """A subscriber that disposes at once receives no notification."""

        async def leave() -> list[object]:
            events: list[object] = []
            subscription = llm(self.prompt).subscribe(events.append, events.append, lambda: events.append("the end"))
            subscription.dispose()
            await llm.ainvoke(self.prompt)
            return events

        assert [] == self.run(leave())

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────

    def test_bind_returns_a_copy(self, llm: LLM) -> None:
        """The copy has the same class, and the original keeps its parameters."""
        before = llm.parameters
        bound = llm.bind(temperature=0.5, tags=["bound"])
        assert (type(llm), 0.5, ("bound",)) == (type(bound), bound.parameters.temperature, bound.tags)
        assert (before, ()) == (llm.parameters, llm.tags)

    @pytest.mark.parametrize("wrong", [None, 5, [], [5]])
    def test_invalid_prompt_is_refused(self, llm: LLM, wrong: Any) -> None:
        """The call raises MisuseError."""
        with pytest.raises(MisuseError):
            llm(wrong)

    def test_unknown_parameter_is_refused(self, llm: LLM) -> None:
        """The message names the most similar parameter."""
        misspelt: Any = {"temprature": 0}
        with pytest.raises(MisuseError, match="temperature"):
            llm.invoke(self.prompt, **misspelt)


def _root_and_others(events: Sequence[Event]) -> tuple[list[Any], list[Any]]:
    """Return the events of the root run, and those of other runs."""
    of_runs = [event for event in events if not isinstance(event, Chunk) or isinstance(event, RunChunk)]
    root = of_runs[0].run.id
    return [event for event in of_runs if event.run.id == root], [event for event in of_runs if event.run.id != root]


def _ends(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, (Finished, Failed, Cancelled))]


class ProviderContract(LLMContract):
    """The required behaviour of any LLM behind a streaming HTTP API, tested with a real local server.

    Attributes:
        key: the key that `provider` sends; None if it needs none.
        usage: the input and output counts that `stream` and `whole` report; None if they cannot.
        finishes: the finish reasons that they can report.
        content_type: the content type of a stream.
        statuses: for each HTTP status, the error's class and whether the error is retryable.
    """

    key: ClassVar[str | None] = "sk-do-not-show-this-to-anybody"
    usage: ClassVar[tuple[int, int] | None] = (3, 5)
    finishes: ClassVar[Sequence[FinishReason]] = ("stop", "length")
    content_type: ClassVar[str] = "text/event-stream"
    statuses: ClassVar[Sequence[tuple[int, type[ProviderError], bool]]] = STATUSES

    # ── what a provider overrides ────────────────────────────────────────────────────────────────────────────────

    def provider(self, url: str) -> LLM:
        """Return the provider for the server at `url`, with `key` and without retries. Override this."""
        raise NotImplementedError(f"{type(self).__name__} must override provider, which returns the LLM to test.")

    def impatient(self, url: str, seconds: float) -> LLM:
        """Return the provider with this read timeout. Override this if the provider has such a timeout."""
        pytest.skip("the provider has no read timeout")

    def stream(
        self, text: Sequence[str], *, usage: tuple[int, int] | None = None, finish: FinishReason = "stop"
    ) -> Sequence[bytes]:
        """Return the bytes of a streamed answer. Override this.

        Args:
            text: the pieces of text; each is sent in bytes of its own, readable as UTF-8.
            usage: the input and output tokens to report; None reports none.
            finish: the finish reason to report.

        Returns:
            The protocol's units, which are sent one by one; the last one contains the end of the stream.
        """
        raise NotImplementedError(f"{type(self).__name__} must override stream, the bytes of an answer.")

    def whole(
        self, text: Sequence[str], *, usage: tuple[int, int] | None = None, finish: FinishReason = "stop"
    ) -> bytes:
        """Return the JSON body of the same answer as a whole. Override this if the provider supports stream=False."""
        pytest.skip("the provider has no whole answers")

    def error_body(self, status: int, message: str) -> bytes:
        """Return the response body for an HTTP error status. The default is OpenAI's."""
        return json.dumps({"error": {"message": message, "type": "error", "code": None}}).encode()

    def error_frame(self, message: str) -> bytes:
        """Return the frame that ends a failing stream. Override this if the protocol has one."""
        pytest.skip("the protocol has no errors in a stream")

    # ── helpers ──────────────────────────────────────────────────────────────────────────────────────────────────

    @pytest.fixture
    def server(self) -> Generator[FakeServer]:
        """A local server that answers with three pieces of text unless a test sets other replies."""
        with FakeServer(self.streamed(self.stream(["Hel", "lo", " you"]))) as server:
            yield server

    @pytest.fixture
    def llm(self, request: pytest.FixtureRequest) -> LLM:
        """The provider at the server."""
        server: FakeServer = request.getfixturevalue("server")
        return self.provider(server.url)

    @pytest.fixture
    def first_streamed_then_whole(self, request: pytest.FixtureRequest) -> LLM:
        """The provider at a server that replies with a stream first, then with a whole answer."""
        server: FakeServer = request.getfixturevalue("server")
        server.reply(self.streamed(self.stream(["Hel", "lo"])), Reply.json(self.whole(["Hel", "lo"])))
        return self.provider(server.url)

    def streamed(self, steps: Sequence[Step]) -> Reply:
        """Return a reply that streams these steps."""
        return Reply(steps, content_type=self.content_type)

    def error(self, status: int, message: str = "It went wrong") -> Reply:
        """Return a reply with an error."""
        return Reply.json(self.error_body(status, message), status=status)

    def until(self, said: str, text: Sequence[str]) -> tuple[list[bytes], list[bytes]]:
        """Return the pieces of a stream of this text: those up to `said`, and the rest."""
        pieces = list(self.stream(text))
        for index, piece in enumerate(pieces):
            if said.encode() in piece:
                return pieces[: index + 1], pieces[index + 1 :]
        pytest.fail(f"stream({text!r}) has no piece that contains {said!r}")

    def outcome(
        self, llm: LLM, *, then: Callable[[str], object] = bool, **parameters: Unpack[Settings]
    ) -> tuple[str, RxllmError | None]:
        """Return the received text, and the error that ended it or None; `then` is called with the text so far."""

        async def read() -> tuple[str, RxllmError | None]:
            text = ""
            try:
                async for chunk in llm.astream(self.prompt, **parameters):
                    text += chunk.text
                    then(text)
            except RxllmError as error:
                return text, error
            return text, None

        return self.run(read())

    def failed(self, llm: LLM, *, then: Callable[[str], object] = bool, **parameters: Unpack[Settings]) -> RxllmError:
        """Return the error; check that `partial` is the received text and `request` the request."""
        text, error = self.outcome(llm, then=then, **parameters)
        assert error is not None, f"expected an error after {text!r}"
        assert error.request is not None
        assert self.prompt == error.request.text
        assert text == (error.partial.text if error.partial else "")
        return error

    def closes(self, exchange: Exchange) -> None:
        """Check that the connection closes promptly."""
        try:
            exchange.closed.wait(self.promptness)
        except TimeoutError:
            pytest.fail(f"the connection is still open {self.promptness:g} s after the cancellation")

    # ── the answer ───────────────────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize(
        "text",
        [[], ["Hello"], ["Hel", "", "lo", " wörld", " 🌍", "\n\n", " "], [" "] * 1000],
        ids=["silence", "one", "many", "very many"],
    )
    def test_text_usage_and_finish(self, server: FakeServer, text: list[str]) -> None:
        """The text, the counts and the finish reason are those of the response, for no, one and many chunks."""
        counts = self.usage and Usage(input_tokens=self.usage[0], output_tokens=self.usage[1])
        for finish in self.finishes:
            server.reply(self.streamed(self.stream(text, usage=self.usage, finish=finish)))
            answer = self.provider(server.url).invoke(self.prompt)
            assert ("".join(text), counts, finish) == (answer.text, self.usage and answer.usage, answer.finish_reason)

    def test_whole_answer_equals_the_streamed_one(self, server: FakeServer) -> None:
        """Both give the same Message."""
        text = ["Hé", "llo 🌍"]
        for finish in self.finishes:
            server.reply(
                Reply.json(self.whole(text, usage=self.usage, finish=finish)),
                self.streamed(self.stream(text, usage=self.usage, finish=finish)),
            )
            whole, streamed = (self.provider(server.url).invoke(self.prompt, stream=way) for way in (False, True))
            assert _comparable(streamed) == _comparable(whole)
            assert (streamed.usage, "Héllo 🌍") == (whole.usage, whole.text)

    def test_each_piece_is_emitted_at_once(self, server: FakeServer) -> None:
        """No chunk waits for the next one, and none is invented."""
        before, after = self.until("wonderful", ["Hello ", "wonderful", " world"])
        held = Signal()
        server.reply(self.streamed([*before, held, *after]))

        async def read() -> list[str]:
            texts: list[str] = []
            async for chunk in self.provider(server.url).astream(self.prompt):
                texts += [chunk.text] if chunk.text else []
                if len(texts) == 2:
                    held.set()
            return texts

        assert ["Hello ", "wonderful", " world"] == self.run(read())

    @pytest.mark.parametrize("size", [1, 7])
    def test_answer_does_not_depend_on_the_byte_boundaries(self, server: FakeServer, size: int) -> None:
        """The bytes may be split within a unit and within a character."""
        body = b"".join(self.stream(["Hé", "llo 🌍"]))
        server.reply(self.streamed([body[at : at + size] for at in range(0, len(body), size)]))
        assert ("Héllo 🌍", None) == self.outcome(self.provider(server.url))

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────

    def test_two_subscriptions_are_two_requests(self, server: FakeServer, llm: LLM) -> None:
        """Nothing is sent before a subscription, or after a misuse."""
        answer = llm(self.prompt)
        misspelt: Any = {"temprature": 0}
        with pytest.raises(MisuseError):
            llm.invoke(self.prompt, **misspelt)
        assert [] == server.requests
        for count in (1, 2):
            assert "Hello you" == "".join(map(str, answer.pipe(stream())))
            assert count == len(server.requests)

    def test_failure_in_a_batch_affects_one_prompt(self, server: FakeServer, llm: LLM) -> None:
        """The other prompts have their answers."""

        def reply(received: Received) -> Reply:
            fails = b"stumble" in received.body
            return self.error(500) if fails else self.streamed(self.stream(["ok"]))

        server.reply(reply)
        answers = llm.batch(["one", "stumble", "three"], return_exceptions=True)
        assert [Message, ProviderError, Message] == [type(answer) for answer in answers]

    def test_closed_idle_connection_is_replaced(self, server: FakeServer, llm: LLM) -> None:
        """After the server closed a kept-alive connection, the next request succeeds."""
        for number in range(3):
            assert "Hello you" == llm.invoke(self.prompt).text
            server.close_idle()
            server.exchange(number).wait_closed()

    # ── errors of the provider ───────────────────────────────────────────────────────────────────────────────────

    def test_status_has_its_error_class(self, server: FakeServer, llm: LLM) -> None:
        """The error has class, status, retryability and the provider's message, streamed or whole."""
        for status, kind, retryable in self.statuses:
            server.reply(self.error(status, "It went wrong"))
            for streaming in (True, False):
                error = self.failed(llm, stream=streaming)
                assert (kind, retryable) == (type(error), error.retryable), f"HTTP {status}"
                assert status == getattr(error, "status", None)
                assert "It went wrong" in str(error)

    def test_retry_after_is_reported(self, server: FakeServer, llm: LLM) -> None:
        """The header Retry-After is the error's `retry_after`."""
        server.reply(Reply.json(self.error_body(429, "Slow down"), status=429, headers={"retry-after": "7"}))
        error = self.failed(llm)
        assert isinstance(error, RateLimited)
        assert 7.0 == error.retry_after

    @pytest.mark.parametrize("after", ["the end", "its proper end"])
    def test_error_in_the_stream_raises(self, server: FakeServer, llm: LLM, after: str) -> None:
        """The text before the error is emitted and is the error's `partial`; a proper end after it changes nothing."""
        before, rest = self.until("world", ["Hello ", "world"])
        frame = self.error_frame("It broke")
        server.reply(self.streamed([*before, frame, *(rest[-1:] if after == "its proper end" else [])]))
        error = self.failed(llm)
        assert isinstance(error, ProviderError)
        assert "It broke" in str(error)
        assert error.partial is not None
        assert "Hello world" == error.partial.text

    @pytest.mark.parametrize("body", [b"", b"<html>Welcome</html>"], ids=["nothing", "a page"])
    def test_body_that_is_not_an_answer_raises(self, server: FakeServer, llm: LLM, body: bytes) -> None:
        """A 200 response that is empty or has another format is never an empty answer."""
        server.reply(Reply(body, content_type="text/html"))
        self.failed(llm)

    # ── errors of the network ────────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize("end", [End.CLEAN, End.FIN, End.RST])
    @pytest.mark.parametrize("more", [False, True], ids=["between two units", "within a unit"])
    def test_cut_stream_raises_interrupted(self, server: FakeServer, llm: LLM, end: End, more: bool) -> None:
        """A cut stream raises a retryable Interrupted with exactly the received text, and never completes."""
        before, after = self.until("Hello", ["Hello", " you"])
        received_all = Signal()
        server.reply(self.streamed([*before, *([after[0][:5]] if more else []), received_all, end]))

        def then(text: str) -> None:
            if text == "Hello":
                received_all.set()

        error = self.failed(llm, then=then)
        assert (Interrupted, True) == (type(error), error.retryable)
        assert error.partial is not None
        assert "Hello" == error.partial.text

    def test_missing_server_raises_transport_error(self) -> None:
        """The error is retryable and names the address."""
        with FakeServer() as gone:
            url = gone.url
        error = self.failed(self.provider(url))
        assert isinstance(error, TransportError)
        assert error.retryable
        assert url.removeprefix("http://") in str(error)

    def test_server_that_keeps_the_body_open(self, server: FakeServer, llm: LLM) -> None:
        """The protocol's end marker completes the answer, and the connection is closed soon after."""
        server.reply(self.streamed([*self.stream(["ok"]), End.HANG]))
        assert "ok" == llm.invoke(self.prompt).text
        server.exchange(0).wait_closed()

    @pytest.mark.parametrize("steps", [(), (b"",)], ids=["before the headers", "after the headers"])
    def test_silence_before_the_first_chunk_times_out(self, server: FakeServer, steps: Sequence[Step]) -> None:
        """The answer fails with Timeout, and the request is closed."""
        server.reply(self.streamed([*steps, End.HANG]))
        assert Timeout is type(self.failed(self.impatient(server.url, 0.2)))
        for exchange in server.exchanges:  # on a slow machine the request may not have arrived
            exchange.wait_closed()

    def test_silence_in_the_middle_times_out(self, server: FakeServer) -> None:
        """The Timeout has the received text as `partial`."""
        before, _ = self.until("Hello", ["Hello", " you"])
        server.reply(self.streamed([*before, End.HANG]))
        error = self.failed(self.impatient(server.url, 0.25))
        assert Timeout is type(error)
        assert error.partial is not None
        assert "Hello" == error.partial.text
        server.exchange(0).wait_closed()

    # ── cancellation ─────────────────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize("streaming", [True, False], ids=["streamed", "whole"])
    def test_early_cancellation_closes_the_request(self, server: FakeServer, llm: LLM, streaming: bool) -> None:
        """The server sees the disconnection promptly."""
        server.reply(self.streamed([End.HANG]))

        async def leave() -> None:
            subscription = llm.bind(stream=streaming)(self.prompt).subscribe()
            await server.exchange(0).arrived.soon()
            subscription.dispose()
            await asyncio.to_thread(self.closes, server.exchange(0))

        self.run(leave())

    @pytest.mark.parametrize("way", ["dispose", "aclose", "cancel"])
    def test_cancellation_in_the_middle_closes_the_request(self, server: FakeServer, llm: LLM, way: str) -> None:
        """For dispose, aclose and task cancellation, the server sees the disconnection promptly."""
        before, _ = self.until("Hello", ["Hello", " you"])
        server.reply(self.streamed([*before, End.HANG]))

        async def leave() -> None:
            has_chunk = asyncio.Event()
            chunks = llm(self.prompt)
            if way == "dispose":
                subscription = chunks.subscribe(lambda _: has_chunk.set())
                await has_chunk.wait()
                subscription.dispose()
            else:
                iterator = chunks.pipe(astream())

                async def read() -> None:
                    async for _ in iterator:
                        has_chunk.set()

                task = asyncio.create_task(read())
                await has_chunk.wait()
                await iterator.aclose() if way == "aclose" else task.cancel()
                await asyncio.wait([task])
            await asyncio.to_thread(self.closes, server.exchange(0))
            assert server.exchange(0).aborted

        self.run(leave())

    def test_break_closes_the_request(self, server: FakeServer, llm: LLM) -> None:
        """The end of a synchronous loop closes the connection."""
        before, _ = self.until("Hello", ["Hello", " you"])
        server.reply(self.streamed([*before, End.HANG]))
        for chunk in llm.stream(self.prompt):
            if chunk.text:
                break
        self.closes(server.exchange(0))

    def test_slow_reader_pauses_the_server(self, server: FakeServer, llm: LLM) -> None:
        """Unread data is not fetched; the transfer resumes when the reader continues."""
        before, _ = self.until("Hello", ["Hello", " you"])
        server.reply(self.streamed([*before, Endless(before[-1] * 100)]))
        with llm.stream(self.prompt) as chunks:
            next(chunks)
            stalled = server.exchange(0).wait_stalled()
            for _ in chunks:
                if server.exchange(0).bytes_sent > stalled:
                    break
        self.closes(server.exchange(0))

    # ── secrets ──────────────────────────────────────────────────────────────────────────────────────────────────

    def test_key_is_never_shown(self, server: FakeServer, llm: LLM, caplog: pytest.LogCaptureFixture) -> None:
        """If the server repeats the key, no repr, str, traceback, body or log line contains it."""
        if self.key is None:
            pytest.skip("the provider has no key")
        server.reply(self.error(401, f"Incorrect API key provided: {self.key}"))
        with caplog.at_level(logging.DEBUG):
            error = self.failed(llm)
        facts = [getattr(error, name, None) for name in ("body", "frame", "code", "request", "partial")]
        shown = [*map(repr, [llm, error, *facts]), str(error), *traceback.format_exception(error), caplog.text]
        assert [] == [text for text in shown if self.key in text]
        [request] = server.requests
        sent = f"{dict(request.headers)} {request.query} {request.body!r}"
        assert self.key in sent, "provider() must send self.key, or this test proves nothing"
