"""`cached`: asked once, answered again."""

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
from rxllm.operators import caching as keeping
from rxllm.testing import End, FakeServer, LLMContract, MarbleLLM, Reply, Signal

TIMEOUT = 5.0  # seconds for what comes at once


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    """Each store in turn."""
    return MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "answers.db")


@frozen
class Counts(LLM):
    """Knows what it was asked."""

    name: str = "one"
    asked: list[str] = field(factory=list, repr=False, eq=False)

    async def chunks(self, request):
        """Two chunks, and what they took."""
        self.asked.append(request.text)
        yield f"{request.text} "
        await asyncio.sleep(0)
        yield Chunk(f"at {request.temperature}", usage=Usage(output_tokens=2), finish_reason="stop")


async def chunks_of(llm, prompt, **parameters):
    """The answer's chunks, as they came."""
    return [chunk async for chunk in llm.astream(prompt, **parameters)]


async def test_the_second_answer_is_the_first_again(store):
    """Chunk by chunk, with all that they carry."""
    model = Counts()
    llm = cached(model, store)
    first = await chunks_of(llm, "x")
    assert first == await chunks_of(llm, "x")
    assert Usage(output_tokens=2) == first[-1].usage
    assert ["x"] == model.asked


@pytest.mark.parametrize("first", [None, False])
async def test_a_whole_answer_is_one_chunk_whatever_is_kept(store, first):
    """Asked for, or kept of a stream; a stream of an answer that was asked for whole is that one chunk."""
    llm = cached(Counts(), store)
    streamed = await chunks_of(llm, "x", stream=first)
    whole = await chunks_of(llm, "x", stream=False)
    assert [sum(streamed, Chunk())] == whole
    assert streamed == await chunks_of(llm, "x")
    assert whole == await chunks_of(llm.bind(stream=False), "x")


async def test_who_joins_a_stream_may_want_a_whole_answer(store):
    """And the other way about: one request, and each in its own way."""
    model = Counts()
    llm = cached(model, store)
    streamed, whole = await asyncio.gather(chunks_of(llm, "x"), chunks_of(llm, "x", stream=False))
    assert (2, [sum(streamed, Chunk())]) == (len(streamed), whole)
    assert ["x"] == model.asked


class TestContract(LLMContract):
    """A model like any other, also where all but its first answer is kept."""

    def made(self):
        """The model, with a store of its own."""
        return cached(rxllm.Embedded(seed=1, max_tokens=20), MemoryStore())


async def test_each_parameter_counts(store):
    """Another temperature is another question; the model's own parameters count like the request's."""
    model = Counts()
    llm = cached(model, store)
    for parameters in {}, {"temperature": 0}, {"temperature": 0.5}, {"seed": 1}, {"extra": {"a": 1}}:
        await llm.ainvoke("x", **parameters)
        await llm.bind(**parameters).ainvoke("x")
    assert ["x"] * 5 == model.asked
    inner = cached(model.bind(temperature=0), store)
    assert "x at 0" == (await inner.ainvoke("x")).text
    assert "x at None" == (await llm.ainvoke("x")).text


async def test_models_do_not_answer_for_each_other(store):
    """They are told apart by class and fields, or by the name that they are given."""
    one, other = Counts("one"), Counts("other")
    for model in one, other:
        await cached(model, store).ainvoke("x")
        await cached(Counts(model.name), store).ainvoke("x")
    assert [["x"], ["x"]] == [one.asked, other.asked]
    await cached(one, store, name="same").ainvoke("y")
    await cached(other, store, name="same").ainvoke("y")
    assert [["x", "y"], ["x"]] == [one.asked, other.asked]


def identity(**settings):
    """What a model over HTTP is kept under."""
    return rxllm.OpenAI(**{"model": "m", "api_key": "k", **settings}).identity()


def test_models_over_http_are_told_apart_by_who_asks_whom(monkeypatch):
    """The address, the key and each header count, how it is asked does not; and no secret shows."""
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
    """Two keys are two models, however they are wrapped; the same is the same."""
    model = lambda key: wrap(rxllm.OpenAI("m", api_key=key)).identity()  # noqa: E731
    assert model("k") == model("k") != model("l")
    for unknown in rxllm.OpenAI("m", client=lambda: None), rxllm.route(lambda request: Counts()), Holds(print):
        with pytest.raises(MisuseError, match=r"cannot derive a stable key.*name='…'"):
            wrap(unknown).identity()


