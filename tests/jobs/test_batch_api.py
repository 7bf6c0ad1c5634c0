"""A job by OpenAI's batch API, with a server written by hand: no row is paid twice, wherever the job dies."""

import contextlib
import os

import pytest
from fake_batches import FakeBatches
from job_models import held, run

import rxllm
from rxllm.jobs import batching
from rxllm.jobs.intents import Intent, Intents
from rxllm.providers._openai_batches import OpenAIBatches

ROWS = [{"custom_id": f"row {number}", "prompt": f"p{number}"} for number in range(10)]
WHOLE = {f"row {number}": f"A p{number}" for number in range(10)}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    """Look again at once, and let a batch hold four rows."""
    monkeypatch.setattr(batching, "POLL", (0.0,))
    monkeypatch.setattr(batching, "FIND", 0.0)
    monkeypatch.setattr(batching, "GRACE", 0.0)
    monkeypatch.setattr(OpenAIBatches, "max_requests", 4)


@pytest.fixture
def server():
    """A server whose batches end at once."""
    with FakeBatches() as server:
        yield server


@pytest.fixture
def path(tmp_path):
    """The path of a journal."""
    return tmp_path / "out.jsonl"


def batched(server, rows, path, **options):
    """Run a job by the batch API."""
    llm = rxllm.OpenAI("m", api_key="a-secret-key", base_url=server.url, max_tokens=7)
    return run(rows, path, llm, via="batch-api", **{"concurrency": 2, **options})


def test_rows_are_answered_in_batches_of_the_largest_size(server, path):
    """The results come in any order; the ids of the rows may be any text."""
    assert 10 == len(batched(server, ROWS, path))
    assert WHOLE == held(path)
    assert 3 == len(server.made)
    assert [] == batched(server, ROWS, path)
    assert 3 == len(server.made)
    assert [] == Intents(path).open()


def test_same_journal_continues_the_other_way(server, path):
    """A row that a stream has answered is not in a batch, and the other way round."""
    batched(server, ROWS, path)
    llm = rxllm.OpenAI("m", api_key="k", base_url="http://127.0.0.1:9", max_tokens=7)
    assert [] == run(ROWS, path, llm)


def test_expired_rows_form_the_next_batch(server, path):
    """What a batch did not answer in its time is sent again, and only that."""
    server.expiring = 3
    assert 10 == len(batched(server, ROWS, path))
    assert WHOLE == held(path)
    assert {f"p{number}": 1 for number in range(10)} == server.paid


def test_refused_row_fails_alone(server, path):
    """With the status and the code of the error file."""
    server.failing = ("p5",)
    batched(server, ROWS, path)
    (failed,) = [result for result in rxllm.Journal(path).results() if result.failure]
    assert ("row 5", 400, "bad") == (failed.id, failed.failure.status, failed.failure.code)
    assert 9 == server.paid.total()


def test_batch_that_is_refused_as_a_whole_stops_the_job(server, path):
    """Its rows stay open, and the next run sends them."""
    server.refuses = True
    with pytest.raises(rxllm.RxllmError, match="refused the batch batch_0: too many"):
        batched(server, ROWS, path, concurrency=1)
    assert [] == list(rxllm.Journal(path).results())
    server.refuses = False
    assert 10 == len(batched(server, ROWS, path))
    assert WHOLE == held(path)


def test_job_that_stops_at_the_batch_of_an_earlier_run_makes_none(server, path, monkeypatch):
    """The failure comes before the rows are read."""
    server.failing = ("p0",)
    dying = Dying("state", "before")
    with monkeypatch.context() as patch, contextlib.suppress(Crash):
        patch.setattr(dying.owner, dying.name, dying.replacement())
        batched(server, ROWS[:4], path)
    with pytest.raises(rxllm.LimitReached, match="bad prompt"):
        batched(server, ROWS, path, on_error="stop")
    assert 1 == len(server.made)


def test_lost_answer_to_the_creation_does_not_pay_twice(server, path):
    """The batch is found by its tag."""
    server.loses = 1
    batched(server, ROWS, path)
    assert WHOLE == held(path)
    assert {f"p{number}": 1 for number in range(10)} == server.paid


class Crash(Exception):
    """Stands for the end of the process."""


