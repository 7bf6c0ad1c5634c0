"""The table of the servers that speak OpenAI's protocol: one row each, with its differences from OpenAI.

The rows follow the servers' own pages on their OpenAI-compatible endpoints. A program adds a row with
`register_provider`.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable
from typing import Any, Literal
from urllib.parse import urlsplit

from attrs import field, frozen

from ..misuse import MisuseError, must_be, shown

__all__ = ["OPENAI", "SERVERS", "Server", "register_provider", "server_at", "server_named", "with_path"]

LACKS = (
    "tools", "tool_choice", "required", "named", "strict", "mixed_strict", "parallel_tool_calls", "stop_sequences",
    "seed", "top_k", "json", "json_schema", "tools_with_format", "forced_while_thinking", "files", "audio", "images",
    "models", "batches",
)  # fmt: skip
"""The features that `lacks` may name.

They are parameters, kinds of parts, the list of models, ``batches`` in OpenAI's form, and: ``required`` and ``named``,
tool choices that force any call or a certain one; ``strict`` tools; ``mixed_strict``, strict tools beside others;
``json`` as the response format; ``tools_with_format``, both in one request; and ``forced_while_thinking``, a forced
call unless ``effort="none"``.
"""


def _names(names: str | Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


@frozen(kw_only=True)
class Server:
    """A server that speaks OpenAI's protocol.

    Attributes:
        name: the provider's name for `rxllm.model`.
        base_url: the address; ``{NAME}`` in it stands for an environment variable.
        keys: the environment variables of the key; the first that is set counts.
        hosts: the ends of the server's host names. A `base_url` with such a host selects this row.
        provider: the server's name in OpenTelemetry's conventions.
        needs_key: whether the server requires a key.
        header: the header of the key; in ``authorization`` the key is a bearer token.
        limit: the server's field for `max_tokens`.
        seed: the server's field for `seed`.
        effort: the server's field for `effort`; ``reasoning`` is an object that contains the effort. With ``thinking``
            an object of this name switches the reasoning off, and with ``enable_thinking`` a false value.
        efforts: the efforts that the server knows; empty if this is unknown.
        reasoning: the field in which the server wants its reasoning back.
        no_reasoning: what the server wants as the reasoning of an answer that has none; None if nothing.
        names: whether the server accepts the names of messages; else they are left out.
        data_uris: whether audio is sent as a data URI.
        without_both: a regular expression for the models that take either tools or a response format.
        stops: the largest number of stop sequences; None if this is unknown.
        without_stop: a regular expression for the models that have no stop sequences.
        required: the server's word for the tool_choice ``required``.
        system_role: the server's word for the system's role.
        alternates: whether the server refuses two messages of one role in a row. They become one.
        nulls: whether the server accepts null as the content of a message with tool calls.
        ids: a regular expression for the call ids that the server accepts; empty if this is unknown.
        pictures: the subtypes of ``image/`` that the server reads; empty if this is unknown.
        stream_options: whether the server accepts ``stream_options``, which request the usage of a stream.
        thinks_apart: whether the server counts the tokens of reasoning beside those of the answer, only in the total.
        schemas: how the server enforces a JSON schema: by OpenAI's strict mode, or by a grammar, which takes more.
        lacks: the features that the server does not have. rxllm refuses a request that needs one of them.
    """

    name: str
    base_url: str
    keys: tuple[str, ...] = field(default=(), converter=_names)
    hosts: tuple[str, ...] = field(default=(), converter=_names)
    provider: str = ""
    needs_key: bool = True
    header: str = "authorization"
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    seed: str = "seed"
    effort: Literal["reasoning_effort", "reasoning", "thinking", "enable_thinking"] = "reasoning_effort"
    efforts: tuple[str, ...] = field(default=(), converter=_names)
    reasoning: Literal["reasoning_content", "reasoning"] = "reasoning_content"
    no_reasoning: str | None = None
    names: bool = True
    data_uris: bool = False
    stops: int | None = None
    without_stop: str = ""
    without_both: str = ""
    required: str = "required"
    system_role: Literal["system", "developer"] = "system"
    alternates: bool = False
    nulls: bool = True
    ids: str = ""
    pictures: tuple[str, ...] = field(default=(), converter=_names)
    stream_options: bool = True
    thinks_apart: bool = False
    schemas: Literal["strict", "grammar"] = "strict"
    lacks: tuple[str, ...] = field(
        default=(),
        converter=_names,
        validator=must_be(f"of {', '.join(LACKS)}", lambda lacks: set(lacks) <= set(LACKS)),
    )

    @property
    def maker(self) -> str:
        """The provider name whose answers this server accepts back with their provider-specific fields."""
        return self.provider or self.name

    def address(self) -> str:
        """Return the address, with the environment variables filled in.

        Raises:
            MisuseError: an environment variable of the address is not set.
        """
        path = self.base_url.rpartition("}")[2] or "/"

        def value(variable: re.Match[str]) -> str:
            found = os.environ.get(variable[1], "").strip().rstrip("/").removesuffix(path)  # some write all of it
            if not found:
                raise MisuseError(f"The address of {self.name} is unknown. Set {variable[1]}, or pass base_url=….")
            return found

        return re.sub(r"\{(\w+)\}", value, self.base_url).rstrip("/")


def _local(name: str, port: int, **quirks: Any) -> Server:
    return Server(name=name, base_url=f"http://localhost:{port}/v1", needs_key=False, schemas="grammar", **quirks)


_PICTURES = ("png", "jpeg", "webp", "gif")
_TOOLS = ("tools", "tool_choice", "parallel_tool_calls")
_OPENAI_IDS = "(?s).{1,40}"  # https://github.com/BerriAI/litellm/issues/11392

OPENAI = Server(
    name="openai",
    base_url="https://api.openai.com/v1",
    keys="OPENAI_API_KEY",
    hosts="api.openai.com",
    limit="max_completion_tokens",
    stops=4,
    ids=_OPENAI_IDS,
    pictures=_PICTURES,
    lacks="top_k",
)

SERVERS: dict[str, Server] = {
    server.name: server
    for server in (
        OPENAI,
        Server(
            name="azure",
            base_url="{AZURE_OPENAI_ENDPOINT}/openai/v1",
            keys="AZURE_OPENAI_API_KEY",
            hosts=("openai.azure.com", "cognitiveservices.azure.com"),
            provider="azure.ai.openai",
            header="api-key",
            limit="max_completion_tokens",
            ids=_OPENAI_IDS,
            pictures=_PICTURES,
            lacks=("top_k", "files"),
        ),
        Server(
            name="azure-inference",
            base_url="{AZURE_AI_ENDPOINT}/openai/v1",
            keys="AZURE_AI_API_KEY",
            hosts="services.ai.azure.com",
            provider="azure.ai.inference",
            header="api-key",
            limit="max_completion_tokens",
            ids=_OPENAI_IDS,
        ),
        Server(
            name="groq",
            base_url="https://api.groq.com/openai/v1",
            keys="GROQ_API_KEY",
            hosts="groq.com",
            reasoning="reasoning",
            nulls=False,
            lacks=("top_k", "tools_with_format", "files"),
        ),
        Server(
            name="deepseek",
            base_url="https://api.deepseek.com",
            keys="DEEPSEEK_API_KEY",
            hosts="deepseek.com",
            effort="thinking",
            no_reasoning="",
            lacks=("json_schema", "forced_while_thinking", "seed", "images", "files", "audio", "batches"),
        ),
        Server(
            name="xai",
            base_url="https://api.x.ai/v1",
            keys="XAI_API_KEY",
            hosts="x.ai",
            provider="x_ai",
            names=False,
            pictures=("jpeg", "png"),
            without_stop=r"grok-(3-mini|code|[4-9])(?!.*non-reasoning)",
            thinks_apart=True,
            lacks=("strict", "batches"),
        ),
        Server(
            name="openrouter",
            base_url="https://openrouter.ai/api/v1",
            keys="OPENROUTER_API_KEY",
            hosts="openrouter.ai",
            effort="reasoning",
            reasoning="reasoning",
            lacks="batches",
        ),
        Server(
            name="together",
            base_url="https://api.together.xyz/v1",
            keys="TOGETHER_API_KEY",
            hosts=("together.xyz", "together.ai"),
            lacks=("files", "batches"),
        ),
        Server(
            name="perplexity",
            base_url="https://api.perplexity.ai",
            keys="PERPLEXITY_API_KEY",
            hosts="perplexity.ai",
            alternates=True,
            lacks=(*_TOOLS, "stop_sequences", "seed", "json", "files", "audio", "models", "batches"),
        ),
        Server(
            name="fireworks",
            base_url="https://api.fireworks.ai/inference/v1",
            keys="FIREWORKS_API_KEY",
            hosts="fireworks.ai",
            required="any",
            efforts=("none", "low", "medium", "high"),
            lacks=("tools_with_format", "files", "batches"),
        ),
        Server(
            name="cerebras",
            base_url="https://api.cerebras.ai/v1",
            keys="CEREBRAS_API_KEY",
            hosts="cerebras.ai",
            limit="max_completion_tokens",
            reasoning="reasoning",
            lacks=("mixed_strict", "images", "files", "audio"),
        ),
        Server(
            name="huggingface",
            base_url="https://router.huggingface.co/v1",
            keys=("HF_TOKEN", "HUGGINGFACE_API_KEY"),
            hosts="huggingface.co",
            lacks=("files", "batches"),
        ),
        Server(
            name="moonshot",
            base_url="https://api.moonshot.ai/v1",
            keys=("MOONSHOT_API_KEY", "MOONSHOTAI_API_KEY"),
            hosts=("moonshot.ai", "moonshot.cn"),
            no_reasoning=" ",
            lacks=("required", "named", "files", "audio"),
        ),
        Server(
            name="zai",
            base_url="https://api.z.ai/api/paas/v4",
            keys="ZAI_API_KEY",
            hosts="z.ai",
            effort="thinking",
            names=False,
            stops=1,
            stream_options=False,
            lacks=("tool_choice", "strict", "parallel_tool_calls", "seed", "json_schema", "files", "audio", "batches"),
        ),
        Server(
            name="alibaba",
            base_url="https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
            keys=("DASHSCOPE_API_KEY", "ALIBABA_API_KEY"),
            hosts="aliyuncs.com",
            effort="enable_thinking",
            data_uris=True,
            lacks="files",
        ),
        Server(
            name="mistral",
            base_url="https://api.mistral.ai/v1",
            keys="MISTRAL_API_KEY",
            hosts="mistral.ai",
            provider="mistral_ai",
            seed="random_seed",
            required="any",
            ids="[A-Za-z0-9]{9}",
            stream_options=False,
            lacks="batches",
        ),
        Server(
            name="gemini-compatible",
            base_url="https://generativelanguage.googleapis.com/v1beta/openai",
            keys=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
            hosts="googleapis.com",
            provider="gcp.gemini",
            without_both=r"(.*/)?gemini-[12]\b",
            thinks_apart=True,
            lacks="batches",
        ),
        _local("vllm", 8000, keys="VLLM_API_KEY"),
        _local("sglang", 30000),
        _local("llama.cpp", 8080),
        _local("lmstudio", 1234, keys="LM_STUDIO_API_KEY", lacks=("json", "named")),
        _local("ollama", 11434, keys="OLLAMA_API_KEY", lacks="tool_choice"),
    )
}
"""The rows by name. `register_provider` adds rows."""


def register_provider(name: str, base_url: str, keys: str | Iterable[str] = (), **quirks: Any) -> None:
    """Add a server that speaks OpenAI's protocol, so that ``rxllm.model("name:…")`` finds it.

    ::

        rxllm.register_provider("mine", "https://llm.example.com/v1", "MINE_API_KEY")

    Args:
        name: the provider's name for `rxllm.model`.
        base_url: the address; ``{NAME}`` in it stands for an environment variable.
        keys: the environment variables of the key. Without variables, the server needs no key.
        quirks: the differences from OpenAI, as attributes of `rxllm.providers.compatible.Server`.

    Raises:
        MisuseError: the name is malformed or taken, or a quirk is unknown.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_.-]*", name):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise MisuseError(f"A provider's name must be in lower case, like 'my-server', not {shown(name)}.")
    if name in SERVERS and SERVERS[name] is not _REGISTERED.get(name):
        raise MisuseError(f"There already is a provider {name!r}. Choose another name.")
    quirks.setdefault("needs_key", bool(keys))
    quirks.setdefault("hosts", () if "{" in base_url else (urlsplit(base_url).hostname or "",))
    try:
        server = Server(name=name, base_url=base_url, keys=keys, **quirks)
    except TypeError as error:
        raise MisuseError(f"This provider can't be registered: {str(error).partition('() ')[2] or error}.") from None
    SERVERS[name] = _REGISTERED[name] = server
    server_at.cache_clear()
    with_path.cache_clear()


