"""`serve.openai`: what clients of OpenAI's protocol get; rxllm's own client is one of them."""

import json

import httpx
import pydantic
import pytest
import reactivex
from attrs import frozen
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda
from reactivex import operators as ops
from serving import Client, Scripted, Serving

import rxllm
from rxllm.adapters import from_callable, from_langchain
from rxllm.serve import openai
from rxllm.serve.openai_bodies import chat_request, completion_request
from rxllm.testing import End, FakeServer, Reply
from rxllm.values.parts import FilePart, ReasoningPart, ToolCallPart

KEYS = {"alice": "key-of-alice", "bob": "key-of-bob"}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


@frozen
class Answer:
    """A shape."""

    text: str


def client(server, name="m", key="k", **options):
    """Return rxllm's own client of the served application."""
    return rxllm.OpenAI(name, base_url=f"{server.url}/v1", api_key=key, api="chat", max_retries=0, **options)


def post(server, body, **headers):
    """Send a chat completion and return the response."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=60)


def frames(text):
    """Return the JSON documents of an event stream."""
    lines = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


ANSWER = (
    rxllm.Chunk(parts=[ReasoningPart("think")]),
    rxllm.Chunk("Hel"),
    rxllm.Chunk("lo"),
    rxllm.Chunk(finish_reason="stop", usage=rxllm.Usage(input_tokens=3, output_tokens=2, cache_read_input_tokens=1)),
)


@pytest.mark.parametrize("stream", [True, False])
def test_answer_comes_back_as_it_went(stream):
    """Text, reasoning, finish reason and usage reach rxllm's own client, streamed and whole."""
    with Serving(openai({"m": Scripted(*ANSWER)})) as server:
        answer = client(server).invoke("hi", stream=stream)
    assert ("Hello", "think", "stop", "m") == (answer.text, answer.reasoning, answer.finish_reason, answer.model)
    assert (3, 2, 1) == (
        answer.usage.input_tokens,
        answer.usage.output_tokens,
        answer.usage.cache_read_input_tokens,
    )


PNG = FilePart("image/png", b"\x89PNG")
LINK = FilePart("image/*", url="https://a.example/a.png")
SOUND = FilePart("audio/wav", b"RIFF")


def painter(*parts):
    """Return a model that answers with a text and files."""
    return Scripted("Look:", *(rxllm.Chunk(parts=[part]) for part in parts), rxllm.Chunk(finish_reason="stop"))


@pytest.mark.parametrize("stream", [True, False])
def test_picture_comes_back_as_it_went(stream):
    """A picture is an item of ``images``, which rxllm's own client reads, and takes back in the next request."""
    model = painter(PNG, LINK)
    with Serving(openai({"m": model})) as server:
        llm = client(server)
        answer = llm.invoke("draw", stream=stream)
        assert ("Look:", [PNG, LINK]) == (answer.text, [part for part in answer.parts if isinstance(part, FilePart)])
        llm.invoke([("user", "draw"), answer, ("user", "again")])
        message = model.asked[1].messages[1]
    assert [PNG, LINK] == [part for part in message.parts if isinstance(part, FilePart)]


@pytest.mark.parametrize("file", [SOUND, FilePart("image/png", file_id="f")])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("completions", {"prompt": "hi"}),
        ("responses", {"input": "hi"}),
    ],
)
def test_file_that_the_protocol_cannot_carry_is_an_error(path, body, file):
    """It would be lost, and the answer would look whole."""
    with Serving(openai({"m": painter(file)})) as server:
        whole, stream = (
            httpx.post(f"{server.url}/v1/{path}", json={"model": "m", "stream": stream, **body}, timeout=60)
            for stream in (False, True)
        )
    assert (502, "UnsupportedFile") == (whole.status_code, whole.json()["error"]["code"])
    assert f"a file of the type {file.media_type}" in stream.text
    assert not any(word in stream.text for word in ("[DONE]", "response.completed", '"finish_reason":"stop"'))


