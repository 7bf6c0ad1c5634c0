"""The AI SDK 6 and 7 leave an answer of `chat`, come back to it, and stop it."""

import pytest
from clients.node_client import Node
from serving import Serving
from starlette.responses import Response
from starlette.routing import Route

from rxllm.serve import chat


@pytest.fixture(scope="module")
def node():
    """Run Node for the tests of this file."""
    with Node() as process:
        yield process


@pytest.fixture
def served(gated):
    """Serve a model that waits, with an address that lets it go on."""

    async def go(_):
        gated.gate.set()
        return Response()

    app = chat({"m": gated})
    app.router.routes.append(Route("/go", go))
    with Serving(app) as server:
        yield server


@pytest.mark.parametrize("keeps", [False, True], ids=["kept nothing", "kept a part"])
@pytest.mark.parametrize("client", ["ai6", "ai7"])
def test_page_that_comes_back_gets_the_whole_answer(node, served, client, keeps, gated):
    """The replay from the start makes the answer whole, without a second question to the model.

    It replaces the part of the answer that a page had kept, since the message has the same id.
    """
    task = {"does": "resumed", "url": f"{served.url}/api/chat", "cut": "one", "go": f"{served.url}/go"}
    result = node.ask(client, keeps=keeps, **task)
    assert ("one two", "ready", None) == (result["text"], result["status"], result.get("error")), result
    assert ["user", "assistant"] == [message["role"] for message in result["messages"]]
    assert 1 == len(gated.asked)


@pytest.mark.parametrize("client", ["ai6", "ai7"])
def test_stop_ends_the_answer_of_the_page(node, served, client):
    """The answer stays as it is, and the page is ready for the next question."""
    result = node.ask(client, does="stopped", url=f"{served.url}/api/chat", cut="one")
    assert (204, "one ", "ready", None) == tuple(map(result.get, ("stopped", "text", "status", "error"))), result
