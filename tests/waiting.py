"""`wait_until`: a wait for something that sends no event, such as a change in another library or process."""

import threading
import time

__all__ = ["PATIENCE", "wait_until"]

PATIENCE = 60  # seconds


def wait_until(is_true):
    """Wait until the function returns a true value."""
    deadline = time.monotonic() + PATIENCE
    while not is_true():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
