"""`from_langchain`: models and chains of LangChain in programs of rxllm. tests/clients has those of vendors."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import ClassVar

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, FakeListLLM, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from protocols import Chat
from pydantic import ConfigDict, Field, SecretStr

import rxllm
from rxllm import (
    BadRequest,
    Chunk,
    Interrupted,
    Message,
    MisuseError,
    ParseError,
    ProtocolError,
    ProviderError,
    RateLimited,
    ReasoningPart,
    TextPart,
    Timeout,
    ToolCallPart,
    TransportError,
    Usage,
)
from rxllm.adapters import from_langchain, to_langchain
from rxllm.testing import End, FakeServer, LLMContract, Reply, Signal

CHAT = Chat()
KEY = "sk-0123456789abcdef"


class Told(BaseChatModel):
    """A chat model of LangChain that emits what a test tells it, and notes what it is asked."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    chunks: list
    asked: list = Field(default_factory=list)
    began: Signal = Field(default_factory=Signal)
    closed: Signal = Field(default_factory=Signal)
    api_key: SecretStr = SecretStr(KEY)

    @property
    def _llm_type(self) -> str:
        return "told"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.asked.append((messages, {"stop": stop, **kwargs}))
        return ChatResult(generations=[ChatGeneration(message=self.chunks[0])])

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs) -> AsyncIterator[ChatGenerationChunk]:
        self.asked.append((messages, {"stop": stop, **kwargs}))
        self.began.set()
        try:
            for chunk in self.chunks:
                if isinstance(chunk, Signal):
                    await chunk.soon()
                elif isinstance(chunk, Exception):
                    raise chunk
                else:
                    yield ChatGenerationChunk(
                        message=chunk if isinstance(chunk, AIMessageChunk) else AIMessageChunk(chunk)
                    )
        finally:
            self.closed.set()

    def bind_tools(self, tools, *, tool_choice=None, **kwargs):
        """Bind the tools as the packages of vendors do."""
        return self.bind(tools=tools, tool_choice=tool_choice, **kwargs)


class TestContract(LLMContract):
    """A model of LangChain behaves as every model does."""

    def create_model(self):
        """Return a model whose answers LangChain streams word by word."""

        class Sparkling(BaseChatModel):
            @property
            def _llm_type(self) -> str:
                return "sparkling"

            def _generate(self, messages, stop=None, run_manager=None, **kwargs):
                return ChatResult(generations=[ChatGeneration(message=AIMessage("Bubbles dance."))])

            def _stream(self, messages, stop=None, run_manager=None, **kwargs) -> Iterator[ChatGenerationChunk]:
                for word in "Bubbles", " dance", ".":
                    yield ChatGenerationChunk(message=AIMessageChunk(word))

        return from_langchain(Sparkling())


async def test_answer_of_a_stream_has_everything():
    """Text, reasoning, calls in fragments, the sum of the counts, why it ended, the model, the id."""
    counts = {"input_tokens": 7, "output_tokens": 0, "total_tokens": 7, "input_token_details": {"cache_read": 2}}
    more = {"input_tokens": 0, "output_tokens": 9, "total_tokens": 9, "output_token_details": {"reasoning": 4}}
    call = {"name": "weather", "args": '{"city"', "id": "c1", "index": 1, "type": "tool_call_chunk"}
    rest = {"name": None, "args": ':"Rome"}', "id": None, "index": 1, "type": "tool_call_chunk"}
    model = Told(
        chunks=[
            AIMessageChunk([{"type": "reasoning", "reasoning": "Let me", "index": 0}], usage_metadata=counts),
            AIMessageChunk([{"type": "reasoning", "reasoning": " see.", "index": 0, "extras": {"signature": "s"}}]),
            "I ",
            AIMessageChunk("look.", response_metadata={"model_name": "m", "id": "a1"}),
            AIMessageChunk("", tool_call_chunks=[call]),
            AIMessageChunk("", tool_call_chunks=[rest]),
            AIMessageChunk("", usage_metadata=more, response_metadata={"finish_reason": "tool_calls"}),
        ]
    )
    chunks = [chunk async for chunk in from_langchain(model).astream("hi")]
    assert all(chunks)
    assert (
        Message(
            "assistant",
            [
                ReasoningPart("Let me see.", "s"),
                TextPart("I look."),
                ToolCallPart("c1", "weather", '{"city":"Rome"}', 1),
            ],
            usage=Usage(input_tokens=7, output_tokens=9, cache_read_input_tokens=2, reasoning_output_tokens=4),
            finish_reason="tool_call",
            raw_finish_reason="tool_calls",
            model="m",
            id="a1",
        )
        == sum(chunks, Chunk()).message()
    )


