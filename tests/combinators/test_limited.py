"""`limited`: who may begin when, by virtual time; and what servers say of their limits."""

import asyncio
import contextlib
import contextvars
import gc
import subprocess
import sys
import threading
import time
import weakref
from datetime import UTC, datetime, timedelta

import pytest
import reactivex as rx
from hypothesis import given
from hypothesis import strategies as st
from protocols import Chat
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
    """When each prompt was asked, all of them subscribed to at once; some leave at their moment."""
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


def test_concurrency_is_first_come_first_served():
    """As many as may run, and the next when one has ended."""
    assert {"a": 0, "b": 0, "c": 4, "d": 4, "e": 8} == begun("---x|", "abcde", Limiter(concurrency=2))


def test_who_leaves_makes_room():
    """Running or waiting."""
    limiter = Limiter(concurrency=1)
    assert {"a": 0, "c": 1, "d": 5} == begun("---x|", "abcd", limiter, leaving={"a": 1, "b": 0.5})


def test_failures_make_room():
    """They are over, too."""
    assert {"a": 0, "b": 2, "c": 4} == begun("--#", "abc", Limiter(concurrency=1))


def test_requests_are_paced():
    """60 a minute are one each second, not 60 at once and then silence."""
    prompts = [str(number) for number in range(70)]
    assert {prompt: int(prompt) for prompt in prompts} == begun("x|", prompts, Limiter(requests_per_minute=60))
    assert {"a": 0, "b": 20, "c": 40, "d": 60} == begun("x|", "abcd", Limiter(requests_per_minute=3))


def test_a_burst_is_what_one_second_is_worth():
    """Four may begin at once where 240 a minute may begin; after that, one each quarter of a second."""
    times = begun("x|", "abcdef", Limiter(requests_per_minute=240))
    assert {"a": 0, "b": 0, "c": 0, "d": 0, "e": 0.25, "f": 0.5} == times


def test_a_larger_burst_is_asked_for():
    """As many begin at once, and the rest at the average rate; the limit of the minute holds all the same."""
    times = begun("x|", "abcde", Limiter(requests_per_minute=4, burst=3))
    assert {"a": 0, "b": 0, "c": 0, "d": 15, "e": 60} == times


def test_requests_per_second():
    """Also less than one."""
    assert {"a": 0, "b": 0.5, "c": 1, "d": 1.5} == begun("x|", "abcd", Limiter(requests_per_second=2))
    assert {"a": 0, "b": 0, "c": 1, "d": 1} == begun("x|", "abcd", Limiter(requests_per_second=2, burst=2))
    assert {"a": 0, "b": 4, "c": 8} == begun("x|", "abc", Limiter(requests_per_second=0.25))


def test_tokens_per_minute_are_estimated_and_paced():
    """Four characters each; and a request that never fits goes alone."""
    prompts = ["a" * 39, "b" * 39, "c" * 39, "d" * 399, "e" * 39]
    times = begun("x|", prompts, Limiter(tokens_per_minute=20))
    assert [0, 30, 60, 120, 180] == [times[prompt] for prompt in prompts]
    times = begun("x|", prompts[:3], Limiter(tokens_per_minute=20, burst=2))
    assert [0, 0, 60] == [times[prompt] for prompt in prompts[:3]]


def test_tokens_are_corrected_by_the_answer():
    """More than was estimated keeps others waiting, less lets them in."""

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


def test_max_tokens_are_guessed_too():
    """They are what the answer may take."""
    scheduler, times = VirtualTimeScheduler(), []
    llm = limited(MarbleLLM("x-|"), Limiter(tokens_per_minute=100))
    for _ in range(2):
        answer = llm.bind(max_tokens=60)("hi")
        answer.subscribe(lambda _: times.append(scheduler.now.timestamp()), scheduler=scheduler)
    scheduler.start()
    assert [0, 60] == times


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(1, 300)), min_size=1, max_size=12),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(20, 100),
)
def test_no_limit_is_ever_passed(arrivals, concurrency, requests, tokens):
    """A law, for requests that arrive whenever and are of any length."""
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


