"""`Relay` on virtual time: readers that leave and come back, and everything that ends an answer."""

import asyncio
import weakref

import attrs
import msgspec
import pytest
import reactivex

import rxllm
from rxllm.bridges import AsyncStream
from rxllm.serve.failures import Refused
from rxllm.serve.logs import END, Entry, LogLost, Position
from rxllm.serve.memory_log import MemoryLog
from rxllm.serve.relay import Relay
from rxllm.serve.sse import Events
from rxllm.testing import MarbleLLM, on_virtual_time

KEY = ("alice", "chat")
TEXTS = [b'data: "a"', b'data: "b"', b'data: "c"']
DONE = b"event: done\ndata: {}"


class Model:
    """A model that emits numbers, one a second, and knows whether it is being asked."""

    def __init__(self, count=10**6, pause=1.0):
        self.count = count
        self.pause = pause
        self.emitted = 0
        self.ended_at = None

    async def numbers(self):
        """Emit the numbers."""
        try:
            for number in range(self.count):
                await asyncio.sleep(self.pause)
                self.emitted += 1
                yield str(number)
        finally:
            self.ended_at = now()

    def answer(self):
        """Return the stream of numbers."""
        return rxllm.from_aiter(self.numbers)


def now():
    """Return the time of the loop."""
    return asyncio.get_running_loop().time()


async def started(relay, source):
    """Begin an answer, and return its position."""
    return await relay.start(KEY, source, Events())


async def collect_numbers(source, numbers):
    """Add the numbers of the entries of a stream to a list."""
    async for entry in AsyncStream(source):
        numbers.append(entry.id.seq)


async def collect(source):
    """Return all entries of a stream."""
    return [entry async for entry in AsyncStream(source)]


async def first(source, count):
    """Return the first entries of a stream, and leave."""
    async with AsyncStream(source) as stream:
        return [await anext(stream) for _ in range(count)]


@on_virtual_time
async def test_reader_gets_every_event_under_its_own_id():
    """The events count from 1, and the last entry has the end."""
    relay = Relay()
    position = await started(relay, reactivex.of("a", "b", "c"))
    entries = await collect(relay.follow(KEY, position))
    assert [*TEXTS, DONE] == [entry.data for entry in entries]
    assert [1, 2, 3, END] == [entry.id.seq for entry in entries]
    assert [None, None, None, "finish"] == [entry.ending for entry in entries]


@pytest.mark.parametrize("seen", range(5))
def test_reader_that_comes_back_gets_each_event_once(seen):
    """After any number of events a reader may leave, and gets the rest from its last id on."""

    @on_virtual_time
    async def come_back():
        relay = Relay()
        position = await started(relay, Model(4).answer())
        before = await first(relay.follow(KEY, position), seen)
        await asyncio.sleep(1.5)
        last = before[-1].id if before else position
        after = await collect(relay.follow(KEY, last))
        assert [b'data: "%d"' % number for number in range(4)] == [entry.data for entry in [*before, *after]][:-1]
        assert ["finish"] == [entry.ending for entry in after[-1:]]

    come_back()


@on_virtual_time
async def test_reader_that_has_read_the_end_gets_nothing_more():
    """The position of the last entry is followed by nothing, and the stream completes."""
    relay = Relay()
    position = await started(relay, reactivex.of("a"))
    *_, last = await collect(relay.follow(KEY, position))
    async with asyncio.timeout(60):
        assert [] == await collect(relay.follow(KEY, last.id))


@on_virtual_time
async def test_readers_at_the_same_time_read_the_same():
    """Two readers get all events, and the model is asked once."""
    relay, model = Relay(), Model(3)
    position = await started(relay, model.answer())
    one, other = await asyncio.gather(*(collect(relay.follow(KEY, position)) for _ in range(2)))
    assert one == other
    assert (4, 3) == (len(one), model.emitted)


@on_virtual_time
async def test_answer_without_a_reader_is_cancelled_after_linger():
    """Thirty seconds after the last reader has left, the request to the model is closed and the answer is aborted."""
    relay, model = Relay(), Model(pause=1.1)  # so that the reader leaves between two looks of the relay
    position = await started(relay, model.answer())
    await first(relay.follow(KEY, position), 5)
    left = now()
    entries = await collect_later(relay, position, 40)
    assert 30 <= model.ended_at - left <= 31
    assert "abort" == entries[-1].ending


async def collect_later(relay, position, seconds):
    """Return the entries of an answer, read after so many seconds."""
    await asyncio.sleep(seconds)
    return await collect(relay.follow(KEY, position))


@on_virtual_time
async def test_answer_that_nobody_ever_read_is_cancelled_after_linger():
    """The linger counts from the beginning if no reader comes."""
    relay, model = Relay(linger=5), Model()
    await started(relay, model.answer())
    await asyncio.sleep(10)
    assert 5 <= model.ended_at <= 6


