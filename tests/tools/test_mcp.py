"""Tools of MCP servers: real servers in this process, over standard input and output, and over HTTP."""

import asyncio
import base64
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import mcp_types as types
import pytest
from combinators.scripted import Scripted, call, roles
from mcp import StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.server import Server
from serving import Serving

import rxllm
from rxllm import (
    Interrupted,
    MisuseError,
    ProtocolError,
    TextPart,
    ToolFailure,
    TransportError,
    agent,
    bounds,
)
from rxllm.testing import FakeServer, Reply

SCRIPT = [sys.executable, "-S", str(Path(__file__).with_name("mcp_script.py"))]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "x-unit": "m"}}, "oneOf": [{"required": ["a"]}]}
PIXEL = base64.b64encode(b"\x89PNG").decode()
TEXT = types.TextContent(text="ok")


def text(value):
    """A result of one text."""
    return types.CallToolResult(content=[types.TextContent(text=value)])


class Serve:
    """An MCP server of this process, by the SDK. `answer` is a function of the arguments, or a result."""

    def __init__(self, answer=None, *offers, pages=1):
        self.answer = answer or (lambda arguments: text(json.dumps(arguments)))
        self.offers = offers or (types.Tool(name="echo", description="Repeat.", input_schema=SCHEMA),)
        self.pages = pages
        self.began, self.cancelled = asyncio.Event(), asyncio.Event()
        self.server = Server("tests", on_list_tools=self.listed, on_call_tool=self.called)

    async def listed(self, context, params):
        """List the tools, page by page."""
        page = int((params and params.cursor) or 0) + 1
        return types.ListToolsResult(tools=list(self.offers), next_cursor=str(page) if page < self.pages else None)

    async def called(self, context, params):
        """Answer a call."""
        self.began.set()
        try:
            answer = self.answer(params.arguments) if callable(self.answer) else self.answer
            return await answer if asyncio.iscoroutine(answer) else answer
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


# ── tools ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_agent_calls_the_tools_of_a_server():
    """The schema goes out as it came. Handlers receive the arguments by name."""
    model, heard = Scripted([[call("my_echo", '{"a":1}', "c")], "Done."]), []
    async with rxllm.mcp(Serve().server, prefix="my_") as tools:
        answer = await agent(model, *tools).ainvoke("hi", handlers=[heard.append])
    assert rxllm.ToolSpec("my_echo", "Repeat.", SCHEMA) == model.requests[0].tools[0]
    assert ("Done.", ("tool", '={"a": 1}')) == (answer.text, roles(model.prompts[1])[-1])
    assert [{"a": 1}] == [event.input for event in heard if isinstance(event, rxllm.ToolStarted)]


async def test_names_fit_every_vendor_and_pages_are_read_to_the_end():
    """The server gets its own names back."""
    names = ["files.read/all", "x" * 80]
    offers = [types.Tool(name=name, input_schema={"type": "object"}) for name in names]
    async with rxllm.mcp(Serve(None, *offers).server) as tools:
        assert ["files_read_all", "x" * 64] == [tool.spec.name for tool in tools]
        assert "{}" == await tools[0].ainvoke({})
    async with rxllm.mcp(Serve(pages=3).server) as tools:
        assert 3 == len(tools)


@pytest.mark.parametrize(
    ("content", "more", "value"),
    [
        ([TEXT], {}, "ok"),
        ([TEXT, TEXT], {}, "ok\nok"),
        ([], {}, ""),
        ([], {"structured_content": {"a": [1]}}, '{"a":[1]}'),
        ([TEXT], {"structured_content": {"a": 1}}, "ok"),
        ([TEXT, types.ImageContent(data=PIXEL, mime_type="image/png")], {}, [TextPart("ok"), b"\x89PNG"]),
        ([types.AudioContent(data=PIXEL, mime_type="audio/wav")], {}, [b"\x89PNG"]),
        ([types.ResourceLink(name="notes", uri="file:///n")], {}, "notes: file:///n"),
        ([types.EmbeddedResource(resource=types.TextResourceContents(uri="file:///n", text="hi"))], {}, "hi"),
        ([types.EmbeddedResource(resource=types.BlobResourceContents(uri="file:///n", blob=PIXEL))], {}, [b"\x89PNG"]),
    ],
)
async def test_result_is_text_or_parts(content, more, value):
    """Pictures and other files are parts. Structured content alone is JSON."""
    async with rxllm.mcp(Serve(types.CallToolResult(content=content, **more)).server) as [echo]:
        result = await echo.ainvoke({})
    result = result if isinstance(result, str) else [getattr(part, "data", None) or part for part in result]
    assert value == result


