"""`shaped`: a value of a type from a model, and a second attempt when the answer does not fit."""

import copy
import json
import pickle
from typing import Any, Literal

import attrs
import pytest
import reactivex as rx
from protocols import Chat
from reactivex import operators as ops

import rxllm
from rxllm import Chunk, Message, MisuseError, ParseError, Retried, Usage, shaped
from rxllm.testing import FakeServer, Reply
from rxllm.values.parts import RefusalPart

USAGE = Usage(input_tokens=3, output_tokens=5)


@attrs.frozen
class Step:
    """A class to ask for."""

    text: str
    minutes: int = 1


@attrs.frozen
class Scripted(rxllm.LLM):
    """A chat model that gives one answer after another, and keeps the requests."""

    answers: tuple[Any, ...]
    requests: list[rxllm.Request] = attrs.field(factory=list, eq=False)

    def kind(self, request):
        """Take conversations."""
        return "chat_model"

    async def chunks(self, request):
        """Give the next answer."""
        self.requests.append(request)
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        for chunk in answer if isinstance(answer, tuple) else (answer,):
            yield chunk
        yield Chunk(usage=USAGE, finish_reason=None if isinstance(answer, tuple) else "stop")


EMBEDDED = rxllm.Embedded()
GOOD, BAD = '{"text": "Boil"}', '{"text": 4, "minuets": 5}'


@pytest.fixture
def mend():
    """Return a function that gives an answer, and the turns of the next request."""

    def ask(answer, kind=Step, prompt="How?"):
        llm = Scripted((answer, GOOD))
        shaped(llm, kind).invoke(prompt)
        return llm.requests[1].messages

    return ask


def test_value_of_the_first_answer_that_fits():
    """One request, if the first answer fits."""
    llm = Scripted((GOOD,))
    model = shaped(llm, Step)
    assert Step("Boil") == model.invoke("How?")
    assert 1 == len(llm.requests)
    assert [Step("Boil")] == [*model.stream("How?")]
    assert [Step("Boil")] * 3 == model.batch(["a", "b", "c"])


def test_model_gets_its_answer_back_with_each_problem(mend):
    """As turns of the conversation; the schema stays in the prompt."""
    system, user, answer, correction = mend(BAD, prompt=[("user", "How?")])
    assert "JSON schema" in system.text
    assert (Message("user", "How?"), Message("assistant", BAD)) == (user, answer)
    assert "user" == correction.role
    assert "- expected a string, but got an integer, at $.text\n" in correction.text
    assert "- there is no field 'minuets', at $\n" in correction.text


def test_empty_answer_is_no_turn(mend):
    """Providers refuse empty turns."""
    assert ["system", "user", "user"] == [turn.role for turn in mend("")]


def test_malformed_answer_is_shown_what_is_wrong(mend):
    """By the error's sentence."""
    assert "not valid JSON" in mend("{'text': 'a'}")[-1].text


def test_model_is_not_told_what_the_program_may_change(mend):
    """A note of the error advises the author of the program. This program has asked for a shape already."""
    correction = mend("Boil it.")[-1].text
    assert "it has 'Boil it.' instead of a value.\nAnswer again" in correction
    with pytest.raises(ParseError) as caught:
        shaped(Scripted(("Boil it.",)), Step).invoke("How?")
    assert ["A server that ignores schemas needs shape_mode='prompted'."] == caught.value.__notes__
    assert "shape" not in str(caught.value)


def test_attempts_are_bounded():
    """The error is that of the last answer, with the tokens of all answers."""
    llm = Scripted((BAD, '{"text": 5}'))
    with pytest.raises(ParseError, match=r"got an integer, at \$\.text") as caught:
        shaped(llm, Step, attempts=3).invoke("How?")
    error = caught.value
    assert 3 == len(llm.requests)
    assert USAGE + USAGE + USAGE == error.usage
    assert ('{"text": 5}', "mismatch", USAGE) == (error.text, error.reason, error.partial.usage)
    assert ["user", *["assistant", "user"] * 2] == [turn.role for turn in error.request.messages]
    with pytest.raises(ParseError):
        shaped(Scripted((BAD, GOOD)), Step, attempts=1).invoke("How?")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((Chunk(parts=[RefusalPart("I won't.")]), Chunk(finish_reason="stop")), "refused"),
        (('{"text": "Bo', Chunk(finish_reason="length")), "cut"),
        ((GOOD, Chunk(finish_reason="length")), "cut"),
        (('{"text"', Chunk(finish_reason="content_filter")), "filtered"),
    ],
)
def test_no_second_attempt_after_a_refusal_a_filter_or_the_end_of_the_tokens(answer, reason):
    """It would only cost again."""
    llm = Scripted((answer, GOOD))
    with pytest.raises(ParseError) as caught:
        shaped(llm, Step).invoke("How?")
    assert (reason, 1, USAGE) == (caught.value.reason, len(llm.requests), caught.value.usage)


def test_answer_that_breaks_off_by_itself_is_asked_for_again():
    """The model stopped in the middle of its JSON, though it had tokens left."""
    llm = Scripted(('{"text": "Bo', GOOD))
    assert Step("Boil") == shaped(llm, Step).invoke("How?")


def test_other_errors_pass():
    """`retry` and `fallback` are for them."""

    class Broken(rxllm.LLM):
        async def complete(self, request):
            raise rxllm.Interrupted("gone")

    with pytest.raises(rxllm.Interrupted, match="gone"):
        shaped(Broken(), Step).invoke("How?")


