"""`from_langchain` with the models of langchain-openai and langchain-anthropic, against a local server."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from foreign import malformed
from protocols import Chat, Completions, Messages, ToolCall

import rxllm
from rxllm.adapters import from_langchain
from rxllm.testing import End, FakeServer, Reply

if importlib.util.find_spec("langchain_anthropic") is None:
    pytest.skip("the extra 'clients' is not installed", allow_module_level=True)

pytestmark = pytest.mark.timeout(300)  # LangChain takes seconds to import
KEY = "sk-0123456789abcdef"
WORDS = ["Bub", "bles", "."]
CALL = ToolCall("call_1", "weather", ['{"city":', ' "Rome"}'])
PROTOCOLS = [Chat(), Messages(), Completions()]


def answering(protocol):
    """Return the function that answers by the prompt."""

    def answer(request):
        body = request.json
        prompt = body["prompt"] if protocol.name == "completions" else text_of(body["messages"][-1]["content"])
        prompt = prompt[0] if isinstance(prompt, list) else prompt
        has_result = "Rain in Rome" in json.dumps(body)
        events = protocol.stream(WORDS, usage=(7, 9))
        match prompt:
            case "tool" | "agent" if not has_result:
                reasoning = ["Let me", " see."] if protocol.name == "messages" else []
                return Reply(protocol.stream(["I look."], reasoning=reasoning, tool_call=CALL))
            case "whole":
                return Reply.json(protocol.whole(WORDS))
            case "shape":
                [tool] = body["tools"]
                call = ToolCall("call_1", tool.get("function", tool)["name"], ['{"value": [1, 2]}'])
                return Reply(protocol.stream(tool_call=call))
            case "429":
                return Reply.json(protocol.error_body(429, f"slow, {KEY}"), status=429)
            case "frame":
                return Reply([*protocol.before("bles", events), protocol.error_frame("It broke")])
            case "cut":
                return Reply([*protocol.before("bles", events), End.FIN])
            case "ended":
                return Reply(protocol.before("bles", events))
            case "malformed" | "malformed whole":
                return malformed(protocol, stream=prompt == "malformed")
            case "hang":
                return Reply([*protocol.before("bles", events), End.HANG])
            case _:
                return Reply(events)

    return answer


def text_of(content):
    """Return the text of a message, or of the result in it."""
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_models_of_vendors_have_the_whole_surface(protocol):
    """Streams, tools, an agent, shapes, usage, errors, several loops; and the server sees each reader leave."""
    program = Path(__file__).parent / "ask_langchain.py"
    with FakeServer(answering(protocol)) as server:
        command = [sys.executable, program, protocol.name, server.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert 0 == done.returncode, done.stderr
        hanging = [each for each in server.exchanges if b'"hang"' in each.request.body]
        for exchange in hanging:
            exchange.wait_closed()
            assert exchange.aborted
        requests = [exchange.request.json for exchange in server.exchanges]
    told = json.loads(done.stdout)
    assert (WORDS, "Bubbles.") == (told["chunks"], "".join(part["text"] for part in told["answer"]["parts"]))
    assert ["Bubbles."] * 6 == told["loops"]
    assert len(hanging) >= 2
    expected = {"429": "RateLimited", "frame": "ProviderError", "cut": "Interrupted"}
    expected |= {"frame": "Overloaded"} if protocol.name == "messages" else {}
    assert expected == {name: told[name]["kind"] for name in expected}
    assert not any(told[name]["shows key"] for name in expected)
    assert told["429"]["cause"] is None  # it shows the key
    assert ["Bub", "Bub"] == [told[name]["partial"] for name in ("frame", "cut")]
    assert {"frame", "cut"} == {name for name in ("frame", "cut") if told[name]["cause"] in CAUSES}
    for name in ("malformed", "malformed whole"):
        assert ("ProtocolError", True) == (told[name]["kind"], told[name]["cause"] is not None), told[name]
    if protocol.name == "completions":  # LangChain's completion models do not tell why an answer ended
        return
    assert ("stop", 9) == (told["answer"]["finish_reason"], told["answer"]["usage"]["output_tokens"])
    assert ("Interrupted", "Bub") == (told["ended"]["kind"], told["ended"]["partial"])
    [*_, called] = told["call"]["parts"]
    assert ("call_1", "weather", {"city": "Rome"}) == (called["id"], called["name"], json.loads(called["arguments"]))
    assert ("tool_call", [1, 2]) == (told["call"]["finish_reason"], told["shape"])
    assert ("Bubbles.", "I look.Bubbles.") == ("".join(part["text"] for part in told["whole"]["parts"]), told["agent"])
    if protocol.name == "messages":
        kinds = ["reasoning", "text", "tool_call"]
        assert kinds == [part["type"] for part in told["call"]["parts"]]
        [echo] = [each for each in requests if "Rain in Rome" in json.dumps(each)]
        thought = {"type": "thinking", "thinking": "Let me see.", "signature": "EqQBCgIYAhIM"}
        assert thought == echo["messages"][1]["content"][0]


CAUSES = ("anthropic", "httpx", "httpx2", "langchain_anthropic", "langchain_openai", "openai")


def test_parameter_that_a_vendor_lacks_is_refused():
    """The SDK of Anthropic has no seed. The error is about the request, so a server shows it to its client."""
    from langchain_anthropic import ChatAnthropic  # it takes seconds

    llm = from_langchain(ChatAnthropic(model="claude-sonnet-4-5", base_url="http://127.0.0.1:9", api_key=KEY))
    with pytest.raises(rxllm.MisuseError, match="ChatAnthropic of LangChain has no parameter 'seed'") as raised:
        llm.invoke("hi", seed=1)
    assert "hi" == raised.value.request.text


def test_file_that_a_vendor_lacks_is_refused():
    """Each package raises a ValueError of its own. The error is about the request, so a server answers 400."""
    from langchain_anthropic import ChatAnthropic  # they take seconds
    from langchain_openai import ChatOpenAI

    place = {"base_url": "http://127.0.0.1:9", "api_key": KEY}
    audio, video = rxllm.FilePart("audio/wav", b"RIFF"), rxllm.FilePart("video/mp4", b"ftyp")
    for model, file, kind in (
        (ChatAnthropic(model="claude-sonnet-4-5", **place), audio, "audio"),
        (ChatOpenAI(model="gpt-5-mini", **place), video, "video"),
    ):
        said = f"LangChain refuses the request: Block of type {kind} is not supported"
        with pytest.raises(rxllm.MisuseError, match=said) as raised:
            from_langchain(model).invoke(rxllm.Message("user", [file]))
        assert (ValueError, (file,)) == (type(raised.value.__cause__), raised.value.request.messages[0].parts)
