"""LiteLLM: `from_litellm` and `to_litellm`.

The modules of this folder import LiteLLM within their functions, because that takes seconds.
"""

from .source import from_litellm
from .target import to_litellm

__all__ = ["from_litellm", "to_litellm"]
