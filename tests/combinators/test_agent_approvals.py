"""Approvals of an agent's tool calls."""

import asyncio
import json
import os
import pickle
import signal
import sys

import attrs
import pytest
from combinators.scripted import Scripted, call, collect, roles, timeline

import rxllm
from rxllm import Approval, Chunk, Message, MisuseError, Pending, Request, ToolCallPart, ToolResultPart, agent, tool
from rxllm.combinators.approvals import decisions_of, has_signature, pending_of, same_call
from rxllm.testing import on_virtual_time
from rxllm.values.sendable import UNKNOWN_RESULT

SECRET = "a secret of the server"


class Disk:
    """Two tools, one of which needs an approval; `done` has what they did."""

    def __init__(self, approve=True):
        self.done = []

        @tool(approve=approve)
        async def delete(path: str) -> str:
            await asyncio.sleep(2)
            self.done.append(path)
            return f"{path} is gone"

        @tool
        async def look(path: str) -> str:
            await asyncio.sleep(1)
            self.done.append("look")
            return "a file"

        self.tools = delete, look


CALLS = [call("delete", '{"path": "/a"}', "d"), call("look", '{"path": "/a"}', "l", 1)]
ASKED = [("user", "Clean up.")]


def decided(answer, *decisions):
    """The conversation with an answer and decisions."""
    return [*ASKED, answer, Message("user", decisions)]


@on_virtual_time
async def test_call_that_needs_an_approval_ends_the_stream():
    """Its sibling runs first. The last chunk has the pending call and the finish reason ``tool_call``."""
    disk = Disk()
    asked = agent(Scripted([CALLS]), *disk.tools)(ASKED)
    assert [
        (0, 'delete{"path": "/a"}'),
        (0, 'look{"path": "/a"}'),
        (1, "=a file"),
        (1, "delete…"),
        (1, "|"),
    ] == await timeline(asked)
    assert ["look"] == disk.done
    chunks, _ = await collect(asked)
    answer = rxllm.join(chunks).message()
    assert (Pending(ToolCallPart("d", "delete", '{"path": "/a"}')),) == answer.pending == chunks[-1].parts
    assert ("tool_call", "tool_call") == (answer.finish_reason, chunks[-1].finish_reason)


@on_virtual_time
async def test_approved_call_runs_with_its_arguments_and_the_model_goes_on():
    """Its sibling does not run again. The stream begins with the approval, then comes the result."""
    disk, model = Disk(), Scripted([CALLS, "It is gone."])
    with_approvals = agent(model, *disk.tools)
    answer = await with_approvals.ainvoke(ASKED)
    disk.done.clear()
    history = decided(answer, *(pending.approve() for pending in answer.pending))
    assert [(1, "delete!"), (3, "=/a is gone"), (3, "It is gone."), (3, "|")] == await timeline(with_approvals(history))
    assert ["/a"] == disk.done
    assert [
        ("user", "Clean up."),
        ("assistant", 'delete{"path": "/a"} look{"path": "/a"}'),
        ("tool", "=/a is gone =a file"),
    ] == roles(model.prompts[1])


@on_virtual_time
async def test_denied_call_is_an_error_with_the_note():
    """The model is told, and goes on."""
    disk, model = Disk(), Scripted([CALLS, "Then not."])
    with_approvals = agent(model, *disk.tools)
    answer = await with_approvals.ainvoke(ASKED)
    after = await with_approvals.ainvoke(decided(answer, answer.pending[0].deny("It is needed.")))
    assert (["look"], "Then not.") == (disk.done, after.text)
    denied = ToolResultPart("d", "The user denied this call: It is needed.", "denied", "delete")
    assert denied == model.prompts[1][-1].parts[0]


