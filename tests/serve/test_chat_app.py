"""`chat` on a real server: asking, resuming, stopping, and who may do so."""

import json
import re
from pathlib import Path

import httpx
import pytest
from ports import free_port
from serving import Client, Scripted, Serving

import rxllm
import rxllm.serve
from rxllm.serve import RedisLog, Relay, chat
from rxllm.testing import End, FakeServer, Reply
from rxllm.values.parts import Pending, ToolCallPart

JSON = {"content-type": "application/json"}


def body(text="hi", id="c1", **fields):
    """Return the body that a page sends."""
    message = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": text}]}
    return {"id": id, "messages": [message], "trigger": "submit-message", **fields}


def by_header(request):
    """Return the owner that a header names."""
    return request.headers["x-user"]


def ask(server, **options):
    """Ask, and return the whole response."""
    headers = options.pop("headers", {})
    return httpx.post(f"{server.url}/api/chat", json=body(**options), headers=headers, timeout=60)


def get(server, id="c1", last=None, **headers):
    """Read the stream of a conversation."""
    position = {} if last is None else {"last-event-id": last}
    return httpx.get(f"{server.url}/api/chat/{id}/stream", headers={**position, **headers}, timeout=60)


def stop(server, id="c1", **headers):
    """Stop the answer of a conversation."""
    return httpx.post(f"{server.url}/api/chat/{id}/stop", content=b"{}", headers={**JSON, **headers}, timeout=60)


def events(text):
    """Return the (id, event) pairs of a stream."""
    pairs = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        if fields.get("data", "[DONE]") != "[DONE]":
            pairs.append((fields.get("id"), json.loads(fields["data"])))
    return pairs


def text_of(pairs):
    """Return the text of a stream."""
    return "".join(event["delta"] for _, event in pairs if event["type"] == "text-delta")


def test_answer_is_a_ui_message_stream_with_an_id_at_each_event():
    """The ids count from 1 within one epoch."""
    with Serving(chat({"m": Scripted("Hel", "lo")})) as server:
        answer = ask(server)
    assert ("v1", 200) == (answer.headers["x-vercel-ai-ui-message-stream"], answer.status_code)
    pairs = events(answer.text)
    assert "Hello" == text_of(pairs)
    assert ["start", "start-step", "text-start"] == [event["type"] for _, event in pairs[:3]]
    assert "finish" == pairs[-1][1]["type"]
    assert [*range(1, len(pairs) + 1)] == [int(name.split("-")[1]) for name, _ in pairs]
    assert 1 == len({name.split("-")[0] for name, _ in pairs})


def test_reader_attaches_again_and_gets_the_same_message(gated):
    """While the answer runs, GET replays it from its start under the same message id; afterwards it is 204."""
    with Serving(chat({"m": gated})) as server:
        assert 204 == get(server).status_code
        client = Client(server.port, "/api/chat", json.dumps(body()).encode())
        client.read_until(b"one ")
        client.leave()
        with httpx.stream("GET", f"{server.url}/api/chat/c1/stream", timeout=60) as answer:
            gated.gate.set()
            pairs = events(answer.read().decode())
        assert "one two" == text_of(pairs)
        assert pairs[0][1]["messageId"].startswith("msg_")
        assert 204 == get(server).status_code


@pytest.mark.parametrize("position", range(1, 9))
def test_last_event_id_gives_the_rest_once_also_after_the_end(position):
    """Whatever event was the last one, the rest follows it without a gap and without a repetition; at last 204."""
    with Serving(chat({"m": Scripted("Hel", "lo")})) as server:
        text = ask(server).text
        pairs = events(text)
        assert 8 == len(pairs)
        rest = get(server, last=pairs[position - 1][0])
        assert 204 == get(server, last=re.findall("id: (.*)", text)[-1]).status_code
    assert pairs[position:] == events(rest.text)


@pytest.mark.parametrize("sent", ["", "x", "1", "1-2-3", "0x1-2", "1 -2", "9" * 20 + "-1", "1-" + "9" * 16])
def test_last_event_id_is_validated(sent):
    """A text that is not a position is refused, before the log is read."""
    with Serving(chat({"m": Scripted("a")})) as server:
        ask(server)
        assert 400 == get(server, last=sent).status_code