@pytest.mark.parametrize("stream", [True, False])
def test_picture_is_an_error_for_completions(stream):
    """``/v1/completions`` has texts only."""
    with Serving(openai({"m": painter(PNG)})) as server:
        body = {"model": "m", "prompt": "hi", "stream": stream}
        assert "image/png" in httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).text


def test_parameters_and_messages_reach_the_model():
    """The model gets every parameter that rxllm has; 'developer' is the system, unknown parameters are ignored."""
    llm = Scripted("ok")
    body = {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        ],
        "temperature": 0.5,
        "max_completion_tokens": 7,
        "stop": ["x"],
        "seed": 1,
        "top_k": 5,
        "reasoning_effort": "low",
        "tools": [WEATHER],
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
        "user": "u",
        "store": True,
    }
    with Serving(openai({"m": llm})) as server:
        assert 200 == post(server, body).status_code
    (request,) = llm.asked
    assert ["system", "user"] == [message.role for message in request.messages]
    assert (0.5, 7, ("x",), 1, 5, "low", "auto", "json") == (
        request.temperature,
        request.max_tokens,
        request.stop_sequences,
        request.seed,
        request.top_k,
        request.effort,
        request.tool_choice,
        request.response_format,
    )
    assert ["weather"] == [tool.name for tool in request.tools]


@pytest.mark.parametrize(
    "fields", [{}, {"parameters": None}, {"parameters": None, "strict": None, "description": None}]
)
def test_function_without_parameters_has_no_arguments(fields):
    """OpenAI's protocol lets a function leave its parameters out."""
    (tool,) = chat_request(
        {
            "messages": [{"role": "user", "content": "hi"}],
            "tools": [{"type": "function", "function": {"name": "now", **fields}}],
        }
    ).tools
    assert rxllm.ToolSpec("now") == tool


def test_two_values_for_one_parameter_are_refused():
    """One of them would be dropped in silence. Equal ones are one."""
    with Serving(openai({"m": Scripted("ok")})) as server:
        answer = post(server, {"max_tokens": 5, "max_completion_tokens": 9})
        assert 400 == answer.status_code
        assert "max_tokens 5 and max_completion_tokens 9. Keep one" in answer.json()["error"]["message"]
        assert 200 == post(server, {"max_tokens": 5, "max_completion_tokens": 5}).status_code


def test_calls_of_the_clients_tools_are_shown_and_an_agents_own_are_not():
    """A call of a tool that the client sent is shown with a position counted from 0; another call stays hidden."""
    chunks = (
        rxllm.Chunk(parts=[ToolCallPart("a", "secret", "{}", index=0)]),
        rxllm.Chunk(parts=[ToolCallPart("b", "weather", '{"x"', index=1)]),
        rxllm.Chunk(parts=[ToolCallPart("", "", ":1}", index=1)]),
        rxllm.Chunk(finish_reason="tool_call"),
    )
    with Serving(openai({"m": Scripted(*chunks)})) as server:
        llm = client(server)
        for stream in True, False:
            answer = llm.invoke("hi", tools=[WEATHER], stream=stream)
            assert [("b", "weather", '{"x":1}')] == [(c.id, c.name, c.arguments) for c in answer.tool_calls]
            assert "tool_call" == answer.finish_reason
            plain = llm.invoke("hi", stream=stream)
            assert ((), "stop") == (plain.tool_calls, plain.finish_reason)
        deltas = [
            c["delta"] for f in frames(post(server, {"tools": [WEATHER], "stream": True}).text) for c in f["choices"]
        ]
    assert [0, 0] == [call["index"] for delta in deltas for call in delta.get("tool_calls", ())]


def test_usage_comes_only_when_asked_or_always():
    """Unasked, a stream has no chunk without choices; ``usage="always"`` adds one."""
    with Serving(openai({"m": Scripted(*ANSWER)})) as server:
        assert all(frame["choices"] for frame in frames(post(server, {"stream": True}).text))
        asked = frames(post(server, {"stream": True, "stream_options": {"include_usage": True}}).text)
        assert 5 == asked[-1]["usage"]["total_tokens"]
    with Serving(openai({"m": Scripted(*ANSWER)}, usage="always")) as server:
        assert "usage" in frames(post(server, {"stream": True}).text)[-1]


