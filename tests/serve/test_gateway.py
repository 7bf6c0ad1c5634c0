"""The gateway: what a configuration makes, what it refuses, and what surrounds the answers."""

import asyncio
import logging

import httpx
import pytest
from serving import Serving

from rxllm import MisuseError
from rxllm.serve import Config, gateway
from rxllm.serve.config import Secret
from rxllm.testing import FakeServer, Reply

ANSWER = Reply.json(
    {
        "model": "m",
        "choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 30, "completion_tokens": 20, "total_tokens": 50},
    }
)
BROKEN = Reply.json({"error": {"message": "broken"}}, status=500)
CALLERS = """
[callers.alice]
key = {env = "ALICE"}
[callers.bob]
key = {env = "BOB"}
"""


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Return a function that serves a configuration; `upstream0` in it is the address of a FakeServer."""
    opened = []
    for name in ("ALICE", "BOB", "UPSTREAM_KEY"):
        monkeypatch.setenv(name, f"key-of-{name.lower()}")

    def serve(text, *upstreams):
        upstreams = [FakeServer(reply) for reply in upstreams]
        for number, upstream in enumerate(upstreams):
            upstream.__enter__()
            text = text.replace(f"upstream{number}", f'"{upstream.url}"')
        path = tmp_path / "serve.toml"
        path.write_text(f'budgets = "{tmp_path / "budgets.sqlite"}"\n{text}', "utf-8")
        server = Serving(gateway(Config.read(path)))
        opened.extend([*upstreams, server])
        server.__enter__()
        server.upstreams = upstreams
        return server

    yield serve
    for each in reversed(opened):
        each.__exit__(None, None, None)


def ask(server, caller=None, model="m", content="a secret question", **headers):
    """Ask a model, and return the response."""
    if caller is not None:
        headers["authorization"] = f"Bearer key-of-{caller}"
    body = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 20}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=60)


def settle(server):
    """Wait until the server has counted all its requests: a client may read a response before."""
    asyncio.run_coroutine_threadsafe(server.app._idle.wait(), server.loop).result(60)


MODEL = """
[models.m]
model = "openai:gpt"
base_url = upstream0
api_key = {env = "UPSTREAM_KEY"}
options = {api = "chat", max_retries = 0, stream = false, headers = {x-key = {env = "BOB"}}}
"""


def test_fallback_answers_when_the_model_fails(served):
    """The second vendor's model answers; the key comes from the environment."""
    fallback = 'fallbacks = [{model = "openai:other", base_url = upstream1, api_key = {env = "ALICE"}, '
    server = served(
        MODEL + fallback + 'options = {api = "chat", stream = false}}, "embedded"]\n',
        BROKEN,
        ANSWER,
    )
    assert "Hello" == ask(server).json()["choices"][0]["message"]["content"]
    first, second = server.upstreams
    assert "Bearer key-of-upstream_key" == first.requests[0].headers["authorization"]
    assert "key-of-bob" == first.requests[0].headers["x-key"]
    assert "Bearer key-of-alice" == second.requests[0].headers["authorization"]


def test_callers_have_their_models_and_budgets(served):
    """A caller sees only its models, and its spent budget does not touch another caller."""
    text = '[models.n]\nmodel = "embedded"\n' + MODEL + CALLERS + 'models = ["m"]\nbudget = {tokens = 60}\n'
    server = served(text, ANSWER)
    assert 401 == ask(server).status_code
    assert 404 == ask(server, "bob", "n").status_code
    assert [200, 429] == [ask(server, "bob").status_code for _ in range(2)]
    assert "insufficient_quota" == ask(server, "bob").json()["error"]["type"]
    assert 200 == ask(server, "alice").status_code
    headers = {"authorization": "Bearer key-of-bob"}
    listed = httpx.get(f"{server.url}/v1/models", headers=headers, timeout=60).json()["data"]
    assert ["m"] == [model["id"] for model in listed]


