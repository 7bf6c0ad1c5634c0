"""`CallbackHandler`: which hook receives what, in which order and context, and how failures are handled."""

import asyncio
import contextvars
import logging
import subprocess
import sys
import threading

import pytest
from attrs import field, frozen
from protocols import Chat
from reactivex import operators as ops

import rxllm
from rxllm import LLM, Interrupted, Message, MisuseError, RunChunk, Usage, dispatch
from rxllm.events import Failed, Finished, Retried, Run, Service, Started, ToolFinished, ToolStarted
from rxllm.handlers.callback import CallbackHandler
from rxllm.results import LLMResult
from rxllm.runtime.portal import portal
from rxllm.testing import FakeServer, Reply, Signal
from rxllm.values.request import Request

PATIENCE = 30.0  # seconds; a limit for steps that take milliseconds
HOOKS = (
    *("on_llm_start", "on_chat_model_start", "on_llm_new_token", "on_llm_end", "on_llm_error"),
    *("on_chain_start", "on_chain_end", "on_chain_error", "on_tool_start", "on_tool_end", "on_tool_error"),
    *("on_retry", "on_cancel", "on_custom_event"),
)


class Letters(LLM):
    """Streams the prompt letter by letter."""

    async def chunks(self, request):
        """Yield one chunk per letter."""
        for letter in request.text:
            yield letter


class ChatLetters(Letters):
    """The same as a chat model."""

    def kind(self, request):
        """Report the kind of run."""
        return "chat_model"


class Whole(LLM):
    """Answers with a whole message."""

    async def complete(self, request):
        """Return one Message."""
        return Message("assistant", request.text, model="whole-1", raw_finish_reason="stop")


class Breaks(LLM):
    """Emits a chunk, then fails."""

    async def chunks(self, request):
        """Yield one chunk, then raise."""
        yield "a"
        raise Interrupted("no")


class Hangs(LLM):
    """Emits a chunk, then never ends."""

    async def chunks(self, request):
        """Yield one chunk, then wait for ever."""
        yield "a"
        await asyncio.Event().wait()


def recorder(*names):
    """Return a handler that records the calls of these hooks as (name, arguments, keywords)."""

    def hook(name):
        def called(self, *arguments, **keywords):
            self.calls.append((name, arguments, keywords))

        return called

    def init(self):  # does not call the base's, like many handlers written for langchain
        self.calls = []

    kind = type("Recorder", (CallbackHandler,), {"__init__": init, **{name: hook(name) for name in names}})
    return kind()


def names(handler):
    """The names of the called hooks, in order."""
    return [name for name, *_ in handler.calls]


def first(handler, name):
    """The arguments and keywords of a hook's first call."""
    return next((arguments, keywords) for called, arguments, keywords in handler.calls if called == name)


# ── which hook, with which arguments ─────────────────────────────────────────────────────────────────────────────


def test_hooks_follow_a_model_from_start_to_end():
    """The start hook gets the texts, each chunk is one token call, the end hook gets an `LLMResult`; one run id."""
    handler = recorder(*HOOKS)
    llm = Letters(handlers=[handler], tags=["t"], metadata={"m": 1}, run_name="mine")
    llm.invoke("ab")
    assert ["on_llm_start", "on_llm_new_token", "on_llm_new_token", "on_llm_end"] == names(handler)
    (serialized, prompts), keywords = first(handler, "on_llm_start")
    assert ({"name": "mine", "provider": "letters", "model": None}, ["ab"]) == (
        {name: serialized[name] for name in ("name", "provider", "model")},
        prompts,
    )
    assert 1 == len({keywords["run_id"] for _, _, keywords in handler.calls})
    assert {"parent_run_id": None, "tags": ["t"], "metadata": {"m": 1}, "name": "mine"} == {
        name: fact for name, fact in keywords.items() if name != "run_id"
    }
    tokens = [(arguments, keywords["chunk"]) for name, arguments, keywords in handler.calls if "token" in name]
    assert [("a",), ("b",)] == [arguments for arguments, _ in tokens]
    assert ["a", "b"] == [chunk.text for _, chunk in tokens]
    assert all(isinstance(chunk, RunChunk) for _, chunk in tokens)
    (response,), _ = first(handler, "on_llm_end")
    assert isinstance(response, LLMResult)
    assert "ab" == response.generations[0][0].text


