"""The OpenTelemetry handler, heard by the real SDK: spans, their parents and ends, metrics, and what stays out."""

import asyncio
import json
import logging
import sys
import threading
from urllib.parse import urlsplit

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from protocols import Chat, Messages
from reactivex import operators as ops

import rxllm
from rxllm import (
    LLM,
    Chunk,
    FilePart,
    Finished,
    Message,
    MisuseError,
    OpenTelemetryHandler,
    RateLimited,
    RawPart,
    ReasoningPart,
    RefusalPart,
    Retried,
    Run,
    Started,
    ToolCallPart,
    ToolFinished,
    ToolResultPart,
    ToolStarted,
    Usage,
)
from rxllm.testing import FakeServer, Reply, Signal

KEY = "sk-do-not-show-this-to-anybody"
PATIENCE = 5.0  # seconds for what comes at once
BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
DURATION = "gen_ai.client.operation.duration"
FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
PER_CHUNK = "gen_ai.client.operation.time_per_output_chunk"
TOKENS = "gen_ai.client.token.usage"


class Echo(LLM):
    """Streams the prompt by letters."""

    async def chunks(self, request):
        """Letters."""
        for letter in request.text:
            yield letter


class Whole(LLM):
    """Answers at once, with everything an answer may tell."""

    async def complete(self, request):
        """One Message."""
        return Message("assistant", "yes", usage=Usage(input_tokens=3), finish_reason="stop", model="whole-1", id="w1")


class Silent(LLM):
    """Says one word, and no more."""

    async def chunks(self, request):
        """One chunk."""
        yield "a"
        await asyncio.Event().wait()


class Broken(LLM):
    """Says one word, and fails."""

    async def chunks(self, request):
        """One chunk."""
        yield Chunk("a", usage=Usage(output_tokens=1))
        raise RateLimited(f"too many requests such as {request.text!r}", status=429)


class Telemetry:
    """A handler, and what the SDK got of it."""

    def __init__(self, **options):
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.handler = OpenTelemetryHandler(tracer_provider=self.tracers, meter_provider=self.meters, **options)

    @property
    def spans(self):
        """Those that have ended, by the time they began."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time)

    @property
    def span(self):
        """The only one."""
        (span,) = self.spans
        return span

    @property
    def metrics(self):
        """Data points, by the metric's name."""
        data = self.reader.get_metrics_data()
        metrics = data.resource_metrics[0].scope_metrics[0].metrics if data else []
        return {metric.name: metric.data.data_points for metric in metrics}

    @property
    def written(self):
        """All that leaves the process, as text."""
        return " ".join([span.to_json() for span in self.spans] + [repr(self.metrics)])


@pytest.fixture
def telemetry():
    """A handler that is told of no content; at the end it has forgotten all runs."""
    telemetry = Telemetry()
    yield telemetry
    assert {} == telemetry.handler._open


@pytest.fixture
def open_telemetry():
    """A handler that is told of content."""
    telemetry = Telemetry(capture_content=True)
    yield telemetry
    assert {} == telemetry.handler._open


@pytest.fixture
def server():
    """A local server, which is told what to answer."""
    with FakeServer() as server:
        yield server


def inside(inner, outer):
    """Whether a span is a child of the other."""
    return inner.parent is not None and inner.parent.span_id == outer.context.span_id


# ── spans ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_conversation_is_told_by_all_that_is_part_of_it(telemetry):
    """Its id is metadata, which runs within inherit."""
    pipeline = rxllm.pipe(rxllm.Embedded(max_tokens=1), rxllm.text()).with_config(
        metadata={"conversation_id": "c-7"}, handlers=[telemetry.handler]
    )
    pipeline.invoke("x")
    assert ["c-7", "c-7"] == [span.attributes["gen_ai.conversation.id"] for span in telemetry.spans]


