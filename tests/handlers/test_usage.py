"""`UsageMeter`: tokens by model, for every kind of end, and their cost."""

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

PATIENCE = 30.0  # seconds; a limit for steps that take milliseconds
TOKENS = Usage(input_tokens=1_000_000, output_tokens=100_000)


class Counted(LLM):
    """Reports its model and tokens; fails or waits if the prompt says so."""

    async def chunks(self, request):
        """Yield two chunks."""
        yield Chunk("a", model=f"m-{request.text}", usage=Usage(input_tokens=3))
        if request.text == "wait":
            await asyncio.Event().wait()
        yield Chunk("b", usage=Usage(output_tokens=2))
        if request.text == "fail":
            raise Interrupted("no")


@frozen
class Priced(LLM):
    """Answers as another model, from another address."""

    tokens: Usage | None = TOKENS
    model: str = "gpt-4o-mini"
    provider: str = "openai"
    address: str | None = None

    async def complete(self, request):
        """Return a Message, or raise."""
        if request.text == "refuse":
            raise RateLimited("no", status=429)
        if request.text == "break":
            raise Interrupted("no")
        return Message("assistant", "a", usage=self.tokens, model=self.model)

    def service(self, request):
        """Return the configured service."""
        return Service(self.provider, self.model, self.address)


def metered(*llms, prompt="x"):
    """Return a meter that has received one run of each model."""
    meter = UsageMeter()
    for llm in llms:
        llm.with_config(handlers=[meter]).batch([prompt], return_exceptions=True)
    return meter


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tokens_are_added_up_by_model():
    """Streamed and whole answers are added up."""
    meter = UsageMeter()
    Counted(handlers=[meter]).batch(["x", "x", "y"])
    assert {"m-x": Usage(input_tokens=6, output_tokens=4), "m-y": Usage(input_tokens=3, output_tokens=2)} == meter.usage
    assert (3, Usage(input_tokens=9, output_tokens=6)) == (meter.requests, meter.total)


def test_failed_answers_count():
    """The usage that had arrived is added."""
    meter = UsageMeter()
    llm = Counted(handlers=[meter])
    with pytest.raises(Interrupted):
        llm.invoke("fail")
    assert {"m-fail": Usage(input_tokens=3, output_tokens=2)} == meter.usage
    assert 1 == meter.requests


async def test_cancelled_answers_count():
    """The usage that had arrived is added; missing usage is estimated. A pipeline is not a request of its own."""
    meter = UsageMeter()
    async with rxllm.pipe(Counted(), rxllm.text()).with_config(handlers=[meter]).astream("wait") as stream:
        await anext(stream)
    assert {"m-wait": Usage(input_tokens=3, output_tokens=1, estimated=True)} == meter.usage
    assert 1 == meter.requests


def test_total_without_runs_is_empty():
    """Every count is unknown."""
    assert ({}, Usage(), 0) == (UsageMeter().usage, UsageMeter().total, UsageMeter().requests)


def test_runs_in_several_threads_are_counted_together():
    """Runs on several event loops and on the portal are added while another thread reads."""
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


def test_cost_is_the_sum_of_all_models():
    """A million input and a hundred thousand output tokens, by long-stable prices."""
    meter = metered(Priced(), Priced(), Priced(model="gpt-4o"))
    assert {"gpt-4o-mini": Decimal("0.42"), "gpt-4o": Decimal("3.5")} == meter.costs
    assert Decimal("3.92") == meter.cost
    assert {} == meter.unpriced


def test_no_runs_cost_nothing():
    """The cost is zero."""
    assert (Decimal(0), {}, {}) == (UsageMeter().cost, UsageMeter().costs, UsageMeter().unpriced)


def test_answers_without_a_price_are_counted():
    """`unpriced` counts them; the cost is None if no answer has a price."""
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
def test_incomplete_token_counts_have_no_price(tokens):
    """A partial cost would look like the whole cost."""
    meter = metered(Priced(), Priced(tokens))
    assert (Decimal("0.21"), {"gpt-4o-mini": 1}) == (meter.cost, meter.unpriced)


