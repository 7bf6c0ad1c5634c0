"""Ways out of Rx (`stream`, `astream`) and ways in (`from_iter`, `from_aiter`)."""

from .astream import AsyncStream, astream
from .sources import from_aiter, from_iter
from .stream import SyncStream, stream

__all__ = ["AsyncStream", "SyncStream", "astream", "from_aiter", "from_iter", "stream"]
