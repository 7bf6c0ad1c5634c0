"""A model's answers are recorded once, with their pace, and replayed without it: faster, at once, or just as they were.

The recording is a file of JSON lines, which can be read, and kept beside a test.
"""

import math
import tempfile
from pathlib import Path

import rxllm
from rxllm.testing import Replay, record

with tempfile.TemporaryDirectory() as directory:
    cassette = Path(directory) / "tea.jsonl"
    llm = record(rxllm.Embedded(seed=1, max_tokens=6), cassette)
    print("recorded:", llm.invoke("Write me a song about tea."))
    print("lines:", len(cassette.read_text("utf-8").splitlines()))

    replay = Replay(cassette, speed=math.inf)  # 1.0 is as it was, 2.0 twice as fast, math.inf at once

print("replayed:", [str(chunk) for chunk in replay.stream("Write me a song about tea.")])
try:
    replay.invoke("Write me a song about coffee.")
except rxllm.MisuseError as error:
    print("unknown:", str(error).partition(" has ")[2])
