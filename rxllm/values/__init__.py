"""The values that streams carry: parts, messages, chunks, usage and requests. All of them are frozen."""
