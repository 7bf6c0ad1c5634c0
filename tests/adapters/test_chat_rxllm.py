"""`ChatRxllm`, `to_langchain` and `to_langchain_llm`: models of rxllm in programs of LangChain.

LangChain's own suites for chat models run in tests/clients.
"""

import asyncio
import copy
import gc
import pickle
from typing import Annotated, TypedDict

import pytest
from combinators.scripted import Scripted, call
from langchain_core.caches import InMemoryCache
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool
from protocols import Chat, Completions, Messages, ToolCall
from pydantic import BaseModel, Field, ValidationError

import rxllm
from rxllm import Chunk, Interrupted, MisuseError, ToolSpec, Usage
from rxllm.adapters import to_langchain, to_langchain_llm
from rxllm.adapters.langchain import ChatRxllm
from rxllm.testing import End, Endless, FakeServer, Reply

KEY = "sk-0123456789abcdef"
CHAT = Chat()
WORDS = ["Hel", "lo", "."]


def openai(server, **settings):
    """A model of rxllm that asks the server."""
    return rxllm.OpenAI("m", **{"base_url": f"{server.url}/v1", "api_key": KEY, "max_retries": 0} | settings)


@pytest.fixture
def server():
    """A server that answers with a stream."""
    with FakeServer(Reply(CHAT.stream(WORDS))) as server:
        yield server


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_chunks_arrive_one_by_one_and_the_last_has_the_facts(server):
    """By ``for`` and by ``async for``; and the whole answer has the same facts."""
    chat = to_langchain(openai(server))
    chunks = [chunk async for chunk in chat.astream("hi")]
    assert [*WORDS, ""] == [chunk.content for chunk in chunks]
    assert [*WORDS, ""] == await asyncio.to_thread(lambda: [chunk.content for chunk in chat.stream("hi")])
    assert [None] * 3 == [chunk.usage_metadata for chunk in chunks[:-1]]
    told = {"finish_reason": "stop", "model_name": "model-1", "id": "answer_1"}
    for answer in chunks[-1], await chat.ainvoke("hi"):
        assert told == answer.response_metadata
        assert {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8} == answer.usage_metadata


def test_first_chunk_arrives_while_the_model_generates():
    """Nothing waits for the end of the answer."""
    with FakeServer(Reply([*CHAT.stream(WORDS)[:2], End.HANG])) as server:
        assert "Hel" == next(to_langchain(openai(server)).stream("hi")).content
        assert "Hel" == next(to_langchain_llm(openai(server)).stream("hi"))


def test_chain_of_langchain(server):
    """A prompt before it and a parser behind it."""
    chain = ChatPromptTemplate.from_messages([("system", "Be {x}."), ("user", "{y}")]) | to_langchain(openai(server))
    assert "Hello." == (chain | StrOutputParser()).invoke({"x": "brief", "y": "hi"})
    assert WORDS == [piece for piece in (chain | StrOutputParser()).stream({"x": "a", "y": "b"}) if piece]
    sent = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    assert sent == server.requests[0].json["messages"]
    assert ["Hello."] * 3 == [answer.text for answer in to_langchain(openai(server)).batch(["a", "b", "c"])]


def test_reasoning_and_its_signature_go_back():
    """An agent of LangChain sends the answer of Claude with its thinking, as Anthropic requires it."""
    answer = Messages().stream(["I look."], reasoning=["Let me", " see."], tool_call=ToolCall("c1", "weather", ["{}"]))
    for ask in (lambda chat: chat.invoke("Weather?")), (lambda chat: sum_of(chat.stream("Weather?"))):
        with FakeServer(Reply(answer), Reply(Messages().stream(["Rain."]))) as server:
            chat = to_langchain(rxllm.Anthropic("m", base_url=server.url, api_key=KEY))
            first = ask(chat)
            assert ["reasoning", "text", "tool_call"] == [block["type"] for block in first.content_blocks]
            assert (
                "Rain." == chat.invoke([HumanMessage("Weather?"), first, ToolMessage("Wet.", tool_call_id="c1")]).text
            )
            sent = server.requests[1].json["messages"][1]["content"]
        assert {"type": "thinking", "thinking": "Let me see.", "signature": "EqQBCgIYAhIM"} == sent[0]
        assert ["thinking", "text", "tool_use"] == [block["type"] for block in sent]


