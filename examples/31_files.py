"""A picture in a prompt: `file` names it, each request reads it, and each vendor gets it in its own form."""

import json
import tempfile
from pathlib import Path

import rxllm

PNG = b"\x89PNG\r\n\x1a\n and some pixels"

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "photo.jpg")
    path.write_bytes(PNG)  # the bytes tell that it is a PNG
    prompt = [("user", [rxllm.file(path), "What is this?"])]

    openai = rxllm.OpenAI("gpt-5-mini", api_key="key", api="chat").preview(prompt)
    gemini = rxllm.Gemini("gemini-flash-latest", api_key="key").preview(prompt)
    print("OpenAI:", json.dumps(openai.json["messages"][0]["content"][0])[:70])
    print("Gemini:", json.dumps(gemini.json["contents"][0]["parts"][0])[:70])

    path.unlink()
    try:
        rxllm.OpenAI("gpt-5-mini", api_key="key").invoke(prompt)
    except rxllm.MisuseError as error:
        print("not sent:", str(error).replace(str(path), "photo.jpg"))
