"""The surface: what an LLM, a Pipeline and whatever a combinator returns have in common."""

import inspect
import threading
from dataclasses import dataclass

import attrs
import pytest
import reactivex as rx
from reactivex import Observable

import rxllm
from rxllm import LLM, MisuseError, Pipeline
from rxllm.bridges.stream import HIGH_WATER, _Sink
from rxllm.surface import Surface

TIMEOUT = 5.0  # seconds for what comes at once


class Echo(LLM):
    """Streams the prompt by letters."""

    async def chunks(self, request):
        """Letters."""
        for letter in request.text:
            yield letter


THINGS = [Echo(), rxllm.pipe(Echo(), rxllm.text()), rxllm.observe(Echo(), lambda event: None)]
every = pytest.mark.parametrize("thing", THINGS, ids=lambda thing: type(thing).__name__)


@every
def test_it_is_written_once(thing):
    """No class has a method of its own where the surface has one."""
    surface = {name for name, value in vars(Surface).items() if inspect.isfunction(value) and name[0] != "_"}
    own = {"answer"}  # what differs between them
    assert surface - own == {name for name in surface if getattr(type(thing), name) is getattr(Surface, name)}
    for kind in LLM, Pipeline:
        assert own == surface & vars(kind).keys()


@every
async def test_sync_and_async_give_the_same(thing):
    """One answer, one stream, one batch."""
    assert str(thing.invoke("ab")) == str(await thing.ainvoke("ab"))
    assert list(thing.stream("ab")) == [piece async for piece in thing.astream("ab")]
    assert thing.batch(["ab", "cd"]) == await thing.abatch(["ab", "cd"])
    assert sorted(thing.batch_as_completed(["ab"])) == [item async for item in thing.abatch_as_completed(["ab"])]


@every
async def test_streams_are_iterators_and_context_managers(thing):
    """One pass; closing is idempotent, and a closed one is at its end."""
    with thing.stream("ab") as stream:
        assert iter(stream) is stream
        assert "a" == str(next(stream))
    assert [] == list(stream)
    stream.close()
    async with thing.astream("ab") as astream:
        assert aiter(astream) is astream
        assert "a" == str(await anext(astream))
    assert [] == [piece async for piece in astream]
    await astream.aclose()


@every
def test_it_prints_as_in_the_docs(thing, capsys):
    """The text of what comes is its ``str``."""
    for chunk in thing.stream("ab"):
        print(chunk, end="|", flush=True)
    assert "a|b|" == capsys.readouterr().out


@every
def test_it_is_a_function(thing):
    """Calling it gives a plain Observable."""
    assert isinstance(thing("ab"), Observable)
    assert ["a", "b"] == [str(piece) for piece in thing("ab").pipe(rxllm.stream())]


@every
def test_names_of_parameters_are_those_of_bind(thing):
    """Each method that asks takes the same keywords."""
    for name in ("invoke", "ainvoke", "stream", "astream", "batch", "abatch", "batch_as_completed"):
        keywords = inspect.signature(getattr(thing, name)).parameters["parameters"]
        assert inspect.Parameter.VAR_KEYWORD == keywords.kind
        assert inspect.signature(thing.bind).parameters["settings"].annotation == keywords.annotation


async def asked():
    """An async iterable of prompts."""
    yield "a"


@every
@pytest.mark.parametrize("method", ["batch", "batch_as_completed"])
@pytest.mark.parametrize(
    ("prompts", "sentence"),
    [
        (asked(), "of prompts, not async_generator; abatch and abatch_as_completed take async ones"),
        (rx.of("a"), r"say prompts\.pipe\(rxllm\.batch\(llm\)\)"),
        ("abc", "of prompts, not str; invoke takes one prompt"),
        (5, "of prompts, not int"),
    ],
)
def test_what_is_no_batch_is_refused(thing, method, prompts, sentence):
    """At once, and the sentence says who takes it."""
    with pytest.raises(MisuseError, match=sentence):
        getattr(thing, method)(prompts)


