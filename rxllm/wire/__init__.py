"""Bytes: HTTP, and the pure decoders of framing."""
