"""The values: what people write becomes messages, and what they mistype is told in a sentence."""

import copy
import gc
import pickle
import time

import attrs
import pytest

from rxllm import MisuseError
from rxllm.values.chunk import Chunk, join, text_chunk
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
    """Text, parts and the usual content lists are all content."""
    assert expected == Message("user", content).parts


def test_what_is_read_off_a_message():
    """Each kind of part is found by its name; ``str`` is the text alone."""
    message = Message("assistant", [*PARTS, TextPart("z")])
    assert ("az", "b", "c", (PARTS[3],)) == (message.text, message.reasoning, message.refusal, message.tool_calls)
    assert "az" == str(message)


def test_what_is_read_off_a_chunk():
    """The same of a chunk, and a plain one has none of it."""
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
def test_a_chunk_is_true_if_there_is_anything_in_it(chunk, expected):
    """Only the unit is false."""
    assert expected is bool(chunk)


def test_the_short_chunk_is_the_same_chunk():
    """The fast constructor makes what the usual one makes."""
    assert (Chunk("a"), hash(Chunk("a"))) == (text_chunk("a"), hash(text_chunk("a")))
    assert Chunk("a") == Chunk(parts=[TextPart("a")])
    assert Chunk(id="1") == Chunk(parts=[TextPart("")], id="1")


def test_an_answer_as_a_chunk_and_back_is_the_same():
    """``Chunk.of`` takes text, a Message or a Chunk, and keeps every fact."""
    answer = Message("assistant", "hi", Usage(input_tokens=1), "stop", "end_turn", "m", "1")
    assert answer == Chunk.of(answer).message()
    assert Chunk("hi") == Chunk.of("hi")
    chunk = Chunk("hi", model="m")
    assert chunk is Chunk.of(chunk)


@pytest.mark.parametrize("wrong", [None, 5, b"hi", ["hi"], {"content": "hi"}])
def test_other_answers_are_refused(wrong):
    """No guess is made of what a provider might have meant."""
    with pytest.raises(MisuseError, match=f"text, a Chunk or a Message, not {type(wrong).__name__}"):
        Chunk.of(wrong)


def test_the_builtin_sum_adds_up():
    """It begins with 0; nothing else that is no chunk can be added."""
    chunks = [Chunk("Hel"), Chunk("lo", usage=Usage(output_tokens=2))]
    assert join(chunks) == sum(chunks)
    for other in 1, "a", None:
        with pytest.raises(TypeError):
            other + Chunk("a")


def test_a_hundred_thousand_chunks_add_up_in_half_a_second():
    """`join` is linear: CPU time, so that a busy machine does not matter."""
    chunks = [Chunk("token ") for _ in range(100_000)]
    begun = time.process_time()
    message = join(chunks).message()
    assert time.process_time() - begun < 0.5
    assert 600_000 == len(message.text)


def test_fragments_add_up_in_linear_time():
    """Arguments of tools come in small pieces, too."""
    chunks = [Chunk(parts=[ToolCallPart("1", "f")])]
    chunks += [Chunk(parts=[ToolCallPart(arguments="0123456789")]) for _ in range(30_000)]
    begun = time.process_time()
    (call,) = join(chunks).tool_calls
    assert time.process_time() - begun < 0.5
    assert 300_000 == len(call.arguments)


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_values(value):
    """Equal copies have equal hashes, survive copying and pickling, and are not mixed up with anything else."""
    for same in copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value)):  # noqa: S301
        assert (value, hash(value)) == (same, hash(same))
    assert value != "a"


@pytest.mark.parametrize("value", [*VALUES, Request(prompt="a"), Parameters()], ids=lambda value: type(value).__name__)
def test_values_are_frozen(value):
    """No field can be set, and no other attribute added."""
    for name in (*attrs.fields_dict(type(value)), "unheard_of"):
        with pytest.raises((attrs.exceptions.FrozenInstanceError, AttributeError)):
            setattr(value, name, None)


def test_equal_raw_parts_have_equal_hashes():
    """The order of a document's keys says nothing, nor how its numbers are written."""
    one, other = RawPart("p", {"a": 1, "b": 2.0}), RawPart("p", {"b": 2, "a": True})
    assert one == other
    assert hash(one) == hash(other)


def test_evolve_changes_one_field():
    """``attrs.evolve`` is how a value is changed; it converts and checks as the constructor does."""
    message = Message("user", "hi")
    assert Message("user", "bye") == attrs.evolve(message, parts="bye")
    request = Request.ask("hi", Parameters(temperature=1))
    assert (0, "hi") == (attrs.evolve(request, temperature=0).temperature, attrs.evolve(request, temperature=0).prompt)
    with pytest.raises(MisuseError, match="temperature must be"):
        attrs.evolve(request, temperature=-1)
    with pytest.raises(MisuseError, match="role is one of"):
        attrs.evolve(message, role="human")


