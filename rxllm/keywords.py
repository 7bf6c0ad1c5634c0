"""The keywords that an LLM's constructor, `bind` and the other methods accept, and the errors for other keywords."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from .misuse import MisuseError, shown
from .values.parameters import PARAMETERS, Parameters

__all__ = ["check_names", "collect_parameters"]


def collect_parameters(kind: type[Any], keywords: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords of a constructor with all parameters collected in one `parameters`."""
    fields = {each.alias for each in attrs.fields(kind)}
    sampling = {name: keywords.pop(name) for name in keywords.keys() - fields}
    if sampling:
        keywords["parameters"] = keywords.get("parameters", Parameters()).updated(check_names(kind, sampling))
    return keywords


# Keywords that belong to the constructor of a model, and keywords for the config of runs.
_CONSTRUCTOR_KEYWORDS = (
    "api",
    "api_key",
    "base_url",
    "client",
    "event_limit",
    "headers",
    "server",
    "max_retries",
    "timeout",
)
_CONFIG_KEYWORDS = ("tags", "metadata", "run_name", "handlers")
_OTHER_NAMES = {
    "callbacks": "handlers",
    "functions": "tools",
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "name": "run_name",
    "stop": "stop_sequences",
    "streaming": "stream",
}
_MIN_ABBREVIATION = 3  # letters


def check_names(kind: type[Any], parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters unchanged.

    Raises:
        MisuseError: a name is not a parameter.
    """
    for name in parameters.keys() - PARAMETERS.keys():
        if name != "n" or parameters[name] != 1:
            raise MisuseError(_unknown_keyword(kind, name, parameters[name]))
    return parameters


def _unknown_keyword(kind: type[Any], name: str, value: object) -> str:
    """Return the error message for a keyword that is not a parameter: where it belongs, or a similar name."""
    import difflib  # imported here, because only the error message needs it

    if name == "n":
        return f"n={value!r} requests several answers, but a stream has one. Call llm.batch([prompt] * {value!r})."
    fields = attrs.fields_dict(kind)
    if name in fields or name in _CONSTRUCTOR_KEYWORDS:
        owner, model = (kind.__name__, "the model") if name in fields else ("OpenAI", "a model over HTTP")
        example = shown(value) if isinstance(value, (int, float)) else "…"  # other values may be secrets
        return f"{name} is a keyword for the constructor of {model}. Write {owner}(…, {name}={example})."
    names = (*PARAMETERS, *_CONFIG_KEYWORDS, *_CONSTRUCTOR_KEYWORDS, *fields)
    completions = (other for other in names if other.startswith(name) and len(name) >= _MIN_ABBREVIATION)
    meant = _OTHER_NAMES.get(name) or next(completions, None)
    near = meant or next(iter(difflib.get_close_matches(name, names, 1)), None)
    sentence = f"There is no parameter {name!r}." + (f" Did you mean {near}=…?" if near else "")
    if meant is None and near in (None, *PARAMETERS):
        sentence += f" To send a field that only the provider knows, write extra={{{name!r}: …}}."
    return sentence
