"""The cost of a token with each provider, beside OpenAI's chat: CPU of the client, all in one run.

    python tests/benchmarks/providers.py            about half a minute
    python tests/benchmarks/providers.py gemini     one provider beside chat

Each provider reads an answer of 10,000 tokens, an event each, back to back, from a server in another process. The
providers take turns. The ratio is that of a round in which both were asked one after another, so it is valid on a busy
machine, too; the table shows the least ratio of all rounds and the median. The program fails if a median is above 1.3.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import rxllm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from protocols import Chat, Cohere, Completions, Converse, Generate, Messages, OllamaChat, Protocol, Responses

TOKENS = 10_000
ROUNDS = 15
PROTOCOLS = (Chat(), Completions(), Responses(), Messages(), Generate(), OllamaChat(), Cohere(), Converse())
MOST = 1.3
TYPES = {"converse": "application/vnd.amazon.eventstream", "ollama": "application/x-ndjson"}
KEY = "key"
MODELS: dict[str, Callable[[str], rxllm.LLM]] = {
    "chat": lambda url: rxllm.OpenAI("m", base_url=f"{url}/of-chat", api="chat", api_key=KEY),
    "completions": lambda url: rxllm.OpenAI("m", base_url=f"{url}/of-completions", api="completions", api_key=KEY),
    "responses": lambda url: rxllm.OpenAI("m", base_url=f"{url}/of-responses", api="responses", api_key=KEY),
    "messages": lambda url: rxllm.Anthropic("m", base_url=f"{url}/of-messages", api_key=KEY),
    "generate": lambda url: rxllm.Gemini("m", base_url=f"{url}/of-generate", api_key=KEY),
    "ollama": lambda url: rxllm.Ollama("m", base_url=f"{url}/of-ollama", api_key=KEY),
    "cohere": lambda url: rxllm.Cohere("m", base_url=f"{url}/of-cohere", api_key=KEY),
    "converse": lambda url: rxllm.Bedrock("m", base_url=f"{url}/of-converse", region="eu-west-1", api_key=KEY),
}


def response(protocol: Protocol) -> bytes:
    """The whole HTTP response, with all events."""
    body = b"".join(protocol.stream([f"w{number} " for number in range(TOKENS)]))
    kind = TYPES.get(protocol.name, "text/event-stream")
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return head.encode() + body


async def serve() -> None:
    """Answer requests by the first word of their path, until stdin ends."""
    answers = {f"of-{protocol.name}": response(protocol) for protocol in PROTOCOLS}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(answers[head.split(b"/", 2)[1].decode()])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def cost(llm: rxllm.LLM) -> float:
    """Return the microseconds of CPU for one token of one answer."""
    begin, count = time.process_time(), 0
    async for chunk in llm.astream("hi"):
        count += bool(chunk.text)
    spent = time.process_time() - begin
    if count != TOKENS:
        raise SystemExit(f"{llm!r} gave {count} tokens.")
    return spent / TOKENS * 1e6


async def measured(url: str, names: list[str]) -> bool:
    """Print the table, and return whether all providers are within the limit."""
    models = {name: MODELS[name](url) for name in names}
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(ROUNDS + 1):
        for name, llm in models.items():
            chat, own = await cost(models["chat"]), await cost(llm)
            if number:  # the first round imports and connects
                figures[name].append((own, own / chat))
    print(f"{'':12} {'µs a token':>10} {'least':>6} {'median':>6}")
    fits = True
    for name, rounds in figures.items():
        middle = median(ratio for _, ratio in rounds)
        fits = fits and middle <= MOST
        print(f"{name:12} {min(own for own, _ in rounds):10.2f} {min(r for _, r in rounds):6.2f} {middle:6.2f}")
    return fits


def main(names: list[str]) -> int:
    """Start the server, measure, and return the exit code."""
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        port = (server.stdout.readline() if server.stdout else "").strip()
        fits = asyncio.run(measured(f"http://127.0.0.1:{port}", names))
        server.communicate()
    return 0 if fits else 1


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        asyncio.run(serve())
    else:
        sys.exit(main(list(dict.fromkeys(["chat", *(sys.argv[1:] or MODELS)]))))
