"""Jobs by a vendor's batch API in processes of their own, for tests that kill them."""

import logging
import os
import signal

from fake_batches import ROWS, SIZE, VENDORS, hasten
from job_models import run

from rxllm.jobs.intents import Intents


def work(connection, number, url, path, step=None, *, rows=ROWS, size=SIZE, concurrency=2):
    """Run a job in a process of its own, and report how many results it added.

    Args:
        connection: reports them.
        number: the number of the fake vendor.
        url: its address.
        path: the journal.
        step: dies when this record is written: "intent", "confirmed" or "ended".
        rows: the rows.
        size: the largest number of rows in a batch.
        concurrency: the number of batches at once.
    """
    vendor = VENDORS[number]
    hasten(setattr, vendor)
    vendor.api.max_requests = size
    if step is not None:
        _die_at(step)
    fake = object.__new__(vendor)
    fake.url = url
    logging.getLogger("rxllm").setLevel(logging.ERROR)  # it warns of batches that are not confirmed
    connection.send("begins")
    connection.send(len(run(rows, path, fake.model(max_retries=0), via="batch-api", concurrency=concurrency)))


def _die_at(step):
    write = Intents.write

    def dying(intents, intent):
        write(intents, intent)
        found = "ended" if intent.ended else "confirmed" if intent.batch else "intent"
        if found == step:
            os.kill(os.getpid(), signal.SIGKILL)

    Intents.write = dying
