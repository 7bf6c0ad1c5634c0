"""rxllm's messages and parts as LangChain's, and back."""

import pickle

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    message_chunk_to_message,
    messages_from_dict,
    messages_to_dict,
)
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.outputs import ChatGenerationChunk

from rxllm import (
    Chunk,
    FilePart,
    Message,
    MisuseError,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from rxllm.adapters.langchain.answers import message_of
from rxllm.adapters.langchain.generations import ChatWriter
from rxllm.adapters.langchain.history import langchain_messages
from rxllm.adapters.langchain.messages import answer_of, messages_of, prompt_of
from rxllm.errors import Interrupted

CITED = TextPart("It rains.", [{"type": "url_citation", "url": "https://example.com", "title": "Rain"}])
THOUGHT = ReasoningPart("Let me see.", "sig", id="rs_1", provider="openai", extra={"summary": 2})
CALL = ToolCallPart("c1", "weather", '{"city":"Rome"}')
SIGNED_CALL = ToolCallPart("c2", "weather", '{"city":"Oslo"}', 1, "thought-signature", "gemini")
PICTURE = FilePart("image/png", b"\x89PNG", name="a.png", detail="low")
PARTS = {
    "text": [TextPart("Hello")],
    "cited": [CITED],
    "signed text": [TextPart("Hello", signature="sig", provider="gemini", extra={"a": [1]})],
    "call": [TextPart("I look."), CALL],
    "calls": [CALL, ToolCallPart("c3", "now", "{}", 1)],
    "signed call": [TextPart("I look."), SIGNED_CALL],
    "reasoning": [THOUGHT, TextPart("Hello")],
    "reasoning, text and calls": [THOUGHT, TextPart("I look."), CALL, SIGNED_CALL],
    "two thoughts": [
        ReasoningPart("a", "s", 0, provider="anthropic"),
        ReasoningPart("b", "t", 1, provider="anthropic"),
    ],
    "refusal": [RefusalPart("No.")],
    "picture": [TextPart("Look:"), PICTURE],
    "sound": [FilePart("audio/wav", b"RIFF", file_id="a1", provider="openai")],
    "raw": [RawPart("anthropic", {"type": "redacted_thinking", "data": "x"}), TextPart("Hello")],
}


def comparable(parts):
    """The parts without the positions that a provider gave them, which LangChain does not keep."""
    records = [dict(Message("assistant", [part]).to_json()["parts"][0]) for part in parts]
    for record in records:
        record.pop("index", None)
    return records


def streamed(parts, **facts):
    """Return the message that a program joins from LangChain's chunks for a stream of these parts, cut to pieces."""
    writer, in_blocks = ChatWriter(**facts), facts.get("in_blocks", False)
    generations = []
    for part in parts:
        for piece in pieces(part):
            generations += writer.write(Chunk(parts=[piece]))
    generations += writer.write(Chunk(finish_reason="stop", model="m", usage=Usage(input_tokens=3, output_tokens=5)))
    generations += writer.end()
    first, *others = [generation.message for generation in generations]
    assert not in_blocks or all(isinstance(each.content, list) for each in [first, *others] if each.content)
    assert "last" == (others[-1] if others else first).chunk_position
    return message_chunk_to_message(add_ai_message_chunks(first, *others))


def pieces(part):
    """Return the fragments in which a provider streams a part."""
    if isinstance(part, TextPart) and not (part.signature or part.citations):
        return [TextPart(letter) for letter in part.text]
    if isinstance(part, ReasoningPart):
        first = [ReasoningPart(part.text[:1], id=part.id, index=part.index, provider=part.provider)]
        rest = ReasoningPart(part.text[1:], index=part.index, provider=part.provider) if part.text[1:] else None
        last = ReasoningPart("", part.signature, part.index, provider=part.provider, extra=part.extra)
        return [*first, *([rest] if rest else []), last]
    if isinstance(part, ToolCallPart):
        facts = {"signature": part.signature, "provider": part.provider}
        first = ToolCallPart(part.id, part.name, part.arguments[:4], part.index, **facts)
        return [first, ToolCallPart("", part.name, part.arguments[4:], part.index)]
    return [part]


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_whole_answer_comes_back_as_it_was(parts):
    """LangChain keeps every part, also through its own JSON form."""
    answer = Message("assistant", parts, usage=Usage(input_tokens=3, output_tokens=5), finish_reason="stop", model="m")
    message = message_of(answer)
    [stored] = messages_from_dict(messages_to_dict([message]))
    for each in message, stored:
        again = answer_of(each)
        assert comparable(parts) == comparable(again.parts)
        assert (answer.usage, "m") == (again.usage, again.model)


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("in_blocks", [False, True], ids=["text", "v1"])
def test_streamed_answer_comes_back_as_it_was(parts, in_blocks):
    """LangChain joins the fragments by their index, and no fact comes twice."""
    again = answer_of(streamed(parts, in_blocks=in_blocks))
    assert comparable(parts) == comparable(again.parts)
    assert Usage(input_tokens=3, output_tokens=5) == again.usage


@pytest.mark.parametrize(
    "make", [lambda parts: message_of(Message("assistant", parts)), streamed], ids=["whole", "stream"]
)
def test_content_of_text_and_calls_is_text(make):
    """Every program of LangChain can read it; only other parts make blocks, which the metadata declare."""
    plain, mixed = make(PARTS["call"]), make(PARTS["reasoning, text and calls"])
    assert ("I look.", None) == (plain.content, plain.response_metadata.get("output_version"))
    assert [{"name": "weather", "args": {"city": "Rome"}, "id": "c1", "type": "tool_call"}] == plain.tool_calls
    assert ["reasoning", "text", "tool_call", "tool_call"] == [block["type"] for block in mixed.content]
    assert mixed.content_blocks == mixed.content
    assert "v1" == mixed.response_metadata["output_version"]
    assert ["c1", "c2"] == [call["id"] for call in mixed.tool_calls]


def test_text_before_other_parts_stays_text():
    """The first texts have reached LangChain already, so the content is a list of both."""
    message = streamed([TextPart("Look:"), PICTURE, TextPart("Nice.")])
    assert ("Look:", ["image", "text"]) == (message.content[0], [block["type"] for block in message.content[1:]])
    assert "Look:Nice." == message.text


def test_arguments_that_are_not_an_object_are_an_invalid_call():
    """LangChain has a place for them, so that the program can tell the model."""
    parts = [ToolCallPart("c1", "weather", '{"city": "Ro')]
    message = message_of(Message("assistant", parts))
    [call] = message.invalid_tool_calls
    assert ([], "c1", '{"city": "Ro') == (message.tool_calls, call["id"], call["args"])
    assert comparable(parts) == comparable(answer_of(message).parts)


def test_usage_and_finish_reason_have_the_names_of_langchain():
    """Input tokens include those of a cache there, too."""
    counts = {"input_tokens": 10, "output_tokens": 7, "cache_read_input_tokens": 4, "reasoning_output_tokens": 2}
    answer = Message("assistant", "Hi", usage=Usage(**counts), finish_reason="tool_call", raw_finish_reason="tool_use")
    message = message_of(answer, model="claude")
    assert {
        "input_tokens": 10,
        "output_tokens": 7,
        "total_tokens": 17,
        "input_token_details": {"cache_read": 4},
        "output_token_details": {"reasoning": 2},
    } == message.usage_metadata
    assert {"finish_reason": "tool_use", "model_name": "claude"} == message.response_metadata
    assert ("tool_call", "tool_use") == (answer_of(message).finish_reason, answer_of(message).raw_finish_reason)
    assert None is message_of(Message("assistant", "Hi")).usage_metadata


def test_chunk_of_text_is_as_langchain_makes_it():
    """It is made without validation, and shares nothing with other chunks."""
    writer = ChatWriter()
    [one], [other] = writer.write(Chunk("a")), writer.write(Chunk("b"))
    made = ChatGenerationChunk(message=AIMessageChunk(content="a"))
    for ours, theirs in (one, made), (one.message, made.message):
        assert (vars(theirs), theirs.model_fields_set) == (vars(ours), ours.model_fields_set)
        assert theirs.__getstate__() == ours.__getstate__()
    values = [each for each in vars(one.message).values() if isinstance(each, (dict, list))]
    assert 5 == len(values)
    assert not any(value is shared for value in values for shared in vars(other.message).values())
    assert one.message.__pydantic_extra__ is not other.message.__pydantic_extra__
    assert one == pickle.loads(pickle.dumps(one))  # noqa: S301  (it is ours)


def test_usage_is_on_the_last_chunk_only():
    """LangChain adds up what the chunks report, and rxllm's counts are running totals."""
    writer = ChatWriter()
    for count in 1, 2, 3:
        [generation] = writer.write(Chunk("x", usage=Usage(input_tokens=9, output_tokens=count), model="m"))
        assert None is generation.message.usage_metadata
        assert {} == generation.message.response_metadata
    [last] = writer.end()
    assert (9, 3) == (last.message.usage_metadata["input_tokens"], last.message.usage_metadata["output_tokens"])
    assert {"model_name": "m"} == last.message.response_metadata


def test_restart_after_the_first_content_fails():
    """LangChain cannot take text back. Before any content a restart changes nothing."""
    writer = ChatWriter()
    assert [] == [*writer.write(Chunk(reset=True))]
    assert ["a"] == [generation.text for generation in writer.write(Chunk("a"))]
    with pytest.raises(Interrupted, match="cannot take text back"):
        writer.write(Chunk(reset=True))


def test_calls_that_an_agent_ran_are_blocks_of_the_server():
    """LangChain must not run them again. The calls of its own tools are calls."""
    result = ToolResultPart("c1", "Rain.", name="weather")
    parts = [TextPart("I look."), CALL, result, TextPart("It rains."), ToolCallPart("c9", "publish", "{}")]
    for message in (
        message_of(Message("assistant", parts), own_tools={"publish"}),
        streamed(parts, own_tools={"publish"}),
    ):
        assert ["publish"] == [call["name"] for call in message.tool_calls]
        kinds = [block["type"] if isinstance(block, dict) else "str" for block in message.content]
        assert {"server_tool_result"} < set(kinds)
        assert "I look.It rains." == message.text
        assert comparable(parts) == comparable(answer_of(message).parts)
    failed = ToolResultPart("c1", [TextPart("x"), PICTURE], "denied")
    [block] = message_of(Message("assistant", [failed])).content
    assert ("error", ["text", "image"]) == (block["status"], [each["type"] for each in block["output"]])
    assert comparable([failed]) == comparable(answer_of(message_of(Message("assistant", [failed]))).parts)


def test_conversation_of_langchain_becomes_messages():
    """Each kind of message has its role, and results know their call, their tool and their outcome."""
    messages = messages_of(
        [
            SystemMessage("Be brief."),
            ChatMessage("Be kind.", role="developer"),
            HumanMessage("Weather?", name="ada"),
            AIMessage("I look.", tool_calls=[{"name": "weather", "args": {"city": "Rome"}, "id": "c1"}]),
            ToolMessage("No.", tool_call_id="c1", name="weather", status="error"),
        ]
    )
    assert [
        Message("system", "Be brief."),
        Message("system", "Be kind."),
        Message("user", "Weather?", name="ada"),
        Message("assistant", [TextPart("I look."), CALL], finish_reason="tool_call"),
        Message("tool", [ToolResultPart("c1", "No.", "error", "weather")]),
    ] == messages
    assert "Hi" == prompt_of([HumanMessage("Hi")])
    assert [Message("user", "Hi", name="ada")] == prompt_of([HumanMessage("Hi", name="ada")])
    with pytest.raises(MisuseError, match="no counterpart"):
        messages_of([RemoveMessage("1")])


CONTENT = {
    "text": ("Hi", [TextPart("Hi")]),
    "strings": (["Hi", {"type": "text", "text": "you"}], [TextPart("Hi"), TextPart("you")]),
    "standard image": (
        {"type": "image", "base64": "iVBORw==", "mime_type": "image/png", "extras": {"detail": "low"}},
        [FilePart("image/png", b"\x89PNG", detail="low")],
    ),
    "image by URL": ({"type": "image", "url": "https://e.com/a.png"}, [FilePart("image/*", url="https://e.com/a.png")]),
    "OpenAI's image": (
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
        [FilePart("image/png", b"\x89PNG")],
    ),
    "Anthropic's image": (
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}},
        [FilePart("image/png", b"\x89PNG")],
    ),
    "standard file": (
        {"type": "file", "base64": "iVBORw==", "mime_type": "application/pdf", "filename": "a.pdf"},
        [FilePart("application/pdf", b"\x89PNG", name="a.pdf")],
    ),
    "stored file": ({"type": "file", "file_id": "f1"}, [FilePart("application/pdf", file_id="f1", provider="openai")]),
    "sound": ({"type": "audio", "base64": "UklGRg==", "mime_type": "audio/wav"}, [FilePart("audio/wav", b"RIFF")]),
    "plain text": ({"type": "text-plain", "text": "x", "title": "t"}, [FilePart("text/plain", b"x", title="t")]),
}


