"""`Surface`: the methods that models, pipelines and the results of combinators share."""

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
from rxllm.runtime.portal import portal
from rxllm.runtime.scheduler import Scheduler
from rxllm.surface import Surface

TIMEOUT = 5.0  # seconds; the tests wait for events that arrive at once


class Echo(LLM):
    """Streams the prompt letter by letter."""

    async def chunks(self, request):
        """Yield the letters of the prompt."""
        for letter in request.text:
            yield letter


THINGS = [Echo(), rxllm.pipe(Echo(), rxllm.text()), rxllm.observe(Echo(), lambda event: None)]
every = pytest.mark.parametrize("thing", THINGS, ids=lambda thing: type(thing).__name__)


@every
def test_subclasses_do_not_override_surface_methods(thing):
    """Each method is written once, in Surface. Only `answer` differs between the classes."""
    surface = {name for name, value in vars(Surface).items() if inspect.isfunction(value) and name[0] != "_"}
    own = {"answer"}
    assert surface - own == {name for name in surface if getattr(type(thing), name) is getattr(Surface, name)}
    for kind in LLM, Pipeline:
        assert own == surface & vars(kind).keys()


@every
async def test_sync_and_async_methods_return_the_same(thing):
    """The sync and the async form of each method return equal values."""
    assert str(thing.invoke("ab")) == str(await thing.ainvoke("ab"))
    assert list(thing.stream("ab")) == [piece async for piece in thing.astream("ab")]
    assert thing.batch(["ab", "cd"]) == await thing.abatch(["ab", "cd"])
    assert sorted(thing.batch_as_completed(["ab"])) == [item async for item in thing.abatch_as_completed(["ab"])]


@every
async def test_streams_are_iterators_and_context_managers(thing):
    """A stream allows one pass. `close` is idempotent, and a closed stream yields nothing."""
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
def test_print_of_a_streamed_value_shows_its_text(thing, capsys):
    """The ``str`` of each streamed value is its text, so that the loop of the README works."""
    for chunk in thing.stream("ab"):
        print(chunk, end="|", flush=True)
    assert "a|b|" == capsys.readouterr().out


@every
def test_call_returns_observable(thing):
    """Calling the object with a prompt returns an Observable."""
    assert isinstance(thing("ab"), Observable)
    assert ["a", "b"] == [str(piece) for piece in thing("ab").pipe(rxllm.stream())]


@every
def test_methods_accept_the_keywords_of_bind(thing):
    """Each method that sends a request takes the same keywords as `bind`."""
    for name in ("invoke", "ainvoke", "stream", "astream", "batch", "abatch", "batch_as_completed"):
        keywords = inspect.signature(getattr(thing, name)).parameters["parameters"]
        assert inspect.Parameter.VAR_KEYWORD == keywords.kind
        assert inspect.signature(thing.bind).parameters["settings"].annotation == keywords.annotation


async def async_prompts():
    """Yield one prompt."""
    yield "a"


@every
@pytest.mark.parametrize("method", ["batch", "batch_as_completed"])
@pytest.mark.parametrize(
    ("prompts", "sentence"),
    [
        (async_prompts(), r"of prompts, not async_generator\. For an async iterable, call abatch or abatch_as_comple"),
        (rx.of("a"), r"Write prompts\.pipe\(rxllm\.batch\(llm\)\)"),
        ("abc", r"of prompts, not str\. For one prompt, call invoke"),
        (5, "of prompts, not int"),
    ],
)
def test_batch_raises_misuse_error_for_wrong_prompts(thing, method, prompts, sentence):
    """The call raises, and the message names the method or the operator to use."""
    with pytest.raises(MisuseError, match=sentence):
        getattr(thing, method)(prompts)


