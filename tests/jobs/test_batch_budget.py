"""Batches reserve in a budget what they may take, before they are created, and give back what they did not take."""

import contextlib
import sqlite3

import pytest
from fake_batches import PAID, ROWS, VENDORS, hasten
from job_models import run
from waiting import wait_until

import rxllm
from rxllm.jobs.intents import Intents

EACH = 98  # tokens that a row reserves: one of its prompt, and 97 of its answer
TAKEN = 8  # tokens that an answer takes


@pytest.fixture(params=VENDORS, ids=lambda vendor: vendor.__name__)
def vendor(request, monkeypatch):
    """A vendor with four rows in a batch, and no pauses."""
    hasten(monkeypatch.setattr, request.param)
    with request.param() as vendor:
        yield vendor


@pytest.fixture
def budget(tmp_path):
    """Makes budgets that count in the same file."""
    return lambda tokens: rxllm.Budget(tmp_path / "budget.sqlite", tokens=tokens, period=None)


def model(vendor, budget):
    """The model of the vendor, with a budget."""
    return rxllm.budgeted(vendor.model(max_tokens=97), budget)


def batched(vendor, rows, path, budget, **options):
    """Run a job by the batch API."""
    return run(rows, path, model(vendor, budget), via="batch-api", **{"concurrency": 2, **options})


def watched(vendor, budget):
    """The tokens that the budget counts at each creation of a batch."""
    counts = []

    def reply(received):
        if vendor._creates(received):
            counts.append(budget.used().tokens)
        return vendor.reply(received)

    vendor.answer_by(reply)
    return counts


def test_batch_reserves_before_its_creation_and_settles_after_it(vendor, tmp_path, budget):
    """The whole answer of each row."""
    plenty = budget(10_000)
    counts = watched(vendor, plenty)
    batched(vendor, ROWS, tmp_path / "out.jsonl", plenty, concurrency=1)
    assert (4 * EACH, 3) == (counts[0], len(counts))
    assert 10 * TAKEN == plenty.used().tokens
    assert PAID == vendor.paid


def test_rows_wait_for_what_other_batches_give_back(vendor, tmp_path, budget):
    """All are answered, and the budget never counts more than its limit."""
    tight = budget(3 * EACH + 6)
    counts = watched(vendor, tight)
    batched(vendor, ROWS, tmp_path / "out.jsonl", tight)
    assert PAID == vendor.paid
    assert max(counts) <= tight.tokens
    assert 3 == len(next(iter(vendor.made.values())).outcomes)
    assert 10 * TAKEN == tight.used().tokens


def test_spent_budget_stops_the_job_and_a_larger_one_continues(vendor, tmp_path, budget):
    """What was paid is written."""
    path = tmp_path / "out.jsonl"
    with pytest.raises(rxllm.LimitReached, match="is spent"):
        batched(vendor, ROWS, path, budget(EACH + 2 * TAKEN + 1))
    assert 3 == vendor.paid.total() == len(list(rxllm.Journal(path).results()))
    assert 7 == len(batched(vendor, ROWS, path, budget(10_000)))
    assert PAID == vendor.paid
    assert 10 * TAKEN == budget(1).used().tokens


def test_rows_that_were_not_answered_take_nothing(vendor, tmp_path, budget):
    """Those that expired are sent again; those that were refused have failed."""
    vendor.expiring, vendor.refusing = 3, ("p9",)
    plenty = budget(10_000)
    batched(vendor, ROWS, tmp_path / "out.jsonl", plenty)
    assert 9 == vendor.paid.total()
    assert 9 * TAKEN == plenty.used().tokens


def test_refused_batch_gives_back_all(vendor, tmp_path, budget):
    """Rows are sent again when the vendor's queue has room."""
    vendor.room = 4
    plenty = budget(10_000)
    batched(vendor, ROWS, tmp_path / "out.jsonl", plenty)
    assert PAID == vendor.paid
    assert 10 * TAKEN == plenty.used().tokens