def test_a_model_on_a_server_is_a_client(telemetry, server):
    """Its span has the names of the convention, and what was asked for and answered, but no content and no key."""
    server.reply(Reply(Chat().stream(["Hel", "lo"], usage=(3, 2))))
    url = server.url.replace("://", f"://user:{KEY}@") + "/v1"
    llm = rxllm.OpenAI("gpt-5-mini", api_key=KEY, base_url=url, handlers=[telemetry.handler])
    asked = {"temperature": 0.5, "max_tokens": 7, "top_p": 0.9, "top_k": 4, "seed": 1, "stop_sequences": ["."]}
    answer = llm.invoke([("system", "Be kind."), ("user", "Greet me.")], **asked)
    span = telemetry.span
    assert ("chat gpt-5-mini", SpanKind.CLIENT) == (span.name, span.kind)
    attributes = dict(span.attributes)
    assert 0 <= attributes.pop("gen_ai.response.time_to_first_chunk") <= PATIENCE
    assert {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5-mini",
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 7,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.top_k": 4,
        "gen_ai.request.seed": 1,
        "gen_ai.request.stop_sequences": (".",),
        "gen_ai.response.id": answer.id,
        "gen_ai.response.model": answer.model,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
        "server.address": "127.0.0.1",
        "server.port": urlsplit(server.url).port,
    } == attributes
    assert StatusCode.UNSET == span.status.status_code
    assert [] == [secret for secret in (KEY, "Greet", "Be kind", "Hello") if secret in telemetry.written]


def test_the_convention_counts_cached_tokens_as_input(telemetry):
    """As rxllm's Usage does."""
    run = Run("1", "Anthropic", "chat_model", service=rxllm.Service("anthropic", "claude"))
    counted = Usage(input_tokens=111, cache_read_input_tokens=10, cache_creation_input_tokens=100, output_tokens=5)
    for event in Started("hi", run=run), Finished(Message("assistant", "yo", usage=counted), run=run):
        telemetry.handler.on_event(event)
    used = {name.removeprefix("gen_ai.usage."): n for name, n in telemetry.span.attributes.items() if "usage" in name}
    cached = {"cache_read.input_tokens": 10, "cache_creation.input_tokens": 100}
    assert {"input_tokens": 111, "output_tokens": 5, **cached} == used


def test_anthropic_is_named(telemetry, server):
    """By its provider's name."""
    server.reply(Reply(Messages().stream(["Hi"])))
    llm = rxllm.Anthropic("claude-x", api_key=KEY, base_url=server.url, handlers=[telemetry.handler])
    llm.invoke("hi")
    assert ("chat claude-x", "anthropic") == (telemetry.span.name, telemetry.span.attributes["gen_ai.provider.name"])
    assert KEY not in telemetry.written


def test_a_model_in_this_process_is_internal(telemetry):
    """It has no server; without a model's name its span has the run's."""
    rxllm.Embedded(handlers=[telemetry.handler]).invoke("the moon", max_tokens=3)
    span = telemetry.span
    assert ("text_completion Embedded", SpanKind.INTERNAL) == (span.name, span.kind)
    assert "embedded" == span.attributes["gen_ai.response.model"]
    assert {"server.address", "server.port", "gen_ai.request.model"}.isdisjoint(span.attributes)


def test_an_answer_that_is_not_streamed_has_no_first_chunk(telemetry):
    """Its whole duration says it."""
    Whole(handlers=[telemetry.handler]).invoke("hi")
    assert telemetry.span.attributes["gen_ai.request.stream"] is False
    assert "gen_ai.response.time_to_first_chunk" not in telemetry.span.attributes
    assert {DURATION, TOKENS} == telemetry.metrics.keys()


def test_models_are_children_of_their_pipeline(telemetry):
    """Each of them, also where the second is asked for each value of the first."""
    first, second = Echo(run_name="first"), Echo(run_name="second")
    pipeline = rxllm.pipe(first, rxllm.message(), ops.map(str), ops.flat_map(second), rxllm.text())
    assert "ab" == "".join(pipeline.stream("ab", run_name="talk", handlers=[telemetry.handler]))
    outer, *inner = telemetry.spans
    assert ("invoke_workflow talk", SpanKind.INTERNAL) == (outer.name, outer.kind)
    assert outer.parent is None
    assert "talk" == outer.attributes["gen_ai.workflow.name"]
    assert ["text_completion first", "text_completion second"] == [span.name for span in inner]
    assert all(inside(span, outer) for span in inner)


