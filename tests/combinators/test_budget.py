"""`Budget` and `budgeted`: reserve, settle, periods of UTC, and what is refused."""

import asyncio
import collections
import pickle
import queue
import sqlite3
import threading
from contextlib import suppress
from decimal import Decimal

import pytest
import reactivex as rx
from attrs import field, frozen
from combinators.scripted import Scripted
from reactivex import operators as ops
from reactivex.scheduler import ImmediateScheduler

import rxllm
from rxllm import Budget, LimitReached, MisuseError, budgeted
from rxllm.combinators import budget as module
from rxllm.combinators.budget import Reservation, Used
from rxllm.combinators.budgeted import MAY_WAIT, _Spending
from rxllm.testing import End, FakeServer, Reply

USED = rxllm.Chunk(finish_reason="stop", usage=rxllm.Usage(input_tokens=30, output_tokens=20))


@pytest.fixture
def path(tmp_path):
    """Return the path of a new file."""
    return tmp_path / "budgets.sqlite"


def test_answer_settles_what_it_took(path):
    """After an answer the budget has the reported tokens instead of the estimate."""
    budget = Budget(path, tokens=1000)
    model = budgeted(Scripted([["Hello", USED]]), budget)
    assert "Hello" == model.invoke("hi").text
    assert Used(50) == budget.used()
    assert "Hello" == model.invoke("hi", max_tokens=7).text
    assert Used(100) == Budget(path, tokens=1).used()


def test_spent_budget_refuses_before_anything_is_sent(path):
    """A request that may take more than is left fails, and the model is not asked; a small one still fits."""
    scripted = Scripted([["Hello", USED]])
    model = budgeted(scripted, Budget(path, tokens=160))
    for _ in range(2):
        model.invoke("hi", max_tokens=50)
    with pytest.raises(LimitReached, match="160 tokens a day") as caught:
        model.invoke("hi", max_tokens=100)
    assert "budget" == caught.value.limit
    assert 2 == len(scripted.requests)
    model.invoke("hi", max_tokens=50)
    with pytest.raises(LimitReached):
        model.invoke("hi", max_tokens=20)


def test_refused_request_is_in_the_error_without_its_secrets(path):
    """An error can be logged."""
    key = "canary-0123456789abcdef"
    model = budgeted(Scripted([["Hello", USED]]), Budget(path, tokens=50))
    model.invoke("hi")
    with pytest.raises(LimitReached) as caught:
        model.invoke(rxllm.Request(prompt="hi", extra={"api_key": key}))
    assert ("hi", {"api_key": "***"}) == (caught.value.request.text, caught.value.request.extra)
    assert key not in f"{vars(caught.value)} {pickle.dumps(caught.value)!r}"


def test_first_request_of_a_period_may_be_larger_than_the_budget(path):
    """A budget below one estimate still admits one request at a time, else it would admit none for ever."""
    budget = Budget(path, tokens=60)
    model = budgeted(Scripted([["Hello", USED]]), budget)
    model.invoke("hi")
    with pytest.raises(LimitReached):
        model.invoke("hi")


def test_period_begins_anew_in_utc(path, monkeypatch):
    """A day and a month end at midnight of UTC; a reservation settles in the period in which it was made."""
    now = [1_764_460_799.0]  # 2025-11-29T23:59:59Z
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    day, month = Budget(path, "d", tokens=100), Budget(path, "m", tokens=100, period="month")
    ever = Budget(path, "e", tokens=100, period=None)
    reservations = [(each, each.reserve(Used(60))) for each in (day, month, ever)]
    now[0] += 1
    assert [0, 60, 60] == [each.used().tokens for each in (day, month, ever)]
    for each, reservation in reservations:
        each.settle(reservation, Used(10))
    assert [0, 10, 10] == [each.used().tokens for each in (day, month, ever)]
    now[0] += 86_400 * 2
    assert [0, 0, 10] == [each.used().tokens for each in (day, month, ever)]


def answered_by(model):
    """A whole answer of 1,000 tokens to 1,000 tokens, by the model with this name."""
    return Reply.json(
        {
            "model": model,
            "choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 1000, "total_tokens": 2000},
        }
    )


def whole(server):
    """Options of a model that asks this server for whole answers."""
    return {"base_url": server.url, "api_key": "k", "api": "chat", "stream": False}


class Noting(Budget):
    """Notes what each request reserves."""

    def reserve(self, wanted):
        """Note it, and reserve it."""
        RESERVED.append(wanted)
        return super().reserve(wanted)


