"""`job`: each row is asked once, and what happens when rows or answers are wrong."""

import asyncio
import itertools
import json
import queue
import threading

import pytest
import reactivex as rx
from job_models import Echo, held, run
from reactivex import operators as ops
from reactivex.scheduler import ImmediateScheduler
from reactivex.subject import Subject

import rxllm
from rxllm import Message
from rxllm.combinators.asked import Asked
from rxllm.jobs.models import digest_of
from rxllm.jobs.rows import prompt_of
from rxllm.testing import FakeServer, Reply
from rxllm.values.request import Request


class Counting(rxllm.LLM):
    """Counts what it is asked, and how many requests run at once."""

    async def complete(self, request):
        """Return the prompt after a turn of the loop."""
        ASKED.append(request.text)
        RUNNING.append(RUNNING[-1] + 1)
        await asyncio.sleep(0)
        RUNNING.append(RUNNING[-1] - 1)
        if request.text == "denied":
            raise rxllm.AuthenticationError("The key is wrong.", status=401)
        if request.text == "tomorrow":
            raise rxllm.RateLimited("You reached the limit of a day.", status=429, retry_after=3600)
        if request.text == "soon":
            raise rxllm.Overloaded("Try again in a minute.", status=503, retry_after=60)
        if request.text.startswith("bad"):
            raise rxllm.BadRequest("bad", status=400)
        return request.text.upper()


ASKED, RUNNING = [], []


@pytest.fixture(autouse=True)
def _nothing_asked():
    ASKED.clear()
    while not BEGUN.empty():
        BEGUN.get()
    REFUSED.clear()
    RUNNING[:] = [0]


@pytest.fixture
def path(tmp_path):
    """The path of a journal."""
    return tmp_path / "out.jsonl"


def test_rows_are_answered_once_over_several_runs(path):
    """A run asks for what the runs before it have not answered."""
    rows = [f"p{number}" for number in range(30)]
    assert 10 == len(run(rows[:10], path, Counting(), concurrency=4))
    assert 20 == len(run(rows, path, Counting(), concurrency=4))
    assert [] == run(rows, path, Counting(), concurrency=4)
    assert sorted(rows) == sorted(ASKED)
    assert 4 == max(RUNNING)
    assert sorted(row.upper() for row in rows) == sorted(held(path).values())


def test_order_of_the_rows_may_change_between_runs(path):
    """A row without an id is found by its request; equal rows are as many as they are."""
    run(["a", "b", "a", "c"], path, Counting())
    assert ["D"] == [result.text for result in run(["c", "a", "d", "b", "a"], path, Counting())]
    assert ["A"] == [result.text for result in run(["a", "a", "a"], path, Counting())]


def test_row_with_another_request_under_its_id_is_refused(path):
    """The journal's answer would belong to another question: of the row, the model or a parameter."""
    run([{"custom_id": "1", "prompt": "a"}], path)
    with pytest.raises(rxllm.MisuseError, match=r"Row 1 .* result of '1' for another request"):
        run([{"custom_id": "1", "prompt": "b"}], path)
    with pytest.raises(rxllm.MisuseError, match="another request"):
        run([{"custom_id": "1", "prompt": "a"}], path, rxllm.retry(Echo(temperature=0.5)))
    with pytest.raises(rxllm.MisuseError, match="another request"):
        run([{"custom_id": "1", "prompt": "a"}], path, Counting())


def test_key_and_wrapping_of_a_model_may_change(path):
    """A new API key, a retry or a limiter does not make another request."""
    rows = [{"custom_id": "1", "prompt": "a"}]
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
    with FakeServer(Reply.json(answer)) as server:
        first = rxllm.OpenAI("m", api_key="a", api="chat", base_url=server.url)
        other = rxllm.OpenAI("m", api_key="b", api="chat", base_url=f"{server.url}/v2")
        assert ["hi"] == [result.text for result in run(rows, path, first)]
        assert [] == run(rows, path, rxllm.retry(rxllm.limited(other, rxllm.Limiter(concurrency=3)), 4))


