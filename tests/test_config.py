"""Config: what tags, metadata, names and handlers add up to, and who inherits them."""

import pytest

import rxllm
from rxllm import LLM, MisuseError, Started


class Echo(LLM):
    """Answers with the prompt."""

    async def complete(self, request):
        """The prompt."""
        return request.text


def runs_of(stage, **config):
    """The runs, the outermost first."""
    heard = []
    list(stage.stream("x", handlers=[heard.append], **config))
    return [event.run for event in heard if isinstance(event, Started)]


@pytest.mark.parametrize("method", ["with_config", "bind"])
def test_it_adds_up(method):
    """Tags are united and sorted, later metadata wins, and so does the later name; the first model is as it was."""
    first = Echo(tags=["b", "a"], metadata={"k": 1, "l": 1}, run_name="first")
    second = getattr(first, method)(tags=["c", "a"], metadata={"k": 2}, run_name="second")
    assert (("a", "b", "c"), {"k": 2, "l": 1}, "second") == (second.tags, second.metadata, second.run_name)
    assert (("a", "b"), {"k": 1, "l": 1}, "first") == (first.tags, first.metadata, first.run_name)
    assert "first" == getattr(first, method)(tags=["c"]).run_name


def test_children_inherit_tags_and_metadata_but_no_name():
    """The inner metadata wins; what the child adds does not reach its parent."""
    llm = Echo(tags=["inner"], metadata={"k": "inner", "i": 1})
    pipeline = rxllm.pipe(llm, rxllm.text()).with_config(
        tags=["outer"], metadata={"k": "outer", "o": 1}, run_name="outer"
    )
    outer, inner = runs_of(pipeline)
    assert ("outer", ("outer",), {"k": "outer", "o": 1}) == (outer.name, outer.tags, outer.metadata)
    assert ("Echo", ("inner", "outer"), {"k": "inner", "i": 1, "o": 1}) == (inner.name, inner.tags, inner.metadata)


def test_a_call_may_have_config():
    """Each method takes it, for this call alone; of a pipeline it is the pipeline's own."""
    pipeline = rxllm.pipe(Echo(), rxllm.text())
    outer, inner = runs_of(pipeline, tags=["t"], metadata={"k": 1}, run_name="call")
    assert ("call", "Echo", ("t",), ("t",)) == (outer.name, inner.name, outer.tags, inner.tags)
    assert ((), {}, None, ()) == (pipeline.tags, pipeline.metadata, pipeline.run_name, pipeline.handlers)


async def test_every_method_takes_config():
    """One handler hears one run of each."""
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


def test_it_is_not_sent():
    """Config is about runs; the request knows nothing of it, and parameters by its side reach it."""
    heard = []
    Echo().invoke("x", handlers=[heard.append], tags=["t"], temperature=0.5)
    assert rxllm.Request.ask("x", rxllm.Parameters(temperature=0.5)) == heard[0].request


def test_what_cannot_hear_is_refused():
    """When it is attached."""
    with pytest.raises(MisuseError, match="handler"):
        Echo().with_config(handlers=[5])
    with pytest.raises(MisuseError, match="handler"):
        Echo().stream("x", handlers=["print"])