async def test_failure_of_a_tool_is_told_to_the_model():
    """With the server's text, and with the type of a file in it."""
    picture = types.ImageContent(data=PIXEL, mime_type="image/png")
    failed = types.CallToolResult(content=[types.TextContent(text="No such city."), picture], is_error=True)
    model = Scripted([[call("echo")], "Sorry."])
    async with rxllm.mcp(Serve(failed).server) as tools:
        await agent(model, *tools).ainvoke("hi")
        with pytest.raises(ToolFailure, match=r"No such city\.\n\[a file of type image/png\]"):
            await tools[0].ainvoke({})
    assert "error" == model.prompts[1][-1].parts[0].outcome


async def test_request_for_input_of_the_user_is_refused():
    """The model is told, and the program does not hang. A request for an answer of a model is refused, too."""
    form = types.ElicitRequestFormParams(
        message="Your password?", requested_schema={"type": "object", "properties": {}}
    )
    asking = types.InputRequiredResult(input_requests={"one": types.ElicitRequest(params=form)}, request_state="s")
    async with rxllm.mcp(Serve(asking).server) as [echo]:
        with pytest.raises(ToolFailure, match="The tool echo asked for input from the user, which is refused here"):
            await echo.ainvoke({})
    async with rxllm.mcp(SCRIPT) as tools:
        with pytest.raises(ToolFailure, match="Sampling not supported"):
            await named(tools, "sample").ainvoke({})


@pytest.mark.parametrize(
    ("approve", "needed"),
    [
        (False, [False, False]),
        (True, [True, True]),
        (lambda hints: not hints.get("readOnlyHint"), [False, True]),
    ],
)
async def test_hints_may_decide_about_approvals(approve, needed):
    """A tool without hints has an empty dict."""
    read = types.Tool(name="read", input_schema=SCHEMA, annotations=types.ToolAnnotations(read_only_hint=True))
    write = types.Tool(name="write", input_schema=SCHEMA)
    async with rxllm.mcp(Serve(None, read, write).server, approve=approve) as tools:
        assert needed == [tool.approve for tool in tools]


def named(tools, name):
    """The tool of this name."""
    return next(tool for tool in tools if tool.name == name)


# ── the connection ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_any_task_may_call_and_close():
    """The SDK's own client must be closed in the task that opened it."""
    connection = rxllm.mcp(Serve().server)
    [echo] = await asyncio.create_task(connection.__aenter__())
    assert '{"a": 1}' == await asyncio.create_task(echo.ainvoke({"a": 1}))
    with pytest.raises(MisuseError, match="is open already"):
        await connection.__aenter__()
    await asyncio.create_task(connection.__aexit__(None, None, None))
    with pytest.raises(MisuseError, match="connection to the MCP server tests is closed"):
        await echo.ainvoke({})
    async with connection as [echo]:
        assert '{"a": 2}' == await echo.ainvoke({"a": 2})


@pytest.mark.parametrize("over", ["process", "pipe"])
async def test_closing_interrupts_the_calls_that_run(over):
    """They do not hang."""
    serve = Serve(lambda arguments: asyncio.Event().wait())
    connection = rxllm.mcp(serve.server if over == "process" else SCRIPT)
    tools = await connection.__aenter__()
    running = asyncio.create_task(tools[0].ainvoke({}) if over == "process" else named(tools, "hang").ainvoke({}))
    if over == "process":
        await serve.began.wait()
    else:
        assert "0" == await named(tools, "add").ainvoke({})
    await connection.__aexit__(None, None, None)
    with pytest.raises(Interrupted, match="ended while the tool"):
        await running


async def test_closing_ends_the_opening():
    """A silent server does not hold it up."""
    connection = rxllm.mcp([*SCRIPT, "silent"])
    entering = asyncio.create_task(connection.__aenter__())
    while connection._connection is None or connection._connection.owner is None:  # noqa: ASYNC110  (it has no event)
        await asyncio.sleep(0)
    await connection.__aexit__(None, None, None)
    with pytest.raises(MisuseError, match="is closed"):
        await entering


