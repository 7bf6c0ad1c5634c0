"""Pickling: objects that may leave the process, and the state that a copy shares with its original."""

import copy
import multiprocessing
import pickle

import attrs
import httpx
import pytest
from attrs import frozen
from reactivex import operators as ops

import rxllm
from rxllm import Chunk, Message, MisuseError, Request, Run, Usage, errors
from rxllm.testing import FakeServer

KEY = "sk-canary-0123456789"


def outline(topic):
    """A template."""
    return f"About {topic}."


def choose(request):
    """For `route`."""
    return rxllm.Embedded(seed=1)


def keep(source):
    """An operator of one's own, in a module."""
    return source.pipe(ops.map(str))


def total(values):
    """For `stage`."""
    return len(values)


def make_client():
    """For ``client=``."""
    return httpx.AsyncClient()


@frozen
class Parrot(rxllm.LLM):
    """A provider of one's own."""

    url: str

    async def complete(self, request):
        """The prompt."""
        return request.text


class Plain(rxllm.LLM):
    """A plain class with attributes of its own."""

    def __init__(self, url):
        super().__init__()
        self.url = url
        self.seen = []

    async def complete(self, request):
        """The prompt."""
        return request.text


EMBEDDED = rxllm.Embedded(seed=1, temperature=0.5, tags=["a"], metadata={"b": 1})
STAGES = {
    "embedded": EMBEDDED,
    "one's own": Parrot("u"),
    "openai": rxllm.OpenAI("m", temperature=0),
    "openai with a maker of clients": rxllm.OpenAI("m", client=make_client, headers={"x-team": "a"}),
    "anthropic": rxllm.Anthropic("m", timeout=5),
    "retry": rxllm.retry(EMBEDDED),
    "retry with a backoff": rxllm.retry(EMBEDDED, 5, delay=rxllm.backoff(1, 2)),
    "fallback": rxllm.fallback(EMBEDDED, Parrot("u")),
    "hedge": rxllm.hedge(EMBEDDED, Parrot("u"), after=1),
    "route": rxllm.route(choose),
    "tool": rxllm.tool(outline),
    "pipe": rxllm.pipe(outline, EMBEDDED, rxllm.text()),
    "pipe of a pipe": rxllm.pipe(outline, rxllm.pipe(rxllm.retry(EMBEDDED), rxllm.lines()), keep),
    "retry of a pipe": rxllm.retry(rxllm.pipe(EMBEDDED, rxllm.text())),
    "operators": rxllm.pipe(
        EMBEDDED,
        rxllm.split_reasoning(),
        rxllm.stop_at("x", "y"),
        rxllm.idle_timeout(9),
        rxllm.smooth(0.001),
        rxllm.share(),
        rxllm.snapshots(),
        rxllm.stage(keep, adds_up=total),
    ),
    "batch": rxllm.pipe(keep, rxllm.batch(EMBEDDED, max_concurrency=3)),
}


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES.keys())
@pytest.mark.parametrize("round_trip", [lambda s: pickle.loads(pickle.dumps(s)), copy.copy, copy.deepcopy])  # noqa: S301
def test_a_stage_is_the_same_after_a_round_trip(stage, round_trip):
    """Equal, and shown equally."""
    assert stage == round_trip(stage)
    assert repr(stage) == repr(round_trip(stage))


def test_a_view_is_pickled():
    """Alone, and with the model that has it."""
    view = rxllm.trim(50)
    history = (Message("user", "x" * 400), Message("assistant", "ok"), Message("user", "hi"))
    twin = pickle.loads(pickle.dumps(view))  # noqa: S301
    assert view(history) == twin(history) != history
    assert pickle.dumps(rxllm.remember(EMBEDDED, rxllm.Conversation(), view=view))


def ask(stage):
    """In the other process."""
    return stage.invoke("tea")


