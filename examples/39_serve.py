"""Serve a model over OpenAI's protocol, and ask it with a client of that protocol."""

import asyncio
import socket

import uvicorn

import rxllm
from rxllm.serve import openai


async def main() -> None:
    app = openai({"poet": rxllm.Embedded(seed=7, max_tokens=12)})
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))

    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    client = rxllm.OpenAI("poet", base_url=url, api_key="any", api="chat")
    async for chunk in client.astream("Write me a song."):
        print(chunk, end="", flush=True)
    print()

    server.should_exit = True
    await serving


asyncio.run(main())
