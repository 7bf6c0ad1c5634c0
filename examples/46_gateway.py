"""A gateway for two callers with keys: each has its models, its budget and its cached answers."""

import asyncio
import os
from typing import Any

import httpx
import msgspec

from rxllm.serve import Config, gateway

CONFIG = """
models = {poet = {model = "embedded", cache = {}}, toy = {model = "embedded"}}
callers = {alice = {key = {env = "ALICES_KEY"}}, bob = {key = {env = "BOBS_KEY"}, models = ["toy"]}}
"""


async def main() -> None:
    os.environ |= {"ALICES_KEY": "alices-key", "BOBS_KEY": "bobs-key"}
    app: Any = gateway(msgspec.toml.decode(CONFIG, type=Config))  # rxllm serve --config FILE does this
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
        for caller in "alice", "bob":
            body = {"model": "poet", "messages": [{"role": "user", "content": "A song"}], "max_tokens": 12}
            headers = {"authorization": f"Bearer {caller}s-key"}
            answer = await http.post("/v1/chat/completions", json=body, headers=headers)
            print(caller, answer.status_code, answer.text[-60:])


asyncio.run(main())