RESERVED = []


@pytest.fixture(autouse=True)
def _nothing_reserved():
    RESERVED.clear()


@pytest.mark.parametrize(
    ("make", "tokens"),
    [
        (lambda llm, budget: budgeted(llm, budget).bind(max_tokens=7), 8),
        (lambda llm, budget: budgeted(llm.bind(max_tokens=7), budget), 8),
        (lambda llm, budget: budgeted(rxllm.retry(llm.bind(max_tokens=7)).bind(seed=1), budget), 8),
        (lambda llm, budget: budgeted(rxllm.fallback(llm.bind(max_tokens=7), llm.bind(max_tokens=900)), budget), 901),
        (lambda llm, budget: budgeted(rxllm.fallback(llm.bind(max_tokens=7), llm), budget), 501),
    ],
)
def test_estimate_counts_the_max_tokens_that_a_model_inside_has(path, make, tokens):
    """They bound the answer, wherever they are bound. Of several models the one with the longest answer counts."""
    make(Scripted([["Hello", USED]]), Noting(path, tokens=10_000)).invoke("hi")
    assert [Used(tokens)] == RESERVED


def test_estimated_cost_is_that_of_the_max_tokens_inside(path):
    """A million tokens of gpt-5-mini cost two dollars."""
    with FakeServer(answered_by("gpt-5-mini")) as server:
        llm = rxllm.OpenAI("gpt-5-mini", max_tokens=1_000_000, **whole(server))
        budgeted(rxllm.retry(llm), Noting(path, cost=5)).invoke("hi")
    assert [Decimal(2)] == [round(wanted.cost, 4) for wanted in RESERVED]


def test_cost_is_counted_in_dollars(path):
    """A budget in dollars counts list prices exactly, and refuses a model without a price before it is sent."""
    with FakeServer(answered_by("gpt-5-mini")) as server:
        options = whole(server)
        budget = Budget(path, cost=1)
        budgeted(rxllm.OpenAI("gpt-5-mini", **options), budget).invoke("hi")
        assert Decimal("0.00225") == budget.used().cost
        with pytest.raises(MisuseError, match="No price is known for unheard-of"):
            budgeted(rxllm.OpenAI("unheard-of", **options), budget).invoke("hi")
        assert 1 == len(server.requests)


def test_answer_by_an_unlisted_name_has_the_price_of_the_request(path):
    """A vendor answers by the name of a snapshot that the price list lacks. The answer is paid, so it arrives."""
    budget = Budget(path, cost=1)
    with FakeServer(answered_by("snapshot-of-tomorrow")) as server:
        assert "Hello" == budgeted(rxllm.OpenAI("gpt-5-mini", **whole(server)), budget).invoke("hi").text
    assert Decimal("0.00225") == budget.used().cost


def test_unlisted_model_that_a_tool_asks_counts_as_estimated(path, caplog):
    """The answer arrives, the estimate of the request stays reserved, and a warning names the model."""
    with FakeServer(answered_by("gpt-5-mini")) as server:

        @rxllm.tool
        async def ask() -> str:
            return (await rxllm.OpenAI("unheard-of", **whole(server)).ainvoke("hi")).text

        server.reply(
            Reply.json(
                {
                    "model": "gpt-5-mini",
                    "choices": [
                        {
                            "message": {
                                "tool_calls": [
                                    {"id": "1", "type": "function", "function": {"name": "ask", "arguments": "{}"}}
                                ]
                            },
                            "finish_reason": "tool_calls",
                        }
                    ],
                }
            ),
            answered_by("unheard-of"),
            answered_by("gpt-5-mini"),
        )
        budget = Budget(path, cost=1)
        llm = budgeted(rxllm.agent(rxllm.OpenAI("gpt-5-mini", **whole(server)), ask), budget)
        assert "Hello" == llm.invoke("hi").text
    assert Decimal("0.00225") < budget.used().cost < Decimal("0.1")
    assert "No price is known for unheard-of" in caplog.text


async def test_disposed_answer_settles_what_arrived(path):
    """A stream that is left gives back the rest of its reservation."""
    event = b'data: {"choices":[{"index":0,"delta":{"content":"Hello there"}}]}\n\n'
    settled = threading.Event()

    class Watched(Budget):
        def settle(self, reservation, used):
            super().settle(reservation, used)
            settled.set()

    budget = Watched(path, tokens=10_000)
    with FakeServer(Reply([event, End.HANG])) as server:
        llm = budgeted(rxllm.OpenAI("m", base_url=server.url, api_key="k", api="chat"), budget)
        async with llm.astream("hi", max_tokens=5000) as stream:
            async for _ in stream:
                assert 5001 == budget.used().tokens
                break
        await server.exchange().closed_soon()
    await asyncio.to_thread(settled.wait)
    assert 0 < budget.used().tokens < 100


