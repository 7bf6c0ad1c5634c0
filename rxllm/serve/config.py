"""`Config`: the file of ``rxllm serve --config``, read and checked.

A secret stands in the file only as the name of an environment variable: ``key = {env = "ALICES_KEY"}``.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta, Struct

from ..misuse import MisuseError

__all__ = [
    "BackendConfig",
    "BudgetConfig",
    "CacheConfig",
    "CallerConfig",
    "Config",
    "LimitsConfig",
    "ModelConfig",
    "Secret",
    "TLSConfig",
    "revised",
    "with_secrets",
]

Positive = Annotated[int, Meta(gt=0)]
_SECRET = re.compile("key|token$|secret|password|authorization", re.IGNORECASE)
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")


class _Table(Struct, forbid_unknown_fields=True):
    """A table of the file. An unknown name in it is an error."""


class Secret(_Table):
    """A secret: the name of the environment variable that has it."""

    env: str

    def read(self) -> str:
        """Return the secret, without the white space around it.

        Raises:
            MisuseError: the variable is not set.
        """
        secret = os.environ.get(self.env, "").strip()
        if not secret:
            raise MisuseError(
                f"The environment variable {self.env} is not set, but the configuration takes a secret from it."
            )
        return secret


class LimitsConfig(_Table):
    """The arguments of a `Limiter`."""

    concurrency: int | None = None
    requests_per_minute: int | None = None
    requests_per_second: float | None = None
    tokens_per_minute: int | None = None
    burst: int | None = None
    max_wait: float | None = None


class CacheConfig(_Table):
    """Where answers are kept: in the file `path`, else in memory. Callers share answers only if `shared`."""

    path: str | None = None
    size: Positive = 1024
    shared: bool = False


class BudgetConfig(_Table):
    """The limits of a `Budget`."""

    tokens: Positive | None = None
    cost: Annotated[float, Meta(gt=0)] | None = None
    period: Literal["day", "month"] = "day"


class BackendConfig(_Table):
    """A model of a vendor."""

    model: str
    api_key: Secret | None = None
    base_url: str | None = None
    options: dict[str, Any] = {}


class ModelConfig(BackendConfig):
    """A served model: a vendor's model, and those that answer when it fails."""

    fallbacks: list[str | BackendConfig] = []
    limits: LimitsConfig | None = None
    cache: CacheConfig | None = None
    budget: BudgetConfig | None = None

    def backends(self) -> list[BackendConfig]:
        """Return the vendors' models, in the order in which they are asked."""
        return [self, *(BackendConfig(model=each) if isinstance(each, str) else each for each in self.fallbacks)]


class CallerConfig(_Table):
    """A caller: the key, and what the caller may use. Without `models` these are all."""

    key: Secret
    models: list[str] | None = None
    limits: LimitsConfig | None = None
    budget: BudgetConfig | None = None


class TLSConfig(_Table):
    """The files of the certificate and of its private key."""

    cert: str
    key: str


