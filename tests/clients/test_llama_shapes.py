"""Shapes of random types, asked of real llama.cpp, whose grammar makes a random model obey the schema.

The model knows nothing, so each answer is a random value of its schema. What a grammar can't express is left to chance:
a date may be the 31st of November, and a number may be too large.
"""

from __future__ import annotations

import importlib.util
from collections import Counter

import pytest
from random_types import random_type

import rxllm
from rxllm import OpenAI

if importlib.util.find_spec("xllamacpp") is None:
    pytest.skip("the extra 'clients' is not installed", allow_module_level=True)

from llama_process import running
from tiny_gguf import END, write_model

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}<|im_start|>assistant\n"
CHAINS = [["<|im_start|>assistant\n", "Water", END]]
TYPES = 200
UNLUCKY = ("expected a date", "expected a time", "expected a date and time", "the number is too large")


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    """A model that says random values of the schema."""
    path = tmp_path_factory.mktemp("llama") / "random.gguf"
    write_model(path, CHAINS, TEMPLATE)
    with running(path) as address:
        yield OpenAI("tiny", api="chat", server="llama.cpp", base_url=f"{address}/v1", max_tokens=1000, temperature=1)


def outcome(llm, seed):
    """Return "parsed", or the reason of the error and its problems."""
    kind = random_type(seed)
    try:
        rxllm.shaped(llm.bind(seed=seed), kind, attempts=1).invoke("Any value.")
    except rxllm.ParseError as error:
        is_complete = kind is error.shape and error.partial.text == error.text
        return error.reason if is_complete else "incomplete error", error.problems
    return "parsed", ()


@pytest.mark.timeout(300)
def test_random_types_parse(llm):
    """Of 200 types at least 150 parse. Each other one fails for a reason that the grammar can't prevent."""
    counts: Counter[str] = Counter()
    for seed in range(TYPES):
        reason, problems = outcome(llm, seed)
        counts[reason] += 1
        assert reason in ("parsed", "mismatch", "cut"), f"seed {seed}: {reason}"
        for problem in problems:
            assert problem.startswith(UNLUCKY), f"seed {seed}: {problem}"
    assert counts["parsed"] >= 150, counts


def test_constraints_reach_the_grammar(llm):
    """The sent words make the model obey, where by itself it would not."""
    for seed in range(20):
        value = rxllm.shaped(llm.bind(seed=seed), list[rxllm.FinishReason], attempts=1).invoke("Any.")
        assert {*value} <= {"stop", "length", "content_filter", "tool_call", "error", "other"}


def test_answer_that_is_cut_says_so(llm):
    """The finish reason of the server becomes the reason of the error."""
    with pytest.raises(rxllm.ParseError) as caught:
        rxllm.shaped(llm, list[int]).invoke("Any value.", max_tokens=3)
    assert ("cut", "length") == (caught.value.reason, caught.value.partial.finish_reason)
    assert "max_tokens" in str(caught.value)


@pytest.mark.parametrize("mode", ["tool", "prompted"])
def test_other_modes_end_with_the_right_reason(llm, mode):
    """This model can't follow a prompt; a forced call goes through a grammar of its own."""
    try:
        value = rxllm.shaped(llm, dict[str, bool], attempts=1, mode=mode).invoke("Any value.")
    except rxllm.ParseError as error:
        reason = error.reason
    else:
        reason = "parsed" if isinstance(value, dict) and mode == "tool" else "wrong"
    assert reason in ("parsed", "malformed", "cut", "empty")
