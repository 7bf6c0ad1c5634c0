"""The hooks: which is called with what, plain or async, in which order and context, and what becomes of failures."""

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

PATIENCE = 5.0  # seconds for what comes at once
HOOKS = (
    *("on_llm_start", "on_chat_model_start", "on_llm_new_token", "on_llm_end", "on_llm_error"),
    *("on_chain_start", "on_chain_end", "on_chain_error", "on_tool_start", "on_tool_end", "on_tool_error"),
    *("on_retry", "on_cancel", "on_custom_event"),
)


class Letters(LLM):
    """Streams the prompt by letters."""

    async def chunks(self, request):
        """Letters."""
        for letter in request.text:
            yield letter


class Talks(Letters):
    """The same, for conversations."""

    def kind(self, request):
        """It converses."""
        return "chat_model"


class Whole(LLM):
    """Answers at once."""

    async def complete(self, request):
        """One Message."""
        return Message("assistant", request.text, model="whole-1", raw_finish_reason="stop")


class Breaks(LLM):
    """Fails after a chunk."""

    async def chunks(self, request):
        """Half of it."""
        yield "a"
        raise Interrupted("no")


class Hangs(LLM):
    """Streams a chunk, and no more."""

    async def chunks(self, request):
        """Half of it."""
        yield "a"
        await asyncio.Event().wait()


def recorder(*names):
    """A handler that remembers the calls of these hooks, as (name, arguments, keywords)."""

    def hook(name):
        def called(self, *arguments, **keywords):
            self.calls.append((name, arguments, keywords))

        return called

    def init(self):  # without the base's, as handlers written for others have it
        self.calls = []

    made = type("Recorder", (CallbackHandler,), {"__init__": init, **{name: hook(name) for name in names}})
    return made()


def names(handler):
    """The hooks that were called, in order."""
    return [name for name, *_ in handler.calls]


def first(handler, name):
    """The arguments and keywords of the first call."""
    return next((arguments, keywords) for called, arguments, keywords in handler.calls if called == name)


# ── which, and with what ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_model_is_heard_from_start_to_end():
    """Start with the texts, a call for each chunk, the end with an `LLMResult`; all of one run."""
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
    """With the signatures that its documents show: positional arguments, a few keywords by name, the rest in kwargs."""
    heard = []

    class Known(CallbackHandler):
        def on_llm_start(self, serialized, prompts, **kwargs):
            heard.append(("start", prompts))

        def on_llm_new_token(self, token: str, **kwargs) -> None:
            heard.append(("token", token))

        def on_llm_end(self, response, *, run_id, parent_run_id=None, **kwargs):
            heard.append(("end", response.generations[0][0].text))

        def on_chain_start(self, serialized, inputs, *, run_id, parent_run_id=None, tags=None, metadata=None, **kwargs):
            heard.append(("chain", inputs))

    rxllm.pipe(Letters(), rxllm.text()).with_config(handlers=[Known()]).invoke("a")
    assert [("chain", "a"), ("start", ["a"]), ("token", "a"), ("end", "a")] == heard


def test_a_whole_answer_is_one_token():
    """Models that do not stream are heard, too."""
    handler = recorder("on_llm_new_token", "on_llm_end")
    Whole(handlers=[handler]).invoke("all of it")
    assert [("all of it",)] == [arguments for name, arguments, _ in handler.calls if name == "on_llm_new_token"]
    assert {"token_usage": {}, "model_name": "whole-1"} == first(handler, "on_llm_end")[0][0].llm_output


def test_a_model_that_converses_starts_with_messages():
    """Lists of lists; and no `on_llm_start`."""
    handler = recorder(*HOOKS)
    Talks(handlers=[handler]).invoke([("system", "Be kind."), ("user", "Hi")])
    assert "on_llm_start" not in names(handler)
    (serialized, messages), _ = first(handler, "on_chat_model_start")
    assert ("Talks", [[Message("system", "Be kind."), Message("user", "Hi")]]) == (serialized["name"], messages)


def test_without_a_hook_for_messages_that_for_texts_is_called():
    """With the text of the conversation, and the same keywords."""
    handler = recorder("on_llm_start")
    Talks(handlers=[handler], tags=["t"]).invoke([("system", "Be kind."), ("user", "Hi")])
    assert ["on_llm_start"] == names(handler)
    (serialized, prompts), keywords = first(handler, "on_llm_start")
    assert ("Talks", ["Be kind.\n\nHi"], ["t"]) == (serialized["name"], prompts, keywords["tags"])


