"""Elements of a list, each as a typed value, while the model still writes the next one.

`items` emits an element at its closing bracket, so that each question is answered at once; `break` stops the teacher.
"""

from typing import TypedDict

from reactivex import operators as ops

import rxllm
from rxllm.testing import MarbleLLM


class Question(TypedDict):
    """An element of the list."""

    text: str
    level: int


pieces = ['{"questions": [{"text": "1 + 1?", "level"', ': 1}, {"text": "2', ' + 2?", "level": 2}', ', {"text": "The']
teacher = MarbleLLM("-a-b-c-d---------------", values=dict(zip("abcd", pieces, strict=True)), timespan=0.01)
pupil = rxllm.tool(lambda question: f"{question['text']} I don't know.")

quiz = rxllm.pipe(teacher, rxllm.items(Question, key="questions"), ops.concat_map(pupil))
with quiz.stream("Questions about sums, as JSON.") as answers:
    for answer in answers:
        print(answer)
        if "2 + 2" in answer:
            break