def test_model_that_continues_a_text_gets_a_text():
    """The completions protocol has no turns."""

    class Continuing(Scripted):
        def kind(self, request):
            return "llm"

    llm = Continuing((BAD, GOOD))
    assert Step("Boil") == shaped(rxllm.fallback(llm), Step).invoke("How?")
    prompt = llm.requests[1].prompt
    assert isinstance(prompt, str)
    assert prompt.startswith(f"How?\n\n{BAD}\n\nYour answer does not fit:\n- expected")


def test_each_attempt_is_a_turn_of_a_conversation():
    """The question stands in it once; the correction quotes the answer, because another turn may have come after it."""
    llm, conversation = Scripted((BAD, GOOD, GOOD)), rxllm.Conversation([("system", "Be brief.")])
    model = shaped(rxllm.retry(rxllm.remember(llm, conversation)), Step)
    assert Step("Boil") == model.invoke("How?")
    _, question, answer, correction, last = conversation.messages
    assert ["How?", BAD, GOOD] == [each.text for each in (question, answer, last)]
    assert correction.text.startswith(f"Your answer\n\n{BAD}\n\ndoes not fit:\n- expected a string")
    assert ["How?", BAD, correction.text] == [each.text for each in llm.requests[1].messages[-3:]]
    assert Step("Boil") == model.invoke("And then?")
    assert 7 == len(conversation.messages)
    assert 1 == llm.requests[-1].text.count("How?")


def test_prompt_may_be_a_stream_or_a_request():
    """As for every model; the parameters of a Request count in all attempts."""
    llm = Scripted((BAD, GOOD))
    request = rxllm.Request(prompt="How?", temperature=0.5)
    assert Step("Boil") == shaped(llm, Step).invoke(request)
    assert [0.5, 0.5] == [each.temperature for each in llm.requests]
    assert [Step("Boil")] == [*rxllm.pipe(lambda topic: rx.of("How ", topic), shaped(llm, Step)).stream("long?")]
    assert "How long?" in llm.requests[-1].text


def test_shaped_is_a_stage():
    """Before and after other stages; parameters reach the model."""
    llm = Scripted((GOOD,))
    talk = rxllm.pipe(str.upper, llm, rxllm.text(), shaped(llm, Step), ops.map(lambda step: step.text))
    assert "Boil" == talk.bind(temperature=0.5).invoke("how?")
    assert [0.5, 0.5] == [request.temperature for request in llm.requests]
    assert "native" != shaped(llm, Step, mode="prompted").stages[0].parameters.shape_mode


def test_handlers_see_each_attempt():
    """One run of the model for each, within one chain, with `Retried` between; a meter counts all tokens."""
    events, meter = [], rxllm.UsageMeter()
    shaped(Scripted((BAD, GOOD)), Step).with_config(handlers=[events.append, meter]).invoke("How?")
    kinds = [(type(event).__name__, event.run.kind) for event in events if not isinstance(event, rxllm.RunChunk)]
    assert [
        ("Started", "chain"),
        ("Started", "chat_model"),
        ("Finished", "chat_model"),
        ("Retried", "chain"),
        ("Started", "chat_model"),
        ("Finished", "chat_model"),
        ("Finished", "chain"),
    ] == [kind for kind in kinds if kind[0] != "Emitted"]
    retried = next(event for event in events if isinstance(event, Retried))
    assert (1, "mismatch") == (retried.attempt, retried.error.reason)
    assert 2 * USAGE.output_tokens == meter.total.output_tokens
    assert Step("Boil") == events[-1].output


def test_dispose_closes_the_request_of_the_second_attempt():
    """Over HTTP, while the answer still comes."""
    first = Reply(Chat().stream([BAD]), content_type="text/event-stream")
    second = Reply([*Chat().stream(['{"text": "Bo'])[:2], rxllm.testing.End.HANG], content_type="text/event-stream")
    with FakeServer(first, second) as server:
        llm = rxllm.OpenAI("m", base_url=server.url, api_key="k")
        subscription = shaped(llm, Step)("How?").subscribe(lambda _: None, lambda _: None)
        server.exchange(1).wait_stalled()
        subscription.dispose()
        assert server.exchange(1).wait_closed() is not None
        second_request = json.loads(server.requests[1].body)
        assert ["user", "assistant", "user"] == [turn["role"] for turn in second_request["messages"]]


def test_shaped_copies_shows_and_pickles_itself():
    """As every pipeline."""
    model = shaped(Scripted((GOOD,)), list[int], attempts=3)
    assert repr(model).startswith("shaped(Scripted(")
    assert repr(model).endswith("list[int], attempts=3)")
    copied = pickle.loads(pickle.dumps(model))  # noqa: S301
    assert (model, model) == (copied, copy.deepcopy(model))
    assert Literal["a"] == shaped(Scripted(('"a"',)), Literal["a"]).shape.type


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((rxllm.pipe(rxllm.Embedded()), Step), "shaped takes a model, not Pipeline"),
        ((rxllm.fallback(rxllm.remember(EMBEDDED, rxllm.Conversation()), EMBEDDED), Step), "Some models in this one"),
        ((rxllm.Embedded(), complex), "complex can't be the shape of an answer"),
        ((rxllm.Embedded(), Step, 0), "attempts must be a whole number of at least 1, not 0"),
        ((rxllm.Embedded(), Step, 2, "json"), "shape_mode must be one of"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    """Before anything is sent."""
    with pytest.raises(MisuseError, match=message):
        shaped(*arguments)
    with pytest.raises(MisuseError, match=r"answers in the shape Step\. For another one, call shaped again"):
        shaped(rxllm.Embedded(), Step).bind(shape=int)
