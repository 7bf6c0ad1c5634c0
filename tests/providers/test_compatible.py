"""The servers that speak OpenAI's protocol: how each is found, and what it is sent."""

import attrs
import pytest
from protocols import sse

import rxllm
from rxllm import (
    FilePart,
    Message,
    MisuseError,
    OpenAI,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    ToolSpec,
)
from rxllm.providers.compatible import SERVERS, Server
from rxllm.testing import FakeServer, Reply
from rxllm.values.request import Request

SCHEMA = {"type": "object", "properties": {}}
TOOL = {"name": "now", "parameters": SCHEMA}
STRICT = ToolSpec("now", parameters=SCHEMA, strict=True)
LOOSE = ToolSpec("then", parameters=SCHEMA)
STRICT_DICT = {"type": "function", "function": {"name": "soon", "parameters": SCHEMA, "strict": True}}
PICTURE = FilePart("image/png", b"x")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No key and no address but those that a test sets; registered rows are forgotten."""
    for server in SERVERS.values():
        for variable in server.keys:
            monkeypatch.delenv(variable, raising=False)
    for variable in ("OPENAI_BASE_URL", "AZURE_OPENAI_ENDPOINT"):
        monkeypatch.delenv(variable, raising=False)
    before = dict(SERVERS)
    yield
    SERVERS.clear()
    SERVERS.update(before)


def body_of(server, prompt="hi", **parameters):
    """Requests of the chat protocol."""
    llm = OpenAI("m", server=server, api="chat", base_url="http://localhost:1/v1")
    return llm._body(Request(prompt=Request.ask(prompt).prompt, **parameters))


@pytest.mark.parametrize(
    ("name", "url", "variable", "header"),
    [
        ("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY", {"authorization": "Bearer k"}),
        ("deepseek", "https://api.deepseek.com", "DEEPSEEK_API_KEY", {"authorization": "Bearer k"}),
        ("huggingface", "https://router.huggingface.co/v1", "HF_TOKEN", {"authorization": "Bearer k"}),
        ("moonshot", "https://api.moonshot.ai/v1", "MOONSHOTAI_API_KEY", {"authorization": "Bearer k"}),
        ("lmstudio", "http://localhost:1234/v1", "LM_STUDIO_API_KEY", {"authorization": "Bearer k"}),
        ("azure", "https://mine.openai.azure.com/openai/v1", "AZURE_OPENAI_API_KEY", {"api-key": "k"}),
    ],
)
def test_a_server_is_found_by_its_name(name, url, variable, header, monkeypatch):
    """Its row has its address, its key variable and its header."""
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com/")
    monkeypatch.setenv(variable, "k")
    llm = rxllm.model(f"{name}:some/model:free")
    request = Request(prompt="hi")
    assert ("some/model:free", f"{url}/chat/completions", header) == (
        llm.model,
        llm._url(request),
        llm._headers(request),
    )


def test_named_server_does_not_get_the_key_of_openai(monkeypatch):
    """Without its own key, a sentence names its own variable."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with pytest.raises(MisuseError, match=r"There is no key for api\.groq\.com: set GROQ_API_KEY"):
        rxllm.model("groq:m").invoke("hi")


@pytest.mark.parametrize("written", ["https://mine.openai.azure.com", "https://mine.openai.azure.com/openai/v1/"])
def test_endpoint_of_azure_may_have_its_path(written, monkeypatch):
    """Azure's pages show both."""
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", written)
    urls = [
        OpenAI("m", api_key="k", **given).preview("hi").url for given in ({"server": "azure"}, {"base_url": written})
    ]
    assert ["https://mine.openai.azure.com/openai/v1/chat/completions"] * 2 == urls


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("https://api.openai.com/", "https://api.openai.com/v1"),
        ("https://mine.services.ai.azure.com", "https://mine.services.ai.azure.com/openai/v1"),
        ("https://OpenRouter.ai", "https://OpenRouter.ai/api/v1"),
        ("https://api.deepseek.com/", "https://api.deepseek.com"),
        ("https://llm.groq.com", "https://llm.groq.com"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("https://mine.openai.azure.com/openai/deployments/d", "https://mine.openai.azure.com/openai/deployments/d"),
    ],
)
def test_bare_host_of_a_known_server_gets_its_path(host, address):
    """Such a host alone answers 404. Another host, or one with a path, stays as it is."""
    assert f"{address}/chat/completions" == OpenAI("m", base_url=host, api_key="k", api="chat").preview("hi").url