def test_one_limiter_for_models_loops_and_threads():
    """All count together."""
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
    """Answers what it is asked when it is let; asked "now", at once."""

    def __init__(self):
        self.asked, self.begun, self.released = [], Signal(), Signal()

    async def complete(self, request):
        """The same text."""
        self.asked.append(request.text)
        self.begun.set()
        if request.text != "now":
            await self.released.soon()
        return request.text


def in_a_thread(function):
    """Runs it; what is returned waits for its end."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()

    def over():
        thread.join(TIMEOUT)
        assert not thread.is_alive()

    return over


def entered(limiter, count):
    """Waits until so many have asked the limiter."""
    deadline = time.monotonic() + TIMEOUT
    while limiter._queue.entered < count:
        assert time.monotonic() < deadline
        time.sleep(0)


def quickly(llm, prompt):
    """The answer, asked for on a loop of its own."""

    async def main():
        return (await asyncio.wait_for(llm.ainvoke(prompt), TIMEOUT)).text

    return asyncio.run(main())


@pytest.mark.parametrize("early", [False, True], ids=["who comes later", "who waits behind"])
def test_a_loop_that_ends_when_it_is_called_up_gives_way(monkeypatch, early):
    """It had only subscribed, is busy when its turn comes, and its main ends then: no task was ever told."""
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


def test_waiting_relies_on_no_other_loop():
    """The head of the queue was to look again in a moment, and its loop has ended since."""
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


def test_a_loop_that_stands_still_is_passed_over(monkeypatch):
    """Until it goes on: then it is first again."""
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


def test_a_turn_that_was_not_taken_does_not_count(monkeypatch):
    """Neither for the rate nor for what a server allows."""
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


def test_a_loop_closed_with_all_that_ran_on_it_gives_its_places_back(monkeypatch):
    """Although it has cancelled nothing, and nobody was told."""
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


async def test_loops_take_turns_in_the_order_they_came():
    """One limiter, two loops: first come, first served over both."""
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
def test_nothing_is_kept_of_what_is_over(limits):
    """Neither what was asked nor what came."""
    limiter, scheduler = Limiter(**limits), VirtualTimeScheduler()

    def begin():
        return rx.just("x")

    admitted(begin, limiter, 1).subscribe(lambda _: None, scheduler=scheduler)
    scheduler.start()
    kept = weakref.ref(begin)
    del begin
    gc.collect()
    assert kept() is None


async def test_who_makes_room_is_not_seen_by_who_begins():
    """Each sees the context variables of its own subscriber."""
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


def test_who_can_not_begin_makes_room():
    """Even for such as Ctrl-C, which is no failure of the request."""

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


async def test_a_loop_that_ended_gives_its_place_back():
    """What it was running, and what it was waiting for."""
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


def test_a_script_that_waits_for_its_turn_is_kept_alive():
    """Although there is no request yet that would."""
    program = """
