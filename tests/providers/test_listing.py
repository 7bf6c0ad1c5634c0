"""What is told about providers: the list of them, the models of a server, and the request that would be sent."""

import json
import re
from pathlib import Path

import pytest
from protocols import Chat, Messages, Responses

import rxllm
from rxllm import Anthropic, Message, MisuseError, OpenAI, cli
from rxllm.providers.listing import table
from rxllm.testing import FakeServer, Reply

PAGE = Path(__file__).parents[2] / "docs" / "providers" / "index.md"
SECRET = "sk-canary-0123456789"


def test_the_page_has_the_table_of_the_code(capsys):
    """As the command prints it."""
    [shown] = re.findall(r"<!-- providers -->\n(.*)\n<!-- end of providers -->", PAGE.read_text("utf-8"), re.DOTALL)
    assert table() == shown
    assert 0 == cli.main(["models"])
    assert table() + "\n" == capsys.readouterr().out


def test_a_program_reads_the_same_facts():
    """A row of the table is an object; a house offers what OpenAI's protocol does, but for what it lacks."""
    facts = {info.name: info for info in rxllm.providers()}
    assert (True, True, "native", ("OPENAI_API_KEY",)) == (
        facts["openai"].tools,
        facts["openai"].audio,
        facts["openai"].streaming,
        facts["openai"].keys,
    )
    assert not facts["perplexity"].tools
    assert not facts["anthropic"].audio


@pytest.mark.parametrize("protocol", [Chat(), Responses(), Messages()], ids=lambda protocol: protocol.name)
def test_a_preview_is_what_is_sent(protocol):
    """Address, headers and body, but for the secrets; the client adds only its own headers."""
    extra = {"mcp": {"authorization": SECRET}}
    prompt = [Message("system", "Be brief."), Message("user", "hi")]
    with FakeServer(Reply(protocol.stream(["ok"]))) as server:
        settings = {"api_key": SECRET, "headers": {"x-team-token": SECRET}, "max_tokens": 9, "extra": extra}
        if protocol.name == "messages":
            llm = Anthropic("m", base_url=server.url, **settings)
        else:
            llm = OpenAI("m", base_url=server.url + "/v1", api=protocol.name, **settings)
        preview = llm.preview(prompt, temperature=0)
        assert [] == server.requests
        llm.invoke(prompt, temperature=0)
        sent = server.requests[0]
    assert ("POST", server.url + sent.path) == (preview.method, preview.url)
    assert SECRET not in str(preview)
    assert SECRET not in repr(preview)
    assert json.loads(json.dumps(sent.json).replace(SECRET, "***")) == preview.json
    shown = {name: value for name, value in preview.headers.items() if value != "***"}
    assert shown == {name: sent.headers[name] for name in shown}
    assert sent.headers.keys() >= preview.headers.keys()


def test_the_command_prints_the_preview(capsys, monkeypatch):
    """It needs the key, shows none, and sends nothing."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with FakeServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/v1")
        assert 0 == cli.main(["-m", "openai:m", "--preview", "hi"])
    assert [] == server.requests
    out = capsys.readouterr().out
    assert out.startswith(f"POST {server.url}/v1/chat/completions\n")
    assert SECRET not in out


def test_only_a_model_over_http_has_a_preview():
    """Others say so."""
    with pytest.raises(MisuseError, match="sends no HTTP request of its own"):
        rxllm.Embedded().preview("hi")


@pytest.mark.parametrize(
    "document",
    [
        {"object": "list", "data": [{"id": "a"}, {"id": "b"}]},
        {"models": [{"name": "models/a"}, {"name": "b"}]},
        [{"id": "a"}, {"id": "b"}],
    ],
)
async def test_the_models_of_a_server(document):
    """By their names, whatever the list is called."""
    with FakeServer(*[Reply.json(json.dumps(document).encode())] * 2) as server:
        llm = OpenAI("m", base_url=server.url + "/v1", api_key=SECRET)
        assert ("a", "b") == await llm.amodels()
        assert [("GET", "/v1/models", f"Bearer {SECRET}")] == [
            (request.method, request.path, request.headers["authorization"]) for request in server.requests
        ]


def test_the_models_without_a_loop():
    """The same from a plain program; an error of the server is one of ours, without the key."""
    refusal = Reply.json(Chat().error_body(401, f"Incorrect API key provided: {SECRET}"), status=401)
    with FakeServer(Reply.json(b'{"data":[]}'), refusal, Reply.json(b"{}")) as server:
        llm = OpenAI("m", base_url=server.url + "/v1", api_key=SECRET)
        assert () == llm.models()
        with pytest.raises(rxllm.AuthenticationError) as caught:
            llm.models()
        assert SECRET not in str(caught.value)
        with pytest.raises(rxllm.ProtocolError, match="not a list of models"):
            llm.models()


def test_a_server_without_a_list_of_models_says_so():
    """Before anything is sent."""
    with pytest.raises(MisuseError, match="no list of its models"):
        OpenAI("m", house="perplexity", api_key="k").models()
