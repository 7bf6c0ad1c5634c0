"""The cost of importing a provider."""

import subprocess
import sys

PROGRAM = """
import re, sys
made, compile = [], re.compile

def noted(*arguments):
    made.append(sys._getframe(1).f_globals["__name__"])
    return compile(*arguments)

re.compile = noted
import rxllm.providers.anthropic, rxllm.providers.openai
print(sorted({name for name in made if name.startswith(("rxllm.providers", "rxllm.wire"))}))
"""


def test_no_regular_expression_is_compiled():
    """They are for errors and odd headers, which few programs meet."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert "[]\n" == done.stdout