def test_cached_answer_costs_no_budget(served):
    """A caller with a budget for one question may repeat it: the cache answers."""
    server = served(MODEL + "cache = {}\n" + CALLERS + "budget = {tokens = 60}\n", ANSWER)
    assert [200, 200, 200] == [ask(server, "bob").status_code for _ in range(3)]
    assert 429 == ask(server, "bob", content="another question").status_code


@pytest.mark.parametrize(("shared", "asked"), [("false", 2), ("true", 1)])
def test_answers_are_cached_for_each_caller_unless_shared(served, shared, asked):
    """Two callers with the same question share an answer only if the cache is shared."""
    server = served(MODEL + f"cache = {{shared = {shared}}}\n" + CALLERS, ANSWER)
    for caller in "alice", "bob", "alice", "bob":
        assert 200 == ask(server, caller).status_code
    assert asked == len(server.upstreams[0].requests)


def test_limits_and_budgets_of_a_model_hold_for_all_callers(served):
    """The limit and the budget of a model are shared by all callers."""
    text = MODEL + "limits = {concurrency = 1}\nbudget = {tokens = 60, period = 'month'}\n" + CALLERS
    server = served(text, ANSWER)
    assert [200, 429] == [ask(server, caller).status_code for caller in ("alice", "bob")]


def test_each_response_has_a_request_id_and_a_line_in_the_log(served, caplog):
    """The log has id, caller, path and status, and neither the question nor the answer."""
    server = served(MODEL + CALLERS, ANSWER)
    with caplog.at_level(logging.INFO, "rxllm.serve.access"):
        assert "req-1" == ask(server, "alice", **{"x-request-id": "req-1"}).headers["x-request-id"]
        made = ask(server, **{"x-request-id": "not a word"})
        settle(server)
    lines = [record.getMessage() for record in caplog.records if record.name == "rxllm.serve.access"]
    assert lines[0].startswith("req-1 alice POST /v1/chat/completions 200 ")
    assert lines[1].startswith(f"{made.headers['x-request-id']} - POST /v1/chat/completions 401 ")
    assert made.headers["x-request-id"].startswith("req_")
    assert not any(word in line for line in lines for word in ("secret", "Hello", "key-of"))


def test_metrics_count_requests_and_tokens(served):
    """The metrics are for callers with a key, and have no names of callers."""
    server = served(MODEL + CALLERS, ANSWER)
    ask(server, "alice")
    settle(server)
    assert 401 == httpx.get(f"{server.url}/metrics", timeout=60).status_code
    text = httpx.get(f"{server.url}/metrics", headers={"authorization": "Bearer key-of-bob"}, timeout=60).text
    assert 'rxllm_requests_total{path="/v1/chat/completions",status="200"} 1\n' in text
    assert 'rxllm_tokens_total{model="m",kind="input"} 30\n' in text
    assert "alice" not in text
    assert {"status": "ok"} == httpx.get(f"{server.url}/health", timeout=60).json()


def test_only_listed_pages_and_hosts_may_ask(served):
    """Without `cors` no page of another origin may read; a foreign Host is refused."""
    preflight = {"origin": "https://a.example", "access-control-request-method": "POST"}

    def allowed(server, **headers):
        response = httpx.options(f"{server.url}/v1/chat/completions", headers={**preflight, **headers}, timeout=60)
        return response.headers.get("access-control-allow-origin")

    assert allowed(served(MODEL, ANSWER)) is None
    server = served('cors = ["https://a.example"]\nallowed_hosts = ["127.0.0.1"]\n' + MODEL, ANSWER)
    assert "https://a.example" == allowed(server)
    assert allowed(server, origin="https://b.example") is None
    assert 400 == ask(server, host="evil.example").status_code
    for path, status in ("/metrics", 400), ("/health", 200):  # a load balancer may ask for the health under any name
        answer = httpx.get(f"{server.url}{path}", headers={"host": "evil.example"}, timeout=60)
        assert status == answer.status_code