def test_row_without_the_named_column_is_refused(path):
    """A wrong name of the column would name all rows by digests in silence."""
    with pytest.raises(
        rxllm.MisuseError, match="Row 1 of the input: The row has no column 'kez' for its id; its columns"
    ):
        run([{"key": "a", "prompt": "x"}], path, id="kez")
    assert ["a"] == [result.id for result in run([{"key": "a", "prompt": "x"}], path, id="key")]


def test_two_rows_with_one_id_are_refused(path):
    """One of them would be lost."""
    with pytest.raises(rxllm.MisuseError, match="Row 3 of the input: The id 'x' came before"):
        run([{"custom_id": "x", "prompt": "a"}, "b", {"custom_id": "x", "prompt": "c"}], path)
    assert {"a", "b"} == set(held(path).values())


ASK = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    ("column", "prompt"),
    [
        (json.dumps([ASK]), (Message("user", "a"),)),
        ("[1] is a citation", "[1] is a citation"),
        ([ASK], (Message("user", "a"),)),
    ],
)
def test_messages_of_a_table_are_json_text(column, prompt):
    """As in a CSV file. Any other text is the prompt."""
    assert prompt == Request.ask(prompt_of({"messages": column})).prompt


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"text": "a"}, "neither a column 'messages' nor 'prompt'; its columns are text"),
        ({"prompt": None, "text": "a"}, "The row has no value in its column 'prompt'"),
        ({"custom_id": 1.5, "prompt": "a"}, "custom_id of a row must be text"),
        ({"custom_id": "\ud800", "prompt": "a"}, "half a character"),
        ({"body": {"messages": []}}, "at least one message"),
        ({"body": {"messages": ["a"]}}, "must be an object"),
        ({"url": "/v1/embeddings", "body": {}}, "not for '/v1/embeddings'"),
        (
            {"body": {"messages": [ASK], "max_tokens": 5, "max_completion_tokens": 9}},
            "two values for one parameter: max_tokens 5 and max_completion_tokens 9. Keep one of them.",
        ),
        (3, "A prompt must be"),
        ({"body": {"messages": [ASK], "temperature": "hot"}}, "temperature"),
    ],
)
def test_wrong_row_is_named_and_the_answers_in_flight_are_written(path, row, sentence):
    """The error has the number of the row; the rows before it have their answers."""
    with pytest.raises(rxllm.MisuseError, match=rf"Row 3 of the input: .*{sentence}"):
        run(["a", "b", row, "c"], path, Counting(), concurrency=2)
    assert {"A", "B"} == set(held(path).values())


def test_rows_that_raise_end_the_job_after_the_answers_in_flight(path):
    """A broken source of rows costs no paid answer."""

    def rows():
        yield from "abc"
        raise ValueError("The cursor is closed.")

    with pytest.raises(ValueError, match="cursor"):
        run(rows(), path)
    assert {"a", "b", "c"} == set(held(path).values())


def test_bad_row_of_many_fails_alone(path):
    """Its failure is recorded, its siblings are answered, and it is asked again only on request."""
    rows = [*(f"p{number}" for number in range(50)), "bad", *(f"q{number}" for number in range(50))]
    results = run(rows, path, Counting(), concurrency=8)
    assert 101 == len(results)
    (failed,) = [result for result in results if result.answer is None]
    assert ("BadRequest", 400, 50) == (failed.failure.kind, failed.failure.status, failed.row)
    assert [] == run(rows, path, Counting())
    assert ["bad"] == [ASKED[-1] for _ in run(rows, path, Counting(), retry_failed=True)]


