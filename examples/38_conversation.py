"""A conversation that is stopped and continued: `remember` sends the earlier turns, `SQLiteHistory` stores them."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import rxllm


class Storyteller(rxllm.LLM):
    """Counts the messages, and tells a story."""

    async def chunks(self, request: rxllm.Request) -> AsyncIterator[str]:
        """Emit the story."""
        for word in (f"{len(request.messages)} messages. ", "Once ", "upon ", "a ", "time"):
            yield word
            await asyncio.sleep(0.02)


with tempfile.TemporaryDirectory() as folder:
    history = rxllm.SQLiteHistory(Path(folder) / "talk.sqlite")
    conversation = rxllm.Conversation([("system", "Tell stories.")], history, "kettle")
    for chunk in rxllm.remember(Storyteller(), conversation, view=rxllm.trim(4000)).stream("A story, please."):
        if chunk.text == "upon ":
            break
    print("stopped:", conversation.messages[-1].interrupted)
    conversation.load()  # returns when everything is written
    later = rxllm.Conversation(store=history, id="kettle")  # as in another process
    print(rxllm.remember(Storyteller(), later).invoke("Go on."))
