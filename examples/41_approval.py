"""An approval over HTTP: the server keeps the conversation with the call, and the browser sends its decision."""

from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

import rxllm
from rxllm import Approval, Message, ToolCallPart
from rxllm.testing import MarbleLLM


def delete(path: str) -> str:
    return f"{path} is gone"


call = Message("assistant", ToolCallPart("call_1", "delete", '{"path": "/tmp/a"}'))
llm = MarbleLLM(["-c|", "-It_is_gone.|"], values={"c": call}, timespan=0.01)
talk = rxllm.remember(rxllm.agent(llm, rxllm.tool(delete, approve=True)), rxllm.Conversation())
app = FastAPI()


@app.post("/turn")
async def turn(request: Request) -> dict[str, object]:
    said = await request.json()  # a question, or a list of decisions
    answer = await talk.ainvoke(said if isinstance(said, str) else Message("user", map(Approval.from_json, said)))
    return {"text": answer.text, "pending": [pending.to_json() for pending in answer.pending]}


browser = TestClient(app)
asked = browser.post("/turn", json="Clean up.").json()
print(asked, browser.post("/turn", json=[{**pending, "yes": True} for pending in asked["pending"]]).json(), sep="\n")
