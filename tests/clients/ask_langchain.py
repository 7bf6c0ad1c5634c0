"""Asks LangChain's models of a vendor by `from_langchain`, and prints what rxllm makes of each answer, as JSON.

::

    python ask_langchain.py chat http://127.0.0.1:8000

It is a program of its own, because LangChain keeps connections open that belong to event loops that have ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from typing import Any

import rxllm
from rxllm.adapters import from_langchain

KEY = "sk-0123456789abcdef"


def weather(city: str) -> str:
    """Tell the weather in a city."""
    return f"Rain in {city}."


def model_of(protocol: str, url: str) -> Any:
    """Return LangChain's model of the vendor."""
    if protocol == "chat":
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(model="m", base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    if protocol == "completions":
        from langchain_openai import OpenAI

        return OpenAI(model="m", base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    from langchain_anthropic import ChatAnthropic

    return ChatAnthropic(model="m", base_url=url, api_key=KEY, max_retries=0, thinking={"type": "enabled"})


def failure(ask: Any) -> dict[str, Any]:
    """Return what the error of a request tells."""
    try:
        ask()
    except Exception as error:
        cause = error.__cause__
        partial = getattr(error, "partial", None)
        return {
            "kind": type(error).__name__,
            "cause": None if cause is None else type(cause).__module__.partition(".")[0],
            "partial": partial and partial.text,
            "shows key": KEY in f"{error!r}{error}{vars(error)}{cause}",
        }
    return {}


async def leave(llm: rxllm.LLM) -> None:
    """Leave after the first chunk with text."""
    async for chunk in llm.astream("hang"):
        if chunk.text:
            break


def main(protocol: str, url: str) -> dict[str, Any]:
    """Return all results."""
    llm = from_langchain(model_of(protocol, url))
    told: dict[str, Any] = {}
    told["chunks"] = [chunk.text for chunk in llm.stream("text") if chunk.text]
    told["answer"] = llm.invoke("text").to_json()
    if protocol != "completions":
        told["call"] = llm.invoke("tool", tools=rxllm.tool(weather), tool_choice="required").to_json()
        told["agent"] = rxllm.agent(llm, weather).invoke("agent").text
        told["whole"] = llm.invoke("whole", stream=False).to_json()
        told["shape"] = rxllm.shaped(llm, list[int]).invoke("shape")
    for name in ("429", "frame", "cut", "ended"):
        told[name] = failure(lambda name=name: llm.invoke(name))
    told["malformed"] = failure(lambda: llm.invoke("malformed"))
    told["malformed whole"] = failure(lambda: llm.invoke("malformed whole", stream=False))
    told["loops"] = []
    for _ in range(3):
        told["loops"] += [asyncio.run(llm.ainvoke("text")).text, llm.invoke("text").text]
    asyncio.run(leave(llm))
    for chunk in llm.stream("hang"):
        if chunk.text:
            break
    return told


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(main(*sys.argv[1:])))
