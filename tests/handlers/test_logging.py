"""The log: which records there are, at which level, with which facts, and what is never in them."""

import asyncio
import logging

import pytest
from protocols import Messages
from reactivex import operators as ops

import rxllm
from rxllm import LLM, Chunk, Interrupted, Message, RateLimited, Usage, dispatch
from rxllm.events import Cancelled, Emitted, Failed, Finished, Retried, Run, Service, Started, ToolFinished, ToolStarted
from rxllm.events import run_chunk as chunk_of
from rxllm.handlers.logging import LoggingHandler
from rxllm.testing import FakeServer, Reply

SECRET = "what-nobody-may-read"


class Letters(LLM):
    """Streams the prompt by letters, and tells what it took."""

    async def chunks(self, request):
        """Letters."""
        for letter in request.text:
            yield letter
        yield Chunk(model="m-1", usage=Usage(input_tokens=3, output_tokens=2), finish_reason="stop")


class Refuses(LLM):
    """Fails after a chunk, quoting the prompt."""

    async def chunks(self, request):
        """Half of it."""
        yield SECRET
        raise RateLimited(f"too many such as {request.text}", status=429, code="slow_down", body=request.text)


class Hangs(LLM):
    """Streams a chunk, and no more."""

    async def chunks(self, request):
        """Half of it."""
        yield "a"
        await asyncio.Event().wait()


class Keeps(logging.Handler):
    """Keeps all records."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        """Keeps it."""
        self.records.append(record)


@pytest.fixture
def records(caplog):
    """What the logger ``rxllm`` is told, from DEBUG on."""
    keeps, logger = Keeps(), logging.getLogger("rxllm")
    logger.addHandler(keeps)
    with caplog.at_level(logging.DEBUG, "rxllm"):
        yield keeps.records
    logger.removeHandler(keeps)


def told(records):
    """The levels and the events."""
    return [(record.levelname, record.rxllm["event"]) for record in records]


def test_a_run_is_a_start_and_an_end(records):
    """With its facts, for people and for machines."""
    Letters(handlers=[LoggingHandler()]).invoke("ab")
    assert [("DEBUG", "started"), ("INFO", "finished")] == told(records)
    start, end = records
    facts = end.rxllm
    assert start.rxllm == {name: facts[name] for name in ("run_id", "name", "kind", "provider")} | {"event": "started"}
    assert ("Letters", "llm", "letters", "m-1") == tuple(facts[name] for name in ("name", "kind", "provider", "model"))
    assert (3, 2, 3, "stop") == tuple(
        facts[name] for name in ("input_tokens", "output_tokens", "chunks", "finish_reason")
    )
    assert 0 <= facts["first_chunk_seconds"] <= facts["seconds"]
    assert "parent_id" not in facts
    assert "Letters started" == start.getMessage()
    assert end.getMessage().startswith("Letters m-1 finished: ")
    assert end.getMessage().endswith(" s, 3 chunks, 3 + 2 tokens, stop")


MODEL = Run("1", "Mine", "llm", ("0",), service=Service("openai", "gpt"))
TOOL = Run("2", "add", "tool", ("0",))


def sent(records, *events):
    """The facts and the messages of these events' records."""
    handler = LoggingHandler()
    for event in events:
        handler.on_next(event)
    assert {} == handler._open
    return [(record.rxllm, record.getMessage()) for record in records]


def test_seconds_are_those_of_the_events(records, monkeypatch):
    """Until the first chunk, and until the end, however late they are heard."""
    monkeypatch.setattr("rxllm.events._now", lambda: 11.25)
    message = Message("assistant", "a", usage=Usage(output_tokens=1), raw_finish_reason="end")
    (_, _), (facts, sentence) = sent(
        records,
        Started("x", run=MODEL, time=11.0),
        chunk_of(Chunk("a"), MODEL),
        Finished(message, run=MODEL, time=12.5),
    )
    assert {
        "event": "finished",
        "run_id": "1",
        "parent_id": "0",
        "name": "Mine",
        "kind": "llm",
        "provider": "openai",
        "model": "gpt",
        "seconds": 1.5,
        "first_chunk_seconds": 0.25,
        "chunks": 1,
        "output_tokens": 1,
        "finish_reason": "end",
    } == facts
    assert "Mine gpt finished: 1.500 s, first chunk 0.250 s, 1 chunks, ? + 1 tokens, end" == sentence


def test_leaving_is_no_error(records):
    """It is told like an end."""
    with Hangs(handlers=[LoggingHandler()]).stream("x") as stream:
        next(stream)
    rxllm.Embedded().invoke("the loop has gone round")
    assert [("DEBUG", "started"), ("INFO", "cancelled")] == told(records)
    assert 1 == records[-1].rxllm["chunks"]


def test_a_failure_tells_its_class_status_and_code(records):
    """At the level of errors; each run that failed tells it."""
    llm = Refuses(handlers=[LoggingHandler()])
    with pytest.raises(RateLimited):
        rxllm.pipe(llm, rxllm.text()).with_config(handlers=llm.handlers).invoke("x")
    assert [("ERROR", "failed")] * 2 == told(records)[-2:]
    inner, outer = records[-2:]
    assert ("RateLimited", 429, "slow_down") == tuple(inner.rxllm[name] for name in ("error", "status", "code"))
    assert outer.rxllm["run_id"] == inner.rxllm["parent_id"]
    assert "Refuses failed: RateLimited, status 429, slow_down, " in inner.getMessage()