def test_missing_address_is_refused_with_its_variable():
    """Each customer of Azure has another address."""
    with pytest.raises(MisuseError, match=r"address of azure is unknown\. Set AZURE_OPENAI_ENDPOINT"):
        rxllm.model("azure:m", api_key="k").invoke("hi")


@pytest.mark.parametrize(
    ("server", "model", "field"),
    [
        ("azure", "gpt-5", "max_completion_tokens"),
        ("azure", "Mistral-Large", "max_tokens"),
        ("openai", "gpt-5", "max_completion_tokens"),
        ("cerebras", "m", "max_completion_tokens"),
        ("groq", "m", "max_tokens"),
        ("ollama", "m", "max_tokens"),
    ],
)
def test_the_limit_has_the_name_that_the_server_knows(server, model, field):
    """Azure and OpenAI refuse the older name for models that reason."""
    assert 9 == body_of(server, model=model, max_tokens=9)[field]


def test_effort_seed_and_choice_have_the_words_of_the_server():
    """The row of the server has them."""
    assert {"effort": "low"} == body_of("openrouter", effort="low")["reasoning"]
    assert "low" == body_of("groq", effort="low")["reasoning_effort"]
    assert "reasoning" not in body_of("openrouter")
    assert 3 == body_of("mistral", seed=3)["random_seed"]
    assert "any" == body_of("mistral", tools=[TOOL], tool_choice="required")["tool_choice"]
    assert "tool_choice" not in body_of("ollama", tools=[TOOL], tool_choice="auto")
    assert "required" == body_of("lmstudio", tools=[TOOL], tool_choice="now")["tool_choice"]  # the only tool


