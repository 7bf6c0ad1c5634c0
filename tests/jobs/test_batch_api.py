"""A job by the batch APIs of vendors, with servers written by hand: no row is paid twice, wherever the job dies."""

import asyncio
import contextlib
import os
import types

import attrs
import pytest
from fake_batches import PAID, ROWS, VENDORS, WHOLE, FakeAnthropic, FakeGemini, FakeGeminiFiles, FakeOpenAI, hasten
from job_models import held, run

import rxllm
from rxllm.jobs import patience
from rxllm.jobs.intents import Intent, Intents, Noted
from rxllm.jobs.journal import OpenJournal
from rxllm.providers.batch_values import Lost
from rxllm.testing import End, FakeServer, Reply


@pytest.fixture(params=VENDORS, ids=lambda vendor: vendor.__name__)
def vendor(request, monkeypatch):
    """A vendor whose batches end at the second look, with four rows in a batch, and no pauses."""
    hasten(monkeypatch.setattr, request.param)
    with request.param() as vendor:
        yield vendor


def only(*vendors):
    """Run a test with these vendors."""
    return pytest.mark.parametrize("vendor", vendors, indirect=True, ids=lambda vendor: vendor.__name__)


WITH_STATES = only(FakeOpenAI, FakeGemini)  # they refuse a batch as a whole, after its creation


@pytest.fixture
def path(tmp_path):
    """The path of a journal."""
    return tmp_path / "out.jsonl"


def batched(vendor, rows, path, **options):
    """Run a job by the batch API."""
    return run(rows, path, vendor.model(), via="batch-api", **{"concurrency": 2, **options})


def test_rows_are_answered_in_batches_of_the_largest_size(vendor, path):
    """The results come in any order; the ids of the rows may be any text. The second run sends nothing."""
    assert 10 == len(batched(vendor, ROWS, path))
    assert WHOLE == held(path)
    assert PAID == vendor.paid
    assert [2, 4, 4] == sorted(len(batch.outcomes) for batch in vendor.made.values())
    sent = len(vendor.requests)
    assert [] == batched(vendor, ROWS, path)
    assert sent == len(vendor.requests)
    assert [] == Intents(path).open()


def test_same_journal_continues_the_other_way(vendor, path):
    """A row that a batch has answered is not in a stream."""
    batched(vendor, ROWS, path)
    assert [] == run(ROWS, path, vendor.model(base_url="http://127.0.0.1:9"))


def test_answers_have_the_usage_and_the_finish_reason_of_streams(vendor, path):
    """The responses in a batch are those of single requests."""
    batched(vendor, ROWS[:1], path)
    (result,) = rxllm.Journal(path).results()
    assert ("stop", 3, 5) == (
        result.answer.finish_reason,
        result.answer.usage.input_tokens,
        result.answer.usage.output_tokens,
    )


def test_expired_rows_form_the_next_batch(vendor, path):
    """What a batch did not answer in its time is sent again, and only that."""
    vendor.expiring = 3
    assert 10 == len(batched(vendor, ROWS, path))
    assert WHOLE == held(path)
    assert PAID == vendor.paid
    assert 4 == len(vendor.made)


def test_refused_row_fails_alone(vendor, path):
    """With the status of the vendor's error. It is not sent again."""
    vendor.refusing = ("p5",)
    batched(vendor, ROWS, path)
    (failed,) = [result for result in rxllm.Journal(path).results() if result.failure]
    assert ("row 5", 400) == (failed.id, failed.failure.status)
    assert "bad prompt" in failed.failure.message
    assert 9 == vendor.paid.total()
    assert 3 == len(vendor.made)


def test_row_at_which_the_server_fails_is_sent_again(vendor, path):
    """In the next batch, up to five times. Then its error is its result."""
    vendor.failing.update(p3=2, p6=9)
    batched(vendor, ROWS, path)
    failed = [result for result in rxllm.Journal(path).results() if result.failure]
    assert ["row 6"] == [result.id for result in failed]
    assert failed[0].failure.status in (500, 503)
    assert {**PAID, "p6": 0} == {**vendor.paid, "p6": vendor.paid["p6"]}
    assert 4 == vendor.failing["p6"]


def test_row_that_no_batch_answers_fails_after_five_batches(vendor, path, monkeypatch):
    """A vendor whose batches always expire ends the job."""
    original = vendor._made

    def expires(*arguments):
        vendor.expiring = 4
        return original(*arguments)

    monkeypatch.setattr(vendor, "_made", expires)
    (result,) = batched(vendor, ROWS[:1], path)
    assert "did not answer the request in 5 batches" in result.failure.message
    assert (5, 0) == (len(vendor.made), vendor.paid.total())


