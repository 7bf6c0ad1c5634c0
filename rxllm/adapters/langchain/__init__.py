"""LangChain: models of rxllm as its models and runnables, and its models and runnables as models of rxllm.

This package needs the extra ``langchain``.
"""

try:
    import langchain_core as _langchain_core  # noqa: F401  # pyright: ignore[reportUnusedImport]
except ImportError:
    raise ImportError("rxllm.adapters.langchain needs langchain-core: pip install 'rxllm[langchain]'.") from None

from .chat_model import ChatRxllm
from .runnable import RxllmRunnable
from .source import from_langchain
from .target import to_langchain, to_langchain_llm
from .text_model import TextRxllm

__all__ = ["ChatRxllm", "RxllmRunnable", "TextRxllm", "from_langchain", "to_langchain", "to_langchain_llm"]
