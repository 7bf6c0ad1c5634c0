"""The servers that speak OpenAI's protocol: one row each, with what they do differently.

Sources: the servers' own pages on their OpenAI-compatible endpoints. A program adds a row with `register_provider`.

It is one room because the table and the few functions that read its columns are changed together.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from attrs import field, frozen

from ..misuse import MisuseError, must_be, shown
from ..values.parts import FilePart
from ..values.request import Request
from ..values.tools import ResponseSchema

__all__ = [
    "HOUSES",
    "OPENAI",
    "House",
    "choice_of",
    "fitted",
    "house_at",
    "house_named",
    "limit_of",
    "refuse_lacking",
    "register_provider",
]

LACKS = (
    "tools", "tool_choice", "required", "parallel_tool_calls", "stop_sequences", "seed", "top_k", "json_schema",
    "files", "audio", "images", "models",
)  # fmt: skip
"""What a server may lack: a parameter, ``required`` as a tool_choice, a kind of part, or the list of its models."""


def _names(given: str | Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


@frozen(kw_only=True)
class House:
    """A server that speaks OpenAI's protocol.

    Attributes:
        name: what `rxllm.model` calls it.
        base_url: its address; ``{NAME}`` in it stands for an environment variable.
        keys: the environment variables of its key, the first that is set counts.
        hosts: the ends of its host names, by which it is known where only a `base_url` is given.
        provider: its name by OpenTelemetry's conventions.
        needs_key: whether it answers nobody without a key.
        header: of the key; ``authorization`` takes it as a bearer token.
        limit: its field for `max_tokens`.
        seed: its field for `seed`.
        effort: its field for `effort`; ``reasoning`` is an object with it.
        required: its word for the tool_choice ``required``.
        system_role: its word for the role of the system.
        nulls: whether it takes null as the content of a message that calls tools.
        short_ids: whether ids of calls must have nine letters and digits.
        lacks: what it has not; a request for that is refused before it is sent.
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
    effort: Literal["reasoning_effort", "reasoning"] = "reasoning_effort"
    required: str = "required"
    system_role: Literal["system", "developer"] = "system"
    nulls: bool = True
    short_ids: bool = False
    lacks: tuple[str, ...] = field(
        default=(),
        converter=_names,
        validator=must_be(f"of {', '.join(LACKS)}", lambda lacks: set(lacks) <= set(LACKS)),
    )

    @property
    def maker(self) -> str:
        """Whose answers may come back to this server with all that they carry."""
        return self.provider or self.name

    def address(self) -> str:
        """Where to ask.

        Raises:
            MisuseError: an environment variable of the address is not set.
        """

        def value(variable: re.Match[str]) -> str:
            found = os.environ.get(variable[1], "").strip().rstrip("/")
            if not found:
                raise MisuseError(f"The address of {self.name} is not known: set {variable[1]}, or give base_url=….")
            return found

        return re.sub(r"\{(\w+)\}", value, self.base_url).rstrip("/")


def _local(name: str, port: int, **quirks: Any) -> House:
    return House(name=name, base_url=f"http://localhost:{port}/v1", needs_key=False, **quirks)


OPENAI = House(
    name="openai",
    base_url="https://api.openai.com/v1",
    keys="OPENAI_API_KEY",
    hosts="api.openai.com",
    limit="max_completion_tokens",
    lacks="top_k",
)

