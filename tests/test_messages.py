"""The values: conversion of prompts and content to messages, validation of parameters, and the sum of chunks."""

import copy
import gc
import pickle
import time

import attrs
import pytest

from rxllm import MisuseError
from rxllm.values.chunk import Chunk, changed, join, text_chunk, with_parts
from rxllm.values.message import Message
from rxllm.values.parameters import Parameters
from rxllm.values.parts import FilePart, RawPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart, ToolResultPart
from rxllm.values.request import Request
from rxllm.values.usage import Usage

PIXEL = "data:image/png;base64,iVBORw=="
PARTS = (
    TextPart("a"),
    ReasoningPart("b", "s", 1),
    RefusalPart("c"),
    ToolCallPart("1", "f", "{}"),
    ToolResultPart("1", "d"),
    FilePart("image/png", b"e"),
    RawPart("anthropic", {"type": "redacted", "data": [1, {"x": 2}]}),
)
VALUES = (*PARTS, Usage(input_tokens=1), Message("user", PARTS), Chunk("a", parts=PARTS, model="m"), Chunk("a"))


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("hi", (TextPart("hi"),)),
        ("", ()),
        (None, ()),
        ([], ()),
        (TextPart("hi"), (TextPart("hi"),)),
        (["a", TextPart("b")], (TextPart("a"), TextPart("b"))),
        ({"type": "text", "text": "hi"}, (TextPart("hi"),)),
        ([{"type": "input_text", "text": "hi"}], (TextPart("hi"),)),
        (
            [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": "https://x/y.png"}}],
            (TextPart("what is it?"), FilePart("image/*", url="https://x/y.png")),
        ),
        (
            [{"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}],
            (FilePart("image/png", b"\x89PNG", detail="low"),),
        ),
        ([{"type": "image_url", "image_url": PIXEL}], (FilePart("image/png", b"\x89PNG"),)),
        ((text for text in "ab"), (TextPart("a"), TextPart("b"))),
    ],
)
def test_content_becomes_parts(content, expected):
    """A Message accepts text, parts and content dicts as its content."""
    assert expected == Message("user", content).parts


def test_message_properties_join_the_parts_of_one_kind():
    """A message has a property for each kind of part; ``str`` gives the text alone."""
    message = Message("assistant", [*PARTS, TextPart("z")])
    assert ("az", "b", "c", (PARTS[3],)) == (message.text, message.reasoning, message.refusal, message.tool_calls)
    assert "az" == str(message)


def test_chunk_properties_join_the_parts_of_one_kind():
    """A chunk has the same properties. They are empty for a chunk of plain text."""
    chunk = Chunk("z", parts=PARTS)
    assert ("za", "b", "c", (PARTS[3],)) == (chunk.text, chunk.reasoning, chunk.refusal, chunk.tool_calls)
    plain = Chunk("z")
    facts = (plain.usage, plain.finish_reason, plain.raw_finish_reason, plain.model, plain.id)
    assert ("z", "", "", (), {None}, False) == (
        str(plain),
        plain.reasoning,
        plain.refusal,
        plain.tool_calls,
        set(facts),
        plain.reset,
    )
    assert (TextPart("z"),) == plain.parts
    assert () == Chunk().parts


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        (Chunk(), False),
        (Chunk(""), False),
        (Chunk(parts=[TextPart("")]), False),
        (Chunk("a"), True),
        (Chunk(usage=Usage()), True),
        (Chunk(reset=True), True),
        (Chunk(parts=[ToolCallPart("1")]), True),
    ],
)
def test_only_the_empty_chunk_is_false(chunk, expected):
    """A chunk with any content or attribute is true."""
    assert expected is bool(chunk)


def test_text_chunk_equals_constructed_chunk():
    """The fast constructor returns a chunk that equals the constructor's, with an equal hash."""
    assert (Chunk("a"), hash(Chunk("a"))) == (text_chunk("a"), hash(text_chunk("a")))
    assert Chunk("a") == Chunk(parts=[TextPart("a")])
    assert Chunk(id="1") == Chunk(parts=[TextPart("")], id="1")