@pytest.mark.parametrize(("content", "parts"), CONTENT.values(), ids=CONTENT)
def test_content_in_every_form_becomes_parts(content, parts):
    """LangChain's standard blocks, and the forms of OpenAI and Anthropic."""
    content = [content] if isinstance(content, dict) else content
    [message] = messages_of([HumanMessage(content)], provider="openai")
    assert tuple(parts) == message.parts


def test_mark_for_the_cache_is_kept():
    """In a block of LangChain, and in one of Anthropic."""
    block = {"type": "text", "text": "Long.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    [message] = messages_of([SystemMessage([block])])
    assert ["text", "cache_point"] == [part["type"] for part in message.to_json()["parts"]]
    [again] = langchain_messages([message], "anthropic")
    assert [block] == again.content


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"type": "hologram"}, "content of type 'hologram'"),
        ({"type": "text", "text": "x", "colour": "red"}, "'colour'"),
        ({"type": "image", "mime_type": "image/png"}, "needs a 'base64'"),
        ({"type": "image", "url": "https://e.com/a.png", "extras": {"colour": "red"}}, "'colour'"),
    ],
)
def test_block_that_no_part_can_carry_is_refused(block, words):
    """Nothing of what a user writes is lost in silence."""
    with pytest.raises(MisuseError, match=words):
        messages_of([HumanMessage([block])])