def test_an_error_of_no_provider_has_its_class(records):
    """And neither status nor code."""
    (_, (facts, sentence)) = sent(
        records, Started("x", run=MODEL, time=1.0), Failed(Interrupted(SECRET), run=MODEL, time=3.0)
    )
    assert "Interrupted" == facts["error"]
    assert not {"status", "code"} & facts.keys()
    assert "Mine gpt failed: Interrupted, 2.000 s, 0 chunks" == sentence


def test_a_retry_is_a_warning(records):
    """With the attempt that failed, why, and when the next one is."""
    ((facts, sentence),) = sent(records, Retried(run=MODEL, attempt=2, error=Interrupted(SECRET), delay=0.5))
    assert "WARNING" == records[0].levelname
    assert (2, 0.5, "Interrupted") == tuple(facts[name] for name in ("attempt", "delay", "error"))
    assert "Mine gpt retried: attempt 2, Interrupted, again in 0.500 s" == sentence


def test_a_tool_is_a_run(records):
    """Be it told by the events of tools, of runs, or by both."""
    both = Started("x", run=TOOL, time=1.0), ToolStarted("x", run=TOOL, time=1.0)
    ends = ToolFinished("y", run=TOOL, time=2.0), Finished("y", run=TOOL, time=2.0)
    (_, (facts, _)) = sent(records, *both, *ends)
    assert ("add", "tool", 1.0) == (facts["name"], facts["kind"], facts["seconds"])


def test_a_pipelines_values_are_counted(records):
    """As chunks."""
    chain = Run("3", "Pipeline", "chain")
    (_, (facts, _)) = sent(
        records,
        Started("x", run=chain, time=1.0),
        Emitted("a", run=chain, time=1.5),
        Emitted("b", run=chain, time=1.75),
        Cancelled("ab", run=chain, time=2.0),
    )
    assert (2, 0.5) == (facts["chunks"], facts["first_chunk_seconds"])
    assert "provider" not in facts


def test_a_failure_that_is_subscribed_to_is_told(records):
    """Of an answer whose run was not heard."""
    with pytest.raises(RateLimited):
        list(Refuses()("x").pipe(ops.do(LoggingHandler()), rxllm.stream()))
    assert ["an answer failed: RateLimited, status 429, slow_down, about 1 + 5 tokens"] == [
        record.getMessage() for record in records
    ]


def test_no_content_is_written(records):
    """Neither prompts nor answers nor errors' texts nor data, of any run and of any level."""

    def tells(value):
        dispatch("step", SECRET)
        return value

    pipeline = rxllm.pipe(Refuses(), rxllm.text(), ops.map(tells)).with_config(
        handlers=[LoggingHandler()], metadata={"m": SECRET}
    )
    with pytest.raises(RateLimited):
        pipeline.invoke(SECRET)
    assert ("INFO", "custom") in told(records)
    assert "step" == next(record.rxllm["topic"] for record in records if record.rxllm["event"] == "custom")
    assert SECRET not in "".join(str(vars(record)) + record.getMessage() for record in records)


def test_a_provider_over_http_is_told(records):
    """With its model, tokens and reason; without its key."""
    with FakeServer(Reply(Messages().stream(["He", "llo"], usage=(7, 5)))) as server:
        rxllm.Anthropic("c-1", api_key="sk-secret", base_url=server.url, handlers=[LoggingHandler()]).invoke(SECRET)
    facts = records[-1].rxllm
    assert ("anthropic", 7, 5, "stop") == tuple(
        facts[name] for name in ("provider", "input_tokens", "output_tokens", "finish_reason")
    )
    written = "".join(str(vars(record)) + record.getMessage() for record in records)
    assert not [text for text in ("sk-secret", SECRET, "llo") if text in written]


def test_another_logger_may_be_given():
    """Whose level decides; a start that is not written costs nothing, and the end still knows it."""
    logger = logging.Logger("mine", logging.INFO)
    keeps = Keeps()
    logger.addHandler(keeps)
    Letters(handlers=[LoggingHandler(logger)]).invoke("a")
    assert [("INFO", "finished")] == told(keeps.records)
    assert "seconds" in keeps.records[0].rxllm


class Forges(LLM):
    """Names its model, its finish reason and its error so that a line-based log would show a second record."""

    async def chunks(self, request):
        """A model's name in two lines."""
        yield Chunk("a", model="m\nERROR:root:forged\x1b[2J", raw_finish_reason="odd\r\nERROR:root:forged")
        if request.text == "fail":
            raise RateLimited("no", status=429, code="slow\u2028ERROR:root:forged")


@pytest.mark.parametrize("prompt", ["answer", "fail"])
def test_a_server_cannot_forge_a_record(records, prompt):
    """No word of a server begins another line or is obeyed by a terminal, in the message and in the facts."""
    llm = Forges(handlers=[LoggingHandler()])
    llm.batch([prompt], return_exceptions=True)
    record = records[-1]
    texts = [record.getMessage(), *(fact for fact in record.rxllm.values() if isinstance(fact, str))]
    assert [] == [text for text in texts if not text.isprintable()]
    assert "m ERROR:root:forged\\u001b[2J" == record.rxllm["model"]
