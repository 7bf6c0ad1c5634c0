"""`Journal`: what a file holds after a crash, and what is refused."""

import itertools
import json
import os
import shutil
import stat
import threading
from decimal import Decimal
from pathlib import Path

import attrs
import pytest
from job_models import Echo, held, run

import rxllm
from rxllm.jobs.exporting import export
from rxllm.jobs.index import Index
from rxllm.jobs.lines import line_of, result_of
from rxllm.jobs.ordering import put_in_order
from rxllm.jobs.planning import STEP, plans
from rxllm.jobs.rows import prompt_of
from rxllm.values.leaf_parts import TextPart

ROWS = [{"custom_id": f"row-{number}", "prompt": f"é {number}\n"} for number in range(6)]


def test_journal_cut_at_every_byte_of_its_last_two_lines_loses_nothing_else(tmp_path):
    """After each cut, the rows before it are not asked again, the others are, and all lines are whole."""
    path = tmp_path / "out.jsonl"
    run(ROWS, path, concurrency=1)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    start = len(b"".join(lines[:-2]))
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        with rxllm.Journal(path).open() as file:
            kept = path.read_bytes()
            missing = [row["custom_id"] for row in ROWS if file.find(row["custom_id"]) is None]
        assert kept == whole[: len(kept)]
        assert kept.endswith(b"\n")
        # A line of which only the end is missing is whole.
        complete = 4 + (end >= start + len(lines[-2]) - 1) + (end >= len(whole) - 1)
        assert [f"row-{number}" for number in range(complete, 6)] == missing
        if end % 211 == 0:
            assert missing == [result.id for result in run(ROWS, path, concurrency=1)]
            assert {row["custom_id"]: row["prompt"] for row in ROWS} == held(path)


def test_file_that_ends_in_zeros_is_mended(tmp_path):
    """A power failure may leave zeros where a line was to be."""
    path = tmp_path / "out.jsonl"
    run(ROWS[:2], path)
    with path.open("ab") as file:
        file.write(bytes(300))
    assert [] == run(ROWS[:2], path)
    assert 2 == len(path.read_bytes().splitlines())


@pytest.mark.parametrize("content", ["a letter\n", "a letter", '{"prompt": "x"}\n', "[1]"])
def test_another_file_is_refused_and_stays_as_it_is(tmp_path, content):
    """A file that no job wrote is neither cut nor continued."""
    path = tmp_path / "out.jsonl"
    path.write_text(content)
    with pytest.raises(rxllm.MisuseError, match=r"Line 1 of .* was not written by a job .* Choose another output"):
        run(ROWS, path)
    assert content == path.read_text()


def test_journal_of_a_later_version_is_refused(tmp_path):
    """With the advice to upgrade; nothing is changed."""
    path = tmp_path / "out.jsonl"
    run(ROWS[:1], path)
    later = path.read_bytes().replace(b'"version":1', b'"version":2')
    path.write_bytes(later)
    for read in (lambda: run(ROWS, path), lambda: list(rxllm.Journal(path).results())):
        with pytest.raises(rxllm.MisuseError, match=r"in form 2; .* Upgrade rxllm"):
            read()
    assert later == path.read_bytes()


def test_second_job_on_one_file_is_refused(tmp_path, monkeypatch):
    """Two writers would cut each other's lines. A job that is closing gets a moment."""
    monkeypatch.setattr("rxllm.jobs.locking._PATIENCE", 0.0)
    path = tmp_path / "out.jsonl"
    with rxllm.Journal(path).open(), pytest.raises(rxllm.MisuseError, match="Another job writes to"):
        run(ROWS, path)
    assert 6 == len(run(ROWS, path))


def test_new_file_is_readable_by_its_owner_only(tmp_path):
    """Prompts and answers may be private."""
    path = tmp_path / "out.jsonl"
    run(ROWS[:1], path)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("path", ["", "a\0b", 3, None])
