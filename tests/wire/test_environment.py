"""The environment variables of a connection: proxies, certificates, netrc."""

from __future__ import annotations

import asyncio
import logging
import re

import httpx
import pytest
from wire_raw import CERTIFICATE, RawServer, ok

import rxllm
from rxllm.errors import ProviderError, RxllmError, TransportError
from rxllm.misuse import MisuseError
from rxllm.testing import FakeServer, Reply
from rxllm.wire.http import post
from rxllm.wire.proxies import Proxy, is_loopback, proxy_for

KEY = "sk-do-not-show-this"
ANSWER = b'{"choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]}'


@pytest.fixture
def server():
    """A local server."""
    with FakeServer(Reply(b"Hello")) as server:
        yield server


def failure(status, body, headers):
    """An error whose attributes are the arguments of `failure`."""
    return ProviderError(body.decode(), status=status, body=body.decode())


async def asked(url, *, headers=None, **settings):
    """All the bytes of an answer, on the running loop, which has connections of its own."""
    source = post(url, b"{}", headers=headers or {}, failure=failure, **settings)
    return b"".join([piece async for piece in source.pipe(rxllm.astream())])


class TestProxies:
    """The variables ``*_proxy``, in the forms that are usual."""

    @pytest.mark.parametrize("form", ["http://{}", "{}", "HTTP://{}/", "  http://{}\t", "http://{}/path?query"])
    @pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
    async def test_a_plain_request_goes_to_the_proxy(self, server, monkeypatch, form, name):
        """The proxy gets the whole address and the key, because the connection is not encrypted."""
        monkeypatch.setenv(name, form.format(server.url.removeprefix("http://")))
        assert b"Hello" == await asked("http://model.invalid/v1/x?y=1", headers={"x-api-key": KEY})
        request = server.requests[0]
        assert ("model.invalid", "/v1/x", "y=1", KEY) == (
            request.headers["host"],
            request.path,
            request.query,
            request.headers["x-api-key"],
        )

    async def test_a_proxy_is_told_its_password_and_nobody_else(self, server, monkeypatch):
        """Once for each request, also over a kept connection; a direct request gets none."""
        monkeypatch.setenv("HTTP_PROXY", server.url.replace("http://", "http://me:p%40ss@"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        for url in ("http://model.invalid/v1", "http://model.invalid/v1", server.url):
            assert b"Hello" == await asked(url)
        told = [request.headers.get("proxy-authorization") for request in server.requests]
        assert ["Basic bWU6cEBzcw=="] * 2 + [None] == told

    async def test_a_tunnel_hides_the_key_from_the_proxy(self, monkeypatch):
        """For https:// the request to the proxy is a tunnel. Its refusal becomes an error without the password."""
        with RawServer([b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n"]) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("http://", "me:password@"))
            with pytest.raises(TransportError, match="the proxy answered with status 407") as caught:
                await asked("https://model.invalid/v1", headers={"authorization": f"Bearer {KEY}"})
            request = proxy.requests[0].lower()
        assert request.startswith(b"connect model.invalid:443 http/1.1\r\n")
        assert (True, False) == (b"proxy-authorization: basic bwu6cgfzc3dvcmq=" in request, KEY.encode() in request)
        assert "password" not in str(caught.value)

    async def test_a_proxy_that_is_not_there_is_named_as_one(self, monkeypatch):
        """The reason is not the server's."""
        with RawServer() as gone:
            pass
        monkeypatch.setenv("HTTP_PROXY", gone.url)
        with pytest.raises(TransportError, match="no connection to the proxy: Connection refused"):
            await asked("http://model.invalid/v1")

    @pytest.mark.parametrize(
        ("settings", "url"),
        [
            ({"HTTPS_PROXY": "socks5://127.0.0.1:1"}, "http://model.invalid"),
            ({"HTTP_PROXY": "socks5://127.0.0.1:1", "NO_PROXY": "model.invalid"}, "http://model.invalid"),
            ({"ALL_PROXY": "socks5://127.0.0.1:1", "NO_PROXY": " .invalid , x"}, "http://model.invalid"),
            ({"ALL_PROXY": "socks5h://127.0.0.1:1", "NO_PROXY": "*"}, "http://model.invalid"),
            ({"ALL_PROXY": "socks://127.0.0.1:1"}, "http://localhost:11434"),
            ({"ALL_PROXY": "http://127.0.0.1:1"}, "http://[::1]:11434"),
            ({"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "10.0.0.0/8,fd00::/8"}, "http://10.1.2.3:8000"),
            ({"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "10.0.0.0/8,fd00::/8"}, "http://[fd00::1]:8000"),
            ({"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "model.invalid:8000"}, "http://model.invalid:8000"),
            ({"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "[::1]"}, "http://[::1]:8000"),
            ({"HTTP_PROXY": "   "}, "http://model.invalid"),
            ({"HTTP_PROXY": ""}, "http://model.invalid"),
        ],
    )
    def test_what_does_not_concern_an_address_is_ignored(self, monkeypatch, settings, url):
        """Another scheme's proxy, exempt hosts, domains and networks, empty variables."""
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        place = httpx.URL(url)
        assert None is proxy_for(place.scheme, place.host, place.port or 80)

    def test_the_schemes_own_proxy_wins(self, monkeypatch):
        """Over the one for all."""
        monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:2")
        assert Proxy("http://127.0.0.1:2", None) == proxy_for("https", "model.invalid", 443)

    @pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
    @pytest.mark.parametrize(
        "form", ["socks5://me:word@127.0.0.1:1", "http://", "ftp://x", "http://x:port", "http://x:0"]
    )
    async def test_a_proxy_that_cannot_be_used_is_a_sentence(self, monkeypatch, name, form):
        """The message names the variable and the remedies, without the password. Nothing is sent."""
        monkeypatch.setenv(name, form)
        with pytest.raises(MisuseError, match=f"{name} must be like http://host:port to reach model.invalid") as caught:
            await asked("http://model.invalid/v1")
        assert "word" not in str(caught.value)


@pytest.mark.parametrize("entry", ["default", "machine 127.0.0.1", "machine model.invalid"])
@pytest.mark.parametrize("proxied", [True, False])
@pytest.mark.parametrize("provider", [rxllm.OpenAI, rxllm.Anthropic])
async def test_netrc_is_never_read(monkeypatch, tmp_path, entry, proxied, provider):
    """Its password goes nowhere, with a proxy or without."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"{entry} login me password do-not-send\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with FakeServer(Reply.json({}, status=400)) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url)
        monkeypatch.setenv("NO_PROXY", "" if proxied else "127.0.0.1")
        url = "http://model.invalid" if proxied else server.url
        with pytest.raises(rxllm.BadRequest):
            await provider("m", api_key=KEY, base_url=url).ainvoke("hi")
        headers = server.requests[0].headers
    key = headers.get("authorization", "").removeprefix("Bearer ") or headers["x-api-key"]
    assert (KEY, False) == (key, any("basic" in value.lower() for value in headers.values()))


class TestCertificates:
    """Of an https:// address."""

    @pytest.fixture(params=["default", "httpx"])
    def client(self, request):
        """No client, and a function that makes a plain one of httpx."""
        return None if request.param == "default" else lambda: httpx.AsyncClient()

    async def test_an_untrusted_certificate_is_a_sentence_and_not_tried_again(self, client):
        """The message contains the remedy."""
        with RawServer(*[[ok(ANSWER)]] * 3, tls=True) as server:
            llm = rxllm.OpenAI("m", base_url=server.url, api_key=KEY, client=client)
            with pytest.raises(TransportError, match=r"certificate.*SSL_CERT_FILE") as caught:
                await llm.ainvoke("hi")
            assert (False, 1, []) == (caught.value.retryable, server.connections, server.requests)
            assert "ssl:" not in str(caught.value)

    @pytest.mark.parametrize("scheme", ["http", "https"])
    @pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
    async def test_a_server_without_tls_is_a_sentence(self, client, scheme, said):
        """It is not tried again, because each attempt would fail alike; a server that only hangs up is."""
        connections = []

        def hang_up(_, writer):
            connections.append(writer)
            writer.write(said)
            writer.close()

        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            llm = rxllm.OpenAI("m", base_url=url, api_key=KEY, client=client, max_retries=1)
            with pytest.raises(RxllmError) as caught:
                await llm.ainvoke("hi")
        if said and scheme == "https":
            assert ("does not speak TLS there" in str(caught.value), len(connections)) == (True, 1)
        elif not said:
            assert (caught.value.retryable, len(connections)) == (True, 2)
            assert re.search("closed the connection|disconnected", str(caught.value))

    async def test_a_certificate_is_trusted_by_its_file(self, client, monkeypatch):
        """SSL_CERT_FILE counts; the connection is kept."""
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        with RawServer(*[[ok(ANSWER)]] * 2, tls=True) as server:
            llm = rxllm.OpenAI("m", base_url=server.url, api_key=KEY, client=client)
            assert ["Hello"] * 2 == [(await llm.ainvoke("hi", stream=False)).text for _ in range(2)]
            assert 1 == server.connections

    async def test_a_certificate_of_another_host_is_refused(self, client, monkeypatch):
        """The name is checked."""
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        with RawServer([ok(ANSWER)], tls=True) as server:
            llm = rxllm.OpenAI("m", base_url=server.url.replace("127.0.0.1", "localhost"), client=client)
            with pytest.raises(TransportError, match="certificate"):
                await llm.ainvoke("hi")
            assert [] == server.requests

    @pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
    @pytest.mark.parametrize("kind", ["gone", "wrong"])
    async def test_certificates_that_cannot_be_read_are_a_sentence(self, monkeypatch, tmp_path, name, kind):
        """It names the variable and the path, before anything is sent."""
        path = tmp_path / "certificates"
        if kind == "wrong":
            path.write_text("none")
        monkeypatch.setenv(name, str(path))
        with RawServer([ok(ANSWER)], tls=True) as server:
            with pytest.raises(MisuseError, match=f"{path}', which the variable {name} names, cannot be read"):
                await rxllm.OpenAI("m", base_url=server.url).ainvoke("hi")
            assert 0 == server.connections

    @pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
    async def test_a_plain_address_needs_no_certificates(self, server, monkeypatch, name):
        """They are not even read."""
        monkeypatch.setenv(name, "/nowhere")
        assert b"Hello" == await asked(server.url)

    async def test_a_refused_connection_is_told_in_plain_words(self, client):
        """The message does not mention TLS for a plain connection."""
        with RawServer() as gone:
            pass
        with pytest.raises(TransportError) as caught:
            await asked(gone.url, client=client)
        assert ("ssl" in str(caught.value), True) == (False, gone.url in str(caught.value))


class TestPlainText:
    """A key without encryption."""

    @pytest.mark.parametrize("headers", [{"authorization": f"Bearer {KEY}"}, {"X-Api-Key": KEY}])
    async def test_it_is_warned_of_once_for_each_server(self, server, monkeypatch, caplog, headers):
        """The warning names the server, and not the key."""
        host = f"{len(headers)}-{next(iter(headers)).lower()}.invalid"
        monkeypatch.setenv("HTTP_PROXY", server.url)
        for _ in range(2):
            await asked(f"http://{host}/v1/x", headers=headers)
        told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert 1 == len(told)
        assert (True, False) == (f"http://{host} without encryption" in told[0], KEY in told[0])

    async def test_without_a_key_or_on_this_machine_it_is_fine(self, server, monkeypatch, caplog):
        """Local models are usual."""
        await asked(server.url, headers={"authorization": f"Bearer {KEY}"})
        monkeypatch.setenv("HTTP_PROXY", server.url)
        await asked("http://keyless.invalid/v1", headers={"accept": "x"})
        assert [] == caplog.records

    @pytest.mark.parametrize(
        ("host", "expected"),
        [
            ("localhost", True),
            ("LocalHost.", True),
            ("a.localhost", True),
            ("127.0.0.1", True),
            ("127.8.9.1", True),
            ("::1", True),
            ("[::1]", True),
            ("localhost.invalid", False),
            ("127.0.0.1.invalid", False),
            ("0.0.0.0", False),  # noqa: S104
            ("10.0.0.1", False),
        ],
    )
    def test_loopback(self, host, expected):
        """By name and by address."""
        assert expected is is_loopback(host)