@on_virtual_time
async def test_reader_keeps_an_answer_alive():
    """A reader that stays, or comes back in time, keeps the model going."""
    relay, model = Relay(), Model()
    position = await started(relay, model.answer())
    async with AsyncStream(relay.follow(KEY, position)) as stream:
        for _ in range(100):
            await anext(stream)
    await asyncio.sleep(29)
    assert await first(relay.follow(KEY, position), 1)
    await asyncio.sleep(29)
    assert model.ended_at is None
    await relay.aclose()


@on_virtual_time
async def test_stop_closes_the_request_and_ends_the_answer():
    """After `stop` the model is not asked any more, every reader sees ``abort``, and nothing is left to stop."""
    relay, model = Relay(), Model(pause=1000)
    position = await started(relay, model.answer())
    reading = asyncio.create_task(collect(relay.follow(KEY, position)))
    await asyncio.sleep(1)
    assert await relay.stop(KEY)
    assert ["abort"] == [entry.ending for entry in await reading]
    await asyncio.sleep(0.1)
    assert (1, 0) == (model.ended_at, relay.active)
    assert not await relay.stop(KEY)


@on_virtual_time
async def test_newer_answer_ends_the_older_one():
    """The old answer's request is closed, and its reader gets ``abort`` and nothing of the new answer."""
    relay, model = Relay(), Model()
    position = await started(relay, model.answer())
    reading = asyncio.create_task(collect(relay.follow(KEY, position)))
    await asyncio.sleep(1.5)
    newer = await started(relay, reactivex.of("a"))
    assert newer.epoch > position.epoch
    assert "abort" == (await reading)[-1].ending
    assert 1.5 == model.ended_at
    assert [TEXTS[0], DONE] == [entry.data for entry in await collect(relay.follow(KEY, newer))]
    assert await relay.keeps(KEY, newer)
    assert not await relay.keeps(KEY, position)
    assert ["abort"] == [entry.ending for entry in await collect(relay.follow(KEY, position))]


@on_virtual_time
async def test_failure_reaches_every_reader_with_its_status():
    """A reader that comes after the failure gets what had arrived, and then the same failure."""
    relay = Relay()
    source = reactivex.concat(reactivex.of("a"), reactivex.throw(rxllm.RateLimited("Slow.", status=429)))
    position = await started(relay, source)
    for _ in range(2):
        stream = AsyncStream(relay.follow(KEY, position))
        assert TEXTS[0] == (await anext(stream)).data
        with pytest.raises(Refused) as caught:
            await anext(stream)
        assert 429 == caught.value.failure.status
    assert await relay.running(KEY) is None


@on_virtual_time
async def test_closed_relay_interrupts_its_answers():
    """The readers of an answer whose process ends get an error, never a clean end."""
    relay, model = Relay(), Model()
    position = await started(relay, model.answer())
    await asyncio.sleep(2.5)
    await relay.aclose()
    assert 2.5 == model.ended_at
    with pytest.raises(rxllm.Interrupted):
        await collect(relay.follow(KEY, position))


@on_virtual_time
async def test_answer_above_its_size_fails():
    """An answer that never ends cannot fill the log."""
    relay = Relay(max_bytes=1000)
    position = await started(relay, rxllm.from_iter(lambda: iter(lambda: "x" * 90, None)))
    with pytest.raises(Refused, match="more than 1000 bytes"):
        await collect(relay.follow(KEY, position))


@on_virtual_time
async def test_ended_answer_is_forgotten_after_a_while():
    """An answer can be read for `keep` seconds after its end, and no longer."""
    relay = Relay(MemoryLog(keep=60))
    position = await started(relay, reactivex.of("a"))
    assert 2 == len(await collect_later(relay, position, 59))
    await asyncio.sleep(2)
    assert not await relay.keeps(KEY, position)


async def test_memory_log_forgets_ended_answers_without_a_reader_first():
    """When its events exceed max_bytes, the log drops answers that have ended and have no reader."""
    log = MemoryLog(max_bytes=25)
    keys = [("", name) for name in ("left", "read", "open", "new")]
    epochs = {}
    for key in keys[:3]:
        epochs[key] = await log.begin(key, attended=0)
        assert await log.append(key, epochs[key], 1, [b"12345678"])
    for key in keys[:2]:
        await log.end(key, epochs[key], "finish")
    await log.attend([keys[1]], 60)
    epochs[keys[3]] = await log.begin(keys[3], attended=0)
    for seq in (1, 2):
        assert await log.append(keys[3], epochs[keys[3]], seq, [b"12345678"])
    kept = [name for _, name in keys if await log.latest(("", name)) is not None]
    assert ["read", "open", "new"] == kept


