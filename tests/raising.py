"""Handlers that fail the runs that they hear."""

from rxllm import Handler


class Raises(Handler):
    """A handler whose error, raised at each event of one class, is the run's error."""

    raise_error = True

    def __init__(self, kind, error):
        self.kind = kind
        self.error = error

    def on_event(self, event):
        """Raise the error at an event of the class."""
        if isinstance(event, self.kind):
            raise self.error
