"""Conversations in a store: `SQLiteHistory`, and a `History` of one's own."""

import asyncio
import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import reactivex as rx
from combinators.moments import moments
from protocols import Chat
from reactivex import operators as ops

import rxllm
from rxllm import LLM, Chunk, Conversation, History, Message, MisuseError, SQLiteHistory, ToolCallPart, Usage, remember
from rxllm.combinators import transcript, turns
from rxllm.testing import FakeServer, MarbleLLM, Reply, nothing_left_behind, on_virtual_time

PACKAGE = str(Path(rxllm.__file__).parents[1])


class Kept(History):
    """A store in memory, as an application may write one; JSON shows what a real one would keep.

    Attributes:
        fail: an exception that the next calls raise.
        lose: whether the next write succeeds and then raises.
    """

    def __init__(self):
        self.records = {}
        self.fail = None
        self.lose = False
        self.held = threading.Event()
        self.held.set()

    def read(self, id, start):
        """The records from a position on."""
        self.held.wait(30)
        if self.fail:
            raise self.fail
        return [json.loads(record) for record in self.records.get(id, [])[start:]]

    def write(self, id, position, records):
        """Adds the records at a position."""
        self.held.wait(30)
        if self.fail:
            raise self.fail
        kept = self.records.setdefault(id, [])
        if len(kept) != position:
            return False
        kept += [json.dumps(record) for record in records]
        if self.lose:
            self.lose = False
            raise OSError("the connection was lost")
        return True


@pytest.fixture(params=["own", "sqlite"])
def store(request, tmp_path):
    """Each kind of store."""
    return Kept() if request.param == "own" else SQLiteHistory(tmp_path / "talk.sqlite")


@pytest.fixture(autouse=True)
def leaks():
    """No thread of the store stays behind."""
    with nothing_left_behind():
        yield


class Upper(LLM):
    """A model that answers with the last message in capitals, and records what it gets."""

    def __init__(self):
        self.asked = []

    async def chunks(self, request):
        """Emits a letter each second."""
        self.asked.append([message.text for message in request.messages])
        for letter in request.messages[-1].text:
            await asyncio.sleep(1)
            yield letter.upper()
        yield Chunk(usage=Usage(output_tokens=3), finish_reason="stop")


def texts(messages):
    """Messages as (role, text), with a star after an interrupted text."""
    return [(message.role, message.text + "*" * message.interrupted) for message in messages]


async def errands(conversation):
    """Wait until everything is written."""
    await asyncio.to_thread(conversation._transcript.errands.wait, lambda: None)


# ── what is stored ───────────────────────────────────────────────────────────────────────────────────────────────


@on_virtual_time
async def test_later_process_goes_on_with_the_conversation(store):
    """Another object with the same store and id has all messages, with their facts."""
    first = Conversation([("system", "Be brief.")], store, "anna")
    await remember(Upper(), first).ainvoke("ab")
    second, model = Conversation(store=store, id="anna"), Upper()
    assert "C" == (await remember(model, second).ainvoke("c")).text
    assert [["Be brief.", "ab", "AB", "c"]] == model.asked
    assert first.messages == second.messages[:3]
    assert store.load("anna") == second.messages
    assert Usage(output_tokens=3) == store.load("anna")[2].usage
    assert "stop" == store.load("anna")[2].finish_reason


@on_virtual_time
async def test_answer_is_stored_when_invoke_returns(store):
    """No turn has to follow."""
    conversation = Conversation(store=store)
    answer = await remember(Upper(), conversation).ainvoke("ab")
    assert (Message("user", "ab"), answer) == store.load(conversation.id)


@on_virtual_time
async def test_question_is_stored_before_the_model_is_asked(store):
    """A model that fails at once finds it in the store."""
    found, conversation = [], Conversation(store=store, id="anna")

    class Looks(LLM):
        async def complete(self, request):
            found.append(texts(store.load("anna")))
            raise rxllm.Interrupted("cut")

    with pytest.raises(rxllm.Interrupted):
        await remember(Looks(), conversation).ainvoke("hi")
    assert [[("user", "hi")]] == found
    assert [("user", "hi")] == texts(store.load("anna"))


