"""`show` outside of a notebook: it prints what arrives. tests/clients runs it in kernels."""

import asyncio

import pytest

import rxllm
from rxllm import parallel, pipe, show, snapshots, text
from rxllm.testing import FakeServer, MarbleLLM

LLM = MarbleLLM("-Hel-lo---_wor-ld|", timespan=0.005)


def test_show_prints_the_text_and_returns_the_answer(capsys):
    """The text is printed once, with a newline at the end."""
    assert "Hello world" == show(LLM.stream("hi")).answer.text
    assert "Hello world\n" == capsys.readouterr().out


def test_show_takes_an_async_stream(capsys):
    """The same, when it is awaited."""

    async def main():
        return await show(pipe(LLM, text()).astream("hi"))

    assert "Hello world" == asyncio.run(main()).answer
    assert "Hello world\n" == capsys.readouterr().out


@pytest.mark.parametrize(
    ("stage", "answer"),
    [
        (pipe(LLM, snapshots()), "Hello world"),
        (pipe(LLM, rxllm.words()), "Hello world"),
        (pipe(LLM, rxllm.message()), "Hello world"),
        (parallel(a=pipe(LLM, text()), b=pipe(LLM, text())), {"a": "Hello world", "b": "Hello world"}),
        (pipe(LLM, rxllm.lines()), ["Hello world"]),
    ],
)
def test_answer_is_what_invoke_returns(stage, answer, capsys):
    """Whatever the last stage declares."""
    shown = show(stage.stream("hi")).answer
    assert stage.invoke("hi") == shown
    assert answer == (str(shown) if isinstance(answer, str) else shown)
    assert f"{answer}\n" == capsys.readouterr().out


def test_show_prints_while_the_answer_grows(capsys):
    """What has arrived before a silence of the model is printed during it."""
    waited = []

    class Slow(rxllm.LLM):
        async def chunks(self, request):
            yield "Hel"
            await asyncio.sleep(0)
            yield "lo"
            for _ in range(1000):
                await asyncio.sleep(0.01)
                waited.append(capsys.readouterr().out)
                if "".join(waited) == "Hello":
                    break
            yield " world"

    show(Slow().stream("hi"))
    assert "Hello" == "".join(waited)
    assert " world\n" == capsys.readouterr().out


def test_show_prints_no_control_characters(capsys):
    """A model cannot send commands to the terminal."""
    show(MarbleLLM("-a|", values={"a": "\x1b[31mred"}, timespan=0.001).stream("hi"))
    assert "\\u001b[31mred\n" == capsys.readouterr().out


def test_restarted_answer_is_printed_on_a_new_line(capsys):
    """Text that was taken back stays above it."""
    reset = rxllm.Chunk("new", reset=True)
    show(MarbleLLM("-old" + "-" * 30 + "r|", values={"r": reset}, timespan=0.01).stream("hi"))
    assert "old\nnew\n" == capsys.readouterr().out


def test_error_comes_after_the_last_text(capsys):
    """The stream's own error is raised."""
    broken = MarbleLLM("-Hel-lo#", error=rxllm.RateLimited("Slow down."), timespan=0.001)
    with pytest.raises(rxllm.RateLimited) as caught:
        show(broken.stream("hi"))
    assert "Hello" == caught.value.partial.text
    assert "Hello\n" == capsys.readouterr().out


def test_cancelling_show_closes_the_request():
    """And what has arrived is printed."""

    async def main(server):
        llm = rxllm.OpenAI("m", base_url=server.url, api_key="k", max_retries=0)
        showing = asyncio.ensure_future(show(llm.astream("hi")))
        await server.exchange(0).arrived.soon()
        showing.cancel()
        await server.exchange(0).closed_soon()
        with pytest.raises(asyncio.CancelledError):
            await showing

    from rxllm.testing import End, Reply

    with FakeServer(Reply([End.HANG])) as server:
        asyncio.run(main(server))
        assert server.exchange(0).aborted


@pytest.mark.parametrize("wrong", ["text", LLM, LLM("hi"), iter([])])
def test_show_refuses_anything_but_a_stream(wrong):
    """The error names the methods."""
    with pytest.raises(rxllm.MisuseError, match=r"show takes a stream, such as llm.stream\(prompt\)"):
        show(wrong)


def test_show_refuses_a_stream_that_has_begun():
    """Its first values are gone."""
    stream = LLM.stream("hi")
    next(stream)
    with pytest.raises(rxllm.MisuseError, match="already been read or closed"):
        show(stream)
    stream.close()


def test_show_refuses_a_batch():
    """Its prompts are pulled by the thread that reads it."""
    with pytest.raises(rxllm.MisuseError, match="can only be read with a `for` loop"):
        show(LLM.batch_as_completed(["a", "b"]))


def test_taken_stream_is_at_its_end():
    """A stream that is shown cannot be read once more."""
    stream = LLM.stream("hi")
    show(stream)
    assert [] == list(stream)