def test_handlers_written_for_langchain_work():
    """Signatures as in langchain's documentation work: positional arguments, keywords by name, the rest in kwargs."""
    calls = []

    class LangchainHandler(CallbackHandler):
        def on_llm_start(self, serialized, prompts, **kwargs):
            calls.append(("start", prompts))

        def on_llm_new_token(self, token: str, **kwargs) -> None:
            calls.append(("token", token))

        def on_llm_end(self, response, *, run_id, parent_run_id=None, **kwargs):
            calls.append(("end", response.generations[0][0].text))

        def on_chain_start(self, serialized, inputs, *, run_id, parent_run_id=None, tags=None, metadata=None, **kwargs):
            calls.append(("chain", inputs))

    rxllm.pipe(Letters(), rxllm.text()).with_config(handlers=[LangchainHandler()]).invoke("a")
    assert [("chain", "a"), ("start", ["a"]), ("token", "a"), ("end", "a")] == calls


def test_whole_answer_is_one_token():
    """A model that does not stream calls `on_llm_new_token` once."""
    handler = recorder("on_llm_new_token", "on_llm_end")
    Whole(handlers=[handler]).invoke("all of it")
    assert [("all of it",)] == [arguments for name, arguments, _ in handler.calls if name == "on_llm_new_token"]
    assert {"token_usage": {}, "model_name": "whole-1"} == first(handler, "on_llm_end")[0][0].llm_output


def test_chat_model_start_gets_messages():
    """`on_chat_model_start` gets lists of messages, and `on_llm_start` is not called."""
    handler = recorder(*HOOKS)
    ChatLetters(handlers=[handler]).invoke([("system", "Be kind."), ("user", "Hi")])
    assert "on_llm_start" not in names(handler)
    (serialized, messages), _ = first(handler, "on_chat_model_start")
    assert ("ChatLetters", [[Message("system", "Be kind."), Message("user", "Hi")]]) == (serialized["name"], messages)


def test_chat_model_calls_on_llm_start_by_default():
    """Without `on_chat_model_start`, `on_llm_start` gets the conversation's text and the same keywords."""
    handler = recorder("on_llm_start")
    ChatLetters(handlers=[handler], tags=["t"]).invoke([("system", "Be kind."), ("user", "Hi")])
    assert ["on_llm_start"] == names(handler)
    (serialized, prompts), keywords = first(handler, "on_llm_start")
    assert ("ChatLetters", ["Be kind.\n\nHi"], ["t"]) == (serialized["name"], prompts, keywords["tags"])


def test_serialized_has_provider_model_and_address():
    """A provider over HTTP reports its provider, model and address, never its key."""
    handler = recorder("on_chat_model_start", "on_llm_new_token", "on_llm_end")
    with FakeServer(Reply(Chat().stream(["He", "llo"]))) as server:
        rxllm.OpenAI("m-1", api_key="sk-secret", base_url=f"{server.url}/v1", handlers=[handler]).invoke("Hi")
    (serialized, _), _ = first(handler, "on_chat_model_start")
    assert ("openai", "m-1", "127.0.0.1") == tuple(serialized[name] for name in ("provider", "model", "address"))
    assert "sk-secret" not in repr(handler.calls)
    assert "Hello" == "".join(arguments[0] for name, arguments, _ in handler.calls if name == "on_llm_new_token")


def test_pipeline_and_model_are_separate_runs():
    """The model's parent is the pipeline, and each token is reported once."""
    handler = recorder(*HOOKS)
    rxllm.pipe(Letters(), ops.map(lambda chunk: chunk)).with_config(handlers=[handler]).invoke("ab")
    assert ["on_chain_start", "on_llm_start", "on_llm_new_token", "on_llm_new_token"] == names(handler)[:4]
    assert ["on_llm_end", "on_chain_end"] == names(handler)[4:]
    (serialized, inputs), outer = first(handler, "on_chain_start")
    assert ({"name": "Pipeline"}, "ab") == (serialized, inputs)
    assert outer["run_id"] == first(handler, "on_llm_end")[1]["parent_run_id"]
    assert (Message("assistant", "ab"),) == first(handler, "on_chain_end")[0]


