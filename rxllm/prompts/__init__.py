"""Prompts with variables."""

from .template import Template, template

__all__ = ["Template", "template"]