def test_failure_in_the_middle_is_an_error_frame_and_never_a_clean_end():
    """A stream that fails has an error frame, no finish reason and no ``[DONE]``."""
    with Serving(openai({"m": Scripted("Hel", rxllm.Interrupted("cut"))})) as server:
        text = post(server, {"stream": True}).text
        assert "[DONE]" not in text
        assert {"message", "type", "param", "code"} == frames(text)[-1]["error"].keys()
        assert not any(choice["finish_reason"] for f in frames(text) for choice in f.get("choices", ()))
        with pytest.raises(rxllm.ProviderError) as caught:
            client(server).invoke("hi")
    assert "Hel" == caught.value.partial.text


@pytest.mark.parametrize("stream", [True, False])
def test_early_failure_has_its_status_and_stops_the_clients_retries(stream):
    """A failure before the first chunk has its status, and ``x-should-retry: false``."""
    llm = Scripted(rxllm.RateLimited("slow", status=429, retry_after=3))
    with Serving(openai({"m": llm})) as server:
        response = post(server, {"stream": stream})
    assert (429, "false", "3") == (
        response.status_code,
        response.headers["x-should-retry"],
        response.headers["retry-after"],
    )


def test_answer_that_begins_again_is_an_error():
    """The protocol cannot take text back, so a reset after text ends the stream with an error frame."""
    with Serving(openai({"m": Scripted("Hel", rxllm.Chunk("Ho", reset=True))})) as server:
        assert "error" in frames(post(server, {"stream": True}).text)[-1]
    with Serving(openai({"m": Scripted(rxllm.Chunk("Ho", reset=True))})) as server:
        assert "Ho" == client(server).invoke("hi").text


def test_pipelines_of_text_are_served():
    """A pipeline that emits text is served like a model, streamed and whole."""
    shout = rxllm.pipe(Scripted("a", "b"), rxllm.text(), rxllm.words(), reactivex.operators.map(str.upper))
    with Serving(openai({"m": shout})) as server:
        assert "AB" == client(server).invoke("hi").text
        assert "AB" == client(server).invoke("hi", stream=False).text


@pytest.mark.parametrize("stream", [True, False])
def test_pipelines_of_values_are_served_as_their_json(stream):
    """Also of models of pydantic; half of a character of a model's own is replaced, and does not end the answer."""

    class City(pydantic.BaseModel):
        name: str

    cities = rxllm.pipe(Scripted('{"name": "Oslo"}'), rxllm.parse(City))
    with Serving(openai({"m": cities, "half": Scripted("a\ud800", "b")})) as server:
        assert '{"name":"Oslo"}' == client(server).invoke("hi", stream=stream).text
        assert "a\ufffdb" == client(server).invoke("hi", model="half", stream=stream).text


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"model": "x"}, 404, "only: m"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "zzz"}]}]}, 400, "zzz"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://[x"}]}]},
            400,
            "https",
        ),
        ({"n": 2}, 400, "'n'"),
        ({"messages": [{"role": "user", "content": "hi", "extra": {"a": 1}}]}, 400, "extra"),
        ({"tools": [{"type": "web_search"}]}, 400, "function"),
        ({"tools": [{"type": "mcp", "server_url": "https://a.example", "function": None}]}, 400, "not 'mcp'"),
        ({"tools": [{"type": "mcp", "server_url": "https://a.example", "function": {"name": "f"}}]}, 400, "not 'mcp'"),
        ({"tools": [{"google_search": {}, "function": None}]}, 400, "not None"),
        ({"tools": [{"type": "function", "function": None, "container": "c"}]}, 400, "'function' as an object"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"tools": [{"type": "function", "function": {"name": None}}]}, 400, "name must be a name"),
        ({"stream": "yes"}, 400, "'stream' must be true or false"),
        ({"stream": True, "stream_options": "usage"}, 400, "'stream_options' as a JSON object"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, 400, "'include_usage' must be true or false"),
    ],
)
def test_bad_requests_get_a_sentence(body, status, words):
    """A wrong request gets its status and a sentence, and asks no model."""
    llm = Scripted("ok")
    with Serving(openai({"m": llm})) as server:
        response = post(server, body)
    assert status == response.status_code
    assert words in response.json()["error"]["message"]
    assert [] == llm.asked


