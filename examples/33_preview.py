"""`preview` shows the exact request that a prompt becomes, without its secrets, and sends nothing.

Look at it after a "400 Bad Request". On the command line: ``rxllm -m openai:gpt-5-mini --preview "A haiku"``.
"""

import rxllm

weather = rxllm.ToolSpec("weather", "The weather in a city.", {"type": "object", "properties": {"city": {}}})
for llm in (
    rxllm.OpenAI("gpt-5-mini", api_key="secret", api="chat"),
    rxllm.Anthropic("claude-sonnet-4-6", api_key="secret"),
    rxllm.Ollama("qwen3"),
):
    print(llm.preview("Is it sunny in Bath?", tools=[weather], max_tokens=100), end="\n\n")
