"""The workers of `map_prompts`, without Ray: how rows become answers."""

import asyncio
import threading

import pyarrow as pa
import pytest
from job_models import Echo
from worker_models import Fails, Rich

import rxllm
from rxllm import MisuseError
from rxllm.jobs.ray import _Worker
from rxllm.jobs.rows import prompt_of


@pytest.fixture
def store(tmp_path):
    """A store."""
    return rxllm.SQLiteStore(tmp_path / "answers.db")


def table(*prompts):
    """Return a table with these prompts."""
    return pa.table({"prompt": pa.array(prompts, pa.string())})


async def answered(llm, store, *prompts, concurrency=8):
    """Return the rows that a worker makes of these prompts."""
    return (await _Worker(llm, store, prompt_of, concurrency, "")(table(*prompts))).to_pylist()


async def test_each_batch_has_the_same_columns(store):
    """Their types do not depend on the answers, so blocks of only failures or only answers fit together."""
    worker = _Worker(Echo(), store, prompt_of, 8, "")
    good, bad, none = [await worker(table(*prompts)) for prompts in (["a"], ["bad"], [])]
    assert good.schema == bad.schema == none.schema
    assert (1, 1, 0) == (len(good), len(bad), len(none))


async def test_an_answer_fills_its_columns(store):
    """Text, reasoning, tool calls, finish reason and usage."""
    [row] = await answered(Rich(), store, "parts")
    assert ("é\n", "hm", "tool_call", None) == (row["answer"], row["reasoning"], row["finish_reason"], row["failure"])
    assert [{"id": "1", "name": "f", "arguments": '{"x":1}'}] == row["tool_calls"]
    assert {"input_tokens": 3, "output_tokens": 2, "cache_read_input_tokens": 1}.items() <= row["usage"].items()


async def test_any_error_of_a_row_is_a_value(store):
    """Also one of the model's own code, and an answer with half a character, which no table can hold."""
    rows = await answered(Fails(), store, "bad", "value", "half", None)
    assert ["BadRequest", "ValueError", "ValueError", "MisuseError"] == [row["failure"]["kind"] for row in rows]
    assert (400, "bad_prompt") == (rows[0]["failure"]["status"], rows[0]["failure"]["code"])
    half, text = await answered(Rich(), store, "half", "text")
    assert ("UnicodeEncodeError", None) == (half["failure"]["kind"], half["answer"])
    assert "plain" == text["answer"]


async def test_a_column_is_not_written_over(store):
    """A dataset with a column "answer" needs a prefix."""
    theirs = table("a").append_column("answer", pa.array(["theirs"]))
    with pytest.raises(MisuseError, match="has a column 'answer' already"):
        await _Worker(Echo(), store, prompt_of, 8, "")(theirs)
    [row] = (await _Worker(Echo(), store, prompt_of, 8, "our_")(theirs)).to_pylist()
    assert ("theirs", "a") == (row["answer"], row["our_answer"])


async def test_an_error_that_all_rows_would_get_is_raised(store):
    """A wrong key or none says nothing about a row."""

    class Locked(rxllm.LLM):
        async def complete(self, request):
            raise rxllm.AuthenticationError("The key is wrong.", status=401)

    with pytest.raises(rxllm.AuthenticationError):
        await answered(rxllm.cached(Locked(), store, name="locked"), store, "a")
    with pytest.raises(MisuseError, match=r"There is no key for api\.openai\.com"):
        await answered(rxllm.OpenAI("m"), store, "a")


async def test_concurrency_bounds_the_requests_of_all_batches():
    """Ray calls a worker for several batches at a time."""
    running, most = 0, 0
    full = asyncio.Event()

    class Counts(rxllm.LLM):
        async def complete(self, request):
            nonlocal running, most
            running += 1
            most = max(most, running)
            if running == 3:
                full.set()
            await full.wait()
            for _ in range(50):  # turns of the loop, in which more requests would start
                await asyncio.sleep(0)
            running -= 1
            return request.text

    worker = _Worker(Counts(), rxllm.MemoryStore(), prompt_of, 3, "")
    await asyncio.gather(worker(table(*"abcdef")), worker(table(*"ghijkl")))
    assert 3 == most


async def test_answers_arrive_while_the_loop_of_the_caller_is_blocked(store):
    """Ray blocks the event loop of an actor while its output is not taken."""
    done = threading.Event()

    class Tells(rxllm.LLM):
        async def complete(self, request):
            done.set()
            return request.text

    task = asyncio.create_task(answered(Tells(), store, "a"))
    await asyncio.sleep(0)
    assert done.wait(30)
    assert "a" == (await task)[0]["answer"]


async def test_a_function_of_a_module_makes_the_model(store):
    """It is called on the worker, for models that cannot be pickled."""
    [row] = await answered(Echo, store, "a")
    assert "a" == row["answer"]


def test_a_store_in_another_process_has_the_same_file(tmp_path, monkeypatch):
    """Another process may have another working directory."""
    import pickle

    monkeypatch.chdir(tmp_path)
    store = pickle.dumps(rxllm.SQLiteStore("answers.db"))
    assert repr(rxllm.SQLiteStore(tmp_path / "answers.db")) == repr(pickle.loads(store))  # noqa: S301
