"""Fixtures of all tests: an empty environment, no network except loopback, and a check that nothing is left behind.

Its place also lets each test import `protocols`.
"""

from __future__ import annotations

import gc
import signal

import loopback  # noqa: F401  (blocks connections to other machines)
import pytest
from hypothesis import settings
from naming import name_of

pytest_plugins = ["rxllm.testing.fixtures"]

SETTINGS = (
    *("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"),
    *("GEMINI_API_KEY", "GOOGLE_API_KEY", "OLLAMA_HOST", "MISTRAL_API_KEY", "GROQ_API_KEY", "DEEPSEEK_API_KEY"),
    *("GOOGLE_GEMINI_BASE_URL", "OLLAMA_API_KEY"),
    *("XAI_API_KEY", "OPENROUTER_API_KEY", "HF_TOKEN", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "RXLLM_MODEL"),
)
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
SIZE = ("COLUMNS", "LINES")  # readline sets them in the process that starts the workers of pytest-xdist
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")

# Hypothesis tries the same examples in each run, so that a failure can be repeated. `--hypothesis-profile=hunt` looks
# for new examples.
settings.register_profile("same", deadline=None, database=None, derandomize=True)
settings.register_profile("hunt", deadline=None, database=None, max_examples=3000)
settings.load_profile("same")


# A background job of a shell ignores Ctrl-C, and the programs that the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(config, val, argname):
    """Name the values of parametrised tests."""
    return name_of(val)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Remove keys, addresses, proxies and the size of the terminal from the environment; a test sets its own."""
    for name in (*SETTINGS, *CERTIFICATES, *PROXIES, *map(str.upper, PROXIES), *SIZE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def gated():
    """Return a model whose second word waits, and let it go on at the end."""
    from serving import Gated  # only these tests need the servers, which take long to import

    model = Gated()
    yield model
    model.gate.set()


@pytest.fixture
def no_collector():
    """Switch the cyclic garbage collector off, since a leak must not wait for it."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(autouse=True)
def tidy(environment, nothing_is_left_behind):
    """Check that each test closes what it opened."""