UPLOAD = {"type": "container_upload", "file_id": "file_of_the_operator"}
RESULT = {"type": "tool_result", "tool_use_id": "c"}


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ({"role": "user", "content": [UPLOAD]}, "container_upload"),
        ({"role": "tool", "tool_call_id": "c", "content": [UPLOAD]}, "container_upload"),
        ({"role": "user", "content": [{**RESULT, "content": [UPLOAD]}]}, "container_upload"),
        ({"role": "user", "content": [{**RESULT, "content": [{**RESULT, "content": [UPLOAD]}]}]}, "container_upload"),
        (
            {"role": "assistant", "content": [{"type": "mcp_tool_use", "id": "t", "name": "f", "server_name": "s"}]},
            "mcp_tool_use",
        ),
        ({"role": "assistant", "content": [{"type": "server_tool_use", "id": "t", "name": "f"}]}, "server_tool_use"),
    ],
)
def test_blocks_of_the_vendors_account_are_refused(message, kind):
    """A block that the vendor reads with the operator's account gets a sentence, also deep in a tool's result."""
    with pytest.raises(rxllm.MisuseError, match=f"the type '{kind}' is not served"):
        chat_request({"messages": [message]})


def test_id_of_a_file_deep_in_a_result_is_refused():
    """The check of files reaches a result that is part of another result."""
    file = {"type": "file", "file": {"file_id": "file_of_the_operator"}}
    deep = {**RESULT, "content": [{**RESULT, "content": [file]}]}
    with pytest.raises(rxllm.MisuseError, match="stores no files"):
        chat_request({"messages": [{"role": "user", "content": [deep]}]})


@pytest.mark.parametrize("stream", [True, False])
def test_request_that_the_vendor_cannot_carry_gets_a_sentence(stream):
    """The client sent it, so it reads the words; also behind combinators and in a pipeline that passes it on."""
    llm = rxllm.Anthropic("m", base_url="http://127.0.0.1:9", api_key="k")
    limited = rxllm.limited(rxllm.retry(llm), rxllm.Limiter(concurrency=1))
    speech = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}
    with Serving(openai({"m": limited, "talk": rxllm.pipe(llm, rxllm.text())})) as server:
        for model in "m", "talk":
            body = {"model": model, "messages": [{"role": "user", "content": [speech]}], "stream": stream}
            response = post(server, body)
            assert (400, "WrongBody") == (response.status_code, response.json()["error"]["code"])
            assert "audio/mpeg" in response.json()["error"]["message"]


def lacking(request, *, seed):
    """Do nothing: a function of a chain that takes no other parameter."""


SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("make", "body", "words"),
    [
        (lambda: from_langchain(FakeListChatModel(responses=["ok"])), {"reasoning_effort": "low"}, "effort"),
        (lambda: from_langchain(FakeListChatModel(responses=["ok"])), {"tools": [WEATHER]}, "takes no tools"),
        (lambda: from_langchain(RunnableLambda(lacking)), {"stop": "x"}, "no parameter 'stop'"),
        (lambda: rxllm.Embedded(shape=Answer), {"response_format": SCHEMA}, "either a shape or a response_format"),
    ],
)
def test_parameter_that_a_model_lacks_gets_a_sentence(make, body, words, stream):
    """A model that sends no HTTP request of its own refuses a request of the client as providers do."""
    with Serving(openai({"m": rxllm.retry(make())})) as server:
        response = post(server, {**body, "stream": stream})
    assert (400, "invalid_request_error") == (response.status_code, response.json()["error"]["type"])
    assert words in response.json()["error"]["message"]


