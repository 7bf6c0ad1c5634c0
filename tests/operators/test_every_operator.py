"""Laws that hold for all operators."""

import asyncio
import inspect

import pytest
import reactivex as rx
from hypothesis import given
from hypothesis import strategies as st

import rxllm
from rxllm import Chunk, ToolCallPart, Usage, combinators
from rxllm.operators.caching import kept
from rxllm.operators.stage import is_factory
from rxllm.operators.timeouts import silence
from rxllm.runtime.gate import Gate
from rxllm.runtime.scheduler import Scheduler
from rxllm.runtime.source import Source, connect, source

TIMEOUT = 5.0  # seconds for what comes at once
FAILURE = ValueError("the source's")


class Echo(rxllm.LLM):
    """A model that answers at once."""

    async def complete(self, request):
        """Returns the prompt."""
        return request.text


OPERATORS = [name for name in rxllm.__all__ if is_factory(getattr(rxllm, name))]
ASKING = {"batch": rxllm.batch(Echo()), "batch_as_completed": rxllm.batch_as_completed(Echo())}
FOLDS = {"message": rxllm.message(), "usage": rxllm.usage()}
PASSING = {
    "text": rxllm.text(),
    "first_chunk_timeout": rxllm.first_chunk_timeout(60),
    "idle_timeout": rxllm.idle_timeout(60),
    "silence": silence(first=60, idle=60),
    "deadline": rxllm.deadline(60),
    "words": rxllm.words(),
    "lines": rxllm.lines(),
    "sentences": rxllm.sentences(),
    "stop_at": rxllm.stop_at("STOP"),
    "split_reasoning": rxllm.split_reasoning(),
    "snapshots": rxllm.snapshots(),
    "call_drafts": rxllm.call_drafts(),
    "drafts": rxllm.drafts(),
    "items": rxllm.items(int),
    "parse": rxllm.parse(int),
}
JSON = {
    PASSING["drafts"]: "1",
    PASSING["items"]: "[1]",
    PASSING["parse"]: "1",
}  # whole answers
PACING = {"smooth": rxllm.smooth(60)}
ALL = {**ASKING, **FOLDS, **PASSING, **PACING}
# A combinator of one stage acts as an operator on the stream of that stage.
COMBINED = {
    "retry": lambda source: rxllm.retry(lambda _: source, 2, delay=lambda error, attempt: 0.0)("x"),
    "fallback": lambda source: rxllm.fallback(lambda _: source)("x"),
    "hedge": lambda source: rxllm.hedge(lambda _: source, after=60)("x"),
    "limited": lambda source: rxllm.limited(lambda _: source, rxllm.Limiter(concurrency=8))("x"),
    "route": lambda source: rxllm.route(lambda _: lambda _: source)("x"),
}
BRANCHES = {
    "parallel": lambda source: rxllm.parallel(a=lambda _: source)("x"),
    "assign": lambda source: rxllm.assign(a=lambda _: source)({}),
}
# These subscribe to their source once, for all subscribers.
SHARING = {
    "share": rxllm.share(),
    "cached": lambda source: kept(lambda: source, rxllm.MemoryStore(), "key", {}),
}
# A model applied to an Observable, and `observe`, are operators, too.
LIKE = {
    **ALL,
    **COMBINED,
    **BRANCHES,
    **SHARING,
    "llm": Echo(),
    "pipe": rxllm.pipe(rxllm.text(), rxllm.idle_timeout(60)),
    "observed llm": rxllm.observe(Echo(), lambda event: None),
    "observed pipe": rxllm.pipe(rxllm.text(), rxllm.idle_timeout(60)).with_config(handlers=[lambda event: None]),
}


def every(which):
    """Runs the test once for each operator."""
    return pytest.mark.parametrize("operator", which.values(), ids=which.keys())


def item(operator):
    """A value that the operator accepts."""
    if operator in ASKING.values():
        return "prompt"
    if operator == PASSING["call_drafts"]:
        return Chunk(parts=[ToolCallPart("c", "f")])
    return Chunk(JSON.get(operator, "x"), usage=Usage(output_tokens=1))


class Probe(rx.Observable):
    """A source without any guard. It records its latest observer, and counts subscriptions and disposals."""

    def __init__(self):
        super().__init__(self.connect)
        self.observer = self.scheduler = None
        self.came = self.left = 0

    def connect(self, observer, scheduler=None):
        """Records a subscription."""
        self.came += 1
        self.observer, self.scheduler = observer, scheduler
        return rx.disposable.Disposable(self.leave)

    def subscribe(self, on_next=None, on_error=None, on_completed=None, *, scheduler=None):
        """Subscribes without reactivex's guard of the grammar, so that the operator's own grammar shows."""
        if hasattr(on_next, "on_next"):
            return self.connect(on_next, scheduler)
        return self.connect(Raw(on_next, on_error, on_completed), scheduler)

    def leave(self):
        """Counts a disposal."""
        self.left += 1