def sum_of(chunks):
    """Join chunks as a program of LangChain does."""
    first, *rest = chunks
    for chunk in rest:
        first += chunk
    return first


async def test_model_that_restarts_fails_instead_of_repeating_text():
    """LangChain has no way to take text back."""
    chat = to_langchain(Scripted([["a", Chunk("b", reset=True)]]))
    with pytest.raises(Interrupted, match="cannot take text back"):
        [chunk async for chunk in chat.astream("hi")]
    assert "b" == (await chat.ainvoke("hi")).text


def test_empty_answer_is_an_answer():
    """LangChain takes a stream without chunks for a failure."""
    chat = to_langchain(Scripted([[]]))
    assert [""] == [chunk.content for chunk in chat.stream("hi")]
    assert "" == chat.invoke("hi").content
    assert "" == "".join(to_langchain_llm(Scripted([[]])).stream("hi"))


# ── what is sent ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_parameters_of_the_constructor_and_of_a_call(server):
    """The call wins. A keyword that rxllm does not know is a field of the body."""
    chat = ChatRxllm(
        model="openai:m", base_url=f"{server.url}/v1", api_key=KEY, temperature=0, max_tokens=9, seed=1, top_p=0.5,
        stop=["END"], timeout=30, max_retries=0, parallel_tool_calls=False, model_kwargs={"user": "ada"},
    )  # fmt: skip
    chat.invoke("hi")
    chat.invoke("hi", temperature=1, stop=["."], model="openai:other", service_tier="flex")
    first, second = (request.json for request in server.requests)
    assert {"model": "m", "temperature": 0, "max_tokens": 9, "seed": 1, "top_p": 0.5, "user": "ada"} == {
        name: first[name] for name in ("model", "temperature", "max_tokens", "seed", "top_p", "user")
    }
    assert (["END"], ["."]) == (first["stop"], second["stop"])
    assert (1, 9, "other", "flex", "ada") == tuple(
        second[name] for name in ("temperature", "max_tokens", "model", "service_tier", "user")
    )
    assert f"Bearer {KEY}" == server.requests[0].headers["authorization"]


def test_model_of_rxllm_takes_the_parameters_too(server):
    """`llm` and parameters are ``llm.bind(…)``. The stop sequences have two names."""
    chat = ChatRxllm(llm=openai(server), model="other", temperature=0.5, stop_sequences=["x"], streaming=False)
    server.reply(Reply.json(CHAT.whole(WORDS)))
    assert ["Hello."] == [chunk.content for chunk in chat.stream("hi")]
    sent = server.requests[0].json
    assert ("other", 0.5, ["x"], False) == tuple(sent[name] for name in ("model", "temperature", "stop", "stream"))


def test_text_alone_suits_a_completion_model():
    """A single text of the user is a text, as the older protocol needs it."""
    with FakeServer(Reply(Completions().stream(WORDS))) as server:
        chat = to_langchain(openai(server, api="completions"))
        assert "Hello." == chat.invoke("hi").text
        assert "hi" == server.requests[0].json["prompt"]


