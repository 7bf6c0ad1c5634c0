"""HTTP, and the decoders of its framings."""
