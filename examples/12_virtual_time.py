"""A model written as a marble diagram: on virtual time a stall of ten minutes is over before one notices.

`-` is a second, a word is a chunk, `#` an error, `|` the end.
"""

from reactivex.testing import TestScheduler

import rxllm
from rxllm.testing import MarbleLLM

stalling = MarbleLLM("-Hel-lo" + "-" * 600 + "!|")
answer = stalling("Say hello.").pipe(rxllm.text(), rxllm.idle_timeout(300))

# The scheduler subscribes at second 200, and writes down what comes when.
for event in TestScheduler().start(lambda: answer, disposed=2000).messages:
    print(event)

print(stalling.requests[0].text)

# On an event loop the same model takes its time, here a hundredth of a second for each character.
for chunk in MarbleLLM("-Hel--lo-|", timespan=0.01).stream("Say hello."):
    print(chunk)
