"""Config: combining tags, metadata, names and handlers, and inheriting them."""

import copy
import pickle
from dataclasses import dataclass
from operator import attrgetter
from weakref import ref

import pytest
from attrs import frozen

import rxllm
from rxllm import LLM, MisuseError, Started


class Echo(LLM):
    """Answers with the prompt."""

    async def complete(self, request):
        """Return the prompt."""
        return request.text


def runs_of(stage, **config):
    """The runs, the outermost first."""
    heard = []
    list(stage.stream("x", handlers=[heard.append], **config))
    return [event.run for event in heard if isinstance(event, Started)]


@pytest.mark.parametrize("method", ["with_config", "bind"])
def test_configs_are_combined(method):
    """Tags are united and sorted; later metadata and names win; the first model is unchanged."""
    first = Echo(tags=["b", "a"], metadata={"k": 1, "l": 1}, run_name="first")
    second = getattr(first, method)(tags=["c", "a"], metadata={"k": 2}, run_name="second")
    assert (("a", "b", "c"), {"k": 2, "l": 1}, "second") == (second.tags, second.metadata, second.run_name)
    assert (("a", "b"), {"k": 1, "l": 1}, "first") == (first.tags, first.metadata, first.run_name)
    assert "first" == getattr(first, method)(tags=["c"]).run_name


def test_inner_runs_inherit_tags_and_metadata_but_not_the_name():
    """Inner metadata wins, and the child's additions do not reach its parent."""
    llm = Echo(tags=["inner"], metadata={"k": "inner", "i": 1})
    pipeline = rxllm.pipe(llm, rxllm.text()).with_config(
        tags=["outer"], metadata={"k": "outer", "o": 1}, run_name="outer"
    )
    outer, inner = runs_of(pipeline)
    assert ("outer", ("outer",), {"k": "outer", "o": 1}) == (outer.name, outer.tags, outer.metadata)
    assert ("Echo", ("inner", "outer"), {"k": "inner", "i": 1, "o": 1}) == (inner.name, inner.tags, inner.metadata)


def test_call_may_have_config():
    """Each method accepts config for one call; for a pipeline, the config is the pipeline's own."""
    pipeline = rxllm.pipe(Echo(), rxllm.text())
    outer, inner = runs_of(pipeline, tags=["t"], metadata={"k": 1}, run_name="call")
    assert ("call", "Echo", ("t",), ("t",)) == (outer.name, inner.name, outer.tags, inner.tags)
    assert ((), {}, None, ()) == (pipeline.tags, pipeline.metadata, pipeline.run_name, pipeline.handlers)


async def test_every_method_accepts_config():
    """One handler receives one run per method."""
    heard = []
    config = {"handlers": [heard.append], "tags": ["t"]}
    llm = Echo()
    llm.invoke("x", **config)
    await llm.ainvoke("x", **config)
    list(llm.stream("x", **config))
    assert ["x"] == [str(chunk) async for chunk in llm.astream("x", **config)]
    llm.batch(["x"], **config)
    await llm.abatch(["x"], **config)
    list(llm.batch_as_completed(["x"], **config))
    assert [0] == [index async for index, _ in llm.abatch_as_completed(["x"], **config)]
    llm.generate(["x"], **config)
    await llm.agenerate(["x"], **config)
    list(llm.events("x", **config).pipe(rxllm.stream()))
    assert [event["event"] async for event in llm.astream_events("x", **config)]
    assert [("t",)] * 12 == [event.tags for event in heard if isinstance(event, Started)]


def test_config_is_not_sent():
    """Config describes runs; the request contains only the parameters passed beside it."""
    heard = []
    Echo().invoke("x", handlers=[heard.append], tags=["t"], temperature=0.5)
    assert rxllm.Request.ask("x", rxllm.Parameters(temperature=0.5)) == heard[0].request


def test_objects_that_are_not_handlers_are_refused():
    """Attaching one raises MisuseError."""
    with pytest.raises(MisuseError, match="handler"):
        Echo().with_config(handlers=[5])
    with pytest.raises(MisuseError, match="handler"):
        Echo().stream("x", handlers=["print"])


@pytest.mark.parametrize("make", [Echo, lambda **config: rxllm.pipe(Echo()).with_config(**config), Echo().bind])
@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"tags": "abc"}, r"Write tags=\['abc'\]"),
        ({"tags": 5}, "tags must be a list of texts, not 5"),
        ({"tags": [5]}, "tags must be a list of texts, not"),
        ({"tags": None}, "tags must be a list of texts, not None"),
        ({"metadata": 5}, "metadata must be a dict, not 5"),
        ({"metadata": ["k"]}, "metadata must be a dict, not"),
        ({"run_name": 5}, "run_name must be text, not 5"),
        ({"handlers": 5}, r"Pass handlers=\[…\]"),
        ({"handlers": print}, r"Pass handlers=\[…\]"),
        ({"handlers": None}, r"Pass handlers=\[…\]"),
    ],
)
def test_invalid_config_is_refused(make, config, sentence):
    """The constructor and each copying method raise MisuseError with a message."""
    with pytest.raises(MisuseError, match=sentence):
        make(**config)


