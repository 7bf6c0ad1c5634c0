"""Rows that are answered once each: a job is stopped, and the same job continues from its journal."""

import itertools
import tempfile
from pathlib import Path

import rxllm

llm = rxllm.Embedded(seed=1).bind(max_tokens=6)
rows = [{"custom_id": f"q{number}", "word": word} for number, word in enumerate(["sea", "moon", "rain", "wind"])]

with tempfile.TemporaryDirectory() as directory:
    journal = rxllm.Journal(Path(directory, "answers.jsonl"))
    for pulled in (2, 4):  # the first time, only two rows come
        some = rxllm.from_iter(itertools.islice(rows, pulled))
        with some.pipe(rxllm.job(llm, journal, prompt="A line about the {word}:"), rxllm.stream()) as results:
            for result in results:
                print("asked:", result.id)
    for result in journal.results():
        print(result.id, repr(result.text))