def test_the_order_of_models_and_parameters_count():
    """Another model is asked first; another temperature is asked for."""
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


async def test_nobody_gets_what_another_key_or_tenant_was_answered(store):
    """Unless a name says that answers are shared."""
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
async def test_only_whole_answers_are_kept(store, reason, kept, stream):
    """An answer that was filtered, or ended for a reason that is not known, is asked for again."""

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


async def test_each_server_is_asked(store, monkeypatch):
    """One does not answer for the other."""
    with FakeServer(Reply(Chat().stream(["A"]))) as a, FakeServer(Reply(Chat().stream(["B"]))) as b:
        for server in a, b:
            monkeypatch.setenv("OPENAI_BASE_URL", server.url)
            llm = cached(rxllm.OpenAI("m", api_key="k"), store)
            assert ("A" if server is a else "B") == (await llm.ainvoke("x")).text


@frozen
class Holds(LLM):
    """Has something that counts, and something that does not."""

    thing: object
    asked: list[str] = field(factory=list, eq=False)


class Shortened:
    """Has a repr that leaves out what differs, as a large array's."""

    def __init__(self, value):
        self.value = value

    def __repr__(self):
        return "array([0., 0., ..., 0.])"


def test_a_model_that_can_not_be_told_from_others_needs_a_name():
    """Else it might give another's answers."""
    for thing in object(), Shortened(1), print, [lambda: None], {"a": Shortened(1)}:
        with pytest.raises(MisuseError, match=r"Say cached\(…, name='…'\)"):
            cached(Holds(thing), MemoryStore())
        assert cached(Holds(thing), MemoryStore(), name="it")


def test_fields_of_a_model_count_but_those_without_equality():
    """Also one that its repr does not show, and an attribute that is no field."""

    class Plain(LLM):
        def __init__(self, value):
            self.value = value

    things = [1, "1", b"1", None, [1], {"a": 1}, {1}, 1.5, Counts("one"), Counts("other")]
    assert len(things) == len({Holds(thing).identity() for thing in things})
    assert Holds(1, asked=["x"]).identity() == Holds(1).identity()
    assert Plain(1).identity() == Plain(1).identity() != Plain(2).identity()


def test_a_class_made_by_a_function_is_another_each_time():
    """It has the same name, and may answer otherwise."""

    def made(answer):
        class Made(LLM):
            async def complete(self, request):
                return answer

        return Made()

    store = MemoryStore()
    assert ["a", "b"] == [cached(made(answer), store).invoke("x").text for answer in "ab"]
    one = made("c")
    assert one.identity() == one.identity()


async def test_the_same_at_the_same_time_is_asked_once(store):
    """Who comes while the answer comes gets all of it."""
    with FakeServer(Reply(Chat().stream(["Hel", "lo"]))) as server:
        llm = cached(rxllm.OpenAI("m", base_url=server.url, api_key="k"), store)
        answers = await llm.abatch(["x"] * 20, max_concurrency=20)
        assert ["Hello"] * 20 == [answer.text for answer in answers]
        assert 1 == len(server.requests)


async def test_who_leaves_a_joined_request_leaves_it_to_the_others(store):
    """Only the last one out closes it."""
    released = Signal()
    with FakeServer(Reply([Chat().stream(["Hel"])[1], released, *Chat().stream(["lo"])[1:]])) as server:
        llm = cached(rxllm.OpenAI("m", base_url=server.url, api_key="k"), store)
        one, other = llm.astream("x"), llm.astream("x")
        assert ["Hel", "Hel"] == [(await anext(stream)).text for stream in (one, other)]
        await one.aclose()
        released.set()
        assert "lo" == "".join([chunk.text async for chunk in other])
        assert 1 == len(server.requests)


async def test_what_was_left_is_not_kept(store):
    """Half an answer is none; and its request is closed."""
    reply = Reply([Chat().stream(["Hel"])[1], End.HANG])
    with FakeServer(reply, Reply(Chat().stream(["Hello"]))) as server:
        llm = cached(rxllm.OpenAI("m", base_url=server.url, api_key="k"), store)
        async with llm.astream("x") as answer:
            await anext(answer)
        await server.exchange().closed_soon()
        assert "Hello" == (await llm.ainvoke("x")).text


