"""A job by a batch API pays for no row twice, whatever the vendor does and whenever the process is killed.

Half of the jobs have a budget of tokens, which is mostly too small for all rows. It counts at least what was paid and
what the batches at the vendor may take, and never more than its limit. A larger budget answers the rest. A reservation
is lost only when the process dies between a write to the budget's file and one to the file of batches: `lost_tokens`
counts these.

The vendors are those of `fake_batches`, with random faults: requests that expire or fail, responses to creations that
get lost, lists that are late, a queue without room, responses with 429 and 500, results that lack lines. SIGKILL ends
the process before or after a random request is processed, up to three times. Then the job runs to its end.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from soaking import Soak, run

sys.path.append(str(Path(__file__).parents[1] / "jobs"))  # for `batch_jobs`

from batch_jobs import MOST, SPENT
from batch_jobs import work as job
from fake_batches import VENDORS, FakeVendor
from job_models import held
from relay_processes import CONTEXT, Process

import rxllm
from rxllm.testing import End, Received, Reply

KILLS = 3
PLENTY = 10**6  # tokens
EACH = 1 + MOST  # tokens that a row reserves: one of its prompt, and those of its answer
TAKEN = 8  # tokens that an answer takes
TROUBLES = (
    Reply.json({"error": {"message": "slow down"}}, status=429, headers={"retry-after": "0"}),
    Reply.json({"error": {"message": "oh"}}, status=500),
    Reply([End.RST]),
    Reply([b'{"id":', End.FIN], content_type="application/json"),
)


def misbehave(soak: Soak, vendor: FakeVendor, rows: list[dict[str, str]]) -> None:
    """Gives a vendor its faults."""
    chance = soak.random
    vendor.looks = chance.randrange(1, 5)
    vendor.expiring = chance.choice((0, 0, 2))
    vendor.failing.update({row["prompt"]: chance.randrange(1, 3) for row in rows if chance.random() < 0.1})
    vendor.loses = chance.choices(("", "500", "cut", "reset", "page"), (4, 1, 1, 1, 1), k=20)
    vendor.drops = chance.randrange(3)
    vendor.lacks = chance.choice((0, 0, 1))
    vendor.room = chance.choice((None, None, 3, 5))
    vendor.fails_later = chance.random() < 0.5
    vendor.troubles = [chance.choice(TROUBLES) for _ in range(chance.randrange(8))]


def killing(
    process: int, after: int, then: Callable[[Received], Reply], *, processed: bool
) -> Callable[[Received], Reply]:
    """Returns replies of which one kills the process: before its request is processed, or after it."""
    left = after

    def reply(received: Received) -> Reply:
        nonlocal left
        left -= 1
        if left == 0 and not processed:
            os.kill(process, signal.SIGKILL)
            return Reply([End.RST])
        answer = then(received)
        if left == 0:
            os.kill(process, signal.SIGKILL)
        return answer

    return reply


def counting(soak: Soak, vendor: FakeVendor, budget: rxllm.Budget, tokens: int) -> Callable[[Received], Reply]:
    """Returns replies which look at the budget whenever a batch is created."""

    def reply(received: Received) -> Reply:
        if vendor._creates(received):
            *_, entries = vendor._read(received)
            least, used = TAKEN * vendor.paid.total() + EACH * len(entries), budget.used().tokens
            if not least <= used <= tokens:
                soak.fault(f"the budget of {tokens} counts {used}, and at least {least} may be spent")
        return vendor.reply(received)

    return reply


def work(soak: Soak) -> None:
    """Kills jobs, continues them, and counts what was paid."""
    kills = batches = stops = lost = 0
    chance = soak.random
    for case in soak.cases():
        number = chance.randrange(len(VENDORS))
        rows = [{"custom_id": f"row {row}", "prompt": f"p{row}"} for row in range(chance.randrange(1, 40))]
        options = {"rows": rows, "size": chance.randrange(1, 12), "concurrency": chance.randrange(1, 5)}
        with tempfile.TemporaryDirectory() as directory, VENDORS[number]() as vendor:
            path = Path(directory, "out.jsonl")
            misbehave(soak, vendor, rows)
            place, tokens = Path(directory, "budget"), chance.randrange(EACH, EACH + 2 * TAKEN * len(rows))
            has_budget = chance.random() < 0.5
            for turn in range(KILLS + 1):
                tokens = tokens if turn < KILLS else PLENTY
                reply = vendor.reply
                if has_budget:
                    options["budget"] = str(place), tokens
                    reply = counting(soak, vendor, rxllm.Budget(place, tokens=tokens, period=None), tokens)
                vendor.answer_by(reply)
                with Process(job, number, vendor.url, path, **options) as process:
                    if turn < KILLS:
                        processed = chance.random() < 0.5
                        vendor.answer_by(
                            killing(process.process.pid, chance.randrange(1, 40), reply, processed=processed)
                        )
                    process.process.join(120)
                    code = process.process.exitcode
                kills += code == -signal.SIGKILL
                stops += code == SPENT
                if code not in (0, -signal.SIGKILL) and not (code == SPENT and tokens != PLENTY):
                    soak.fault(f"case {case}: a job of {VENDORS[number].__name__} ended with {code}")
            if has_budget:
                lost += rxllm.Budget(place, tokens=1, period=None).used().tokens - TAKEN * vendor.paid.total()
            answers = {row["custom_id"]: f"A {row['prompt']}" for row in rows}
            paid = {row["prompt"]: 1 for row in rows}
            batches += len(vendor.made)
            if held(path) != answers or {prompt: times for prompt, times in vendor.paid.items() if times} != paid:
                soak.fault(
                    f"case {case}: {VENDORS[number].__name__} was paid {vendor.paid}, and the journal has {held(path)}"
                )
    soak.numbers |= {"kills": kills, "batches": batches, "stops": stops, "lost_tokens": lost}


if __name__ == "__main__":
    CONTEXT.set_forkserver_preload(["pytest", "relay_processes", "batch_jobs"])
    run(work, count=300, seconds=1200)
