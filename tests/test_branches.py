"""`parallel` and `assign`: branches with one input, as one stage."""

import ast
import asyncio
import pickle
import threading
from pathlib import Path

import pytest
import reactivex as rx
from attrs import field, frozen
from operators.test_every_operator import Probe, settle
from reactivex import operators as ops
from reactivex.scheduler import ImmediateScheduler
from reactivex.subject import Subject

import rxllm
from rxllm import Chunk, Message, MisuseError, assign, parallel, pipe, text
from rxllm.operators import merging
from rxllm.runtime.scheduler import Scheduler
from rxllm.testing import MarbleLLM, on_virtual_time

TIMEOUT = 5.0  # seconds for what comes at once
EXAMPLE = Path(__file__).parents[1] / "examples" / "37_template_parallel.py"


@frozen
class Echo(rxllm.LLM):
    """Streams the words of its prompt after a prefix, and records the requests."""

    prefix: str = ""
    asked: list = field(factory=list, eq=False, repr=False)

    async def chunks(self, request):
        """Yields the words."""
        self.asked.append(request)
        for word in f"{self.prefix} {request.text}".split():
            yield word


def shout(topic):
    """A branch without a model."""
    return rx.of(topic.upper())


def brief(answers):
    """A prompt of two answers."""
    return f"{answers['a']}+{answers['b']}"


# ── the stream ───────────────────────────────────────────────────────────────────────────────────────────────────


@on_virtual_time
async def test_values_come_as_they_arrive():
    """A slow branch delays nobody, and the stream completes with the last branch."""
    heard, over = [], asyncio.Event()
    loop = asyncio.get_running_loop()
    start = loop.time()
    both = parallel(slow=MarbleLLM("-----c-|"), quick=pipe(MarbleLLM("a-b|"), text()))
    both("hi").subscribe(
        lambda item: heard.append((loop.time() - start, {key: str(value) for key, value in item.items()})),
        on_completed=over.set,
        scheduler=rxllm.scheduler(),
    )
    await over.wait()
    assert [(0, {"quick": "a"}), (2, {"quick": "b"}), (5, {"slow": "c"})] == heard
    assert 7 == loop.time() - start


def test_answer_has_each_branch_in_the_declared_order():
    """Each answer is what the branch alone would answer."""
    all_kinds = parallel(
        z=Echo("model"),
        text=pipe(Echo("text"), text()),
        lines=pipe(Echo(), rxllm.lines()),
        a=shout,
        none=lambda _: rx.empty(),
    )
    answer = all_kinds.invoke("hi")
    assert ["z", "text", "lines", "a", "none"] == [*answer]
    assert (Message, "modelhi") == (type(answer["z"]), answer["z"].text)
    assert {"text": "texthi", "lines": ["hi"], "a": "HI", "none": None} == {
        key: value for key, value in answer.items() if key != "z"
    }
    assert [answer, answer] == all_kinds.batch(["hi", "hi"])
    assert {"x": {"y": "yhi", "z": []}} == parallel(
        x=parallel(y=pipe(Echo("y"), text()), z=pipe(lambda _: rx.empty(), rxllm.lines()))
    ).invoke("hi")


async def test_async_methods():
    """They are those of every Surface."""
    both = parallel(a=pipe(Echo("a"), text()), b=pipe(Echo("b"), text()))
    assert {"a": "ahi", "b": "bhi"} == await both.ainvoke("hi")
    assert [{"a": "a"}, {"a": "hi"}, {"b": "b"}, {"b": "hi"}] == sorted(
        [item async for item in both.astream("hi")], key=lambda item: [*item.items()]
    )


def test_branches_in_a_pipeline():
    """`answer` is a stage: the dict of answers goes on as one value."""
    both = parallel(a=pipe(Echo("a"), text()), b=pipe(Echo("b"), text()))
    last = Echo("last")
    assert "lastahi+bhi" == pipe(both.answer, ops.map(brief), last, text()).invoke("hi")
    assert ["ahi+bhi"] == [request.text for request in last.asked]


def test_observable_input_is_subscribed_to_once():
    """Two branches of an answer make one request; two subscriptions make two."""
    first, a, b = Echo("first"), Echo("a"), Echo("b")
    talk = pipe(first, parallel(a=pipe(a, text()), b=pipe(b, text())))
    assert {"a": "afirsthi", "b": "bfirsthi"} == talk.invoke("hi")
    assert [1, 1, 1] == [len(model.asked) for model in (first, a, b)]
    stream = talk("hi")
    for _ in range(2):
        assert 4 == len(list(stream.pipe(rxllm.stream())))
    assert [3, 3, 3] == [len(model.asked) for model in (first, a, b)]