def broken(_):
    """A stage with a mistake."""
    raise rxllm.MisuseError("The table 'prices' of db.internal has no column 'secret'.")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        lambda: rxllm.pipe(Scripted("ok"), rxllm.text(), ops.map(broken)),
        lambda: rxllm.pipe(broken, Scripted("ok"), rxllm.text()),
        lambda: rxllm.pipe(lambda _: [], rxllm.OpenAI("m", base_url="http://127.0.0.1:9", api_key="k"), rxllm.text()),
        lambda: rxllm.pipe(Scripted("ok"), rxllm.text(), ops.map(lambda _: object())),
        lambda: from_callable(broken),
        lambda: from_langchain(FakeListChatModel(responses=["ok"]), prompt=broken),
        lambda: rxllm.Anthropic("m"),
    ],
    ids=["transform", "template", "empty conversation", "value without JSON", "model", "prompt of a model", "no key"],
)
def test_mistake_of_the_program_is_a_500_without_its_words(make, stream, caplog, monkeypatch):
    """The client learns nothing about the program, and the log has the traceback."""
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with Serving(openai({"m": make()})) as server:
        response = post(server, {"stream": stream})
    assert (500, "The server failed.") == (response.status_code, response.json()["error"]["message"])
    [record] = [each for each in caplog.records if each.name == "rxllm.serve"]
    assert isinstance(record.exc_info[1], rxllm.MisuseError)


def test_mistake_in_the_function_that_chooses_models_is_a_500(caplog):
    """The same before an answer begins."""
    with Serving(openai(broken)) as server:
        for response in post(server, {}), httpx.get(f"{server.url}/v1/models", timeout=60):
            assert (500, "The server failed.") == (response.status_code, response.json()["error"]["message"])
    assert 2 == sum(each.exc_info is not None for each in caplog.records if each.name == "rxllm.serve")


def test_mistake_in_the_middle_of_a_stream_is_an_error_frame_without_its_words():
    """The client has the status 200 already."""
    late = ops.map(lambda text: text if text == "Hel" else broken(text))
    with Serving(openai({"m": rxllm.pipe(Scripted("Hel", "lo"), rxllm.text(), late)})) as server:
        response = post(server, {"stream": True})
    assert 200 == response.status_code
    assert "The server failed." in response.text
    assert "db.internal" not in response.text
    assert "[DONE]" not in response.text


def test_bodies_that_are_not_json_are_refused():
    """Only application/json counts, and it must be an object; a form of a foreign page cannot ask."""
    with Serving(openai({"m": Scripted("ok")})) as server:
        url = f"{server.url}/v1/chat/completions"
        assert 415 == httpx.post(url, content=b"{}", headers={"content-type": "text/plain"}, timeout=60).status_code
        for content in b"{", b"[]", b"\xff", b"[" * 100_000:
            assert (
                400
                == httpx.post(
                    url, content=content, headers={"content-type": "application/json"}, timeout=60
                ).status_code
            )


def test_callers_need_a_key_where_keys_are_given():
    """Without a right key nothing is answered, not even the list of models."""
    with Serving(openai({"m": Scripted("ok")}, keys=KEYS)) as server:
        assert 401 == post(server, {}).status_code
        assert 401 == post(server, {}, authorization="Bearer wrong").status_code
        assert 401 == httpx.get(f"{server.url}/v1/models", timeout=60).status_code
        assert 200 == post(server, {}, authorization="Bearer key-of-bob").status_code


@pytest.mark.parametrize("key", ["", " ", None])
def test_empty_key_is_a_mistake(key):
    """A key from a variable that is not set must not let every program in."""
    with pytest.raises(rxllm.MisuseError, match="'alice' is empty"):
        openai({"m": Scripted("ok")}, keys={"alice": key})


