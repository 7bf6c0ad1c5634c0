"""`pipe`: function composition, and the methods of a Pipeline."""

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
    """Streams the prompt letter by letter, and records the requests."""

    seen: list[Request] = field(factory=list)

    async def chunks(self, request):
        """Yield the letters of the prompt."""
        self.seen.append(request)
        for letter in request.text:
            yield letter


def template(topic):
    """Return a prompt about the topic."""
    return f"<{topic}>"


def test_each_stage_is_called_with_the_result_of_the_stage_before():
    """``pipe(f, g)(x)`` is ``g(f(x))``."""
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
def test_pipeline_has_the_methods_of_a_model(ask, expected):
    """The sync methods work on a pipeline; the answer is what its values add up to."""
    assert expected == ask(pipe(template, Echo(), text()))


async def test_pipeline_has_the_async_methods_of_a_model():
    """The async methods work on a pipeline, too."""
    talk = pipe(template, Echo(), text())
    assert ["<", "x", ">"] == [piece async for piece in talk.astream("x")]
    assert "<x>" == await talk.ainvoke("x")
    assert ["<x>"] == await talk.abatch(["x"])


def test_second_model_receives_the_whole_answer_of_the_first():
    """The second model waits for the end of the first model, and sends one request."""
    second = Echo()
    talk = pipe(template, Echo(), second, ops.reduce(operator.add, Chunk()), text())
    assert "<x>" == talk.invoke("x")
    assert [Message("user", "<x>")] == [request.messages[0] for request in second.seen]


def test_nested_pipeline_equals_flat_pipeline():
    """A pipeline is a stage; grouping of stages does not change the result."""
    stages = [template, Echo(), text(), ops.map(str.upper)]
    grouped = pipe(pipe(*stages[:2]), pipe(*stages[2:]))
    assert list(pipe(*stages).stream("x")) == list(grouped.stream("x"))
    assert ["<", "X", ">"] == list(rx.of("x").pipe(ops.flat_map(pipe(*stages)), rxllm.stream()))


def test_parameters_apply_to_every_model():
    """Parameters reach the models in nested pipelines, too. The pipeline itself does not change."""
    first, second = Echo(), Echo()
    talk = pipe(template, pipe(first, text()), second)
    list(talk.stream("x", seed=3))
    talk.bind(seed=4).invoke("x")
    talk.invoke("x")
    for llm in first, second:
        assert [3, 4, None] == [request.seed for request in llm.seen]


def test_parameters_without_a_model_raise_misuse_error():
    """A pipeline without a model would lose the parameters."""
    with pytest.raises(MisuseError, match="has no model among its stages, so it cannot use seed"):
        pipe(rx.of).bind(seed=3)


def test_parameters_for_a_model_within_an_operator_raise_misuse_error():
    """Parameters of a pipeline do not reach a model within an operator. The message says where to bind them."""
    with pytest.raises(
        MisuseError, match=r"no model among its stages, so it cannot use seed\..*ops\.flat_map\(llm\.bind\(seed=…"
    ):
        pipe(rx.of, ops.flat_map(Echo())).invoke("x", seed=3)


def test_parameters_skip_a_nested_pipeline_without_a_model():
    """A nested pipeline without a model does not raise, if another stage has a model."""
    llm = Echo()
    pipe(pipe(rx.of), llm).invoke("x", seed=3)
    assert [3] == [request.seed for request in llm.seen]


@pytest.mark.parametrize("operator", [text(), ops.map(str), rxllm.message(), rxllm.words()])
def test_operator_after_a_non_observable_raises_misuse_error(operator):
    """The message names the stage before the operator and the type that it returned."""
    with pytest.raises(
        MisuseError, match="Stage 2 is an operator, which takes an Observable, but template returned str"
    ):
        pipe(template, operator).invoke("x")
    with pytest.raises(MisuseError, match=r"Stage 1 is an operator, .* but the input of the pipeline is str"):
        pipe(operator).invoke("x")


@pytest.mark.parametrize(("stage", "name"), [(text, "text"), (rxllm.words, "words"), (ops.map, "map")])
def test_operator_without_parentheses_raises_misuse_error(stage, name):
    """`pipe` raises, before any request."""
    with pytest.raises(
        MisuseError, match=rf"{name} is a function that returns an operator\. Call it: write {name}\(…\)"
    ):
        pipe(Echo(), stage)


def test_pipeline_accepts_observable_as_input():
    """The first stage may be an operator, if the input is an Observable."""
    talk = pipe(ops.map(str.upper), Echo(), text())
    assert ["A", "B"] == list(talk(rx.of("a", "b")).pipe(rxllm.stream()))


def test_pipeline_may_have_many_stages():
    """A pipeline may have more stages than the overloads for type checkers."""
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
def test_invalid_stage_raises_misuse_error(stages, sentence):
    """`pipe` raises; it does not convert other values to stages."""
    with pytest.raises(MisuseError, match=sentence):
        pipe(*stages)


async def fetched(topic):
    """Return a prompt; an ``async def`` stage."""
    return f"About {topic}"