class Raw:
    """An observer of three functions, without a guard."""

    def __init__(self, on_next, on_error, on_completed):
        self.on_next, self.on_error, self.on_completed = on_next, on_error, on_completed


class Heard(list):
    """Records the notifications of a subscriber as words."""

    def __init__(self):
        self.over = asyncio.Event()

    def subscribe(self, observable, scheduler=None):
        """Subscribes."""
        return observable.subscribe(lambda value: self.append("next"), self.failed, self.completed, scheduler=scheduler)

    def failed(self, error):
        """Records the error."""
        self.append(error)
        self.over.set()

    def completed(self):
        """Records the completion."""
        self.append("end")
        self.over.set()


async def settle(scheduler):
    """Returns after many turns of the loop."""
    for _ in range(50):
        await asyncio.sleep(0)


def test_every_exported_operator_is_tested_here():
    """So is every combinator; `observe` is tested as an operator. `job` writes a file and has tests of its own."""
    assert sorted({*OPERATORS} - {"job"}) == sorted({*ALL, "share"} - {"silence"})
    assert sorted(combinators.__all__) == sorted({*COMBINED, "cached", "observe"})


@pytest.mark.parametrize("name", OPERATORS)
def test_docstring_has_a_marble_diagram(name):
    """The diagram shows the source, the call and the result."""
    lines = inspect.getdoc(getattr(rxllm, name)).splitlines()
    picture = [line for line in lines[lines.index("::") :] if line.startswith("    ")][:3]
    assert [True, True, True] == [
        picture[0].lstrip()[0] == "-",
        picture[1].strip().startswith(f"{name}("),
        "-" in picture[2],
    ]


@every(LIKE)
async def test_scheduler_is_passed_upstream(operator):
    """The source gets the subscriber's loop, context and tasks, whatever stands between."""
    probe, scheduler = Probe(), Scheduler(asyncio.get_running_loop())
    subscription = Heard().subscribe(operator(probe), scheduler)
    await settle(scheduler)
    assert isinstance(probe.scheduler, Scheduler)
    assert scheduler.loop is probe.scheduler.loop
    own = (
        operator in SHARING.values()
    )  # a shared request may outlive its first subscriber, so it has its own gate and tasks
    task = asyncio.current_task()
    probe.scheduler.lifetime.tasks.add(task)
    assert own == (task not in scheduler.lifetime.tasks)
    probe.scheduler.lifetime.tasks.discard(task)
    assert not own or scheduler.gate is not probe.scheduler.gate
    inside = probe.scheduler.context  # of a run a copy, that shows the run
    assert inside is scheduler.context or all(inside[name] is value for name, value in scheduler.context.items())
    subscription.dispose()
    await settle(scheduler)


@every(PASSING | FOLDS | COMBINED | BRANCHES)
async def test_operator_without_a_queue_passes_the_gate_on(operator):
    """The source waits at the gate of the consumer."""
    probe, scheduler = Probe(), Scheduler(asyncio.get_running_loop())
    subscription = Heard().subscribe(operator(probe), scheduler)
    assert scheduler.gate is probe.scheduler.gate
    subscription.dispose()


@every(ASKING | PACING)
async def test_operator_with_a_queue_has_its_own_gate(operator):
    """It closes this gate when its queue is full, although the consumer's gate is open."""
    probe, scheduler = Probe(), Scheduler(asyncio.get_running_loop())
    subscription = Heard().subscribe(operator(probe), scheduler)
    await settle(scheduler)
    assert isinstance(probe.scheduler.gate, Gate)
    assert scheduler.gate is not probe.scheduler.gate
    for _ in range(100):
        probe.observer.on_next(item(operator))
    assert (True, False) == (scheduler.gate.is_open, probe.scheduler.gate.is_open)
    subscription.dispose()
    await settle(scheduler)


@every(LIKE)
async def test_dispose_reaches_the_source_once(operator):
    """The source is disposed soon and exactly once, and the subscriber gets nothing more."""
    probe, scheduler, heard = Probe(), Scheduler(asyncio.get_running_loop()), Heard()
    subscription = heard.subscribe(operator(probe), scheduler)
    await settle(scheduler)
    assert 0 == probe.left
    subscription.dispose()
    await settle(scheduler)
    assert 1 == probe.left
    probe.observer.on_next(item(operator))
    probe.observer.on_completed()
    await settle(scheduler)
    assert [] == heard


@every(LIKE)
async def test_error_of_the_source_is_passed_on(operator):
    """The subscriber gets the same exception once, and the source is disposed."""
    probe, scheduler, heard = Probe(), Scheduler(asyncio.get_running_loop()), Heard()
    heard.subscribe(operator(probe), scheduler)
    await settle(scheduler)
    probe.observer.on_error(FAILURE)
    await asyncio.wait_for(heard.over.wait(), TIMEOUT)
    await settle(scheduler)
    assert [FAILURE] == heard
    assert 1 == probe.left


