"""Shapes behind a model: however the shape was asked for, the JSON of the answer is its text."""

import attrs
import pytest

import rxllm
from rxllm import Chunk, Message, Usage, join
from rxllm.shapes.dialects import ANY
from rxllm.shapes.modes import Offer
from rxllm.values.parts import ReasoningPart, RefusalPart, ToolCallPart

TEXT = '{"text": "Boil"}'


@attrs.frozen
class Step:
    """A class to ask for."""

    text: str = ""
    minutes: int = 1


@attrs.frozen
class Said(rxllm.LLM):
    """A model that streams these chunks, and can be forced to call a tool."""

    said: tuple[Chunk | str, ...] = ()

    async def chunks(self, request):
        """Emit them."""
        assert request.shape is None
        for chunk in self.said:
            yield chunk

    def _offers(self, request):
        return (Offer("tool", ANY),)


@attrs.frozen
class Whole(rxllm.LLM):
    """A model without streams, which answers with the prompt that it got."""

    said: str = TEXT

    async def complete(self, request):
        """Answer."""
        assert "JSON schema" in request.text
        return self.said


def call(arguments, name="answer", id="1", index=0):
    """Return a chunk with a fragment of a call."""
    return Chunk(parts=[ToolCallPart(id, name, arguments, index)])


def streamed(*said, mode="tool", **parameters):
    """Return the chunks behind the model."""
    return [*Said(tuple(said)).stream("Hi", shape=Step, shape_mode=mode, **parameters)]


# ── tool ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_arguments_of_the_forced_call_arrive_as_text_with_finish_stop():
    """Piece by piece, with all facts."""
    usage = Usage(input_tokens=1, output_tokens=2)
    chunks = streamed(
        call("", id="1"),
        call('{"text": ', name="", id=""),
        call('"Boil"}', name="", id=""),
        Chunk(finish_reason="tool_call", raw_finish_reason="tool_calls", usage=usage, model="m", provider="p"),
    )
    assert ['{"text": ', '"Boil"}'] == [chunk.text for chunk in chunks if chunk.text]
    answer = join(chunks).message()
    assert (TEXT, "stop", "tool_calls", usage) == (
        answer.text,
        answer.finish_reason,
        answer.raw_finish_reason,
        answer.usage,
    )
    assert ((), "m", "p") == (answer.tool_calls, answer.model, answer.provider)


@pytest.mark.parametrize("parameters", [{}, {"stream": False}])
def test_text_beside_the_call_becomes_reasoning(parameters):
    """The text is kept, but it is not part of the value."""
    answer = join(streamed("Let me ", "see.", call(TEXT), "Done.", Chunk(finish_reason="tool_call"), **parameters))
    assert (TEXT, "Let me see.Done.", "stop") == (answer.text, answer.reasoning, answer.finish_reason)


def test_text_without_a_call_remains_text():
    """Some servers ignore that a call is forced, and their models answer in JSON all the same."""
    answer = join(streamed('{"text": ', '"Boil"}', Chunk(finish_reason="stop")))
    assert (TEXT, "stop") == (answer.text, answer.finish_reason)
    assert TEXT == join(streamed(TEXT)).text


def test_call_without_arguments_is_an_empty_object():
    """All fields have defaults."""
    assert "{}" == join(streamed(call(""), Chunk(finish_reason="tool_call"))).text
    assert "{}" == join(streamed(call(""))).text


def test_calls_of_other_tools_pass():
    """An agent runs them. The answer's own call beside them is still text."""
    other = call('{"city": "Oslo"}', name="weather", id="2", index=1)
    answer = join(streamed("I look.", other, Chunk(finish_reason="tool_call")))
    assert ("I look.", "tool_call", ["weather"]) == (
        answer.text,
        answer.finish_reason,
        [each.name for each in answer.tool_calls],
    )
    both = join(streamed(call(TEXT), other, Chunk(finish_reason="tool_call")))
    assert (TEXT, "tool_call", 1) == (both.text, both.finish_reason, len(both.tool_calls))


def test_two_answers_both_become_text():
    """The text has both answers, so that the error of `parse` shows both."""
    answer = join(streamed(call(TEXT), call(TEXT, id="2", index=1)))
    assert TEXT * 2 == answer.text


def test_reset_begins_anew():
    """Also after a call."""
    answer = join(streamed(call('{"text'), Chunk(reset=True), "Now.", call(TEXT, id="2")))
    assert (TEXT, "Now.") == (answer.text, answer.reasoning)


# ── prompted ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_prose_around_the_value_is_left_out():
    """The text of the answer is the JSON alone, and grows piece by piece."""
    said = ["Here:\n```json\n", '{"text"', ': "Boil"}', "\n```\nGood luck!", Chunk(finish_reason="stop", model="m")]
    chunks = streamed(*said, mode="prompted")
    assert ['{"text"', ': "Boil"}'] == [chunk.text for chunk in chunks if chunk.text]
    answer = join(chunks)
    assert (TEXT, "stop", "m") == (answer.text, answer.finish_reason, answer.model)


