"""With the extra ``uvloop``, rxllm's background event loop is uvloop's, and nothing else changes."""

import importlib.util
import subprocess
import sys

import pytest
from protocols import Chat

import rxllm
from rxllm.runtime.portal import portal
from rxllm.testing import Endless, FakeServer, Reply

if importlib.util.find_spec("mistralai") is None:
    pytest.skip("the extra 'clients' is not installed", allow_module_level=True)

CHAT = Chat()


def test_background_loop_is_uvloops():
    """A synchronous stream reads its answer on it, and leaving the stream closes the connection."""
    with FakeServer(
        Reply(b"".join(CHAT.stream(["Hel", "lo"]))), Reply([Endless(CHAT.stream(["x" * 1000])[1])])
    ) as server:
        llm = rxllm.OpenAI("m", base_url=server.url, api_key="k")
        assert "Hello" == "".join(map(str, llm.stream("hi")))
        with llm.stream("hi") as chunks:
            next(chunks)
            sent = server.exchange(1).wait_stalled()
        server.exchange(1).wait_closed(timeout=60)
        assert server.exchange(1).aborted
        assert sent > 0
    assert "uvloop" == type(portal()).__module__


@pytest.mark.parametrize("closed", ["0<&-", "2>&-", "0<&- 2>&-"])
def test_command_line_survives_closed_standard_streams(closed):
    """A connection with the number of a standard stream would abort the process."""
    command = ["/bin/sh", "-c", f'"$@" --max-tokens 3 hi {closed}', "sh", sys.executable, "-m", "rxllm"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=100)
    assert 0 == done.returncode
    assert b"" != done.stdout
