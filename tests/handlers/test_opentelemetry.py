"""The OpenTelemetry handler with the real SDK: spans, their parents and ends, metrics, and excluded content."""

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
from protocols import Chat, Messages, ToolCall
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
from rxllm.testing import FakeServer, MarbleLLM, Reply, Signal

KEY = "sk-do-not-show-this-to-anybody"
PATIENCE = 30.0  # seconds; a limit for steps that take milliseconds
BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
DURATION = "gen_ai.client.operation.duration"
FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
PER_CHUNK = "gen_ai.client.operation.time_per_output_chunk"
TOKENS = "gen_ai.client.token.usage"


class Echo(LLM):
    """Streams the prompt letter by letter."""

    async def chunks(self, request):
        """Yield one chunk per letter."""
        for letter in request.text:
            yield letter


class Whole(LLM):
    """Answers with a whole message that has every field."""

    async def complete(self, request):
        """Return one Message."""
        return Message("assistant", "yes", usage=Usage(input_tokens=3), finish_reason="stop", model="whole-1", id="w1")


class Silent(LLM):
    """Emits one word, then never ends."""

    async def chunks(self, request):
        """Yield one chunk, then wait for ever."""
        yield "a"
        await asyncio.Event().wait()


class Broken(LLM):
    """Emits one word, then fails."""

    async def chunks(self, request):
        """Yield one chunk, then raise."""
        yield Chunk("a", usage=Usage(output_tokens=1))
        raise RateLimited(f"too many requests such as {request.text!r}", status=429)


class Telemetry:
    """A handler, and the spans and metrics that the SDK received from it."""

    def __init__(self, **options):
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.handler = OpenTelemetryHandler(tracer_provider=self.tracers, meter_provider=self.meters, **options)

    @property
    def spans(self):
        """The ended spans, in the order of their start."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time)

    @property
    def span(self):
        """The only span."""
        (span,) = self.spans
        return span

    @property
    def metrics(self):
        """The data points, by the metric's name."""
        data = self.reader.get_metrics_data()
        metrics = data.resource_metrics[0].scope_metrics[0].metrics if data else []
        return {metric.name: metric.data.data_points for metric in metrics}

    @property
    def written(self):
        """Everything that leaves the process, as text."""
        return " ".join([span.to_json() for span in self.spans] + [repr(self.metrics)])


@pytest.fixture
def telemetry():
    """A handler without content; at the end of the test it holds no open run."""
    telemetry = Telemetry()
    yield telemetry
    assert {} == telemetry.handler._open


@pytest.fixture
def open_telemetry():
    """A handler with content; at the end of the test it holds no open run."""
    telemetry = Telemetry(capture_content=True)
    yield telemetry
    assert {} == telemetry.handler._open


@pytest.fixture
def server():
    """A local server with scripted responses."""
    with FakeServer() as server:
        yield server


def inside(inner, outer):
    """Whether a span is a child of the other."""
    return inner.parent is not None and inner.parent.span_id == outer.context.span_id


# ── spans ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_conversation_id_is_inherited(telemetry):
    """`conversation_id` in a pipeline's metadata is reported for the pipeline and the runs inside."""
    pipeline = rxllm.pipe(rxllm.Embedded(max_tokens=1), rxllm.text()).with_config(
        metadata={"conversation_id": "c-7"}, handlers=[telemetry.handler]
    )
    pipeline.invoke("x")
    assert ["c-7", "c-7"] == [span.attributes["gen_ai.conversation.id"] for span in telemetry.spans]


def test_model_on_a_server_is_a_client_span(telemetry, server):
    """The span has the convention's attributes for request and response, but no content and no key."""
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


def test_cached_tokens_count_as_input(telemetry):
    """The convention includes cached tokens in the input, as rxllm's Usage does."""
    run = Run("1", "Anthropic", "chat_model", service=rxllm.Service("anthropic", "claude"))
    counted = Usage(input_tokens=111, cache_read_input_tokens=10, cache_creation_input_tokens=100, output_tokens=5)
    for event in Started("hi", run=run), Finished(Message("assistant", "yo", usage=counted), run=run):
        telemetry.handler.on_event(event)
    used = {name.removeprefix("gen_ai.usage."): n for name, n in telemetry.span.attributes.items() if "usage" in name}
    cached = {"cache_read.input_tokens": 10, "cache_creation.input_tokens": 100}
    assert {"input_tokens": 111, "output_tokens": 5, **cached} == used