@pytest.mark.parametrize(
    "answer",
    [
        rxllm.Message("assistant", "\ud800"),
        rxllm.Message("assistant", [rxllm.RawPart("mine", {"value": object()})]),
        rxllm.Message("assistant", [rxllm.RawPart("mine", {"value": float("nan")})]),
        rxllm.Message("assistant", "x", logprobs={"content": [{"logprob": float("-inf")}]}),
        rxllm.Message("assistant", "x", usage=rxllm.Usage(input_tokens=object())),
    ],
)
def test_answer_that_json_cannot_express_is_the_failure_of_its_row(path, tmp_path, answer):
    """The rows after it are answered, the next run does not ask for it again, and the policy counts it."""

    class Odd(rxllm.LLM):
        async def complete(self, request):
            ASKED.append(request.text)
            return answer if request.text == "odd" else request.text

    failed, *others = run(["odd", "a", "b"], path, Odd(), concurrency=1)
    assert (None, "MisuseError") == (failed.answer, failed.failure.kind)
    assert "can't be written as JSON" in failed.failure.message
    assert ["a", "b"] == [result.text for result in others]
    assert {"", "a", "b"} == set(held(path).values())
    assert [] == run(["odd", "a", "b"], path, Odd())
    assert ["odd", "a", "b"] == ASKED
    with pytest.raises(rxllm.LimitReached, match="1 of 1 rows failed"):
        run(["odd", "a", "b"], tmp_path / "stopped.jsonl", Odd(), concurrency=1, on_error="stop")


def test_failure_whose_words_are_half_characters_is_written(path):
    """They are escaped."""

    class Odd(rxllm.LLM):
        async def complete(self, request):
            raise ValueError("\ud800")

    (failed,) = run(["a"], path, Odd())
    assert "\\ud800" == failed.failure.message
    assert [failed] == list(rxllm.Journal(path).results())


def test_failures_stop_the_job_by_its_policy(path, tmp_path):
    """``stop`` stops at the first failure, a share when more rows failed; the results stay."""
    rows = ["a", "bad", *map(str, range(100))]
    with pytest.raises(rxllm.LimitReached, match="1 of 2 rows failed") as error:
        run(rows, path, Counting(), concurrency=1, on_error="stop")
    assert "errors" == error.value.limit
    assert {"A", ""} == set(held(path).values())
    bad = [f"bad {number}" if number % 5 == 4 else str(number) for number in range(100)]
    with pytest.raises(rxllm.LimitReached, match="2 of 10 rows failed"):
        run(bad, tmp_path / "share.jsonl", Counting(), concurrency=1, on_error=0.1)
    assert 100 == len(run(bad, tmp_path / "fine.jsonl", Counting(), concurrency=1, on_error=0.3))


@pytest.mark.parametrize("row", ["denied", "tomorrow"])
def test_error_that_every_row_would_get_stops_the_job_and_is_not_recorded(path, row):
    """A wrong key must not mark a million rows as failed, nor a limit whose end is longer away than a retry waits."""
    with pytest.raises((rxllm.AuthenticationError, rxllm.RateLimited)):
        run(["soon", "a", row, *map(str, range(100))], path, Counting(), concurrency=1)
    assert ["", "A"] == sorted(held(path).values())  # "soon" has failed
    assert len(ASKED) <= 5


def test_equal_requests_are_asked_once_if_they_may_be(path):
    """While one is in flight, after it is written, and in a later run; each row gets a result of its own."""
    rows = [{"custom_id": str(number), "prompt": f"p{number % 3}"} for number in range(30)]
    assert 30 == len(run(rows, path, Counting(), concurrency=8, dedupe=True))
    assert {row["custom_id"]: row["prompt"].upper() for row in rows} == held(path)
    assert ["P1"] == [result.text for result in run([*rows, "p1"], path, Counting(), dedupe=True)]
    assert 3 == len(ASKED)
    run(["p1"] * 4, path.with_name("other.jsonl"), Counting())
    assert 7 == len(ASKED)


def test_failure_of_equal_requests_is_the_failure_of_each(path):
    """And they are asked again together."""
    assert 4 == len(run(["bad"] * 4, path, Counting(), dedupe=True))
    assert 1 == len(ASKED)
    assert 4 == len(run(["bad"] * 4, path, Counting(), dedupe=True, retry_failed=True))
    assert 2 == len(ASKED)


