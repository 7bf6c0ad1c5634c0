"""A store for the tests of engines, which their workers import."""

import os
import signal
from pathlib import Path

import rxllm


class Deadly(rxllm.SQLiteStore):
    """A store that kills its process once, when it has stored so many answers in it."""

    def __init__(self, path, after):
        super().__init__(path)
        self.after = after
        self.stored = 0
        self.mark = Path(f"{path}.killed")

    def __reduce__(self):
        return Deadly, (str(self._path), self.after)

    async def put(self, key, chunks, /):
        """Store the answer."""
        await super().put(key, chunks)
        self.stored += 1
        if self.stored == self.after and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
