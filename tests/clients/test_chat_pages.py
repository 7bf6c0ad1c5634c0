"""The AI SDK 6 and 7 and AG-UI's client read `ui_messages` and `ag_ui`, and `messages_of` reads what they send."""

from contextlib import contextmanager

import pytest
from clients.node_client import Node
from combinators.scripted import Scripted as Rounds
from combinators.scripted import call
from serving import Scripted, Serving
from starlette.applications import Starlette
from starlette.routing import Route

import rxllm
from rxllm.serve import ag_ui, data_part, messages_of, page_tools, ui_messages
from rxllm.serve.ag_ui import AGUIEvents
from rxllm.serve.ui_messages import UIEvents
from rxllm.testing import End, FakeServer, Reply
from rxllm.values.parts import FilePart, ReasoningPart, TextPart, ToolCallPart

CHATS = ["ai6", "ai7", "agui"]


@pytest.fixture(scope="module")
def node():
    """Run Node for the tests of this file."""
    with Node() as process:
        yield process


@contextmanager
def page(model, *, sdk=6, **options):
    """Serve a model to both kinds of clients, and give their addresses."""

    async def chat(http):
        body = await http.json()
        messages = messages_of(body, **options)
        served.append(messages)
        if "threadId" in body:
            return ag_ui(model.bind(tools=page_tools(body))(messages), body)
        return ui_messages(model(messages), sdk=sdk)

    served = []
    with Serving(Starlette(routes=[Route("/", chat, methods=["POST"])])) as server:
        server.messages = served
        yield server


def text_of(result):
    """Return the text of the answers."""
    if "text" in result:
        return result["text"]
    return "".join(message.get("content") or "" for message in result["messages"] if message["role"] == "assistant")


def has_failed(result):
    """Return whether the client shows an error."""
    if "status" in result:
        return result["status"] == "error"
    return result.get("error") is not None or result["events"][-1]["type"] == "RUN_ERROR"


@pytest.mark.parametrize("client", CHATS)
def test_answer_and_the_next_turn(node, client):
    """Text, reasoning, a source, a file and data arrive; the next turn sends the conversation back."""
    parts = [
        ReasoningPart("think"),
        TextPart("See ", citations=[{"url": "https://a.example", "title": "A"}]),
        FilePart("image/png", data=b"\x89PNG"),
        TextPart("this."),
    ]
    usage = rxllm.Usage(input_tokens=3, output_tokens=2)
    pieces = [*(rxllm.Chunk(parts=[part]) for part in parts), data_part("weather", {"sky": "blue"})]
    model = Scripted(*pieces, rxllm.Chunk(finish_reason="stop", usage=usage))
    with page(model) as server:
        result = node.ask(client, url=server.url, texts=["hi", "again"])
    assert not has_failed(result), result
    assert "See this." * 2 == text_of(result)
    assert "hiSee this.again" == "".join(message.text for message in server.messages[1])
    shown = str(result)
    assert all(word in shown for word in ("think", "blue", "https://a.example", "data:image/png;base64,iVBORw=="))


@pytest.mark.parametrize("decide", [True, False], ids=["approved", "denied"])
@pytest.mark.parametrize("client", CHATS)
def test_tool_call_with_approval(node, client, decide):
    """The page approves or denies a call; the agent goes on, and believes its own result in the next turn."""
    paid = []

    @rxllm.tool(approve=True)
    async def pay(euros: float) -> str:
        paid.append(euros)
        return "paid"

    model = Rounds([["I'll pay.", call("pay", '{"euros": 1.0}', "c1")], "Done.", "Bye."])
    with page(rxllm.agent(model, pay)) as server:
        result = node.ask(client, url=server.url, texts=["Pay.", "Thanks."], decide=decide)
    assert not has_failed(result), result
    assert ([1.0] if decide else []) == paid
    assert "I'll pay.Done.Bye." == text_of(result)
    (outcome,) = [part for m in model.prompts[2] for part in m.parts if isinstance(part, rxllm.ToolResultPart)]
    assert ("paid" if decide else "The user denied this call: because") == outcome.text


