"""The chat page in headless Chromium: what a user does, what goes wrong, and what a model must not be able to do."""

import os
import re
from pathlib import Path

import pytest
from serving import Scripted, Serving

import rxllm
from rxllm.serve import chat
from rxllm.testing import FakeServer, MarbleLLM, Reply
from rxllm.values.parts import ReasoningPart, TextPart, ToolCallPart

expect = pytest.importorskip("playwright.sync_api", reason="Chromium or the extra 'browser' is not installed").expect

MARKDOWN = (Path(__file__).parent / "answer.md").read_text("utf-8")
USAGE = rxllm.Chunk(usage=rxllm.Usage(input_tokens=1212, output_tokens=345), finish_reason="stop")
ANSWER = '.answer[data-state="{}"]'


def ask(page, text="Hello?"):
    """Ask with the keyboard."""
    page.locator("#text").fill(text)
    page.keyboard.press("Enter")


def done(page, state="done", count=1):
    """Wait for answers in this state, and return the last one."""
    answers = page.locator(ANSWER.format(state))
    expect(answers).to_have_count(count)
    return answers.last


def test_answer_is_shown_and_kept(visit):
    """Markdown, folded reasoning, tokens; the conversation is there again after a reload, and can be deleted."""
    model = Scripted(rxllm.Chunk(parts=[ReasoningPart("Let me think.")]), MARKDOWN, USAGE)
    with Serving(chat({"m": model})) as server:
        page = visit(server.url)
        ask(page, "Show me <b>all</b>")
        answer = done(page)
        for _ in range(2):
            expect(page.locator(".question p")).to_have_text("Show me <b>all</b>")
            expect(answer.locator("table td").first).to_have_text("text")
            expect(answer.locator("pre code")).to_contain_text("for chunk in")
            expect(answer.locator(".markdown a")).to_have_attribute("href", "https://reactivex.io")
            expect(answer.locator("details.fold").first).not_to_have_attribute("open", "")
            expect(answer.locator(".facts")).to_have_text("1,212 tokens in · 345 out")
            expect(page.locator("#list li")).to_have_count(1)
            assert page.title() == "Show me <b>all</b>"
            page.reload()
        ask(page, "And again")
        done(page, count=2)
        assert ["user", "assistant", "user"] == [message.role for message in model.asked[1].messages]
        expect(page.locator("#total")).to_have_text("2,424 tokens in · 690 out")
        page.get_by_role("button", name="Delete Show me").click()
        expect(page.locator(".turn")).to_have_count(0)
        expect(page.locator("#list li")).to_have_count(0)


def test_timeline_of_an_answer_is_drawn(visit):
    """The page draws it when it is opened, with its words as the alternative text; a server may have forgotten it."""
    with Serving(chat({"m": Scripted("Hel", "lo", USAGE)})) as server:
        page = visit(server.url)
        ask(page)
        answer = done(page)
        answer.get_by_text("Timeline").click()
        picture = answer.get_by_role("img")
        expect(picture).to_have_attribute("alt", re.compile("^Scripted: finished, .*2 chunks, 345 tokens"))
        assert 0 < picture.evaluate("async (img) => (await img.decode(), img.naturalWidth)")
        shoot(page, "timeline")
        server.app.router.routes[:] = chat({"m": Scripted()}).routes
        page.reload()
        answer.get_by_text("Timeline").click()
        expect(answer.locator(".picture")).to_have_text("This server no longer has the timeline of this answer.")


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_stop_ends_the_answer(visit, gated, how):
    """The button and the Escape key stop the model; what had arrived stays, and the next question is possible."""
    with Serving(chat({"m": gated})) as server:
        page = visit(server.url)
        ask(page)
        expect(page.locator(".answer")).to_contain_text("one")
        page.locator("#stop").click() if how == "button" else page.keyboard.press("Escape")
        expect(done(page, "stopped").locator(".facts")).to_have_text("stopped")
        gated.gate.set()
        ask(page)
        expect(done(page)).to_contain_text("one two")