@WITH_STATES
def test_batch_that_is_refused_as_a_whole_stops_the_job(vendor, path):
    """At once. Its rows stay open, and the next run sends them."""
    vendor.refuses = ("mismatched_model", "The model of the batch is unknown")
    with pytest.raises(rxllm.RxllmError, match=r"refused the batch \S+: The model of the batch is unknown"):
        batched(vendor, ROWS, path, concurrency=1)
    assert [] == list(rxllm.Journal(path).results())
    assert [] == Intents(path).open()
    vendor.refuses = None
    assert 10 == len(batched(vendor, ROWS, path))
    assert WHOLE == held(path)
    assert PAID == vendor.paid


def test_creation_that_is_refused_stops_the_job(vendor, path, monkeypatch):
    """It is not looked for, and the next run sends the rows."""
    with monkeypatch.context() as patch:
        patch.setattr(vendor, "_create", lambda _: Reply.json({"error": {"message": "no such model"}}, status=400))
        with pytest.raises(rxllm.BadRequest, match="no such model"):
            batched(vendor, ROWS, path, concurrency=1)
    assert [] == Intents(path).open()
    assert 10 == len(batched(vendor, ROWS, path))


@pytest.mark.parametrize("loss", ["500", "cut", "reset", "page"])
def test_lost_response_to_the_creation_does_not_pay_twice(vendor, path, loss):
    """The batch is found, even if the list shows it late."""
    vendor.loses = [loss]
    vendor.looks = 3
    batched(vendor, ROWS, path)
    assert WHOLE == held(path)
    assert PAID == vendor.paid
    assert 3 == len(vendor.made)


def test_batch_that_the_list_shows_late_is_found(vendor, path, monkeypatch):
    """The search lasts for a time, during which the list may not show it."""
    monkeypatch.setattr("rxllm.jobs.confirming.GRACE", 60.0)
    vendor.loses, vendor.hidden = ["cut"], 3
    batched(vendor, ROWS[:4], path)
    assert {f"p{number}": 1 for number in range(4)} == vendor.paid


def test_creation_that_failed_is_repeated(vendor, path):
    """If the list does not show the batch."""
    vendor.drops = 2
    batched(vendor, ROWS, path)
    assert WHOLE == held(path)
    assert PAID == vendor.paid


def test_creation_that_always_fails_stops_the_job(vendor, path, monkeypatch):
    """With the vendor's error. The next run looks for the batch again."""
    monkeypatch.setattr("rxllm.jobs.confirming.FAILURES", 2)
    vendor.drops = 9
    with pytest.raises(rxllm.ProviderError, match="internal error"):
        batched(vendor, ROWS[:4], path)
    assert 6 == vendor.drops
    assert 1 == len(Intents(path).open())


TROUBLES = [
    Reply.json({"error": {"message": "slow down"}}, status=429, headers={"retry-after": "0"}),
    Reply.json({"error": {"message": "oh"}}, status=500),
    Reply([End.RST]),
    Reply([b'{"id":', End.FIN], content_type="application/json"),
    Reply.json({"error": {"message": "busy"}}, status=503),
]


def test_failures_between_are_waited_for(vendor, path):
    """Of the upload, of a look at a batch, of its results: the request is sent again, and nothing else."""
    vendor.looks = 2
    vendor.troubles = [trouble for trouble in TROUBLES for _ in range(4)]
    batched(vendor, ROWS, path, concurrency=3)
    assert WHOLE == held(path)
    assert PAID == vendor.paid
    assert [] == vendor.troubles


def test_vendor_that_does_not_answer_any_more_stops_the_job(vendor, path, monkeypatch):
    """The batches stay open, and the next run reads them."""
    monkeypatch.setattr("rxllm.jobs.patience.FAILURES", 3)

    def fail(_):
        vendor.troubles = [TROUBLES[1]] * 9
        return original(_)

    original = vendor._create
    with monkeypatch.context() as patch:
        patch.setattr(vendor, "_create", fail)
        with pytest.raises(rxllm.ProviderError, match="oh"):
            batched(vendor, ROWS[:4], path)
    vendor.troubles = []
    assert 4 == len(batched(vendor, ROWS[:4], path))
    assert 4 == vendor.paid.total()


