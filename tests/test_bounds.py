"""Bounds of everything that a server can send without end: bytes, counts, memory and time of the event loop."""

import asyncio
import gc
import json
import re
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import msgspec
import pytest
from models import made
from protocols import EVERY, aws_event

import rxllm
from rxllm import Anthropic, OpenAI, ProtocolError, bounds
from rxllm.testing import Endless, FakeServer, Reply
from rxllm.wire.ndjson import NDJSONDecoder
from rxllm.wire.sse import SSEDecoder
from rxllm.wire.weights import CONTAINER, check_weight

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
VALUES = bounds.EVENT_BYTES // bounds.EVENT_BYTES_PER_VALUE - 100
WHOLE_VALUES = bounds.DOCUMENT_BYTES // bounds.DOCUMENT_BYTES_PER_VALUE - 100
NESTED = b'{"a":{"b":[{"c":""}]}}'  # four objects and lists, and a comma: the most costly values


def nested(values):
    """JSON that counts as so many values."""
    return b"[" + b",".join([NESTED] * (values // (4 * CONTAINER + 1))) + b"]"


def whole(message=b'"content":"a"', more=b""):
    """A chat answer that is not streamed."""
    return b'{"choices":[{"message":{%s}%s}]}' % (message, more)


def block(content, *deltas, index=0):
    """The events of one block of Anthropic's."""
    events = [
        b'{"type":"content_block_start","index":%d,"content_block":%s}' % (index, content),
        *(b'{"type":"content_block_delta","index":%d,"delta":%s}' % (index, delta) for delta in deltas),
        b'{"type":"content_block_stop","index":%d}' % index,
    ]
    return [b"data: %s\n\n" % event for event in events]


ARGUMENTS = b'"tool_calls":[{"id":"c","function":{"name":"f","arguments":"'
SOUND = filled(FULL, b"QUJD", b'"audio":{"data":"', b'"}')
RESULT = b'{"type":"web_search_tool_result","content":%s}'
INPUT = [b'{"type":"input_json_delta","partial_json":"%s"}' % (b"0," * 30_000) for _ in range(130)]
ITEM = b'data: {"type":"response.output_item.done","output_index":%d,"item":{"type":"new","x":%s}}\n\n'
CLAUDE = [b'data: {"type":"message_start","message":{"id":"1"}}\n\n'], [b'data: {"type":"message_stop"}\n\n']

# By name: the protocol, and a body. One in pieces is a stream, one of bytes a whole answer.
HEAVY = {
    "text": ("chat", [frame(filled(FULL, b"a", b'"content":"', b'"'))]),
    "text with one wide character": ("chat", [frame(filled(FULL, b"a", '"content":"😀'.encode(), b'"'))]),
    "text of escapes": ("chat", [frame(filled(FULL, b"\\n", b'"content":"', b'"'))]),
    "arguments that are JSON": (
        "chat",
        [
            frame(
                filled(FULL, b'{\\"a\\":1},', b'"tool_calls":[{"id":"c","function":{"name":"f","arguments":"', b'"}}]')
            )
        ],
    ),
    "calls": ("chat", [frame(calls(bounds.CALLS))]),
    "too many calls": ("chat", [frame(calls(30_000))]),
    "too many parts": ("chat", [frame(filled(MIB, b'{"a":0},', b'"images":[', b"]"))]),
    "log probabilities": ("chat", [frame(b'"content":"a"},"logprobs":{"content":%s' % nested(VALUES))]),
    "too many log probabilities": ("chat", [frame(b'"content":"a"},"logprobs":{"content":%s' % nested(VALUES))] * 40),
    "too many values": ("chat", [frame(filled(FULL, b"[],", b'"content":[', b"]"))]),
    "too many texts": ("chat", [frame(filled(FULL, b'"",', b'"content":[', b"]"))]),
    "a sound": ("chat", [frame(SOUND)]),
    "a whole text": ("chat", whole(filled(FULL, b"a", b'"content":"', b'"'))),
    "a whole sound": ("chat", whole(SOUND)),
    "whole calls": ("chat", whole(calls(bounds.CALLS))),
    "whole log probabilities": ("chat", whole(more=b',"logprobs":{"content":%s}' % nested(WHOLE_VALUES))),
    "a raw block": ("messages", [*CLAUDE[0], *block(RESULT % nested(VALUES)), *CLAUDE[1]]),
    "too many raw blocks": (
        "messages",
        [*CLAUDE[0], *(piece for n in range(40) for piece in block(RESULT % nested(VALUES), index=n)), *CLAUDE[1]],
    ),
    "open raw blocks, too many": (
        "messages",
        [*CLAUDE[0], *(block(RESULT % nested(VALUES), index=n)[0] for n in range(40)), *CLAUDE[1]],
    ),
    "the input of a raw block, too many": (
        "messages",
        [*CLAUDE[0], *block(b'{"type":"server_tool_use","id":"c","name":"f","input":{}}', *INPUT), *CLAUDE[1]],
    ),
    "a whole raw block": ("messages", b'{"content":[%s]}' % (RESULT % nested(WHOLE_VALUES))),
    "whole blocks": (
        "messages",
        b'{"content":[%s]}' % b",".join([b'{"type":"tool_use","id":"c","name":"f","input":{}}'] * bounds.CALLS),
    ),
    "too many raw items": ("responses", [ITEM % (n, nested(VALUES)) for n in range(40)]),
    "a whole raw item": (
        "responses",
        b'{"status":"completed","output":[{"type":"new","x":%s}]}' % nested(WHOLE_VALUES),
    ),
    "a whole raw part": (
        "generate",
        b'{"candidates":[{"content":{"parts":[{"new":%s}]},"finishReason":"STOP"}]}' % nested(WHOLE_VALUES),
    ),
    "whole arguments": (
        "ollama",
        b'{"message":{"tool_calls":[{"function":{"name":"f","arguments":{"a":%s}}}]},"done":true}'
        % nested(WHOLE_VALUES),
    ),
}
ALL = {protocol.name: protocol for protocol in EVERY}


async def answered(name):
    """Ask for the heavy answer; it must be whole, unless it has too many values."""
    protocol, body = HEAVY[name]
    reply = Reply.json(body) if isinstance(body, bytes) else Reply([*body, DONE])
    with FakeServer(reply) as server:
        llm = made(ALL[protocol], server.url, stream=isinstance(body, list))
        if "too many" in name:
            with pytest.raises(ProtocolError, match="more than"):
                await llm.ainvoke("hi")
        else:
            assert (await llm.ainvoke("hi")).parts


@pytest.fixture
def turns(monkeypatch, no_old_objects):
    """The CPU seconds of each turn of this thread's event loop."""
    spent, run, thread = [], asyncio.Handle._run, threading.get_ident()

    def timed(handle):
        began = time.thread_time()
        run(handle)
        if threading.get_ident() == thread:  # not the server's
            spent.append(time.thread_time() - began)

    monkeypatch.setattr(asyncio.Handle, "_run", timed)
    return spent


@pytest.fixture
def no_old_objects():
    """Exclude the objects of earlier tests from garbage collection, which would take longer with them."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def unit():
    """The CPU seconds that this machine takes, just now, to decode 1 MiB of tool calls."""
    body = filled(MIB, b'{"index":0,"id":"c","function":{"name":"f","arguments":"{}"}},', b"[", b"]")
    spent = []
    for _ in range(3):
        began = time.thread_time()
        msgspec.json.decode(body)
        spent.append(time.thread_time() - began)
    return min(spent)


def patience(seconds, units):
    """The CPU seconds that a test allows: more on a slow machine, twice as many with coverage."""
    return max(seconds, units * unit()) * (2 if "coverage" in sys.modules else 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", HEAVY)
async def test_no_answer_holds_up_the_event_loop(turns, name):
    """A turn takes about 100 ms; the bound leaves room for slow machines, and a busy one gets three tries."""
    for _ in range(3):
        turns.clear()
        await answered(name)
        limit = patience(0.15, 18)
        if max(turns) < limit:
            return
    pytest.fail(f"a turn of the loop took {max(turns):.3f} s of CPU, more than {limit:.3f} s")


@pytest.mark.slow
@pytest.mark.parametrize("name", HEAVY)
async def test_no_answer_takes_much_memory(name):
    """At most 150 MB."""
    tracemalloc.start()
    try:
        await answered(name)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 150e6


LONG = {
    "arguments": ("chat", HEAVY["arguments that are JSON"][1][0]),
    "log probabilities": ("chat", HEAVY["log probabilities"][1][0]),
    "raw blocks": ("messages", b"".join(block(RESULT % nested(VALUES)))),
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("way", ["time limit", "cancellation"])
@pytest.mark.usefixtures("no_old_objects")
async def test_a_time_limit_and_a_cancellation_hold_between_long_frames(name, way):
    """A stream of long frames without end is left soon, and its request is closed."""
    protocol, piece = LONG[name]
    heard = asyncio.Event()
    with FakeServer(Reply([Endless(piece)])) as server:
        llm = made(ALL[protocol], server.url)

        async def read():
            async for _ in llm.astream("hi"):
                heard.set()

        reading = asyncio.ensure_future(read())
        await heard.wait()
        left = time.thread_time()
        if way == "cancellation":
            reading.cancel()
        else:
            # Before the bound on an answer's values, which six frames reach: in 50 ms on a fast machine.
            reading = asyncio.ensure_future(asyncio.wait_for(reading, 0.01))
        with pytest.raises((TimeoutError, asyncio.CancelledError)):
            await reading
        await asyncio.to_thread(server.exchange(0).wait_closed)
        assert time.thread_time() - left < patience(0.75, 60)


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
    """Not the marks within texts; an object or a list counts as several."""
    count = 100_000
    document = b"[" + b",".join([value] * count) + b"]"
    marks = count - 1 + CONTAINER * (1 + count * (value[:1] in b"[{"))
    check_weight(document, marks)
    with pytest.raises(ProtocolError, match="raise event_limit"):
        check_weight(document, marks - 1)


@pytest.mark.parametrize("above", [False, True])
def test_values_of_an_event_are_bounded(above):
    """By its limit in bytes, which raises both."""
    count = bounds.EVENT_BYTES // bounds.EVENT_BYTES_PER_VALUE - CONTAINER + 1 + above
    values = b"[" + b",".join([b"0"] * count) + b"]"
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
    count = bounds.EVENT_BYTES // bounds.EVENT_BYTES_PER_VALUE - CONTAINER + 1 + above
    values = b"[" + b",".join([b"0"] * count) + b"]"
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
    count = bounds.DOCUMENT_BYTES // bounds.DOCUMENT_BYTES_PER_VALUE - 6 * CONTAINER + above
    body = b'{"choices":[{"message":{"content":"a"},"logprobs":{"content":[%s]}}]}' % b",".join([b"0"] * count)
    with FakeServer(Reply.json(body)) as server:
        llm = OpenAI("m", base_url=server.url, max_retries=0, stream=False)
        if above:
            with pytest.raises(ProtocolError, match=r"more than 262,144 values"):
                llm.invoke("hi")
            llm = OpenAI("m", base_url=server.url, stream=False, event_limit=32 * MIB)
        assert count == len(llm.invoke("hi").logprobs["content"])


def heavy_event(protocol):
    """An event of this protocol, and a number that it counts as beside its text, about."""
    values = b"[%s]" % b",".join([b"0"] * 193)
    if protocol.name == "converse":
        start = {"contentBlockIndex": 0, "start": {"toolResult": {"toolUseId": "t", "x": [0] * 193}}}
        return aws_event("contentBlockStart", start)
    return {
        "chat": b'data: {"choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":%s}}]}\n\n',
        "completions": b'data: {"choices":[{"index":0,"text":"a","logprobs":{"tokens":%s}}]}\n\n',
        "messages": b"".join(block(RESULT)),
        "responses": b'data: {"type":"response.output_text.delta","delta":"a","logprobs":%s}\n\n',
        "generate": b'data: {"candidates":[{"content":{"parts":[{"text":"a"}]},"logprobsResult":{"a":%s}}]}\n\n',
        "ollama": b'{"message":{"content":"a"},"logprobs":%s,"done":false}\n',
        "cohere": b'data: {"type":"content-delta","delta":{"message":{"content":{"text":"a"}}},"logprobs":%s}\n\n',
    }[protocol.name] % values


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("protocol", EVERY, ids=lambda protocol: protocol.name)
def test_values_beside_the_text_are_bounded(protocol, times, monkeypatch):
    """A larger event_limit raises the number in proportion, as the error says."""
    monkeypatch.setattr("rxllm.providers._limits.ANSWER_VALUES", 1000)
    first, *rest = protocol.stream(["Hi"])
    for more, is_read in ((4 * times, True), (5 * times + 1, False)):
        body = first + heavy_event(protocol) * more + b"".join(rest)
        with FakeServer(Reply(body)) as server:
            llm = made(protocol, server.url, event_limit=times * bounds.EVENT_BYTES)
            if is_read:
                assert "Hi" in llm.invoke("hi").text
            else:
                with pytest.raises(ProtocolError, match=rf"more than {1000 * times:,} values.*raise event_limit"):
                    llm.invoke("hi")


ASKED = {
    "chat": {"logprobs": True, "top_logprobs": 20},
    "completions": {"logprobs": 5},
    "responses": {"include": ["message.output_text.logprobs"]},
    "generate": {"generationConfig": {"responseLogprobs": True}},
    "ollama": {"logprobs": True},
    "cohere": {"logprobs": True},
}


@pytest.mark.parametrize("name", ASKED)
def test_log_probabilities_that_were_asked_for_end_with_the_text(name, monkeypatch):
    """They do not end a long answer."""
    monkeypatch.setattr("rxllm.providers._limits.ANSWER_VALUES", 1000)
    first, *rest = ALL[name].stream(["Hi"])
    with FakeServer(Reply(first + heavy_event(ALL[name]) * 50 + b"".join(rest))) as server:
        answer = made(ALL[name], server.url).invoke("hi", extra=ASKED[name])
    assert "Hi" in answer.text
    assert 50 * 193 == sum(map(len, answer.logprobs.values())) or 50 == len(answer.logprobs["content"])


@pytest.mark.parametrize("protocol", ["chat", "messages", "converse"])
def test_what_grows_over_many_events_is_bounded(protocol, monkeypatch):
    """Audio and raw blocks, by event_limit if it is larger."""
    monkeypatch.setattr("rxllm.providers._limits.EVENT_BYTES", 2**14)
    piece = b"QUJD" * 1000
    sound = frame(b'"audio":{"data":"%s"}' % piece)
    grown = b'{"type":"text_delta","text":"%s"}' % piece
    tool = {"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "t", "name": "f", "type": "server_tool_use"}}}
    pieces = {"contentBlockIndex": 0, "delta": {"toolUse": {"input": piece.decode()}}}
    body = {
        "chat": [sound] * 6 + [DONE],
        "messages": [*CLAUDE[0], *block(b'{"type":"new","text":""}', *[grown] * 6), *CLAUDE[1]],
        "converse": [
            aws_event("contentBlockStart", tool),
            *[aws_event("contentBlockDelta", pieces)] * 6,
            aws_event("contentBlockStop", {"contentBlockIndex": 0}),
            aws_event("messageStop", {"stopReason": "end_turn"}),
        ],
    }[protocol]
    with FakeServer(Reply(b"".join(body)), Reply(b"".join(body))) as server:
        with pytest.raises(ProtocolError, match=r"larger than 16,385 bytes.*raise event_limit"):
            made(ALL[protocol], server.url, event_limit=2**14 + 1).invoke("hi")
        assert made(ALL[protocol], server.url, event_limit=2**15).invoke("hi").parts


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


def test_objects_of_one_frame_are_separated_in_linear_time():
    """A frame of 1 MiB may have half a million objects."""
    from rxllm.providers._mending import separated

    def spent(count):
        began = time.thread_time()
        assert count == len(separated(b"{} " * count))
        return time.thread_time() - began

    small = min(spent(10_000) for _ in range(3))
    assert min(spent(40_000) for _ in range(3)) < 8 * small


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
