"""The environment's proxy for an address."""

from __future__ import annotations

import ipaddress
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from attrs import field, frozen

from ..misuse import MisuseError

__all__ = ["Proxy", "is_loopback", "proxy_for"]


@frozen
class Proxy:
    """An HTTP proxy.

    Attributes:
        url: the proxy's address, without credentials.
        authorization: the value of the header ``proxy-authorization``; None if the address has no credentials.
    """

    url: str
    authorization: str | None = field(default=None, repr=False)


def proxy_for(scheme: str, host: str, port: int) -> Proxy | None:
    """Return the environment's proxy for an address; None for a direct connection.

    The variable of the scheme (``HTTPS_PROXY``, ``HTTP_PROXY``) wins over ``ALL_PROXY``. ``NO_PROXY`` exempts hosts,
    domains and networks. Without variables, the settings of macOS and Windows apply, as `urllib` reads them.

    Raises:
        MisuseError: rxllm cannot use the proxy in the variable for this address.
    """
    proxies = {name.lower(): text.strip() for name, text in getproxies().items()}
    name = scheme if proxies.get(scheme) else "all"
    setting = proxies.get(name)
    if not setting or (name == "all" and is_loopback(host)) or _is_exempt(host, port, proxies):
        return None
    if "://" not in setting:
        setting = f"http://{setting}"
    try:
        parts = urlsplit(setting)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, usable = urlsplit(""), False
    if not usable:
        raise MisuseError(
            f"The variable {name.upper()}_PROXY must be like http://host:port to reach {host}. Put the host into "
            "NO_PROXY for a direct connection, or pass client=lambda: httpx.AsyncClient(proxy=…) for another kind of "
            "proxy."
        )
    user, at, place = parts.netloc.rpartition("@")
    username, _, password = user.partition(":")
    login = f"{unquote(username)}:{unquote(password)}".encode()
    authorization = f"Basic {b64encode(login).decode()}" if at else None
    return Proxy(f"{parts.scheme}://{place}", authorization)


def is_loopback(host: str) -> bool:
    """Return whether a host name or address means this machine."""
    host = host.strip("[]").rstrip(".").lower()
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def _is_exempt(host: str, port: int, proxies: Mapping[str, str]) -> bool:
    """Return whether ``NO_PROXY`` lists the host; `urllib` supports names and domains, this function adds networks."""
    bare = host.strip("[]")
    exempt = [entry.strip() for entry in proxies.get("no", "").split(",")]
    if bare in (entry.strip("[]") for entry in exempt):
        return True
    with suppress(ValueError):
        address = ipaddress.ip_address(bare)
        for entry in exempt:
            with suppress(ValueError):
                if address in ipaddress.ip_network(entry, strict=False):
                    return True
    return bool(proxy_bypass(f"{host}:{port}"))
