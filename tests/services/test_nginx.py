"""Streams behind nginx, one hop and two, with and without compression: each event arrives when it is sent."""

import contextlib
import json
import shutil
import signal
import socket
import subprocess

import httpx
import pytest
from ports import free_port
from serving import Serving

import rxllm
from rxllm.serve import chat, openai
from rxllm.testing import End, FakeServer, Reply

CONF = """
daemon off; worker_processes 1; error_log stderr crit; pid {folder}/{port}.pid;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  gzip on; gzip_min_length 0; gzip_proxied any; gzip_types {types};
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1; {more} }}
  }}
}}
"""
PASSED_ON = "proxy_pass_header X-Accel-Buffering;"  # docs/how-to/behind-nginx.md


@contextlib.contextmanager
def nginx(folder, upstream, *, compresses=False):
    """Run nginx in front of a port, and yield its port."""
    program = shutil.which("nginx")
    if program is None:
        pytest.skip("nginx is not installed")
    port = free_port()
    types = "application/json text/event-stream" if compresses else "application/json"
    file = folder / f"{port}.conf"
    file.write_text(CONF.format(folder=folder, port=port, upstream=upstream, types=types, more=PASSED_ON))
    process = subprocess.Popen([program, "-c", file, "-e", "stderr"], stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10):
                yield port
                return
        raise AssertionError(f"nginx ended with {process.returncode}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


@contextlib.contextmanager
def hops(folder, port, count, *, compresses=False):
    """Run one nginx in front of the other, and yield the port of the first, which may compress."""
    with contextlib.ExitStack() as stack:
        for number in range(1, count + 1):
            port = stack.enter_context(nginx(folder, port, compresses=compresses and number == count))
        yield port


@pytest.mark.parametrize("compresses", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("count", [1, 2])
def test_each_event_arrives_when_it_is_sent(tmp_path, gated, count, compresses):
    """The first word is read while the model waits; a buffering proxy would wait for the end."""
    message = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
    body = {"id": "c", "messages": [message]}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Serving(chat({"m": gated}, owner=lambda _: "a")))
        port = stack.enter_context(hops(tmp_path, server.port, count, compresses=compresses))
        with httpx.stream("POST", f"http://127.0.0.1:{port}/api/chat", json=body, timeout=30) as answer:
            lines = answer.iter_lines()
            assert any("one " in line for line in lines)
            gated.gate.set()
            assert any("two" in line for line in lines)
        assert ("gzip" if compresses else None) == answer.headers.get("content-encoding")


@pytest.mark.parametrize("count", [1, 2])
def test_client_that_leaves_closes_the_request_to_the_model(tmp_path, count):
    """When a client leaves, nginx closes its own connection, and so the model's server sees the close."""
    event = b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    with FakeServer(Reply([event, End.HANG])) as upstream:
        llm = rxllm.OpenAI("m", base_url=upstream.url, api_key="k", api="chat")
        with Serving(openai({"m": llm})) as server, hops(tmp_path, server.port, count) as port:
            with httpx.stream("POST", f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=30) as answer:
                assert any("Hel" in line for line in answer.iter_lines())
            upstream.exchange().wait_closed()


def test_early_error_keeps_its_status(tmp_path):
    """A proxy passes the status on, since the headers waited for the first event."""

    class Limited(rxllm.LLM):
        def chunks(self, request):
            raise rxllm.RateLimited("slow", status=429, retry_after=3)

    body = {"id": "c", "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "hi"}]}]}
    with Serving(chat({"m": Limited()}, owner=lambda _: "a")) as server, hops(tmp_path, server.port, 2) as port:
        answer = httpx.post(f"http://127.0.0.1:{port}/api/chat", json=body, timeout=30)
    assert (429, "3") == (answer.status_code, answer.headers["retry-after"])
    assert "too many requests" in json.loads(answer.text)["error"]
