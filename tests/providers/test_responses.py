"""The Responses protocol: its choice, its requests, the items that go back, and the resuming of a broken stream."""

import json
from urllib.parse import parse_qs

import pytest
from protocols import Responses, ToolCall, sse

import rxllm
from rxllm import FilePart, Message, MisuseError, OpenAI, RawPart, ReasoningPart, TextPart, ToolCallPart, ToolResultPart
from rxllm.testing import End, FakeServer, Reply
from rxllm.values.request import Request

VENDOR = "https://api.openai.com/v1"


def model(server, **settings):
    """Return a model with this protocol."""
    return OpenAI("gpt-5-mini", base_url=f"{server.url}/v1", api="responses", max_retries=0, **settings)


def output_text(text):
    """The text of an answer, in the form in which the servers send it."""
    return {"type": "output_text", "text": text, "annotations": []}


def api_of(prompt="hi", *, name="gpt-5-mini", base_url=VENDOR, **parameters):
    """The protocol that a request is sent by."""
    return OpenAI(name, base_url=base_url)._api(Request(prompt=prompt, **parameters))


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"tools": [{"name": "now", "parameters": {"type": "object"}}]},
        {"tools": [{"type": "web_search"}]},
        {"response_format": "json"},
        {"effort": "low"},
        {"name": "gpt-5-codex"},
        {"prompt": [("system", "Be brief."), ("user", "hi")]},
        {"extra": {"store": True}},
    ],
)
def test_openai_is_asked_by_the_responses_protocol(asked):
    """On OpenAI's own host, if the request needs nothing that the protocol lacks."""
    assert "responses" == api_of(**asked)


@pytest.mark.parametrize(
    "asked",
    [
        {"stop_sequences": ["END"]},
        {"seed": 1},
        {"prompt": [Message("user", [FilePart("audio/wav", b"RIFF")])]},
        {"extra": {"modalities": ["text", "audio"]}},
        {"extra": {"logprobs": True}},
        {"name": "gpt-4o-audio-preview"},
        {"base_url": "http://localhost:8000/v1"},
        {"base_url": "https://api.groq.com/openai/v1"},
        {"prompt": [Message("user", "hi", extra={"prefix": True})]},
    ],
)
def test_features_of_chat_select_chat(asked):
    """Stop sequences, a seed, sound and fields of chat; and every request to another server."""
    assert "chat" == api_of(**asked)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"stop_sequences": ["END"]}, "no stop_sequences"),
        ({"seed": 1}, "no seed"),
        ({"extra": {"background": True}}, "background needs .*'store': True"),
        ({"extra": {"previous_response_id": "resp_1"}}, "previous_response_id needs .*'store': True"),
        ({"extra": {"input": "x"}}, "extra can't contain 'input'"),
    ],
)
def test_what_the_protocol_lacks_is_refused(settings, sentence):
    """One sentence, before anything is sent."""
    with FakeServer() as server, pytest.raises(MisuseError, match=sentence):
        model(server).invoke("hi", **settings)
    assert [] == server.requests


def test_nothing_is_stored_by_default():
    """The reasoning is then requested encrypted; models that do not reason refuse that."""
    with FakeServer(*[Reply(Responses().stream(["ok"]))] * 3) as server:
        llm = model(server)
        llm.invoke("hi")
        llm.invoke("hi", model="gpt-4.1")
        llm.invoke("hi", extra={"store": True, "previous_response_id": "resp_1"})
    told = [{name: request.json.get(name) for name in ("store", "include")} for request in server.requests]
    encrypted = ["reasoning.encrypted_content"]
    assert [
        {"store": False, "include": encrypted},
        {"store": False, "include": None},
        {"store": True, "include": None},
    ] == told


