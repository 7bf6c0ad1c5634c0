"""`Lifetime`: the tasks of a subscription, whether they keep the process alive, and the handler of their failures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import final

from .loops import do_nothing
from .portal import hold

__all__ = ["Lifetime", "not_handled", "settled"]


def not_handled(error: BaseException) -> bool:
    """Handle no failure: nothing waits for the end of the stream."""
    return False


@final
class Lifetime:
    """The lifetime of one subscription, which all schedulers of its graph share.

    Attributes:
        tasks: the tasks of the sources that have not ended.
        handler_tasks: the tasks of async handlers, which may outlive the stream.
        on_failure: called with each failure that no observer receives: an exception of code around the stream, or a
            CancelledError when the event loop ends. Returns whether the failure is handled.
        keeps_alive: whether the tasks and timers of the subscription keep the process from ending.
    """

    __slots__ = ("handler_tasks", "keeps_alive", "on_failure", "tasks")

    def __init__(
        self,
        tasks: set[asyncio.Task[None]],
        handler_tasks: set[asyncio.Task[None]],
        on_failure: Callable[[BaseException], bool] = not_handled,
        *,
        keeps_alive: bool = False,
    ) -> None:
        self.tasks = tasks
        self.handler_tasks = handler_tasks
        self.on_failure = on_failure
        self.keeps_alive = keeps_alive

    def handled_by(self, on_failure: Callable[[BaseException], bool]) -> Lifetime:
        """Return the same lifetime with another failure handler."""
        return Lifetime(self.tasks, self.handler_tasks, on_failure, keeps_alive=self.keeps_alive)

    def handled_also_by(self, hook: Callable[[BaseException], object]) -> Lifetime:
        """Return the same lifetime, in which `hook` is called before the present failure handler."""
        return self.handled_by(lambda error: bool(hook(error)) | self.on_failure(error))

    def kept_alive(self, keeps_alive: bool) -> Lifetime:
        """Return the same lifetime, which keeps the process from ending or not."""
        return Lifetime(self.tasks, self.handler_tasks, self.on_failure, keeps_alive=keeps_alive)

    def hold(self) -> Callable[[], None]:
        """Keep the process from ending until the returned function is called, if `keeps_alive`."""
        return hold() if self.keeps_alive else do_nothing


async def settled(tasks: set[asyncio.Task[None]]) -> None:
    """Wait until all tasks have ended, except the current task, which cannot await itself."""
    me = asyncio.current_task()
    if others := [task for task in tasks if task is not me and not task.done()]:
        await asyncio.wait(others)