def test_parent_is_the_nearest_run():
    """`parent_run_id` is the enclosing run, not the root."""
    handler = recorder("on_chain_start", "on_llm_start")
    inner = rxllm.pipe(Letters(), rxllm.text()).with_config(run_name="inner")
    rxllm.pipe(inner).with_config(handlers=[handler], run_name="outer").invoke("a")
    known = {keywords["name"]: keywords for _, _, keywords in handler.calls}
    assert known["outer"]["run_id"] == known["inner"]["parent_run_id"]
    assert known["inner"]["run_id"] == known["Letters"]["parent_run_id"]


def test_failures_are_reported_from_the_inside_out():
    """The hook of each failed run gets the original error, the inner run first."""
    handler = recorder("on_llm_error", "on_chain_error", "on_llm_end", "on_chain_end")
    with pytest.raises(Interrupted) as caught:
        rxllm.pipe(Breaks(), rxllm.text()).with_config(handlers=[handler]).invoke("x")
    assert ["on_llm_error", "on_chain_error"] == names(handler)
    assert caught.value is first(handler, "on_llm_error")[0][0] is first(handler, "on_chain_error")[0][0]


async def test_cancellation_is_not_an_error():
    """`on_cancel` gets the part of the answer that had arrived; no error hook is called."""
    handler = recorder(*HOOKS)
    async with Hangs(handlers=[handler]).astream("x") as stream:
        await anext(stream)
    assert ["on_llm_start", "on_llm_new_token", "on_cancel"] == names(handler)
    guess = Usage(input_tokens=1, output_tokens=1, estimated=True)
    assert (Message("assistant", "a", guess),) == first(handler, "on_cancel")[0]


def test_custom_event_has_its_own_name():
    """`on_custom_event` gets the event's name and the run's id, tags and metadata."""

    class Dispatching(LLM):
        async def chunks(self, request):
            dispatch("step", {"n": 1})
            yield "a"

    handler = recorder("on_custom_event")
    Dispatching(handlers=[handler], tags=["t"]).invoke("x")
    arguments, keywords = first(handler, "on_custom_event")
    assert ("step", {"n": 1}) == arguments
    assert {"run_id", "parent_run_id", "tags", "metadata"} == keywords.keys()
    assert ["t"] == keywords["tags"]


def test_tools_and_retries_have_hooks():
    """A tool's run calls start, end and error hooks; a retry reports its attempt, error and delay."""
    handler = recorder(*HOOKS)
    tool, model = Run("1", "add", "tool", ("0",)), Run("2", "m", "llm", service=Service("openai"))
    again = Retried(run=model, attempt=1, error=Interrupted("no"), delay=0.5)
    for event in (
        ToolStarted({"a": 1}, run=tool),
        ToolFinished("2", run=tool),
        Started("1 + 1", run=tool),
        Finished(2, run=tool),
        Failed(ValueError("no"), run=tool),
        again,
    ):
        handler.on_next(event)
    assert ["on_tool_start", "on_tool_end"] * 2 + ["on_tool_error", "on_retry"] == names(handler)
    arguments, keywords = first(handler, "on_tool_start")
    assert (({"name": "add"}, "{'a': 1}"), {"a": 1}, "0") == (arguments, keywords["inputs"], keywords["parent_run_id"])
    assert ("2",) == first(handler, "on_tool_end")[0]
    assert again is first(handler, "on_retry")[0][0]


def test_subscribed_handler_receives_tokens_and_the_failure():
    """Subscribed directly to an answer, the handler gets run id None."""
    handler = recorder(*HOOKS)
    with pytest.raises(Interrupted):
        list(Breaks()("x").pipe(ops.do(handler), rxllm.stream()))
    assert ["on_llm_new_token", "on_llm_error"] == names(handler)
    assert ("a",) == handler.calls[0][1]
    assert [None, None] == [keywords["run_id"] for _, _, keywords in handler.calls]


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_that_are_not_overridden_cost_nothing(name):
    """A handler with one hook looks up only the event's class for all other events."""
    handler = recorder(name)
    model = Run("2", "m", "llm")
    if name != "on_llm_new_token":
        handler.on_event(rxllm.Chunk("a"))
    if "start" not in name:
        handler.on_event(Started(Request.ask("x"), run=model))
    if "end" not in name:
        handler.on_event(Finished(object(), run=model))  # an LLMResult of this object would raise
    assert [] == handler.calls
    assert 1 <= len(type(handler)._hook_callers) <= 2


