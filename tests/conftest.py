"""What all tests share: a bare environment, no network but this machine's, and nothing left behind.

That it is here also lets each of them import `protocols`.
"""

from __future__ import annotations

import signal

import loopback  # noqa: F401  (refuses other machines)
import pytest
from hypothesis import settings

pytest_plugins = ["rxllm.testing.fixtures"]

SETTINGS = (
    *("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"),
    *("GEMINI_API_KEY", "GOOGLE_API_KEY", "OLLAMA_HOST", "MISTRAL_API_KEY", "GROQ_API_KEY", "DEEPSEEK_API_KEY"),
    *("XAI_API_KEY", "OPENROUTER_API_KEY", "HF_TOKEN", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "RXLLM_MODEL"),
)
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")

# A law is tried with the same examples each time, so that a red build is red again; `--hypothesis-profile=hunt` looks
# for new ones.
settings.register_profile("same", deadline=None, database=None, derandomize=True)
settings.register_profile("hunt", deadline=None, database=None, max_examples=3000)
settings.load_profile("same")


# A shell's background job ignores Ctrl-C, and so would the programs that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No key, no address and no proxy but those that a test sets."""
    for name in (*SETTINGS, *CERTIFICATES, *PROXIES, *map(str.upper, PROXIES)):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def tidy(environment, nothing_is_left_behind):
    """Nothing is left behind, by any test."""
