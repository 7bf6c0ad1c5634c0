"""`pipe`: plain function composition, with the surface on top."""

import asyncio
import functools
import operator

import pytest
import reactivex as rx
from attrs import field, frozen
from reactivex import operators as ops

import rxllm
from rxllm import LLM, Chunk, Message, MisuseError, Pipeline, Request, pipe, text


@frozen
class Echo(LLM):
    """Streams the prompt by letters, and remembers the requests."""

    seen: list[Request] = field(factory=list)

    async def chunks(self, request):
        """Letters."""
        self.seen.append(request)
        for letter in request.text:
            yield letter


def template(topic):
    """A prompt."""
    return f"<{topic}>"


def test_stages_are_called_with_what_came_before():
    """``pipe(f, g, h)(x)`` is ``h(g(f(x)))``, and nothing else happens."""
    calls = []

    def stage(name):
        return lambda value: calls.append((name, value)) or rx.of(name)

    result = pipe(stage("f"), stage("g"))(5)
    assert isinstance(result, rx.Observable)
    assert [("f", 5)] == calls[:1]
    assert "g" == calls[1][0]


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda p: list(p.stream("x")), ["<", "x", ">"]),
        (lambda p: p.invoke("x"), "<x>"),
        (lambda p: p.batch(["x", "yz"]), ["<x>", "<yz>"]),
        (lambda p: sorted(p.batch_as_completed(["x", "yz"])), [(0, "<x>"), (1, "<yz>")]),
    ],
)
def test_a_pipeline_has_the_surface_of_a_model(ask, expected):
    """Its answer is what its values add up to."""
    assert expected == ask(pipe(template, Echo(), text()))


async def test_a_pipeline_has_the_surface_of_a_model_on_a_loop():
    """The same with await."""
    talk = pipe(template, Echo(), text())
    assert ["<", "x", ">"] == [piece async for piece in talk.astream("x")]
    assert "<x>" == await talk.ainvoke("x")
    assert ["<x>"] == await talk.abatch(["x"])


def test_a_model_after_a_model_is_asked_once_with_the_whole():
    """It waits for the end of the first, and adds nothing."""
    second = Echo()
    talk = pipe(template, Echo(), second, ops.reduce(operator.add, Chunk()), text())
    assert "<x>" == talk.invoke("x")
    assert [Message("user", "<x>")] == [request.messages[0] for request in second.seen]


def test_a_pipeline_is_a_stage():
    """Grouping says nothing."""
    stages = [template, Echo(), text(), ops.map(str.upper)]
    grouped = pipe(pipe(*stages[:2]), pipe(*stages[2:]))
    assert list(pipe(*stages).stream("x")) == list(grouped.stream("x"))
    assert ["<", "X", ">"] == list(rx.of("x").pipe(ops.flat_map(pipe(*stages)), rxllm.stream()))


def test_parameters_reach_every_model():
    """Also through pipelines in pipelines, and leave the pipeline itself as it was."""
    first, second = Echo(), Echo()
    talk = pipe(template, pipe(first, text()), second)
    list(talk.stream("x", seed=3))
    talk.bind(seed=4).invoke("x")
    talk.invoke("x")
    for llm in first, second:
        assert [3, 4, None] == [request.seed for request in llm.seen]


def test_parameters_without_a_model_are_refused():
    """They would be lost."""
    with pytest.raises(MisuseError, match="has no model to take seed"):
        pipe(rx.of).bind(seed=3)


def test_parameters_for_a_model_within_an_operator_are_refused():
    """They do not get there, and the sentence says where to say them."""
    with pytest.raises(MisuseError, match=r"no model to take seed among its stages.*ops\.flat_map\(llm\.bind\(seed=…"):
        pipe(rx.of, ops.flat_map(Echo())).invoke("x", seed=3)


def test_parameters_pass_over_a_pipeline_without_a_model():
    """Whoever has none needs none."""
    llm = Echo()
    pipe(pipe(rx.of), llm).invoke("x", seed=3)
    assert [3] == [request.seed for request in llm.seen]


