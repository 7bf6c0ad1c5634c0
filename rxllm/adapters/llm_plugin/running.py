"""`answered` and `answered_async`: a prompt of `llm`, answered by a model of rxllm, as events of `llm`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from ...combinators.agent import tools_of_agents
from ...errors import RxllmError
from ...llm import LLM
from ...misuse import MisuseError
from ...values.chunk import Chunk, join
from ...values.parts import Part, ReasoningPart, RefusalPart, TextPart, ToolCallPart, ToolResultPart
from .._echo import ECHO, echo_of
from .._places import Places
from .._written import refused_reset
from ..llm.arguments import arguments_of
from .reading import messages_of, settings_of

__all__ = ["answered", "answered_async"]


def answered(create: Callable[[], LLM], prompt: Any, response: Any, *, stream: bool) -> Iterator[Any]:
    """Yield the events of an answer. Closing the generator closes the request.

    Args:
        create: returns the model.
        prompt: the `llm.Prompt`.
        response: the `llm.Response`, which gets the usage, the tool calls and the facts at the end.
        stream: whether the answer may come in pieces.

    Errors: `llm.ModelError`, with the error of rxllm as its cause.
    """
    with _as_model_errors():
        writer = _Writer(response, llm := create())
        with llm.stream(messages_of(prompt.messages), **settings_of(prompt, stream=stream)) as chunks:
            for chunk in chunks:
                yield from writer.write(chunk)
        yield from writer.end()


async def answered_async(create: Callable[[], LLM], prompt: Any, response: Any, *, stream: bool) -> AsyncGenerator[Any]:
    """Yield what `answered` yields, without blocking the event loop."""
    with _as_model_errors():
        writer = _Writer(response, llm := create())
        async with llm.astream(messages_of(prompt.messages), **settings_of(prompt, stream=stream)) as chunks:
            async for chunk in chunks:
                for event in writer.write(chunk):
                    yield event
        for event in writer.end():
            yield event


@contextmanager
def _as_model_errors() -> Generator[None]:
    """Raise llm.ModelError, which the command shows to its user, for the errors of rxllm."""
    try:
        yield
    except (RxllmError, MisuseError) as error:
        raise import_module("llm").ModelError(str(error)) from error


class _Writer:
    """Writes the events of one answer.

    Attributes:
        own_tools: the names of the tools that the model itself runs.
    """

    def __init__(self, response: Any, llm: LLM) -> None:
        self.response = response
        self.own_tools = tools_of_agents(llm) or frozenset[str]()
        self.event = import_module("llm.parts").StreamEvent
        self.places = Places()
        self.chunks: list[Chunk] = []

    def write(self, chunk: Chunk) -> Iterator[Any]:
        """Yield the events for a chunk.

        Raises:
            Interrupted: the chunk takes back text that llm has got.
        """
        if chunk.reset and any(said.parts for said in self.chunks):
            raise refused_reset("llm")
        self.chunks.append(chunk)
        for part in chunk.parts:
            yield from self._of_part(part, self.places.of(part))

    def _of_part(self, part: Part, place: int) -> Iterator[Any]:
        match part:
            case TextPart() | RefusalPart():
                if part.text:
                    yield self.event(type="text", chunk=part.text, part_index=place)
            case ReasoningPart():
                if part.text:
                    yield self.event(type="reasoning", chunk=part.text, part_index=place)
            case ToolCallPart():
                facts = {"part_index": place, "tool_call_id": part.id or None}
                facts["server_executed"] = part.name in self.own_tools
                if part.name:
                    yield self.event(type="tool_call_name", chunk=part.name, **facts)
                if part.arguments:
                    yield self.event(type="tool_call_args", chunk=part.arguments, **facts)
            case ToolResultPart():
                facts = {"part_index": place, "tool_call_id": part.id, "tool_name": part.name}
                yield self.event(type="tool_result", chunk=part.text, server_executed=True, **facts)
            case _:
                pass  # `echo_of` keeps it

    def end(self) -> Iterator[Any]:
        """Set the facts of the response, and yield the event with the record of the answer, if it needs one."""
        answer = join(self.chunks).message()
        response = self.response
        for call in answer.tool_calls:
            if call.name not in self.own_tools:
                found = import_module("llm").ToolCall(call.name, arguments_of(call.arguments), call.id)
                response.add_tool_call(found)
        if (usage := answer.usage) is not None:
            counts = usage.counts
            totals = {"input": counts.pop("input_tokens", None), "output": counts.pop("output_tokens", None)}
            details = {name: count for name, count in counts.items() if count}
            response.set_usage(**totals, details=details or None)
        if answer.model:
            response.set_resolved_model(answer.model)
        facts = ("id", "model", "provider", "finish_reason", "raw_finish_reason")
        response.response_json = {name: fact for name in facts if (fact := getattr(answer, name)) is not None}
        if record := echo_of(answer):
            # A part of its own. llm keeps it in its logs, and gives it back in the next turn.
            yield self.event(type="reasoning", chunk="", provider_metadata={ECHO: record})