def test_refused_requests_cost_nothing():
    """A request that broke before its first chunk has an unknown cost."""
    assert ({}, Decimal(0)) == (metered(Priced(), prompt="refuse").unpriced, metered(Priced(), prompt="refuse").cost)
    assert ({"gpt-4o-mini": 1}, None) == (
        metered(Priced(), prompt="break").unpriced,
        metered(Priced(), prompt="break").cost,
    )


def test_cached_tokens_have_prices_of_their_own():
    """The input count includes cached tokens for every provider, and each kind has its own price."""
    cached = Usage(input_tokens=1_000_000, output_tokens=0, cache_read_input_tokens=1_000_000)
    assert Decimal("0.075") == metered(Priced(cached)).cost
    claude = Priced(cached, model="claude-3-5-haiku-latest", provider="anthropic")
    assert Decimal("0.08") == metered(claude).cost
    written = Usage(input_tokens=1_000_000, output_tokens=0, cache_creation_input_tokens=1_000_000)
    claude = Priced(written, model="claude-3-5-haiku-latest", provider="anthropic")
    assert Decimal("1.00") == metered(claude).cost


def test_price_depends_on_the_answers_size():
    """Two short answers cost less than one long answer where long ones have a higher price."""
    gemini = Priced(Usage(input_tokens=150_000, output_tokens=0), model="gemini-2.5-pro", provider="google")
    twice = Priced(Usage(input_tokens=300_000, output_tokens=0), model="gemini-2.5-pro", provider="google")
    assert 2 * metered(gemini).cost == metered(gemini, gemini).cost < metered(twice).cost


def test_price_depends_on_the_answers_day():
    """The day of the answer counts, not the day of the calculation: this model's price has dropped."""
    run = Run("1", "m", "llm", service=Service("openai", "o3"))
    message = Message("assistant", "a", usage=Usage(input_tokens=1_000_000, output_tokens=0), model="o3")
    costs = []
    for day in datetime(2025, 5, 1, tzinfo=UTC), datetime(2025, 7, 1, tzinfo=UTC):
        meter = UsageMeter()
        meter.on_next(Finished(message, run=run, time=day.timestamp()))
        costs.append(meter.cost)
    assert [Decimal(10), Decimal(2)] == costs


def test_address_determines_the_price_list():
    """Another vendor's server has its own prices, or none; an unknown address has those of the protocol's vendor."""
    groq = Priced(model="llama-3.3-70b-versatile", address="api.groq.com")
    assert metered(groq).cost > 0
    assert {"gpt-4o-mini": 1} == metered(Priced(address="api.groq.com")).unpriced
    assert Decimal("0.21") == metered(Priced(address="gateway.example")).cost


def test_provider_over_http_has_a_price():
    """The usage at the end of the stream is priced."""
    chat = Chat(model="gpt-4o-mini")
    meter = UsageMeter()
    with FakeServer(Reply(chat.stream(["He", "llo"], usage=(1_000_000, 100_000)))) as server:
        rxllm.OpenAI("gpt-4o-mini", base_url=f"{server.url}/v1", handlers=[meter]).invoke("Hi")
    assert Decimal("0.21") == meter.cost


def test_meter_keeps_a_bounded_number_of_answers(monkeypatch):
    """Unpriced answers are priced in batches, even if the cost is never read."""
    monkeypatch.setattr(meters, "_MAX_UNPRICED", 10)
    meter = metered(*[Priced()] * 25)
    assert 5 == len(meter._answers)
    assert 25 * Decimal("0.21") == meter.cost
    assert 0 == len(meter._answers)


def test_prices_are_loaded_on_first_use():
    """Neither the meter nor its events import the price list, and nothing is fetched."""
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


def test_missing_prices_package_is_named_in_the_error(monkeypatch):
    """Reading the cost raises MisuseError; tokens are still counted, and no answer is kept."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    meter = metered(Priced())
    assert (TOKENS, []) == (meter.total, meter._answers)
    for asked in "cost", "costs", "unpriced":
        with pytest.raises(MisuseError, match=r"pip install 'rxllm\[prices\]'"):
            getattr(meter, asked)
