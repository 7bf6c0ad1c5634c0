"""`batch`: it answers many prompts with bounded concurrency, and without a step barrier."""

import asyncio
import itertools
import threading

import pytest
import reactivex as rx
from attrs import field, frozen
from reactivex import operators as ops
from reactivex.subject import Subject

import rxllm
from rxllm import LLM, MisuseError

TIMEOUT = 5.0  # seconds for events that happen at once


@frozen
class Held(LLM):
    """A model that answers a prompt when the test releases it. It runs on one event loop."""

    live: set[str] = field(factory=set)
    begun: list[str] = field(factory=list)
    closed: list[str] = field(factory=list)
    most: list[int] = field(factory=list)
    released: dict[str, asyncio.Event] = field(factory=dict)
    changed: asyncio.Event = field(factory=asyncio.Event)

    def gate(self, prompt):
        """The event that releases an answer."""
        return self.released.setdefault(prompt, asyncio.Event())

    async def complete(self, request):
        """Returns the prompt after its release; a prompt that begins with ! fails."""
        prompt = request.text
        self.live.add(prompt)
        self.begun.append(prompt)
        self.most.append(len(self.live))
        self.changed.set()
        try:
            await self.gate(prompt).wait()
            if prompt.startswith("!"):
                raise ValueError(prompt)
            return prompt
        finally:
            self.live.discard(prompt)
            self.closed.append(prompt)
            self.changed.set()

    def release(self, *prompts):
        """Releases the answers of these prompts."""
        for prompt in prompts:
            self.gate(prompt).set()

    async def until(self, condition):
        """Returns when the condition holds."""
        async with asyncio.timeout(TIMEOUT):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


async def quiet():
    """Returns after many turns of the loop, in which surplus work would show."""
    for _ in range(200):
        await asyncio.sleep(0)


class Echo(LLM):
    """A model that answers at once; a prompt that begins with ! fails."""

    async def complete(self, request):
        """Returns the prompt."""
        if request.text.startswith("!"):
            raise ValueError(request.text)
        return request.text


def texts(answers):
    """The texts of the answers."""
    return [str(answer) for answer in answers]


# ── order and bound ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_answers_are_emitted_in_the_order_of_the_prompts():
    """The order of completion does not matter."""
    llm = Held()
    asked = asyncio.create_task(llm.abatch([*"abcd"], max_concurrency=4))
    await llm.until(lambda: len(llm.live) == 4)
    for prompt in "dbca":
        llm.release(prompt)
        await llm.until(lambda prompt=prompt: prompt in llm.closed)
    assert list("dbca") == llm.closed
    assert list("abcd") == texts(await asked)


async def test_as_completed_emits_answers_as_they_complete():
    """Each answer comes with the index of its prompt."""
    llm = Held()
    async with llm.abatch_as_completed([*"abcd"], max_concurrency=4) as answers:
        heard = []
        for prompt in "dbca":
            llm.release(prompt)
            index, answer = await asyncio.wait_for(anext(answers), TIMEOUT)
            heard.append((index, answer.text))
        assert [(3, "d"), (1, "b"), (2, "c"), (0, "a")] == heard


@pytest.mark.parametrize("bound", [1, 2, 5, 8])
async def test_concurrency_reaches_and_never_exceeds_its_bound(bound):
    """The test counts the running requests at each start."""
    llm = Held()
    prompts = [str(number) for number in range(20)]
    asked = asyncio.create_task(llm.abatch(prompts, max_concurrency=bound))
    await llm.until(lambda: len(llm.live) == bound)
    await quiet()
    assert prompts[:bound] == llm.begun
    llm.release(*prompts)
    assert prompts == texts(await asked)
    assert bound == max(llm.most)
    assert prompts == llm.begun


async def test_eight_requests_run_by_default():
    """The default is the documented number."""
    llm = Held()
    asked = asyncio.create_task(llm.abatch(map(str, range(20))))
    await llm.until(lambda: len(llm.live) == 8)
    await quiet()
    assert 8 == len(llm.begun)
    llm.release(*map(str, range(20)))
    await asked