def test_answer_whose_cost_cannot_be_written_arrives_and_keeps_its_reservation(path, caplog):
    """It is paid, so a full disk must not lose it."""

    class Full(Budget):
        def settle(self, reservation, used):
            raise sqlite3.OperationalError("database or disk is full")

    budget = Full(path, tokens=1000)
    assert "Hello" == budgeted(Scripted([["Hello", USED]]), budget).invoke("hi").text
    assert 501 == budget.used().tokens
    assert "The budget 'budget' counts an estimate: it could not be written (database or disk is full)." in caplog.text


def test_budget_whose_file_cannot_be_used_refuses_before_anything_is_sent(path):
    """As if it were spent, so that a job stops instead of noting a failure for each row."""
    path.mkdir()
    scripted = Scripted([["Hello", USED]])
    with pytest.raises(LimitReached, match=r"cannot be counted in .*budgets.sqlite") as caught:
        budgeted(scripted, Budget(path, tokens=1000)).invoke("hi")
    assert "budget" == caught.value.limit
    assert [] == scripted.requests


async def test_request_that_is_disposed_while_it_reserves_gives_all_back(path):
    """Nobody waits for the reservation any more, so the thread that made it takes it back."""
    reserving, left, settled = threading.Event(), threading.Event(), threading.Event()

    class Slow(Budget):
        def reserve(self, wanted):
            reserving.set()
            left.wait()
            return super().reserve(wanted)

        def settle(self, reservation, used):
            super().settle(reservation, used)
            settled.set()

    budget = Slow(path, tokens=1000)
    request = budgeted(Scripted([["Hello", USED]]), budget).answer("hi").subscribe()
    await asyncio.to_thread(reserving.wait)
    request.dispose()
    await asyncio.sleep(0)
    left.set()
    assert await asyncio.to_thread(settled.wait, 60)
    assert Used() == budget.used()


class Reporting(Budget):
    """Tells each request that it has refused."""

    def reserve(self, wanted):
        """Reserve, or tell it."""
        try:
            return super().reserve(wanted)
        except LimitReached:
            REFUSED.put(wanted)
            raise


REFUSED = queue.SimpleQueue()


@frozen
class Gated(rxllm.LLM):
    """Answers when the event of its prompt is set."""

    gates: dict = field(factory=lambda: collections.defaultdict(asyncio.Event))
    asked: asyncio.Queue = field(factory=asyncio.Queue)

    async def complete(self, request):
        """Return an answer of 50 tokens."""
        self.asked.put_nowait(request.text)
        await self.gates[request.text].wait()
        return rxllm.Message("assistant", request.text, usage=USED.usage)


def subscribed(llm, text, tokens, heard):
    """Ask as a job does: a request waits while the rest of the budget is only reserved."""
    scheduler = rxllm.scheduler().with_baggage(MAY_WAIT, True)
    return llm.bind(max_tokens=tokens).answer(text).subscribe(heard.put_nowait, heard.put_nowait, scheduler=scheduler)


@pytest.mark.parametrize("is_woken", [False, True])
async def test_disposed_request_that_waits_lets_the_next_one_reserve(path, monkeypatch, is_woken):
    """While it is in the line, and right after it has been woken."""
    model, heard, woken = Gated(), asyncio.Queue(), _Spending.woken

    def disposed_and_woken(spending):
        left.dispose()
        woken(spending)

    if is_woken:
        monkeypatch.setattr(_Spending, "woken", disposed_and_woken)
    llm = budgeted(model, Reporting(path, tokens=200))
    for text, tokens in (("keeper", 20), ("first", 120)):
        subscribed(llm, text, tokens, heard)
        assert text == await model.asked.get()
    left = subscribed(llm, "left", 100, heard)
    await asyncio.to_thread(REFUSED.get)
    subscribed(llm, "next", 99, heard)
    await asyncio.to_thread(REFUSED.get)
    if not is_woken:
        left.dispose()
    model.gates["first"].set()
    assert "next" == await model.asked.get()
    for text in ("next", "keeper"):
        model.gates[text].set()
    assert {"first", "next", "keeper"} == {(await heard.get()).text for _ in range(3)}