@pytest.mark.parametrize("operator", [text(), ops.map(str), rxllm.message(), rxllm.words()])
def test_an_operator_without_a_stream_is_told(operator):
    """Who gave what instead, and that a model may be missing."""
    with pytest.raises(
        MisuseError, match="Stage 2 is an operator, which takes an Observable, but template returned str"
    ):
        pipe(template, operator).invoke("x")
    with pytest.raises(MisuseError, match=r"Stage 1 is an operator, .* but the pipeline is given str"):
        pipe(operator).invoke("x")


@pytest.mark.parametrize(("stage", "name"), [(text, "text"), (rxllm.words, "words"), (ops.map, "map")])
def test_an_operator_without_its_parentheses_is_told(stage, name):
    """When the pipeline is made."""
    with pytest.raises(MisuseError, match=rf"{name} makes an operator, so call it first: say {name}\(…\)"):
        pipe(Echo(), stage)


def test_an_operator_before_the_model():
    """An Observable may be the input."""
    talk = pipe(ops.map(str.upper), Echo(), text())
    assert ["A", "B"] == list(talk(rx.of("a", "b")).pipe(rxllm.stream()))


def test_long_pipelines():
    """More stages than the type checkers follow."""
    maps = [ops.map(functools.partial(operator.add, letter)) for letter in "abcdefghij"]
    assert "jihgfedcbax" == pipe(rx.of, *maps).invoke("x")


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        ((), "at least one stage"),
        ((template, 5), "not int: 5"),
        (("Tell me {topic}",), "not str: 'Tell me"),
        ((None,), "not NoneType"),
    ],
)
def test_what_is_no_stage_is_refused(stages, sentence):
    """At once; nothing is coerced."""
    with pytest.raises(MisuseError, match=sentence):
        pipe(*stages)


async def fetched(topic):
    """A prompt that has to be waited for."""
    return f"About {topic}"


@pytest.mark.parametrize("after", [(Echo(),), (text(),), (pipe(Echo()),), ()])
def test_a_stage_that_is_async_def_is_told(after):
    """Its name is said, and what makes a stage of it; no coroutine is left unawaited."""
    with pytest.raises(
        MisuseError, match=r"^fetched is async def, so that it returned a coroutine, .*; rxllm\.tool\(fetched\) is"
    ):
        pipe(fetched, *after).invoke("x")
    with pytest.raises(MisuseError, match=r"; ops\.flat_map\(rxllm\.tool\(fetched\)\) is a stage that awaits it"):
        pipe(Echo(), fetched, *after).invoke("x")


def test_what_the_sentence_says_works():
    """Before a model, and after one."""
    asked = pipe(rxllm.tool(fetched), Echo(), rxllm.message(), ops.map(str), ops.flat_map(rxllm.tool(fetched)))
    assert f"About {Echo().invoke('About x')}" == asked.invoke("x")


def test_a_coroutine_may_go_to_a_function_that_takes_it():
    """Which is a stage as any."""

    def begun(coroutine):
        coroutine.close()
        return rx.of("closed")

    assert "closed" == pipe(fetched, begun).invoke("x")


def test_a_last_stage_without_a_stream_is_told():
    """Its name is said, and what to write instead."""
    with pytest.raises(MisuseError, match=r"template returned str\. Functions of single values go in as ops\.map"):
        pipe(template).invoke("x")


def test_what_a_stage_raises_comes_as_it_is():
    """At the call: nothing has been sent."""
    llm = Echo()

    def broken(topic):
        raise LookupError(topic)

    with pytest.raises(LookupError, match="x"):
        pipe(broken, llm).stream("x")
    assert [] == llm.seen


def test_a_pipeline_without_values_has_no_answer():
    """An error, not a wrong answer or a StopIteration."""
    with pytest.raises(rxllm.RxllmError, match="completed without a value"):
        pipe(lambda _: rx.empty()).invoke("x")


