"""The arguments of constructors: each mistake raises MisuseError as early as possible, before anything is sent."""

import functools
import pickle
from dataclasses import dataclass

import httpx
import pytest
from attrs import frozen, mutable

from rxllm import Anthropic, Gemini, MisuseError, OpenAI, Parameters, Timeouts, pipe, retry, text
from rxllm.testing import FakeServer, Reply

LOCAL = "http://localhost:8000/v1"

every = pytest.mark.parametrize("provider", [OpenAI, Anthropic])


async def coroutine_factory():
    """Not what makes a client, but what makes what makes one."""
    return httpx.AsyncClient()


class AsyncCall:
    """The same as an object."""

    async def __call__(self):
        """A client."""
        return httpx.AsyncClient()


class Unhashable(list):
    """A function that can't be told from another."""

    def __call__(self):
        """A client."""
        return httpx.AsyncClient()


@every
@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("base_url", 5, "base_url must be text like https://host/v1, not int"),
        ("base_url", b"http://x", "base_url must be text like https://host/v1, not bytes"),
        ("base_url", "localhost:8000", "base_url must be like https://host/v1, not 'localhost:8000'"),
        ("base_url", "ftp://host", "base_url must be like"),
        ("base_url", "http://[::1", "base_url must be like"),
        ("base_url", "http://ex..ample", "base_url must be like https://host/v1, not 'http://ex..ample'"),
        ("base_url", f"http://{'a' * 64}.com", "base_url must be like"),
        ("base_url", " http://x", "base_url must be like https://host/v1, not ' http://x'"),
        ("base_url", "http://x/v1 ", "base_url must be like"),
        ("base_url", "http://x/v1\n", "base_url must be like"),
        ("base_url", "http://a b/v1", "base_url must be like"),
        ("base_url", "http://x:0", "base_url must be like"),
        ("base_url", "https://{account}.example/v1", "base_url must be like"),
        ("base_url", "https://example/<account>/v1", "base_url must be like"),
        ("base_url", "http://x/v1?key=abc", "base_url can't have a query or a fragment"),
        ("base_url", "http://x/v1#a", "base_url can't have a query or a fragment"),
        (
            "base_url",
            "http://x/v1/chat/completions",
            "base_url must not contain /chat/completions, /responses or /v1/messages",
        ),
        (
            "base_url",
            "http://x/v1/messages/",
            "base_url must not contain /chat/completions, /responses or /v1/messages",
        ),
        ("api_key", 5, "api_key must be text, not int"),
        ("api_key", b"secret", "api_key must be text, not bytes"),
        ("api_key", "sec\nret", "The api_key has characters that HTTP does not allow"),
        ("api_key", "sec\x00ret", "The api_key has characters"),
        ("api_key", "secr\xe9t", "The api_key has characters"),
        ("headers", 5, "headers must be a dict of texts, not int"),
        ("headers", [("x-a", "secret")], "headers must be a dict of texts, not list"),
        ("headers", {"x-a": 5}, "The header 'x-a' must be text, not int"),
        ("headers", {"x-a": None}, "The header 'x-a' must be text, not NoneType"),
        ("headers", {5: "secret"}, "The header 5 must be text"),
        ("headers", {"x a": "secret"}, "The header 'x a' has characters that HTTP does not allow"),
        ("headers", {"": "secret"}, "The header '' has characters"),
        ("headers", {"x-a": "secret\n"}, "The header 'x-a' has characters"),
        ("headers", {"Content-Length": "5"}, "headers can't contain 'Content-Length', because"),
        ("headers", {"transfer-encoding": "gzip"}, "because rxllm derives it from the request"),
        ("client", 5, "client must be an httpx.AsyncClient or a function that returns one, not int"),
        ("client", httpx.Client(), "client must be an httpx.AsyncClient or a function that returns one, not Client"),
        ("client", coroutine_factory, "client must be .*, not an async function"),
        ("client", AsyncCall(), "client must be .*, not an async function"),
        ("client", functools.partial(coroutine_factory), "client must be .*, not an async function"),
        ("client", Unhashable(), "client must be .*, not Unhashable"),
        (
            "timeout",
            float("inf"),
            "The timeout 'connect' must be a positive number of seconds, or None for ever, not inf",
        ),
        ("timeout", float("nan"), "not nan"),
        ("timeout", True, "not True"),
        ("timeout", "5", "not '5'"),
        ("timeout", 0, "not 0"),
        ("timeout", httpx.Timeout(5), "must be a positive number"),
        ("event_limit", -1, "event_limit must be a whole number of at least 1, not -1"),
        ("event_limit", "5", "event_limit must be a whole number"),
        ("event_limit", True, "event_limit must be a whole number"),
        ("event_limit", None, "event_limit must be a whole number"),
        ("apikey", "secret", "Did you mean api_key=…"),
        ("max_retrys", 3, "Did you mean max_retries=…"),
        ("stream", "false", "stream must be True, False or None"),
        ("run_name", 5, "run_name must be text"),
    ],
)
def test_wrong_argument_is_refused_when_the_model_is_created(provider, name, value, sentence):
    """The sentence repeats nothing that may be secret."""
    with pytest.raises(MisuseError, match=sentence) as caught:
        provider("m", **{name: value})
    assert "secr" not in str(caught.value)


