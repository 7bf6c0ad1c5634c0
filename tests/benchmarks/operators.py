"""The cost of an operator or combinator per chunk: nanoseconds of CPU, the minimum of several rounds.

    python tests/benchmarks/operators.py

The stream has 100,000 plain chunks and comes from this process, so that other costs do not hide the difference.
``ops.map`` serves as a comparison: it is a plain reactivex operator. Operators that pace are measured with bursts,
each as long as the pace, beside the time operators of reactivex.
"""

from __future__ import annotations

import asyncio
import gc
import platform
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import reactivex as rx
from attrs import frozen
from reactivex import operators as ops

import rxllm

CHUNKS = 100_000
ROUNDS = 5
PACED, BURST, PAUSE = 5_000, 50, 0.01  # chunks, chunks, seconds


@frozen
class Model(rxllm.LLM):
    """A model without any delay. By default it emits parts of words on one line."""

    text: str = "token"
    first: str = "token"

    async def chunks(self, request: rxllm.Request) -> AsyncIterator[str]:
        """Emits the same text many times."""
        yield self.first
        for _ in range(CHUNKS):
            yield self.text


class Bursts(rxllm.LLM):
    """A model that emits bursts with pauses."""

    async def chunks(self, request: rxllm.Request) -> AsyncIterator[str]:
        """Emits the same text many times."""
        for _ in range(PACED // BURST):
            for _ in range(BURST):
                yield "token"
            await asyncio.sleep(PAUSE)


def cost(make: Callable[[], rx.Observable[Any]], chunks: int = CHUNKS) -> float:
    """The CPU time in nanoseconds per chunk, without a bridge."""

    async def once() -> float:
        over = asyncio.Event()
        gc.collect()
        began = time.process_time()
        make().subscribe(lambda value: None, print, over.set, scheduler=rxllm.scheduler())
        await over.wait()
        return time.process_time() - began

    return min(asyncio.run(once()) for _ in range(ROUNDS)) / chunks * 1e9


def main() -> None:
    """Measures all operators, and prints the results."""
    llm = Model()
    limiter = rxllm.Limiter(concurrency=8, tokens_per_minute=10**12)
    streams = {
        "ops.map": lambda: llm("x").pipe(ops.map(lambda chunk: chunk)),
        "text": lambda: llm("x").pipe(rxllm.text()),
        "words": lambda: llm("x").pipe(rxllm.words()),
        "words, each a chunk": lambda: Model(" token")("x").pipe(rxllm.words()),
        "lines": lambda: llm("x").pipe(rxllm.lines()),
        "lines, each a chunk": lambda: Model("token\n")("x").pipe(rxllm.lines()),
        "sentences": lambda: llm("x").pipe(rxllm.sentences()),
        "smooth": lambda: llm("x").pipe(rxllm.smooth(1e-9)),
        "first_chunk_timeout": lambda: llm("x").pipe(rxllm.first_chunk_timeout(60)),
        "idle_timeout": lambda: llm("x").pipe(rxllm.idle_timeout(60)),
        "deadline": lambda: llm("x").pipe(rxllm.deadline(60)),
        "stop_at": lambda: llm("x").pipe(rxllm.stop_at("STOP")),
        "split_reasoning": lambda: llm("x").pipe(rxllm.split_reasoning()),
        "… within reasoning": lambda: Model(" token", "<think>")("x").pipe(rxllm.split_reasoning()),
        "share": lambda: llm("x").pipe(rxllm.share()),
        "retry": lambda: rxllm.retry(llm, 2)("x"),
        "fallback": lambda: rxllm.fallback(llm, llm)("x"),
        "hedge": lambda: rxllm.hedge(llm, llm, after=1)("x"),
        "limited": lambda: rxllm.limited(llm, limiter)("x"),
        "cached": lambda: rxllm.cached(llm, _Forgets())("x"),
        "route": lambda: rxllm.route(lambda request: llm)("x"),
        "observe": lambda: rxllm.observe(llm, lambda event: None)("x"),
    }
    cost(lambda: llm("x"))  # a warm-up: the first measurement is always slower
    bare = cost(lambda: llm("x"))
    print(f"Python {platform.python_version()}; the bare stream takes {bare:,.0f} ns a chunk; each adds")
    for name, stream in streams.items():
        print(f"  {name:20} {cost(stream) - bare:8,.0f}")
    bursts = Bursts()
    paced = {
        "smooth, paced": lambda: bursts("x").pipe(rxllm.smooth(PAUSE)),
        "ops.delay": lambda: bursts("x").pipe(ops.delay(PAUSE)),
        "concat_map(timer)": lambda: bursts("x").pipe(ops.concat_map(_after_a_while)),
    }
    bare = cost(lambda: bursts("x"), PACED)
    print(f"in bursts it takes {bare:,.0f} ns a chunk; each adds")
    for name, stream in paced.items():
        print(f"  {name:20} {cost(stream, PACED) - bare:8,.0f}")


def _after_a_while(chunk: rxllm.Chunk) -> rx.Observable[rxllm.Chunk]:
    return rx.timer(PAUSE / BURST / 2).pipe(ops.map(lambda _: chunk))


class _Forgets(rxllm.Store):
    """A store that keeps nothing, so that each round makes a request."""

    def get(self, key: str, /) -> None:
        """Returns None."""

    def put(self, key: str, chunks: Any, /) -> None:
        """Keeps nothing."""


if __name__ == "__main__":
    main()
