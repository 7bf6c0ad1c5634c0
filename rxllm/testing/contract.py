# ruff: noqa: S101, SIM300  (asserting is what a contract does, expected == actual)
"""What any model must do, as classes of tests to inherit: `LLMContract`, and `ProviderContract` for those behind HTTP.

::

    class TestParrot(LLMContract):
        def made(self):
            return Parrot()

    class TestMyProvider(ProviderContract):
        def provider(self, url):
            return MyProvider("m", base_url=url, api_key=self.key)

        def stream(self, text, *, usage=None, finish="stop"):
            return [*(frame(piece) for piece in text), last_frame(usage, finish)]

What a provider can't do is skipped: `whole`, `impatient` and `error_frame` skip their tests unless they are overridden.
They need pytest alone: what is asynchronous runs on a loop of its own, whatever plug-in there is for that.

One file over the usual length, because it is one list: a provider that passes it is a provider.
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
from ..values.message import FinishReason, Message
from ..values.parameters import Settings
from ..values.usage import Usage
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


def _said(answer: Message) -> tuple[Any, ...]:
    """What must be the same however one asks; ids and counts may differ."""
    return answer.parts, answer.finish_reason


class LLMContract:
    """What any LLM must do. It must answer the same each time, so what draws lots needs a seed.

    Attributes:
        prompt: what it is asked.
        patience: seconds after which what has not come will not.
        promptness: seconds within which leaving has to be noticed.
    """

    prompt: ClassVar[str] = "sparkling water"
    patience: ClassVar[float] = 10.0
    promptness: ClassVar[float] = 0.5

    def made(self) -> LLM:
        """The model to test. Override this."""
        raise NotImplementedError(f"{type(self).__name__} must override made, which returns the model to test.")

    @pytest.fixture
    def llm(self, request: pytest.FixtureRequest) -> LLM:
        """The model to test."""
        return self.made()

    @pytest.fixture
    def first_streamed_then_whole(self, request: pytest.FixtureRequest) -> LLM:
        """The model to test, where it will be asked for a stream, and then for a whole answer."""
        llm: LLM = request.getfixturevalue("llm")
        return llm

    @pytest.fixture(autouse=True)
    def leaks(self) -> Generator[None]:
        """Fails a test that leaves a thread, a task or a socket behind."""
        with nothing_left_behind(self.patience):
            yield

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine, on a loop of its own, and within the patience."""
        return asyncio.run(asyncio.wait_for(main, self.patience))

    # ── the answer ───────────────────────────────────────────────────────────────────────────────────────────────

    def test_the_sum_of_the_chunks_is_the_answer(self, llm: LLM) -> None:
        """Streamed and asked for as a whole: the same Message, of Chunks of which none is empty."""
        chunks = list(llm.stream(self.prompt))
        assert {Chunk} == {type(chunk) for chunk in chunks}
        assert all(chunks), "an empty chunk is noise"
        assert _said(llm.invoke(self.prompt)) == _said(sum(chunks, Chunk()).message())

    def test_a_whole_answer_is_one_chunk(self, first_streamed_then_whole: LLM) -> None:
        """stream=False makes one chunk of the same answer."""
        llm = first_streamed_then_whole
        expected = _said(llm.invoke(self.prompt))
        assert [expected] == [_said(chunk.message()) for chunk in llm.stream(self.prompt, stream=False)]

    def test_asynchronously_the_same(self, llm: LLM) -> None:
        """On one loop after the other, and then without."""

        async def ask() -> tuple[Message, Message]:
            chunks = [chunk async for chunk in llm.astream(self.prompt)]
            return sum(chunks, Chunk()).message(), await llm.ainvoke(self.prompt)

        answers = [*self.run(ask()), *self.run(ask()), llm.invoke(self.prompt)]
        assert [_said(answers[-1])] * 5 == [_said(answer) for answer in answers]

    def test_each_subscription_asks_anew(self, llm: LLM) -> None:
        """The stream is cold: it can be subscribed to again."""
        answer = llm(self.prompt)
        first, second = [_said(sum(answer.pipe(stream()), Chunk()).message()) for _ in range(2)]
        assert first == second

    def test_many_at_once(self, llm: LLM) -> None:
        """A batch is the same answers, in the order of the prompts."""
        expected = [_said(llm.invoke(self.prompt))] * 9
        assert expected == [_said(answer) for answer in llm.batch([self.prompt] * 9, max_concurrency=4)]
        assert expected == [_said(answer) for answer in self.run(llm.abatch([self.prompt] * 9, max_concurrency=4))]

    def test_it_is_an_operator(self, llm: LLM) -> None:
        """It asks what comes, once or each item, and its answer is a plain Observable."""
        expected = llm.invoke(self.prompt).text
        for asked in (llm(rx.of(self.prompt)), rx.of(self.prompt).pipe(ops.concat_map(llm))):
            texts = asked.pipe(ops.map(str), stream())
            assert expected == "".join(texts)

    # ── what is heard of it ──────────────────────────────────────────────────────────────────────────────────────

    def test_the_events_of_a_run(self, llm: LLM) -> None:
        """Started, the chunks, Finished with the answer, all of one run; the runs of other models are within it."""
        events: list[Event] = list(llm.events(self.prompt).pipe(stream()))
        root, others = _told_apart(events)
        started, *chunks, finished = root
        assert (Started, Finished) == (type(started), type(finished))
        assert {RunChunk} >= {type(chunk) for chunk in chunks}
        assert [] == [event for event in others if started.run.id not in event.run.parent_ids]
        assert isinstance(finished, Finished)
        assert _said(llm.invoke(self.prompt)) == _said(finished.message)

    def test_a_run_ends_once(self, llm: LLM) -> None:
        """Whoever leaves in the middle: the run is Cancelled, or was Finished just before."""
        heard: list[Event] = []
        with llm.with_config(handlers=[heard.append]).stream(self.prompt) as chunks:
            next(chunks)
        deadline = time.monotonic() + self.patience
        while not (ends := _ends(_told_apart(heard)[0])) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert 1 == len(ends)
        root, _ = _told_apart(heard)
        assert isinstance(root[-1], (Finished, Cancelled))

    def test_the_subscribers_context_is_seen(self, llm: LLM) -> None:
        """Operators and handlers see the context variables of whoever asks."""
        asker: contextvars.ContextVar[str] = contextvars.ContextVar("asker", default="nobody")
        seen: list[str] = []

        async def ask() -> None:
            asker.set("me")
            heard = llm.with_config(handlers=[lambda _: seen.append(asker.get())])(self.prompt)
            async for _ in heard.pipe(ops.do_action(lambda _: seen.append(asker.get())), astream()):
                pass

        self.run(ask())
        assert {"me"} == set(seen)

    # ── leaving ──────────────────────────────────────────────────────────────────────────────────────────────────

    def test_it_can_be_left(self, llm: LLM) -> None:
        """Leaving a loop in the middle is no error, and leaves nothing running."""
        for _ in llm.stream(self.prompt):
            break

        async def leave() -> None:
            async with llm.astream(self.prompt) as chunks:
                await anext(chunks)

        self.run(leave())

    def test_a_task_that_reads_can_be_cancelled(self, llm: LLM) -> None:
        """Between two chunks: what it gets is its cancellation."""

        async def cancel() -> None:
            heard = asyncio.Event()

            async def read() -> None:
                async for _ in llm.astream(self.prompt):
                    heard.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(read())
            await heard.wait()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

        self.run(cancel())

    def test_a_disposed_subscriber_hears_nothing(self, llm: LLM) -> None:
        """Who leaves at once never hears of it."""

        async def leave() -> list[object]:
            heard: list[object] = []
            subscription = llm(self.prompt).subscribe(heard.append, heard.append, lambda: heard.append("the end"))
            subscription.dispose()
            await llm.ainvoke(self.prompt)
            return heard

        assert [] == self.run(leave())

    # ── how it is called ─────────────────────────────────────────────────────────────────────────────────────────

    def test_bound_parameters_make_a_copy(self, llm: LLM) -> None:
        """It is the same class, and the original keeps its own."""
        before = llm.parameters
        bound = llm.bind(temperature=0.5, tags=["bound"])
        assert (type(llm), 0.5, ("bound",)) == (type(bound), bound.parameters.temperature, bound.tags)
        assert (before, ()) == (llm.parameters, llm.tags)

    @pytest.mark.parametrize("wrong", [None, 5, [], [5]])
    def test_what_is_no_prompt_is_refused(self, llm: LLM, wrong: Any) -> None:
        """With a sentence, when it is called."""
        with pytest.raises(MisuseError):
            llm(wrong)

    def test_what_is_no_parameter_is_refused(self, llm: LLM) -> None:
        """The sentence names the nearest that there is."""
        misspelt: Any = {"temprature": 0}
        with pytest.raises(MisuseError, match="temperature"):
            llm.invoke(self.prompt, **misspelt)


