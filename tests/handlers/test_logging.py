"""`LoggingHandler`: its records, their levels and facts, and what the records never contain."""

import asyncio
import logging

import pytest
from endings import RunEnd
from protocols import Messages
from reactivex import operators as ops

import rxllm
from rxllm import LLM, Chunk, Interrupted, Message, RateLimited, Usage, dispatch
from rxllm.events import Cancelled, Emitted, Failed, Finished, Retried, Run, Service, Started, ToolFinished, ToolStarted
from rxllm.events import run_chunk as chunk_of
from rxllm.handlers.logging import LoggingHandler
from rxllm.testing import FakeServer, Reply

SECRET = "a-prompt-with-secret"


class Letters(LLM):
    """Streams the prompt letter by letter, with usage at the end."""

    async def chunks(self, request):
        """Yield one chunk per letter."""
        for letter in request.text:
            yield letter
        yield Chunk(model="m-1", usage=Usage(input_tokens=3, output_tokens=2), finish_reason="stop")


class Fails(LLM):
    """Emits a chunk, then fails with an error that quotes the prompt."""

    async def chunks(self, request):
        """Yield one chunk, then raise."""
        yield SECRET
        raise RateLimited(f"too many such as {request.text}", status=429, code="slow_down", body=request.text)


class Hangs(LLM):
    """Emits a chunk, then never ends."""

    async def chunks(self, request):
        """Yield one chunk, then wait for ever."""
        yield "a"
        await asyncio.Event().wait()


class Keeps(logging.Handler):
    """Keeps all records."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        """Keep the record."""
        self.records.append(record)


@pytest.fixture
def records(caplog):
    """The records of the logger ``rxllm``, from DEBUG on."""
    keeps, logger = Keeps(), logging.getLogger("rxllm")
    logger.addHandler(keeps)
    with caplog.at_level(logging.DEBUG, "rxllm"):
        yield keeps.records
    logger.removeHandler(keeps)


def summary(records):
    """The levels and the events of the records."""
    return [(record.levelname, record.rxllm["event"]) for record in records]


def test_run_is_logged_at_its_start_and_end(records):
    """The facts are in the message, and as a dict in the record."""
    Letters(handlers=[LoggingHandler()]).invoke("ab")
    assert [("DEBUG", "started"), ("INFO", "finished")] == summary(records)
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
    """The facts and the messages of the records of these events."""
    handler = LoggingHandler()
    for event in events:
        handler.on_next(event)
    assert {} == handler._open
    return [(record.rxllm, record.getMessage()) for record in records]


def test_seconds_come_from_the_times_of_the_events(records, monkeypatch):
    """The first chunk and the end have the times of their events, even if the handler receives them late."""
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


def test_cancellation_is_logged_as_info(records):
    """A cancelled run is logged like an end."""
    end = RunEnd()
    with Hangs(handlers=[LoggingHandler(), end]).stream("x") as stream:
        next(stream)
    end.wait()
    assert [("DEBUG", "started"), ("INFO", "cancelled")] == summary(records)
    assert 1 == records[-1].rxllm["chunks"]


def test_failure_logs_its_class_status_and_code(records):
    """Each failed run logs the failure at level ERROR."""
    llm = Fails(handlers=[LoggingHandler()])
    with pytest.raises(RateLimited):
        rxllm.pipe(llm, rxllm.text()).with_config(handlers=llm.handlers).invoke("x")
    assert [("ERROR", "failed")] * 2 == summary(records)[-2:]
    inner, outer = records[-2:]
    assert ("RateLimited", 429, "slow_down") == tuple(inner.rxllm[name] for name in ("error", "status", "code"))
    assert outer.rxllm["run_id"] == inner.rxllm["parent_id"]
    assert "Fails failed: RateLimited, status 429, slow_down, " in inner.getMessage()


def test_other_errors_log_only_their_class(records):
    """An error that is not a ProviderError has neither status nor code."""
    (_, (facts, sentence)) = sent(
        records, Started("x", run=MODEL, time=1.0), Failed(Interrupted(SECRET), run=MODEL, time=3.0)
    )
    assert "Interrupted" == facts["error"]
    assert not {"status", "code"} & facts.keys()
    assert "Mine gpt failed: Interrupted, 2.000 s, 0 chunks" == sentence


def test_retry_is_logged_as_a_warning(records):
    """The record has the failed attempt, its error and the delay."""
    ((facts, sentence),) = sent(records, Retried(run=MODEL, attempt=2, error=Interrupted(SECRET), delay=0.5))
    assert "WARNING" == records[0].levelname
    assert (2, 0.5, "Interrupted") == tuple(facts[name] for name in ("attempt", "delay", "error"))
    assert "Mine gpt retried: attempt 2, Interrupted, again in 0.500 s" == sentence


def test_tool_is_logged_as_a_run(records):
    """The tool's events may be Started and Finished, ToolStarted and ToolFinished, or both."""
    both = Started("x", run=TOOL, time=1.0), ToolStarted("x", run=TOOL, time=1.0)
    ends = ToolFinished("y", run=TOOL, time=2.0), Finished("y", run=TOOL, time=2.0)
    (_, (facts, _)) = sent(records, *both, *ends)
    assert ("add", "tool", 1.0) == (facts["name"], facts["kind"], facts["seconds"])


