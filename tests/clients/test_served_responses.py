"""The OpenAI SDK reads what `serve.openai` sends at ``/v1/responses`` and ``/v1/completions``."""

import importlib.util

import pytest
from combinators.scripted import Scripted as Rounds
from combinators.scripted import call
from pydantic import BaseModel
from serving import Scripted, Serving

import rxllm
from rxllm.serve import openai as served
from rxllm.testing import FakeServer, Reply, Signal
from rxllm.values.parts import ReasoningPart, ToolCallPart

if importlib.util.find_spec("openai") is None:
    pytest.skip("the extra 'clients' is not installed", allow_module_level=True)

TOOLS = [{"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}]
USED = rxllm.Chunk(finish_reason="stop", usage=rxllm.Usage(input_tokens=3, output_tokens=2))
ANSWER = (rxllm.Chunk(parts=[ReasoningPart("think")]), "Hel", "lo", USED)
CALL = (rxllm.Chunk(parts=[ToolCallPart("c1", "weather", '{"city":"Rome"}')], finish_reason="tool_call"),)


class Serve:
    """``with Serve(model) as sdk``: a client of the served model."""

    def __init__(self, model, kind="OpenAI"):
        self.server = Serving(served({"m": model}))
        self.kind = kind

    def __enter__(self):
        import openai

        self.sdk = getattr(openai, self.kind)(base_url=f"{self.server.__enter__().url}/v1", api_key="k")
        return self.sdk

    def __exit__(self, *error):
        if self.kind == "OpenAI":
            self.sdk.close()
        self.server.__exit__()


def test_whole_response():
    """`create` gives text, reasoning and usage."""
    with Serve(Scripted(*ANSWER)) as sdk:
        answer = sdk.responses.create(model="m", input="hi")
    assert ("Hello", "completed", 5) == (answer.output_text, answer.status, answer.usage.total_tokens)
    assert "think" == answer.output[0].summary[0].text


def test_stream_of_events():
    """``stream=True`` gives typed events, of which the last has the whole response."""
    with Serve(Scripted(*ANSWER)) as sdk:
        events = list(sdk.responses.create(model="m", input="hi", stream=True))
    assert "Hello" == "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert ("response.completed", "Hello") == (events[-1].type, events[-1].response.output_text)


def test_stream_helper_gathers_the_response():
    """`responses.stream` gathers text, and arguments as they grow."""
    with Serve(Scripted(*ANSWER, *CALL)) as sdk, sdk.responses.stream(model="m", input="hi", tools=TOOLS) as stream:
        response = stream.get_final_response()
    assert ("Hello", '{"city":"Rome"}') == (response.output_text, response.output[-1].arguments)


def test_parsed_response():
    """`responses.parse` asks for a JSON schema, and reads the answer as its class."""

    class Place(BaseModel):
        city: str

    model = Scripted('{"city":', '"Rome"}', USED)
    with Serve(model) as sdk:
        answer = sdk.responses.parse(model="m", input="hi", text_format=Place)
    assert Place(city="Rome") == answer.output_parsed
    assert "Place" == model.asked[0].response_format.name


def test_tool_round_goes_back_as_it_came():
    """The output of the first response and the result of the call are the input of the second."""
    model = Rounds([[call("weather", '{"city":"Rome"}', "c1", finish_reason="tool_call")], ["Sunny.", USED]])
    with Serve(model) as sdk:
        first = sdk.responses.create(model="m", input=[{"role": "user", "content": "hi"}], tools=TOOLS)
        history = [{"role": "user", "content": "hi"}, *first.output]
        result = {"type": "function_call_output", "call_id": first.output[0].call_id, "output": "sun"}
        second = sdk.responses.create(model="m", input=[*history, result], tools=TOOLS)
    assert "Sunny." == second.output_text
    assert ["user", "assistant", "tool"] == [message.role for message in model.prompts[1]]


def test_output_goes_back_as_it_came():
    """``input += response.output`` continues a conversation of texts, also of parsed ones."""

    class Place(BaseModel):
        city: str

    with Serve(model := Scripted('{"city":"Rome"}', USED)) as sdk:
        ask = {"role": "user", "content": "hi"}
        history = [ask, *sdk.responses.create(model="m", input="hi").output, ask]
        history += [*sdk.responses.parse(model="m", input=history, text_format=Place).output, ask]
        sdk.responses.create(model="m", input=history)
    assert ["hi", '{"city":"Rome"}', "hi", '{"city":"Rome"}', "hi"] == [m.text for m in model.asked[2].messages]


def test_incomplete_response():
    """An answer at its limit of tokens is incomplete."""
    with Serve(Scripted("Hel", rxllm.Chunk(finish_reason="length"))) as sdk:
        events = list(sdk.responses.create(model="m", input="hi", stream=True))
    assert ("response.incomplete", "max_output_tokens") == (
        events[-1].type,
        events[-1].response.incomplete_details.reason,
    )


def test_errors_raise_early_and_late():
    """An early 429 is asked once; a failure in the middle raises after the text."""
    import openai

    with (
        Serve(model := Scripted(rxllm.RateLimited("slow", status=429))) as sdk,
        pytest.raises(openai.RateLimitError),
    ):
        sdk.responses.create(model="m", input="hi")
    assert 1 == len(model.asked)
    with Serve(Scripted("Hel", rxllm.Interrupted("cut"))) as sdk:
        texts = []
        with pytest.raises(openai.APIError):
            texts += [getattr(e, "delta", "") for e in sdk.responses.create(model="m", input="hi", stream=True)]
        with pytest.raises(openai.APIError), sdk.responses.stream(model="m", input="hi") as stream:
            stream.until_done()


async def test_async_client_reads_and_leaves():
    """The asynchronous client reads a stream; leaving it closes the request to the model."""
    event = b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'
    with FakeServer(Reply([event, Signal()])) as upstream:
        llm = rxllm.OpenAI("m", base_url=upstream.url, api_key="k", api="chat")
        with Serve(llm, "AsyncOpenAI") as sdk:
            async with sdk, await sdk.responses.create(model="m", input="hi", stream=True) as stream:
                async for event in stream:
                    if event.type == "response.output_text.delta":
                        break
            await upstream.exchange().closed_soon()
    with Serve(Scripted(*ANSWER), "AsyncOpenAI") as sdk:
        async with sdk, sdk.responses.stream(model="m", input="hi") as stream:
            assert "Hello" == (await stream.get_final_response()).output_text


def test_completions():
    """`completions.create` gives the text, streamed and whole."""
    with Serve(Scripted(*ANSWER)) as sdk:
        whole = sdk.completions.create(model="m", prompt="hi")
        stream = list(
            sdk.completions.create(model="m", prompt="hi", stream=True, stream_options={"include_usage": True})
        )
    assert ("Hello", "stop", 5) == (whole.choices[0].text, whole.choices[0].finish_reason, whole.usage.total_tokens)
    assert "Hello" == "".join(chunk.choices[0].text for chunk in stream if chunk.choices)
    assert 5 == stream[-1].usage.total_tokens


async def test_completions_of_the_async_client():
    """The asynchronous client reads a completion."""
    with Serve(Scripted(*ANSWER), "AsyncOpenAI") as sdk:
        async with sdk:
            stream = await sdk.completions.create(model="m", prompt="hi", stream=True)
            assert "Hello" == "".join([chunk.choices[0].text async for chunk in stream])