HOUSES: dict[str, House] = {
    house.name: house
    for house in (
        OPENAI,
        House(
            name="azure",
            base_url="{AZURE_OPENAI_ENDPOINT}/openai/v1",
            keys="AZURE_OPENAI_API_KEY",
            hosts=("openai.azure.com", "cognitiveservices.azure.com"),
            provider="azure.ai.openai",
            header="api-key",
            limit="max_completion_tokens",
            lacks=("top_k", "files"),
        ),
        House(
            name="azure-inference",
            base_url="{AZURE_AI_ENDPOINT}/openai/v1",
            keys="AZURE_AI_API_KEY",
            hosts="services.ai.azure.com",
            provider="azure.ai.inference",
            header="api-key",
            limit="max_completion_tokens",
        ),
        House(
            name="groq",
            base_url="https://api.groq.com/openai/v1",
            keys="GROQ_API_KEY",
            hosts="groq.com",
            nulls=False,
            lacks=("top_k", "files"),
        ),
        House(
            name="deepseek",
            base_url="https://api.deepseek.com",
            keys="DEEPSEEK_API_KEY",
            hosts="deepseek.com",
            lacks=("json_schema", "seed", "images", "files", "audio"),
        ),
        House(name="xai", base_url="https://api.x.ai/v1", keys="XAI_API_KEY", hosts="x.ai", provider="x_ai"),
        House(
            name="openrouter",
            base_url="https://openrouter.ai/api/v1",
            keys="OPENROUTER_API_KEY",
            hosts="openrouter.ai",
            effort="reasoning",
        ),
        House(
            name="together",
            base_url="https://api.together.xyz/v1",
            keys="TOGETHER_API_KEY",
            hosts=("together.xyz", "together.ai"),
            lacks="files",
        ),
        House(
            name="perplexity",
            base_url="https://api.perplexity.ai",
            keys="PERPLEXITY_API_KEY",
            hosts="perplexity.ai",
            lacks=("tools", "tool_choice", "parallel_tool_calls", "stop_sequences", "seed", "audio", "models"),
        ),
        House(
            name="fireworks",
            base_url="https://api.fireworks.ai/inference/v1",
            keys="FIREWORKS_API_KEY",
            hosts="fireworks.ai",
            required="any",
            lacks="files",
        ),
        House(
            name="cerebras",
            base_url="https://api.cerebras.ai/v1",
            keys="CEREBRAS_API_KEY",
            hosts="cerebras.ai",
            limit="max_completion_tokens",
            lacks=("images", "files", "audio"),
        ),
        House(
            name="huggingface",
            base_url="https://router.huggingface.co/v1",
            keys=("HF_TOKEN", "HUGGINGFACE_API_KEY"),
            hosts="huggingface.co",
            lacks="files",
        ),
        House(
            name="moonshot",
            base_url="https://api.moonshot.ai/v1",
            keys=("MOONSHOT_API_KEY", "MOONSHOTAI_API_KEY"),
            hosts=("moonshot.ai", "moonshot.cn"),
            lacks=("required", "files", "audio"),
        ),
        House(
            name="zai",
            base_url="https://api.z.ai/api/paas/v4",
            keys="ZAI_API_KEY",
            hosts="z.ai",
            lacks=("files", "audio"),
        ),
        House(
            name="alibaba",
            base_url="https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
            keys=("DASHSCOPE_API_KEY", "ALIBABA_API_KEY"),
            hosts="aliyuncs.com",
            lacks="files",
        ),
        House(
            name="mistral",
            base_url="https://api.mistral.ai/v1",
            keys="MISTRAL_API_KEY",
            hosts="mistral.ai",
            provider="mistral_ai",
            seed="random_seed",
            required="any",
            short_ids=True,
            lacks="top_k",
        ),
        House(
            name="gemini-compatible",
            base_url="https://generativelanguage.googleapis.com/v1beta/openai",
            keys=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
            hosts="googleapis.com",
            provider="gcp.gemini",
        ),
        _local("vllm", 8000, keys="VLLM_API_KEY"),
        _local("sglang", 30000),
        _local("llama.cpp", 8080),
        _local("lmstudio", 1234, keys="LM_STUDIO_API_KEY"),
        _local("ollama", 11434, keys="OLLAMA_API_KEY", lacks="tool_choice"),
    )
}
"""By their names; `register_provider` adds to them."""


