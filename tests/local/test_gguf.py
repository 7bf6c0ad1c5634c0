"""`LlamaCpp`: real llama.cpp, with a model that says known sentences (see `tiny_gguf`)."""

import asyncio
import gc
import importlib.util
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Literal

import httpx
import pytest
from attrs import frozen
from extras import needs_xllamacpp
from tiny_gguf import SONG, THOUGHT, write_model
from waiting import PATIENCE, wait_until

import rxllm
from rxllm import BadRequest, Interrupted, LlamaCpp, Message, MisuseError, ProviderError, ToolResultPart, ToolSpec
from rxllm.local import _llama_server
from rxllm.testing import End, FakeServer, LLMContract, Reply

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = ToolSpec("weather", "Tells the weather of a city.", CITY)
ONE_THREAD = {"cpuparams.n_threads": 1, "cpuparams_batch.n_threads": 1}  # two would wait for each other
LIMIT = 32_000  # tokens of an answer that ends only when it is cancelled: they take seconds


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The file of the model."""
    path = tmp_path_factory.mktemp("llama") / "tiny.gguf"
    write_model(path)
    return path


@pytest.fixture(scope="module")
def llm(path):
    """A model that all tests of this module share, with a place for two answers at once."""
    return LlamaCpp(path, context=32_768, parallel=2, options=ONE_THREAD)


@frozen
class Weather:
    """A shape with one value."""

    city: Literal["Ulm"]
    days: Literal[3]


def process_of(llm):
    """The process of a loaded model."""
    return llm._server._loading.result()._process


def ask_server(llm, path):
    """The document at a path of llama.cpp's own server."""
    loaded = llm._server._loading.result()
    headers = {"authorization": f"Bearer {loaded.key}"}
    response = httpx.get(loaded.address + path, headers=headers, trust_env=False, timeout=PATIENCE)
    return response.raise_for_status().json()


def busy(llm):
    """The number of answers that llama.cpp generates now."""
    return sum(slot["is_processing"] for slot in ask_server(llm, "/slots"))


@needs_xllamacpp
class TestContract(LLMContract):
    """The contract of any model."""

    @pytest.fixture
    def llm(self, llm):
        """The model, which always answers the same."""
        return llm.bind(temperature=0)


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


@needs_xllamacpp
@pytest.mark.parametrize("stream", [True, False])
def test_answer_has_text_reasoning_usage_and_model(llm, stream):
    """They are those of llama.cpp."""
    answer = llm.invoke("Sing!", stream=stream)
    assert ("".join(SONG), "".join(THOUGHT)) == (answer.text, answer.reasoning)
    assert ("stop", "tiny", 11) == (answer.finish_reason, answer.model, answer.usage.output_tokens)
    assert answer.usage.input_tokens > 0


@needs_xllamacpp
def test_token_is_a_chunk(llm):
    """A chunk arrives for each token of the text."""
    assert SONG == [chunk.text for chunk in llm.stream("Sing!") if chunk.text]


@needs_xllamacpp
def test_tools_are_called_and_their_results_are_read(llm):
    """Two calls go back with their results, and the model answers."""
    llm = llm.bind(tools=[WEATHER], parallel_tool_calls=True)
    answer = llm.invoke("The weather?")
    assert "tool_call" == answer.finish_reason
    assert [{"city": "Paris"}, {"city": "Rome"}] == [json.loads(call.arguments) for call in answer.tool_calls]
    results = [Message("tool", [ToolResultPart(call.id, "wet", name=call.name)]) for call in answer.tool_calls]
    assert "".join(SONG) == llm.invoke([Message("user", "The weather?"), answer, *results]).text


@needs_xllamacpp
def test_grammar_makes_the_answer_fit_its_shape(llm):
    """llama.cpp allows only those tokens that fit the type, although the model would say something else."""
    asked = llm.bind(shape=Weather, max_tokens=500)
    assert Weather("Ulm", days=3) == rxllm.pipe(asked, rxllm.parse(Weather)).invoke("The weather?")


@needs_xllamacpp
def test_file_that_the_model_cannot_read_is_a_bad_request(llm):
    """llama.cpp calls it an error of the server, with the status 500."""
    with pytest.raises(BadRequest, match="image input is not supported") as caught:
        llm.invoke([Message("user", [rxllm.FilePart("image/png", b"\x89PNG")])])
    assert (500, False) == (caught.value.status, caught.value.retryable)