class Refusing:
    """Refuses a history that OpenAI refuses: reasoning without what follows it, results without their calls."""

    def __init__(self, *answers):
        self.answers = iter(answers)

    def __call__(self, request):
        """The next answer, or the refusal."""
        items = request.json["input"]
        calls = set()
        for place, item in enumerate([] if isinstance(items, str) else items):
            following = items[place + 1] if place + 1 < len(items) else {}
            if item.get("type") == "reasoning" and not item.get("encrypted_content"):
                return self.refuse(f"Item '{item.get('id')}' of type 'reasoning' not found.")
            if item.get("type") == "reasoning" and "id" in item and "id" not in following:
                return self.refuse("Item of type 'reasoning' was provided without its required following item.")
            if item.get("type") == "function_call":
                calls.add(item["call_id"])
            if item.get("type") == "function_call_output" and item["call_id"] not in calls:
                return self.refuse("No tool call found for function call output.")
        return next(self.answers)

    def refuse(self, message):
        """The error."""
        return Reply.json(Responses().error_body(400, message), status=400)


def test_reasoning_calls_and_results_go_back():
    """A conversation with tools and reasoning is accepted; so is one that was edited."""
    first = Responses().stream(reasoning=["Hm."], tool_call=ToolCall())
    replies = [Reply(first), *[Reply(Responses().stream(["Sunny."]))] * 2]
    with FakeServer(Refusing(*replies)) as server:
        llm = model(server)
        call = llm.invoke("Weather?")
        result = Message("tool", [ToolResultPart(call.tool_calls[0].id, "sunny")])
        llm.invoke([("user", "Weather?"), call, result])
        without_call = Message("assistant", [part for part in call.parts if not isinstance(part, ToolCallPart)])
        llm.invoke([("user", "Weather?"), without_call, ("user", "Well?")])
    summary = [{"type": "summary_text", "text": "Hm."}]
    thought = {"type": "reasoning", "summary": summary, "encrypted_content": "EqQBCgIYAhIM"}
    asked = {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city": "Paris"}'}
    assert [
        {"role": "user", "content": "Weather?"},
        {**thought, "id": "rs_1"},
        {**asked, "id": "fc_1"},
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
    ] == server.requests[1].json["input"]
    assert thought == server.requests[2].json["input"][1]


def test_facts_of_other_vendors_are_left_out():
    """Text, calls and results move over; foreign reasoning and items do not."""
    answer = Message(
        "assistant",
        [
            ReasoningPart("Hm.", signature="s", provider="anthropic"),
            RawPart("anthropic", {"type": "server_tool_use"}),
            TextPart("Let me see.", provider="gcp.gemini", signature="s"),
            ToolCallPart("c" * 80, "now", "", extra={"google": 1}, provider="gcp.gemini"),
        ],
    )
    with FakeServer(Reply(Responses().stream(["ok"]))) as server:
        model(server).invoke([("user", "hi"), answer, Message("tool", [ToolResultPart("c" * 80, "noon")])])
    _, text, call, result = server.requests[0].json["input"]
    assert {"type": "message", "role": "assistant", "content": [output_text("Let me see.")]} == text
    assert ("function_call", "now", "{}") == (call["type"], call["name"], call["arguments"])
    assert call["call_id"] == result["call_id"]
    assert len(call["call_id"]) <= 64


def event(kind, **data):
    """An event without numbers."""
    return sse({"type": f"response.{kind}", **data}, event=f"response.{kind}")


def test_items_of_server_tools_go_back_by_their_id():
    """And only to the protocol that they came from."""
    item = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}}
    body = [event("output_item.added", item=item), event("output_item.done", item=item)]
    with FakeServer(Reply([*body, *Responses().stream(["Found."])]), Reply(Responses().stream(["ok"]))) as server:
        llm = model(server)
        answer = llm.invoke("hi")
        llm.invoke([("user", "hi"), answer, ("user", "more")])
    assert RawPart("openai", {"item": item}) == answer.parts[0]
    found = {"type": "message", "role": "assistant", "content": [output_text("Found.")]}
    assert [item, found] == server.requests[1].json["input"][1:3]
    with FakeServer(Reply.json(b'{"choices":[{"message":{"content":"ok"},"finish_reason":"stop"}]}')) as server:
        OpenAI("m", base_url=server.url, api="chat").invoke([answer, ("user", "more")], stream=False)
    assert {"role": "assistant", "content": "Found."} == server.requests[0].json["messages"][0]


