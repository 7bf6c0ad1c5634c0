"""Base class for handlers that belong to one process."""

from __future__ import annotations

from typing import NoReturn

from ..events import Handler
from ..misuse import MisuseError

__all__ = ["LocalHandler"]


class LocalHandler(Handler):
    """A handler with state or a terminal of its own process: pickling a model that holds one raises MisuseError."""

    def __reduce__(self) -> NoReturn:
        name = type(self).__name__
        raise MisuseError(
            f"A {name} cannot be pickled, because its counts or its output belong to this process. Attach one in "
            f"the process that uses the model, as in llm.with_config(handlers=[{name}()])."
        )