def test_failures_are_shown_and_can_be_tried_again(visit):
    """An early error and a late one have their sentence; regenerating replaces the answer."""
    late = Scripted("Hel", rxllm.Interrupted("cut"))
    early = Scripted(rxllm.RateLimited("slow", status=429))
    with Serving(chat({"late": late, "early": early})) as server:
        page = visit(server.url)
        ask(page)
        answer = done(page, "failed")
        expect(answer).to_contain_text("Hel")
        expect(answer.locator(".error")).to_have_text("The answer broke off.")
        late.script = ("Whole.",)
        answer.get_by_role("button", name="Regenerate").click()
        expect(done(page).locator(".body")).to_have_text("Whole.")
        page.locator("#models summary").click()
        page.get_by_role("checkbox", name="early").check()
        page.get_by_role("checkbox", name="late").uncheck()
        ask(page)
        expect(done(page, "failed").locator(".error")).to_have_text("The model has too many requests. Try again later.")


def test_reloaded_page_goes_on_with_its_answer(visit, gated):
    """A reload in the middle of an answer loses nothing and repeats nothing, and asks no model again."""
    with Serving(chat({"m": gated})) as server:
        page = visit(server.url)
        ask(page)
        expect(page.locator(".answer")).to_contain_text("one")
        page.reload()
        expect(page.locator(ANSWER.format("running")).locator(".body")).to_have_text("one ")
        gated.gate.set()
        expect(done(page).locator(".body")).to_have_text("one two")
        assert ["Hello?"] == [request.messages[-1].text for request in gated.asked]


def test_answer_that_ended_while_the_page_was_closed_is_there(visit, gated):
    """The page comes back after the end, and shows the whole answer."""
    with Serving(chat({"m": gated})) as server:
        page = visit(server.url)
        ask(page)
        expect(page.locator(".answer")).to_contain_text("one")
        page.goto("about:blank")
        gated.gate.set()
        page.goto(server.url)
        expect(done(page).locator(".body")).to_have_text("one two")


def test_answer_whose_server_is_gone_is_said_to_be_broken(visit, gated):
    """A server that was started anew does not know the answer."""
    with Serving(chat({"m": gated})) as server:
        page = visit(server.url)
        ask(page)
        expect(page.locator(".answer")).to_contain_text("one")
        page.goto("about:blank")
        server.app.router.routes[:] = chat({"m": gated}).routes  # a new process has a new log
        page.goto(server.url)
        expect(done(page, "failed").locator(".error")).to_contain_text("There is no such answer here.")


def test_conversations_run_on_in_the_background(visit, gated):
    """A second conversation begins while the first one is being answered."""
    with Serving(chat({"m": gated})) as server:
        page = visit(server.url)
        ask(page, "First")
        expect(page.locator(".answer")).to_contain_text("one")
        page.locator("#new").click()
        expect(page.locator(".turn")).to_have_count(0)
        ask(page, "Second")
        gated.gate.set()
        done(page)
        page.get_by_role("button", name="First", exact=True).click()
        expect(done(page).locator(".body")).to_have_text("one two")
        expect(page.locator(".question p")).to_have_text("First")


def test_several_models_answer_side_by_side(visit):
    """Each chosen model has a column and hears only its own answers; one column can be regenerated alone."""
    one, other = Scripted("from one"), Scripted("from other")
    with Serving(chat({"one": one, "openai:other/x": other})) as server:
        page = visit(server.url)
        page.locator("#models summary").click()
        page.get_by_role("checkbox", name="openai:other/x").check()
        ask(page)
        done(page, count=2)
        boxes = [page.locator(".answer").nth(number).bounding_box() for number in range(2)]
        assert boxes[0]["y"] == boxes[1]["y"]
        assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
        page.locator(".answer").nth(1).get_by_role("button", name="Regenerate").click()
        done(page, count=2)
        page.reload()
        ask(page)
        done(page, count=4)
    assert ["from one"] == [m.text for m in one.asked[-1].messages if m.role == "assistant"]
    assert ["from other"] == [m.text for m in other.asked[-1].messages if m.role == "assistant"]
    assert (2, 3) == (len(one.asked), len(other.asked))