def test_pipelines_nest(telemetry):
    """The parent is the nearest run that the handler knows."""
    innermost = rxllm.pipe(Echo(), rxllm.text()).with_config(run_name="inner")
    rxllm.pipe(innermost, ops.last()).with_config(run_name="outer", handlers=[telemetry.handler]).invoke("ab")
    outer, inner, model = telemetry.spans
    assert inside(inner, outer)
    assert inside(model, inner)


def test_a_run_whose_outer_run_is_unheard_has_the_current_parent(telemetry):
    """The handler that only the model has does not know the pipeline."""
    tracer = telemetry.tracers.get_tracer("test")
    pipeline = rxllm.pipe(Echo(handlers=[telemetry.handler]), rxllm.text()).with_config(handlers=[lambda event: None])
    with tracer.start_as_current_span("mine"):
        pipeline.invoke("ab")
    mine, model = telemetry.spans
    assert inside(model, mine)


async def test_the_subscribers_span_is_the_parent(telemetry):
    """That which is current where it is subscribed to, from sync and async code, whatever thread answers."""
    tracer = telemetry.tracers.get_tracer("test")
    llm = Echo(handlers=[telemetry.handler])
    with tracer.start_as_current_span("mine"):
        await llm.ainvoke("a")
        await asyncio.to_thread(llm.invoke, "a")
    mine, *models = telemetry.spans
    assert 2 == len(models)
    assert all(inside(model, mine) for model in models)


async def test_it_is_never_current(telemetry):
    """Neither for the consumer of a stream nor after it."""
    async with Echo(handlers=[telemetry.handler]).astream("ab") as stream:
        assert [False, False] == [trace.get_current_span().get_span_context().is_valid async for _ in stream]
    assert not trace.get_current_span().get_span_context().is_valid


def test_a_tool_is_executed(telemetry):
    """Its span is a child of the run it is part of; what it is given and gives stays out."""
    outer = Run("1", "agent", "chain")
    tool = Run("2", "weather", "tool", ("1",))
    given = {"city": "Paris"}
    heard = Started("hi", run=outer), ToolStarted(given, run=tool), ToolFinished("fog", run=tool)
    for event in (*heard, Finished("It is foggy.", run=outer)):
        telemetry.handler.on_event(event)
    workflow, span = telemetry.spans
    assert ("execute_tool weather", SpanKind.INTERNAL) == (span.name, span.kind)
    assert {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "weather"} == dict(span.attributes)
    assert inside(span, workflow)
    assert {} == telemetry.metrics  # they are a model's


def test_a_tool_that_says_both_has_one_span(telemetry):
    """Started and ToolStarted begin the same run, and the first end ends it."""
    tool = Run("2", "weather", "tool")
    heard = Started(1, run=tool), ToolStarted(1, run=tool), ToolFinished(2, run=tool), Finished(2, run=tool)
    for event in heard:
        telemetry.handler.on_event(event)
    assert "execute_tool weather" == telemetry.span.name


def test_a_retry_is_an_event_of_the_span(telemetry):
    """With its number and the class of the error; one of an unknown run is ignored."""
    run = Run("1", "retry", "llm", service=rxllm.Service("echo"))
    retried = Retried(1, ConnectionError("hush"), run=run)
    for event in retried, Started("hi", run=run), retried, Finished(Message("assistant"), run=run):
        telemetry.handler.on_event(event)
    (event,) = telemetry.span.events
    assert ("rxllm.retried", {"rxllm.attempt": 1, "error.type": "ConnectionError"}) == (event.name, event.attributes)


# ── ends ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_failure_is_an_error(telemetry):
    """It has its class and status, and what had arrived; its text, which may quote the prompt, stays out."""
    llm = Broken(handlers=[telemetry.handler])
    with pytest.raises(RateLimited):
        llm.invoke("secret")
    attributes = telemetry.span.attributes
    assert (StatusCode.ERROR, None) == (telemetry.span.status.status_code, telemetry.span.status.description)
    assert ("RateLimited", 429, 1) == tuple(
        attributes[name] for name in ("error.type", "http.response.status_code", "gen_ai.usage.output_tokens")
    )
    (duration,) = telemetry.metrics[DURATION]
    assert "RateLimited" == duration.attributes["error.type"]
    assert "secret" not in telemetry.written


