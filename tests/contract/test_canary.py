"""A secret that is entered at any possible place is found in no output, whatever the server sends.

The server repeats the whole request in the form that a test asks for, so no place and no form of an echo is left out.
"""

import asyncio
import base64
import contextlib
import html
import io
import json
import logging
import pickle
import re
import socketserver
import threading
import traceback
from urllib.parse import quote, unquote

import httpx
import pytest
from models import made
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from protocols import EVERY, PROTOCOLS, MistralChat

import rxllm
from rxllm import Anthropic, LoggingHandler, MemoryStore, OpenAI, OpenTelemetryHandler, RxllmError, StdoutHandler, cli
from rxllm.testing import record

CANARY = "ca/nary+S3CRET~0123456789"  # each of these characters is changed by some encoding


# ── the server ───────────────────────────────────────────────────────────────────────────────────────────────────


def http(status, content_type, body, more=""):
    """Return an HTTP/1.1 response as bytes."""
    body = body.encode() if isinstance(body, str) else body
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{more}Connection: close"
    )
    return f"{head}\r\n\r\n".encode("latin-1") + body


def error_body(form):
    """Return an error document whose message is the request in some form."""
    return lambda protocol, asked: http("400 Bad", "application/json", protocol.error_body(400, form(asked)))


def raw_body(form, content_type="text/plain"):
    """Return an error whose body is the request in some form, without JSON."""
    return lambda protocol, asked: http("400 Bad", content_type, form(asked))