_REGISTERED: dict[str, Server] = {}


def server_named(name: str) -> Server:
    """Return the row with this name.

    Raises:
        MisuseError: the table has no such row. The message names a similar one.
    """
    if name in SERVERS:
        return SERVERS[name]
    import difflib

    near = difflib.get_close_matches(name.lower(), SERVERS, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise MisuseError(f"rxllm knows no server {name!r}. Add it with rxllm.register_provider.{hint}")


@functools.lru_cache(256)
def server_at(base_url: str) -> Server:
    """Return the row for an address. An unknown server gets a row without quirks, named after its host."""
    host = urlsplit(base_url).hostname or ""
    for server in SERVERS.values():
        if any(f".{host}".endswith(f".{end}") for end in server.hosts if end not in ("", "localhost", "127.0.0.1")):
            return server
    return Server(name=host, base_url=base_url, keys="OPENAI_API_KEY", needs_key=False)


@functools.lru_cache(256)
def with_path(base_url: str) -> str:
    """Return an address without slashes at its end. The bare host of a known server gets the path of its row."""
    url, parts = base_url.rstrip("/"), urlsplit(base_url)
    if parts.path.strip("/"):
        return url
    row = re.sub(r"\{\w+\}", url, server_at(url).base_url)  # such as {AZURE_OPENAI_ENDPOINT}/openai/v1
    return url + urlsplit(row).path if urlsplit(row).hostname == parts.hostname else url
