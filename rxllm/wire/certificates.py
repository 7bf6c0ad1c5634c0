"""The trusted certificates for HTTPS connections."""

from __future__ import annotations

import functools
import os
import ssl
from pathlib import Path

from ..misuse import MisuseError

__all__ = ["certificates"]


def certificates() -> ssl.SSLContext:
    """Return httpx's default SSL context: from ``SSL_CERT_FILE``, else ``SSL_CERT_DIR``, else the package certifi.

    Raises:
        MisuseError: the variable names a file or directory that cannot be used.
    """
    return _context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@functools.lru_cache(8)
def _context(file: str | None, directory: str | None) -> ssl.SSLContext:
    import httpx

    name, path = ("SSL_CERT_FILE", file) if file else ("SSL_CERT_DIR", directory)
    try:
        if path and not file and not Path(path).is_dir():
            raise NotADirectoryError(None, "it is not a directory")
        return httpx.create_ssl_context()
    except OSError as error:  # includes ssl.SSLError
        if not path:
            raise
        reason = error.strerror or str(error)
        raise MisuseError(
            f"The certificates in {path!r}, which the variable {name} names, cannot be read: {reason}. Correct the "
            "variable, or unset it to use the certificates of the package certifi."
        ) from error
