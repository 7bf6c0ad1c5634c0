"""What an adapter costs: a token read by another library alone, and through the adapter, in turns.

    python tests/benchmarks/adapters.py                              all libraries that are installed, some minutes
    python tests/benchmarks/adapters.py from_openai to_pydantic_ai   some of them

The provider is a process on this machine. Its answers have 5,000 tokens, back to back, or 500 tokens, a packet each.
The figures are the CPU times of the client for a token, medians of the rounds; the ratio is the median of the rounds'
ratios. The program fails if `from_openai` adds more than a tenth to the SDK, or if a token of `to_langchain` costs more
than a fifth of one of LangChain's own model.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import rxllm
from rxllm import adapters

ROUNDS = 11
MODELS = {"burst-5000": 5_000, "paced-500-1ms": 500}
MESSAGES: Any = [{"role": "user", "content": "hi"}]

Read = Callable[[str], AsyncIterator[str]]


def through(make: Callable[[str], rxllm.LLM]) -> Read:
    """Read the texts of a model of rxllm."""

    async def read(model: str) -> AsyncIterator[str]:
        async for chunk in make(model).astream(MESSAGES):
            yield chunk.text

    return read


def from_openai(address: str) -> tuple[Read, Read]:
    """OpenAI's SDK, as in its documentation."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=f"{address}/v1", api_key="k")

    async def read(model: str) -> AsyncIterator[str]:
        usage: Any = {"include_usage": True}
        stream = await client.chat.completions.create(model=model, messages=MESSAGES, stream=True, stream_options=usage)
        async for chunk in stream:
            yield (chunk.choices[0].delta.content if chunk.choices else "") or ""

    return read, through(lambda model: adapters.from_openai(client, model, api="chat"))


def from_anthropic(address: str) -> tuple[Read, Read]:
    """Anthropic's SDK, as in its documentation."""
    from anthropic import AsyncAnthropic

    client = AsyncAnthropic(base_url=address, api_key="k")

    async def read(model: str) -> AsyncIterator[str]:
        async with client.messages.stream(model=model, messages=MESSAGES, max_tokens=9999) as stream:
            async for text in stream.text_stream:
                yield text

    return read, through(lambda model: adapters.from_anthropic(client, model, max_tokens=9999))


def _directly(make: Callable[[str], Any]) -> Read:
    """Read the texts of a model of Pydantic AI."""
    from pydantic_ai import ModelRequest
    from pydantic_ai.direct import model_request_stream

    async def read(model: str) -> AsyncIterator[str]:
        async with model_request_stream(make(model), [ModelRequest.user_text_prompt("hi")]) as stream:
            async for event in stream:
                if event.event_kind == "part_start":
                    yield getattr(event.part, "content", "")
                elif event.event_kind == "part_delta":
                    yield getattr(event.delta, "content_delta", "")

    return read


def _pydantic_models(address: str) -> Callable[[str], Any]:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=f"{address}/v1", api_key="k")
    return lambda model: OpenAIChatModel(model, provider=provider)


def from_pydantic_ai(address: str) -> tuple[Read, Read]:
    """A model of Pydantic AI, over OpenAI's SDK."""
    make = _pydantic_models(address)
    return _directly(make), through(lambda model: adapters.from_pydantic_ai(make(model)))


def to_pydantic_ai(address: str) -> tuple[Read, Read]:
    """Pydantic AI with its own model, and with a model of rxllm."""
    return _directly(_pydantic_models(address)), _directly(
        lambda model: adapters.to_pydantic_ai(rxllm.OpenAI(model, base_url=f"{address}/v1", api_key="k", api="chat"))
    )


def _chat_models(address: str) -> Callable[[str], Any]:
    from langchain_openai import ChatOpenAI

    return lambda model: ChatOpenAI(model=model, base_url=f"{address}/v1", api_key="k", stream_usage=True)  # type: ignore[arg-type]


def _astream(make: Callable[[str], Any]) -> Read:
    """Read the texts of a chat model of LangChain."""

    async def read(model: str) -> AsyncIterator[str]:
        async for chunk in make(model).astream(MESSAGES):
            yield chunk.content

    return read


def from_langchain(address: str) -> tuple[Read, Read]:
    """A chat model of LangChain, over OpenAI's SDK."""
    make = _chat_models(address)
    return _astream(make), through(lambda model: adapters.from_langchain(make(model)))


