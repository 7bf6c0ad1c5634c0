"""Requests that a vendor or a model would refuse: a sentence before anything is sent, from each provider."""

import pytest

import rxllm
from rxllm import (
    Anthropic,
    Bedrock,
    CachePoint,
    Cohere,
    FilePart,
    Gemini,
    Message,
    MisuseError,
    Ollama,
    OpenAI,
    ToolSpec,
)
from rxllm.testing import FakeServer

SCHEMA = {"type": "object", "properties": {}}
NOW = ToolSpec("now", parameters=SCHEMA)
PNG = b"\x89PNG\r\n\x1a\n..."
LARGE = bytes(30 * 2**20)
PROVIDERS = {
    "chat": lambda **settings: OpenAI("gpt-4.1", api="chat", **settings),
    "responses": lambda **settings: OpenAI("gpt-4.1", api="responses", **settings),
    "anthropic": lambda **settings: Anthropic("claude-sonnet-4-6", **settings),
    "gemini": lambda **settings: Gemini("gemini-2.5-flash", **settings),
    "ollama": lambda **settings: Ollama("qwen3", **settings),
    "cohere": lambda **settings: Cohere("command-a", **settings),
    "bedrock": lambda **settings: Bedrock("anthropic.claude-sonnet-4-6", region="eu-west-1", **settings),
}
WITHOUT_EFFORT = [
    "claude-2.1", "claude-3-7-sonnet-latest", "claude-opus-4-0", "claude-opus-4-1", "claude-sonnet-4-20250514",
    "claude-sonnet-4-5", "claude-haiku-4-5",
]  # fmt: skip
each = pytest.mark.parametrize("name", PROVIDERS)


def asked(name, prompt="hi", **parameters):
    """Ask a provider. A request that reaches its server is an error of the test."""
    with FakeServer() as server:
        llm = PROVIDERS[name](base_url=server.url, api_key="key", max_retries=0)
        try:
            llm.invoke(prompt, **parameters)
        finally:
            assert [] == server.requests


def user(*parts):
    """A conversation of one turn."""
    return [Message("user", [*parts, "What is this?"])]


def marked(number):
    """A conversation with so many marks for the cache: of the system, the user and the result of a tool."""
    call, results = rxllm.ToolCallPart("c", "now", "{}"), [rxllm.ToolResultPart("c", ["noon", CachePoint()])]
    return [
        Message("system", ["Be brief.", CachePoint()]),
        Message("user", [part for index in range(number - 2) for part in (f"{index}?", CachePoint())]),
        Message("assistant", [call]),
        Message("tool", results),
    ]


@each
@pytest.mark.parametrize("half", [chr(0xD83D), chr(0xDCFF)])
def test_half_a_character_is_named(name, half):
    """In the prompt and in a field, asked and previewed; the error says how to replace it."""
    for prompt, extra in ((f"a{half}b", {}), ("hi", {"user": half})):
        with pytest.raises(MisuseError, match=r"half a character, '\\u.* replaces it"):
            asked(name, prompt, extra=extra)
        with pytest.raises(MisuseError, match="half a character"):
            PROVIDERS[name](base_url="http://127.0.0.1:1", api_key="key").preview(prompt, extra=extra)


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────


@each
def test_a_large_picture_is_refused(name, tmp_path):
    """On disk, in the program, and in the result of a tool."""
    (tmp_path / "photo.png").write_bytes(PNG + LARGE)
    with pytest.raises(MisuseError, match=r"picture 'photo\.png' has 30\.0 MiB, .* up to 20 MiB.* scale the picture"):
        asked(name, user(rxllm.file(tmp_path / "photo.png")))
    of_vendor = {"anthropic": "Anthropic takes pictures up to 7.5", "bedrock": "Bedrock takes pictures up to 3.75"}
    limit = of_vendor.get(name, "rxllm sends pictures up to 20")
    with pytest.raises(MisuseError, match=rf"The picture has 30\.0 MiB, but {limit} MiB"):
        asked(name, user(FilePart("image/png", LARGE)))
    with pytest.raises(MisuseError, match=rf"The picture has 30\.0 MiB, but {limit} MiB"):
        asked(name, [Message("tool", rxllm.ToolResultPart("1", [FilePart("image/png", LARGE)], name="now"))])