@pytest.mark.parametrize("name", ["embedded", "one's own", "pipe", "retry of a pipe", "fallback"])
def test_a_stage_answers_in_another_process(name):
    """The same, since it has the same seed."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(ask, (STAGES[name],))
    assert str(ask(STAGES[name])) == str(there)


def test_cached_is_pickled_with_what_its_store_has():
    """And asks no model for it again."""
    llm = rxllm.cached(EMBEDDED, rxllm.MemoryStore(size=3), name="e")
    answer = llm.invoke("tea")
    for twin in pickle.loads(pickle.dumps(llm)), copy.copy(llm), copy.deepcopy(llm):  # noqa: S301
        runs = []
        assert answer == twin.invoke("tea", handlers=[runs.append])
        assert {"cached"} == {event.name for event in runs}


@pytest.mark.parametrize("wrap", [lambda llm: llm, rxllm.retry, lambda llm: rxllm.pipe(llm, rxllm.text())])
@pytest.mark.parametrize(
    ("kind", "variable", "header"),
    [
        (rxllm.OpenAI, "OPENAI_API_KEY", "authorization"),
        (rxllm.Anthropic, "ANTHROPIC_API_KEY", "x-api-key"),
    ],
)
def test_a_key_is_not_pickled(kind, variable, header, wrap, monkeypatch):
    """After loading the environment variable counts; without one a sentence says what to do."""
    with FakeServer() as server:
        llm = kind("m", api_key=KEY, base_url=server.url, max_retries=0)
        written = pickle.dumps(wrap(llm))
        assert KEY.encode() not in written
        loaded = pickle.loads(pickle.dumps(pickle.loads(written)))  # noqa: S301
        with pytest.raises(MisuseError, match=r"was unpickled, and .* Set the environment variable"):
            loaded.invoke("x")
        assert 0 == len(server.requests)
        monkeypatch.setenv(variable, "sk-of-here")
        with pytest.raises(rxllm.RxllmError):
            loaded.invoke("x")
        assert "sk-of-here" in server.requests[-1].headers[header]
        again = attrs.evolve(pickle.loads(pickle.dumps(llm)), api_key="sk-other")  # noqa: S301
        with pytest.raises(rxllm.RxllmError):
            again.invoke("x")
        assert "sk-other" in server.requests[-1].headers[header]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"headers": {"Authorization": "Bearer " + KEY}}, "its header 'Authorization' is a secret"),
        ({"headers": {"x-goog-api-key": KEY}}, "its header 'x-goog-api-key' is a secret"),
        ({"base_url": f"https://user:{KEY}@host/v1"}, "its base_url contains a password"),
    ],
)
def test_a_secret_that_no_environment_has_is_told(given, sentence):
    """When the model is pickled, without the secret."""
    with pytest.raises(MisuseError, match=sentence) as caught:
        pickle.dumps(rxllm.pipe(rxllm.OpenAI("m", **given), rxllm.text()))
    assert KEY not in str(caught.value)


async def test_a_client_is_not_pickled_and_is_shared_by_copies():
    """Its connections belong to this process."""
    async with httpx.AsyncClient() as client:
        llm = rxllm.OpenAI("m", api_key=KEY, client=client)
        with pytest.raises(MisuseError, match="the connections of its client= belong to this process"):
            pickle.dumps(llm)
        assert client is copy.deepcopy(rxllm.retry(llm)).of[0].client is copy.copy(llm).client
        assert KEY == copy.deepcopy(llm).api_key == copy.copy(llm).api_key


def test_copies_share_the_limiter_and_the_handlers():
    """A limit is that of a server, and a handler listens to the copy, too."""
    limiter, heard = rxllm.Limiter(concurrency=2), []
    meter = rxllm.UsageMeter()
    llm = rxllm.observe(rxllm.limited(EMBEDDED, limiter), heard.append, meter)
    for twin in copy.copy(llm), copy.deepcopy(llm):
        assert limiter is twin.how.limiter
        twin.invoke("tea")
    assert (2, 2) == (
        len([event for event in heard if isinstance(event, rxllm.Finished) and not event.parent_ids]),
        meter.requests,
    )
    assert limiter is copy.copy(limiter) is copy.deepcopy(limiter)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (rxllm.Limiter(concurrency=2), r"A Limiter cannot be pickled, .*Limiter\(concurrency=2\)"),
        (rxllm.UsageMeter(), "A UsageMeter cannot be pickled"),
        (rxllm.StdoutHandler(), "A StdoutHandler cannot be pickled"),
    ],
)
def test_what_belongs_to_a_process_is_told(value, sentence):
    """By itself, and within a model."""
    held = rxllm.limited(EMBEDDED, value) if isinstance(value, rxllm.Limiter) else rxllm.observe(EMBEDDED, value)
    for written in value, held:
        with pytest.raises(MisuseError, match=sentence):
            pickle.dumps(written)


def test_a_deep_copy_has_attributes_of_its_own():
    """Also those that are not fields."""
    llm = Plain("u")
    deep, shallow = copy.deepcopy(llm), copy.copy(llm)
    llm.seen.append(1)
    assert ([], [1], "u") == (deep.seen, shallow.seen, deep.url)


RUN = Run("1", "a", "llm")
VALUES = [
    Chunk("a"),
    Chunk(
        parts=[rxllm.ToolCallPart("1", "f", "{}"), rxllm.TextPart("b")],
        usage=Usage(input_tokens=1),
        finish_reason="stop",
    ),
    Message("assistant", [rxllm.TextPart("a"), rxllm.FilePart("image/png", data=b"x")], usage=Usage(output_tokens=1)),
    Usage(input_tokens=1, estimated=True),
    Request(prompt="x", temperature=1, extra={"a": [1]}),
    Request(prompt=[("user", "x")]),
    rxllm.Parameters(tools=[{"a": 1}]),
    rxllm.RawPart("p", {"a": 1}),
    rxllm.Timeouts(idle=3),
    RUN,
    rxllm.Started(Request(prompt="x"), run=RUN),
    rxllm.Finished(Message("assistant", "x"), run=RUN),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("round_trip", [lambda v: pickle.loads(pickle.dumps(v)), copy.copy, copy.deepcopy])  # noqa: S301
def test_values_are_the_same_after_a_round_trip(value, round_trip):
    """Equal, and of the same class."""
    assert (value, type(value)) == (round_trip(value), type(round_trip(value)))


ARGUMENTS = {
    "ProtocolError": {"frame": b"f"},
    "ParseError": {"text": "t", "shape": int},
    "ProviderError": {"status": 400, "body": "b", "retry_after": 1.0, "code": "c"},
}


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name != "MisuseError"])
@pytest.mark.parametrize("round_trip", [lambda v: pickle.loads(pickle.dumps(v)), copy.copy, copy.deepcopy])  # noqa: S301
def test_errors_keep_their_facts(name, round_trip):
    """Also one that a handler of this process has heard of."""
    kind = getattr(errors, name)
    error = kind(
        "no", **next((given for base, given in ARGUMENTS.items() if issubclass(kind, getattr(errors, base))), {})
    )
    error.request, error.partial = Request(prompt="x"), Message("assistant", "a")
    error.add_note("seen")
    rxllm.StdoutHandler().on_next(rxllm.Failed(error, run=RUN))
    loaded = round_trip(error)
    told = {name: value for name, value in vars(error).items() if not name.startswith("_rxllm_")}
    assert (kind, "no", told) == (type(loaded), str(loaded), vars(loaded))