@on_virtual_time
async def test_undecided_call_stays_pending():
    """The approved one runs, and the model is not asked before all calls are decided."""
    disk, model = Disk(), Scripted([[call("delete", f'{{"path":"{p}"}}', p, n) for n, p in enumerate("ab")], "Done."])
    with_approvals = agent(model, *disk.tools)
    first = await with_approvals.ainvoke(ASKED)
    second = await with_approvals.ainvoke(decided(first, first.pending[1].approve()))
    assert (["b"], ["a"], 1) == (disk.done, [made.call.id for made in second.pending], len(model.requests))
    history = [*decided(first, first.pending[1].approve()), second, Message("user", [second.pending[0].approve()])]
    third = await with_approvals.ainvoke(history)
    assert (["b", "a"], "Done.", ()) == (disk.done, third.text, third.pending)
    assert [
        ("user", "Clean up."),
        ("assistant", 'delete{"path":"a"} delete{"path":"b"}'),
        ("tool", "=a is gone =b is gone"),
    ] == (roles(model.prompts[1]))


@pytest.mark.parametrize("approved", ["ab", "a", "b"])
@on_virtual_time
async def test_calls_with_one_id_are_decided_apart(approved):
    """Some servers give the calls of an answer the same id, and repeat it in each fragment. Each call gets its own."""
    fragments = [("0", '{"path":', 0), ("0", '{"path":', 1), ("0", '"b"}', 1), ("", '"a"}', 0)]
    answered = [Chunk(parts=[ToolCallPart(given, "delete", text, index)]) for given, text, index in fragments]
    disk, model = Disk(), Scripted([answered, "Done."])
    with_approvals = agent(model, *disk.tools)
    answer = await with_approvals.ainvoke(ASKED)
    assert ['{"path":"a"}', '{"path":"b"}'] == [made.arguments for made in answer.tool_calls]
    a, b = answer.pending
    decisions = [each.approve() if name in approved else each.deny() for each, name in ((a, "a"), (b, "b"))]
    after = await with_approvals.ainvoke(decided(answer, *decisions))
    assert ([*approved], "Done.") == (disk.done, after.text)
    assert {a.call.id: "a" in approved, b.call.id: "b" in approved} == {
        part.id: part.outcome == "ok" for part in model.prompts[1][-1].parts
    }


async def test_call_after_one_that_the_server_ran_has_its_own_id():
    """The result of the server ends the calls before it, so a call with the same id and index is another one."""
    disk = Disk(approve=False)
    ran = Chunk(parts=[ToolCallPart("0", "search", "{}"), ToolResultPart("0", "found", name="search")])
    model = Scripted([[ran, call("delete", '{"path":"a"}', "0")], "Done."])
    await agent(model, *disk.tools).ainvoke(ASKED)
    assert ["a"] == disk.done


@pytest.mark.parametrize(
    ("made", "pending"),
    [
        (lambda: agent(Scripted([CALLS]), *Disk(approve=lambda arguments: arguments["path"] == "/a").tools), ["d"]),
        (lambda: agent(Scripted([CALLS]), *Disk(approve=lambda arguments: False).tools), []),
        (lambda: agent(Scripted([CALLS]), *Disk(approve=False).tools, approve=lambda name, _: name == "look"), ["l"]),
        (lambda: agent(Scripted([CALLS]), *Disk().tools, approve=lambda name, _: name == "look"), ["d", "l"]),
    ],
)
@on_virtual_time
async def test_tool_and_agent_decide_which_calls_wait(made, pending):
    """A function of the arguments, and one of the name and the arguments."""
    [answer] = [await made().bind(tool_choice="auto").ainvoke(ASKED)] if pending else [Message("assistant")]
    assert pending == [each.call.id for each in answer.pending]


async def test_wrong_arguments_need_no_approval():
    """The model is told at once. An exception in the deciding function ends the answer, and nothing runs."""
    disk, model = Disk(), Scripted([[call("delete", '{"path": 5}')], "Sorry."])
    assert "Sorry." == (await agent(model, *disk.tools).ainvoke(ASKED)).text
    failing = Disk(approve=lambda arguments: arguments["nothing"])
    with pytest.raises(KeyError):
        await agent(Scripted([CALLS]), *failing.tools).ainvoke(ASKED)
    assert [] == failing.done


PENDING = Message(
    "assistant", [ToolCallPart("d", "delete", '{"path": "/a"}'), Pending(ToolCallPart("d", "delete", '{"path": "/a"}'))]
)