def test_a_picture_of_a_type_that_a_server_does_not_read_is_refused():
    """By the row of the server."""
    with pytest.raises(MisuseError, match="xai reads pictures of the types jpeg, png, not image/webp"):
        OpenAI("grok-4", server="xai", api_key="k").preview([Message("user", FilePart("image/webp", b"x"))])


def test_the_largest_picture_of_a_vendor_is_sent():
    """Anthropic counts the characters of base64."""
    picture = FilePart("image/png", bytes(7_864_320))
    written = Anthropic("claude-sonnet-4-6", api_key="k").preview([Message("user", picture)]).json
    assert 10 * 2**20 == len(written["messages"][0]["content"][0]["source"]["data"])


@each
def test_a_file_that_is_gone_is_refused(name, tmp_path):
    """The sentence names it."""
    with pytest.raises(MisuseError, match=r"photo\.png' cannot be sent: there is no such file"):
        asked(name, user(rxllm.file(tmp_path / "photo.png")))


@pytest.mark.parametrize(
    ("name", "media_type", "sentence"),
    [
        ("chat", "video/mp4", "no place for a video"),
        ("responses", "audio/wav", r"takes no audio\. Use OpenAI\(…, api='chat'\)"),
        ("responses", "video/mp4", "takes no video"),
        (
            "anthropic",
            "image/heic",
            r"Anthropic reads pictures of the types jpeg, png, gif, webp, not image/heic \(a\.b\)",
        ),
        ("anthropic", "audio/wav", "PDF documents and plain text, not audio/wav"),
        ("anthropic", "application/zip", "PDF documents and plain text, not application/zip"),
        ("gemini", "image/bmp", "Gemini reads pictures of the types png, jpeg, webp, heic, heif, not image/bmp"),
        ("ollama", "application/pdf", "only images, not this application/pdf"),
        ("cohere", "image/tiff", "Cohere reads pictures of the types png, jpeg, webp, gif, not image/tiff"),
        ("cohere", "application/pdf", "text and images from the user, not this application/pdf"),
        ("bedrock", "image/heic", "formats png, jpeg, gif, webp, not heic"),
        ("bedrock", "application/zip", "formats pdf, csv, .* not zip"),
    ],
)
def test_a_media_type_that_the_vendor_does_not_read_is_refused(name, media_type, sentence):
    """The sentence says which types it reads."""
    with pytest.raises(MisuseError, match=sentence):
        asked(name, user(FilePart(media_type, b"data", name="a.b")))


@pytest.mark.parametrize("media_type", ["image/heic", "image/bmp", "image/svg+xml", "image/tiff"])
def test_openai_reads_four_types_of_pictures_and_two_of_sound(media_type):
    """Other servers of its protocol may read more."""
    prompt = user(FilePart(media_type, b"data"))
    for api in "chat", "responses":
        with pytest.raises(MisuseError, match=f"of the types png, jpeg, webp, gif, not {media_type[:9]}"):
            OpenAI("gpt-4.1", api=api, api_key="key").invoke(prompt)
    with pytest.raises(MisuseError, match="OpenAI takes audio as WAV or MP3, not audio/ogg"):
        OpenAI("gpt-4.1", api_key="key").invoke(user(FilePart("audio/ogg", b"OggS")))
    assert OpenAI("m", base_url="http://localhost:8000/v1").preview(prompt)


@each
def test_bytes_tell_what_an_inexact_media_type_does_not(name):
    """A vendor refuses image/*."""
    told = str(PROVIDERS[name](api_key="key", max_retries=0).preview(user(FilePart("image/*", PNG))))
    assert "image/*" not in told
    assert "png" in told or name == "ollama"
    with pytest.raises(MisuseError, match=r"media type of a file is unknown: it states image/\*"):
        asked(name, user(FilePart("image/*", b"something")))
    with pytest.raises(MisuseError, match=r"media type of a file is unknown: it states audio/\*"):
        asked(name, user(FilePart("audio/*", PNG)))


