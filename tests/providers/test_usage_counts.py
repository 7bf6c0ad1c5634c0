"""Token counts in the forms of gateways: each count of `Usage` has one meaning, whatever the server calls it."""

import pytest
from protocols import sse

from rxllm import Anthropic, OpenAI, Usage
from rxllm.testing import FakeServer, Reply


def counted(*frames, kind=OpenAI):
    """The usage of the answer that these frames are."""
    with FakeServer(Reply([*map(sse, frames), sse("[DONE]")])) as server:
        return kind("m", base_url=server.url, api_key="none", max_retries=0).invoke("hi").usage


def chat(usage):
    """The usage of a chat with this usage document."""
    finish = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}
    return counted(finish, {"choices": [], "usage": usage})


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            {"input_tokens": 9, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 5}},
            Usage(input_tokens=9, output_tokens=4, cache_read_input_tokens=5),
        ),
        ({"prompt_tokens": 9, "num_cached_tokens": 5}, Usage(input_tokens=9, cache_read_input_tokens=5)),
        (
            {"prompt_tokens": 9, "prompt_token_details": {"cached_tokens": 5}},
            Usage(input_tokens=9, cache_read_input_tokens=5),
        ),
        (
            {"output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 3}},
            Usage(output_tokens=4, reasoning_output_tokens=3),
        ),
        (
            {"prompt_tokens": 9, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2},
            Usage(input_tokens=9, cache_read_input_tokens=5, cache_creation_input_tokens=2),
        ),
        (
            {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 5, "cache_creation_tokens": 2}},
            Usage(input_tokens=9, cache_read_input_tokens=5, cache_creation_input_tokens=2),
        ),
        ({"prompt_tokens": "9", "completion_tokens": "4"}, Usage(input_tokens=9, output_tokens=4)),
        ({"prompt_tokens": "x", "completion_tokens": "-4"}, Usage()),
    ],
)
def test_counts_have_many_names(document, expected):
    """Proxies report the counts of other protocols, and some write numbers as text."""
    assert expected == chat(document)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("server", "total", "details", "expected"),
    [
        ("xai", 135, {"reasoning_tokens": 94}, (103, 94)),
        ("xai", 41, {"reasoning_tokens": 5}, (9, 5)),
        ("xai", 135, {"reasoning_tokens": 0}, (9, 0)),
        ("gemini-compatible", 135, None, (103, 94)),
        ("gemini-compatible", None, None, (9, None)),
        ("groq", 135, {"reasoning_tokens": 94}, (9, 94)),
    ],
)
def test_output_tokens_include_reasoning_that_only_the_total_has(server, total, details, expected, stream):
    """Only xAI and Gemini count reasoning beside the answer. Other servers count it within, whatever their total is."""
    usage = {"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": total, "completion_tokens_details": details}
    choice = {"index": 0, "delta" if stream else "message": {"content": "Hi"}, "finish_reason": "stop"}
    answer = {"id": "c", "model": "m", "choices": [choice], "usage": usage}
    reply = Reply([sse(answer), sse("[DONE]")]) if stream else Reply.json(answer)
    with FakeServer(reply) as fake:
        llm = OpenAI("m", base_url=fake.url, api="chat", server=server, api_key="none", stream=stream)
        counts = llm.invoke("hi").usage
    output, reasoning = expected
    assert Usage(input_tokens=32, output_tokens=output, reasoning_output_tokens=reasoning) == counts


def claude(start, end):
    """The usage of an answer of Anthropic with these counts at its start and at its end."""
    stop = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": end}
    begin = {"type": "message_start", "message": {"id": "m", "usage": start}}
    return counted(begin, stop, {"type": "message_stop"}, kind=Anthropic)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ({"input_tokens": 5}, {"input_tokens": 0, "output_tokens": 2}, Usage(input_tokens=5, output_tokens=2)),
        (
            {"input_tokens": 5, "cache_read_input_tokens": 3},
            {"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 2},
            Usage(input_tokens=8, output_tokens=2, cache_read_input_tokens=3),
        ),
        ({"input_tokens": 0}, {"input_tokens": 5, "output_tokens": 2}, Usage(input_tokens=5, output_tokens=2)),
        ({"input_tokens": 7}, {"input_tokens": 5, "output_tokens": 2}, Usage(input_tokens=5, output_tokens=2)),
        pytest.param(
            {"input_tokens": 3602, "output_tokens": 0},
            {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 3604, "output_tokens": 2},
            Usage(input_tokens=3604, output_tokens=2, cache_read_input_tokens=3604, cache_creation_input_tokens=0),
            id="DashScope counts the cached tokens at the start, too",
        ),
        pytest.param(
            {"input_tokens": 9},
            {"cache_creation_input_tokens": 5, "output_tokens": 2},
            Usage(input_tokens=9, output_tokens=2, cache_creation_input_tokens=5),
            id="the cache is written",
        ),
        pytest.param(
            {"input_tokens": 9},
            {"input_tokens": 0, "cache_read_input_tokens": 9, "output_tokens": 2},
            Usage(input_tokens=9, output_tokens=2, cache_read_input_tokens=9),
            id="the whole prompt was cached",
        ),
        pytest.param(
            {"input_tokens": 9},
            {"input_tokens": 4, "cache_read_input_tokens": 5, "output_tokens": 2},
            Usage(input_tokens=9, output_tokens=2, cache_read_input_tokens=5),
            id="the end splits the count of the start",
        ),
        pytest.param(
            {"input_tokens": 4, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 1, "output_tokens": 1},
            {"output_tokens": 2},
            Usage(input_tokens=10, output_tokens=2, cache_read_input_tokens=5, cache_creation_input_tokens=1),
            id="Anthropic",
        ),
        pytest.param(
            {"input_tokens": 4, "cache_read_input_tokens": 5, "output_tokens": 1},
            {"input_tokens": 8, "cache_read_input_tokens": 7, "output_tokens": 2},
            Usage(input_tokens=15, output_tokens=2, cache_read_input_tokens=7),
            id="Anthropic after a search",
        ),
    ],
)
def test_prompt_is_counted_at_the_start_or_at_the_end(start, end, expected):
    """Servers of Anthropic's protocol write zeros where they have no count of the prompt."""
    assert expected == claude(start, end)
