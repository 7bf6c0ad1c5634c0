"""What all tests share: a bare environment, no network but this machine's, and nothing left behind.

That it is here also lets each of them import `servers` and `protocols`.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings

from rxllm import _runtime

SETTINGS = (
    *("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"),
    *("GEMINI_API_KEY", "GOOGLE_API_KEY", "OLLAMA_HOST", "MISTRAL_API_KEY", "GROQ_API_KEY", "DEEPSEEK_API_KEY"),
    *("XAI_API_KEY", "OPENROUTER_API_KEY", "HF_TOKEN", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "RXLLM_MODEL"),
)
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
PATIENCE = 5.0  # seconds until what a test left behind counts as left behind
DESCRIPTORS = Path("/proc/self/fd")

# A law is tried with the same examples each time, so that a red build is red again; `--hypothesis-profile=hunt` looks
# for new ones.
settings.register_profile("same", deadline=None, database=None, derandomize=True)
settings.register_profile("hunt", deadline=None, database=None, max_examples=3000)
settings.load_profile("same")


def _only_this_machine(event, arguments):
    """Refuses addresses and names of other machines. As an audit hook it sees what C code does, too."""
    if event == "socket.connect" or event == "socket.sendto":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host in (None, "", "localhost"):
        return
    try:
        local = ipaddress.ip_address(host).is_loopback or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        local = False
    if not local:
        raise RuntimeError(f"A test tried to reach {host}; tests talk to this machine only.")


sys.addaudithook(_only_this_machine)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No key, no address and no proxy but those that a test sets."""
    for name in (*SETTINGS, *PROXIES, *map(str.upper, PROXIES)):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def nothing_is_left_behind(environment):
    """Fails a test that leaves a thread, a task on the portal's loop or an open socket behind."""
    _runtime.portal()  # its thread and its sockets are there for good
    threads, sockets = set(threading.enumerate()), _sockets()
    yield
    left = lambda: _left(threads, sockets)  # noqa: E731
    deadline = time.monotonic() + PATIENCE
    _close_clients()
    if left():
        gc.collect()
    while (what := left()) and time.monotonic() < deadline:
        threading.Event().wait(0.005)
    if what:
        pytest.fail("left behind: " + "; ".join(what))


def _left(threads, sockets):
    """What there is now and was not then, in words."""
    loop = _runtime.portal()
    pool = loop._default_executor
    lookups = pool._threads if isinstance(pool, ThreadPoolExecutor) else ()
    ours = [thread for thread in threading.enumerate() if thread not in threads and thread not in lookups]
    tasks = [
        task for task in asyncio.all_tasks(loop) if getattr(task.get_coro(), "__qualname__", "") != "_Portal._wait"
    ]
    return [*map(repr, ours), *map(repr, tasks), *(_sockets() - sockets)]


def _close_clients():
    """Closes what `loop_local` keeps on the portal: its shared client holds idle connections on purpose."""
    loop = _runtime.portal()
    for (owner, _), (_, keeper) in list(_runtime._loop_local.items()):
        if owner is loop:
            asyncio.run_coroutine_threadsafe(keeper.aclose(), loop).result(PATIENCE)


def _sockets():
    """The open sockets of this process; none where the system does not list them."""
    links = set()
    for entry in DESCRIPTORS.iterdir() if DESCRIPTORS.exists() else ():
        try:
            links.add(str(entry.readlink()))
        except FileNotFoundError:  # the descriptor that lists the others
            continue
    return {link for link in links if link.startswith("socket:")}
