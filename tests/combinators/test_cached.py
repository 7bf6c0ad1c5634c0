"""`cached`: one request, and the stored answer from then on."""

import asyncio
import contextlib
import copy
import json
import logging
import operator
import pickle
import sqlite3
import threading

import msgspec
import pytest
from attrs import field, frozen
from combinators.moments import moments
from protocols import Chat

import rxllm
from rxllm import LLM, Chunk, Interrupted, MemoryStore, MisuseError, RawPart, SQLiteStore, Store, Usage, cached
from rxllm.adapters import from_callable
from rxllm.operators import caching as keeping
from rxllm.testing import End, FakeServer, LLMContract, MarbleLLM, Reply, Signal

TIMEOUT = 5.0  # seconds for what comes at once


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path, monkeypatch):
    """Each kind of store. An answer waits for it, however busy the machine is."""
    monkeypatch.setattr(keeping, "PATIENCE", 60)
    return MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "answers.db")


@frozen
class Counts(LLM):
    """A model that records its prompts."""

    name: str = "one"
    asked: list[str] = field(factory=list, repr=False, eq=False)

    async def chunks(self, request):
        """Emits two chunks and the usage."""
        self.asked.append(request.text)
        yield f"{request.text} "
        await asyncio.sleep(0)
        yield Chunk(f"at {request.temperature}", usage=Usage(output_tokens=2), finish_reason="stop")


async def chunks_of(llm, prompt, **parameters):
    """The chunks of the answer."""
    return [chunk async for chunk in llm.astream(prompt, **parameters)]


async def test_second_answer_equals_the_first(store):
    """Chunk by chunk, with all facts."""
    model = Counts()
    llm = cached(model, store)
    first = await chunks_of(llm, "x")
    assert first == await chunks_of(llm, "x")
    assert Usage(output_tokens=2) == first[-1].usage
    assert ["x"] == model.asked


@pytest.mark.parametrize("first", [None, False])
async def test_whole_answer_is_one_chunk(store, first):
    """Also from a stored stream. A stream of an answer that was stored whole is that one chunk."""
    llm = cached(Counts(), store)
    streamed = await chunks_of(llm, "x", stream=first)
    whole = await chunks_of(llm, "x", stream=False)
    assert [sum(streamed, Chunk())] == whole
    assert streamed == await chunks_of(llm, "x")
    assert whole == await chunks_of(llm.bind(stream=False), "x")


async def test_whole_answer_and_stream_share_a_running_request(store):
    """Each gets its own form of the answer."""
    model = Counts()
    llm = cached(model, store)
    streamed, whole = await asyncio.gather(chunks_of(llm, "x"), chunks_of(llm, "x", stream=False))
    assert (2, [sum(streamed, Chunk())]) == (len(streamed), whole)
    assert ["x"] == model.asked


class TestContract(LLMContract):
    """A cached model passes the contract of all models, also when the answers come from the store."""

    def create_model(self):
        """The model, with its own store."""
        return cached(rxllm.Embedded(seed=1, max_tokens=20), MemoryStore())


async def test_each_parameter_is_part_of_the_key(store):
    """Another temperature is another request; the parameters of the model and of the request both count."""
    model = Counts()
    llm = cached(model, store)
    for parameters in {}, {"temperature": 0}, {"temperature": 0.5}, {"seed": 1}, {"extra": {"a": 1}}:
        await llm.ainvoke("x", **parameters)
        await llm.bind(**parameters).ainvoke("x")
    assert ["x"] * 5 == model.asked
    inner = cached(model.bind(temperature=0), store)
    assert "x at 0" == (await inner.ainvoke("x")).text
    assert "x at None" == (await llm.ainvoke("x")).text


async def test_models_do_not_share_answers(store):
    """Class and fields identify a model, or the name that the user passes."""
    one, other = Counts("one"), Counts("other")
    for model in one, other:
        await cached(model, store).ainvoke("x")
        await cached(Counts(model.name), store).ainvoke("x")
    assert [["x"], ["x"]] == [one.asked, other.asked]
    await cached(one, store, name="same").ainvoke("y")
    await cached(other, store, name="same").ainvoke("y")
    assert [["x", "y"], ["x"]] == [one.asked, other.asked]


def identity(**settings):
    """The identity of a model over HTTP."""
    return rxllm.OpenAI(**{"model": "m", "api_key": "k", **settings}).identity()


