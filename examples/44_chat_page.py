"""A chat page in front of two models: with --stay, open the address that is printed."""

import asyncio
import socket
import sys

import httpx
import uvicorn

import rxllm
from rxllm.serve import chat


async def main() -> None:
    poet = rxllm.Embedded(seed=7, max_tokens=12)
    app = chat({"poet": poet, "slow poet": rxllm.pipe(poet, rxllm.smooth(0.3))})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        async with httpx.AsyncClient(base_url=url) as http:
            print((await http.get("/")).headers["content-type"], (await http.get("/api/chat")).text)
        if "--stay" in sys.argv:
            print("chat at", url)
        else:
            server.should_exit = True
        await serving


asyncio.run(main())
