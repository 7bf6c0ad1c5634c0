"""The facts about providers: their list, the models of a server, and the preview of a request."""

import json
import re
from pathlib import Path

import pytest
from protocols import Chat, Cohere, Completions, Converse, Generate, Messages, OllamaChat, Responses

import rxllm
from rxllm import Anthropic, Message, MisuseError, OpenAI, cli
from rxllm.providers.compatible import SERVERS
from rxllm.testing import End, FakeServer, Reply
from rxllm.values.provider_info import provider_table

PAGE = Path(__file__).parents[2] / "docs" / "providers" / "index.md"
SECRET = "sk-canary-0123456789"


def test_the_page_has_the_table_of_the_code(capsys):
    """As the command prints it."""
    [shown] = re.findall(r"<!-- providers -->\n(.*)\n<!-- end of providers -->", PAGE.read_text("utf-8"), re.DOTALL)
    assert provider_table(rxllm.providers()) == shown
    assert 0 == cli.main(["models"])
    assert provider_table(rxllm.providers()) + "\n" == capsys.readouterr().out


def test_the_page_on_models_names_each_known_server():
    """A server that is added to the table is added to the page, too."""
    text = PAGE.parents[1].joinpath("how-to/choose-a-model.md").read_text("utf-8")
    [names] = re.findall(r"OpenAI's protocol: (.+?) and\s+more", text, re.DOTALL)
    listed = re.split(r",\s+", names)
    assert {*SERVERS} - {"openai", "azure-inference", "gemini-compatible", "ollama"} == {*listed}


def test_a_program_reads_the_same_facts():
    """A row of the table is an object; a server has the features of OpenAI's protocol without those that it lacks."""
    facts = {info.name: info for info in rxllm.providers()}
    assert (True, True, "native", ("OPENAI_API_KEY",)) == (
        facts["openai"].tools,
        facts["openai"].audio,
        facts["openai"].streaming,
        facts["openai"].keys,
    )
    assert not facts["perplexity"].tools
    assert not facts["anthropic"].audio


def create_model(protocol, url, **settings):
    """The provider that speaks a protocol."""
    match protocol.name:
        case "messages":
            return Anthropic("m", base_url=url, **settings)
        case "generate":
            return rxllm.Gemini("m", base_url=url, **settings)
        case "ollama":
            return rxllm.Ollama("m", base_url=url, **settings)
        case "cohere":
            return rxllm.Cohere("m", base_url=url, **settings)
        case "converse":
            return rxllm.Bedrock("m", base_url=url, region="eu-west-1", **settings)
    return OpenAI("m", base_url=url + "/v1", api=protocol.name, **settings)


PROTOCOLS = (Chat(), Completions(), Responses(), Messages(), Generate(), OllamaChat(), Cohere(), Converse())