async def test_tools_that_the_vendor_ran_go_back_as_they_came():
    """They are raw parts: an agent of rxllm must not take them for calls of its own tools."""
    maker = {"model_provider": "acme"}
    search = {"type": "server_tool_call_chunk", "id": "s1", "name": "web_search", "args": '{"q', "index": 0}
    found = {"type": "server_tool_result", "tool_call_id": "s1", "status": "success", "output": [1]}
    model = Told(
        chunks=[
            AIMessageChunk([search], response_metadata=maker),
            AIMessageChunk([{"type": "server_tool_call_chunk", "args": '": 1}', "index": 0}], response_metadata=maker),
            AIMessageChunk([found], response_metadata=maker),
            "Found.",
            AIMessageChunk([{**search, "id": "s2", "index": 3}], response_metadata=maker),
        ]
    )
    answer = await from_langchain(model).ainvoke("hi")
    first, second, text, third = answer.parts
    assert ("server_tool_call", '{"q": 1}') == (first.data["type"], first.data["args"])
    assert (found, "Found.", "s2") == (second.data, text.text, third.data["id"])
    assert "acme" == first.provider
    assert () == answer.tool_calls


async def test_whole_answers_are_asked_for_with_stream_false():
    """LangChain's own call for them is used."""
    call = {"name": "weather", "args": {"city": "Rome"}, "id": "c1"}
    model = Told(chunks=[AIMessage("I look.", tool_calls=[call], response_metadata={"model_name": "m"})])
    [chunk] = [chunk async for chunk in from_langchain(model).astream("hi", stream=False)]
    assert ("I look.", "weather", "m") == (chunk.text, chunk.tool_calls[0].name, chunk.model)


def test_parameters_and_tools_reach_the_model():
    """Under the names that LangChain's packages share; `extra` has further keywords."""
    model = Told(chunks=["Hi"])
    spec = rxllm.ToolSpec("weather", "Tell the weather.", {"type": "object", "properties": {}}, strict=True)
    llm = from_langchain(model)
    llm.invoke(
        [("system", "Be brief."), ("user", "hi")], temperature=0.5, max_tokens=9, top_p=1, model="other",
        stop_sequences=["."], tools=spec, tool_choice="required", parallel_tool_calls=False, extra={"user": "ada"},
    )  # fmt: skip
    [(messages, keywords)] = model.asked
    assert [("system", "Be brief."), ("human", "hi")] == [(message.type, message.content) for message in messages]
    [sent] = keywords.pop("tools")
    assert {"name": "weather", "description": "Tell the weather.", "strict": True} == {
        name: sent["function"][name] for name in ("name", "description", "strict")
    }
    assert {
        "stop": ["."], "temperature": 0.5, "max_tokens": 9, "top_p": 1, "model": "other", "user": "ada",
        "tool_choice": "any", "parallel_tool_calls": False,
    } == keywords  # fmt: skip
    llm.invoke("hi", tools=spec, tool_choice="none")
    assert "tools" not in model.asked[-1][1]


