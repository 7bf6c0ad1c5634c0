"""`job(…, workers=n)`: processes ask, and this process does everything else."""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import reactivex as rx
from commands import COMMAND, environment
from commands import openai as openai_environment
from job_models import PayingServer, block, fork_while_used, held, is_alive, run, workers_of
from relay_processes import CONTEXT, Process
from waiting import PATIENCE, wait_until
from worker_models import (
    ANSWERS,
    ERRORS,
    UNWRITABLE,
    USAGE,
    Calls,
    Fails,
    Holding,
    Mortal,
    Pid,
    Raises,
    Rich,
    Says,
    Words,
    choose,
    make_holding,
)

import rxllm
from rxllm.jobs.exchange import Ask, error_of_record, error_record, line, request_of_record, request_record, to_worker
from rxllm.testing import End, FakeServer, Reply, Signal

HERE = os.getpid()
ROOT = Path(rxllm.__file__).parents[1]
CONTEXT.set_forkserver_preload(["pytest", "relay_processes", "job_models"])  # unless the server runs already


@pytest.fixture
def path(tmp_path):
    """The path of a journal."""
    return tmp_path / "out.jsonl"


def pids(results):
    """Return the ids of the processes that answered."""
    return {int(result.text.split()[0]) for result in results}


def openai(server, **settings):
    """Return a model of the server."""
    return rxllm.OpenAI("m", api="chat", api_key="k", base_url=server.url, max_retries=0, **settings)


def lines(path):
    """Return the lines of a journal by their ids, without the times."""
    found = {}
    for each in map(json.loads, path.read_text("utf-8").splitlines()):
        if each["response"] is not None:
            each["response"]["body"].pop("created")
        found[each["custom_id"]] = each
    return found


# ── what is asked, and by whom ───────────────────────────────────────────────────────────────────────────────────


def test_rows_are_answered_by_as_many_processes_and_another_number_continues(path):
    """Each run asks for the rows that no run before it has answered, whatever the number of workers was."""
    rows = [f"p{number}" for number in range(40)]
    for count, workers in enumerate((1, 3, 0, 2), 1):
        added = run(rows[: count * 10], path, Pid(), workers=workers, concurrency=6)
        assert rows[count * 10 - 10 : count * 10] == sorted(result.text.split()[1] for result in added)
        assert max(workers, 1) == len(pids(added))
        assert (HERE in pids(added)) == (workers == 0)
        assert not any(is_alive(pid) for pid in pids(added) - {HERE})
    assert [] == run(rows, path, Pid(), workers=2)


def test_requests_carry_the_same_idempotency_keys_with_and_without_workers(tmp_path):
    """So a job that dies and continues with another number of workers pays an honouring server once."""
    rows = [{"custom_id": str(number), "prompt": f"é {number}"} for number in range(8)]
    with PayingServer() as server:
        server.honours = True
        for workers in (0, 2, 1):
            assert 8 == len(run(rows, tmp_path / f"{workers}.jsonl", openai(server), workers=workers))
    assert {row["prompt"]: 1 for row in rows} == server.paid


REQUESTS = [
    rxllm.Request(prompt="a", temperature=0.5, stop_sequences=["x"], seed=3, effort="low", extra={"deep": {"a": [1]}}),
    rxllm.Request(
        prompt=[
            ("system", "Be brief."),
            {"role": "user", "content": [{"type": "text", "text": "see"}]},
            rxllm.Message("user", [rxllm.FilePart("image/png", b"\x00\xff"), rxllm.CachePoint("1h")], name="bob"),
            rxllm.Message("assistant", [rxllm.ToolCallPart("1", "f", "{}")], id="7", provider="openai"),
            rxllm.Message("tool", [rxllm.ToolResultPart("1", "done", "error", "f")]),
        ],
        tools=[
            {"name": "f", "description": "does", "parameters": {"type": "object", "properties": {}}, "strict": True},
            {"type": "web_search", "max_uses": 3},
        ],
        tool_choice={"type": "custom", "own": 1},
        parallel_tool_calls=False,
    ),
    rxllm.Request(prompt="", response_format="json", tool_choice="f", top_k=0, max_tokens=1, stream=True),
    rxllm.Request(prompt="a", response_format={"schema": {"type": "object"}, "own": True}, model="n", tools=[]),
    rxllm.Request(prompt="a", response_format=rxllm.ResponseSchema({"type": "object"}, "n", True, "why")),
]


