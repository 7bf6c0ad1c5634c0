"""What a constructor is given: each mistake is a sentence, as early as can be, and before anything is sent."""

import functools
import pickle
from dataclasses import dataclass

import httpx
import pytest
from attrs import frozen, mutable

from rxllm import Anthropic, MisuseError, OpenAI, Parameters, Timeouts, pipe, retry, text
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
        ("base_url", "http://x/v1/chat/completions", "base_url must not contain /chat/completions or /v1/messages"),
        ("base_url", "http://x/v1/messages/", "base_url must not contain /chat/completions or /v1/messages"),
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
def test_a_mistake_is_told_when_the_model_is_made(provider, name, value, sentence):
    """In a sentence, which repeats nothing that may be secret."""
    with pytest.raises(MisuseError, match=sentence) as caught:
        provider("m", **{name: value})
    assert "secr" not in str(caught.value)


def test_the_password_of_a_bad_address_is_not_shown():
    """Only what comes after it."""
    for url in "http://user:secret@ex..ample", "http://user:secret@x/v1?a", "http://user:secret@x/messages":
        with pytest.raises(MisuseError) as caught:
            OpenAI("m", base_url=url)
        assert "secret" not in str(caught.value)


@every
@pytest.mark.parametrize("model", [5, "", None, b"m"])
def test_a_name_is_text(provider, model):
    """The model's."""
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
def test_what_is_right_is_taken(provider, settings):
    """As it is."""
    assert settings.get("headers") == provider("m", **settings).headers


def test_a_query_is_the_clients():
    """Azure's classic address has one; the sentence that refuses it in base_url says what works."""
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


async def test_an_open_client_is_taken():
    """Of one's own."""
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
def test_a_factory_must_make_a_client(provider, client, sentence):
    """Which is known when it is first called: nothing is sent."""
    with FakeServer() as server, pytest.raises(MisuseError, match=sentence):
        provider("m", base_url=server.url, client=client).invoke("hi")
    assert [] == server.requests


async def test_a_closed_client_is_told():
    """Of one's own, or of a function that hands out the same again."""
    client = httpx.AsyncClient()
    await client.aclose()
    for given in client, lambda: client:
        with pytest.raises(MisuseError, match="client= is closed"):
            await OpenAI("m", base_url=LOCAL, client=given).ainvoke("hi")


@pytest.mark.parametrize("value", [object(), "deep", "round"])
def test_what_json_cannot_say_is_told(value):
    """An `extra` field that is nested too deeply, or in itself, too."""
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
def test_a_bad_key_of_the_environment_is_told_by_its_name(provider, key, monkeypatch):
    """And is not shown."""
    variable = VARIABLES[provider][0]
    found = {variable: key}
    monkeypatch.setattr("os.environ", found)
    with pytest.raises(MisuseError, match=f"{variable} has characters that HTTP does not allow") as caught:
        provider("m", base_url=LOCAL).invoke("hi")
    assert "secr" not in str(caught.value)
    found[variable] = "secret"
    with pytest.raises(MisuseError, match="The api_key has characters"):
        provider("m", api_key=key)


def test_a_bad_token_of_the_environment_is_told_by_its_name(monkeypatch):
    """The bearer token, too."""
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
def test_a_bad_address_of_the_environment_is_told_by_its_name(provider, url, sentence, monkeypatch):
    """As an argument's is; also where somebody listens."""
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
def test_what_is_nothing_extra_is_told(provider, extra, sentence):
    """Before anything is sent, by the name of the parameter that says it."""
    with FakeServer() as server, pytest.raises(MisuseError, match=sentence):
        provider("m", base_url=server.url).invoke("hi", extra=extra)
    assert [] == server.requests


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
def test_what_a_call_does_not_take_is_told_with_its_place(given, sentence):
    """And never is `extra` said to be the place."""
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
def test_a_misnamed_parameter_is_told_with_the_nearest(given, sentence):
    """Wherever parameters are taken."""
    llm = OpenAI("m", base_url=LOCAL)
    for ask in (llm.bind, functools.partial(llm.stream, "hi"), functools.partial(OpenAI, "m"), pipe(llm, text()).bind):
        with pytest.raises(MisuseError, match=sentence):
            ask(**given)


def test_one_answer_is_what_there_is():
    """``n=1`` is what everybody gets, and is not sent."""
    llm = OpenAI("m", base_url=LOCAL, n=1)
    assert llm == OpenAI("m", base_url=LOCAL) == llm.bind(n=1)


def test_a_combined_model_tells_it_of_models_over_http():
    """What is within is not asked."""
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
def test_a_provider_made_of_ours_takes_parameters(kind):
    """Although attrs' constructor knows none."""
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


def test_a_constructor_that_forgets_ours_is_told():
    """When the field is wanted that has no default; the others have theirs."""
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
def test_a_provider_of_ones_own_can_be_copied(settings):
    """Whatever its constructor takes."""
    copied = Mine("us").with_config(**settings)
    assert (Mine, "us", LOCAL) == (type(copied), copied.region, copied.base_url)
    assert settings.get("run_name") == copied.run_name