@pytest.mark.parametrize(
    ("runnable", "settings", "words"),
    [
        (Told(chunks=[]), {"effort": "low"}, "no common word for effort"),
        (Told(chunks=[]), {"response_format": "json"}, "Ask for a shape"),
        (FakeListLLM(responses=["x"]), {"tools": rxllm.ToolSpec("t")}, "takes no tools"),
        (GenericFakeChatModel(messages=iter(["x"])), {"tools": rxllm.ToolSpec("t")}, "takes no tools"),
        (Told(chunks=[]) | StrOutputParser(), {"temperature": 0}, "passes no parameters on"),
    ],
)
def test_parameter_without_a_counterpart_is_refused(runnable, settings, words):
    """Nothing is dropped in silence."""
    with pytest.raises(MisuseError, match=words):
        from_langchain(runnable).invoke("hi", **settings)


def test_shape_is_asked_for_by_a_call_or_in_the_prompt():
    """A model with tools gets a forced call; any other a sentence in its prompt."""
    call = {"name": "answer", "args": '{"value":[1,2]}', "id": "c1", "index": 0, "type": "tool_call_chunk"}
    with_tools = Told(chunks=[AIMessageChunk("", tool_call_chunks=[call])])
    assert [1, 2] == rxllm.shaped(from_langchain(with_tools), list[int]).invoke("Two numbers?")
    assert "any" == with_tools.asked[0][1]["tool_choice"]
    without = GenericFakeChatModel(messages=iter([AIMessage('{"value": [1, 2]}')]))
    assert [1, 2] == rxllm.shaped(from_langchain(without), list[int]).invoke("Two numbers?")


def test_bindings_of_langchain_count():
    """A model with bound keywords is still that model."""
    model = Told(chunks=["Hi"])
    llm = from_langchain(model.bind(user="ada").with_retry())
    assert "Hi" == llm.invoke("hi", temperature=0.5).text
    assert {"stop": None, "temperature": 0.5, "user": "ada"} == model.asked[0][1]


def test_completion_models_and_chains():
    """Texts of a completion model; a chain with an input of its own; messages of a chain without a parser."""
    llm = from_langchain(FakeListLLM(responses=["Hello"]))
    assert ("Hello", "llm") == (llm.invoke([("system", "a"), ("user", "b")]).text, llm.kind(rxllm.Request(prompt="x")))
    model = Told(chunks=["Hi ", "ada"])
    chain = ChatPromptTemplate.from_template("Greet {name}") | model
    for runnable in chain, chain | StrOutputParser():
        greeting = from_langchain(runnable, prompt=lambda request: {"name": request.text})
        assert ["Hi ", "ada"] == [chunk.text for chunk in greeting.stream("Ada")]
    assert "Greet Ada" == model.asked[-1][0][0].content
    function = RunnableLambda(lambda text: text.upper())
    assert "HI" == from_langchain(function).invoke("hi").text
    seen = []
    function = RunnableLambda(lambda messages: seen.extend(messages) or "Hi")
    assert "Hi" == from_langchain(function).invoke([("user", "hi")]).text
    assert ["human"] == [message.type for message in seen]


def test_values_that_are_no_text_are_refused():
    """The message says where to cut the chain."""
    with pytest.raises(MisuseError, match="before its output parser"):
        from_langchain(Told(chunks=["{}"]) | JsonOutputParser()).invoke("hi")
    with pytest.raises(MisuseError, match="Runnable of LangChain, not str"):
        from_langchain("gpt-5-mini")


class StatusError(Exception):
    """What SDKs raise for a status."""

    def __init__(self, status, message="no", **facts):
        super().__init__(message)
        self.status_code = status
        vars(self).update(facts)


class APIError(Exception):
    """What the SDKs of OpenAI and Anthropic raise for an error in a stream."""

    body: ClassVar = {"type": "error", "error": {"type": "overloaded_error", "message": "Too busy."}}


class APIConnectionError(Exception):
    """What they raise for a connection that broke."""


class ReadTimeout(Exception):
    """What HTTP clients raise."""


