"""A program of LangChain's, `template | model | parser` in a RunnableParallel, line by line as it is here.

There it takes 21 lines: imports, a prompt, a model with a fallback, a parser, two chains side by side, config, a
handler, a batch and the events. Nothing below is longer.
"""

import asyncio

from rxllm import Embedded, StdoutHandler, fallback, parallel, pipe, template, text

llm = fallback(Embedded(seed=1, max_tokens=12), Embedded(seed=2, max_tokens=12))
poem = pipe(template(("system", "Be {mood}."), "A poem about {topic}.", mood="brief"), llm, text())
joke = pipe(template(("system", "Be {mood}."), "A joke about {topic}.", mood="funny"), llm, text())
both = parallel(poem=poem, joke=joke).with_config(run_name="both", tags=["demo"])

for item in both.stream("fish", handlers=[StdoutHandler()]):
    print(item)
print(both.invoke({"topic": "fish"}))
print(both.batch(["the sea", "the moon"], max_concurrency=2))


async def main() -> None:
    async for event in both.astream_events("rain", include_names=["both"]):
        print(event["event"], event["name"], event["tags"])


asyncio.run(main())