def test_a_server_without_numbers_is_understood():
    """llama.cpp sends ids only, ends its items after all of them, and calls have no id of their own."""
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [], "encrypted_content": ""}
    said = {"type": "message", "id": "msg_1", "role": "assistant", "content": []}
    call = {"type": "function_call", "call_id": "fc_1", "name": "now", "arguments": ""}
    text = [{"type": "reasoning_text", "text": "Hm."}]
    events = [
        event("output_item.added", item=thought),
        event("reasoning_text.delta", item_id="rs_1", delta="Hm."),
        event("output_item.added", item=said),
        *(event("output_text.delta", item_id="msg_1", delta=piece) for piece in ("Hel", "lo")),
        event("output_item.added", item=call),
        *(event("function_call_arguments.delta", item_id="fc_1", delta=piece) for piece in ('{"a"', ":1}")),
        event("output_item.done", item={**thought, "content": text}),
        event("output_item.done", item={**said, "content": [{"type": "output_text", "text": "Hello"}]}),
        event("output_item.done", item={**call, "arguments": '{"a":1}'}),
        event("completed", response={"status": "completed", "usage": {"input_tokens": 3, "output_tokens": 5}}),
    ]
    with FakeServer(Reply(events), Reply(Responses().stream(["ok"]))) as server:
        llm = model(server)
        answer = llm.invoke("hi")
        llm.invoke([("user", "hi"), answer, Message("tool", [ToolResultPart("fc_1", "noon")])])
    [called] = answer.tool_calls
    assert ("Hm.", "Hello", "fc_1", "now", '{"a":1}') == (
        answer.reasoning,
        answer.text,
        called.id,
        called.name,
        called.arguments,
    )
    assert {"type": "reasoning", "summary": [], "content": text} == server.requests[1].json["input"][1]


def test_a_server_may_change_the_ids_of_its_items():
    """Then the numbers show which item an event belongs to."""
    ids = iter(f"id_{number}" for number in range(99))
    frames = []
    for data in Responses().stream(["Hel", "lo"], reasoning=["H", "m."], tool_call=ToolCall()):
        document = json.loads(data.partition(b"data: ")[2])
        if "item_id" in document:
            document["item_id"] = next(ids)
        if "id" in document.get("item", {}):
            document["item"]["id"] = next(ids)
        frames.append(sse(document))
    with FakeServer(Reply(frames)) as server:
        answer = model(server).invoke("hi")
    assert ("Hm.", "Hello", '{"city": "Paris"}') == (answer.reasoning, answer.text, answer.tool_calls[0].arguments)


def added(index, item):
    """The event that adds an item without its content."""
    return event("output_item.added", output_index=index, item={**item, **EMPTY[item["type"]]})


def grown(index, item):
    """The event with the whole content of an item."""
    kind = {"message": "output_text", "function_call": "function_call_arguments"}[item["type"]]
    delta = item["content"][0]["text"] if item["type"] == "message" else item["arguments"]
    return event(f"{kind}.delta", output_index=index, item_id=item["id"], delta=delta)


def done(index, item):
    """The event with the whole item."""
    return event("output_item.done", output_index=index, item=item)


EMPTY = {"message": {"content": []}, "function_call": {"arguments": ""}}
SAID = {"type": "message", "id": "m", "role": "assistant", "content": [output_text("Hello")]}
PAYS = {"type": "function_call", "id": "f1", "call_id": "c1", "name": "pay", "arguments": '{"a":1}'}
BUYS = {"type": "function_call", "id": "f2", "call_id": "c2", "name": "buy", "arguments": '{"b":2}'}


