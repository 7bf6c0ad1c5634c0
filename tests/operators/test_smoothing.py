"""`smooth`, on virtual time: an even pace, and a bounded wait."""

import asyncio
import itertools
import math
from collections.abc import Callable

import pytest
import reactivex as rx
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from reactivex.scheduler.eventloop import AsyncIOScheduler
from reactivex.subject import Subject
from reactivex.testing import ReactiveTest, TestScheduler

import rxllm
from rxllm import MisuseError, smooth
from rxllm.runtime.scheduler import Scheduler
from rxllm.runtime.source import Source, connect

on_next, on_error, on_completed = ReactiveTest.on_next, ReactiveTest.on_error, ReactiveTest.on_completed
FAILURE = ValueError("no")


def run(seconds, *events, disposed=1000):
    """The notifications of a hot source as (time, value), and its subscription times."""
    scheduler = TestScheduler()
    source = scheduler.create_hot_observable(*events)
    observer = scheduler.start(lambda: source.pipe(smooth(seconds)), disposed=disposed)
    heard = [
        (event.time, event.value.exception if event.value.kind == "E" else getattr(event.value, "value", "|"))
        for event in observer.messages
    ]
    return heard, [each.unsubscribe for each in source.subscriptions]


def burst(at, count):
    """Items that arrive at one moment."""
    return [on_next(at, f"{at}.{number}") for number in range(count)]


def test_burst_is_spread_evenly():
    """The first item is emitted at once, the intervals are equal, and the last item is in time."""
    heard, left = run(100, *burst(210, 11), on_completed(220))
    times = [time for time, _ in heard[:-1]]
    assert [f"210.{number}" for number in range(11)] == [value for _, value in heard[:-1]]
    assert 210 == times[0]
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert max(gaps) - min(gaps) <= 1.5
    assert 40 <= times[-1] - 210 <= 100
    assert (times[-1], "|") == heard[-1]
    assert [220] == left


@pytest.mark.parametrize("every", [1, 5, 20, 150])
def test_even_stream_stays_unchanged(every):
    """Items at equal intervals are emitted at these intervals, without a growing delay."""
    heard, _ = run(100, *(on_next(at, at) for at in range(210, 900, every)))
    assert max(abs(time - value) for time, value in heard if value > 500) <= max(2, every)


def test_first_item_after_a_pause_is_emitted_at_once():
    """A pause resets the pace."""
    heard, _ = run(100, *burst(210, 5), on_next(600, "late"), on_completed(601))
    assert (600, "late") == heard[5]
    assert (601, "|") == heard[6]


@pytest.mark.parametrize("end", [on_completed(211), on_error(211, FAILURE)])
def test_end_comes_after_the_waiting_items(end):
    """No arrived item is lost, and the source is disposed at once."""
    heard, left = run(50, *burst(210, 4), end)
    assert ["210.0", "210.1", "210.2", "210.3"] == [value for _, value in heard[:4]]
    assert [211] == left
    assert heard[3][0] == heard[4][0]
    assert (FAILURE if end.value.kind == "E" else "|") == heard[4][1]
    assert 5 == len(heard)


@pytest.mark.parametrize("end", [on_completed(211), on_error(211, FAILURE)])
def test_end_without_waiting_items_comes_at_once(end):
    """The completion or error passes at once."""
    assert [(211, FAILURE if end.value.kind == "E" else "|")] == run(50, end)[0]


def test_disposal_drops_the_waiting_items():
    """No timer remains."""
    heard, left = run(500, *burst(210, 9), disposed=220)
    assert [(210, "210.0")] == heard
    assert [220] == left


def test_disposal_within_on_next_takes_effect_at_once():
    """The operator emits nothing more."""
    scheduler = TestScheduler()
    source = scheduler.create_hot_observable(*burst(210, 9))
    heard = scheduler.start(lambda: source.pipe(smooth(100), rx.operators.take(3))).messages
    assert ["N", "N", "N", "C"] == [event.value.kind for event in heard]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 90)), max_size=12), st.integers(5, 200))
def test_no_item_waits_longer_than_the_limit(bursts, seconds):
    """For any arrivals: all items are emitted in order, not before they arrive, and at most `seconds` later."""
    at, events, arrivals = 201, [], []
    for pause, count in bursts:
        at += pause
        events += [on_next(at, len(events) + number) for number in range(count)]
        arrivals += [at] * count
    heard, _ = run(seconds, *events, on_completed(at), disposed=5000)
    assert [*range(len(arrivals)), "|"] == [value for _, value in heard]
    # The timer of virtual time is up to one tick late.
    assert all(0 <= time - arrival <= seconds + 2 for (time, _), arrival in zip(heard, arrivals, strict=False))