def test_a_provider_over_http_tells_who_answers():
    """What is serialized has the provider, the model and the place, and no key."""
    handler = recorder("on_chat_model_start", "on_llm_new_token", "on_llm_end")
    with FakeServer(Reply(Chat().stream(["He", "llo"]))) as server:
        rxllm.OpenAI("m-1", api_key="sk-secret", base_url=f"{server.url}/v1", handlers=[handler]).invoke("Hi")
    (serialized, _), _ = first(handler, "on_chat_model_start")
    assert ("openai", "m-1", "127.0.0.1") == tuple(serialized[name] for name in ("provider", "model", "address"))
    assert "sk-secret" not in repr(handler.calls)
    assert "Hello" == "".join(arguments[0] for name, arguments, _ in handler.calls if name == "on_llm_new_token")


def test_a_pipeline_and_its_model_are_told_apart():
    """The model's parent is the pipeline, and its tokens are heard once."""
    handler = recorder(*HOOKS)
    rxllm.pipe(Letters(), ops.map(lambda chunk: chunk)).with_config(handlers=[handler]).invoke("ab")
    assert ["on_chain_start", "on_llm_start", "on_llm_new_token", "on_llm_new_token"] == names(handler)[:4]
    assert ["on_llm_end", "on_chain_end"] == names(handler)[4:]
    (serialized, inputs), outer = first(handler, "on_chain_start")
    assert ({"name": "Pipeline"}, "ab") == (serialized, inputs)
    assert outer["run_id"] == first(handler, "on_llm_end")[1]["parent_run_id"]
    assert (Message("assistant", "ab"),) == first(handler, "on_chain_end")[0]


def test_the_parent_is_the_nearest():
    """Not the root."""
    handler = recorder("on_chain_start", "on_llm_start")
    inner = rxllm.pipe(Letters(), rxllm.text()).with_config(run_name="inner")
    rxllm.pipe(inner).with_config(handlers=[handler], run_name="outer").invoke("a")
    known = {keywords["name"]: keywords for _, _, keywords in handler.calls}
    assert known["outer"]["run_id"] == known["inner"]["parent_run_id"]
    assert known["inner"]["run_id"] == known["Letters"]["parent_run_id"]


def test_failures_are_told_from_the_inside_out():
    """To the hook of whatever failed, with the error itself."""
    handler = recorder("on_llm_error", "on_chain_error", "on_llm_end", "on_chain_end")
    with pytest.raises(Interrupted) as caught:
        rxllm.pipe(Breaks(), rxllm.text()).with_config(handlers=[handler]).invoke("x")
    assert ["on_llm_error", "on_chain_error"] == names(handler)
    assert caught.value is first(handler, "on_llm_error")[0][0] is first(handler, "on_chain_error")[0][0]


async def test_who_leaves_is_no_error():
    """`on_cancel` hears it, with what had come."""
    handler = recorder(*HOOKS)
    async with Hangs(handlers=[handler]).astream("x") as stream:
        await anext(stream)
    assert ["on_llm_start", "on_llm_new_token", "on_cancel"] == names(handler)
    guess = Usage(input_tokens=1, output_tokens=1, estimated=True)
    assert (Message("assistant", "a", guess),) == first(handler, "on_cancel")[0]


def test_events_of_the_program_have_a_name_of_their_own():
    """And the run's id, tags and metadata."""

    class Tells(LLM):
        async def chunks(self, request):
            dispatch("step", {"n": 1})
            yield "a"

    handler = recorder("on_custom_event")
    Tells(handlers=[handler], tags=["t"]).invoke("x")
    arguments, keywords = first(handler, "on_custom_event")
    assert ("step", {"n": 1}) == arguments
    assert {"run_id", "parent_run_id", "tags", "metadata"} == keywords.keys()
    assert ["t"] == keywords["tags"]


def test_tools_and_retries_have_hooks():
    """A tool's run starts, ends and fails; a retry tells its attempt, error and delay."""
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


