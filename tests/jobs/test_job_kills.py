"""A job whose process is killed at random points: the server counts what was paid."""

import random

import pytest
from job_models import PayingServer, held, is_alive, work
from relay_processes import CONTEXT, Process
from waiting import wait_until

import rxllm

pytestmark = pytest.mark.slow

CONTEXT.set_forkserver_preload(["pytest", "relay_processes", "job_models"])  # unless the server runs already

COUNT = 100
CONCURRENCY = 8
KILLS = 3


@pytest.mark.parametrize("workers", [(0, 0, 0, 0), (2, 0, 3, 1)])
@pytest.mark.parametrize("honours", [False, True])
def test_what_is_written_is_never_asked_again_and_a_crash_pays_what_was_in_flight(tmp_path, honours, workers):
    """After each kill the same job continues. No answer is lost, and no more than the requests in flight come twice.

    A server that honours idempotency keys is paid nothing twice. Each run may have another number of worker processes,
    which end with their parent.
    """
    path = tmp_path / "out.jsonl"
    chance = random.Random(15)
    with PayingServer() as server:
        server.honours = honours
        for kill in range(KILLS):
            with Process(work, server.url, path, COUNT, CONCURRENCY, workers[kill]) as process:
                assert "begins" == process.connection.recv()
                server.kill(process.process.pid, chance.randrange(5, 30))
                process.process.join(60)
            wait_until(lambda: not any(map(is_alive, server.orphans)))
            assert len(server.orphans) == workers[kill]
            before = set(held(path)) if path.exists() else set()
            assert before <= {str(number) for number in range(COUNT)}
        with Process(work, server.url, path, COUNT, CONCURRENCY, workers[-1]) as process:
            assert "begins" == process.connection.recv()
            added = process.connection.recv()
            process.process.join(60)
    results = list(rxllm.Journal(path).results())
    assert {str(number): f"A p{number}" for number in range(COUNT)} == held(path)
    assert COUNT == len(results)
    assert added == COUNT - len(before)
    assert COUNT == len(server.paid)
    assert server.paid.total() - COUNT <= (0 if honours else KILLS * CONCURRENCY)