@needs_xllamacpp
def test_answer_ends_with_the_context(path):
    """Without max_tokens, an answer ends when it has filled the context; a longer prompt is refused."""
    llm = LlamaCpp(path, context=512, parallel=1, options=ONE_THREAD)
    answer = llm.invoke("For ever!")
    assert "length" == answer.finish_reason
    assert 512 >= answer.usage.input_tokens + answer.usage.output_tokens
    with pytest.raises(BadRequest, match="exceeds the available context size"):
        llm.invoke("Sing!" * 500)


# ── many streams ─────────────────────────────────────────────────────────────────────────────────────────────────


@needs_xllamacpp
async def test_fifty_streams_at_once(llm):
    """All answers are whole, although llama.cpp generates two at once."""
    answers = await llm.abatch([f"Sing {number}!" for number in range(50)], max_concurrency=50)
    assert ["".join(SONG)] * 50 == [answer.text for answer in answers]


@needs_xllamacpp
async def test_event_loop_runs_while_the_model_is_loaded(path):
    """Other tasks get their turns."""
    turns = 0

    async def count():
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    counter = asyncio.create_task(count())
    await LlamaCpp(path, context=600, options=ONE_THREAD).ainvoke("Sing!")
    counter.cancel()
    assert turns > 10


@needs_xllamacpp
def test_slow_reader_is_bounded_by_the_context(path):
    """llama.cpp finishes the answer of a slow reader, which then gets all of it. Another answer does not wait."""
    llm = LlamaCpp(path, context=2048, parallel=2, options=ONE_THREAD)
    with llm.stream("For ever!") as slow:
        pieces = [next(slow).text]
        assert "".join(SONG) == llm.invoke("Sing!").text
        wait_until(lambda: not busy(llm))
        pieces += [chunk.text for chunk in slow]
    assert 1000 < len("".join(pieces)) <= 2 * 2048


@needs_xllamacpp
@pytest.mark.parametrize("stream", [True, False])
async def test_disposed_answer_stops_within_50_ms(llm, stream):
    """llama.cpp generates nothing then, in the best of several attempts: other programs may hold the machine up."""
    await llm.ainvoke("Sing!")
    server = llm._server._loading.result()
    seconds, tokens = [], []
    with httpx.Client(
        base_url=server.address, headers={"authorization": f"Bearer {server.key}"}, trust_env=False, timeout=PATIENCE
    ) as client:

        def generated():
            """The tokens of the running answer so far; None if there is none."""
            slots = client.get("/slots").raise_for_status().json()
            return next((slot["next_token"][0]["n_decoded"] for slot in slots if slot["is_processing"]), None)

        def wait_for_the_end():
            last = 0
            while (count := generated()) is not None:
                last = count
            return last

        for _ in range(5):
            subscription = llm.bind(stream=stream, max_tokens=LIMIT)("For ever!").subscribe()
            await asyncio.to_thread(wait_until, generated)
            left = time.monotonic()
            subscription.dispose()
            tokens.append(await asyncio.to_thread(wait_for_the_end))
            seconds.append(time.monotonic() - left)
    assert max(tokens) < LIMIT - 1000
    assert min(seconds) < 0.05, seconds


@needs_xllamacpp
async def test_cancelled_request_in_the_queue_is_never_answered(llm):
    """A request that waits for a place, and is cancelled, does not delay those behind it."""
    subscriptions = [llm.bind(max_tokens=LIMIT)("For ever!").subscribe() for _ in range(8)]
    await asyncio.to_thread(wait_until, lambda: busy(llm) == 2)
    for subscription in subscriptions:
        subscription.dispose()
    assert "".join(SONG) == (await llm.ainvoke("Sing!")).text


# ── the process ──────────────────────────────────────────────────────────────────────────────────────────────────


@needs_xllamacpp
def test_models_of_one_file_share_a_process(path, llm):
    """Copies and models with the same settings share it; other settings get a process of their own."""
    llm.invoke("Sing!")
    same = LlamaCpp(str(path), context=32_768, parallel=2, options=ONE_THREAD, temperature=0)
    assert llm._server is same._server is llm.bind(seed=1)._server is pickle.loads(pickle.dumps(llm))._server  # noqa: S301
    assert llm._server is not LlamaCpp(path)._server


@needs_xllamacpp
def test_model_is_loaded_once_for_many_requests(path):
    """The first request starts a process, and the others wait for it."""
    llm = LlamaCpp(path, context=1024, options=ONE_THREAD)
    assert llm._server._loading is None
    assert 8 == len(llm.batch(["Sing!"] * 8))
    assert process_of(llm).poll() is None


@needs_xllamacpp
def test_process_ends_with_its_last_model(path):
    """Its memory is free when no model and no stream needs it."""
    llm = LlamaCpp(path, context=1024, options=ONE_THREAD)
    stream = llm.stream("For ever!")
    next(stream)
    process = process_of(llm)
    del llm
    gc.collect()
    next(stream)
    assert process.poll() is None
    stream.close()
    del stream
    wait_until(lambda: gc.collect() is not None and process.poll() is not None)