def test_values_of_a_pipeline_count_as_chunks(records):
    """Each value that the pipeline emits is counted."""
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


def test_subscribed_handler_logs_the_failure(records):
    """The failure of a directly subscribed answer is logged without a run id."""
    with pytest.raises(RateLimited):
        list(Fails()("x").pipe(ops.do(LoggingHandler()), rxllm.stream()))
    assert ["an answer failed: RateLimited, status 429, slow_down, about 1 + 5 tokens"] == [
        record.getMessage() for record in records
    ]


def test_no_content_is_written(records):
    """Prompts, answers, error texts and event data are absent at every level and for every kind of run."""

    def dispatch_event(value):
        dispatch("step", SECRET)
        return value

    pipeline = rxllm.pipe(Fails(), rxllm.text(), ops.map(dispatch_event)).with_config(
        handlers=[LoggingHandler()], metadata={"m": SECRET}
    )
    with pytest.raises(RateLimited):
        pipeline.invoke(SECRET)
    assert ("INFO", "custom") in summary(records)
    assert "step" == next(record.rxllm["topic"] for record in records if record.rxllm["event"] == "custom")
    assert SECRET not in "".join(str(vars(record)) + record.getMessage() for record in records)


def test_provider_over_http_is_logged(records):
    """The record has the model, tokens and finish reason, never the key."""
    with FakeServer(Reply(Messages().stream(["He", "llo"], usage=(7, 5)))) as server:
        rxllm.Anthropic("c-1", api_key="sk-secret", base_url=server.url, handlers=[LoggingHandler()]).invoke(SECRET)
    facts = records[-1].rxllm
    assert ("anthropic", 7, 5, "stop") == tuple(
        facts[name] for name in ("provider", "input_tokens", "output_tokens", "finish_reason")
    )
    written = "".join(str(vars(record)) + record.getMessage() for record in records)
    assert not [text for text in ("sk-secret", SECRET, "llo") if text in written]


def test_handler_writes_to_another_logger():
    """The other logger's level decides; the end record has its facts even if the start record was disabled."""
    logger = logging.Logger("mine", logging.INFO)
    keeps = Keeps()
    logger.addHandler(keeps)
    Letters(handlers=[LoggingHandler(logger)]).invoke("a")
    assert [("INFO", "finished")] == summary(keeps.records)
    assert "seconds" in keeps.records[0].rxllm


class Forges(LLM):
    """Names its model, finish reason and error so that a line-based log would show a second record."""

    async def chunks(self, request):
        """Yield a model name of two lines."""
        yield Chunk("a", model="m\nERROR:root:forged\x1b[2J", raw_finish_reason="odd\r\nERROR:root:forged")
        if request.text == "fail":
            raise RateLimited("no", status=429, code="slow\u2028ERROR:root:forged")


@pytest.mark.parametrize("prompt", ["answer", "fail"])
def test_a_server_cannot_forge_a_record(records, prompt):
    """A server's text never starts another line or reaches the terminal as a command, in message and facts."""
    llm = Forges(handlers=[LoggingHandler()])
    llm.batch([prompt], return_exceptions=True)
    record = records[-1]
    texts = [record.getMessage(), *(fact for fact in record.rxllm.values() if isinstance(fact, str))]
    assert [] == [text for text in texts if not text.isprintable()]
    assert "m ERROR:root:forged\\u001b[2J" == record.rxllm["model"]
