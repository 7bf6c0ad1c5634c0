"""A plain `for` loop over the chunks of an answer, as they come; no event loop in sight."""

import rxllm

llm = rxllm.Embedded()  # no key needed; or rxllm.OpenAI("gpt-5-mini"), rxllm.Anthropic("claude-sonnet-4-6")

for chunk in llm.stream("Write me a song about sparkling water."):
    print(chunk, end="|", flush=True)
print()

answer = llm.invoke("Write me a song about the night.", temperature=0)  # the same, whole
print(answer)
print(answer.finish_reason, answer.usage)
