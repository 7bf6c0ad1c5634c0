"""A handler of a model or a pipeline hears each of its runs, and each run within, whatever the outcome."""

import rxllm


def log(event: rxllm.Event) -> None:
    match event:
        case rxllm.Started(run=run):
            print("  " * len(run.parent_ids), "started", run.name, list(run.tags))
        case rxllm.Finished(run=run, output=output):
            print("  " * len(run.parent_ids), "finished", run.name, repr(str(output))[:40])
        case rxllm.Failed(run=run, error=error):
            print("failed", run.name, error)
        case rxllm.Cancelled(run=run, partial=partial):
            print("cancelled", run.name, "after", repr(str(partial)))
        case _:
            pass  # a chunk, or a pipeline's value


llm = rxllm.Embedded(tags=["demo"], seed=1, max_tokens=12)
poet = rxllm.pipe(lambda topic: f"Write me a song about {topic}.", llm, rxllm.text())
observed = poet.with_config(handlers=[log], run_name="poet")

observed.invoke("tea")
with observed.stream("rain") as pieces:
    print("first:", next(pieces))