def test_foreign_conversation_does_not_exist(gated):
    """To another owner an id looks like one that does not exist: no attaching, no replay, no stop."""
    app = chat({"m": gated, "other": Scripted("mine")}, owner=by_header)
    alice, mallory = {"x-user": "alice"}, {"x-user": "mallory"}
    with Serving(app) as server:
        with httpx.stream("POST", f"{server.url}/api/chat", json=body(), headers=alice, timeout=60) as answer:
            pieces = answer.iter_text()
            data = next(pieces)
            while "one " not in data:
                data += next(pieces)
            last = events(data)[-1][0]
            for name in ("c1", "never"):
                assert 204 == get(server, name, **mallory).status_code
                assert 404 == get(server, name, last=last, **mallory).status_code
                assert 404 == stop(server, name, **mallory).status_code
            assert "mine" == text_of(events(ask(server, model="other", headers=mallory).text))
            gated.gate.set()
            assert "one two" == text_of(events(data + "".join(pieces)))
        assert "two" == text_of(events(get(server, last=last, **alice).text))


def test_request_without_an_owner_is_refused():
    """Users who are not signed in do not share conversations under an empty name."""
    for nobody in None, "":
        with Serving(chat({"m": Scripted("a")}, owner=lambda _, name=nobody: name)) as server:
            assert 403 == ask(server).status_code
            assert 403 == get(server).status_code


def test_stop_ends_every_reader_with_abort(gated):
    """After a stop the stream ends with the event ``abort``, and there is nothing left to stop."""
    with Serving(chat({"m": gated})) as server:
        with httpx.stream("POST", f"{server.url}/api/chat", json=body(), timeout=60) as answer:
            lines = answer.iter_lines()
            assert any("one " in line for line in lines)
            assert 204 == stop(server).status_code
            assert 'data: {"type":"abort"}' == [line for line in lines if line.startswith("data: {")][-1]
        assert 404 == stop(server).status_code


def test_keys_name_the_owners():
    """Each caller needs a key, and has conversations of its own."""
    with Serving(chat({"m": Scripted("a")}, keys={"alice": "key-a", "bob": "key-b"})) as server:
        alice, bob = ({"authorization": f"Bearer key-{name}"} for name in "ab")
        assert 401 == ask(server).status_code
        assert 401 == httpx.get(f"{server.url}/api/chat", timeout=60).status_code
        (last, _), *_ = events(ask(server, headers=alice).text)
        assert 200 == get(server, last=last, **alice).status_code
        assert (401, 404) == (get(server, last=last).status_code, get(server, last=last, **bob).status_code)
        assert ["m"] == httpx.get(f"{server.url}/api/chat", headers=bob, timeout=60).json()["models"]


@pytest.mark.parametrize("header", [{"host": "evil.example"}, {"x-forwarded-for": "10.0.0.1"}, {"forwarded": "for=x"}])
def test_without_an_owner_only_this_machine_is_answered(header):
    """A request under a foreign name, or one that a proxy passed on, is refused."""
    model = Scripted("a")
    with Serving(chat({"m": model})) as server:
        assert 403 == ask(server, headers=header).status_code
        assert 403 == get(server, **header).status_code
        assert 403 == stop(server, **header).status_code
    assert [] == model.asked


def test_requests_are_checked_before_a_model_is_asked():
    """Only JSON with an id, messages and a known model reaches a model."""
    model = Scripted("a")
    with Serving(chat({"m": model})) as server:
        url = f"{server.url}/api/chat"
        assert 415 == httpx.post(url, data={"id": "c1"}, timeout=60).status_code
        assert 415 == httpx.post(f"{url}/c1/stop", timeout=60).status_code
        assert 404 == ask(server, model="none").status_code
        assert 404 == ask(server, model=["m"]).status_code
        for wrong in (body(id=""), body(id="x" * 201), body(id=None), {**body(), "messages": []}, [], {"id": "c1"}):
            assert 400 == httpx.post(url, json=wrong, timeout=60).status_code
    assert [] == model.asked


