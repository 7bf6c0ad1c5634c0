"""Handlers: observers of events, one file each. `rxllm` exports each of them."""
