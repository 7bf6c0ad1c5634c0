"""Gemini's protocol: the requests, the decoding of the responses, and conversations for a strict server."""

import base64
import json

import pytest
from protocols import sse

from rxllm import Anthropic, Gemini, Interrupted, MisuseError, OpenAI, ProtocolError, ProviderError, RateLimited
from rxllm.bounds import PARTS
from rxllm.testing import FakeServer, Reply
from rxllm.values.message import Message
from rxllm.values.parts import (
    CachePoint,
    FilePart,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from rxllm.values.request import Request
from rxllm.values.tools import ToolSpec
from rxllm.values.usage import Usage

MAKER = "gcp.gemini"
SKIPPED = "skip_thought_signature_validator"
VERTEX = "/v1/projects/mine/locations/us-central1/publishers/google"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No key and no address but those that a test sets."""
    for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    """A local server. Each test sets its replies."""
    with FakeServer() as server:
        yield server


def body_of(prompt="hi", model="gemini-3-flash", **parameters):
    """The body that is sent."""
    return Gemini(model)._body(Request.ask(prompt).over(Request(prompt="", **parameters)))


def contents_of(*messages):
    """The contents that are sent for a conversation."""
    return body_of(list(messages))["contents"]


def response(*parts, finish=None, counts=None, **facts):
    """A response of these parts."""
    candidate = {"content": {"role": "model", "parts": list(parts)}, **({"finishReason": finish} if finish else {})}
    counted = {"usageMetadata": counts} if counts else {}
    return {"candidates": [candidate], "responseId": "r1", "modelVersion": "gemini-1", **counted, **facts}


def asked(server, *responses, **parameters):
    """The answer that a stream of these responses is, the same as the whole one where there is only one."""
    server.reply(Reply([sse(each).replace(b"\n", b"\r\n") for each in responses]))
    llm = Gemini("m", base_url=server.url, max_retries=0)
    streamed = llm.invoke("hi", **parameters)
    if len(responses) == 1:
        server.reply(Reply.json(responses[0]))
        assert streamed == llm.invoke("hi", stream=False, **parameters)
    return streamed


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_parameters_have_gemini_names():
    """Limits and sampling go into generationConfig, the system apart, the roles are user and model."""
    conversation = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes?"), ("user", "Time?"), ("user", "Now!")]
    expected = {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Hi"}]},
            {"role": "model", "parts": [{"text": "Yes?"}]},
            {"role": "user", "parts": [{"text": "Time?"}, {"text": "Now!"}]},
        ],
        "generationConfig": {
            "temperature": 0,
            "topP": 0.5,
            "topK": 7,
            "maxOutputTokens": 9,
            "stopSequences": ["END"],
            "seed": 1,
        },
    }
    sampling = {"temperature": 0, "top_p": 0.5, "top_k": 7, "max_tokens": 9, "stop_sequences": "END", "seed": 1}
    assert expected == body_of(conversation, **sampling)
    assert {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]} == body_of()


def test_extra_fields_are_united_with_the_settings():
    """An object in extra is merged into the request at any depth, and its fields win."""
    extra = {"generationConfig": {"topK": 3, "thinkingConfig": {"includeThoughts": False}}, "cachedContent": "c/1"}
    body = body_of(temperature=0, top_k=7, effort="low", extra=extra)
    thinking = {"thinkingLevel": "low", "includeThoughts": False}
    assert {"temperature": 0, "topK": 3, "thinkingConfig": thinking} == body["generationConfig"]
    assert "c/1" == body["cachedContent"]
    with pytest.raises(MisuseError, match="candidateCount requests several answers"):
        body_of(extra={"generationConfig": {"candidateCount": 2}})


def test_tools_go_into_one_entry_with_their_json_schemas():
    """Gemini's own tools follow unchanged; those of other vendors are refused."""
    search = {"googleSearch": {}}
    tools = [ToolSpec("weather", "Tells it", SCHEMA), search, {"name": "now", "input_schema": {"type": "object"}}]
    functions = [
        {"name": "weather", "description": "Tells it", "parametersJsonSchema": SCHEMA},
        {"name": "now", "parametersJsonSchema": {"type": "object", "properties": {}}},
    ]
    assert [{"functionDeclarations": functions}, search] == body_of(tools=tools)["tools"]
    with pytest.raises(MisuseError, match="fields that only another provider knows"):
        body_of(tools=[{"type": "web_search_20250305", "name": "web_search"}])


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ("weather", {"mode": "ANY", "allowedFunctionNames": ["weather"]}),
        ({"mode": "VALIDATED"}, {"mode": "VALIDATED"}),
        ({"functionCallingConfig": {"mode": "ANY"}}, {"mode": "ANY"}),
    ],
)
def test_tool_choice_becomes_a_mode(choice, config):
    """Neutral choices are translated; a dict in Gemini's own form is sent unchanged."""
    assert {"functionCallingConfig": config} == body_of(tools=[ToolSpec("weather")], tool_choice=choice)["toolConfig"]


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        (None, {}),
        ("auto", {"functionCallingConfig": {"mode": "VALIDATED"}}),
        ("required", {"functionCallingConfig": {"mode": "ANY"}}),
    ],
)
def test_functions_beside_own_tools_ask_for_the_calls_of_these(choice, config):
    """Google AI Studio rejects the combination without this field."""
    tools = [ToolSpec("weather"), {"googleSearch": {}}]
    expected = {"includeServerSideToolInvocations": True, **config}
    assert expected == body_of(tools=tools, tool_choice=choice)["toolConfig"]