async def test_what_failed_is_not_kept(store):
    """Whoever asks after that asks anew."""
    model = MarbleLLM(["a#", "b|"], error=Interrupted("cut"), timespan=0.001)
    llm = cached(model, store, name="m")
    with pytest.raises(Interrupted) as caught:
        await llm.ainvoke("x")
    assert "a" == caught.value.partial.text
    assert ["b", "b"] == [(await llm.ainvoke("x")).text for _ in range(2)]


async def test_what_was_taken_back_is_not_kept(store):
    """What is replayed is the answer that stayed, and nothing takes it back."""
    broken = MarbleLLM(["Hel-#", "Hello-|"], timespan=0.001)
    llm = cached(rxllm.retry(broken, mid_stream="restart", delay=lambda error, attempt: 0.0), store)
    first = await chunks_of(llm, "x")
    assert ["Hel", "", "Hello"] == [chunk.text for chunk in first]
    assert [Chunk("Hello")] == await chunks_of(llm, "x")


async def test_a_chunk_that_takes_back_is_kept_without_that(store):
    """Its text and facts belong to what stays."""

    class Again(LLM):
        async def chunks(self, request):
            yield "Hel"
            yield Chunk("Hello", model="m", usage=Usage(output_tokens=1), finish_reason="stop", id="1", reset=True)

    llm = cached(Again(), store)
    assert "Hello" == (await llm.ainvoke("x")).text
    expected = Chunk("Hello", model="m", usage=Usage(output_tokens=1), finish_reason="stop", id="1")
    assert [expected] == await chunks_of(llm, "x")


async def test_what_an_operator_ends_by_itself_closes_the_request(store):
    """Though the model's stream goes on."""

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


async def test_values_that_only_their_repr_tells_apart_make_no_key(caplog):
    """Two pictures with the same shortened repr get an answer each."""
    model = Counts()
    llm = cached(model, MemoryStore())
    for value in 1, 2:
        await llm.ainvoke("x", extra={"picture": Shortened(value)})
    assert ["x", "x"] == model.asked
    assert "a Shortened has no exact JSON form" in caplog.text


@pytest.mark.parametrize("prompt", ["x \ud800", "x"])
async def test_a_request_that_can_not_be_told_from_others_is_asked_each_time(prompt, caplog):
    """And each time it is logged."""
    model = Counts()
    llm = cached(model, MemoryStore())
    parameters = {} if prompt != "x" else {"extra": {"thing": object()}}
    for _ in range(2):
        await llm.ainvoke(prompt, **parameters)
    assert [prompt] * 2 == model.asked
    assert 2 == len(caplog.records)
    assert "An answer is not cached. rxllm cannot derive a stable key for this request" in caplog.text


async def test_who_counts_models_does_not_count_what_was_kept():
    """A run of the combinator has the chunks; the model's own run is not there."""
    meter, events = rxllm.UsageMeter(), []
    llm = cached(Counts(), MemoryStore())
    for _ in range(2):
        events.clear()
        await llm.ainvoke("x", handlers=[meter, events.append])
    assert 1 == meter.requests
    assert {"chain"} == {event.run.kind for event in events}
    assert "x at None" == "".join(event.text for event in events if isinstance(event, Chunk))


def test_on_virtual_time():
    """The first answer takes its time, the second none."""
    llm = cached(MarbleLLM("-a-b|"), MemoryStore(), name="m")
    assert [(1, "a"), (3, "b"), (4, "|")] == moments(llm("x"))
    assert [(0, "a"), (0, "b"), (0, "|")] == moments(llm("x"))


def test_answers_last_longer_than_the_process(tmp_path):
    """Another store on the same file, on another loop and in another thread."""
    path, model = tmp_path / "answers.db", Counts()
    assert "x at None" == cached(model, SQLiteStore(path)).invoke("x").text
    heard = []
    ask = lambda: heard.append(asyncio.run(cached(Counts(), SQLiteStore(path)).ainvoke("x")).text)  # noqa: E731
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(TIMEOUT)
    assert ["x at None"] == heard
    assert ["x"] == model.asked