def test_failed_upload_gives_back_all(vendor, tmp_path, budget):
    """No record says that the batch has a reservation."""
    plenty = budget(10_000)
    with pytest.MonkeyPatch.context() as patch:

        async def fail(*arguments):
            raise rxllm.RxllmError("no")

        patch.setattr(vendor.api, "upload", fail)
        with pytest.raises(rxllm.RxllmError, match="no"):
            batched(vendor, ROWS, tmp_path / "out.jsonl", plenty)
    wait_until(lambda: plenty.used().tokens == 0)  # a thread may have to give back what its caller wants no more


def test_answer_without_a_usage_takes_its_share(vendor, tmp_path, budget):
    """It is paid, but how much is not known."""
    vendor.odd = ("p1",)
    plenty = budget(10_000)
    batched(vendor, ROWS[:4], tmp_path / "out.jsonl", plenty)
    assert 3 * TAKEN + EACH == plenty.used().tokens


def test_next_run_counts_what_is_in_flight_and_settles_it(vendor, tmp_path, budget):
    """A job that ends before its batch leaves the reservation; the run that reads the batch settles it, once."""
    path, limited = tmp_path / "out.jsonl", budget(5 * EACH)
    vendor.looks = 10**9
    job = rxllm.job(model(vendor, limited), rxllm.Journal(path), via="batch-api")
    leaving = rxllm.from_iter(ROWS[:4]).pipe(job).subscribe()
    wait_until(lambda: any(intent.batch for intent in Intents(path).open()))
    leaving.dispose()
    assert 4 * EACH == budget(1).used().tokens
    with pytest.raises(rxllm.LimitReached):
        batched(vendor, [{"prompt": f"other {number}"} for number in range(20)], tmp_path / "b.jsonl", budget(4 * EACH))
    for batch in vendor.made.values():
        batch.looks = 1
    vendor.looks = 1

    def closed():
        try:
            rxllm.Journal(path).open().close()
        except rxllm.MisuseError:
            return False
        return True

    wait_until(closed)
    batched(vendor, ROWS, path, limited)
    assert PAID == vendor.paid
    assert 10 * TAKEN == budget(1).used().tokens
    batched(vendor, ROWS, path, limited)
    assert 10 * TAKEN == budget(1).used().tokens


@pytest.fixture
def full_disk(monkeypatch):
    """A block in which the ends of batches cannot be written."""
    write = Intents.write

    def full(intents, intent):
        if intent.ended:
            raise OSError(28, "No space left on device")
        write(intents, intent)

    @contextlib.contextmanager
    def block():
        with monkeypatch.context() as patch:
            patch.setattr(Intents, "write", full)
            yield

    return block


def test_end_that_cannot_be_written_is_settled_by_the_next_run(vendor, tmp_path, budget, full_disk):
    """Once: a reservation that is given back twice would let the job take more than its budget."""
    path, plenty = tmp_path / "out.jsonl", budget(10_000)
    with full_disk(), contextlib.suppress(OSError):
        batched(vendor, ROWS[:4], path, plenty)
    assert 4 * EACH == plenty.used().tokens
    batched(vendor, ROWS, path, plenty)
    assert PAID == vendor.paid
    assert 10 * TAKEN == plenty.used().tokens


def test_rows_do_not_wait_for_a_batch_whose_end_cannot_be_written(vendor, tmp_path, budget, full_disk):
    """It gives nothing back in this run."""
    with full_disk(), pytest.raises((OSError, rxllm.LimitReached)):
        batched(vendor, ROWS, tmp_path / "out.jsonl", budget(4 * EACH + 1))


def test_answers_arrive_though_the_budget_cannot_be_written(vendor, tmp_path, budget, monkeypatch, caplog):
    """They are paid. The reservation stays, and the log says so."""
    plenty = budget(10_000)

    def full(*arguments):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(rxllm.Budget, "settle", full)
    assert 4 == len(batched(vendor, ROWS[:4], tmp_path / "out.jsonl", plenty))
    assert 4 * EACH == plenty.used().tokens
    assert "counts an estimate of a batch" in caplog.text


def test_several_budgets_are_refused(vendor, budget):
    """A batch would have to reserve in all of them."""
    llm = rxllm.budgeted(model(vendor, budget(1)), budget(2))
    with pytest.raises(rxllm.MisuseError, match="counts in one budget"):
        rxllm.job(llm, rxllm.Journal("out.jsonl"), via="batch-api")