def test_pipelines_can_be_hashed():
    """Equal ones are one key."""
    stages = template, rxllm.Embedded(seed=1, metadata={"k": 1}), text()
    assert 1 == len({pipe(*stages), pipe(*stages)})


def test_parameters_reach_a_pipeline_of_ones_own():
    """Its constructor may take what it likes."""

    class Talk(Pipeline):
        def __init__(self, llm, *, loud):
            super().__init__((llm, text()))
            object.__setattr__(self, "loud", loud)

    echo = Echo()
    talk = Talk(echo, loud=True).bind(seed=3)
    assert (Talk, True, "x") == (type(talk), talk.loud, talk.invoke("x"))
    assert [3] == [request.seed for request in echo.seen]


def test_pipelines_are_values():
    """Frozen, equal by their stages, changed by copies."""
    llm, end = Echo(), text()
    assert pipe(template, llm, end) == Pipeline((template, llm, end))
    assert ("a",) == pipe(llm).with_config(tags=["a"]).tags
    with pytest.raises(MisuseError, match=r"rxllm\.pipe"):
        pipe(llm) | text()
    with pytest.raises(AttributeError):
        pipe(llm).stages = ()


def numbers(_):
    """A stage that streams what is no text."""
    return rx.of(1, 2, 3)


ECHO = Echo()
ADDING_UP = {
    "a model": ((ECHO,), Message("assistant", "abc")),
    "text": ((ECHO, text()), "abc"),
    "words": ((ECHO, rxllm.words()), "abc"),
    "sentences": ((ECHO, rxllm.sentences()), "abc"),
    "lines": ((ECHO, rxllm.lines()), ["abc"]),
    "an operator of chunks": ((ECHO, rxllm.split_reasoning()), Message("assistant", "abc")),
    "message": ((ECHO, rxllm.message()), Message("assistant", "abc")),
    "usage": ((ECHO, rxllm.usage()), rxllm.Usage()),
    "snapshots": ((ECHO, rxllm.snapshots()), Chunk("abc")),
    "snapshots of text": ((ECHO, text(), rxllm.snapshots()), "abc"),
    "a pipeline": ((template, pipe(ECHO, rxllm.lines())), ["<abc>"]),
    "batch": ((lambda x: rx.of(x, x), rxllm.batch(ECHO)), [Message("assistant", "abc")] * 2),
    "batch of a pipeline": ((lambda x: rx.of(x, x), rxllm.batch(pipe(ECHO, text()))), ["abc", "abc"]),
    "batch_as_completed": ((rx.of, rxllm.batch_as_completed(pipe(ECHO, text()))), [(0, "abc")]),
    "smooth passes on": ((ECHO, rxllm.lines(), rxllm.smooth(0.001)), ["abc"]),
    "limits and share pass on": (
        (ECHO, rxllm.lines(), rxllm.idle_timeout(9), rxllm.first_chunk_timeout(9), rxllm.deadline(9), rxllm.share()),
        ["abc"],
    ),
    "a limit alone": ((ECHO, rxllm.idle_timeout(9)), Message("assistant", "abc")),
    "a tool": ((rxllm.tool(len),), 3),
    "retry": ((rxllm.retry(pipe(ECHO, rxllm.lines())),), ["abc"]),
    "fallback": ((rxllm.fallback(pipe(ECHO, rxllm.lines()), pipe(ECHO, rxllm.lines())),), ["abc"]),
    "hedge of stages that differ": ((rxllm.hedge(pipe(ECHO, rxllm.text()), pipe(ECHO), after=9),), "abc"),
    "texts of an operator of reactivex": ((ECHO, text(), ops.map(str.upper)), "ABC"),
    "chunks of an operator of reactivex": ((ECHO, ops.filter(bool)), Message("assistant", "abc")),
    "values of an operator of reactivex": ((ECHO, ops.map(lambda chunk: ord(chunk.text))), 99),
    "a mixture": ((ECHO, text(), ops.start_with(1)), "c"),
    "one snapshot": ((ECHO, ops.scan(operator.add), ops.last()), Message("assistant", "abc")),
    "a function that asks": ((lambda x: ECHO(x),), Message("assistant", "abc")),
    "declared as list": ((numbers, rxllm.stage(ops.map(str), adds_up="list")), ["1", "2", "3"]),
    "declared as text": ((ECHO, rxllm.stage(ops.map(str), adds_up="text")), "abc"),
    "declared as message": ((ECHO, rxllm.stage(ops.filter(bool), adds_up="message")), Message("assistant", "abc")),
    "declared as last": ((ECHO, rxllm.stage(ops.scan(operator.add), adds_up="last")), Chunk("abc")),
    "declared by a function": ((numbers, rxllm.stage(ops.map(abs), adds_up=sum)), 6),
    "a declared first stage": ((rxllm.stage(numbers, adds_up="list"),), [1, 2, 3]),
    "chunks declared as text": ((rxllm.stage(ECHO, adds_up="text"),), "abc"),
}
EMPTY = {
    "text": ((ECHO, text()), ""),
    "a model": ((ECHO,), Message("assistant")),
    "lines": ((ECHO, rxllm.lines()), []),
    "message": ((ECHO, rxllm.message()), Message("assistant")),
    "a limit passes on": ((ECHO, text(), rxllm.deadline(9)), ""),
    "declared by a function": ((ECHO, rxllm.stage(ops.filter(bool), adds_up=len)), 0),
}


