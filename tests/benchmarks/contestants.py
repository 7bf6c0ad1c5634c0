"""The measured clients in Python: functions that take the provider's address, make a client, and return `read`.

``read(model, emit)`` asks the model in the way of the client's documentation, and calls `emit` with each piece of text.
It is a coroutine function, or a plain function if the client blocks. A client ends with its process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from functools import cache
from typing import Any

Emit = Callable[[str], object]
Read = Callable[[str, Emit], Any]

PROMPT = "Write me a song about sparkling water."
MESSAGES: Any = [{"role": "user", "content": PROMPT}]
MAPS = (str, str.swapcase, str.swapcase)  # together they do not change the text


def _pieces() -> Callable[[bytes], list[str]]:
    """The minimal decoder of a frame: no checks, events or errors."""
    import msgspec

    delta = msgspec.defstruct("Delta", [("content", str, "")])
    choice = msgspec.defstruct("Choice", [("delta", delta)])
    decode = msgspec.json.Decoder(msgspec.defstruct("Frame", [("choices", list[choice])])).decode  # type: ignore[valid-type]

    def pieces(events: list[bytes]) -> list[str]:
        frames = [decode(event[6:]) for event in events if event != b"data: [DONE]"]
        return [piece for frame in frames if frame.choices and (piece := frame.choices[0].delta.content)]

    return pieces


def _streaming(address: str) -> Callable[[str], AsyncIterator[list[str]]]:
    """The minimal streaming client. It yields the pieces of one network read together."""
    import httpx
    from httpx_aiohttp import AiohttpTransport

    pieces = _pieces()
    limits = httpx.Limits(max_connections=0)  # means no limit to aiohttp; None would mean its default of 100
    client = httpx.AsyncClient(transport=AiohttpTransport(limits=limits, trust_env=False), timeout=60)

    async def stream(model: str) -> AsyncIterator[list[str]]:
        question = {"model": model, "messages": MESSAGES, "stream": True}
        rest = b""
        async with client.stream("POST", f"{address}/v1/chat/completions", json=question) as response:
            async for data in response.aiter_raw():
                *events, rest = (rest + data).split(b"\n\n")
                yield pieces(events)

    return stream


def protocol(address: str) -> Read:
    """The limit of any client in Python: an asyncio protocol that reads just this provider, over a new connection."""
    pieces = _pieces()
    host, _, port = address.removeprefix("http://").partition(":")

    class Answer(asyncio.Protocol):
        def __init__(self, model: str, emit: Emit) -> None:
            question = json.dumps({"model": model, "messages": MESSAGES, "stream": True}).encode()
            self.request = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (
                len(question),
                question,
            )
            self.emit = emit
            self.ended = asyncio.get_running_loop().create_future()
            self.has_header = False
            self.received = self.rest = b""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.write(self.request)  # type: ignore[attr-defined]

        def data_received(self, data: bytes) -> None:
            data = self.received + data
            if not self.has_header:
                _, _, data = data.partition(b"\r\n\r\n")
                self.has_header = True
            chunks, begin = [self.rest], 0
            while (line := data.find(b"\r\n", begin)) >= 0:
                end = line + 2 + int(data[begin:line], 16)
                if end == line + 2:
                    self.ended.set_result(None)
                    break
                if len(data) < end + 2:
                    break
                chunks.append(data[line + 2 : end])
                begin = end + 2
            self.received = data[begin:]
            *events, self.rest = b"".join(chunks).split(b"\n\n")
            for piece in pieces(events):
                self.emit(piece)

    async def read(model: str, emit: Emit) -> None:
        answer = Answer(model, emit)
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: answer, host, int(port))
        await answer.ended
        transport.close()

    return read


def aiohttp(address: str) -> Read:
    """The connections of the floor without httpx: aiohttp, with the same parsing."""
    import aiohttp

    pieces = _pieces()
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def read(model: str, emit: Emit) -> None:
        question = {"model": model, "messages": MESSAGES, "stream": True}
        rest = b""
        async with session.post(f"{address}/v1/chat/completions", json=question) as response:
            async for data in response.content.iter_any():
                *events, rest = (rest + data).split(b"\n\n")
                for piece in pieces(events):
                    emit(piece)

    return read


def floor(address: str) -> Read:
    """The minimal streaming client, over the libraries that rxllm uses."""
    stream = _streaming(address)

    async def read(model: str, emit: Emit) -> None:
        async for pieces in stream(model):
            for piece in pieces:
                emit(piece)

    return read


def floor_whole(address: str) -> Read:
    """The minimal client for answers that are not streamed."""
    import httpx
    import msgspec
    from httpx_aiohttp import AiohttpTransport

    message = msgspec.defstruct("Message", [("content", str)])
    choice = msgspec.defstruct("Choice", [("message", message)])
    decode = msgspec.json.Decoder(msgspec.defstruct("Answer", [("choices", list[choice])])).decode  # type: ignore[valid-type]
    limits = httpx.Limits(max_connections=0)
    client = httpx.AsyncClient(transport=AiohttpTransport(limits=limits, trust_env=False), timeout=60)

    async def read(model: str, emit: Emit) -> None:
        question = {"model": model, "messages": MESSAGES, "stream": False}
        response = await client.post(f"{address}/v1/chat/completions", json=question)
        emit(decode(response.content).choices[0].message.content)

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


def aiohttp_whole(address: str) -> Read:
    """The same without httpx."""
    import aiohttp
    import msgspec

    message = msgspec.defstruct("Message", [("content", str)])
    choice = msgspec.defstruct("Choice", [("message", message)])
    decode = msgspec.json.Decoder(msgspec.defstruct("Answer", [("choices", list[choice])])).decode  # type: ignore[valid-type]
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def read(model: str, emit: Emit) -> None:
        question = {"model": model, "messages": MESSAGES, "stream": False}
        async with session.post(f"{address}/v1/chat/completions", json=question) as response:
            emit(decode(await response.read()).choices[0].message.content)

    return read


def rxllm_whole(address: str) -> Read:
    """Asks for answers that are not streamed."""
    import rxllm

    llm = rxllm.OpenAI("any", base_url=f"{address}/v1", api_key="none", stream=False)

    async def read(model: str, emit: Emit) -> None:
        emit((await llm.ainvoke(PROMPT, model=model)).text)

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


def rxllm_timeline(address: str) -> Read:
    """Reads chunks by ``async for``, with a timeline."""
    import rxllm

    llm = rxllm.OpenAI("any", base_url=f"{address}/v1", api_key="none", handlers=[rxllm.Timeline()])

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
        if model.startswith("whole"):
            answer = await client.chat.completions.create(model=model, messages=MESSAGES)
            emit(answer.choices[0].message.content or "")
            return
        async for chunk in await client.chat.completions.create(model=model, messages=MESSAGES, stream=True):
            if chunk.choices and (piece := chunk.choices[0].delta.content):
                emit(piece)

    return read


def anthropic(address: str) -> Read:
    """Anthropic's own package, over Anthropic's protocol."""
    from anthropic import AsyncAnthropic

    client = AsyncAnthropic(base_url=address, api_key="none", max_retries=0)

    async def read(model: str, emit: Emit) -> None:
        if model.startswith("whole"):
            answer: Any = await client.messages.create(model=model, messages=MESSAGES, max_tokens=1)
            emit(answer.content[0].text)
            return
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
        if model.startswith("whole"):
            emit((await chat(model).ainvoke(PROMPT)).content)
            return
        async for chunk in chat(model).astream(PROMPT):
            if chunk.content:
                emit(chunk.content)

    return read


def to_langchain(address: str) -> Read:
    """A model of rxllm as a chat model of LangChain."""
    import rxllm
    from rxllm.adapters import to_langchain

    chat = to_langchain(rxllm.OpenAI("any", base_url=f"{address}/v1", api_key="none"))

    async def read(model: str, emit: Emit) -> None:
        async for chunk in chat.astream(PROMPT, model=model):
            if chunk.content:
                emit(chunk.content)

    return read


def to_langchain_sync(address: str) -> Read:
    """The same by ``for``."""
    import rxllm
    from rxllm.adapters import to_langchain

    chat = to_langchain(rxllm.OpenAI("any", base_url=f"{address}/v1", api_key="none"))

    def read(model: str, emit: Emit) -> None:
        for chunk in chat.stream(PROMPT, model=model):
            if chunk.content:
                emit(chunk.content)

    return read


def litellm(address: str) -> Read:
    """LiteLLM."""
    import litellm

    async def read(model: str, emit: Emit) -> None:
        is_whole = model.startswith("whole")
        answer: Any = await litellm.acompletion(
            model=f"openai/{model}", messages=MESSAGES, api_base=f"{address}/v1", api_key="none", stream=not is_whole
        )
        if is_whole:
            emit(answer.choices[0].message.content)
            return
        async for chunk in answer:
            if piece := chunk.choices[0].delta.content:
                emit(piece)

    return read


def pydantic_ai(address: str) -> Read:
    """Pydantic AI, without its pauses of 0.1 s that join pieces."""
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=f"{address}/v1", api_key="none")

    @cache
    def agent(model: str) -> Any:
        return Agent(OpenAIChatModel(model, provider=provider))

    async def read(model: str, emit: Emit) -> None:
        if model.startswith("whole"):
            emit((await agent(model).run(PROMPT)).output)
            return
        async with agent(model).run_stream(PROMPT) as answer:
            async for piece in answer.stream_text(delta=True, debounce_by=None):
                if piece:
                    emit(piece)

    return read
