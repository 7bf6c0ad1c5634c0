"""An outage, rehearsed: a `FakeServer` answers 503 first and the second time as it should, and `retry` gets over it.

It runs on rxllm's background loop, since a script has none: `stream` reads from there. The server has its own thread.
"""

import json

import rxllm
from rxllm.testing import FakeServer, Reply


def frame(text: str, finish: str | None = None) -> bytes:
    return b"data: %b\n\n" % json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": finish}]}).encode()


def log(event: rxllm.Event) -> None:
    if isinstance(event, rxllm.Retried):
        print("again after:", event.error)


outage = Reply.json({"error": {"message": "The kettle is being descaled."}}, status=503)
answer = Reply([frame("Tea "), frame("is served.", "stop"), b"data: [DONE]\n\n"])

with FakeServer(outage, answer) as server:
    model = rxllm.OpenAI("tea-1", base_url=server.url, max_retries=0)  # which would else ask again by itself
    llm = rxllm.retry(model, attempts=2, delay=rxllm.backoff(0.01))
    for chunk in llm.stream("Tea, please.", handlers=[log]):
        print(repr(chunk.text), chunk.finish_reason or "")
    print("asked:", [request.json["messages"][0]["content"] for request in server.requests])