async def test_request_waits_no_longer_for_one_whose_event_loop_has_ended(path):
    """Nothing settles that one any more, so its reservation stays spent."""
    budget, heard, waits = Reporting(path, tokens=200), asyncio.Queue(), threading.Event()

    async def ask_and_end():
        model = Gated()
        subscribed(budgeted(model, budget), "lost", 150, asyncio.Queue())
        await model.asked.get()
        begun.set()
        await asyncio.to_thread(waits.wait)

    begun = threading.Event()
    other = threading.Thread(target=asyncio.run, args=[ask_and_end()])
    other.start()
    await asyncio.to_thread(begun.wait)
    subscribed(budgeted(Gated(), budget), "waits", 100, heard)
    await asyncio.to_thread(REFUSED.get)
    waits.set()
    assert "budget" == (await heard.get()).limit
    await asyncio.to_thread(other.join)


def test_request_is_sent_though_it_has_its_reservation_before_subscribe_returns(path, monkeypatch):
    """The event loop's thread may be that much faster."""
    heard, subscribed = queue.SimpleQueue(), threading.Event()

    def at_once(function):
        return rx.from_iterable([None], ImmediateScheduler()).pipe(ops.map(lambda _: function()))

    class Waiting(rxllm.LLM):
        async def complete(self, request):
            await asyncio.to_thread(subscribed.wait)
            return "hi"

    monkeypatch.setattr("rxllm.combinators.budgeted.from_thread", at_once)
    stream = budgeted(Waiting(), Budget(path, tokens=1000))("a")
    stream.subscribe(lambda chunk: heard.put(chunk.text), heard.put, lambda: heard.put("|"))
    subscribed.set()
    assert ["hi", "|"] == [heard.get(timeout=60), heard.get(timeout=60)]


def test_failed_answer_settles(path):
    """A request that failed without an answer costs nothing but its prompt."""
    budget = Budget(path, tokens=1000)
    with pytest.raises(rxllm.RateLimited):
        budgeted(Scripted([[rxllm.RateLimited("slow", status=429)]]), budget).invoke("hi", max_tokens=900)
    assert 10 > budget.used().tokens


def test_an_agent_counts_all_rounds(path):
    """All models that take part in an answer count."""

    @rxllm.tool
    async def look() -> str:
        return "rain"

    call = rxllm.Chunk(parts=[rxllm.ToolCallPart("c", "look", "{}")], usage=USED.usage, finish_reason="tool_call")
    budget = Budget(path, tokens=1000)
    budgeted(rxllm.agent(Scripted([[call], ["Rain.", USED]]), look), budget).invoke("hi")
    assert 100 == budget.used().tokens


def test_processes_and_threads_share_a_budget(path):
    """Of requests that reserve at the same time, only those that fit are admitted."""
    admitted = []

    def reserve():
        with suppress(LimitReached):
            admitted.append(Budget(path, tokens=100).reserve(Used(30)))

    threads = [threading.Thread(target=reserve) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [30] * 3 == [reservation.used.tokens for reservation in admitted]
    assert 0o600 == path.stat().st_mode & 0o777


def test_budget_pickles_and_shows_its_limits(path):
    """A copy counts in the same file; the repr has the limits."""
    budget = Budget(path, "alice", cost=5, period="month")
    copy = pickle.loads(pickle.dumps(budget))  # noqa: S301
    copy.settle(Reservation(copy.reserve(Used(1)).period, Used()), Used(3))
    assert 4 == budget.used().tokens
    assert f"Budget({str(path)!r}, 'alice', cost='5', period='month')" == repr(copy)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "tokens="),
        ({"tokens": 0}, "above 0"),
        ({"tokens": 1.5}, "above 0"),
        ({"cost": True}, "above 0"),
        ({"tokens": 1, "period": "week"}, "'day'"),
        ({"tokens": 1, "name": ""}, "name"),
    ],
)
def test_mistakes_are_refused(path, options, words):
    """A budget needs a limit, and each argument its range."""
    with pytest.raises(MisuseError, match=words):
        Budget(path, **options)


def test_budgeted_takes_a_model_and_a_budget(path):
    """Other arguments are refused."""
    with pytest.raises(MisuseError, match="takes a model"):
        budgeted(rxllm.text(), Budget(path, tokens=1))
    with pytest.raises(MisuseError, match="takes a Budget"):
        budgeted(Scripted([["a"]]), 5)
