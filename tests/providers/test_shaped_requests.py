"""Shapes at each provider: what is sent in each mode, and the answer as text in all of them."""

import attrs
import pytest
from protocols import Chat, Cohere, Converse, Generate, Messages, OllamaChat, Responses, ToolCall

import rxllm
from rxllm import Anthropic, Bedrock, Gemini, MisuseError, Ollama, OpenAI, drafts, parse, pipe
from rxllm.shapes.shape import shape_of
from rxllm.testing import FakeServer, Reply

KEY = "k"
PIECES = ['{"text":"Bo', 'il","minutes":3}']


@attrs.frozen
class Step:
    """One thing to do."""

    text: str
    minutes: int = 1


@attrs.frozen
class Provider:
    """A provider, with its protocol.

    Attributes:
        make: makes a model at this address.
        protocol: the protocol of its server.
        stream_type: the media type of its streams.
        modes: the modes that it offers.
    """

    make: type | None
    protocol: object
    modes: tuple[str, ...]
    settings: dict = attrs.field(factory=dict)

    def at(self, url):
        """Return the model at this address."""
        return self.make("model-1", base_url=url, api_key=KEY, max_retries=0, **self.settings)


PROVIDERS = {
    "chat": Provider(OpenAI, Chat(), ("native", "tool", "prompted"), {"api": "chat"}),
    "responses": Provider(OpenAI, Responses(), ("native", "tool", "prompted"), {"api": "responses"}),
    "anthropic": Provider(Anthropic, Messages(), ("native", "tool", "prompted")),
    "gemini": Provider(Gemini, Generate(), ("native", "tool", "prompted")),
    "cohere": Provider(rxllm.Cohere, Cohere(), ("native", "tool", "prompted")),
    "ollama": Provider(Ollama, OllamaChat(), ("native", "prompted")),
    "bedrock": Provider(Bedrock, Converse(), ("native", "tool", "prompted"), {"region": "us-east-1"}),
}
CASES = [(name, mode) for name, provider in PROVIDERS.items() for mode in provider.modes]
STREAMS = {"ollama": "application/x-ndjson", "bedrock": "application/vnd.amazon.eventstream"}


def reply_of(name, mode, *, streams):
    """Return the answer of a provider in a mode."""
    provider = PROVIDERS[name]
    if mode == "tool":
        answer = {"tool_call": ToolCall(name="answer", pieces=PIECES)}
    else:
        answer = {"text": PIECES if mode == "native" else ["Sure:\n", *PIECES, "\nBye."]}
    if streams:
        return Reply(provider.protocol.stream(**answer), content_type=STREAMS.get(name, "text/event-stream"))
    return Reply(provider.protocol.whole(**answer), content_type="application/json")


@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(("name", "mode"), CASES)
def test_answer_is_its_json_in_every_mode(name, mode, streams):
    """A forced call arrives as text with the finish reason stop, so that no operator needs to know the mode."""
    model = "anthropic.claude" if name == "bedrock" else "model-1"
    with FakeServer(*[reply_of(name, mode, streams=streams)] * 3) as server:
        llm = PROVIDERS[name].at(server.url).bind(model=model, shape=Step, shape_mode=mode, stream=streams)
        answer = llm.invoke("How?")
        assert ("".join(PIECES), "stop") == (answer.text, answer.finish_reason)
        assert () == answer.tool_calls
        assert Step("Boil", 3) == pipe(llm, parse(Step)).invoke("How?")
        if streams:
            shown = [*pipe(llm, drafts(Step)).stream("How?")]
            # Anthropic and others may hold the arguments of a call back, but they lose no draft.
            assert {"text": "Boil", "minutes": 3} == shown[-1]
            assert all(draft["text"] in ("Bo", "Boil") for draft in shown if "text" in draft)


def body_of(llm, **parameters):
    """Return the body of the request that would be sent."""
    return llm.preview("How?", **parameters).json


