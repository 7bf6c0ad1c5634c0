"""Send requests while a budget of tokens lasts; the budget is a file, so it outlives the program."""

import tempfile
from pathlib import Path

import rxllm

with tempfile.TemporaryDirectory() as folder:
    budget = rxllm.Budget(Path(folder, "budgets.sqlite"), tokens=40, period="month")
    llm = rxllm.budgeted(rxllm.Embedded(seed=7, max_tokens=12), budget)
    for question in "Write me a song.", "And another.", "And a third one.":
        try:
            print(llm.invoke(question, max_tokens=12).text)
        except rxllm.LimitReached as error:
            print(error)
        print("used:", budget.used().tokens, "of", budget.tokens)