async def test_free_slot_is_used_at_once():
    """A prompt starts while others are still running."""
    llm = Held()
    asked = asyncio.create_task(llm.abatch([*"abcdef"], max_concurrency=2))
    await llm.until(lambda: llm.live == {"a", "b"})
    for done, next_one in zip("bcd", "cde", strict=True):
        llm.release(done)
        await llm.until(lambda next_one=next_one: llm.live == {"a", next_one})
    llm.release(*"aef")
    assert list("abcdef") == texts(await asked)


@pytest.mark.parametrize("bound", [2, 3, 8])
async def test_waiting_answers_are_bounded(bound):
    """While the first answer is slow, at most three times max_concurrency answers wait."""
    llm = Held()
    prompts = [str(number) for number in range(20 * bound)]
    llm.release(*prompts[1:])
    asked = asyncio.create_task(llm.abatch(prompts, max_concurrency=bound))
    await llm.until(lambda: len(llm.closed) >= 3 * bound)
    await quiet()
    assert 3 * bound == len(llm.closed)
    llm.release("0")
    assert prompts == texts(await asked)


# ── prompts ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_prompts_are_pulled_when_a_slot_is_free():
    """So the source may be endless. Its generator is closed when the consumer disposes."""
    llm, pulled, closed = Held(), [], asyncio.Event()

    async def endless():
        try:
            for number in itertools.count():
                pulled.append(str(number))
                yield str(number)
        finally:
            closed.set()

    async with llm.abatch_as_completed(endless(), max_concurrency=3) as answers:
        waiting = asyncio.ensure_future(anext(answers))
        await llm.until(lambda: len(llm.live) == 3)
        await quiet()
        assert 3 == len(pulled)
        llm.release("0")
        assert 0 == (await waiting)[0]
        await llm.until(lambda: len(llm.live) == 3)
        await quiet()
        assert 4 == len(pulled)
    await asyncio.wait_for(closed.wait(), TIMEOUT)
    assert set() == llm.live


async def test_batch_tells_its_source_how_many_prompts_can_start():
    """So a thread that reads them is asked once for all free slots."""
    llm, prompts, gates = Held(), Subject(), []

    def subscribe(observer, scheduler):
        gates.append(scheduler.gate)
        return prompts.subscribe(observer)

    async with rx.create(subscribe).pipe(rxllm.batch_as_completed(llm, max_concurrency=3), rxllm.astream()) as answers:
        waiting = asyncio.ensure_future(anext(answers))
        await quiet()
        (gate,) = gates
        assert 3 == gate.room
        prompts.on_next("p")
        assert 2 == gate.room
        await llm.until(lambda: llm.live)
        prompts.on_next("q")
        assert 1 == gate.room
        llm.release("p", "q")
        assert "p" == (await waiting)[1].text
        assert "q" == (await anext(answers))[1].text
        await quiet()
        assert 3 == gate.room
        assert gate.is_open


def test_sync_batch_pulls_prompts_lazily_in_the_calling_thread():
    """A database cursor, which belongs to its thread, is a valid source."""
    threads, pulled = set(), []

    def cursor():
        for number in itertools.count():
            threads.add(threading.get_ident())
            pulled.append(number)
            yield str(number)

    with Echo().batch_as_completed(cursor(), max_concurrency=2) as answers:
        assert [0, 1, 2] == sorted(index for index, _ in itertools.islice(answers, 3))
    assert {threading.get_ident()} == threads
    assert len(pulled) <= 3 + 64 + 2 * 2
    assert list("abc") == texts(Echo().batch(letter for letter in "abc"))


def test_operator_batches_an_endless_source():
    """`from_iter` waits for the batch."""
    pulled = []
    numbers = (pulled.append(number) or str(number) for number in itertools.count())
    with rxllm.from_iter(numbers).pipe(rxllm.batch(Echo(), max_concurrency=2), rxllm.stream()) as answers:
        assert list("0123") == texts(itertools.islice(answers, 4))
    assert len(pulled) < 100