class Dying:
    """Replaces a step by one that crashes the first time, before or after its work."""

    def __init__(self, step, when):
        self.when = when
        self.is_file = step in ("made", "end")
        self.step = step
        self.owner = Intents if self.is_file else OpenAIBatches
        self.name = "write" if self.is_file else step
        self.original = getattr(self.owner, self.name)
        self.calls = 0

    def at(self, moment):
        """Crash, if it is the moment and the first time."""
        if moment == self.when:
            self.calls += 1
            if self.calls == 1:
                raise Crash

    def replacement(self):
        """Return the method that replaces the original."""

        async def asked(api, *arguments):
            self.at("before")
            answer = await self.original(api, *arguments)
            self.at("after")
            return answer

        async def results(api, file):
            self.at("before")
            async for outcome in self.original(api, file):
                yield outcome
            self.at("after")

        def write(intents, intent):
            is_step = intent.ended if self.step == "end" else bool(intent.batch)
            if is_step:
                self.at("before")
            self.original(intents, intent)
            if is_step:
                self.at("after")

        return write if self.is_file else results if self.step == "results" else asked


@pytest.mark.parametrize("step", ["upload", "create", "state", "results", "made", "end"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_crash_at_any_step_pays_nothing_twice(server, path, monkeypatch, step, when):
    """The next run finds the batch that was made, and reads it."""
    dying = Dying(step, when)
    with monkeypatch.context() as patch, contextlib.suppress(Crash):
        patch.setattr(dying.owner, dying.name, dying.replacement())
        batched(server, ROWS[:4], path)
    assert dying.calls >= 1
    batched(server, ROWS, path)
    assert WHOLE == held(path)
    assert {f"p{number}": 1 for number in range(10)} == server.paid
    assert [] == Intents(path).open()


def test_record_that_a_crash_cut_is_removed(server, path):
    """The batch was not made, since its record comes first."""
    Intents(path).path.write_bytes(b'{"tag":"x","at":1.0,"ro')
    assert 10 == len(batched(server, ROWS, path))
    assert [] == Intents(path).open()


def test_batch_that_the_vendor_has_deleted_is_named_with_the_ways_out(server, path):
    """It may also be one of another account, so its rows are not sent again before the user says so."""
    Intents(path).write(Intent("a", 1.0, batch="batch_7"))
    with pytest.raises(rxllm.RxllmError, match=r"no batch batch_7.*unknown.*Use the key.*remove '.*out.jsonl.batches'"):
        batched(server, ROWS, path)
    assert {} == server.made
    Intents(path).path.unlink()
    assert 10 == len(batched(server, ROWS, path))


def test_link_to_a_journal_has_the_same_batches(tmp_path, path):
    """A job that continues by the link finds what it has paid."""
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    Intents(link).write(Intent("a", 1.0))
    assert [Intent("a", 1.0)] == Intents(path).open()


def test_full_disk_leaves_no_part_of_a_record(path, monkeypatch):
    """So that the next record is a line of its own."""
    intents, write = Intents(path), os.write
    intents.write(Intent("a", 1.0))

    def fill(descriptor, data):
        if len(data) < 10:
            raise OSError(28, "No space left on device")
        return write(descriptor, bytes(data)[:-5])

    with monkeypatch.context() as patch:
        patch.setattr("rxllm.jobs.writing.os.write", fill)
        with pytest.raises(OSError, match="No space left"):
            intents.write(Intent("b", 2.0))
    intents.write(Intent("a", 1.0, batch="batch_0"))
    assert [Intent("a", 1.0, batch="batch_0")] == intents.open()


def test_foreign_file_of_batches_is_refused(server, path):
    """It is not overwritten."""
    Intents(path).path.write_bytes(b"a letter\n")
    with pytest.raises(rxllm.MisuseError, match="was not written by a job"):
        batched(server, ROWS, path)


@pytest.mark.parametrize(
    ("llm", "options", "sentence"),
    [
        (rxllm.Embedded(), {"via": "batch-api"}, "needs one model with a batch API"),
        (rxllm.OpenAI("m", api_key="k"), {"via": "batch-api", "dedupe": True}, "dedupe=True needs via='stream'"),
        (rxllm.OpenAI("m", api_key="k"), {"via": "post"}, "via must be"),
    ],
)
def test_wrong_ways_are_refused(path, llm, options, sentence):
    """Before anything is subscribed."""
    with pytest.raises(rxllm.MisuseError, match=sentence):
        rxllm.job(llm, rxllm.Journal(path), **options)


def test_errors_have_no_key(path):
    """A server that repeats the key in its error does not get it into the message."""
    from rxllm.testing import FakeServer, Reply

    with FakeServer(Reply.json({"error": {"message": "wrong key a-secret-key"}}, status=401)) as refusing:
        llm = rxllm.OpenAI("m", api_key="a-secret-key", base_url=refusing.url)
        with pytest.raises(rxllm.AuthenticationError) as error:
            run(ROWS, path, llm, via="batch-api")
    assert "a-secret-key" not in f"{error.value} {error.value.body}"