def test_a_failure_fails_the_pipeline_around_it(telemetry):
    """Both spans end, as errors."""
    with pytest.raises(RateLimited):
        rxllm.pipe(Broken(), rxllm.text()).invoke("hi", handlers=[telemetry.handler])
    assert ["RateLimited"] * 2 == [span.attributes["error.type"] for span in telemetry.spans]


def test_what_fails_before_anything_is_sent_ends_too(telemetry):
    """Such as a missing key: its run had begun."""
    with pytest.raises(MisuseError):
        rxllm.OpenAI("gpt-5-mini", handlers=[telemetry.handler]).invoke("hi")
    assert ("chat gpt-5-mini", "MisuseError") == (telemetry.span.name, telemetry.span.attributes["error.type"])


def test_an_error_of_another_library_has_its_full_name(telemetry):
    """Two libraries may both have a Timeout."""

    class Foreign(LLM):
        async def complete(self, request):
            raise json.JSONDecodeError("hush", "", 0)

    with pytest.raises(json.JSONDecodeError):
        Foreign(handlers=[telemetry.handler]).invoke("hi")
    assert "json.decoder.JSONDecodeError" == telemetry.span.attributes["error.type"]


@pytest.mark.parametrize("streamed", [Silent(), rxllm.pipe(Silent(), rxllm.text())], ids=["model", "pipeline"])
async def test_who_breaks_out_ends_the_span(telemetry, streamed, caplog):
    """Cancelled is no error; and no context is left that was not entered."""
    left = asyncio.Event()  # an iterator that is left is closed as soon as its loop has time

    def note(event):
        if isinstance(event, rxllm.Cancelled) and not event.parent_ids:
            left.set()

    async for piece in streamed.astream("hi", handlers=[telemetry.handler, note]):
        assert "a" == str(piece)
        break
    await asyncio.wait_for(left.wait(), PATIENCE)
    ended = telemetry.spans
    assert ended
    assert all(span.attributes["rxllm.cancelled"] is True for span in ended)
    assert {StatusCode.UNSET} == {span.status.status_code for span in ended}
    assert all("error.type" not in span.attributes for span in ended)
    assert [] == caplog.records


def test_sync_consumers_in_threads_disturb_nobody(telemetry, caplog):
    """Each breaks out of its own stream, in a context of its own."""

    def consume():
        with Silent(handlers=[telemetry.handler]).stream("hi") as stream:
            next(stream)

    threads = [threading.Thread(target=consume) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    ended = ended_soon(telemetry, 8)
    assert 8 == len({span.context.trace_id for span in ended})
    assert [] == caplog.records


def ended_soon(telemetry, count):
    """The spans, when there are so many: a sync stream does not wait for the loop to close what it left."""
    rxllm.runtime.portal.portal()
    for _ in range(100):
        if len(telemetry.spans) >= count:
            break
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), rxllm.runtime.portal.portal()).result(PATIENCE)
    return telemetry.spans


async def test_a_cancelled_task_ends_the_span(telemetry, caplog):
    """Also where the stream is closed by another task than the one that began it."""
    begun = asyncio.Event()

    async def consume(stream):
        async for _ in stream:
            begun.set()

    stream = Silent(handlers=[telemetry.handler]).astream("hi")
    task = asyncio.create_task(consume(stream))
    await asyncio.wait_for(begun.wait(), PATIENCE)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.create_task(stream.aclose())
    assert telemetry.span.attributes["rxllm.cancelled"] is True
    assert [] == caplog.records


def test_cancelling_keeps_what_was_counted(telemetry, server):
    """What arrived before tells of the answer."""
    released = Signal()
    role, first, *rest = Chat().stream(["Hel", "lo"])
    server.reply(Reply([role, first, released, *rest]))
    llm = rxllm.OpenAI("gpt-5-mini", api_key=KEY, base_url=f"{server.url}/v1", handlers=[telemetry.handler])
    with llm.stream("hi") as stream:
        chunk = next(stream)
    released.set()
    (span,) = ended_soon(telemetry, 1)
    assert (True, chunk.id) == (span.attributes["rxllm.cancelled"], span.attributes["gen_ai.response.id"])


