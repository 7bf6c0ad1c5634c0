"""An answer goes back into a conversation unharmed, and a conversation moves between vendors by stated rules.

The rules are those of `docs/providers/switch-vendors.md`; the servers of `vendors` refuse what the real ones refuse.
"""

import base64
import itertools

import attrs
import pytest
from vendors import VENDORS

from rxllm import (
    FilePart,
    Message,
    MisuseError,
    RawPart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    ToolSpec,
)
from rxllm.errors import BadRequest
from rxllm.testing import FakeServer

TOOLS = [ToolSpec("weather", "The weather", {"type": "object", "properties": {"city": {"type": "string"}}})]
IMAGE = FilePart("image/png", b"\x89PNG round trip")
ENCODED = base64.b64encode(b"\x89PNG round trip").decode()


def name_of(vendor):
    """The id of a parametrised test."""
    return vendor.name


@pytest.fixture(params=VENDORS, ids=name_of)
def vendor(request):
    """Each vendor in turn."""
    return request.param


def create_model(vendor, server, **settings):
    """The vendor's provider, with a tool."""
    return vendor.create_model(server.url, api_key="sk-test", max_retries=0, tools=TOOLS, **settings)


def results(answer):
    """A result for each call of an answer, in order."""
    return Message("tool", [ToolResultPart(call.id, f"Wet in {call.arguments}") for call in answer.tool_calls])


def rounds(llm, history, *, ask, **parameters):
    """The history after a question, its calls, their results and the answer."""
    history = [*history, ask]
    first = llm.invoke(history, **parameters)
    assert ["weather", "weather"] == [call.name for call in first.tool_calls]
    history += [first, results(first)]
    return [*history, llm.invoke(history, **parameters)]


@pytest.mark.parametrize("stream", [True, False])
def test_conversation_goes_back_to_its_vendor(vendor, stream):
    """Reasoning, signatures, two parallel calls and their results come back as they were, over several turns."""
    with FakeServer(vendor.answer) as server:
        llm = create_model(vendor, server, stream=stream)
        history = rounds(llm, [("system", "Be brief.")], ask=Message("user", ["How wet is it?", IMAGE]))
        assert history[-1].text.endswith(": wet.")
        last = llm.invoke([*history, ("user", "Thanks.")])
        assert last.text.endswith(": bye.")
        assert ENCODED in server.requests[-1].body.decode()


def test_stored_conversation_goes_back_to_its_vendor(vendor):
    """Nothing that the vendor wants is lost in the JSON form."""
    with FakeServer(vendor.answer) as server:
        llm = create_model(vendor, server)
        history = rounds(llm, [], ask=Message("user", "How wet is it?"))
        stored = [Message.from_json(message.to_json()) for message in history]
        assert llm.invoke([*stored, ("user", "Thanks.")]).text.endswith(": bye.")


@pytest.mark.parametrize(("first", "second"), [*itertools.permutations(VENDORS, 2)], ids=name_of)
def test_conversation_moves_between_vendors(first, second):
    """To another vendor and back: texts, an image, calls and results move; the first gets its own facts back."""
    with FakeServer(first.answer) as one, FakeServer(second.answer) as other:
        here, there = create_model(first, one), create_model(second, other)
        history = rounds(here, [("system", "Be brief.")], ask=Message("user", ["How wet is it?", IMAGE]))
        history = rounds(there, history, ask=Message("user", "Ask again."))
        assert ENCODED in other.requests[-1].body.decode()
        assert here.invoke([*history, ("user", "Thanks.")]).text.endswith(": bye.")
        sent = other.requests[-1].body.decode()
        assert all(result.text in sent.replace('\\"', '"') for result in history[3].parts)


def spoiled(history, change):
    """The history whose answers and results are changed part by part; None leaves a part out."""
    return [
        attrs.evolve(m, parts=[new for part in m.parts if (new := change(part)) is not None])
        if isinstance(m, Message)
        else m
        for m in history
    ]


def without_reasoning(part):
    """No thoughts, and no signatures of calls."""
    if isinstance(part, (ReasoningPart, RawPart)):
        return None
    return attrs.evolve(part, signature=None, extra=None) if isinstance(part, ToolCallPart) else part


def with_other_ids(part):
    """Results of calls that nobody made."""
    return attrs.evolve(part, id="other") if isinstance(part, ToolResultPart) else part