def test_request_that_comes_again_carries_the_same_idempotency_key(path):
    """After a crash the key is the same; another row, and another attempt after a failure, have another one."""
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
    keys = []

    def reply(received):
        keys.append(received.headers["idempotency-key"])
        return Reply.json({"error": {"message": "no"}}, status=400) if len(keys) in (2, 4) else Reply.json(answer)

    with FakeServer(reply) as server:
        llm = rxllm.retry(rxllm.OpenAI("m", api_key="a", api="chat", base_url=server.url))
        rows = [{"custom_id": "1", "prompt": "a"}, {"custom_id": "2", "prompt": "a"}]
        run(rows, path, llm, concurrency=1)
        run(rows, path, llm, concurrency=1, retry_failed=True)
        path.write_bytes(path.read_bytes()[:-9])  # the last result is lost, as in a crash
        run(rows, path, llm, concurrency=1, retry_failed=True)
    first, second, again, after_crash = keys
    assert after_crash == again
    assert 3 == len({first, second, again})
    assert 255 >= len(first)


def test_spent_budget_stops_the_job_and_is_not_recorded(path, tmp_path):
    """What the budget has paid is written, and a larger budget continues."""
    usage = rxllm.Usage(input_tokens=10, output_tokens=10)

    class Dear(rxllm.LLM):
        async def complete(self, request):
            ASKED.append(request.text)
            return rxllm.Message("assistant", "x", usage=usage)

    def budgeted(tokens):
        budget = rxllm.Budget(tmp_path / "budget.sqlite", tokens=tokens, period=None)
        return rxllm.budgeted(Dear(), budget).bind(max_tokens=19)

    rows = [f"p{number}" for number in range(20)]
    with pytest.raises(rxllm.LimitReached, match="budget"):
        run(rows, path, budgeted(100), concurrency=8)
    assert 5 >= len(held(path)) >= 4
    assert len(ASKED) == len(held(path))
    assert 20 - len(ASKED) == len(run(rows, path, budgeted(10_000), concurrency=8))


class Refusing(rxllm.Budget):
    """A budget that tells when it has refused a request."""

    def reserve(self, wanted):
        """Reserve, or set the event."""
        try:
            return super().reserve(wanted)
        except rxllm.LimitReached:
            REFUSED.set()
            raise


BEGUN, REFUSED = queue.SimpleQueue(), threading.Event()


class Cheap(rxllm.LLM):
    """Takes fewer tokens than were reserved, and answers once the budget has refused another request."""

    async def complete(self, request):
        """Return the prompt."""
        ASKED.append(request.text)
        BEGUN.put(request.text)
        await asyncio.to_thread(REFUSED.wait)
        return rxllm.Message("assistant", request.text, usage=rxllm.Usage(input_tokens=5, output_tokens=5))


def test_rows_wait_while_the_budget_is_only_reserved(path, tmp_path):
    """Each row reserves more than it takes, so that one at a time fits. The job ends when one more cannot fit."""
    budget = Refusing(tmp_path / "budget.sqlite", tokens=100, period=None)
    rows = [f"p{number}" for number in range(9)]
    llm = rxllm.limited(rxllm.budgeted(Cheap(max_tokens=59), budget), rxllm.Limiter(concurrency=8))
    with pytest.raises(rxllm.LimitReached, match="50 are used"):
        run(rows, path, llm, concurrency=8)
    assert 5 == len(held(path)) == len(ASKED)  # the sixth would have 50 + 60 tokens