@pytest.mark.parametrize("client", CHATS)
def test_text_between_the_fragments_of_a_call(node, client):
    """The page has the text and the whole call."""
    fragments = [ToolCallPart("c1", "where", '{"city"', index=0), ToolCallPart("", "", ':"Rome"}', index=0)]
    first, last = (rxllm.Chunk(parts=[fragment]) for fragment in fragments)
    with page(Scripted("See ", first, "Rome", ".", last, rxllm.Chunk(finish_reason="tool_call"))) as server:
        result = node.ask(client, url=server.url, texts=["hi"])
    assert not has_failed(result), result
    assert "See Rome." == text_of(result)
    whole = {"arguments": '{"city":"Rome"}'} if client == "agui" else {"city": "Rome"}
    assert repr(whole)[1:-1] in str(result["messages"])


@pytest.mark.parametrize("client", CHATS)
def test_early_error_has_its_status(node, client):
    """A failure before the first chunk is an error in the page, with its sentence."""
    with page(Scripted(rxllm.RateLimited("slow", status=429))) as server:
        result = node.ask(client, url=server.url, texts=["hi"])
    assert has_failed(result)
    assert "too many requests" in str(result["error"]) or "429" in str(result["error"])


@pytest.mark.parametrize("client", CHATS)
def test_late_error_keeps_the_text_before_it(node, client):
    """A failure in the middle is an error in the page, after the text."""
    with page(Scripted("Hel", rxllm.Interrupted("cut"))) as server:
        result = node.ask(client, url=server.url, texts=["hi"])
    assert has_failed(result)
    assert "Hel" == text_of(result)


@pytest.mark.parametrize("client", CHATS)
def test_cut_connection_is_no_clean_end(node, client):
    """A connection that breaks is an error in the page."""
    encoder = AGUIEvents("t", "r") if client == "agui" else UIEvents()
    data = encoder.begin() + encoder.encode("Hel")
    with FakeServer(Reply([data, End.FIN], headers={"content-type": "text/event-stream"})) as server:
        result = node.ask(client, url=server.url, texts=["hi"])
    assert has_failed(result)
    assert "Hel" == text_of(result)


@pytest.mark.parametrize("client", CHATS)
def test_page_that_stops_closes_the_request_to_the_model(node, client):
    """The stop button closes the request to the model without an error."""
    event = b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'
    with FakeServer(Reply([event, End.HANG])) as upstream:
        llm = rxllm.OpenAI("m", base_url=upstream.url, api_key="k", api="chat")
        with page(llm) as server:
            result = node.ask(client, url=server.url, texts=["hi"], stop="Hel")
            upstream.exchange().wait_closed()
    assert "Hel" == text_of(result)
    assert "ready" == result.get("status", "ready")


def test_version_7_takes_text_back(node):
    """With ``sdk=7`` an answer that begins again replaces its text; version 6 shows an error by default."""
    model = Scripted("Hel", rxllm.Chunk("Ho", reset=True))
    with page(model, sdk=7) as server:
        assert ("ready", "Ho") == tuple(
            node.ask("ai7", url=server.url, texts=["hi"])[name] for name in ("status", "text")
        )
    with page(model) as server:
        assert {"error"} == {node.ask(client, url=server.url, texts=["hi"])["status"] for client in ("ai6", "ai7")}


@pytest.mark.parametrize("client", CHATS)
def test_tool_of_the_page(node, client):
    """The page answers the call of its own tool, and the model gets the result in the next turn."""
    model = Rounds([[call("where", "{}", "c1")], "Ah."])
    with page(model, tools=["where"]) as server:
        result = node.ask(client, url=server.url, texts=["hi", "Go on."], answer="Rome")
    assert "Ah." == text_of(result)
    (outcome,) = [part for m in model.prompts[1] for part in m.parts if isinstance(part, rxllm.ToolResultPart)]
    assert "Rome" == outcome.text
