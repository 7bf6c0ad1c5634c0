"""Listeners, one small file each."""

from .stdout import StdoutHandler

__all__ = ["StdoutHandler"]
