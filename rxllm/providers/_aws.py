"""Signatures of AWS, version 4, by botocore. The first request that needs a signature imports botocore.

The import, the reading of files and requests for credentials block, so they run in a thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import importlib
import importlib.util
import logging
import os
from collections.abc import Mapping
from typing import Any

from ..misuse import MissingKey, MisuseError
from ..secrecy import blanked

__all__ = ["has_botocore", "signed"]


@functools.cache
def has_botocore() -> bool:
    """Return whether botocore is installed."""
    return importlib.util.find_spec("botocore") is not None


async def signed(
    url: str, body: bytes, headers: Mapping[str, str], region: str, profile: str | None, method: str = "POST"
) -> dict[str, str]:
    """Return the headers that sign a request, with the credentials of the environment or of a profile.

    Raises:
        MisuseError: there are no credentials, or botocore cannot read them.
    """
    return await asyncio.to_thread(_signed, url, body, headers, region, profile, method)


def _signed(
    url: str, body: bytes, headers: Mapping[str, str], region: str, profile: str | None, method: str
) -> dict[str, str]:
    request = _module("awsrequest").AWSRequest(method, url, headers=dict(headers), data=body)
    credentials = _credentials(profile)
    _token.set(credentials.token or "")  # in the context of this thread only
    _module("auth").SigV4Auth(credentials, "bedrock", region).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items() if name.lower() not in headers}


def _credentials(profile: str | None) -> Any:
    """Return the credentials of the environment variables, or those that botocore finds in files and on the machine."""
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if key and secret and profile is None:
        return _module("credentials").Credentials(key, secret, os.environ.get("AWS_SESSION_TOKEN"))
    exceptions = _module("exceptions")
    try:
        return _profile_credentials(profile or os.environ.get("AWS_PROFILE")).get_frozen_credentials()
    except exceptions.BotoCoreError as error:
        raise MisuseError(f"botocore cannot read the AWS credentials: {type(error).__name__}. {_REMEDY}") from None


@functools.lru_cache(16)
def _profile_credentials(profile: str | None) -> Any:
    """Return the credentials of a profile. botocore renews them.

    Raises:
        MisuseError: there are no credentials.
    """
    credentials = _module("session").Session(profile=profile).get_credentials()
    if credentials is None:
        raise MissingKey(f"There are no AWS credentials{f' for the profile {profile!r}' if profile else ''}. {_REMEDY}")
    return credentials


_REMEDY = (
    "Set AWS_BEARER_TOKEN_BEDROCK to a Bedrock API key, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a "
    "profile with AWS_PROFILE."
)


_token: contextvars.ContextVar[str] = contextvars.ContextVar("rxllm_aws_token", default="")


def _without_token(record: logging.LogRecord) -> bool:
    """Replace the session token in a log record: at the level DEBUG, botocore logs the request that it signs."""
    if token := _token.get():
        record.msg, record.args = blanked(record.getMessage(), [token]), ()
    return True


logging.getLogger("botocore.auth").addFilter(_without_token)


def _module(name: str) -> Any:
    return importlib.import_module(f"botocore.{name}")