@each
def test_picture_is_sent_with_the_type_of_its_bytes(name):
    """A vendor refuses a PNG that states JPEG. Bytes that tell nothing keep their type."""
    sent = [
        str(PROVIDERS[name](api_key="key", max_retries=0).preview(user(FilePart(stated, data))))
        for stated, data in (("image/jpeg", PNG), ("image/png", PNG), ("image/jpeg", b"?"), ("image/jpeg", b"%PDF-1"))
    ]
    assert sent[0] == sent[1]
    assert all("jpeg" in each for each in sent[2:]) or name == "ollama"


# ── tools ────────────────────────────────────────────────────────────────────────────────────────────────────────


@each
@pytest.mark.parametrize(
    ("tool", "sentence"),
    [
        ({"type": "function", "function": {"name": "now"}}, "The tool 'now' has no JSON schema"),
        ({"name": "now", "description": "The time"}, "The tool 'now' has no JSON schema"),
        ({"name": "now", "input_schema": {"type": "array"}}, "parameters must be a JSON schema of an object"),
        ({"name": "now", "parameters": {}}, "parameters must be a JSON schema of an object"),
        ("now", "tools must be one or more tools"),
    ],
)
def test_a_tool_without_a_schema_is_refused(name, tool, sentence):
    """The sentence says how a tool without arguments is written."""
    with pytest.raises(MisuseError, match=sentence):
        asked(name, tools=[tool])


@pytest.mark.parametrize("name", ["anthropic", "gemini", "bedrock"])
def test_a_name_that_the_vendor_does_not_accept_is_refused(name):
    """It is the name of a tool with a space in it."""
    with pytest.raises(MisuseError, match="does not accept 'the time' as the name of a tool"):
        asked(name, tools=[ToolSpec("the time")])


def test_a_name_that_openai_does_not_accept_is_refused():
    """Other servers of its protocol may accept it."""
    with pytest.raises(MisuseError, match=r"OpenAI does not accept 'a\.b' as the name of a tool"):
        OpenAI("gpt-4.1", api_key="key").invoke("hi", tools=[ToolSpec("a.b")])
    assert OpenAI("m", base_url="http://localhost:8000/v1").preview("hi", tools=[ToolSpec("a.b")])


@pytest.mark.parametrize("name", ["chat", "responses", "anthropic", "gemini", "cohere"])
def test_a_tool_choice_without_its_tool_is_refused(name):
    """Vendors answer 400."""
    with pytest.raises(MisuseError, match="names the tool 'then', but the request has no such tool"):
        asked(name, tools=[NOW], tool_choice="then")
    with pytest.raises(MisuseError, match=r"forces a call, but the request has no tools|request has no such tool"):
        asked(name, tool_choice="now")
    with pytest.raises(MisuseError, match="forces a call, but the request has no tools"):
        asked(name, tool_choice="required")


def test_a_tool_in_a_form_of_its_own_may_be_chosen():
    """Only its server knows its name."""
    llm = OpenAI("m", base_url="http://localhost:8000/v1", api="chat")
    assert llm.preview("hi", tool_choice="mine", tools=[NOW, {"type": "mine"}])


