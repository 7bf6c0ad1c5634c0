"""A provider as a third party may write it, against rxllm's public names only; with faults on request.

Its protocol is one JSON document per line: ``{"text": …}``, and at the end ``{"finish": …, "usage": […]}``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading

import httpx
from attrs import field, frozen
from reactivex import operators as ops

import rxllm
from rxllm.errors import Interrupted, ProtocolError, ProviderError, Timeout, TransportError
from rxllm.testing import LLMContract, ProviderContract


@frozen
class Bird(rxllm.LLM):
    """A provider for the protocol."""

    url: str
    key: str = field(repr=False)
    seconds: float | None = None
    fault: str = ""

    async def chunks(self, request):
        """Yield the answer's chunks as they arrive."""
        client = httpx.AsyncClient(timeout=self.seconds, headers={"x-key": self.key})
        stream = request.stream is not False
        asked = client.build_request("POST", self.url, json={"prompt": request.text, "stream": stream})
        response = None
        try:
            response = await client.send(asked, stream=True)
            if not response.is_success:
                raise self.refused(response.status_code, response.headers, await response.aread())
            answer = self.streamed(response) if stream else self.whole(response)
            if self.fault == "leaves it open":
                answer = unstoppable(answer)
            if self.fault == "holds back":
                for chunk in [chunk async for chunk in answer]:
                    yield chunk
            async for chunk in answer:
                yield chunk
        except httpx.TimeoutException as error:
            raise Timeout(f"{self.url} is silent.") from error
        except httpx.RemoteProtocolError as error:
            raise Interrupted("The connection broke.") from error
        except httpx.TransportError as error:
            cut = response is not None
            raise (Interrupted if cut else TransportError)(f"{self.url} can't be reached, or no longer.") from error
        finally:
            if self.fault == "leaves it open":
                LEFT_OPEN.append((client, response))
            else:
                # A cancellation may arrive while the connection closes.
                await asyncio.shield(close(response, client))

    async def streamed(self, response):
        """Yield the chunks, line by line."""
        async for line in response.aiter_lines():
            if not line.endswith("}") and self.fault != "takes any end":
                raise Interrupted("The answer ends within a line.")
            said = self.read(line)
            if "finish" in said:
                yield chunk_of(said)
                return
            if said.get("text"):
                yield chunk_of(said)
        if self.fault != "takes any end":
            raise Interrupted("The answer has no end.")

    async def whole(self, response):
        """Yield the whole answer."""
        yield chunk_of(self.read(await response.aread()))

    def read(self, line):
        """Return a line's document, or raise the error in it."""
        try:
            said = json.loads(line)
        except ValueError:
            raise ProtocolError("This is no JSON.", frame=line[:100].encode()) from None
        if "error" in said:
            raise ProviderError(said["error"]["message"])
        return said

    def refused(self, status, headers, body):
        """Return the error for an HTTP status."""
        kind = ProviderError if self.fault == "knows one error" else ProviderError.class_for_status(status)
        text = body.decode() if self.fault == "tells its key" else body.decode().replace(self.key, "***")
        wait = headers.get("retry-after")
        return kind(
            text, status=status, body=text, retry_after=float(wait) if wait else None, retryable=status >= 500 or None
        )


LEFT_OPEN = []


async def unstoppable(answer):
    """Read the answer in a task that is never cancelled."""
    chunks = asyncio.Queue()

    async def read():
        async for chunk in answer:
            chunks.put_nowait(chunk)
        chunks.put_nowait(None)

    LEFT_OPEN.append(asyncio.create_task(read()))
    while (chunk := await chunks.get()) is not None:
        yield chunk


async def close(response, client):
    """Close both."""
    if response is not None:
        await response.aclose()
    await client.aclose()


def chunk_of(said):
    """Return a document as a chunk."""
    counts = said.get("usage")
    return rxllm.Chunk(
        said.get("text", ""),
        usage=counts and rxllm.Usage(input_tokens=counts[0], output_tokens=counts[1]),
        finish_reason=said.get("finish"),
    )


def line(**said):
    """Return a document with its newline."""
    return json.dumps(said, ensure_ascii=False).encode() + b"\n"


class BirdContract(ProviderContract):
    """The provider and its protocol for the contract."""

    content_type = "application/x-ndjson"
    patience = 2.0
    fault = ""

    def provider(self, url):
        """Return the provider for a URL."""
        return Bird(url, self.key, fault=self.fault)

    def impatient(self, url, seconds):
        """Return the provider with a timeout."""
        return Bird(url, self.key, seconds, fault=self.fault)

    def stream(self, text, *, usage=None, finish="stop"):
        """One line per piece."""
        return [*(line(text=piece) for piece in text), line(finish=finish, usage=usage)]

    def whole(self, text, *, usage=None, finish="stop"):
        """One line."""
        return line(text="".join(text), finish=finish, usage=usage)

    def error_frame(self, message):
        """An error as a line."""
        return self.error_body(500, message) + b"\n"


@frozen
class Echo(rxllm.LLM):
    """Answers with the prompt word by word, with a fault on request."""

    fault: str = ""
    endless: object = field(factory=itertools.count, eq=False)

    def __call__(self, prompt, /):
        """Answer; the second call does not belong to the first."""
        answer = super().__call__(prompt)
        return answer.pipe(ops.concat(answer.pipe(ops.ignore_elements()))) if self.fault == "asks twice" else answer

    async def chunks(self, request):
        """Yield the words."""
        if self.fault == "starts threads":
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        for word in request.text.split():
            yield word
            await asyncio.sleep(0)
            if self.fault == "makes noise":
                yield rxllm.Chunk()
            if self.fault == "never twice the same":
                yield f" {next(self.endless)}"


class EchoContract(LLMContract):
    """The model for the contract."""

    patience = 1.0
    fault = ""

    def create_model(self):
        """Return the model."""
        return Echo(self.fault)