def test_metadata_is_copied():
    """Later changes of the caller's dict do not affect the model."""
    facts = {"k": 1}
    llm = Echo(metadata=facts)
    facts["k"] = 2
    assert {"k": 1} == llm.metadata
    assert {} == Echo(metadata=None).metadata


@pytest.mark.parametrize(
    "attach",
    [
        lambda handler: Echo(handlers=[handler]),
        lambda handler: Echo().with_config(handlers=[handler]),
        lambda handler: Echo().stream("x", handlers=[handler]),
        lambda handler: rxllm.observe(Echo(), handler),
    ],
)
def test_class_is_not_a_handler(attach):
    """A handler class is callable, and would create a new handler at each event."""
    with pytest.raises(MisuseError, match=r"StdoutHandler is a class, .* as in StdoutHandler\(\)"):
        attach(rxllm.StdoutHandler)


class Plain(LLM):
    """A plain class as a user may write it."""

    def __init__(self, url):
        """Set an attribute of its own and none of the model's."""
        self.url = url

    async def complete(self, request):
        """Return the attributes."""
        return f"{self.url} {request.temperature}"


@dataclass
class Usual(LLM):
    """A dataclass as a user may write it."""

    url: str

    complete = Plain.complete


@pytest.mark.parametrize("kind", [Plain, Usual])
def test_plain_class_is_a_model(kind):
    """Its own attributes can be set; the model's fields have defaults and are read-only."""
    llm = kind("here")
    assert ("here None", "here 1") == (str(llm.invoke("x")), str(llm.bind(temperature=1).invoke("x")))
    assert ((), {}, None, (), rxllm.Parameters()) == (
        llm.tags,
        llm.metadata,
        llm.run_name,
        llm.handlers,
        llm.parameters,
    )
    llm.url = "there"
    assert "there 2" == str(llm.with_config(tags=["a"]).invoke("x", temperature=2))
    with pytest.raises(AttributeError, match=r"super\(\).__init__\(tags=…\)"):
        llm.tags = ("a",)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = llm.nothing


def test_frozen_class_explains_how_to_set_its_fields():
    """The error shows the constructor to write and the fields to declare."""

    @frozen
    class Own(LLM):
        url: str

        def __init__(self, name):
            setattr(self, name, "here")

    with pytest.raises(AttributeError, match=r"self.__attrs_init__\(url=…\)"):
        Own("url")
    with pytest.raises(AttributeError, match="declare the field in the class, as in place: str"):
        Own("place")


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda llm: pickle.loads(pickle.dumps(llm))])  # noqa: S301
def test_copy_keeps_own_attributes(again):
    """For copy, deepcopy and pickle."""
    for first in Plain("here"), Usual("here"), Own("here"), Slotted("here", tags=["own"]), Named("here"):
        second = again(first)
        assert (type(first), first.tags, "here") == (type(second), second.tags, str(second.invoke("x"))[:4])


class Own(LLM):
    """A plain class with an ``__init__`` of its own that takes none of the model's fields."""

    def __init__(self, url):
        """Set an attribute of its own beside those of a model."""
        super().__init__(tags=["own"])
        object.__setattr__(self, "url", url)

    async def complete(self, request):
        """Return the attributes."""
        return self.url


@dataclass(frozen=True)
class Data(LLM):
    """A dataclass."""

    url: str

    def __post_init__(self):
        """Set the model's fields."""
        super().__init__(tags=["own"])

    async def complete(self, request):
        """Return the attributes."""
        return self.url


@frozen
class Slotted(LLM):
    """A frozen class with slots, as in the documentation."""

    url: str

    async def complete(self, request):
        """Return the attributes."""
        return self.url


@frozen(slots=False)
class Unslotted(Slotted):
    """A subclass with a dict."""


class Named(rxllm.Pipeline):
    """A pipeline with an ``__init__`` of its own."""

    def __init__(self, url):
        """Set one stage, a model."""
        super().__init__((Own(url),), tags=["own"])

    url = property(attrgetter("stages"))


@pytest.mark.parametrize(
    "first",
    [Own("here"), Data("here"), Slotted("here", tags=["own"]), Unslotted("here", tags=["own"]), Named("here")],
    ids=lambda first: type(first).__name__,
)
def test_copy_works_with_any_constructor(first):
    """A copy has its class, its own attributes and the changed field, converted and checked; the original stays."""
    second = first.with_config(tags=["b"], run_name="second")
    assert (type(first), first.url, ("b", "own"), "second") == (type(second), second.url, second.tags, second.run_name)
    assert (("own",), None) == (first.tags, first.run_name)
    assert "here" == str(second.invoke("x"))
    assert second is ref(second)()
    with pytest.raises(MisuseError, match="run_name must be text"):
        first.with_config(run_name=5)


def test_models_are_hashable():
    """Equal models are one key of a dict, whatever their own dicts contain."""
    one, other = (rxllm.OpenAI("m", metadata={"k": []}, tools=[{}], extra={"a": {}}, headers={"x": "y"}) for _ in "ab")
    assert 1 == len({one: 1, other: 2})
    assert 2 == len({one, one.bind(seed=3)})
