"""What all tests share; that it is here also lets each of them import `servers` and `protocols`."""

from __future__ import annotations

import pytest

SETTINGS = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No key, no address and no proxy but those that a test sets."""
    for name in (*SETTINGS, "RXLLM_MODEL", *PROXIES, *map(str.upper, PROXIES)):
        monkeypatch.delenv(name, raising=False)