def test_anthropic_is_the_provider_name(telemetry, server):
    """The provider's name is ``anthropic``."""
    server.reply(Reply(Messages().stream(["Hi"])))
    llm = rxllm.Anthropic("claude-x", api_key=KEY, base_url=server.url, handlers=[telemetry.handler])
    llm.invoke("hi")
    assert ("chat claude-x", "anthropic") == (telemetry.span.name, telemetry.span.attributes["gen_ai.provider.name"])
    assert KEY not in telemetry.written


def test_model_in_this_process_is_an_internal_span(telemetry):
    """The span has no server attributes; without a model name the span is named after the run."""
    rxllm.Embedded(handlers=[telemetry.handler]).invoke("the moon", max_tokens=3)
    span = telemetry.span
    assert ("text_completion Embedded", SpanKind.INTERNAL) == (span.name, span.kind)
    assert "embedded" == span.attributes["gen_ai.response.model"]
    assert {"server.address", "server.port", "gen_ai.request.model"}.isdisjoint(span.attributes)


def test_whole_answer_has_no_first_chunk(telemetry):
    """An answer that is not streamed reports only its duration."""
    Whole(handlers=[telemetry.handler]).invoke("hi")
    assert telemetry.span.attributes["gen_ai.request.stream"] is False
    assert "gen_ai.response.time_to_first_chunk" not in telemetry.span.attributes
    assert {DURATION, TOKENS} == telemetry.metrics.keys()


def test_models_are_children_of_their_pipeline(telemetry):
    """Both models are children of the pipeline, also if the second model runs for each value of the first."""
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
    """The parent is the nearest run that the handler received."""
    innermost = rxllm.pipe(Echo(), rxllm.text()).with_config(run_name="inner")
    rxllm.pipe(innermost, ops.last()).with_config(run_name="outer", handlers=[telemetry.handler]).invoke("ab")
    outer, inner, model = telemetry.spans
    assert inside(inner, outer)
    assert inside(model, inner)


def test_run_with_an_unreported_parent_uses_the_current_span(telemetry):
    """A handler attached to the model alone does not know the pipeline's run."""
    tracer = telemetry.tracers.get_tracer("test")
    pipeline = rxllm.pipe(Echo(handlers=[telemetry.handler]), rxllm.text()).with_config(handlers=[lambda event: None])
    with tracer.start_as_current_span("mine"):
        pipeline.invoke("ab")
    mine, model = telemetry.spans
    assert inside(model, mine)


async def test_parent_is_the_span_current_at_the_subscription(telemetry):
    """The subscriber's span is the parent, in sync and async code, whichever thread answers."""
    tracer = telemetry.tracers.get_tracer("test")
    llm = Echo(handlers=[telemetry.handler])
    with tracer.start_as_current_span("mine"):
        await llm.ainvoke("a")
        await asyncio.to_thread(llm.invoke, "a")
    mine, *models = telemetry.spans
    assert 2 == len(models)
    assert all(inside(model, mine) for model in models)


async def test_span_is_never_made_current(telemetry):
    """The consumer of a stream never sees the span as current, nor does the code after the stream."""
    async with Echo(handlers=[telemetry.handler]).astream("ab") as stream:
        assert [False, False] == [trace.get_current_span().get_span_context().is_valid async for _ in stream]
    assert not trace.get_current_span().get_span_context().is_valid


def test_tool_has_an_execute_tool_span(telemetry):
    """The span is a child of the enclosing run; arguments and result are excluded."""
    outer = Run("1", "agent", "chain")
    tool = Run("2", "weather", "tool", ("1",))
    given = {"city": "Paris"}
    events = Started("hi", run=outer), ToolStarted(given, run=tool), ToolFinished("fog", run=tool)
    for event in (*events, Finished("It is foggy.", run=outer)):
        telemetry.handler.on_event(event)
    workflow, span = telemetry.spans
    assert ("execute_tool weather", SpanKind.INTERNAL) == (span.name, span.kind)
    assert {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "weather"} == dict(span.attributes)
    assert inside(span, workflow)
    assert {} == telemetry.metrics  # only models have metrics


