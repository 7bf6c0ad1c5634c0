"""`share` makes of one request many streams: each hears the answer from its beginning, at its own pace.

It runs on rxllm's background loop, since a script has none: `stream` reads from there.
"""

import reactivex as rx

import rxllm


def log(event: rxllm.Event) -> None:
    if isinstance(event, rxllm.Started):
        print("asked:", event.name)


llm = rxllm.Embedded(seed=4, max_tokens=30, handlers=[log])
song = llm("Write me a song about the sea.").pipe(rxllm.share())

# Two folds of the same chunks, side by side. Without `share` these were two requests.
for answer, usage in rx.zip(song.pipe(rxllm.message()), song.pipe(rxllm.usage())).pipe(rxllm.stream()):
    print(answer, usage.output_tokens)

# Who comes late, even after the end, hears it all, and nothing is asked again.
print(len(list(song.pipe(rxllm.text(), rxllm.stream()))), "chunks")