def test_operators_are_branches_of_a_stream():
    """They get the shared stream."""
    both = pipe(Echo(), parallel(text=text(), count=rxllm.stage(ops.count(), adds_up="last")))
    assert {"text": "abc", "count": 3} == both.invoke("a b c")


# ── errors and the end ───────────────────────────────────────────────────────────────────────────────────────────


def told(log, name):
    """A handler that writes the runs that end into a log."""

    def on_event(event):
        if isinstance(event, (rxllm.Failed, rxllm.Cancelled, rxllm.Finished)):
            log.append((name, type(event).__name__))

    return on_event


@on_virtual_time
async def test_failing_branch_cancels_its_siblings_first():
    """When the subscriber gets the error, no branch runs any more."""
    log, over = [], asyncio.Event()
    both = parallel(
        slow=MarbleLLM("-a-b-c-d|").with_config(handlers=[told(log, "slow")]),
        bad=MarbleLLM("--#").with_config(handlers=[told(log, "bad")]),
        late=MarbleLLM("---a|").with_config(handlers=[told(log, "late")]),
    )
    both("hi").subscribe(
        lambda item: log.append([*item]),
        lambda error: (log.append("error"), over.set()),
        scheduler=rxllm.scheduler(),
    )
    await over.wait()
    assert [["slow"], ("bad", "Failed"), ("slow", "Cancelled"), ("late", "Cancelled"), "error"] == log


def test_branch_that_fails_at_once_starts_no_other():
    """A branch after it makes no request."""
    after = Echo()
    with pytest.raises(ValueError, match="no"):
        parallel(bad=lambda _: rx.throw(ValueError("no")), after=after).invoke("hi")
    assert [] == after.asked


async def test_dispose_closes_all_branches():
    """Also those that have emitted nothing."""
    probes = Probe(), Probe()
    scheduler = Scheduler(asyncio.get_running_loop())
    subscription = parallel(a=lambda _: probes[0], b=lambda _: probes[1])("x").subscribe(scheduler=scheduler)
    await settle(scheduler)
    assert [(1, 0), (1, 0)] == [(probe.came, probe.left) for probe in probes]
    assert all(isinstance(probe.scheduler, Scheduler) and probe.scheduler.gate is scheduler.gate for probe in probes)
    subscription.dispose()
    await settle(scheduler)
    assert [1, 1] == [probe.left for probe in probes]


def test_break_closes_all_branches():
    """When the reader breaks, all models stop."""
    closed = [threading.Event(), threading.Event()]

    @frozen
    class Endless(rxllm.LLM):
        number: int

        async def chunks(self, request):
            try:
                while True:
                    yield "x"
            finally:
                closed[self.number].set()

    with parallel(a=Endless(0), b=Endless(1)).stream("hi") as items:
        for item in items:
            if "b" in item:
                break
    assert all(event.wait(TIMEOUT) for event in closed)


async def test_subscriber_that_raises_leaves_all_branches():
    """Its exception is reported; the sources are disposed."""
    loop, reported = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda loop, context: reported.append(context["exception"]))
    probe = Probe()

    def refuse(item):
        raise ValueError(item)

    parallel(a=Echo(), b=lambda _: probe)("hi").subscribe(refuse, scheduler=rxllm.scheduler())
    await settle(None)
    assert [1, 1] == [probe.left, len(reported)]


async def test_values_of_other_threads_come_on_the_loop():
    """One at a time, in the order of their branch."""
    subjects, heard, over = (Subject(), Subject()), [], asyncio.Event()
    loop = asyncio.get_running_loop()
    parallel(a=lambda _: subjects[0], b=lambda _: subjects[1])("x").subscribe(
        lambda item: heard.append((item, asyncio.get_running_loop() is loop)),
        on_completed=over.set,
        scheduler=rxllm.scheduler(),
    )

    def emit(subject):
        for number in range(100):
            subject.on_next(number)
        subject.on_completed()

    threads = [threading.Thread(target=emit, args=[subject]) for subject in subjects]
    for thread in threads:
        thread.start()
    await asyncio.wait_for(over.wait(), TIMEOUT)
    for thread in threads:
        thread.join()
    assert {True} == {is_loop for _, is_loop in heard}
    for key in "a", "b":
        assert [*range(100)] == [item[key] for item, _ in heard if key in item]


