"""`structured`: a chat model of LangChain whose answers are values of a schema."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.language_models import LanguageModelInput
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.base import BaseOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

from ...misuse import MisuseError
from ...shapes.schemas import rewritten
from ...shapes.shape import Shape
from ...shapes.spelling import plain_name
from ...shapes.types import node_of

if TYPE_CHECKING:
    from .chat_model import ChatRxllm

__all__ = ["Method", "Schema", "structured"]

Method = Literal["json_schema", "function_calling", "json_mode"]
Schema = dict[str, Any] | type
_NOTES = ("title", "default")  # the words of a schema that do not change the answer


def structured(
    chat: ChatRxllm, schema: Schema, method: Method, *, include_raw: bool, strict: bool | None, settings: dict[str, Any]
) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
    """Return the model with the parser of its answers; see `ChatRxllm.with_structured_output`."""
    told = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
    settings = {**settings, "ls_structured_output_format": told}
    is_class = isinstance(schema, type) and is_basemodel_subclass(schema)
    parser: BaseOutputParser[Any]
    match method:
        case "function_calling":
            model = chat.bind_tools([schema], tool_choice="any", strict=strict, **settings)
            name = convert_to_openai_tool(schema)["function"]["name"]
            by_class = PydanticToolsParser(tools=[schema], first_tool_only=True) if is_class else None  # type: ignore[list-item]
            parser = by_class or JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
        case "json_schema" | "json_mode":
            model = chat.bind(shape=_shape_of(schema), shape_mode="native" if strict else None, **settings)
            parser = PydanticOutputParser(pydantic_object=schema) if is_class else JsonOutputParser()  # type: ignore[arg-type]
        case _:
            raise MisuseError(f"The method must be 'json_schema', 'function_calling' or 'json_mode', not {method!r}.")
    if not include_raw:
        return model | parser
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")


def _shape_of(schema: Schema) -> Shape[Any]:
    """Return the shape of a schema. LangChain reads the answers, so the shape only asks for them."""
    definition = convert_to_json_schema(schema)
    name = plain_name(str(definition.get("title", "answer")))
    return Shape(dict[str, Any], name, _closed(definition), False, node_of(dict[str, Any]))


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema in which no object has properties that the schema does not name, unless it says otherwise."""
    words = {word: value for word, value in rewritten(schema, _closed).items() if word not in _NOTES}
    is_open = words.get("type") == "object" and "properties" in words
    return {"additionalProperties": False, **words} if is_open else words