class Response:
    """A response that botocore or httpx keep on an error."""

    headers: ClassVar = {"Retry-After": "7"}
    text = '{"error": "slow"}'
    status_code = 429


FAILURES = {
    "429": (StatusError(429, response=Response()), RateLimited, True),
    "400": (StatusError(400), BadRequest, False),
    "500": (StatusError(500), ProviderError, True),
    "spent": (StatusError(429, code="insufficient_quota"), RateLimited, False),
    "in the stream": (APIError("x"), rxllm.Overloaded, True),
    "of a response": (type("HTTPStatusError", (Exception,), {"response": Response()})("x"), RateLimited, True),
    "connection": (APIConnectionError("x"), TransportError, True),
    "network": (ConnectionResetError("x"), TransportError, True),
    "time": (ReadTimeout("x"), Timeout, True),
    "python's time": (TimeoutError("x"), Timeout, True),
    "parser": (OutputParserException("x", llm_output="y"), ParseError, False),
}


@pytest.mark.parametrize(("failure", "kind", "retryable"), FAILURES.values(), ids=FAILURES)
async def test_failure_is_an_error_of_rxllm(failure, kind, retryable):
    """With LangChain's exception as the cause."""
    with pytest.raises(kind) as caught:
        await from_langchain(Told(chunks=[failure])).ainvoke("hi")
    assert (failure, retryable, "hi") == (caught.value.__cause__, caught.value.retryable, caught.value.request.text)
    if kind is RateLimited and retryable:
        assert (7, Response.text) == (caught.value.retry_after, caught.value.body)


async def test_failure_in_the_middle_has_the_partial_answer():
    """A broken connection is an answer that broke off."""
    with pytest.raises(Interrupted) as caught:
        await from_langchain(Told(chunks=["Hel", APIConnectionError("x")])).ainvoke("hi")
    assert "Hel" == caught.value.partial.text


async def test_key_in_a_failure_is_blanked():
    """A server repeats the key, and the exception of LangChain shows it, so it is not the cause."""
    with pytest.raises(RateLimited, match="slow \\*\\*\\*") as caught:
        await from_langchain(Told(chunks=[StatusError(429, f"slow {KEY}")])).ainvoke("hi")
    assert (None, True) == (caught.value.__cause__, caught.value.__suppress_context__)


def parsed(text):
    """Read an answer as a package of LangChain may do it."""
    return json.loads(text)["choices"][0]["message"].strip()


class Parsing(Told):
    """A model that reads each answer by `parsed`."""

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=AIMessage(parsed(self.chunks[0])))])

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        for chunk in self.chunks:
            yield ChatGenerationChunk(message=AIMessageChunk(parsed(chunk)))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ('{"choices": 7}', TypeError),
        ('{"choices": []}', IndexError),
        ("{}", KeyError),
        ('{"choices": [{"message": 7}]}', AttributeError),
        ("{", json.JSONDecodeError),
    ],
)
async def test_answer_that_a_model_cannot_read_is_a_protocol_error(answer, kind, stream):
    """The exception of the model's class is the cause. The chain around the model makes no difference."""
    model = Parsing(chunks=[answer])
    for runnable in (model, model.bind(user="ada"), RunnableLambda(lambda prompt: prompt) | model):
        with pytest.raises(ProtocolError, match="LangChain could not read the response") as caught:
            await from_langchain(runnable).ainvoke("hi", stream=stream)
        assert kind is type(caught.value.__cause__)
        assert "hi" == caught.value.request.text


async def test_error_document_instead_of_an_answer_is_the_error_of_the_provider():
    """langchain-openai raises a ValueError with the document, whose status was 200."""
    refusal = ValueError({"message": "Too busy.", "type": "overloaded_error"})
    with pytest.raises(rxllm.Overloaded, match=r"Too busy\.") as caught:
        await from_langchain(Told(chunks=[refusal])).ainvoke("hi")
    assert refusal is caught.value.__cause__


