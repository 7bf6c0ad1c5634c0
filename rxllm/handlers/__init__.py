"""Handlers: observers of runs, one module per handler."""

from .stdout import StdoutHandler

__all__ = ["StdoutHandler"]