def test_identity_has_address_key_and_headers(monkeypatch):
    """The way of calling does not change it, and it contains no secret."""
    usual = identity()
    assert usual == identity(timeout=3) == identity(max_retries=0) == identity(tags=["a"]) == identity(event_limit=9)
    others = [
        identity(model="n"),
        identity(api_key="another"),
        identity(temperature=0),
        identity(api="completions"),
        identity(base_url="http://localhost/one/v1"),
        identity(base_url="http://me:sesame@localhost/one/v1"),
        identity(base_url="http://you:sesame@localhost/one/v1"),
        *(identity(headers={name: value}) for name in ("Authorization", "Cookie", "X-Tenant") for value in "ab"),
        rxllm.Anthropic("m", api_key="k").identity(),
    ]
    assert 1 + len(others) == len({usual, *others})
    assert identity(headers={"X-Tenant": "a", "y": "b"}) == identity(headers={"y": "b", "x-tenant": "a"})
    assert not any(secret in text for secret in ("sesame", "another", "localhost") for text in others)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost/one/v1")
    assert identity() == identity(base_url="http://localhost/one/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    assert identity(api_key=None) == identity(api_key="sesame") != identity()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda llm: llm,
        rxllm.retry,
        lambda llm: rxllm.fallback(rxllm.retry(llm), Counts()),
        lambda llm: rxllm.hedge(Counts(), llm, after=1),
        lambda llm: rxllm.limited(llm, rxllm.Limiter(concurrency=1)),
        lambda llm: rxllm.cached(llm, MemoryStore()),
        lambda llm: rxllm.observe(llm, lambda event: None),
        lambda llm: rxllm.retry(llm).bind(temperature=0),
        lambda llm: Holds(llm),
    ],
)
def test_combinators_compose_identities(wrap):
    """Models with two API keys differ in any combinator; equal models are equal."""
    model = lambda key: wrap(rxllm.OpenAI("m", api_key=key)).identity()  # noqa: E731
    assert model("k") == model("k") != model("l")
    for unknown in rxllm.OpenAI("m", client=lambda: None), rxllm.route(lambda request: Counts()), Holds(print):
        with pytest.raises(MisuseError, match=r"cannot derive a (stable )?key.*name='…'"):
            wrap(unknown).identity()


def test_order_of_models_and_parameters_change_the_identity():
    """Another model is asked first, or with another temperature."""
    one, other = Counts("one"), Counts("other")
    models = [
        one,
        one.bind(temperature=0),
        rxllm.fallback(one, other),
        rxllm.fallback(other, one),
        rxllm.hedge(one, other, after=1),
        rxllm.fallback(one, other).bind(temperature=0),
    ]
    assert len(models) == len({model.identity() for model in models})
    assert one.identity() == rxllm.retry(one).identity() == one.with_config(tags=["a"]).identity()


async def test_answers_are_not_shared_between_keys_and_tenants(store):
    """Only a name shares them."""
    with FakeServer(*(Reply(Chat().stream([text])) for text in "abc")) as server:
        at = lambda **settings: rxllm.OpenAI("m", **{"base_url": server.url, "api_key": "k", **settings})  # noqa: E731
        models = at(), at(api_key="l"), at(headers={"x-tenant": "c"})
        for _ in range(2):
            assert list("abc") == [(await cached(model, store).ainvoke("x")).text for model in models]
        assert 3 == len(server.requests)
    with FakeServer(Reply(Chat().stream(["d"]))) as server:
        models = [rxllm.OpenAI("m", base_url=server.url, api_key=key) for key in "kl"]
        assert ["d", "d"] == [(await cached(model, store, name="shared").ainvoke("x")).text for model in models]
        assert 1 == len(server.requests)


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("stop", True),
        ("length", True),
        ("tool_call", True),
        (None, True),
        ("content_filter", False),
        ("error", False),
        ("other", False),
    ],
)
@pytest.mark.parametrize("stream", [None, False])
async def test_only_whole_answers_are_stored(store, reason, kept, stream):
    """An answer with another finish reason than stop, length or tool_call is requested again."""

    class Ends(LLM):
        async def chunks(self, request):
            asked.append(request.text)
            yield "x"
            yield Chunk(finish_reason=reason)
            yield Chunk(usage=Usage(output_tokens=1))

    asked = []
    llm = cached(Ends(), store)
    for _ in range(2):
        assert "x" == (await llm.ainvoke("hi", stream=stream)).text
    assert (1 if kept else 2) == len(asked)


