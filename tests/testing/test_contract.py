"""The contracts: correct models pass, and each fault fails the right tests."""

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
        "takes any end": {"test_cut_stream_raises_interrupted", "test_body_that_is_not_an_answer_raises"},
        "holds back": {"test_each_piece_is_emitted_at_once"},
        "leaves it open": {"test_cancellation_in_the_middle_closes_the_request", "test_break_closes_the_request"},
        "knows one error": {"test_status_has_its_error_class", "test_retry_after_is_reported"},
        "tells its key": {"test_key_is_never_shown"},
    },
    "EchoContract": {
        "makes noise": {"test_sum_of_the_chunks_is_the_answer"},
        "never twice the same": {"test_sum_of_the_chunks_is_the_answer", "test_each_subscription_is_a_new_request"},
        "starts threads": {"test_break_is_not_an_error"},
        "asks twice": {"test_events_of_a_run"},
    },
}


class TestBird(BirdContract):
    """A third-party provider, written against httpx alone, passes the whole contract."""


class TestEcho(EchoContract):
    """A model without a server passes its half."""


class Upper(rxllm.LLM):
    """Answers with a whole message."""

    async def complete(self, request):
        """Return the prompt in capitals."""
        return request.text.upper()


class TestHedge(LLMContract):
    """A combinator with inner runs passes, too."""

    def create_model(self):
        """Hedge, with an unused second model."""
        return rxllm.hedge(Upper(), Echo(), after=1)


class TestFallback(LLMContract):
    """A streaming combinator passes, too."""

    def create_model(self):
        """Fall back, with an unused second model."""
        return rxllm.fallback(rxllm.retry(Echo()), Upper())


def run(directory, program, *arguments):
    """Return pytest's report on a test file in another directory, without a plug-in for coroutines."""
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
    """The name of the test class with this fault."""
    return "Test" + fault.title().replace(" ", "")


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    """The failing tests for each fault."""
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
def test_fault_fails_its_tests(failures, fault, test):
    """Each fault fails the tests that are meant to find it."""
    assert (named(fault), test) in failures


def test_missing_overrides_are_skipped_or_reported(tmp_path):
    """A required method raises an error that says so; an optional one skips its tests."""
    program = """
from rxllm.testing import ProviderContract

class TestTheirs(ProviderContract):
    pass
"""
    report = run(tmp_path, program, "-k", "text_usage or test_missing_server_raises_transport_error")
    assert "TestTheirs must override stream" in report
    assert "TestTheirs must override provider" in report
    program += """
    def provider(self, url):
        import rxllm
        return rxllm.OpenAI("m", base_url=url, api_key=self.key)

    def stream(self, text, *, usage=None, finish="stop"):
        return [b"data: [DONE]"]
"""
    report = run(tmp_path, program, "-k", "whole or silence_before or error_in_the_stream")
    for reason in ("the provider has no whole answers", "the provider has no read timeout"):
        assert reason in report
    assert "has no piece that contains 'world'" in report


def test_failure_shows_the_compared_values(tmp_path):
    """Pytest explains the contract's asserts like those of a test file."""
    program = "from birds import EchoContract\n\nclass TestTheirs(EchoContract):\n    fault = 'never twice the same'\n"
    assert re.search(
        r"At index \d+ diff|^E +assert .*==", run(tmp_path, program, "-k", "each_subscription"), re.MULTILINE
    )


def test_unknown_name_raises_attribute_error():
    """A missing name raises AttributeError, and a lazy name is importable."""
    with pytest.raises(AttributeError, match="has no attribute 'Contract'"):
        rxllm.testing.Contract  # noqa: B018
    assert issubclass(ProviderContract, LLMContract)


def test_testing_works_without_pytest():
    """Only the contracts and the fixtures need pytest."""
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


def test_fixtures_work_in_other_projects(tmp_path):
    """A conftest that loads the module has a server and a check for leaks."""
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


def test_left_resources_are_named():
    """A thread, a task on the background loop, and a socket."""
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


def test_idle_connection_is_not_a_leak():
    """An idle kept-alive connection is closed and does not count."""
    with FakeServer(Reply(Chat().stream(["ok"]))) as server, nothing_left_behind():
        rxllm.OpenAI("m", base_url=server.url, api_key="any").invoke("hi")
        assert 1 == server.open_connections


class _Cycle:
    """A socket in a reference cycle: only the garbage collector closes it."""

    def __init__(self):
        self.socket = socket.socket()
        self.itself = self

    def __del__(self):
        self.socket.close()


def test_garbage_is_collected_before_the_check():
    """An unreachable object in a reference cycle does not count."""
    gc.disable()
    try:
        with nothing_left_behind(0.01):
            _Cycle()
    finally:
        gc.enable()


def test_failure_inside_wins_over_leaks():
    """The exception in the block is raised, not the report of leaks."""
    with pytest.raises(ZeroDivisionError), nothing_left_behind():
        raise ZeroDivisionError