@every
@pytest.mark.parametrize(("prompts", "sentence"), [("abc", "not str"), (rx.of("a"), r"rxllm\.batch"), (5, "not int")])
async def test_abatch_raises_misuse_error_for_wrong_prompts(thing, prompts, sentence):
    """The call raises before it sends a request."""
    with pytest.raises(MisuseError, match=sentence):
        await thing.abatch(prompts)
    with pytest.raises(MisuseError, match=sentence):
        thing.abatch_as_completed(prompts)


METHODS = ("answer", "stream", "batch", "bind", "chunks", "complete", "kind", "generate", "streaming", "_bound")
method_names = pytest.mark.parametrize("name", METHODS)
CLASH = r"can't have an attribute '{0}': it would replace (Surface|LLM)\.{0}, .* for example to {0}_"


@method_names
def test_setting_an_attribute_with_a_method_name_raises(name):
    """The constructor that sets the attribute raises, not a later call of the method."""

    class Fake(LLM):
        def __init__(self):
            setattr(self, name, "hi")

    with pytest.raises(MisuseError, match="Fake " + CLASH.format(name)):
        Fake()


@method_names
@pytest.mark.parametrize("decorate", [attrs.frozen, attrs.define, lambda cls: cls], ids=["frozen", "define", "plain"])
@pytest.mark.parametrize("default", ["hi", None])
def test_class_attribute_with_a_method_name_raises(name, decorate, default):
    """The definition of the class raises, for a field with a default and for a plain attribute."""
    with pytest.raises(MisuseError, match="Fake " + CLASH.format(name)):
        decorate(type(LLM)("Fake", (LLM,), {"__annotations__": {name: str}, name: default}))


@method_names
def test_required_field_with_a_method_name_raises(name):
    """With attrs, the definition of the class raises. With a dataclass, the constructor raises."""
    with pytest.raises(MisuseError, match="Fake " + CLASH.format(name)):
        attrs.make_class("Fake", {name: attrs.field(type=str)}, bases=(LLM,), frozen=True)
    fake = dataclass(type(LLM)("Fake", (LLM,), {"__annotations__": {name: str}}))
    with pytest.raises(MisuseError, match="Fake " + CLASH.format(name)):
        fake("hi")


def test_pipeline_field_with_a_method_name_raises():
    """The check holds for subclasses of Pipeline, too."""
    with pytest.raises(MisuseError, match=r"it would replace Surface\.invoke"):
        attrs.make_class("Fake", {"invoke": attrs.field(type=str)}, bases=(Pipeline,), frozen=True)


def test_functions_may_override_methods():
    """A provider overrides methods. A subclass may also replace the methods that it defines itself."""

    class Fake(LLM):
        complete = staticmethod(lambda request: f"{request.text}!")

        def mine(self):
            """Do nothing; each instance replaces this method."""

        def __init__(self):
            self.mine = self.answers = "text"

    assert ("hi!", "text", "text") == (str(Fake().invoke("hi")), Fake().mine, Fake().answers)


def test_spurious_wake_does_not_lose_the_next_item():
    """If a slow producer wakes a reader that has no item, the reader waits again, and the next item wakes it."""
    sink = _Sink(rx.never)
    sink.scheduler = Scheduler(portal())
    reader = threading.Thread(target=sink.wait, daemon=True)
    reader.start()
    for _ in range(2):
        while not sink.waiting:
            pass
        sink.wake()
    while not sink.waiting:
        pass
    sink.on_next("x")
    reader.join(TIMEOUT)
    assert not reader.is_alive()


def test_gate_reopens_if_the_reader_empties_the_buffer_while_it_closes():
    """The reader may take all items between the check of the buffer and the closing of the gate."""
    sink = _Sink(rx.never)
    sink.scheduler = Scheduler(portal())

    class Raced(type(sink.scheduler.gate)):
        def close(self):
            sink.items.clear()
            super().close()

    sink.scheduler.gate = Raced()
    for number in range(HIGH_WATER):
        sink.on_next(number)
    assert sink.scheduler.gate.is_open