import rxllm
llm = rxllm.limited(rxllm.Embedded(seed=1), rxllm.Limiter(concurrency=1))
for _ in range(3):
    llm("hi").pipe(rxllm.message()).subscribe(lambda answer: print(bool(answer.text)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert ["True"] * 3 == done.stdout.split()
    assert "" == done.stderr


async def test_what_never_came_to_begin_is_left():
    """Nothing is sent, and nothing is left behind."""
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


# ── what servers say ─────────────────────────────────────────────────────────────────────────────────────────────


def in_seconds(seconds):
    """A moment, as Anthropic writes it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [("1s", 1), ("6m0s", 360), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("0s", 0), ("soon", None), ("", None)],
)
def test_spans_are_read(reset, seconds):
    """As OpenAI and Groq write them; what is none says nothing."""
    headers = {"x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-requests": reset}
    assert ([Allowance("requests", 7, seconds)] if seconds is not None else []) == list(allowances(headers))


def test_moments_are_read():
    """As Anthropic writes them; one that is over allows at once."""
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
def test_figures_that_make_no_sense_are_ignored(headers):
    """A server that writes nonsense stops nobody, and raises nothing."""
    assert [] == [*allowances(headers)]


@pytest.mark.parametrize(
    "text", ["nan", "inf", "-1", "soon", "9" * 5000, "1e9", "\u00b2", "Wed, 99 Oct 2099 07:28:00 GMT"]
)
def test_a_retry_after_that_makes_no_sense_is_ignored(text):
    """It is as if it were not there."""
    assert None is retry_after({"retry-after": text})


async def wait_of(llm):
    """The seconds until a limited model with ``max_wait=0`` could begin; 0 if it can at once."""
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
async def test_a_limiter_obeys_each_server(status, headers, expected):
    """Within bounds, and a request for another server goes on; an answer asks nobody to wait."""
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


async def test_a_server_that_asks_for_too_long_is_refused_at_once():
    """By default for 60 s; then `fallback` asks the next model."""
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


async def test_a_closed_server_lets_requests_for_others_pass():
    """Although they came later, and wait in the same queue."""
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
    """What became of each prompt, all of them subscribed to at once: when it began or was refused."""
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
    """For the turn, known or not; 0 rejects what cannot begin at once."""
    no = lambda prompt: ("RateLimited", prompt)  # noqa: E731
    assert {"a": (0, "began"), "b": (0, no("b"))} == refusals("ab", Limiter(requests_per_minute=60, max_wait=0))
    assert {"a": (0, "began"), "b": (0, no("b"))} == refusals("ab", Limiter(concurrency=1, max_wait=0), "x---|")
    expected = {"a": (0, "began"), "b": (1, "began"), "c": (1, no("c"))}
    assert expected == refusals("abc", Limiter(requests_per_minute=60, max_wait=1.5))
    expected = {"a": (0, "began"), "b": (4, "began"), "c": (6, no("c"))}
    assert expected == refusals("abc", Limiter(concurrency=1, max_wait=6), "x---|")


def test_a_refused_request_makes_no_difference_to_the_others():
    """It neither counts nor holds a place."""
    limiter = Limiter(concurrency=1, requests_per_minute=60, max_wait=0)
    assert {"a", "b"} == {*refusals("ab", limiter)}
    assert 0 == limiter._queue.busy
    assert {} == limiter._queue.lines or all(not line.waiting for line in limiter._queue.lines.values())
    assert 1 == limiter._queue.rates[0][1].taken


def test_the_cost_of_a_request_does_not_grow_with_the_minute():
    """Neither its time nor the memory that is kept of it."""
    rate, steps = Rate(1_000_000, 60.0, burst=1_000_000), 0
    for number in range(20_000):
        now = number / 500
        rate.wait(7, now)
        rate.take(7, now)
        steps = max(steps, len(rate.spans))
    assert 240 >= steps
    assert 140_000 == rate.taken


async def test_a_place_is_held_until_the_request_has_closed():
    """The next request begins when the connection of the one that was left has ended."""
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
def test_one_limiter_twice_around_a_model_is_refused(nest):
    """The outer one would hold the place that the inner one waits for."""
    limiter = Limiter(concurrency=1)
    with pytest.raises(MisuseError, match="limits a request, and also another one that is a part of it"):
        limited(nest(limited(MarbleLLM("x|"), limiter)), limiter)
    assert limited(nest(limited(MarbleLLM("x|"), limiter)), Limiter(concurrency=1))


async def test_one_limiter_twice_is_refused_where_it_shows_only_later():
    """As of a route, whose models nobody knows before it is asked."""
    limiter = Limiter(concurrency=1)
    llm = limited(rxllm.route(lambda request: limited(Held(), limiter)), limiter)
    with pytest.raises(MisuseError, match="would hold its place"):
        await asyncio.wait_for(llm.ainvoke("now"), TIMEOUT)


def test_a_forked_child_does_not_wait_for_its_parent():
    """Neither for the parent's requests, nor for a lock that one of its threads held."""
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
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert ("x\n", "") == (done.stdout, done.stderr)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "3", True])
@pytest.mark.parametrize("name", ["concurrency", "requests_per_minute", "tokens_per_minute"])
def test_limits_that_are_none_are_refused(name, wrong):
    """Before anybody waits for them."""
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
def test_rates_and_waits_that_make_no_sense_are_refused(wrong):
    """When the limiter is made."""
    with pytest.raises(MisuseError, match=next(iter(wrong))):
        Limiter(**wrong)


def test_what_is_no_limiter_is_refused():
    """Such as a number."""
    with pytest.raises(MisuseError, match="takes a Limiter"):
        limited(MarbleLLM("x|"), 5)
    assert "Limiter(concurrency=2)" == repr(Limiter(concurrency=2))