async def test_slow_consumer_pauses_the_starts():
    """While the consumer is full, no prompt starts."""
    llm = Held()
    prompts = [str(number) for number in range(1000)]
    llm.release(*prompts)
    async with llm.abatch_as_completed(prompts, max_concurrency=4) as answers:
        await anext(answers)
        for _ in range(20):
            await quiet()
        stalled = len(llm.begun)
        assert stalled <= 64 + 2 * 4 + 2
        for _ in range(200):
            await anext(answers)
        assert len(llm.begun) > stalled


@pytest.mark.parametrize("make", [list, tuple, iter, rxllm.from_iter], ids=["list", "tuple", "iterator", "observable"])
async def test_any_iterable_of_prompts_is_accepted(make):
    """The iterable is read once, in order."""
    if make is rxllm.from_iter:
        answers = [str(answer) async for answer in make("abc").pipe(rxllm.batch(Echo()), rxllm.astream())]
    else:
        answers = texts(await Echo().abatch(make("abc")))
    assert list("abc") == answers


async def test_empty_input_gives_an_empty_list():
    """The call returns at once."""
    assert [] == Echo().batch([])
    assert [] == await Echo().abatch([])
    assert [] == list(Echo().batch_as_completed(iter(())))


async def test_prompts_may_come_from_any_thread():
    """An Observable that emits on another thread feeds the batch in order."""
    prompts, answered, done = Subject(), [], asyncio.Event()
    asyncio.get_running_loop().set_debug(True)  # refuses to be called from other threads

    def heard(answer):
        answered.append(str(answer))
        if len(answered) == 3:
            done.set()

    subscription = prompts.pipe(rxllm.batch(Echo())).subscribe(heard, scheduler=rxllm.scheduler())
    await quiet()

    def feed():
        for prompt in "abc":
            prompts.on_next(prompt)

    thread = threading.Thread(target=feed)
    thread.start()
    loop = asyncio.get_running_loop()
    late = loop.call_later(TIMEOUT, done.set)
    await done.wait()
    late.cancel()
    thread.join()
    subscription.dispose()
    assert list("abc") == answered
    assert loop.time() < late.when()


@pytest.mark.parametrize("wrong", ["a prompt", b"bytes", {"role": "user"}, 5, None])
async def test_single_prompt_is_refused(wrong):
    """A text would be read as a list of letters."""
    if wrong == "a prompt":
        wrong = "text"
    with pytest.raises(MisuseError, match=f"batch takes an iterable of prompts, not {type(wrong).__name__}"):
        Echo().batch(wrong)
    with pytest.raises(MisuseError, match="For one prompt, call invoke"):
        Echo().batch_as_completed(wrong)
    with pytest.raises(MisuseError, match="For one prompt, call invoke"):
        await Echo().abatch(wrong)


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_first_failure_errors_at_once_and_cancels_the_rest():
    """The error does not wait for earlier answers, and no further prompt starts."""
    llm = Held()
    asked = asyncio.create_task(llm.abatch(["a", "!b", "c", "d", "e"], max_concurrency=3))
    await llm.until(lambda: len(llm.live) == 3)
    llm.release("!b")
    with pytest.raises(ValueError, match="!b"):
        await asyncio.wait_for(asked, TIMEOUT)
    await llm.until(lambda: not llm.live)
    await quiet()
    assert {"a", "!b", "c"} == set(llm.begun) == set(llm.closed)


async def test_exceptions_take_the_place_of_their_answers():
    """With `return_exceptions` the other answers are not affected. An invalid prompt gives such an exception, too."""
    answers = await Echo().abatch(["a", "!b", 5, "d"], return_exceptions=True)
    assert [rxllm.Message, ValueError, MisuseError, rxllm.Message] == [type(answer) for answer in answers]
    answers = Echo().batch_as_completed(["a", "!b"], return_exceptions=True)
    assert {0: rxllm.Message, 1: ValueError} == {index: type(answer) for index, answer in answers}