@given(st.lists(st.sampled_from(["x", "a ", " a", "  ", "\n", "水"]), max_size=12))
def test_words_are_emitted_whole(chunks):
    """Any split of the text gives the same words."""

    def said(*texts):
        scheduler = TestScheduler()
        events = [on_next(210 + number, text) for number, text in enumerate(texts)]
        source = scheduler.create_hot_observable(*events, on_completed(300))
        heard = scheduler.start(lambda: source.pipe(rxllm.words(), smooth(50))).messages
        return [event.value.value for event in heard[:-1]]

    text = "".join(chunks)
    assert said(text) == said(*chunks) == said(*text)


@pytest.mark.parametrize("wrong", [0, -1, math.nan, math.inf, "3", True, None])
def test_invalid_time_is_refused(wrong):
    """The operator raises MisuseError when it is created."""
    with pytest.raises(MisuseError, match=f"smooth must be a positive number of seconds, not {wrong!r}"):
        smooth(wrong)


@frozen(eq=False)
class Alarm:
    """One timer of the fake loop."""

    time: float
    action: Callable[[], None]
    alarms: list

    def cancel(self):
        """Cancels the timer."""
        if self in self.alarms:
            self.alarms.remove(self)


class Alarms:
    """The time of a loop, which the test moves, and its timers."""

    def __init__(self, monkeypatch, scheduler):
        self.time = 1000.0
        self.alarms = []
        self.set = 0
        scheduler.gate.clock = lambda: self.time
        monkeypatch.setattr(scheduler.loop, "call_later", self.schedule)

    def schedule(self, seconds, action, context=None):
        """Adds a timer."""
        alarm = Alarm(self.time + seconds, action, self.alarms)
        self.alarms.append(alarm)
        self.set += 1
        return alarm

    def move(self, seconds):
        """Moves the time, and fires the timers that are due."""
        end = self.time + seconds
        while due := sorted((alarm for alarm in self.alarms if alarm.time <= end), key=lambda alarm: alarm.time):
            self.time = max(self.time, due[0].time)
            due[0].cancel()
            due[0].action()
        self.time = end


class Gated(rx.Observable):
    """A source that records its gate."""

    def __init__(self):
        super().__init__()
        self.subject, self.scheduler = Subject(), None

    def _subscribe_core(self, observer, scheduler=None):
        self.scheduler = scheduler
        return self.subject.subscribe(observer)


async def test_gate_closes_and_opens(monkeypatch):
    """The source pauses at 64 waiting items, and resumes at 16. The consumer's gate is another one."""
    scheduler = Scheduler(asyncio.get_running_loop())
    clock, source, heard = Alarms(monkeypatch, scheduler), Gated(), []
    subscription = source.pipe(smooth(1.0)).subscribe(heard.append, scheduler=scheduler)
    gate = source.scheduler.gate
    for number in range(64):
        source.subject.on_next(number)
    assert (1, True) == (len(heard), gate.is_open)
    source.subject.on_next(64)
    assert (False, True) == (gate.is_open, scheduler.gate.is_open)
    while len(heard) < 48:
        clock.move(0.001)
    assert not gate.is_open
    while len(heard) < 49:
        clock.move(0.001)
    assert gate.is_open
    subscription.dispose()
    assert [] == clock.alarms


async def test_plain_asyncio_scheduler_gets_a_gate():
    """With reactivex's own scheduler, the source pauses, too."""
    source, heard = Gated(), []
    scheduler = AsyncIOScheduler(asyncio.get_running_loop())
    subscription = source.pipe(smooth(1000.0)).subscribe(heard.append, scheduler=scheduler)
    for number in range(65):
        source.subject.on_next(number)
    assert (1, False) == (len(heard), source.scheduler.gate.is_open)
    subscription.dispose()


async def test_pace_doubles_when_the_queue_is_full(monkeypatch):
    """A stored answer of 2,000 chunks is not held up: each time the queue is full, the pace doubles."""
    scheduler = Scheduler(asyncio.get_running_loop())
    clock, source, heard = Alarms(monkeypatch, scheduler), Gated(), []
    source.pipe(smooth(1.0)).subscribe(heard.append, scheduler=scheduler)
    begun, number = clock.time, 0
    while len(heard) < 2000:
        while source.scheduler.gate.is_open and number < 2000:
            source.subject.on_next(number)
            number += 1
        clock.move(0.001)
    source.subject.on_completed()
    assert [*range(2000)] == heard
    assert 0.5 < clock.time - begun < 3.0


async def test_full_consumer_gets_nothing(monkeypatch):
    """While its gate is closed nothing is emitted; then the pace continues."""
    scheduler = Scheduler(asyncio.get_running_loop())
    clock, source, heard = Alarms(monkeypatch, scheduler), Gated(), []
    source.pipe(smooth(1.0)).subscribe(heard.append, scheduler=scheduler)
    scheduler.gate.close()
    for number in range(10):
        source.subject.on_next(number)
    clock.move(60.0)
    assert [] == heard
    assert 1 == len(clock.alarms)
    scheduler.gate.open()
    clock.move(0.3)
    assert 0 < len(heard) < 10
    clock.move(1.0)
    source.subject.on_completed()
    assert [*range(10)] == heard
    assert [] == clock.alarms


