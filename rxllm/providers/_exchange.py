"""`Exchange`: the HTTP requests by which a provider gets one answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from reactivex import Observable

from ..errors import BadRequest
from ..values.request import Request
from ..wire.http import Signing, address
from ..wire.timeouts import Timeouts
from ._decoding import Decoder
from ._documents import encoded
from ._secrets import Secrets

if TYPE_CHECKING:
    from ._http import HTTPProvider

__all__ = ["Exchange"]


class Exchange:
    """The request for an answer, and the further requests that it may need.

    It is one object with methods, because each function within a function would be five objects for the garbage
    collector.

    Attributes:
        fields: the body of the request.
    """

    __slots__ = ("fields", "headers", "llm", "request", "secrets", "signing", "timeouts", "url")

    def __init__(
        self,
        llm: HTTPProvider,
        request: Request,
        url: str,
        headers: Mapping[str, str],
        fields: dict[str, Any],
        timeouts: Timeouts,
    ) -> None:
        self.llm = llm
        self.request = request
        self.url = url
        self.headers = headers
        self.fields = fields
        self.timeouts = timeouts
        self.signing: Signing | None = llm._signing(request)  # pyright: ignore[reportPrivateUsage]
        _, _, credentials = address(url)
        self.secrets = Secrets(
            request,
            {**headers, **credentials} if credentials else headers,
            llm.headers or (),
            keeps_causes=llm._KEEPS_CAUSES,  # pyright: ignore[reportPrivateUsage]
        )

    def answer(self) -> Observable[bytes]:
        """Return the response to the request.

        Raises:
            MisuseError: the body cannot be written as JSON.
        """
        return self._send(self.url, encoded(self.fields), self.headers)

    def without_refused(self, error: BadRequest, unasked: tuple[str, ...]) -> Observable[bytes] | None:
        """Repeat the request without those `unasked` fields that the error names; None if it names none."""
        text, fields = f"{error} {error.body}", self.fields
        refused = {name for name in unasked if name in text and name in fields and name not in self.request.extra}
        if not refused:
            return None
        kept = {name: value for name, value in fields.items() if name not in refused}
        return self._send(self.url, encoded(kept), self.headers)

    def rest(self, decoder: Decoder) -> Observable[bytes] | None:
        """Request the rest of an answer after the connection broke; None if the server does not keep it."""
        place = self.llm._resumed(decoder)  # pyright: ignore[reportPrivateUsage]
        if place is None:
            return None
        headers = {name: value for name, value in self.headers.items() if name != "content-type"}
        return self._send(place, b"", headers, "GET")

    def _send(
        self, url: str, body: bytes, headers: Mapping[str, str], method: Literal["POST", "GET"] = "POST"
    ) -> Observable[bytes]:
        is_whole = self.request.stream is False
        return self.llm._send(  # pyright: ignore[reportPrivateUsage]
            url, body, headers, self.timeouts, self.secrets.send, self.signing, method, is_whole=is_whole
        )