async def test_runs_at_once_are_apart(telemetry):
    """Fifty of them, each a trace of its own with its own answer."""
    pipeline = rxllm.pipe(Echo(), rxllm.text()).with_config(handlers=[telemetry.handler])
    await asyncio.gather(*[pipeline.ainvoke("abc") for _ in range(50)])
    traces = {}
    for span in telemetry.spans:
        traces.setdefault(span.context.trace_id, []).append(span)
    assert 50 == len(traces)
    assert all(inside(inner, outer) for outer, inner in traces.values())


def test_what_it_does_not_know_it_ignores(telemetry):
    """Chunks and ends of runs that it did not see begin, and chunks without a run, as a mere observer hears them."""
    run = Run("1", "Echo", "llm")
    telemetry.handler.on_event(Finished(Message("assistant"), run=run))
    telemetry.handler.on_event(rxllm.Custom("mine", run=run))
    ended = threading.Event()
    Echo()("ab").pipe(ops.do_action(on_completed=ended.set)).subscribe(telemetry.handler)
    assert ended.wait(PATIENCE)
    assert [] == telemetry.spans


async def test_it_can_be_subscribed_to_events(telemetry):
    """They tell what it needs."""
    done = asyncio.Event()
    Echo().events("ab").pipe(ops.do_action(on_completed=done.set)).subscribe(telemetry.handler)
    await asyncio.wait_for(done.wait(), PATIENCE)
    assert "text_completion Echo" == telemetry.span.name


# ── metrics ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_metrics_have_the_conventions_names_units_and_buckets(telemetry, server):
    """One duration and one first chunk an answer, one time for each further chunk, tokens by their type."""
    server.reply(Reply(Chat().stream(["Hel", "lo"], usage=(3, 2))))
    llm = rxllm.OpenAI("gpt-5-mini", api_key=KEY, base_url=f"{server.url}/v1", handlers=[telemetry.handler])
    chunks = list(llm.stream("hi"))
    metrics = telemetry.metrics
    assert {DURATION, FIRST_CHUNK, PER_CHUNK, TOKENS} == metrics.keys()
    counts = {name: points[0].count for name, points in metrics.items() if name != TOKENS}
    assert {DURATION: 1, FIRST_CHUNK: 1, PER_CHUNK: len(chunks) - 1} == counts
    assert all(BUCKETS == points[0].explicit_bounds for name, points in metrics.items() if name != TOKENS)
    tokens = {point.attributes["gen_ai.token.type"]: point.sum for point in metrics[TOKENS]}
    assert {"input": 3, "output": 2} == tokens
    where = {"server.address": "127.0.0.1", "server.port": urlsplit(server.url).port}
    asked = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-5-mini"}
    assert {**asked, **where} == dict(metrics[FIRST_CHUNK][0].attributes)
    assert asked.items() <= metrics[DURATION][0].attributes.items()


def test_unknown_counts_are_not_reported(telemetry):
    """Neither as zero nor as an estimate."""
    Whole(handlers=[telemetry.handler]).invoke("hi")  # knows its input only
    Echo(handlers=[telemetry.handler]).invoke("hi")
    run = Run("1", "Echo", "llm", service=rxllm.Service("echo"))
    guessed = Message("assistant", "a", usage=Usage(input_tokens=9, output_tokens=9, estimated=True))
    for event in Started("hi", run=run), Finished(guessed, run=run):
        telemetry.handler.on_event(event)
    (point,) = telemetry.metrics[TOKENS]
    assert ("input", 3) == (point.attributes["gen_ai.token.type"], point.sum)


# ── content ──────────────────────────────────────────────────────────────────────────────────────────────────────


def content(span):
    """What a span tells of what was said."""
    names = ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions")
    return [json.loads(span.attributes[name]) if name in span.attributes else None for name in names]