@only(FakeOpenAI, FakeAnthropic, FakeGeminiFiles)
def test_results_that_lack_lines_are_read_again(vendor, path):
    """The vendor has counted more answers than the file has at first. Lines of errors do not count as answers."""
    vendor.lacks = 1
    vendor.failing.update(p0=1, p1=1, p4=1)
    batched(vendor, ROWS, path)
    assert WHOLE == held(path)
    assert PAID == vendor.paid


@only(FakeOpenAI, FakeAnthropic, FakeGeminiFiles)
def test_results_that_end_within_a_line_are_read_again(vendor, path, monkeypatch):
    """Also if the vendor does not count the answers."""
    original, cuts = vendor._results, [1, 1]

    def cut(batch):
        reply = original(batch)
        return Reply(reply.body[0][:-9], content_type="text/plain") if cuts and cuts.pop() else reply

    monkeypatch.setattr(vendor, "_results", cut)
    state = vendor.api.state

    async def without_count(api, batch):
        return attrs.evolve(await state(api, batch), answered=None)

    monkeypatch.setattr(vendor.api, "state", without_count)
    batched(vendor, ROWS, path)
    assert WHOLE == held(path)
    assert PAID == vendor.paid
    assert [] == cuts


def test_last_line_of_results_may_lack_its_end(vendor, path, monkeypatch):
    """It is whole JSON."""
    original = vendor._results

    def bare(batch):
        return Reply(original(batch).body[0].rstrip(), content_type="text/plain")

    monkeypatch.setattr(vendor, "_results", bare)
    batched(vendor, ROWS, path)
    assert PAID == vendor.paid


@only(FakeOpenAI, FakeAnthropic, FakeGeminiFiles)
def test_paid_row_without_a_result_fails_and_is_not_sent_again(vendor, path, monkeypatch):
    """The vendor counts an answer that its results lack. The user says whether to pay again."""
    monkeypatch.setattr(vendor, "_keeps", lambda outcome: "p2" != outcome[1])
    batched(vendor, ROWS[:4], path)
    (failed,) = [result for result in rxllm.Journal(path).results() if result.failure]
    assert "row 2" == failed.id
    assert "lack this row: the vendor has answered 4 rows, and sent 3" in failed.failure.message
    assert 4 == vendor.paid.total()
    assert [] == batched(vendor, ROWS[:4], path)
    monkeypatch.undo()
    hasten(monkeypatch.setattr, type(vendor))
    assert 1 == len(batched(vendor, ROWS[:4], path, retry_failed=True))
    assert 2 == vendor.paid["p2"]


def test_job_that_stops_at_the_batch_of_an_earlier_run_makes_none(vendor, path, monkeypatch):
    """The failure comes before the rows are read."""
    vendor.refusing = ("p0",)
    with dying(monkeypatch, vendor, "state", "before"):
        batched(vendor, ROWS[:4], path)
    with pytest.raises(rxllm.LimitReached, match="bad prompt"):
        batched(vendor, ROWS, path, on_error="stop")
    assert 1 == len(vendor.made)


def test_job_that_stops_at_an_earlier_batch_does_not_wait_for_the_others(vendor, path, monkeypatch):
    """They may take a day."""
    vendor.refusing = ("p0",)
    with dying(monkeypatch, vendor, "state", "before"):
        batched(vendor, ROWS[:4], path)
    vendor.looks = 10**9
    endless = vendor._made("", "", [(0, ("k", "p"))])
    Intents(path).write(Intent("a", 1.0, [Noted("k", "row 9", 9, "d", 1)], batch=endless.id))
    with pytest.raises(rxllm.LimitReached, match="bad prompt"):
        batched(vendor, ROWS, path, on_error="stop")
    assert [endless.id] == [intent.batch for intent in Intents(path).open()]


def test_job_that_stops_leaves_its_other_batches_at_the_vendor(vendor, path):
    """It does not wait for them for a day. The next run reads them."""
    vendor.refusing = ("p0",)
    with pytest.raises(rxllm.LimitReached, match="bad prompt"):
        batched(vendor, ROWS, path, on_error="stop", concurrency=3)
    batched(vendor, ROWS, path)
    assert {**WHOLE, "row 0": ""} == held(path)
    assert {**PAID, "p0": 0} == vendor.paid
    assert 3 == len(vendor.made)


def test_job_that_stops_at_a_row_sends_no_further_batch(vendor, path):
    """The rows before the bad one are open, and the next run sends them."""
    with pytest.raises(rxllm.MisuseError, match="Row 3"):
        batched(vendor, [*ROWS[:2], {"custom_id": "bad"}, *ROWS[3:]], path)
    assert {} == vendor.made


