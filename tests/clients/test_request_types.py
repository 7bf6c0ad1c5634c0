"""Every request that rxllm sends fits the types of the vendor's own SDK, at every depth."""

from __future__ import annotations

import copy
import importlib.util
import typing
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Literal

import pytest
import typing_extensions
from hypothesis import HealthCheck, event, given, settings

from rxllm import MisuseError
from rxllm.values.content import READERS

if importlib.util.find_spec("mistralai") is None:
    pytest.skip("the extra 'clients' is not installed", allow_module_level=True)

from neutral_requests import accepted, pieces, requests
from request_types import VENDORS, Vendor
from wire_types import misfits

vendors = pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.name)


@vendors
def test_each_kind_of_request_fits_or_is_refused(vendor):
    """Each part and parameter alone: the types have a place for it, or a sentence refuses it before it is sent."""
    found = {
        piece.name: vendor.judge(piece.body(vendor.llm)) for piece in accepted(vendor.llm, pieces(vendor.answers()))
    }
    assert {} == {name: told for name, told in found.items() if told}
    assert len(found) > (7 if vendor.name == "completions" else 55)


@vendors
def test_mixtures_of_requests_fit(vendor):
    """Messages in any order, any texts and ids, and parameters together."""
    sent = 0

    @settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
    @given(requests(pieces(vendor.answers())))
    def mixture(piece):
        nonlocal sent
        try:
            body = piece.body(vendor.llm)
        except MisuseError as refusal:
            event(str(refusal)[:40])
            return
        sent += 1
        assert [] == vendor.judge(body)

    mixture()
    assert sent >= (3 if vendor.name == "completions" else 30)


@vendors
def test_a_misspelt_key_is_noticed(vendor):
    """In every object that a request can have."""
    for body, path, target in objects(vendor):
        for key in list(target):
            target[key + "x"] = target.pop(key)
            assert vendor.judge(body), f"{key}x in {path}"
            target[key] = target.pop(key + "x")


@vendors
def test_a_missing_key_is_noticed(vendor):
    """All but those that the vendor can do without."""
    missed = set()
    known = set()
    for body, path, target in objects(vendor):
        known |= {(*path, key) for key in target}
        for key, value in list(target.items()):
            del target[key]
            missed |= set() if vendor.judge(body) else {(*path, key)}
            target[key] = value
    assert set(vendor.needed) == {path[0] for path in known - missed if len(path) == 1}
    assert set(vendor.optional) == {".".join(path) for path in missed if len(path) > 1}


@vendors
def test_a_wrong_value_is_noticed(vendor):
    """A role or a type that there is not; a text in the place of a number, and a number in that of a text."""
    for body, path, target in objects(vendor):
        for key, value in list(target.items()):
            if key in vendor.free or value is None or isinstance(value, (dict, list)):
                continue
            target[key] = 7 if isinstance(value, str) and key not in ("role", "type") else "zzz"
            assert vendor.judge(body), f"{key} = {target[key]!r} in {path}"
            target[key] = value


def test_what_pydantic_lets_pass_is_noticed():
    """Unknown keys, and items of an Iterable, which pydantic does not consume."""
    chat = next(vendor for vendor in VENDORS if vendor.name == "chat")
    told = chat.judge({"messages": [{"role": "zzz"}], "max_tokns": "x"})
    assert "body lacks 'model'" in told
    assert any("body.messages[0].role is 'zzz'" in each for each in told)
    assert any("has 'max_tokns'" in each for each in told)


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        (True, int),
        (1, bool),
        (1, str),
        ("a", list[str]),
        (["a", 1], Iterable[str]),
        ({"a": 1}, dict[str, str]),
        ("c", Literal["a", "b"] | Any),
        (None, str),
    ],
)
def test_the_judge_is_strict(document, kind):
    """A value of another kind is a misfit, and of an open enumeration only the named values count."""
    assert misfits(document, kind)


def objects(vendor: Vendor) -> Iterator[tuple[Any, tuple[str, ...], dict[str, Any]]]:
    """Each object of the vendor's requests, with the request and the keys on the way; one of each form is enough."""
    seen = set()
    for piece in accepted(vendor.llm, pieces(vendor.answers())):
        body = copy.deepcopy(piece.body(vendor.llm))
        for path, target in _inside(body, vendor.free):
            form = path, tuple(target), str(target.get("type")), str(target.get("role"))
            if form not in seen:
                seen.add(form)
                yield body, path, target


def _inside(document: Any, free: Collection[str], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(document, dict):
        yield path, document
        for key, value in document.items():
            if key not in free:
                yield from _inside(value, free, (*path, key))
    elif isinstance(document, list):
        for value in document:
            yield from _inside(value, free, path)


def test_each_block_of_anthropics_types_is_content():
    """A history of dicts may have every block; those of Anthropic's own tools go back to Anthropic as they are."""
    from anthropic.types import ContentBlockParam

    kinds = {
        kind
        for block in typing.get_args(ContentBlockParam)
        for kind in typing.get_args(
            typing.get_args(typing_extensions.get_type_hints(block, include_extras=True)["type"])[0]
        )
    }
    assert "server_tool_use" in kinds
    assert set() == kinds - {*READERS, "tool_result"}