# ── parameters ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "parameters", "sentence"),
    [
        ("responses", {"seed": 1}, "no seed"),
        ("responses", {"stop_sequences": ["END"]}, "no stop_sequences"),
        ("anthropic", {"seed": 1}, "no seed"),
        ("anthropic", {"response_format": "json"}, "by a schema only"),
        ("anthropic", {"effort": "minimal"}, "not 'minimal'"),
        ("anthropic", {"temperature": 1.5}, r"from 0 to 1, not 1\.5"),
        ("anthropic", {"temperature": 0.5, "top_p": 0.5}, "takes temperature or top_p, not both"),
        ("gemini", {"parallel_tool_calls": False, "tools": [NOW]}, "parallel"),
        ("gemini", {"effort": "max"}, "not 'max'"),
        ("ollama", {"tool_choice": "required", "tools": [NOW]}, "must be 'auto' or 'none'"),
        ("ollama", {"parallel_tool_calls": False, "tools": [NOW]}, "parallel"),
        ("ollama", {"effort": "xhigh"}, "not 'xhigh'"),
        ("cohere", {"effort": "high"}, "no effort 'high'"),
        ("cohere", {"parallel_tool_calls": False, "tools": [NOW]}, "parallel"),
        ("bedrock", {"seed": 1}, "no seed"),
        ("bedrock", {"response_format": "json"}, "by a schema only"),
        ("bedrock", {"parallel_tool_calls": False, "tools": [NOW]}, "parallel"),
        ("bedrock", {"temperature": 0.5, "top_p": 0.5}, "takes temperature or top_p, not both"),
    ],
)
def test_a_parameter_that_the_protocol_lacks_is_refused(name, parameters, sentence):
    """Instead of being dropped, or refused by the vendor."""
    with pytest.raises(MisuseError, match=sentence):
        asked(name, **parameters)


@pytest.mark.parametrize(
    ("model", "parameters", "sentence"),
    [
        ("gpt-5-mini", {"temperature": 0}, "gpt-5-mini does not take temperature. Leave it out"),
        ("gpt-5", {"temperature": 0, "top_p": 0.5, "stop_sequences": ["a"]}, "temperature, top_p and stop_sequences"),
        ("o3", {"temperature": 0.5}, "o3 does not take temperature"),
        ("o4-mini-2025-04-16", {"stop_sequences": ["a"]}, "does not take stop_sequences"),
        ("ft:gpt-5-nano:mine", {"top_p": 0.5}, "does not take top_p"),
        ("gpt-5.2", {"temperature": 0.5, "effort": "high"}, "gpt-5.2 does not take temperature"),
        ("gpt-5", {"top_k": 3}, "no top_k"),
    ],
)
def test_models_of_openai_that_reason_take_no_sampling(model, parameters, sentence):
    """At OpenAI's own host."""
    with pytest.raises(MisuseError, match=sentence):
        OpenAI(model, api_key="key").invoke("hi", **parameters)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("gpt-5-mini", {"temperature": 1}),
        ("gpt-5-chat-latest", {"temperature": 0}),
        ("gpt-5.2", {"temperature": 0}),
        ("gpt-5.2", {"temperature": 0, "effort": "none"}),
        ("gpt-4.1", {"temperature": 0, "top_p": 0.5, "stop_sequences": ["a"]}),
        ("gpt-6", {"temperature": 0}),
        ("omni", {"temperature": 0}),
    ],
)
def test_other_models_of_openai_get_what_the_request_says(model, parameters):
    """A model that rxllm does not know is not judged."""
    assert OpenAI(model, api_key="key").preview("hi", **parameters)


def test_other_servers_are_not_judged_by_the_names_of_openais_models():
    """A local model may have any name."""
    assert OpenAI("gpt-5", base_url="http://localhost:8000/v1").preview("hi", temperature=0, stop_sequences=["a"])