def test_subscribed_to_an_answer_it_hears_tokens_and_the_failure():
    """Of no run that it knew."""
    handler = recorder(*HOOKS)
    with pytest.raises(Interrupted):
        list(Breaks()("x").pipe(ops.do(handler), rxllm.stream()))
    assert ["on_llm_new_token", "on_llm_error"] == names(handler)
    assert ("a",) == handler.calls[0][1]
    assert [None, None] == [keywords["run_id"] for _, _, keywords in handler.calls]


@pytest.mark.parametrize("name", HOOKS)
def test_only_what_is_overridden_is_prepared_for(name):
    """A handler with one hook is called for that, and for the others it looks nothing up but their event's class."""
    handler = recorder(name)
    model = Run("2", "m", "llm")
    if name != "on_llm_new_token":
        handler.on_event(rxllm.Chunk("a"))
    if "start" not in name:
        handler.on_event(Started(Request.ask("x"), run=model))
    if "end" not in name:
        handler.on_event(Finished(object(), run=model))  # of which no LLMResult could be made
    assert [] == handler.calls
    assert 1 <= len(type(handler)._tells) <= 2


def test_hooks_are_inherited():
    """By a class that overrides others, which may be frozen and have slots."""

    class Base(CallbackHandler):
        async def on_llm_start(self, serialized, prompts, **kwargs):
            self.heard.append("start")

    @frozen(eq=False)
    class Further(Base):
        heard: list[str] = field(factory=list)

        def on_llm_end(self, response, **kwargs):
            self.heard.append("end")

    further = Further()
    Letters(handlers=[further]).invoke("a")
    rxllm.Embedded().invoke("the loop has gone round")
    assert ["end", "start"] == sorted(further.heard)


# ── what raises ──────────────────────────────────────────────────────────────────────────────────────────────────


class Raises(CallbackHandler):
    """Raises at a token."""

    def on_llm_new_token(self, token, **kwargs):
        """Raises."""
        raise ValueError("the hook's")


def test_a_raising_hook_is_logged(caplog):
    """Once a run, and disturbs nothing."""
    with caplog.at_level(logging.ERROR, "rxllm"):
        assert "ab" == Letters(handlers=[Raises()]).invoke("ab").text
    assert 1 == caplog.text.count("ValueError: the hook's")


def test_a_raising_hook_may_fail_the_run():
    """With `raise_error`, of the class or of the one."""

    class Fails(Raises):
        raise_error = True

    for handler in Fails(), Raises():
        handler.raise_error = True
        with pytest.raises(ValueError, match="the hook's"):
            Letters(handlers=[handler]).invoke("ab")


def test_an_async_hook_cannot_fail_the_run():
    """So its class is refused with `raise_error`; set on the one, the run fails with the reason."""
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


async def test_a_failing_async_hook_is_logged(caplog):
    """And those behind it have their turn; so if what it waited for was cancelled."""
    heard = []

    class Fails(CallbackHandler):
        async def on_llm_start(self, serialized, prompts, **kwargs):
            raise ValueError("the hook's")

        async def on_llm_new_token(self, token, **kwargs):
            waited = asyncio.get_running_loop().create_future()
            waited.cancel()
            await waited

        async def on_llm_end(self, response, **kwargs):
            heard.append("end")

    with caplog.at_level(logging.WARNING, "rxllm"):
        await Letters(handlers=[Fails()]).ainvoke("a")
    assert ["end"] == heard
    assert (1, 1) == (caplog.text.count("ValueError: the hook's"), caplog.text.count("was cancelled"))


# ── async hooks ──────────────────────────────────────────────────────────────────────────────────────────────────


class Slow(CallbackHandler):
    """Async hooks that let others run in their midst."""

    def __init__(self):
        self.heard = []

    async def wait(self, what):
        """Takes some turns of the loop."""
        self.heard.append(f"{what}…")
        for _ in range(5):
            await asyncio.sleep(0)
        self.heard.append(what)

    async def on_llm_start(self, serialized, prompts, **kwargs):
        """Slow."""
        await self.wait("start")

    async def on_llm_new_token(self, token, **kwargs):
        """Slow."""
        await self.wait(token)

    async def on_llm_end(self, response, **kwargs):
        """Slow."""
        await self.wait("end")

    async def on_cancel(self, partial, **kwargs):
        """Slow."""
        await self.wait("cancel")


