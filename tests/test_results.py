"""`generate`: answers and their usage, as in LangChain's documentation."""

import json

import pytest
from protocols import Chat, Completions, Protocol, sse

import rxllm
from rxllm import LLM, Chunk, Generation, LLMResult, Message, Usage
from rxllm.testing import FakeServer, Reply

TEXT = "\n\nQ: What did the fish say when it hit the wall?\nA: Dam!"


def with_logprobs(protocol: Protocol, each):
    """The stream of "Hel" and "lo" with log-probabilities for each piece."""
    events, index = [], 0
    for event in protocol.stream(["Hel", "lo"]):
        data = event.removeprefix(b"data: ").strip()
        document = json.loads(data) if data != b"[DONE]" else {}
        [choice] = document.get("choices") or [{}]
        if choice.get("text") or choice.get("delta", {}).get("content"):
            choice["logprobs"] = each[index]
            index += 1
        events.append(sse(document) if document else event)
    return events


def whole_with_logprobs(protocol: Protocol, logprobs):
    """The same as a whole response."""
    document = json.loads(protocol.whole(["Hel", "lo"]))
    document["choices"][0]["logprobs"] = logprobs
    return json.dumps(document).encode()


LOGPROBS = {
    "chat": (
        Chat(),
        "gpt-5-mini",
        [{"content": [{"token": "Hel", "logprob": -0.1}]}, {"content": [{"token": "lo", "logprob": -0.2}]}],
        {"content": [{"token": "Hel", "logprob": -0.1}, {"token": "lo", "logprob": -0.2}]},
    ),
    "completions": (
        Completions(),
        "gpt-3.5-turbo-instruct",
        [{"tokens": ["Hel"], "token_logprobs": [-0.1]}, {"tokens": ["lo"], "token_logprobs": [-0.2]}],
        {"tokens": ["Hel", "lo"], "token_logprobs": [-0.1, -0.2]},
    ),
}


@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "whole"])
def test_generate_matches_langchains_documentation(streams):
    """Text, reason and model are equal; usage is present also for streams, where LangChain has none."""
    protocol = Completions(model="gpt-3.5-turbo-instruct")
    reply = Reply(protocol.stream([TEXT[:9], TEXT[9:]])) if streams else Reply.json(protocol.whole([TEXT]))
    with FakeServer(reply) as server:
        llm = rxllm.OpenAI("gpt-3.5-turbo-instruct", base_url=f"{server.url}/v1")
        result = llm.generate(["Tell me a joke."], stream=streams)
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    assert (
        f"LLMResult(generations=[[Generation(text={TEXT!r}, "
        "generation_info={'finish_reason': 'stop', 'logprobs': None})]], "
        f"llm_output={{'token_usage': {usage}, 'model_name': 'gpt-3.5-turbo-instruct'}})"
    ) == str(result)


@pytest.mark.parametrize(("protocol", "model", "each", "joined"), LOGPROBS.values(), ids=LOGPROBS.keys())
@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "whole"])
def test_logprobs_are_joined_in_order(protocol, model, each, joined, streams):
    """Both protocols give the same log-probabilities, streamed or whole."""
    reply = Reply(with_logprobs(protocol, each)) if streams else Reply.json(whole_with_logprobs(protocol, joined))
    with FakeServer(reply) as server:
        llm = rxllm.OpenAI(model, base_url=f"{server.url}/v1", extra={"logprobs": 1})
        [[generation]] = llm.generate(["x"], stream=streams).generations
    assert joined == {name: list(values) for name, values in generation.generation_info["logprobs"].items()}
    assert "Hello" == generation.text


class Counts(LLM):
    """Counts one token per letter; has no model name if the prompt is empty."""

    async def complete(self, request):
        """Return the prompt."""
        text = request.text
        return Chunk(text, usage=Usage(input_tokens=len(text), output_tokens=1), model="counts" if text else None)


async def test_generations_are_in_the_order_of_their_prompts():
    """Each prompt has one list; the usage is the sum."""
    sync, result = Counts().generate(["aa", "b"]), await Counts().agenerate(["aa", "b"])
    assert sync == result
    assert [["aa"], ["b"]] == [[generation.text for generation in answers] for answers in result.generations]
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert {"token_usage": usage, "model_name": "counts"} == result.llm_output


def test_generate_without_prompts_or_usage():
    """Missing facts are empty, not invented."""
    assert LLMResult([], {"token_usage": {}, "model_name": None}) == Counts().generate([])
    message = Message("assistant", "x", usage=Usage(output_tokens=2))
    nothing = {"finish_reason": None, "logprobs": None}
    result = LLMResult.of([message, Message("assistant", "y")])
    assert [[Generation("x", nothing, message)], [Generation("y", nothing, Message("assistant", "y"))]] == (
        result.generations
    )
    assert {"completion_tokens": 2, "total_tokens": 2} == result.llm_output["token_usage"]


async def test_finish_reason_of_a_custom_provider():
    """The common reason is reported, unless the provider has a word of its own."""

    class Ends(LLM):
        async def chunks(self, request):
            yield request.text
            yield Chunk(finish_reason="stop", raw_finish_reason="end_turn" if request.text == "raw" else None)

    result = await Ends().agenerate(["plain", "raw"])
    assert ["stop", "end_turn"] == [answer.generation_info["finish_reason"] for [answer] in result.generations]


def test_generation_has_a_short_repr():
    """The repr shows the text once, and omits the whole answer."""
    shown = repr(Generation.of(Message("assistant", "Dam!", finish_reason="stop")))
    assert "Generation(text='Dam!', generation_info={'finish_reason': 'stop', 'logprobs': None})" == shown
