"""Pickling of HTTP providers: everything except secrets and connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..misuse import MissingKey, MisuseError
from ..secrecy import is_secret, keeps_secrets

__all__ = ["check_key_again", "pickled"]

_KEY_HEADERS = {"authorization", "x-api-key", "api-key"}


class _NotPickled(str):
    """The `api_key` of an unpickled provider: an empty text, because pickling leaves out the key."""

    __slots__ = ()

    def __reduce__(self) -> str:
        return "_KEY"


_KEY = _NotPickled()


def pickled(kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a provider without its key; within `with_secrets`, with it.

    Raises:
        MisuseError: the provider has a secret or a client that the other process cannot get from its environment.
    """
    remedy = f"Construct the {kind} in the process that uses it."
    headers: Mapping[str, str] = fields["headers"] or {}
    secret = [name for name in headers if is_secret(name)]
    keeps = keeps_secrets()
    if secret and not keeps:
        raise MisuseError(f"This {kind} cannot be pickled: its header {secret[0]!r} is a secret. {remedy}")
    if "@" in (fields["base_url"] or "") and not keeps:
        raise MisuseError(f"This {kind} cannot be pickled: its base_url contains a password. {remedy}")
    if fields["client"] is not None and not callable(fields["client"]):
        raise MisuseError(
            f"This {kind} cannot be pickled: the connections of its client= belong to this process. Pass a function of "
            "a module that returns a client, such as client=make_client."
        )
    return dict(fields) if keeps else {**fields, "api_key": fields["api_key"] and _KEY}


def check_key_again(key: str | None, headers: Mapping[str, str]) -> None:
    """Check that an unpickled provider has found a key in its environment.

    Raises:
        MissingKey: the environment has no key.
    """
    if isinstance(key, _NotPickled) and not _KEY_HEADERS & headers.keys():
        raise MissingKey(
            "This model was unpickled, and pickling leaves out its api_key. Set the environment variable of the key in "
            "this process, or write llm = attrs.evolve(llm, api_key=…)."
        )