def test_early_error_has_its_status_and_a_late_one_is_an_event():
    """The first event waits for the model, so a rate limit is a 429."""
    slow = rxllm.RateLimited("slow down", status=429, retry_after=2)
    with Serving(chat({"early": Scripted(slow), "late": Scripted("a", slow)})) as server:
        early, late = ask(server, model="early"), ask(server, model="late")
    assert (429, "2") == (early.status_code, early.headers["retry-after"])
    assert "The model has too many requests. Try again later." == early.json()["error"]
    assert {"type": "error", "errorText": early.json()["error"]} == events(late.text)[-1][1]


def test_further_answers_get_429(gated):
    """At most `max_concurrency` answers run at once."""
    with Serving(chat({"m": gated}, max_concurrency=1)) as server:
        client = Client(server.port, "/api/chat", json.dumps(body()).encode())
        client.read_until(b"one ")
        refused = ask(server, id="c2")
        assert 429 == refused.status_code
        assert ("true", "1") == (refused.headers["x-should-retry"], refused.headers["retry-after"])
        client.leave()


def test_body_that_does_not_come_is_408(monkeypatch):
    """A client that sends a part of its body and then nothing holds no place for ever."""
    monkeypatch.setattr("rxllm.serve.incoming._BODY_SILENCE", 0.05)
    with Serving(chat({"m": Scripted("Hello.")})) as server:
        client = Client(server.port, "/api/chat", b'{"id":', length=1000)
        assert b"408" in client.read_until(b"\r\n")
        client.leave()


def test_closed_tab_closes_the_request_to_the_model_after_linger():
    """Nobody pays for an answer without a reader."""
    event = b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'
    with FakeServer(Reply([event, End.HANG])) as upstream:
        llm = rxllm.OpenAI("m", base_url=upstream.url, api_key="k", api="chat")
        with Serving(chat({"m": llm}, relay=Relay(linger=0.05))) as server:
            client = Client(server.port, "/api/chat", json.dumps(body()).encode())
            client.read_until(b"Hel")
            client.leave()
            upstream.exchange().wait_closed()


def test_continued_answer_keeps_the_id_of_its_message():
    """A page that sends its decision on a call gets the rest under the id of the same message."""
    call = ToolCallPart("call_1", "pay", "{}")
    asking = Scripted(rxllm.Chunk(parts=[call]), rxllm.Chunk(parts=[Pending(call)]))
    with Serving(chat({"ask": asking, "go on": Scripted("Paid.")})) as server:
        pairs = {event["type"]: event for _, event in events(ask(server, model="ask").text)}
        request, signed = pairs["tool-approval-request"], pairs["tool-input-available"]
        approval = {"id": request["approvalId"], "approved": True, "signature": request["signature"]}
        part = {"type": "tool-pay", "toolCallId": "call_1", "state": "approval-responded", "input": {}}
        part |= {"approval": approval, "callProviderMetadata": signed["providerMetadata"]}
        decided = {**body(), "model": "go on"}
        decided["messages"].append({"id": pairs["start"]["messageId"], "role": "assistant", "parts": [part]})
        answer = events(httpx.post(f"{server.url}/api/chat", json=decided, timeout=60).text)
    assert pairs["start"]["messageId"] == answer[0][1]["messageId"]


def test_log_that_is_out_of_reach_is_503():
    """A question is not sent, and no request looks as if the answer did not exist."""
    model = Scripted("a")
    app = chat({"m": model}, relay=Relay(RedisLog(f"redis://:secret@127.0.0.1:{free_port()}")))
    with Serving(app) as server:
        answers = [ask(server), get(server), get(server, last="1-1"), stop(server)]
    assert [503] * 4 == [answer.status_code for answer in answers]
    assert {"The service is overloaded. Try again later."} == {answer.json()["error"] for answer in answers}
    assert [] == model.asked


def test_answer_has_its_price(monkeypatch):
    """The price of the tokens is beside the usage, if the model has a price; else there is none."""
    monkeypatch.setattr("rxllm.serve.priced._PATIENCE", 50)  # the prices are loaded at the first use
    reply = Reply.json(
        {
            "model": "gpt-5-mini",
            "choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
        }
    )
    with FakeServer(reply) as upstream:
        llm = rxllm.OpenAI("gpt-5-mini", base_url=upstream.url, api_key="k", api="chat", stream=False)
        with Serving(chat({"priced": llm, "other": Scripted("a")})) as server:
            finish = events(ask(server).text)[-1][1]
            assert {"inputTokens": 1000, "outputTokens": 100} == finish["messageMetadata"]["usage"]
            assert pytest.approx(0.00045) == finish["messageMetadata"]["cost"]
            assert "messageMetadata" not in events(ask(server, model="other").text)[-1][1]


