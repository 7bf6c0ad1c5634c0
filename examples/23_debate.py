"""A debate: what one model says is the other's prompt, and so on (`expand`), until six turns are over (`take`).

It runs on the loop of who reads: `stream` reads from rxllm's own, `astream` from the running one.
"""

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

import rxllm

optimist = rxllm.Embedded(temperature=1.0, max_tokens=24, stop_sequences=[".", "\n"])
pessimist = rxllm.Embedded(temperature=1.0, max_tokens=24, stop_sequences=[".", "\n"])


def reply(turn: tuple[int, str]) -> Observable[tuple[int, str]]:
    number, said = turn
    speaker = optimist if number % 2 else pessimist
    return speaker.bind(seed=number + 1)(said).pipe(rxllm.message(), ops.map(lambda reply: (number + 1, reply.text)))


def debate() -> Observable[str]:
    turns = rx.just((0, "The weather will be fine")).pipe(ops.expand(reply), ops.take(6))
    return turns.pipe(ops.map(lambda turn: ("pessimist: " if turn[0] % 2 else "optimist:  ") + turn[1]))


if __name__ == "__main__":
    for turn in debate().pipe(rxllm.stream()):
        print(turn)
