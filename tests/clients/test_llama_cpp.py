"""Real llama.cpp answers over HTTP, by four protocols, with a model that says known sentences (see `tiny_gguf`)."""

from __future__ import annotations

import importlib.util
import json
import time

import httpx
import pytest
from llama_process import running
from tiny_gguf import ASKED_FOR_EVER, CHAINS, SONG, THOUGHT, write_model

import rxllm
from rxllm import LLM, Anthropic, AuthenticationError, BadRequest, Message, OpenAI, ToolResultPart, ToolSpec
from rxllm.cli.chat import Newest

if importlib.util.find_spec("xllamacpp") is None:
    pytest.skip("the extra 'clients' is not installed", allow_module_level=True)

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = ToolSpec("weather", "Tells the weather of a city.", CITY)


def chat(url: str, **settings) -> LLM:
    """A model asked by chat completions."""
    return OpenAI("tiny", api="chat", server="llama.cpp", base_url=url + "/v1", **settings)


def responses(url: str, **settings) -> LLM:
    """A model asked by Responses."""
    return OpenAI("tiny", api="responses", server="llama.cpp", base_url=url + "/v1", **settings)


def completions(url: str, **settings) -> LLM:
    """A model asked by the older completions."""
    return OpenAI("tiny", api="completions", server="llama.cpp", base_url=url + "/v1", **settings)


def messages(url: str, **settings) -> LLM:
    """A model asked by Anthropic's messages."""
    return Anthropic("tiny", base_url=url, **settings)


conversations = pytest.mark.parametrize("protocol", [chat, responses, messages], ids=lambda f: f.__name__)
streams_and_wholes = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The file of the model."""
    path = tmp_path_factory.mktemp("llama") / "tiny.gguf"
    write_model(path)
    return path


@pytest.fixture(scope="module")
def url(model):
    """The address of a server that all tests of this module share."""
    with running(model) as address:
        yield address


@conversations
@streams_and_wholes
def test_text_and_reasoning_arrive_apart(protocol, stream, url):
    """The server takes the thoughts out of the text, and so does the answer."""
    answer = protocol(url).invoke("Sing!", stream=stream)
    assert "".join(SONG) == answer.text
    assert "".join(THOUGHT) == answer.reasoning
    assert "stop" == answer.finish_reason
    assert "tiny" == answer.model


@conversations
def test_a_token_is_a_chunk(protocol, url):
    """A chunk arrives for each token of the text."""
    assert SONG == [chunk.text for chunk in protocol(url).stream("Sing!") if chunk.text]


@streams_and_wholes
def test_completions_continue_a_text(stream, url):
    """The completions protocol applies no template: the model continues the text itself."""
    assert " wet." == completions(url).invoke("Sparkling water is", stream=stream).text


@streams_and_wholes
def test_usage_agrees_with_the_server_s_tokens(stream, url):
    """The counts are those of the server's tokenizer, and all protocols report the same."""
    conversation = {"messages": [{"role": "user", "content": "Sing a song!"}]}
    prompt = post(url, "/apply-template", conversation)["prompt"]
    tokens = post(url, "/tokenize", {"content": prompt, "add_special": True, "parse_special": True})["tokens"]
    counts = {"input_tokens": len(tokens), "output_tokens": len(CHAINS[0]) - 1}
    for protocol in (chat, responses, messages):
        for _ in range(2):  # the second time the server reads the prompt from its cache
            usage = protocol(url).invoke("Sing a song!", stream=stream).usage
            assert counts == {name: getattr(usage, name) for name in counts}
        assert usage.cache_read_input_tokens > 0


@conversations
@streams_and_wholes
def test_parallel_calls_and_their_results(protocol, stream, url):
    """Two calls come back with their results and the thoughts of an earlier turn, and the model answers."""
    llm = protocol(url, stream=stream, tools=[WEATHER], parallel_tool_calls=True)
    history = [Message("user", "Sing!"), protocol(url).invoke("Sing!"), Message("user", "The weather?")]
    answer = llm.invoke(history)
    assert "tool_call" == answer.finish_reason
    assert [("weather", {"city": "Paris"}), ("weather", {"city": "Rome"})] == [
        (call.name, json.loads(call.arguments)) for call in answer.tool_calls
    ]
    assert 2 == len({call.id for call in answer.tool_calls})
    results = [Message("tool", [ToolResultPart(call.id, "wet", name=call.name)]) for call in answer.tool_calls]
    assert "".join(SONG) == llm.invoke([*history, answer, *results]).text


@conversations
def test_the_server_gets_the_history_as_it_was(protocol, url, model):
    """The template puts texts, thoughts, calls and results of the conversation in the prompt, by all protocols."""
    llm = protocol(url, tools=[WEATHER], parallel_tool_calls=True)
    history = [Message("user", "The weather?"), llm.invoke("The weather?")]
    results = [Message("tool", [ToolResultPart(c.id, "wet", name=c.name)]) for c in history[1].tool_calls]
    usages = {ask: ask(url, tools=[WEATHER]).invoke([*history, *results]).usage for ask in (chat, protocol)}
    assert usages[chat].input_tokens == usages[protocol].input_tokens