class Crash(Exception):
    """Stands for the end of the process."""


@contextlib.contextmanager
def dying(monkeypatch, vendor, step, when, turn=1):
    """Let a step of a job crash at one turn, the first by default, before or after its work."""
    is_record = step in ("intent", "confirmed", "ended")
    owner, name = (Intents, "write") if is_record else (vendor.api, step)
    original, calls = getattr(owner, name), []

    def at(moment):
        if moment == when:
            calls.append(1)
            if len(calls) == turn:
                raise Crash

    async def asked(api, *arguments):
        at("before")
        answer = await original(api, *arguments)
        at("after")
        return answer

    async def results(api, *arguments):
        at("before")
        async for outcome in original(api, *arguments):
            yield outcome
        at("after")

    def write(intents, intent):
        is_step = step == ("ended" if intent.ended else "confirmed" if intent.batch else "intent")
        if is_step:
            at("before")
        original(intents, intent)
        if is_step:
            at("after")

    with monkeypatch.context() as patch, contextlib.suppress(Crash):
        patch.setattr(owner, name, write if is_record else results if step == "results" else asked)
        yield
    assert len(calls) >= turn


@pytest.mark.parametrize("step", ["upload", "intent", "create", "confirmed", "state", "results", "ended"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_crash_at_any_step_pays_nothing_twice(vendor, path, monkeypatch, step, when):
    """The next run finds the batch that was made, and reads it."""
    with dying(monkeypatch, vendor, step, when):
        batched(vendor, ROWS[:4], path)
    batched(vendor, ROWS, path)
    assert WHOLE == held(path)
    assert PAID == vendor.paid
    assert [] == Intents(path).open()


@pytest.mark.parametrize("dies", [False, True])
def test_batch_of_rows_that_were_sent_before_is_not_taken_for_an_earlier_one(vendor, path, monkeypatch, dies):
    """It has the same rows as the earlier batch, at all of which the server has failed."""
    vendor.failing.update(p0=1, p1=1, p2=1, p3=1)
    vendor.looks = 3
    if dies:
        with dying(monkeypatch, vendor, "create", "after", 2):
            batched(vendor, ROWS[:4], path)
    else:
        vendor.loses = ["", "cut"]
    batched(vendor, ROWS[:4], path)
    assert {f"p{number}": 1 for number in range(4)} == vendor.paid
    assert 2 == len(vendor.made)


def test_batch_is_read_when_its_results_are_on_the_disk(vendor, path, monkeypatch):
    """A power failure in between must not lose them."""
    order = []
    flush, write = OpenJournal.flush, Intents.write
    monkeypatch.setattr(OpenJournal, "flush", lambda file: (order.append("flush"), flush(file)))
    monkeypatch.setattr(
        Intents, "write", lambda intents, intent: (order.append(intent.ended or "open"), write(intents, intent))
    )
    batched(vendor, ROWS[:4], path)
    assert ["open", "open", "flush", True] == order


@pytest.mark.parametrize("status", [408, 409])
def test_creation_with_an_unclear_status_is_looked_for(vendor, path, monkeypatch, status):
    """A gateway may have lost the response, or another request may be creating the batch."""
    create = vendor._create

    def lost(received):
        create(received)
        monkeypatch.setattr(vendor, "_create", create)
        return Reply.json({"error": {"message": "try again"}}, status=status)

    monkeypatch.setattr(vendor, "_create", lost)
    batched(vendor, ROWS[:4], path)
    assert 1 == len(vendor.made)


def test_vendor_decides_how_long_the_job_waits(monkeypatch):
    """It looks less and less often, and not before the time that the vendor names."""
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr(patience, "asyncio", types.SimpleNamespace(sleep=sleep))
    slow = rxllm.RateLimited("slow down", status=429, retry_after=90.0)
    for count, error in ((0, None), (1, None), (9, None), (0, slow), (9, slow)):
        asyncio.run(patience.pause(count, error))
    assert [30.0, 60.0, 300.0, 90.0, 300.0] == waits


def test_record_that_a_crash_cut_is_removed(vendor, path):
    """The batch was not made, since its record comes first."""
    Intents(path).path.write_bytes(b'{"tag":"x","at":1.0,"ro')
    assert 10 == len(batched(vendor, ROWS, path))
    assert [] == Intents(path).open()


def test_batch_that_the_vendor_has_deleted_is_named_with_the_ways_out(vendor, path):
    """It may also be one of another account, so its rows are not sent again before the user says so."""
    Intents(path).write(Intent("a", 1.0, batch="batch_7"))
    with pytest.raises(rxllm.RxllmError, match=r"no batch batch_7.*unknown.*Use the key.*remove '.*out.jsonl.batches'"):
        batched(vendor, ROWS, path)
    assert {} == vendor.made
    Intents(path).path.unlink()
    assert 10 == len(batched(vendor, ROWS, path))


@only(FakeOpenAI, FakeAnthropic, FakeGeminiFiles)
def test_deleted_results_are_named_with_the_ways_out(vendor, path, monkeypatch):
    """Vendors keep results for some weeks."""
    with dying(monkeypatch, vendor, "results", "before"):
        batched(vendor, ROWS[:4], path)
    for batch in vendor.made.values():
        batch.gone = True
    with pytest.raises(rxllm.RxllmError, match=r"no results of it any more.*remove '.*out.jsonl.batches'"):
        batched(vendor, ROWS, path)
    assert 1 == len(vendor.made)


def test_batches_of_another_vendor_are_not_looked_for(vendor, path):
    """The model of the command must be that of the earlier one."""
    Intents(path).write(Intent("a", 1.0, [Noted("k", "row 0", 0, "d", 1)], api="other"))
    with pytest.raises(rxllm.MisuseError, match=f"open batches at other, and this model is one of {vendor.name}"):
        batched(vendor, ROWS, path)
    assert [] == vendor.requests


def test_cancelled_batch_stops_the_job(vendor, path, monkeypatch):
    """What it had answered is written. The job does not pay for the rest against the will of who cancelled it."""
    original = vendor._look

    def cancel(name):
        if not vendor.cancelled:
            vendor._cancel(vendor.made[name])
        return original(name)

    monkeypatch.setattr(vendor, "_look", cancel)
    with pytest.raises(rxllm.RxllmError, match=r"was cancelled\. Its answers are in the journal; run the same job"):
        batched(vendor, ROWS[:4], path)
    assert {"row 0": "A p0"} == held(path)
    assert [] == Intents(path).open()
    assert 3 == len(batched(vendor, ROWS[:4], path))
    assert {f"p{number}": 1 for number in range(4)} == vendor.paid


@pytest.mark.parametrize("later", [False, True])
def test_full_queue_is_waited_for(vendor, path, later):
    """A batch that does not fit beside the others of the job is sent when one of them has ended."""
    vendor.fails_later = later
    vendor.room, vendor.looks = 4, 20
    batched(vendor, ROWS, path, concurrency=3)
    assert WHOLE == held(path)
    assert PAID == {prompt: count for prompt, count in vendor.paid.items() if count}
    creations = [path for method, path in vendor.requests if method == "POST" and "atch" in path]
    # Two are refused, and those that still wait again when a batch has ended, but not at each of the twenty looks.
    assert len(creations) <= 9


@pytest.mark.parametrize("later", [False, True])
def test_batch_that_is_too_large_for_the_queue_is_divided(vendor, path, later):
    """An account may have less room than one batch needs."""
    vendor.fails_later = later
    vendor.room = 1
    batched(vendor, ROWS, path, concurrency=1)
    assert WHOLE == held(path)
    assert PAID == {prompt: count for prompt, count in vendor.paid.items() if count}


@only(FakeOpenAI, FakeGemini)
@pytest.mark.parametrize("full", [False, True])
def test_batch_that_was_refused_after_the_crash(vendor, path, monkeypatch, full):
    """If only the queue was full, the next run sends its rows again; else it says why, and the one after it does."""
    with dying(monkeypatch, vendor, "state", "before"):
        batched(vendor, ROWS[:4], path)
    (made,) = vendor.made.values()
    code = {"openai": "token_limit_exceeded", "gemini": 8}[vendor.name] if full else 3
    made.refusal = (code, "no")
    vendor._unpay(made, "answered", "refused")
    made.looks = 0
    if not full:
        with pytest.raises(rxllm.RxllmError, match="refused the batch"):
            batched(vendor, ROWS, path)
    assert 10 == len(batched(vendor, ROWS, path))
    assert PAID == vendor.paid


def test_queue_that_stays_full_stops_the_job(vendor, path, monkeypatch):
    """With the vendor's sentence; nothing is left open."""
    monkeypatch.setattr("rxllm.jobs.room.REFUSALS", 2)
    vendor.room = 0
    with pytest.raises(rxllm.RxllmError, match=r"queue is full|Enqueued token limit"):
        batched(vendor, ROWS, path, concurrency=1)
    assert [] == Intents(path).open()
    assert 0 == vendor.paid.total()


def test_spent_quota_stops_the_job(vendor, path, monkeypatch):
    """A retry would not help."""
    error = {"error": {"message": "You exceeded your quota", "type": "insufficient_quota"}}
    creations = []

    def refuse(received):
        creations.append(received)
        return Reply.json(error, status=429)

    monkeypatch.setattr(vendor, "_create", refuse)
    with pytest.raises(rxllm.RateLimited, match="exceeded your quota"):
        batched(vendor, ROWS, path, concurrency=1)
    assert 1 == len(creations)


def test_rows_are_divided_by_their_size(vendor, path, monkeypatch):
    """A batch has at most so many bytes; a request that is larger is refused, with the row."""
    monkeypatch.setattr(vendor.api, "max_bytes", 900)
    rows = [{"custom_id": f"row {number}", "prompt": "p" * 300 + str(number)} for number in range(5)]
    batched(vendor, rows, path)
    assert 5 == len(held(path))
    assert len(vendor.made) >= 3
    with pytest.raises(rxllm.MisuseError, match=r"Row 6 of the input: The request has 1,\d\d\d bytes.* at most 900"):
        batched(vendor, [*rows, "p" * 1000], path)


def test_files_of_requests_are_read(vendor, tmp_path):
    """A path in a message becomes the content of its file."""
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    prompt = [rxllm.Message("user", [rxllm.FilePart("image/png", path=str(tmp_path / "a.png")), rxllm.TextPart("p")])]
    assert b"iVBORw0KGgo" in vendor.model().batches().line("k", rxllm.Request(prompt=prompt))


def test_shape_is_asked_for_by_the_field_for_schemas(vendor):
    """The answer's text is then the JSON. Another way would need to change the answer, so it is refused."""
    api = vendor.model().batches()
    assert b'"n"' in api.line("k", rxllm.Request(prompt="p", shape=Numbered))
    with pytest.raises(rxllm.MisuseError, match="only by the model's own field for JSON schemas"):
        api.line("k", rxllm.Request(prompt="p", shape=Numbered, shape_mode="prompted"))


def of_two_models(rows):
    """Return lines of OpenAI's batch input, for two models in turn."""
    for number, row in enumerate(rows):
        body = {"model": f"m{number % 2}", "messages": [{"role": "user", "content": row["prompt"]}]}
        yield {"custom_id": row["custom_id"], "body": body}


@only(FakeOpenAI, FakeGemini)
def test_rows_of_several_models_are_in_batches_of_their_own(vendor):
    """These vendors take one model a batch."""
    api = vendor.model().batches()
    assert ("m", "other") == (
        api.model_of(rxllm.Request(prompt="p")),
        api.model_of(rxllm.Request(prompt="p", model="other")),
    )


@only(FakeAnthropic)
def test_batch_may_have_several_models(vendor, path):
    """So rows in any order fill it."""
    batched(vendor, of_two_models(ROWS[:4]), path)
    assert 1 == len(vendor.made)


def test_event_loop_does_other_work_while_a_batch_is_read(path, monkeypatch):
    """The results of a large batch would block it for long."""
    hasten(monkeypatch.setattr, FakeAnthropic)
    monkeypatch.setattr(FakeAnthropic.api, "max_requests", 1000)
    turns, seen = 0, []

    async def count():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def main(vendor):
        counting, ended = asyncio.create_task(count()), asyncio.Event()
        rows = ({"custom_id": str(number), "prompt": f"p{number}"} for number in range(1000))
        job = rxllm.job(vendor.model(), rxllm.Journal(path), via="batch-api")
        rxllm.from_iter(rows).pipe(job).subscribe(
            lambda _: seen.append(turns), on_completed=ended.set, scheduler=rxllm.scheduler()
        )
        await ended.wait()
        counting.cancel()

    with FakeAnthropic() as vendor:
        asyncio.run(main(vendor))
        assert 1 == len(vendor.made)
    assert 10 == len({*seen})


@only(FakeOpenAI)
def test_rows_of_two_models_form_two_batches(vendor, path):
    """A file has requests for one model; the server checks it."""
    batched(vendor, of_two_models(ROWS), path)
    assert WHOLE == held(path)
    assert 4 == len(vendor.made)


@only(FakeOpenAI)
def test_server_without_metadata_finds_the_batch_by_its_file(vendor, path, monkeypatch):
    """Some compatible servers keep no metadata."""
    vendor.has_metadata = False
    with dying(monkeypatch, vendor, "create", "after"):
        batched(vendor, ROWS[:4], path)
    batched(vendor, ROWS, path)
    assert PAID == vendor.paid


@only(FakeAnthropic)
def test_batch_of_somebody_else_is_not_taken_for_the_lost_one(vendor, path, monkeypatch, caplog):
    """It has as many requests, and works when it is looked at. The job waits until the batch shows its requests."""
    vendor.looks = 9
    vendor._made("", "", [*enumerate((f"other-{number}", f"q{number}") for number in range(4))])
    with dying(monkeypatch, vendor, "create", "before"):
        batched(vendor, ROWS[:4], path)
    batched(vendor, ROWS, path)
    assert WHOLE == held(path)
    assert {**PAID, "q0": 1, "q1": 1, "q2": 1, "q3": 1} == vendor.paid
    assert "It may be msgbatch_0; this shows when that has ended" in caplog.text
    assert 1 == caplog.text.count("not confirmed")


@only(FakeAnthropic)
def test_batch_whose_results_are_gone_is_not_paid_again_unasked(vendor, path, monkeypatch):
    """It may be the lost one."""
    with dying(monkeypatch, vendor, "create", "after"):
        batched(vendor, ROWS[:4], path)
    vendor.made["msgbatch_0"].gone = True
    with pytest.raises(rxllm.RxllmError, match=r"msgbatch_0 may have the answers.*To pay for .* remove '.*batches'"):
        batched(vendor, ROWS[:4], path)
    assert 1 == len(vendor.made)


@only(FakeAnthropic)
def test_other_batches_of_the_job_are_not_waited_for(vendor):
    """They may take a day."""
    vendor.looks = 99
    vendor._made("", "", [(0, ("k", "p"))])
    api = vendor.model().batches()
    lost = Lost("", "", 0.0, {"key"})
    assert ("msgbatch_0",) == asyncio.run(api.find(lost)).undecided
    assert () == asyncio.run(api.find(attrs.evolve(lost, others={"msgbatch_0"}))).undecided


@only(FakeAnthropic)
def test_old_batches_are_not_looked_at(vendor, path, monkeypatch):
    """The list shows the newest batches first, and a lost one is not older than its record."""
    vendor._made("", "", [*enumerate((f"other-{number}", f"q{number}") for number in range(4))])
    for _ in range(5):
        vendor._made("", "", [(0, ("x", "x"))])
    old = vendor.made["msgbatch_0"]
    old.created_at = old.created_at.replace(year=2020)
    vendor.made["msgbatch_3"].created_at = old.created_at
    with dying(monkeypatch, vendor, "create", "before"):
        batched(vendor, ROWS[:4], path)
    vendor.requests.clear()
    batched(vendor, ROWS[:4], path)
    assert 2 == vendor.requests.count(("GET", "/v1/messages/batches"))
    assert ("GET", "/v1/messages/batches/msgbatch_0/results") not in vendor.requests


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.__name__)
def test_list_without_an_end_is_a_violation_of_the_protocol(vendor, monkeypatch):
    """A search must end."""
    monkeypatch.setattr("rxllm.providers.batches.PAGES", 3)
    page = {"data": [{"id": "a", "created_at": "2999-01-01T00:00:00Z"}], "has_more": True, "nextPageToken": "x"}
    with FakeServer(Reply.json(page)) as server:
        fake = object.__new__(vendor)
        fake.url = server.url
        with pytest.raises(rxllm.ProtocolError, match="more than 3 pages"):
            asyncio.run(fake.model().batches().find(Lost("", "", 0.0, {"key"})))
        assert 3 == len(server.requests)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"[1]\n", r"is no JSON object: \[1\]"),
        (b'{"custom_id": 7, "key": 7}\n', "answer has no (custom_id|key): {"),
    ],
)
@only(FakeOpenAI, FakeAnthropic, FakeGeminiFiles)
def test_results_that_are_none_stop_the_job(vendor, path, monkeypatch, line, sentence):
    """They are not asked for again, and nothing is paid again."""
    with monkeypatch.context() as patch:
        patch.setattr(vendor, "_results", lambda _: Reply(line, content_type="text/plain"))
        with pytest.raises(rxllm.ProtocolError, match=sentence):
            batched(vendor, ROWS[:4], path)
    assert 4 == len(batched(vendor, ROWS[:4], path))
    assert 1 == len(vendor.made)