@pytest.mark.parametrize("pair", [(SAID, PAYS), (PAYS, SAID), (PAYS, BUYS)], ids=["text first", "call first", "calls"])
@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(
            [(added, 0, 0), (grown, 0, 0), (added, 1, 0), (grown, 1, 0), (done, 0, 0), (done, 1, 0)], id="one"
        ),
        pytest.param(
            [(added, 0, 0), (added, 1, 0), (grown, 0, 0), (grown, 1, 0), (done, 0, 0), (done, 1, 0)], id="mixed"
        ),
        pytest.param(
            [(added, 0, 0), (added, 1, 1), (grown, 0, 0), (grown, 1, 1), (done, 0, 1), (done, 1, 2)], id="moved"
        ),
    ],
)
def test_items_whose_numbers_are_wrong_are_told_apart_by_their_ids(steps, pair):
    """Gateways give one number to several items, or number the last event of an item anew.

    Source: https://github.com/theopenco/llmgateway/pull/2908, https://github.com/openai/openai-agents-python/issues/5041
    """
    events = [make(index, pair[place]) for make, place, index in steps]
    end = event("completed", response={"id": "r", "status": "completed", "output": pair})
    with FakeServer(Reply([*events, end])) as server:
        answer = model(server).invoke("hi")
    calls = [(item["call_id"], item["arguments"]) for item in pair if "call_id" in item]
    assert calls == [(call.id, call.arguments) for call in answer.tool_calls]
    assert ("Hello" if SAID in pair else "") == answer.text


PARIS = '{"city":"Paris"}'
CALL = {"type": "function_call", "id": "fc", "call_id": "c", "name": "weather"}


def called(*pieces, begins="", whole="", done=None, completed=None):
    """The events of a call: its first arguments, their pieces, and the whole of them in the three last events."""
    done, completed = (whole if each is None else each for each in (done, completed))
    grown = [event("function_call_arguments.delta", output_index=0, item_id="fc", delta=each) for each in pieces]
    return Reply(
        [
            event("output_item.added", output_index=0, item={**CALL, "arguments": begins}),
            *grown,
            event("function_call_arguments.done", output_index=0, item_id="fc", arguments=whole),
            event("output_item.done", output_index=0, item={**CALL, "arguments": done}),
            event("completed", response={"status": "completed", "output": [{**CALL, "arguments": completed}]}),
        ]
    )


@pytest.mark.parametrize(
    ("reply", "arguments"),
    [
        pytest.param(called(completed=PARIS), PARIS, id="whole in the last event"),
        pytest.param(called(begins="{}", whole="{}", completed=PARIS), PARIS, id="placeholders until the last event"),
        pytest.param(called(begins="{}", whole=PARIS), PARIS, id="placeholder, then the whole"),
        pytest.param(called(PARIS[:5], PARIS[5:], begins="{}", whole=PARIS), PARIS, id="placeholder, then pieces"),
        pytest.param(called(PARIS, begins="{}", whole="{}"), PARIS, id="pieces between placeholders"),
        pytest.param(called(PARIS, whole=""), PARIS, id="pieces only"),
        pytest.param(called(PARIS[:5], whole=PARIS), PARIS, id="the whole goes on"),
        pytest.param(called(PARIS, whole='{"city": "Paris"}'), PARIS, id="white space"),
        pytest.param(called('{ "city":\n"Paris" }', whole=PARIS), '{ "city":\n"Paris" }', id="less white space"),
        pytest.param(called(PARIS, whole=json.dumps(PARIS)), PARIS, id="quoted"),
        pytest.param(called('{"a":1,"b":"é"}', whole='{"b":"\\u00e9","a":1}'), '{"a":1,"b":"é"}', id="order"),
        pytest.param(called(begins="{}", whole="{}"), "{}", id="no arguments"),
        pytest.param(called("{}", whole="{}"), "{}", id="no arguments, in pieces"),
        pytest.param(called("{", "}", whole="{ }"), "{}", id="no arguments, with white space"),
        pytest.param(called("as text\n", whole="as text"), "as text\n", id="no JSON, with white space"),
        pytest.param(called(), "", id="nothing"),
    ],
)
@pytest.mark.parametrize("ends", [1, 2])
def test_whole_arguments_complete_those_that_arrived(reply, arguments, ends):
    """The arguments ``{}`` stand for nothing while others come. The same object, written in another way, is a repeat.

    Source: https://github.com/OpenRouterTeam/ai-sdk-provider/issues/336
    """
    with FakeServer(Reply([*reply.body, *reply.body[-1:] * (ends - 1)])) as server:
        answer = model(server).invoke("hi")
    assert [("c", "weather", arguments)] == [(call.id, call.name, call.arguments) for call in answer.tool_calls]