def to_langchain(address: str) -> tuple[Read, Read]:
    """LangChain with its own model, and with a model of rxllm."""
    return _astream(_chat_models(address)), _astream(
        lambda model: adapters.to_langchain(rxllm.OpenAI(model, base_url=f"{address}/v1", api_key="k", api="chat"))
    )


def _litellm(named: Callable[[str], str], **options: Any) -> Read:
    """Read the texts of LiteLLM, as in its documentation."""
    os.environ["LITELLM_OFFLINE_MODE"] = "true"  # it would look prices up
    import litellm

    async def read(model: str) -> AsyncIterator[str]:
        usage = {"include_usage": True}
        stream: Any = await litellm.acompletion(
            named(model), messages=MESSAGES, stream=True, stream_options=usage, **options
        )
        async for chunk in stream:
            yield (chunk.choices[0].delta.content if chunk.choices else "") or ""

    return read


def from_litellm(address: str) -> tuple[Read, Read]:
    """LiteLLM, over OpenAI's SDK."""
    place = {"api_base": f"{address}/v1", "api_key": "k"}
    own = _litellm(lambda model: f"openai/{model}", **place)
    return own, through(lambda model: adapters.from_litellm(f"openai/{model}", **place))


def to_litellm(address: str) -> tuple[Read, Read]:
    """LiteLLM with its own model, and with a model of rxllm."""
    for model in MODELS:
        adapters.to_litellm(rxllm.OpenAI(model, base_url=f"{address}/v1", api_key="k", api="chat"), model)
    own = _litellm(lambda model: f"openai/{model}", api_base=f"{address}/v1", api_key="k")
    return own, _litellm(lambda model: f"{model}/rxllm")


LIBRARIES = {
    "from_openai": ("openai", from_openai),
    "from_anthropic": ("anthropic", from_anthropic),
    "from_pydantic_ai": ("pydantic-ai-slim", from_pydantic_ai),
    "to_pydantic_ai": ("pydantic-ai-slim", to_pydantic_ai),
    "from_langchain": ("langchain-openai", from_langchain),
    "to_langchain": ("langchain-openai", to_langchain),
    "from_litellm": ("litellm", from_litellm),
    "to_litellm": ("litellm", to_litellm),
}
LIMITS = {"from_openai": 1.1, "to_langchain": 0.2}  # how many times a token back to back may cost


async def spent(read: Read, model: str, tokens: int) -> float:
    """Return the microseconds of CPU for one token."""
    begin, count = time.process_time(), 0
    async for text in read(model):
        count += bool(text)
    await asyncio.sleep(0.2)  # LiteLLM adds the answer up and logs it after its end
    cost = time.process_time() - begin
    if count != tokens:
        raise SystemExit(f"{model} gave {count} tokens.")
    return cost / tokens * 1e6


async def measured(address: str, names: list[str]) -> list[str]:
    """Print the figures, and return the adapters that cost more than they may."""
    dear: list[str] = []
    for name in names:
        try:
            library, make = LIBRARIES[name]
            alone, adapted = make(address)
        except ImportError:
            print(f"{library} is not installed")
            continue
        for model, tokens in MODELS.items():
            rounds = [
                (await spent(alone, model, tokens), await spent(adapted, model, tokens)) for _ in range(ROUNDS + 1)
            ][1:]
            before, after = (median(each) for each in zip(*rounds, strict=True))
            ratio = median(two / one for one, two in rounds)
            print(
                f"{name:16} {version(library):8} {model:14} {before:7.1f} {after:7.1f} µs a token, {ratio:5.2f} times"
            )
            if ratio > LIMITS.get(name, ratio) and model == "burst-5000":
                dear.append(name)
    return dear


def main(names: list[str]) -> None:
    """Start the provider in another process, and measure."""
    command = [sys.executable, str(Path(__file__).with_name("provider.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            port = (server.stdout or sys.stdin).readline().strip()
            dear = asyncio.run(measured(f"http://127.0.0.1:{port}", names))
        finally:
            (server.stdin or sys.stdout).close()
    if dear:
        raise SystemExit(f"{', '.join(dear)} costs more than it may: {LIMITS}.")


if __name__ == "__main__":
    main(sys.argv[1:] or [*LIBRARIES])