async def test_one_timer_runs_at_a_time(monkeypatch):
    """An item that arrives while others wait sets no timer."""
    scheduler = Scheduler(asyncio.get_running_loop())
    clock, source = Alarms(monkeypatch, scheduler), Gated()
    subscription = source.pipe(smooth(1.0)).subscribe(scheduler=scheduler)
    for number in range(60):
        source.subject.on_next(number)
    assert (1, 1) == (len(clock.alarms), clock.set)
    subscription.dispose()
    assert [] == clock.alarms


async def test_timer_is_not_reset_for_every_item(monkeypatch):
    """Also when items arrive one by one, faster than they are emitted."""
    scheduler = Scheduler(asyncio.get_running_loop())
    clock, source, heard = Alarms(monkeypatch, scheduler), Gated(), []
    subscription = source.pipe(smooth(1.0)).subscribe(heard.append, scheduler=scheduler)
    for number in range(60):
        source.subject.on_next(number)
        clock.move(0.001)
    assert clock.set < len(heard) + 12
    subscription.dispose()


class Bare(rx.abc.ObserverBase):
    """A subscriber without a guard, which disposes after three items."""

    def __init__(self):
        self.heard, self.subscription = [], None

    def on_next(self, value):
        """Records the value."""
        self.heard.append(value)
        if len(self.heard) == 3:
            self.subscription.dispose()

    def on_error(self, error):
        """Is never called."""

    def on_completed(self):
        """Records the completion."""
        self.heard.append("end")


async def test_waiting_items_keep_a_script_alive(monkeypatch):
    """Until the last item is emitted, or the subscriber disposes."""
    held, scheduler = [], Scheduler(asyncio.get_running_loop())

    def hold():
        held.append(True)
        return lambda: held.remove(True)

    monkeypatch.setattr(scheduler, "hold", hold)
    clock, source, heard = Alarms(monkeypatch, scheduler), Gated(), []
    subscription = source.pipe(smooth(1.0)).subscribe(lambda value: heard.append((value, *held)), scheduler=scheduler)
    for number in range(5):
        source.subject.on_next(number)
        assert [True] * (number > 0) == held
    clock.move(2.0)
    assert [(0,), *((number, True) for number in range(1, 5))] == heard
    assert [] == held
    source.subject.on_next(5)
    source.subject.on_next(6)
    assert [True] == held
    subscription.dispose()
    assert [] == held


async def test_late_timer_stops_at_a_disposal(monkeypatch):
    """Several items are due at once, and the subscriber disposes at one of them."""
    scheduler = Scheduler(asyncio.get_running_loop())
    clock, source, observer = Alarms(monkeypatch, scheduler), Gated(), Bare()
    observer.subscription = connect(smooth(1.0)(source), observer, scheduler)
    for number in range(10):
        source.subject.on_next(number)
    source.subject.on_completed()
    clock.move(0.0)
    clock.time += 10.0
    clock.move(0.0)
    assert [0, 1, 2] == observer.heard
    assert [] == clock.alarms


async def test_end_of_the_source_disposes_it(monkeypatch):
    """Although items wait, and the subscriber has no end yet."""
    scheduler = Scheduler(asyncio.get_running_loop())
    clock, left, kept = Alarms(monkeypatch, scheduler), [], []

    def subscribe(observer, scheduler=None):
        kept.append(observer)
        return rx.disposable.Disposable(lambda: left.append(True))

    subscription = smooth(1.0)(Source(subscribe)).subscribe(scheduler=scheduler)
    kept[0].on_next("a")
    kept[0].on_next("b")
    kept[0].on_completed()
    assert [True] == left
    subscription.dispose()
    assert [] == clock.alarms


async def test_items_of_another_thread_are_paced_on_the_loop():
    """They keep their order."""
    source, heard, over = Subject(), [], asyncio.Event()
    source.pipe(smooth(0.01)).subscribe(heard.append, on_completed=over.set, scheduler=rxllm.scheduler())

    def produce():
        for number in range(50):
            source.on_next(number)
        source.on_completed()

    await asyncio.to_thread(produce)
    await asyncio.wait_for(over.wait(), 5)
    assert [*range(50)] == heard


def test_answer_of_a_model_is_unchanged():
    """On a real loop: the chunks are the same, through every bridge."""
    llm = rxllm.Embedded(seed=1, max_tokens=40)
    plain = [str(chunk) for chunk in llm.stream("rain")]
    assert plain == [str(chunk) for chunk in llm("rain").pipe(smooth(0.02), rxllm.stream())]


def test_item_at_the_edge_of_the_window_counts():
    """The pace follows the last `seconds`, including both edges."""
    heard, _ = run(60, on_next(210, "a"), *(on_next(270, each) for each in "bcd"), on_completed(400))
    assert [(210, "a"), (270, "b"), (280, "c"), (290, "d"), (400, "|")] == heard
