"""Models that worker processes make. The module imports little, because each worker imports it."""

import asyncio
import os
import signal
import time
from pathlib import Path

import reactivex as rx
from attrs import frozen

import rxllm

USAGE = rxllm.Usage(input_tokens=3, output_tokens=2, cache_read_input_tokens=1)


def mark(path):
    """Make a file. Return whether it is new."""
    try:
        Path(path).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class Pid(rxllm.LLM):
    """A model that answers with the id of its process and the prompt. It sleeps if the prompt says so."""

    async def complete(self, request):
        """Return the id and the prompt."""
        if request.text.startswith(("block ", "wait ")):
            mark(request.text.split()[1])
            if request.text.startswith("block "):  # the event loop
                time.sleep(600)  # noqa: ASYNC251
            await asyncio.Event().wait()
        return f"{os.getpid()} {request.text}"


class Mortal(rxllm.LLM):
    """A model whose process is killed at the prompts "die PATH", once for each path, and "poison", each time."""

    async def complete(self, request):
        """Return the prompt."""
        word, _, path = request.text.partition(" ")
        if word == "poison" or (word == "die" and mark(path)):
            os.kill(os.getpid(), signal.SIGKILL)
            await asyncio.Event().wait()
        return rxllm.Message("assistant", request.text, usage=USAGE)


class Says(rxllm.LLM):
    """A model that answers with what the request holds."""

    async def complete(self, request):
        """Return the request as text."""
        return repr(request)


class Calls(rxllm.LLM):
    """A model that calls the tool "now", and whose process is killed when it gets the result."""

    async def complete(self, request):
        """Return the call."""
        if request.messages[-1].role == "tool":
            os.kill(os.getpid(), signal.SIGKILL)
            await asyncio.Event().wait()
        return rxllm.Message("assistant", [rxllm.ToolCallPart("1", "now", "{}")], finish_reason="tool_call")


class Raises(rxllm.LLM):
    """A model whose stream runs code that raises, and never ends."""

    def chunks(self, request):
        """Return the stream."""
        return rx.create(lambda observer, scheduler: scheduler.schedule(lambda *_: 1 / 0))


class Fails(rxllm.LLM):
    """A model that raises the error that the prompt names."""

    async def complete(self, request):
        """Raise."""
        raise ERRORS[request.text]


class Rich(rxllm.LLM):
    """A model whose answers have everything."""

    async def complete(self, request):
        """Return the answer that the prompt names."""
        return ANSWERS[request.text]


class Words(rxllm.LLM):
    """A model that streams the words of the prompt."""

    async def chunks(self, request):
        """Emit the words."""
        for word in request.text.split():
            yield f"{word} "


@frozen
class Holding(rxllm.LLM):
    """A model with something that cannot be pickled."""

    thing: object

    async def complete(self, request):
        """Return the prompt."""
        return request.text


class OwnError(rxllm.Overloaded):
    """An error of another library."""


ERRORS = {
    "bad": rxllm.BadRequest("The prompt\nis bad.", status=400, code="bad_prompt", body="{}"),
    "slow": rxllm.RateLimited("Too fast.", status=429, retry_after=1.5),
    "value": ValueError("no value"),
    "own": OwnError("my words", status=529),
    "half": ValueError("\ud800 is half a character"),
    "limit": rxllm.LimitReached("enough", limit="rounds"),
    "cut": rxllm.Interrupted("cut"),
}
ERRORS["cut"].partial = rxllm.Message("assistant", "so far", usage=USAGE)
ERRORS["value"].add_note("a note")
ANSWERS = {
    "text": "plain",
    "usage": rxllm.Message(
        "assistant", "x", usage=rxllm.Usage(), finish_reason="stop", model="m", id="1", provider="p"
    ),
    "parts": rxllm.Message(
        "assistant",
        [
            rxllm.ReasoningPart("hm", signature="s"),
            rxllm.TextPart("é\n", citations=({"url": "u"},)),
            rxllm.ToolCallPart("1", "f", '{"x":1}'),
            rxllm.FilePart("image/png", b"\x00\xff"),
            rxllm.RawPart("mine", {"a": [1, None]}),
        ],
        usage=USAGE,
        finish_reason="tool_call",
        raw_finish_reason="tool_calls",
        logprobs={"content": [{"token": "a", "logprob": -0.5}]},
    ),
    "object": rxllm.Message("assistant", [rxllm.RawPart("mine", {"a": object()})]),
    "nan": rxllm.Message("assistant", [rxllm.RawPart("mine", {"a": float("nan")})]),
    "half": "\ud800",
}
UNWRITABLE = ("object", "nan", "half")  # the answers that JSON cannot express


def make_holding():
    """Return a model that no pickle can hold."""
    return rxllm.retry(Holding(lambda: None), 2)


def choose(request):
    """For `route`: a new model for each request."""
    return Pid(seed=len(request.text))