def test_environment_names_the_model_and_its_key(server, monkeypatch):
    """As for `rxllm.model`."""
    monkeypatch.setenv("RXLLM_MODEL", "openai:m")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    chat = ChatRxllm()
    assert ("openai:m", "Hello.") == (chat.model, chat.invoke("hi").text)
    assert f"Bearer {KEY}" == server.requests[0].headers["authorization"]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"model": "openai:m", "temprature": 0}, ValidationError, "temprature"),
        ({"model": "nobody:m"}, MisuseError, "no provider"),
        ({}, MisuseError, "name of the model is missing"),
        ({"llm": rxllm.Embedded(), "api_key": KEY}, MisuseError, "api_key cannot change"),
        ({"llm": "embedded"}, ValidationError, "LLM"),
        ({"model": "openai:m", "temperature": -1}, MisuseError, "temperature"),
    ],
)
def test_wrong_argument_is_refused_when_the_model_is_made(arguments, error, words):
    """Nothing is dropped in silence, and the message names the argument."""
    with pytest.raises(error, match=words) as caught:
        ChatRxllm(**arguments)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("make", [to_langchain, to_langchain_llm])
def test_other_objects_are_refused(make):
    """A model or a pipeline is needed."""
    with pytest.raises(MisuseError, match="of rxllm, not 'x'"):
        make("x")


def test_key_is_shown_nowhere(server):
    """Not in a repr, nor in what LangChain's tracers get."""
    chat = ChatRxllm(model="openai:m", api_key=KEY, base_url=f"{server.url}/v1")
    wrapped = to_langchain(openai(server))
    for shown in repr(chat), repr(wrapped), str(chat._serialized), str(wrapped._serialized), str(chat.asdict()):
        assert KEY not in shown
    assert KEY not in str(pickle.dumps(wrapped))
    assert "RxllmRunnable(pipe(OpenAI('m'" in repr(to_langchain(rxllm.pipe(openai(server), rxllm.text())))


def test_pickled_model_has_its_key_from_the_environment(server, monkeypatch):
    """As each pickled model of rxllm. A copy in this process keeps the key."""
    chat = ChatRxllm(model="openai:m", api_key=KEY, base_url=f"{server.url}/v1", temperature=0.5)
    pickled = pickle.dumps(chat)
    assert KEY not in str(pickled)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-other-process")
    for model, key in (
        (pickle.loads(pickled), "sk-of-the-other-process"),  # noqa: S301  (our own bytes)
        (copy.deepcopy(chat), KEY),
        (chat, KEY),
    ):
        assert "Hello." == model.invoke("hi").text
        request = server.requests[-1]
        assert (f"Bearer {key}", 0.5) == (request.headers["authorization"], request.json["temperature"])


@pytest.mark.parametrize("word", ["api_key", "base_url", "max_retries", "timeout"])
@pytest.mark.parametrize("make", [to_langchain, to_langchain_llm])
def test_connection_cannot_change_with_a_call(server, make, word):
    """Other unknown keywords become fields of the body, where a key must not go."""
    with pytest.raises(MisuseError, match=f"{word} cannot change with a call"):
        make(openai(server)).invoke("hi", **{word: KEY})
    assert not server.requests


def test_changed_fields_count(server):
    """LangChain changes fields in copies, without checks, and programs assign them. The model in a cache is another."""
    chat = ChatRxllm(model="openai:m", api_key=KEY, base_url=f"{server.url}/v1")
    known = dict(chat._identifying_params)
    hot = chat.model_copy(update={"temperature": 0.7, "stop": ["."]})
    hot.invoke("hi")
    hot.stop.append("!")
    hot.invoke("hi")
    assert [[0.7, ["."]], [0.7, [".", "!"]]] == [[r.json["temperature"], r.json["stop"]] for r in server.requests]
    assert known == chat._identifying_params
    chat.max_tokens = 7
    chat.invoke("hi")
    assert 7 in server.requests[-1].json.values()
    assert known != chat._identifying_params
    chat.temperature = -1
    with pytest.raises(MisuseError, match="temperature must be"):
        chat.invoke("hi")
    other = to_langchain_llm(Scripted([["a"]]))
    known = dict(other._identifying_params)
    other.llm = Scripted([["b"]])
    assert known != other._identifying_params


