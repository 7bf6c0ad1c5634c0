"""Waiting for the end of a run from another thread."""

import threading

from rxllm import Cancelled, Failed, Finished, Handler


class RunEnd(Handler):
    """A handler that waits for the end of the root run. Attach it last: then the other handlers get the end first."""

    def __init__(self):
        self.ended = threading.Event()

    def on_event(self, event):
        """Note the end of a root run."""
        if isinstance(event, (Finished, Failed, Cancelled)) and not event.run.parent_ids:
            self.ended.set()

    def wait(self):
        """Block until the run has ended."""
        assert self.ended.wait(30.0), "the run did not end within 30 seconds"
