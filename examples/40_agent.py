"""A research assistant: an agent with two tools, whose answer is a value. A script stands in for the model."""

from typing import NamedTuple

from rxllm import Message, ToolCallPart, agent, shaped
from rxllm.testing import MarbleLLM


class Report(NamedTuple):  # noqa: D101
    answer: str
    sources: list[str]


def search(word: str) -> list[str]:
    """Return the titles of the texts with this word."""
    return [title for title, text in LIBRARY.items() if word in text]


def read(title: str) -> str:
    return LIBRARY[title]


LIBRARY = {"tides": "The moon pulls at the sea.", "moon": "The moon is 384,400 km away."}
script = {
    "search": Message("assistant", ToolCallPart("1", "search", '{"word": "sea"}')),
    "read": Message("assistant", ToolCallPart("2", "read", '{"title": "tides"}')),
    "report": '{"answer": "The moon pulls at the sea.", "sources": ["tides"]}',
}
llm = MarbleLLM(["-search|", "-read|", "-report|"], values=script, timespan=0.01)
print(shaped(agent(llm, search, read), Report).invoke("Why are there tides?"))