def test_configurable_model(server):
    """LangChain makes another model with the changed field."""
    chat = ChatRxllm(llm=openai(server)).configurable_fields(temperature=ConfigurableField(id="heat"))
    chat.with_config(configurable={"heat": 0.7}).invoke("hi")
    assert 0.7 == server.requests[0].json["temperature"]


# ── tools and structured values ──────────────────────────────────────────────────────────────────────────────────────


@tool
def weather(city: str) -> str:
    """Tell the weather."""
    return f"Rain in {city}."


def publish(title: str) -> str:
    """Publish a text."""
    return title


class Joke(BaseModel):
    """A joke."""

    setup: str = Field(description="the question")
    title: str | None = None


JOKE = '{"setup": "Why?", "title": null}'
TOOLS = [
    weather,
    publish,
    Joke,
    Joke.model_json_schema() | {"title": "Other"},
    rxllm.tool(publish, name="mine"),
    ToolSpec("neutral"),
    {"name": "claudes", "description": "x", "input_schema": {"type": "object", "properties": {}}},
]


def test_tools_of_every_kind(server):
    """Tools of LangChain and of rxllm, functions, classes, schemas, and definitions of vendors."""
    chat = to_langchain(openai(server)).bind_tools(TOOLS, tool_choice="any", parallel_tool_calls=False)
    server.reply(Reply(CHAT.stream(tool_call=ToolCall("c1", "weather", ['{"city":', '"Rome"}']))))
    [called] = chat.invoke("Weather?").tool_calls
    assert {"name": "weather", "args": {"city": "Rome"}, "id": "c1", "type": "tool_call"} == called
    assert "Rain in Rome." == weather.invoke(called).content
    sent = server.requests[0].json
    names = ["weather", "publish", "Joke", "Other", "mine", "neutral", "claudes"]
    assert names == [each["function"]["name"] for each in sent["tools"]]
    assert ("required", False) == (sent["tool_choice"], sent["parallel_tool_calls"])
    assert "Tell the weather." == sent["tools"][0]["function"]["description"]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (True, "required"),
        ("any", "required"),
        ("auto", "auto"),
        ("none", "none"),
        ("weather", {"type": "function", "function": {"name": "weather"}}),
        (None, None),
        (False, None),
    ],
)
def test_tool_choice_in_every_form(server, choice, sent):
    """LangChain's words are those of several vendors."""
    to_langchain(openai(server)).bind_tools([weather], tool_choice=choice, strict=True).invoke("hi")
    body = server.requests[0].json
    assert sent == body.get("tool_choice")
    assert body["tools"][0]["function"]["strict"]


def test_fragments_of_calls_have_their_index(server):
    """LangChain joins them by it, also beside text."""
    calls = [ToolCall("c1", "weather", ['{"city":', '"Rome"}']), ToolCall("c2", "publish", ['{"title":', '"x"}'])]
    server.reply(Reply(CHAT.stream(["I look."], tool_call=calls)))
    for version in None, "v1":
        chat = ChatRxllm(llm=openai(server), output_version=version).bind_tools([weather, publish])
        whole = sum_of(chat.stream("hi"))
        assert [{"city": "Rome"}, {"title": "x"}] == [each["args"] for each in whole.tool_calls]
        assert ("I look.", ["c1", "c2"]) == (whole.text, [each["id"] for each in whole.tool_calls])
        assert ["text", "tool_call", "tool_call"] == [block["type"] for block in whole.content_blocks]


class JokeDict(TypedDict):
    """A joke."""

    setup: Annotated[str, ..., "the question"]
    title: Annotated[str | None, None, "its title"]


