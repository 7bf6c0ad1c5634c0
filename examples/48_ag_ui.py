"""Serve an agent to clients of AG-UI: a call that needs an approval ends the run with an interrupt."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

import rxllm
from rxllm.serve import ag_ui, messages_of
from rxllm.testing import MarbleLLM

CALL = rxllm.Chunk(parts=[rxllm.ToolCallPart("c1", "pay", "{}")], finish_reason="tool_call")
model = MarbleLLM("x|", values={"x": CALL}, timespan=0.001)
agent = rxllm.agent(model, rxllm.tool(lambda: "paid", name="pay", approve=True))


async def run(http: Request) -> Response:
    body = await http.json()
    return ag_ui(agent(messages_of(body)), body)


app = Starlette(routes=[Route("/", run, methods=["POST"])])
body = {"threadId": "t", "runId": "1", "messages": [{"id": "1", "role": "user", "content": "Pay."}]}
print(TestClient(app).post("/", json=body).text)
