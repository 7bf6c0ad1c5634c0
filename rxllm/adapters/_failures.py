"""`rxllm_error` and `Reading`: the exception of another library as an error of rxllm.

The libraries have no common tree of errors. So the attributes and the names of an exception decide, and those of its
causes: most libraries pass on the exceptions of the vendors' SDKs, or keep them as causes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from traceback import walk_tb
from types import FrameType
from typing import Any, TypeVar, cast

import msgspec
from attrs import frozen

from ..errors import Interrupted, ProtocolError, ProviderError, RxllmError, Timeout, TransportError
from ..misuse import MisuseError, is_mapping
from ..secrecy import blanked
from ..values.refusing import about
from ..values.request import Request
from ..wire.error_documents import provider_error

__all__ = ["OF_DATA", "Reading", "rxllm_error", "shown_with", "unreadable", "with_causes"]

T = TypeVar("T")

OF_DATA = (AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""What Python raises for data of a wrong shape."""

_OF_DECODING = (json.JSONDecodeError, UnicodeDecodeError)
_OF_RESPONSES = re.compile("response|generation")  # the words of a ValueError about a response
_OF_ARGUMENTS = re.compile("(keyword|positional|required) arguments?")  # the words of a TypeError about a call
# The names of the functions that write the request, and of those that call the program's callbacks.
_WRITES = re.compile(
    "build|convert_input|convert_message|format_messages|map_message|message_dict|params|payload|prepare"
)
_CALLS = "handle_event"
_REFUSALS = (NotImplementedError, RuntimeError, ValueError)  # what libraries raise, with a sentence, for a request
_STATUSES = ("status_code", "status", "http_status", "code")
_DEPTH = 5  # causes
_NETWORK = {  # classes of HTTP libraries and SDKs, by name, because the libraries need not be installed
    "APIConnectionError",
    "ClientConnectionError",
    "ClientPayloadError",
    "ConnectionClosedError",
    "EndpointConnectionError",
    "HTTPClientError",
    "TransportError",
}


def rxllm_error(
    error: Exception,
    *,
    started: bool,
    secrets: Iterable[str] = (),
    causes: Sequence[BaseException] | None = None,
) -> Exception:
    """Return the error to raise for an exception of another library; the exception itself if it is not of a request.

    Args:
        error: the exception. It becomes the cause of the error: raise the error ``from`` it.
        started: whether a part of the answer had arrived.
        secrets: texts that the error must not show.
        causes: the exceptions that may tell what happened, the one that knows best first. By default these are the
            exception and its causes.
    """
    if isinstance(error, (RxllmError, MisuseError)):
        return error
    causes = [*with_causes(error)] if causes is None else causes
    for each in causes:
        text = _shown(each, secrets).rstrip(".")
        names = {kind.__name__ for kind in type(each).__mro__}
        is_of_network = isinstance(each, ConnectionError) or bool(names & _NETWORK)
        status = None if is_of_network else _status_of(each)
        if status is not None or ("APIError" in names and not is_of_network):  # in the middle of a stream: no status
            return _provider_error(error, causes, status, secrets)
        if isinstance(each, TimeoutError) or any("Timeout" in name for name in names):
            return Timeout(f"The request timed out: {text}.")
        if is_of_network:
            kind = Interrupted if started else TransportError
            where = "in the middle of the answer" if started else "before an answer came"
            return kind(f"The connection broke {where}: {text}.")
    return error


def unreadable(library: str, error: BaseException, secrets: Iterable[str]) -> ProtocolError:
    """Return the error for a response that another library could not read.

    Args:
        library: the name of the library.
        error: the exception that it raised.
        secrets: texts that the error must not show.
    """
    return ProtocolError(f"{library} could not read the response: {_shown(error, secrets)}")


@frozen
class Reading:
    """The methods within which another library writes requests and reads responses.

    The libraries raise a TypeError, a KeyError or the like for a response of a wrong shape, and a ValueError with a
    sentence for a request that they cannot write. The program's own functions raise the same for a mistake. The
    traceback tells them apart, because it names the functions that ran.

    Attributes:
        library: the name of the library.
        methods: the names of the methods.
        owners: the classes of the methods.
        callers: the owners whose methods call a function of the program instead.
    """

    library: str
    methods: Collection[str]
    owners: tuple[type, ...]
    callers: tuple[type, ...] = ()

    def error_for(
        self, error: Exception, request: Request, secrets: Iterable[str], document: object = None
    ) -> RxllmError | MisuseError | None:
        """Return the error for an exception; None if neither the request nor the response is at fault.

        It is a `MisuseError` for a request that the library refuses to write, a `ProviderError` for a vendor's document
        in place of an answer, and a `ProtocolError` for any other response that the library could not read.

        Args:
            error: the exception.
            request: the request.
            secrets: texts that the error must not show.
            document: the response, if the library keeps it.
        """
        owner: object = None
        is_writing, frame = False, None
        for frame, _ in walk_tb(error.__traceback__):
            if (found := self._owner(frame)) is not None:
                owner, is_writing = found, False
            elif owner is not None and _CALLS in frame.f_code.co_name:
                return None
            elif owner is not None and _WRITES.search(frame.f_code.co_name):
                is_writing = True
        if owner is None or frame is None or isinstance(owner, self.callers):
            return None
        if is_writing:
            return self._refusal(error, owner, frame, request, secrets)
        if not _is_of_data(error):
            return None
        told = document if is_mapping(document) and document.get("error") else _argument_of(error)
        if told:  # the vendor's document; langchain-openai raises it
            return _provider_error(error, [error], None, secrets, told)
        return unreadable(self.library, error, secrets)

    def _refusal(
        self, error: Exception, owner: object, frame: FrameType, request: Request, secrets: Iterable[str]
    ) -> MisuseError | None:
        """Return the error for a sentence with which the library itself refuses a request; None for a mistake."""
        packages = {kind.__module__.partition(".")[0] for kind in type(owner).__mro__}
        package = str(frame.f_globals.get("__name__")).partition(".")[0]  # of the function that raised the exception
        if type(error) not in _REFUSALS or error.__context__ is not None or package not in packages:
            return None
        return about(request, MisuseError(f"{self.library} refuses the request: {blanked(str(error), secrets)}"))

    def _owner(self, frame: FrameType) -> object | None:
        """Return the instance whose method has this frame, if it is one of those that read."""
        code = frame.f_code
        owner = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount and code.co_name in self.methods else None
        return owner if isinstance(owner, self.owners) else None