@streams_and_wholes
def test_json_schema(stream, url):
    """The server's grammar makes the model obey the schema, which the model by itself does not."""
    properties = {"city": {"enum": ["Ulm"]}, "wet": {"type": "boolean"}, "days": {"enum": [3]}}
    schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    answer = chat(url).invoke("The weather?", response_format=schema, stream=stream, max_tokens=500)
    told = json.loads(answer.text)
    assert {"city": "Ulm", "wet": told["wet"], "days": 3} == told
    assert isinstance(told["wet"], bool)


@pytest.mark.parametrize("protocol", [chat, responses, completions, messages], ids=lambda f: f.__name__)
@streams_and_wholes
def test_answer_ends_at_the_limit(protocol, stream, url):
    """A limit of tokens ends the answer, which says so."""
    answer = protocol(url).invoke(f"Sing!\n{SONG[0]}", max_tokens=2, stream=stream)
    assert 2 == answer.usage.output_tokens
    assert (
        "stop" if protocol is responses else "length"
    ) == answer.finish_reason  # llama.cpp's Responses tell no limit


@pytest.mark.parametrize("protocol", [chat, completions, messages], ids=lambda f: f.__name__)
def test_answer_ends_before_a_stop_sequence(protocol, url):
    """The stop sequence is not a part of the answer."""
    answer = protocol(url).invoke(f"{SONG[0]}", stop_sequences=[" wet"])
    assert answer.text.endswith(" water is")
    assert "stop" == answer.finish_reason


@pytest.mark.parametrize("protocol", [chat, responses, completions, messages], ids=lambda f: f.__name__)
def test_cancelled_answer_frees_its_slot(protocol, url):
    """The server stops generating when the subscriber leaves an answer that would run for many seconds."""
    with protocol(url).stream(ASKED_FOR_EVER if protocol is completions else "For ever!", max_tokens=30_000) as answer:
        for _ in zip(range(20), answer, strict=False):
            pass
        assert 1 == busy_slots(url)
    began = time.monotonic()
    while busy_slots(url):
        assert time.monotonic() < began + 5


@pytest.mark.parametrize("protocol", [chat, responses, completions, messages], ids=lambda f: f.__name__)
def test_prompt_that_is_too_long_is_refused(protocol, url):
    """The server's error has its status and its sentence, and ``rxllm chat`` then sends fewer turns."""
    with pytest.raises(BadRequest, match="exceeds the available context size") as refusal:
        protocol(url).invoke("Sing!" * 7_000)
    assert 400 == refusal.value.status
    newest = Newest()
    assert 4 == len(newest((Message("user", "a"), Message("assistant", "b")) * 2))
    assert newest.shortens(refusal.value)
    assert 2 == len(newest((Message("user", "a"), Message("assistant", "b")) * 2))


def test_schema_that_is_none_is_refused(url):
    """The server's parser of schemas speaks through the error."""
    with pytest.raises(rxllm.ProviderError, match=r"(?i)schema|grammar|ref") as refusal:
        chat(url).invoke("Sing!", response_format={"$ref": "#/nowhere"})
    assert refusal.value.status >= 400


def test_many_streams_share_the_slots(url):
    """The server queues what is more than its two slots; all answers are whole and in their order."""
    answers = chat(url).batch([f"Sing {number}!" for number in range(12)], max_concurrency=12)
    assert ["".join(SONG)] * 12 == [answer.text for answer in answers]


def test_logprobs(url):
    """Each token has its log-probability; that of a sure token is near zero."""
    answer = chat(url).invoke("Sing!", extra={"logprobs": True, "top_logprobs": 2})
    told = {each["token"]: each["logprob"] for each in answer.logprobs["content"]}
    assert [*SONG] == [token for token in told if token in SONG]
    assert all(-0.01 < told[token] <= 0 for token in SONG)


def test_models_of_the_server(url):
    """The server lists its model by the alias that answers carry."""
    assert ("tiny",) == chat(url).models()


def test_key(model):
    """A wrong key is refused, and the right one is not in the error."""
    with running(model, "sesame-1") as address:
        assert "".join(SONG) == chat(address, api_key="sesame-1").invoke("Sing!").text
        assert "".join(SONG) == messages(address, api_key="sesame-1").invoke("Sing!").text
        with pytest.raises(AuthenticationError):
            chat(address, api_key="sesame-2").invoke("Sing!")


def post(url: str, path: str, document: object) -> dict:
    """The server's answer to a document."""
    return httpx.post(url + path, json=document).raise_for_status().json()


def busy_slots(url: str) -> int:
    """Return the number of answers that the server generates now."""
    return sum(slot["is_processing"] for slot in httpx.get(url + "/slots").raise_for_status().json())