def test_wrong_path_is_refused(path):
    """A journal is a file."""
    with pytest.raises(rxllm.MisuseError, match="A Journal needs the path of a file"):
        rxllm.Journal(path)


def test_directory_and_missing_directory_are_refused(tmp_path):
    """The error names the path and the reason."""
    for path in (tmp_path, tmp_path / "none" / "out.jsonl"):
        with pytest.raises(rxllm.MisuseError, match="cannot be opened: "):
            run(ROWS, path)


def test_job_that_waited_for_a_replaced_file_opens_the_new_one(tmp_path, monkeypatch):
    """Otherwise its results would go to a file that has no name any more."""
    path, calls = tmp_path / "out.jsonl", []
    run(ROWS[:2], path)

    def locked_late(descriptor):
        calls.append(descriptor)
        if len(calls) == 1:  # meanwhile another process puts its results in order
            (tmp_path / "new").write_bytes(path.read_bytes())
            (tmp_path / "new").replace(path)

    monkeypatch.setattr("rxllm.jobs.journal.lock", locked_late)
    assert 4 == len(run(ROWS, path))
    assert 6 == len(held(path))
    assert 2 == len(calls)


def test_plan_makes_no_file(tmp_path):
    """It could not be removed while another process may have begun to write to it."""
    path, made = tmp_path / "out.jsonl", []

    def rows():
        for row in ROWS:
            made.append(path.exists())
            yield row

    (planned,) = plans(rows(), Echo(), rxllm.Journal(path), prompt_of, id_column="custom_id", retry_failed=False)
    assert (6, [False] * 6) == (planned.open, made)
    assert [] == [*tmp_path.iterdir()]


def test_plan_counts_the_dearest_of_two_vendors_of_a_model(tmp_path, monkeypatch):
    """The price of one vendor is not taken for that of the other."""
    prices = {"cheap.example": Decimal(1), "dear.example": Decimal(2)}

    def price_of(model, tokens, provider, address, time, *, in_batch):
        return prices[address]

    monkeypatch.setattr("rxllm.jobs.planning.price_of", price_of)
    cheap, dear = (rxllm.OpenAI("m", base_url=f"https://{host}/v1", api_key="k", max_tokens=9) for host in prices)
    for llm in (rxllm.fallback(cheap, dear), rxllm.fallback(dear, cheap)):
        journal = rxllm.Journal(tmp_path / "out")
        (planned,) = plans(ROWS, llm, journal, prompt_of, id_column="custom_id", retry_failed=False)
        assert 12 == planned.cost


def test_job_writes_while_its_rows_are_still_planned(tmp_path):
    """After the first plan; the later ones know the journal as it was then, and have all rows at last."""
    path = tmp_path / "out.jsonl"
    rows = [{"custom_id": f"row {number}", "prompt": "p"} for number in range(2 * STEP + 1)]
    run(rows[:3], path)
    planning = plans(rows, Echo(), rxllm.Journal(path), prompt_of, id_column="custom_id", retry_failed=False)
    first = next(planning)
    assert 10 == len(run(rows[:13], path))
    second, last = planning
    seen = [(planned.is_whole, planned.rows, planned.open) for planned in (first, second, last)]
    assert [(False, STEP, STEP - 3), (False, 2 * STEP, 2 * STEP - 3), (True, 2 * STEP + 1, 2 * STEP - 2)] == seen


def test_link_to_a_journal_stays_when_its_results_are_put_in_order(tmp_path):
    """The file that it leads to is the one that is replaced."""
    path, link = tmp_path / "out.jsonl", tmp_path / "link.jsonl"
    link.symlink_to(path)
    run(ROWS, link)
    put_in_order(ROWS[::-1], Echo(), rxllm.Journal(link), prompt_of, id_column="custom_id")
    assert link.is_symlink()
    assert [row["custom_id"] for row in ROWS[::-1]] == list(held(path))