@pytest.mark.parametrize("request_", REQUESTS)
def test_request_reaches_a_worker_as_it_is(request_):
    """With all parameters, tools, files and earlier answers."""
    read = request_of_record(to_worker(line(Ask(1, 0, request_record(request_)))).request)
    assert request_ == read
    assert repr(request_) == repr(read)


def test_request_that_json_cannot_express_fails_alone(path):
    """As it does without workers."""
    rows = [{"custom_id": name, "prompt": name} for name in ("a", "b")]
    rows.insert(1, rxllm.Request(prompt="c", extra={"x": float("nan")}))
    results = {result.text: result for result in run(rows, path, Says(), workers=1, concurrency=1)}
    assert "extra['x'] is nan, which JSON cannot express" in results[""].failure.message
    assert 3 == len(results)


@pytest.mark.parametrize("stream", [None, True])
def test_answers_and_failures_are_written_as_without_workers(tmp_path, stream):
    """The same lines, whoever asks: every part of an answer, and the kind, status and words of an error."""
    for llm, texts in ((Rich(), [*ANSWERS, "a"]), (Fails(), [*ERRORS, "unknown"]), (Words(), ["a", "one two"])):
        written = []
        for workers in (0, 2):
            path = tmp_path / f"{type(llm).__name__}-{stream}-{workers}.jsonl"
            run([{"custom_id": text, "prompt": text} for text in texts], path, llm.bind(stream=stream), workers=workers)
            written.append(lines(path))
        for each, name in itertools.product(written, UNWRITABLE if isinstance(llm, Rich) else ()):
            assert each.pop(name)["error"] is not None  # the sentences differ
        assert written[0] == written[1]


def test_error_of_a_worker_is_of_the_same_class():
    """So that combinators treat it as they treat any other: its wait, its partial answer and its notes arrive."""
    read = {name: error_of_record(error_record(error)) for name, error in ERRORS.items()}
    assert {name: str(error) for name, error in ERRORS.items() if name != "half"} == {
        name: str(error) for name, error in read.items() if name != "half"
    }
    assert (rxllm.BadRequest, 400, "bad_prompt", "{}") == (
        type(read["bad"]), read["bad"].status, read["bad"].code, read["bad"].body
    )  # fmt: skip
    assert (1.5, True) == (read["slow"].retry_after, read["slow"].retryable)
    assert ("rounds", "so far", USAGE) == (read["limit"].limit, read["cut"].partial.text, read["cut"].partial.usage)
    assert ["a note"] == read["value"].__notes__
    assert isinstance(read["own"], rxllm.Overloaded)
    assert ("OwnError", "ValueError") == (type(read["own"]).__name__, type(read["value"]).__name__)


# ── combinators, handlers and models ─────────────────────────────────────────────────────────────────────────────


def test_combinators_and_handlers_run_in_this_process(path, tmp_path):
    """Tools, stores and functions keep their state here; the models in them are asked by workers."""
    heard, seen = [], []

    def pick(request):
        seen.append(os.getpid())
        return Pid() if request.text == "a" else other

    other = rxllm.cached(Pid(), rxllm.MemoryStore())
    llm = rxllm.retry(rxllm.fallback(Fails(), rxllm.route(pick))).with_config(handlers=[heard.append])
    results = run(["a", "b", "b", "b"], path, llm, workers=2, concurrency=1)
    assert HERE not in pids(results)
    assert {HERE} == set(seen)
    ran = [event.run.name for event in heard if isinstance(event, rxllm.Finished)]
    assert 2 == ran.count("Pid")  # the store has the second "b"
    assert 4 == ran.count("retry")


def test_model_of_a_route_in_a_module_reaches_a_worker_at_its_request(path):
    """Each request may have a model of its own."""
    results = run(["a", "bb"], path, rxllm.route(choose), workers=1)
    assert 1 == len(pids(results) - {HERE})


def test_tools_of_an_agent_run_in_this_process(path):
    """The rounds are asked by a worker."""
    ran = []

    @rxllm.tool
    def now() -> str:
        """Return the time."""
        ran.append(os.getpid())
        return "noon"

    call = {"id": "1", "function": {"name": "now", "arguments": "{}"}}
    rounds = [{"tool_calls": [call], "content": None}, {"content": "It is noon."}]
    replies = [Reply.json({"choices": [{"message": each, "finish_reason": "stop"}]}) for each in rounds]
    with FakeServer(*replies) as server:
        llm = rxllm.agent(rxllm.OpenAI("m", api="chat", api_key="k", base_url=server.url), now)
        (result,) = run(["When?"], path, llm, workers=1)
        assert 2 == len(server.requests)
    assert ("It is noon.", [HERE]) == (result.text, ran)


