"""OpenAI's SDK for JavaScript reads what `serve.openai` sends."""

import pytest
from clients.node_client import Node
from serving import Scripted, Serving

import rxllm
from rxllm.serve import openai

USED = rxllm.Chunk(finish_reason="stop", usage=rxllm.Usage(input_tokens=3, output_tokens=2))


@pytest.fixture(scope="module")
def node():
    """Run Node for the tests of this file."""
    with Node() as process:
        yield process


@pytest.mark.parametrize("kind", ["stream", "whole", "responses"])
def test_answer_and_errors(node, kind):
    """The text arrives; an early 429 is asked once, and a late failure is an error."""
    with Serving(openai({"m": Scripted("Hel", "lo", USED)})) as server:
        assert "Hello" == node.ask("openai", url=f"{server.url}/v1", kind=kind)["text"]
    early = Scripted(rxllm.RateLimited("slow", status=429))
    with Serving(openai({"m": early})) as server:
        result = node.ask("openai", url=f"{server.url}/v1", kind=kind)
    assert ("RateLimitError", 429, 1) == (result["error"], result["status"], len(early.asked))
    with Serving(openai({"m": Scripted("Hel", rxllm.Interrupted("cut"))})) as server:
        assert "error" in node.ask("openai", url=f"{server.url}/v1", kind=kind)