@pytest.mark.parametrize(
    ("approval", "sentence"),
    [
        (Approval(ToolCallPart("x", "delete", '{"path": "/a"}'), True), "is for no call that waits"),
        (Approval(ToolCallPart("d", "delete", '{"path": "/"}'), True), "for another tool or for other arguments"),
        (Approval(ToolCallPart("d", "look", '{"path": "/a"}'), True), "for another tool or for other arguments"),
        (None, r"ends with calls that wait for an approval: delete \(d\)"),
    ],
)
async def test_approval_counts_for_the_same_call_only(approval, sentence):
    """The id, the name and the arguments must be those of a call that waits. Nothing is run or sent otherwise."""
    disk, model = Disk(), Scripted(["Done."])
    history = [*ASKED, PENDING] if approval is None else decided(PENDING, approval)
    with pytest.raises(MisuseError, match=sentence):
        await agent(model, *disk.tools).ainvoke(history)
    assert ([], []) == (disk.done, model.requests)


@on_virtual_time
async def test_same_arguments_may_be_spelt_otherwise():
    """A browser writes the same JSON with other white space."""
    disk = Disk()
    approval = Approval(ToolCallPart("d", "delete", '{"path":"/a"}'), True)
    assert "Done." == (await agent(Scripted(["Done."]), *disk.tools).ainvoke(decided(PENDING, approval))).text
    assert ["/a"] == disk.done


@pytest.mark.parametrize(
    ("arguments", "same", "other"),
    [
        ('{"n": 1.0}', '{"n":1}', '{"n": true}'),
        ('{"n": 123456789012345678901234567890}', None, '{"n": 123456789012345678901234567891}'),
        ('{"n": 1e300}', '{"n":1e+300}', '{"n": 2e300}'),
        (r'{"\u0000": 1}', None, r'{"\u0000": 2}'),
        ("no JSON", None, "no JSON at all"),
    ],
)
def test_arguments_are_the_same_by_their_exact_values(arguments, same, other):
    """A browser writes 1.0 as 1. Numbers of any size and keys of any kind can be compared and signed."""
    calls = [ToolCallPart("d", "delete", text) for text in (arguments, same or arguments, other)]
    assert (True, False) == (same_call(calls[0], calls[1]), same_call(calls[0], calls[2]))
    pending = pending_of(calls[0], SECRET.encode())
    assert [True, True, False] == [has_signature(each, pending.signature, SECRET.encode()) for each in calls]


@on_virtual_time
async def test_pending_calls_cross_a_border_as_json():
    """A browser gets the call, and returns it with ``yes``. The history may be JSON, too."""
    disk, model = Disk(), Scripted([CALLS, "Done."])
    with_approvals = agent(model, *disk.tools, secret=SECRET)
    answer = Message.from_json(json.loads(json.dumps((await with_approvals.ainvoke(ASKED)).to_json())))
    [sent] = json.loads(json.dumps([pending.to_json() for pending in answer.pending]))
    assert {"id": "d", "name": "delete", "arguments": '{"path": "/a"}'}.items() <= sent.items()
    approval = Approval.from_json({**sent, "yes": True, "note": "fine"})
    assert approval == answer.pending[0].approve("fine")
    assert "Done." == (await with_approvals.ainvoke(decided(answer, approval))).text
    again = Message("user", [approval])
    assert again == Message.from_json(json.loads(json.dumps(again.to_json())))


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"id": "d", "name": "delete", "arguments": "{}"}, "yes must be True or False, not None"),
        ({"id": "d", "name": "delete", "arguments": "{}", "yes": "yes"}, "yes must be True or False, not 'yes'"),
        ({"id": "d", "arguments": "{}", "yes": True}, "'name' of an approval must be text"),
        ({"id": "d", "name": "x", "arguments": "{}", "yes": True, "path": "/"}, "field 'path' of an approval"),
        ([], "An approval must be a dict"),
    ],
)
def test_record_of_an_approval_is_checked(record, sentence):
    """It comes from a stranger."""
    with pytest.raises(MisuseError, match=sentence):
        Approval.from_json(record)


