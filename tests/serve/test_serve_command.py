"""``rxllm serve``: what it serves, what it refuses, and how it ends."""

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from ports import free_port

import rxllm
from rxllm import cli
from rxllm.testing import End, FakeServer, Reply, Signal


class Command:
    """``with Command("-m", …) as command``: the program, once it listens at `command.url`."""

    def __init__(self, *words, **environment):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.words = [*words, "--port", str(self.port)]
        self.environment = environment

    def __enter__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rxllm", "serve", *self.words],
            env={**os.environ, **self.environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        while True:  # the test's timeout bounds the attempts
            assert self.process.poll() is None, self.process.stderr.read()
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except ConnectionRefusedError:
                threading.Event().wait(0.05)
                continue
            return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()


def test_models_are_served_under_their_names():
    """A model has the name before '=', else its own; rxllm's client gets an answer."""
    with Command("-m", "poet=embedded", "-m", "embedded") as command:
        names = [model["id"] for model in httpx.get(f"{command.url}/v1/models", timeout=60).json()["data"]]
        assert ["poet", "embedded"] == names
        llm = rxllm.OpenAI("poet", base_url=f"{command.url}/v1", api_key="k", api="chat")
        assert llm.invoke("hi").text


def test_sigterm_ends_the_program_within_its_grace_with_a_stream_open():
    """SIGTERM closes an open stream after the grace, and the request to the model with it."""
    event = b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'
    with FakeServer(Reply([event, End.HANG])) as upstream:
        environment = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{upstream.url}/v1"}
        with Command("-m", "m=openai:gpt-4", "--grace", "0", **environment) as command:
            body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
            with httpx.stream("POST", f"{command.url}/v1/chat/completions", json=body, timeout=60) as response:
                pieces = response.iter_bytes()
                next(pieces)
                command.process.send_signal(signal.SIGTERM)
                with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):  # the answer is not whole
                    list(pieces)
            assert 0 == command.process.wait(30)
            assert "Traceback" not in command.process.stderr.read()
            upstream.exchange().wait_closed()


def test_ending_server_finishes_its_answers_and_takes_no_others():
    """After SIGTERM ``/health`` says 503 and requests are refused; the program ends when its last answer does."""
    event, done = b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n', Signal()
    end = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    with FakeServer(Reply([event, done, end])) as upstream:
        environment = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{upstream.url}/v1"}
        with Command("-m", "m=openai:gpt-4", "--grace", "60", **environment) as command:
            body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
            with httpx.stream("POST", f"{command.url}/v1/chat/completions", json=body, timeout=60) as response:
                pieces = response.iter_text()
                next(pieces)
                command.process.send_signal(signal.SIGTERM)
                while httpx.get(f"{command.url}/health", timeout=60).status_code != 503:
                    pass  # the test's timeout bounds the attempts
                refused = httpx.get(f"{command.url}/v1/models", timeout=60)
                assert (503, "true") == (refused.status_code, refused.headers["x-should-retry"])
                done.set()
                assert "[DONE]" in "".join(pieces)
            assert 0 == command.process.wait(30)


def test_configuration_and_options_make_a_server_with_tls(tmp_path):
    """``--config`` serves the models of a file; options for the server win over it; a certificate makes it HTTPS."""
    path, certificate = tmp_path / "serve.toml", str(Path(__file__).parent.parent / "wire" / "loopback.pem")
    path.write_text('port = 1\n[models.poet]\nmodel = "embedded"\n', "utf-8")
    with Command("--config", str(path), "--tls-cert", certificate, "--tls-key", certificate) as command:
        context = ssl.create_default_context(cafile=certificate)
        models = httpx.get(f"https://127.0.0.1:{command.port}/v1/models", verify=context, timeout=60).json()["data"]
    assert ["poet"] == [model["id"] for model in models]


def test_callers_need_a_key_of_the_environment():
    """With --key-env only callers with that key are served."""
    with Command("-m", "embedded", "--key-env", "ALICE", ALICE="secret") as command:
        assert 401 == httpx.get(f"{command.url}/v1/models", timeout=60).status_code
        assert (
            200
            == httpx.get(f"{command.url}/v1/models", headers={"authorization": "Bearer secret"}, timeout=60).status_code
        )


def test_foreign_host_header_is_refused():
    """On the loopback address only its own names are accepted, so that a foreign page cannot ask."""
    with Command("-m", "embedded") as command:
        assert 400 == httpx.get(f"{command.url}/v1/models", headers={"host": "evil.example"}, timeout=60).status_code


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-m", "embedded", "--host", "0.0.0.0"], "--key-env NAME"),  # noqa: S104
        (["-m", "embedded", "--key-env", "MISSING"], "MISSING"),
        (["-m", "opnai:gpt"], "opnai"),
        (["-m", "embedded", "--tls-cert", "a.pem"], "--tls-key"),
        (["--config", "none.toml"], "cannot be read"),
        (["--config", "none.toml", "--key-env", "A"], "[callers.NAME]"),
        (["-m", "embedded", "--port", "70000"], "port"),
    ],
)
def test_mistakes_are_refused_before_anything_is_served(words, sentence, capsys):
    """Open models beyond this machine, missing keys and unknown models end the program with status 2."""
    assert 2 == cli.main(["serve", *words])
    assert re.search(re.escape(sentence), capsys.readouterr().err)