async def test_progress_of_a_tool_reaches_the_handlers():
    """In the order of the server, before the end of the run, on the loop of the caller, without the secrets."""
    heard = []

    def hear(event):
        heard.append((event, threading.current_thread()))

    async def call():
        return await counting.ainvoke({}, handlers=[hear])

    async with rxllm.mcp(SCRIPT, headers={"Authorization": "Bearer a-secret-word"}) as tools:
        [counting] = [tool for tool in tools if tool.name == "count"]
        assert "0" == await call()
        assert "0" == await asyncio.to_thread(asyncio.run, call())
    here, elsewhere = heard[:5], heard[5:]
    for events in here, elsewhere:
        started, *progress, finished = [event for event, _ in events]
        assert (rxllm.ToolStarted, rxllm.ToolFinished) == (type(started), type(finished))
        assert [rxllm.MCPProgress(step, 3, f"step {step} of ***") for step in (1, 2, 3)] == [e.value for e in progress]
        assert "2 of 3: step 2 of ***" == str(progress[1].value)
    assert {threading.current_thread()} == {thread for _, thread in here}
    assert threading.current_thread() not in {thread for _, thread in elsewhere}
    assert "0.5" == str(rxllm.MCPProgress(0.5))


async def test_any_thread_may_call():
    """The call runs on the event loop of the connection, and its cancellation arrives there."""
    serve = Serve(lambda arguments: text("ok") if arguments else asyncio.Event().wait())
    async with rxllm.mcp(serve.server) as [echo]:
        assert "ok" == await asyncio.to_thread(echo.invoke, {"a": 1})
        serve.began.clear()
        subscription = await asyncio.to_thread(echo({}).subscribe)
        await serve.began.wait()
        subscription.dispose()
        await serve.cancelled.wait()
    with pytest.raises(MisuseError, match="is closed"):
        await asyncio.to_thread(echo.invoke, {"a": 1})


def test_plain_with_connects_on_the_background_loop():
    """For programs without an event loop."""
    model = Scripted([[call("echo", '{"a":1}')], "Done."])
    connection = rxllm.mcp(Serve().server)
    with connection as tools:
        assert "Done." == agent(model, *tools).invoke("hi").text
    assert '={"a": 1}' == roles(model.prompts[1])[-1][1]
    with pytest.raises(MisuseError, match="is closed"):
        tools[0].invoke({})


def test_tool_outlives_no_event_loop():
    """The connection ends with its loop, and a later call says so."""

    async def connect():
        return await rxllm.mcp(Serve().server).__aenter__()

    [echo] = asyncio.run(connect())
    with pytest.raises(MisuseError, match="event loop of the connection to the MCP server tests has ended"):
        echo.invoke({})


async def test_parallel_calls_and_cancellation():
    """A cancelled call is cancelled at the server, and the others go on. So is a call that takes too long."""
    release = asyncio.Event()

    async def wait(arguments):
        await (release.wait() if arguments else asyncio.Event().wait())
        return text("ok")

    serve = Serve(wait)
    async with rxllm.mcp(serve.server) as [echo]:
        one, two = (asyncio.create_task(echo.ainvoke(each)) for each in ({}, {"a": 1}))
        await serve.began.wait()
        await asyncio.sleep(0)
        one.cancel()
        await serve.cancelled.wait()
        release.set()
        assert "ok" == await two
    serve = Serve(wait)
    async with rxllm.mcp(serve.server, timeout=0.01) as [echo]:
        with pytest.raises(rxllm.Timeout, match=r"The tool echo did not end within 0\.01 s"):
            await echo.ainvoke({})
        if serve.began.is_set():  # a busy machine may need longer to begin
            await serve.cancelled.wait()


@pytest.mark.parametrize(
    ("target", "error", "sentence"),
    [
        ("http://127.0.0.1:9/mcp", TransportError, r"http://127\.0\.0\.1:9/mcp cannot be used: ConnectError: "),
        (["/nonexistent", "secret-word"], TransportError, r"/nonexistent cannot be used: FileNotFoundError"),
        ([sys.executable, "-S", "-c", "pass"], TransportError, "cannot be used: Connection closed"),
        (Serve(pages=bounds.MCP_TOOLS + 1), ProtocolError, "offers more than 1,024 tools"),
        (Serve(None, types.Tool(name="x", description="x" * bounds.MCP_SCHEMA_BYTES, input_schema=SCHEMA)),
         ProtocolError, "describes its tools in more than 1,048,576 bytes"),
        (object(), MisuseError, "mcp cannot connect to an object of type object. Pass a URL"),
    ],
    ids=["refused", "missing", "ends", "endless", "huge", "object"],
)  # fmt: skip
async def test_server_that_cannot_be_used_is_one_sentence(target, error, sentence):
    """The SDK's groups of exceptions are unwrapped. Nothing is left behind."""
    with pytest.raises(error, match=sentence) as caught:
        async with rxllm.mcp(getattr(target, "server", target)) as tools:
            agent(Scripted(["x"]), *tools)
    assert "secret-word" not in str(caught.value)
    assert 1 == len(asyncio.all_tasks())