def test_copy_with_other_facts_or_parts_keeps_the_provider():
    """Also where the provider is the only fact that remains."""
    assert "p" == changed(Chunk("a", model="m", provider="p"), model=None).provider
    assert "p" == with_parts(Chunk(parts=[RefusalPart("a")], provider="p"), [TextPart("b")]).provider


def test_answer_survives_conversion_to_chunk_and_back():
    """``Chunk.of`` accepts text, a Message or a Chunk, and keeps every attribute."""
    answer = Message("assistant", "hi", Usage(input_tokens=1), "stop", "end_turn", "m", "1")
    assert answer == Chunk.of(answer).message()
    assert Chunk("hi") == Chunk.of("hi")
    chunk = Chunk("hi", model="m")
    assert chunk is Chunk.of(chunk)


@pytest.mark.parametrize("wrong", [None, 5, b"hi", ["hi"], {"content": "hi"}])
def test_chunk_of_raises_misuse_error_for_other_types(wrong):
    """``Chunk.of`` converts no other type."""
    with pytest.raises(MisuseError, match=f"text, a Chunk or a Message, not {type(wrong).__name__}"):
        Chunk.of(wrong)


def test_builtin_sum_adds_chunks():
    """``sum`` starts with 0, which a chunk accepts. Adding any other value raises TypeError."""
    chunks = [Chunk("Hel"), Chunk("lo", usage=Usage(output_tokens=2))]
    assert join(chunks) == sum(chunks)
    for other in 1, "a", None:
        with pytest.raises(TypeError):
            other + Chunk("a")


def test_join_adds_chunks_in_linear_time():
    """`join` takes linear time: 100,000 chunks take a few hundredths of a second, not minutes."""
    chunks = [Chunk("token ") for _ in range(100_000)]
    begun = time.process_time()
    message = join(chunks).message()
    assert time.process_time() - begun < 5
    assert 600_000 == len(message.text)


def test_join_adds_tool_call_fragments_in_linear_time():
    """The arguments of a tool call also arrive in small pieces."""
    chunks = [Chunk(parts=[ToolCallPart("1", "f")])]
    chunks += [Chunk(parts=[ToolCallPart(arguments="0123456789")]) for _ in range(30_000)]
    begun = time.process_time()
    (call,) = join(chunks).tool_calls
    assert time.process_time() - begun < 5
    assert 300_000 == len(call.arguments)


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_copies_of_a_value_are_equal(value):
    """A copied or pickled value equals the original, with an equal hash, and differs from other objects."""
    for same in copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value)):  # noqa: S301
        assert (value, hash(value)) == (same, hash(same))
    assert value != "a"


@pytest.mark.parametrize("value", [*VALUES, Request(prompt="a"), Parameters()], ids=lambda value: type(value).__name__)
def test_values_are_frozen(value):
    """Setting a field or a new attribute raises."""
    for name in (*attrs.fields_dict(type(value)), "unknown"):
        with pytest.raises((attrs.exceptions.FrozenInstanceError, AttributeError)):
            setattr(value, name, None)


def test_equal_raw_parts_have_equal_hashes():
    """The order of the keys and the types of the numbers do not change the hash."""
    one, other = RawPart("p", {"a": 1, "b": 2.0}), RawPart("p", {"b": 2, "a": True})
    assert one == other
    assert hash(one) == hash(other)


def test_evolve_changes_one_field():
    """``attrs.evolve`` returns a changed copy; it converts and validates as the constructor does."""
    message = Message("user", "hi")
    assert Message("user", "bye") == attrs.evolve(message, parts="bye")
    request = Request.ask("hi", Parameters(temperature=1))
    assert (0, "hi") == (attrs.evolve(request, temperature=0).temperature, attrs.evolve(request, temperature=0).prompt)
    with pytest.raises(MisuseError, match="temperature must be"):
        attrs.evolve(request, temperature=-1)
    with pytest.raises(MisuseError, match="role must be one of"):
        attrs.evolve(message, role="human")