@every
@pytest.mark.parametrize(("prompts", "sentence"), [("abc", "not str"), (rx.of("a"), r"rxllm\.batch"), (5, "not int")])
async def test_what_is_no_asynchronous_batch_is_refused(thing, prompts, sentence):
    """Before anything is asked."""
    with pytest.raises(MisuseError, match=sentence):
        await thing.abatch(prompts)
    with pytest.raises(MisuseError, match=sentence):
        thing.abatch_as_completed(prompts)


TAKEN = ("answer", "stream", "batch", "bind", "chunks", "complete", "kind", "generate", "streaming", "_bound")
taken = pytest.mark.parametrize("name", TAKEN)
REFUSED = r"can't have an attribute '{0}': it would replace (Surface|LLM)\.{0}, .* such as {0}_"


@taken
def test_an_attribute_with_a_methods_name_is_refused(name):
    """Where a constructor sets it, not where the method is called."""

    class Fake(LLM):
        def __init__(self):
            setattr(self, name, "hi")

    with pytest.raises(MisuseError, match="Fake " + REFUSED.format(name)):
        Fake()


@taken
@pytest.mark.parametrize("decorate", [attrs.frozen, attrs.define, lambda cls: cls], ids=["frozen", "define", "plain"])
@pytest.mark.parametrize("default", ["hi", None])
def test_a_class_attribute_with_a_methods_name_is_refused(name, decorate, default):
    """When the class is made, be it a field with a default or not one."""
    with pytest.raises(MisuseError, match="Fake " + REFUSED.format(name)):
        decorate(type(LLM)("Fake", (LLM,), {"__annotations__": {name: str}, name: default}))


@taken
def test_a_required_field_with_a_methods_name_is_refused(name):
    """By attrs when the class is made, by a dataclass when there is one."""
    with pytest.raises(MisuseError, match="Fake " + REFUSED.format(name)):
        attrs.make_class("Fake", {name: attrs.field(type=str)}, bases=(LLM,), frozen=True)
    made = dataclass(type(LLM)("Fake", (LLM,), {"__annotations__": {name: str}}))
    with pytest.raises(MisuseError, match="Fake " + REFUSED.format(name)):
        made("hi")


def test_a_pipelines_methods_are_as_safe():
    """The surface is one."""
    with pytest.raises(MisuseError, match=r"it would replace Surface\.invoke"):
        attrs.make_class("Fake", {"invoke": attrs.field(type=str)}, bases=(Pipeline,), frozen=True)


def test_functions_may_replace_methods():
    """It is how a provider is made, and one's own methods are one's own."""

    class Fake(LLM):
        complete = staticmethod(lambda request: f"{request.text}!")

        def mine(self):
            """Replaced by each instance."""

        def __init__(self):
            self.mine = self.answers = "text"

    assert ("hi!", "text", "text") == (str(Fake().invoke("hi")), Fake().mine, Fake().answers)


def test_a_late_wake_loses_nothing():
    """A producer that was slow to wake the reader may find it waiting again; the next item still wakes it."""
    sink = _Sink()
    reader = threading.Thread(target=sink.wait, daemon=True)
    reader.start()
    for _ in range(2):
        while not sink.condition._waiters:
            pass
        sink.wake()
    while not sink.condition._waiters:
        pass
    sink.on_next("x")
    reader.join(TIMEOUT)
    assert not reader.is_alive()


def test_a_reader_faster_than_the_gate_is_not_shut_out():
    """If everything is taken between the look at the buffer and the closing of the gate, the gate opens again."""
    sink = _Sink()

    class Raced(type(sink.scheduler.gate)):
        def close(self):
            sink.items.clear()
            super().close()

    sink.scheduler.gate = Raced()
    for number in range(HIGH_WATER):
        sink.on_next(number)
    assert sink.scheduler.gate.is_open
