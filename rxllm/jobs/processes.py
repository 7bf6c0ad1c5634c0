"""`Processes`: starts the worker processes of a job, and waits for their ends. Its methods block."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from typing import cast

from ..errors import RxllmError
from ..misuse import MisuseError, shown
from ..runtime.forks import reset_in_child
from ..runtime.interpreters import interpreter, same_environment

__all__ = ["NoWorker", "Process", "Processes", "check_workers", "described"]

_PATIENCE = 5.0  # seconds for a process to end by itself; then it is killed

Process = subprocess.Popen[bytes]


class NoWorker(RxllmError):
    """A worker process cannot be started."""


def check_workers(workers: int) -> None:
    """Check the number of worker processes.

    Raises:
        MisuseError: it is not a whole number from 0 on, or this system cannot have workers.
    """
    if not isinstance(cast("object", workers), int) or isinstance(workers, bool) or workers < 0:
        raise MisuseError(f"workers must be a whole number of at least 0, not {shown(workers)}.")
    if workers and os.name != "posix":
        raise MisuseError("workers= needs Linux, macOS or another POSIX system. Leave it out.")


class Processes:
    """The worker processes of a job, each at the other end of a socket."""

    def __init__(self) -> None:
        self._is_closed = False
        self._running: dict[Process, socket.socket] = {}
        reset_in_child(self._disown)

    def _disown(self) -> None:
        """Close the sockets in a forked child: they would keep the workers alive after the end of their parent.

        An event loop that uses a socket may hold it open: uvloop puts `socket.close` off until the loop lets go of it,
        which it never does in the child. So its number is pointed at something else.
        """
        self._lock = threading.Lock()  # of the attributes, which any thread may change
        running, self._running = self._running, {}
        if not running:
            return
        nothing = os.open(os.devnull, os.O_RDWR)
        for process, connection in running.items():
            if connection.fileno() != -1:
                os.dup2(nothing, connection.fileno(), inheritable=False)
            process.returncode = 0  # else its destructor would warn of a running process
        os.close(nothing)

    def start(self) -> tuple[Process, socket.socket]:
        """Start a process, and return it with the socket to it.

        Raises:
            NoWorker: the system does not start it, or `close` was called.
        """
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    process = _started(theirs.fileno())
                except BaseException:
                    ours.close()
                    raise
        except OSError as error:
            raise NoWorker(f"A worker process cannot be started: {error}.") from error
        with self._lock:
            is_closed = self._is_closed
            if not is_closed:
                self._running[process] = ours
        if is_closed:
            ours.close()
            _wait_for(process)
            raise NoWorker("The job has ended.")
        return process, ours

    def end_of(self, process: Process) -> int:
        """Wait for the end of a process whose socket is closed, and return its status; negative for a signal."""
        status = _wait_for(process)
        with self._lock:
            self._running.pop(process, None)
        return status

    def close(self) -> None:
        """Start no further process."""
        with self._lock:
            self._is_closed = True

    def join(self) -> None:
        """Wait for the ends of all processes. Connections over their sockets must be closed."""
        with self._lock:
            running = [*self._running.items()]
        for _, connection in running:
            connection.close()  # of a process that was started too late for a connection
        for process, _ in running:
            self.end_of(process)


def described(status: int) -> str:
    """Return how a process ended, as the end of a sentence about it."""
    if status >= 0:
        return f"ended with status {status}"
    name = signal.Signals(-status).name
    return f"was killed by {name}" + ", as the system does when memory is short" * (name == "SIGKILL")


def _started(descriptor: int) -> Process:
    return subprocess.Popen(  # noqa: S603  (this very interpreter)
        interpreter("-m", "rxllm.jobs.worker", str(descriptor)),
        stdin=subprocess.DEVNULL,
        pass_fds=[descriptor],
        env=same_environment(),
        process_group=0,  # Ctrl-C in a terminal must not reach it
    )


def _wait_for(process: Process) -> int:
    try:
        return process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