def test_secret_of_a_variable_has_no_white_space_around_it(monkeypatch):
    """As of a file that ends with a line break. White space alone is no secret."""
    monkeypatch.setenv("ALICE", "key-of-alice\r\n")
    assert "key-of-alice" == Secret(env="ALICE").read()
    monkeypatch.setenv("ALICE", " \n")
    with pytest.raises(MisuseError, match="ALICE is not set"):
        Secret(env="ALICE").read()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "models"),
        ("[models]", "no models"),
        ("[models.m", "wrong"),
        ('[models.m]\nmodel = "embedded"\ncolour = 1', "colour"),
        ('[models.m]\nmodel = "openai:gpt"\napi_key = "sk-1"', "environment variable, as in"),
        ('[models.m]\nmodel = "openai:gpt"\napi_key = {env = "MISSING"}', "MISSING is not set"),
        ('[models.m]\nmodel = "openai:gpt"\noptions = {api_key = "sk-1"}', "must not stand in the file"),
        ('[models.m]\nmodel = "openai:gpt"\noptions = {headers = {Authorization = "sk-1"}}', "must not stand"),
        ('[models.m]\nmodel = "opnai:gpt"', "opnai"),
        ('[models.m]\nmodel = "embedded"\nbudget = {cost = -1}', "cost"),
        ('[models.m]\nmodel = "embedded"\n[callers.a]\nkey = {env = "ALICE"}\nmodels = ["x"]', "may use the model 'x'"),
        (f'[models.m]\nmodel = "embedded"\n{CALLERS.replace("BOB", "ALICE")}', "same key"),
        ('host = "0.0.0.0"\n[models.m]\nmodel = "embedded"', "at your cost"),
        ('tls = {cert = "a.pem", key = "b.pem"}\n[models.m]\nmodel = "embedded"', "no file 'a.pem'"),
        ('host = "0.0.0.0"\nauth = false\n[models.m]\nmodel = "embedded"', None),
    ],
)
def test_mistakes_in_the_file_are_told_at_the_start(tmp_path, monkeypatch, text, words):
    """A wrong file is refused with a sentence, before anything is served; no secret is shown."""
    monkeypatch.setenv("ALICE", "key-of-alice")
    path = tmp_path / "serve.toml"
    path.write_text(text, "utf-8")
    if words is None:
        gateway(Config.read(path))
        return
    with pytest.raises(MisuseError, match=words) as caught:
        gateway(Config.read(path))
    assert "sk-1" not in str(caught.value)
    with pytest.raises(MisuseError, match="cannot be read"):
        Config.read(tmp_path / "none.toml")


def test_chat_page_has_the_models_of_each_caller(served):
    """The page is there for everybody; what it asks with is the caller's, as over OpenAI's protocol."""
    server = served(
        '[models.m]\nmodel = "embedded"\n[models.n]\nmodel = "embedded"\n' + CALLERS + 'models = ["n"]\n',
    )
    assert "text/html; charset=utf-8" == httpx.get(server.url, timeout=60).headers["content-type"]
    url = f"{server.url}/api/chat"
    assert 401 == httpx.get(url, timeout=60).status_code
    bob = {"authorization": "Bearer key-of-bob"}
    assert {"models": ["n"]} == httpx.get(url, headers=bob, timeout=60).json()
    message = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
    body = {"id": "c", "messages": [message]}
    assert 404 == httpx.post(url, json={**body, "model": "m"}, headers=bob, timeout=60).status_code
    assert '"type":"finish"' in httpx.post(url, json=body, headers=bob, timeout=60).text


def test_chat_page_can_be_left_out(served):
    """`chat = false` leaves OpenAI's protocol only."""
    server = served('chat = false\n[models.m]\nmodel = "embedded"\n')
    assert [404, 404] == [httpx.get(server.url + path, timeout=60).status_code for path in ("/", "/api/chat")]