IN_TURN = [f"{what}{dots}" for what in ("start", "a", "b", "end") for dots in ("…", "")]


async def test_async_hooks_run_one_after_another():
    """In the order of what happened; `ainvoke` returns when they have run."""
    handler = Slow()
    assert "ab" == (await Letters(handlers=[handler]).ainvoke("ab")).text
    assert IN_TURN == handler.heard
    assert {} == handler._lines.open


async def test_leaving_waits_for_async_hooks():
    """Leaving ``async with`` returns when the last has run."""
    handler = Slow()
    async with Hangs(handlers=[handler]).astream("x") as stream:
        await anext(stream)
    assert ["cancel…", "cancel"] == handler.heard[-2:]
    assert set() == stream._sink.scheduler.lifetime.tasks  # nothing is kept of what is over


async def test_async_hooks_of_several_runs_do_not_wait_for_each_other():
    """One run's hook stands still, another's goes on."""
    stands, heard = asyncio.Event(), []

    class Stands(CallbackHandler):
        async def on_llm_end(self, response, **kwargs):
            text = response.generations[0][0].text
            if text == "stand":
                await stands.wait()
            heard.append(text)

    llm = Letters(handlers=[Stands()])
    standing = asyncio.create_task(llm.ainvoke("stand"))
    await llm.ainvoke("go")
    assert ["go"] == heard
    stands.set()
    await standing
    assert ["go", "stand"] == heard


async def test_a_slow_async_hook_does_not_stop_the_stream():
    """All chunks come while the first hook still stands; the end of the loop waits for it."""
    stands = asyncio.Event()

    class Stands(CallbackHandler):
        async def on_llm_start(self, serialized, prompts, **kwargs):
            await stands.wait()

    stream = Letters(handlers=[Stands()]).astream("abc")
    assert ["a", "b", "c"] == [str(await anext(stream)) for _ in "abc"]
    end = asyncio.ensure_future(anext(stream, None))
    done, _ = await asyncio.wait([end], timeout=0)
    assert set() == done
    stands.set()
    assert await end is None


@pytest.mark.parametrize("ask", ["async for", "events"])
async def test_hooks_are_done_when_the_loop_over_the_stream_is(ask):
    """Whatever ends the program then."""
    heard = []

    class Takes(CallbackHandler):
        async def on_llm_end(self, response, **kwargs):
            for _ in range(20):
                await asyncio.sleep(0)
            heard.append("end")

    llm = Letters(handlers=[Takes()])
    async for _ in llm.astream("ab") if ask == "async for" else llm.astream_events("ab"):
        pass
    assert ["end"] == heard


async def test_who_can_not_keep_up_stops_the_model():
    """At so many hooks that wait; and the model goes on when they have been awaited."""
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
    """A handler of async hooks, and a signal for when the last of them has run."""
    signal = Signal()

    class Ends(Slow):
        async def on_llm_end(self, response, **kwargs):
            await super().on_llm_end(response, **kwargs)
            signal.set()

    return Ends(), signal


def test_async_hooks_are_heard_in_a_synchronous_program():
    """On the loop in the background; those of a bare subscription, too, which starts in this thread."""
    for ask in (
        lambda llm: llm.invoke("ab"),
        lambda llm: list(llm.stream("ab")),
        lambda llm: llm("ab").subscribe(),
    ):
        handler, signal = ended()
        ask(Letters(handlers=[handler]))
        signal.wait(PATIENCE)
        assert IN_TURN == handler.heard


def test_the_subscribing_thread_may_take_its_time_with_the_start():
    """While it tells of it in the run's context, the loop can't enter that, and waits."""
    handler, signal = ended()
    rounds = []

    def slow(event):
        if isinstance(event, Started):
            for _ in range(3):
                gone_round = threading.Event()
                portal().call_soon_threadsafe(portal().call_later, 0.002, gone_round.set)
                rounds.append(gone_round.wait(PATIENCE))
            rounds.append(list(handler.heard))

    Letters(handlers=[handler, slow])("ab").subscribe()
    signal.wait(PATIENCE)
    assert [True, True, True, []] == rounds
    assert IN_TURN == handler.heard