@on_virtual_time
async def test_running_answer_is_stored_every_half_second_at_least(store):
    """At any time the store lacks at most what came in the last half second."""
    conversation = Conversation(store=store, id="anna")

    class Counts(LLM):
        async def chunks(self, request):
            for number in range(40):
                await asyncio.sleep(0.1)
                yield f"{number} "
            await asyncio.sleep(60)

    subscription = remember(Counts(), conversation)("hi").subscribe()
    for tenth in range(1, 46):
        await asyncio.sleep(0.1)
        await errands(conversation)
        answer = store.load("anna")[1:]
        assert not answer or answer[0].interrupted
        count = len(answer[0].text.split()) if answer else 0
        assert count >= min(tenth - 4, 40)
    assert 40 == count
    subscription.dispose()
    await errands(conversation)


@on_virtual_time
async def test_pause_of_the_model_delays_no_piece(store):
    """Text that came before a long pause is stored during the pause."""
    conversation = Conversation(store=store, id="anna")
    came = asyncio.Event()
    subscription = remember(MarbleLLM("-a----------------|"), conversation)("hi").subscribe(lambda _: came.set())
    await came.wait()
    await asyncio.sleep(0.5)
    await errands(conversation)
    assert [("user", "hi"), ("assistant", "a*")] == texts(store.load("anna"))
    subscription.dispose()
    await errands(conversation)


@on_virtual_time
async def test_disposed_turn_is_stored_as_interrupted_afterwards(store):
    """In memory at once; the write goes on although the stream is cancelled, and the next turn has it."""
    conversation, model = Conversation(store=store, id="anna"), Upper()
    llm = remember(model, conversation)
    both = asyncio.Event()
    subscription = llm("abc").subscribe(lambda chunk: both.set() if chunk.text == "B" else None)
    await both.wait()
    subscription.dispose()
    assert [("user", "abc"), ("assistant", "AB*")] == texts(conversation.messages)
    await errands(conversation)
    assert [("user", "abc"), ("assistant", "AB*")] == texts(store.load("anna"))
    assert '"end": "interrupted"' in json.dumps(store.read("anna", 0)[-1])
    await llm.ainvoke("d")
    assert ["abc", "AB", "d"] == model.asked[-1]


def test_turn_of_a_loop_that_ends_is_stored(store):
    """`asyncio.run` cancels the stream; its question and what came of its answer are stored."""
    conversation = Conversation(store=store, id="anna")

    async def main():
        came = asyncio.Event()
        remember(MarbleLLM("a-|", timespan=60), conversation)("hi").subscribe(lambda _: came.set())
        await came.wait()

    asyncio.run(main())
    conversation.load()
    assert [("user", "hi"), ("assistant", "a*")] == texts(store.load("anna")) == texts(conversation.messages)


@on_virtual_time
async def test_turn_disposed_while_it_is_opened_is_not_sent():
    """The store is slow. The turn leaves the line, and the next one begins."""
    store, model = Kept(), Upper()
    conversation = Conversation(store=store, id="anna")
    llm = remember(model, conversation)
    store.held.clear()
    llm("ab").subscribe().dispose()
    store.held.set()
    assert "C" == (await llm.ainvoke("c")).text
    assert [["c"]] == model.asked
    assert [("user", "c"), ("assistant", "C")] == texts(store.load("anna"))


@on_virtual_time
async def test_turn_disposed_while_its_question_is_written_can_be_repeated():
    """The question is stored; the same request takes its place."""
    store, model = Kept(), Upper()
    conversation = Conversation(store=store, id="anna")
    llm = remember(model, conversation)
    write, subscription = store.write, None

    def disposing(*arguments):
        store.write = write
        subscription.dispose()
        return write(*arguments)

    store.write = disposing
    store.held.clear()
    subscription = llm("ab").subscribe()
    store.held.set()
    await errands(conversation)
    assert [("user", "ab")] == texts(store.load("anna")) == texts(conversation.messages)
    assert "AB" == (await llm.ainvoke("ab")).text
    assert [["ab"]] == model.asked
    assert [("user", "ab"), ("assistant", "AB")] == texts(store.load("anna"))


@on_virtual_time
async def test_switch_map_keeps_the_order(store):
    """The interrupted turn is stored before the next one."""
    conversation, model = Conversation(store=store, id="anna"), Upper()
    prompts = rx.merge(rx.of("abc"), rx.timer(2.5).pipe(ops.map(lambda _: "d")))
    heard = [chunk.text async for chunk in prompts.pipe(ops.switch_map(remember(model, conversation)), rxllm.astream())]
    assert "D" == heard[-2]
    stored = texts(store.load("anna"))
    assert ["abc", "d", "D"] == [text for _, text in stored if "*" not in text]
    assert stored == texts(conversation.messages)