def test_hooks_are_inherited():
    """A subclass keeps the hooks of its base; the subclass may be frozen and have slots."""
    started = threading.Event()

    class Base(CallbackHandler):
        async def on_llm_start(self, serialized, prompts, **kwargs):
            self.calls.append("start")
            started.set()

    @frozen(eq=False)
    class Derived(Base):
        calls: list[str] = field(factory=list)

        def on_llm_end(self, response, **kwargs):
            self.calls.append("end")

    further = Derived()
    Letters(handlers=[further]).invoke("a")
    assert started.wait(PATIENCE)
    assert ["end", "start"] == sorted(further.calls)


# ── exceptions in hooks ──────────────────────────────────────────────────────────────────────────────────────────


class Raises(CallbackHandler):
    """Raises at each token."""

    def on_llm_new_token(self, token, **kwargs):
        """Raise an error."""
        raise ValueError("the hook's")


def test_raising_hook_is_logged(caplog):
    """The exception of a hook is logged once per run, and the stream completes."""
    with caplog.at_level(logging.ERROR, "rxllm"):
        assert "ab" == Letters(handlers=[Raises()]).invoke("ab").text
    assert 1 == caplog.text.count("ValueError: the hook's")


def test_raising_hook_fails_the_run_with_raise_error():
    """`raise_error` works as an attribute of the class and of the instance."""

    class Fails(Raises):
        raise_error = True

    for handler in Fails(), Raises():
        handler.raise_error = True
        with pytest.raises(ValueError, match="the hook's"):
            Letters(handlers=[handler]).invoke("ab")


def test_async_hook_with_raise_error_raises_misuse():
    """The class definition raises; with `raise_error` set on the instance, the run fails with the same reason."""
    with pytest.raises(MisuseError, match="raise_error"):

        class Both(CallbackHandler):
            raise_error = True

            async def on_llm_end(self, response, **kwargs):
                pass

    class Late(CallbackHandler):
        async def on_llm_end(self, response, **kwargs):
            pass

    handler = Late()
    handler.raise_error = True
    with pytest.raises(MisuseError, match="raise_error"):
        Letters(handlers=[handler]).invoke("a")


async def test_failing_async_hook_is_logged(caplog):
    """The run's later hooks still run, also after the cancellation of an awaited task."""
    calls = []

    class Fails(CallbackHandler):
        async def on_llm_start(self, serialized, prompts, **kwargs):
            raise ValueError("the hook's")

        async def on_llm_new_token(self, token, **kwargs):
            waited = asyncio.get_running_loop().create_future()
            waited.cancel()
            await waited

        async def on_llm_end(self, response, **kwargs):
            calls.append("end")

    with caplog.at_level(logging.WARNING, "rxllm"):
        await Letters(handlers=[Fails()]).ainvoke("a")
    assert ["end"] == calls
    assert (1, 1) == (caplog.text.count("ValueError: the hook's"), caplog.text.count("was cancelled"))


# ── async hooks ──────────────────────────────────────────────────────────────────────────────────────────────────


class Slow(CallbackHandler):
    """Async hooks that give up control in the middle."""

    def __init__(self):
        self.calls = []

    async def wait(self, what):
        """Let the event loop run other tasks twice."""
        self.calls.append(f"{what}…")
        for _ in range(5):
            await asyncio.sleep(0)
        self.calls.append(what)

    async def on_llm_start(self, serialized, prompts, **kwargs):
        """Record the call."""
        await self.wait("start")

    async def on_llm_new_token(self, token, **kwargs):
        """Record the call."""
        await self.wait(token)

    async def on_llm_end(self, response, **kwargs):
        """Record the call."""
        await self.wait("end")

    async def on_cancel(self, partial, **kwargs):
        """Record the call."""
        await self.wait("cancel")


IN_TURN = [f"{what}{dots}" for what in ("start", "a", "b", "end") for dots in ("…", "")]


async def test_async_hooks_run_one_after_another():
    """The hooks keep the order of the events, and `ainvoke` returns after the last one."""
    handler = Slow()
    assert "ab" == (await Letters(handlers=[handler]).ainvoke("ab")).text
    assert IN_TURN == handler.calls
    assert {} == handler._hook_queues.queues


async def test_end_of_async_with_waits_for_async_hooks():
    """``async with`` ends after the last async hook has run."""
    handler = Slow()
    async with Hangs(handlers=[handler]).astream("x") as stream:
        await anext(stream)
    assert ["cancel…", "cancel"] == handler.calls[-2:]
    assert set() == stream._sink.scheduler.lifetime.tasks  # the finished run leaves no task behind