def test_agent_has_an_invoke_agent_span_around_its_rounds_and_tools(telemetry):
    """The spans of the model's rounds and of the tools are its children. A tool's span has the id of its call."""

    def add(a: int, b: int) -> int:
        return a + b

    model = MarbleLLM(
        ["-c|", "-3|"], values={"c": Chunk(parts=[ToolCallPart("call-1", "add", '{"a":1,"b":2}')])}, timespan=0.001
    )
    with_calls = rxllm.agent(model, add).with_config(run_name="adder", handlers=[telemetry.handler])
    assert "3" == with_calls.invoke("hi").text
    names = [span.name for span in telemetry.spans]
    assert ["invoke_agent adder", "text_completion MarbleLLM", "execute_tool add", "text_completion MarbleLLM"] == names
    outer, *inner = telemetry.spans
    assert {outer.context.span_id} == {span.parent.span_id for span in inner}
    assert {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "adder"} == dict(outer.attributes)
    assert "call-1" == inner[1].attributes["gen_ai.tool.call.id"]


@pytest.mark.parametrize("has_content", [False, True])
def test_spans_of_an_agent_over_http_nest(telemetry, open_telemetry, server, has_content):
    """A model that a tool asks is within the tool. Without `capture_content` nothing of what was said is exported."""
    heard, expert = open_telemetry if has_content else telemetry, []

    @rxllm.tool
    async def ask(question: str) -> str:
        """Ask an expert."""
        return (await expert[0].ainvoke(question)).text

    def call(index):
        return ToolCall(f"call-{index}", "ask", [json.dumps({"question": f"secret question {index}"})])

    plan = Chat().stream(["secret plan"], tool_call=[call(0), call(1)])
    server.reply(*map(Reply, [plan, *[Chat().stream(["secret advice"])] * 2, Chat().stream(["secret answer"])]))
    llm = rxllm.OpenAI("gpt-5-mini", api_key=KEY, base_url=f"{server.url}/v1", api="chat")
    expert.append(llm)
    agent = rxllm.agent(llm, ask).with_config(run_name="boss", handlers=[heard.handler])
    assert "secret plansecret answer" == agent.invoke("secret prompt").text
    outer, *others = heard.spans
    assert ("invoke_agent boss", None) == (outer.name, outer.parent)
    names = {span.context.span_id: span.name for span in heard.spans}
    assert sorted([(span.name, names[span.parent.span_id]) for span in others]) == [
        ("chat gpt-5-mini", "execute_tool ask"),
        ("chat gpt-5-mini", "execute_tool ask"),
        ("chat gpt-5-mini", "invoke_agent boss"),
        ("chat gpt-5-mini", "invoke_agent boss"),
        ("execute_tool ask", "invoke_agent boss"),
        ("execute_tool ask", "invoke_agent boss"),
    ]
    assert {SpanKind.CLIENT} == {span.kind for span in others if span.name.startswith("chat")}
    assert all(span.parent.span_id in names and span.context.trace_id == outer.context.trace_id for span in others)
    for said in "prompt", "plan", "question 1", "advice", "answer":
        assert has_content == (f"secret {said}" in heard.written)
    assert KEY not in heard.written


def test_tool_with_both_kinds_of_events_has_one_span(telemetry):
    """Started and ToolStarted start one span, and the first end event ends it."""
    tool = Run("2", "weather", "tool")
    events = Started(1, run=tool), ToolStarted(1, run=tool), ToolFinished(2, run=tool), Finished(2, run=tool)
    for event in events:
        telemetry.handler.on_event(event)
    assert "execute_tool weather" == telemetry.span.name


def test_retry_is_an_event_of_the_span(telemetry):
    """The event has the attempt and the error's class; a retry of an unknown run is ignored."""
    run = Run("1", "retry", "llm", service=rxllm.Service("echo"))
    retried = Retried(1, ConnectionError("hush"), run=run)
    for event in retried, Started("hi", run=run), retried, Finished(Message("assistant"), run=run):
        telemetry.handler.on_event(event)
    (event,) = telemetry.span.events
    assert ("rxllm.retried", {"rxllm.attempt": 1, "error.type": "ConnectionError"}) == (event.name, event.attributes)


