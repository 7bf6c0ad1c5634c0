"""An agent with the tools of an MCP server. The server is in this process; it could be a URL or a command, too."""

from mcp.server.mcpserver import MCPServer

import rxllm
from rxllm import Message, ToolCallPart
from rxllm.testing import MarbleLLM

server = MCPServer("weather", log_level="ERROR")


@server.tool()
def forecast(city: str) -> str:
    """Forecast the weather in a city."""
    return f"It rains in {city}."


call = Message("assistant", ToolCallPart("call_1", "forecast", '{"city": "Oslo"}'))
llm = MarbleLLM(["-c|", "-Take_an_-umbrella.|"], values={"c": call}, timespan=0.01)  # stands for any model
with rxllm.mcp(server) as tools:
    print([tool.spec.name for tool in tools])
    print(rxllm.agent(llm, *tools).invoke("Do I need an umbrella in Oslo?"))
