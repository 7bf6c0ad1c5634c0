"""A client that leaves a served answer closes the request to the model, on each server and in each situation.

The cells are {h11, httptools, hypercorn, granian} × {plain, behind middleware} × {before the headers, before the first
chunk, streaming, write-paused}; the cyclic garbage collector is off. The count is the number of clients that leave;
they are spread over the cells, and come in groups of 25. ``--kind`` names the only situation to try. A fault is a
request that is still open after ten seconds, or an answer that is still in memory after its server has ended. The
result line has the number of cells, how many requests closed within 50 ms, and the slowest.
"""

from __future__ import annotations

import gc
import itertools

from soaking import Soak, run

# isort: split
# soaking has made these known
from serve.test_stream_response import BODIES, ROUNDS, SOON, Answers, application, seconds_to_close
from serving import SERVERS, Serving

from rxllm.testing import FakeServer, Reply

FAST = 0.05


def main(soak: Soak) -> None:
    """Let clients leave in each cell."""
    times: list[float] = []
    situations = BODIES if soak.kind is None else [soak.kind]
    cells = list(itertools.product(SERVERS, (False, True), situations))
    soak.random.shuffle(cells)
    cells = cells[: soak.count]
    tried = 0
    for place, (server, middleware, situation) in enumerate(cells):
        if soak.over:
            break
        tried += 1
        name = f"{server}, middleware {middleware}, {situation}"
        with FakeServer(Reply(BODIES[situation])) as upstream:
            answers = Answers(upstream)
            with Serving(application(answers, middleware=middleware), server) as serving:
                clients = range(soak.count // len(cells) + (place < soak.count % len(cells)))
                for first in clients[::ROUNDS]:
                    if soak.over:
                        break
                    group = clients[first : first + ROUNDS]
                    try:
                        for seconds in seconds_to_close(serving, upstream, group, situation):
                            times.append(seconds)
                            if seconds > SOON:
                                soak.fault(f"{name}: {seconds:.3f} s")
                    except TimeoutError as error:
                        soak.fault(f"{name}: {error}")
        if answers.kept:
            soak.fault(f"{name}: {len(answers.kept)} answers are in memory")
    soak.numbers |= {
        "cells": tried,
        "clients": len(times),
        "within_50_ms": sum(seconds <= FAST for seconds in times),
        "slowest_ms": round(max(times) * 1000, 1),
    }


if __name__ == "__main__":
    gc.disable()
    run(main, count=32_000, seconds=3600, kinds=BODIES)
