"""The OpenAI SDK reads what `serve.openai` sends: text, tools, usage, errors, cuts."""

import importlib.util

import pytest
from protocols import Chat
from pydantic import BaseModel
from serving import Scripted, Serving
from waiting import wait_until

import rxllm
from rxllm.serve import openai as served
from rxllm.testing import End, FakeServer, Reply, Signal
from rxllm.values.parts import ToolCallPart

if importlib.util.find_spec("openai") is None:
    pytest.skip("the extra 'clients' is not installed", allow_module_level=True)

TURNS = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]


USED = rxllm.Chunk(finish_reason="stop", usage=rxllm.Usage(input_tokens=3, output_tokens=2))
CALL = rxllm.Chunk(parts=[ToolCallPart("c1", "weather", '{"city":"Rome"}')], finish_reason="tool_call")


class Place(BaseModel):
    """The shape of an answer, and the arguments of a tool."""

    city: str


@pytest.fixture
def ask():
    """Return a function that serves a model and gives an SDK client of it."""
    import openai

    opened = []

    def client(*script):
        server = Serving(served({"m": Scripted(*script)}))
        sdk = openai.OpenAI(base_url=f"{server.__enter__().url}/v1", api_key="k")
        opened.append((server, sdk))
        return sdk

    yield client
    for server, sdk in opened:
        sdk.close()
        server.__exit__()


def test_whole_answers(ask):
    """`create` gives text, finish reason and usage."""
    answer = ask("Hel", "lo", USED).chat.completions.create(model="m", messages=TURNS)
    assert ("Hello", "stop", 5) == (
        answer.choices[0].message.content,
        answer.choices[0].finish_reason,
        answer.usage.total_tokens,
    )


def test_streams_with_usage(ask):
    """A stream gives the pieces, and the usage in a last chunk."""
    chunks = list(
        ask("Hel", "lo", USED).chat.completions.create(
            model="m", messages=TURNS, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "Hello" == "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert 5 == chunks[-1].usage.total_tokens


def test_stream_helper_gathers_the_answer(ask):
    """`chat.completions.stream` gathers text and parsed tool calls."""
    with ask("Hel", "lo", CALL).chat.completions.stream(model="m", messages=TURNS, tools=TOOLS) as stream:
        message = stream.get_final_completion().choices[0].message
    assert ("Hello", "weather", '{"city":"Rome"}') == (
        message.content,
        message.tool_calls[0].function.name,
        message.tool_calls[0].function.arguments,
    )


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # of the SDK, which writes its own message
def test_parsed_messages_go_back_as_they_came(ask):
    """A message of `parse`, with its content or its calls in the caller's class, continues the conversation."""
    from openai import pydantic_function_tool

    chat = ask('{"city":"Rome"}').chat.completions
    parsed = chat.parse(model="m", messages=TURNS, response_format=Place).choices[0].message
    assert Place(city="Rome") == parsed.parsed
    assert '{"city":"Rome"}' == chat.create(model="m", messages=[*TURNS, parsed, *TURNS]).choices[0].message.content
    chat = ask(rxllm.Chunk(parts=[ToolCallPart("c1", "Place", '{"city":"Rome"}')])).chat.completions
    called = chat.parse(model="m", messages=TURNS, tools=[pydantic_function_tool(Place)]).choices[0].message
    assert Place(city="Rome") == called.tool_calls[0].function.parsed_arguments
    result = {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
    chat.create(model="m", messages=[*TURNS, called, result])


def test_early_error_is_asked_once(ask):
    """The SDK does not retry an early 429, because rxllm has retried already."""
    import openai

    with FakeServer(Reply.json({"error": {"message": "slow"}}, status=429)) as upstream:
        llm = rxllm.OpenAI("m", base_url=upstream.url, api_key="k", api="chat", max_retries=0)
        with (
            Serving(served({"m": llm})) as server,
            openai.OpenAI(base_url=f"{server.url}/v1", api_key="k") as sdk,
            pytest.raises(openai.RateLimitError),
        ):
            sdk.chat.completions.create(model="m", messages=TURNS)
        assert 1 == len(upstream.requests)


def test_late_error_raises(ask):
    """A failure in the middle raises, after the text before it."""
    import openai

    chunks = ask("Hel", rxllm.Interrupted("cut")).chat.completions.create(model="m", messages=TURNS, stream=True)
    assert ["", "Hel"] == [next(chunks).choices[0].delta.content for _ in range(2)]
    with pytest.raises(openai.APIError):
        next(chunks)


async def test_async_client_that_leaves_stops_the_model():
    """Leaving the SDK's stream closes the request to the model."""
    import openai

    event = b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'
    with FakeServer(Reply([event, Signal()])) as upstream:
        llm = rxllm.OpenAI("m", base_url=upstream.url, api_key="k", api="chat")
        with Serving(served({"m": llm})) as server:
            async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="k") as sdk:
                stream = await sdk.chat.completions.create(model="m", messages=TURNS, stream=True)
                async for chunk in stream:
                    if chunk.choices[0].delta.content:
                        break
                await stream.close()
                await upstream.exchange().closed_soon()


def test_retry_after_a_lost_connection_and_a_failure_gets_a_new_answer(caplog):
    """The client has not seen the failure. With the same Idempotency-Key it gets a new answer, and that one again."""
    import openai

    cut, whole = Signal(), Chat().stream(["Hello ", "wonderful"])
    with FakeServer(Reply([*Chat().before("wonderful", whole), cut, End.FIN]), Reply(whole)) as upstream:
        llm = rxllm.OpenAI("m", base_url=upstream.url, api_key="k", api="chat", max_retries=0)
        with Serving(served({"m": llm})) as server, openai.OpenAI(base_url=f"{server.url}/v1", api_key="k") as sdk:

            def pieces():
                key = {"Idempotency-Key": "k"}
                with sdk.chat.completions.create(model="m", messages=TURNS, stream=True, extra_headers=key) as stream:
                    yield from (chunk.choices[0].delta.content for chunk in stream if chunk.choices[0].delta.content)

            lost = pieces()
            assert "Hello " == next(lost)
            lost.close()
            cut.set()
            wait_until(lambda: any(record.name == "rxllm.serve" for record in caplog.records))  # the failure is logged
            assert [["Hello ", "wonderful"]] * 2 == [[*pieces()], [*pieces()]]
            assert 2 == len(upstream.requests)


def test_models_are_listed(ask):
    """`models.list` and `models.retrieve` work."""
    sdk = ask("a")
    assert ["m"] == [model.id for model in sdk.models.list()]
    assert "m" == sdk.models.retrieve("m").id
