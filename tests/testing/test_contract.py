"""The contract: what fulfils it passes, and what does not fails where it should."""

import asyncio
import gc
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from birds import BirdContract, Echo, EchoContract
from protocols import Chat

import rxllm
from rxllm.runtime.portal import portal
from rxllm.testing import FakeServer, LLMContract, ProviderContract, Reply, nothing_left_behind

ROOT = Path(rxllm.__file__).parents[1]
FAULTS = {
    "BirdContract": {
        "takes any end": {"test_a_stream_that_is_cut", "test_what_is_no_answer"},
        "holds back": {"test_each_piece_is_a_chunk_at_once"},
        "leaves it open": {"test_leaving_in_the_middle", "test_leaving_by_break"},
        "knows one error": {"test_a_status_has_its_class", "test_how_long_to_wait"},
        "tells its key": {"test_the_key_is_never_shown"},
    },
    "EchoContract": {
        "makes noise": {"test_the_sum_of_the_chunks_is_the_answer"},
        "never twice the same": {"test_the_sum_of_the_chunks_is_the_answer", "test_each_subscription_asks_anew"},
        "starts threads": {"test_it_can_be_left"},
        "asks twice": {"test_the_events_of_a_run"},
    },
}


class TestBird(BirdContract):
    """Somebody else's provider, written against httpx alone, keeps the whole contract."""


class TestEcho(EchoContract):
    """A model without a server keeps its half."""


class Upper(rxllm.LLM):
    """Whole answers."""

    async def complete(self, request):
        """Loud."""
        return request.text.upper()


class TestHedge(LLMContract):
    """A combinator keeps it, too, whose run has others within it."""

    def made(self):
        """The second is not needed."""
        return rxllm.hedge(Upper(), Echo(), after=1)


class TestFallback(LLMContract):
    """The same, where it streams."""

    def made(self):
        """The second is not needed."""
        return rxllm.fallback(rxllm.retry(Echo()), Upper())


