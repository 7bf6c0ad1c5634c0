"""The cost of an agent: beside the plain stream for an answer without calls, and for each round with a call.

    python tests/benchmarks/rounds.py       about half a minute

1. The plain model and the agent read an answer of 10,000 tokens in turns, an event each, back to back, from a server in
   another process. The figures are the least CPU times of the client, because other programs only add to them. The
   program fails if the agent takes more than 1.1 times as long.
2. Each library runs an agent of 50 rounds, each with one call of a tool that returns at once. The server answers with a
   call until 50 results are there. The figure is the CPU time of the client for one round, with its HTTP request; the
   least of several agents. A library that is not installed is left out.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

import rxllm

TOKENS, ROUNDS, MOST = 10_000, 50, 1.1
TIMES, AGENTS = 40, 7
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"


def event(delta: dict[str, object], finish_reason: str | None = None) -> bytes:
    """One event of OpenAI's chat protocol."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    frame = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return f"data: {json.dumps(frame)}\n\n".encode()


def answer(body: bytes) -> bytes:
    """A call of the tool until all results are there; tokens for the model ``burst``."""
    request = json.loads(body)
    results = sum(message["role"] == "tool" for message in request["messages"])
    if request["model"] == "burst":
        events = [event({"content": f"w{number} "}) for number in range(TOKENS)]
    elif results < ROUNDS:
        function = {"name": "add", "arguments": json.dumps({"a": results, "b": 1})}
        call = {"index": 0, "id": f"call_{results}", "type": "function", "function": function}
        events = [event({"role": "assistant", "tool_calls": [call]})]
    else:
        events = [event({"role": "assistant", "content": "Done."})]
    reason = "tool_calls" if request["model"] != "burst" and results < ROUNDS else "stop"
    written = b"".join([*events, event({}, reason), b"data: [DONE]\n\n"])
    return HEAD % len(written) + written


async def serve() -> None:
    """Answer requests until stdin ends."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line
                )
                writer.write(answer(await reader.readexactly(length)))
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1")
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def spent(run: Callable[[], Awaitable[object]]) -> float:
    """The CPU time of the client, in seconds."""
    began = time.process_time()
    await run()
    return time.process_time() - began


async def read(llm: rxllm.LLM) -> None:
    """Read all tokens."""
    count = 0
    async for chunk in llm.astream("hi"):
        count += bool(chunk.text)
    if count != TOKENS:
        raise SystemExit(f"{llm!r} gave {count} tokens.")


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def rxllm_agent(url: str) -> Callable[[], Awaitable[object]]:
    """An agent of rxllm."""
    llm = rxllm.agent(rxllm.OpenAI("calls", base_url=url, api_key="k", api="chat"), add, rounds=ROUNDS + 1)
    return lambda: llm.ainvoke("hi")


def pydantic_agent(url: str) -> Callable[[], Awaitable[object]]:
    """An agent of pydantic-ai."""
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.usage import UsageLimits

    agent = Agent(OpenAIChatModel("calls", provider=OpenAIProvider(base_url=url, api_key="k")), tools=[add])

    async def run() -> object:
        async with agent.run_stream("hi", usage_limits=UsageLimits(request_limit=ROUNDS + 1)) as result:
            return await result.get_output()

    return run


def openai_agent(url: str) -> Callable[[], Awaitable[object]]:
    """An agent of openai-agents."""
    from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
    from openai import AsyncOpenAI

    set_tracing_disabled(True)
    model = OpenAIChatCompletionsModel("calls", AsyncOpenAI(base_url=url, api_key="k"))
    agent = Agent(name="adder", model=model, tools=[function_tool(add)])

    async def run() -> object:
        result = Runner.run_streamed(agent, "hi", max_turns=ROUNDS + 1)
        async for _ in result.stream_events():
            pass
        return result.final_output

    return run


LIBRARIES = {"rxllm": rxllm_agent, "pydantic-ai-slim": pydantic_agent, "openai-agents": openai_agent}


async def measured(url: str) -> bool:
    """Print the figures, and return whether the ratio is within the limit."""
    llm = rxllm.OpenAI("burst", base_url=url, api_key="k", api="chat")
    agent = rxllm.agent(llm, add)
    plain, with_agent = list[float](), list[float]()
    for _ in range(TIMES):
        plain.append(await spent(lambda: read(llm)))
        with_agent.append(await spent(lambda: read(agent)))
    ratio = min(with_agent) / min(plain)
    print(f"an answer without calls: {min(plain) / TOKENS * 1e6:.2f} µs a token; the agent {ratio:.2f} times")
    for name, make in LIBRARIES.items():
        try:
            run = make(url)
        except ImportError:
            print(f"{name} is not installed")
            continue
        least = min([await spent(run) for _ in range(AGENTS)])
        print(f"a round with a call: {least / (ROUNDS + 1) * 1e6:,.0f} µs with {name} {version(name)}")
    return ratio <= MOST


def main() -> None:
    """Start the server in another process, and measure."""
    command = [sys.executable, str(Path(__file__)), "serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            port = (server.stdout or sys.stdin).readline().strip()
            within = asyncio.run(measured(f"http://127.0.0.1:{port}/v1"))
        finally:
            (server.stdin or sys.stdout).close()
    if not within:
        raise SystemExit(f"An agent without calls costs more than {MOST} times the plain stream.")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        main()
