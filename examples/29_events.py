"""The `events` of a pipeline with a model and a tool, distinguished by `match`; a `UsageMeter` listens, too."""

from reactivex import operators as ops

import rxllm


@rxllm.tool
async def count(answer: rxllm.Message) -> str:
    return f"{len(answer.text.split())} words"


meter = rxllm.UsageMeter()
poet = rxllm.pipe(rxllm.Embedded(seed=1, max_tokens=12), rxllm.message(), ops.flat_map(count))

for event in poet.events("Write me a song about tea.", handlers=[meter]).pipe(rxllm.stream()):
    match event:
        case rxllm.ToolStarted(run=run):
            print("calls", run.name)
        case rxllm.ToolFinished(output=output):
            print("it gave", output)
        case rxllm.RunChunk(text=text) if text:
            print("chunk", repr(text))
        case rxllm.Started(run=run) | rxllm.Finished(run=run):
            print(type(event).__name__, run.name)
        case _:
            pass
print(meter.requests, "request,", meter.total.output_tokens, "tokens")
