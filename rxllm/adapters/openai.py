"""`from_openai`: a model that sends its requests with a client of OpenAI's SDK."""

from __future__ import annotations

from typing import Any, Unpack

from attrs import field, frozen

from ..providers import openai as vendor
from ._sdk import SDK, SDKFields, SDKModel, settings_of

__all__ = ["from_openai"]

_SDK = SDK("openai", "AsyncOpenAI")


@frozen(init=False)
class OpenAI(SDKModel, vendor.OpenAI):
    """The model. It has the name of its base, because it differs only in what sends the requests."""

    sdk = _SDK
    client: Any = field(default=None, kw_only=True, repr=False)

    def __init__(self, model: str, **settings: Any) -> None:
        self._settle(model=model, **settings)


def from_openai(
    client: Any,
    model: str,
    *,
    api: vendor.Api | None = None,
    server: str | None = None,
    **settings: Unpack[SDKFields],
) -> vendor.OpenAI:
    """Return a model that sends its requests with a client of OpenAI's SDK.

    ::

        llm = from_openai(openai.AsyncOpenAI(), "gpt-5-mini")
        llm = from_openai(openai.AsyncAzureOpenAI(…), "my-deployment")

    The client adds its address, its key, its headers, its middleware and its retries; rxllm writes the body and decodes
    the bytes of the response. The model has everything that `rxllm.OpenAI` has. Dispose, ``break`` or the end of
    the loop closes the client's connection. The errors are those of rxllm, and the SDK's exception is their cause,
    unless it shows a secret.

    Args:
        client: a client; or a function that returns one, which is called once for each event loop. An asynchronous
            client works on the first event loop that uses it. A blocking client reads in threads: it closes its
            connection at once after its response has begun, but it waits for the response to begin.
        model: the name of the model; for Azure, that of the deployment.
        api: the protocol, as that of `rxllm.OpenAI`.
        server: the name of a known server, as that of `rxllm.OpenAI`.
        settings: parameters, and the config of the runs; `headers`, `timeout` and `event_limit` as those of
            `rxllm.OpenAI`. The client's own time limits and retries hold, too.

    Raises:
        MisuseError: the object is not a client of OpenAI's SDK, or a setting belongs to the client.
    """
    return OpenAI(model, api=api, server=server, **settings_of(_SDK, client, settings))
