"""What streams carry: parts, messages, chunks, usage, requests. All frozen."""
