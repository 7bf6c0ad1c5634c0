"""What a pipeline consists of: as a tree, and as a flowchart that GitHub and JupyterLab draw."""

from reactivex import operators as ops

import rxllm


def outline(topic: str) -> str:
    return f"Outline a talk about {topic}."


def speak(answer: rxllm.Message) -> str:
    return f"Write the talk: {answer.text}"


def weather(city: str) -> str:
    """Forecast the weather."""
    return f"It rains in {city}."


a, b = rxllm.Embedded(seed=1), rxllm.Embedded(seed=2)
careful = rxllm.fallback(rxllm.retry(a, 5), rxllm.hedge(a, b, after=0.3))
talk = rxllm.pipe(outline, careful, rxllm.message(), ops.map(speak), rxllm.agent(b, weather), rxllm.text())

print(talk.graph())  # nothing is sent
print(talk.graph().mermaid())
