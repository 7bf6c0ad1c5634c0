"""The measured clients: functions that take the provider's address, make a client, and return `read`.

``read(model, emit)`` asks the model in the way of the client's documentation, and calls `emit` with each piece of text.
It is a coroutine function, or a plain function if the client blocks. A client ends with its process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import cache
from typing import Any

Emit = Callable[[str], object]
Read = Callable[[str, Emit], Any]

PROMPT = "Write me a song about sparkling water."
MESSAGES: Any = [{"role": "user", "content": PROMPT}]
MAPS = (str, str.swapcase, str.swapcase)  # together they do not change the text


def _streaming(address: str) -> Callable[[str], AsyncIterator[list[str]]]:
    """The minimal streaming client: no checks, events or errors. It yields the pieces of one network read together."""
    import httpx
    import msgspec
    from httpx_aiohttp import AiohttpTransport

    delta = msgspec.defstruct("Delta", [("content", str, "")])
    choice = msgspec.defstruct("Choice", [("delta", delta)])
    frame = msgspec.defstruct("Frame", [("choices", list[choice])])  # type: ignore[valid-type]
    decode = msgspec.json.Decoder(frame).decode
    limits = httpx.Limits(max_connections=0)  # means no limit to aiohttp; None would mean its default of 100
    client = httpx.AsyncClient(transport=AiohttpTransport(limits=limits, trust_env=False), timeout=60)

    async def stream(model: str) -> AsyncIterator[list[str]]:
        question = {"model": model, "messages": MESSAGES, "stream": True}
        rest = b""
        async with client.stream("POST", f"{address}/v1/chat/completions", json=question) as response:
            async for data in response.aiter_raw():
                *events, rest = (rest + data).split(b"\n\n")
                frames = [decode(event[6:]) for event in events if event != b"data: [DONE]"]
                yield [piece for frame in frames if frame.choices and (piece := frame.choices[0].delta.content)]

    return stream


def floor(address: str) -> Read:
    """The minimal streaming client, over the libraries that rxllm uses."""
    stream = _streaming(address)

    async def read(model: str, emit: Emit) -> None:
        async for pieces in stream(model):
            for piece in pieces:
                emit(piece)

    return read


def floor_mapped(address: str) -> Read:
    """The floor through three chained async generators."""
    stream = _streaming(address)

    async def source(model: str) -> AsyncIterator[str]:
        async for pieces in stream(model):
            for piece in pieces:
                yield piece

    async def mapped(function: Callable[[str], str], pieces: AsyncIterator[str]) -> AsyncIterator[str]:
        async for piece in pieces:
            yield function(piece)

    async def read(model: str, emit: Emit) -> None:
        pieces = source(model)
        for function in MAPS:
            pieces = mapped(function, pieces)
        async for piece in pieces:
            emit(piece)

    return read


def rxllm(address: str) -> Read:
    """Reads chunks by ``async for``."""
    import rxllm

    llm = rxllm.OpenAI("any", base_url=f"{address}/v1", api_key="none")

    async def read(model: str, emit: Emit) -> None:
        async for chunk in llm.astream(PROMPT, model=model):
            if chunk.text:
                emit(chunk.text)

    return read


def rxllm_mapped(address: str) -> Read:
    """Reads the chunks through three ``ops.map`` by ``async for``."""
    from reactivex import operators as ops

    import rxllm

    llm = rxllm.OpenAI("any", base_url=f"{address}/v1", api_key="none")
    mapped = rxllm.pipe(llm, *(ops.map(function) for function in MAPS))

    async def read(model: str, emit: Emit) -> None:
        async for piece in mapped.astream(PROMPT, model=model):
            if piece:
                emit(piece)

    return read


def rxllm_handler(address: str) -> Read:
    """Reads chunks by ``async for``, with a handler."""
    import rxllm

    llm = rxllm.OpenAI("any", base_url=f"{address}/v1", api_key="none", handlers=[lambda event: None])

    async def read(model: str, emit: Emit) -> None:
        async for chunk in llm.astream(PROMPT, model=model):
            if chunk.text:
                emit(chunk.text)

    return read


def rxllm_events(address: str) -> Read:
    """Reads typed events by ``async for``."""
    import rxllm

    llm = rxllm.OpenAI("any", base_url=f"{address}/v1", api_key="none")

    async def read(model: str, emit: Emit) -> None:
        async for event in llm.events(PROMPT, model=model).pipe(rxllm.astream()):
            if isinstance(event, rxllm.RunChunk) and event.text:
                emit(event.text)

    return read


def rxllm_dicts(address: str) -> Read:
    """Reads ``astream_events``."""
    import rxllm

    llm = rxllm.OpenAI("any", base_url=f"{address}/v1", api_key="none")

    async def read(model: str, emit: Emit) -> None:
        async for event in llm.astream_events(PROMPT, model=model):
            if event["event"] == "on_chat_model_stream" and event["data"]["chunk"].text:
                emit(event["data"]["chunk"].text)

    return read


def rxllm_sync(address: str) -> Read:
    """Reads chunks by ``for``."""
    import rxllm

    llm = rxllm.OpenAI("any", base_url=f"{address}/v1", api_key="none")

    def read(model: str, emit: Emit) -> None:
        for chunk in llm.stream(PROMPT, model=model):
            if chunk.text:
                emit(chunk.text)

    return read


def openai(address: str) -> Read:
    """OpenAI's own package."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)

    async def read(model: str, emit: Emit) -> None:
        async for chunk in await client.chat.completions.create(model=model, messages=MESSAGES, stream=True):
            if chunk.choices and (piece := chunk.choices[0].delta.content):
                emit(piece)

    return read


def anthropic(address: str) -> Read:
    """Anthropic's own package, over Anthropic's protocol."""
    from anthropic import AsyncAnthropic

    client = AsyncAnthropic(base_url=address, api_key="none", max_retries=0)

    async def read(model: str, emit: Emit) -> None:
        async for event in await client.messages.create(model=model, messages=MESSAGES, max_tokens=1, stream=True):
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                emit(event.delta.text)

    return read


def langchain(address: str) -> Read:
    """LangChain's package for OpenAI."""
    from langchain_openai import ChatOpenAI

    @cache
    def chat(model: str) -> Any:
        return ChatOpenAI(model=model, base_url=f"{address}/v1", api_key="none", max_retries=0)  # type: ignore[arg-type]

    async def read(model: str, emit: Emit) -> None:
        async for chunk in chat(model).astream(PROMPT):
            if chunk.content:
                emit(chunk.content)

    return read
