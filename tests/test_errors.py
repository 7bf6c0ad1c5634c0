"""The error tree: its classes, the HTTP status for each, which errors are retryable, and what an error carries."""

import inspect
import pickle

import pytest
from attrs import field, frozen

import rxllm
from rxllm import errors
from rxllm.misuse import must_be


def test_error_classes_form_the_documented_tree():
    """Every failure of a request is an RxllmError. MisuseError is a TypeError outside of this tree."""
    drawn = {
        errors.TransportError: errors.RxllmError,
        errors.Timeout: errors.TransportError,
        errors.Interrupted: errors.TransportError,
        errors.ProviderError: errors.RxllmError,
        errors.AuthenticationError: errors.ProviderError,
        errors.BadRequest: errors.ProviderError,
        errors.RateLimited: errors.ProviderError,
        errors.Overloaded: errors.ProviderError,
        errors.ProtocolError: errors.RxllmError,
        errors.ParseError: errors.RxllmError,
        errors.LimitReached: errors.RxllmError,
        errors.ToolFailure: errors.RxllmError,
        errors.RxllmError: Exception,
        errors.MisuseError: TypeError,
    }
    assert drawn == {getattr(errors, name): getattr(errors, name).__base__ for name in errors.__all__}
    assert not issubclass(errors.MisuseError, errors.RxllmError)


def test_module_docstring_names_every_error():
    """The tree in the docstring of the module contains every exported class."""
    assert [] == [name for name in errors.__all__ if name not in inspect.getdoc(errors)]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *((status, rxllm.AuthenticationError) for status in (401, 403)),
        *((status, rxllm.BadRequest) for status in (400, 404, 405, 413, 415, 422)),
        (429, rxllm.RateLimited),
        *((status, rxllm.Overloaded) for status in (503, 529)),
        *((status, rxllm.ProviderError) for status in (None, 0, 418, 500, 502, 599)),
    ],
)
def test_http_status_selects_the_error_class(status, expected):
    """A status in the tree has its own class; any other status has ProviderError."""
    assert expected is rxllm.ProviderError.class_for_status(status)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (rxllm.RxllmError("no"), False),
        (rxllm.TransportError("no"), True),
        (rxllm.Timeout("no"), True),
        (rxllm.Interrupted("no"), True),
        (rxllm.ProviderError("no"), False),
        (rxllm.AuthenticationError("no"), False),
        (rxllm.BadRequest("no"), False),
        (rxllm.RateLimited("no"), True),
        (rxllm.RateLimited("the quota is spent", retryable=False), False),
        (rxllm.Overloaded("no"), True),
        (rxllm.ProviderError("a bad gateway", retryable=True), True),
        (rxllm.ProtocolError("no"), False),
        (rxllm.ParseError("no", text="{", shape=dict), False),
    ],
)
def test_error_class_sets_retryable_unless_argument_overrides_it(error, expected):
    """The argument `retryable` changes one error only, not its class."""
    assert expected is error.retryable


def test_new_error_has_no_request_and_no_partial():
    """A new error's request and partial are None. The model sets them when it emits the error."""
    error = rxllm.RxllmError("a sentence")
    assert ("a sentence", None, None) == (str(error), error.request, error.partial)


def test_protocol_error_keeps_1000_bytes_of_its_frame():
    """A ProtocolError keeps the first 1,000 bytes of the offending frame."""
    assert b"x" * 1000 == rxllm.ProtocolError("no", frame=b"x" * 5000).frame


def test_validator_message_names_field_expectation_and_value():
    """The message of `must_be` names the field, what it accepts, and the value, cut to a bounded length."""

    @frozen
    class Box:
        size: int = field(validator=must_be("a small number", lambda size: size < 5))

    assert 4 == Box(4).size
    with pytest.raises(rxllm.MisuseError, match=r"^size must be a small number, not 5\.$"):
        Box(5)
    with pytest.raises(rxllm.MisuseError) as caught:
        Box(10**4000)
    assert len(str(caught.value)) < 120


def test_error_arguments_become_attributes():
    """A ProviderError and a ParseError keep their keyword arguments as attributes."""
    error = rxllm.RateLimited("slow down", status=429, body="{}", retry_after=1.5, code="rate_limit")
    assert (429, "{}", 1.5, "rate_limit") == (error.status, error.body, error.retry_after, error.code)
    broken = rxllm.ParseError("no list", text="{}", shape=list)
    assert ("{}", list) == (broken.text, broken.shape)


@pytest.mark.parametrize(
    "error",
    [
        rxllm.MisuseError("no"),
        rxllm.Timeout("late"),
        rxllm.RateLimited("slow", status=429, retry_after=2.0),
        rxllm.ProtocolError("odd", frame=b"x"),
        rxllm.ParseError("no", text="{", shape=dict),
    ],
)
def test_pickled_error_keeps_type_message_and_attributes(error):
    """Process pools and task queues pickle errors; the copy must equal the original."""
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(error), str(error), vars(error)) == (type(copy), str(copy), vars(copy))