def test_chunks_of_a_worker_reach_the_handlers(path):
    """If the model streams, each chunk comes on its own, once."""
    heard = []
    llm = Words(stream=True).with_config(handlers=[lambda event: heard.append(event)])  # which no pickle can hold
    (result,) = run(["one two three"], path, llm, workers=1)
    assert "one two three " == result.text
    assert ["one ", "two ", "three "] == [event.text for event in heard if isinstance(event, rxllm.Chunk)]


def test_key_of_a_model_reaches_the_workers(path):
    """Also one that is in no environment variable, and secrets in headers, since only their socket carries them."""
    answer = Reply.json({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]})
    with FakeServer(answer) as server:
        llm = openai(server, headers={"X-Secret-Token": "s3"})
        assert ["hi"] == [result.text for result in run(["a"], path, llm, workers=1)]
        (request,) = server.requests
    assert ("Bearer k", "s3") == (request.headers["authorization"], request.headers["x-secret-token"])


def test_function_that_returns_the_model_makes_it_in_each_process(path):
    """For a model that cannot be pickled."""
    assert ["a"] == [result.text for result in run(["a"], path, make_holding, workers=1)]
    assert ["b"] == [result.text for result in run(["b"], path, make_holding)]


class Local(rxllm.LLM):
    """A model of the program that runs, as it looks to a worker."""

    __module__ = "__main__"

    async def complete(self, request):
        """Return the prompt."""
        return request.text


@pytest.mark.parametrize(
    ("llm", "sentence"),
    [
        (Holding(lambda: None), r"this Holding cannot be pickled: .*Pass `job` a function of a module"),
        (rxllm.retry(Local()), r"Local is defined in the program that runs, .* Move it to a module\. Pass"),
        (lambda: Holding(lambda: None), r"this function that returns the model cannot be pickled: "),
        (lambda: "no model", r"job takes a model, or a function that returns one, not one that returns str"),
    ],
)
def test_model_that_no_worker_can_get_is_refused(path, llm, sentence):
    """Before anything is sent, with a sentence that says what to do."""
    with pytest.raises(rxllm.MisuseError, match=sentence):
        rxllm.job(llm, rxllm.Journal(path), workers=1)
    assert not path.exists()


@pytest.mark.parametrize("workers", [-1, True, 1.0, "2", None])
def test_wrong_number_of_workers_is_refused(path, workers):
    """Before anything is sent. A batch API has no use for workers."""
    with pytest.raises(rxllm.MisuseError, match="workers must be a whole number of at least 0"):
        rxllm.job(Pid(), rxllm.Journal(path), workers=workers)
    with pytest.raises(rxllm.MisuseError, match="workers= needs via='stream'"):
        rxllm.job(rxllm.OpenAI("m"), rxllm.Journal(path), workers=2, via="batch-api")


def test_model_whose_stream_never_ends_because_code_in_it_raised_fails(path):
    """As without workers: the row is not waited for."""
    for workers in (0, 1):
        (result,) = run(["a"], path.with_name(str(workers)), Raises(), workers=workers)
        assert ("ZeroDivisionError", "division by zero") == (result.failure.kind, result.failure.message)


def test_request_that_nobody_waits_for_is_closed_while_the_job_goes_on(path):
    """The slower one of a hedge, for example."""

    def reply(received):
        if received.json["messages"][-1]["content"] == "b":
            silent.exchange(0).wait_closed()
        return Reply.json({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]})

    with FakeServer(Reply([End.HANG])) as silent, FakeServer(reply) as server:
        llm = rxllm.hedge(openai(silent), openai(server), after=0.0)
        results = run(["a", "b"], path, llm, workers=1, concurrency=1)
    assert ["hi", "hi"] == [result.text for result in results]


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_limiter_hears_the_servers_of_all_workers(path):
    """One worker's server asks to wait; then the requests of all workers wait, and no row fails."""
    wait = Reply.json({"error": {"message": "slow down"}}, status=429, headers={"retry-after": "0.3"})
    answer = Reply.json({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]})
    with FakeServer(wait, answer) as server:
        limiter = rxllm.Limiter(concurrency=2, requests_per_second=1000, burst=1)
        llm = rxllm.retry(rxllm.limited(openai(server), limiter), 3)
        results = run(["a", "b", "c", "d"], path, llm, workers=2)
    assert ["hi"] * 4 == [result.text for result in results]
    assert 1 == len(limiter._queue.servers)