@pytest.mark.parametrize(
    ("piece", "whole"),
    [
        ('{"city":"Par', '{"city": "Paris"}'),
        (PARIS, '{"city":"Paris, Texas"}'),
        (PARIS, '{"town":"Paris"}'),
        (PARIS, PARIS[:-1]),
        (PARIS, '[{"city":"Paris"}]'),
    ],
)
def test_whole_arguments_that_contradict_the_pieces_are_an_error(piece, whole):
    """The pieces cannot be taken back, and arguments that the model did not write must not run a tool."""
    with FakeServer(called(piece, whole=whole)) as server, pytest.raises(rxllm.ProtocolError, match="differ") as caught:
        model(server).invoke("hi")
    assert piece == caught.value.partial.tool_calls[0].arguments


def test_message_that_ends_empty_is_in_the_last_event():
    """A refusal does not come twice, and neither does another message if the output lacks the empty one."""
    empty = {**SAID, "id": "m0", "content": []}
    refused = {**SAID, "id": "m2", "content": [{"type": "refusal", "refusal": "No."}]}
    items = [done(0, empty), done(1, SAID), done(2, refused)]

    def ended(*output):
        return Reply([*items, event("completed", response={"status": "completed", "output": output})])

    filled = {**empty, "content": [output_text("First. ")]}
    with FakeServer(ended(filled, SAID, refused), ended(SAID, refused)) as server:
        answers = [model(server).invoke("hi") for _ in range(2)]
    assert ["HelloFirst. ", "Hello"] == [answer.text for answer in answers]
    assert ["No."] * 2 == [answer.refusal for answer in answers]


def answered(items, *, stream):
    """A response with these items: a stream that has them whole, or one document."""
    ended = {"id": "resp_1", "status": "completed", "output": items, "usage": {"input_tokens": 3, "output_tokens": 5}}
    if not stream:
        return Reply.json(ended)
    done = [event("output_item.done", item=item, output_index=place) for place, item in enumerate(items)]
    return Reply([*done, event("completed", response={**ended, "output": []})])


@pytest.mark.parametrize("stream", [True, False])
def test_messages_of_an_answer_stay_apart(stream):
    """Each goes back with its own fields, such as its phase and the id that its reasoning requires."""
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
    said = {"type": "message", "role": "assistant", "status": "completed"}
    first = {**said, "id": "msg_1", "phase": "commentary", "content": [output_text("Let me see. ")]}
    last = {**said, "id": "msg_2", "phase": "final_answer", "content": [output_text("Noon.")]}
    items = [{**said, "content": [output_text("Hm. ")]}, thought, first, last]
    with FakeServer(answered(items, stream=stream), Reply(Responses().stream(["ok"]))) as server:
        llm = model(server)
        answer = llm.invoke("hi", stream=stream)
        llm.invoke([("user", "hi"), answer])
    assert "Hm. Let me see. Noon." == answer.text
    sent = server.requests[1].json["input"][2:]
    assert [("rs_1", None), ("msg_1", "commentary"), (None, "final_answer")] == [
        (each.get("id"), each.get("phase")) for each in sent
    ]
    assert [[output_text("Let me see. ")], [output_text("Noon.")]] == [each["content"] for each in sent[1:]]


@pytest.mark.parametrize("begins", [True, False])
def test_parts_of_a_summary_are_paragraphs(begins):
    """Servers announce each part or only number it; a whole answer has a list."""
    parts = ["One.", "Two."]
    thought = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": text} for text in parts],
    }
    events = [event("output_item.added", item={**thought, "summary": []}, output_index=0)]
    for number, text in enumerate(parts):
        place = {"output_index": 0, "summary_index": number}
        events += [event("reasoning_summary_part.added", **place)] if begins else []
        events += [event("reasoning_summary_text.delta", delta=piece, **place) for piece in (text[:2], text[2:])]
    events += [event("output_item.done", item=thought, output_index=0), Responses().stream(["ok"])[-1]]
    with FakeServer(Reply(events), answered([thought], stream=False)) as server:
        answers = [model(server).invoke("hi"), model(server).invoke("hi", stream=False)]
    assert ["One.\n\nTwo."] * 2 == [answer.reasoning for answer in answers]


