"""Many prompts at once: in their order, as they complete, and from a source without end."""

import itertools

import rxllm

llm = rxllm.Embedded().bind(max_tokens=6)

for answer in llm.batch(["The sea?", "The moon?", "The rain?"], max_concurrency=2):
    print(repr(answer.text))

for index, answer in llm.batch_as_completed(["The sea?", "The moon?"]):
    print(index, repr(answer.text))

# Prompts are pulled when a slot is free, so nothing stops the source from being endless.
endless = (f"What is {number}?" for number in itertools.count())
with rxllm.from_iter(endless).pipe(rxllm.batch(llm), rxllm.stream()) as answers:
    for answer in itertools.islice(answers, 3):
        print(repr(answer.text))

# A failure cancels the rest, unless it is asked to take the place of its answer.
print([type(result).__name__ for result in llm.batch(["fine", []], return_exceptions=True)])
