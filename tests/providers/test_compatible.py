"""The servers that speak OpenAI's protocol: how each is found, and what it is sent."""

import attrs
import pytest

import rxllm
from rxllm import FilePart, Message, MisuseError, OpenAI, ToolCallPart, ToolResultPart
from rxllm.providers.compatible import HOUSES, House
from rxllm.values.request import Request

SCHEMA = {"type": "object", "properties": {}}
PDF = FilePart("application/pdf", b"x")
TOOL = {"name": "now", "parameters": SCHEMA}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No key and no address but those that a test sets; registered rows are forgotten."""
    for house in HOUSES.values():
        for variable in house.keys:
            monkeypatch.delenv(variable, raising=False)
    for variable in ("OPENAI_BASE_URL", "AZURE_OPENAI_ENDPOINT"):
        monkeypatch.delenv(variable, raising=False)
    before = dict(HOUSES)
    yield
    HOUSES.clear()
    HOUSES.update(before)


def body_of(house, prompt="hi", **parameters):
    """What is sent to it by chat."""
    llm = OpenAI("m", house=house, api="chat", base_url="http://localhost:1/v1")
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
def test_a_house_is_found_by_its_name(name, url, variable, header, monkeypatch):
    """Its address and its key's variable are known."""
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com/")
    monkeypatch.setenv(variable, "k")
    llm = rxllm.model(f"{name}:some/model:free")
    request = Request(prompt="hi")
    assert ("some/model:free", f"{url}/chat/completions", header) == (
        llm.model,
        llm._url(request),
        llm._headers(request),
    )


def test_a_key_of_openai_goes_to_no_house_that_was_named(monkeypatch):
    """The missing key is a sentence with the house's own variable."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with pytest.raises(MisuseError, match=r"There is no key for api\.groq\.com: set GROQ_API_KEY"):
        rxllm.model("groq:m").invoke("hi")


def test_a_missing_address_is_told_by_its_variable():
    """Azure's address is each customer's own."""
    with pytest.raises(MisuseError, match="address of azure is not known: set AZURE_OPENAI_ENDPOINT"):
        rxllm.model("azure:m", api_key="k").invoke("hi")


@pytest.mark.parametrize(
    ("house", "model", "field"),
    [
        ("azure", "gpt-5", "max_completion_tokens"),
        ("azure", "Mistral-Large", "max_tokens"),
        ("openai", "gpt-5", "max_completion_tokens"),
        ("cerebras", "m", "max_completion_tokens"),
        ("groq", "m", "max_tokens"),
        ("ollama", "m", "max_tokens"),
    ],
)
def test_the_limit_has_the_name_that_the_house_knows(house, model, field):
    """Azure and OpenAI refuse the older name for models that reason."""
    assert 9 == body_of(house, model=model, max_tokens=9)[field]


def test_effort_seed_and_choice_have_the_words_of_the_house():
    """They are data of the row."""
    assert {"effort": "low"} == body_of("openrouter", effort="low")["reasoning"]
    assert "low" == body_of("groq", effort="low")["reasoning_effort"]
    assert "reasoning" not in body_of("openrouter")
    assert 3 == body_of("mistral", seed=3)["random_seed"]
    assert "any" == body_of("mistral", tools=[TOOL], tool_choice="required")["tool_choice"]
    assert "tool_choice" not in body_of("ollama", tools=[TOOL], tool_choice="auto")


@pytest.mark.parametrize(
    ("house", "asked", "sentence"),
    [
        ("perplexity", {"tools": [TOOL]}, "perplexity has no tools"),
        ("perplexity", {"stop_sequences": ["END"]}, "perplexity has no stop_sequences"),
        ("perplexity", {"seed": 1}, "perplexity has no seed"),
        ("deepseek", {"response_format": SCHEMA}, "deepseek has no JSON schema .*'json' works"),
        ("ollama", {"tools": [TOOL], "tool_choice": "now"}, "ollama has no tool_choice"),
        ("moonshot", {"tools": [TOOL], "tool_choice": "required"}, "moonshot has no tool_choice that forces"),
        (
            "alibaba",
            {"prompt": [Message("user", [FilePart("application/pdf", b"x")])]},
            "alibaba has no place for files",
        ),
    ],
)
def test_what_a_house_lacks_is_refused(house, asked, sentence):
    """Before it is sent."""
    with pytest.raises(MisuseError, match=sentence):
        body_of(house, **asked)


def test_mistral_takes_short_ids_and_names_of_results():
    """Call and result are renamed together."""
    call = Message("assistant", [ToolCallPart("toolu_0123456789", "now", "{}")])
    result = Message("tool", [ToolResultPart("toolu_0123456789", "noon", name="now")])
    _, asked, told = body_of("mistral", [("user", "hi"), call, result])["messages"]
    [identity] = {asked["tool_calls"][0]["id"], told["tool_call_id"]}
    assert (9, True, "now") == (len(identity), identity.isalnum(), told["name"])


def test_a_house_without_nulls_gets_none():
    """Groq refuses null as the content of a message that calls tools."""
    call = Message("assistant", [ToolCallPart("call_1", "now", "{}")])
    assert "content" not in body_of("groq", [("user", "hi"), call])["messages"][1]
    assert body_of("xai", [("user", "hi"), call])["messages"][1]["content"] is None


def test_a_program_adds_a_row_in_one_line(monkeypatch):
    """It is found by its name, and by its host."""
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
        (("groq", "https://x.example/v1"), "There is a provider 'groq' already"),
        (("Mine!", "https://x.example/v1"), "A provider's name is in lower case"),
    ],
)
def test_a_bad_row_is_refused(given, sentence):
    """A shipped row is not replaced."""
    with pytest.raises(MisuseError, match=sentence):
        rxllm.register_provider(*given)


def test_a_misspelt_quirk_is_refused():
    """It is named."""
    with pytest.raises(MisuseError, match="limits"):
        rxllm.register_provider("mine", "https://x.example/v1", limits="max_tokens")


def test_a_misspelt_house_names_the_nearest():
    """Of the constructor, too."""
    with pytest.raises(MisuseError, match="Did you mean groq"):
        OpenAI("m", house="grok")
    with pytest.raises(MisuseError, match="Did you mean deepseek:x"):
        rxllm.model("deepsek:x")


def test_every_row_is_whole():
    """Each has a name, an address and the fields of a House."""
    assert all(isinstance(house, House) and name == house.name and house.base_url for name, house in HOUSES.items())
    assert attrs.evolve(HOUSES["groq"]) == HOUSES["groq"]