def test_timeline_of_an_answer_is_drawn_for_its_owner(monkeypatch, gated):
    """The page asks for it by the epoch, also while the answer runs; to another owner it does not exist."""
    alice, mallory = {"x-user": "alice"}, {"x-user": "mallory"}

    def timeline(epoch, **headers):
        return httpx.get(f"{server.url}/api/chat/c1/timeline/{epoch}", headers=headers, timeout=60)

    with Serving(chat({"m": gated}, owner=by_header)) as server:
        with httpx.stream("POST", f"{server.url}/api/chat", json=body(), headers=alice, timeout=60) as answer:
            pieces = answer.iter_text()
            data = next(pieces)
            while "one " not in data:
                data += next(pieces)
            epoch = int(events(data)[-1][0].split("-")[0])
            assert "Gated: running" in timeline(epoch, **alice).json()["description"]
            gated.gate.set()
            "".join(pieces)
        drawn = timeline(epoch, **alice)
        assert ("application/json", "no-store") == tuple(
            drawn.headers[name] for name in ("content-type", "cache-control")
        )
        assert drawn.json()["svg"].startswith("<svg")
        assert re.match("Gated: finished, first after .*, 2 chunks", drawn.json()["description"])
        for missing in timeline(epoch, **mallory), timeline(epoch + 1, **alice):
            assert 404 == missing.status_code
        assert 404 == timeline("x", **alice).status_code
        monkeypatch.setattr("rxllm.serve.timelines._KEPT", 1)
        ask(server, headers=alice)
        assert 404 == timeline(epoch, **alice).status_code


def test_without_the_page_no_timeline_is_kept():
    """Another page does not ask for it, so the answers are not observed."""
    with Serving(chat({"m": Scripted("a")}, page=False)) as server:
        epoch = events(ask(server).text)[0][0].split("-")[0]
        assert 404 == httpx.get(f"{server.url}/api/chat/c1/timeline/{epoch}", timeout=60).status_code


def test_page_is_small_and_lets_only_its_own_files_run():
    """Every file has its type and the policy; a known file is not sent again; together they have at most 60 KB."""
    with Serving(chat({"m": Scripted("a")})) as server, httpx.Client(base_url=server.url, timeout=60) as http:
        page = http.get("/")
        names = re.findall(r'(?:href|src)="page/([^"]+)"', page.text)
        assert {"style.css", "chat.js"} < set(names)
        for answer in [page, *(http.get(f"/page/{name}") for name in names)]:
            assert 200 == answer.status_code
            assert (
                "default-src 'none'; script-src 'self'; style-src 'self';" in answer.headers["content-security-policy"]
            )
            assert "nosniff" == answer.headers["x-content-type-options"]
        assert "text/javascript; charset=utf-8" == http.get("/page/chat.js").headers["content-type"]
        assert 304 == http.get("/", headers={"if-none-match": page.headers["etag"]}).status_code
        for name in ("other.js", "..%2fchat_app.py", "%2e%2e/chat_app.py", ""):
            assert 404 == http.get(f"/page/{name}").status_code
    files = [*Path(rxllm.serve.__file__).parent.joinpath("static").iterdir()]
    assert sum(file.stat().st_size for file in files) <= 60 * 1024
    assert "innerHTML" not in "".join(file.read_text("utf-8") for file in files)
    with Serving(chat({"m": Scripted("a")}, page=False)) as server:
        assert 404 == httpx.get(server.url, timeout=60).status_code


def test_misuse_is_said_when_the_application_is_made():
    """An application needs models."""
    with pytest.raises(rxllm.MisuseError, match="at least one model"):
        chat({})
    with pytest.raises(rxllm.MisuseError, match="'m' is 'gpt'"):
        chat({"m": "gpt"})
    for key, sentence in ((" ", "'alice' is empty"), ("schlüssel", "cannot send in a header")):
        with pytest.raises(rxllm.MisuseError, match=sentence):
            chat({"m": Scripted("a")}, keys={"alice": key})