async def test_answers_are_not_shared_between_servers(store, monkeypatch):
    """Another address is another key."""
    with FakeServer(Reply(Chat().stream(["A"]))) as a, FakeServer(Reply(Chat().stream(["B"]))) as b:
        for server in a, b:
            monkeypatch.setenv("OPENAI_BASE_URL", server.url)
            llm = cached(rxllm.OpenAI("m", api_key="k"), store)
            assert ("A" if server is a else "B") == (await llm.ainvoke("x")).text


@frozen
class Holds(LLM):
    """A model with fields that count for equality and fields that do not."""

    thing: object
    asked: list[str] = field(factory=list, eq=False)


class Shortened:
    """An object whose repr omits a part of its value, like that of a large array."""

    def __init__(self, value):
        self.value = value

    def __repr__(self):
        return "array([0., 0., ..., 0.])"


def test_model_without_an_identity_needs_a_name():
    """Otherwise it might get the answers of another model."""
    for thing in object(), Shortened(1), print, [lambda: None], {"a": Shortened(1)}:
        with pytest.raises(MisuseError, match=r"Pass cached\(…, name='…'\)"):
            cached(Holds(thing), MemoryStore())
        assert cached(Holds(thing), MemoryStore(), name="it")


def test_all_fields_with_equality_are_part_of_the_identity():
    """Also a field that its repr does not show, and a plain attribute."""

    class Plain(LLM):
        def __init__(self, value):
            self.value = value

    things = [1, "1", b"1", None, [1], {"a": 1}, {1}, 1.5, Counts("one"), Counts("other")]
    assert len(things) == len({Holds(thing).identity() for thing in things})
    assert Holds(1, asked=["x"]).identity() == Holds(1).identity()
    assert Plain(1).identity() == Plain(1).identity() != Plain(2).identity()


def test_local_classes_have_no_common_identity():
    """Classes that a function creates have the same name, but may answer differently."""

    def create_model(answer):
        class Made(LLM):
            async def complete(self, request):
                return answer

        return Made()

    store = MemoryStore()
    assert ["a", "b"] == [cached(create_model(answer), store).invoke("x").text for answer in "ab"]
    one = create_model("c")
    assert one.identity() == one.identity()


async def test_concurrent_equal_requests_share_one(store):
    """A caller that joins later gets the whole answer."""
    with FakeServer(Reply(Chat().stream(["Hel", "lo"]))) as server:
        llm = cached(rxllm.OpenAI("m", base_url=server.url, api_key="k"), store)
        answers = await llm.abatch(["x"] * 20, max_concurrency=20)
        assert ["Hello"] * 20 == [answer.text for answer in answers]
        assert 1 == len(server.requests)


async def test_disposal_of_a_joined_request_affects_no_other(store):
    """Only the last one closes the request."""
    released = Signal()
    with FakeServer(Reply([Chat().stream(["Hel"])[1], released, *Chat().stream(["lo"])[1:]])) as server:
        llm = cached(rxllm.OpenAI("m", base_url=server.url, api_key="k"), store)
        one, other = llm.astream("x"), llm.astream("x")
        assert ["Hel", "Hel"] == [(await anext(stream)).text for stream in (one, other)]
        await one.aclose()
        released.set()
        assert "lo" == "".join([chunk.text async for chunk in other])
        assert 1 == len(server.requests)


async def test_disposed_answer_is_not_stored(store):
    """Its request is closed, and the next call makes a new one."""
    reply = Reply([Chat().stream(["Hel"])[1], End.HANG])
    with FakeServer(reply, Reply(Chat().stream(["Hello"]))) as server:
        llm = cached(rxllm.OpenAI("m", base_url=server.url, api_key="k"), store)
        async with llm.astream("x") as answer:
            await anext(answer)
        await server.exchange().closed_soon()
        assert "Hello" == (await llm.ainvoke("x")).text


async def test_failed_answer_is_not_stored(store):
    """The next call makes a new request."""
    model = MarbleLLM(["a#", "b|"], error=Interrupted("cut"), timespan=0.001)
    llm = cached(model, store, name="m")
    with pytest.raises(Interrupted) as caught:
        await llm.ainvoke("x")
    assert "a" == caught.value.partial.text
    assert ["b", "b"] == [(await llm.ainvoke("x")).text for _ in range(2)]