@pytest.mark.parametrize("allowed", [True, False], ids=["allowed", "denied"])
def test_tool_call_waits_for_the_user(visit, allowed):
    """The page shows the call and its arguments; the tool runs only after the user has allowed it."""
    deleted = []

    def delete(path: str) -> str:
        deleted.append(path)
        return f"{path} is gone"

    call = rxllm.Message("assistant", ToolCallPart("call_1", "delete", '{"path": "/data/a"}'))
    model = MarbleLLM(["c|", "Finished.|"], values={"c": call}, timespan=0.001)
    with Serving(chat({"agent": rxllm.agent(model, rxllm.tool(delete, approve=True))})) as server:
        page = visit(server.url)
        ask(page)
        tool = done(page).locator(".tool")
        expect(tool.locator("pre").first).to_contain_text('"path": "/data/a"')
        assert [] == deleted
        page.reload()  # the decision may wait
        page.get_by_role("button", name="Allow delete" if allowed else "Deny").click()
        expect(done(page)).to_contain_text("Finished.")
        expect(tool.locator(".state")).to_have_text("done" if allowed else "denied")
        if allowed:
            expect(tool.locator("pre").nth(1)).to_have_text("/data/a is gone")
        page.reload()
        expect(done(page)).to_contain_text("Finished.")
    assert (["/data/a"] if allowed else []) == deleted


def test_page_asks_for_a_key_and_keeps_it_in_memory(visit):
    """A wrong key is refused, the right one is neither stored nor shown."""
    with Serving(chat({"m": Scripted("Hello.")}, keys={"alice": "right-key"})) as server:
        page = visit(server.url)
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).not_to_be_visible()
        expect(page.locator("#log").get_by_role("alert")).to_contain_text("The API key is missing")
        page.reload()
        for key in ("wrong-key", "right-key"):
            page.get_by_label("Key", exact=True).fill(key)
            page.keyboard.press("Enter")
            if key == "wrong-key":
                expect(page.get_by_role("alert")).to_have_text("The server does not know this key.")
        ask(page)
        expect(done(page)).to_contain_text("Hello.")
        kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert "-key" not in kept + page.content()
        page.reload()
        expect(page.get_by_role("dialog")).to_be_visible()


ATTACKS = [
    "<img src=x onerror=alert(1)><svg onload=alert(1)>",
    "</script><script>alert(1)</script>",
    "[a](javascript:alert(1)) [b](java\tscript:alert(1)) [c](&#106;avascript:alert(1)) <javascript:alert(1)>",
    '[d](data:text/html,<script>alert(1)</script>) ![e](x" onerror="alert(1)) ![f](http://127.0.0.1:9/pixel.png)',
    '```"><script>alert(1)</script>\n</code></pre><img src=x onerror=alert(1)>\n```',
    "| <iframe src=javascript:alert(1)> | <a href=javascript:alert(1)> |\n|---|---|\n| <script>alert(1)</script> | a |",
    '[x](https://a.b/" onmouseover="alert(1)) https://a.b/"onclick=alert(1)//',
]


def test_answer_cannot_bring_code_into_the_page(visit):
    """Whatever a model writes, as text, tool, source or file, nothing of it runs, loads or navigates."""
    bad = '<img src=x onerror="alert(1)">'
    sources = [{"url": "javascript:alert(1)", "title": bad}, {"url": "https://a.b/", "title": bad}]
    parts = [
        ReasoningPart("".join(ATTACKS)),
        TextPart("x", citations=sources),
        ToolCallPart("c", "t<script>", '{"a": "<script>alert(1)</script>"}'),
        rxllm.FilePart(data=b"<script>alert(1)</script>", media_type="image/svg+xml"),
        rxllm.FilePart(url="javascript:alert(1)", media_type="text/html"),
        *(TextPart(f"\n\n{attack}\n\n") for attack in ATTACKS),
    ]
    requests = []
    with Serving(chat({f"m{bad}": Scripted(*(rxllm.Chunk(parts=[part]) for part in parts))})) as server:
        page = visit(server.url)
        page.on("request", lambda request: requests.append(request.url))
        ask(page, bad)
        done(page)
        for _ in range(2):
            assert 0 == page.locator("#log :is(script, img, svg, iframe, object, embed, form, style, link)").count()
            assert [] == page.locator("#log *").evaluate_all(
                "nodes => nodes.flatMap(node => node.getAttributeNames()).filter(name => name.startsWith('on'))"
            )
            links = page.locator("#log a[href]").evaluate_all("nodes => nodes.map(node => node.getAttribute('href'))")
            assert links
            assert [] == [href for href in links if not re.match(r"https?://|data:image/svg", href)]
            for link in page.locator("#log .markdown a").all():
                assert "_blank" == link.get_attribute("target")
            page.reload()
            done(page)
        assert page.url.startswith(server.url)
    assert {server.url} == {url[: len(server.url)] for url in requests}


