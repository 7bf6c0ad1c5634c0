"""The error tree: what is retryable, what is which status, and what an error carries."""

import inspect
import pickle

import pytest
from attrs import field, frozen

import rxllm
from rxllm import errors
from rxllm.misuse import must_be


def test_the_tree_is_as_drawn():
    """Everything that can fail on the way is an RxllmError; misuse is a TypeError apart."""
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
        errors.RxllmError: Exception,
        errors.MisuseError: TypeError,
    }
    assert drawn == {getattr(errors, name): getattr(errors, name).__base__ for name in errors.__all__}
    assert not issubclass(errors.MisuseError, errors.RxllmError)


def test_every_error_is_in_the_drawing():
    """The picture in the module's docstring names all of them."""
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
def test_a_status_has_its_class(status, expected):
    """The class of an HTTP status is the drawn one; any other status is a plain ProviderError."""
    assert expected is rxllm.ProviderError.of_status(status)


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
def test_an_error_knows_whether_asking_again_may_help(error, expected):
    """By its class, unless its maker knows better; and one error's knowledge is not another's."""
    assert expected is error.retryable


def test_an_error_begins_without_request_and_partial():
    """Both are None until a model was involved and something had arrived."""
    error = rxllm.RxllmError("a sentence")
    assert ("a sentence", None, None) == (str(error), error.request, error.partial)


def test_the_frame_is_cut():
    """A protocol error shows the first 1,000 bytes of what it could not read."""
    assert b"x" * 1000 == rxllm.ProtocolError("no", frame=b"x" * 5000).frame


def test_what_must_be_is_said_with_what_came():
    """A validator's sentence names the field, what it must be, and a bounded look at what came instead."""

    @frozen
    class Box:
        size: int = field(validator=must_be("a small number", lambda size: size < 5))

    assert 4 == Box(4).size
    with pytest.raises(rxllm.MisuseError, match=r"^size must be a small number, not 5\.$"):
        Box(5)
    with pytest.raises(rxllm.MisuseError) as caught:
        Box(10**4000)
    assert len(str(caught.value)) < 120


def test_details_are_attributes():
    """What a provider said, and what could not be parsed."""
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
def test_an_error_survives_pickling(error):
    """Errors come back from other processes (a pool, a task queue) with all they carry."""
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(error), str(error), vars(error)) == (type(copy), str(copy), vars(copy))