class Flaky(MemoryLog):
    """A log that cannot be reached for a while."""

    lost = False

    async def append(self, *arguments):
        """Add events, if the log can be reached."""
        self.check()
        return await super().append(*arguments)

    async def end(self, *arguments):
        """End an answer, if the log can be reached."""
        self.check()
        return await super().end(*arguments)

    async def read(self, *arguments):
        """Read, if the log can be reached."""
        self.check()
        return await super().read(*arguments)

    def check(self):
        """Raise while the log is lost."""
        if self.lost:
            raise LogLost("lost")


@on_virtual_time
async def test_short_loss_of_the_log_loses_no_event():
    """A log that comes back within `patience` has every event once."""
    log = Flaky()
    relay, model = Relay(log), Model(10)
    position = await started(relay, model.answer())
    reading = asyncio.create_task(collect(relay.follow(KEY, position)))
    await asyncio.sleep(2.5)
    log.lost = True
    await asyncio.sleep(5)
    log.lost = False
    assert [b'data: "%d"' % number for number in range(10)] == [entry.data for entry in await reading][:-1]


@on_virtual_time
async def test_long_loss_of_the_log_interrupts_the_answer_with_a_bounded_buffer():
    """The model pauses when the buffer is full; after `patience` its request is closed and readers get an error."""
    log = Flaky()
    relay, model = Relay(log), Model(pause=0.01)
    position = await started(relay, model.answer())
    reading = asyncio.create_task(collect(relay.follow(KEY, position)))
    await asyncio.sleep(1.001)
    log.lost = True
    before = model.emitted
    with pytest.raises(rxllm.Interrupted, match="out of reach for 10 s"):
        await reading
    await asyncio.sleep(1)
    assert model.ended_at is not None
    assert 64 <= model.emitted - before <= 66
    log.lost = False
    assert await relay.running(KEY) == position, "the log never heard of the end; its lease tells other processes"


@on_virtual_time
async def test_slow_reader_holds_nothing_back():
    """A reader that does not read pauses neither the model nor other readers."""
    relay = Relay()
    position = await started(relay, rxllm.from_iter([*map(str, range(2000))]))
    slow = AsyncStream(relay.follow(KEY, position))
    await anext(slow)
    assert 2001 == len(await collect(relay.follow(KEY, position)))
    assert 2000 == len([entry async for entry in slow])


@on_virtual_time
async def test_items_and_entries_that_were_passed_on_are_freed_before_the_next_ones_come():
    """A silent answer keeps only what its log keeps, but for the last item and entry of each stream."""

    class Item(msgspec.Struct, weakref=True):
        number: int

    class Copies(MemoryLog):
        async def read(self, key, after):
            entries = [attrs.evolve(entry) for entry in await super().read(key, after)]
            kept.extend(map(weakref.ref, entries))
            return entries

    async def items():
        for number in range(20):
            item = Item(number)
            kept.append(weakref.ref(item))
            yield item
        del item
        await asyncio.Event().wait()

    kept = []
    relay = Relay(Copies())
    position = await started(relay, rxllm.from_aiter(items))
    reading = asyncio.create_task(collect_numbers(relay.follow(KEY, position), numbers := []))
    await asyncio.sleep(1)
    alive = [each() for each in kept if each() is not None]
    assert [*range(1, 21)] == numbers
    assert {Item, Entry} == {type(each) for each in alive}
    assert 2 == len(alive)
    reading.cancel()
    await relay.aclose()


def test_positions_are_validated():
    """Only two numbers of at most 16 ASCII digits are a position."""
    assert Position(12, 3) == Position.parse("12-3")
    for text in ("", "12", "-3", "12-", "1-2-3", "١-٢", "1-2\n", " 1-2", "1" * 17 + "-1", "$", "0-*"):
        assert Position.parse(text) is None


@on_virtual_time
async def test_marble_model_can_be_relayed():
    """A model of the test tools is a source like any other."""
    relay = Relay()
    position = await started(relay, rxllm.pipe(MarbleLLM("-a-b|"), rxllm.text())("hi"))
    assert [*TEXTS[:2], DONE] == [entry.data for entry in await collect(relay.follow(KEY, position))]


@on_virtual_time
async def test_answer_that_waits_for_its_log_counts_as_active():
    """A burst of requests must not pass a server's limit while a slow log begins the first ones."""

    class Slow(MemoryLog):
        async def begin(self, key, attended):
            await asyncio.sleep(1)
            return await super().begin(key, attended)

    relay = Relay(Slow())
    starts = [asyncio.create_task(relay.start(("alice", name), Model().answer(), Events())) for name in "abc"]
    await asyncio.sleep(0.5)
    assert 3 == relay.active
    await asyncio.gather(*starts)
    assert 3 == relay.active
    await relay.aclose()
    assert 0 == relay.active
