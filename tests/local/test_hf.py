"""`Transformers`: the real package, with a model that says known sentences (see `tiny_hf`)."""

import asyncio
import gc
import importlib.util
import pickle
import subprocess
import sys
import threading
import time
import weakref
from types import SimpleNamespace

import pytest
from extras import needs_transformers
from tiny_gguf import ASKED, SONG, THOUGHT
from tiny_hf import write_folder
from waiting import PATIENCE, wait_until

import rxllm
from rxllm import BadRequest, FilePart, Message, MisuseError, ProviderError, ToolCallPart, Transformers
from rxllm.local._hf_prompt import sampling_of
from rxllm.runtime.gate import HIGH_WATER
from rxllm.testing import LLMContract
from rxllm.values.request import Request

TEXT = f"<think>{''.join(THOUGHT)}</think>{''.join(SONG)}"  # transformers leaves the marks of the thoughts in the text
TOGETHER = 3  # answers at once


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of the model."""
    import torch

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("hf")
    write_folder(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(folder):
    """A loaded model that all tests of this module share."""
    llm = Transformers(folder, context=4096, parallel=TOGETHER)
    assert TEXT == llm.invoke("Sing!").text
    return llm


@pytest.fixture
def llm(loaded):
    """The loaded model."""
    return loaded


def engine_of(llm):
    """The engine of a loaded model."""
    return llm._weights._loading.result()


def generating(llm):
    """The number of answers that are generated now, or wait for it."""
    engine = engine_of(llm)
    scheduler = engine._manager.batch_processor.scheduler
    return len(engine._answers) + len(scheduler.active_requests) + len(scheduler.waiting_requests)


@needs_transformers
class TestContract(LLMContract):
    """The contract of any model."""

    @pytest.fixture
    def llm(self, loaded):
        """The model, which always answers the same."""
        return loaded.bind(temperature=0)


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


@needs_transformers
@pytest.mark.parametrize("stream", [True, False])
def test_answer_has_text_usage_and_model(llm, folder, stream):
    """The counts are those of the tokenizer, and the end mark is not a part of the text."""
    answer = llm.invoke("Sing!", stream=stream)
    assert (TEXT, "stop", "eos_token", str(folder)) == (
        answer.text, answer.finish_reason, answer.raw_finish_reason, answer.model
    )  # fmt: skip
    assert 11 == answer.usage.output_tokens
    prompt = engine_of(llm).tokenizer.apply_chat_template(
        [{"role": "user", "content": "Sing!"}], add_generation_prompt=True, return_dict=False
    )
    assert len(prompt) == answer.usage.input_tokens


@needs_transformers
def test_reasoning_in_the_text_can_be_split_off(llm):
    """`split_reasoning` makes a part of it."""
    answer = rxllm.pipe(llm, rxllm.split_reasoning()).invoke("Sing!")
    assert ("".join(SONG), "".join(THOUGHT)) == (answer.text, answer.reasoning)


@needs_transformers
def test_answer_ends_at_the_limit(llm):
    """After max_tokens the finish reason is length."""
    answer = llm.invoke("For ever!", max_tokens=5)
    assert ("la" * 5, "length", 5) == (answer.text, answer.finish_reason, answer.usage.output_tokens)


@needs_transformers
def test_answer_ends_before_a_stop_sequence(llm):
    """The sequence may span several tokens; the model stops."""
    answer = llm.invoke("Sing!", stop_sequences=["ter is w"])
    assert TEXT.partition("ter is w")[0] == answer.text
    assert ("stop", "stop_sequence") == (answer.finish_reason, answer.raw_finish_reason)


@needs_transformers
def test_answer_ends_with_the_context(folder):
    """Without max_tokens, an answer fills the context; a longer prompt is refused."""
    llm = Transformers(folder, context=200, parallel=1)
    answer = llm.invoke("For ever!")
    assert ("length", 200) == (answer.finish_reason, answer.usage.input_tokens + answer.usage.output_tokens)
    with pytest.raises(BadRequest, match=r"exceeds the available context size \(200 tokens\)"):
        llm.invoke("Sing!" * 100)


@needs_transformers
def test_history_reaches_the_model(llm):
    """Each turn is in the prompt, by the template."""
    history = [Message("system", "Be brief."), Message("user", "Sing!"), llm.invoke("Sing!"), Message("user", "Again!")]
    answer = llm.invoke(history)
    assert TEXT == answer.text
    assert answer.usage.input_tokens > llm.invoke("Again!").usage.input_tokens + len("Be brief.")


@needs_transformers
def test_shape_is_asked_for_in_the_prompt(llm):
    """The model gets the schema as text, because it has no grammar."""
    asked = llm.bind(shape=dict[str, bool])
    with pytest.raises(rxllm.ParseError) as failure:
        rxllm.pipe(asked, rxllm.parse(dict[str, bool])).invoke("Sing!")
    assert TEXT == failure.value.text


@needs_transformers
async def test_each_request_has_its_own_sampling(llm):
    """Of two answers at once, one is random and the other is not."""
    wild, sure = await asyncio.gather(
        llm.ainvoke("For ever!", temperature=100, max_tokens=50), llm.ainvoke("For ever!", temperature=0, max_tokens=50)
    )
    assert "la" * 50 == sure.text != wild.text


@needs_transformers
def test_model_without_a_template_continues_a_text(tmp_path):
    """It takes no conversation."""
    write_folder(tmp_path, template=None)
    llm = Transformers(tmp_path, context=500)
    assert TEXT == llm.invoke(f"A story.{ASKED}").text
    with pytest.raises(MisuseError, match="has no chat template"):
        llm.invoke([Message("user", "Sing!")])


@needs_transformers
def test_template_gets_variables_and_may_refuse(tmp_path):
    """The fields of `extra` are variables of the template; its refusal is an error of the request."""
    template = "{% if loud %}<|im_start|>assistant <|ever|>{% else %}{{ raise_exception('Too quiet.') }}{% endif %}"
    write_folder(tmp_path, template=template)
    llm = Transformers(tmp_path, context=500, max_tokens=2)
    assert "lala" == llm.invoke("Sing!", extra={"loud": True}).text
    with pytest.raises(BadRequest, match=r"refuses the conversation: Too quiet\."):
        llm.invoke("Sing!")


# ── many streams ─────────────────────────────────────────────────────────────────────────────────────────────────


@needs_transformers
async def test_fifty_streams_at_once(llm):
    """All answers are whole, and nothing is left in the engine."""
    answers = await llm.abatch(["Sing!"] * 50, max_concurrency=50)
    assert [TEXT] * 50 == [answer.text for answer in answers]
    await asyncio.to_thread(wait_until, lambda: generating(llm) == 0)


@needs_transformers
def test_slow_reader_pauses_its_answer_only(llm):
    """The model generates a few tokens more, then nothing; the answer continues when the reader does."""
    with llm.stream("For ever!", max_tokens=1000) as slow:
        pieces = [next(slow).text]
        wait_until(lambda: generating(llm) == 0)
        assert TEXT == llm.invoke("Sing!").text
        pieces += [chunk.text for chunk in slow]
    assert "la" * 1000 == "".join(pieces)


@needs_transformers
async def test_tokens_for_a_slow_reader_are_bounded(llm):
    """A reader gets what its buffer holds and what the answer holds, and then the model waits."""
    taken = []
    resume = asyncio.Event()

    async def read():
        async for chunk in llm.astream("For ever!", max_tokens=3000):
            taken.append(chunk)
            await resume.wait()

    reader = asyncio.create_task(read())
    await asyncio.to_thread(wait_until, lambda: taken and generating(llm) == 0)
    answers = [each for each in gc.get_objects() if type(each).__name__ == "Answer" and each.loop is reader.get_loop()]
    assert 1 == len(answers)
    assert len(answers[0].tokens) < 4 * HIGH_WATER
    resume.set()
    await reader
    assert "la" * 3000 == "".join(map(str, taken))


@needs_transformers
async def test_cancelled_answer_is_left_out_of_the_next_step(llm):
    """Running and waiting answers end when their subscribers dispose."""
    subscriptions = [llm.bind(max_tokens=4000)("For ever!").subscribe() for _ in range(2 * TOGETHER)]
    await asyncio.to_thread(wait_until, lambda: generating(llm) >= 2 * TOGETHER)
    for subscription in subscriptions:
        subscription.dispose()
    await asyncio.to_thread(wait_until, lambda: generating(llm) == 0)
    assert TEXT == (await llm.ainvoke("Sing!")).text


@needs_transformers
async def test_step_after_a_dispose_computes_no_token_for_it(llm, monkeypatch):
    """A step that has begun ends. However long it takes, it is the last one."""
    runner = engine_of(llm)._manager.batch_processor.model_runner
    compute, is_held, resume, steps = runner.compute_batch, threading.Event(), threading.Event(), []

    def step(*args):
        steps.append(args)
        if len(steps) == 3:
            is_held.set()
            assert resume.wait(PATIENCE)
        compute(*args)

    monkeypatch.setattr(runner, "compute_batch", step)
    subscription = llm.bind(max_tokens=4000)("For ever!").subscribe()
    try:
        assert await asyncio.to_thread(is_held.wait, PATIENCE)
        subscription.dispose()
        await asyncio.to_thread(wait_until, lambda: not engine_of(llm)._manager.cancel_queue.empty())
    finally:
        resume.set()
    await asyncio.to_thread(wait_until, lambda: generating(llm) == 0)
    assert 3 == len(steps)


@needs_transformers
async def test_model_stops_within_50_ms_of_a_dispose(llm, monkeypatch):
    """The last step ends by then, in the best of several attempts: other programs may hold the machine up."""
    runner = engine_of(llm)._manager.batch_processor.model_runner
    compute, ends, seconds = runner.compute_batch, [], []

    def step(*args):
        compute(*args)
        ends.append(time.monotonic())

    monkeypatch.setattr(runner, "compute_batch", step)
    for _ in range(5):
        has_begun = asyncio.Event()
        subscription = llm.bind(max_tokens=4000)("For ever!").subscribe(lambda _, begun=has_begun: begun.set())
        await has_begun.wait()
        left = time.monotonic()
        subscription.dispose()
        await asyncio.to_thread(wait_until, lambda: generating(llm) == 0)
        seconds.append(ends[-1] - left)
    assert len(ends) < 5 * 4000
    assert min(seconds) < 0.05, seconds


@needs_transformers
def test_two_event_loops_share_the_model(llm):
    """Each answer arrives on the event loop of its reader."""
    threads = []

    async def ask():
        threads.extend([threading.current_thread() async for _ in llm.astream("Sing!")])

    loops = [threading.Thread(target=asyncio.run, args=(ask(),)) for _ in range(2)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join(PATIENCE)
    assert set(loops) == set(threads)


# ── loading ──────────────────────────────────────────────────────────────────────────────────────────────────────


@needs_transformers
def test_models_with_the_same_settings_share_the_weights(folder, llm):
    """Copies share them, too."""
    same = Transformers(str(folder), context=4096, parallel=TOGETHER, temperature=0)
    assert llm._weights is same._weights is llm.bind(top_k=1)._weights
    assert llm._weights is pickle.loads(pickle.dumps(llm))._weights  # noqa: S301
    assert llm._weights is not Transformers(folder)._weights


@needs_transformers
async def test_model_is_freed_with_its_last_user(folder):
    """Its threads end, and its weights are collected."""
    llm = Transformers(folder, context=300, parallel=1)
    stream = llm.astream("For ever!")
    await anext(stream)
    weights = weakref.ref(engine_of(llm)._manager.model)
    del llm
    gc.collect()
    await anext(stream)
    await stream.aclose()
    del stream

    def is_free():
        gc.collect()
        return weights() is None

    await asyncio.to_thread(wait_until, is_free)


@needs_transformers
def test_failure_in_the_model_ends_its_answers_and_loads_it_again(folder):
    """The error has the reason of the failure and what had arrived."""
    llm = Transformers(folder, context=400, parallel=1)
    stream = llm.stream("For ever!")
    assert next(stream).text

    def fail(*_, **__):
        raise RuntimeError("No memory")

    engine_of(llm)._manager.batch_processor.model_runner.compute_batch = fail
    with pytest.raises(ProviderError, match="failed while it generated: No memory") as failure:
        list(stream)
    assert failure.value.partial.text.startswith("la")
    wait_until(lambda: not engine_of(llm)._manager.is_running())
    assert TEXT == llm.invoke("Sing!").text


PROGRAM = """
import os, resource, sys, torch, rxllm
import transformers.generation.continuous_batching
torch.set_num_threads(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
llm = rxllm.Transformers(sys.argv[1], parallel=8)
print({answer.text for answer in llm.batch(["Sing!"] * 50, max_concurrency=50)})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
stream = llm.stream("For ever!")
next(stream)
"""


@needs_transformers
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="maxrss has another unit")
def test_program_ends_and_its_memory_is_bounded(folder):
    """Fifty streams take less than 300 MB beside the packages; an open stream does not keep the program."""
    program = [sys.executable, "-c", PROGRAM, str(folder)]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert ("", 0) == (done.stderr, done.returncode)
    said, kilobytes = done.stdout.splitlines()
    assert repr({TEXT}) == said
    assert int(kilobytes) < 300_000


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────


@needs_transformers
def test_model_that_is_not_here_is_not_downloaded(monkeypatch, tmp_path):
    """The error says how to download it. The suite refuses connections to other machines."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MisuseError, match=r"`hf download rxllm/none`, or pass download=True"):
        Transformers("rxllm/none").invoke("Sing!")
    with pytest.raises(MisuseError, match="There is no folder"):
        Transformers(tmp_path / "none").invoke("Sing!")


@needs_transformers
def test_folder_without_a_model_is_refused(tmp_path):
    """The error has the reason of transformers, and the next request tries again."""
    llm = Transformers(tmp_path, context=100)
    for _ in range(2):
        with pytest.raises(ProviderError, match="could not load"):
            llm.invoke("Sing!")
    write_folder(tmp_path)
    assert TEXT == llm.invoke("Sing!").text


@pytest.mark.parametrize("missing", ["torch", "transformers", "psutil"])
def test_missing_package_of_transformers_is_named(monkeypatch, missing):
    """The constructor says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(MisuseError, match=rf"{missing} is not installed: pip install 'rxllm\[transformers\]'"):
        Transformers("org/name")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model": ""}, "must be like 'org/name', or the path of a folder, not ''"),
        ({"model": None}, "must be like 'org/name', or the path of a folder, not None"),
        ({"context": 0}, "context must be a whole number of at least 1, not 0"),
        ({"parallel": 1.5}, r"parallel must be a whole number of at least 1, not 1\.5"),
        ({"download": "yes"}, "download must be True or False, not 'yes'"),
        ({"options": "cuda"}, "options must be a dict, not 'cuda'"),
        ({"options": {"dtype": object()}}, "must be plain values"),
    ],
)
def test_invalid_argument_is_refused(anywhere, settings, sentence):
    """The constructor raises MisuseError."""
    with pytest.raises(MisuseError, match=sentence):
        Transformers(**{"model": "org/name"} | settings)


@pytest.mark.parametrize(
    ("prompt", "parameters", "sentence"),
    [
        ("Sing!", {"model": "other"}, "Leave model= out"),
        ("Sing!", {"seed": 1}, r"has no seed\. Leave it out\. temperature=0 gives"),
        ("Sing!", {"tools": [rxllm.ToolSpec("a")], "effort": "low"}, r"has no effort, tools\."),
        ([Message("user", FilePart("image/png", b"a"))], {}, "no FilePart in a message of the role user"),
        ([Message("assistant", ToolCallPart("1", "a", "{}"))], {}, "no ToolCallPart"),
    ],
)
def test_what_the_model_would_not_get_is_refused(anywhere, prompt, parameters, sentence):
    """Nothing is loaded."""
    with pytest.raises(MisuseError, match=sentence):
        Transformers("org/name").invoke(prompt, **parameters)


# ── the value ────────────────────────────────────────────────────────────────────────────────────────────────────

OWN = SimpleNamespace(do_sample=True, temperature=0.6, top_k=20, top_p=0.95)
PLAIN = SimpleNamespace(do_sample=None, temperature=None, top_k=None, top_p=None)
GREEDY = {"temperature": 1.0, "top_k": 1, "top_p": 1.0}


@pytest.mark.parametrize(
    ("parameters", "defaults", "sampling"),
    [
        ({}, OWN, {"temperature": 0.6, "top_k": 20, "top_p": 0.95}),
        ({"temperature": 1, "top_p": 0.5}, OWN, {"temperature": 1.0, "top_k": 20, "top_p": 0.5}),
        ({}, PLAIN, GREEDY),
        ({"temperature": 0}, OWN, GREEDY),
        ({"temperature": 0, "top_k": 5}, PLAIN, GREEDY),
        ({"top_p": 0.5}, PLAIN, {"temperature": 1.0, "top_k": 2**31 - 1, "top_p": 0.5}),
    ],
)
def test_sampling_is_that_of_the_request_and_else_of_the_model(parameters, defaults, sampling):
    """A model whose config does not sample takes the likeliest token, unless the request has sampling."""
    assert sampling == sampling_of(Request(prompt="Sing!", **parameters), defaults)


def test_name_with_a_slash_gives_the_model(anywhere):
    """The name follows the first colon."""
    assert Transformers("org/name", temperature=0) == rxllm.model("hf:org/name", temperature=0)


def test_identity_changes_with_the_files_and_the_settings(anywhere, tmp_path):
    """Answers of other weights are not taken from a cache."""
    first = Transformers(tmp_path)
    assert first.identity() == Transformers(tmp_path, parallel=1, download=True).identity()
    before = first.identity()
    (tmp_path / "config.json").write_text("{}")
    dtype = Transformers(tmp_path, options={"dtype": "float16"})
    assert 4 == len({before, first.identity(), dtype.identity(), Transformers("org/name").identity()})


def test_description_of_the_service(anywhere):
    """Handlers get transformers and the name of the model."""
    events = []
    with pytest.raises(MisuseError):
        Transformers("org/name", handlers=[events.append]).invoke("Sing!", seed=1)
    [service] = {event.run.service for event in events}
    assert ("transformers", "org/name", None) == (service.provider, service.model, service.address)