@pytest.mark.parametrize("stream", [None, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_a_preview_is_what_is_sent(protocol, stream):
    """Address, headers and body, without the secrets; the client adds only its own headers."""
    extra = {"mcp": {"authorization": SECRET}}
    prompt = [Message("system", "Be brief."), Message("user", "hi")]
    prompt = "hi" if protocol.name == "completions" else prompt
    kind = "application/vnd.amazon.eventstream" if protocol.name == "converse" else "text/event-stream"
    reply = Reply(protocol.stream(["ok"]), content_type=kind)
    with FakeServer(reply if stream is None else Reply.json(protocol.whole(["ok"]))) as server:
        settings = {"api_key": SECRET, "headers": {"x-team-token": SECRET}, "max_tokens": 9, "extra": extra}
        llm = create_model(protocol, server.url, **settings)
        call = {"temperature": 0} | ({} if stream is None else {"stream": stream})
        preview = llm.preview(prompt, **call)
        assert [] == server.requests
        assert "ok" == llm.invoke(prompt, **call).text
        sent = server.requests[0]
    assert ("POST", server.url + f"{sent.path}?{sent.query}".rstrip("?")) == (preview.method, preview.url)
    assert SECRET not in str(preview)
    assert SECRET not in repr(preview)
    assert json.loads(json.dumps(sent.json).replace(SECRET, "***")) == preview.json
    shown = {name: value for name, value in preview.headers.items() if value != "***"}
    assert shown == {name: sent.headers[name] for name in shown}
    blank = {name for name, value in preview.headers.items() if value == "***"}
    assert {"x-team-token"} < blank
    assert [] == [name for name in blank if SECRET not in sent.headers[name]]
    assert {"host", "user-agent", "content-length", "connection", "accept-encoding"} >= (
        sent.headers.keys() - preview.headers.keys()
    )


def test_the_login_of_an_address_is_a_header_without_its_secret():
    """The address in the preview has no login."""
    with FakeServer(Reply(Chat().stream(["ok"]))) as server:
        llm = OpenAI("m", base_url=server.url.replace("//", f"//me:{SECRET}@") + "/v1")
        preview = llm.preview("hi")
        llm.invoke("hi")
        assert server.requests[0].headers["authorization"].startswith("Basic ")
    assert f"{server.url}/v1/chat/completions" == preview.url
    assert "***" == preview.headers["authorization"]


def test_the_secrets_in_the_addresses_of_tools_are_blanked():
    """The rest of the address is shown."""
    tool = {"type": "mcp", "server_url": f"https://me:{SECRET}@mcp.example.com/sse?api_key={SECRET}&page=2"}
    shown = OpenAI("m", api_key="k", api="responses", tools=[tool]).preview("hi").json
    assert "https://me:***@mcp.example.com/sse?api_key=***&page=2" == shown["tools"][0]["server_url"]


def test_parameters_of_a_preview_win_over_the_request():
    """As in a call; those of the Request win over those of the model."""
    llm = OpenAI("m", api_key="k", api="chat", temperature=0.1, max_tokens=1, seed=1)
    shown = llm.preview(rxllm.Request(prompt="hi", temperature=0.2, max_tokens=2), temperature=0.3).json
    assert (0.3, 2, 1) == (shown["temperature"], shown["max_completion_tokens"], shown["seed"])


def test_the_command_prints_the_preview(capsys, monkeypatch):
    """It needs the key, does not show it, and sends nothing."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with FakeServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/v1")
        assert 0 == cli.main(["-m", "openai:m", "--preview", "hi"])
    assert [] == server.requests
    out = capsys.readouterr().out
    assert out.startswith(f"POST {server.url}/v1/chat/completions\n")
    assert SECRET not in out


def test_only_a_model_over_http_has_a_preview():
    """Other models raise MisuseError."""
    with pytest.raises(MisuseError, match="sends no HTTP request of its own"):
        rxllm.Embedded().preview("hi")


@pytest.mark.parametrize(
    "document",
    [
        {"object": "list", "data": [{"id": "a"}, {"id": "b"}]},
        {"models": [{"name": "models/a"}, {"name": "b"}]},
        {"models": [{"name": "a"}, {"name": "b"}], "data": [{"id": "a"}, {"id": "b"}]},
        [{"id": "a"}, {"id": "b"}],
    ],
)
async def test_models_are_read_from_lists_of_any_form(document):
    """By their names, whatever the list is called."""
    with FakeServer(*[Reply.json(json.dumps(document).encode())] * 2) as server:
        llm = OpenAI("m", base_url=server.url + "/v1", api_key=SECRET)
        assert ("a", "b") == await llm.amodels()
        assert [("GET", "/v1/models", f"Bearer {SECRET}")] == [
            (request.method, request.path, request.headers["authorization"]) for request in server.requests
        ]


LISTS = {
    "anthropic": (
        lambda url: Anthropic("m", base_url=url, api_key=SECRET),
        {"data": [{"type": "model", "id": "a", "display_name": "A"}, {"id": "b"}], "has_more": False, "last_id": "b"},
        "/v1/models?limit=1000",
        ("x-api-key", SECRET),
    ),
    "gemini": (
        lambda url: rxllm.Gemini("m", base_url=url, api_key=SECRET),
        {"models": [{"name": "models/a", "displayName": "A"}, {"name": "models/b"}]},
        "/v1beta/models?pageSize=1000",
        ("x-goog-api-key", SECRET),
    ),
    "vertex": (
        lambda url: rxllm.Gemini("m", base_url=f"{url}/v1/projects/p/locations/l/publishers/google", api_key=SECRET),
        {"publisherModels": [{"name": "publishers/google/models/a"}, {"name": "publishers/google/models/b"}]},
        "/v1beta1/publishers/google/models?pageSize=200",
        ("authorization", f"Bearer {SECRET}"),
    ),
    "ollama": (
        lambda url: rxllm.Ollama("m", base_url=url, api_key=SECRET),
        {"models": [{"name": "a", "model": "a", "details": {"family": "x"}}, {"name": "b"}]},
        "/api/tags",
        ("authorization", f"Bearer {SECRET}"),
    ),
    "cohere": (
        lambda url: rxllm.Cohere("m", base_url=f"{url}/v2", api_key=SECRET),
        {"models": [{"name": "a", "endpoints": ["chat"]}, {"name": "b"}]},
        "/v1/models?endpoint=chat&page_size=1000",
        ("authorization", f"Bearer {SECRET}"),
    ),
    "bedrock": (
        lambda url: rxllm.Bedrock("m", base_url=url, region="eu-west-1", api_key=SECRET),
        {"modelSummaries": [{"modelId": "a", "modelName": "A"}, {"modelId": "b"}]},
        "/foundation-models?byOutputModality=TEXT",
        ("authorization", f"Bearer {SECRET}"),
    ),
    "groq": (
        lambda url: OpenAI("m", server="groq", base_url=f"{url}/openai/v1", api_key=SECRET),
        {"object": "list", "data": [{"id": "a"}, {"id": "b"}]},
        "/openai/v1/models",
        ("authorization", f"Bearer {SECRET}"),
    ),
}


@pytest.mark.parametrize("name", LISTS)
async def test_each_provider_lists_its_models(name):
    """By the vendor's own address, with the key in the vendor's own header."""
    make, document, address, (header, key) = LISTS[name]
    with FakeServer(Reply.json(document)) as server:
        assert ("a", "b") == await make(server.url).amodels()
        [request] = server.requests
    assert ("GET", address, b"") == (request.method, f"{request.path}?{request.query}".rstrip("?"), request.body)
    assert key == request.headers[header]
    assert "application/json" == request.headers["accept"]


@pytest.mark.parametrize(
    ("name", "more", "following"),
    [
        ("anthropic", {"has_more": True, "last_id": "b"}, "limit=1000&after_id=b"),
        ("gemini", {"nextPageToken": "x/y"}, "pageSize=1000&pageToken=x%2Fy"),
        ("cohere", {"next_page_token": "x"}, "endpoint=chat&page_size=1000&page_token=x"),
    ],
)
async def test_a_list_of_several_pages_is_read_to_its_end(name, more, following):
    """No model is left out."""
    make, document, _, _ = LISTS[name]
    with FakeServer(Reply.json({**document, **more}), Reply.json(document)) as server:
        assert ("a", "b", "a", "b") == await make(server.url).amodels()
        assert following == server.requests[1].query


def test_a_list_without_end_is_an_error():
    """A server that always names a next page is not asked endlessly."""
    make, document, _, _ = LISTS["gemini"]
    with FakeServer(lambda request: Reply.json({**document, "nextPageToken": "x"})) as server:
        with pytest.raises(rxllm.ProtocolError, match="more than 100 pages"):
            make(server.url).models()
        assert 100 == len(server.requests)


def test_bedrock_lists_its_models_at_another_host(monkeypatch):
    """The address of the list follows the region, or a variable of its own."""
    llm = rxllm.Bedrock("m", region="eu-west-1", api_key="k")
    assert "https://bedrock.eu-west-1.amazonaws.com/foundation-models?byOutputModality=TEXT" == llm._models_url()
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", "https://proxy.example.com/aws/")
    assert "https://proxy.example.com/aws/foundation-models?byOutputModality=TEXT" == llm._models_url()


def test_bedrock_signs_the_request_for_its_list(monkeypatch):
    """As a GET without a body; a signature of a POST would be refused."""
    pytest.importorskip("botocore")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with FakeServer(Reply.json(LISTS["bedrock"][1])) as server:
        assert ("a", "b") == rxllm.Bedrock("m", base_url=server.url, region="eu-west-1").models()
        [request] = server.requests
    expected = signature(request, server.url, "GET")
    assert expected == request.headers["authorization"].partition("Signature=")[2]
    assert expected != signature(request, server.url, "POST")


def signature(request, url, method):
    """The signature that botocore makes of the request at the time that its header states."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    auth = SigV4Auth(Credentials("AKIDEXAMPLE", SECRET), "bedrock", "eu-west-1")
    signed = AWSRequest(method, f"{url}{request.path}?{request.query}", data=b"")
    signed.context["timestamp"] = signed.headers["X-Amz-Date"] = request.headers["x-amz-date"]
    signed.headers["host"] = request.headers["host"]
    return auth.signature(auth.string_to_sign(signed, auth.canonical_request(signed)), signed)


def test_models_are_listed_without_an_event_loop():
    """An error of the server is a ProviderError without the key."""
    refusal = Reply.json(Chat().error_body(401, f"Incorrect API key provided: {SECRET}"), status=401)
    with FakeServer(Reply.json(b'{"data":[]}'), refusal, Reply.json(b"{}")) as server:
        llm = OpenAI("m", base_url=server.url + "/v1", api_key=SECRET)
        assert () == llm.models()
        with pytest.raises(rxllm.AuthenticationError) as caught:
            llm.models()
        assert SECRET not in str(caught.value)
        with pytest.raises(rxllm.ProtocolError, match="not a list of models"):
            llm.models()


def test_list_that_never_arrives_times_out():
    """`timeout` limits the silence before the list, and the silence within it."""
    with FakeServer(Reply([End.HANG]), Reply([b'{"data"', End.HANG])) as server:
        llm = OpenAI("m", base_url=server.url, api_key="k", timeout=0.2)
        for _ in range(2):
            with pytest.raises(rxllm.Timeout):
                llm.models()


def test_server_without_a_list_of_models_is_refused():
    """Before anything is sent."""
    with pytest.raises(MisuseError, match="perplexity has no list of its models"):
        OpenAI("m", server="perplexity", api_key="k").models()