def test_repr_of_file_shows_its_size_instead_of_its_bytes():
    """The repr stays short, so that logs stay small."""
    assert "FilePart('image/png', <5 bytes>)" == repr(FilePart("image/png", b"12345"))
    shown = repr(Message("user", [FilePart("image/png", b"secret")]))
    assert "secret" not in shown


def test_repr_of_chunk_shows_only_set_attributes():
    """The repr leaves out attributes without a value."""
    assert "Chunk('a')" == repr(Chunk("a"))
    assert "Chunk()" == repr(Chunk())
    assert "Chunk('a', model='m')" == repr(Chunk("a", model="m"))
    call = ToolCallPart("1", "f")
    assert f"Chunk(parts=({call!r},))" == repr(Chunk(parts=[call]))


# ── prompts ──────────────────────────────────────────────────────────────────────────────────────────────────────


USER = Message("user", "hi")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("hi", (USER,)),
        (USER, (USER,)),
        ([USER], (USER,)),
        ((USER, USER), (USER, USER)),
        ({"role": "user", "content": "hi"}, (USER,)),
        (("user", "hi"), (USER,)),
        ([("system", "be kind"), ("user", "hi")], (Message("system", "be kind"), USER)),
        ([{"role": "system", "content": "be kind"}, USER], (Message("system", "be kind"), USER)),
        ((message for message in [USER]), (USER,)),
        (
            [
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "A", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                        {"id": "B", "type": "function", "function": {"name": "g", "arguments": "[]"}},
                    ],
                },
                {"role": "tool", "tool_call_id": "A", "content": "fine"},
            ],
            (
                Message("assistant", [ToolCallPart("A", "f", "{}", 0), ToolCallPart("B", "g", "[]", 1)]),
                Message("tool", [ToolResultPart("A", "fine")]),
            ),
        ),
        (
            {"role": "tool", "tool_call_id": "A", "content": [{"type": "text", "text": "fine"}]},
            (Message("tool", [ToolResultPart("A", "fine")]),),
        ),
    ],
)
def test_prompt_becomes_messages(prompt, expected):
    """A prompt may be text, a Message, a dict, a pair, or a sequence of these."""
    assert expected == Request.ask(prompt).messages


def test_request_text_separates_messages_by_blank_lines():
    """The text of a text prompt is the prompt. The texts of several messages are separated by blank lines."""
    assert "hi" == Request.ask("hi").text
    assert "be kind\n\nhi" == Request.ask([("system", "be kind"), ("user", ""), ("user", "hi")]).text


