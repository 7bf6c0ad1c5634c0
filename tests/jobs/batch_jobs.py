"""Jobs by a vendor's batch API in processes of their own, for tests that kill them."""

import logging
import os
import signal
import sys

from fake_batches import ROWS, SIZE, VENDORS, hasten
from job_models import run

import rxllm
from rxllm.jobs.intents import Intents

MOST = 97  # tokens of an answer, at most

SPENT = 3  # the exit code of a process whose job stopped because its budget is spent


def work(connection, number, url, path, step=None, *, rows=ROWS, size=SIZE, concurrency=2, budget=None):
    """Run a job in a process of its own, and report how many results it added.

    Args:
        connection: reports them.
        number: the number of the fake vendor.
        url: its address.
        path: the journal.
        step: dies when this record is written: "reserved", "intent", "confirmed" or "ended".
        rows: the rows.
        size: the largest number of rows in a batch.
        concurrency: the number of batches at once.
        budget: the file of a budget and its tokens; None for a job without one.
    """
    vendor = VENDORS[number]
    hasten(setattr, vendor)
    vendor.api.max_requests = size
    if step is not None:
        _die_at(step)
    fake = object.__new__(vendor)
    fake.url = url
    logging.getLogger("rxllm").setLevel(logging.ERROR)  # it warns of batches that are not confirmed
    llm = fake.model(max_retries=0, max_tokens=MOST)
    if budget is not None:
        llm = rxllm.budgeted(llm, rxllm.Budget(budget[0], tokens=budget[1], period=None))
    connection.send("begins")
    try:
        connection.send(len(run(rows, path, llm, via="batch-api", concurrency=concurrency)))
    except rxllm.LimitReached:
        sys.exit(SPENT)


def _die_at(step):
    write = Intents.write

    def dying(intents, intent):
        write(intents, intent)
        found = "ended" if intent.ended else "confirmed" if intent.batch else "intent" if intent.rows else "reserved"
        if found == step:
            os.kill(os.getpid(), signal.SIGKILL)

    Intents.write = dying