async def test_chunks_before_a_reset_are_not_stored(store):
    """The stored answer has no reset."""
    broken = MarbleLLM(["Hel-#", "Hello-|"], timespan=0.001)
    llm = cached(rxllm.retry(broken, mid_stream="restart", delay=lambda error, attempt: 0.0), store)
    first = await chunks_of(llm, "x")
    assert ["Hel", "", "Hello"] == [chunk.text for chunk in first]
    assert [Chunk("Hello")] == await chunks_of(llm, "x")


async def test_chunk_with_a_reset_is_stored_without_it(store):
    """Its text and facts are part of the answer."""

    class Again(LLM):
        async def chunks(self, request):
            yield "Hel"
            yield Chunk("Hello", model="m", usage=Usage(output_tokens=1), finish_reason="stop", id="1", reset=True)

    llm = cached(Again(), store)
    assert "Hello" == (await llm.ainvoke("x")).text
    expected = Chunk("Hello", model="m", usage=Usage(output_tokens=1), finish_reason="stop", id="1")
    assert [expected] == await chunks_of(llm, "x")


async def test_operator_that_completes_closes_the_request(store):
    """Although the model still streams."""

    @frozen
    class Impatient(LLM):
        of: LLM

        def chunks(self, request):
            return self.of(request).pipe(rxllm.idle_timeout(0.01))

    with FakeServer(Reply([Chat().stream(["Hel"])[1], End.HANG])) as server:
        llm = cached(Impatient(rxllm.OpenAI("m", base_url=server.url, api_key="k")), store)
        with pytest.raises(rxllm.Timeout):
            await llm.ainvoke("x")
        await server.exchange().closed_soon()


async def test_values_with_a_shortened_repr_make_no_key(caplog):
    """Two different pictures with the same repr get one answer each."""
    model = Counts()
    llm = cached(model, MemoryStore())
    for value in 1, 2:
        await llm.ainvoke("x", extra={"picture": Shortened(value)})
    assert ["x", "x"] == model.asked
    assert "a Shortened has no exact JSON form" in caplog.text


@pytest.mark.parametrize("prompt", ["x \ud800", "x"])
async def test_request_without_a_stable_key_is_sent_each_time(prompt, caplog):
    """Each time with a warning in the log."""
    model = Counts()
    llm = cached(model, MemoryStore())
    parameters = {} if prompt != "x" else {"extra": {"thing": object()}}
    for _ in range(2):
        await llm.ainvoke(prompt, **parameters)
    assert [prompt] * 2 == model.asked
    assert 2 == len(caplog.records)
    assert "cached() did not cache an answer. rxllm cannot derive a stable key for this request" in caplog.text


async def test_answer_with_half_of_a_character_is_stored(store, caplog):
    """No file can hold the half, so U+FFFD stands for it there."""
    asked = []

    def halved(prompt):
        asked.append(prompt)
        return "a\ud800"

    llm = cached(from_callable(halved), store, name="halved")
    await llm.ainvoke("x")
    assert (await llm.ainvoke("x")).text in ("a\ud800", "a\ufffd")
    assert (1, "") == (len(asked), caplog.text)


async def test_stored_answer_has_no_run_of_the_model():
    """The run of the combinator has the chunks."""
    meter, events = rxllm.UsageMeter(), []
    llm = cached(Counts(), MemoryStore())
    for _ in range(2):
        events.clear()
        await llm.ainvoke("x", handlers=[meter, events.append])
    assert 1 == meter.requests
    assert {"chain"} == {event.run.kind for event in events}
    assert "x at None" == "".join(event.text for event in events if isinstance(event, Chunk))


def test_stored_answer_takes_no_virtual_time():
    """The first answer takes the model's time, the second none."""
    llm = cached(MarbleLLM("-a-b|"), MemoryStore(), name="m")
    assert [(1, "a"), (3, "b"), (4, "|")] == moments(llm("x"))
    assert [(0, "a"), (0, "b"), (0, "|")] == moments(llm("x"))