@needs_xllamacpp
def test_request_after_a_crash_loads_the_model_again(path):
    """The answer in the middle fails as interrupted."""
    llm = LlamaCpp(path, context=16_384, options=ONE_THREAD)
    stream = llm.stream("For ever!")
    next(stream)
    process_of(llm).kill()
    process_of(llm).wait()
    with pytest.raises(Interrupted) as failure:
        for _ in stream:
            pass
    assert failure.value.retryable
    assert failure.value.partial.text.startswith("la")
    assert "".join(SONG) == llm.invoke("Sing!").text


PROGRAM = """
import os, sys, rxllm
llm = rxllm.LlamaCpp(sys.argv[1], context=1024)
print(llm.invoke("Sing!").text, llm._server._loading.result()._process.pid, flush=True)
{}
"""


def pid_in(words):
    """The process in the output of PROGRAM."""
    text, pid = words.strip().rsplit(" ", 1)
    assert "".join(SONG) == text
    return int(pid)


def ended(pid):
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@needs_xllamacpp
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
@pytest.mark.parametrize("end", ["", "os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_process_ends_with_the_program(path, end):
    """However the program ends, llama.cpp does not outlive it."""
    program = [sys.executable, "-W", "error", "-c", PROGRAM.format(end), str(path)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert "" == done.stderr
    pid = pid_in(done.stdout)
    wait_until(lambda: ended(pid))


@needs_xllamacpp
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_forked_child_has_a_process_of_its_own(path):
    """The end of the child does not end the process of the parent."""
    lines = [
        "pid = os.fork()",
        "if pid == 0:",
        "    print(llm.invoke('Sing!').text, llm._server._loading.result()._process.pid, flush=True)",
        "    sys.exit(0)",
        "assert os.waitpid(pid, 0)[1] == 0",
        "assert llm._server._loading.result()._process.poll() is None",
        "print(llm.invoke('Sing!').text, 0)",
    ]
    program = [sys.executable, "-W", "error", "-c", PROGRAM.format("\n".join(lines)), str(path)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert ("", 0) == (done.stderr, done.returncode)
    parent, child, again = map(pid_in, done.stdout.splitlines())
    assert 0 == again
    assert parent != child
    wait_until(lambda: ended(parent) and ended(child))


@needs_xllamacpp
@pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups")
def test_ctrl_c_does_not_end_the_process(path):
    """A terminal sends Ctrl-C to the whole group of processes; the program decides what ends."""
    llm = LlamaCpp(path, context=1024, options=ONE_THREAD)
    llm.invoke("Sing!")
    process = process_of(llm)
    os.kill(process.pid, signal.SIGINT)
    assert "".join(SONG) == llm.invoke("Sing!").text
    assert process is process_of(llm)


@needs_xllamacpp
def test_server_answers_only_with_the_key(llm, caplog):
    """Other users of the machine cannot ask the model, and the key is shown nowhere."""
    with caplog.at_level(logging.DEBUG):
        llm.invoke("Sing!")
        with pytest.raises(BadRequest) as refusal:
            llm.invoke("Sing!" * 20_000)
    loaded = llm._server._loading.result()
    url = f"{loaded.address}/v1/chat/completions"
    body = {"messages": [{"role": "user", "content": "Sing!"}]}
    assert 401 == httpx.post(url, json=body, trust_env=False, timeout=PATIENCE).status_code
    shown = f"{llm!r} {loaded!r} {refusal.value!r} {refusal.value.body} {caplog.text} {process_of(llm).args}"
    assert loaded.key not in shown


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────


@needs_xllamacpp
def test_broken_file_raises_with_the_reason_of_llama_cpp(tmp_path):
    """The error has the first error line of llama.cpp, and its log."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ProviderError, match=r"could not load .*broken.gguf': .*bad GGUF version: 0\.$") as failure:
        LlamaCpp(broken).invoke("Sing!")
    assert "failed to load model" in failure.value.body
    assert "Sing!" == failure.value.request.text


@needs_xllamacpp
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"n_gpu_layer": 1}, "llama.cpp has no setting 'n_gpu_layer'"),
        ({"cpuparams.threads": 1}, "llama.cpp has no setting 'cpuparams.threads'"),
        ({"n_gpu_layers": "all"}, "'n_gpu_layers' can't be 'all'"),
    ],
)
def test_option_that_llama_cpp_does_not_know_is_refused(path, options, sentence):
    """The error names the option."""
    with pytest.raises(MisuseError, match=sentence):
        LlamaCpp(path, options=options).invoke("Sing!")


@needs_xllamacpp
def test_failed_load_is_tried_again(tmp_path):
    """The next request loads the file that is there now."""
    file = tmp_path / "late.gguf"
    llm = LlamaCpp(file, options=ONE_THREAD)
    for _ in range(2):
        with pytest.raises(MisuseError, match="rxllm downloads no model"):
            llm.invoke("Sing!")
    write_model(file)
    assert "".join(SONG) == llm.invoke("Sing!").text


def test_missing_package_is_named(monkeypatch):
    """The constructor says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MisuseError, match=r"pip install 'rxllm\[local\]'"):
        LlamaCpp("a.gguf")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"path": ""}, "must be text or a Path, not ''"),
        ({"path": 5}, "must be text or a Path, not 5"),
        ({"context": 0}, "context must be a whole number of at least 1, not 0"),
        ({"parallel": "2"}, "parallel must be a whole number of at least 1, not '2'"),
        ({"options": [1]}, r"options must be a dict, not \[1\]"),
        ({"options": {"n_ctx": 1}}, "can't have 'n_ctx': context= sets it"),
        ({"options": {"api_keys": ["a"]}}, "can't have 'api_keys': LlamaCpp itself sets it"),
        ({"options": {"log": print}}, "must be plain values"),
        ({"contxt": 1}, r"Did you mean context=…\?"),
    ],
)
def test_invalid_argument_is_refused(anywhere, settings, sentence):
    """The constructor raises MisuseError."""
    with pytest.raises(MisuseError, match=sentence):
        LlamaCpp(**{"path": "a.gguf"} | settings)