# ── attempts ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Fails(LLM):
    """A model that emits `first` and fails, twice, and then answers."""

    def __init__(self, first=""):
        self.first, self.count = first, 0

    async def chunks(self, request):
        """Emits the beginning and raises, or answers."""
        self.count += 1
        await asyncio.sleep(1)
        if self.count < 3:
            if self.first:
                yield self.first
                await asyncio.sleep(1)  # so that the piece is written
            raise rxllm.Interrupted("cut")
        yield "ok"


@pytest.mark.parametrize("first", ["", "no "])
@pytest.mark.parametrize("inside", [True, False])
@on_virtual_time
async def test_retried_turn_is_stored_as_its_last_attempt(store, inside, first):
    """One question, and the answer without what `Chunk.reset` took back."""
    conversation = Conversation(store=store, id="anna")
    again = {"mid_stream": "restart" if first else None}
    if inside:
        llm = remember(rxllm.retry(Fails(first), **again), conversation)
    else:
        llm = rxllm.retry(remember(Fails(first), conversation), **again)
    assert "ok" == (await llm.ainvoke("hi")).text
    assert [("user", "hi"), ("assistant", "ok")] == texts(store.load("anna")) == texts(conversation.messages)


# ── several processes ────────────────────────────────────────────────────────────────────────────────────────────


@on_virtual_time
async def test_turn_begins_by_reading_what_others_have_added(store):
    """Two objects take turns, as two processes do."""
    models = Upper(), Upper()
    talks = [remember(model, Conversation(store=store, id="anna")) for model in models]
    for number, prompt in enumerate("abcd"):
        await talks[number % 2].ainvoke(prompt)
    assert ["a", "A", "b", "B", "c"] == models[0].asked[-1]
    assert ["a", "A", "b", "B", "c", "C", "d"] == models[1].asked[-1]


@on_virtual_time
async def test_turns_at_the_same_time_are_both_kept(store):
    """Each answer stands after its own question, although their pieces are stored in turn."""
    conversations = [Conversation(store=store, id="anna") for _ in range(2)]
    first = asyncio.ensure_future(remember(Upper(), conversations[0]).ainvoke("abcd"))
    await asyncio.sleep(2.2)
    model = Upper()
    await remember(model, conversations[1]).ainvoke("xy")
    await first
    expected = [("user", "abcd"), ("assistant", "ABCD"), ("user", "xy"), ("assistant", "XY")]
    assert expected == texts(store.load("anna"))
    assert ["abcd", "xy"] == [model.asked[0][0], model.asked[0][-1]]
    for conversation in conversations:
        await remember(Upper(), conversation).ainvoke("e")
        assert expected == texts(conversation.messages)[:4]


def test_conflict_between_reading_and_writing_keeps_both():
    """Another process writes a turn at exactly that time: it is read, and this turn comes after it."""
    store = Kept()
    other, conversation, model = Conversation(store=store, id="anna"), Conversation(store=store, id="anna"), Upper()
    write, texts_of_the_other = store.write, iter(["one", "two"])

    def conflicting(id, position, records):
        if (text := next(texts_of_the_other, None)) is not None:
            store.write = write
            History.append(store, "anna", [("user", text)])
            store.write = conflicting
        return write(id, position, records)

    store.write = conflicting
    on_virtual_time(remember(model, conversation).ainvoke)("hi")
    assert [["one", "two", "hi"]] == model.asked
    assert ["one", "two", "hi", "HI"] == [message.text for message in store.load("anna")]
    assert store.load("anna") == conversation.messages == other.load()


@on_virtual_time
async def test_write_that_fails_after_it_succeeded_is_not_repeated():
    """A lost connection leaves open whether the pieces were written; they are found when the store is read."""
    store = Kept()
    conversation = Conversation([("system", "Be brief.")], store, "anna")
    llm = remember(MarbleLLM("-a-b-|"), conversation)
    for prompt in ("one", "two"):
        async for _ in llm.astream(prompt):
            store.lose = True
    await llm.ainvoke("three")
    assert ["Be brief.", "one", "ab", "two", "ab", "three", "ab"] == [each.text for each in store.load("anna")]
    assert store.load("anna") == conversation.messages
    assert len(store.records["anna"]) == len(set(store.records["anna"])) == 1 + 3 * (1 + 3)