class Config(_Table):
    """The whole file. See the how-to page for each name.

    Attributes:
        models: the models, by the names that clients send.
        callers: the callers, by name.
        auth: whether a server that other machines can reach needs callers with keys.
        budgets: the file in which budgets are counted.
        chat: whether there is a chat page at ``/``, and ``/api/chat``.
        usage: whether a stream ends with its usage only when the client asks for it, or always.
        grace: the seconds that open answers get after SIGTERM.
        max_concurrency: answers at the same time; a further request gets the status 429.
        allowed_hosts: the host names under which the server answers; by default those of the own machine if it listens
            there, else all.
        cors: the origins of the web pages that may ask.
    """

    models: dict[str, ModelConfig]
    callers: dict[str, CallerConfig] = {}
    auth: bool = True
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    tls: TLSConfig | None = None
    budgets: str = "budgets.sqlite"
    chat: bool = True
    usage: Literal["asked", "always"] = "asked"
    grace: Annotated[float, Meta(ge=0)] = 10.0
    max_concurrency: Positive = 1000
    allowed_hosts: list[str] | None = None
    cors: list[str] = []

    @classmethod
    def read(cls, path: str | Path) -> Config:
        """Return the configuration in a TOML file.

        Raises:
            MisuseError: the file cannot be read, or a name or a value in it is wrong.
        """
        try:
            config = msgspec.toml.decode(Path(path).read_bytes(), type=cls)
        except OSError as error:
            raise MisuseError(f"The configuration {str(path)!r} cannot be read: {error.strerror}.") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MisuseError(f"The configuration {str(path)!r} is wrong. {_plain(str(error))}") from None
        config.check()
        return config

    def check(self) -> None:
        """Check what the types cannot say.

        Raises:
            MisuseError: the configuration contradicts itself, or leaves the models open to other machines.
        """
        if not self.models:
            raise MisuseError(
                "The configuration has no models. Add one, as in [models.fast] model = 'openai:gpt-5-mini'."
            )
        for path in () if self.tls is None else (self.tls.cert, self.tls.key):
            if not Path(path).is_file():
                raise MisuseError(f"There is no file {path!r}, which the configuration names for TLS.")
        for name, caller in self.callers.items():
            for model in caller.models or ():
                if model not in self.models:
                    served = ", ".join(sorted(self.models))
                    raise MisuseError(f"The caller {name!r} may use the model {model!r}, but the models are: {served}.")
        if not self.callers and self.auth and not _is_loopback(self.host):
            raise MisuseError(
                f"Every program that reaches {self.host} could use these models at your cost. Give each caller a key "
                "(--key-env NAME, or [callers.NAME] in the configuration), or turn keys off (--no-auth; auth = false)."
            )

    def keys(self) -> Mapping[str, str] | None:
        """Return the keys of the callers, by name; None if there are no callers.

        Raises:
            MisuseError: a key is missing, or two callers have the same.
        """
        keys = {name: caller.key.read() for name, caller in self.callers.items()}
        if len(set(keys.values())) < len(keys):
            raise MisuseError("Two callers have the same key, so the server could not tell them apart.")
        return keys or None

    def hosts(self) -> list[str]:
        """Return the host names that count.

        A page that a browser loaded under another name for this address must not ask (DNS rebinding).
        """
        if self.allowed_hosts is not None:
            return self.allowed_hosts
        return [*_LOCAL_HOSTS] if _is_loopback(self.host) else ["*"]


def with_secrets(options: Any, name: str = "options") -> Any:
    """Return options of a provider, with the secrets in the place of ``{env = "NAME"}``.

    Raises:
        MisuseError: a secret stands in the file, or its variable is not set.
    """
    match options:
        case {"env": str(variable), **others} if not others:
            return Secret(env=variable).read()
        case dict():
            inner = cast("dict[str, Any]", options)
            return {field: with_secrets(value, field) for field, value in inner.items()}
        case str() if _SECRET.search(name):
            raise MisuseError(
                f"The option {name!r} is a secret, which must not stand in the file. Write the name of an environment "
                f"variable: {name} = {{env = 'NAME'}}."
            )
        case _:
            return options


def revised(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return a configuration with some values changed.

    Raises:
        MisuseError: a value is out of its range.
    """
    try:
        return msgspec.convert({**msgspec.structs.asdict(config), **changes}, Config, from_attributes=True)
    except msgspec.ValidationError as error:
        raise MisuseError(f"An option is wrong. {_plain(str(error))}") from None


def _is_loopback(host: str) -> bool:
    """Return whether only programs of this machine reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _plain(error: str) -> str:
    """Return an error of the decoder, with a hint for a secret in the file."""
    if "Expected `object" in error and ("api_key" in error or ".key" in error):
        return (
            "A secret must be the name of an environment variable, as in api_key = {env = 'OPENAI_API_KEY'}: " + error
        )
    return error if error.endswith(".") else f"{error}."
