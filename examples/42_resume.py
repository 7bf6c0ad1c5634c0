"""A reader leaves in the middle of an answer, comes back, and gets the rest: each event once."""

import asyncio
import socket

import httpx
import uvicorn

import rxllm.serve


async def main() -> None:
    app = rxllm.serve.chat({"poet": rxllm.Embedded(seed=7, max_tokens=12)}, keys={"alice": "alices-key"})
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/api/chat"
    question = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Write me a song."}]}
    async with httpx.AsyncClient(headers={"authorization": "Bearer alices-key"}) as http:
        async with http.stream("POST", url, json={"id": "song", "messages": [question]}) as answer:
            lines = answer.aiter_lines()
            seen = [await anext(lines) for _ in range(12)]  # four events; the answer goes on
        rest = await http.get(f"{url}/song/stream", headers={"last-event-id": seen[-3].removeprefix("id: ")})
    print(*filter(None, seen), "…", *filter(None, rest.text.splitlines()), sep="\n")
    server.should_exit = True
    await serving


asyncio.run(main())