async def test_stream_without_an_answer_is_a_protocol_error():
    """LangChain raises a ValueError."""
    with pytest.raises(ProtocolError, match="No generation"):
        await from_langchain(Told(chunks=[])).ainvoke("hi")


@pytest.mark.parametrize("stream", [True, False])
async def test_mistake_of_the_program_stays_as_it_is(stream):
    """A function in a chain, a callback, an unknown keyword: no response is at fault."""
    model = Told(chunks=[AIMessage("Hi")] if stream is False else ["Hi"])

    class Writing(Told):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            return self._get_request_payload(messages)

        async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
            yield self._get_request_payload(messages)

        def _get_request_payload(self, messages):
            return {"system": 0}[messages[0].type]

    class Calling(Told):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            return parsed(messages, **kwargs)

        async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
            yield parsed(messages, **kwargs)

    for chain, kind in (
        (model | RunnableLambda(lambda message: message["text"]), TypeError),
        (RunnableLambda(lambda messages: messages[7]) | model, IndexError),
        (Writing(chunks=[]), KeyError),
        (Calling(chunks=[]).bind(unknown=1), TypeError),
    ):
        with pytest.raises(kind):
            await from_langchain(chain).ainvoke("hi", stream=stream)


class Refusing(Told):
    """A model that refuses a request while it writes it, as langchain-anthropic refuses sound."""

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return self._get_request_payload(messages)

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        yield self._get_request_payload(messages)

    def _get_request_payload(self, messages):
        if messages[0].text == "number":
            return json.loads("{")
        raise {"sound": ValueError, "video": NotImplementedError}[messages[0].text]("sk-1 takes no such block.")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("prompt", "kind"), [("sound", ValueError), ("video", NotImplementedError)])
async def test_request_that_a_model_cannot_write_is_a_misuse_error(prompt, kind, stream):
    """The error is about the request, so a server answers 400 instead of 500. Other exceptions are mistakes."""
    llm = from_langchain(Refusing(chunks=[]))
    with pytest.raises(MisuseError, match="LangChain refuses the request: sk-1 takes no such block") as caught:
        await llm.ainvoke(prompt, stream=stream)
    assert (kind, prompt) == (type(caught.value.__cause__), caught.value.request.text)
    with pytest.raises(json.JSONDecodeError):
        await llm.ainvoke("number", stream=stream)


async def test_callback_that_refuses_stays_as_it_is():
    """LangChain calls the callbacks of the program while its model writes and reads."""

    class Refusal(BaseCallbackHandler):
        raise_error = True

        def on_llm_new_token(self, token, **_):
            raise ValueError("No such response.")

    with pytest.raises(ValueError, match="No such response"):
        await from_langchain(Told(chunks=["Hi"], callbacks=[Refusal()])).ainvoke("hi")


