"""One conversation, three vendors: each gets the turns of the others in its own form. A local server answers."""

import json

import rxllm
from rxllm.testing import FakeServer, Reply

call = [{"index": 0, "id": "call_1", "function": {"name": "stock", "arguments": '{"tea": "Assam"}'}}]
chat = [{"choices": [{"delta": {"tool_calls": call}, "finish_reason": "tool_calls"}]}]
claude = [
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Three tins are left."}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
    {"type": "message_stop"},
]
gemini = [{"candidates": [{"content": {"parts": [{"text": "Order two more."}]}, "finishReason": "STOP"}]}]
replies = [Reply(b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in e)) for e in (chat, claude, gemini)]

with FakeServer(*replies) as server:
    talk: list[rxllm.Message] = [rxllm.Message("user", "How much Assam is there?")]
    talk.append(rxllm.OpenAI("a", base_url=server.url, api_key="key").invoke(talk))
    talk.append(rxllm.Message("tool", rxllm.ToolResultPart(talk[-1].tool_calls[0].id, "3 tins")))
    talk.append(rxllm.Anthropic("b", base_url=server.url, api_key="key").invoke(talk, max_tokens=99))
    talk.append(rxllm.Message("user", "Is that enough?"))
    talk.append(rxllm.Gemini("c", base_url=server.url, api_key="key").invoke(talk))
    for turn in talk:
        print(f"{turn.role}: {turn.text or [*turn.parts]}")
    print("Anthropic got:", json.dumps(server.requests[1].json["messages"][-1])[:100])
    print("Gemini got:", json.dumps(server.requests[2].json["contents"][-3])[:100])