@pytest.mark.parametrize(
    ("server", "asked", "sentence"),
    [
        ("perplexity", {"tools": [TOOL]}, "perplexity does not support tools"),
        ("perplexity", {"stop_sequences": ["END"]}, "perplexity does not support stop_sequences"),
        ("perplexity", {"seed": 1}, "perplexity does not support seed"),
        ("deepseek", {"response_format": SCHEMA}, "deepseek does not support a JSON schema .*'json' works"),
        ("ollama", {"tools": [TOOL], "tool_choice": "now"}, "ollama does not support tool_choice"),
        ("moonshot", {"tools": [TOOL], "tool_choice": "required"}, "moonshot does not support the tool_choice 'requ"),
        ("moonshot", {"tools": [TOOL], "tool_choice": "now"}, "moonshot does not support a tool_choice that forces"),
        ("zai", {"tools": [TOOL], "tool_choice": "now"}, "zai does not support tool_choice"),
        ("zai", {"seed": 1}, "zai does not support seed"),
        ("zai", {"stop_sequences": ["a", "b"]}, r"zai takes 1 stop sequence, not 2\. .*rxllm\.stop_at"),
        ("openai", {"stop_sequences": ["END"] * 5}, "openai takes 4 stop sequences, not 5"),
        ("zai", {"response_format": SCHEMA}, "zai does not support a JSON schema"),
        ("zai", {"tools": [STRICT]}, "zai does not support strict tools"),
        ("xai", {"tools": [STRICT]}, "xai does not support strict tools"),
        (
            "xai",
            {"model": "grok-4.1-fast-reasoning", "stop_sequences": ["END"]},
            r"has no stop .*rxllm\.stop_at",
        ),
        ("lmstudio", {"response_format": "json"}, r"lmstudio does not support response_format='json' \(a JSON schema"),
        ("perplexity", {"response_format": "json"}, "perplexity does not support response_format='json'"),
        ("fireworks", {"tools": [TOOL], "response_format": "json"}, "fireworks does not support tools together with a"),
        (
            "groq",
            {"tools": [TOOL], "response_format": "json"},
            "groq does not support tools together with a response_f",
        ),
        (
            "groq",
            {"tools": [TOOL], "response_format": SCHEMA},
            "groq does not support tools together with a response_f",
        ),
        *(
            ("gemini-compatible", {"model": model, "tools": [TOOL], "response_format": SCHEMA}, f"{model} takes either")
            for model in ("gemini-2.5-flash", "models/gemini-2.0-flash", "google/gemini-1.5-pro")
        ),
        ("cerebras", {"tools": [STRICT, LOOSE]}, "cerebras does not support strict tools together with others"),
        ("cerebras", {"tools": [LOOSE, STRICT_DICT]}, "cerebras does not support strict tools together with others"),
        ("fireworks", {"effort": "max"}, "fireworks knows the efforts none, low, medium, high, not 'max'"),
        ("deepseek", {"tools": [TOOL], "tool_choice": "required"}, "call while the model thinks .*effort='none' works"),
        (
            "lmstudio",
            {"tools": [TOOL, ToolSpec("then", parameters=SCHEMA)], "tool_choice": "now"},
            "lmstudio does not support a tool_choice that forces a certain tool",
        ),
        *(
            (server, {"prompt": [Message(role, part)]}, f"{server} does not support images")
            for server in ("deepseek", "cerebras")
            for role, part in [("user", PICTURE), ("tool", ToolResultPart("c", ["Here:", PICTURE]))]
        ),
        (
            "alibaba",
            {"prompt": [Message("user", [FilePart("application/pdf", b"x")])]},
            "alibaba does not support files",
        ),
        (
            "perplexity",
            {"prompt": [Message("user", [FilePart("application/pdf", b"x")])]},
            "perplexity does not support files",
        ),
    ],
)
def test_what_a_server_lacks_is_refused(server, asked, sentence):
    """Before anything is sent."""
    with pytest.raises(MisuseError, match=sentence):
        body_of(server, **asked)


@pytest.mark.parametrize(
    ("server", "asked"),
    [
        ("xai", {"model": "grok-4-fast-non-reasoning", "stop_sequences": ["END"]}),
        ("groq", {"prompt": [Message("tool", ToolResultPart("c", [PICTURE]))]}),
        ("deepseek", {"prompt": [Message("tool", ToolResultPart("c", ["Rain."]))]}),
        ("xai", {"model": "grok-3", "stop_sequences": ["END"]}),
        ("xai", {"tools": [ToolSpec("now", parameters=SCHEMA)]}),
        ("deepseek", {"tools": [TOOL], "tool_choice": "required", "effort": "none"}),
        ("deepseek", {"tools": [TOOL], "tool_choice": "required", "extra": {"thinking": {"type": "disabled"}}}),
        ("deepseek", {"tools": [TOOL], "tool_choice": "none"}),
        ("alibaba", {"tools": [TOOL], "tool_choice": "required"}),
        ("zai", {"stop_sequences": ["END"]}),
        ("fireworks", {"response_format": "json"}),
        ("lmstudio", {"response_format": SCHEMA}),
        ("groq", {"response_format": SCHEMA}),
        ("groq", {"tools": [TOOL], "response_format": {"type": "text"}}),
        ("gemini-compatible", {"model": "gemini-3-flash", "tools": [TOOL], "response_format": SCHEMA}),
        ("gemini-compatible", {"model": "gemini-2.5-flash", "response_format": SCHEMA}),
        ("cerebras", {"tools": [STRICT, STRICT_DICT]}),
        ("cerebras", {"tools": [LOOSE, TOOL, ToolSpec("off", parameters=SCHEMA, strict=False)]}),
        ("vllm", {"tools": [STRICT, LOOSE]}),
    ],
)
def test_what_a_server_supports_is_sent(server, asked):
    """The rows refuse nothing else."""
    assert body_of(server, **asked)