async def test_other_exceptions_stay_as_they_are():
    """A mistake in a chain is not reported as a failed request."""
    with pytest.raises(ZeroDivisionError):
        await from_langchain(RunnableLambda(lambda _: 1 // 0)).ainvoke("hi")
    with pytest.raises(MisuseError, match="temperature"):
        await from_langchain(to_langchain(rxllm.Embedded())).ainvoke("hi", temperature=-1)

    def refuse(_):
        raise MisuseError("Not so.")

    with pytest.raises(MisuseError, match="Not so"):
        await from_langchain(to_langchain(rxllm.adapters.from_callable(refuse))).ainvoke("hi")


@pytest.mark.parametrize("how", ["break", "aclose", "cancel", "for"])
async def test_leaving_closes_the_stream_of_langchain(how):
    """Also while it waits for the next chunk."""
    model = Told(chunks=["Hel", Signal()])
    llm = from_langchain(model)

    async def read(stream):
        async for _ in stream:
            if how != "cancel":
                break

    if how == "for":
        await asyncio.to_thread(lambda: [*zip([1], llm.stream("hi"), strict=False)])
    elif how == "cancel":
        task = asyncio.create_task(read(llm.astream("hi")))
        await model.began.soon()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        stream = llm.astream("hi")
        await read(stream)
        if how == "aclose":
            await stream.aclose()
        del stream
    await model.closed.soon()


def test_model_serves_several_loops_in_turn():
    """A model of LangChain whose connections a closed loop kept is asked again."""
    lost = [RuntimeError("Event loop is closed"), RuntimeError("<Event> is bound to a different event loop")]

    class Forgetful(Told):
        async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
            if lost:
                raise APIConnectionError("Connection error.") from lost.pop()
            yield ChatGenerationChunk(message=AIMessageChunk("Hi"))

    llm = from_langchain(Forgetful(chunks=[]))
    assert ["Hi", "Hi"] == [asyncio.run(llm.ainvoke("hi")).text, llm.invoke("hi").text]
    lost += [RuntimeError("Event loop is closed")] * 50
    with pytest.raises(TransportError):
        llm.invoke("hi")


async def test_answer_without_its_finish_reason_is_cut_off():
    """The models of some vendors always tell it, and LangChain takes a broken stream for whole."""

    class Vendor(Told):
        def _get_ls_params(self, stop=None, **kwargs):
            return {"ls_provider": "openai", "ls_model_type": "chat"}

    whole = AIMessageChunk("", response_metadata={"finish_reason": "stop"})
    assert "Hello" == (await from_langchain(Vendor(chunks=["Hello", whole])).ainvoke("hi")).text
    with pytest.raises(Interrupted, match="without its finish reason") as caught:
        await from_langchain(Vendor(chunks=["Hel"])).ainvoke("hi")
    assert "Hel" == caught.value.partial.text


async def test_agent_of_rxllm_on_a_model_of_langchain():
    """The calls, the results and the reasoning of the model go back to it."""
    call = {"name": "look", "args": '{"city":"Rome"}', "id": "c1", "index": 0, "type": "tool_call_chunk"}

    class Rounds(Told):
        async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
            self.asked.append(messages)
            chunk = AIMessageChunk("", tool_call_chunks=[call]) if len(self.asked) == 1 else AIMessageChunk("Rain.")
            yield ChatGenerationChunk(message=chunk)

    def look(city: str) -> str:
        return f"Wet in {city}."

    model = Rounds(chunks=[])
    answer = await rxllm.agent(from_langchain(model), look).ainvoke("Weather?")
    assert "Rain." == answer.text
    assert ["human", "ai", "tool"] == [message.type for message in model.asked[1]]
    assert ("Wet in Rome.", "c1") == (model.asked[1][2].content, model.asked[1][2].tool_call_id)


def test_model_of_rxllm_through_langchain_and_back():
    """Both adapters in a row lose nothing, and the server's connection is closed."""
    answer = CHAT.stream(["I ", "look."], reasoning=["Hm."], usage=(7, 9))
    with FakeServer(Reply(answer)) as server:
        direct = rxllm.OpenAI("m", base_url=f"{server.url}/v1", api_key=KEY)
        there_and_back = from_langchain(to_langchain(direct))
        assert direct.invoke("hi") == there_and_back.invoke("hi")
        server.reply(Reply([*answer[:4], End.HANG]))
        for _ in there_and_back.stream("hi"):
            break
        server.exchange(2).wait_closed()
    service = there_and_back.service(rxllm.Request(prompt="hi"))
    assert ("openai", "m") == (service.provider, service.model)


async def test_events_name_the_kind_and_the_service():
    """Handlers of rxllm see a run like that of any model."""
    events = [event async for event in from_langchain(Told(chunks=["Hi"], name="x")).astream_events("hi")]
    assert ["on_chat_model_start", "on_chat_model_stream", "on_chat_model_end"] == [event["event"] for event in events]
    assert {"LangChainLLM"} == {event["name"] for event in events}
