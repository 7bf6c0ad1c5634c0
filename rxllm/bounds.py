"""All bounds on a server's responses, with their defaults.

The page ``docs/bounds.md`` describes each bound and how to change it. A response that exceeds a bound fails with a
`ProtocolError`; a wait that exceeds its bound fails with a `RateLimited`. rxllm never truncates an answer in silence.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 2**10
MIB: Final = 2**20

# Bytes.
HEADER_BYTES: Final = 64 * KIB
"""The maximum size of a response's header."""
EVENT_BYTES: Final = 8 * MIB
"""The maximum size of one event of a stream, after decompression. ``event_limit=`` changes it."""
DOCUMENT_BYTES: Final = 8 * MIB
"""The maximum size of an answer that is not streamed, after decompression. A larger ``event_limit=`` raises it."""
LONG_BYTES: Final = 64 * KIB
"""The size from which on rxllm counts a document's values before it decodes the document."""
ERROR_BYTES: Final = 64 * KIB
"""The maximum size, after decompression, that rxllm reads of an error's body. It leaves the rest unread."""
MENDED_BYTES: Final = MIB
"""The maximum size of a document that rxllm reads although it is invalid JSON (NaN, Infinity, a lone surrogate)."""

# The bounds above also limit the number of values: one value for each so many bytes of the bound. An object or a list
# counts as four values, because it takes up to 240 bytes of memory; a number or a short text takes up to 70.
EVENT_BYTES_PER_VALUE: Final = 128
"""One event holds at most 65,536 values by default. ``event_limit=`` changes this number, too."""
DOCUMENT_BYTES_PER_VALUE: Final = 32
"""An answer that is not streamed holds at most 262,144 values. A larger ``event_limit=`` raises this number, too."""

# Counts within one answer.
CALLS: Final = 4096
"""The maximum number of tool calls."""
NAME_CHARACTERS: Final = 1024
"""The maximum length of the name of a called tool."""
PARTS: Final = 4096
"""The maximum number of parts: texts, reasoning, files, tool calls, raw blocks."""
CITATIONS: Final = 8192
"""The maximum number of citations in all texts together."""
ANSWER_VALUES: Final = 768 * KIB
"""The maximum number of JSON values that a streamed answer holds beside its text: raw blocks, citations, log
probabilities that the request did not ask for, and what parts keep for their maker. 64 bytes of such data, or of files,
count as one value, too. A larger ``event_limit=`` raises this number in proportion."""

# The tools of an MCP server.
MCP_TOOLS: Final = 1024
"""The maximum number of tools, and of the pages that list them."""
MCP_SCHEMA_BYTES: Final = MIB
"""The maximum size of the names, descriptions and schemas of all tools together."""

# Bytes of one file that a request sends.
IMAGE_BYTES: Final = 20 * MIB
"""The maximum size of a picture. No vendor takes a larger one, and models see fewer pixels."""
FILE_BYTES: Final = 100 * MIB
"""The maximum size of any other file, and of a file that rxllm reads."""

# Seconds.
ERROR_SECONDS: Final = 2.0
"""How long rxllm waits for the body of an error. After that, the error carries the status alone."""
MAX_WAIT: Final = 60.0
"""How long a server may delay a request by Retry-After or by its rate-limit headers. ``max_wait=`` changes it."""
BELIEVED: Final = 300.0
"""How long rxllm trusts a server's statement about its rate limits, unless ``max_wait=`` is longer. After that, the
next request asks the server again."""
AFTER_FINISH: Final = 2.0
"""How long a stream with content may stay silent after its finish reason. After that, it is complete without its end
marker.

After the same time, an event is read without the blank line that should end it."""
USAGE_AFTER_FINISH: Final = 10.0
"""How long chunks without content, such as repeated usage, may follow the finish reason. After that, the stream is
complete."""
