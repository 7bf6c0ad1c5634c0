"""Models and helpers for the tests of jobs."""

import collections
import contextlib
import os
import signal
import threading
import warnings
from pathlib import Path

import aiohttp  # noqa: F401  (imported once, before the processes are forked)
import httpx  # noqa: F401
from waiting import wait_until
from worker_models import Pid

import rxllm
import rxllm.jobs.job
import rxllm.providers.openai
import rxllm.wire.http
from rxllm.jobs.processes import Processes
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


def workers_of(pid):
    """Return the ids of the worker processes of a process."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            parent = int((place / "stat").read_text("ascii").rpartition(")")[2].split()[1])
            if parent == pid and b"rxllm.jobs.worker" in (place / "cmdline").read_bytes():
                found.append(int(place.name))
    return found


def is_alive(pid):
    """Return whether a process runs. One that has ended stays as a zombie until its parent looks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class PayingServer:
    """A server of OpenAI's protocol that counts which prompts it answered, and kills a process at a request.

    Attributes:
        paid: how often each prompt was paid.
        honours: whether a request with the key of an earlier one gets the earlier answer, unpaid.
        usage: the usage in each answer.
        orphans: the worker processes of the process that was killed.
    """

    def __init__(self):
        self.paid = collections.Counter()
        self.honours = False
        self.usage = None
        self.orphans = []
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
                self.orphans = workers_of(self._victim[0])
                os.kill(self._victim[0], signal.SIGKILL)
                self._victim = None
        message = {"role": "assistant", "content": f"A {text}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Reply.json({"id": "1", "model": received.json["model"], "choices": [choice], "usage": self.usage})


def work(connection, url, path, count, concurrency, workers=0):
    """Run a job in a process of its own, and report how many results it added."""
    llm = rxllm.OpenAI("m", api="chat", api_key="k", base_url=url, max_retries=0)
    rows = ({"custom_id": str(number), "prompt": f"p{number}"} for number in range(count))
    connection.send("begins")
    connection.send(len(run(rows, path, llm, concurrency=concurrency, workers=workers)))


def block(connection, directory):
    """Run a job whose worker blocks its event loop, and report the id of a forked child, which does nothing."""

    def fork():
        wait_until((directory / "blocked").exists)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that other threads run
            child = os.fork()
        if child == 0:
            signal.pause()
        connection.send(child)

    threading.Thread(target=fork).start()
    run([f"block {directory / 'blocked'}"], directory / "out.jsonl", Pid(), workers=1)


def fork_while_used(connection):
    """Start a worker, fork while something uses its socket, close the socket here, and report how the worker ended."""
    processes = Processes()
    process, ours = processes.start()
    user = ours.makefile()  # holds the socket open, as an event loop of uvloop does
    child = os.fork()
    if child == 0:
        signal.pause()
    user.close()
    ours.close()
    ended = processes.end_of(process)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    connection.send(ended)  # the last act, because the test then ends this process