def test_a_repr_shows_no_bytes_of_a_file():
    """A picture's repr tells its size; logs stay small."""
    assert "FilePart('image/png', <5 bytes>)" == repr(FilePart("image/png", b"12345"))
    shown = repr(Message("user", [FilePart("image/png", b"secret")]))
    assert "secret" not in shown


def test_the_repr_of_a_chunk_says_what_is_in_it():
    """And nothing of what is not."""
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
def test_a_prompt_is_a_conversation(prompt, expected):
    """Text, a Message, dicts and pairs are all read as messages."""
    assert expected == Request.ask(prompt).messages


def test_the_text_of_a_prompt():
    """Of text it is the text; of several messages, theirs with a blank line between."""
    assert "hi" == Request.ask("hi").text
    assert "be kind\n\nhi" == Request.ask([("system", "be kind"), ("user", ""), ("user", "hi")]).text


def test_an_answer_goes_back_as_it_is():
    """An answer with all its facts is a message of the next prompt, untouched."""
    answer = Message("assistant", PARTS, Usage(input_tokens=1), "stop", "end_turn", "m", "1")
    assert answer is Request.ask([USER, answer, USER]).messages[1]


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        (None, "A prompt is text, a Message, a list of messages or a Request, not NoneType"),
        (5, "not int: 5"),
        (b"hi", "not bytes"),
        ([], "An empty list is no prompt"),
        ((), "An empty list is no prompt"),
        (["one", "two"], "Several prompts go to llm.batch"),
        ([5], r"not int: 5\. Several prompts"),
        ([("user", "hi", "there")], "not tuple"),
        ({"content": "hi"}, r"needs a 'role' and a 'content'; this one has \['content'\]"),
        ({"role": "tool", "content": "hi"}, "needs the 'tool_call_id'"),
        (("human", "hi"), "role is one of system, user, assistant, tool, not 'human'; say 'user'"),
        (("ai", "hi"), "say 'assistant'"),
        (("developer", "hi"), "say 'system'"),
        ([{"role": ["user"], "content": "hi"}], "role is one of"),
        ([{"role": "user", "content": 5}], "Content must be text, parts or content dicts, not int"),
        ([{"role": "user", "content": b"hi"}], "not bytes"),
        ([{"role": "user", "content": [{"type": "hologram"}]}], "Content of type 'hologram' is not known"),
        (
            [{"role": "user", "content": [{"type": "input_audio"}]}],
            "'input_audio' of content of the type 'input_audio'",
        ),
        ([{"role": "user", "content": [{"text": "hi"}]}], "Content of type None"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,§"}}]}],
            "not valid base64",
        ),
        ([{"role": "assistant", "tool_calls": [{"id": "A"}]}], "A tool call is a dict of 'id' and 'function'"),
        (
            [{"role": "assistant", "tool_calls": [{"id": "A", "function": {"name": "f", "arguments": {"x": 1}}}]}],
            "'arguments' as JSON text",
        ),
        ([{"role": "assistant", "tool_calls": ["f()"]}], "A tool call is a dict of"),
    ],
)
def test_what_is_no_prompt_is_told_in_a_sentence(prompt, sentence):
    """A MisuseError that says what is wrong and what to write instead, and no other error."""
    with pytest.raises(MisuseError, match=sentence):
        Request.ask(prompt)


# ── parameters ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_parameters_travel_in_the_request():
    """Those of the LLM hold where the request says nothing; where the prompt is a Request, its own win."""
    defaults = Parameters(temperature=1, max_tokens=5, extra={"a": 1, "b": 1})
    assert (1, 5, "hi") == (
        Request.ask("hi", defaults).temperature,
        Request.ask("hi", defaults).max_tokens,
        Request.ask("hi", defaults).text,
    )
    given = Request(prompt="hi", temperature=0, extra={"b": 2})
    request = Request.ask(given, defaults)
    assert (0, 5, {"a": 1, "b": 2}) == (request.temperature, request.max_tokens, request.extra)


def test_zero_and_false_are_said():
    """Only None says nothing: 0 and False are not overridden by defaults."""
    said = Parameters(temperature=0, top_k=0, stream=False, stop_sequences=())
    merged = said.over(Parameters(temperature=1, top_k=5, stream=True, stop_sequences=("x",)))
    assert said == merged


@pytest.mark.parametrize(("given", "expected"), [("\n", ("\n",)), (["a", "b"], ("a", "b")), (None, None)])
def test_one_stop_sequence_or_several(given, expected):
    """A text is one stop sequence, not one for each of its letters."""
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
        ({"tools": "x"}, "tools must be one or more ToolSpecs or dicts that define a tool, not 'x'"),
        ({"tools": 5}, "tools must be one or more ToolSpecs or dicts"),
        ({"tools": [{}, print]}, "tools must be one or more ToolSpecs or dicts"),
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
def test_a_bad_parameter_is_told_in_a_sentence(given, sentence):
    """Values are checked at once, when one is made and when it is changed."""
    with pytest.raises(MisuseError, match=sentence):
        Parameters(**given)
    with pytest.raises(MisuseError, match=sentence):
        Parameters().having(given)