PROGRAM = """
import sys, rxllm

class Upper(rxllm.LLM):
    def chunks(self, request):
        for letter in request.messages[-1].text:
            yield letter.upper()

name, path = sys.argv[1:]
llm = rxllm.remember(Upper(), rxllm.Conversation(store=rxllm.SQLiteHistory(path), id="anna"))
for number in range(10):
    llm.invoke(f"{name}{number}")
"""


def test_two_processes_go_on_with_one_conversation(tmp_path):
    """At the same time: every turn of both is stored once, with its answer directly after its question."""
    path = tmp_path / "talk.sqlite"
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    environment = {**os.environ, "PYTHONPATH": PACKAGE}
    processes = [subprocess.Popen([*command, name, str(path)], env=environment) for name in "ab"]
    assert [0, 0] == [process.wait(60) for process in processes]
    messages = SQLiteHistory(path).load("anna")
    questions, answers = messages[::2], messages[1::2]
    assert sorted(f"{name}{number}" for name in "ab" for number in range(10)) == sorted(m.text for m in questions)
    assert [question.text.upper() for question in questions] == [answer.text for answer in answers]
    for name in "ab":
        own = [question.text for question in questions if question.text[0] == name]
        assert sorted(own) == own


# ── kill -9 ──────────────────────────────────────────────────────────────────────────────────────────────────────