# ── parameters, events, values ───────────────────────────────────────────────────────────────────────────────────


def test_parameters_reach_the_models_of_all_branches():
    """By a call or by bind, also through a pipeline and a nested parallel, and past branches without a model."""
    a, b, c = Echo(), Echo(), Echo()
    all_of = parallel(a=a, b=pipe(b, text()), c=parallel(c=c, shout=shout), shout=shout)
    all_of.invoke("hi", temperature=0.5)
    all_of.bind(temperature=0.5).invoke("hi")
    pipe(all_of, ops.last()).invoke("hi", temperature=0.5)
    pipe(all_of.answer, ops.last()).invoke("hi", temperature=0.5)
    assert {0.5} == {request.temperature for model in (a, b, c) for request in model.asked}
    assert [4, 4, 4] == [len(model.asked) for model in (a, b, c)]


def test_parameters_without_a_model_are_refused():
    """Nothing would use them."""
    with pytest.raises(MisuseError, match="No branch here has a model, so temperature"):
        parallel(a=shout).invoke("hi", temperature=0.5)
    with pytest.raises(MisuseError, match="no model among its stages"):
        pipe(parallel(a=shout)).invoke("hi", temperature=0.5)


def test_events_show_the_branches():
    """The runs of a branch have its name, unless they have one, and are within the run of the parallel."""
    events = []
    both = parallel(a=Echo(), b=pipe(Echo(), text()).with_config(run_name="mine"), c=shout)
    both.with_config(tags=["t"]).invoke("hi", handlers=[events.append])
    started = [event for event in events if isinstance(event, rxllm.Started)]
    assert ["Parallel", "a", "mine", "Echo", "c"] == [event.run.name for event in started]
    outer = started[0].run
    assert [(), (outer.id,), (outer.id,), (outer.id, started[2].run.id), (outer.id,)] == [
        event.run.parent_ids for event in started
    ]
    assert {("t",)} == {event.run.tags for event in started}
    finished = [event for event in events if isinstance(event, rxllm.Finished)]
    assert {"a": Message("assistant", "hi"), "b": "hi", "c": "HI"} == finished[-1].output
    assert "parallel" == both.with_config(run_name="parallel").run_name


async def test_astream_events_shows_the_branches():
    """In LangChain's form, as a chain."""
    both = parallel(a=Echo(), b=shout)
    events = [event async for event in both.astream_events("hi")]
    assert [("on_chain_start", "Parallel"), ("on_llm_start", "a")] == [(e["event"], e["name"]) for e in events[:2]]
    assert {"a", "b"} == {*events[-1]["data"]["output"]}


def test_long_streams_fold_in_pieces():
    """A handler keeps the values of a run short, whatever the folds are."""
    words = " ".join("x" * 5000)

    def letters(_):
        return rx.from_iterable(words)

    outputs = []
    both = parallel(
        a=Echo(), b=pipe(letters, rxllm.stage(ops.map(str), adds_up="list")), c=letters, d=pipe(letters, ops.map(ord))
    )
    answer = both.invoke(
        words, handlers=[lambda event: outputs.append(event.output) if isinstance(event, rxllm.Finished) else None]
    )
    assert {"a": Message("assistant", "x" * 5000), "b": [*words], "c": words, "d": ord("x")} == answer == outputs[-1]


def test_port_of_a_program_is_no_longer_than_the_original():
    """The example ports a program of 21 lines of LangChain's, in no more lines."""
    tree = ast.parse(EXAMPLE.read_text("utf-8"))
    code = {line for node in tree.body[1:] for line in range(node.lineno, (node.end_lineno or 0) + 1)}
    lines = EXAMPLE.read_text("utf-8").splitlines()
    assert len([number for number in code if lines[number - 1].strip()]) <= 21


def test_many_keys_fold_in_few_steps(monkeypatch):
    """Values that cannot be made fewer are not folded again at each further value."""
    folds, by_key = [], merging._by_key
    monkeypatch.setattr(merging, "_by_key", lambda values: folds.append(len(values)) or by_key(values))
    wide = {str(number): number for number in range(5000)}
    assert {**wide, "a": 5000} == assign(a=len_of).invoke(wide, handlers=[lambda event: None])
    assert len(folds) < 10