def test_rows_that_fit_together_run_together_when_a_larger_one_has_settled(path, tmp_path):
    """What one row gives back may be enough for several, though another one still runs."""
    together = asyncio.Event()

    class Meeting(Cheap):
        async def complete(self, request):
            answer = await super().complete(request)
            if request.text != "large":
                RUNNING.append(RUNNING[-1] + 1)
                if RUNNING[-1] == 4:
                    together.set()
                await together.wait()
            return answer

    def row(text, tokens):
        return {"body": {"messages": [{"role": "user", "content": text}], "max_tokens": tokens}}

    def rows():
        yield from (row("large", 80), row("small", 5))
        assert {"large", "small"} == {BEGUN.get(), BEGUN.get()}  # both have their reservations
        yield from "abc"

    budget = Refusing(tmp_path / "budget.sqlite", tokens=100, period=None)
    assert 5 == len(run(rows(), path, rxllm.budgeted(Meeting(max_tokens=20), budget)))


def test_request_within_one_that_holds_the_budget_does_not_wait_for_it(path, tmp_path):
    """It would wait for ever."""
    budget = Refusing(tmp_path / "budget.sqlite", tokens=100, period=None)
    with pytest.raises(rxllm.LimitReached, match="is spent"):
        run(["a", "b"], path, rxllm.budgeted(rxllm.budgeted(Cheap(max_tokens=59), budget), budget))
    assert [] == ASKED


def test_ended_rows_let_the_answers_in_flight_arrive(path):
    """Ending the rows with take_until is how a program stops a job without losing paid answers."""
    stop = Subject()

    class Stopping(rxllm.LLM):
        async def complete(self, request):
            ASKED.append(request.text)
            if len(ASKED) == 5:
                stop.on_next(None)
            await asyncio.sleep(0)
            return request.text

    rows = rxllm.from_iter(map(str, itertools.count())).pipe(ops.take_until(stop))
    with rows.pipe(rxllm.job(Stopping(), rxllm.Journal(path), concurrency=5), rxllm.stream()) as results:
        answered = [result.text for result in results]
    assert sorted(ASKED) == sorted(answered) == sorted(held(path).values())
    assert len(ASKED) <= 6


def test_digest_of_a_request_is_the_same_in_each_version():
    """Else the journals of earlier versions could not be continued."""
    models = rxllm.fallback(rxllm.OpenAI("a", seed=3), rxllm.Anthropic("b").bind(temperature=0.5))
    llm = models.bind(max_tokens=7, extra={"z": 1})
    of = "4ecddd93c138d4861682a9cd512ea4e70e9f6570cd81bf121b5aee43ea348b5e"
    assert of == digest_of(Asked(llm), rxllm.Request.ask("hi", llm.parameters))


def test_rows_are_pulled_only_when_their_requests_can_start(path):
    """A source of a million rows is not read ahead."""
    pulled = []

    def rows():
        for number in itertools.count():
            pulled.append(number)
            yield str(number)

    with rxllm.from_iter(rows).pipe(rxllm.job(Counting(), rxllm.Journal(path), concurrency=4), rxllm.stream()) as job:
        first = next(job)
        assert first.text
    assert len(pulled) < 200  # the 64 results that the stream buffers, and what is in flight


async def test_job_works_on_an_event_loop_and_closes_its_file_when_it_is_disposed(path):
    """After ``aclose`` another job may open the journal."""
    rows = rxllm.from_iter(map(str, itertools.count()))
    async with rows.pipe(rxllm.job(Counting(), rxllm.Journal(path)), rxllm.astream()) as results:
        assert (await anext(results)).text == "0"
    with rxllm.Journal(path).open() as file:
        assert len(file) >= 1