async def test_an_async_hook_in_a_models_thread_runs_on_the_loop():
    """What blocks in `complete` may dispatch; the hook runs where the run is."""
    heard = []

    class Tells(LLM):
        def complete(self, request):
            dispatch("step", 1)
            return "a"

    class Hears(CallbackHandler):
        async def on_custom_event(self, name, data, **kwargs):
            heard.append((name, data, threading.current_thread() is main))

    main = threading.current_thread()
    await Tells(handlers=[Hears()]).ainvoke("x")
    assert [("step", 1, True)] == heard


def test_hooks_that_the_loops_end_overtakes_are_given_up():
    """Without a warning that they were never awaited."""
    heard = []

    class Stands(CallbackHandler):
        async def on_llm_start(self, serialized, prompts, **kwargs):
            heard.append("start")
            try:
                await asyncio.Event().wait()
            finally:
                heard.append("left")

        async def on_llm_new_token(self, token, **kwargs):
            heard.append("never")

    handler = Stands()

    async def main():
        stream = Letters(handlers=[handler]).astream("ab")
        for _ in "ab":
            await anext(stream)

    asyncio.run(main())
    assert ["start", "left"] == heard
    assert {} == handler._lines.open


def test_a_plain_hook_may_return_an_awaitable():
    """As a decorated ``async def`` does."""
    heard = []

    class Decorated(CallbackHandler):
        def on_llm_end(self, response, **kwargs):
            async def later():
                heard.append("later")

            return later()

    asyncio.run(Letters(handlers=[Decorated()]).ainvoke("a"))
    assert ["later"] == heard


# ── context variables ────────────────────────────────────────────────────────────────────────────────────────────

MARK: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="")


class Looks(LLM):
    """Tells what the mark is, at once and when the hook that sets it has run."""

    hooked = Signal()

    async def chunks(self, request):
        """The mark, twice."""
        yield MARK.get()
        await type(self).hooked.soon(PATIENCE)
        yield MARK.get()


async def test_what_a_hook_sets_lasts_for_the_run():
    """The model and later hooks see it; the caller does not."""
    seen = []

    class Sets(CallbackHandler):
        def on_llm_start(self, serialized, prompts, **kwargs):
            MARK.set("mine")
            Looks.hooked.set()

        async def on_llm_new_token(self, token, **kwargs):
            seen.append(MARK.get())

        def on_llm_end(self, response, **kwargs):
            seen.append(MARK.get())

    assert "minemine" == (await Looks(handlers=[Sets()]).ainvoke("x")).text
    assert ["mine"] * 3 == seen
    assert "" == MARK.get()


@pytest.mark.parametrize("bare", [False, True], ids=["awaited", "from a thread"])
async def test_what_an_async_hook_sets_lasts_for_the_run(bare):
    """Later hooks of either kind see it, and so does the model from then on."""
    seen, done = [], Signal()

    class Sets(CallbackHandler):
        async def on_llm_start(self, serialized, prompts, **kwargs):
            await asyncio.sleep(0)
            MARK.set("mine")
            Tells.hooked.set()

        async def on_llm_end(self, response, **kwargs):
            seen.append(MARK.get())
            done.set()

        def on_custom_event(self, name, data, **kwargs):
            seen.append(MARK.get())

    class Tells(Looks):
        hooked = Signal()

        async def chunks(self, request):
            async for text in super().chunks(request):
                yield text
            dispatch("last")

    chunks = []
    llm = Tells(handlers=[Sets()])
    if bare:
        await asyncio.to_thread(lambda: llm("x").subscribe(lambda chunk: chunks.append(str(chunk))))
        await done.soon(PATIENCE)
    else:
        async with llm.astream("x") as stream:
            chunks = [str(chunk) async for chunk in stream]
    assert ["", "mine"] == chunks
    assert ["mine", "mine"] == seen
    assert "" == MARK.get()


def test_a_script_stays_until_its_async_hooks_have_run():
    """If it has only subscribed, and reached its end."""
    program = """
import asyncio, rxllm
from rxllm.handlers.callback import CallbackHandler

class Ends(CallbackHandler):
    async def on_llm_end(self, response, **kwargs):
        await asyncio.sleep(0.05)
        print("heard")

rxllm.Embedded(handlers=[Ends()])("x").subscribe()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (0, "heard\n", "") == (done.returncode, done.stdout, done.stderr)
