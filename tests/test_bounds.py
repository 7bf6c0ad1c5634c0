"""What a server can send without end is bounded, in bytes, in counts, in memory and in time of the event loop."""

import asyncio
import json
import re
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import msgspec
import pytest

import rxllm
from rxllm import Anthropic, OpenAI, ProtocolError, bounds
from rxllm.testing import FakeServer, Reply
from rxllm.wire.ndjson import NDJSONDecoder
from rxllm.wire.sse import SSEDecoder
from rxllm.wire.weights import check_weight

MIB = 2**20
DONE = b"data: [DONE]\n\n"
PAGE = Path(rxllm.__file__).parent.parent / "docs" / "bounds.md"


def frame(delta):
    """A chat's event; `delta` is JSON."""
    return b'data: {"choices":[{"index":0,"delta":{%s}}]}\n\n' % delta


def filled(size, piece, before=b"", after=b""):
    """JSON of about this size, of a repeated piece."""
    return before + (piece * (size // len(piece))).rstrip(b",") + after


def calls(count):
    """So many calls in one delta."""
    told = ({"index": n, "id": f"c{n}", "function": {"name": "f", "arguments": "{}"}} for n in range(count))
    return b'"tool_calls":' + json.dumps(list(told)).encode()


FULL = bounds.EVENT_BYTES - 1000
HEAVY = {
    "text": frame(filled(FULL, b"a", b'"content":"', b'"')),
    "text with one wide character": frame(filled(FULL, b"a", '"content":"😀'.encode(), b'"')),
    "text of escapes": frame(filled(FULL, b"\\n", b'"content":"', b'"')),
    "arguments that are JSON": frame(
        filled(FULL, b'{\\"a\\":1},', b'"tool_calls":[{"id":"c","function":{"name":"f","arguments":"', b'"}}]')
    ),
    "calls": frame(calls(bounds.CALLS)),
    "too many calls": frame(calls(30_000)),
    "too many parts": frame(filled(MIB, b'{"a":0},', b'"images":[', b"]")),
    "values": frame(filled(8 * 32_000, b'{"a":0},', b'"content":"a"},"logprobs":{"content":[', b"]")),
    "too many values": frame(filled(FULL, b"[],", b'"content":[', b"]")),
    "too many texts": frame(filled(FULL, b'"",', b'"content":[', b"]")),
    "a sound": frame(filled(FULL, b"QUJD", b'"audio":{"data":"', b'"}')),
}


@pytest.fixture
def turns(monkeypatch):
    """The CPU seconds of each turn of this thread's event loop."""
    spent, run, thread = [], asyncio.Handle._run, threading.get_ident()

    def timed(handle):
        began = time.thread_time()
        run(handle)
        if threading.get_ident() == thread:  # not the server's
            spent.append(time.thread_time() - began)

    monkeypatch.setattr(asyncio.Handle, "_run", timed)
    return spent


def unit():
    """The CPU seconds that this machine takes, just now, to decode 1 MiB of tool calls."""
    body = filled(MIB, b'{"index":0,"id":"c","function":{"name":"f","arguments":"{}"}},', b"[", b"]")
    spent = []
    for _ in range(3):
        began = time.thread_time()
        msgspec.json.decode(body)
        spent.append(time.thread_time() - began)
    return min(spent)


@pytest.mark.parametrize("name", HEAVY)
async def test_no_answer_holds_up_the_event_loop(turns, name):
    """A turn takes about 100 ms; the bound leaves room for slow machines, and a busy one gets three tries."""
    for _ in range(3):
        turns.clear()
        with FakeServer(Reply([HEAVY[name], DONE])) as server:
            llm = OpenAI("m", base_url=server.url, max_retries=0)
            try:
                await llm.ainvoke("hi")
            except ProtocolError:
                assert "too many" in name
        limit = max(0.15, 18 * unit())
        if "coverage" in sys.modules:  # which slows Python code, but not the decoder
            limit *= 2
        if max(turns) < limit:
            return
    pytest.fail(f"a turn of the loop took {max(turns):.3f} s of CPU, more than {limit:.3f} s")


@pytest.mark.parametrize("name", HEAVY)
async def test_no_answer_takes_much_memory(name):
    """At most 150 MB."""
    body = HEAVY[name]
    with FakeServer(Reply([body, DONE])) as server:
        llm = OpenAI("m", base_url=server.url, max_retries=0)
        tracemalloc.start()
        try:
            await llm.ainvoke("hi")
        except ProtocolError:
            assert "too many" in name
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert peak < 150e6


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("where", ["one event", "many events", "whole"])
def test_calls_are_bounded(above, where):
    """In one event, in many, and in a whole answer."""
    count = bounds.CALLS + above
    if where == "whole":
        body = b'{"choices":[{"message":{%s}}]}' % calls(count)
    elif where == "one event":
        body = frame(calls(count)) + DONE
    else:
        one = '"tool_calls":[{"index":%d,"id":"c%d","function":{"name":"f","arguments":"{}"}}]'
        body = b"".join(frame((one % (n, n)).encode()) for n in range(count)) + DONE
    with FakeServer(Reply(body)) as server:
        llm = OpenAI("m", base_url=server.url, max_retries=0, stream=where != "whole")
        if above:
            with pytest.raises(ProtocolError, match=r"more than 4,096 tool calls"):
                llm.invoke("hi")
        else:
            assert count == len(llm.invoke("hi").tool_calls)


def turn_about(count):
    """Texts and thoughts in turns: so many parts."""
    deltas = (b'"content":"a"', b'"reasoning":"b"')
    return b"".join(frame(deltas[n % 2]) for n in range(count)) + DONE


@pytest.mark.parametrize("above", [False, True])
def test_parts_are_bounded(above):
    """Fragments of one part count once, however many they are."""
    count = bounds.PARTS + above
    body = frame(b'"content":"a"') * 20_000 + turn_about(count)
    with FakeServer(Reply(body)) as server:
        llm = OpenAI("m", base_url=server.url, max_retries=0)
        if above:
            with pytest.raises(ProtocolError, match=r"more than 4,096 parts"):
                llm.invoke("hi")
        else:
            assert count == len(llm.invoke("hi").parts)


def claude(*events):
    """A stream of Anthropic's."""
    told = [{"type": "message_start", "message": {"id": "1"}}, *events, {"type": "message_stop"}]
    return b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in told)


@pytest.mark.parametrize("above", [False, True])
def test_citations_are_bounded(above):
    """Of all texts of an answer together."""
    delta = {"type": "citations_delta", "citation": {"type": "char_location"}}
    cited = {"type": "content_block_delta", "index": 0, "delta": delta}
    with FakeServer(Reply(claude(*[cited] * (bounds.CITATIONS + above)))) as server:
        llm = Anthropic("m", base_url=server.url, max_retries=0)
        if above:
            with pytest.raises(ProtocolError, match=r"more than 8,192 citations"):
                llm.invoke("hi")
        else:
            assert bounds.CITATIONS == len(llm.invoke("hi").parts[0].citations)


@pytest.mark.parametrize("above", [False, True])
def test_calls_of_anthropic_are_bounded(above):
    """They are blocks."""
    block = {"type": "tool_use", "name": "f", "input": {}}
    count = bounds.CALLS + above
    starts = ({"type": "content_block_start", "index": n, "content_block": {**block, "id": n}} for n in range(count))
    with FakeServer(Reply(claude(*starts))) as server:
        llm = Anthropic("m", base_url=server.url, max_retries=0)
        if above:
            with pytest.raises(ProtocolError, match=r"more than 4,096 tool calls"):
                llm.invoke("hi")
        else:
            assert count == len(llm.invoke("hi").tool_calls)


@pytest.mark.parametrize("above", [False, True])
def test_a_name_is_bounded(above):
    """However short its pieces are."""
    pieces = [frame(b'"tool_calls":[{"index":0,"id":"c","function":{"name":"%c"}}]' % letter) for letter in b"ab" * 512]
    body = b"".join(pieces) + frame(b'"tool_calls":[{"index":0,"function":{"name":"x"}}]') * above + DONE
    with FakeServer(Reply(body)) as server:
        llm = OpenAI("m", base_url=server.url, max_retries=0)
        if above:
            with pytest.raises(ProtocolError, match=r"longer than 1,024 characters"):
                llm.invoke("hi")
        else:
            assert "ab" * 512 == llm.invoke("hi").tool_calls[0].name


@pytest.mark.parametrize("value", [b"0", b"[]", b"{}", b'""', b'"\\"{[,"', b'"\\\\"', b'{"a":1}'])
def test_values_are_counted_as_json_has_them(value):
    """Not the marks within texts; each opening bracket and each comma stands for one value."""
    count = 100_000
    document = b"[" + b",".join([value] * count) + b"]"
    marks = count + count * (value[:1] in b"[{")
    check_weight(document, marks)
    with pytest.raises(ProtocolError, match="raise event_limit"):
        check_weight(document, marks - 1)


@pytest.mark.parametrize("above", [False, True])
def test_values_of_an_event_are_bounded(above):
    """By its limit in bytes, which raises both."""
    values = b"[" + b",".join([b"0"] * (bounds.EVENT_BYTES // bounds.EVENT_BYTES_PER_VALUE + above)) + b"]"
    body = b"data: " + values + b"\n\n"
    if not above:
        assert [("message", values)] == SSEDecoder().feed(body)
        return
    with pytest.raises(ProtocolError, match=r"more than 65,536 values"):
        SSEDecoder().feed(body)
    assert [("message", values)] == SSEDecoder(limit=2 * bounds.EVENT_BYTES).feed(body)


@pytest.mark.parametrize("above", [False, True])
def test_values_of_a_line_are_bounded(above):
    """A line of JSON may have as many values as an event may; a larger limit raises that, too."""
    values = b"[" + b",".join([b"0"] * (bounds.EVENT_BYTES // bounds.EVENT_BYTES_PER_VALUE + above)) + b"]"
    body = values + b"\n{}\n"
    if not above:
        assert [("message", values), ("message", b"{}")] == NDJSONDecoder().feed(body)
        return
    with pytest.raises(ProtocolError, match=r"more than 65,536 values"):
        NDJSONDecoder().feed(body)
    assert [("message", values), ("message", b"{}")] == NDJSONDecoder(limit=2 * bounds.EVENT_BYTES).feed(body)


@pytest.mark.parametrize("above", [False, True])
def test_values_of_a_whole_answer_are_bounded(above):
    """Here of its logprobs."""
    count = bounds.DOCUMENT_BYTES // bounds.DOCUMENT_BYTES_PER_VALUE - 6 + above
    body = b'{"choices":[{"message":{"content":"a"},"logprobs":{"content":[%s]}}]}' % b",".join([b"0"] * count)
    with FakeServer(Reply.json(body)) as server:
        llm = OpenAI("m", base_url=server.url, max_retries=0, stream=False)
        if above:
            with pytest.raises(ProtocolError, match=r"more than 262,144 values"):
                llm.invoke("hi")
            llm = OpenAI("m", base_url=server.url, stream=False, event_limit=32 * MIB)
        assert count == len(llm.invoke("hi").logprobs["content"])


def test_mending_is_bounded():
    """A document that is not JSON is read all the same up to its bound."""
    text = b"a" * (bounds.MENDED_BYTES - 60)
    body = b'{"choices":[{"message":{"content":"%s"},"x":NaN}]}'
    for size, is_read in ((len(text), True), (bounds.MENDED_BYTES, False)):
        with FakeServer(Reply.json(body % (b"a" * size))) as server:
            llm = OpenAI("m", base_url=server.url, max_retries=0, stream=False)
            if is_read:
                assert size == len(llm.invoke("hi").text)
            else:
                with pytest.raises(ProtocolError):
                    llm.invoke("hi")


@pytest.mark.parametrize("kind", ["held calls", "repeated names", "raw text", "raw citations", "citations"])
def test_growth_is_linear(kind):
    """Four times as much takes about four times as long, not sixteen."""

    def spent(count):
        from rxllm.providers._anthropic_messages import ClaudeDecoder
        from rxllm.providers._openai_chat import ChatDecoder

        raw = {"type": "content_block_start", "index": 0, "content_block": {"type": "new", "text": ""}}
        first, each = {
            "held calls": (b"{}", b'{"choices":[{"delta":{"tool_calls":[{"index":%d,"function":{"name":"f"}}]}}]}'),
            "repeated names": (
                b"{}",
                b'{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{\\"a\\":"}}]}}]}',
            ),
            "raw text": (
                json.dumps(raw).encode(),
                b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}}' % (b"a" * 200),
            ),
            "raw citations": (
                json.dumps(raw).encode(),
                b'{"type":"content_block_delta","index":0,"delta":{"type":"citations_delta","citation":{"a":1}}}',
            ),
            "citations": (
                b"{}",
                b'{"type":"content_block_delta","index":0,"delta":{"type":"citations_delta","citation":{"a":1}}}',
            ),
        }[kind]
        decoder = ChatDecoder() if b"choices" in each else ClaudeDecoder()
        began = time.thread_time()
        decoder.chunk(first)
        for n in range(count):
            decoder.chunk(each % n if b"%d" in each else each)
        decoder.rest()
        return time.thread_time() - began

    small = min(spent(1000) for _ in range(3))
    large = min(spent(4000) for _ in range(3))
    assert large < 8 * small


def test_the_page_has_every_bound():
    """With its figure."""
    shown = PAGE.read_text("utf-8")
    figures = {name: value for name, value in vars(bounds).items() if name.isupper() and name not in ("KIB", "MIB")}
    for name, value in figures.items():
        if name.endswith("PER_VALUE") or name == "LONG_BYTES":
            continue
        large = (value >= MIB and f"{value // MIB} MiB") or (value % 1024 == 0 and f"{value // 1024} KiB")
        assert re.search(f"{value:,g}|{value:g} s|{large}", shown), name
