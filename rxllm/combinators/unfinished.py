"""An agent's answer that runs, for operators that end it early."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import RxllmError
from ..operators.answering import PendingRequest

if TYPE_CHECKING:
    from .looping import Loop

__all__ = ["Unfinished"]


class Unfinished(PendingRequest):
    """Sets the `partial` of an error to the content of all rounds, not only to that of the present one."""

    has_partial = True

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.request = loop.request
        self.begun(loop.scheduler)

    def complete(self, error: RxllmError) -> None:
        """Set the error's request and its partial answer."""
        self.loop.complete_partial(error)