async def test_async_hooks_of_several_runs_do_not_wait_for_each_other():
    """A blocked hook of one run does not delay the hook of another."""
    stands, calls = asyncio.Event(), []

    class Blocked(CallbackHandler):
        async def on_llm_end(self, response, **kwargs):
            text = response.generations[0][0].text
            if text == "stand":
                await stands.wait()
            calls.append(text)

    llm = Letters(handlers=[Blocked()])
    standing = asyncio.create_task(llm.ainvoke("stand"))
    await llm.ainvoke("go")
    assert ["go"] == calls
    stands.set()
    await standing
    assert ["go", "stand"] == calls


async def test_a_slow_async_hook_does_not_stop_the_stream():
    """All chunks arrive while the first hook is blocked; the end of ``async for`` waits for the hook."""
    stands = asyncio.Event()

    class Blocked(CallbackHandler):
        async def on_llm_start(self, serialized, prompts, **kwargs):
            await stands.wait()

    stream = Letters(handlers=[Blocked()]).astream("abc")
    assert ["a", "b", "c"] == [str(await anext(stream)) for _ in "abc"]
    end = asyncio.ensure_future(anext(stream, None))
    done, _ = await asyncio.wait([end], timeout=0)
    assert set() == done
    stands.set()
    assert await end is None


@pytest.mark.parametrize("ask", ["async for", "events"])
async def test_async_hooks_end_before_the_stream_does(ask):
    """All hooks have run when the loop over the stream ends, even if the program ends next."""
    calls = []

    class Takes(CallbackHandler):
        async def on_llm_end(self, response, **kwargs):
            for _ in range(20):
                await asyncio.sleep(0)
            calls.append("end")

    llm = Letters(handlers=[Takes()])
    async for _ in llm.astream("ab") if ask == "async for" else llm.astream_events("ab"):
        pass
    assert ["end"] == calls


async def test_model_pauses_while_many_hooks_wait():
    """The model pauses at 64 pending hooks, and resumes when the hooks have run."""
    may_go = asyncio.Event()

    class Slow(CallbackHandler):
        async def on_llm_new_token(self, token, **kwargs):
            await may_go.wait()

    made = []

    class Counts(LLM):
        async def chunks(self, request):
            for number in range(1000):
                made.append(number)
                yield "a"

    answer = asyncio.ensure_future(Counts(handlers=[Slow()]).ainvoke("x"))
    for _ in range(3000):
        await asyncio.sleep(0)
    assert 64 <= len(made) <= 70
    may_go.set()
    assert 1000 == len((await answer).text)


def ended():
    """A handler with async hooks, and an event that is set when the last hook has run."""
    signal = Signal()

    class Ends(Slow):
        async def on_llm_end(self, response, **kwargs):
            await super().on_llm_end(response, **kwargs)
            signal.set()

    return Ends(), signal


def test_async_hooks_run_in_a_synchronous_program():
    """The hooks run on the background loop, also for a bare ``subscribe`` from this thread."""
    for ask in (
        lambda llm: llm.invoke("ab"),
        lambda llm: list(llm.stream("ab")),
        lambda llm: llm("ab").subscribe(),
    ):
        handler, signal = ended()
        ask(Letters(handlers=[handler]))
        signal.wait(PATIENCE)
        assert IN_TURN == handler.calls


def test_async_hooks_wait_while_another_thread_is_in_the_context():
    """While the subscribing thread reports the start inside the run's context, the event loop waits to enter it."""
    handler, signal = ended()
    rounds = []

    def slow(event):
        if isinstance(event, Started):
            for _ in range(3):
                gone_round = threading.Event()
                portal().call_soon_threadsafe(portal().call_later, 0.002, gone_round.set)
                rounds.append(gone_round.wait(PATIENCE))
            rounds.append(list(handler.calls))

    Letters(handlers=[handler, slow])("ab").subscribe()
    signal.wait(PATIENCE)
    assert [True, True, True, []] == rounds
    assert IN_TURN == handler.calls


