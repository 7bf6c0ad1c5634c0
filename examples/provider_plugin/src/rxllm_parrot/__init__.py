"""Models of Parrot, whose answers are lines of JSON: ``{"text": …}``, and at the end ``{"done": …}``."""

import json
import os
from collections.abc import AsyncIterator
from typing import Any

import httpx
from attrs import field, frozen

import rxllm

__all__ = ["Parrot"]


@frozen
class Parrot(rxllm.LLM):
    """A model of Parrot. The key comes from `api_key` or ``PARROT_API_KEY``.

    Attributes:
        model: the name of the model.
        api_key: the key.
        base_url: the address.
        timeout: the seconds that the server may be silent.
    """

    declaration = rxllm.Declaration(keys=("PARROT_API_KEY",), default_model="grey", features=("usage",))

    model: str
    api_key: str | None = field(default=None, kw_only=True, repr=False)
    base_url: str = field(default="https://api.parrot.example", kw_only=True)
    timeout: float = field(default=60.0, kw_only=True)

    async def chunks(self, request: rxllm.Request) -> AsyncIterator[rxllm.Chunk]:
        """Stream the answer. The end of the block closes the connection, also when the subscriber disposes."""
        key = self.api_key or os.environ.get("PARROT_API_KEY", "")
        body = {"model": request.model or self.model, "prompt": request.text, "max_tokens": request.max_tokens}
        has_begun = is_done = False
        try:
            async with (
                httpx.AsyncClient(timeout=self.timeout) as http,
                http.stream(
                    "POST", f"{self.base_url}/say", json=body, headers={"authorization": f"Bearer {key}"}
                ) as response,
            ):
                has_begun = True
                if response.status_code != 200:
                    raise _failure(response, (await response.aread()).decode(errors="replace"), key)
                async for line in response.aiter_lines():
                    event = _event(line)
                    if text := event.get("text"):
                        yield rxllm.Chunk(text)
                    elif message := event.get("error"):
                        raise rxllm.ProviderError(message.replace(key or "\0", "***"))
                    elif reason := event.get("done"):
                        yield rxllm.Chunk(finish_reason=reason, raw_finish_reason=reason, usage=_usage(event))
                        is_done = True
                        break
        except httpx.TimeoutException as error:
            raise rxllm.Timeout(f"{self.base_url} sent nothing for {self.timeout:g} s.") from error
        except httpx.HTTPError as error:
            kind = rxllm.Interrupted if has_begun else rxllm.TransportError
            raise kind(f"The connection to {self.base_url} failed: {error or type(error).__name__}.") from error
        if not is_done:
            raise rxllm.Interrupted("The stream ended before its last line.")


def _event(line: str) -> dict[str, Any]:
    """Return a line as an object. A line that was cut off belongs to a stream that was cut off."""
    try:
        event = json.loads(line or "{}")
    except ValueError:
        event = {} if line.startswith("{") else None
    if not isinstance(event, dict):
        raise rxllm.ProtocolError(f"Parrot sent a line that is no JSON object: {line[:100]}", frame=line.encode())
    return event


def _usage(event: dict[str, Any]) -> rxllm.Usage | None:
    counts = event.get("usage")
    return rxllm.Usage(input_tokens=counts[0], output_tokens=counts[1]) if counts else None


def _failure(response: httpx.Response, body: str, key: str) -> rxllm.ProviderError:
    """Return the error for a status. Some servers repeat the key, which must not appear in an error."""
    status, body = response.status_code, body.replace(key or "\0", "***")
    wait = response.headers.get("retry-after", "")
    return rxllm.ProviderError.class_for_status(status)(
        f"{body[:200]} (HTTP {status})",
        status=status,
        body=body,
        retry_after=float(wait) if wait.isdigit() else None,
        retryable=status in (408, 409, 429) or status >= 500,
    )
