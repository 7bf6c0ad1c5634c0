"""Pydantic AI: `from_pydantic_ai` and `to_pydantic_ai`.

The modules of this folder import Pydantic AI within their functions, so that each of them can be imported without it.
"""

from .source import from_pydantic_ai
from .target import to_pydantic_ai

__all__ = ["from_pydantic_ai", "to_pydantic_ai"]
