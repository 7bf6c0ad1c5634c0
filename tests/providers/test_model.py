"""`rxllm.model`: from a name to a model."""

from importlib.metadata import EntryPoint

import pytest

import rxllm


@pytest.mark.parametrize(
    ("name", "kind", "model"),
    [
        ("openai:gpt-5-mini", rxllm.OpenAI, "gpt-5-mini"),
        ("anthropic:claude-sonnet-4-6", rxllm.Anthropic, "claude-sonnet-4-6"),
        ("openai/gpt-5-mini", rxllm.OpenAI, "gpt-5-mini"),
        ("openai:llama3.2:3b", rxllm.OpenAI, "llama3.2:3b"),
        ("openai:meta/llama", rxllm.OpenAI, "meta/llama"),
    ],
)
def test_a_name_is_split_once_at_the_provider(name, kind, model):
    """At the first colon, or at a slash after a known provider; the rest is the model's own name."""
    found = rxllm.model(name, temperature=0, api_key="k")
    assert (kind, model, 0) == (type(found), found.model, found.parameters.temperature)


def test_the_embedded_model_needs_no_name():
    """The provider has one model."""
    assert rxllm.Embedded(seed=1) == rxllm.model("embedded", seed=1)


def test_environment_variable_names_the_default_model(monkeypatch):
    """Without a name, `model` uses RXLLM_MODEL."""
    monkeypatch.setenv("RXLLM_MODEL", "embedded")
    assert rxllm.Embedded() == rxllm.model()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (None, "The name of the model is missing.*RXLLM_MODEL"),
        ("", "The name of the model is missing"),
        (5, "A model's name must be text, not 5"),
        ("OpenAI:gpt-5-mini", "Did you mean openai:gpt-5-mini"),
        ("gpt-5-mini", "Write provider:model with one of alibaba, anthropic, .*embedded, .*openai"),
        ("opnai:gpt-5-mini", "Did you mean openai:gpt-5-mini"),
        ("open-ai:gpt-5-mini", "Did you mean openai:gpt-5-mini"),
        ("nope", r"There is no provider for 'nope'\. .* anthropic, .*embedded, .*openai"),
        ("nope:x", r"anthropic, .*embedded, .*openai"),
        ("openai:", "names a provider but no model"),
        ("openai", "names a provider but no model"),
        ("embedded:x", "has only one model, not 'x'"),
    ],
)
def test_unknown_model_name_raises_misuse_error(name, sentence):
    """The message says what to write, and nothing is imported or sent."""
    with pytest.raises(rxllm.MisuseError, match=sentence):
        rxllm.model(name)


def plugged(monkeypatch, value):
    """Simulate an installed package with a provider at `value`."""
    point = EntryPoint("plugged", value, "rxllm.providers")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point] if group == point.group else [])


def test_installed_package_can_add_a_provider(monkeypatch):
    """The entry point of the package is loaded when a program asks for the provider."""
    plugged(monkeypatch, "rxllm.providers.openai:OpenAI")
    assert rxllm.OpenAI("x") == rxllm.model("plugged:x")


def test_broken_package_warns_and_raises_misuse_error(monkeypatch):
    """The messages name the package. Other providers keep working."""
    plugged(monkeypatch, "rxllm.nowhere:Nothing")
    assert rxllm.Embedded() == rxllm.model("embedded")
    with pytest.warns(UserWarning, match="plugged"), pytest.raises(rxllm.MisuseError, match="installed but broken"):
        rxllm.model("plugged:x")