def test_other_requests_do_not_ask_for_the_calls_of_own_tools():
    """Vertex AI rejects the field, older models the combination; one kind of tools needs no field."""
    mixed = Request(prompt="hi", tools=[ToolSpec("weather"), {"googleSearch": {}}])
    vertex = Gemini("gemini-3-flash", base_url=f"https://us-central1-aiplatform.googleapis.com{VERTEX}", api_key="k")
    assert "toolConfig" not in vertex._body(mixed)
    assert "toolConfig" not in Gemini("gemini-2.5-flash")._body(mixed)
    for tools in ([ToolSpec("weather")], [{"googleSearch": {}}], [{"functionDeclarations": []}, ToolSpec("weather")]):
        assert "toolConfig" not in body_of(tools=tools)


def test_strict_tools_have_their_arguments_validated():
    """The model may call none; a mode that validates anyway stays."""
    tools = [ToolSpec("weather", strict=True)]
    assert "VALIDATED" == body_of(tools=tools)["toolConfig"]["functionCallingConfig"]["mode"]
    assert "ANY" == body_of(tools=tools, tool_choice="required")["toolConfig"]["functionCallingConfig"]["mode"]


def test_response_format_becomes_a_media_type_and_a_schema():
    """JSON of any form, JSON by a schema, or Gemini's own fields."""
    json_type = {"responseMimeType": "application/json"}
    assert json_type == body_of(response_format="json")["generationConfig"]
    assert {**json_type, "responseJsonSchema": SCHEMA} == body_of(response_format=SCHEMA)["generationConfig"]
    own = {"responseMimeType": "text/x.enum", "responseSchema": {"type": "STRING"}}
    assert own == body_of(response_format=own)["generationConfig"]
    newer = body_of(response_format="json", tools=[ToolSpec("now")])
    assert (json_type, 1) == (newer["generationConfig"], len(newer["tools"]))
    plain = {"responseMimeType": "text/plain"}
    older = body_of(model="gemini-2.5-flash", response_format=plain, tools=[ToolSpec("now")])
    assert plain == older["generationConfig"]


@pytest.mark.parametrize(
    ("model", "effort", "thinking"),
    [
        ("gemini-3-flash", "minimal", {"thinkingLevel": "minimal", "includeThoughts": True}),
        ("models/gemini-3-pro", "high", {"thinkingLevel": "high", "includeThoughts": True}),
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-flash", "medium", {"thinkingBudget": 8192, "includeThoughts": True}),
        ("gemini-2.5-pro", "high", {"thinkingBudget": 24576, "includeThoughts": True}),
    ],
)
def test_effort_becomes_a_level_or_a_budget(model, effort, thinking):
    """Gemini 3 takes levels, Gemini 2.5 counts tokens."""
    assert {"thinkingConfig": thinking} == body_of(model=model, effort=effort)["generationConfig"]


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"effort": "max"}, "know the efforts none, minimal, low, medium, high, not 'max'"),
        ({"effort": "none"}, "always thinks, so it has no effort 'none'"),
        ({"effort": "none", "model": "gemini-2.5-pro"}, "always thinks"),
        ({"parallel_tool_calls": False, "tools": [ToolSpec("now")]}, "Leave out parallel_tool_calls"),
        ({"tool_choice": {"type": "tool", "name": "a", "disable_parallel_tool_use": True}}, "only another provider"),
        ({"response_format": {"type": "json_schema", "x": 1}}, "only another provider knows"),
        *(
            (
                {"model": "gemini-2.5-flash", "tools": [tool], "response_format": form},
                "takes either tools or a response_f",
            )
            for tool in (ToolSpec("now"), {"googleSearch": {}})
            for form in ("json", SCHEMA, {"responseMimeType": "application/json"})
        ),
        ({"prompt": [("system", "Be brief.")]}, "at least one message with content that is not the system's"),
        ({"prompt": [Message("user", extra={"a": 1})]}, "no field 'a'"),
        (
            {"prompt": [Message("system", [FilePart("image/png", b"x")])]},
            "this image/png file in a message of the role 'system'",
        ),
        ({"prompt": [Message("user", [FilePart("image/*", b"x")])]}, "The exact media type of a file is unknown"),
        ({"prompt": [Message("user", [FilePart("image/png")])]}, "Pass data, url or file_id"),
        ({"prompt": [Message("user", [FilePart("a/b", file_id="f", provider="openai")])]}, "is stored at openai"),
        ({"prompt": [Message("tool", [ToolResultPart("call_9", "x")])]}, "needs the name of the tool"),
        ({"extra": {"contents": []}}, "Pass the messages as the prompt"),
    ],
)
def test_what_gemini_cannot_do_is_refused_before_sending(server, parameters, sentence):
    """Nothing is sent."""
    prompt = parameters.pop("prompt", "hi")
    with pytest.raises(MisuseError, match=sentence):
        Gemini("gemini-3-pro", base_url=server.url).invoke(prompt, **parameters)
    assert [] == server.requests


