"""Handlers that cannot leave their process."""

from __future__ import annotations

from typing import NoReturn

from ..events import Handler
from ..misuse import MisuseError

__all__ = ["LocalHandler"]


class LocalHandler(Handler):
    """A handler whose counts or whose terminal belong to its process, so that it is not pickled with a model."""

    def __reduce__(self) -> NoReturn:
        name = type(self).__name__
        raise MisuseError(
            f"A {name} cannot be pickled: what it counts, or where it writes, belongs to this process. Attach one in "
            f"the process that uses the model, as in llm.with_config(handlers=[{name}()])."
        )