def test_the_password_of_a_bad_address_is_not_shown():
    """The sentence shows the address without its login."""
    for url in "http://user:secret@ex..ample", "http://user:secret@x/v1?a", "http://user:secret@x/messages":
        with pytest.raises(MisuseError) as caught:
            OpenAI("m", base_url=url)
        assert "secret" not in str(caught.value)


@every
@pytest.mark.parametrize("model", [5, "", None, b"m"])
def test_name_of_a_model_must_be_text(provider, model):
    """Any other value is refused."""
    with pytest.raises(MisuseError, match="A model's name must be text such as 'gpt-5-mini', not"):
        provider(model)


@every
@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": None, "api_key": "", "headers": {}, "client": None, "timeout": None},
        {"base_url": "", "api_key": " key\n", "headers": {"X-A": "a b;c", "accept": ""}, "timeout": 1},
        {"base_url": LOCAL + "/", "client": httpx.AsyncClient, "timeout": Timeouts(read=0.5), "event_limit": 1},
        {"base_url": "http://user:pa%20ss@[::1]:8000/v1", "client": lambda: httpx.AsyncClient()},
        {"base_url": "https://münchen.example/v1", "client": functools.partial(httpx.AsyncClient, timeout=5)},
        {"base_url": "http://under_score.local./chat"},
    ],
)
def test_valid_arguments_are_kept_unchanged(provider, settings):
    """In each spelling that the constructors accept."""
    assert settings.get("headers") == provider("m", **settings).headers


def test_query_of_an_address_belongs_to_the_client():
    """Azure's classic address has a query; the sentence that refuses it in base_url says what works."""
    with pytest.raises(MisuseError, match=r"client=lambda: httpx\.AsyncClient\(params=\{'api-version': …\}\)"):
        OpenAI("m", base_url="https://x.openai.azure.com/openai/deployments/d?api-version=1")
    with FakeServer(Reply(b'data: {"choices":[{"delta":{"content":"ok"},"finish_reason":"stop"}]}\n\n')) as server:
        llm = OpenAI(
            "m",
            base_url=f"{server.url}/openai/deployments/d",
            headers={"api-key": "sk-test"},
            client=lambda: httpx.AsyncClient(params={"api-version": "2024-10-21"}),
        )
        assert "ok" == llm.invoke("hi").text
    [request] = server.requests
    assert ("/openai/deployments/d/chat/completions", "api-version=2024-10-21") == (request.path, request.query)


async def test_open_client_is_accepted():
    """The model keeps the client of the program."""
    async with httpx.AsyncClient() as client:
        assert client is OpenAI("m", client=client).client