def test_later_value_takes_the_first_one_back():
    """By a reset, which keeps the facts and the reasoning."""
    usage = Usage(input_tokens=1, output_tokens=2)
    chunks = streamed(
        Chunk(parts=[ReasoningPart("Hm.")], model="m", provider="p"),
        '{"text": 1}',
        " no, ",
        TEXT,
        Chunk(finish_reason="stop", usage=usage),
        mode="prompted",
    )
    assert chunks[-1].reset
    answer = join(chunks)
    assert (TEXT, "Hm.", "m", "p") == (answer.text, answer.reasoning, answer.model, answer.provider)
    assert ("stop", usage) == (answer.finish_reason, answer.usage)


def test_answer_without_a_value_keeps_its_text():
    """An error will show it. Refusals pass, too."""
    assert "I can't." == join(streamed("I ", "can't.", mode="prompted")).text
    assert "No." == join(streamed(Chunk(parts=[RefusalPart("No.")]), mode="prompted")).refusal


def test_reset_of_a_prompted_answer_begins_anew():
    """A chunk with reset discards the earlier text."""
    assert TEXT == join(streamed('{"a": 1}', Chunk("Now: ", reset=True), TEXT, mode="prompted")).text


def test_model_without_streams_answers_with_one_chunk():
    """The prompt asks it for JSON."""
    assert [TEXT] == [str(chunk) for chunk in Whole().stream("Hi", shape=Step)]
    assert [TEXT] == [str(chunk) for chunk in Whole(f"Here: {TEXT}!").stream("Hi", shape=Step)]
    assert [TEXT] == [str(chunk) for chunk in Whole(f"{{}} and {TEXT}").stream("Hi", shape=Step)]
    assert 1 == len(streamed("Here: ", '{"text": 1} ', TEXT, mode="prompted", stream=False))


# ── everywhere ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", ["auto", "tool", "prompted"])
def test_operators_need_not_know_the_mode(mode):
    """`parse`, `drafts` and `items` read the same text in every mode."""
    said = (
        (call('{"text": '), call('"Boil"}', name="", id="")) if mode != "prompted" else ("Hi: ", '{"text": ', '"Boil"}')
    )
    llm = Said(said).bind(shape=Step, shape_mode=mode)
    assert Step("Boil") == rxllm.pipe(llm, rxllm.parse(Step)).invoke("?")
    assert [{}, {"text": "Boil"}] == [*rxllm.pipe(llm, rxllm.drafts(Step)).stream("?")]


def test_shape_reaches_models_through_combinators():
    """It is a parameter like any other."""
    llm = rxllm.fallback(rxllm.retry(Said((call(TEXT),))), Whole())
    assert TEXT == llm.invoke("Hi", shape=Step).text
    assert TEXT == rxllm.pipe(llm).bind(shape=Step).invoke("Hi").text


def test_shape_is_a_part_of_a_cached_key():
    """By its schema: the same class after a change is asked for again."""
    asked = []

    class Counting(Whole):
        async def complete(self, request):
            asked.append(request)
            return TEXT

    llm = rxllm.cached(Counting(), rxllm.MemoryStore())

    def made(kind):
        return attrs.make_class("Made", {"text": attrs.field(type=kind)})

    for kind in (made(str), made(str), made(int)):
        llm.invoke("Hi", shape=kind)
    assert 2 == len(asked)
    assert Whole().bind(shape=made(str)).identity() == Whole().bind(shape=made(str)).identity()
    assert Whole().bind(shape=made(str)).identity() != Whole().bind(shape=made(int)).identity()


def test_wrong_parameters_are_refused_before_anything_is_sent():
    """With what to do instead."""
    llm = Said((TEXT,))
    with pytest.raises(rxllm.MisuseError, match="complex can't be the shape of an answer"):
        llm.bind(shape=complex)
    with pytest.raises(rxllm.MisuseError, match="shape_mode must be one of auto, native, tool, prompted, not 'json'"):
        llm.bind(shape_mode="json")
    with pytest.raises(rxllm.MisuseError, match="shape_mode='native', which Said does not offer"):
        llm.invoke("Hi", shape=Step, shape_mode="native")
    with pytest.raises(rxllm.MisuseError, match="shape or a response_format"):
        llm.invoke("Hi", shape=Step, response_format="json")


def test_request_shows_its_shape():
    """By the name of the type, and it pickles."""
    import pickle

    parameters = rxllm.Parameters(shape=list[int], shape_mode="tool")
    assert "Parameters(shape=list[int], shape_mode='tool')" == repr(parameters)
    assert parameters == pickle.loads(pickle.dumps(parameters))  # noqa: S301
    assert Message("user", "Hi") == rxllm.Request(prompt="Hi", shape=int).messages[0]