def test_reasoning_is_switched_off_in_the_word_of_the_server():
    """Other efforts go into the usual field."""
    for server in "deepseek", "zai":
        off, high = body_of(server, effort="none"), body_of(server, effort="high")
        assert ({"type": "disabled"}, "reasoning_effort" in off) == (off["thinking"], False)
        assert ("high", "thinking" in high) == (high["reasoning_effort"], False)
    assert body_of("alibaba", effort="none")["enable_thinking"] is False
    assert "low" == body_of("alibaba", effort="low")["reasoning_effort"]


def test_a_server_without_a_tool_choice_is_not_offered_tools_that_may_not_be_called():
    """Such a server would call them."""
    for server in "zai", "ollama":
        assert "tools" not in body_of(server, tools=[TOOL], tool_choice="none")
        assert "tools" in body_of(server, tools=[TOOL])
    assert "none" == body_of("groq", tools=[TOOL], tool_choice="none")["tool_choice"]


@pytest.mark.parametrize(
    ("server", "field"),
    [
        ("groq", "reasoning"),
        ("cerebras", "reasoning"),
        ("openrouter", "reasoning"),
        ("deepseek", "reasoning_content"),
        ("moonshot", "reasoning_content"),
        ("zai", "reasoning_content"),
    ],
)
@pytest.mark.parametrize("received", ["reasoning", "reasoning_content"])
def test_reasoning_goes_back_in_the_field_that_the_server_reads(server, field, received):
    """Groq refuses reasoning_content, DeepSeek wants it back; no server gets another's."""
    deltas = {received: "Hm."}, {"content": "Tea."}
    stream = b"".join(sse({"choices": [{"delta": delta}]}) for delta in deltas)
    with FakeServer(Reply(stream + b"data: [DONE]\n\n")) as fake:
        answer = OpenAI("m", server=server, base_url=fake.url, api_key="k").invoke("hi")
    assert "Hm." == answer.reasoning
    talk = [("user", "hi"), answer, ("user", "more")]
    sent = body_of(server, talk)["messages"][1]
    assert ("Hm.", {"role", "content", field}) == (sent[field], sent.keys())
    assert {"role", "content"} == body_of("vllm", talk)["messages"][1].keys()


@pytest.mark.parametrize(("server", "field"), [("deepseek", ""), ("moonshot", " "), ("groq", None)])
def test_answer_without_reasoning_has_the_field_that_the_server_requires(server, field):
    """DeepSeek and Moonshot refuse a conversation whose answers lack it, also those of other models."""
    talk = [
        ("user", "hi"),
        Message("assistant", [ToolCallPart("a", "f", "{}")]),
        Message("tool", [ToolResultPart("a", "1")]),
        ("assistant", "Tea."),
    ]
    sent = body_of(server, [*talk, ("user", "more")])["messages"]
    assert [None, field, None, field, None] == [each.get("reasoning_content") for each in sent]


def test_names_of_authors_are_left_out_where_the_server_refuses_them():
    """Other servers get them."""
    prompt = [Message("user", "hi", name="Ann")]
    assert {"role": "user", "content": "hi"} == body_of("xai", prompt)["messages"][0]
    assert {"role": "user", "content": "hi"} == body_of("zai", prompt)["messages"][0]
    assert "Ann" == body_of("groq", prompt)["messages"][0]["name"]


