"""What of a provider over HTTP is pickled: everything but its secrets and its connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..misuse import MisuseError
from ..secrecy import is_secret

__all__ = ["check_key_again", "pickled"]

_KEY_HEADERS = {"authorization", "x-api-key", "api-key"}


class _NotPickled(str):
    """Stands in a copy that was unpickled for the key that was not pickled; it is empty, as if no key were given."""

    __slots__ = ()

    def __reduce__(self) -> str:
        return "_KEY"


_KEY = _NotPickled()


def pickled(kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a provider as they may leave the process.

    Raises:
        MisuseError: a secret or a client is in it that the other process could not get from its environment.
    """
    remedy = f"Make the {kind} in the process that uses it."
    headers: Mapping[str, str] = fields["headers"] or {}
    secret = [name for name in headers if is_secret(name)]
    if secret:
        raise MisuseError(f"This {kind} cannot be pickled: its header {secret[0]!r} is a secret. {remedy}")
    if "@" in (fields["base_url"] or ""):
        raise MisuseError(f"This {kind} cannot be pickled: its base_url holds a password. {remedy}")
    if fields["client"] is not None and not callable(fields["client"]):
        raise MisuseError(
            f"This {kind} cannot be pickled: the connections of its client= belong to this process. Give a function of "
            "a module that makes a client, such as client=make_client."
        )
    return {**fields, "api_key": fields["api_key"] and _KEY}


def check_key_again(key: str | None, headers: Mapping[str, str]) -> None:
    """Refuses to ask without the key that was not pickled.

    Raises:
        MisuseError: the environment has none, either.
    """
    if isinstance(key, _NotPickled) and not _KEY_HEADERS & headers.keys():
        raise MisuseError(
            "This model came here by pickle, which leaves out its api_key: set the environment variable of the key in "
            "this process, or say llm = attrs.evolve(llm, api_key=…)."
        )