def test_sqlite_answers_survive_the_process(tmp_path):
    """Another store reads the same file, on another loop and in another thread."""
    path, model = tmp_path / "answers.db", Counts()
    assert "x at None" == cached(model, SQLiteStore(path)).invoke("x").text
    heard = []
    ask = lambda: heard.append(asyncio.run(cached(Counts(), SQLiteStore(path)).ainvoke("x")).text)  # noqa: E731
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(TIMEOUT)
    assert ["x at None"] == heard
    assert ["x"] == model.asked


async def test_least_recently_used_answers_are_dropped():
    """When MemoryStore is full."""
    model = Counts()
    llm = cached(model, MemoryStore(size=2))
    for prompt in "ababcab":
        await llm.ainvoke(prompt)
    assert list("abcab") == model.asked


@pytest.mark.parametrize("is_async", [False, True])
async def test_broken_store_costs_no_answers(is_async, caplog):
    """Each failure is logged, and the model is asked."""

    class Broken(Store):
        def get(self, key):
            raise sqlite3.OperationalError("disk")

        def put(self, key, chunks):
            raise sqlite3.OperationalError("disk")

    class BrokenLater(Store):
        async def get(self, key):
            raise sqlite3.OperationalError("disk")

        async def put(self, key, chunks):
            raise sqlite3.OperationalError("disk")

    model = Counts()
    llm = cached(model, BrokenLater() if is_async else Broken())
    with caplog.at_level(logging.ERROR, "rxllm"):
        assert ["x at None"] * 2 == [(await llm.ainvoke("x")).text for _ in range(2)]
    assert ["x", "x"] == model.asked
    assert 4 == len(caplog.records)


class Stuck(Store):
    """A store whose calls wait until the test releases them."""

    def __init__(self, *stuck):
        self.stuck = stuck
        self.released, self.heard, self.kept = asyncio.Event(), [], {}

    def get(self, key):
        """Waits if it is stuck."""
        return self.do("get", lambda: self.kept.get(key))

    def put(self, key, chunks):
        """Waits if it is stuck."""
        return self.do("put", lambda: self.kept.update({key: chunks}))

    def do(self, what, work):
        """Does the work at once, or after the release."""
        if what in self.stuck:
            return self.later(what, work)
        self.heard.append(what)
        return work()

    async def later(self, what, work):
        """Does the work after the release."""
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.heard.append(f"{what} left")
            raise
        self.heard.append(what)
        return work()