def test_journal_is_not_overwritten_by_its_table(tmp_path):
    """Also if its name ends like that of a table."""
    path = tmp_path / "out.csv"
    run(ROWS, path)
    with pytest.raises(rxllm.MisuseError, match="is the journal itself"):
        export(rxllm.Journal(path), str(path), escape_formulas=False)
    assert 6 == len(held(path))


def test_full_disk_ends_the_job_and_leaves_whole_lines(tmp_path, monkeypatch):
    """A line of which only a part could be written is removed, and the job continues later."""
    path = tmp_path / "out.jsonl"
    run(ROWS[:1], path)
    write, calls = os.write, []

    def fill(descriptor, data):
        if not bytes(data).startswith(b'{"id":"rxllm-') and not calls:
            return write(descriptor, data)  # the loop's own pipe
        calls.append(len(data))
        if len(calls) == 3:
            return write(descriptor, bytes(data)[:10])
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        return write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr("rxllm.jobs.journal.os.write", fill)
        with pytest.raises(OSError, match="No space left"):
            run(ROWS, path, concurrency=1)
    assert path.read_bytes().endswith(b"\n")
    assert ["row-0", "row-1", "row-2"] == list(held(path))
    assert ["row-3", "row-4", "row-5"] == [result.id for result in run(ROWS, path, concurrency=1)]


def deleting(path, after, displace=None):
    """A model that echoes, and deletes the journal after so many answers."""
    asked = itertools.count(1)

    class Deleting(rxllm.LLM):
        async def complete(self, request):
            if next(asked) == after:
                displace() if displace else path.unlink()
            return request.text

    return Deleting()


def test_journal_that_is_deleted_during_a_job_is_written_again(tmp_path, monkeypatch):
    """Also with its folder. The job stops, its error says so, and the next run asks for no row again."""
    monkeypatch.setattr("rxllm.jobs.journal._FSYNC_INTERVAL", 0.01)
    path = tmp_path / "folder" / "out.jsonl"
    path.parent.mkdir()
    endless = map(str, itertools.count())
    with pytest.raises(OSError, match=r"moved or deleted .* Its results are there again. Run the same job") as error:
        run(endless, path, deleting(path, 5, lambda: shutil.rmtree(path.parent)), concurrency=2)
    assert str(path) in str(error.value)
    texts = [result.text for result in rxllm.Journal(path).results()]
    assert [str(number) for number in range(len(texts))] == sorted(texts, key=int)
    assert 5 <= len(texts)
    assert 0o600 == path.stat().st_mode & 0o777
    assert [] == run(texts, path, deleting(path, 0))


@pytest.mark.parametrize("last", [3, 2])
def test_deletion_right_before_the_end_of_a_job_is_noticed(tmp_path, monkeypatch, last):
    """When the job closes the file, whatever the working directory is then."""
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def displace():
        Path("out.jsonl").unlink()
        os.chdir(elsewhere)

    with pytest.raises(OSError, match="was moved or deleted"):
        run(["a", "b", "c"], Path("out.jsonl"), deleting(None, last, displace), concurrency=1)
    assert {"a", "b", "c"} == set(held(tmp_path / "out.jsonl").values())