def test_alibaba_takes_audio_as_a_data_uri():
    """Without a media type; OpenAI takes the base64 alone."""
    prompt = [Message("user", [FilePart("audio/mpeg", b"abc"), "What is said?"])]
    sound, text = body_of("alibaba", prompt)["messages"][0]["content"]
    assert {"type": "input_audio", "input_audio": {"data": "data:;base64,YWJj", "format": "mp3"}} == sound
    assert {"type": "text", "text": "What is said?"} == text
    assert "YWJj" == body_of("vllm", prompt)["messages"][0]["content"][0]["input_audio"]["data"]


def test_mistral_takes_short_ids_and_names_of_results():
    """Call and result are renamed together."""
    call = Message("assistant", [ToolCallPart("toolu_0123456789", "now", "{}")])
    result = Message("tool", [ToolResultPart("toolu_0123456789", "noon", name="now")])
    _, asked, told = body_of("mistral", [("user", "hi"), call, result])["messages"]
    [identity] = {asked["tool_calls"][0]["id"], told["tool_call_id"]}
    assert (9, True, "now") == (len(identity), identity.isalnum(), told["name"])


@pytest.mark.parametrize(
    ("server", "longest"), [("openai", 40), ("azure", 40), ("azure-inference", 40), ("vllm", 999), ("groq", 999)]
)
def test_ids_that_the_chat_server_does_not_accept_are_replaced(server, longest):
    """In the call and in its result; ids of the largest length stay: https://github.com/BerriAI/litellm/issues/11392."""
    fits, large = "chatcmpl-tool-".ljust(40, "0"), "chatcmpl-tool-".ljust(41, "0")
    calls = Message("assistant", [ToolCallPart(fits, "now", "{}"), ToolCallPart(large, "now", "{}", 1)])
    results = Message("tool", [ToolResultPart(fits, "noon"), ToolResultPart(large, "one")])
    _, asked, *told = body_of(server, [("user", "hi"), calls, results])["messages"]
    sent = [call["id"] for call in asked["tool_calls"]]
    assert sent == [result["tool_call_id"] for result in told]
    assert fits == sent[0]
    assert (sent[1] == large) == (longest == 999)
    assert len(sent[1]) <= longest


def test_mistral_is_sent_nothing_that_it_does_not_know():
    """Its API answers 422 to every unknown field: https://github.com/yetone/avante.nvim/issues/2347."""
    sent = body_of(
        "mistral",
        [Message("user", "hi", name="Ada"), Message("assistant", [RefusalPart("No.")], name="Bob"), ("user", "why?")],
    )
    assert "stream_options" not in sent
    assert [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": "why?"},
    ] == sent["messages"]


@pytest.mark.parametrize("server", ["openai", "azure", "groq", "deepseek", "vllm"])
def test_refusal_is_text_for_servers_that_know_only_text(server):
    """They reject the type that OpenAI's own models have."""
    prompt = [("user", "hi"), Message("assistant", [TextPart("Well, "), RefusalPart("no.")]), ("user", "why?")]
    content = body_of(server, prompt)["messages"][1]["content"]
    parts = [{"type": "text", "text": "Well, "}, {"type": "refusal", "refusal": "no."}]
    assert (parts if server in ("openai", "azure") else "Well, no.") == content


@pytest.mark.parametrize("system", [[], [("system", "Be brief.")]])
def test_mistral_continues_an_answer_that_is_marked_as_a_prefix(system):
    """It refuses another last answer. Other servers need no mark: https://github.com/BerriAI/litellm/issues/4882."""
    prompt = [*system, ("user", "hi"), ("assistant", "Hel")]
    assert {"role": "assistant", "content": "Hel", "prefix": True} == body_of("mistral", prompt)["messages"][-1]
    earlier = body_of("mistral", [*prompt, ("user", "hi")])["messages"]
    assert not any("prefix" in message for message in earlier)
    assert "prefix" not in body_of("vllm", prompt)["messages"][-1]
    refused = Message("assistant", "Hel", extra={"prefix": False})
    assert body_of("mistral", [("user", "hi"), refused])["messages"][-1]["prefix"] is False