SCHEMA = shape_of(Step).schema
NULLABLE = {
    **SCHEMA,
    "properties": {"text": {"type": "string"}, "minutes": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
    "required": ["text", "minutes"],
}
TOOL = "Gives the answer. Call it once, when the answer is complete."


def test_openai_chat_sends_the_strict_schema():
    """All fields required, with null for those that have a default."""
    llm = OpenAI("gpt-5-mini", api_key=KEY, api="chat")
    described = {"name": "Step", "schema": NULLABLE, "strict": True}
    assert {"type": "json_schema", "json_schema": described} == body_of(llm, shape=Step)["response_format"]
    loose = body_of(llm, shape=dict[str, int])["response_format"]["json_schema"]
    assert (False, {"type": "object", "additionalProperties": {"type": "integer"}}) == (
        loose["strict"],
        loose["schema"],
    )
    forced = body_of(llm, shape=Step, shape_mode="tool")
    function = {"name": "answer", "parameters": SCHEMA, "description": TOOL}
    assert [{"type": "function", "function": function}] == forced["tools"]
    assert ("required", False) == (forced["tool_choice"], forced["parallel_tool_calls"])


def test_openai_responses_send_the_strict_schema():
    """A tool that is not strict says so, because the protocol takes others for strict."""
    llm = OpenAI("gpt-5-mini", api_key=KEY)
    assert {"type": "json_schema", "name": "Step", "schema": NULLABLE, "strict": True} == body_of(llm, shape=Step)[
        "text"
    ]["format"]
    (tool,) = body_of(llm, shape=Step, shape_mode="tool")["tools"]
    assert (False, SCHEMA) == (tool["strict"], tool["parameters"])


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ({"model": "gpt-4o"}, "native"),
        ({"model": "gpt-4-turbo"}, "tool"),
        ({"model": "gpt-3.5-turbo"}, "tool"),
        ({"model": "gpt-3.5-turbo-instruct"}, "prompted"),
        ({"model": "m", "server": "groq"}, "native"),
        ({"model": "m", "server": "deepseek"}, "prompted"),
        ({"model": "m", "server": "deepseek", "effort": "none"}, "tool"),
        ({"model": "m", "server": "perplexity"}, "native"),
        ({"model": "m", "server": "llama.cpp"}, "native"),
        ({"model": "m", "base_url": "http://localhost:1/v1"}, "native"),
    ],
)
def test_mode_suits_the_server_and_the_model(settings, mode):
    """The field for a schema where there is one, else a forced call, else the prompt."""
    sent = body_of(OpenAI(**settings, api_key=KEY), shape=Step)
    found = "tool" if "tools" in sent else "native" if sent.keys() & {"response_format", "text"} else "prompted"
    assert mode == found
    if mode == "prompted":
        assert "JSON schema" in sent.get("prompt", "") or "JSON schema" in sent["messages"][0]["content"]


def test_call_is_forced_by_name_where_there_is_no_word_for_any_call():
    """Beside other tools such a server gets the prompt."""
    rxllm.register_provider("by-name", "http://localhost:1/v1", lacks=("json_schema", "required"))
    llm = OpenAI("m", server="by-name")
    assert {"type": "function", "function": {"name": "answer"}} == body_of(llm, shape=Step)["tool_choice"]
    assert "tool_choice" not in body_of(llm, shape=Step, tools=[rxllm.ToolSpec("weather")])


def test_server_with_a_grammar_gets_the_schema_as_it_is():
    """It enforces optional fields and dicts, too."""
    llm = OpenAI("m", server="llama.cpp")
    assert {"name": "Step", "schema": SCHEMA} == body_of(llm, shape=Step)["response_format"]["json_schema"]
    assert {"type": "object", "additionalProperties": {"type": "integer"}} == body_of(llm, shape=dict[str, int])[
        "response_format"
    ]["json_schema"]["schema"]