@pytest.mark.parametrize(
    "change",
    [
        {"signature": None},
        {"signature": "0" * 64},
        {"call": ToolCallPart("d", "delete", '{"path": "/"}')},
        {"call": ToolCallPart("e", "delete", '{"path": "/a"}')},
    ],
)
@on_virtual_time
async def test_with_a_secret_a_forged_call_does_not_run(change):
    """The stranger writes the call into the history, too. Only the agent can sign it."""
    disk, model = Disk(), Scripted([CALLS[:1], "Done."])
    signing = agent(model, *disk.tools, secret=SECRET)
    [pending] = (await signing.ainvoke(ASKED)).pending
    forged = attrs.evolve(pending.approve(), **change)
    history = decided(Message("assistant", [forged.call, Pending(forged.call)]), forged)
    with pytest.raises(MisuseError, match="has not the signature of this agent, so nothing was run"):
        await signing.ainvoke(history)
    with pytest.raises(MisuseError, match="has not the signature"):
        await agent(model, *disk.tools, secret="another secret of 20").ainvoke(decided(PENDING, pending.approve()))
    assert [] == disk.done


def test_secret_is_shown_and_pickled_nowhere():
    """A short one is refused."""
    signing = agent(Scripted(["x"]), secret=SECRET)
    assert SECRET not in repr(signing)
    with pytest.raises(MisuseError, match="An agent with a secret cannot be pickled"):
        pickle.dumps(signing)
    assert SECRET.encode() == signing.bind(temperature=0).secret
    for wrong in "short", 5:
        with pytest.raises(MisuseError, match="must be text or bytes of at least 16 characters"):
            agent(Scripted(["x"]), secret=wrong)


@on_virtual_time
async def test_conversation_holds_the_pending_call_and_decides_it_once():
    """Two approvals at the same time wait for each other, and the second finds the call decided."""
    disk, model = Disk(), Scripted([CALLS, "It is gone.", "Bye."])
    conversation = rxllm.Conversation()
    talk = rxllm.remember(agent(model, *disk.tools), conversation)
    answer = await talk.ainvoke("Clean up.")
    approvals = Message("user", [pending.approve() for pending in answer.pending])
    both = await asyncio.gather(talk.ainvoke(approvals), talk.ainvoke(approvals), return_exceptions=True)
    assert ["It is gone.", "MisuseError"] == [getattr(both[0], "text", both[0]), type(both[1]).__name__]
    assert ["look", "/a"] == disk.done
    assert "Bye." == (await talk.ainvoke("bye")).text
    assert "bye" == model.prompts[-1][-1].text


@on_virtual_time
async def test_call_of_an_interrupted_answer_does_not_run_again():
    """The answer began with the approval, so that it is known: the call may have run."""
    disk, model = Disk(), Scripted([CALLS[:1], "Nobody knows."])
    conversation = rxllm.Conversation()
    talk = rxllm.remember(agent(model, *disk.tools), conversation)
    answer = await talk.ainvoke("Clean up.")
    approvals = Message("user", [pending.approve() for pending in answer.pending])
    async with talk.astream(approvals) as stream:
        assert "delete" == (await anext(stream)).parts[0].call.name
    with pytest.raises(MisuseError, match="is for no call that waits"):
        await talk.ainvoke(approvals)
    assert "Nobody knows." == (await talk.ainvoke("And?")).text
    assert ([], "interrupted") == (disk.done, model.prompts[-1][2].parts[0].outcome)


def approvals_of(answer, decide=Pending.approve):
    """A message that decides on all waiting calls."""
    return Message("user", [decide(pending) for pending in answer.pending])


async def stored(tmp_path, disk):
    """An answer whose call waits, and a function that goes on with its conversation as another process would."""
    history = rxllm.SQLiteHistory(tmp_path / "talk.sqlite")

    def process(*answers):
        model = Scripted(answers)
        return rxllm.remember(agent(model, *disk.tools), rxllm.Conversation(store=history, id="one")), model

    return await process(CALLS[:1])[0].ainvoke("Clean up."), process


