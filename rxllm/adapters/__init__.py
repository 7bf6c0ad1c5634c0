"""Models of other libraries as models of rxllm, and models of rxllm in other libraries.

Each library has a module of its own, which is imported at its first use and imports the library. So
``import rxllm.adapters`` needs none of the libraries.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .anthropic import from_anthropic
    from .callable import from_callable
    from .langchain import from_langchain, to_langchain, to_langchain_llm
    from .litellm import from_litellm, to_litellm
    from .llm import from_llm
    from .openai import from_openai
    from .pydantic_ai import from_pydantic_ai, to_pydantic_ai

__all__ = [
    "from_anthropic",
    "from_callable",
    "from_langchain",
    "from_litellm",
    "from_llm",
    "from_openai",
    "from_pydantic_ai",
    "to_langchain",
    "to_langchain_llm",
    "to_litellm",
    "to_pydantic_ai",
]

_LAZY = {
    "from_anthropic": ".anthropic",
    "from_callable": ".callable",
    "from_langchain": ".langchain",
    "from_litellm": ".litellm",
    "from_llm": ".llm",
    "from_openai": ".openai",
    "from_pydantic_ai": ".pydantic_ai",
    "to_langchain": ".langchain",
    "to_langchain_llm": ".langchain",
    "to_litellm": ".litellm",
    "to_pydantic_ai": ".pydantic_ai",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_LAZY[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