def test_file_without_the_format_is_refused(anywhere, tmp_path):
    """The first bytes of a GGUF file are GGUF."""
    file = tmp_path / "weights.gguf"
    file.write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(MisuseError, match="is not a GGUF file"):
        LlamaCpp(file).invoke("Sing!")


def test_another_model_is_refused(anywhere):
    """The file has one model."""
    with pytest.raises(MisuseError, match="Leave model= out"):
        LlamaCpp("a.gguf").invoke("Sing!", model="b")


# ── the value ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_name_with_a_path_gives_the_model(anywhere):
    """The path follows the first colon."""
    assert LlamaCpp("/models/a:b.gguf", temperature=0) == rxllm.model("gguf:/models/a:b.gguf", temperature=0)


def test_identity_changes_with_the_file_and_the_settings(anywhere, tmp_path):
    """Answers of other weights are not taken from a cache; the number of places does not matter."""
    file = tmp_path / "a.gguf"
    missing = LlamaCpp(file).identity()
    file.write_bytes(b"GGUF")
    first = LlamaCpp(file).identity()
    assert first == LlamaCpp(file, parallel=1).identity() == pickle.loads(pickle.dumps(LlamaCpp(file))).identity()  # noqa: S301
    file.write_bytes(b"GGUF1")
    changed = LlamaCpp(file)
    assert 4 == len({missing, first, changed.identity(), LlamaCpp(file, context=1).identity()})


def test_description_of_the_service(anywhere):
    """Handlers get llama.cpp and the name of the file."""
    [service] = {event.run.service for event in failing(LlamaCpp("songs/tiny.gguf")) if event.run.service}
    assert ("llama.cpp", "tiny", None) == (service.provider, service.model, service.address)


def failing(llm):
    """The events of a request that fails."""
    events = []
    with pytest.raises(MisuseError):
        llm.with_config(handlers=[events.append]).invoke("Sing!")
    return events


def test_requests_pass_by_the_proxy(anywhere, monkeypatch):
    """A proxy of the environment gets no request, and the answer's connection is closed."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    llm = LlamaCpp("tiny.gguf")
    with FakeServer() as server:
        loaded = Future()
        loaded.set_result(_llama_server.LlamaProcess(Running(), server.url, "sesame"))
        llm._server._loading = loaded
        frame = b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'
        server.reply(Reply([frame, b"data: [DONE]\n\n"]))
        assert "Hel" == llm.invoke("Hi").text
        server.reply(Reply([frame, End.FIN]))
        with pytest.raises(Interrupted) as failure:
            llm.invoke("Hi")
        assert "Hel" == failure.value.partial.text
        request, _ = server.requests
    assert ("Bearer sesame", "close") == (request.headers["authorization"], request.headers["connection"])
    body = json.loads(request.body)
    assert ("tiny", [{"role": "user", "content": "Hi"}]) == (body["model"], body["messages"])


class Running:
    """A process that has not ended."""

    def poll(self):
        """Return that it runs."""