def test_no_extra_fields():
    """None is none."""
    assert {} == Parameters(extra=None).extra


def test_a_large_seed_is_a_number():
    """However large."""
    assert 10**400 == Parameters(seed=10**400).seed


def test_requests_can_be_hashed():
    """As keys of a dict: equal ones are one key, whatever their dicts hold."""
    settings = {"tools": [{"a": []}], "tool_choice": {}, "response_format": {}, "extra": {"b": {}}}
    assert 1 == len({Request(prompt=(Message("user", PARTS),), **settings) for _ in range(2)})
    assert 1 == len({Parameters(**settings) for _ in range(2)})
    assert 2 == len({Request(prompt="a"), Request(prompt="b")})


def test_a_request_reads_its_prompt_as_a_model_does():
    """Whatever is a prompt is one here."""
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
        ({"role": "assistant", "tool_calls": [5]}, "A tool call is a dict of 'id'"),
        ({"role": "assistant", "tool_calls": [{"id": 5, "function": {"name": "f", "arguments": ""}}]}, "A tool call"),
        ({"role": "tool", "tool_call_id": 5, "content": "x"}, "id must be text, not 5"),
        ({"role": "user", "content": 5}, "Content must be text, parts or content dicts, not int"),
        ([("user", 5)], "Content must be text"),
        (("user", 5), "Content must be text"),
        ((5, "x"), "role is one of"),
        ([(5, "x")], "role is one of"),
        ({"role": "user", "contents": "hi"}, r"this one has \['contents', 'role'\]\. Is 'contents' its 'content'\?"),
        ([{"role": "user", "conent": "hi"}], "Is 'conent' its 'content'"),
        ({"role": "user", "parts": ["hi"]}, r"this one has \['parts', 'role'\]\.$"),
        ({"role": "system"}, "needs a 'role' and a 'content'"),
        ({"role": "user", "content": None}, "is None, which only that of an assistant's with 'tool_calls' may be"),
        ({"role": "user", "tool_calls": [{"id": "A"}]}, "needs a 'role' and a 'content'"),
        ({"role": "user", "content": None, "refusal": "no"}, "is None"),
        ({"role": "assistant", "content": None, "tool_calls": None, "refusal": None}, "is None"),
        ({"role": "assistant", "tool_calls": []}, "needs a 'role' and a 'content'"),
        ({"role": "tool", "tool_call_id": "A"}, "needs a 'role' and a 'content'"),
        ({5: "user", "role": "user"}, r"this one has \['5', 'role'\]"),
    ],
)
def test_what_is_no_message_is_refused(prompt, sentence):
    """Each wrong part in a sentence of its own."""
    with pytest.raises(MisuseError, match=sentence):
        Request.ask(prompt)


CALLED = {"id": "A", "type": "function", "function": {"name": "f", "arguments": "{}"}}


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
    ],
)
def test_an_answer_as_vendors_dump_it_is_a_message(given, expected):
    """With whatever else is in it; only where it asks for tools, or refuses, there may be no content."""
    assert (Message("assistant", expected),) == Request.ask([{"role": "assistant", **given}]).messages


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: TextPart(5), "text must be text, not 5"),
        (lambda: ToolResultPart("c", {"a": 1}), r"must be text or parts, not \{'a': 1\}: json\.dumps"),
        (lambda: ToolResultPart(None, "x"), "id must be text, not None"),
        (lambda: FilePart("image/png", "aGk="), "data must be bytes, not 'aGk='"),
        (lambda: FilePart(b"image"), "media_type must be like image/png, not"),
        (lambda: FilePart("png", b""), "media_type must be like image/png, not 'png'"),
        (lambda: FilePart("image/png", url=b"x"), "url must be text, not b'x'"),
        (lambda: RawPart("anthropic", "x"), "data must be a dict, not 'x'"),
    ],
)
def test_what_is_no_part_is_refused(make, sentence):
    """When it is made, not in the middle of a request."""
    with pytest.raises(MisuseError, match=sentence):
        make()


def test_logprobs_add_up_in_linear_time():
    """Four times as many take about four times as long, and not sixteen times."""
    some = Chunk("a", logprobs={"content": [{"token": "a", "logprob": -1.0}]})

    def took(count):
        chunks = [some] * count
        begun = time.process_time()
        message = join(chunks).message()
        seconds = time.process_time() - begun
        assert (count, count) == (len(message.text), len(message.logprobs["content"]))
        return seconds

    gc.disable()  # it would walk what all other tests have left
    try:
        assert min(took(40_000) for _ in range(3)) < 9 * min(took(10_000) for _ in range(3))
    finally:
        gc.enable()


def test_a_chunk_is_of_text():
    """And is joined with chunks only."""
    with pytest.raises(MisuseError, match="The text of a Chunk must be text, not 5"):
        Chunk(5)
    with pytest.raises(TypeError, match="unsupported operand"):
        Chunk("a") + "b"