async def test_async_hook_of_a_threaded_model_runs_on_the_event_loop():
    """A blocking `complete` dispatches an event; the async hook runs on the run's event loop."""
    calls = []

    class Dispatching(LLM):
        def complete(self, request):
            dispatch("step", 1)
            return "a"

    class OnCustom(CallbackHandler):
        async def on_custom_event(self, name, data, **kwargs):
            calls.append((name, data, threading.current_thread() is main))

    main = threading.current_thread()
    await Dispatching(handlers=[OnCustom()]).ainvoke("x")
    assert [("step", 1, True)] == calls


def test_async_hooks_are_dropped_when_the_event_loop_ends():
    """The pending hooks are closed, without a warning that they were never awaited."""
    calls = []

    class Blocked(CallbackHandler):
        async def on_llm_start(self, serialized, prompts, **kwargs):
            calls.append("start")
            try:
                await asyncio.Event().wait()
            finally:
                calls.append("left")

        async def on_llm_new_token(self, token, **kwargs):
            calls.append("never")

    handler = Blocked()

    async def main():
        stream = Letters(handlers=[handler]).astream("ab")
        for _ in "ab":
            await anext(stream)

    asyncio.run(main())
    assert ["start", "left"] == calls
    assert {} == handler._hook_queues.queues


def test_plain_hook_may_return_an_awaitable():
    """A decorated ``async def`` does so; the awaitable is awaited."""
    calls = []

    class Decorated(CallbackHandler):
        def on_llm_end(self, response, **kwargs):
            async def later():
                calls.append("later")

            return later()

    asyncio.run(Letters(handlers=[Decorated()]).ainvoke("a"))
    assert ["later"] == calls


# ── context variables ────────────────────────────────────────────────────────────────────────────────────────────

MARK: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="")


class ShowsMark(LLM):
    """Emits the mark at once, and again after the hook has set it."""

    hooked = Signal()

    async def chunks(self, request):
        """Yield the mark twice."""
        yield MARK.get()
        await type(self).hooked.soon(PATIENCE)
        yield MARK.get()


async def test_context_variable_set_by_a_hook_lasts_for_the_run():
    """The model and later hooks see the value; the caller does not."""
    seen = []

    class Sets(CallbackHandler):
        def on_llm_start(self, serialized, prompts, **kwargs):
            MARK.set("mine")
            ShowsMark.hooked.set()

        async def on_llm_new_token(self, token, **kwargs):
            seen.append(MARK.get())

        def on_llm_end(self, response, **kwargs):
            seen.append(MARK.get())

    assert "minemine" == (await ShowsMark(handlers=[Sets()]).ainvoke("x")).text
    assert ["mine"] * 3 == seen
    assert "" == MARK.get()


@pytest.mark.parametrize("bare", [False, True], ids=["awaited", "from a thread"])
async def test_context_variable_set_by_an_async_hook_lasts_for_the_run(bare):
    """Later hooks of either kind see the value, and so does the model from then on."""
    seen, done = [], Signal()

    class Sets(CallbackHandler):
        async def on_llm_start(self, serialized, prompts, **kwargs):
            await asyncio.sleep(0)
            MARK.set("mine")
            Dispatching.hooked.set()

        async def on_llm_end(self, response, **kwargs):
            seen.append(MARK.get())
            done.set()

        def on_custom_event(self, name, data, **kwargs):
            seen.append(MARK.get())

    class Dispatching(ShowsMark):
        hooked = Signal()

        async def chunks(self, request):
            async for text in super().chunks(request):
                yield text
            dispatch("last")

    chunks = []
    llm = Dispatching(handlers=[Sets()])
    if bare:
        await asyncio.to_thread(lambda: llm("x").subscribe(lambda chunk: chunks.append(str(chunk))))
        await done.soon(PATIENCE)
    else:
        async with llm.astream("x") as stream:
            chunks = [str(chunk) async for chunk in stream]
    assert ["", "mine"] == chunks
    assert ["mine", "mine"] == seen
    assert "" == MARK.get()


def test_script_stays_alive_until_its_async_hooks_have_run():
    """A script that subscribes and reaches its end waits for the hooks."""
    program = """
import asyncio, rxllm
from rxllm.handlers.callback import CallbackHandler

class Ends(CallbackHandler):
    async def on_llm_end(self, response, **kwargs):
        await asyncio.sleep(0.05)
        print("calls")

rxllm.Embedded(handlers=[Ends()])("x").subscribe()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (0, "calls\n", "") == (done.returncode, done.stdout, done.stderr)
