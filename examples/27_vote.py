"""A vote: five answers are asked for at once, and the first that three agree on is it; the rest are left.

It runs on the loop of who reads: `stream` reads from rxllm's own, `astream` from the running one.
"""

from collections import Counter

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

import rxllm
from rxllm.testing import MarbleLLM


def vote() -> Observable[str]:
    # Each who asks is given the next answer, each after its time.
    llm = MarbleLLM(["-42|", "-----48|", "---42|", "---------48|", "-------42|"], timespan=0.03)
    answers = rx.range(5).pipe(ops.flat_map(lambda _: llm("What is 6 times 7?").pipe(rxllm.message())))
    counted = answers.pipe(ops.scan(lambda votes, answer: votes + Counter([answer.text]), Counter[str]()))
    decided = counted.pipe(ops.take_while(lambda votes: max(votes.values()) < 3, inclusive=True))
    return decided.pipe(ops.map(lambda votes: ", ".join(f"{count} for {answer}" for answer, count in votes.items())))


if __name__ == "__main__":
    for votes in vote().pipe(rxllm.stream()):
        print(votes)
