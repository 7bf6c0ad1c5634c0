"""Every bound that a server can run into, with its default: the one table of them.

The page ``docs/bounds.md`` says what happens at each and how to change it. A server that exceeds a bound gets a
`ProtocolError`, or for a wait a `RateLimited`; nothing is cut off in silence.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 2**10
MIB: Final = 2**20

# Bytes.
HEADER_BYTES: Final = 64 * KIB
"""Of the header of a response."""
EVENT_BYTES: Final = 8 * MIB
"""Of one event of a stream, unpacked. Changed by ``event_limit=``."""
DOCUMENT_BYTES: Final = 8 * MIB
"""Of an answer that is not streamed, unpacked. ``event_limit=`` raises it, where it is larger."""
LONG_BYTES: Final = 64 * KIB
"""From which on the values of a document are counted before it is decoded."""
ERROR_BYTES: Final = 64 * KIB
"""That are read of an error's body, unpacked; the rest is left unread."""
MENDED_BYTES: Final = MIB
"""Of a document that is not JSON (with NaN, Infinity or half a character) and is read all the same."""

# Bytes of the bounds above for each value that may be in them. A value takes up to 240 bytes of memory.
EVENT_BYTES_PER_VALUE: Final = 64
"""So that one event has at most 131,072 values. ``event_limit=`` raises that, too."""
DOCUMENT_BYTES_PER_VALUE: Final = 32
"""So that an answer that is not streamed has at most 262,144 values. ``event_limit=`` raises that, too."""

# Counts within one answer.
CALLS: Final = 4096
"""Calls of tools."""
NAME_CHARACTERS: Final = 1024
"""Of the name of a called tool."""
PARTS: Final = 16384
"""Parts: texts, thoughts, files, calls, raw blocks."""
CITATIONS: Final = 16384
"""Citations of all its texts."""

# Seconds.
ERROR_SECONDS: Final = 2.0
"""That the body of an error may take to arrive; then the status alone is the error."""
MAX_WAIT: Final = 60.0
"""That a server may make a request wait, by Retry-After or by its rate headers. Changed by ``max_wait=``."""
BELIEVED: Final = 300.0
"""That a server's figure about its limits counts, unless ``max_wait=`` is longer; then a request asks it again."""
AFTER_FINISH: Final = 2.0
"""That a stream may stay silent after its finish reason; then it is complete without its end marker."""