@only(FakeOpenAI, FakeAnthropic, FakeGeminiFiles)
def test_results_with_what_json_lacks_are_read(vendor, path, monkeypatch):
    """Some servers write NaN."""
    original = vendor._results

    def with_nan(batch):
        return Reply(original(batch).body[0].replace(b"}\n", b', "score": NaN}\n'), content_type="text/plain")

    monkeypatch.setattr(vendor, "_results", with_nan)
    batched(vendor, ROWS, path)
    assert WHOLE == held(path)


@only(FakeOpenAI)
@pytest.mark.parametrize("error", [{"code": "odd", "message": "An odd failure"}, None])
def test_row_without_a_response_fails(vendor, path, monkeypatch, error):
    """With the error of its line, if it has one."""
    line = vendor._line
    monkeypatch.setattr(vendor, "_line", lambda *outcome: {**line(*outcome), "response": None, "error": error})
    (result,) = batched(vendor, ROWS[:1], path)
    assert ("An odd failure" if error else "The batch has no answer for this request.") == result.failure.message


def test_answer_that_is_none_is_the_failure_of_its_row(vendor, path):
    """It is paid, so that it is not asked for again."""
    vendor.odd = ("p1",)
    batched(vendor, ROWS[:4], path)
    (failed,) = [result for result in rxllm.Journal(path).results() if result.failure]
    assert ("row 1", "ProtocolError") == (failed.id, failed.failure.kind)
    assert 1 == len(vendor.made)


