"""A model that answers by a script, for the tests of agents."""

import asyncio
import copy

import reactivex as rx
from attrs import field, frozen

import rxllm
from rxllm import Chunk, ToolCallPart


@frozen
class Scripted(rxllm.LLM):
    """Answers each request with the next list of chunks; the last one repeats. A number is a pause in seconds."""

    answers: tuple = field(converter=tuple)
    requests: list = field(factory=list, eq=False)
    closed: list = field(factory=list, eq=False)

    async def chunks(self, request):
        """Emit the next answer; an exception in it is raised."""
        answer = self.answers[min(len(self.requests), len(self.answers) - 1)]
        self.requests.append(request)
        try:
            for item in [answer] if isinstance(answer, str) else answer:
                if isinstance(item, (int, float)):
                    await asyncio.sleep(item)
                elif isinstance(item, Exception):
                    raise copy.copy(item)  # errors are changed on their way
                else:
                    yield item
        finally:
            self.closed.append(len(self.requests))

    @property
    def prompts(self):
        """The messages of each request."""
        return [request.messages for request in self.requests]


def call(name, arguments="{}", id="", index=0, **facts):
    """Return a chunk with one whole call."""
    return Chunk(parts=[ToolCallPart(id or f"id-{name}-{index}", name, arguments, index)], **facts)


async def collect(stream):
    """Return all chunks of a stream, and the error that ended it."""
    chunks = []
    try:
        async for chunk in stream.pipe(rxllm.astream()) if isinstance(stream, rx.Observable) else stream:
            chunks.append(chunk)  # noqa: PERF401  (an error must not lose the chunks before it)
    except Exception as error:
        return chunks, error
    return chunks, None


def shown(chunk):
    """A chunk or a message in a few words: ``name{…}`` is a call, ``=text`` a result, ``name…`` a pending call."""
    words = {
        "TextPart": lambda part: part.text,
        "ReasoningPart": lambda part: f"({part.text})",
        "ToolCallPart": lambda part: f"{part.name}{part.arguments}",
        "ToolResultPart": lambda part: f"={part.text}",
        "Pending": lambda part: f"{part.call.name}…",
        "Approval": lambda part: f"{part.call.name}{'!' if part.yes else '?'}",
        "RawPart": lambda part: "raw",
    }
    parts = " ".join(words[type(part).__name__](part) for part in chunk.parts)
    return ("reset " if getattr(chunk, "reset", False) else "") + parts


async def timeline(stream):
    """Return what a stream emits as (second, words), and its end as ``|`` or the class of the error."""
    loop, seen = asyncio.get_running_loop(), []
    try:
        async for chunk in stream.pipe(rxllm.astream()):
            seen.append((round(loop.time(), 3), shown(chunk)))  # noqa: PERF401  (as above)
    except Exception as error:
        seen.append((round(loop.time(), 3), type(error).__name__))
    else:
        seen.append((round(loop.time(), 3), "|"))
    return seen


def roles(messages):
    """Return messages as (role, words)."""
    return [(message.role, shown(Chunk(parts=message.parts))) for message in messages]
