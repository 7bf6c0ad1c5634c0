"""Observable to Observable: what changes the stream."""

from .batches import batch, batch_as_completed
from .folds import message, text, usage
from .limits import first_chunk_timeout, idle_timeout

__all__ = ["batch", "batch_as_completed", "first_chunk_timeout", "idle_timeout", "message", "text", "usage"]
