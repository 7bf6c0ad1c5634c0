"""An MCP server on standard input and output, without the SDK: it starts at once, and breaks the rules on request."""

import json
import sys

TOOLS = ("add", "count", "die", "die_after", "strange", "refuse", "sample", "hang")


def send(message):
    """Write a message."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def result_of(name, arguments, token):
    """Return the result of a call."""
    if name == "die":
        sys.exit(1)
    if name == "count":
        for step in range(1, 4):
            facts = {"progressToken": token, "progress": step, "total": 3, "message": f"step {step} of a-secret-word"}
            send({"method": "notifications/progress", "params": facts})
    if name == "strange":
        return {"content": [{"type": "hologram", "data": 5}]}
    if name == "sample":
        params = {"messages": [{"role": "user", "content": {"type": "text", "text": "hi"}}], "maxTokens": 5}
        send({"id": "mine", "method": "sampling/createMessage", "params": params})
        answer = json.loads(sys.stdin.readline())
        return {"content": [{"type": "text", "text": answer["error"]["message"]}], "isError": True}
    return {"content": [{"type": "text", "text": str(arguments.get("a", 0) + arguments.get("b", 0))}]}


def answer(request):
    """Answer one request."""
    method, params = request["method"], request.get("params", {})
    if method == "initialize":
        version = params["protocolVersion"]
        info = {"name": "script", "version": "1"}
        return {"result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}}
    if method == "tools/list":
        return {"result": {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]}}
    if method == "tools/call" and params["name"] == "refuse":
        return {"error": {"code": -32602, "message": "No such city: Atlantis."}}
    if method == "tools/call":
        return {
            "result": result_of(
                params["name"], params.get("arguments", {}), params.get("_meta", {}).get("progressToken")
            )
        }
    return {"error": {"code": -32601, "message": "Method not found"}}


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message and "method" in message:
        if "silent" in sys.argv:
            continue
        if message.get("params", {}).get("name") == "hang":
            continue
        send({"id": message["id"], **answer(message)})
        if message.get("params", {}).get("name") == "die_after":
            sys.exit(0)
