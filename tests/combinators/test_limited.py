"""`limited`: who may begin when, by virtual time; and what servers say of their limits."""

import asyncio
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
from rxllm.combinators.limiter import admitted
from rxllm.runtime.portal import portal
from rxllm.runtime.scheduler import Scheduler
from rxllm.runtime.source import Source
from rxllm.testing import End, FakeServer, MarbleLLM, Reply, Signal
from rxllm.wire.rates import Allowance, allowances

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


def test_requests_per_minute():
    """In any minute no more than that."""
    times = begun("x|", "abcdefg", Limiter(requests_per_minute=3))
    assert {"a": 0, "b": 0, "c": 0, "d": 60, "e": 60, "f": 60, "g": 120} == times


def test_tokens_per_minute_are_guessed():
    """Four characters each; and one that never fits goes alone."""
    prompts = ["a" * 39, "b" * 39, "c" * 39, "d" * 399, "e" * 39]
    times = begun("x|", prompts, Limiter(tokens_per_minute=20))
    assert [0, 0, 60, 120, 180] == [times[prompt] for prompt in prompts]


def test_tokens_are_put_right_by_the_answer():
    """More than was guessed keeps others waiting, less lets them in."""

    def counted(tokens):
        usage = Usage(input_tokens=tokens - 1, output_tokens=1)
        scheduler, times = VirtualTimeScheduler(), []
        limiter = Limiter(tokens_per_minute=100)
        llm = limited(MarbleLLM("u|", values={"u": Chunk("x", usage=usage)}), limiter)
        for seconds in (0, 5):
            scheduler.schedule_relative(
                seconds,
                lambda *_: llm(
                    "hi",
                ).subscribe(lambda _: times.append(scheduler.now.timestamp()), scheduler=scheduler),
            )
        scheduler.start()
        return times

    assert [0, 5] == counted(10)
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
    while limiter._entered < count:
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
    monkeypatch.setattr("rxllm.combinators.limiter.PATIENCE", 0.01)
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


def test_who_waits_relies_on_no_other_loop():
    """The head of the queue was to look again in a moment, and its loop has ended since."""
    limiter = Limiter(concurrency=5)
    limiter.learn({"retry-after": "0.1"}, time.monotonic())
    llm, answers = limited(Held(), limiter), []

    async def subscribe_and_end():
        llm("now").subscribe(lambda _: None)
        overs.append(in_a_thread(lambda: answers.append(quickly(llm, "now"))))
        entered(limiter, 2)

    overs = []
    asyncio.run(subscribe_and_end())
    overs[0]()
    assert ["now"] == answers


def test_a_loop_that_stands_still_is_passed_over(monkeypatch):
    """Until it goes on: then it is first again."""
    monkeypatch.setattr("rxllm.combinators.limiter.PATIENCE", 0.01)
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
    """Neither for the minute nor for what a server allows."""
    monkeypatch.setattr("rxllm.combinators.limiter.PATIENCE", 0.01)
    held, limiter = Held(), Limiter(concurrency=1, requests_per_minute=2)
    limiter.learn({"x-ratelimit-remaining-requests": "2", "x-ratelimit-reset-requests": "900s"}, time.monotonic())
    llm = limited(held, limiter)
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
    monkeypatch.setattr("rxllm.combinators.limiter.PATIENCE", 0.01)
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
        return Source(lambda observer, home: home.schedule(lambda *_: observer.on_completed()))

    asked = limited(ask, limiter)
    for number in range(10):
        home = Scheduler(portal() if number % 2 else loop)
        asked(number).subscribe(on_completed=lambda: loop.call_soon_threadsafe(ended.release), scheduler=home)
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
        return Source(lambda observer, home: home.schedule(lambda *_: observer.on_completed()))

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
    ("headers", "expected"),
    [
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "7s"}, 7),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "7s"}, 7),
        ({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "7s"}, 0),
        ({"retry-after": "9"}, 9),
        ({}, 0),
    ],
    ids=["no requests left", "no tokens left", "one left", "asked to wait", "nothing said"],
)
def test_a_limiter_obeys_the_server(headers, expected):
    """Until the server counts anew."""
    limiter = Limiter(concurrency=100)
    limiter.learn(headers, 0.0)
    assert {"a": expected} == begun("x|", "a", limiter)


def test_the_last_that_is_allowed_is_the_last():
    """One may begin, the next waits for the server to count anew."""
    limiter = Limiter(concurrency=100)
    limiter.learn({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "7s"}, 0.0)
    assert {"a": 0, "b": 7, "c": 7} == begun("x|", "abc", limiter)


async def test_headers_reach_the_limiter_over_http():
    """Those of an answer, and those of a refusal."""
    refusal = Reply.json({"error": {"message": "slow down"}}, status=429, headers={"retry-after": "1000"})
    told = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "500s"}
    with FakeServer(Reply(Chat().stream(["a"]), headers=told), refusal) as server:
        model = rxllm.OpenAI("m", base_url=server.url, api_key="k", max_retries=0)
        for expected in 500, 1000:
            limiter = Limiter(concurrency=4)
            try:
                await limited(model, limiter).ainvoke("hi")
            except rxllm.RateLimited:
                assert 1000 == expected
            later = limited(model, limiter)("hi").subscribe(lambda _: None)
            ((ticket,),) = (line.waiting for line in limiter._lines.values() if line.waiting)
            assert expected - 5 < limiter._wait(ticket, ticket.now()) <= expected
            later.dispose()
        assert 2 == len(server.requests)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "3", True])
@pytest.mark.parametrize("name", ["concurrency", "requests_per_minute", "tokens_per_minute"])
def test_limits_that_are_none_are_refused(name, wrong):
    """Before anybody waits for them."""
    with pytest.raises(MisuseError, match=f"{name} must be a whole number"):
        Limiter(**{name: wrong})


def test_what_is_no_limiter_is_refused():
    """Such as a number."""
    with pytest.raises(MisuseError, match="takes a Limiter"):
        limited(MarbleLLM("x|"), 5)
    assert "Limiter(concurrency=2)" == repr(Limiter(concurrency=2))