@every
@pytest.mark.parametrize(
    ("client", "sentence"),
    [
        (lambda: 5, "client= must return an httpx.AsyncClient, not int"),
        (httpx.Client, "client= must return an httpx.AsyncClient, not Client"),
        (lambda: coroutine_factory(), "client= must return an httpx.AsyncClient, not coroutine"),
    ],
)
def test_factory_must_return_a_client(provider, client, sentence):
    """The first request calls it; a wrong return value is refused before anything is sent."""
    with FakeServer() as server, pytest.raises(MisuseError, match=sentence):
        provider("m", base_url=server.url, client=client).invoke("hi")
    assert [] == server.requests


async def test_closed_client_is_refused():
    """As an instance, and from a function that returns the same client again."""
    client = httpx.AsyncClient()
    await client.aclose()
    for given in client, lambda: client:
        with pytest.raises(MisuseError, match="client= is closed"):
            await OpenAI("m", base_url=LOCAL, client=given).ainvoke("hi")


@pytest.mark.parametrize("value", [object(), "deep", "round"])
def test_value_that_json_cannot_express_is_refused(value):
    """Also a field of `extra` that is nested too deeply, or in itself."""
    if value == "deep":
        for _ in range(100_000):
            value = [value]
    elif value == "round":
        value = []
        value.append(value)
    with pytest.raises(MisuseError, match="cannot be written as JSON"):
        OpenAI("m", base_url=LOCAL, extra={"a": value}).invoke("hi")


VARIABLES = {
    OpenAI: ("OPENAI_API_KEY", "OPENAI_BASE_URL"),
    Anthropic: ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
}


@every
@pytest.mark.parametrize("key", ["sec\nret", "secr\xe9t", "secr\x00t"])
def test_bad_key_in_the_environment_is_refused_with_its_variable(provider, key, monkeypatch):
    """The sentence does not show the key."""
    variable = VARIABLES[provider][0]
    found = {variable: key}
    monkeypatch.setattr("os.environ", found)
    with pytest.raises(MisuseError, match=f"{variable} has characters that HTTP does not allow") as caught:
        provider("m", base_url=LOCAL).invoke("hi")
    assert "secr" not in str(caught.value)
    found[variable] = "secret"
    with pytest.raises(MisuseError, match="The api_key has characters"):
        provider("m", api_key=key)


@every
@pytest.mark.parametrize("key", ["'secret'", '"secret"', '"secret"\n', "''"])
def test_key_in_quotation_marks_is_refused(provider, key, monkeypatch):
    """As ``docker run --env-file`` gives it. The sentence does not show the key."""
    variable = VARIABLES[provider][0]
    monkeypatch.setattr("os.environ", {variable: key})
    with pytest.raises(MisuseError, match=f"{variable} has quotation marks around the key") as caught:
        provider("m", base_url=LOCAL).invoke("hi")
    assert "secret" not in str(caught.value)
    with pytest.raises(MisuseError, match="The api_key has quotation marks"):
        provider("m", api_key=key)


@every
def test_key_with_the_word_bearer_is_refused(provider):
    """As people copy it from an example with curl."""
    with pytest.raises(MisuseError, match="The api_key begins with the word Bearer") as caught:
        provider("m", api_key="Bearer secret")
    assert "secret" not in str(caught.value)


@every
@pytest.mark.parametrize("white", ["\n", "\r\n", " ", "\t"])
def test_white_space_around_variables_does_not_count(provider, white, monkeypatch):
    """Files and shells leave it there."""
    key, base = VARIABLES[provider]
    monkeypatch.setenv(key, f"{white}secret{white}")
    monkeypatch.setenv(base, f"{white}{LOCAL}{white}")
    assert provider("m").preview("hi").url == provider("m", base_url=LOCAL, api_key="secret").preview("hi").url


def test_bad_token_in_the_environment_is_refused_with_its_variable(monkeypatch):
    """The bearer token is checked as the key is."""
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "sec\nret")
    with pytest.raises(MisuseError, match="ANTHROPIC_AUTH_TOKEN has characters"):
        Anthropic("m").invoke("hi")