def with_one_result(part):
    """The second call has no result."""
    return None if isinstance(part, ToolResultPart) and "Rome" in part.text else part


@pytest.mark.parametrize("change", [without_reasoning, with_other_ids, with_one_result])
def test_servers_refuse_a_wrong_history(vendor, change):
    """Else the tests above would prove nothing."""
    if change is without_reasoning and not vendor.wants_reasoning:
        pytest.skip("this vendor takes a call without the thoughts before it")
    with FakeServer(vendor.answer) as server:
        llm = create_model(vendor, server)
        history = rounds(llm, [], ask=Message("user", "How wet is it?"))
        with pytest.raises((BadRequest, MisuseError)):
            llm.invoke([*spoiled(history, change), ("user", "Thanks.")])


FOREIGN = [
    ReasoningPart("Someone thinks.", signature="sig", provider="someone"),
    RawPart("someone", {"type": "web_search_call", "id": "ws_1"}),
    TextPart("It is wet.", [{"type": "from_elsewhere"}], signature="sig", provider="someone"),
    ToolCallPart(
        "not/allowed everywhere " + "x" * 80, "weather", '{"city":"Oslo"}', signature="sig", provider="someone"
    ),
]


def test_what_a_stranger_made_is_dropped_or_renamed(vendor):
    """Reasoning, server tools, signatures and citations are left out; ids that the vendor refuses are replaced."""
    with FakeServer(vendor.answer) as server:
        answer = Message("assistant", FOREIGN, provider="someone")
        assert (
            create_model(vendor, server)
            .invoke([("user", "hi"), answer, results(answer), ("user", "Go on.")])
            .tool_calls
        )
        sent = server.requests[0].body.decode()
        assert [] == [word for word in ("Someone thinks", "ws_1", "from_elsewhere", '"sig"') if word in sent]
        assert all(word in sent for word in ("It is wet.", "Oslo"))


def test_sound_of_an_answer_is_refused(vendor):
    """It can't move: before anything is sent, a sentence names what it is."""
    with FakeServer(vendor.answer) as server:
        spoken = Message("assistant", [TextPart("Hi"), FilePart("audio/wav", b"RIFF")])
        if vendor.name == "gemini":
            pytest.skip("Gemini takes sound in its own turns")
        with pytest.raises(MisuseError, match=r"audio|FilePart"):
            create_model(vendor, server).invoke([("user", "hi"), spoken, ("user", "Go on.")])
        assert [] == server.requests


def test_file_that_another_vendor_keeps_is_refused(vendor):
    """Its id says nothing here."""
    with FakeServer(vendor.answer) as server:
        kept = FilePart("image/png", file_id="file-1", provider="someone")
        with pytest.raises(MisuseError):
            create_model(vendor, server).invoke([Message("user", ["Look", kept])])
        assert [] == server.requests


STRICT = [each for each in VENDORS if each.name in ("messages", "converse", "chat", "mistral")]


@pytest.mark.parametrize("vendor", STRICT, ids=name_of)
@pytest.mark.parametrize("blank", ["", " ", "\n\n", "\u00a0"])
def test_blank_texts_are_not_sent_where_they_are_refused(vendor, blank):
    """Claude refuses them in every message; Mistral and others refuse an answer without content."""
    llm = vendor.create_model("http://127.0.0.1:1", api_key="k", tools=TOOLS)
    asked = [Message("user", [TextPart(blank), TextPart("hi")]), Message("assistant", ""), Message("user", "go")]
    if vendor.name in ("messages", "converse"):
        asked = [Message("system", blank), *asked[:1], Message("assistant", blank), *asked[2:]]
    texts = [*texts_in(llm.preview(asked).json)]
    assert ["hi", "go"] == [text for text in texts if text.strip()]
    if vendor.name in ("messages", "converse"):
        assert ["hi", "go"] == texts
        assert "Sure:" == [*texts_in(llm.preview([("user", "hi"), ("assistant", f"Sure:{blank}")]).json)][-1]
    else:
        assert "assistant" not in [message["role"] for message in llm.preview(asked).json["messages"]]


def texts_in(value):
    """Yield the texts of messages, in their order."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name in ("text", "content", "system") and isinstance(item, str):
                yield item
            elif name in ("messages", "content", "system"):
                yield from texts_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item)
