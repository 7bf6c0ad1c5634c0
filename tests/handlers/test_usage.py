"""The meter of tokens: by model, whatever the end, and what they cost."""

import asyncio
import subprocess
import sys
import threading
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from attrs import frozen
from protocols import Chat

import rxllm
from rxllm import (
    LLM,
    Chunk,
    Finished,
    Interrupted,
    Message,
    MisuseError,
    RateLimited,
    Run,
    Service,
    Usage,
    UsageMeter,
)
from rxllm.handlers import usage as meters
from rxllm.testing import FakeServer, Reply

PATIENCE = 5.0  # seconds for what comes at once
TOKENS = Usage(input_tokens=1_000_000, output_tokens=100_000)


class Counted(LLM):
    """Tells its model and tokens, and fails or waits where it is asked to."""

    async def chunks(self, request):
        """Two chunks."""
        yield Chunk("a", model=f"m-{request.text}", usage=Usage(input_tokens=3))
        if request.text == "wait":
            await asyncio.Event().wait()
        yield Chunk("b", usage=Usage(output_tokens=2))
        if request.text == "fail":
            raise Interrupted("no")


@frozen
class Priced(LLM):
    """Answers as another's model, from another's address."""

    tokens: Usage | None = TOKENS
    model: str = "gpt-4o-mini"
    provider: str = "openai"
    address: str | None = None

    async def complete(self, request):
        """A Message, unless it is refused."""
        if request.text == "refuse":
            raise RateLimited("no", status=429)
        if request.text == "break":
            raise Interrupted("no")
        return Message("assistant", "a", usage=self.tokens, model=self.model)

    def service(self, request):
        """Who it says it is."""
        return Service(self.provider, self.model, self.address)


def metered(*llms, prompt="x"):
    """A meter that has heard these models."""
    meter = UsageMeter()
    for llm in llms:
        llm.with_config(handlers=[meter]).batch([prompt], return_exceptions=True)
    return meter


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tokens_are_added_up_by_model():
    """Those of all answers, streamed or not."""
    meter = UsageMeter()
    Counted(handlers=[meter]).batch(["x", "x", "y"])
    assert {"m-x": Usage(input_tokens=6, output_tokens=4), "m-y": Usage(input_tokens=3, output_tokens=2)} == meter.usage
    assert (3, Usage(input_tokens=9, output_tokens=6)) == (meter.requests, meter.total)


def test_what_failed_counts():
    """With what had arrived."""
    meter = UsageMeter()
    llm = Counted(handlers=[meter])
    with pytest.raises(Interrupted):
        llm.invoke("fail")
    assert {"m-fail": Usage(input_tokens=3, output_tokens=2)} == meter.usage
    assert 1 == meter.requests


async def test_what_was_left_counts():
    """With what had arrived, in a pipeline as well, which is no request of its own; what nobody told is guessed."""
    meter = UsageMeter()
    async with rxllm.pipe(Counted(), rxllm.text()).with_config(handlers=[meter]).astream("wait") as stream:
        await anext(stream)
    assert {"m-wait": Usage(input_tokens=3, output_tokens=1, estimated=True)} == meter.usage
    assert 1 == meter.requests


def test_nothing_was_used_where_nothing_ran():
    """The total is no count at all."""
    assert ({}, Usage(), 0) == (UsageMeter().usage, UsageMeter().total, UsageMeter().requests)


def test_many_threads_are_counted_together():
    """On loops of their own and on the portal, while others read."""
    meter = UsageMeter()
    llm = Counted(handlers=[meter])
    begin = threading.Barrier(5)

    def batch(ask):
        begin.wait(PATIENCE)
        ask()
        assert meter.cost is None

    ways = [lambda: asyncio.run(llm.abatch(["x"] * 50))] * 2 + [lambda: llm.batch(["x"] * 50)] * 2
    threads = [threading.Thread(target=batch, args=(way,)) for way in ways]
    for thread in threads:
        thread.start()
    begin.wait(PATIENCE)
    for thread in threads:
        thread.join(PATIENCE)
    assert (200, {"m-x": Usage(input_tokens=600, output_tokens=400)}) == (meter.requests, meter.usage)
    assert {"m-x": 200} == meter.unpriced


# ── cost ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_cost_is_that_of_all_models():
    """A million tokens in and a tenth of it out, by prices that have long been the same."""
    meter = metered(Priced(), Priced(), Priced(model="gpt-4o"))
    assert {"gpt-4o-mini": Decimal("0.42"), "gpt-4o": Decimal("3.5")} == meter.costs
    assert Decimal("3.92") == meter.cost
    assert {} == meter.unpriced


def test_nothing_cost_nothing():
    """Where nothing ran."""
    assert (Decimal(0), {}, {}) == (UsageMeter().cost, UsageMeter().costs, UsageMeter().unpriced)


def test_what_has_no_price_is_told():
    """It is no part of the cost; and a cost of which nothing is known is None."""
    meter = metered(Priced(), Priced(model="mine"), Priced(model="mine"))
    assert (Decimal("0.21"), {"mine": 2}) == (meter.cost, meter.unpriced)
    meter = metered(Priced(model="mine"))
    assert (None, {}, {"mine": 1}) == (meter.cost, meter.costs, meter.unpriced)