@pytest.mark.parametrize("observe", [False, True], ids=["unobserved", "observed"])
@pytest.mark.parametrize(
    ("prompt", "stages", "expected"),
    [
        *(pytest.param("abc", *case, id=name) for name, case in ADDING_UP.items()),
        *(pytest.param("", *case, id=f"{name}, of nothing") for name, case in EMPTY.items()),
    ],
)
async def test_every_way_to_ask_gives_what_the_stream_adds_up_to(prompt, stages, expected, observe):
    """The last stage says how, and the handlers hear the same."""
    events = []
    talk = pipe(*stages).with_config(handlers=[events.append] if observe else [], run_name="talk")
    assert expected == await talk.ainvoke(prompt)
    assert [expected] == await talk.abatch([prompt])
    assert [(0, expected)] == [each async for each in talk.abatch_as_completed([prompt])]
    assert expected == await asyncio.to_thread(talk.invoke, prompt)
    assert [expected] == await asyncio.to_thread(talk.batch, [prompt])
    assert [(0, expected)] == await asyncio.to_thread(lambda: list(talk.batch_as_completed([prompt])))
    assert [expected] == await rx.of(prompt).pipe(rxllm.batch(talk), ops.to_list())
    [*_, end] = [event async for event in talk.astream_events(prompt)]
    assert ("on_chain_end", expected) == (end["event"], end["data"]["output"])
    [*_, finished] = await talk.events(prompt).pipe(ops.to_list())
    assert expected == finished.output
    if observe:
        heard = [event.output for event in events if isinstance(event, rxllm.Finished) and event.name == "talk"]
        assert [expected] * 9 == heard


@pytest.mark.parametrize("size", [1, 1024, 1025, 5000])
@pytest.mark.parametrize(
    ("stage", "answer"),
    [
        (text(), "".join),
        (rxllm.split_reasoning(), lambda letters: Message("assistant", "".join(letters))),
        (rxllm.stage(ops.map(str), adds_up="list"), list),
        (rxllm.stage(ops.map(str), adds_up="last"), lambda letters: letters[-1]),
        (rxllm.stage(ops.map(str), adds_up=len), len),
        (ops.map(str), "".join),
    ],
)
def test_an_observed_pipeline_adds_up_values_of_any_number(stage, answer, size):
    """What is kept of many values stays small where the fold allows it, and gives the same answer."""
    letters = [chr(97 + number % 26) for number in range(size)]
    outputs = []

    def listen(event):
        if isinstance(event, rxllm.Finished):
            outputs.append(event.output)

    talk = pipe(lambda _: rx.from_([Chunk(letter) for letter in letters]), stage)
    assert answer(letters) == talk.invoke("x", handlers=[listen])
    assert [answer(letters)] == outputs


