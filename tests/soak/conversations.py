"""A stored conversation loses at most half a second of a running answer, however the processes that hold it are killed.

Two processes ask in one conversation, and report each question, each chunk and each answer. SIGKILL ends them at a
random moment. This process then reads the file: ended answers are whole, each stands after its own question, and of a
running answer only the latest chunks are missing. The next two processes go on with the same conversation.

A busy machine delays a write. So the result line has the worst loss in seconds, and a loss above `LOSS` is a fault.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from pathlib import Path

from attrs import field, frozen
from soaking import Soak, check_database, killed, run

import rxllm
from rxllm import Conversation, SQLiteHistory

CHUNKS = 12
LOSS = 1.0  # seconds; twice the promise, for a machine that runs other programs, too


@frozen
class Counts(rxllm.LLM):
    """A model that counts, and reports each number with the time."""

    parent: Connection = field(eq=False)

    async def chunks(self, request: rxllm.Request) -> AsyncIterator[str]:
        """Emits a number every few milliseconds."""
        name = request.messages[-1].text
        for number in range(CHUNKS):
            self.parent.send(("chunk", name, number, time.time()))
            yield f"{name}.{number} "
            await asyncio.sleep(0.02)


def ask(parent: Connection, path: str, name: str) -> None:
    """Asks until the process is killed."""

    async def talk() -> None:
        llm = rxllm.remember(
            Counts(parent=parent), Conversation(store=SQLiteHistory(path), id="one"), lambda messages: messages[-1:]
        )
        number = 0
        while True:
            question = f"{name}-{number}"
            await llm.ainvoke(question)
            parent.send(("answered", question, 0, time.time()))
            number += 1

    asyncio.run(talk())


def check(soak: Soak, path: Path, reports: list[tuple[str, str, int, float]], at: float) -> float:
    """Compares the stored conversation with the reports. Returns the age of the oldest chunk that is lost."""
    messages = SQLiteHistory(path).load("one")
    answers: dict[str, rxllm.Message] = {}
    for before, message in itertools.pairwise(messages):
        if message.role == "assistant":
            answers[before.text] = message
    for question, answer in answers.items():
        whole = "".join(f"{question}.{number} " for number in range(CHUNKS))
        if not whole.startswith(answer.text) or (not answer.interrupted and answer.text != whole):
            soak.fault(f"the answer to {question} is {answer.text!r}")
    worst = 0.0
    for kind, question, number, when in reports:
        answer = answers.get(question)
        if kind == "answered" and (answer is None or answer.interrupted):
            soak.fault(f"the answer to {question} was complete, but the file has {answer!r}")
        if kind == "chunk" and (answer is None or f"{question}.{number} " not in answer.text):
            worst = max(worst, at - when)
    if worst > LOSS:
        soak.fault(f"a chunk that came {worst:.2f} s before the kill is lost")
    check_database(soak, path)
    return worst


def work(soak: Soak) -> None:
    """Kills, reads, and goes on with the same conversation."""
    worst, answered = 0.0, 0
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "talk.sqlite"
        for case in soak.cases():
            reports, at = killed(soak, ask, path, case, seconds=1.2)
            worst = max(worst, check(soak, path, reports, at))
            answered += sum(kind == "answered" for kind, *_ in reports)
    soak.numbers.update(kills=2 * soak.numbers["cases"], answered=answered, worst_loss=round(worst, 2))


if __name__ == "__main__":
    run(work, count=100)
