"""`limited`, on virtual time: the order and the rate of requests, and the limits that servers announce."""

import asyncio
import contextlib
import contextvars
import gc
import pickle
import subprocess
import sys
import threading
import time
import weakref
from datetime import UTC, datetime, timedelta

import pytest
import reactivex as rx
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from protocols import Chat
from reactivex import operators as ops
from reactivex.scheduler import VirtualTimeScheduler

import rxllm
from rxllm import LLM, Chunk, Limiter, MisuseError, Usage, limited
from rxllm.combinators.admission import admitted
from rxllm.combinators.pacing import Rate
from rxllm.runtime.portal import portal
from rxllm.runtime.scheduler import Scheduler
from rxllm.runtime.source import Source
from rxllm.testing import End, FakeServer, MarbleLLM, Reply, Signal
from rxllm.wire.rates import Allowance, allowances, retry_after

TIMEOUT = 5.0  # seconds for what comes at once


def begun(llm, prompts, limiter, *, leaving=None):
    """The start time of each prompt; all are subscribed at once, and some are disposed at a given time."""
    scheduler, times = VirtualTimeScheduler(), {}

    class Notes(MarbleLLM):
        def score(self, request):
            times[request.text] = scheduler.now.timestamp()
            return super().score(request)

    asked = limited(Notes(llm), limiter)
    for prompt in prompts:
        subscription = asked(prompt).subscribe(lambda chunk: None, lambda error: None, scheduler=scheduler)
        if leaving and prompt in leaving:
            scheduler.schedule_relative(leaving[prompt], lambda *_, left=subscription: left.dispose())
    scheduler.start()
    return times


def test_concurrent_requests_are_bounded_and_start_in_order():
    """The next request starts when one has ended."""
    assert {"a": 0, "b": 0, "c": 4, "d": 4, "e": 8} == begun("---x|", "abcde", Limiter(concurrency=2))


def test_disposed_request_frees_its_place():
    """A running one and a waiting one."""
    limiter = Limiter(concurrency=1)
    assert {"a": 0, "c": 1, "d": 5} == begun("---x|", "abcd", limiter, leaving={"a": 1, "b": 0.5})


def test_failed_request_frees_its_place():
    """A failure ends the request."""
    assert {"a": 0, "b": 2, "c": 4} == begun("--#", "abc", Limiter(concurrency=1))


def test_requests_are_paced():
    """60 a minute means one each second, not 60 at once and then a pause."""
    prompts = [str(number) for number in range(70)]
    assert {prompt: int(prompt) for prompt in prompts} == begun("x|", prompts, Limiter(requests_per_minute=60))
    assert {"a": 0, "b": 20, "c": 40, "d": 60} == begun("x|", "abcd", Limiter(requests_per_minute=3))


def test_default_burst_is_one_seconds_worth():
    """With 240 a minute, four start at once, and then one each quarter of a second."""
    times = begun("x|", "abcdef", Limiter(requests_per_minute=240))
    assert {"a": 0, "b": 0, "c": 0, "d": 0, "e": 0.25, "f": 0.5} == times


def test_burst_can_be_enlarged():
    """The burst starts at once, and the rest at the average rate. The limit of the minute still holds."""
    times = begun("x|", "abcde", Limiter(requests_per_minute=4, burst=3))
    assert {"a": 0, "b": 0, "c": 0, "d": 15, "e": 60} == times


def test_requests_per_second_are_paced():
    """Also fewer than one in a second."""
    assert {"a": 0, "b": 0.5, "c": 1, "d": 1.5} == begun("x|", "abcd", Limiter(requests_per_second=2))
    assert {"a": 0, "b": 0, "c": 1, "d": 1} == begun("x|", "abcd", Limiter(requests_per_second=2, burst=2))
    assert {"a": 0, "b": 4, "c": 8} == begun("x|", "abc", Limiter(requests_per_second=0.25))


def test_tokens_per_minute_are_estimated_and_paced():
    """One token for four characters. A request above the limit starts alone."""
    prompts = ["a" * 39, "b" * 39, "c" * 39, "d" * 399, "e" * 39]
    times = begun("x|", prompts, Limiter(tokens_per_minute=20))
    assert [0, 30, 60, 120, 180] == [times[prompt] for prompt in prompts]
    times = begun("x|", prompts[:3], Limiter(tokens_per_minute=20, burst=2))
    assert [0, 0, 60] == [times[prompt] for prompt in prompts[:3]]