def test_cost_is_shown_and_added_up(visit, monkeypatch):
    """Where the list price of a model is known, it stands beside the tokens."""
    monkeypatch.setattr("rxllm.serve.priced._PATIENCE", 50)  # the prices are loaded at the first use
    usage = {"prompt_tokens": 1000, "completion_tokens": 2000, "total_tokens": 3000}
    choice = {"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
    with FakeServer(Reply.json({"model": "gpt-5-mini", "choices": [choice], "usage": usage})) as upstream:
        model = rxllm.OpenAI("gpt-5-mini", base_url=upstream.url, api_key="k", api="chat", stream=False)
        with Serving(chat({"m": model})) as server:
            page = visit(server.url)
            for count in (1, 2):
                ask(page)
                facts = done(page, count=count).locator(".facts")
                expect(facts).to_have_text("1,000 tokens in · 2,000 out · $0.00425")
            expect(page.locator("#total")).to_have_text("2,000 tokens in · 4,000 out · $0.00850")


NAME = "node => node.ariaLabel || node.labels?.[0]?.textContent || node.textContent.trim()"


def test_everything_can_be_done_with_the_keyboard_and_has_a_name(visit):
    """Tab reaches each control, and a screen reader has a name for it and hears the end of an answer."""
    with Serving(chat({"m": Scripted("Hello.", USAGE), "n": Scripted("Hi.")})) as server:
        page = visit(server.url)
        expect(page.locator("#text")).to_be_focused()
        ask(page)
        done(page)
        expect(page.get_by_role("status")).to_have_text("The answer is complete.")
        expect(page.get_by_role("log")).to_have_attribute("aria-busy", "false")
        expect(page.locator("#text")).to_be_focused()
        page.locator("body").evaluate("() => document.activeElement.blur()")
        names = []
        for _ in range(14):
            page.keyboard.press("Tab")
            names.append(page.evaluate(f"({NAME})(document.activeElement)"))
        wanted = {"Skip to the question", "New conversation", "Hello?", "Delete Hello?", "m", "Conversation"}
        assert wanted | {"Copy", "Regenerate", "Your question", "Send"} <= set(names)
        unnamed = (
            "nodes => nodes.filter(n => !(n.ariaLabel || n.textContent.trim() || n.labels?.length)).map(n => n.id)"
        )
        assert [] == page.locator("button, input, textarea, summary").evaluate_all(unnamed)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_phones_and_desktops(visit, width, scheme):
    """Nothing is wider than the screen, texts have contrast; the pictures are kept if a folder is named."""
    script = (rxllm.Chunk(parts=[ReasoningPart("Let me think.")]), MARKDOWN, USAGE)
    viewport = {"width": width, "height": 860}
    with Serving(chat({"openai:gpt-5-mini": Scripted(*script), "other": Scripted("Short.", USAGE)})) as server:
        page = visit(server.url, viewport=viewport, color_scheme=scheme, has_touch=width < 500)
        ask(page, "Show me what you can do with a question that is rather long, so that it takes two lines.")
        done(page)
        shoot(page, f"answer-{width}-{scheme}")
        page.locator("#models summary").click()
        page.get_by_role("checkbox", name="other").check()
        ask(page, "Both!")
        done(page, count=3)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for selector in (".question p", ".answer h2", ".answer .facts", ".markdown a", "#send", "#hint .note, #hint"):
            if page.locator(selector).first.is_visible():
                assert contrast(page, selector) >= 4.5, selector
        shoot(page, f"two-{width}-{scheme}")
        if width < 500:
            page.locator("#menu").click()
            expect(page.locator("#new")).to_be_focused()
            shoot(page, f"menu-{width}-{scheme}")
            page.keyboard.press("Escape")
            expect(page.locator("#side")).not_to_be_visible()


def shoot(page, name):
    """Keep a picture of the page, if the variable names a folder."""
    if folder := os.environ.get("RXLLM_SCREENSHOTS"):
        Path(folder, f"{name}.png").write_bytes(page.screenshot())


def contrast(page, selector):
    """Return the contrast of a text to the nearest background, as WCAG counts it."""
    return page.locator(selector).first.evaluate(
        """node => {
          const channels = (text) => text.match(/[\\d.]+/g).map(Number);
          const light = (color) => {
            const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
            const [r, g, b] = channels(color).map(linear);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          let back = node;
          while (channels(getComputedStyle(back).backgroundColor)[3] === 0) back = back.parentElement;
          const [a, b] = [light(getComputedStyle(node).color), light(getComputedStyle(back).backgroundColor)];
          return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        }"""
    )
