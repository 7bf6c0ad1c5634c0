"""`from_iter` and `from_aiter`: iterables as sources that wait."""

import asyncio
import contextvars
import threading

import pytest
from reactivex import operators as ops

import rxllm
from rxllm import MisuseError, from_aiter, from_iter
from rxllm.testing import Signal


def numbers():
    """Three."""
    yield from (1, 2, 3)


async def anumbers():
    """Three, asynchronously."""
    for number in (1, 2, 3):
        yield number


class Iterable:
    """Neither a generator nor a collection."""

    def __iter__(self):
        return iter((1, 2, 3))


class AsyncIterable:
    """No generator."""

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
def test_an_iterables_items_come_at_each_subscription(kind):
    """In order, to the end; and again, for what can be iterated again."""
    source = from_iter(ITERABLES[kind])
    assert [1, 2, 3] == list(source.pipe(rxllm.stream()))
    assert [1, 2, 3] == list(source.pipe(rxllm.stream()))


@pytest.mark.parametrize("items", [anumbers, AsyncIterable(), AsyncIterable])
async def test_an_async_iterables_items_come_at_each_subscription(items):
    """In order, to the end; and again, for what can be iterated again."""
    source = from_aiter(items)
    assert [1, 2, 3] == [item async for item in source.pipe(rxllm.astream())]
    assert [1, 2, 3] == [item async for item in source.pipe(rxllm.astream())]


async def test_an_iterator_is_used_up():
    """By the first subscription."""
    for source in (from_iter(numbers()), from_aiter(anumbers())):
        assert [1, 2, 3] == [item async for item in source.pipe(rxllm.astream())]
        assert [] == [item async for item in source.pipe(rxllm.astream())]


def test_nothing_is_called_before_the_subscription():
    """Sources are cold."""
    called = []
    source = from_iter(lambda: called.append(None) or [1])
    assert [] == called
    list(source.pipe(rxllm.stream()))
    assert [None] == called


@pytest.mark.parametrize("items", [3, None])
def test_what_is_no_iterable_is_refused(items):
    """At once, by a sentence that names what is taken."""
    with pytest.raises(MisuseError, match="takes an iterable or a function"):
        from_iter(items)
    with pytest.raises(MisuseError, match="takes an async iterable or a function"):
        from_aiter(items)


async def test_what_an_iterable_raises_is_the_sources_error():
    """After the items that came before; also from the factory."""

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


def test_a_generator_is_advanced_and_closed_in_one_thread():
    """A cursor, a file or a lock in it stays in the thread that opened it; the loop is not blocked."""
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


def test_an_async_generator_is_closed_where_it_stands():
    """Its `finally` runs when the subscriber leaves."""
    closed = Signal()

    async def endless():
        try:
            while True:
                yield 1
        finally:
            closed.set()

    assert [1, 1] == list(from_aiter(endless).pipe(ops.take(2), rxllm.stream()))
    closed.wait()


async def test_a_blocking_generator_that_is_left_is_closed_when_it_returns():
    """It can't be stopped while it blocks; who left is not kept waiting by it, and hears no more."""
    begun, released, closed = Signal(), Signal(), Signal()

    def blocking():
        try:
            begun.set()
            released.wait()
            yield 1
        finally:
            closed.set()

    heard = []
    subscription = from_iter(blocking).subscribe(heard.append, heard.append, lambda: heard.append("|"))
    await begun.soon()
    subscription.dispose()
    assert not closed.is_set()
    released.set()
    await closed.soon()
    assert [] == heard


def test_the_subscribers_context_is_seen():
    """By generators in their thread, and by asynchronous ones."""
    who = contextvars.ContextVar("who", default="nobody")

    def sync_who():
        yield who.get()
        yield who.get()

    async def async_who():
        yield who.get()
        await asyncio.sleep(0)
        yield who.get()

    def read():
        who.set("me")
        return [list(source.pipe(rxllm.stream())) for source in (from_iter(sync_who), from_aiter(async_who))]

    assert [["me", "me"]] * 2 == contextvars.copy_context().run(read)
    assert "nobody" == who.get()