@every
@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("localhost:8000", "must be like https://host/v1, not 'localhost:8000'"),
        ("http://x/v1?key=abc", "can't have a query or a fragment"),
        ("http://x/v1/chat/completions", "must not contain /chat/completions"),
    ],
)
def test_bad_address_in_the_environment_is_refused_with_its_variable(provider, url, sentence, monkeypatch):
    """With the sentence for an argument, and handlers get the failure."""
    key, variable = VARIABLES[provider]
    monkeypatch.setenv(key, "k")
    monkeypatch.setenv(variable, url)
    heard = []
    with pytest.raises(MisuseError, match=f"{variable} {sentence}"):
        provider("m").invoke("hi", handlers=[heard.append])
    assert ["Started", "Failed"] == [type(event).__name__ for event in heard]


@every
@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({"stream": False}, "extra can't contain 'stream', because it is a parameter. Write stream="),
        ({"temperature": 0}, "extra can't contain 'temperature', because it is a parameter. Write temperature="),
        ({"stop": ["x"]}, "extra can't contain 'stop', because it is a parameter. Write stop_sequences="),
        ({"model": "x"}, "extra can't contain 'model', because it is a parameter. Write model="),
        ({"messages": []}, "extra can't contain 'messages'. Pass the messages as the prompt"),
        ({"prompt": "x"}, "extra can't contain 'prompt'. Pass the messages as the prompt"),
        ({"a": float("nan")}, r"extra\['a'\] is nan, which JSON cannot express"),
        ({"a": {"b": [1, float("-inf")]}}, r"extra\['a'\]\['b'\]\[1\] is -inf, which JSON cannot express"),
    ],
)
def test_extra_cannot_contain_a_parameter(provider, extra, sentence):
    """The sentence names the parameter, before anything is sent."""
    with FakeServer() as server, pytest.raises(MisuseError, match=sentence):
        provider("m", base_url=server.url).invoke("hi", extra=extra)
    assert [] == server.requests


def test_none_removes_a_field_that_the_provider_adds():
    """At the top of the body, and in an object that the provider writes."""
    chat = OpenAI("m", base_url="http://x/v1", api_key="k", api="chat").preview(
        "hi", extra={"stream": None, "model": None}
    )
    assert {"messages", "stream_options"} == chat.json.keys()
    gemini = Gemini("m", api_key="k", temperature=0.5, seed=1)
    assert {"seed": 1} == gemini.preview("hi", extra={"generationConfig": {"temperature": None}}).json[
        "generationConfig"
    ]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"max_retries": 3},
            r"max_retries is a keyword for the constructor of the model\. Write OpenAI\(…, max_retries=3\)",
        ),
        ({"timeout": 4.5}, r"timeout is a keyword for the constructor of the model\. Write OpenAI\(…, timeout=4.5\)"),
        (
            {"api_key": "secret"},
            r"api_key is a keyword for the constructor of the model\. Write OpenAI\(…, api_key=…\)",
        ),
        ({"retries": 3}, "There is no parameter 'retries'. Did you mean max_retries=…"),
        ({"temp": 1}, "Did you mean temperature=…"),
        ({"tag": ["x"]}, "Did you mean tags=…"),
        ({"callbacks": []}, "Did you mean handlers=…"),
        ({"name": "x"}, "Did you mean run_name=…"),
    ],
)
def test_argument_in_the_wrong_call_is_refused_with_the_right_place(given, sentence):
    """The sentence never sends the reader to `extra`."""
    for ask in OpenAI("m", base_url=LOCAL).bind, functools.partial(OpenAI("m", base_url=LOCAL).stream, "hi"):
        with pytest.raises(MisuseError, match=sentence) as caught:
            ask(**given)
        assert "extra" not in str(caught.value)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"temprature": 1}, "There is no parameter 'temprature'. Did you mean temperature="),
        ({"stop": "x"}, "Did you mean stop_sequences="),
        ({"max_completion_tokens": 5}, "Did you mean max_tokens="),
        (
            {"zzz": 5},
            r"There is no parameter 'zzz'\. To send a field that only the provider knows, write extra=\{'zzz': …\}",
        ),
        ({"n": 3}, r"Call llm\.batch\(\[prompt\] \* 3\)"),
    ],
)
def test_misspelt_parameter_is_refused_with_the_nearest_name(given, sentence):
    """In each call that takes parameters."""
    llm = OpenAI("m", base_url=LOCAL)
    for ask in (llm.bind, functools.partial(llm.stream, "hi"), functools.partial(OpenAI, "m"), pipe(llm, text()).bind):
        with pytest.raises(MisuseError, match=sentence):
            ask(**given)