def test_retry_around_a_model_still_replaces_its_own_retries(path):
    """N attempts send at most N requests, whoever sends them."""
    refusal = Reply.json({"error": {"message": "down"}}, status=500)
    with FakeServer(refusal) as server:
        llm = rxllm.OpenAI("m", api="chat", api_key="k", base_url=server.url, max_retries=5)
        retried = rxllm.retry(llm, 2, delay=lambda error, attempt: 0.0)
        (result,) = run(["a"], path, retried, workers=1)
        assert ("ProviderError", 500, 2) == (result.failure.kind, result.failure.status, len(server.requests))


def test_budget_is_never_exceeded_also_when_a_worker_dies(path, tmp_path):
    """The requests of a dead worker may have been paid, so their estimates count."""
    budget = rxllm.Budget(tmp_path / "budget.sqlite", tokens=1000, period=None)
    llm = rxllm.budgeted(Mortal(max_tokens=100), budget)
    rows = [f"die {tmp_path / 'dead'}", *(f"row {number}" for number in range(200))]
    with pytest.raises(rxllm.LimitReached, match="is spent") as caught:
        run(rows, path, llm, workers=2, concurrency=4)
    assert "budget" == caught.value.limit
    used, answered = budget.used().tokens, len(held(path))
    assert 890 < used <= 1000
    assert used >= 5 * answered + 100  # each answer takes 5, and the lost one at least its max_tokens


# ── deaths ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_row_whose_worker_dies_is_asked_again_by_another_one(path, tmp_path):
    """So are the rows that were in flight with it, and none of them fails."""
    rows = [f"row {number}" for number in range(20)]
    rows[5] = f"die {tmp_path / 'first'}"
    rows[9] = f"die {tmp_path / 'second'}"
    for workers in (1, 2):
        results = run(rows, tmp_path / f"{workers}.jsonl", Mortal(), workers=workers, concurrency=8)
        assert sorted(rows) == sorted(result.text for result in results)
        for name in ("first", "second"):
            (tmp_path / name).unlink()


def test_row_that_kills_each_worker_fails_after_the_third(path):
    """The other rows are answered, and the policy for errors counts it."""
    rows = [*(f"row {number}" for number in range(10)), "poison", *(f"row {number}" for number in range(10, 20))]
    results = {result.row: result for result in run(rows, path, Mortal(), workers=2, concurrency=2)}
    failure = results.pop(10).failure
    assert ("WorkerDied", None) == (failure.kind, failure.status)
    assert "The worker process that answered was killed by SIGKILL, as the system does when memory" in failure.message
    assert 20 == sum(result.failure is None for result in results.values())
    with pytest.raises(rxllm.LimitReached, match="1 of 1 rows failed"):
        run(["poison"], path.with_name("stopped"), Mortal(), workers=1, on_error="stop")


def test_row_whose_tools_have_run_is_not_asked_again(path):
    """The tools have had their effects. So the death of a worker in a later round is the row's failure."""
    ran = []

    def now() -> str:
        """Return the time."""
        ran.append(1)
        return "noon"

    (result,) = run(["When?"], path, rxllm.agent(Calls(), now), workers=1)
    assert ("WorkerDied", [1]) == (result.failure.kind, ran)


def test_death_by_someone_else_costs_at_most_what_was_in_flight_there(path):
    """The server counts: each row is paid, and at most the rows of the dead worker are paid twice."""
    rows, concurrency, killed = [f"p{number}" for number in range(60)], 6, []

    class Killing(PayingServer):
        def _reply(self, received):
            if self.paid.total() >= 20 and not killed:
                killed.append(workers_of(HERE)[0])
                os.kill(killed[0], signal.SIGKILL)
            return super()._reply(received)

    with Killing() as server:
        results = run(rows, path, openai(server), workers=2, concurrency=concurrency)
        assert [f"A {row}" for row in sorted(rows)] == sorted(result.text for result in results)
        assert len(rows) <= server.paid.total() <= len(rows) + concurrency
        assert 2 >= max(server.paid.values())