def ending(end):
    """An operator that completes at an item, and leaves the disposal of its source to its subscriber."""
    return lambda source: Source(
        lambda observer, scheduler: connect(source, Raw(lambda _: end(observer), None, None), scheduler)
    )


@every(LIKE)
@pytest.mark.parametrize(
    "above",
    [
        pytest.param(ending(lambda observer: observer.on_error(FAILURE)), id="fails"),
        pytest.param(ending(lambda observer: observer.on_completed()), id="completes"),
        pytest.param(rxllm.text(), id="text"),
        pytest.param(rxllm.first_chunk_timeout(1e-6), id="first_chunk_timeout"),
        pytest.param(rxllm.deadline(1e-6), id="deadline"),
    ],
)
async def test_source_of_a_completed_operator_is_disposed(operator, above):
    """Without a dispose, the source would go on for nobody."""
    probe, scheduler, heard = Probe(), Scheduler(asyncio.get_running_loop()), Heard()
    heard.subscribe(operator(above(probe)), scheduler)
    await settle(scheduler)
    probe.observer.on_next(Chunk(reset=True))  # which `text` refuses
    await asyncio.wait_for(heard.over.wait(), TIMEOUT)
    await settle(scheduler)
    assert probe.came == probe.left
    assert isinstance(heard[-1], Exception) or heard[-1] == "end"


@every(LIKE)
@pytest.mark.parametrize("end", ["end", "error"])
async def test_grammar_holds_after_the_end(operator, end):
    """The subscriber gets items and one end, whatever the source emits after it."""
    probe, scheduler, heard = Probe(), Scheduler(asyncio.get_running_loop()), Heard()
    heard.subscribe(operator(probe), scheduler)
    await settle(scheduler)
    probe.observer.on_next(item(operator))
    await settle(scheduler)
    probe.observer.on_completed() if end == "end" else probe.observer.on_error(FAILURE)
    await asyncio.wait_for(heard.over.wait(), TIMEOUT)
    expected = list(heard)
    for again in (
        lambda: probe.observer.on_next(item(operator)),
        lambda: probe.observer.on_error(FAILURE),
        probe.observer.on_completed,
    ):
        again()
        await settle(scheduler)
    assert expected == heard
    assert ["end" if end == "end" else FAILURE] == [event for event in heard if event != "next"]
    assert heard[-1] in ("end", FAILURE)


@every({name: operator for name, operator in LIKE.items() if name not in SHARING})
async def test_two_subscriptions_share_nothing(operator):
    """Each subscription subscribes to its own source."""
    calls = []

    async def items(scheduler):
        calls.append(scheduler)
        yield item(operator)

    applied, first, second = operator(source(items)), Heard(), Heard()
    for heard in first, second:
        heard.subscribe(applied)
        await asyncio.wait_for(heard.over.wait(), TIMEOUT)
    assert first == second == ["next", "end"]
    assert 2 == len(calls)


@every(LIKE)
def test_result_refuses_iteration(operator):
    """A plain Observable would be iterated for ever."""
    source = Echo()("x") if operator in PASSING.values() else rxllm.from_iter(["x"])
    applied = operator(source)
    assert isinstance(applied, Source)
    with pytest.raises(rxllm.MisuseError, match="cannot be iterated"):
        iter(applied)


@every(PASSING | FOLDS | ASKING | {"smooth": rxllm.smooth(1e-9)})
def test_nothing_is_emitted_after_a_dispose_at_any_moment(operator):
    """At random moments: the values before the dispose are a prefix of all, and none follows."""

    @given(st.lists(st.sampled_from(["next", "turn"]), max_size=10), st.integers(0, 10), st.booleans())
    def law(moves, dispose_at, fails):
        async def main(leave):
            probe, scheduler, heard = Probe(), Scheduler(asyncio.get_running_loop()), Heard()
            subscription = heard.subscribe(operator(probe), scheduler)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            when = None
            for number, move in enumerate(moves):
                if leave and number == dispose_at:
                    subscription.dispose()
                    when = len(heard)
                probe.observer.on_next(item(operator)) if move == "next" else await asyncio.sleep(0)
            if probe.observer is not None:
                probe.observer.on_error(FAILURE) if fails else probe.observer.on_completed()
            await settle(scheduler)
            subscription.dispose()
            await settle(scheduler)
            return list(heard), when

        whole, _ = asyncio.run(main(leave=False))
        heard, when = asyncio.run(main(leave=True))
        assert 1 == len([event for event in whole if event != "next"])
        if when is not None:
            assert when == len(heard)
        else:
            assert list(map(repr, whole)) == list(map(repr, heard))

    law()
