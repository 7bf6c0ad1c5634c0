"""``rxllm batch``: files in, a journal out, exit codes, and what Ctrl-C does."""

import csv
import gc
import itertools
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest
from commands import run_here
from fake_batches import VENDORS, FakeAnthropic, FakeOpenAI, hasten
from job_models import PayingServer, held
from ports import free_port
from pyarrow import parquet
from terminals import PATIENCE
from waiting import wait_until

import rxllm
import rxllm.cli.batch
import rxllm.cli.batch_tools
import rxllm.jobs.exporting
from rxllm.cli.draining import room_for_many
from rxllm.jobs.intents import Intent, Intents, Noted
from rxllm.testing import End, FakeServer, Reply


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def batch(*words, stdin="", **variables):
    """Run the command in this process."""
    return run_here(["batch", *words], stdin, variables)


def write(name, *rows):
    """Write a file of JSON lines."""
    with Path(name).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def server():
    """A server, as the one of OpenAI's protocol that the environment names."""
    with PayingServer() as server:
        yield server


def openai(server):
    """The environment that names the server."""
    return {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": server.url}


MODEL = ("-m", "openai:gpt-4o-mini")


def test_rows_are_answered_and_the_same_command_continues(server):
    """The second run asks for the new rows only, and says how many were done before."""
    write("in.jsonl", *({"custom_id": str(number), "prompt": f"p{number}"} for number in range(5)))
    done = batch("in.jsonl", "-o", "out.jsonl", *MODEL, **openai(server))
    assert (0, "", "rxllm: 5 answered, 0 failed, 0 left.\n") == (done.returncode, done.stdout, done.stderr)
    write("in.jsonl", *({"custom_id": str(number), "prompt": f"p{number}"} for number in range(7)))
    done = batch("in.jsonl", "-o", "out.jsonl", *MODEL, **openai(server))
    assert "rxllm: 2 answered, 0 failed, 5 done before, 0 left.\n" == done.stderr
    assert {f"p{number}": 1 for number in range(7)} == server.paid
    assert {str(number): f"A p{number}" for number in range(7)} == held("out.jsonl")


def test_csv_with_a_template_and_a_system_prompt(server):
    """Columns fill the template; a byte order mark, quoted line ends and CRLF are read as CSV says."""
    with Path("in.csv").open("wb") as file:
        file.write('\ufeffkey,text\r\n1,"two\r\nlines"\r\n2,é\r\n'.encode())
    words = ("in.csv", "-o", "out.jsonl", "--prompt", "Say {text}", "--id", "key", "--system", "Be brief.", *MODEL)
    assert 0 == batch(*words, **openai(server)).returncode
    assert {"1": "A Say two\r\nlines", "2": "A Say é"} == held("out.jsonl")


def test_parquet_goes_in_and_out(server):
    """Columns fill the template or are the messages; whole numbers are ids; nulls are left out; a table has types."""
    table = pa.table({"key": [1, 2], "text": ["tea", "é"], "other": [None, 3]})
    parquet.write_table(table, "in.parquet")
    words = ("in.parquet", "-o", "out.jsonl", "--prompt", "Say {text}", "--id", "key", *MODEL)
    assert 0 == batch(*words, **openai(server)).returncode
    assert {"1": "A Say tea", "2": "A Say é"} == held("out.jsonl")
    assert 0 == batch(*words, **openai(server)).returncode
    assert 2 == server.paid.total()
    messages = [[{"role": "user", "content": "hi"}], [{"role": "user", "content": "you", "name": "bob"}]]
    parquet.write_table(pa.table({"messages": messages}), "chats.parquet")
    assert 0 == batch("chats.parquet", "-o", "chats.jsonl", *MODEL, **openai(server)).returncode
    assert {"A hi", "A you"} == set(held("chats.jsonl").values())
    done = batch("export", "out.jsonl", "table.parquet")
    assert (0, "rxllm: 2 rows written to table.parquet.\n") == (done.returncode, done.stderr)
    rows = {row["custom_id"]: row for row in parquet.read_table("table.parquet").to_pylist()}
    assert ("A Say é", "", "stop", None, 1) == tuple(
        rows["2"][name] for name in ("text", "error", "finish_reason", "input_tokens", "row")
    )
    assert pa.int64() == parquet.read_schema("table.parquet").field("input_tokens").type


def test_unmarked_text_of_parquet_is_text(server):
    """Some programs write text as bytes. Other bytes stay as they are."""
    table = pa.table({"key": [b"a", b"b"], "text": [b"tea", "é".encode()], "picture": [b"\xff", b""]})
    parquet.write_table(table, "in.parquet")
    words = ("in.parquet", "-o", "out.jsonl", "--prompt", "Say {text}", "--id", "key", *MODEL)
    assert 0 == batch(*words, **openai(server)).returncode
    assert {"a": "A Say tea", "b": "A Say é"} == held("out.jsonl")


def test_nulls_of_parquet_are_columns_without_a_value(server):
    """A row without an id is named by its content; a row without a value for the template is refused as such."""
    parquet.write_table(pa.table({"key": ["a", None], "text": ["tea", "sea"]}), "in.parquet")
    words = ("in.parquet", "-o", "out.jsonl", "--prompt", "Say {text}", "--id", "key", *MODEL)
    assert 0 == batch(*words, **openai(server)).returncode
    assert {"A Say tea", "A Say sea"} == set(held("out.jsonl").values())
    parquet.write_table(pa.table({"key": ["b"], "text": pa.array([None], pa.string())}), "in.parquet")
    assert "Row 1 of the input: The row has no value for {text}; its columns are key, text." in batch(*words).stderr
    lines = {
        "custom_id": ["c"],
        "url": pa.array([None], pa.string()),
        "body": [{"messages": [{"role": "user", "content": "hi"}]}],
    }
    parquet.write_table(pa.table(lines), "in.parquet")
    assert 0 == batch("in.parquet", "-o", "lines.jsonl", *MODEL, **openai(server)).returncode
    assert {"c": "A hi"} == held("lines.jsonl")


def test_wrong_parquet_is_refused(server, monkeypatch):
    """As a sentence, before anything is sent."""
    Path("in.parquet").write_bytes(b"no parquet")
    done = batch("in.parquet", "-o", "out.jsonl", *MODEL, **openai(server))
    assert (2, True) == (done.returncode, "is not a Parquet file that can be read" in done.stderr)
    write("in.jsonl", "a")
    batch("in.jsonl", "-o", "out.jsonl", *MODEL, **openai(server))
    assert "is for .csv" in batch("export", "out.jsonl", "table.parquet", "--escape-formulas").stderr
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for words in (("in.parquet", "-o", "x.jsonl", *MODEL), ("export", "out.jsonl", "table.parquet")):
        done = batch(*words, **openai(server))
        assert (2, True) == (done.returncode, "pip install 'rxllm[parquet]'" in done.stderr)


def test_blank_lines_of_csv_are_ignored(server):
    """Before the names of the columns, too."""
    Path("in.csv").write_text("\n\r\nprompt\nhi\n\nyou\n", encoding="utf-8")
    assert 0 == batch("in.csv", "-o", "out.jsonl", *MODEL, **openai(server)).returncode
    assert {"hi", "you"} == set(server.paid)


def test_standard_input_is_json_lines(server):
    """For programs that make rows."""
    rows = '"hi"\n\n{"messages": [{"role": "user", "content": "you"}]}\n'
    done = batch("-", "-o", "out.jsonl", *MODEL, stdin=rows, **openai(server))
    assert (0, "rxllm: 2 answered, 0 failed.\n") == (done.returncode, done.stderr)
    assert {"hi", "you"} == set(server.paid)


def test_rows_of_a_named_pipe_are_asked_as_they_come(server):
    """Each one before the next one is written; a pipe can be read only once, so it is not planned."""
    os.mkfifo("in.jsonl")

    def feed():
        with Path("in.jsonl").open("w", encoding="utf-8") as pipe:
            for number in range(3):
                wait_until(lambda: server.paid.total() == number)  # noqa: B023
                pipe.write(f'"p{number}"\n')
                pipe.flush()

    feeding = threading.Thread(target=feed)
    feeding.start()
    done = batch("in.jsonl", "-o", "out.jsonl", *MODEL, **openai(server))
    feeding.join()
    assert (0, "rxllm: 3 answered, 0 failed.\n") == (done.returncode, done.stderr)
    assert 2 == batch("in.jsonl", "-o", "out.jsonl", "--dry-run", *MODEL, **openai(server)).returncode


def test_failed_rows_give_exit_code_1_until_they_are_retried(server):
    """A failure is recorded and stays; --retry-failed asks again."""
    refusal = Reply.json({"error": {"message": "bad", "code": "c"}}, status=400)
    write("in.jsonl", "a", "b")
    with FakeServer(refusal) as refusing:
        environment = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{refusing.url}/v1"}
        done = batch("in.jsonl", "-o", "out.jsonl", *MODEL, **environment)
        assert (1, "rxllm: 0 answered, 2 failed, 0 left.\n") == (done.returncode, done.stderr)
    done = batch("in.jsonl", "-o", "out.jsonl", *MODEL, **openai(server))
    assert (1, "rxllm: 0 answered, 0 failed, 2 done before, 0 left.\n") == (done.returncode, done.stderr)
    assert 0 == batch("in.jsonl", "-o", "out.jsonl", "--retry-failed", *MODEL, **openai(server)).returncode
    assert 0 == batch("in.jsonl", "-o", "out.jsonl", *MODEL, **openai(server)).returncode


def test_failed_rows_of_a_pipe_give_exit_code_1_until_they_are_retried(server):
    """As those of a file."""
    refusal = Reply.json({"error": {"message": "bad", "code": "c"}}, status=400)
    words = ("-", "-o", "out.jsonl", *MODEL)
    with FakeServer(refusal) as refusing:
        environment = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{refusing.url}/v1"}
        assert 1 == batch(*words, stdin='"a"\n', **environment).returncode
    assert 1 == batch(*words, stdin='"a"\n', **openai(server)).returncode
    assert 0 == batch(*words, "--retry-failed", stdin='"a"\n', **openai(server)).returncode
    assert 0 == batch(*words, stdin='"a"\n', **openai(server)).returncode


def test_storm_of_refusals_fails_no_row(server):
    """A server that names the time after which it answers is obeyed."""
    storm = [Reply.json({"error": {"message": "slow down"}}, status=429, headers={"retry-after": "0"})] * 4
    answer = Reply.json({"id": "1", "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]})
    write("in.jsonl", "a", "b", "c")
    with FakeServer(*storm, answer) as flooded:
        environment = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{flooded.url}/v1"}
        done = batch("in.jsonl", "-o", "out.jsonl", *MODEL, **environment)
    assert (0, "rxllm: 3 answered, 0 failed, 0 left.\n") == (done.returncode, done.stderr)


def test_stopped_job_gives_exit_code_3():
    """With --on-error stop, and when the key is wrong."""
    write("in.jsonl", "a", "b")
    for status, words in ((400, ("--on-error", "stop")), (401, ())):
        with FakeServer(Reply.json({"error": {"message": "no"}}, status=status)) as refusing:
            environment = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{refusing.url}/v1"}
            done = batch("in.jsonl", "-o", f"{status}.jsonl", *words, *MODEL, **environment)
        assert 3 == done.returncode
    assert [] == list(rxllm.Journal("401.jsonl").results())


@pytest.mark.parametrize(
    ("content", "name", "sentence"),
    [
        (b'"a"\n"b"\n{"c\n', "in.jsonl", "Line 3 of in.jsonl is not JSON"),
        (b'"a"\n{"text": "b"}\n', "in.jsonl", "Row 2 of the input: The row has neither"),
        (b'{"custom_id": 1, "prompt": "a"}\n{"custom_id": "1", "prompt": "b"}', "in.jsonl", "The id '1' came before"),
        (b"a,b\n1,2,3\n", "in.csv", "Line 2 of in.csv has 3 values for 2 columns"),
        (b"a,a\n1,2\n", "in.csv", "names a column twice"),
        (b"a\n\xff\n", "in.csv", "Line 2 of in.csv is not CSV in UTF-8"),
        (b'prompt\nb\n"c"d\ne\n', "in.csv", "Line 3 of in.csv is not CSV in UTF-8"),
        (b"", "in.txt", "must end in .jsonl, .csv or .parquet"),
        (None, "in.jsonl", "cannot be read: No such file"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_sent(server, content, name, sentence):
    """With exit code 2, the place, and no output file."""
    if content is not None:
        Path(name).write_bytes(content)
    done = batch(name, "-o", "out.jsonl", *MODEL, **openai(server))
    assert 2 == done.returncode
    assert sentence in done.stderr
    assert {} == server.paid
    assert not Path("out.jsonl").exists()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("number", [2, 300, 5000])
def test_undecodable_line_of_csv_is_named(server, number, end):
    """By its own number, although the file is decoded in blocks of many lines."""
    lines = [b"prompt", *[b"more"] * (number - 2), b"caf\xe9", b"last", b""]
    Path("in.csv").write_bytes(end.join(lines))
    done = batch("in.csv", "-o", "out.jsonl", *MODEL, **openai(server))
    assert (2, True) == (done.returncode, f"Line {number} of in.csv is not CSV in UTF-8" in done.stderr)


def test_large_input_is_asked_at_once_and_checked_meanwhile(monkeypatch):
    """Only the first rows are checked before the first request; a mistake stops the job long before its turn comes.

    A dry run reads all rows.
    """
    monkeypatch.setattr("rxllm.cli.batch._CHECKED", 1)
    monkeypatch.setattr("rxllm.cli.batch.STEP", 1)
    monkeypatch.setattr("rxllm.jobs.planning.STEP", 1)
    asked, checked, reading = [], rxllm.testing.Signal(), itertools.count()
    answer = b'{"id":"1","choices":[{"message":{"content":"A"},"finish_reason":"stop"}]}'
    rows_in = rxllm.cli.batch.rows_in

    def watched(path):
        is_check = next(reading) == 0  # the check opens the file first
        try:
            yield from rows_in(path)
        finally:
            if is_check:
                checked.set()

    def reply(received):
        asked.append(received)
        return Reply([checked, answer], content_type="application/json")  # no row is answered before the check's end

    monkeypatch.setattr("rxllm.cli.batch.rows_in", watched)
    Path("in.jsonl").write_text("".join(f'"p{number}"\n' for number in range(1000)) + "{wrong")
    with FakeServer(reply) as server:
        words = ("in.jsonl", "-o", "out.jsonl", "--concurrency", "2", *MODEL)
        environment = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{server.url}/v1"}
        done = batch(*words, **environment)
        assert 2 == done.returncode
        assert "Line 1001 of in.jsonl is not JSON" in done.stderr
        assert 2 <= len(asked) < 500
        assert len(asked) == len(held("out.jsonl"))
        assert f"rxllm: {len(asked)} answered, 0 failed.\n" in done.stderr
        before = len(asked)
        done = batch(*words, "--dry-run", **environment)
        assert (2, True) == (done.returncode, "Line 1001 of in.jsonl" in done.stderr)
        assert before == len(asked)


def test_results_stand_in_the_order_of_the_rows_on_request(server):
    """At the end, with one line a row; results of rows that are gone come last, and the file stays a journal."""
    write("in.jsonl", *(f"p{number}" for number in range(9)))
    batch("in.jsonl", "-o", "out.jsonl", *MODEL, **openai(server))
    write("in.jsonl", *(f"p{number}" for number in range(9, 0, -1)))
    done = batch("in.jsonl", "-o", "out.jsonl", "--order", "input", *MODEL, **openai(server))
    assert 0 == done.returncode
    ordered = [*(f"A p{number}" for number in range(9, 0, -1)), "A p0"]
    assert ordered == [result.text for result in rxllm.Journal("out.jsonl").results()]
    assert 0o600 == Path("out.jsonl").stat().st_mode & 0o777
    batch("in.jsonl", "-o", "out.jsonl", *MODEL, **openai(server))
    assert 10 == server.paid.total()
    assert 2 == batch("-", "-o", "out.jsonl", "--order", "input", *MODEL, **openai(server)).returncode


def test_results_that_have_no_room_for_their_order_stay_as_they_are(server, monkeypatch):
    """The disk is full: no half of a file stays, the exit code is 3, and the same command tries again."""
    write("in.jsonl", "a", "b")
    words = ("in.jsonl", "-o", "out.jsonl", "--order", "input", *MODEL)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("rxllm.jobs.writing.os.fsync", full)
        batch("in.jsonl", "-o", "first.jsonl", *MODEL, **openai(server))
        Path("out.jsonl").write_bytes(Path("first.jsonl").read_bytes())
        before = Path("out.jsonl").read_bytes()
        done = batch(*words, **openai(server))
    assert (3, True) == (done.returncode, "No space left on device" in done.stderr)
    assert before == Path("out.jsonl").read_bytes()
    assert not Path("out.jsonl.new").exists()
    assert 0 == batch(*words, **openai(server)).returncode


def test_shards_answer_each_row_once_in_any_order(server):
    """The shard of a row follows from the row, not from its place."""
    rows = [{"custom_id": str(number), "prompt": f"p{number}"} if number % 2 else f"p{number}" for number in range(20)]
    write("in.jsonl", *rows)
    batch("in.jsonl", "-o", "1.jsonl", "--shard", "1/2", *MODEL, **openai(server))
    write("in.jsonl", *reversed(rows))
    batch("in.jsonl", "-o", "2.jsonl", "--shard", "2/2", *MODEL, **openai(server))
    assert {f"p{number}": 1 for number in range(20)} == server.paid
    assert 0 < len(held("1.jsonl")) < 20


def test_shard_counts_the_rows_of_the_whole_input(server):
    """So that joined journals can be sorted, and an error names the place in the file."""
    write("in.jsonl", *(f"p{number}" for number in range(9)))
    for part in (1, 2):
        words = ("--shard", f"{part}/2", "--order", "input", *MODEL)
        assert 0 == batch("in.jsonl", "-o", f"{part}.jsonl", *words, **openai(server)).returncode
    results = [result for part in (1, 2) for result in rxllm.Journal(f"{part}.jsonl").results()]
    assert {number: f"A p{number}" for number in range(9)} == {result.row: result.text for result in results}
    write("in.jsonl", *(f"p{number}" for number in range(9)), {"text": "a"})
    said = [batch("in.jsonl", "-o", f"{part}.jsonl", "--shard", f"{part}/2", *MODEL).stderr for part in (1, 2)]
    assert 1 == sum("Row 10 of the input: The row has neither" in each for each in said)
    write("in.jsonl", {"key": "a", "prompt": "a"}, {"prompt": "b"})
    for part in (1, 2):
        done = batch("in.jsonl", "-o", "new.jsonl", "--shard", f"{part}/2", "--id", "key", *MODEL)
        assert (2, True) == (done.returncode, "Row 2 of the input: The row has no column 'key'" in done.stderr)


def test_cost_without_a_bound_or_a_price_is_refused(server):
    """A budget in dollars that cannot hold is refused before anything is sent."""
    write("in.jsonl", "a")
    done = batch("in.jsonl", "-o", "out.jsonl", "--max-cost", "1", *MODEL, **openai(server))
    assert (2, True) == (done.returncode, "--max-cost needs --max-tokens" in done.stderr)
    words = ("-m", "openai:no-such-model", "--max-tokens", "9")
    done = batch("in.jsonl", "-o", "out.jsonl", "--max-cost", "1", *words, **openai(server))
    assert (2, True) == (done.returncode, "price of the model is unknown" in done.stderr)
    assert {} == server.paid


def test_cost_is_kept_within_the_budget_and_the_job_continues_with_a_larger_one(server):
    """Exit code 3 when the budget is spent; what was paid is written."""
    write("in.jsonl", *(f"p{number}" for number in range(6)))
    words = ("in.jsonl", "-o", "out.jsonl", "--max-tokens", "1000000", "--concurrency", "1")
    server.usage = {"prompt_tokens": 1, "completion_tokens": 900_000}  # 0.54 dollars
    done = batch(*words, "--max-cost", "1.5", *MODEL, **openai(server))
    assert (3, 2) == (done.returncode, server.paid.total())
    assert "is spent" in done.stderr
    assert 0 == batch(*words, "--max-cost", "9", *MODEL, **openai(server)).returncode
    assert 6 == server.paid.total()


def test_full_disk_stops_the_job(server, monkeypatch):
    """With exit code 3, because the same command continues it."""
    write("in.jsonl", "a", "b")
    words = ("in.jsonl", "-o", "out.jsonl", *MODEL)

    def full(file, result):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("rxllm.jobs.journal.OpenJournal.append", full)
        done = batch(*words, **openai(server))
    assert done.returncode == 3
    assert "No space left on device" in done.stderr
    assert 0 == batch(*words, **openai(server)).returncode


def test_deleted_output_stops_the_job(server):
    """With exit code 3 and one sentence, because the same command continues it."""
    write("in.jsonl", "a", "b")
    answer = Reply.json({"id": "1", "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]})

    def reply(_):
        Path("out.jsonl").unlink(missing_ok=True)
        return answer

    with FakeServer(reply) as deleting:
        environment = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{deleting.url}/v1"}
        done = batch("in.jsonl", "-o", "out.jsonl", *MODEL, **environment)
    assert done.returncode == 3
    assert f"The journal '{Path.cwd() / 'out.jsonl'}' was moved or deleted while the job wrote to it." in done.stderr
    assert 0 == batch("in.jsonl", "-o", "out.jsonl", *MODEL, **openai(server)).returncode
    assert {} == server.paid


def test_results_are_exported_as_a_table(server):
    """One line a row, the last result of each; formulas are escaped on request."""
    write("in.jsonl", {"custom_id": "1", "prompt": "a,b"}, {"custom_id": "=2+3", "prompt": "x"})
    batch("in.jsonl", "-o", "out.jsonl", *MODEL, **openai(server))
    done = batch("export", "out.jsonl", "table.csv", "--escape-formulas")
    assert (0, "rxllm: 2 rows written to table.csv.\n") == (done.returncode, done.stderr)
    with Path("table.csv").open(encoding="utf-8", newline="") as file:
        table = {row["custom_id"]: row["text"] for row in csv.DictReader(file)}
    assert {"1": "A a,b", "'=2+3": "A x"} == table
    assert 2 == batch("export", "out.jsonl", "table.xls").returncode
    assert 2 == batch("export", "none.jsonl", "table.csv").returncode


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_table_without_room_leaves_the_old_one(server, name):
    """Not a part of the new one; and no other file stays. The whole new one has its mode."""
    write("in.jsonl", *(f"{number} {'word ' * 40}" for number in range(200)))
    batch("in.jsonl", "-o", "out.jsonl", *MODEL, **openai(server))
    Path(name).write_text("old")
    Path(name).chmod(0o640)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    try:
        done = batch("export", "out.jsonl", name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (2, True) == (done.returncode, f"The table '{name}' cannot be written: " in done.stderr)
    assert "old" == Path(name).read_text()
    assert {"in.jsonl", "out.jsonl", name} == {path.name for path in Path.cwd().iterdir()}
    assert 0 == batch("export", "out.jsonl", name).returncode
    assert 0o640 == Path(name).stat().st_mode & 0o777


@pytest.mark.parametrize(
    "words",
    [
        ("--on-error", "skip"),
        ("--shard", "4/3"),
        ("--shard", "x"),
        ("--concurrency", "0"),
        ("--rpm", "-1"),
        ("--prompt", "{"),
    ],
)
def test_wrong_options_are_refused(words):
    """With exit code 2."""
    write("in.jsonl", "a")
    assert 2 == batch("in.jsonl", "-o", "out.jsonl", "-m", "embedded", *words).returncode


def test_dry_run_says_what_the_job_would_do_and_cost(server):
    """Nothing is sent and no file is made; what is answered already is not counted."""
    write("in.jsonl", "abcdefgh", "b", "c")
    words = ("in.jsonl", "-o", "out.jsonl", *MODEL)
    done = batch(*words, "--max-tokens", "10", "--dry-run", **openai(server))
    lines = dict(line.split(maxsplit=1) for line in done.stdout.replace(" tokens", "_tokens").splitlines())
    assert ("3", "0", "about 4", "30") == tuple(
        lines[name] for name in ("rows", "answered", "input_tokens", "output_tokens")
    )
    assert lines["cost"].startswith("0.0000 US dollars at most")
    assert not Path("out.jsonl").exists()
    write("part.jsonl", "b")
    assert 0 == batch("part.jsonl", *words[1:], **openai(server)).returncode
    done = batch(*words, "--dry-run", **openai(server))
    assert "to ask        2\n" in done.stdout
    assert "unknown, since a row has no max_tokens" in done.stdout
    assert 1 == server.paid.total()


@pytest.fixture
def reports(monkeypatch):
    """Return a list of functions that are called for the lines on standard error, one each."""
    calls = []
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("rxllm.cli.batch.report", lambda _: calls.pop(0)() if calls else None)
    yield calls
    signal.signal(signal.SIGINT, before)


def interrupt():
    """Press Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def test_interrupt_waits_for_the_answers_in_flight(reports):
    """SIGINT ends the rows, the answers that are paid are written, and the exit code is 130."""
    released = rxllm.testing.Signal()
    reports.append(released.set)
    answer = b'{"id":"1","choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}'
    arrived = []

    def reply(received):
        arrived.append(received)
        if len(arrived) == 4:
            interrupt()
        return Reply([released, answer], content_type="application/json")

    write("in.jsonl", *(f"p{number}" for number in range(50)))
    with FakeServer(reply) as slow:
        environment = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{slow.url}/v1"}
        done = batch("in.jsonl", "-o", "out.jsonl", "--concurrency", "4", *MODEL, **environment)
    assert 130 == done.returncode
    assert len(arrived) == len(held("out.jsonl"))
    assert 4 <= len(arrived) <= 6


def test_second_interrupt_abandons_the_answers(reports):
    """The command ends at once."""
    reports.append(interrupt)

    def reply(_):
        interrupt()
        return Reply([End.HANG])

    write("in.jsonl", "a")
    with FakeServer(reply) as silent:
        environment = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{silent.url}/v1"}
        assert 130 == batch("in.jsonl", "-o", "out.jsonl", *MODEL, **environment).returncode
        silent.exchange(0).wait_closed()
    assert {} == held("out.jsonl")


@pytest.mark.parametrize("rows", [b"", b'"p1"\n'])
def test_interrupt_ends_the_command_though_its_input_is_silent(server, rows):
    """Another program keeps the pipe open and writes no further row. What was in flight is written."""
    variables = {**os.environ, "PYTHONPATH": str(Path(rxllm.__file__).parents[1]), **openai(server)}
    command = [sys.executable, "-W", "error", "-m", "rxllm", "batch", "-", "-o", "out.jsonl", *MODEL]
    with subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            process.stdin.write(rows)
            process.stdin.flush()
            while not Path("out.jsonl").exists() or len(held("out.jsonl")) < rows.count(b"\n"):
                time.sleep(0.05)  # it reads rows once it has its journal
            process.send_signal(signal.SIGINT)
            said = process.stderr.read().decode()
            assert process.wait(PATIENCE) == 130
        finally:
            process.kill()
    assert "rxllm: waiting for the answers in flight" in said
    assert "Fatal" not in said
    assert rows.count(b"\n") == len(held("out.jsonl"))


@pytest.fixture(params=VENDORS, ids=lambda vendor: vendor.__name__)
def vendor(request, monkeypatch):
    """A vendor with a batch API."""
    hasten(monkeypatch.setattr, request.param)
    with request.param() as vendor:
        yield vendor


def test_batch_api_is_another_way_of_the_same_job(vendor):
    """The journal is the same, and a budget in dollars needs a bound, too."""
    write("in.jsonl", "p1", "p2")
    words = ("in.jsonl", "-o", "out.jsonl", "--via", "batch-api", "-m", f"{vendor.name}:m")
    done = batch(*words, **vendor.environment)
    assert (0, "rxllm: 2 answered, 0 failed, 0 left.\n") == (done.returncode, done.stderr)
    assert 1 == len(vendor.made)
    unbounded = batch("in.jsonl", "-o", "other.jsonl", *words[3:], "--max-cost", "1", **vendor.environment)
    assert (2, True) == (unbounded.returncode, "needs --max-tokens" in unbounded.stderr)
    assert {"A p1", "A p2"} == set(held("out.jsonl").values())


def test_cost_of_batches_is_kept_within_the_budget(monkeypatch):
    """A row may cost 0.3 dollars in a batch. Rows that do not fit wait for what others give back, or stop the job."""
    hasten(monkeypatch.setattr, FakeOpenAI)
    write("in.jsonl", *(f"p{number}" for number in range(4)))
    words = ("in.jsonl", "-o", "out.jsonl", "--via", "batch-api", "--max-tokens", "1000000", *MODEL)
    with FakeOpenAI() as vendor:
        done = batch(*words, "--max-cost", "0.2", **vendor.environment)
        assert (3, 1, True) == (done.returncode, vendor.paid.total(), "is spent" in done.stderr)
        assert 0 == batch(*words, "--max-cost", "0.7", **vendor.environment).returncode
        assert [1, 2, 1] == [len(made.outcomes) for made in vendor.made.values()]
    assert {f"p{number}": 1 for number in range(4)} == vendor.paid


def test_model_without_a_batch_api_is_refused():
    """With exit code 2, before anything is sent."""
    write("in.jsonl", "p1")
    done = batch("in.jsonl", "-o", "out.jsonl", "--via", "batch-api", "-m", "embedded")
    assert (2, True) == (done.returncode, "needs one model with a batch API" in done.stderr)


def test_row_that_a_batch_cannot_have_is_found_before_anything_is_sent(vendor):
    """With exit code 2 and the row, also if it is the last one."""
    write("in.jsonl", *(f"p{number}" for number in range(9)), {"body": {"messages": [{"role": "user"}]}})
    words = ("in.jsonl", "-o", "out.jsonl", "--via", "batch-api", "-m", f"{vendor.name}:m")
    assert 2 == batch(*words, **vendor.environment).returncode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vendor.api, "max_bytes", 500)
        write("in.jsonl", *(f"p{number}" for number in range(9)), "p" * 500)
        done = batch(*words, **vendor.environment)
    assert (2, True) == (done.returncode, "Row 10 of the input: The request has" in done.stderr)
    assert [] == vendor.requests


@pytest.mark.parametrize(
    ("name", "usual"),
    [("openai:gpt-4o-mini", 0.6), ("anthropic:claude-sonnet-4-6", 15), ("gemini:gemini-2.5-flash", 2.5)],
)
def test_dry_run_has_the_prices_of_batches(name, usual):
    """They are half of the usual ones. Nothing is sent."""
    write("in.jsonl", "p")
    keys = {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k", "GEMINI_API_KEY": "k"}
    words = ("in.jsonl", "-o", "out.jsonl", "-m", name, "--max-tokens", "1000000", "--dry-run")
    costs = []
    for more in ((), ("--via", "batch-api")):
        done = batch(*words, *more, **keys)
        assert done.returncode == 0
        costs.append(float(re.search(r"^cost +([\d.]+) US dollars", done.stdout, re.MULTILINE)[1]))
    assert [usual, usual / 2] == [pytest.approx(cost, abs=1e-3) for cost in costs]


def interrupted(vendor, monkeypatch):
    """Run a job that ends while its first batch is at the vendor, and return its command."""
    write("in.jsonl", *(f"p{number}" for number in range(6)))
    words = ("in.jsonl", "-o", "out.jsonl", "--via", "batch-api", "-m", f"{vendor.name}:m", "--concurrency", "1")
    vendor.looks = 99
    with monkeypatch.context() as patch:
        patch.setattr("rxllm.jobs.patience.FAILURES", 0)
        patch.setattr(vendor, "_look", lambda _: Reply.json({"error": {"message": "oh"}}, status=500))
        assert 3 == batch(*words, **vendor.environment).returncode
    return words


def test_status_and_cancel_tell_of_the_batches_at_the_vendor(vendor, monkeypatch):
    """Batches whose results are in the journal are not named, and not cancelled."""
    words = interrupted(vendor, monkeypatch)
    (made,) = vendor.made.values()
    intents = Intents(Path("out.jsonl"))
    intents.write(Intent("old", 1.0, batch="old"))
    intents.write(Intent("old", 1.0, ended=True))
    model = ("-m", f"{vendor.name}:m")
    done = batch("status", "out.jsonl")
    assert f"answered      0\nfailed        0\nbatch         {made.id}, 4 rows\n" == done.stdout
    done = batch("status", "out.jsonl", *model, **vendor.environment)
    assert re.search(
        rf"^batch         {made.id}, 4 rows; (in_progress|running)(, 0 answered)?$", done.stdout, re.MULTILINE
    )
    done = batch("cancel", "out.jsonl", *model, **vendor.environment)
    assert (0, "rxllm: 1 batches cancelled.\n") == (done.returncode, done.stderr)
    assert [made.id] == vendor.cancelled
    done = batch("status", "out.jsonl", *model, **vendor.environment)
    assert "1 answered" in done.stdout
    vendor.looks = 1
    assert 0 == batch(*words, **vendor.environment).returncode
    assert {f"p{number}": 1 for number in range(6)} == vendor.paid
    assert "batch" not in batch("status", "out.jsonl").stdout


def test_batch_that_is_not_confirmed_is_looked_for(vendor, monkeypatch):
    """It may cost something, so that status and cancel must find it. One that does not exist is not cancelled."""
    words = interrupted(vendor, monkeypatch)
    (made,) = vendor.made.values()
    path = Path("out.jsonl.batches")
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])  # only the intent
    made.looks = 1 if vendor.name == "anthropic" else 99
    model = ("-m", f"{vendor.name}:m")
    assert "not confirmed, 4 rows\n" in batch("status", "out.jsonl").stdout
    done = batch("status", "out.jsonl", *model, **vendor.environment)
    assert f"batch         {made.id}, 4 rows; " in done.stdout
    done = batch("cancel", "out.jsonl", *model, **vendor.environment)
    assert (0, [made.id]) == (done.returncode, vendor.cancelled)
    vendor.made.clear()
    done = batch("cancel", "out.jsonl", *model, **vendor.environment)
    assert done.returncode == 1
    assert "without an id was not cancelled: the vendor lists no such batch" in done.stderr
    assert (
        "not confirmed, 4 rows; the vendor lists no"
        in batch("status", "out.jsonl", *model, **vendor.environment).stdout
    )
    vendor.looks = 1
    assert 0 == batch(*words, **vendor.environment).returncode


def test_batch_that_shows_its_requests_later_is_named(monkeypatch):
    """Anthropic shows the requests of a batch when it has ended."""
    with FakeAnthropic() as vendor:
        hasten(monkeypatch.setattr, FakeAnthropic)
        interrupted(vendor, monkeypatch)
        path = Path("out.jsonl.batches")
        path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
        done = batch("cancel", "out.jsonl", "-m", "anthropic:m", **vendor.environment)
        assert done.returncode == 1
        assert "it may be msgbatch_0, which shows when that has ended" in done.stderr
        assert [] == vendor.cancelled


def test_batch_that_cannot_be_cancelled_does_not_keep_the_others(vendor):
    """Of one that has just ended, for example."""
    intents = Intents(Path("out.jsonl"))
    for name in ("missing", "made"):
        intents.write(Intent(name, 1.0, [Noted("k", "1", 0, "d", 1)], batch=name))
    vendor._made("made", "", [(0, ("k", "p"))])
    (made,) = vendor.made.values()
    intents.write(Intent("made", 1.0, batch=made.id))
    done = batch("cancel", "out.jsonl", "-m", f"{vendor.name}:m", **vendor.environment)
    assert done.returncode == 1
    assert "The batch missing was not cancelled: unknown" in done.stderr
    assert done.stderr.endswith("rxllm: 1 batches cancelled.\n")
    assert [made.id] == vendor.cancelled
    assert 2 == batch("status", "none.jsonl").returncode


def test_command_allows_as_many_connections_as_the_system():
    """The limit of open files is raised while the job runs, and lowered afterwards."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] // 2, before[1]))
    lowered = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        with room_for_many():
            assert (before[1], before[1]) == resource.getrlimit(resource.RLIMIT_NOFILE)
        assert lowered == resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_rates_are_shared_with_other_processes(server):
    """Without the Redis the command says so and goes on, with its share; without a rate there is nothing to share."""
    write("in.jsonl", {"custom_id": "1", "prompt": "p1"})
    words = ("in.jsonl", "-o", "out.jsonl", *MODEL, "--shared", f"redis://127.0.0.1:{free_port()}")
    done = batch(*words, **openai(server))
    assert (2, "rxllm: --shared needs a rate to share: --rpm or --tpm.\n") == (done.returncode, done.stderr)
    command = [sys.executable, "-m", "rxllm", "batch", *words, "--rpm", "600"]
    done = subprocess.run(command, env={**os.environ, **openai(server)}, capture_output=True, text=True, check=False)
    assert 0 == done.returncode
    assert "the limits 'openai:gpt-4o-mini' are not shared" in done.stderr
    assert {"1": "A p1"} == held("out.jsonl")


def test_command_makes_full_collections_rare():
    """New garbage is collected as often as before, everything a hundredth as often; afterwards as before."""
    before = gc.get_threshold()
    with room_for_many():
        assert before[:2] == gc.get_threshold()[:2]
        assert gc.get_threshold()[2] in (1000, 0)  # Python 3.14 has no such threshold
    assert before == gc.get_threshold()