def test_working_directory_may_change_during_a_job(tmp_path, monkeypatch):
    """The journal is where it was."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    assert 3 == len(run(["a", "b", "c"], "out.jsonl", deleting(None, 2, lambda: os.chdir("elsewhere"))))


def test_journal_that_is_replaced_during_a_job_is_written_beside(tmp_path):
    """The file that is there now stays as it is. The same again takes another name."""
    path = tmp_path / "out.jsonl"

    def displace():
        path.rename(tmp_path / "moved.jsonl")
        path.write_text("mine")

    for copy, row in (("out.jsonl.rescued", "a"), ("out.jsonl.rescued1", "b")):
        path.unlink(missing_ok=True)
        with pytest.raises(OSError, match=f"another file has its place. Its results are in '{tmp_path / copy}'"):
            run([row], path, deleting(path, 1, displace))
        assert "mine" == path.read_text()
        assert {row} == set(held(tmp_path / copy).values())


def test_journal_that_cannot_be_written_again_is_told(tmp_path):
    """The error says why."""
    path = tmp_path / "folder" / "out.jsonl"
    path.parent.mkdir()

    def displace():
        shutil.rmtree(path.parent)
        path.parent.write_text("a file")

    with pytest.raises(OSError, match=r"its results cannot be written again: .*File exists"):
        run(["a"], path, deleting(path, 1, displace))


def test_answer_returns_from_its_line_as_it_was():
    """The line holds every part of an answer, also those that OpenAI's format lacks."""
    usage = rxllm.Usage(input_tokens=3, output_tokens=2, cache_read_input_tokens=1, reasoning_output_tokens=1)
    answers = [
        rxllm.Message("assistant", "Hello", usage=usage, finish_reason="stop", raw_finish_reason="end_turn", model="m"),
        rxllm.Message(
            "assistant",
            [
                rxllm.ReasoningPart("hm"),
                rxllm.RefusalPart("no"),
                rxllm.ToolCallPart("1", "f", '{"x":1}'),
                rxllm.ToolCallPart("2", "g", "", index=1),
            ],
            finish_reason="tool_call",
            raw_finish_reason="tool_calls",
            created=7,
        ),
        rxllm.Message("assistant", [TextPart("a"), rxllm.ReasoningPart("b"), rxllm.FilePart("image/png", b"\x00")]),
        rxllm.Message("assistant", "", id="x", logprobs={"content": [{"token": "a"}]}),
        rxllm.Message("assistant", "a", usage=rxllm.Usage()),  # of a server that reports no count
        rxllm.Message("assistant", "a", provider="anthropic", usage=rxllm.Usage(input_tokens=3, estimated=True)),
        rxllm.Message("assistant", "a", usage=attrs.evolve(usage, cache_creation_input_tokens=1, last_round=usage)),
        rxllm.Message("assistant", "a", name="bob", extra={"mood": "fine"}, metadata={"id": 1}),
    ]
    for answer in answers:
        result = rxllm.Result("id", answer, None, 3, "f" * 64)
        read = result_of(line_of(result))
        assert result == read
        facts = {**attrs.asdict(answer), "created": answer.created or read.answer.created}
        assert facts == attrs.asdict(read.answer)  # also those that == leaves out
    failure = rxllm.Result("id", None, rxllm.Failure("BadRequest", "wrong", 400, "bad"), 0, "0")
    assert failure == result_of(line_of(failure))
    assert "" == failure.text


def test_line_has_the_form_of_openais_batch_output(tmp_path):
    """Programs that read OpenAI's batch output read a journal."""
    run(["hi", "bad"], tmp_path / "out.jsonl", concurrency=1)
    answered, failed = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert {"id", "custom_id", "response", "error", "rxllm"} == set(answered) == set(failed)
    assert 200 == answered["response"]["status_code"]
    assert "hi" == answered["response"]["body"]["choices"][0]["message"]["content"]
    assert answered["error"] is None
    assert failed["response"] is None
    assert {"code": "bad_prompt", "message": "The prompt is bad."} == failed["error"]


def test_index_finds_what_it_was_given():
    """Also after it has grown; and what was never set is 0."""
    index = Index()
    for number in range(1, 900):
        index.set(number * 1024, number)
    index.set(1024, 7)
    assert 899 == len(index)
    assert 7 == index.get(1024)
    assert [*range(2, 900)] == [index.get(number * 1024) for number in range(2, 900)]
    assert 0 == index.get(5)


def test_closed_journal_leaves_no_thread(tmp_path):
    """The thread that writes to the disk ends with the job."""
    run(ROWS, tmp_path / "out.jsonl")
    assert [] == [thread for thread in threading.enumerate() if thread.name == "rxllm-journal"]