@only(FakeAnthropic)
def test_lost_batch_is_found_although_its_results_are_empty_at_first(vendor, path):
    """Each request has a result, so that the job looks again."""
    vendor.loses, vendor.lacks = ["cut"], 1
    batched(vendor, ROWS[:1], path)
    assert {"p0": 1} == vendor.paid


@only(FakeAnthropic)
def test_time_that_is_none_does_not_hide_a_batch(vendor):
    """It may be the lost one."""
    vendor._made("", "", [(0, ("key", "p"))])
    vendor.made["msgbatch_0"].looks = 0
    shown = vendor._shown
    vendor._shown = lambda batch: {**shown(batch), "created_at": "yesterday"}
    assert "msgbatch_0" == asyncio.run(vendor.model().batches().find(Lost("", "", 0.0, {"key"}))).batch


def test_link_to_a_journal_has_the_same_batches(tmp_path, path):
    """A job that continues by the link finds what it has paid."""
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    intent = Intent("a", 1.0, [Noted("k", "row 0", 0, "d", 1)])
    Intents(link).write(intent)
    assert [intent] == Intents(path).open()


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
    assert {"batch_0"} == intents.batches()


def test_foreign_file_of_batches_is_refused(vendor, path):
    """It is not overwritten."""
    Intents(path).path.write_bytes(b"a letter\n")
    with pytest.raises(rxllm.MisuseError, match="was not written by a job"):
        batched(vendor, ROWS, path)


