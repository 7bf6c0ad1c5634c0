"""Jobs by a vendor's batch API, without pauses, for tests in this process and in others."""

import os
import signal

from fake_batches import KEY, VENDORS
from job_models import run

import rxllm.jobs.batching
import rxllm.providers._anthropic_batches
import rxllm.providers._gemini_batches
import rxllm.providers._openai_batches  # noqa: F401  (all imported once, before the processes are forked)
from rxllm.jobs import confirming, patience
from rxllm.providers import _gemini_batches

COUNT = 10
ROWS = [{"custom_id": f"row {number}", "prompt": f"p{number}"} for number in range(COUNT)]
PAID = {f"p{number}": 1 for number in range(COUNT)}
WHOLE = {f"row {number}": f"A p{number}" for number in range(COUNT)}
SIZE = 4  # rows in a batch


def hasten(patch, vendor):
    """Look again at once, let a batch hold few rows, and let Gemini's batches carry their requests or not.

    Args:
        patch: a function like setattr.
        vendor: the class of the fake vendor.
    """
    patch(patience, "POLL", (0.0,))
    patch(confirming, "FIND", 0.0)
    patch(confirming, "GRACE", 0.0)
    patch(vendor.api, "max_requests", SIZE)
    if getattr(vendor, "has_files", False):
        patch(_gemini_batches, "_WITHOUT_FILE", (0, 0))


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
    connection.send(len(run(ROWS, path, fake.model(api_key=KEY, max_retries=0), via="batch-api", concurrency=2)))


def _die_at(step):
    from rxllm.jobs.intents import Intents

    write = Intents.write

    def dying(intents, intent):
        write(intents, intent)
        found = "ended" if intent.ended else "confirmed" if intent.batch else "intent"
        if found == step:
            os.kill(os.getpid(), signal.SIGKILL)

    Intents.write = dying