def cut(asked):
    """Return the request up to the middle of the first canary."""
    place = asked.find(CANARY)
    return asked[: place + len(CANARY) // 2] if place >= 0 else asked


def lines(asked):
    """Return the request on one line, as a header can hold it."""
    return " ".join(asked.split())


EVENTS = "text/event-stream"
ECHOES = {
    "json": error_body(lambda asked: asked),
    "percent": error_body(lambda asked: quote(asked, safe="")),
    "some percent": error_body(lambda asked: re.sub("[a-e]", lambda m: f"%{ord(m[0]):02x}", asked)),
    "twice percent": error_body(lambda asked: quote(quote(asked, safe=""), safe="")),
    "base64": error_body(lambda asked: base64.b64encode(asked.encode()).decode()),
    "base64, shifted": error_body(lambda asked: base64.urlsafe_b64encode(b"x" + asked.encode()).decode()),
    "hexadecimal": error_body(lambda asked: asked.encode().hex()),
    "unicode escapes": raw_body(lambda asked: "".join(f"\\u{ord(c):04x}" for c in asked), "application/json"),
    "json in json": error_body(lambda asked: json.dumps(json.dumps({"a": asked.replace("/", "\\/")}))),
    "html": raw_body(
        lambda asked: html.escape("".join(f"&#{ord(c)};" if c in "ac/" else c for c in asked)), "text/html"
    ),
    "html, hexadecimal": raw_body(lambda asked: "".join(f"&#x{ord(c):x};" for c in asked), "text/html"),
    "repr": raw_body(lambda asked: repr(asked.encode())),
    "cut": lambda protocol, asked: http(
        "400 Bad", "text/plain", "x" * (65536 - len(cut(asked))) + cut(asked) + "y" * 9
    ),
    "reason": lambda protocol, asked: http(f"400 {lines(asked)}", "text/plain", ""),
    "header": lambda protocol, asked: http("400 Bad", "text/plain", "", f"Set-Cookie: a={lines(asked)}\r\n"),
    "location": lambda protocol, asked: http("307 Go", "text/plain", "", f"Location: http://[::1/{lines(asked)}\r\n"),
    "page": lambda protocol, asked: http("200 OK", "text/html", asked),
    "error frame": lambda protocol, asked: http("200 OK", EVENTS, protocol.error_frame(asked)),
    "error document": lambda protocol, asked: http("200 OK", "application/json", protocol.error_body(400, asked)),
    "no frame": lambda protocol, asked: http("200 OK", EVENTS, f"data: {{{lines(asked)}\n\n"),
    "no json": lambda protocol, asked: http("200 OK", "application/json", f"{{{asked}"),
    "wrong type": lambda protocol, asked: http("200 OK", EVENTS, f"data: {json.dumps({'choices': asked})}\n\n"),
    "no http": lambda protocol, asked: asked.encode(),
    "no http, in a header": lambda protocol, asked: b"HTTP/1.1 200 OK\r\n\x00" + asked.encode(),
    "no chunks": lambda protocol, asked: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + asked.encode(),
    "no length": lambda protocol, asked: f"HTTP/1.1 200 OK\r\nContent-Length: {lines(asked)}\r\n\r\n".encode(),
    "nothing": lambda protocol, asked: b"",
    "an answer": lambda protocol, asked: http("200 OK", EVENTS, b"".join(protocol.stream(["fine"]))),
}


class Echo(socketserver.ThreadingTCPServer):
    """A server that answers each request with what `ECHOES` makes of it."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, protocol):
        super().__init__(("127.0.0.1", 0), _Exchange)
        self.protocol = protocol
        self.echo = "json"
        self.asked = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class _Exchange(socketserver.StreamRequestHandler):
    def handle(self):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            if not (line := self.rfile.readline()):
                return
            head += line
        body = self.rfile.read(int(re.search(rb"(?im)^content-length: (\d+)", head)[1]))
        asked = (head + body).decode("latin-1")
        # A server can also repeat in clear what was encoded in the request.
        logins = "".join(base64.b64decode(login).decode() for login in re.findall("Basic (\\S+)", asked))
        self.server.asked.append(asked + unquote(asked) + logins)
        self.wfile.write(ECHOES[self.server.echo](self.server.protocol, self.server.asked[-1]))


# ── the places ───────────────────────────────────────────────────────────────────────────────────────────────────


def canary(place):
    """Return a secret for one place; all secrets end alike."""
    return f"{place}/{CANARY}"


def _signed(request):
    request.headers["X-Signed"] = f"v1={canary('function')}"
    return request


def with_key(address):
    """Return keys, headers and fields of the model."""
    fields = {"provider_options": {"api_key": canary("named")}, "anything": canary("unnamed")}
    headers = {"X-Anything": canary("header"), "Cookie": f"theme=dark; session={canary('cookie')}"}
    return {"api_key": canary("key"), "headers": headers, "extra": fields}, {}


def with_environment(address):
    """Set keys in the environment."""
    names = {
        *("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OLLAMA_API_KEY", "AWS_BEARER_TOKEN_BEDROCK"),
        *("CO_API_KEY", "MISTRAL_API_KEY"),
    }
    return {"api_key": None}, {name: canary(name) for name in names}


def with_token(address):
    """Return a bearer token, given or in the environment, and keys in tools."""
    tools = [{"type": "mcp", "server_url": "x", "headers": {"X-Anything": canary("tool")}}]
    headers = {"Authorization": f"Bearer {canary('bearer')}"}
    return {"api_key": None, "headers": headers, "tools": tools}, {"ANTHROPIC_AUTH_TOKEN": canary("token")}


def with_login(address):
    """Put a user name and a password into the address."""
    login = f"{quote(canary('name'), safe='')}:{quote(canary('password'), safe='')}@"
    return {"base_url": f"{address.replace('://', f'://{login}')}/v1"}, {}


def with_client(address):
    """Return a client with headers, cookies, a query and a login function."""

    def client():
        return httpx.AsyncClient(
            verify=False,  # noqa: S501  (saves 80 ms)
            headers={"X-Anything": canary("client's header")},
            params={"api-version": "2024", "sig": canary("query")},
            cookies={"session": canary("client's cookie")},
            auth=_signed,
        )

    return {"client": client, "api_key": canary("key")}, {}


def with_clients_login(address):
    """Return a client with a login, and one for its proxy."""
    proxy = address.replace("://", f"://user:{quote(canary('proxy'), safe='')}@")

    def client():
        return httpx.AsyncClient(verify=False, proxy=proxy, auth=("user", canary("login")))  # noqa: S501

    return {"client": client, "base_url": "http://models.invalid/v1"}, {}


def with_proxy(address):
    """Set the login of the environment's proxy."""
    proxy = address.replace("://", f"://user:{quote(canary('proxy'), safe='')}@")
    return {"base_url": "http://models.invalid/v1"}, {"HTTP_PROXY": proxy, "http_proxy": proxy}


def with_signature(address):
    """Set credentials of AWS, which sign a request; the token is sent, too."""
    names = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    variables = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_REGION": "eu-west-1"}
    return {"api_key": None}, variables | {name: canary(name) for name in names}


PLACES = [with_key, with_environment, with_token, with_login, with_client, with_clients_login, with_proxy]


def create_model(protocol, address, place, monkeypatch):
    """Return a model of the protocol with canaries at these places."""
    settings, variables = place(address)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if protocol.name not in ("chat", "responses", "messages"):  # the others send no tools in another form than theirs
        settings.pop("tools", None)
    return made(protocol, address, **{"api_key": "a-plain-key", "timeout": 5.0} | settings)


# ── the outputs ──────────────────────────────────────────────────────────────────────────────────────────────────


def forms(text):
    """Return the text as a thief would read it: as it is, and with each encoding undone."""
    yield from (text, unquote(text), unquote(unquote(text)), html.unescape(html.unescape(text)))
    yield re.sub(r"\\+u00(..)", lambda m: chr(int(m[1], 16)), text).replace("\\", "")
    for blob in re.findall(r"[A-Za-z0-9+/_-]{24,}", text):
        for start in range(4):
            plain = blob[start:].translate({45: 43, 95: 47})
            yield base64.b64decode(plain[: len(plain) // 4 * 4]).decode("latin-1")
        with contextlib.suppress(ValueError):
            yield bytes.fromhex(blob[: len(blob) // 2 * 2]).decode("latin-1")


def holds(output):
    """Return whether the canary, or all but a few of its characters, can be read in an output."""
    text = output.decode("latin-1") if isinstance(output, bytes) else str(output)
    return any(CANARY[3:-3] in form for form in forms(text))


def chain(error):
    """Yield an error and all errors that it refers to, in the order of tracebacks and beyond."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def shown(error):
    """Return everything that an error shows."""
    yield "traceback", "".join(traceback.format_exception(error))
    for each in chain(error):
        facts = [getattr(each, name, None) for name in ("body", "frame", "code", "partial", "text")]
        yield (
            f"{type(each).__name__} in the chain",
            "".join(map(str, [each, repr(each), each.args, vars(each), *facts])),
        )
    if isinstance(error, RxllmError):
        yield "request", repr(error.request)
        yield "pickle", pickle.dumps(error)


class Recorder(rxllm.Handler):
    """A handler that keeps the repr of all events."""

    def __init__(self):
        self.heard = []

    def on_event(self, event):
        """Keep the repr of the event."""
        self.heard.append(repr(event))


# Each provider has its own headers and decoder; what a client and an address add is the same for all.
CASES = [
    *((protocol, place) for protocol in (*EVERY, MistralChat()) for place in PLACES[:2]),
    *((protocol, place) for protocol in (EVERY[0], EVERY[2], EVERY[6]) for place in PLACES[2:]),
    (EVERY[6], with_signature),
]


@pytest.mark.parametrize(("protocol", "place"), CASES, ids=lambda each: getattr(each, "name", "") or each.__name__)
def test_canary_is_in_no_output(protocol, place, monkeypatch, tmp_path, caplog):
    """No error, event, span, log record, cassette, cache or pickle holds it, streamed and whole, sync and async."""
    caplog.set_level(logging.DEBUG)
    hears, printed, spans = Recorder(), io.StringIO(), InMemorySpanExporter()
    tracers, metrics = TracerProvider(), InMemoryMetricReader()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    telemetry = OpenTelemetryHandler(
        tracer_provider=tracers, meter_provider=MeterProvider([metrics]), capture_content=True
    )
    monkeypatch.setattr("sys.stderr", printed)
    handlers = [hears, LoggingHandler(), StdoutHandler(printed), telemetry]
    with Echo(protocol) as server, asyncio.Runner() as runner:
        llm = create_model(protocol, server.url, place, monkeypatch)
        tape, store = tmp_path / "tape.jsonl", MemoryStore()
        asked = rxllm.cached(record(llm, tape), store, name="canary").with_config(handlers=handlers)
        found = [f"repr of {type(each).__name__}" for each in (llm, asked) if holds(repr(each) + str(each))]
        with contextlib.suppress(rxllm.MisuseError, AttributeError):  # objects with secrets cannot be pickled
            found += ["pickle of the model"] if holds(pickle.dumps(llm)) else []

        def failed(stream, way):
            try:
                if way == "async":
                    runner.run(asked.bind(stream=stream).ainvoke("hi"))
                else:
                    asked.bind(stream=stream).invoke("hi")
            except Exception as error:
                return error

        for echo in ECHOES:
            server.echo = echo
            for stream, way in (True, "async"), (False, "sync"):
                error = failed(stream, way)
                assert (error is None) == (echo == "an answer"), (echo, error)
                outputs = [] if error is None else shown(error)
                found += [f"{echo}, {stream}, {way}: {name}: {output}" for name, output in outputs if holds(output)]
            outputs = {
                "events": "".join(hears.heard),
                "log": caplog.text + "".join(map(repr, map(vars, caplog.records))),
                "terminal": printed.getvalue(),
                "cassette": tape.read_text("utf-8"),
            }
            found += [f"{echo}: {name}: {output}" for name, output in outputs.items() if holds(output)]
            hears.heard.clear()
            caplog.clear()
            printed.truncate(0)
            tape.write_bytes(b"")
        assert any(CANARY in each for each in server.asked)
    outputs = {
        "spans": "".join(span.to_json() for span in spans.get_finished_spans()),
        "metrics": metrics.get_metrics_data().to_json(),
        "cache": pickle.dumps(store._answers),
    }
    found += [f"{name}: {output}" for name, output in outputs.items() if holds(output)]
    assert [] == [each[:2000] for each in found]


@pytest.mark.parametrize("echo", ["percent", "base64", "reason", "page", "no http", "an answer"])
def test_command_line_shows_no_secret(monkeypatch, capsys, echo):
    """Neither output of the command has the key, whatever the server sends."""
    monkeypatch.setattr("sys.stdin", None)
    with Echo(PROTOCOLS[0]) as server:
        server.echo = echo
        monkeypatch.setenv("OPENAI_API_KEY", CANARY)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        code = cli.main(["-m", "openai:m", "hi"])
        assert (echo != "an answer", True) == (code == 1, CANARY in server.asked[0])
    assert [] == [each for each in capsys.readouterr() if holds(each)]


BAD_HEADERS = [[("a", CANARY)], {"a": [CANARY]}, {"a b": CANARY}, {f"Authorization: Bearer {CANARY}": "x"}, CANARY]
BAD_BASES = [
    "http://user:{}@host:99999/v1", "http://host:x/v1?key={}", "http://ho st/v1#{}", "ftp://user:{}@host",
    "user:{}@host", "http://host/v1?key={}", "http://user:{}/@host:x",
]  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [
        *({"headers": each} for each in BAD_HEADERS),
        *({"base_url": each.format(CANARY)} for each in BAD_BASES),
        *({"api_key": each} for each in ([CANARY], CANARY.encode(), f"{CANARY}\n\nx", f"{CANARY}é")),
        *({"extra": each} for each in (CANARY, [CANARY], {1: CANARY})),
        {"client": CANARY},
        {"apikey": CANARY},
    ],
    ids=repr,
)
@pytest.mark.parametrize("kind", [OpenAI, Anthropic])
def test_misuse_error_does_not_show_the_secret(kind, given):
    """An error about a wrong argument names the argument, and not its value."""
    with pytest.raises(rxllm.MisuseError) as caught:
        kind("m", **given)
    assert [] == [each for each in chain(caught.value) if holds(str(each)) or holds(repr(each))]