async def test_silent_server_is_left_after_a_time():
    """It is ended, too."""
    with pytest.raises(rxllm.Timeout, match=r"was not ready within 0\.2 s"):
        async with rxllm.mcp([*SCRIPT, "silent"], ready_timeout=0.2):
            pass
    assert 1 == len(asyncio.all_tasks())


@pytest.mark.parametrize("target", ["ftp://x", "uvx server", [], [1], None, 5, {}, b"x"])
def test_target_is_checked(target):
    """When it is given."""
    with pytest.raises(MisuseError, match=r"mcp takes the URL of a server, such as .* not "):
        rxllm.mcp(target)


def test_options_are_checked_and_secrets_are_hidden():
    """Nothing is connected."""
    for options in ({"prefix": 5}, {"headers": "x"}, {"approve": "x"}, {"timeout": 0}, {"ready_timeout": -1}):
        with pytest.raises(MisuseError, match=f"{next(iter(options))} must be"):
            rxllm.mcp("http://x/mcp", **options)
    connection = rxllm.mcp("https://me:hunter22@x/mcp?token=sk-123456", headers={"Authorization": "Bearer abcdef"})
    assert "mcp('https://me:***@x/mcp?token=***')" == repr(connection)
    assert "mcp('uvx')" == repr(rxllm.mcp(["uvx", "--token=sk-123456"]))


async def test_missing_package_is_named(monkeypatch):
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(MisuseError, match=r"pip install 'rxllm\[mcp\]'"):
        async with rxllm.mcp("http://x/mcp"):
            pass


# ── standard input and output ────────────────────────────────────────────────────────────────────────────────────


async def test_server_of_the_sdk_over_standard_input():
    """A real server in another process."""
    program = """
from mcp.server.mcpserver import MCPServer
server = MCPServer("calculator")
@server.tool()
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b
server.run("stdio")
"""
    async with rxllm.mcp([sys.executable, "-c", program]) as [add]:
        assert ("add", "Add two numbers.") == (add.name, add.description)
        assert "3" == await add.ainvoke({"a": 1, "b": 2})


@pytest.mark.parametrize(
    "target",
    [SCRIPT, StdioServerParameters(command=SCRIPT[0], args=SCRIPT[1:]),
     lambda: stdio_client(StdioServerParameters(command=SCRIPT[0], args=SCRIPT[1:]))],
    ids=["words", "parameters", "function"],
)  # fmt: skip
async def test_broken_connection_opens_again(target):
    """A call that ran meanwhile is not repeated, and the model is told. A server that dies between calls costs none."""
    connection = rxllm.mcp(target)
    async with connection as tools:
        with pytest.raises(Interrupted, match="ended while the tool die ran"):
            await named(tools, "die").ainvoke({})
        assert "3" == await named(tools, "add").ainvoke({"a": 1, "b": 2})
        assert "0" == await named(tools, "die_after").ainvoke({})
        await connection._connection.broken.wait()
        both = [named(tools, "add").ainvoke({"a": n, "b": 2}) for n in (1, 2)]
        assert ["3", "4"] == await asyncio.gather(*both)
        model = Scripted([[call("die", id="d")], "Hm."])
        await agent(model, *tools, errors="tell").ainvoke("hi")
    told = model.prompts[1][-1].parts[0]
    assert ("interrupted", "The tool die was interrupted. It may or may not have done its work.") == (
        told.outcome,
        told.text,
    )


async def test_server_that_does_not_come_back_says_so(tmp_path):
    """Each further call tries again."""
    script = tmp_path / "server.py"
    shutil.copy(SCRIPT[-1], script)
    async with rxllm.mcp([*SCRIPT[:-1], str(script)]) as tools:
        script.rename(tmp_path / "gone.py")
        with pytest.raises(Interrupted):
            await named(tools, "die").ainvoke({})
        with pytest.raises(TransportError, match="cannot be used: Connection closed"):
            await named(tools, "add").ainvoke({})
        (tmp_path / "gone.py").rename(script)
        assert "0" == await named(tools, "add").ainvoke({})


async def test_result_that_violates_the_protocol_is_an_error():
    """The connection stays. An error of the protocol is told with the server's text."""
    async with rxllm.mcp(SCRIPT) as tools:
        with pytest.raises(ProtocolError, match="gave the tool strange a result that violates the protocol"):
            await named(tools, "strange").ainvoke({})
        with pytest.raises(ToolFailure, match=r"The tool refuse failed: No such city: Atlantis\."):
            await named(tools, "refuse").ainvoke({})
        assert "0" == await named(tools, "add").ainvoke({})
    bad = types.CallToolResult(content=[types.ImageContent(data="=?", mime_type="image/png")])
    async with rxllm.mcp(Serve(bad).server) as [echo]:
        with pytest.raises(ProtocolError, match="returned a file that is not base64"):
            await echo.ainvoke({})
    odd = types.CallToolResult(content=[types.ImageContent(data=PIXEL, mime_type="png")])
    async with rxllm.mcp(Serve(odd).server) as [echo]:
        with pytest.raises(ProtocolError, match="a file of an unknown type: media_type must be like image/png"):
            await echo.ainvoke({})


# ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_server_over_http_goes_away_and_comes_back():
    """The headers reach the server. While it is away, a call fails; the next one finds it again."""
    seen = []

    def served(port=0):
        app = Serve().server.streamable_http_app()

        async def noting(scope, receive, send):
            seen.extend(value for name, value in scope.get("headers", ()) if name == b"authorization")
            await app(scope, receive, send)

        return Serving(noting, port=port, lifespan="on")

    first = served()
    with first:
        connection = rxllm.mcp(f"{first.url}/mcp", headers={"Authorization": "Bearer abcdef"})
        [echo] = await connection.__aenter__()
        both = await asyncio.gather(echo.ainvoke({"a": 1}), echo.ainvoke({"a": 2}))
        assert ['{"a": 1}', '{"a": 2}'] == both
    assert {b"Bearer abcdef"} == {*seen}
    for _ in range(2):
        with pytest.raises(TransportError):
            await echo.ainvoke({"a": 1})
    with served(first.port):
        assert '{"a": 3}' == await echo.ainvoke({"a": 3})
        await connection.__aexit__(None, None, None)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(b"{}", status=401), r"Server returned an error response \(HTTP status 401\)"),
        (Reply(b"<html>", content_type="text/html"), "Unexpected content type: text/html$"),
    ],
)
async def test_server_that_speaks_something_else(reply, reason):
    """The status tells what is missing, such as a key in the headers."""
    with FakeServer(reply) as server, pytest.raises(TransportError, match=f"/mcp cannot be used: {reason}"):
        async with rxllm.mcp(f"{server.url}/mcp"):
            pass


async def test_key_that_a_server_repeats_is_blanked():
    """In the errors that the program gets."""

    def answer(request):
        error = {"code": -32000, "message": f"no such user: {request.headers['authorization'].split()[1]}"}
        return Reply.json({"jsonrpc": "2.0", "id": request.json["id"], "error": error})

    refused = pytest.raises(TransportError, match=r"cannot be used: no such user: \*\*\*$")
    with FakeServer(answer) as server, refused:
        async with rxllm.mcp(f"{server.url}/mcp", headers={"Authorization": "Bearer sk-123456789"}):
            pass


async def test_lost_session_begins_again():
    """A server of an older protocol that has restarted knows neither the session nor the call: it is sent once more."""
    calls, lost = [], {"1"}

    def answer(request):
        if request.method != "POST":
            return Reply(b"", status=405)
        message = request.json
        if "id" not in message:
            return Reply(b"", status=202)
        method, session = message["method"], request.headers.get("mcp-session-id")
        if method == "initialize":
            calls.append("initialize")
            info = {"name": "old", "version": "1"}
            version = message["params"]["protocolVersion"]
            result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
            number = str(calls.count("initialize"))
            return Reply.json(
                {"jsonrpc": "2.0", "id": message["id"], "result": result}, headers={"mcp-session-id": number}
            )
        if method == "tools/list":
            result = {"tools": [{"name": "add", "inputSchema": {"type": "object"}}]}
        elif method == "tools/call" and session in lost:
            calls.append("lost")
            return Reply(b"", status=404)
        elif method == "tools/call":
            calls.append("call")
            result = {"content": [{"type": "text", "text": "ok"}]}
        else:
            return Reply.json(
                {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "Method not found"}}
            )
        return Reply.json({"jsonrpc": "2.0", "id": message["id"], "result": result})

    with FakeServer(answer) as server:
        async with rxllm.mcp(f"{server.url}/mcp") as [add]:
            assert "ok" == await add.ainvoke({})
            assert ["initialize", "lost", "initialize", "call"] == calls
            lost.update("2345")
            with pytest.raises(ToolFailure, match="Session terminated"):
                await add.ainvoke({})


def test_first_connection_imports_the_sdk():
    """It takes more than half a second, so `import rxllm` leaves it."""
    program = f"""
import sys, rxllm
connection = rxllm.mcp({SCRIPT!r})
print([name for name in sys.modules if name.startswith("mcp")])
with connection as tools:
    print(tools[0].invoke({{"a": 1, "b": 2}}))
"""
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "[]\n3\n" == done.stdout