def test_anthropic_gets_a_dict_by_a_tool():
    """Its schemas are closed: a dict would come back empty. While it thinks, no call can be forced."""
    llm = Anthropic("claude-sonnet-4-6", api_key=KEY)
    assert {"type": "json_schema", "schema": SCHEMA} == body_of(llm, shape=Step)["output_config"]["format"]
    forced = body_of(llm, shape=dict[str, int])
    schema = {"type": "object", "additionalProperties": {"type": "integer"}, "properties": {}}
    assert [{"name": "answer", "input_schema": schema, "description": TOOL}] == forced["tools"]
    assert {"type": "any", "disable_parallel_tool_use": True} == forced["tool_choice"]
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    prompted = body_of(llm, shape=dict[str, int], extra=thinking)
    assert "tools" not in prompted
    assert "JSON schema" in prompted["messages"][0]["content"][0]["text"]
    with pytest.raises(MisuseError, match="which Anthropic does not offer for this request"):
        body_of(llm, shape=Step, shape_mode="tool", extra=thinking)


def test_gemini_takes_a_schema_beside_tools_from_version_3_on():
    """Earlier models get the answer as one more tool."""
    tool = rxllm.ToolSpec("weather")
    old, new = Gemini("gemini-2.5-flash", api_key=KEY), Gemini("gemini-3-pro", api_key=KEY)
    assert SCHEMA == body_of(old, shape=Step)["generationConfig"]["responseJsonSchema"]
    assert SCHEMA == body_of(new, shape=Step, tools=[tool])["generationConfig"]["responseJsonSchema"]
    forced = body_of(old, shape=Step, tools=[tool])
    names = [function["name"] for function in forced["tools"][0]["functionDeclarations"]]
    assert ["weather", "answer"] == names
    assert "ANY" == forced["toolConfig"]["functionCallingConfig"]["mode"]


@pytest.mark.parametrize(("server", "model"), [("groq", "m"), ("gemini-compatible", "gemini-2.5-flash")])
def test_shape_beside_tools_is_a_tool_where_a_schema_is_refused_beside_tools(server, model):
    """Without tools the schema has its field. Newer Gemini models take both."""
    llm, tool = OpenAI(model, server=server, api_key=KEY), rxllm.ToolSpec("weather")
    assert "response_format" in body_of(llm, shape=Step)
    forced = body_of(llm, shape=Step, tools=[tool])
    assert "response_format" not in forced
    assert (["weather", "answer"], "required") == (
        [tool["function"]["name"] for tool in forced["tools"]],
        forced["tool_choice"],
    )
    newer = body_of(OpenAI("gemini-3-flash", server="gemini-compatible", api_key=KEY), shape=Step, tools=[tool])
    assert {"response_format", "tools"} <= newer.keys()


def test_ollama_gets_the_schema_as_format():
    """Its API can force no call."""
    llm = Ollama("llama3.2")
    assert SCHEMA == body_of(llm, shape=Step)["format"]
    with pytest.raises(MisuseError, match="shape_mode='tool', which Ollama does not offer"):
        body_of(llm, shape=Step, shape_mode="tool")


def test_cohere_takes_either_a_schema_or_tools():
    """Beside tools the answer is one more tool."""
    llm = rxllm.Cohere("command-a-03-2025", api_key=KEY)
    assert {"type": "json_object", "json_schema": SCHEMA} == body_of(llm, shape=Step)["response_format"]
    forced = body_of(llm, shape=Step, tools=[rxllm.ToolSpec("weather")])
    assert ("REQUIRED", 2) == (forced["tool_choice"], len(forced["tools"]))


def test_bedrock_forces_a_call_where_the_model_can_be_forced():
    """Few of its models have a field for a schema, so a program must ask for that one."""
    claude = Bedrock("anthropic.claude-sonnet", api_key=KEY, region="us-east-1")
    assert {"any": {}} == body_of(claude, shape=Step)["toolConfig"]["toolChoice"]
    assert "textFormat" in body_of(claude, shape=Step, shape_mode="native")["outputConfig"]
    llama = Bedrock("meta.llama3", api_key=KEY, region="us-east-1")
    assert "JSON schema" in body_of(llama, shape=Step)["messages"][0]["content"][0]["text"]
