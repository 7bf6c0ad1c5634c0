"""Jobs by a vendor's batch API in processes of their own, for tests that kill them."""

import os
import signal

from fake_batches import ROWS, VENDORS, hasten
from job_models import run

from rxllm.jobs.intents import Intents


def work(connection, number, url, path, step=None):
    """Run a job in a process of its own, and report how many results it added.

    Args:
        connection: reports them.
        number: the number of the fake vendor.
        url: its address.
        path: the journal.
        step: dies when this record is written: "intent", "confirmed" or "ended".
    """
    vendor = VENDORS[number]
    hasten(setattr, vendor)
    if step is not None:
        _die_at(step)
    fake = object.__new__(vendor)
    fake.url = url
    connection.send("begins")
    connection.send(len(run(ROWS, path, fake.model(max_retries=0), via="batch-api", concurrency=2)))


def _die_at(step):
    write = Intents.write

    def dying(intents, intent):
        write(intents, intent)
        found = "ended" if intent.ended else "confirmed" if intent.batch else "intent"
        if found == step:
            os.kill(os.getpid(), signal.SIGKILL)

    Intents.write = dying