@pytest.mark.parametrize(
    "tokens",
    [
        None,
        Usage(input_tokens=1),
        Usage(output_tokens=1),
        Usage(input_tokens=1, output_tokens=1, estimated=True),
        Usage(input_tokens=1, output_tokens=1, cache_read_input_tokens=2),
    ],
    ids=["none", "input", "output", "estimated", "absurd"],
)
def test_what_was_not_counted_has_no_price(tokens):
    """Half of it would look like all of it."""
    meter = metered(Priced(), Priced(tokens))
    assert (Decimal("0.21"), {"gpt-4o-mini": 1}) == (meter.cost, meter.unpriced)


def test_what_was_refused_cost_nothing():
    """And what broke before anything came may have: that is not known."""
    assert ({}, Decimal(0)) == (metered(Priced(), prompt="refuse").unpriced, metered(Priced(), prompt="refuse").cost)
    assert ({"gpt-4o-mini": 1}, None) == (
        metered(Priced(), prompt="break").unpriced,
        metered(Priced(), prompt="break").cost,
    )


def test_cached_tokens_have_prices_of_their_own():
    """The input includes them, whoever the provider is."""
    cached = Usage(input_tokens=1_000_000, output_tokens=0, cache_read_input_tokens=1_000_000)
    assert Decimal("0.075") == metered(Priced(cached)).cost
    claude = Priced(cached, model="claude-3-5-haiku-latest", provider="anthropic")
    assert Decimal("0.08") == metered(claude).cost
    written = Usage(input_tokens=1_000_000, output_tokens=0, cache_creation_input_tokens=1_000_000)
    claude = Priced(written, model="claude-3-5-haiku-latest", provider="anthropic")
    assert Decimal("1.00") == metered(claude).cost


def test_each_answer_has_the_price_of_its_size():
    """Two short ones do not cost what a long one does, where long ones are dearer."""
    gemini = Priced(Usage(input_tokens=150_000, output_tokens=0), model="gemini-2.5-pro", provider="google")
    twice = Priced(Usage(input_tokens=300_000, output_tokens=0), model="gemini-2.5-pro", provider="google")
    assert 2 * metered(gemini).cost == metered(gemini, gemini).cost < metered(twice).cost


def test_each_answer_has_the_price_of_its_day():
    """However late the cost is asked for: this model has become cheaper."""
    run = Run("1", "m", "llm", service=Service("openai", "o3"))
    message = Message("assistant", "a", usage=Usage(input_tokens=1_000_000, output_tokens=0), model="o3")
    costs = []
    for day in datetime(2025, 5, 1, tzinfo=UTC), datetime(2025, 7, 1, tzinfo=UTC):
        meter = UsageMeter()
        meter.on_next(Finished(message, run=run, time=day.timestamp()))
        costs.append(meter.cost)
    assert [Decimal(10), Decimal(2)] == costs


def test_prices_are_those_of_who_is_at_the_address():
    """Who speaks another's protocol has prices of his own, or none; an address of nobody's counts as the protocol's."""
    groq = Priced(model="llama-3.3-70b-versatile", address="api.groq.com")
    assert metered(groq).cost > 0
    assert {"gpt-4o-mini": 1} == metered(Priced(address="api.groq.com")).unpriced
    assert Decimal("0.21") == metered(Priced(address="gateway.example")).cost


def test_a_provider_over_http_has_a_price():
    """By the tokens that it tells at the end of its stream."""
    chat = Chat(model="gpt-4o-mini")
    meter = UsageMeter()
    with FakeServer(Reply(chat.stream(["He", "llo"], usage=(1_000_000, 100_000)))) as server:
        rxllm.OpenAI("gpt-4o-mini", base_url=f"{server.url}/v1", handlers=[meter]).invoke("Hi")
    assert Decimal("0.21") == meter.cost


def test_the_meter_keeps_few_answers(monkeypatch):
    """However many there are, and whoever asks for the cost: they are reckoned by the hundreds."""
    monkeypatch.setattr(meters, "_KEEP", 10)
    meter = metered(*[Priced()] * 25)
    assert 5 == len(meter._answers)
    assert 25 * Decimal("0.21") == meter.cost
    assert 0 == len(meter._answers)


def test_prices_are_loaded_when_they_are_asked_for():
    """And neither by the meter nor by what it hears; nor is anything fetched."""
    program = """
import sys, rxllm
meter = rxllm.UsageMeter()
rxllm.Embedded(handlers=[meter]).invoke("x")
assert "genai_prices" not in sys.modules
sys.addaudithook(lambda event, _: event.startswith("socket.connect") and 1 / 0)
print(meter.cost, meter.unpriced)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith("None {")


def test_without_prices_a_sentence_says_what_to_install(monkeypatch):
    """When the cost is asked for; tokens are counted all the same, and nothing is kept."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    meter = metered(Priced())
    assert (TOKENS, []) == (meter.total, meter._answers)
    for asked in "cost", "costs", "unpriced":
        with pytest.raises(MisuseError, match=r"pip install 'rxllm\[prices\]'"):
            getattr(meter, asked)