def test_usage_of_the_answer_corrects_the_tokens():
    """More tokens than estimated delay other requests, fewer let them start."""

    def counted(tokens):
        usage = Usage(input_tokens=tokens - 1, output_tokens=1)
        scheduler, times = VirtualTimeScheduler(), []
        limiter = Limiter(tokens_per_minute=100)
        llm = limited(MarbleLLM("u|", values={"u": Chunk("x", usage=usage)}), limiter)
        for seconds in (0, 5):
            scheduler.schedule_relative(
                seconds,
                lambda *_: llm("hi").subscribe(lambda _: times.append(scheduler.now.timestamp()), scheduler=scheduler),
            )
        scheduler.start()
        return times

    assert [0, 5] == counted(5)
    assert [0, 29.6] == [round(time, 3) for time in counted(50)]
    assert [0, 60] == counted(100)


@pytest.mark.parametrize(
    "limit",
    [
        lambda llm, limiter: limited(llm, limiter).bind(max_tokens=60),
        lambda llm, limiter: limited(llm.bind(max_tokens=60), limiter),
        lambda llm, limiter: limited(rxllm.retry(llm.bind(max_tokens=60)), limiter).bind(temperature=0),
        lambda llm, limiter: limited(rxllm.fallback(llm.bind(max_tokens=5), llm.bind(max_tokens=60)), limiter),
        lambda llm, limiter: limited(rxllm.pipe(llm.bind(max_tokens=60), rxllm.text()), limiter),
    ],
)
def test_max_tokens_count_towards_the_estimate(limit):
    """The answer may take them, wherever they are bound. Of several models the largest number counts."""
    scheduler, times = VirtualTimeScheduler(), []
    llm = limit(MarbleLLM("x-|"), Limiter(tokens_per_minute=100))
    for _ in range(2):
        llm("hi").subscribe(lambda _: times.append(scheduler.now.timestamp()), scheduler=scheduler)
    scheduler.start()
    assert [0, 60] == times


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(1, 300)), min_size=1, max_size=12),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(20, 100),
)
def test_limits_are_never_exceeded(arrivals, concurrency, requests, tokens):
    """For requests of any length that arrive at any time."""
    scheduler, events = VirtualTimeScheduler(), []
    limiter = Limiter(concurrency=concurrency, requests_per_minute=requests, tokens_per_minute=tokens)

    class Notes(MarbleLLM):
        def score(self, request):
            events.append((scheduler.now.timestamp(), len(request.text) // 4 + 1))
            return super().score(request)

    llm, running, most, order = limited(Notes("-" * 20 + "x|"), limiter), set(), [0], []
    ended = []
    for number, (seconds, length) in enumerate(sorted(arrivals)):

        def ask(_, state=None, number=number, length=length):
            order.append(number)
            llm(chr(97 + number) * length).subscribe(on_completed=lambda: ended.append(number), scheduler=scheduler)

        scheduler.schedule_relative(seconds, ask)
    scheduler.start()
    assert len(arrivals) == len(events) == len(ended), "nobody is forgotten"
    for now, _ in events:
        window = [cost for at, cost in events if now - 60 < at - 1e-5 and at <= now]
        assert len(window) <= requests
        assert sum(window) <= tokens or len(window) == 1
        assert concurrency >= sum(1 for at, _ in events if at <= now < at + 21 - 1e-5)
    del running, most


def test_models_loops_and_threads_share_a_limiter():
    """All of their requests count together."""
    limiter, running, most, lock = Limiter(concurrency=3), [0], [0], threading.Lock()

    class Counts(LLM):
        async def complete(self, request):
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            for _ in range(20):
                await asyncio.sleep(0)
            with lock:
                running[0] -= 1
            return "x"

    def work(number):
        llm = limited(Counts(), limiter)
        answers = llm.batch(["a"] * 20) if number % 2 else asyncio.run(llm.abatch(["a"] * 20))
        assert 20 == len(answers)
        done.append(number)

    done = []
    threads = [threading.Thread(target=work, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT * 4)
    assert 6 == len(done)
    assert 3 == most[0]


class Held(LLM):
    """A model that answers when the test releases it; the prompt "now" is answered at once."""

    def __init__(self):
        self.asked, self.begun, self.released = [], Signal(), Signal()

    async def complete(self, request):
        """Returns the prompt."""
        self.asked.append(request.text)
        self.begun.set()
        if request.text != "now":
            await self.released.soon()
        return request.text


def in_a_thread(function):
    """Runs the function in a thread; returns a function that waits for its end."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()

    def over():
        thread.join(TIMEOUT)
        assert not thread.is_alive()

    return over


def entered(limiter, count):
    """Waits until this many tickets have entered."""
    deadline = time.monotonic() + TIMEOUT
    while limiter._queue.entered < count:
        assert time.monotonic() < deadline
        time.sleep(0)


def quickly(llm, prompt):
    """The answer of a call on a new event loop."""

    async def main():
        return (await asyncio.wait_for(llm.ainvoke(prompt), TIMEOUT)).text

    return asyncio.run(main())


@pytest.mark.parametrize("early", [False, True], ids=["later arrival", "already waiting"])
def test_loop_that_ends_when_it_is_called_gives_its_turn_away(monkeypatch, early):
    """The loop has only subscribed, is busy at its turn, and then ends without cancelling a task."""
    monkeypatch.setattr("rxllm.combinators.queueing.PATIENCE", 0.01)
    held, limiter, answers = Held(), Limiter(concurrency=1), []
    llm = limited(held, limiter)
    first = in_a_thread(lambda: answers.append(quickly(llm, "first")))
    entered(limiter, 1)

    async def subscribe_and_end():
        llm("lost").subscribe(lambda _: None)
        if early:
            others.append(in_a_thread(lambda: answers.append(quickly(llm, "now"))))
            entered(limiter, 3)
        held.released.set()
        first()
        held.released.clear()

    others = []
    asyncio.run(subscribe_and_end())
    for over in others:
        over()
    assert "now" == quickly(llm, "now")
    assert ["first", *(["now"] if early else [])] == answers


def test_waiting_does_not_depend_on_another_loop():
    """The loop of the first ticket ends before its timer fires."""
    limiter = Limiter(requests_per_second=10, burst=1)
    llm, answers = limited(Held(), limiter), []
    assert "now" == quickly(llm, "now")

    async def subscribe_and_end():
        llm("now").subscribe(lambda _: None)
        overs.append(in_a_thread(lambda: answers.append(quickly(llm, "now"))))
        entered(limiter, 3)

    overs = []
    asyncio.run(subscribe_and_end())
    overs[0]()
    assert ["now"] == answers


def test_stalled_loop_is_passed_over(monkeypatch):
    """When it continues, it is first again."""
    monkeypatch.setattr("rxllm.combinators.queueing.PATIENCE", 0.01)
    held, limiter, answers = Held(), Limiter(concurrency=1), []
    llm = limited(held, limiter)
    first = in_a_thread(lambda: quickly(llm, "first"))
    entered(limiter, 1)
    with asyncio.Runner() as runner:

        async def subscribe():
            llm("now").subscribe(on_next=lambda _: answers.append("late"), on_completed=over.set)

        over = asyncio.Event()
        runner.run(subscribe())
        held.released.set()
        first()
        assert "now" == quickly(llm, "now")
        assert [] == answers
        runner.run(asyncio.wait_for(over.wait(), TIMEOUT))
    assert ["late"] == answers
    assert ["first", "now", "now"] == held.asked


def test_turn_that_was_not_taken_does_not_count(monkeypatch):
    """Neither for the rate, nor for the limit of a server."""
    monkeypatch.setattr("rxllm.combinators.queueing.PATIENCE", 0.01)
    held, limiter = Held(), Limiter(concurrency=1, requests_per_minute=2, burst=2)
    llm = limited(held, limiter)
    llm.how.servers.add("here")
    allowed = {"x-ratelimit-remaining-requests": "2", "x-ratelimit-reset-requests": "50s"}
    limiter._queue.learn("here", 200, allowed, time.monotonic())
    first = in_a_thread(lambda: quickly(llm, "first"))
    entered(limiter, 1)

    async def subscribe():
        llm("late").subscribe(lambda _: None)

    with asyncio.Runner() as runner:
        runner.run(subscribe())
        held.released.set()
        first()
        assert "now" == quickly(llm, "now")
    assert ["first", "now"] == held.asked


def test_closed_loop_gives_its_places_back(monkeypatch):
    """Although its tasks were never cancelled."""
    monkeypatch.setattr("rxllm.combinators.queueing.PATIENCE", 0.01)
    limiter, answers, loop = Limiter(concurrency=1), [], asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # that a task was destroyed
    held = Held()
    llm = limited(held, limiter)

    async def begin():
        llm("never").subscribe(lambda _: None)
        await held.begun.soon()

    loop.run_until_complete(begin())
    over = in_a_thread(lambda: answers.append(quickly(llm, "now")))
    entered(limiter, 2)
    loop.close()
    over()
    assert ["now"] == answers


async def test_loops_take_turns_in_order_of_arrival():
    """Two loops share one limiter."""
    limiter, begun, ended = Limiter(concurrency=1), [], asyncio.Semaphore(0)
    loop = asyncio.get_running_loop()

    def ask(number):
        begun.append(number)
        return Source(lambda observer, scheduler: scheduler.schedule(lambda *_: observer.on_completed()))

    asked = limited(ask, limiter)
    for number in range(10):
        scheduler = Scheduler(portal() if number % 2 else loop)
        asked(number).subscribe(on_completed=lambda: loop.call_soon_threadsafe(ended.release), scheduler=scheduler)
    for _ in range(10):
        await asyncio.wait_for(ended.acquire(), TIMEOUT)
    assert [*range(10)] == begun


@pytest.mark.parametrize("limits", [{"concurrency": 1}, {"requests_per_minute": 9}, {"tokens_per_minute": 9}])
def test_finished_requests_are_freed(limits):
    """Neither request nor answer is kept."""
    limiter, scheduler = Limiter(**limits), VirtualTimeScheduler()

    def begin():
        return rx.just("x")

    admitted(begin, limiter, 1).subscribe(lambda _: None, scheduler=scheduler)
    scheduler.start()
    kept = weakref.ref(begin)
    del begin
    gc.collect()
    assert kept() is None


async def test_context_variables_do_not_leak_between_requests():
    """A request that ends starts the next one; each sees the context of its own subscriber."""
    number, seen, over = contextvars.ContextVar("number", default=-1), [], asyncio.Event()

    def ask(prompt):
        seen.append(number.get())
        return Source(lambda observer, scheduler: scheduler.schedule(lambda *_: observer.on_completed()))

    asked = limited(ask, Limiter(concurrency=1))

    async def subscribe(mine):
        number.set(mine)
        asked("x").subscribe(on_completed=over.set if mine == 2 else None)

    await asyncio.gather(*map(subscribe, range(3)))
    await asyncio.wait_for(over.wait(), TIMEOUT)
    assert [0, 1, 2] == seen


def test_request_that_cannot_start_frees_its_place():
    """Also after Ctrl-C, which is not an error of the request."""

    def ask(prompt):
        if prompt == "bad":
            raise SystemExit
        return rx.just(prompt)

    asked, heard, scheduler = limited(ask, Limiter(concurrency=1)), [], VirtualTimeScheduler()
    with pytest.raises(SystemExit):
        asked("bad").subscribe(heard.append, scheduler=scheduler)
    asked("good").subscribe(heard.append, scheduler=scheduler)
    scheduler.start()
    assert ["good"] == heard


async def test_ended_loop_gives_its_places_back():
    """Those of its running and of its waiting requests."""
    limiter = Limiter(concurrency=1)
    with FakeServer(Reply([Chat().stream(["a"])[1], End.HANG]), Reply(Chat().stream(["b"]))) as server:
        llm = limited(rxllm.OpenAI("m", base_url=server.url, api_key="k"), limiter)

        async def main():
            begun = asyncio.Event()
            llm("x").subscribe(lambda _: begun.set(), lambda error: None)
            llm("y").subscribe(lambda _: None, lambda error: None)
            await begun.wait()

        await asyncio.to_thread(asyncio.run, main())
        assert "b" == (await asyncio.wait_for(llm.ainvoke("z"), TIMEOUT)).text


def test_waiting_request_keeps_a_script_alive():
    """Although no request is running."""
    program = """
import rxllm
llm = rxllm.limited(rxllm.Embedded(seed=1), rxllm.Limiter(concurrency=1))
for _ in range(3):
    llm("hi").pipe(rxllm.message()).subscribe(lambda answer: print(bool(answer.text)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True)
    assert ["True"] * 3 == done.stdout.split()
    assert "" == done.stderr


async def test_cancelled_waiting_request_is_never_sent():
    """It leaves nothing behind."""
    released = Signal()
    with FakeServer(Reply([released, *Chat().stream(["a"])])) as server:
        llm = limited(rxllm.OpenAI("m", base_url=server.url, api_key="k"), Limiter(concurrency=1))
        first = asyncio.ensure_future(llm.ainvoke("x"))
        await server.exchange().arrived.soon()
        second = asyncio.ensure_future(llm.ainvoke("y"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        released.set()
        assert "a" == (await first).text
        assert 1 == len(server.requests)


# ── announcements of servers ─────────────────────────────────────────────────────────────────────────────────────


def in_seconds(seconds):
    """A point in time in Anthropic's format."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [("1s", 1), ("6m0s", 360), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("0s", 0), ("soon", None), ("", None)],
)
def test_durations_are_parsed(reset, seconds):
    """In the formats of OpenAI and Groq; an invalid duration is ignored."""
    headers = {"x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-requests": reset}
    assert ([Allowance("requests", 7, seconds)] if seconds is not None else []) == list(allowances(headers))


def test_points_in_time_are_parsed():
    """In Anthropic's format; a past one allows requests at once."""
    (allowance,) = allowances(
        {"anthropic-ratelimit-tokens-remaining": "900", "anthropic-ratelimit-tokens-reset": in_seconds(30)}
    )
    assert ("tokens", 900) == (allowance.of, allowance.remaining)
    assert 29 < allowance.seconds <= 30
    (past,) = allowances(
        {"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": in_seconds(-5)}
    )
    assert 0 == past.seconds


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ratelimit-remaining-requests": "9" * 5000, "x-ratelimit-reset-requests": "1s"},
        {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9" * 5000 + "s"},
        {"x-ratelimit-remaining-requests": "-1", "x-ratelimit-reset-requests": "1s"},
        {"x-ratelimit-remaining-requests": "٣", "x-ratelimit-reset-requests": "1s"},
        {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s", "x-ratelimit-limit-requests": "0"},
        {"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "9999-99-99T00:00:00Z"},
        {
            "anthropic-ratelimit-tokens-limit": "0",
            "anthropic-ratelimit-tokens-remaining": "0",
            "anthropic-ratelimit-tokens-reset": "2099-01-01T00:00:00Z",
        },
    ],
)
def test_invalid_figures_are_ignored(headers):
    """They neither delay a request nor raise."""
    assert [] == [*allowances(headers)]


def test_response_without_rate_limits_is_not_searched_for_each_of_them():
    """A look-up in the headers of a response takes time, and each response would need twelve."""

    class Headers(dict):
        def get(self, name, default=None):
            raise AssertionError(name)

    assert [] == [*allowances(Headers({"content-type": "application/json"}))]


@pytest.mark.parametrize(
    "text", ["nan", "inf", "-1", "soon", "9" * 5000, "1e9", "\u00b2", "Wed, 99 Oct 2099 07:28:00 GMT"]
)
def test_invalid_retry_after_is_ignored(text):
    """As if the header were missing."""
    assert None is retry_after({"retry-after": text})


async def wait_of(llm):
    """The seconds until a limited model with ``max_wait=0`` could start; 0 if it can start at once."""
    answers = await llm.abatch(["hi"], return_exceptions=True)
    return answers[0].retry_after if isinstance(answers[0], rxllm.RateLimited) else 0


MOMENT = in_seconds(3600)
REMAINING = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "7s"}


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (200, REMAINING, 7),
        (200, {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "7s"}, 7),
        (200, {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": MOMENT}, 300),
        (200, {"x-ratelimit-remaining-requests": "9", "x-ratelimit-reset-requests": "7s"}, 0),
        (200, {"retry-after": "9"}, 0),
        (200, {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "24h"}, 300),
        (429, {"retry-after": "9"}, 9),
        (503, {"retry-after": "9"}, 9),
        (429, {"retry-after": "53578"}, 300),
        (429, {"retry-after": "Wed, 21 Oct 2099 07:28:00 GMT"}, 300),
        (429, {"retry-after-ms": "9500"}, 9.5),
        (401, {"retry-after": "9"}, 0),
    ],
)
async def test_limiter_follows_each_server(status, headers, expected):
    """Within bounds. Requests for other servers continue, and a successful response delays none."""
    limiter = Limiter(max_wait=0)
    reply = Reply(Chat().stream(["a"]), headers=headers) if status == 200 else None
    reply = reply or Reply.json({"error": {"message": "no"}}, status=status, headers=headers)
    with FakeServer(reply, Reply(Chat().stream(["a"]))) as one, FakeServer(Reply(Chat().stream(["a"]))) as other:
        at = lambda server: rxllm.OpenAI("m", base_url=server.url, api_key="k", max_retries=0)  # noqa: E731
        llm = limited(at(one), limiter)
        with contextlib.suppress(rxllm.ProviderError):
            await llm.ainvoke("hi")
        for same in llm, llm.bind(seed=1), limited(at(one), limiter), limited(rxllm.retry(at(one), 1), limiter):
            wait = await wait_of(same)
            assert expected - 2 < wait <= expected
        assert 0 == await wait_of(limited(at(other), limiter))


async def test_too_long_wait_for_a_server_is_refused_at_once():
    """By default above 60 s; then `fallback` asks the next model."""
    refusal = Reply.json({"error": {"message": "slow down"}}, status=429, headers={"retry-after": "53578"})
    with FakeServer(refusal, Reply(Chat().stream(["a"]))) as one, FakeServer(Reply(Chat().stream(["b"]))) as other:
        at = lambda server: rxllm.OpenAI("m", base_url=server.url, api_key="k", max_retries=0)  # noqa: E731
        llm = limited(at(one), Limiter(concurrency=4))
        with pytest.raises(rxllm.RateLimited, match="slow down"):
            await llm.ainvoke("hi")
        with pytest.raises(rxllm.RateLimited, match=r"was not sent.*127\.0\.0\.1:\d+ asks to wait") as caught:
            await asyncio.wait_for(llm.ainvoke("hi"), TIMEOUT)
        assert "hi" == caught.value.request.text
        assert 60 < caught.value.retry_after <= 300
        assert "b" == (await asyncio.wait_for(rxllm.fallback(llm, at(other)).ainvoke("hi"), TIMEOUT)).text
        assert (1, 1) == (len(one.requests), len(other.requests))


async def test_requests_for_other_servers_pass_a_closed_one():
    """Although they arrived later in the same queue."""
    refusal = Reply.json({"error": {"message": "slow down"}}, status=429, headers={"retry-after": "50"})
    with FakeServer(refusal) as one, FakeServer(Reply(Chat().stream(["b"]))) as other:
        limiter = Limiter(concurrency=1)
        at = lambda server: rxllm.OpenAI("m", base_url=server.url, api_key="k", max_retries=0)  # noqa: E731
        llm = limited(at(one), limiter)
        with pytest.raises(rxllm.RateLimited):
            await llm.ainvoke("hi")
        waits = asyncio.ensure_future(llm.ainvoke("hi"))
        await asyncio.sleep(0)
        assert "b" == (await asyncio.wait_for(limited(at(other), limiter).ainvoke("hi"), TIMEOUT)).text
        assert not waits.done()
        waits.cancel()
        await asyncio.wait([waits])


def refusals(prompts, limiter, marbles="x|"):
    """The time at which each prompt started or was refused; all are subscribed at once."""
    scheduler, heard = VirtualTimeScheduler(), {}

    def note(prompt, what):
        heard.setdefault(prompt, (round(scheduler.now.timestamp(), 3), what))

    llm = limited(MarbleLLM(marbles), limiter)
    for prompt in prompts:
        llm(prompt).subscribe(
            lambda _, prompt=prompt: note(prompt, "began"),
            lambda error, prompt=prompt: note(prompt, (type(error).__name__, error.request.text)),
            scheduler=scheduler,
        )
    scheduler.start()
    return heard


def test_max_wait_bounds_the_wait():
    """Also a wait of unknown length. 0 rejects requests that cannot start at once."""
    no = lambda prompt: ("RateLimited", prompt)  # noqa: E731
    assert {"a": (0, "began"), "b": (0, no("b"))} == refusals("ab", Limiter(requests_per_minute=60, max_wait=0))
    assert {"a": (0, "began"), "b": (0, no("b"))} == refusals("ab", Limiter(concurrency=1, max_wait=0), "x---|")
    expected = {"a": (0, "began"), "b": (1, "began"), "c": (1, no("c"))}
    assert expected == refusals("abc", Limiter(requests_per_minute=60, max_wait=1.5))
    expected = {"a": (0, "began"), "b": (4, "began"), "c": (6, no("c"))}
    assert expected == refusals("abc", Limiter(concurrency=1, max_wait=6), "x---|")


def test_refused_request_tells_no_secret():
    """The error has the request, without the keys in its extra fields and tools."""
    key, heard, scheduler = "canary-0123456789abcdef", [], VirtualTimeScheduler()
    tools = [{"type": "mcp", "authorization": key}]
    request = rxllm.Request(prompt="hi", extra={"api_key": key, "effort": "low"}, tools=tools)
    llm = limited(MarbleLLM("x---|"), Limiter(concurrency=1, max_wait=0))
    for _ in range(2):
        llm(request).subscribe(lambda _: None, heard.append, scheduler=scheduler)
    scheduler.start()
    [error] = heard
    assert ({"api_key": "***", "effort": "low"}, "***") == (
        error.request.extra,
        error.request.tools[0]["authorization"],
    )
    assert key not in f"{error} {error!r} {vars(error)} {pickle.dumps(error)!r}"


def test_refused_request_does_not_affect_the_others():
    """It neither counts nor holds a place."""
    limiter = Limiter(concurrency=1, requests_per_minute=60, max_wait=0)
    assert {"a", "b"} == {*refusals("ab", limiter)}
    assert 0 == limiter._queue.busy
    assert {} == limiter._queue.lines or all(not line.waiting for line in limiter._queue.lines.values())
    assert 1 == limiter._queue.rates[0][1].taken


def test_cost_of_a_request_is_constant():
    """Time and memory do not grow with the requests per minute."""
    rate, steps = Rate(1_000_000, 60.0, burst=1_000_000), 0
    for number in range(20_000):
        now = number / 500
        rate.wait(7, now)
        rate.take(7, now)
        steps = max(steps, len(rate.spans))
    assert 240 >= steps
    assert 140_000 == rate.taken


async def test_place_is_held_until_the_connection_is_closed():
    """The next request starts when the connection of the disposed one has closed."""
    closing, closed = Signal(), Signal()

    class Slow(LLM):
        async def chunks(self, request):
            order.append("begun")
            try:
                yield "x"
                await asyncio.Event().wait()
            finally:
                closing.set()
                await closed.soon()
                order.append("closed")
                if len(order) == 4:
                    over.set()

    order, limiter, over = [], Limiter(concurrency=1), Signal()
    llm = limited(Slow(), limiter)
    subscription = llm("a").subscribe(lambda _: subscription.dispose())
    later = llm("b").subscribe(lambda _: later.dispose())
    await closing.soon()
    for _ in range(20):
        await asyncio.sleep(0)
    assert ["begun"] == order
    closed.set()
    await over.soon()
    assert ["begun", "closed"] * 2 == order


@pytest.mark.parametrize(
    "nest",
    [
        lambda llm: llm,
        rxllm.retry,
        lambda llm: rxllm.fallback(MarbleLLM("x|"), llm),
        lambda llm: rxllm.cached(llm, rxllm.MemoryStore(), name="x"),
        lambda llm: rxllm.pipe(llm, rxllm.text()),
        lambda llm: rxllm.observe(llm, lambda event: None),
        lambda llm: llm.bind(seed=1),
    ],
)
def test_nested_use_of_one_limiter_is_refused(nest):
    """The outer request would hold the place that the inner one waits for."""
    limiter = Limiter(concurrency=1)
    with pytest.raises(MisuseError, match="limits a request and also a request within it"):
        limited(nest(limited(MarbleLLM("x|"), limiter)), limiter)
    assert limited(nest(limited(MarbleLLM("x|"), limiter)), Limiter(concurrency=1))


async def test_nested_use_of_one_limiter_errors_when_a_route_hides_it():
    """The models of a route are unknown before the request."""
    limiter = Limiter(concurrency=1)
    llm = limited(rxllm.route(lambda request: limited(Held(), limiter)), limiter)
    with pytest.raises(MisuseError, match="would hold its place"):
        await asyncio.wait_for(llm.ainvoke("now"), TIMEOUT)


def test_forked_child_does_not_wait_for_its_parent():
    """Neither for the parent's requests, nor for a lock that a thread of it held."""
    program = """
import os, asyncio, rxllm
class Never(rxllm.LLM):
    async def complete(self, request):
        if request.text == "never":
            await asyncio.Event().wait()
        return "x"
limiter = rxllm.Limiter(concurrency=1)
llm = rxllm.limited(Never(), limiter)
async def main():
    subscription = llm("never").subscribe(lambda _: None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return os.fork()
child = asyncio.run(main())
if child == 0:
    print(asyncio.run(asyncio.wait_for(llm.ainvoke("hi"), 5)), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True)
    assert ("x\n", "") == (done.stdout, done.stderr)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "3", True])
@pytest.mark.parametrize("name", ["concurrency", "requests_per_minute", "tokens_per_minute"])
def test_invalid_limits_are_refused(name, wrong):
    """MisuseError is raised when the limiter is created."""
    with pytest.raises(MisuseError, match=f"{name} must be a whole number"):
        Limiter(**{name: wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"requests_per_second": 0},
        {"requests_per_second": True},
        {"requests_per_second": float("inf")},
        {"max_wait": -1},
        {"max_wait": "1"},
        {"burst": 0, "requests_per_minute": 1},
        {"burst": 2},
    ],
)
def test_invalid_rates_and_waits_are_refused(wrong):
    """MisuseError is raised when the limiter is created."""
    with pytest.raises(MisuseError, match=next(iter(wrong))):
        Limiter(**wrong)


def test_value_that_is_no_limiter_is_refused():
    """Such as a number."""
    with pytest.raises(MisuseError, match="takes a Limiter"):
        limited(MarbleLLM("x|"), 5)
    assert "Limiter(concurrency=2)" == repr(Limiter(concurrency=2))


@frozen
class Asking(rxllm.LLM):
    """A model of one's own that asks another model."""

    llm: rxllm.LLM
    blocks: bool = False

    def complete(self, request):
        """Return the other model's answer, or an awaitable of it."""
        return self.llm.invoke(request.prompt) if self.blocks else self.llm.ainvoke(request.prompt)


@pytest.mark.parametrize("handlers", [[], [rxllm.LoggingHandler()]])
@pytest.mark.parametrize("blocks", [False, True])
async def test_a_limiter_around_a_model_that_asks_within_it_is_refused(blocks, handlers):
    """The inner request would wait for the outer one for ever."""
    limiter = rxllm.Limiter(concurrency=1)
    inner = rxllm.limited(rxllm.Embedded(seed=1), limiter)
    with pytest.raises(MisuseError, match="limits a request and also a request within it"):
        await asyncio.wait_for(rxllm.limited(Asking(inner, blocks), limiter).ainvoke("hi", handlers=handlers), 30)


@pytest.mark.parametrize("handlers", [[], [rxllm.LoggingHandler()]])
async def test_what_follows_from_an_answer_may_use_its_limiter(handlers):
    """A request that an answer's end or its chunks lead to is not within the answer's request."""
    llm = rxllm.limited(rxllm.Embedded(seed=1), rxllm.Limiter(concurrency=1)).with_config(handlers=handlers)
    ends = ops.filter(lambda chunk: chunk.finish_reason is not None)
    follows = llm("hi").pipe(ends, ops.flat_map(lambda _: llm("more")), rxllm.message(), rxllm.astream())
    assert [(await llm.ainvoke("more")).text] == [answer.text async for answer in follows]