# ── ends ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_failure_sets_the_error_status(telemetry):
    """The span has the error's class, its status, and what had arrived; the error's text is excluded."""
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


def test_failure_of_a_model_fails_its_pipelines_span(telemetry):
    """Both spans end with the error status."""
    with pytest.raises(RateLimited):
        rxllm.pipe(Broken(), rxllm.text()).invoke("hi", handlers=[telemetry.handler])
    assert ["RateLimited"] * 2 == [span.attributes["error.type"] for span in telemetry.spans]


def test_failure_before_the_request_ends_the_span(telemetry):
    """A missing key fails the run after its start; the span ends."""
    with pytest.raises(MisuseError):
        rxllm.OpenAI("gpt-5-mini", handlers=[telemetry.handler]).invoke("hi")
    assert ("chat gpt-5-mini", "MissingKey") == (telemetry.span.name, telemetry.span.attributes["error.type"])


def test_foreign_error_has_its_full_name(telemetry):
    """The error type includes the module, because two libraries may both have a Timeout."""

    class Foreign(LLM):
        async def complete(self, request):
            raise json.JSONDecodeError("hush", "", 0)

    with pytest.raises(json.JSONDecodeError):
        Foreign(handlers=[telemetry.handler]).invoke("hi")
    assert "json.decoder.JSONDecodeError" == telemetry.span.attributes["error.type"]


@pytest.mark.parametrize("streamed", [Silent(), rxllm.pipe(Silent(), rxllm.text())], ids=["model", "pipeline"])
async def test_break_ends_the_span_as_cancelled(telemetry, streamed, caplog):
    """A cancelled span has no error status, and no context stays attached."""
    closed = asyncio.Event()  # the event loop closes an abandoned iterator a little later

    def note(event):
        if isinstance(event, rxllm.Cancelled) and not event.parent_ids:
            closed.set()

    async for piece in streamed.astream("hi", handlers=[telemetry.handler, note]):
        assert "a" == str(piece)
        break
    await asyncio.wait_for(closed.wait(), PATIENCE)
    ended = telemetry.spans
    assert ended
    assert all(span.attributes["rxllm.cancelled"] is True for span in ended)
    assert {StatusCode.UNSET} == {span.status.status_code for span in ended}
    assert all("error.type" not in span.attributes for span in ended)
    assert [] == caplog.records


def test_sync_consumers_in_threads_are_independent(telemetry, caplog):
    """Each thread breaks out of its own stream, in its own context."""

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
    """The spans, once there are `count` of them: after a break, the loop closes a sync stream in the background."""
    rxllm.runtime.portal.portal()
    for _ in range(100):
        if len(telemetry.spans) >= count:
            break
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), rxllm.runtime.portal.portal()).result(PATIENCE)
    return telemetry.spans


async def test_a_cancelled_task_ends_the_span(telemetry, caplog):
    """The span ends, also if another task than the starting one closes the stream."""
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


def test_cancelled_span_keeps_the_usage_so_far(telemetry, server):
    """The chunks that had arrived set the response attributes."""
    released = Signal()
    role, first, *rest = Chat().stream(["Hel", "lo"])
    server.reply(Reply([role, first, released, *rest]))
    llm = rxllm.OpenAI("gpt-5-mini", api_key=KEY, base_url=f"{server.url}/v1", handlers=[telemetry.handler])
    with llm.stream("hi") as stream:
        chunk = next(stream)
    (span,) = ended_soon(telemetry, 1)
    released.set()
    assert (True, chunk.id) == (span.attributes["rxllm.cancelled"], span.attributes["gen_ai.response.id"])


async def test_concurrent_runs_have_separate_spans(telemetry):
    """Fifty concurrent runs are fifty traces, each with its own response."""
    pipeline = rxllm.pipe(Echo(), rxllm.text()).with_config(handlers=[telemetry.handler])
    await asyncio.gather(*[pipeline.ainvoke("abc") for _ in range(50)])
    traces = {}
    for span in telemetry.spans:
        traces.setdefault(span.context.trace_id, []).append(span)
    assert 50 == len(traces)
    assert all(inside(inner, outer) for outer, inner in traces.values())