def test_answer_of_another_package_is_read_by_its_own_translator():
    """The content of langchain-anthropic and of langchain-openai becomes reasoning, texts and calls."""
    call = {"name": "weather", "args": {"city": "Rome"}, "id": "c1"}
    claude = AIMessage(
        [
            {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}},
        ],
        tool_calls=[call],
        response_metadata={"model_provider": "anthropic", "stop_reason": "tool_use", "id": "msg_1"},
    )
    answer = answer_of(claude)
    assert (ReasoningPart("Hm.", "sig", provider="anthropic"), TextPart("I look."), CALL) == answer.parts
    assert ("anthropic", "anthropic") == (answer.provider, answer.parts[0].provider)
    assert ("tool_call", "tool_use", "msg_1") == (answer.finish_reason, answer.raw_finish_reason, answer.id)
    deepseek = AIMessage("Yes.", additional_kwargs={"reasoning_content": "Hm.", "refusal": "No."})
    assert (ReasoningPart("Hm."), TextPart("Yes."), RefusalPart("No.")) == answer_of(deepseek).parts


def test_history_for_a_vendor_leaves_out_what_another_one_made():
    """Its own reasoning goes back with its signature; foreign reasoning, signatures and raw parts do not."""
    raw = RawPart("openai", {"type": "web_search_call"})
    answer = Message("assistant", [THOUGHT, raw, TextPart("Hi", signature="s", provider="openai"), CALL])
    [own] = langchain_messages([answer], "openai")
    assert ["reasoning", "non_standard", "text", "tool_call"] == [block["type"] for block in own.content]
    assert {"output_version": "v1", "model_provider": "openai"} == own.response_metadata
    [foreign] = langchain_messages([answer], "anthropic")
    assert ("Hi", ["c1"]) == (foreign.content, [call["id"] for call in foreign.tool_calls])


def test_every_result_is_a_message_of_its_own():
    """Rxllm joins the results of a round in one message, LangChain does not."""
    results = [ToolResultPart("c1", "a", "error", "x"), ToolResultPart("c2", [TextPart("b"), PICTURE])]
    first, second = langchain_messages([Message("tool", results)], None)
    assert ("a", "c1", "x", "error") == (first.content, first.tool_call_id, first.name, first.status)
    assert (["text", "image"], "success") == ([block["type"] for block in second.content], second.status)
