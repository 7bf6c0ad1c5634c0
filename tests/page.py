"""Runs the Python blocks of one page, which share a namespace, in their order.

Reads ``[path, [[line, code], …]]`` as JSON from standard input. After each block it prints a record separator, so that
the output of each block can be told apart. A traceback shows the page's own lines.
"""

import json
import sys

import loopback  # noqa: F401  (refuses other machines)

page, blocks = json.load(sys.stdin)
for line, code in blocks:
    exec(compile("\n" * line + code, page, "exec"), globals())  # noqa: S102  (it is what this is for)
    print("\x1e", flush=True)
