"""Nobody waits: a handler hears the answer, and the script stays alive until it has heard the end.

A handler is an observer, so it goes wherever reactivex takes one.
"""

import rxllm


class Loud(rxllm.Handler):
    """Shouts."""

    def on_event(self, event: rxllm.Event) -> None:
        """Hears the next event; chunks are events."""
        if isinstance(event, rxllm.Chunk):
            print(event.text.upper(), end="", flush=True)

    def on_completed(self) -> None:
        """Hears that the answer is whole."""
        print("!")


llm = rxllm.Embedded()
llm("Write me a song about the moon.").subscribe(Loud())  # or rxllm.StdoutHandler()
