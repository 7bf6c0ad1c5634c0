"""A job by a batch API whose process is killed: another process goes on, and the server counts what was paid."""

import pytest
from batch_jobs import MOST, work
from fake_batches import COUNT, PAID, SIZE, VENDORS, WHOLE
from job_models import held
from relay_processes import CONTEXT, Process

import rxllm
from rxllm.jobs.intents import Intents

pytestmark = pytest.mark.slow

CONTEXT.set_forkserver_preload(["pytest", "relay_processes", "batch_jobs"])  # unless the server runs already


@pytest.fixture(params=range(len(VENDORS)), ids=[vendor.__name__ for vendor in VENDORS])
def number(request):
    """The number of a vendor."""
    return request.param


@pytest.mark.parametrize("step", ["create", "created", "state", "results", "intent", "confirmed", "ended"])
def test_killed_job_pays_nothing_twice(tmp_path, number, step):
    """The process is killed by the server, within a request, or by itself, right after a record.

    "create" is before the server makes the batch, "created" after it and before its response: between the intent and
    the confirmation.
    """
    path = tmp_path / "out.jsonl"
    of_server = step in ("create", "created", "state", "results")
    with VENDORS[number]() as vendor:
        vendor.looks = 2
        with Process(work, number, vendor.url, path, None if of_server else step) as process:
            if of_server:
                vendor.kill(process.process.pid, step)
            assert "begins" == process.connection.recv()
            process.process.join(60)
            assert -9 == process.process.exitcode
        before = len(held(path))
        with Process(work, number, vendor.url, path) as process:
            assert "begins" == process.connection.recv()
            added = process.connection.recv()
            process.process.join(60)
        assert WHOLE == held(path)
        assert PAID == vendor.paid
        assert COUNT == before + added
    assert [] == Intents(path).open()


def test_killed_upload_gives_back_what_it_reserved(tmp_path, number):
    """In the next run, which settles all: an answer takes 8 tokens."""
    path, budget = tmp_path / "out.jsonl", (tmp_path / "budget", 10_000)
    used = rxllm.Budget(budget[0], tokens=1, period=None).used
    with VENDORS[number]() as vendor:
        with Process(work, number, vendor.url, path, "reserved", concurrency=1, budget=budget) as process:
            process.process.join(60)
            assert -9 == process.process.exitcode
        assert SIZE * (1 + MOST) == used().tokens
        assert {} == vendor.paid
        with Process(work, number, vendor.url, path, budget=budget) as process:
            process.process.join(60)
        assert PAID == vendor.paid
    assert 8 * COUNT == used().tokens
    assert [] == Intents(path).reserved()
