"""``rxllm serve``: models behind OpenAI's protocol, in one command."""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..misuse import MisuseError
from .console import Parser, report

if TYPE_CHECKING:
    from ..serve.config import Config, ModelConfig

__all__ = ["run"]


def run(words: Sequence[str]) -> int:
    """Serve until SIGINT or SIGTERM, and return the exit code."""
    options = _parser().parse_args(words)
    try:
        from ..serve.gateway import gateway
        from ..serve.program import serve
    except ImportError as error:  # it names the extra
        raise MisuseError(str(error)) from None
    config = _config(options)
    application = gateway(config)
    _log_requests()
    scheme = "http" if config.tls is None else "https"
    try:
        listener = socket.create_server((config.host, config.port), family=_family(config.host))
    except OSError as error:
        raise MisuseError(f"The server cannot listen on {config.host}:{config.port}: {error.strerror}.") from None
    with listener:
        host = f"[{config.host}]" if ":" in config.host else config.host
        address = f"{scheme}://{host}:{listener.getsockname()[1]}"
        page = f", a chat page on {address}/" if config.chat else ""
        report(f"serving on {address}/v1{page}; end with Ctrl-C")
        asyncio.run(serve(application, listener, config))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="rxllm serve",
        description="Serve models over OpenAI's protocol: /v1/chat/completions, /v1/responses, /v1/completions.",
        epilog="Each caller sends its key as 'Authorization: Bearer KEY'.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "-m",
        "--model",
        metavar="[NAME=]MODEL",
        action="append",
        default=[],
        help="a model such as openai:gpt-5-mini, under a name for clients; several times for several models",
    )
    source.add_argument(
        "--config", metavar="FILE", help="a TOML file with models, fallbacks, limits, caches, budgets and callers"
    )
    parser.add_argument("--host", help="the address to listen on; 127.0.0.1 by default")
    parser.add_argument("--port", type=int, help="the port; 8000 by default, 0 for any free port")
    parser.add_argument(
        "--key-env", metavar="NAME", action="append", default=[], help="an environment variable with a caller's key"
    )
    parser.add_argument("--no-auth", action="store_true", help="serve callers without a key beyond this machine, too")
    parser.add_argument(
        "--allowed-host", metavar="HOST", action="append", help="a Host header to accept; '*' accepts all"
    )
    parser.add_argument("--tls-cert", metavar="FILE", help="the certificate, with --tls-key")
    parser.add_argument("--tls-key", metavar="FILE", help="the private key of the certificate")
    parser.add_argument(
        "--grace", metavar="SECONDS", type=float, help="how long open answers may go on after SIGTERM; 10 by default"
    )
    return parser


def _config(options: argparse.Namespace) -> Config:
    """Return the configuration: the file, or that of the options; the options for the server win over the file.

    Raises:
        MisuseError: the options or the file contradict themselves, or leave the models open to other machines.
    """
    from ..serve.config import CallerConfig, Config, Secret, TLSConfig, revised

    server: dict[str, Any] = {
        "host": options.host,
        "port": options.port,
        "grace": options.grace,
        "allowed_hosts": options.allowed_host,
        "auth": False if options.no_auth else None,
        "callers": {name: CallerConfig(key=Secret(env=name)) for name in options.key_env} or None,
    }
    if (options.tls_cert is None) != (options.tls_key is None):
        raise MisuseError("--tls-cert and --tls-key belong together. Pass both, or none.")
    if options.tls_cert is not None:
        server["tls"] = TLSConfig(cert=options.tls_cert, key=options.tls_key)
    if options.config is not None and options.key_env:
        raise MisuseError("With --config the callers are in the file: [callers.NAME] key = {env = 'NAME'}.")
    models = dict(map(_named_model, options.model))
    base = Config(models=models) if options.config is None else Config.read(options.config)
    return revised(base, {name: value for name, value in server.items() if value is not None})


def _named_model(text: str) -> tuple[str, ModelConfig]:
    from ..serve.config import ModelConfig

    name, separator, spec = text.partition("=")
    return (name, ModelConfig(model=spec)) if separator else (text, ModelConfig(model=text))


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _log_requests() -> None:
    """Write the access log to stderr, unless the program that runs this has set up its own logging."""
    logger = logging.getLogger("rxllm.serve.access")
    if not logging.getLogger().handlers and not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
