"""`observe` attaches listeners to a model: they hear every run, whoever made it and however it ends."""

import rxllm


def log(event: rxllm.Event) -> None:
    match event:
        case rxllm.Started(request=request, tags=tags):
            print("started", repr(request.text), tags)
        case rxllm.Finished(message=message):
            print("finished", message.usage)
        case rxllm.Failed(error=error):
            print("failed", error)
        case rxllm.Cancelled(partial=partial):
            print("cancelled after", repr(partial and partial.text))
        case _:
            pass  # a chunk


llm = rxllm.observe(rxllm.Embedded(), log).with_config(tags=["demo"])

llm.invoke("Write me a song about tea.")
with llm.stream("Write me a song about rain.") as chunks:
    print("first:", next(chunks))