@pytest.mark.parametrize("decide", [Pending.approve, Pending.deny])
@on_virtual_time
async def test_call_is_decided_by_one_process(tmp_path, decide):
    """The approval claims the call before the tool runs. A process that is killed meanwhile leaves the claim."""
    disk = Disk()
    answer, process = await stored(tmp_path, disk)
    first = asyncio.create_task(process([5, "Well."])[0].ainvoke(approvals_of(answer, decide)))
    await asyncio.sleep(0.1)  # the tool runs, and the answer has no record yet
    with pytest.raises(MisuseError, match="is for no call that waits"):
        await process("No.")[0].ainvoke(approvals_of(answer))
    third, model = process("Bye.")
    assert "Bye." == (await third.ainvoke("And?")).text
    told = model.prompts[-1][2].parts[0]
    ran = decide is Pending.approve
    assert ("interrupted" if ran else "denied") == told.outcome
    assert "Well." == (await first).text
    assert ["/a"] * ran == disk.done


KILLED = """
import os, signal, rxllm
from rxllm import Approval, Chunk, Message, ToolCallPart

@rxllm.tool(approve=True)
def delete(path: str) -> str:
    with open("done", "a") as done:
        done.write(path)
    os.kill(os.getpid(), signal.SIGKILL)

conversation = rxllm.Conversation(store=rxllm.SQLiteHistory("talk.sqlite"), id="one")
call = ToolCallPart("d", "delete", '{"path": "/a"}')
rxllm.remember(rxllm.agent(rxllm.Embedded(), delete), conversation).invoke(Message("user", [Approval(call, True)]))
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
async def test_process_that_is_killed_in_the_tool_leaves_its_claim(tmp_path):
    """Nobody knows what the tool has done, so no other process runs it, and the model is told."""
    disk = Disk()
    answer, process = await stored(tmp_path, disk)
    command = [sys.executable, "-c", KILLED]
    killed = await asyncio.create_subprocess_exec(*command, cwd=tmp_path)
    assert -signal.SIGKILL == await killed.wait()
    for _ in range(2):
        with pytest.raises(MisuseError, match="is for no call that waits"):
            await process("No.")[0].ainvoke(approvals_of(answer))
    talk, model = process("Hm.")
    assert "Hm." == (await talk.ainvoke("And?")).text
    assert "interrupted" == model.prompts[0][2].parts[0].outcome
    assert ("/a", []) == ((tmp_path / "done").read_text(), disk.done)


@on_virtual_time
async def test_approvals_of_two_processes_at_once_run_the_call_once(tmp_path):
    """The store puts one of them first."""
    disk = Disk()
    answer, process = await stored(tmp_path, disk)
    asked = [process("It is gone.")[0].ainvoke(approvals_of(answer)) for _ in range(2)]
    both = await asyncio.gather(*asked, return_exceptions=True)
    assert ["It is gone.", "MisuseError"] == sorted(getattr(one, "text", type(one).__name__) for one in both)
    assert ["/a"] == disk.done


@on_virtual_time
async def test_wrong_approval_claims_nothing(tmp_path):
    """It failed before anything ran, and the store has this."""
    disk = Disk()
    answer, process = await stored(tmp_path, disk)
    wrong = Message("user", [Approval(ToolCallPart("d", "delete", '{"path": "/"}'), True)])
    with pytest.raises(MisuseError, match="for other arguments"):
        await process("No.")[0].ainvoke(wrong)
    assert "It is gone." == (await process("It is gone.")[0].ainvoke(approvals_of(answer))).text
    assert ["/a"] == disk.done


@on_virtual_time
async def test_next_question_without_a_decision_denies_the_call():
    """The model is told that nobody approved it, so that the history is valid."""
    disk, model = Disk(), Scripted([CALLS, "Fine."])
    with_approvals = agent(model, *disk.tools)
    answer = await with_approvals.ainvoke(ASKED)
    assert "Fine." == (await with_approvals.ainvoke([*ASKED, answer, ("user", "Never mind.")])).text
    assert [
        ("user", "Clean up."),
        ("assistant", 'delete{"path": "/a"} look{"path": "/a"}'),
        ("tool", "=Nobody approved this call, so it did not run. =a file"),
        ("user", "Never mind."),
    ] == roles(model.prompts[1])
    assert "denied" == model.prompts[1][2].parts[0].outcome


def erased(*paths):
    """Chunks that delete the paths. Some servers restart the ids of calls in each answer."""
    return [call("delete", json.dumps({"path": path}), f"call_{number}", number) for number, path in enumerate(paths)]


async def in_two_turns(asking, talk, paths):
    """The conversation, which waits for two more calls after the first one was approved and ran."""
    history = []
    for question in ("Clean up.", None, "Again.") if talk else ("Clean up.", None):
        history.append(approvals_of(history[-1]) if question is None else Message("user", question))
        history.append(await asking.ainvoke(history))
    assert paths == [json.loads(pending.call.arguments)["path"] for pending in history[-1].pending]
    return history


@pytest.mark.parametrize("secret", [None, SECRET])
@pytest.mark.parametrize("second", ["/a", "/b"])
@pytest.mark.parametrize("talk", [True, False], ids=["in two turns", "in one answer"])
@on_virtual_time
async def test_approval_of_an_earlier_call_decides_no_later_call_with_its_id(talk, second, secret):
    """The undecided call goes on to wait, even if it repeats the arguments of the approved one."""
    disk = Disk()
    answers = [erased("/a"), *["Done."] * talk, erased(second, "/home"), "Gone."]
    asking = agent(Scripted(answers), *disk.tools, secret=secret)
    history = await in_two_turns(asking, talk, [second, "/home"])
    disk.done.clear()
    with pytest.raises(MisuseError, match=r"ends with calls that wait for an approval: delete \(call_0\)"):
        await asking.ainvoke(history)
    history.append(Message("user", [history[-1].pending[1].deny()]))
    history.append(await asking.ainvoke(history))
    assert ([], ["call_0"]) == (disk.done, [pending.call.id for pending in history[-1].pending])
    assert "Gone." == (await asking.ainvoke([*history, approvals_of(history[-1])])).text
    assert [second] == disk.done


def test_approval_before_its_call_counts_for_no_call():
    """The check holds for any list of messages, also for one that `separated` has not made."""
    [made] = PENDING.tool_calls
    early = Message("user", [Approval(made, True)])
    with pytest.raises(MisuseError, match="ends with calls that wait"):
        decisions_of([early, PENDING], None)
    assert decisions_of([early, Message("assistant", [made])], None) is None


@on_virtual_time
async def test_approval_counts_after_an_interrupted_call_with_the_same_id():
    """The tool runs once, its answer comes, and the interrupted call has a result of its own."""
    disk = Disk()
    search = call("look", '{"path": "/"}', "call_0")
    model = Scripted([[search], erased("/a"), "It is gone.", "Bye."])
    talk = rxllm.remember(agent(model, *disk.tools), rxllm.Conversation())
    async with talk.astream("Look.") as stream:
        await anext(stream)
    answer = await talk.ainvoke("Clean up.")
    assert "It is gone." == (await talk.ainvoke(approvals_of(answer))).text
    assert ["/a"] == disk.done
    before = [
        ("user", "Look."),
        ("assistant", 'look{"path": "/"}'),
        ("tool", f"={UNKNOWN_RESULT}"),
        ("user", "Clean up."),
        ("assistant", 'delete{"path": "/a"}'),
    ]
    assert [*before, ("tool", "=/a is gone")] == roles(model.prompts[2])
    await talk.ainvoke("Thanks.")
    assert [
        *before,
        ("tool", "=/a is gone"),
        ("assistant", "It is gone."),
        ("user", "Thanks."),
    ] == roles(model.prompts[3])


@pytest.mark.parametrize("history", [[*ASKED, PENDING], decided(PENDING, Approval(PENDING.tool_calls[0], True))])
@pytest.mark.parametrize("llm", [rxllm.OpenAI("m", api_key="k"), rxllm.Gemini("m", api_key="k"), rxllm.Ollama("m")])
def test_model_without_an_agent_does_not_take_approvals(llm, history):
    """Only an agent can decide on a call."""
    with pytest.raises(MisuseError, match="has a call of delete that waits for an approval, and only the agent"):
        llm.preview(Request(prompt=history))