def test_answer_is_a_message_of_the_next_prompt():
    """A program can append an answer to a conversation; the request contains the same object."""
    parts = [part for part in PARTS if not isinstance(part, ToolResultPart)]  # an agent's answer would be divided
    answer = Message("assistant", parts, Usage(input_tokens=1), "stop", "end_turn", "m", "1")
    assert answer is Request.ask([USER, answer, USER]).messages[1]


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        (None, "A prompt must be text, a Message, a list of messages or a Request, not NoneType"),
        (5, "not int: 5"),
        (b"hi", "not bytes"),
        ([], "The prompt is an empty list"),
        ((), "The prompt is an empty list"),
        (["one", "two"], "For several prompts, call llm.batch"),
        ([5], r"not int: 5\. For several prompts"),
        ([("user", "hi", "there")], "not tuple"),
        ({"content": "hi"}, r"needs a 'role' and a 'content'; this one has \['content'\]"),
        ({"role": "tool", "content": "hi"}, "needs the 'tool_call_id'"),
        (("human", "hi"), r"role must be one of system, user, assistant, tool, not 'human'\. Write 'user'"),
        (("ai", "hi"), "Write 'assistant'"),
        (("developer", "hi"), "Write 'system'"),
        ([{"role": ["user"], "content": "hi"}], "role must be one of"),
        ([{"role": "user", "content": 5}], "Content must be text, parts or content dicts, not int"),
        ([{"role": "user", "content": b"hi"}], "not bytes"),
        ([{"role": "user", "content": [{"type": "hologram"}]}], "does not know content of type 'hologram'"),
        (
            [{"role": "user", "content": [{"type": "input_audio"}]}],
            "'input_audio' of content of the type 'input_audio'",
        ),
        ([{"role": "user", "content": [{"text": "hi"}]}], "content of type None"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,§"}}]}],
            "not valid base64",
        ),
        ([{"role": "assistant", "tool_calls": [{"id": "A"}]}], "A tool call must be a dict with 'id' and 'function'"),
        (
            [{"role": "assistant", "tool_calls": [{"id": "A", "function": {"name": "f", "arguments": {"x": 1}}}]}],
            "'arguments' as JSON text",
        ),
        ([{"role": "assistant", "tool_calls": ["f()"]}], "A tool call must be a dict with"),
    ],
)
def test_invalid_prompt_raises_misuse_error(prompt, sentence):
    """The MisuseError says what is wrong and what to write instead."""
    with pytest.raises(MisuseError, match=sentence):
        Request.ask(prompt)


# ── parameters ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_request_takes_missing_parameters_from_the_model():
    """If the prompt is a Request, its own parameters win over the model's."""
    defaults = Parameters(temperature=1, max_tokens=5, extra={"a": 1, "b": 1})
    assert (1, 5, "hi") == (
        Request.ask("hi", defaults).temperature,
        Request.ask("hi", defaults).max_tokens,
        Request.ask("hi", defaults).text,
    )
    prompt = Request(prompt="hi", temperature=0, extra={"b": 2})
    request = Request.ask(prompt, defaults)
    assert (0, 5, {"a": 1, "b": 2}) == (request.temperature, request.max_tokens, request.extra)


def test_defaults_do_not_replace_zero_false_and_empty():
    """Defaults replace None only."""
    parameters = Parameters(temperature=0, top_k=0, stream=False, stop_sequences=())
    merged = parameters.over(Parameters(temperature=1, top_k=5, stream=True, stop_sequences=("x",)))
    assert parameters == merged


@pytest.mark.parametrize(("given", "expected"), [("\n", ("\n",)), (["a", "b"], ("a", "b")), (None, None)])
def test_text_is_one_stop_sequence(given, expected):
    """A text is one stop sequence, not one for each letter."""
    assert expected == Parameters(stop_sequences=given).stop_sequences


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"temperature": -0.1}, "temperature must be a number of at least 0, not -0.1"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"temperature": True}, "temperature must be a number"),
        ({"temperature": float("nan")}, "temperature must be a number"),
        ({"temperature": float("inf")}, "temperature must be a number of at least 0, not inf"),
        ({"top_p": "x" * 500}, r"not 'x{59}\.$"),
        ({"stream": "false"}, "stream must be True, False or None, not 'false'"),
        ({"stream": 0}, "stream must be True, False or None, not 0"),
        ({"model": 5}, "model must be a name such as 'gpt-5-mini', not 5"),
        ({"model": ""}, "model must be a name such as 'gpt-5-mini', not ''"),
        ({"tools": "x"}, "tools must be one or more tools, ToolSpecs or dicts that define a tool, not 'x'"),
        ({"tools": 5}, "tools must be one or more tools, ToolSpecs or dicts"),
        ({"tools": [{}, print]}, "tools must be one or more tools, ToolSpecs or dicts"),
        ({"tool_choice": 5}, "tool_choice must be 'auto', 'none', 'required' or a tool's name, not 5"),
        ({"response_format": "yaml"}, "response_format must be 'json' or a JSON schema, not 'yaml'"),
        ({"extra": 5}, "extra must be a dict of fields of the request's body, not int"),
        ({"extra": [("a", 1)]}, "extra must be a dict of fields"),
        ({"extra": {5: 1}}, "extra must be a dict of fields"),
        ({"top_p": 1.1}, "top_p must be a number from 0 to 1, not 1.1"),
        ({"top_k": 1.5}, "top_k must be a whole number"),
        ({"max_tokens": 0}, "max_tokens must be a whole number of at least 1, not 0"),
        ({"seed": "x"}, "seed must be a whole number"),
        ({"stop_sequences": ""}, "stop_sequences must be one or more non-empty texts"),
        ({"stop_sequences": ["a", 5]}, "stop_sequences must be one or more non-empty texts"),
        ({"stop_sequences": 5}, "stop_sequences must be one or more non-empty texts"),
    ],
)
def test_invalid_parameter_raises_misuse_error(given, sentence):
    """The constructor and `updated` validate the values."""
    with pytest.raises(MisuseError, match=sentence):
        Parameters(**given)
    with pytest.raises(MisuseError, match=sentence):
        Parameters().updated(given)


