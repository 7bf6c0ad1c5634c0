"""A stream that is used in the wrong way raises an error that names the right way."""

import pytest

import rxllm
from rxllm import MisuseError

LLM = rxllm.Embedded(seed=1)


@pytest.mark.parametrize("stage", [LLM, rxllm.pipe(LLM, rxllm.text())], ids=["a model", "a pipeline"])
async def test_wrong_use_of_a_stream_names_the_right_one(stage):
    """In each direction, for loops, blocks and `await`."""
    with pytest.raises(MisuseError, match=r"for … in llm\.stream\(prompt\)"):
        for _ in stage.astream("x"):
            pass
    with pytest.raises(MisuseError, match=r"async for … in llm\.astream\(prompt\)"):
        async for _ in stage.stream("x"):
            pass
    with pytest.raises(MisuseError, match=r"with llm\.stream\(prompt\) as"), stage.astream("x"):
        pass
    with pytest.raises(MisuseError, match=r"async with llm\.astream\(prompt\) as"):
        async with stage.stream("x"):
            pass
    for make in (
        lambda: stage.stream("x"),
        lambda: stage.astream("x"),
        lambda: stage.batch_as_completed(["x"]),
        lambda: stage.abatch_as_completed(["x"]),
        lambda: stage.astream_events("x"),
    ):
        with pytest.raises(MisuseError, match=r"A stream cannot be awaited\. .*`await llm\.ainvoke\(prompt\)"):
            await make()


@pytest.mark.parametrize(
    ("name", "hook"),
    [
        ("on_llm_new_tokn", "on_llm_new_token"),
        ("on_llm_token", "on_llm_new_token"),
        ("on_llm_ends", "on_llm_end"),
        ("on_chat_model_end", "on_llm_end"),
        ("on_chat_model_stream", "on_llm_new_token"),
        ("on_tool_started", "on_tool_start"),
    ],
)
@pytest.mark.parametrize("base", [object, type("Mixin", (), {})])
def test_misspelt_hook_raises_when_the_class_is_made(name, hook, base):
    """Such a method would never be called."""
    with pytest.raises(MisuseError, match=f"Slip.{name} is never called, .* Did you mean {hook}\\?"):
        type("Slip", (rxllm.CallbackHandler, *({base} - {object})), {name: lambda self, *_, **kwargs: None})


def test_other_methods_of_a_callback_handler_are_allowed():
    """A method whose name resembles no hook is allowed, and so is any attribute that is not a method."""

    class Own(rxllm.CallbackHandler):
        on_start_of_day = None
        on_llm_new_tokens = 3

        def on_agent_action(self):
            """Do nothing."""

    assert Own()


async def _all(items):
    return [item async for item in items]


@pytest.mark.parametrize(
    "begin",
    [
        lambda llm: llm.ainvoke("hi"),
        lambda llm: _all(llm.astream("hi")),
        lambda llm: llm.abatch(["hi"]),
        lambda llm: _all(llm.abatch_as_completed(["hi"])),
        lambda llm: _all(llm.astream_events("hi", version="v2")),
        lambda llm: _all(llm("hi").pipe(rxllm.astream())),
    ],
)
def test_asynchronous_methods_without_asyncio_say_what_to_do(begin):
    """As under trio, which drives coroutines itself."""
    with pytest.raises(MisuseError, match=r"no asyncio event loop here.*in a thread"):
        begin(rxllm.Embedded(seed=1)).send(None)
