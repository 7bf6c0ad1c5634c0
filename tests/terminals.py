"""`Terminal`: a command at a pseudo-terminal."""

import codecs
import os
import re
import select
import struct
import subprocess
import sys
import time

import pyte
import pytest

if os.name == "posix":
    import fcntl
    import termios

PATIENCE = 55.0  # seconds for something to appear, on a busy machine too; a test may take 60
# Makes its standard input its controlling terminal, so that the terminal's Ctrl-C reaches it, and runs the command.
CONTROLLED = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
needs_pty = pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")


class Terminal:
    """A command at a pseudo-terminal."""

    def __init__(self, variables, *command):
        self.ours, theirs = os.openpty()
        self.shown = ""
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.resize(theirs)
        self.process = subprocess.Popen(
            [sys.executable, "-c", CONTROLLED, *command],
            env=variables,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def resize(self, descriptor):
        """Leave the size of the terminal as it is."""

    def read(self, seconds):
        """Read what the command shows within this time, and return whether it runs. A silent second is not its end."""
        if select.select([self.ours], [], [], seconds)[0]:
            try:
                piece = os.read(self.ours, 4096)
            except OSError:  # Linux: the other side is closed
                return False
            self.heard(piece)
            return piece != b""
        return True

    def heard(self, piece):
        """Note what the command shows."""
        self.shown += self.decoder.decode(piece)

    def wait_for(self, pattern):
        """Read until the pattern appears, and return everything up to its end."""
        deadline = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self.shown)) is None:
            runs = self.read(max(deadline - time.monotonic(), 0))
            assert runs, f"{pattern!r} did not appear in {self.shown!r}"
            assert time.monotonic() < deadline, f"{pattern!r} did not appear in {self.shown!r}"
        before, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return before

    def type(self, keys):
        """Press keys."""
        os.write(self.ours, keys.encode())

    def end(self, keys=""):
        """Press the keys, read to the end, and return the exit code.

        The keys are pressed again each second, until the command answers with a new line: readline misses a Ctrl-C that
        comes between its prompt and its wait. Once the command ends, another Ctrl-C would kill it.
        """
        deadline = time.monotonic() + PATIENCE
        before = len(self.shown)
        self.type(keys)
        known = self.shown
        while self.read(1):
            assert time.monotonic() < deadline, f"the command still runs after {self.shown!r}"
            if self.shown == known and "\n" not in self.shown[before:]:
                self.type(keys)
            known = self.shown
        return self.process.wait(PATIENCE)

    def close(self):
        """End the command, if it runs, and close the terminal."""
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


class Display(Terminal):
    """A command at a pseudo-terminal whose screen can be read.

    Attributes:
        written: all bytes that the command has written.
    """

    def __init__(self, variables, *command, lines=24, columns=80):
        self.screen = pyte.HistoryScreen(columns, lines, history=10_000)
        self.stream = pyte.ByteStream(self.screen)
        self.written = b""
        super().__init__({**variables, "TERM": "xterm-256color"}, *command)

    def resize(self, descriptor):
        """Give the terminal the size of the screen."""
        size = struct.pack("HHHH", self.screen.lines, self.screen.columns, 0, 0)
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, size)

    def heard(self, piece):
        """Draw what the command shows."""
        super().heard(piece)
        self.written += piece
        self.stream.feed(piece)

    @property
    def lines(self):
        """The lines on the screen and above it, up to the last one that is not empty."""
        above = [
            "".join(line[column].data for column in range(self.screen.columns)) for line in self.screen.history.top
        ]
        lines = [line.rstrip() for line in (*above, *self.screen.display)]
        while lines and not lines[-1]:
            del lines[-1]
        return lines

    def wait_until(self, is_shown):
        """Read until the lines on the screen fulfil a condition."""
        deadline = time.monotonic() + PATIENCE
        while not is_shown(self.lines):
            runs = self.read(max(deadline - time.monotonic(), 0))
            assert runs, f"the command has ended: {self.lines}"
            assert time.monotonic() < deadline, f"it was not shown: {self.lines}"