@attrs.frozen
class Numbered:
    """A shape."""

    n: int


VERTEX = "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1/publishers/google"


@pytest.mark.parametrize(
    ("llm", "options", "sentence"),
    [
        (rxllm.Embedded(), {"via": "batch-api"}, "needs one model with a batch API"),
        (rxllm.OpenAI("m", api_key="k"), {"via": "batch-api", "dedupe": True}, "dedupe=True needs via='stream'"),
        (rxllm.OpenAI("m", api_key="k"), {"via": "post"}, "via must be"),
        (rxllm.OpenAI("m", api_key="k", server="deepseek"), {"via": "batch-api"}, "deepseek has no batch API"),
        (rxllm.Gemini("m", api_key="k", base_url=VERTEX), {"via": "batch-api"}, "batches of Vertex AI"),
    ],
)
def test_wrong_ways_are_refused(path, llm, options, sentence):
    """Before anything is subscribed."""
    with pytest.raises(rxllm.MisuseError, match=sentence):
        rxllm.job(llm, rxllm.Journal(path), **options)


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.__name__)
def test_errors_have_no_key(path, vendor):
    """A server that repeats the key in its error does not get it into the message."""
    with FakeServer(Reply.json({"error": {"message": "wrong key a-secret-key"}}, status=401)) as refusing:
        fake = object.__new__(vendor)
        fake.url = refusing.url
        with pytest.raises(rxllm.AuthenticationError) as error:
            run(ROWS, path, fake.model(), via="batch-api")
    assert "a-secret-key" not in f"{error.value} {error.value.body}"