def test_files_go_inline_or_by_their_place():
    """Bytes inline, addresses and the ids of uploaded files as fileData; the address tells a wildcard type."""
    parts = [
        FilePart("image/png", b"\x89PNG"),
        FilePart("application/pdf", url="https://host/a.pdf"),
        FilePart("image/*", url="https://host/a.jpg?size=2"),
        FilePart("image/*", url="https://host/a"),
        FilePart("video/mp4", file_id="https://host/v1beta/files/1", provider=MAKER),
    ]
    expected = [
        {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(b"\x89PNG").decode()}},
        {"fileData": {"fileUri": "https://host/a.pdf", "mimeType": "application/pdf"}},
        {"fileData": {"fileUri": "https://host/a.jpg?size=2", "mimeType": "image/jpeg"}},
        {"fileData": {"fileUri": "https://host/a"}},
        {"fileData": {"fileUri": "https://host/v1beta/files/1", "mimeType": "video/mp4"}},
    ]
    assert [{"role": "user", "parts": expected}] == contents_of(Message("user", parts))


def test_results_have_the_name_of_the_tool_and_how_it_ended():
    """The name is that of the nearest call before it; files stand beside the text; all results are one content."""
    calls = [ToolCallPart("1", "a", "{}"), ToolCallPart("2", "b", ""), ToolCallPart("3", "c", "[broken")]
    results = [
        Message("tool", [ToolResultPart("1", [TextPart("fine"), FilePart("image/png", b"x"), CachePoint()])]),
        Message("tool", [ToolResultPart("2", "no such city", "error"), ToolResultPart("3", "not now", "denied")]),
        Message("tool", [ToolResultPart("x", "", "interrupted", "other")]),
    ]
    picture = {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(b"x").decode()}}
    unknown = "Interrupted, so that nobody knows whether the tool has run: "
    model, user = contents_of(Message("user", "hi"), Message("assistant", calls), *results)[1:]
    assert [{}, {}, {"INVALID_JSON": "[broken"}] == [part["functionCall"]["args"] for part in model["parts"]]
    assert [
        {"id": "1", "name": "a", "response": {"output": "fine"}, "parts": [picture]},
        {"id": "2", "name": "b", "response": {"error": "no such city"}},
        {"id": "3", "name": "c", "response": {"error": "Denied: not now"}},
        {"id": "x", "name": "other", "response": {"error": unknown}},
    ] == [part["functionResponse"] for part in user["parts"]]


# ── address and key ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_key_goes_in_a_header_and_never_in_the_address(server, monkeypatch):
    """api_key wins over GOOGLE_API_KEY, which wins over GEMINI_API_KEY."""
    server.reply(Reply([sse(response({"text": "ok"}, finish="STOP"))]))
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
    monkeypatch.setenv("GEMINI_API_KEY", "gemini-key")
    Gemini("m").invoke("hi")
    monkeypatch.setenv("GOOGLE_API_KEY", "google-key")
    Gemini("m").invoke("hi")
    Gemini("m", api_key="own-key").invoke("hi")
    keys = [(request.headers["x-goog-api-key"], request.query) for request in server.requests]
    assert [(key, "alt=sse") for key in ("gemini-key", "google-key", "own-key")] == keys
    assert not any("authorization" in request.headers for request in server.requests)


@pytest.mark.parametrize(
    ("base", "model", "path"),
    [
        ("", "gemini-3-flash", "/v1beta/models/gemini-3-flash"),
        ("/", "models/gemini-3-flash", "/v1beta/models/gemini-3-flash"),
        ("/v1", "tunedModels/mine", "/v1/tunedModels/mine"),
        (VERTEX, "gemini-3-flash", f"{VERTEX}/models/gemini-3-flash"),
    ],
)
def test_the_address_names_the_model_and_the_method(server, base, model, path):
    """A base without a path gets the version; the method tells whether the answer is streamed."""
    server.reply(Reply([sse(response({"text": "ok"}, finish="STOP"))]), Reply.json(response({"text": "ok"})))
    llm = Gemini(model, base_url=server.url + base)
    assert ["ok", "ok"] == [llm.invoke("hi").text, llm.invoke("hi", stream=False).text]
    expected = [(f"{path}:streamGenerateContent", "alt=sse"), (f"{path}:generateContent", "")]
    assert expected == [(request.path, request.query) for request in server.requests]


def test_a_project_at_vertex_takes_a_bearer_token(server, monkeypatch):
    """A key of the environment belongs to no project, so it is not sent there; the provider is Vertex."""
    monkeypatch.setenv("GOOGLE_API_KEY", "google-key")
    server.reply(Reply([sse(response({"text": "ok"}, finish="STOP"))]))
    answer = Gemini("m", base_url=server.url + VERTEX, api_key="token-1").invoke("hi")
    Gemini("m", base_url=server.url + VERTEX, headers={"Authorization": "Bearer token-2"}).invoke("hi")
    assert ["Bearer token-1", "Bearer token-2"] == [request.headers["authorization"] for request in server.requests]
    assert not any("x-goog-api-key" in request.headers for request in server.requests)
    assert "gcp.vertex_ai" == answer.provider


