"""`page_tools`: the tools that run in the page, as the body of an AG-UI request defines them."""

from __future__ import annotations

from ..values.tools import ToolSpec
from .json_fields import object_of, objects_of, wrong_body

__all__ = ["page_tools"]


def page_tools(body: object) -> tuple[ToolSpec, ...]:
    """Return the tools of the page, from the body of an AG-UI request. ``useChat`` sends none.

    ::

        tools = page_tools(body)
        messages = messages_of(body, tools=[tool.name for tool in tools])
        return ag_ui(agent.bind(tools=tools)(messages), body)

    A call of such a tool ends the run; the page sends the result with its next request. An agent refuses a page's tool
    with the name of one of its own.

    The function reads the name, the description and the JSON schema of the arguments of each tool, and nothing else. So
    a page cannot request a vendor's own tools, which would act with the server's account.

    Args:
        body: the JSON object of the request, decoded.

    Raises:
        MisuseError: a definition has no name, or its schema is not that of an object. Starlette and FastAPI answer this
            error with the status 400 and its sentence.
    """
    with wrong_body():
        tools = objects_of(object_of(body, "its body").get("tools") or [], "'tools'")
        return tuple(
            ToolSpec(
                name=tool.get("name", ""),
                description=tool.get("description") or "",
                parameters=tool.get("parameters") or {"type": "object", "properties": {}},
            )
            for tool in tools
        )