KILLED = """
import asyncio, os, signal, sys, rxllm
from rxllm.combinators import sqlite_history
from rxllm import SQLiteHistory
from rxllm.testing import on_virtual_time

path, step = sys.argv[1], int(sys.argv[2])
steps = 0

def count(*_):  # each statement and each chunk is a step
    global steps
    if steps == step:
        os.kill(os.getpid(), signal.SIGKILL)
    steps += 1

opened = sqlite_history.transaction

def traced(*arguments, **keywords):
    count()
    manager = opened(*arguments, **keywords)
    enter = manager.__enter__
    class Traced:
        def __enter__(self):
            database = enter()
            database.set_trace_callback(count)
            return database
        def __exit__(self, *details):
            try:
                return manager.__exit__(*details)
            finally:
                count()
    return Traced()

sqlite_history.transaction = traced

class Counts(rxllm.LLM):
    async def chunks(self, request):
        for number in range(12):
            print(number, asyncio.get_running_loop().time(), flush=True)
            yield f"{number} "
            count()
            await asyncio.sleep(0.1)
            await asyncio.to_thread(conversation._transcript.errands.wait, lambda: None)  # else the disk's speed counts

conversation = rxllm.Conversation([("system", "Be brief.")], SQLiteHistory(path), "anna")
llm = rxllm.remember(Counts(), conversation)

@on_virtual_time
async def main():
    for number in range(2):
        print("asked", number, flush=True)
        await llm.ainvoke(f"question {number}")
        print("answered", number, flush=True)

main()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.parametrize("step", [0, 2, 5, 9, 14, 21, 30, 41, 50, 53, 61, 80])
def test_process_killed_at_any_step_loses_at_most_half_a_second_of_a_running_answer(tmp_path, step):
    """The file is whole, ended answers are whole, and the conversation can go on."""
    path = tmp_path / "talk.sqlite"
    environment = {**os.environ, "PYTHONPATH": PACKAGE}
    command = [sys.executable, "-W", "error", "-c", KILLED, str(path), str(step)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert -signal.SIGKILL == done.returncode, done.stderr
    check_killed(path, done.stdout.splitlines())


def check_killed(path, lines):
    """Compare what is stored with the lines that the killed program printed."""
    history = SQLiteHistory(path)
    messages = history.load("anna")
    asked, answered = (sum(line.startswith(word) for line in lines) for word in ("asked", "answered"))
    whole = "".join(f"{number} " for number in range(12))
    answers = [message for message in messages if message.role == "assistant"]
    assert [whole] * answered == [answer.text for answer in answers if not answer.interrupted][:answered]
    assert len([message for message in messages if message.role == "user"]) in (asked, asked - 1)
    chunks = [
        line.split() for line in lines[lines.index(f"asked {asked - 1}") + 1 :] if re.fullmatch(r"\d+ [\d.]+", line)
    ]
    if asked > answered and chunks:
        assert asked == len([message for message in messages if message.role == "user"])
        running = answers[answered].text.split() if len(answers) > answered else []
        last = float(chunks[-1][1])
        due = [number for number, at in chunks if float(at) < last - 0.5]
        assert due == running[: len(due)]
    conversation = Conversation(store=history, id="anna")
    asyncio.run(remember(Upper(), conversation).ainvoke(""))
    assert messages == history.load("anna")[: len(messages)]


# ── stores that fail ─────────────────────────────────────────────────────────────────────────────────────────────


@on_virtual_time
async def test_store_that_fails_at_the_beginning_fails_the_turn():
    """Nothing is sent, and the turn can be asked again."""
    store, model = Kept(), Upper()
    llm = remember(model, Conversation(store=store, id="anna"))
    store.fail = OSError("no space")
    with pytest.raises(OSError, match="no space"):
        await llm.ainvoke("a")
    store.fail = None
    assert [] == model.asked
    assert "A" == (await llm.ainvoke("a")).text
    assert [("user", "a"), ("assistant", "A")] == texts(store.load("anna"))


@on_virtual_time
async def test_store_that_fails_later_costs_no_answer(caplog):
    """The answer arrives, the failure is logged, and the next turn writes what is missing."""
    store = Kept()
    llm = remember(Upper(), Conversation(store=store, id="anna"))
    heard, ended = [], asyncio.Event()

    def hear(chunk):
        heard.append(chunk.text)
        store.fail = OSError("no space")

    llm("abc").subscribe(hear, None, ended.set)
    await ended.wait()
    assert "ABC" == "".join(heard)
    assert "The store of the Conversation 'anna' failed" in caplog.text
    store.fail = None
    assert [("user", "abc")] == texts(store.load("anna"))
    await llm.ainvoke("d")
    assert [("user", "abc"), ("assistant", "ABC"), ("user", "d"), ("assistant", "D")] == texts(store.load("anna"))


def test_slow_store_does_not_hold_back_the_end(monkeypatch):
    """After a second the answer ends; the next turn waits for the write."""
    monkeypatch.setattr(turns, "PATIENCE", 0.05)
    store = Kept()
    conversation = Conversation(store=store, id="anna")
    llm = remember(MarbleLLM("a|", timespan=0.001), conversation)

    async def main():
        heard = []
        done = asyncio.Event()
        llm("hi").subscribe(lambda chunk: (heard.append(chunk.text), store.held.clear()), None, done.set)
        await asyncio.wait_for(done.wait(), 30)
        assert ["a"] == heard
        assert 1 == len(store.records["anna"])
        store.held.set()
        await llm.ainvoke("again")

    asyncio.run(main())
    assert [("user", "hi"), ("assistant", "a"), ("user", "again"), ("assistant", "a")] == texts(store.load("anna"))


def test_store_that_has_lost_records_is_an_error():
    """It refuses the position, and has nothing there."""
    store = Kept()
    llm = remember(MarbleLLM("a|"), Conversation(store=store, id="anna"))
    on_virtual_time(llm.ainvoke)("a")
    store.records.clear()
    with pytest.raises(RuntimeError, match="Records of it have been removed"):
        on_virtual_time(llm.ainvoke)("b")


def test_other_beginning_is_refused(store):
    """The stored conversation is another one than the program thinks."""
    on_virtual_time(remember(Upper(), Conversation([("system", "Be brief.")], store, "anna")).ainvoke)("a")
    on_virtual_time(remember(Upper(), Conversation([("system", "Be brief.")], store, "anna")).ainvoke)("b")
    assert ["Be brief.", "a", "A", "b", "B"] == [message.text for message in store.load("anna")]
    other = remember(Upper(), Conversation([("system", "Be verbose.")], store, "anna"))
    for _ in range(2):
        with pytest.raises(MisuseError, match="'anna' begins with other messages"):
            on_virtual_time(other.ainvoke)("c")


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"rxllm": 2, "turn": "a", "n": 0, "messages": []}, "A later rxllm wrote this conversation, in form 2"),
        ({"turn": "a", "n": 0, "messages": []}, "not a record of a conversation"),
        ({"rxllm": 1, "turn": "a", "n": 0, "messages": [{"rxllm": 1, "role": "boss"}]}, "does not describe a message"),
        ({"rxllm": 1, "turn": "a", "n": 0, "messages": [{"rxllm": 9, "role": "user"}]}, "A later rxllm wrote this"),
    ],
)
def test_unknown_forms_are_refused(record, sentence):
    """With a sentence, each time, and before anything is sent."""
    store, model = Kept(), Upper()
    store.write("anna", 0, [record])
    llm = remember(model, Conversation(store=store, id="anna"))
    with pytest.raises(MisuseError, match=sentence):
        store.load("anna")
    for _ in range(2):
        with pytest.raises(MisuseError, match=sentence):
            on_virtual_time(llm.ainvoke)("a")
    assert [] == model.asked


def test_form_of_version_1_is_read():
    """A conversation that this version's first release wrote."""
    store = Kept()
    records = [
        {"rxllm": 1, "turn": "start", "n": 0, "messages": [{"rxllm": 1, "role": "system", "parts": []}]},
        {"rxllm": 1, "turn": "a", "n": 0, "messages": [Message("user", "hi").to_json()]},
        {"rxllm": 1, "turn": "b", "n": 0, "messages": [Message("user", "ho").to_json()]},
        {"rxllm": 1, "turn": "a", "n": 1, "chunk": {"text": "no"}},
        {"rxllm": 1, "turn": "b", "n": 1, "chunk": {"text": "B", "finish_reason": "stop"}, "end": "whole"},
        {"rxllm": 1, "turn": "a", "n": 2, "chunk": {"text": "A", "reset": True}, "end": "interrupted"},
    ]
    store.write("anna", 0, records)
    expected = [("system", ""), ("user", "hi"), ("assistant", "A*"), ("user", "ho"), ("assistant", "B")]
    assert expected == texts(store.load("anna"))


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ids_are_listed_the_last_written_first(tmp_path):
    """As `rxllm chat --continue` needs them."""
    history = SQLiteHistory(tmp_path / "talk.sqlite")
    assert [] == history.ids()
    for name in "a", "b", "a":
        history.append(name, [("user", "hi")])
    assert ["a", "b"] == history.ids()
    assert 2 == len(history.load("a"))
    assert () == history.load("c")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_new_file_is_readable_by_its_owner_only(tmp_path):
    """Also with a umask that would let others read it; a present file keeps its mode."""
    path = tmp_path / "talk.sqlite"
    before = os.umask(0)
    try:
        SQLiteHistory(path).append("a", [("user", "hi")])
    finally:
        os.umask(before)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    path.chmod(0o640)
    SQLiteHistory(path).append("a", [("user", "hi")])
    assert 0o640 == stat.S_IMODE(path.stat().st_mode)