@pytest.mark.parametrize(
    ("base", "sentence"),
    [(None, "set GEMINI_API_KEY"), (f"https://aiplatform.googleapis.com{VERTEX}", "gcloud auth print-access-token")],
)
def test_a_missing_key_is_a_sentence(base, sentence):
    """The message contains the remedy, and nothing is sent."""
    with pytest.raises(MisuseError, match=sentence):
        Gemini("m", base_url=base).invoke("hi")


# ── responses ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_signed_parts_stay_apart_and_plain_text_is_joined(server):
    """A signature belongs to exactly its part; a signature without text is a part, too."""
    answer = asked(
        server,
        response({"text": "Let me ", "thought": True}),
        response({"text": "see", "thought": True}),
        response({"text": "One"}),
        response({"text": " two", "thoughtSignature": "S1"}),
        response({"text": "three"}),
        response({"text": " four"}),
        response({"text": "", "thoughtSignature": "S2"}, finish="STOP"),
    )
    assert (
        ReasoningPart("Let me see", provider=MAKER),
        TextPart("One"),
        TextPart(" two", signature="S1"),
        TextPart("three four"),
        TextPart("", signature="S2"),
    ) == answer.parts
    assert ("One twothree four", "stop") == (answer.text, answer.finish_reason)


def test_signed_parts_are_counted():
    """Each is a part of its own, so that an answer of many is refused at the bound of parts."""
    decoder = Gemini("m")._decoder(Request.ask("hi"))
    frame = json.dumps(response(*[{"text": "a", "thoughtSignature": "S"}] * (PARTS // 2))).encode()
    assert [True, True] == [bool(decoder.chunk(frame)) for _ in range(2)]
    with pytest.raises(ProtocolError, match=f"more than {PARTS:,} parts"):
        decoder.chunk(frame)


def test_calls_have_ids_that_no_other_turn_has(server):
    """Gemini's own id if there is one; else the id contains that of the response. The finish reason is tool_call."""
    calls = [
        {"functionCall": {"name": "a", "args": {"x": 1}}, "thoughtSignature": "S"},
        {"functionCall": {"name": "b", "args": {}}},
        {"functionCall": {"name": "c", "id": "own"}},
    ]
    answer = asked(server, response(*calls, finish="STOP"))
    expected = [("call_r1_0", "a", '{"x":1}', "S"), ("call_r1_1", "b", "{}", None), ("own", "c", "{}", None)]
    assert expected == [(call.id, call.name, call.arguments, call.signature) for call in answer.tool_calls]
    assert ("tool_call", "STOP") == (answer.finish_reason, answer.raw_finish_reason)


CALL = {"id": "c", "name": "pay", "args": {"sum": 5, "to": "A"}}


@pytest.mark.parametrize(
    "again", [CALL, {**CALL, "args": {"to": "A", "sum": 5}}, {**CALL, "args": '{"sum": 5, "to":"A"}'}]
)
@pytest.mark.parametrize("signatures", [(None, "S"), ("S", None), ("S", "S"), (None, None)])
@pytest.mark.parametrize("apart", [True, False])
def test_call_that_comes_again_with_its_id_counts_once(server, again, signatures, apart):
    """In a later frame or in the same one. The signature is that of either."""
    signed = [{"thoughtSignature": signature} if signature else {} for signature in signatures]
    between = {"functionCall": {"name": "now", "id": "n"}}
    parts = [{"functionCall": CALL, **signed[0]}, between, {"functionCall": again, **signed[1]}]
    frames = [response(each) for each in parts] if apart else [response(*parts)]
    answer = asked(server, *frames, response(finish="STOP"))
    expected = [("c", '{"sum":5,"to":"A"}', "S" if any(signatures) else None), ("n", "{}", None)]
    assert expected == [(call.id, call.arguments, call.signature) for call in answer.tool_calls]


@pytest.mark.parametrize(
    "other",
    [
        {"name": "pay", "args": CALL["args"]},
        {**CALL, "id": "d"},
        {**CALL, "args": {"sum": 6, "to": "A"}},
        {**CALL, "name": "bill"},
    ],
)
def test_calls_that_differ_stay_two(server, other):
    """In the id, the name or the arguments; and equal calls without ids stay two, because a model may mean both."""
    first = {**CALL} if "id" in other else other
    answer = asked(server, response({"functionCall": first}), response({"functionCall": other}, finish="STOP"))
    assert [first["name"], other["name"]] == [call.name for call in answer.tool_calls]
    assert [first["args"], other["args"]] == [json.loads(call.arguments) for call in answer.tool_calls]


def test_a_call_in_pieces_is_put_together(server):
    """As Vertex streams it: places and values, texts that go on; several calls, one after the other."""

    def piece(path, *, more=True, **value):
        call = {"partialArgs": [{"jsonPath": path, **value}]}
        return response({"functionCall": {**call, **({"willContinue": True} if more else {})}})

    answer = asked(
        server,
        response({"functionCall": {"name": "add", "willContinue": True}, "thoughtSignature": "S"}),
        piece("$.items[0].name", stringValue="Fresh", willContinue=True),
        piece("$.items[0].name", stringValue=" apple", willContinue=True),
        piece("$.items[0].name", stringValue=""),
        piece("$.items[0].price", numberValue=0.5),
        piece("$.items[1]['a key'][0]", boolValue=True),
        piece("$.note", nullValue="NULL_VALUE", more=False),
        response({"functionCall": {"name": "now", "args": {"zone": "UTC"}}}, finish="STOP"),
    )
    items = [{"name": "Fresh apple", "price": 0.5}, {"a key": [True]}]
    expected = [("add", {"items": items, "note": None}, "S"), ("now", {"zone": "UTC"}, None)]
    assert expected == [(call.name, json.loads(call.arguments), call.signature) for call in answer.tool_calls]


def test_an_empty_piece_ends_a_call(server):
    """Vertex ends most calls so. The piece may have the signature, and it is no part of the answer."""
    piece = {"partialArgs": [{"jsonPath": "$.id", "stringValue": "A"}], "willContinue": True}
    answer = asked(
        server,
        response({"functionCall": {"name": "read", "willContinue": True}}),
        response({"functionCall": piece}),
        response({"functionCall": {}, "thoughtSignature": "S"}),
        response({"functionCall": {"name": "now"}}, {"functionCall": {}}),
        response({"functionCall": {"name": "stop", "willContinue": True}}),
        response({"functionCall": {}}, finish="STOP"),
    )
    expected = [("read", '{"id":"A"}', "S"), ("now", "{}", None), ("stop", "{}", None)]
    assert expected == [(call.name, call.arguments, call.signature) for call in answer.tool_calls]
    assert answer.tool_calls == answer.parts


@pytest.mark.parametrize("path", ["", "a", "$", "$.a[1]", "$.a[x]", "$..", "$[0]", "$" + ".a" * 200])
def test_a_path_that_fits_nothing_is_a_protocol_error(server, path):
    """A list can't have holes, and a path has an end."""
    with pytest.raises(ProtocolError, match="has a path that does not fit"):
        asked(server, response({"functionCall": {"name": "a", "partialArgs": [{"jsonPath": path, "numberValue": 1}]}}))


def test_a_call_that_breaks_off_has_broken_arguments(server):
    """So that no agent runs it."""
    server.reply(
        Reply(
            [
                sse(response({"functionCall": {"name": "rm", "willContinue": True}})),
                sse(
                    response(
                        {"functionCall": {"partialArgs": [{"jsonPath": "$.a", "numberValue": 1}], "willContinue": True}}
                    )
                ),
            ]
        )
    )
    with pytest.raises(Interrupted) as caught:
        Gemini("m", base_url=server.url, max_retries=0).invoke("hi")
    assert ['{"a":1'] == [call.arguments for call in caught.value.partial.tool_calls]


def test_files_of_an_answer_and_parts_of_server_tools(server):
    """Pictures are files with their signatures; what only Gemini understands is kept as it is."""
    code = {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "S"}
    draft = {"inlineData": {"mimeType": "image/png", "data": "eA=="}, "thought": True}
    picture = {"inlineData": {"mimeType": "image/png", "data": "eHg="}, "thoughtSignature": "P"}
    place = {"fileData": {"mimeType": "video/mp4", "fileUri": "https://host/v"}}
    answer = asked(server, response(code, draft, picture, place, finish="STOP"))
    assert (
        RawPart(MAKER, code),
        RawPart(MAKER, draft),
        FilePart("image/png", b"xx", signature="P", provider=MAKER),
        FilePart("video/mp4", url="https://host/v"),
    ) == answer.parts
    assert [code, draft, picture, place] == contents_of(Message("user", "hi"), answer)[1]["parts"]


def test_usage_counts_thoughts_and_the_cache(server):
    """The last counts are the totals; the output includes the thoughts, the input what was read from the cache."""
    counts = {"promptTokenCount": 100, "cachedContentTokenCount": 80, "totalTokenCount": 100}
    last = {**counts, "candidatesTokenCount": 7, "thoughtsTokenCount": 30, "totalTokenCount": 137}
    traffic = {"trafficType": "ON_DEMAND"}
    responses = [response({"text": "a"}, counts=counts), response({"text": "b"}, counts={**counts, "x": 1})]
    expected = Usage(input_tokens=100, output_tokens=37, cache_read_input_tokens=80, reasoning_output_tokens=30)
    assert expected == asked(server, *responses, response({"text": ""}, finish="STOP", counts=last)).usage
    assert (
        expected == asked(server, response({"text": "a"}, counts=last), response(finish="STOP", counts=traffic)).usage
    )
    texts = [response({"text": "a"}), response({"text": "b"}, counts=last), response({"text": "c"})]
    assert expected == asked(server, *texts, response(finish="STOP")).usage
    late = {"usageMetadata": last}
    assert expected == asked(server, response({"text": "a"}, finish="STOP", counts=counts), late).usage


def test_sources_become_citations_of_the_text(server):
    """Each passage has its sources; without passages, the sources alone; later lists replace earlier ones."""
    chunks = [{"web": {"uri": "https://a", "title": "A"}}, {"web": {"uri": "https://b"}}]
    support = {"segment": {"endIndex": 3}, "groundingChunkIndices": [1, 7]}
    grounding = {"groundingMetadata": {"groundingChunks": chunks, "groundingSupports": [support]}}
    first = response({"text": "a"})
    first["candidates"][0]["groundingMetadata"] = {"groundingChunks": chunks[:1]}
    last = response({"text": "bc"}, finish="STOP")
    last["candidates"][0].update(grounding, citationMetadata={"citationSources": [{"uri": "https://c"}]})
    [text] = asked(server, first, last).parts
    assert ("abc", ({**support, "groundingChunks": chunks[1:]}, {"uri": "https://c"})) == (text.text, text.citations)


@pytest.mark.parametrize("reason", ["SAFETY", "PROHIBITED_CONTENT", "OTHER", "NEW_REASON"])
def test_blocked_prompt_is_a_filtered_answer(server, reason):
    """Without text; Gemini's explanation is the refusal."""
    blocked = {"promptFeedback": {"blockReason": reason, "blockReasonMessage": "Not this."}, "responseId": "r1"}
    answer = asked(server, blocked)
    assert ((RefusalPart("Not this."),), "content_filter", reason) == (
        answer.parts,
        answer.finish_reason,
        answer.raw_finish_reason,
    )


@pytest.mark.parametrize("stream", [True, False])
def test_explanation_of_a_filtered_answer_is_its_refusal(server, stream):
    """The text before it stays; an explanation of an ordinary end is not a refusal."""
    filtered, ended = response({"text": "Hm"}, finish="SAFETY"), response({"text": "Hm"}, finish="STOP")
    for each in (filtered, ended):
        each["candidates"][0]["finishMessage"] = "Not this."
    answers = []
    for each in (filtered, ended):
        server.reply(Reply([sse(each)]) if stream else Reply.json(each))
        answers.append(Gemini("m", base_url=server.url).invoke("hi", stream=stream))
    assert [("Hm", "Not this.", "content_filter"), ("Hm", "", "stop")] == [
        (each.text, each.refusal, each.finish_reason) for each in answers
    ]


def test_a_malformed_call_is_an_error_with_what_gemini_says(server):
    """With the partial answer, streamed and whole."""
    broken = response({"text": "Hm"}, finish="MALFORMED_FUNCTION_CALL")
    broken["candidates"][0]["finishMessage"] = "print(x"
    server.reply(Reply([sse(broken)]), Reply.json(broken))
    for stream in (True, False):
        with pytest.raises(ProviderError, match=r"MALFORMED_FUNCTION_CALL.*print\(x") as caught:
            Gemini("m", base_url=server.url, max_retries=0).invoke("hi", stream=stream)
        assert ("Hm", "error") == (caught.value.partial.text, caught.value.partial.finish_reason)


ERROR = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
@pytest.mark.parametrize("listed", [False, True])
def test_an_error_as_bare_json_in_the_stream_is_raised(server, size, end, listed):
    """Google writes it on several lines, without data:, between events, at their end or instead of them."""
    bare = (json.dumps([ERROR] if listed else ERROR, indent=2) + end).replace("\n", "\r\n").encode()
    for events in ([], [sse(response({"text": "Hel"})), sse(response({"text": "lo"}))]):
        body = b"".join(events).replace(b"\n", b"\r\n") + bare
        server.reply(Reply([body[at : at + size] for at in range(0, len(body), size)]))
        with pytest.raises(ProviderError, match="The model is overloaded") as caught:
            Gemini("m", base_url=server.url, max_retries=0).invoke("hi")
        assert 503 == caught.value.status
        assert "Hello" * bool(events) == (caught.value.partial.text if caught.value.partial else "")


def test_an_answer_as_a_json_array_is_joined(server):
    """Proxies that drop alt=sse send such an array."""
    responses = [response({"text": "Hel"}), response({"text": "lo"}, finish="STOP", counts={"promptTokenCount": 3})]
    server.reply(Reply.json(json.dumps(responses, indent=2).encode()))
    answer = Gemini("m", base_url=server.url).invoke("hi")
    assert ("Hello", "stop", 3) == (answer.text, answer.finish_reason, answer.usage.input_tokens)


def test_delay_in_an_error_is_retry_after(server):
    """Google states it in a detail of the error, also in a stream and in OpenAI's protocol; a valid header wins."""
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}
    error = {"error": {"code": 429, "message": "Slow down", "status": "RESOURCE_EXHAUSTED", "details": [info]}}
    chat = OpenAI("m", base_url=server.url, api="chat", max_retries=0)
    for body, headers, seconds in (
        (error, {}, 34.5),
        ([error], {}, 34.5),
        (error, {"Retry-After": "7"}, 7.0),
        (error, {"Retry-After": "soon"}, 34.5),
        ({"error": {"code": 429, "details": [{"retryDelay": 3}, None]}}, {}, None),
        ({"error": {"code": 429, "details": [{"retryDelay": "soons"}]}}, {}, None),
    ):
        for llm in (Gemini("m", base_url=server.url, max_retries=0), chat):
            server.reply(Reply.json(body, status=429, headers=headers))
            with pytest.raises(RateLimited) as caught:
                llm.invoke("hi")
            assert seconds == caught.value.retry_after
    server.reply(Reply([sse(error)]))
    with pytest.raises(RateLimited) as caught:
        Gemini("m", base_url=server.url, max_retries=0).invoke("hi")
    assert 34.5 == caught.value.retry_after


# ── conversations ────────────────────────────────────────────────────────────────────────────────────────────────


class Strict:
    """A server that refuses a history as Gemini 3 does: wrong or moved signatures, calls without one, lost results."""

    def __init__(self, *turns):
        self.turns = turns
        self.issued = {part["thoughtSignature"]: part for turn in turns for part in turn if "thoughtSignature" in part}

    def __call__(self, request):
        """The turn that follows the history, or what is wrong with it."""
        contents = request.json["contents"]
        if wrong := next(filter(None, map(self.wrong, contents, [*contents[1:], None])), None):
            return Reply.json({"error": {"code": 400, "message": wrong}}, status=400)
        turn = self.turns[sum(content["role"] == "model" for content in contents) % len(self.turns)]
        *before, last = [[part] for part in turn]
        return Reply([*(sse(response(*parts)) for parts in before), sse(response(*last, finish="STOP"))])

    def wrong(self, content, following):
        """Return the fault of a content that stands before another content."""
        parts = content["parts"]
        if content["role"] == "user":
            return next((f"{part} is empty" for part in parts if part.get("text") == ""), None)
        for part in parts:
            signature = part.get("thoughtSignature")
            if signature and signature != SKIPPED and self.issued.get(signature) != part:
                return f"the signature {signature} does not hold for {part}"
            if part.get("text") == "" and not signature:
                return "an empty part"
        calls = [part for part in parts if "functionCall" in part]
        if calls and "thoughtSignature" not in calls[0]:
            return "the first call has no signature"
        results = [
            part["functionResponse"] for part in (following or {"parts": []})["parts"] if "functionResponse" in part
        ]
        keys = [[each.get(name) for name in ("id", "name")] for each in (*(c["functionCall"] for c in calls), *results)]
        return None if keys[: len(calls)] == keys[len(calls) :] else "the results are not those of the calls"


TURNS = (
    [
        {"text": "I need the weather.", "thought": True},
        {"text": "Let me"},
        {"text": " look.", "thoughtSignature": "S0"},
        {"functionCall": {"id": "c1", "name": "weather", "args": {"city": "Paris"}}, "thoughtSignature": "S1"},
        {"functionCall": {"id": "c2", "name": "weather", "args": {"city": "Rome"}}},
    ],
    [{"functionCall": {"id": "c3", "name": "now", "args": {}}, "thoughtSignature": "S2"}],
    [{"text": "It is"}, {"text": " sunny."}, {"text": "", "thoughtSignature": "S3"}],
)


def test_a_conversation_with_thoughts_and_tools_is_accepted(server):
    """Each signature goes back in its own part, each result with the id and the name of its call."""
    server.reply(Strict(*TURNS))
    llm = Gemini("gemini-3-pro", base_url=server.url, max_retries=0)
    history = [Message("user", "Weather?")]
    for _ in range(2):
        for _ in TURNS:
            answer = llm.invoke(history)
            results = [ToolResultPart(call.id, "sunny") for call in answer.tool_calls]
            history += [answer, Message("tool", results) if results else Message("user", "And tomorrow?")]
        history = [Message.from_json(message.to_json()) for message in history]
    assert ["", "", "It is sunny."] * 2 == [
        m.text.replace("Let me look.", "") for m in history if m.role == "assistant"
    ]


@pytest.mark.parametrize(
    "damage",
    [
        lambda part: {**part, "thoughtSignature": "x"} if "thoughtSignature" in part else part,
        lambda part: {name: part[name] for name in part if name != "thoughtSignature"},
        lambda part: {**part, "text": part["text"] + "!"} if "thoughtSignature" in part and "text" in part else part,
    ],
    ids=["another signature", "no signature", "another text"],
)
def test_strict_server_refuses_wrong_histories(damage):
    """So that the tests of histories prove something."""
    strict = Strict(*TURNS)
    assert strict.wrong({"role": "model", "parts": list(map(damage, TURNS[0]))}, None)
    results = [{"functionResponse": {"id": each, "name": "weather"}} for each in ("c1", "c2")]
    assert strict.wrong({"role": "model", "parts": TURNS[0]}, {"parts": results[:1]})
    assert None is strict.wrong({"role": "model", "parts": TURNS[0]}, {"parts": results})


FOREIGN = Message(
    "assistant",
    [
        ReasoningPart("Hm", "sig", provider="anthropic"),
        RawPart("anthropic", {"type": "redacted_thinking", "data": "x"}),
        TextPart("Let me look.", signature="s", provider="gcp.vertex_ai"),
        ToolCallPart("toolu_1", "weather", '{"city":"Paris"}', 0, "s", "gcp.vertex_ai"),
        ToolCallPart("toolu_2", "weather", '{"city":"Rome"}', 1),
    ],
)


def test_what_another_vendor_has_made_is_accepted(server):
    """Its text, calls and results move over; its reasoning and signatures do not. Its first call is marked."""
    server.reply(Strict(*TURNS[2:]))
    history = [
        Message("user", "Weather?"),
        FOREIGN,
        Message("tool", [ToolResultPart("toolu_1", "sunny"), ToolResultPart("toolu_2", "grey")]),
    ]
    assert "It is sunny." == Gemini("gemini-3-pro", base_url=server.url).invoke(history).text
    call = {"id": "toolu_1", "name": "weather", "args": {"city": "Paris"}}
    other = {"id": "toolu_2", "name": "weather", "args": {"city": "Rome"}}
    expected = [
        {"text": "Let me look."},
        {"functionCall": call, "thoughtSignature": SKIPPED},
        {"functionCall": other},
    ]
    assert expected == server.requests[0].json["contents"][1]["parts"]


class Vertex:
    """Vertex AI: its older models make no ids of calls, and its older servers reject the ids that others made."""

    def __init__(self, **own):
        self.own = own

    def __call__(self, request):
        """A call, or the answer to its result."""
        parts = [part for content in request.json["contents"] for part in content["parts"]]
        values = [part.get("functionCall") or part.get("functionResponse") or {} for part in parts]
        self.ids = [value.get("id") for value in values if value]
        if {*self.ids} - {*self.own.values(), None}:
            return Reply.json({"error": {"code": 400, "message": 'Unknown name "id": Cannot find field.'}}, status=400)
        answered = any("functionResponse" in part for part in parts)
        part = {"text": "wet"} if answered else {"functionCall": {**self.own, "name": "weather", "args": {}}}
        return Reply([sse(response(part, finish="STOP"))])


@pytest.mark.parametrize("own", [{}, {"id": "a3x8kt5y"}], ids=["older model", "newer model"])
def test_vertex_gets_only_the_ids_that_it_made(server, own):
    """It matches calls and results by its own ids; the ids of rxllm and of other vendors are left out."""
    vertex = Vertex(**own)
    server.reply(vertex)
    llm = Gemini("gemini-3-flash", base_url=server.url + VERTEX, api_key="token", max_retries=0)
    history = [Message("user", "Weather?")]
    answer = llm.invoke(history)
    history += [answer, Message("tool", [ToolResultPart(answer.tool_calls[0].id, "rain")])]
    assert "wet" == llm.invoke([Message.from_json(message.to_json()) for message in history]).text
    assert [own.get("id")] * 2 == vertex.ids
    foreign = Message("assistant", [ToolCallPart("toolu_1", "weather", "{}", provider="anthropic")])
    assert "wet" == llm.invoke([*history[:1], foreign, Message("tool", [ToolResultPart("toolu_1", "rain")])]).text
    assert [None, None] == vertex.ids


def test_the_signature_of_the_compatible_endpoint_is_understood():
    """A call that came from Google by OpenAI's protocol has it among its further fields."""
    extra = {"extra_content": {"google": {"thought_signature": "S"}}}
    answer = Message("assistant", [ToolCallPart("1", "a", "{}", provider=MAKER, extra=extra)])
    assert "S" == contents_of(Message("user", "hi"), answer)[1]["parts"][0]["thoughtSignature"]


def test_other_vendors_get_none_of_what_gemini_wants_back(server):
    """Text, calls and results move over to them; signatures, thoughts and raw parts stay."""
    code = {"executableCode": {"code": "1"}, "thoughtSignature": "S"}
    call = {"functionCall": {"name": "a", "args": {}}, "thoughtSignature": "S"}
    parts = [{"text": "Hm", "thought": True}, code, {"text": "One", "thoughtSignature": "S"}, call]
    answer = asked(server, response(*parts, finish="STOP"))
    history = [Message("user", "hi"), answer, Message("tool", [ToolResultPart(answer.tool_calls[0].id, "x")])]
    for other in (Anthropic("m", base_url=server.url), OpenAI("m", base_url=server.url, api="chat")):
        sent = json.dumps(other._body(Request.ask(history)))
        assert {"One": True, '"a"': True, "call_r1_0": True, "Hm": False, '"S"': False, "executable": False} == {
            word: word in sent for word in ("One", '"a"', "call_r1_0", "Hm", '"S"', "executable")
        }


def test_arguments_that_a_gateway_sends_as_text_are_read(server):
    """Google sends an object."""
    call = {"functionCall": {"name": "weather", "args": '{"city": "Oslo"}'}}
    assert ['{"city": "Oslo"}'] == [each.arguments for each in asked(server, response(call, finish="STOP")).tool_calls]


def test_counts_without_that_of_the_prompt_are_read(server):
    """A gateway may count only the answer. A document of Vertex AI without counts replaces none."""
    text, counts = {"text": "Hi"}, {"candidatesTokenCount": 5, "thoughtsTokenCount": 2}
    expected = Usage(output_tokens=7, reasoning_output_tokens=2)
    assert expected == asked(server, response(text, finish="STOP", counts=counts)).usage
    last = response(text, finish="STOP", counts={"trafficType": "ON_DEMAND"})
    assert expected == asked(server, response(text, counts=counts), last).usage


def test_response_may_be_wrapped(server):
    """Google's Code Assist sends each response within another object."""
    parts = [response({"text": "Hel"}), response({"text": "lo"}, finish="STOP", counts={"promptTokenCount": 3})]
    answer = asked(server, *({"response": each, "traceId": "t"} for each in parts))
    assert ("Hello", "stop", 3) == (answer.text, answer.finish_reason, answer.usage.input_tokens)
    assert "Hi" == asked(server, {"response": response({"text": "Hi"}, finish="STOP")}).text