def test_content_is_told_on_request(open_telemetry):
    """Messages in the convention's shape, the system's apart."""
    Whole(handlers=[open_telemetry.handler]).invoke([("system", "Be kind."), ("user", "Are you?")])
    text = {"type": "text", "content": "Are you?"}
    answer = {"role": "assistant", "parts": [{"type": "text", "content": "yes"}], "finish_reason": "stop"}
    rules = [{"type": "text", "content": "Be kind."}]
    assert [[{"role": "user", "parts": [text]}], [answer], rules] == content(open_telemetry.span)


def test_every_part_has_a_shape(open_telemetry):
    """Arguments are a document where they are one; files are told by type and size."""
    parts = [
        ReasoningPart("hm"),
        RefusalPart("no"),
        ToolCallPart("c1", "weather", '{"city": "Paris"}'),
        ToolCallPart("c2", "weather", "{", index=1),
        ToolResultPart("c1", "fog"),
        FilePart("image/png", b"1234"),
        FilePart("image/png", url="https://example.com/a.png"),
        RawPart("anthropic", {"type": "redacted"}),
    ]
    Echo(handlers=[open_telemetry.handler]).invoke(Message("user", parts))
    ((said,), _, _) = content(open_telemetry.span)
    assert [
        {"type": "reasoning", "content": "hm"},
        {"type": "refusal", "content": "no"},
        {"type": "tool_call", "id": "c1", "name": "weather", "arguments": {"city": "Paris"}},
        {"type": "tool_call", "id": "c2", "name": "weather", "arguments": "{"},
        {"type": "tool_call_response", "id": "c1", "response": "fog"},
        {"type": "file", "size": 4, "modality": "image", "mime_type": "image/png"},
        {"type": "uri", "uri": "https://example.com/a.png", "modality": "image", "mime_type": "image/png"},
        {"type": "raw", "provider": "anthropic"},
    ] == said["parts"]


def test_content_of_pipelines_and_tools_is_told_on_request(open_telemetry):
    """Whatever it is: what has no JSON is told as Python shows it."""
    rxllm.pipe(Echo(), rxllm.text()).invoke("ab", handlers=[open_telemetry.handler])
    workflow, _ = open_telemetry.spans
    said = [[{"role": role, "parts": [{"type": "text", "content": "ab"}]}] for role in ("user", "assistant")]
    assert [*said, None] == content(workflow)
    tool = Run("2", "weather", "tool")
    given = {"at": 1j, "model": rxllm.OpenAI("m", api_key=KEY)}
    for event in ToolStarted(given, run=tool), ToolFinished({1.5j: 3}, run=tool):
        open_telemetry.handler.on_event(event)
    *_, span = open_telemetry.spans
    assert "1j" == json.loads(span.attributes["gen_ai.tool.call.arguments"])["at"]
    assert KEY not in open_telemetry.written
    assert "{1.5j: 3}" == span.attributes["gen_ai.tool.call.result"]


def test_the_text_of_errors_is_told_on_request(open_telemetry):
    """With what had arrived."""
    with pytest.raises(RateLimited):
        Broken(handlers=[open_telemetry.handler]).invoke("this")
    assert "too many requests such as 'this'" == open_telemetry.span.status.description
    _, ((answer),), _ = content(open_telemetry.span)
    assert [{"type": "text", "content": "a"}] == answer["parts"]


# ── making one ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_the_extra_it_says_which(monkeypatch):
    """When it is made, not when it is heard."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MisuseError, match=r"pip install 'rxllm\[otel\]'"):
        OpenTelemetryHandler()


def test_without_providers_it_uses_the_global_ones(caplog):
    """Which do nothing, if the program has set none."""
    caplog.set_level(logging.WARNING)
    handler = OpenTelemetryHandler()
    assert "ab" == str(Echo(handlers=[handler]).invoke("ab"))
    assert {} == handler._open
    assert [] == caplog.records


def test_a_bad_address_is_told_by_the_model(telemetry, monkeypatch):
    """Not by who asks where it is."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://[::1")
    llm = rxllm.OpenAI("m", api_key=KEY, handlers=[telemetry.handler])
    with pytest.raises(MisuseError):
        llm.invoke("hi")
    assert "server.address" not in telemetry.span.attributes
