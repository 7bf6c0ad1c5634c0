"""Observable to Observable: what changes the stream."""

from .batches import batch, batch_as_completed
from .cutting import split_reasoning, stop_at
from .folds import message, text, usage
from .limits import deadline, first_chunk_timeout, idle_timeout
from .sharing import share
from .smoothing import smooth
from .texts import lines, sentences, words

__all__ = [
    "batch",
    "batch_as_completed",
    "deadline",
    "first_chunk_timeout",
    "idle_timeout",
    "lines",
    "message",
    "sentences",
    "share",
    "smooth",
    "split_reasoning",
    "stop_at",
    "text",
    "usage",
    "words",
]