def test_mistral_gets_an_answer_between_a_result_and_the_user():
    """It refuses the user after a tool. An answer that stands there is enough, and so are more results."""
    call = Message("assistant", [ToolCallPart("abcdefgh1", "rm", "{}"), ToolCallPart("abcdefgh2", "rm", "{}", 1)])
    results = Message(
        "tool", [ToolResultPart("abcdefgh1", "no", "denied"), ToolResultPart("abcdefgh2", "no", "denied")]
    )
    prompt = [("user", "rm"), call, results]
    asked = ["user", "assistant", "tool", "tool"]
    for after, roles in [
        ([("user", "ls"), ("user", "now")], ["assistant", "user", "user"]),
        ([("assistant", "Fine."), ("user", "ls")], ["assistant", "user"]),
        ([], []),
    ]:
        sent = body_of("mistral", [*prompt, *after])["messages"]
        assert asked + roles == [message["role"] for message in sent]
        assert all(message["content"] for message in sent[len(asked) :])
        assert len(prompt) + len(after) + 1 == len(body_of("vllm", [*prompt, *after])["messages"])


def test_perplexity_gets_the_messages_of_one_role_as_one():
    """It wants the roles in turns: https://github.com/perplexityai/api-discussion/issues/265."""
    picture = FilePart("image/png", url="https://example.com/a.png")
    prompt = [
        ("system", "Be brief."), ("user", "A text."), Message("user", [picture]), ("user", "Sum it up."),
        ("assistant", "One."), Message("assistant", ""), ("assistant", " Two."), ("user", "More."),
    ]  # fmt: skip
    texts = [{"type": "text", "text": text} for text in ("A text.", "Sum it up.")]
    assert [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [texts[0], {"type": "image_url", "image_url": {"url": picture.url}}, texts[1]]},
        {"role": "assistant", "content": "One. Two."},
        {"role": "user", "content": "More."},
    ] == body_of("perplexity", prompt)["messages"]
    assert len(prompt) - 1 == len(body_of("vllm", prompt)["messages"])


def test_perplexity_gets_calls_and_results_of_tools_apart():
    """A result belongs to its call, and a call without a text is a message, too."""
    calls = [ToolCallPart(name, "now", "{}") for name in ("a", "b")]
    results = [ToolResultPart(call.id, call.id.upper(), name="now") for call in calls]
    prompt = [
        ("user", "hi"),
        Message("assistant", calls),
        *(Message("tool", [each]) for each in results),
        ("user", "so?"),
    ]
    sent = body_of("perplexity", prompt)["messages"]
    assert body_of("vllm", prompt)["messages"] == sent
    assert [("a", "A"), ("b", "B")] == [(each["tool_call_id"], each["content"]) for each in sent[2:4]]


def test_mistral_gets_files_in_its_own_form():
    """Documents are URLs, sound is bare base64."""
    files = [
        FilePart("application/pdf", b"%PDF", name="a.pdf"),
        FilePart("application/pdf", url="https://example.com/a.pdf", name="a.pdf"),
        FilePart("application/pdf", file_id="file-1"),
        FilePart("audio/wav", b"RIFF"),
    ]
    assert [
        {"type": "document_url", "document_url": "data:application/pdf;base64,JVBERg==", "document_name": "a.pdf"},
        {"type": "document_url", "document_url": "https://example.com/a.pdf", "document_name": "a.pdf"},
        {"type": "file", "file_id": "file-1"},
        {"type": "input_audio", "input_audio": "UklGRg=="},
    ] == body_of("mistral", [Message("user", files)])["messages"][0]["content"]


