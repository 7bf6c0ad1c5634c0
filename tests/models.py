"""`made`: the provider that speaks a protocol, for tests that ask all of them the same."""

from typing import Any

from protocols import Protocol

from rxllm import LLM, Anthropic, Bedrock, Cohere, Gemini, Ollama, OpenAI, model

__all__ = ["made"]

KINDS: dict[str, Any] = {
    "messages": Anthropic,
    "generate": Gemini,
    "ollama": Ollama,
    "converse": Bedrock,
    "cohere": Cohere,
}


def made(protocol: Protocol, url: str, **settings: Any) -> LLM:
    """Return the provider that asks the server at this address, which gets each request once."""
    settings = {"api_key": "a-key", "max_retries": 0, **settings}
    if protocol.name == "mistral":
        return model(f"mistral:{protocol.model}", **{"base_url": f"{url}/v1"} | settings)
    kind = KINDS.get(protocol.name)
    if kind is None:
        return OpenAI(protocol.model, **{"base_url": f"{url}/v1", "api": protocol.name} | settings)
    return kind(protocol.model, **{"base_url": url} | settings)
