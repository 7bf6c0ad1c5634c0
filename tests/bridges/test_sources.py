"""`from_iter` and `from_aiter`: iterables as sources with back-pressure."""

import asyncio
import contextvars
import threading

import pytest
from reactivex import operators as ops

import rxllm
from rxllm import MisuseError, from_aiter, from_iter
from rxllm.testing import Signal


def numbers():
    """Yield three numbers."""
    yield from (1, 2, 3)


async def anumbers():
    """Yield three numbers asynchronously."""
    for number in (1, 2, 3):
        yield number


class Iterable:
    """An iterable that is neither a generator nor a collection."""

    def __iter__(self):
        return iter((1, 2, 3))


class AsyncIterable:
    """An async iterable that is not a generator."""

    def __aiter__(self):
        return anumbers()


ITERABLES = {
    "list": [1, 2, 3],
    "tuple": (1, 2, 3),
    "dict": {1: "a", 2: "b", 3: "c"},
    "range": range(1, 4),
    "generator function": numbers,
    "iterable": Iterable(),
    "factory of a list": lambda: [1, 2, 3],
}


@pytest.mark.parametrize("kind", ITERABLES)
def test_each_subscription_gets_all_items_of_an_iterable(kind):
    """In order, to the end, for each iterable that can be iterated again."""
    source = from_iter(ITERABLES[kind])
    assert [1, 2, 3] == list(source.pipe(rxllm.stream()))
    assert [1, 2, 3] == list(source.pipe(rxllm.stream()))


@pytest.mark.parametrize("items", [anumbers, AsyncIterable(), AsyncIterable])
async def test_each_subscription_gets_all_items_of_an_async_iterable(items):
    """In order, to the end, for each async iterable that can be iterated again."""
    source = from_aiter(items)
    assert [1, 2, 3] == [item async for item in source.pipe(rxllm.astream())]
    assert [1, 2, 3] == [item async for item in source.pipe(rxllm.astream())]


async def test_first_subscription_uses_an_iterator_up():
    """The second subscription to an iterator gets nothing."""
    for source in (from_iter(numbers()), from_aiter(anumbers())):
        assert [1, 2, 3] == [item async for item in source.pipe(rxllm.astream())]
        assert [] == [item async for item in source.pipe(rxllm.astream())]


def test_factory_is_called_at_the_subscription():
    """Sources are cold."""
    called = []
    source = from_iter(lambda: called.append(None) or [1])
    assert [] == called
    list(source.pipe(rxllm.stream()))
    assert [None] == called


@pytest.mark.parametrize("items", [3, None])
def test_source_of_anything_but_an_iterable_raises_misuse(items):
    """The error is raised at once and names what is accepted."""
    with pytest.raises(MisuseError, match="takes an iterable or a function"):
        from_iter(items)
    with pytest.raises(MisuseError, match="takes an async iterable or a function"):
        from_aiter(items)


async def test_exception_of_an_iterable_is_the_error_of_the_source():
    """The error comes after the items before it, also if the factory raises."""

    def failing():
        yield 1
        raise ValueError("boom")

    async def afailing():
        yield 1
        raise ValueError("boom")

    for source in (from_iter(failing), from_aiter(afailing)):
        items = source.pipe(rxllm.astream())
        assert 1 == await anext(items)
        with pytest.raises(ValueError, match="boom"):
            await anext(items)
    for source in (from_iter(lambda: 1 / 0), from_aiter(lambda: 1 / 0)):
        with pytest.raises(ZeroDivisionError):
            await anext(source.pipe(rxllm.astream()))


def test_generator_of_a_source_runs_in_one_thread():
    """A cursor, a file or a lock stays in the thread that opened it, and the event loop is not blocked."""
    threads, closed = [], Signal()

    def endless():
        try:
            while True:
                threads.append(threading.get_ident())
                yield len(threads)
        finally:
            threads.append(threading.get_ident())
            closed.set()

    assert [1, 2, 3] == list(from_iter(endless).pipe(ops.take(3), rxllm.stream()))
    closed.wait()
    assert 1 == len(set(threads))
    assert threading.get_ident() not in threads
    assert "rxllm-portal" not in {thread.name for thread in threading.enumerate() if thread.ident in threads}


def test_dispose_closes_an_async_generator():
    """The generator's `finally` runs when the subscriber disposes."""
    closed = Signal()

    async def endless():
        try:
            while True:
                yield 1
        finally:
            closed.set()

    assert [1, 1] == list(from_aiter(endless).pipe(ops.take(2), rxllm.stream()))
    closed.wait()


async def test_dispose_closes_a_blocking_generator_once_it_returns():
    """A blocking call cannot be cancelled: dispose does not wait for it, and its item is not emitted."""
    begun, released, closed = Signal(), Signal(), Signal()

    def blocking():
        try:
            begun.set()
            released.wait()
            yield 1
        finally:
            closed.set()

    received = []
    subscription = from_iter(blocking).subscribe(received.append, received.append, lambda: received.append("|"))
    await begun.soon()
    subscription.dispose()
    assert not closed.is_set()
    released.set()
    await closed.soon()
    assert [] == received


def test_generators_see_the_context_of_the_subscriber():
    """Plain generators in their thread, and async generators."""
    user = contextvars.ContextVar("user", default="nobody")

    def sync_who():
        yield user.get()
        yield user.get()

    async def async_who():
        yield user.get()
        await asyncio.sleep(0)
        yield user.get()

    def read():
        user.set("me")
        return [list(source.pipe(rxllm.stream())) for source in (from_iter(sync_who), from_aiter(async_who))]

    assert [["me", "me"]] * 2 == contextvars.copy_context().run(read)
    assert "nobody" == user.get()
