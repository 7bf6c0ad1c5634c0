"""Runs the Python blocks of one page, which share a namespace, in their order.

Reads ``[path, [[line, code, is a notebook cell], …]]`` as JSON from standard input. After each block it prints a record
separator, so that the output of each block can be told apart. A traceback shows the page's own lines.
"""

import ast
import asyncio
import inspect
import json
import sys

import loopback  # noqa: F401  (refuses other machines)

page, blocks = json.load(sys.stdin)
for line, code, is_cell in blocks:
    program = compile("\n" * line + code, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if is_cell else 0)
    if program.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(program, globals()))  # noqa: S307  (the program is the page's own)
    else:
        exec(program, globals())  # noqa: S102  (the same)
    sys.stdout.write("\x1e\n")  # in one piece: a stream that goes on may print meanwhile
    sys.stdout.flush()
