"""Signatures of AWS (version 4) by botocore, which is imported with the first request that needs one.

Everything here that reads files, asks another server for credentials, or imports botocore runs in a thread.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import importlib.util
import os
from collections.abc import Mapping
from typing import Any

from ..misuse import MisuseError

__all__ = ["has_botocore", "signed"]


@functools.cache
def has_botocore() -> bool:
    """Whether botocore is installed."""
    return importlib.util.find_spec("botocore") is not None


async def signed(url: str, body: bytes, headers: Mapping[str, str], region: str, profile: str | None) -> dict[str, str]:
    """The headers that sign a POST of this body with the credentials of the environment, or of a profile.

    Raises:
        MisuseError: there are no credentials, or they cannot be read.
    """
    return await asyncio.to_thread(_signed, url, body, headers, region, profile)


def _signed(url: str, body: bytes, headers: Mapping[str, str], region: str, profile: str | None) -> dict[str, str]:
    request = _module("awsrequest").AWSRequest("POST", url, headers=dict(headers), data=body)
    _module("auth").SigV4Auth(_credentials(profile), "bedrock", region).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items() if name.lower() not in headers}


def _credentials(profile: str | None) -> Any:
    """Those of the environment variables; else what botocore finds in files, or on the machine it runs on."""
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if key and secret and profile is None:
        return _module("credentials").Credentials(key, secret, os.environ.get("AWS_SESSION_TOKEN"))
    exceptions = _module("exceptions")
    try:
        found = _found(profile or os.environ.get("AWS_PROFILE"))
        return found and found.get_frozen_credentials()
    except exceptions.BotoCoreError as error:
        raise MisuseError(f"AWS credentials cannot be read: {type(error).__name__}. {_REMEDY}") from None


@functools.lru_cache(16)
def _found(profile: str | None) -> Any:
    """The credentials of a profile, which renew themselves.

    Raises:
        MisuseError: there are none.
    """
    found = _module("session").Session(profile=profile).get_credentials()
    if found is None:
        raise MisuseError(
            f"There are no AWS credentials{f' for the profile {profile!r}' if profile else ''}. {_REMEDY}"
        )
    return found


_REMEDY = (
    "Set AWS_BEARER_TOKEN_BEDROCK to a Bedrock API key, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a "
    "profile with AWS_PROFILE."
)


def _module(name: str) -> Any:
    return importlib.import_module(f"botocore.{name}")