@pytest.mark.parametrize("is_disposed", [False, True])
def test_job_ends_though_python_starts_no_thread_any_more(path, tmp_path, monkeypatch, is_disposed):
    """As at the end of a process on Python 3.12.1. The threads that exist open the files and close them."""
    rxllm.Embedded().invoke("hi")  # starts the background loop
    heard, begun = queue.SimpleQueue(), threading.Event()

    class Waiting(rxllm.LLM):
        async def complete(self, request):
            begun.set()
            if is_disposed:
                await asyncio.Event().wait()
            return request.text

    def fail(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", fail)
    llm = rxllm.budgeted(Waiting(), rxllm.Budget(tmp_path / "budget.sqlite", tokens=10_000))
    job = rx.from_(["a", "b"]).pipe(rxllm.job(llm, rxllm.Journal(path), concurrency=1))
    subscription = job.subscribe(lambda result: heard.put(result.text), heard.put, lambda: heard.put("|"))
    begun.wait()
    if is_disposed:
        subscription.dispose()
    else:
        assert ["a", "b", "|"] == [heard.get(), heard.get(), heard.get()]
    with rxllm.Journal(path).open() as file:  # it waits for the lock of the job
        assert len(file) == (0 if is_disposed else 2)


def at_once(function):
    """As `from_thread`, but the function runs within `subscribe`."""
    return rx.from_iterable([None], ImmediateScheduler()).pipe(ops.map(lambda _: function()))


def test_job_goes_on_though_its_journal_is_open_before_subscribe_returns(path, monkeypatch):
    """The event loop's thread may be that much faster. The subscription to the opening must not end what follows."""
    heard = queue.SimpleQueue()
    monkeypatch.setattr("rxllm.jobs.job.from_thread", at_once)
    job = rx.from_(["a"]).pipe(rxllm.job(Echo(), rxllm.Journal(path)))
    job.subscribe(lambda result: heard.put(result.text), heard.put, lambda: heard.put("|"))
    assert ["a", "|"] == [heard.get(timeout=60), heard.get(timeout=60)]


def test_template_is_filled_with_the_columns(path):
    """Columns that it does not name are left out, and a missing one is named."""
    rows = [{"custom_id": "1", "text": "tea", "other": 3}]
    assert ["Translate: tea"] == [result.text for result in run(rows, path, prompt="Translate: {text}")]
    with pytest.raises(rxllm.MisuseError, match=r"no value for \{text\}; its columns are word"):
        run([{"word": "a"}], path, prompt="Translate: {text}")
    assert ["3!"] == [result.text for result in run([{"n": 3}], path, prompt=lambda row: f"{row['n']}!")]
    with pytest.raises(KeyError) as caught:
        run([{"n": 3}, {}], path, prompt=lambda row: f"{row['n']}!")
    assert ["Row 2 of the input."] == caught.value.__notes__


def test_lines_of_openais_batch_input_are_rows(path):
    """The parameters of a body win, unknown fields are sent as they are, and the developer role is the system's."""
    seen = []

    class Seeing(rxllm.LLM):
        async def complete(self, request):
            seen.append(request)
            return "ok"

    body = {
        "model": "m",
        "messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "max_completion_tokens": 5,
        "max_tokens": 5,
        "service_tier": "flex",
        "stream": True,
        "response_format": {"type": "text"},
    }
    row = {"custom_id": "r1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    (result,) = run([row], path, Seeing(max_tokens=9, temperature=1))
    (request,) = seen
    assert ("r1", "ok") == (result.id, result.text)
    assert ("m", 5, 1, False) == (request.model, request.max_tokens, request.temperature, request.stream)
    assert {"service_tier": "flex"} == request.extra
    assert ["system", "user"] == [message.role for message in request.messages]
    assert request.response_format is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("x", "journal"), "job takes a model"),
        ((Echo(), "out.jsonl"), "job takes a Journal"),
        ((Echo(), "journal", {"on_error": "skip"}), "on_error must be"),
        ((Echo(), "journal", {"on_error": 2}), "on_error must be"),
        ((Echo(), "journal", {"concurrency": 0}), "max_concurrency must be"),
        ((Echo(), "journal", {"prompt": "{a b}"}), "which is not a variable"),
    ],
)
def test_wrong_arguments_are_refused(path, arguments, sentence):
    """Before anything is subscribed."""
    llm, journal, *options = arguments
    with pytest.raises(rxllm.MisuseError, match=sentence):
        rxllm.job(llm, rxllm.Journal(path) if journal == "journal" else journal, **dict(*options))
    assert not path.exists()
