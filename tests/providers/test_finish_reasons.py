"""Why an answer ended, in every protocol, streamed and whole."""

import pytest
from protocols import PROTOCOLS

from rxllm import Anthropic, OpenAI, ProviderError
from rxllm.testing import FakeServer, Reply
from rxllm.values.message import is_whole

BOTH = pytest.mark.parametrize("stream", [True, False])
EACH = pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)

STOPS = ["stop", "STOP", "end_turn", "eos", "eos_token", "stop_sequence", "COMPLETE"]
LENGTHS = ["length", "max_tokens", "MAX_TOKENS", "model_length", "model_context_window_exceeded"]
FILTERS = ["content_filter", "content_filter: SAFETY", "RECITATION", "BLOCKLIST", "SPII", "PROHIBITED_CONTENT"]
FAILURES = ["error", "abort", "cancelled", "timeout", "MALFORMED_FUNCTION_CALL", "network_error", "TOO_MANY_TOOL_CALLS"]
UNKNOWN = ["load", "LANGUAGE", "weather", "stopped-by-moon"]


def asked(protocol, finish, *, stream):
    """The answer "Hel" that ends for a reason."""
    reply = (
        Reply(protocol.stream(["Hel"], finish=finish)) if stream else Reply.json(protocol.whole(["Hel"], finish=finish))
    )
    with FakeServer(reply) as server:
        if protocol.name == "messages":
            llm = Anthropic("m", base_url=server.url, max_retries=0)
        else:
            llm = OpenAI("m", base_url=server.url + "/v1", api=protocol.name, max_retries=0)
        return llm.invoke("hi", stream=stream)


@BOTH
@EACH
@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        *((raw, "stop") for raw in STOPS),
        *((raw, "length") for raw in LENGTHS),
        *((raw, "content_filter") for raw in FILTERS),
        *((raw, "other") for raw in UNKNOWN),
    ],
)
def test_words_of_all_vendors_mean_the_same_in_every_protocol(protocol, raw, reason, stream):
    """A known word has our reason, an unknown one is ``other``; the server's word is kept."""
    answer = asked(protocol, raw, stream=stream)
    raw = protocol.finishes.get(raw, raw)
    assert ("Hel", reason, raw) == (answer.text, answer.finish_reason, answer.raw_finish_reason)


@BOTH
@EACH
@pytest.mark.parametrize("raw", [5, 1.5, True])
def test_a_reason_that_is_not_text_is_an_unknown_one(protocol, raw, stream):
    """The answer is not taken for a whole one."""
    answer = asked(protocol, raw, stream=stream)
    assert ("Hel", "other", repr(raw)) == (answer.text, answer.finish_reason, answer.raw_finish_reason)


@BOTH
@EACH
@pytest.mark.parametrize("raw", FAILURES)
def test_an_answer_that_the_server_gave_up_is_an_error(protocol, raw, stream):
    """The error tells the reason; its partial has what came, and why it ended."""
    with pytest.raises(ProviderError, match="failed in the middle of its answer") as caught:
        asked(protocol, raw, stream=stream)
    partial = caught.value.partial
    assert ("Hel", "error", raw, raw) == (
        partial.text,
        partial.finish_reason,
        partial.raw_finish_reason,
        caught.value.code,
    )


@pytest.mark.parametrize(
    ("reason", "whole"),
    [
        (None, True),
        ("stop", True),
        ("length", True),
        ("tool_call", True),
        ("content_filter", False),
        ("error", False),
        ("other", False),
    ],
)
def test_only_an_answer_that_ended_as_meant_is_whole(reason, whole):
    """A model that gives no reason ends as it means to."""
    assert whole == is_whole(reason)