def test_mistral_gets_its_reasoning_back_among_the_texts():
    """Streamed or whole, with the signature; no other server gets it."""
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}], "signature": "sig"}
    message = {"role": "assistant", "content": [thought, {"type": "text", "text": "Hello."}]}
    document = {"id": "a", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    pieces = [{**thought, "signature": None}, {**thought, "thinking": []}, {"type": "text", "text": "Hello."}]
    frames = [{"id": "a", "choices": [{"index": 0, "delta": {"content": [piece]}}]} for piece in pieces]
    frames.append({"id": "a", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    with FakeServer(Reply.json(document), Reply([*map(sse, frames), sse("[DONE]")])) as server:
        llm = OpenAI("m", server="mistral", base_url=server.url, api_key="k")
        answers = [llm.invoke("hi", stream=False), llm.invoke("hi")]
    for answer in answers:
        assert (ReasoningPart("Hm.", "sig"), TextPart("Hello.")) == answer.parts
        history = [("user", "hi"), answer, ("user", "more")]
        assert message == llm.preview(history).json["messages"][1]
        assert "Hm." not in str(OpenAI("m", server="deepseek", api_key="k").preview(history).json)


def test_outcome_of_a_result_with_an_image_is_sent_as_text():
    """The protocol has no field for it."""
    call = Message("assistant", [ToolCallPart("call_1", "look", "{}")])
    result = Message("tool", [ToolResultPart("call_1", [FilePart("image/png", b"x")], "error")])
    told = body_of("openrouter", [("user", "hi"), call, result])["messages"][2]["content"]
    assert {"type": "text", "text": "Error:"} == told[0]
    assert "image_url" == told[1]["type"]


def test_groq_gets_no_null_content():
    """It refuses null as the content of a message with tool calls."""
    call = Message("assistant", [ToolCallPart("call_1", "now", "{}")])
    assert "content" not in body_of("groq", [("user", "hi"), call])["messages"][1]
    assert body_of("xai", [("user", "hi"), call])["messages"][1]["content"] is None


def test_a_program_adds_a_row_in_one_line(monkeypatch):
    """`model` finds it by its name and by its host."""
    rxllm.register_provider("mine", "https://llm.example.com/v1", "MINE_API_KEY", limit="max_completion_tokens")
    monkeypatch.setenv("MINE_API_KEY", "k")
    llm = rxllm.model("mine:m", max_tokens=5)
    request = Request(prompt="hi")
    assert "https://llm.example.com/v1/chat/completions" == llm._url(request)
    assert {"authorization": "Bearer k"} == llm._headers(request)
    assert "mine" == OpenAI("m", base_url="https://llm.example.com/v2").service(request).provider


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("groq", "https://x.example/v1"), "There already is a provider 'groq'"),
        (("Mine!", "https://x.example/v1"), "A provider's name must be in lower case"),
    ],
)
def test_bad_row_is_refused(given, sentence):
    """A program cannot replace a row of rxllm."""
    with pytest.raises(MisuseError, match=sentence):
        rxllm.register_provider(*given)


def test_misspelt_quirk_is_refused():
    """The sentence names it."""
    with pytest.raises(MisuseError, match="limits"):
        rxllm.register_provider("mine", "https://x.example/v1", limits="max_tokens")


def test_misspelt_server_is_refused_with_the_nearest_name():
    """In `model` and in the constructor."""
    with pytest.raises(MisuseError, match="Did you mean groq"):
        OpenAI("m", server="grok")
    with pytest.raises(MisuseError, match="Did you mean deepseek:x"):
        rxllm.model("deepsek:x")


def test_every_row_is_whole():
    """Each has a name, an address and valid fields."""
    assert all(isinstance(server, Server) and server.base_url for server in SERVERS.values())
    assert [*SERVERS] == [server.name for server in SERVERS.values()]
    assert attrs.evolve(SERVERS["groq"]) == SERVERS["groq"]


def test_name_of_an_author_has_no_character_that_openai_rejects():
    """Its pattern forbids white space and some marks."""
    talk = [Message("user", "hi", name="Ada <ada/home> Löw"), Message("user", "ho", name="Bob")]
    turns = OpenAI("gpt-5-mini", api_key="k", api="chat").preview(talk).json["messages"]
    assert ["Ada_ada_home_Löw", "Bob"] == [turn["name"] for turn in turns]