async def test_the_oldest_answers_are_forgotten():
    """Those that were asked for longest ago."""
    model = Counts()
    llm = cached(model, MemoryStore(size=2))
    for prompt in "ababcab":
        await llm.ainvoke(prompt)
    assert list("abcab") == model.asked


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_broken_store_costs_money_and_no_answers(is_async, caplog):
    """It is logged, each time."""

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
    """Takes its time."""

    def __init__(self, *stuck):
        self.stuck = stuck
        self.released, self.heard, self.kept = asyncio.Event(), [], {}

    def get(self, key):
        """Perhaps."""
        return self.do("get", lambda: self.kept.get(key))

    def put(self, key, chunks):
        """Perhaps."""
        return self.do("put", lambda: self.kept.update({key: chunks}))

    def do(self, what, work):
        """At once, or when it may."""
        if what in self.stuck:
            return self.later(what, work)
        self.heard.append(what)
        return work()

    async def later(self, what, work):
        """When it may."""
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.heard.append(f"{what} left")
            raise
        self.heard.append(what)
        return work()


async def turns():
    """Some of the loop's."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_stuck_store_is_asked_no_longer_than_that(monkeypatch, caplog):
    """The model answers, and nobody waits for the store any more."""
    monkeypatch.setattr(keeping, "PATIENCE", 0.01)
    store, model = Stuck("get"), Counts()
    assert "x at None" == (await asyncio.wait_for(cached(model, store).ainvoke("x"), TIMEOUT)).text
    assert ["get left", "put"] == store.heard
    assert "The store took longer" in caplog.text


async def test_an_answer_does_not_wait_for_a_store_that_is_stuck(monkeypatch, caplog):
    """It ends, and is kept as soon as the store does."""
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


async def test_a_whole_answer_is_kept_though_all_have_left():
    """It is paid for."""
    store = Stuck("put")
    async with cached(Counts(), store).astream("x") as answer:
        assert ["x ", "at None"] == [(await anext(answer)).text for _ in range(2)]
        await turns()
    store.released.set()
    await turns()
    assert ["get", "put"] == store.heard


async def test_a_whole_answer_waits_until_it_is_kept(tmp_path):
    """A program that ends with the stream has paid for something."""
    path = tmp_path / "answers.db"
    await cached(Counts(), SQLiteStore(path)).ainvoke("x")
    with sqlite3.connect(path) as database:
        assert 1 == database.execute("SELECT count(*) FROM answers").fetchone()[0]
    database.close()


@pytest.mark.parametrize("wrong", [0, -1, "5", True])
def test_a_size_that_is_none_is_refused(wrong):
    """Before anything is kept."""
    with pytest.raises(MisuseError, match="size must be a whole number"):
        MemoryStore(wrong)


def test_what_can_not_be_cached_is_refused():
    """Pipelines give anything; and a dict is no store."""
    with pytest.raises(MisuseError, match="takes a model, not Pipeline"):
        cached(rxllm.pipe(Counts(), rxllm.text()), MemoryStore())
    with pytest.raises(MisuseError, match="takes a Store"):
        cached(Counts(), {})
    with pytest.raises(MisuseError, match="MemoryStore"):
        SQLiteStore(":memory:")


async def readers_after_a_change(read):
    """What a second reader gets when the first tries to change what it got."""
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
async def test_what_one_reader_changes_no_other_gets(how, tmp_path):
    """The values of an answer are frozen, also those that a provider or a model of one's own goes on changing."""
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


def test_frozen_values_are_written_and_copied_like_others():
    """As JSON, by pickle and by deepcopy; and they are equal to plain ones."""
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


async def test_a_file_of_a_later_version_is_refused(tmp_path, caplog):
    """It is not read by guessing: the log says why, and the model is asked."""
    path, model = tmp_path / "answers.db", Counts()
    await cached(model, SQLiteStore(path)).ainvoke("x")
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        assert 1 == database.execute("PRAGMA user_version").fetchone()[0]
        database.execute("PRAGMA user_version=2")
    with pytest.raises(MisuseError, match="has the format 2, and this rxllm reads 1"):
        await SQLiteStore(path).get("x")
    assert "x at None" == (await cached(model, SQLiteStore(path)).ainvoke("x")).text
    assert ["x", "x"] == model.asked
    assert "The store of cached() failed" in caplog.text