def run(directory, program, *arguments):
    """What pytest reports of a file of tests that is somewhere else, without any plug-in for coroutines."""
    file = directory / "test_theirs.py"
    file.write_text(program, "utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, Path(__file__).parent)))}
    environment.pop("COVERAGE_PROCESS_START", None)
    command = [sys.executable, "-m", "pytest", "-q", "-rfEs", "--tb=short", "-W", "error"]
    command += ["-p", "no:cacheprovider", "-p", "no:asyncio"]
    done = subprocess.run(
        [*command, *arguments, str(file)], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert "" == done.stderr
    return done.stdout


def named(fault):
    """The class of tests of what has this fault."""
    return "Test" + fault.title().replace(" ", "")


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    """Of each fault, the tests that fail."""
    program, wanted = "from birds import *\n", []
    for contract, faults in FAULTS.items():
        for fault, expected in faults.items():
            program += f"\nclass {named(fault)}({contract}):\n    fault, promptness = {fault!r}, 0.2\n"
            wanted.append(f"({named(fault)} and ({' or '.join(sorted(expected))}))")
    report = run(tmp_path_factory.mktemp("theirs"), program, "-k", " or ".join(wanted))
    return set(re.findall(r"^(?:FAILED|ERROR) .*?::(\w+)::(test_\w+)", report, re.MULTILINE))


@pytest.mark.parametrize(
    ("fault", "test"),
    [(fault, test) for faults in FAULTS.values() for fault, tests in faults.items() for test in sorted(tests)],
)
def test_a_fault_is_found(failures, fault, test):
    """By the tests that are there for it."""
    assert (named(fault), test) in failures


def test_what_is_not_supplied_is_skipped_or_asked_for(tmp_path):
    """A method that must be overridden says so; one that may be skips its tests."""
    program = """
from rxllm.testing import ProviderContract

class TestTheirs(ProviderContract):
    pass
"""
    report = run(tmp_path, program, "-k", "text_usage or test_nobody_there")
    assert "TestTheirs must override stream" in report
    assert "TestTheirs must override provider" in report
    program += """
    def provider(self, url):
        import rxllm
        return rxllm.OpenAI("m", base_url=url, api_key=self.key)

    def stream(self, text, *, usage=None, finish="stop"):
        return [b"data: [DONE]"]
"""
    report = run(tmp_path, program, "-k", "whole or silence_from or error_in_the_stream")
    for reason in ("there is no whole answer", "there is no impatient provider"):
        assert reason in report
    assert "has no piece in which 'world' can be read" in report


def test_a_failure_shows_what_was_compared(tmp_path):
    """Asserts in the contract are explained as those in a test file are."""
    program = "from birds import EchoContract\n\nclass TestTheirs(EchoContract):\n    fault = 'never twice the same'\n"
    assert re.search(r"At index \d+ diff|^E +assert .*==", run(tmp_path, program, "-k", "anew"), re.MULTILINE)


def test_other_names_are_told():
    """What is not there is an AttributeError like any; what is lazy is there."""
    with pytest.raises(AttributeError, match="has no attribute 'Contract'"):
        rxllm.testing.Contract  # noqa: B018
    assert issubclass(ProviderContract, LLMContract)


def test_without_pytest():
    """All but the contracts and the fixtures works where pytest is not installed."""
    program = """
import sys
sys.modules["pytest"] = None
from rxllm.testing import MarbleLLM, FakeServer, Replay, record, nothing_left_behind
with nothing_left_behind():
    print(MarbleLLM("a|", timespan=0.001).invoke("hi"))
try:
    from rxllm.testing import ProviderContract
except ImportError as error:
    print("pytest" in str(error))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "a\nTrue\n" == done.stdout


# ── fixtures ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_fixtures_for_others(tmp_path):
    """A program's conftest names the module, and has a server and a guard against leaks."""
    conftest = """
import functools

pytest_plugins = ["rxllm.testing.fixtures"]

def pytest_sessionstart():
    from rxllm.testing import fixtures
    fixtures.nothing_left_behind = functools.partial(fixtures.nothing_left_behind, 0.1)
"""
    (tmp_path / "conftest.py").write_text(conftest, "utf-8")
    program = """
import threading
import pytest
import rxllm
from rxllm.testing import Reply

def test_a_refusal(fake_server):
    fake_server.reply(Reply.json({"error": {"message": "no"}}, status=400))
    with pytest.raises(rxllm.BadRequest):
        rxllm.OpenAI("m", base_url=fake_server.url, api_key="any").invoke("hi")

@pytest.mark.usefixtures("nothing_is_left_behind")
def test_tidy(fake_server):
    pass

@pytest.mark.usefixtures("nothing_is_left_behind")
def test_untidy():
    threading.Thread(target=threading.Event().wait, name="forgotten", daemon=True).start()
"""
    report = run(tmp_path, program)
    assert "3 passed, 1 error" in report
    assert re.search(r"left behind: <Thread\(forgotten", report)


async def begun():
    """A task that never ends."""

    async def waiting():
        await asyncio.Event().wait()

    return asyncio.create_task(waiting())


def test_what_is_left_behind_is_named():
    """A thread, a task on the loop in the background, a socket."""
    released = threading.Event()
    thread = threading.Thread(target=released.wait, name="forgotten")
    with pytest.raises(AssertionError, match=r"left behind: <Thread\(forgotten"), nothing_left_behind(0.01):
        thread.start()
    released.set()
    thread.join()

    with pytest.raises(AssertionError, match=r"left behind: <Task .*waiting\(\)"), nothing_left_behind(0.01):
        task = asyncio.run_coroutine_threadsafe(begun(), portal()).result()
    portal().call_soon_threadsafe(task.cancel)
    with pytest.raises(AssertionError, match="left behind: socket:"), nothing_left_behind(0.01):
        left = socket.socket()
    left.close()


def test_what_is_kept_on_purpose_is_no_leak():
    """A connection that waits for the next request is closed, and counts for nothing."""
    with FakeServer(Reply(Chat().stream(["ok"]))) as server, nothing_left_behind():
        rxllm.OpenAI("m", base_url=server.url, api_key="any").invoke("hi")
        assert 1 == server.open_connections


class _Cycle:
    """A socket in a cycle of references: only the collector closes it."""

    def __init__(self):
        self.socket = socket.socket()
        self.itself = self

    def __del__(self):
        self.socket.close()


def test_garbage_is_collected_before_it_counts_as_left_behind():
    """What nothing refers to any more is not left behind, though reference counts alone do not free it."""
    gc.disable()
    try:
        with nothing_left_behind(0.01):
            _Cycle()
    finally:
        gc.enable()


def test_a_failure_inside_is_told_first():
    """Not what it left behind."""
    with pytest.raises(ZeroDivisionError), nothing_left_behind():
        raise ZeroDivisionError
