"""The library `llm`: `from_llm`. `rxllm.adapters.llm_plugin` is the other direction.

The modules of this folder import `llm` within their functions, so that each of them can be imported without it.
"""

from .source import from_llm

__all__ = ["from_llm"]