class Exits(LLM):
    """A model that raises an exit instead of answering."""

    error: type[BaseException] = SystemExit

    def __init__(self, error):
        self.error = error

    def complete(self, request):
        """Raises the error for one of the prompts."""
        if request.text == "x":
            raise self.error
        return request.text


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("method", ["batch", "batch_as_completed"])
def test_exit_ends_the_batch(kind, method):
    """KeyboardInterrupt and SystemExit end the batch, also with return_exceptions."""
    with pytest.raises(kind):
        list(getattr(Exits(kind), method)(["a", "x", "b"], return_exceptions=True))


def test_invalid_prompt_fails_the_batch():
    """Without return_exceptions, it is a failure like any other."""
    with pytest.raises(MisuseError, match="A prompt must be text"):
        Echo().batch(["a", 5])
    with pytest.raises(MisuseError, match="A prompt must be text"):  # also when it is the last one, and starts alone
        list(rx.of("a", 5).pipe(rxllm.batch(Echo(), max_concurrency=1), rxllm.stream()))


@pytest.mark.parametrize("return_exceptions", [False, True])
@pytest.mark.parametrize("kind", [LookupError, KeyboardInterrupt])
def test_exception_of_the_prompts_iterable_ends_the_batch(return_exceptions, kind):
    """It belongs to no answer, so return_exceptions does not catch it. Ctrl-C is treated alike."""

    def prompts():
        yield "a"
        raise kind

    with pytest.raises(kind):
        Echo().batch(prompts(), return_exceptions=return_exceptions)


async def test_closing_the_batch_closes_all_requests():
    """After `aclose` no request is open, in each state of the batch."""
    for take in 0, 1:
        llm = Held()
        async with llm.abatch_as_completed([*"abcd"], max_concurrency=3) as answers:
            first = asyncio.ensure_future(anext(answers))
            await llm.until(lambda llm=llm: len(llm.live) == 3)
            llm.release(*"a"[:take])
            if take:
                await first
        assert set() == llm.live
        assert len(llm.begun) == len(llm.closed)
        await asyncio.gather(first, return_exceptions=True)


async def test_disposal_within_on_next_closes_the_other_requests():
    """``take(1)`` disposes from inside `on_next`."""
    llm = Held()
    done = asyncio.Event()
    llm.release("a")
    rxllm.from_iter("abcd").pipe(rxllm.batch(llm, max_concurrency=3), ops.take(1)).subscribe(on_completed=done.set)
    await asyncio.wait_for(done.wait(), TIMEOUT)
    await llm.until(lambda: not llm.live)
    assert len(llm.begun) == len(llm.closed)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, None, "8"])
def test_invalid_bound_is_refused(wrong):
    """MisuseError is raised at once, by every entry point."""
    for ask in Echo().batch, Echo().batch_as_completed, Echo().abatch_as_completed:
        with pytest.raises(MisuseError, match="max_concurrency must be a whole number of at least 1"):
            ask(["a"], max_concurrency=wrong)
    with pytest.raises(MisuseError, match="max_concurrency"):
        rxllm.batch(Echo(), max_concurrency=wrong)


def test_stage_that_cannot_answer_is_refused():
    """The error says how to make a Pipeline of a function."""
    with pytest.raises(MisuseError, match=r"not builtin_function_or_method\. rxllm\.pipe"):
        rxllm.batch(len)


async def test_stage_without_an_answer_fails():
    """The batch does not wait for a value that never comes."""

    class Mute:
        def answer(self, prompt):
            return rx.empty()

    got = await rxllm.from_iter(["a"]).pipe(rxllm.batch(Mute(), return_exceptions=True))
    assert isinstance(got, Exception)


def test_exception_around_an_answer_fails_that_answer_only():
    """An operator of one answer that raises in its subscription does not affect the other answers."""

    class Same(LLM):
        async def complete(self, request):
            return request.text

    def raising(source):
        def subscribe(observer, scheduler):
            def on_next(value):
                observer.on_next(value if value != "b" else 1 / 0)

            return source.subscribe(on_next, observer.on_error, observer.on_completed, scheduler=scheduler)

        return rx.create(subscribe)

    pipeline = rxllm.pipe(Same(), rxllm.text(), raising)
    first, second, third = pipeline.batch(["a", "b", "c"], return_exceptions=True)
    assert ("a", ZeroDivisionError, "c") == (first, type(second), third)
