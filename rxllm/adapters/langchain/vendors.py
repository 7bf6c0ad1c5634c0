"""The names of vendors, which differ between LangChain and rxllm for some."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["langchain_name", "rxllm_name"]

_OURS: Mapping[str, str] = {
    "amazon_bedrock": "bedrock",
    "bedrock_converse": "bedrock",
    "google_genai": "gemini",
    "google_vertexai": "gemini",
    "mistralai": "mistral",
}
_THEIRS: Mapping[str, str] = {"bedrock": "bedrock_converse", "gemini": "google_genai", "mistral": "mistralai"}


def rxllm_name(vendor: str | None) -> str | None:
    """Return rxllm's name of a vendor that LangChain names."""
    return None if vendor is None else _OURS.get(vendor, vendor)


def langchain_name(vendor: str | None) -> str | None:
    """Return LangChain's name of a vendor that rxllm names."""
    return None if vendor is None else _THEIRS.get(vendor, vendor)