@pytest.mark.parametrize("schema", [Joke, JokeDict, Joke.model_json_schema()], ids=["class", "dict", "schema"])
@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_structured_value_by_the_field_for_a_schema(server, schema, method):
    """The schema is closed, as strict modes need it. Drafts are values, too."""
    server.reply(Reply(CHAT.stream([JOKE[:9], JOKE[9:]])))
    chain = to_langchain(openai(server)).with_structured_output(schema, method=method)
    values = [chain.invoke("A joke?"), [*chain.stream("A joke?")][-1]]
    assert ["Why?"] * 2 == [value.setup if schema is Joke else value["setup"] for value in values]
    form = server.requests[0].json["response_format"]["json_schema"]
    assert (True, False) == (form["strict"], form["schema"]["additionalProperties"])
    assert {"setup", "title"} == set(form["schema"]["required"])


def test_structured_value_by_a_call(server):
    """As every method of LangChain's own."""
    server.reply(Reply(CHAT.stream(tool_call=ToolCall("c1", "Joke", [JOKE]))))
    chain = to_langchain(openai(server)).with_structured_output(Joke, method="function_calling", strict=True)
    assert Joke(setup="Why?") == chain.invoke("A joke?")
    sent = server.requests[0].json
    assert ("required", True) == (sent["tool_choice"], sent["tools"][0]["function"]["strict"])


def test_structured_value_of_a_model_without_such_a_field():
    """The prompt asks for it, and prose around the value is left out."""
    llm = Scripted([f"Here it is:\n```json\n{JOKE}\n```"])
    chain = to_langchain(llm).with_structured_output(Joke, include_raw=True)
    told = chain.invoke("A joke?")
    assert (Joke(setup="Why?"), None) == (told["parsed"], told["parsing_error"])
    assert "JSON schema" in str(llm.requests[0].prompt)
    with pytest.raises(MisuseError, match="shape_mode"):
        to_langchain(llm).with_structured_output(Joke, strict=True).invoke("A joke?")
    with pytest.raises(MisuseError, match="'grammar'"):
        to_langchain(llm).with_structured_output(Joke, method="grammar")


def test_agent_of_rxllm_runs_its_own_tools_and_leaves_the_others():
    """LangChain sees the calls of its own tools only; the agent's are blocks, and go back with their results."""
    asked = [
        [call("look", '{"city":"Rome"}', "c1", finish_reason="tool_call")],
        [Chunk("It rains."), call("weather", '{"city":"Oslo"}', "c2", finish_reason="tool_call")],
        ["Done."],
    ]

    def look(city: str) -> str:
        return "Rain."

    for ask in (lambda chat: chat.invoke("Weather?")), (lambda chat: sum_of(chat.stream("Weather?"))):
        llm = Scripted(asked)
        chat = to_langchain(rxllm.agent(llm, look)).bind_tools([weather])
        answer = ask(chat)
        assert ["weather"] == [each["name"] for each in answer.tool_calls]
        assert "It rains." == answer.text
        again = chat.invoke([HumanMessage("Weather?"), answer, ToolMessage("Snow.", tool_call_id="c2")])
        assert "Done." == again.text
        assert ["user", "assistant", "tool", "assistant", "tool"] == [message.role for message in llm.prompts[-1]]


# ── leaving, failures, loops, caches ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("make", [to_langchain, to_langchain_llm])
@pytest.mark.parametrize("how", ["break", "aclose", "cancel", "chain", "for", "close"])
async def test_leaving_closes_the_request(make, how):
    """Whichever way the reader leaves, the server sees it."""
    events = CHAT.stream(WORDS)[:3]
    with FakeServer(Reply([*events, Endless(events[1])])) as server:
        model = make(openai(server))
        chain = ChatPromptTemplate.from_template("{x}") | model | StrOutputParser()

        async def read(stream):
            async for _ in stream:
                if how != "cancel":
                    break

        if how in ("for", "close"):
            await asyncio.to_thread(leave_loop, model, how)
        elif how == "cancel":
            task = asyncio.create_task(read(model.astream("hi")))
            await server.exchange().arrived.soon()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            stream = chain.astream({"x": "hi"}) if how == "chain" else model.astream("hi")
            await read(stream)
            if how in ("aclose", "chain"):
                await stream.aclose()
            del stream
            gc.collect()
        await server.exchange().closed_soon()
        assert server.exchange().aborted


