"""The engine: the one place that knows event loops, threads, gates and contexts."""
