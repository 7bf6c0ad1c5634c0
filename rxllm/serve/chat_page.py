"""The chat page: static files, which the browser runs as they are."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["page_routes"]

_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}

_HEADERS = {
    # Only the page's own files run, and only this server is asked: an answer can neither bring code nor call home.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "cache-control": "no-cache",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def page_routes() -> list[Route]:
    """Return the routes of the page: ``/`` and its files under ``/page/``."""
    folder = files("rxllm.serve") / "static"
    contents = {file.name: file.read_bytes() for file in folder.iterdir() if file.name.rpartition(".")[2] in _TYPES}
    tags = {name: f'"{hashlib.sha256(content).hexdigest()[:20]}"' for name, content in contents.items()}

    async def file(http: HTTPRequest) -> Response:
        name = http.path_params.get("name", "index.html")
        if name not in contents:
            return Response(status_code=404)
        headers = {**_HEADERS, "etag": tags[name]}
        if http.headers.get("if-none-match") == tags[name]:
            return Response(status_code=304, headers=headers)
        return Response(contents[name], 200, headers, _TYPES[name.rpartition(".")[2]])

    return [Route("/", file, methods=["GET"]), Route("/page/{name}", file, methods=["GET"])]