def leave_loop(model, how):
    """Leave a plain loop after the first chunk."""
    stream = model.stream("hi")
    for _ in stream:
        break
    if how == "close":
        stream.close()
    del stream


def test_errors_are_those_of_rxllm(server):
    """`with_fallbacks` and a program of LangChain can tell them apart, and the partial answer is on them."""
    server.reply(Reply.json(CHAT.error_body(429, "slow"), status=429, headers={"retry-after": "3"}))
    for model in to_langchain(openai(server)), to_langchain_llm(openai(server)):
        with pytest.raises(rxllm.RateLimited, match="slow") as caught:
            model.invoke("hi")
        assert 3 == caught.value.retry_after
    backup = to_langchain(Scripted([["Backup."]]))
    safe = to_langchain(openai(server)).with_fallbacks([backup], exceptions_to_handle=(rxllm.RateLimited,))
    assert "Backup." == safe.invoke("hi").text
    server.reply(Reply([*CHAT.stream(WORDS)[:3], End.FIN]))
    with pytest.raises(Interrupted) as caught:
        [*to_langchain(openai(server)).stream("hi")]
    assert "Hello" == caught.value.partial.text


def test_model_serves_several_loops_in_turn(server):
    """LangChain's own models fail at the second ``asyncio.run``."""
    for model in to_langchain(openai(server)), to_langchain_llm(openai(server)):

        async def read(model=model):
            return [chunk async for chunk in model.astream("hi")], await model.ainvoke("hi")

        for _ in range(2):
            assert 2 == len(asyncio.run(read()))
            assert model.invoke("hi")


def test_different_models_do_not_share_a_cached_answer():
    """LangChain's cache is for all models of a program."""
    cache = InMemoryCache()
    for make in to_langchain, to_langchain_llm:
        models = [make(Scripted([[word]])).model_copy(update={"cache": cache}) for word in ("one", "two")]
        answers = [model.invoke("hi") for model in models]
        assert ["one", "two"] == [answer if isinstance(answer, str) else answer.text for answer in answers]
        same = [make(rxllm.Embedded(seed=1, temperature=0)).model_copy(update={"cache": cache}) for _ in range(2)]
        assert same[0]._identifying_params == same[1]._identifying_params
        assert same[0]._identifying_params != make(rxllm.Embedded(seed=2))._identifying_params


def test_generate_has_the_usage():
    """The older way of asking, for several prompts at once."""
    llm = Scripted([[Chunk("Hi", usage=Usage(input_tokens=3, output_tokens=1), model="m", finish_reason="stop")]])
    result = to_langchain_llm(llm).generate(["a", "b"])
    assert [["Hi"], ["Hi"]] == [[each.text for each in several] for several in result.generations]
    usage = {"prompt_tokens": 6, "completion_tokens": 2, "total_tokens": 8}
    assert {"token_usage": usage, "model_name": "m"} == result.llm_output
    result = asyncio.run(to_langchain_llm(llm).agenerate(["a"]))
    assert "stop" == result.generations[0][0].generation_info["finish_reason"]


def test_traces_name_the_model(server):
    """LangSmith's parameters have the vendor, the model and the sampling."""
    chat = to_langchain(openai(server, temperature=0.5, max_tokens=9, stop_sequences=["x"]))
    assert {
        "ls_provider": "openai",
        "ls_model_name": "m",
        "ls_model_type": "chat",
        "ls_temperature": 0.5,
        "ls_max_tokens": 9,
        "ls_stop": ["x"],
    } == chat._get_ls_params()
    named = to_langchain(openai(server, run_name="poet", tags=["b", "a"], metadata={"k": 1}))
    assert ("poet", ["a", "b"], 1) == (named.get_name(), named.tags, named.metadata["k"])
