"""A client that leaves a served answer closes the request to the model, on each server and in each situation.

The cells are {h11, httptools, hypercorn, granian} × {plain, behind middleware} × {before the headers, before the first
chunk, streaming, write-paused}; the cyclic garbage collector is off. The count is the number of clients that leave;
they are spread over the cells. A fault is a request that is still open after ten seconds. The result line has the
share that closed within 50 ms, and the slowest.
"""

from __future__ import annotations

import gc
import itertools

from soaking import Soak, run

# isort: split
from serve.test_stream_response import BODIES, SOON, application, seconds_to_close  # soaking has made it known
from serving import SERVERS, Serving

import rxllm
from rxllm.testing import FakeServer, Reply

FAST = 0.05
CELLS = list(itertools.product(SERVERS, (False, True), BODIES))


def main(soak: Soak) -> None:
    """Let clients leave in each cell."""
    times: list[float] = []
    soak.random.shuffle(CELLS)
    for place, (kind, middleware, situation) in enumerate(CELLS):
        rounds = soak.count // len(CELLS) + (place < soak.count % len(CELLS))
        with FakeServer(Reply(BODIES[situation])) as upstream:
            llm = rxllm.OpenAI("m", base_url=upstream.url, api_key="k", api="chat")
            page = application(lambda llm=llm: llm("hi"), middleware=middleware)
            if not rounds or soak.over:
                continue
            with Serving(page, kind) as server:
                for number in range(rounds):
                    try:
                        seconds = seconds_to_close(server, upstream, number, situation)
                    except TimeoutError:
                        seconds = float("inf")
                    times.append(seconds)
                    if seconds > SOON:
                        soak.fault(f"{kind}, middleware {middleware}, {situation}: {seconds:.3f} s")
    soak.numbers |= {
        "clients": len(times),
        "within_50_ms": sum(seconds <= FAST for seconds in times),
        "slowest_ms": round(max(times) * 1000, 1),
    }


if __name__ == "__main__":
    gc.disable()
    run(main, count=32_000, seconds=3600)