@pytest.mark.parametrize("after", [(Echo(),), (text(),), (pipe(Echo()),), ()])
def test_async_def_stage_raises_misuse_error(after):
    """The message names the function and tells how to wrap it. No coroutine stays unawaited."""
    with pytest.raises(
        MisuseError, match=r"^fetched is async def, so it returned a coroutine, .* write rxllm\.tool\(fetched\)\.$"
    ):
        pipe(fetched, *after).invoke("x")
    with pytest.raises(MisuseError, match=r"write ops\.flat_map\(rxllm\.tool\(fetched\)\)\.$"):
        pipe(Echo(), fetched, *after).invoke("x")


def test_async_def_stage_works_as_a_tool():
    """The advice of the error message works before a model and after a model."""
    asked = pipe(rxllm.tool(fetched), Echo(), rxllm.message(), ops.map(str), ops.flat_map(rxllm.tool(fetched)))
    assert f"About {Echo().invoke('About x')}" == asked.invoke("x")


def test_next_stage_may_take_a_coroutine():
    """A plain function that accepts a coroutine may follow an ``async def`` stage."""

    def begun(coroutine):
        coroutine.close()
        return rx.of("closed")

    assert "closed" == pipe(fetched, begun).invoke("x")


def test_last_stage_without_observable_raises_misuse_error():
    """The message names the last stage and what to write instead."""
    with pytest.raises(
        MisuseError, match=r"template returned str\. To apply a function to single values, write ops\.map"
    ):
        pipe(template).invoke("x")


def test_exception_of_a_stage_propagates_unchanged():
    """The call of the pipeline raises the stage's exception, before any request."""
    llm = Echo()

    def broken(topic):
        raise LookupError(topic)

    with pytest.raises(LookupError, match="x"):
        pipe(broken, llm).stream("x")
    assert [] == llm.seen


def test_pipeline_without_values_raises_rxllm_error():
    """`invoke` raises RxllmError, not StopIteration, and does not return a wrong answer."""
    with pytest.raises(rxllm.RxllmError, match="completed without a value"):
        pipe(lambda _: rx.empty()).invoke("x")


def test_equal_pipelines_have_equal_hashes():
    """Equal pipelines are one key of a dict."""
    stages = template, rxllm.Embedded(seed=1, metadata={"k": 1}), text()
    assert 1 == len({pipe(*stages), pipe(*stages)})


def test_parameters_apply_to_a_pipeline_subclass():
    """The constructor of a subclass may have other parameters."""

    class Talk(Pipeline):
        def __init__(self, llm, *, loud):
            super().__init__((llm, text()))
            object.__setattr__(self, "loud", loud)

    echo = Echo()
    talk = Talk(echo, loud=True).bind(seed=3)
    assert (Talk, True, "x") == (type(talk), talk.loud, talk.invoke("x"))
    assert [3] == [request.seed for request in echo.seen]


def test_pipelines_are_values():
    """Pipelines are frozen, they are equal if their stages are equal, and changes return copies."""
    llm, end = Echo(), text()
    assert pipe(template, llm, end) == Pipeline((template, llm, end))
    assert ("a",) == pipe(llm).with_config(tags=["a"]).tags
    with pytest.raises(MisuseError, match=r"rxllm\.pipe"):
        pipe(llm) | text()
    with pytest.raises(AttributeError):
        pipe(llm).stages = ()


def numbers(_):
    """Return a stream of numbers."""
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
async def test_every_method_returns_what_the_stream_adds_up_to(prompt, stages, expected, observe):
    """The last stage declares how values add up. Handlers receive the same answer in `Finished.output`."""
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
def test_observed_pipeline_adds_up_any_number_of_values(stage, answer, size):
    """Observation joins values early, to save memory, if the fold allows it. The answer stays the same."""
    letters = [chr(97 + number % 26) for number in range(size)]
    outputs = []

    def listen(event):
        if isinstance(event, rxllm.Finished):
            outputs.append(event.output)

    talk = pipe(lambda _: rx.from_([Chunk(letter) for letter in letters]), stage)
    assert answer(letters) == talk.invoke("x", handlers=[listen])
    assert [answer(letters)] == outputs


def test_answer_is_added_up_once_for_caller_and_handlers():
    """Each stage is subscribed to once, and the fold runs once."""
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
def test_empty_stream_after_an_undeclared_stage_raises_with_a_hint(observe):
    """`invoke` raises, and the message says what to do. `stream` yields nothing."""
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
def test_exception_of_a_fold_is_the_error_of_the_answer(observe):
    """Values of the wrong type raise MisuseError. The exception of a fold function propagates unchanged."""
    handlers = [lambda event: None] if observe else []
    with pytest.raises(MisuseError, match='"text" must emit text, but it emitted int'):
        pipe(numbers, rxllm.stage(ops.map(abs), adds_up="text")).invoke("x", handlers=handlers)
    with pytest.raises(MisuseError, match='"message" takes chunks, but got int'):
        pipe(numbers, rxllm.stage(ops.map(abs), adds_up="message")).invoke("x", handlers=handlers)
    with pytest.raises(ZeroDivisionError):
        pipe(numbers, rxllm.stage(ops.map(abs), adds_up=lambda _: 1 / 0)).invoke("x", handlers=handlers)


@pytest.mark.parametrize("handlers", [[], [lambda event: None]], ids=["unobserved", "observed"])
def test_error_of_invoke_carries_the_partial_answer(handlers):
    """The caller of `invoke` saw no values, so the error must carry them."""
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
def test_invalid_stage_declaration_raises_misuse_error(make, sentence):
    """`stage` raises before any request."""
    with pytest.raises(MisuseError, match=sentence):
        make()
