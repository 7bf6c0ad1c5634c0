"""`pipe`: plain function composition, with the surface on top."""

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
        (lambda p: p.invoke("x"), ">"),
        (lambda p: p.batch(["x", "yz"]), [">", ">"]),
        (lambda p: sorted(p.batch_as_completed(["x", "yz"])), [(0, ">"), (1, ">")]),
    ],
)
def test_a_pipeline_has_the_surface_of_a_model(ask, expected):
    """Its answer is its last value."""
    assert expected == ask(pipe(template, Echo(), text()))


async def test_a_pipeline_has_the_surface_of_a_model_on_a_loop():
    """The same with await."""
    talk = pipe(template, Echo(), text())
    assert ["<", "x", ">"] == [piece async for piece in talk.astream("x")]
    assert ">" == await talk.ainvoke("x")
    assert [">"] == await talk.abatch(["x"])


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
    with pytest.raises(MisuseError, match=rf"{name} makes an operator, and is called first: say {name}\(…\)"):
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
    with pytest.raises(Exception, match="no elements") as caught:
        pipe(lambda _: rx.empty()).invoke("x")
    assert not isinstance(caught.value, (StopIteration, RuntimeError))


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