def _is_of_data(error: BaseException) -> bool:
    """Return whether an exception may be one for data of a wrong shape."""
    text = str(error)
    if isinstance(error, (RxllmError, MisuseError)):  # a model of rxllm within one of the other library
        return False
    if any(isinstance(each, _OF_DECODING) for each in with_causes(error)):
        return True
    if type(error) is ValueError:  # libraries raise it with a sentence, which may be about the request or an option
        return bool(_argument_of(error) or _OF_RESPONSES.search(text))
    return isinstance(error, OF_DATA) and not _OF_ARGUMENTS.search(text)


def _shown(error: BaseException, secrets: Iterable[str]) -> str:
    """Return the words of an exception, without the traceback that some of LiteLLM's contain."""
    return blanked(f"{type(error).__name__}: {error}".partition("\nTraceback ")[0], secrets)


def with_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its causes."""
    cause: BaseException | None = error
    for _ in range(_DEPTH):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__


def shown_with(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, and the others that a traceback shows with it."""
    seen: set[int] = set()
    shown: BaseException | None = error
    while shown is not None and id(shown) not in seen:
        seen.add(id(shown))
        yield shown
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)


def _status_of(error: object) -> int | None:
    """Return the HTTP status that an exception carries, or its response."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        response = cast("dict[str, Any]", response).get("ResponseMetadata", {})
        found: object = response.get("HTTPStatusCode")
        return found if isinstance(found, int) else None
    for owner in (error, response):
        for name in _STATUSES:
            status = getattr(owner, name, None)
            if isinstance(status, int) and 400 <= status < 600:
                return int(status)
    return None


def _provider_error(
    error: Exception,
    causes: Sequence[BaseException],
    status: int | None,
    secrets: Iterable[str],
    document: Mapping[str, Any] | None = None,
) -> ProviderError:
    """Return the error of a provider: its document, if an exception carries it, else the words of the exception."""
    body = (_first(_body_of, causes) or "").encode()
    document = document or _first(_document_of, causes)
    if document is None:
        document = {"message": str(error), "code": _first(_code_of, causes)}
    else:
        body = body or msgspec.json.encode(document)
    headers = _first(_headers_of, causes)
    found = provider_error(document, body, status=status, headers=headers)
    found.args = (blanked(str(found.args[0]), secrets),)
    found.body = blanked(found.body, secrets)
    found.code = found.code and blanked(found.code, secrets)
    return found


def _first(fact: Callable[[BaseException], T | None], causes: Iterable[BaseException]) -> T | None:
    """Return the fact of the first exception that has it."""
    return next((found for cause in causes if (found := fact(cause))), None)


def _document_of(error: BaseException) -> Mapping[str, Any] | None:
    """Return the vendor's document, which exceptions keep as a dict or as JSON; None if there is none."""
    for kept in (getattr(error, "body", None), _body_of(error), getattr(error, "message", None), _argument_of(error)):
        document: object = kept
        if isinstance(kept, (str, bytes)):
            try:
                document = msgspec.json.decode(kept)
            except (ValueError, RecursionError):
                continue
        if is_mapping(document) and document:
            return document
    return None


def _argument_of(error: BaseException) -> Mapping[str, Any] | None:
    """Return the document that is the first argument of an exception; None if that is anything else."""
    argument: object = error.args[0] if error.args else None
    return argument if is_mapping(argument) else None


def _code_of(error: BaseException) -> str | None:
    # LiteLLM gives the code of an error document as the status, if the HTTP status was 200.
    names = (getattr(error, name, None) for name in ("code", "status_code", "type"))
    return next((name for name in names if name and isinstance(name, str)), None)


def _headers_of(error: BaseException) -> Mapping[str, str]:
    headers: object = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None)
    return {str(name).lower(): str(value) for name, value in cast("Mapping[Any, Any]", headers or {}).items()}


def _body_of(error: BaseException) -> str:
    """Return the body of a response, if it has been read."""
    try:
        text = getattr(getattr(error, "response", None), "text", "")
    except Exception:  # httpx raises if the body is still unread
        return ""
    return text if isinstance(text, str) else ""