def test_an_answer_is_added_up_once_for_the_caller_and_its_handlers():
    """And each stage is subscribed to once."""
    folds, subscriptions = [], []

    def fold(values):
        folds.append(list(values))
        return len(values)

    def counted(_):
        return rx.defer(lambda _: subscriptions.append(1) or rx.of(1, 2))

    talk = pipe(counted, rxllm.stage(ops.map(abs), adds_up=fold))
    assert 2 == talk.invoke("x", handlers=[lambda event: None])
    assert ([[1, 2]], [1]) == (folds, subscriptions)


@pytest.mark.parametrize("observe", [False, True], ids=["unobserved", "observed"])
def test_no_values_after_an_undeclared_stage_are_an_error_with_a_hint(observe):
    """The sentence says what to do; whoever streams the values just gets none."""
    events = []
    talk = pipe(ECHO, ops.filter(lambda _: False)).with_config(handlers=[events.append] if observe else [])
    assert [] == list(talk.stream("x"))
    for ask in (lambda: talk.invoke("x"), lambda: talk.batch(["x"]), lambda: list(talk.batch_as_completed(["x"]))):
        with pytest.raises(rxllm.RxllmError, match=r"completed without a value.*default_if_empty.*rxllm\.stage"):
            ask()
    [failure] = talk.batch(["x"], return_exceptions=True)
    assert isinstance(failure, rxllm.RxllmError)
    if observe:
        chain = [event for event in events if getattr(event, "name", None) == "Pipeline"]
        ends = [event for event in chain if isinstance(event, (rxllm.Finished, rxllm.Failed))]
        assert [rxllm.Finished, *[rxllm.Failed] * 4] == [type(event) for event in ends]


@pytest.mark.parametrize("observe", [False, True], ids=["unobserved", "observed"])
def test_what_a_fold_raises_is_the_failure_of_the_answer(observe):
    """A declared type that the values do not have is said; a function's own error comes as it is."""
    handlers = [lambda event: None] if observe else []
    with pytest.raises(MisuseError, match='"text" must emit text, but it emitted int'):
        pipe(numbers, rxllm.stage(ops.map(abs), adds_up="text")).invoke("x", handlers=handlers)
    with pytest.raises(MisuseError, match='"message" takes chunks, but got int'):
        pipe(numbers, rxllm.stage(ops.map(abs), adds_up="message")).invoke("x", handlers=handlers)
    with pytest.raises(ZeroDivisionError):
        pipe(numbers, rxllm.stage(ops.map(abs), adds_up=lambda _: 1 / 0)).invoke("x", handlers=handlers)


@pytest.mark.parametrize("handlers", [[], [lambda event: None]], ids=["unobserved", "observed"])
def test_a_failure_keeps_what_had_arrived_before_it(handlers):
    """Nobody else has seen it."""
    failing = lambda _: rx.concat(rx.of(Chunk("a"), Chunk("b")), rx.throw(rxllm.RxllmError("no")))  # noqa: E731
    with pytest.raises(rxllm.RxllmError, match="no") as caught:
        pipe(failing).invoke("x", handlers=handlers)
    assert Message("assistant", "ab") == caught.value.partial


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: rxllm.stage(5, adds_up="last"), "stage takes an operator, such as .*, not int"),
        (lambda: rxllm.stage(text, adds_up="last"), r"text is a function that makes one. Call it first: text\(…\)"),
        (lambda: rxllm.stage(ops.map(str), adds_up="lists"), "adds_up must be .*, not 'lists'"),
        (lambda: rxllm.stage(ops.map(str), adds_up=None), "adds_up must be .*, not None"),
    ],
)
def test_a_declaration_that_cannot_be_meant_is_told(make, sentence):
    """Before anything is asked."""
    with pytest.raises(MisuseError, match=sentence):
        make()