def test_position_is_unique_in_the_file(tmp_path):
    """Even a program that skips the check cannot write a position twice."""
    path = tmp_path / "talk.sqlite"
    history = SQLiteHistory(path)
    history.append("a", [("user", "hi")])
    assert history.write("a", 0, [{}]) is False
    assert history.write("a", 2, [{}]) is False
    database = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError):
        database.execute("INSERT INTO conversations (id, position, record) VALUES ('a', 0, '{}')")
    database.close()


def test_file_of_a_later_version_is_refused(tmp_path):
    """With its path and both versions."""
    path = tmp_path / "talk.sqlite"
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version=9")
    database.close()
    with pytest.raises(MisuseError, match="has format version 9"):
        SQLiteHistory(path).load("a")


@pytest.mark.parametrize("path", ["", ":memory:", None, 3, "a\0b"])
def test_wrong_paths_are_refused(path):
    """A store needs a file."""
    with pytest.raises(MisuseError, match="SQLiteHistory needs the path of a file"):
        SQLiteHistory(path)


def test_wrong_store_is_refused():
    """A path is not a store."""
    with pytest.raises(MisuseError, match="store of a Conversation must be a History"):
        Conversation(store="talk.sqlite")


async def test_half_of_a_character_in_a_question_fails_its_turn_only(store):
    """No encoding can express it, so the request fails. The store keeps the turn, and later turns send U+FFFD."""
    conversation = Conversation(store=store)
    with FakeServer(Reply(Chat().stream(["Hi."]))) as server:
        llm = remember(rxllm.OpenAI("m", api_key="k", base_url=server.url), conversation)
        with pytest.raises(MisuseError, match="half a character"):
            await llm.ainvoke("caf\udce9")
        assert "Hi." == (await llm.ainvoke("And now?")).text
        sent = json.loads(server.requests[-1].body)["messages"]
    assert ["caf\ufffd", "And now?"] == [message["content"] for message in sent]
    await errands(conversation)
    assert ["And now?", "Hi."] == [message.text for message in store.load(conversation.id)[1:]]