def register_provider(name: str, base_url: str, keys: str | Iterable[str] = (), **quirks: Any) -> None:
    """Add a server that speaks OpenAI's protocol, so that ``rxllm.model("name:…")`` finds it.

    ::

        rxllm.register_provider("mine", "https://llm.example.com/v1", "MINE_API_KEY")

    Args:
        name: what to call it.
        base_url: its address; ``{NAME}`` in it stands for an environment variable.
        keys: the environment variables of its key; without any it needs none.
        quirks: what it does differently, by the attributes of `rxllm.providers.compatible.House`.

    Raises:
        MisuseError: the name is taken or no name, or there is no such quirk.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_.-]*", name):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise MisuseError(f"A provider's name is in lower case, like 'my-server', not {shown(name)}.")
    if name in HOUSES and HOUSES[name] is not _REGISTERED.get(name):
        raise MisuseError(f"There is a provider {name!r} already; choose another name.")
    quirks.setdefault("needs_key", bool(keys))
    quirks.setdefault("hosts", () if "{" in base_url else (urlsplit(base_url).hostname or "",))
    try:
        house = House(name=name, base_url=base_url, keys=keys, **quirks)
    except TypeError as error:
        raise MisuseError(f"This provider can't be registered: {str(error).partition('() ')[2] or error}.") from None
    HOUSES[name] = _REGISTERED[name] = house
    house_at.cache_clear()


_REGISTERED: dict[str, House] = {}


def house_named(name: str) -> House:
    """The row of a name.

    Raises:
        MisuseError: there is none.
    """
    if name in HOUSES:
        return HOUSES[name]
    import difflib

    near = difflib.get_close_matches(name.lower(), HOUSES, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise MisuseError(f"There is no row for {name!r}: rxllm.register_provider adds one.{hint}")


@functools.lru_cache(256)
def house_at(base_url: str) -> House:
    """The row of an address; a bare one for a server that is not known, named after its host."""
    host = urlsplit(base_url).hostname or ""
    for house in HOUSES.values():
        if any(f".{host}".endswith(f".{end}") for end in house.hosts if end not in ("", "localhost", "127.0.0.1")):
            return house
    return House(name=host, base_url=base_url, keys="OPENAI_API_KEY", needs_key=False)


def refuse_lacking(house: House, request: Request) -> None:
    """Refuse what the server lacks.

    Raises:
        MisuseError: the request asks for something that the server has not.
    """
    for lack in house.lacks:
        if lack == "top_k" and house is OPENAI and request.top_k is not None:
            raise MisuseError("OpenAI's models have no top_k; use top_p, or temperature.")
        if _asks_for(lack, request):
            raise MisuseError(f"{house.name} has no {_SPOKEN.get(lack, lack)}: leave it out, or ask another provider.")


_SPOKEN = {
    "json_schema": "JSON schema for answers (response_format='json' works)",
    "required": "tool_choice that forces a call",
    "files": "place for files in a conversation",
    "audio": "place for sound in a conversation",
    "images": "place for images in a conversation",
}


def _asks_for(lack: str, request: Request) -> bool:
    if lack == "models":
        return False
    if lack == "json_schema":
        return isinstance(request.response_format, ResponseSchema)
    if lack == "tool_choice":
        return request.tool_choice not in (None, "auto")
    if lack == "required":
        return request.tool_choice not in (None, "auto", "none")
    if lack in ("files", "audio", "images"):
        messages = () if isinstance(request.prompt, str) else request.prompt
        return any(
            _kind(part) == lack
            for message in messages
            if message.role == "user"
            for part in message.parts
            if isinstance(part, FilePart)
        )
    return getattr(request, lack) is not None


def _kind(part: FilePart) -> str:
    kind = part.media_type.partition("/")[0]
    return {"audio": "audio", "image": "images"}.get(kind, "files")


def fitted(house: House, turns: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The messages of a conversation in the form that the server takes."""
    plain = house.system_role == "system" and house.nulls and not house.short_ids
    for turn in turns:
        if plain:
            yield turn
            continue
        fit = dict(turn)
        if fit["role"] == "system":
            fit["role"] = house.system_role
        if fit.get("content", "") is None and not house.nulls:
            del fit["content"]
        if house.short_ids:
            if "tool_calls" in fit:
                fit["tool_calls"] = [{**call, "id": _short(call["id"])} for call in fit["tool_calls"]]
            if "tool_call_id" in fit:
                fit["tool_call_id"] = _short(fit["tool_call_id"])
        yield fit


def _short(identity: str) -> str:
    if re.fullmatch("[A-Za-z0-9]{9}", identity):
        return identity
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:9]


def limit_of(house: House, model: str) -> str:
    """The field for the limit of tokens; Azure's deployments of Mistral's models know only the older one."""
    is_other = house.maker.startswith("azure.") and re.match("(?i)(mistral|ministral|codestral)", model)
    return "max_tokens" if is_other else house.limit


def choice_of(house: House, choice: str | Mapping[str, Any] | None) -> str | Mapping[str, Any] | None:
    """Which tool to call, in the server's word; nothing where it has no such field."""
    if "tool_choice" in house.lacks:
        return None
    return house.required if choice == "required" else choice