async def turns():
    """Returns after some turns of the loop."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_stuck_get_is_cancelled_after_the_limit(monkeypatch, caplog):
    """The model answers without the store."""
    monkeypatch.setattr(keeping, "PATIENCE", 0.01)
    store, model = Stuck("get"), Counts()
    assert "x at None" == (await asyncio.wait_for(cached(model, store).ainvoke("x"), TIMEOUT)).text
    assert ["get left", "put"] == store.heard
    assert "The store took longer" in caplog.text


async def test_answer_does_not_wait_for_a_stuck_put(monkeypatch, caplog):
    """The answer ends, and is stored when the store continues."""
    monkeypatch.setattr(keeping, "PATIENCE", 0.01)
    store, model = Stuck("put"), Counts()
    llm = cached(model, store)
    assert "x at None" == (await asyncio.wait_for(llm.ainvoke("x"), TIMEOUT)).text
    assert ["get"] == store.heard
    assert 1 == len(caplog.records)
    store.released.set()
    await turns()
    assert ["get", "put"] == store.heard
    assert "x at None" == (await llm.ainvoke("x")).text
    assert ["x"] == model.asked


async def test_whole_answer_is_stored_after_a_disposal():
    """It is complete and paid for."""
    store = Stuck("put")
    async with cached(Counts(), store).astream("x") as answer:
        assert ["x ", "at None"] == [(await anext(answer)).text for _ in range(2)]
        await turns()
    store.released.set()
    await turns()
    assert ["get", "put"] == store.heard


async def test_whole_answer_waits_until_it_is_stored(tmp_path):
    """A program that ends with the stream finds the answer at its next start."""
    path = tmp_path / "answers.db"
    await cached(Counts(), SQLiteStore(path)).ainvoke("x")
    with sqlite3.connect(path) as database:
        assert 1 == database.execute("SELECT count(*) FROM answers").fetchone()[0]
    database.close()


@pytest.mark.parametrize("wrong", [0, -1, "5", True])
def test_invalid_size_is_refused(wrong):
    """MisuseError is raised when the store is created."""
    with pytest.raises(MisuseError, match="size must be a whole number"):
        MemoryStore(wrong)


def test_cached_refuses_pipelines_and_other_stores():
    """A pipeline may emit any values, and a dict is not a Store."""
    with pytest.raises(MisuseError, match="takes a model, not Pipeline"):
        cached(rxllm.pipe(Counts(), rxllm.text()), MemoryStore())
    with pytest.raises(MisuseError, match="takes a Store"):
        cached(Counts(), {})
    with pytest.raises(MisuseError, match="MemoryStore"):
        SQLiteStore(":memory:")


async def readers_after_a_change(read):
    """The answer that a second reader gets, after the first reader tried to change it."""
    first = await read()
    raw, note = first.parts[0].data, first.logprobs["content"]
    changes = [
        lambda: raw.update(a=2),
        lambda: raw["b"].append(2),
        lambda: raw["b"][0].clear(),
        lambda: raw.pop("a"),
        lambda: note.append(2),
        lambda: note[0].update(token="other"),
        lambda: operator.setitem(first.logprobs, "content", []),
        lambda: operator.iadd(raw["b"], [1]),
        lambda: operator.ior(raw, {"a": 2}),
    ]
    for change in changes:
        with pytest.raises(TypeError, match="Change a copy"):
            change()
    again = dict(raw)
    again["a"] = 2
    return first, await read()


@pytest.mark.parametrize("how", ["memory", "sqlite", "share", "replay", "message"])
async def test_readers_cannot_change_a_shared_answer(how, tmp_path):
    """The values of an answer are frozen, also those that a provider or a user's model still changes."""
    data, tokens = {"a": 1, "b": [{"c": 1}]}, [{"token": "x"}]

    class Raw(LLM):
        async def chunks(self, request):
            yield Chunk(parts=[RawPart("p", data)], logprobs={"content": tokens})
            data["a"], tokens[0]["token"] = 3, "changed"

    if how == "share":
        answer = Raw()("x").pipe(rxllm.share(), rxllm.message())
    elif how == "message":
        answer = Raw()("x").pipe(rxllm.message(), rxllm.share())
    elif how == "replay":
        await rxllm.testing.record(Raw(), tmp_path / "tape").ainvoke("x")
        data["a"], tokens[0]["token"] = 1, "x"
        answer = rxllm.testing.Replay(tmp_path / "tape").answer("x")
    else:
        store = MemoryStore() if how == "memory" else SQLiteStore(tmp_path / "answers.db")
        answer = cached(Raw(), store).answer("x")
    first, second = await readers_after_a_change(lambda: anext(answer.pipe(rxllm.astream())))
    assert first == second
    assert ({"a": 1, "b": [{"c": 1}]}, {"content": [{"token": "x"}]}) == (second.parts[0].data, second.logprobs)


def test_frozen_values_are_serialised_and_compared_like_plain_ones():
    """As JSON, by pickle and by deepcopy."""
    part = RawPart("p", {"a": [1, {"b": (2, bytearray(b"3"))}]})
    assert {"a": [1, {"b": (2, b"3")}]} == part.data
    plain = RawPart("p", {"a": [1, {"b": 2}]})
    assert '{"a": [1, {"b": 2}]}' == json.dumps(plain.data)
    assert b'{"a":[1,{"b":2}]}' == msgspec.json.encode(plain.data)
    for other in copy.deepcopy(plain), pickle.loads(pickle.dumps(plain)):  # noqa: S301  (our own)
        assert plain == other
        with pytest.raises(TypeError):
            other.data["a"].append(1)
    llm = Counts().with_config(metadata={"a": [1]})
    with pytest.raises(TypeError):
        llm.metadata["a"] = 2


async def test_file_of_a_later_version_is_refused(tmp_path, caplog):
    """The log has the reason, and the model is asked."""
    path, model = tmp_path / "answers.db", Counts()
    await cached(model, SQLiteStore(path)).ainvoke("x")
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        assert 1 == database.execute("PRAGMA user_version").fetchone()[0]
        database.execute("PRAGMA user_version=2")
    with pytest.raises(MisuseError, match="has format version 2, but this rxllm reads version 1"):
        await SQLiteStore(path).get("x")
    assert "x at None" == (await cached(model, SQLiteStore(path)).ainvoke("x")).text
    assert ["x", "x"] == model.asked
    assert "The store of cached() failed" in caplog.text