def test_events_of_unknown_runs_are_ignored(telemetry):
    """Chunks and ends of runs without a start are ignored, as are chunks without a run."""
    run = Run("1", "Echo", "llm")
    telemetry.handler.on_event(Finished(Message("assistant"), run=run))
    telemetry.handler.on_event(rxllm.Custom("mine", run=run))
    ended = threading.Event()
    Echo()("ab").pipe(ops.do_action(on_completed=ended.set)).subscribe(telemetry.handler)
    assert ended.wait(PATIENCE)
    assert [] == telemetry.spans


async def test_handler_can_be_subscribed_to_events(telemetry):
    """`events` provides everything that the handler needs."""
    done = asyncio.Event()
    Echo().events("ab").pipe(ops.do_action(on_completed=done.set)).subscribe(telemetry.handler)
    await asyncio.wait_for(done.wait(), PATIENCE)
    assert "text_completion Echo" == telemetry.span.name


# ── metrics ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_metrics_follow_the_convention(telemetry, server):
    """Names, units and buckets: one duration and first chunk per answer, one time per further chunk, tokens by type."""
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
    """An unknown count is absent: no zero, no estimate."""
    Whole(handlers=[telemetry.handler]).invoke("hi")  # reports its input tokens only
    Echo(handlers=[telemetry.handler]).invoke("hi")
    run = Run("1", "Echo", "llm", service=rxllm.Service("echo"))
    guessed = Message("assistant", "a", usage=Usage(input_tokens=9, output_tokens=9, estimated=True))
    for event in Started("hi", run=run), Finished(guessed, run=run):
        telemetry.handler.on_event(event)
    (point,) = telemetry.metrics[TOKENS]
    assert ("input", 3) == (point.attributes["gen_ai.token.type"], point.sum)


# ── content ──────────────────────────────────────────────────────────────────────────────────────────────────────


def content(span):
    """The content attributes of a span."""
    names = ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions")
    return [json.loads(span.attributes[name]) if name in span.attributes else None for name in names]


def test_content_is_exported_on_request(open_telemetry):
    """Messages have the convention's schema, and the system instructions are separate."""
    Whole(handlers=[open_telemetry.handler]).invoke([("system", "Be kind."), ("user", "Are you?")])
    text = {"type": "text", "content": "Are you?"}
    answer = {"role": "assistant", "parts": [{"type": "text", "content": "yes"}], "finish_reason": "stop"}
    rules = [{"type": "text", "content": "Be kind."}]
    assert [[{"role": "user", "parts": [text]}], [answer], rules] == content(open_telemetry.span)


def test_every_part_has_a_schema(open_telemetry):
    """Tool arguments are parsed JSON where possible; files are reported by type and size."""
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


def test_content_of_pipelines_and_tools_is_exported_on_request(open_telemetry):
    """Any input and output is exported; values that JSON lacks appear as their repr."""
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


def test_error_texts_are_exported_on_request(open_telemetry):
    """The span has the error's text and the part of the answer that had arrived."""
    with pytest.raises(RateLimited):
        Broken(handlers=[open_telemetry.handler]).invoke("this")
    assert "too many requests such as 'this'" == open_telemetry.span.status.description
    _, ((answer),), _ = content(open_telemetry.span)
    assert [{"type": "text", "content": "a"}] == answer["parts"]


# ── construction ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_missing_extra_is_named_in_the_error(monkeypatch):
    """The constructor raises MisuseError with the command to install the extra."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MisuseError, match=r"pip install 'rxllm\[otel\]'"):
        OpenTelemetryHandler()


def test_global_providers_are_the_default(caplog):
    """Without a configured SDK the global providers do nothing."""
    caplog.set_level(logging.WARNING)
    handler = OpenTelemetryHandler()
    assert "ab" == str(Echo(handlers=[handler]).invoke("ab"))
    assert {} == handler._open
    assert [] == caplog.records


def test_bad_address_is_reported_by_the_model(telemetry, monkeypatch):
    """The model raises the error, not the handler that reads the address."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://[::1")
    llm = rxllm.OpenAI("m", api_key=KEY, handlers=[telemetry.handler])
    with pytest.raises(MisuseError):
        llm.invoke("hi")
    assert "server.address" not in telemetry.span.attributes