@on_virtual_time
async def test_calls_and_files_are_stored(store):
    """Everything that an answer may have."""
    conversation = Conversation(store=store, id="anna")
    parts = [ToolCallPart("1", "now", '{"a": 1}', 0), rxllm.FilePart("image/png", b"\x00\xff")]
    question = Message("user", [rxllm.FilePart("image/png", b"\x00"), rxllm.TextPart("what?")], metadata={"by": "anna"})
    await remember(MarbleLLM("(c,|)", values={"c": Chunk(parts=parts)}), conversation).ainvoke(question)
    assert (question, Message("assistant", parts)) == store.load("anna")
    assert {"by": "anna"} == store.load("anna")[0].metadata


def test_works_on_a_virtual_time_scheduler():
    """Without an event loop each step of the store happens at once."""
    store = Kept()
    conversation = Conversation(store=store, id="anna")
    assert [(2.0, "a"), (4.0, "b"), (6.0, "|")] == moments(remember(MarbleLLM("--a-b-|"), conversation)("hi"))
    assert [("user", "hi"), ("assistant", "ab")] == texts(store.load("anna"))
    assert 4 == len(store.records["anna"])


def test_script_that_only_subscribes_stores_the_answer(tmp_path):
    """The process ends after the answer is written and its subscriber has heard so."""
    path = tmp_path / "talk.sqlite"
    program = f"""
import rxllm
conversation = rxllm.Conversation(store=rxllm.SQLiteHistory({str(path)!r}), id="anna")
llm = rxllm.remember(rxllm.Embedded(seed=1, max_tokens=5), conversation)
llm("hi").subscribe(on_completed=lambda: print("done"))
"""
    environment = {**os.environ, "PYTHONPATH": PACKAGE}
    run = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert ("done\n", "", 0) == (done.stdout, done.stderr, done.returncode)
    assert [False, False] == [message.interrupted for message in SQLiteHistory(path).load("anna")]


@pytest.mark.parametrize("ending", ["break", "raise SystemExit"])
def test_process_that_ends_in_the_middle_of_an_answer_stores_it(tmp_path, ending):
    """The interpreter waits for the write, although the event loop is gone."""
    path = tmp_path / "talk.sqlite"
    program = f"""
import asyncio, time, rxllm

class Slow(rxllm.SQLiteHistory):
    def write(self, *arguments):
        time.sleep(0.2)
        return super().write(*arguments)

class Waits(rxllm.LLM):
    async def chunks(self, request):
        yield "so "
        await asyncio.sleep(60)

async def main():
    llm = rxllm.remember(Waits(), rxllm.Conversation(store=Slow({str(path)!r}), id="anna"))
    async for chunk in llm.astream("hi"):
        {ending}

asyncio.run(main())
"""
    environment = {**os.environ, "PYTHONPATH": PACKAGE}
    run = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert ("", 0) == (done.stderr, done.returncode)
    assert [("user", "hi"), ("assistant", "so *")] == texts(SQLiteHistory(path).load("anna"))
    assert "interrupted" == SQLiteHistory(path).read("anna", 0)[-1]["end"]


def test_errands_after_the_main_thread_run_at_once():
    """The interpreter would not wait for a new thread, or would not start it."""
    program = """
import atexit, threading
from rxllm.runtime.errands import Errands
atexit.register(lambda: Errands().put(lambda: print("ran in", threading.current_thread().name)))
"""
    environment = {**os.environ, "PYTHONPATH": PACKAGE}
    run = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert ("ran in MainThread\n", "") == (done.stdout, done.stderr)


def test_pickled_conversation_goes_on_in_the_store(store, tmp_path):
    """It takes the store along, not the messages."""
    import pickle

    history = SQLiteHistory(tmp_path / "other.sqlite")
    conversation = Conversation([("system", "Be brief.")], history, "anna")
    on_virtual_time(remember(Upper(), conversation).ainvoke)("a")
    loaded = pickle.loads(pickle.dumps(conversation))  # noqa: S301  (our own)
    assert conversation.messages == loaded.load()
    assert f"Conversation(store={history!r}, id='anna', 3 messages)" == repr(loaded)


def test_patience_is_the_documented_one():
    """A killed process loses at most half a second: a quarter until the write begins, a quarter for the write."""
    assert (0.25, 1.0) == (turns.PIECES, transcript.PATIENCE)
