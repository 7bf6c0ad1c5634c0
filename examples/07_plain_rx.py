"""A model's answer is an Observable: here two of them are merged, labelled, and limited in time by plain reactivex.

`rxllm.scheduler()` keeps operators that count time on the event loop; without it they start threads.
"""

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

import rxllm

llm = rxllm.Embedded()


def labelled(label: str, prompt: str) -> Observable[str]:
    return llm(prompt).pipe(rxllm.text(), ops.map(lambda text: f"{label}: {text!r}"), ops.timeout(10))


both = rx.merge(labelled("sea", "A song about the sea"), labelled("moon", "A song about the moon"))
both.pipe(ops.do_action(print)).run(rxllm.scheduler())  # subscribes, and waits for the end