TEXTS = [f"{number} " for number in range(8)]


def background(**settings):
    """The events of a response that the server goes on with by itself."""
    events = [json.loads(data.partition(b"data: ")[2]) for data in Responses().stream(TEXTS, **settings)]
    events[0]["response"]["background"] = True
    return [sse(each, event=each["type"]) for each in events]


@pytest.mark.parametrize("end", [End.FIN, End.RST, End.CLEAN])
@pytest.mark.parametrize("stream", [True, False])
def test_a_background_response_is_resumed(end, stream):
    """The text comes exactly once, however often the connection breaks, and although the server repeats events."""
    events = background()

    def reply(request):
        if request.method == "POST":
            return Reply([*events[:5], events[5][:20], end])
        after = int(parse_qs(request.query)["starting_after"][0])
        return Reply([*events[after : after + 3], *([end] if after + 3 < len(events) else [])])

    with FakeServer(reply) as server:
        answer = model(server, extra={"background": True, "store": True}).invoke("hi", stream=stream)
    assert "".join(TEXTS) == answer.text
    assert ["POST", "GET"] == [request.method for request in server.requests][:2]
    assert f"/v1/responses/{Responses().id}" == server.requests[1].path


def test_resuming_stops_after_tries_without_news():
    """The error has the partial answer."""
    events = background()

    def reply(request):
        return Reply([*(events[:5] if request.method == "POST" else []), End.FIN])

    with FakeServer(reply) as server, pytest.raises(rxllm.TransportError) as caught:
        model(server, extra={"background": True, "store": True}).invoke("hi")
    assert caught.value.partial.text in "".join(TEXTS)
    assert ["POST", "GET", "GET", "GET"] == [request.method for request in server.requests]


def test_a_response_in_the_foreground_is_interrupted():
    """The server does not continue the response."""
    with FakeServer(Reply([*Responses().stream(TEXTS)[:5], End.FIN])) as server, pytest.raises(rxllm.Interrupted):
        model(server).invoke("hi")
    assert 1 == len(server.requests)


def test_an_answer_goes_back_as_text_to_openai_and_as_an_item_to_other_servers():
    """llama.cpp refuses the short form, which OpenAI's types demand for an answer without an id."""
    history = [("user", "hi"), ("assistant", "Hello."), ("user", "more")]
    at_openai = OpenAI("gpt-5-mini", api_key="k").preview(history).json["input"][1]
    assert {"role": "assistant", "content": "Hello."} == at_openai
    elsewhere = OpenAI("m", base_url="http://localhost:9/v1", api="responses").preview(history).json["input"][1]
    assert {"type": "message", "role": "assistant", "content": [output_text("Hello.")]} == elsewhere


def test_name_of_the_model_may_come_last():
    """llama.cpp sends it in the last event only."""
    events = Responses(model="tiny").stream(["Hel", "lo"])
    begun = [event.replace(b'"model": "tiny", ', b"") for event in events[:-1]]
    assert events[:-1] != begun
    with FakeServer(Reply([*begun, events[-1]])) as server:
        chunks = list(model(server).stream("hi"))
    assert ["tiny"] == [chunk.model for chunk in chunks if chunk.model]
    assert "tiny" == sum(chunks, rxllm.Chunk()).message().model


@pytest.mark.parametrize("stream", [True, False])
def test_required_action_is_a_tool_call(stream):
    """Some gateways end an answer with calls by this status.

    Source: https://github.com/justlovemaki/AIClient2API/pull/472
    """
    call = {"type": "function_call", "id": "f", "call_id": "c", "name": "now", "arguments": "{}"}
    response = {"id": "r", "status": "requires_action", "output": [call]}
    reply = Reply([event("completed", response=response)]) if stream else Reply.json(response)
    with FakeServer(reply) as server:
        answer = model(server).invoke("hi", stream=stream)
    assert ("now", "tool_call", "requires_action") == (
        answer.tool_calls[0].name,
        answer.finish_reason,
        answer.raw_finish_reason,
    )