def _told_apart(events: Sequence[Event]) -> tuple[list[Any], list[Any]]:
    """What was told of the run that was asked for, and of others."""
    told = [event for event in events if not isinstance(event, Chunk) or isinstance(event, RunChunk)]
    root = told[0].run.id
    return [event for event in told if event.run.id == root], [event for event in told if event.run.id != root]


def _ends(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, (Finished, Failed, Cancelled))]


class ProviderContract(LLMContract):
    """What any LLM behind a streaming HTTP API must do, asked through a real local server.

    Attributes:
        key: what `provider` sends as its key; None if it needs none.
        usage: the counts that `stream` and `whole` are to tell, input and output; None if they can't.
        finishes: the reasons that they can tell.
        content_type: what a stream claims to be.
        statuses: what an HTTP status becomes: its class, and whether to ask again.
    """

    key: ClassVar[str | None] = "sk-do-not-show-this-to-anybody"
    usage: ClassVar[tuple[int, int] | None] = (3, 5)
    finishes: ClassVar[Sequence[FinishReason]] = ("stop", "length")
    content_type: ClassVar[str] = "text/event-stream"
    statuses: ClassVar[Sequence[tuple[int, type[ProviderError], bool]]] = STATUSES

    # ── what a provider says of itself ───────────────────────────────────────────────────────────────────────────

    def provider(self, url: str) -> LLM:
        """The provider, asking the server at `url` with `key`, and without retrying. Override this."""
        raise NotImplementedError(f"{type(self).__name__} must override provider, which returns the LLM to test.")

    def impatient(self, url: str, seconds: float) -> LLM:
        """The same, that waits no longer than this for a chunk. Override it if the provider has such a limit."""
        pytest.skip("there is no impatient provider")

    def stream(
        self, text: Sequence[str], *, usage: tuple[int, int] | None = None, finish: FinishReason = "stop"
    ) -> Sequence[bytes]:
        """The bytes of a streamed answer. Override this.

        Args:
            text: the pieces of text; each is sent in bytes of its own, in which it can be read as UTF-8.
            usage: input and output tokens to be told; None is not to tell.
            finish: the reason to be told.

        Returns:
            The units of the protocol, as they are sent one by one; what ends it is in the last of them.
        """
        raise NotImplementedError(f"{type(self).__name__} must override stream, the bytes of an answer.")

    def whole(
        self, text: Sequence[str], *, usage: tuple[int, int] | None = None, finish: FinishReason = "stop"
    ) -> bytes:
        """The JSON body of the same answer where it is not streamed. Override it if the provider knows stream=False."""
        pytest.skip("there is no whole answer")

    def error_body(self, status: int, message: str) -> bytes:
        """The body that goes with an HTTP status. By default that of OpenAI."""
        return json.dumps({"error": {"message": message, "type": "error", "code": None}}).encode()

    def error_frame(self, message: str) -> bytes:
        """What ends a stream that fails midway. Override it if the protocol has that."""
        pytest.skip("there are no errors in a stream")

    # ── helpers ──────────────────────────────────────────────────────────────────────────────────────────────────

    @pytest.fixture
    def server(self) -> Generator[FakeServer]:
        """A local server, which answers with three pieces of text until it is told otherwise."""
        with FakeServer(self.streamed(self.stream(["Hel", "lo", " you"]))) as server:
            yield server

    @pytest.fixture
    def llm(self, request: pytest.FixtureRequest) -> LLM:
        """The provider at the server."""
        server: FakeServer = request.getfixturevalue("server")
        return self.provider(server.url)

    @pytest.fixture
    def first_streamed_then_whole(self, request: pytest.FixtureRequest) -> LLM:
        """The provider at the server, which knows when it will be asked for what."""
        server: FakeServer = request.getfixturevalue("server")
        server.reply(self.streamed(self.stream(["Hel", "lo"])), Reply.json(self.whole(["Hel", "lo"])))
        return self.provider(server.url)

    def streamed(self, steps: Sequence[Step]) -> Reply:
        """A reply that streams these."""
        return Reply(steps, content_type=self.content_type)

    def error(self, status: int, message: str = "It went wrong") -> Reply:
        """A reply with an error."""
        return Reply.json(self.error_body(status, message), status=status)

    def until(self, said: str, text: Sequence[str]) -> tuple[list[bytes], list[bytes]]:
        """The pieces of a stream of this text, those up to `said` and those after it."""
        pieces = list(self.stream(text))
        for index, piece in enumerate(pieces):
            if said.encode() in piece:
                return pieces[: index + 1], pieces[index + 1 :]
        pytest.fail(f"stream({text!r}) has no piece in which {said!r} can be read")

    def heard(
        self, llm: LLM, *, then: Callable[[str], object] = bool, **parameters: Unpack[Settings]
    ) -> tuple[str, RxllmError | None]:
        """The text that came, and the error that ended it, if one did; `then` is told the text as it grows."""

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
        """The error, of which `partial` must be what came before, and `request` what was asked."""
        text, error = self.heard(llm, then=then, **parameters)
        assert error is not None, f"there was no error after {text!r}"
        assert error.request is not None
        assert self.prompt == error.request.text
        assert text == (error.partial.text if error.partial else "")
        return error

    def closes(self, exchange: Exchange) -> None:
        """The connection is closed promptly from now on."""
        try:
            exchange.closed.wait(self.promptness)
        except TimeoutError:
            pytest.fail(f"{self.promptness:g} s after the reader left, its connection is still open")

    # ── the answer ───────────────────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize(
        "text",
        [[], ["Hello"], ["Hel", "", "lo", " wörld", " 🌍", "\n\n", " "], [" "] * 1000],
        ids=["silence", "one", "many", "very many"],
    )
    def test_text_usage_and_finish(self, server: FakeServer, text: list[str]) -> None:
        """No text at all, one chunk or many: the text, the counts and the reason are what was sent."""
        counts = self.usage and Usage(input_tokens=self.usage[0], output_tokens=self.usage[1])
        for finish in self.finishes:
            server.reply(self.streamed(self.stream(text, usage=self.usage, finish=finish)))
            answer = self.provider(server.url).invoke(self.prompt)
            assert ("".join(text), counts, finish) == (answer.text, self.usage and answer.usage, answer.finish_reason)

    def test_a_whole_says_what_a_stream_says(self, server: FakeServer) -> None:
        """The same Message."""
        text = ["Hé", "llo 🌍"]
        for finish in self.finishes:
            server.reply(
                Reply.json(self.whole(text, usage=self.usage, finish=finish)),
                self.streamed(self.stream(text, usage=self.usage, finish=finish)),
            )
            whole, streamed = (self.provider(server.url).invoke(self.prompt, stream=way) for way in (False, True))
            assert _said(streamed) == _said(whole)
            assert (streamed.usage, "Héllo 🌍") == (whole.usage, whole.text)

    def test_each_piece_is_a_chunk_at_once(self, server: FakeServer) -> None:
        """None is held back until the next comes, and none is invented."""
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
    def test_however_the_bytes_are_cut(self, server: FakeServer, size: int) -> None:
        """In the middle of a unit, and of a character: the answer is the same."""
        body = b"".join(self.stream(["Hé", "llo 🌍"]))
        server.reply(self.streamed([body[at : at + size] for at in range(0, len(body), size)]))
        assert ("Héllo 🌍", None) == self.heard(self.provider(server.url))

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────

    def test_two_subscriptions_are_two_requests(self, server: FakeServer, llm: LLM) -> None:
        """Nothing is sent before somebody subscribes, or where the call is a mistake."""
        answer = llm(self.prompt)
        misspelt: Any = {"temprature": 0}
        with pytest.raises(MisuseError):
            llm.invoke(self.prompt, **misspelt)
        assert [] == server.requests
        for count in (1, 2):
            assert "Hello you" == "".join(map(str, answer.pipe(stream())))
            assert count == len(server.requests)

    def test_a_failure_in_a_batch_is_its_own(self, server: FakeServer, llm: LLM) -> None:
        """The others have their answers."""

        def reply(received: Received) -> Reply:
            fails = b"stumble" in received.body
            return self.error(500) if fails else self.streamed(self.stream(["ok"]))

        server.reply(reply)
        answers = llm.batch(["one", "stumble", "three"], return_exceptions=True)
        assert [Message, ProviderError, Message] == [type(answer) for answer in answers]

    def test_a_connection_closed_meanwhile(self, server: FakeServer, llm: LLM) -> None:
        """The server gave up a kept-alive connection; the next request succeeds."""
        for number in range(3):
            assert "Hello you" == llm.invoke(self.prompt).text
            server.close_idle()
            server.exchange(number).wait_closed()

    # ── the provider says no ─────────────────────────────────────────────────────────────────────────────────────

    def test_a_status_has_its_class(self, server: FakeServer, llm: LLM) -> None:
        """Class, status, whether to try again, and the provider's words; streamed or whole."""
        for status, kind, retryable in self.statuses:
            server.reply(self.error(status, "It went wrong"))
            for streaming in (True, False):
                error = self.failed(llm, stream=streaming)
                assert (kind, retryable) == (type(error), error.retryable), f"HTTP {status}"
                assert status == getattr(error, "status", None)
                assert "It went wrong" in str(error)

    def test_how_long_to_wait(self, server: FakeServer, llm: LLM) -> None:
        """Retry-After is the error's `retry_after`."""
        server.reply(Reply.json(self.error_body(429, "Slow down"), status=429, headers={"retry-after": "7"}))
        error = self.failed(llm)
        assert isinstance(error, RateLimited)
        assert 7.0 == error.retry_after

    @pytest.mark.parametrize("after", ["the end", "its proper end"])
    def test_an_error_in_the_stream(self, server: FakeServer, llm: LLM, after: str) -> None:
        """The text before it is delivered, and is the error's `partial`; a proper end after it does not undo it."""
        before, rest = self.until("world", ["Hello ", "world"])
        frame = self.error_frame("It broke")
        server.reply(self.streamed([*before, frame, *(rest[-1:] if after == "its proper end" else [])]))
        error = self.failed(llm)
        assert isinstance(error, ProviderError)
        assert "It broke" in str(error)
        assert error.partial is not None
        assert "Hello world" == error.partial.text

    @pytest.mark.parametrize("body", [b"", b"<html>Welcome</html>"], ids=["nothing", "a page"])
    def test_what_is_no_answer(self, server: FakeServer, llm: LLM, body: bytes) -> None:
        """A 200 that says nothing, or something else: never an empty answer."""
        server.reply(Reply(body, content_type="text/html"))
        self.failed(llm)

    # ── the network fails ────────────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize("end", [End.CLEAN, End.FIN, End.RST])
    @pytest.mark.parametrize("more", [False, True], ids=["between two units", "within a unit"])
    def test_a_stream_that_is_cut(self, server: FakeServer, llm: LLM, end: End, more: bool) -> None:
        """Interrupted with exactly what had arrived, and worth another try; never a short answer as a whole one."""
        before, after = self.until("Hello", ["Hello", " you"])
        heard_all = Signal()
        server.reply(self.streamed([*before, *([after[0][:5]] if more else []), heard_all, end]))

        def then(text: str) -> None:
            if text == "Hello":
                heard_all.set()

        error = self.failed(llm, then=then)
        assert (Interrupted, True) == (type(error), error.retryable)
        assert error.partial is not None
        assert "Hello" == error.partial.text

    def test_nobody_there(self) -> None:
        """A TransportError that names the place."""
        with FakeServer() as gone:
            url = gone.url
        error = self.failed(self.provider(url))
        assert isinstance(error, TransportError)
        assert error.retryable
        assert url.removeprefix("http://") in str(error)

    def test_a_server_that_forgets_to_end_the_body(self, server: FakeServer, llm: LLM) -> None:
        """The protocol's end is the end: the answer is whole, and the connection is given up soon."""
        server.reply(self.streamed([*self.stream(["ok"]), End.HANG]))
        assert "ok" == llm.invoke(self.prompt).text
        server.exchange(0).wait_closed()

    @pytest.mark.parametrize("steps", [(), (b"",)], ids=["before the headers", "after the headers"])
    def test_silence_from_the_beginning(self, server: FakeServer, steps: Sequence[Step]) -> None:
        """Timeout, and the request is closed."""
        server.reply(self.streamed([*steps, End.HANG]))
        assert Timeout is type(self.failed(self.impatient(server.url, 0.2)))
        for exchange in server.exchanges:  # a slow machine may have sent nothing yet
            exchange.wait_closed()

    def test_silence_in_the_middle(self, server: FakeServer) -> None:
        """Timeout, with what had come."""
        before, _ = self.until("Hello", ["Hello", " you"])
        server.reply(self.streamed([*before, End.HANG]))
        error = self.failed(self.impatient(server.url, 0.25))
        assert Timeout is type(error)
        assert error.partial is not None
        assert "Hello" == error.partial.text
        server.exchange(0).wait_closed()

    # ── leaving ──────────────────────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize("streaming", [True, False], ids=["streamed", "whole"])
    def test_leaving_before_the_headers(self, server: FakeServer, llm: LLM, streaming: bool) -> None:
        """The server sees it promptly."""
        server.reply(self.streamed([End.HANG]))

        async def leave() -> None:
            subscription = llm.bind(stream=streaming)(self.prompt).subscribe()
            await server.exchange(0).arrived.soon()
            subscription.dispose()
            await asyncio.to_thread(self.closes, server.exchange(0))

        self.run(leave())

    @pytest.mark.parametrize("way", ["dispose", "aclose", "cancel"])
    def test_leaving_in_the_middle(self, server: FakeServer, llm: LLM, way: str) -> None:
        """However one leaves, the server sees it promptly."""
        before, _ = self.until("Hello", ["Hello", " you"])
        server.reply(self.streamed([*before, End.HANG]))

        async def leave() -> None:
            heard = asyncio.Event()
            chunks = llm(self.prompt)
            if way == "dispose":
                subscription = chunks.subscribe(lambda _: heard.set())
                await heard.wait()
                subscription.dispose()
            else:
                iterator = chunks.pipe(astream())

                async def read() -> None:
                    async for _ in iterator:
                        heard.set()

                task = asyncio.create_task(read())
                await heard.wait()
                await iterator.aclose() if way == "aclose" else task.cancel()
                await asyncio.wait([task])
            await asyncio.to_thread(self.closes, server.exchange(0))
            assert server.exchange(0).aborted

        self.run(leave())

    def test_leaving_by_break(self, server: FakeServer, llm: LLM) -> None:
        """A synchronous loop that is left closes its connection, too."""
        before, _ = self.until("Hello", ["Hello", " you"])
        server.reply(self.streamed([*before, End.HANG]))
        for chunk in llm.stream(self.prompt):
            if chunk.text:
                break
        self.closes(server.exchange(0))

    def test_who_does_not_read_stops_the_server(self, server: FakeServer, llm: LLM) -> None:
        """What nobody takes is not fetched; who goes on reading lets it go on."""
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

    def test_the_key_is_never_shown(self, server: FakeServer, llm: LLM, caplog: pytest.LogCaptureFixture) -> None:
        """A server repeats it: it is in no repr, str, traceback, body or log line."""
        if self.key is None:
            pytest.skip("there is no key")
        server.reply(self.error(401, f"Incorrect API key provided: {self.key}"))
        with caplog.at_level(logging.DEBUG):
            error = self.failed(llm)
        facts = [getattr(error, name, None) for name in ("body", "frame", "code", "request", "partial")]
        shown = [*map(repr, [llm, error, *facts]), str(error), *traceback.format_exception(error), caplog.text]
        assert [] == [text for text in shown if self.key in text]
        [request] = server.requests
        sent = f"{dict(request.headers)} {request.query} {request.body!r}"
        assert self.key in sent, "the key that the contract looks for must be the one that is sent"
