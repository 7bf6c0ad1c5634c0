"""Asks a server of OpenAI's protocol with a Python library, as a program: ``python ask_as.py LIBRARY URL``.

The server has the models ``ok``, ``tool``, ``early``, ``late`` and ``cut``. The program writes what the library says of
each as JSON. It is a program of its own, because the libraries warn, patch and import much.
"""

import json
import os
import sys

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def langchain(url):
    """Ask with langchain-openai."""
    from langchain_openai import ChatOpenAI

    def model(name):
        return ChatOpenAI(model=name, base_url=url, api_key="k")

    def stream(name):
        return "".join(chunk.text for chunk in model(name).stream("hi"))

    def call():
        answer = model("tool").bind_tools([TOOL]).invoke("hi")
        return [(call["name"], call["args"]) for call in answer.tool_calls]

    def usage():
        return model("ok").invoke("hi").usage_metadata["total_tokens"]

    return stream, call, usage


def litellm(url):
    """Ask with litellm."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    litellm.suppress_debug_info = True

    def ask(name, **options):
        messages = [{"role": "user", "content": "hi"}]
        return litellm.completion(model=f"openai/{name}", api_base=url, api_key="k", messages=messages, **options)

    def stream(name):
        return "".join(chunk.choices[0].delta.content or "" for chunk in ask(name, stream=True))

    def call():
        calls = ask("tool", tools=[TOOL]).choices[0].message.tool_calls
        return [(call.function.name, json.loads(call.function.arguments)) for call in calls]

    def usage():
        return ask("ok").usage.total_tokens

    return stream, call, usage


def outcome(work, *arguments):
    """Return the result, or the name of the error's class."""
    try:
        return work(*arguments)
    except Exception as error:
        return f"error {type(error).__name__}"


if __name__ == "__main__":
    stream, call, usage = {"langchain": langchain, "litellm": litellm}[sys.argv[1]](sys.argv[2])
    results = {name: outcome(stream, name) for name in ("ok", "early", "late", "cut")}
    results |= {"tool": outcome(call), "usage": outcome(usage)}
    print(json.dumps(results))
