"""Why an answer ended, in every protocol, streamed and whole."""

import pytest
from models import made
from protocols import EVERY, ToolCall

from rxllm import ProviderError
from rxllm.testing import FakeServer, Reply
from rxllm.values.vocabulary import is_whole

BOTH = pytest.mark.parametrize("stream", [True, False])
EACH = pytest.mark.parametrize("protocol", EVERY, ids=lambda protocol: protocol.name)
CALLING = [protocol for protocol in EVERY if protocol.name != "completions"]
WITH_CALLS = pytest.mark.parametrize("protocol", CALLING, ids=lambda protocol: protocol.name)

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
        return made(protocol, server.url).invoke("hi", stream=stream)


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
    """A known word has a finish reason, an unknown one is ``other``; the raw word is kept."""
    answer = asked(protocol, raw, stream=stream)
    raw = protocol.finishes.get(raw, raw)
    assert ("Hel", reason, raw) == (answer.text, answer.finish_reason, answer.raw_finish_reason)


@BOTH
@EACH
@pytest.mark.parametrize("raw", [5, 1.5, True])
def test_a_reason_that_is_not_text_is_an_unknown_one(protocol, raw, stream):
    """It does not make the answer whole."""
    answer = asked(protocol, raw, stream=stream)
    assert ("Hel", "other", repr(raw)) == (answer.text, answer.finish_reason, answer.raw_finish_reason)


@BOTH
@EACH
@pytest.mark.parametrize("raw", FAILURES)
def test_answer_that_the_server_broke_off_is_an_error(protocol, raw, stream):
    """The error names the reason; its partial has the content and the finish reason."""
    with pytest.raises(ProviderError, match="failed in the middle of its answer") as caught:
        asked(protocol, raw, stream=stream)
    partial = caught.value.partial
    assert ("Hel", "error", raw, raw) == (
        partial.text,
        partial.finish_reason,
        partial.raw_finish_reason,
        caught.value.code,
    )


@BOTH
@WITH_CALLS
@pytest.mark.parametrize("raw", ["stop", "end_turn", "COMPLETE"])
def test_answer_with_calls_that_ended_normally_ends_with_its_calls(protocol, raw, stream):
    """Some servers say stop, for example if the request forces the call. A limit stays a limit."""
    for reason, expected in ((raw, "tool_call"), ("max_tokens", "length")):
        call = ToolCall()
        answer = Reply(protocol.stream(tool_call=call, finish=reason))
        whole = Reply.json(protocol.whole(tool_call=call, finish=reason))
        with FakeServer(answer if stream else whole) as server:
            told = made(protocol, server.url).invoke("hi", stream=stream)
        assert (expected, 1) == (told.finish_reason, len(told.tool_calls))


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
def test_cached_keeps_whole_answers_only(reason, whole):
    """A model of the program that gives no finish reason ends normally."""
    assert whole == is_whole(reason)