def test_extra_none_means_no_extra_fields():
    """``extra=None`` becomes an empty dict."""
    assert {} == Parameters(extra=None).extra


def test_seed_may_be_arbitrarily_large():
    """The validator accepts integers that no float can hold."""
    assert 10**400 == Parameters(seed=10**400).seed


def test_equal_requests_have_equal_hashes():
    """Equal requests are one key of a dict, although their fields contain dicts."""
    settings = {"tools": [{"a": []}], "tool_choice": {}, "response_format": {}, "extra": {"b": {}}}
    assert 1 == len({Request(prompt=(Message("user", PARTS),), **settings) for _ in range(2)})
    assert 1 == len({Parameters(**settings) for _ in range(2)})
    assert 2 == len({Request(prompt="a"), Request(prompt="b")})


def test_request_constructor_accepts_every_prompt():
    """The constructor converts and validates the prompt as a model does."""
    assert (Message("user", "x"),) == Request(prompt=[("user", "x")]).prompt
    assert (Message("user", "x"),) == Request(prompt=Message("user", "x")).prompt
    for prompt in 5, (), [5], None:
        with pytest.raises(MisuseError, match=r"prompt|list of messages"):
            Request(prompt=prompt)


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ({"role": "assistant", "tool_calls": 5}, "tool_calls must be a list of dicts, not 5"),
        ({"role": "assistant", "tool_calls": {"id": "c"}}, "tool_calls must be a list of dicts"),
        ({"role": "assistant", "tool_calls": [5]}, "A tool call must be a dict with 'id'"),
        ({"role": "assistant", "tool_calls": [{"id": 5, "function": {"name": "f", "arguments": ""}}]}, "A tool call"),
        ({"role": "tool", "tool_call_id": 5, "content": "x"}, "id must be text, not 5"),
        ({"role": "user", "content": 5}, "Content must be text, parts or content dicts, not int"),
        ([("user", 5)], "Content must be text"),
        (("user", 5), "Content must be text"),
        ((5, "x"), "role must be one of"),
        ([(5, "x")], "role must be one of"),
        (
            {"role": "user", "contents": "hi"},
            r"this one has \['contents', 'role'\]\. Did you mean 'content' by 'contents'\?",
        ),
        ([{"role": "user", "conent": "hi"}], "Did you mean 'content' by 'conent'"),
        ({"role": "user", "parts": ["hi"]}, r"this one has \['parts', 'role'\]\.$"),
        ({"role": "system"}, "needs a 'role' and a 'content'"),
        (
            {"role": "user", "content": None},
            r"is None\. Only an assistant's message with 'tool_calls' may have no content",
        ),
        ({"role": "user", "tool_calls": [{"id": "A"}]}, "needs a 'role' and a 'content'"),
        ({"role": "user", "content": None, "refusal": "no"}, "is None"),
        ({"role": "assistant", "content": None, "tool_calls": None, "refusal": None}, "is None"),
        ({"role": "assistant", "tool_calls": []}, "needs a 'role' and a 'content'"),
        ({"role": "tool", "tool_call_id": "A"}, "needs a 'role' and a 'content'"),
        ({5: "user", "role": "user"}, r"this one has \['5', 'role'\]"),
    ],
)
def test_invalid_message_dict_raises_misuse_error(prompt, sentence):
    """Each mistake has a message of its own."""
    with pytest.raises(MisuseError, match=sentence):
        Request.ask(prompt)


