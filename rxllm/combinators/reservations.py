"""`Reservations`: the running requests of this process that hold a part of a budget, and the waiting requests.

A request holds a part from its reservation until it has settled. It waits only while another request holds a part.
`release` wakes the first request of the line. If no request holds a part any more, it wakes all of them, because no
later release would. `take` holds `_turn` while it looks at the budget and joins the line, so that no release comes in
between; only threads that may block call `take` and `release`. A disposed request stays in the line, and wakes the next
one when it is woken.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from ..errors import LimitReached
from ..runtime.forks import reset_in_child

__all__ = ["Reservations"]

T = TypeVar("T")

Wake = Callable[[], object]


class Reservations:
    """The reservations of one `Budget` in this process. Any thread may call the methods."""

    def __init__(self) -> None:
        reset_in_child(self._reset)

    def _reset(self) -> None:
        """Forget the requests of the parent in a forked child."""
        self._turn = threading.Lock()
        self._held = 0
        self._waiting: deque[Wake] = deque()

    def take(self, reserve: Callable[[], T], wake: Wake | None) -> T | None:
        """Return a reservation; None if the request waits, and `wake` will be called. This method blocks.

        Raises:
            LimitReached: the budget is spent, or others hold the rest of it and `wake` is None.
        """
        with self._turn:
            try:
                reservation = reserve()
            except LimitReached:
                if wake is None or not self._held:
                    raise
                self._waiting.append(wake)
                return None
            self._held += 1
        self.wake()  # the budget may have room for several
        return reservation

    def release(self) -> None:
        """Note that a request has settled. This method blocks."""
        with self._turn:
            self._held -= 1
            count = 1 if self._held else len(self._waiting)
        for _ in range(count):
            self.wake()

    def wake(self) -> None:
        """Let the first request of the line reserve again."""
        try:
            first = self._waiting.popleft()
        except IndexError:  # nothing waits
            return
        first()
