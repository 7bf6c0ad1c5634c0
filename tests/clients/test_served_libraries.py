"""langchain-openai, litellm, the command `llm` and curl read what `serve.openai` sends."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from combinators.scripted import call
from serving import Scripted, Serving

import rxllm
from rxllm.serve import openai
from rxllm.testing import End, FakeServer, Reply

pytestmark = pytest.mark.timeout(300)  # litellm takes 8 s of CPU to import
USED = rxllm.Chunk(finish_reason="stop", usage=rxllm.Usage(input_tokens=3, output_tokens=2))
BIN = Path(sys.executable).parent


@contextmanager
def served():
    """Serve a model for each situation: ok, tool, an early 429, a late error, and a connection that breaks."""
    event = b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'
    with FakeServer(Reply([event, End.FIN])) as upstream:
        models = {
            "ok": Scripted("Hel", "lo", USED),
            "tool": Scripted(call("weather", '{"city":"Rome"}', "c1", finish_reason="tool_call")),
            "early": Scripted(rxllm.RateLimited("slow", status=429)),
            "late": Scripted("Hel", rxllm.Interrupted("cut")),
            "cut": rxllm.OpenAI("m", base_url=upstream.url, api_key="k", api="chat", max_retries=0),
        }
        with Serving(openai(models)) as server:
            server.models = models
            yield server


def run(*command, **environment):
    """Run a program, and return its exit code and output."""
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "LANGSMITH_TRACING": "false", **environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("library", "module"), [("langchain", "langchain_openai"), ("litellm", "litellm")])
def test_library_reads_answers_and_raises_for_failures(library, module):
    """Text, a tool call and usage arrive; an early 429 is asked once; a late failure and a broken stream raise."""
    if importlib.util.find_spec(module) is None:
        pytest.skip("the extra 'clients' is not installed")
    with served() as server:
        code, said, errors = run(sys.executable, Path(__file__).parent / "ask_as.py", library, f"{server.url}/v1")
        asked = len(server.models["early"].asked)
    assert 0 == code, errors
    results = json.loads(said.splitlines()[-1])
    assert (
        "Hello",
        [
            ["weather", {"city": "Rome"}],
        ][0],
        5,
    ) == (results["ok"], results["tool"][0], results["usage"])
    assert 1 == asked
    assert all(results[name].startswith("error") for name in ("early", "late", "cut")), results


def test_llm_reads_an_answer_and_fails_for_a_failure(tmp_path):
    """The command prints the text, and its exit code tells a late failure."""
    if not (BIN / "llm").exists():
        pytest.skip("the extra 'clients' is not installed")
    with served() as server:
        models = [f"- model_id: {name}\n  model_name: {name}\n  api_base: {server.url}/v1\n" for name in server.models]
        (tmp_path / "extra-openai-models.yaml").write_text("".join(models), "utf-8")
        results = {
            name: run(BIN / "llm", "-m", name, "--key", "k", "-n", "hi", LLM_USER_PATH=str(tmp_path))
            for name in ("ok", "late")
        }
    assert (0, "Hello\n") == results["ok"][:2], results["ok"]
    assert 1 == results["late"][0], results["late"]


def test_curl_reads_a_stream_as_it_comes():
    """``curl -N`` gets events and ``[DONE]``, and an early failure is a status."""
    if (curl := shutil.which("curl")) is None:
        pytest.skip("the extra 'clients' is not installed: there is no curl")
    with served() as server:

        def post(model):
            body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True})
            header = "content-type: application/json"
            return run(curl, "-sSN", "--fail-with-body", "-H", header, "-d", body, f"{server.url}/v1/chat/completions")

        code, said, _ = post("ok")
        assert (0, "data: [DONE]") == (code, said.split("\n\n")[-2])
        code, said, _ = post("early")
        assert (22, "rate_limit_error") == (code, json.loads(said)["error"]["type"])
        assert "[DONE]" not in post("cut")[1]