CALLED = {"id": "A", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PARSED = {"id": "A", "type": "function", "function": {"name": "f", "arguments": "{}", "parsed_arguments": {"x": 1}}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"content": "hi", "refusal": None, "annotations": [], "function_call": None, "audio": None},
            (TextPart("hi"),),
        ),
        ({"content": "", "tool_calls": None}, ()),
        ({"content": None, "refusal": None, "tool_calls": [CALLED]}, (ToolCallPart("A", "f", "{}"),)),
        ({"tool_calls": [CALLED]}, (ToolCallPart("A", "f", "{}"),)),
        ({"content": None, "refusal": "I won't.", "tool_calls": None}, (RefusalPart("I won't."),)),
        ({"content": '{"x":1}', "parsed": {"x": 1}}, (TextPart('{"x":1}'),)),
        ({"content": None, "parsed": None, "tool_calls": [PARSED]}, (ToolCallPart("A", "f", "{}"),)),
    ],
)
def test_dumped_answer_of_a_vendor_client_becomes_a_message(given, expected):
    """Fields with the value None are ignored. An answer with tool calls or a refusal may have no content."""
    assert (Message("assistant", expected),) == Request.ask([{"role": "assistant", **given}]).messages


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: TextPart(5), "text must be text, not 5"),
        (
            lambda: ToolResultPart("c", {"a": 1}),
            r"must be text or parts, not \{'a': 1\}\. Convert it to text with json\.dumps",
        ),
        (lambda: ToolResultPart(None, "x"), "id must be text, not None"),
        (lambda: FilePart("image/png", "aGk="), "data must be bytes, not 'aGk='"),
        (lambda: FilePart(b"image"), "media_type must be like image/png, not"),
        (lambda: FilePart("png", b""), "media_type must be like image/png, not 'png'"),
        (lambda: FilePart("image/png", url=b"x"), "url must be text, not b'x'"),
        (lambda: RawPart("anthropic", "x"), "data must be a dict, not 'x'"),
    ],
)
def test_invalid_part_raises_misuse_error(make, sentence):
    """The constructor of a part validates its fields."""
    with pytest.raises(MisuseError, match=sentence):
        make()


def test_join_adds_logprobs_in_linear_time():
    """Four times the chunks take about four times as long, not sixteen times."""
    one = Chunk("a", logprobs={"content": [{"token": "a", "logprob": -1.0}]})

    def took(count):
        chunks = [one] * count
        begun = time.process_time()
        message = join(chunks).message()
        seconds = time.process_time() - begun
        assert (count, count) == (len(message.text), len(message.logprobs["content"]))
        return seconds

    gc.disable()  # a collection would walk the objects of all other tests
    try:
        assert min(took(40_000) for _ in range(3)) < 9 * min(took(10_000) for _ in range(3))
    finally:
        gc.enable()


def test_chunk_text_must_be_str():
    """The constructor raises MisuseError for other types, and a chunk joins with chunks only."""
    with pytest.raises(MisuseError, match="The text of a Chunk must be text, not 5"):
        Chunk(5)
    with pytest.raises(TypeError, match="unsupported operand"):
        Chunk("a") + "b"