def test_job_ends_when_no_worker_can_be_started(path, monkeypatch):
    """With an error that says how the process ended; the rows stay open."""
    rows = [f"p{number}" for number in range(9)]
    monkeypatch.setattr("rxllm.jobs.processes.interpreter", lambda *_: [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(rxllm.RxllmError, match="A worker process ended with status 3, before it was ready"):
        run(rows, path, Pid(), workers=2)
    dies = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    monkeypatch.setattr("rxllm.jobs.processes.interpreter", lambda *_: dies)
    with pytest.raises(rxllm.RxllmError, match=r"A worker process was killed by SIGKILL, as .*, before it was ready"):
        run(rows, path, Pid(), workers=2)
    monkeypatch.setattr("rxllm.jobs.processes.interpreter", lambda *_: [str(path / "none")])
    with pytest.raises(rxllm.RxllmError, match=r"A worker process cannot be started: .*Not a directory"):
        run(rows, path, Pid(), workers=2)
    monkeypatch.undo()
    assert 9 == len(run(rows, path, Pid(), workers=2))


def test_model_that_a_worker_cannot_import_stops_the_job(path, monkeypatch):
    """With a sentence that says why, and nothing is written."""
    monkeypatch.setattr("rxllm.jobs.processes.same_environment", lambda: {**os.environ, "PYTHONPATH": str(ROOT)})
    with pytest.raises(rxllm.MisuseError, match=r"cannot make the model: ModuleNotFoundError: .*'worker_models'"):
        run(["a", "b"], path, Pid(), workers=1)
    assert {} == held(path)


def test_disposed_job_ends_its_workers(path, tmp_path):
    """Also one that answers, and one whose model blocks its event loop."""
    for word in ("wait", "block"):
        mark, before = tmp_path / word, set(workers_of(HERE))
        job = rx.from_([f"{word} {mark}"]).pipe(rxllm.job(Pid(), rxllm.Journal(path), workers=1))
        subscription = job.subscribe(on_error=print)
        wait_until(mark.exists)
        (worker,) = set(workers_of(HERE)) - before
        subscription.dispose()
        wait_until(lambda worker=worker: not is_alive(worker))
    assert ["b"] == [result.text.split()[1] for result in run(["b"], path, Pid(), workers=1)]  # the journal is free


def test_blocked_worker_ends_with_its_parent(tmp_path):
    """A model that blocks the event loop of its process does not keep it alive. Nor does a child of the parent."""
    with Process(block, tmp_path) as process:
        wait_until((tmp_path / "blocked").exists)
        forked = process.connection.recv()
        (worker,) = workers_of(process.process.pid)
        process.send(signal.SIGKILL)
        wait_until(lambda: not is_alive(worker))
    assert is_alive(forked)
    os.kill(forked, signal.SIGKILL)


def test_forked_child_closes_the_socket_of_a_worker_although_an_event_loop_uses_it():
    """Else the worker would wait for the child, too, until it is killed."""
    with Process(fork_while_used) as process:
        status = process.connection.recv()
    assert status >= 0


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_lets_the_answers_of_the_workers_arrive(tmp_path, number):
    """A terminal or a service manager may send it to all processes. The workers go on, and end with the command."""
    released, arrived = Signal(), []
    answer = b'{"id":"1","choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}'

    def reply(received):
        arrived.append(received)
        return Reply([released, answer], content_type="application/json")

    rows, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows.write_text("".join(f'"p{number}"\n' for number in range(50)))
    with FakeServer(reply) as server:
        words = ["batch", str(rows), "-o", str(out), "-m", "openai:m", "--workers", "2", "--concurrency", "4"]
        with subprocess.Popen(
            [*COMMAND, *words], env=environment(**openai_environment(server)), stderr=subprocess.PIPE, text=True
        ) as command:
            try:
                wait_until(lambda: len(arrived) == 4)
                workers = workers_of(command.pid)
                for pid in (*workers, command.pid):
                    os.kill(pid, number)
                assert command.stderr.readline().startswith("rxllm: waiting for the answers in flight")
                released.set()
                assert command.stderr.read().startswith("rxllm: 4 answered, 0 failed, 46 left")
                assert 130 == command.wait(PATIENCE)
            finally:
                command.kill()
        assert (4, 4, 2) == (len(arrived), len(held(out)), len(workers))
        assert not any(map(is_alive, workers))


def test_second_interrupt_abandons_the_answers_of_the_workers(tmp_path):
    """The command and its workers end at once, and the requests are closed."""
    rows, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows.write_text('"a"\n')
    with FakeServer(Reply([End.HANG])) as server:
        words = ["batch", str(rows), "-o", str(out), "-m", "openai:m", "--workers", "1"]
        with subprocess.Popen(
            [*COMMAND, *words], env=environment(**openai_environment(server)), stderr=subprocess.PIPE, text=True
        ) as command:
            try:
                wait_until(lambda: len(server.requests) == 1)
                (worker,) = workers_of(command.pid)
                command.send_signal(signal.SIGINT)
                assert command.stderr.readline().startswith("rxllm: waiting")
                command.send_signal(signal.SIGINT)
                assert 130 == command.wait(PATIENCE)
            finally:
                command.kill()
        server.exchange(0).wait_closed()
        wait_until(lambda: not is_alive(worker))
    assert {} == held(out)