def test_n_of_one_is_not_sent():
    """One answer is what every request gets."""
    llm = OpenAI("m", base_url=LOCAL, n=1)
    assert llm == OpenAI("m", base_url=LOCAL) == llm.bind(n=1)


def test_combined_model_refuses_arguments_of_the_constructor():
    """The sentence names the constructor of a model over HTTP."""
    with pytest.raises(
        MisuseError,
        match=r"timeout is a keyword for the constructor of a model over HTTP\. Write OpenAI\(…, timeout=4\)",
    ):
        retry(OpenAI("m")).bind(timeout=4)


@mutable
class Changeable(OpenAI):
    """Made by attrs, and not frozen."""

    region: str = "eu"


@frozen
class Regional(OpenAI):
    """Made by attrs, which writes its constructor."""

    region: str = "eu"


@dataclass
class Forgetful(OpenAI):
    """A dataclass, whose constructor calls none but its own."""

    region: str = "eu"


@pytest.mark.parametrize("kind", [Changeable, Regional])
def test_subclass_made_by_attrs_takes_parameters(kind):
    """Although the constructor that attrs writes has none."""
    made = kind("m", "us", temperature=0, api_key="k", parameters=Parameters(seed=3, temperature=1))
    assert ("m", "us", "k", 0, 3) == (
        made.model,
        made.region,
        made.api_key,
        made.parameters.temperature,
        made.parameters.seed,
    )
    keyless = kind("m", "us", temperature=0, parameters=Parameters(seed=3, temperature=1))
    assert keyless == pickle.loads(pickle.dumps(keyless))  # noqa: S301
    with pytest.raises(MisuseError, match="Did you mean temperature="):
        kind("m", temprature=0)


def test_constructor_that_skips_the_base_is_refused_at_the_request():
    """The model is missing; the other fields have their defaults."""
    made = Forgetful("us")
    assert ("us", 2, Timeouts()) == (made.region, made.max_retries, made.timeout)
    with pytest.raises(MisuseError, match=r"This Forgetful has no model: .* super\(\).__init__\(model=…\)"):
        made.invoke("hi")


@frozen(init=False)
class Mine(OpenAI):
    """A server of one's own, with a field of its own."""

    region: str = "eu"

    def __init__(self, region):
        """Nothing else is asked."""
        self._settle(model="m", region=region, base_url=LOCAL, tags=["own"])


@pytest.mark.parametrize("settings", [{"tags": ["b"]}, {"metadata": {"k": 1}, "run_name": "r"}])
def test_subclass_with_its_own_constructor_can_be_copied(settings):
    """Whatever the constructor takes."""
    copied = Mine("us").with_config(**settings)
    assert (Mine, "us", LOCAL) == (type(copied), copied.region, copied.base_url)
    assert settings.get("run_name") == copied.run_name


@pytest.mark.parametrize("kind", [Anthropic, OpenAI, functools.partial(OpenAI, api="responses"), Gemini])
def test_empty_lists_and_settings_without_tools_are_not_sent(kind):
    """Vendors refuse an empty list, and a tool choice without tools; no tool may be called then anyway."""
    llm = kind("m", base_url="http://127.0.0.1:1", api_key="k")
    plain = llm.preview("hi").json
    for blank in (
        {"tools": []},
        {"tool_choice": "auto"},
        {"tools": (), "tool_choice": "none", "parallel_tool_calls": False},
    ):
        assert plain == llm.preview("hi", **blank).json
    assert plain == llm.bind(stop_sequences="END").preview("hi", stop_sequences=[]).json
