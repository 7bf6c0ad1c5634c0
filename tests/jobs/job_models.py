"""Models and helpers for the tests of jobs."""

import collections
import os
import signal
import threading

import aiohttp  # noqa: F401  (imported once, before the processes are forked)
import httpx  # noqa: F401

import rxllm
import rxllm.jobs.job
import rxllm.providers.openai
import rxllm.wire.http
from rxllm.testing import FakeServer, Reply


class Echo(rxllm.LLM):
    """A model that answers with the prompt. Prompts that begin with "bad" fail."""

    async def complete(self, request):
        """Return the prompt."""
        if request.text.startswith("bad"):
            raise rxllm.BadRequest("The prompt is bad.", status=400, code="bad_prompt")
        return request.text


def run(rows, path, llm=None, **options):
    """Run a job to its end, and return the results that it added."""
    operator = rxllm.job(llm or Echo(), rxllm.Journal(path), **options)
    with rxllm.from_iter(rows).pipe(operator, rxllm.stream()) as results:
        return list(results)


def held(path):
    """Return the texts that a journal holds, by the ids of their rows."""
    return {result.id: result.text for result in rxllm.Journal(path).results()}


class PayingServer:
    """A server of OpenAI's protocol that counts which prompts it answered, and kills a process at a request.

    Attributes:
        paid: how often each prompt was paid.
        honours: whether a request with the key of an earlier one gets the earlier answer, unpaid.
        usage: the usage in each answer.
    """

    def __init__(self):
        self.paid = collections.Counter()
        self.honours = False
        self.usage = None
        self._keys = set()
        self._lock = threading.Lock()
        self._victim = None
        self._server = FakeServer(self._reply)

    def __enter__(self):
        self._server.__enter__()
        self.url = f"{self._server.url}/v1"
        return self

    def __exit__(self, *error):
        self._server.__exit__(*error)

    def kill(self, process, after):
        """Kill the process when so many more requests have come."""
        with self._lock:
            self._victim = process, self.paid.total() + after

    def _reply(self, received):
        text = received.json["messages"][-1]["content"]
        with self._lock:
            key = received.headers.get("idempotency-key")
            if not (self.honours and key in self._keys):
                self.paid[text] += 1
            self._keys.add(key)
            if self._victim is not None and self.paid.total() >= self._victim[1]:
                os.kill(self._victim[0], signal.SIGKILL)
                self._victim = None
        message = {"role": "assistant", "content": f"A {text}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Reply.json({"id": "1", "model": received.json["model"], "choices": [choice], "usage": self.usage})


def work(connection, url, path, count, concurrency):
    """Run a job in a process of its own, and report how many results it added."""
    llm = rxllm.OpenAI("m", api="chat", api_key="k", base_url=url, max_retries=0)
    rows = ({"custom_id": str(number), "prompt": f"p{number}"} for number in range(count))
    connection.send("begins")
    connection.send(len(run(rows, path, llm, concurrency=concurrency)))
