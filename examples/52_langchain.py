"""LangChain in both directions: a model and a pipeline of rxllm in its chains, and a chain of its own as a model."""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

import rxllm
from rxllm.adapters import from_langchain, to_langchain
from rxllm.testing import MarbleLLM

haiku = MarbleLLM("-Spark-ling_-wa-ter.|", timespan=0.01)  # stands for any model
prompt = ChatPromptTemplate.from_template("Write a haiku about {topic}.")

# A model of rxllm, with its combinators, in a chain of LangChain.
chain = prompt | to_langchain(rxllm.fallback(haiku, rxllm.Embedded())) | StrOutputParser()
for piece in chain.stream({"topic": "water"}):
    print(piece, end="|", flush=True)
print()

# A whole pipeline of rxllm as a runnable.
lines = to_langchain(rxllm.pipe(haiku, rxllm.text(), rxllm.words()))
print(lines.invoke("water"))

# A chain of LangChain as a model of rxllm.
llm = from_langchain(chain, prompt=lambda request: {"topic": request.text})
print(llm.batch(["water", "tea"]))