def test_parallel_is_a_value():
    """It shows the call that makes it, can be compared and pickled."""
    both = parallel(a=rxllm.Embedded(), b=pipe(shout, text()), c=shout)
    assert "parallel(a=Embedded(), b=pipe(shout, text()), c=shout)" == repr(both)
    assert "assign(a=shout, tags=('t',))" == repr(assign(a=shout).with_config(tags=["t"]))
    assert both == pickle.loads(pickle.dumps(both))  # noqa: S301
    assert hash(both) == hash(parallel(a=rxllm.Embedded(), b=pipe(shout, text()), c=shout))
    loaded = pickle.loads(pickle.dumps(pipe(assign(c=len_of).answer)))  # noqa: S301
    assert {"topic": "fish", "c": 1} == loaded.invoke({"topic": "fish"})


def len_of(values):
    """Return the number of values."""
    return rx.of(len(values))


@pytest.mark.parametrize("make", [parallel, assign])
def test_wrong_branches_are_refused_when_they_are_passed(make):
    """Before anything is sent."""
    with pytest.raises(MisuseError, match="needs at least one branch"):
        make()
    with pytest.raises(MisuseError, match="The branch a must be a model"):
        make(a="hi")
    with pytest.raises(MisuseError, match="text is a function that returns an operator"):
        make(a=text)


def test_combinators_of_branches_answer_what_the_branches_answer():
    """Their answer is a dict, too."""
    bad = parallel(a=lambda _: rx.throw(rxllm.Overloaded("no")), b=shout)
    good = parallel(a=shout, b=shout)
    assert {"a": "HI", "b": "HI"} == rxllm.fallback(bad, good).invoke("hi") == rxllm.retry(good).invoke("hi")
    nested = [parallel(x=parallel(a=pipe(Echo(), text()))) for _ in range(2)]
    assert {"x": {"a": "hi"}} == rxllm.fallback(*nested).invoke("hi")
    with pytest.raises(rxllm.Overloaded):
        rxllm.retry(bad, attempts=1).invoke("hi")


def test_branch_must_return_an_observable():
    """A value is not guessed to be a stream."""
    with pytest.raises(MisuseError, match=r"must return an Observable; len returned int"):
        parallel(a=len).invoke("hi")


# ── assign ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_assign_adds_to_a_dict():
    """The items of the input come first, also in the answer; a branch replaces an item of its name."""
    both = assign(count=len_of, topic=pipe(lambda values: values["topic"], Echo("new"), text()))
    assert {"tone": 1, "count": 2, "topic": "newfish"} == both.invoke({"topic": "fish", "tone": 1})
    assert ["tone", "count", "topic"] == [*both.invoke({"topic": "fish", "tone": 1})]
    assert [{"tone": 1}, {"count": 2}] == [*both.stream({"topic": "fish", "tone": 1})][:2]
    at_once = assign(a=lambda _: rx.of(1).pipe(ops.subscribe_on(ImmediateScheduler()), ops.start_with(0)))
    assert [{"b": 2}, {"a": 0}, {"a": 1}] == [*at_once.stream({"b": 2})]


def test_assign_after_parallel():
    """An Observable of dicts passes through, and is subscribed to once."""
    a = Echo("a")
    both = parallel(a=pipe(a, text()), b=shout)
    judged = pipe(both.answer, assign(best=pipe(ops.map(lambda answers: max(answers.values())), Echo(), text())))
    assert {"a": "ahi", "b": "HI", "best": "ahi"} == judged.invoke("hi")
    assert 1 == len(a.asked)
    growing = pipe(both, assign(count=rxllm.stage(ops.count(), adds_up="last")))
    assert {"a": "ahi", "b": "HI", "count": 3} == growing.invoke("hi")


@pytest.mark.parametrize("value", ["hi", [1], None, rx.of("hi")])
def test_assign_needs_a_dict(value):
    """Anything else has no names to add to."""
    with pytest.raises(MisuseError, match="assign adds to a dict"):
        assign(a=lambda _: rx.of(1)).invoke(value)


def test_chunks_of_the_input_stay_what_they_are():
    """One value is itself; several values of a key add up."""
    assert {"a": Chunk("x"), "b": 1} == assign(b=lambda _: rx.of(1)).invoke({"a": Chunk("x")})