def test_models_are_listed():
    """``/v1/models`` lists the names; a name may contain a slash."""
    with Serving(openai({"m": Scripted("ok"), "vendor/m2": Scripted("ok")})) as server:
        listed = httpx.get(f"{server.url}/v1/models", timeout=60).json()
        assert ["m", "vendor/m2"] == [model["id"] for model in listed["data"]]
        assert "vendor/m2" == httpx.get(f"{server.url}/v1/models/vendor/m2", timeout=60).json()["id"]
        assert 404 == httpx.get(f"{server.url}/v1/models/x", timeout=60).status_code


@pytest.mark.parametrize(
    ("method", "path", "status", "words", "allow"),
    [
        ("POST", "/v1/embeddings", 404, "no /v1/embeddings. It has /v1/chat/completions, ", None),
        ("GET", "/v1/", 404, "no /v1/.", None),
        ("GET", "/v1/chat/completions", 405, "takes POST, not GET", "POST"),
        ("POST", "/v1/models", 405, "takes GET and HEAD, not POST", "GET, HEAD"),
        ("DELETE", "/v1/models/m", 405, "takes GET and HEAD, not DELETE", "GET, HEAD"),
    ],
)
def test_request_that_the_server_does_not_know_gets_an_error_of_openai(method, path, status, words, allow):
    """What the server lacks gets an error that OpenAI's clients can show, after the check of the key."""
    with Serving(openai({"m": Scripted("ok")}, keys={"alice": "secret"})) as server:
        stranger = httpx.request(method, server.url + path, timeout=60)
        known = httpx.request(method, server.url + path, headers={"Authorization": "Bearer secret"}, timeout=60)
    assert 401 == stranger.status_code
    assert (status, allow) == (known.status_code, known.headers.get("allow"))
    assert words in known.json()["error"]["message"]
    assert "invalid_request_error" == known.json()["error"]["type"]


def test_completions_are_served():
    """``/v1/completions`` answers rxllm's own client, streamed and whole."""
    with Serving(openai({"m": Scripted(*ANSWER)})) as server:
        llm = rxllm.OpenAI("m", base_url=f"{server.url}/v1", api_key="k", api="completions", max_retries=0)
        assert "Hello" == llm.invoke("hi").text
        assert "Hello" == llm.invoke("hi", stream=False).text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "one text"),
        ({"prompt": ["a", "b"]}, "one text"),
        ({"prompt": "a", "echo": True}, "'echo'"),
        ({"prompt": "a", "logprobs": 1}, "'logprobs'"),
    ],
)
def test_completions_that_are_not_supported_are_refused(body, words):
    """Several prompts, and features that rxllm does not have, get a sentence."""
    with pytest.raises(rxllm.MisuseError, match=words):
        completion_request(body)
    assert "a" == completion_request({"prompt": ["a"]}).text


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_leaves_stops_the_model_and_frees_its_place(stream):
    """A leaving client closes the model's request, and another client gets its place."""
    with FakeServer(Reply([b"", End.HANG])) as upstream:
        llm = rxllm.OpenAI("m", base_url=upstream.url, api_key="k", api="chat")
        with Serving(openai({"m": llm}, max_concurrency=1)) as server:
            body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream})
            first = Client(server.port, "/v1/chat/completions", body.encode())
            upstream.exchange(0).arrived.wait()
            assert 429 == post(server, {}).status_code
            first.leave()
            upstream.exchange(0).wait_closed()
            second = Client(server.port, "/v1/chat/completions", body.encode())
            upstream.exchange(1).arrived.wait()
            second.leave()
            upstream.exchange(1).wait_closed()


def test_nothing_to_serve_is_a_mistake():
    """openai() refuses an empty table and values that are not models."""
    with pytest.raises(rxllm.MisuseError, match="at least one"):
        openai({})
    with pytest.raises(rxllm.MisuseError, match="'m' is"):
        openai({"m": "gpt"})
