"""`VirtualLoop`: an asyncio event loop on which waiting takes no time."""

from __future__ import annotations

import asyncio
import functools
import selectors
import time
from asyncio.futures import Future
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, TypeVarTuple, Unpack

__all__ = ["VirtualLoop", "on_virtual_time"]

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop whose clock jumps to the next timer when nothing else can run.

    Hours of `asyncio.sleep`, time limits, retries and pauses pass in milliseconds, always in the same order. Models,
    handlers, tools, `batch` and combinators run on it as on any event loop; operators and limits use its time::

        @rxllm.testing.on_virtual_time
        async def test_a_silent_model_times_out():
            with pytest.raises(rxllm.Timeout):
                await rxllm.pipe(MarbleLLM("-a" + "-" * 3600), rxllm.text(), rxllm.idle_timeout(60)).ainvoke("hi")
            assert asyncio.get_running_loop().time() == 61

    The clock starts at 0 and stands still while code runs. The clock jumps only when nothing but a timer can wake the
    loop. Time is real while an external event is possible:

    * a socket or a pipe is registered with the loop, such as a connection to a `FakeServer`, an idle one included;
    * a call in a thread is running: `asyncio.to_thread`, `loop.run_in_executor`, a blocking model or tool of rxllm;
    * a future was announced with `expect`.

    The loop cannot see other threads: announce their results with `expect`. Synchronous calls, such as ``llm.invoke``,
    run on rxllm's background loop, whose time is real.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._scheduled: list[asyncio.TimerHandle] = []  # asyncio's own timers; its `__init__` creates it again
        self._futures_of_threads: set[Future[Any]] = set()
        self._sockets = _Selector(self)
        super().__init__(self._sockets)

    def time(self) -> float:
        """The seconds since the loop was created, on its own clock."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock forward, as if code had kept the loop busy for so long."""
        self._now += seconds

    def expect(self, future: Future[T]) -> Future[T]:
        """Use real time until the future is done, because another thread will set its result."""
        self._futures_of_threads.add(future)
        future.add_done_callback(self._futures_of_threads.discard)
        return future

    def run_in_executor(self, executor: Any, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> Future[T]:
        """Run the call in a thread; time is real until the call has returned."""
        return self.expect(super().run_in_executor(executor, func, *args))

    async def shutdown_default_executor(self, *arguments: Any) -> None:
        """End the executor's threads in real time."""
        ended = self.expect(self.create_future())
        try:
            await super().shutdown_default_executor(*arguments)
        finally:
            ended.set_result(None)

    def wait(self, timeout: float | None, select: Callable[[float | None], T]) -> T:
        """Return the events that `select` finds within `timeout` seconds of this loop's time."""
        if timeout is not None and timeout <= 0:
            return select(0)
        has_sockets = len(self._sockets.get_map()) > 1  # besides the loop's own wake-up socket
        if timeout is None or has_sockets or self._futures_of_threads:
            start = time.monotonic()
            events = select(timeout)
            if timeout is None or events:
                elapsed = time.monotonic() - start
                self._now += elapsed if timeout is None else min(elapsed, timeout)
                return events
        elif events := select(0):
            return events
        self._now = self._scheduled[0].when()
        return events


class _Selector(selectors.DefaultSelector):
    """A selector that lets the loop decide how long to wait."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return self._loop.wait(timeout, super().select)


def on_virtual_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Turn a coroutine function into a plain function: each call runs on a new `VirtualLoop`.

    A test function stays a test function, with or without pytest, and keeps its fixtures::

        @on_virtual_time
        async def test_a_retry_waits(): …
    """

    @functools.wraps(test)
    def run(*arguments: P.args, **keywords: P.kwargs) -> T:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(test(*arguments, **keywords))

    return run