@pytest.mark.parametrize(
    ("model", "parameters", "sentence"),
    [
        ("claude-opus-4-7", {"temperature": 0}, "claude-opus-4-7 does not take temperature. Leave it out"),
        ("claude-opus-5-5", {"temperature": 0}, "claude-opus-5-5 does not take temperature. Leave it out"),
        ("claude-opus-5-5", {"effort": "none"}, "claude-opus-5-5 always thinks, so it has no effort 'none'"),
        ("claude-fable-5-1", {"tools": [NOW], "tool_choice": "required"}, "cannot be forced to call a tool"),
        ("claude-sonnet-5", {"top_p": 0.5}, "claude-sonnet-5 does not take top_p. Leave it out"),
        ("claude-mythos-5", {"temperature": 0.5}, "claude-mythos-5 does not take temperature. Leave it out"),
        ("claude-fable-5", {"top_k": 5}, "claude-fable-5 does not take top_k. Leave it out"),
        ("claude-opus-4-8", {"top_p": 0.9, "top_k": 5}, "does not take top_p and top_k. Leave them out"),
        (
            "claude-sonnet-4-6",
            {"stop_sequences": ["END", "\n\n"]},
            r"white space alone as a stop sequence\. .*rxllm\.stop_at",
        ),
        *((model, {"effort": "low"}, f"{model} has no effort") for model in WITHOUT_EFFORT),
        ("claude-sonnet-4-6", {"prompt": marked(5), "tools": [NOW]}, "at most 4 CachePoints in a request, not 5"),
        ("claude-opus-4-1", {"temperature": 0, "top_p": 0.9}, "temperature or top_p, not both"),
        ("claude-haiku-4-5", {"temperature": 0, "top_p": 0.9}, "temperature or top_p, not both"),
        (
            "claude-3-haiku",
            {"temperature": 0.5, "extra": {"thinking": {"type": "enabled"}}},
            "thinks does not take temp",
        ),
        ("claude-3-haiku", {"top_k": 5, "extra": {"thinking": {"type": "adaptive"}}}, "thinks does not take top_k"),
        (
            "claude-3-haiku",
            {"tools": [NOW], "tool_choice": "now", "extra": {"thinking": {"type": "enabled"}}},
            "thinks cannot be forced to call a tool",
        ),
    ],
)
def test_parameters_that_a_claude_model_refuses(model, parameters, sentence):
    """At Anthropic, and on Bedrock under Bedrock's name of the model."""
    with pytest.raises(MisuseError, match=sentence):
        Anthropic(model, api_key="key").invoke(**{"prompt": "hi", **parameters})
    if "extra" not in parameters:
        llm = Bedrock(f"eu.anthropic.{model}-20260416-v1:0", api_key="key", region="eu-west-1")
        with pytest.raises(MisuseError, match=sentence.removeprefix(model)):
            llm.invoke(**{"prompt": "hi", **parameters})


def test_other_claude_models_get_what_the_request_says():
    """Of a later one nothing is known."""
    for model in "claude-3-5-haiku-latest", "claude-sonnet-9":
        assert Anthropic(model, api_key="key").preview("hi", temperature=0.5, top_p=0.5, top_k=5)
    for model in "claude-opus-4-5", "claude-sonnet-4-6", "claude-opus-4-20", "claude-haiku-5":
        assert Anthropic(model, api_key="key").preview(marked(4), effort="low", stop_sequences=["\n\nHuman:"])
    for model in WITHOUT_EFFORT:
        assert Anthropic(model, api_key="key").preview("hi", effort="none")
    assert Anthropic("glm-5", api_key="key").preview(marked(5), stop_sequences=["\n\n"])
    assert Anthropic("claude-opus-4-7", api_key="key").preview("hi", temperature=1)


def test_every_mark_for_the_cache_counts():
    """Those of tools in Anthropic's form and of the request itself, too; a field of arguments is no mark."""
    llm = Anthropic("claude-sonnet-4-6", api_key="key")
    mark = {"cache_control": {"type": "ephemeral"}}
    tool = {"name": "now", "input_schema": SCHEMA, **mark}
    with pytest.raises(MisuseError, match="at most 4 CachePoints in a request, not 5"):
        llm.preview(marked(4), tools=[tool])
    with pytest.raises(MisuseError, match="at most 4 CachePoints in a request, not 5"):
        llm.preview(marked(4), extra=mark)
    call = rxllm.ToolCallPart("c", "now", '{"cache_control": 1}')
    assert llm.preview([*marked(4)[:2], Message("assistant", [call]), *marked(4)[3:]])
    bedrock = Bedrock("anthropic.claude-sonnet-4-6", api_key="key", region="eu-west-1")
    point = {"cachePoint": {"type": "default"}}
    assert bedrock.preview(marked(4), tools=[NOW])
    with pytest.raises(MisuseError, match="at most 4 CachePoints in a request, not 5"):
        bedrock.preview(marked(4), tools=[NOW, point])
