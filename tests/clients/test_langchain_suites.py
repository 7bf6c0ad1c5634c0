"""LangChain's own tests of chat models, for `ChatRxllm` over OpenAI's protocol and over Anthropic's.

The server does what a request asks. The flags switch off only what a protocol lacks.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

if importlib.util.find_spec("langchain_tests") is None:
    pytest.skip("the extra 'clients' is not installed", allow_module_level=True)

import httpx
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from obedient import Obedient

from rxllm.adapters.langchain import ChatRxllm

# Without a cassette, the test of the time streams once and measures nothing.
pytestmark = pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")
FILES = {"png": b"\x89PNG\r\n\x1a\n" + bytes(40), "pdf": b"%PDF-1.4\n", "wav": b"RIFF\x24\0\0\0WAVEfmt " + bytes(24)}


@pytest.fixture(scope="module", autouse=True)
def server():
    """Return the server that the models ask."""
    with Obedient() as server:
        yield server


@pytest.fixture(autouse=True)
def files(monkeypatch):
    """Give the tests the files that they would download."""

    def get(url: str, **_: Any) -> httpx.Response:
        return httpx.Response(200, content=FILES[url.rpartition(".")[2]])

    monkeypatch.setattr(httpx, "get", get)
    monkeypatch.setenv("LANGCHAIN_TESTS_USER_AGENT", "the tests of rxllm")


class _Facts:
    """What the suites ask of every class of tests."""

    chat_model_class = ChatRxllm
    supports_json_mode = True
    supports_image_inputs = True
    supports_image_urls = True
    supports_pdf_inputs = True
    supports_image_tool_message = True
    supports_pdf_tool_message = True
    enable_vcr_tests = True
    name: str

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": self.name}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"RXLLM_MODEL": self.name}, {}, {"model": self.name}


class _OverOpenAI(_Facts):
    name = "openai:gpt-4.1-mini"
    model_override_value = "gpt-4.1"
    supports_audio_inputs = True
    supports_anthropic_inputs = False  # a definition of a tool with Anthropic's mark for the cache

    @pytest.fixture(autouse=True)
    def place(self, server, monkeypatch):
        """Set the address of the server and the key."""
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "key")


class _OverAnthropic(_Facts):
    name = "anthropic:claude-sonnet-4-6"
    model_override_value = "claude-opus-4-6"
    supports_audio_inputs = False
    supports_anthropic_inputs = True

    @pytest.fixture(autouse=True)
    def place(self, server, monkeypatch):
        """Set the address of the server and the key."""
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "key")


class TestUnitOverOpenAI(_OverOpenAI, ChatModelUnitTests):
    """The suite that sends nothing, for a model of OpenAI."""


class TestIntegrationOverOpenAI(_OverOpenAI, ChatModelIntegrationTests):
    """The suite of answers, over OpenAI's chat completions."""


class TestUnitOverAnthropic(_OverAnthropic, ChatModelUnitTests):
    """The suite that sends nothing, for a model of Anthropic."""


class TestIntegrationOverAnthropic(_OverAnthropic, ChatModelIntegrationTests):
    """The suite of answers, over Anthropic's messages."""
