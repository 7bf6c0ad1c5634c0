"""The vendors' own SDKs and rxllm use the same fake batch APIs, so that these speak the vendors' protocols.

A test of rxllm alone would not notice a mistake that the fake server and the provider share.
"""

from __future__ import annotations

import importlib.util
import json

import pytest
from fake_batches import KEY, ROWS, VENDORS, FakeAnthropic, FakeGemini, FakeGeminiFiles, FakeOpenAI, hasten

import rxllm

if importlib.util.find_spec("mistralai") is None:
    pytest.skip("the extra 'clients' is not installed", allow_module_level=True)

import anthropic
import openai
from google import genai

ANSWERS = {"a": "A p1", "b": "A p2"}


@pytest.fixture
def client_of():
    """Return a function that returns the client of a vendor."""
    clients = []

    def create(vendor):
        if vendor.name == "openai":
            clients.append(openai.OpenAI(api_key=KEY, base_url=vendor.base, max_retries=0))
        elif vendor.name == "anthropic":
            vendor._check = lambda received: None  # the SDK sends the key and the version in its own way
            clients.append(anthropic.Anthropic(api_key=KEY, base_url=vendor.base, max_retries=0))
        else:
            options = {"base_url": vendor.base, "api_version": "v1beta"}
            clients.append(genai.Client(api_key=KEY, http_options=options))
        return clients[-1]

    yield create
    for client in clients:
        client.close()


def test_sdk_of_openai_creates_and_reads_a_batch(client_of):
    """The fake accepts the SDK's requests, and the SDK reads its responses."""
    with FakeOpenAI() as vendor:
        client = client_of(vendor)
        lines = [
            {
                "custom_id": key,
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "m", "messages": [{"role": "user", "content": prompt}]},
            }
            for key, prompt in (("a", "p1"), ("b", "p2"))
        ]
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        file = client.files.create(file=("batch.jsonl", content, "application/jsonl"), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"rxllm": "tag"}
        )
        assert "in_progress" == batch.status
        batch = client.batches.retrieve(batch.id)
        assert ("completed", 2) == (batch.status, batch.request_counts.completed)
        results = map(json.loads, client.files.content(batch.output_file_id).text.splitlines())
        found = {each["custom_id"]: each["response"]["body"]["choices"][0]["message"]["content"] for each in results}
        assert found == ANSWERS
        assert [batch.id] == [each.id for each in client.batches.list(limit=100)]


def test_sdk_of_anthropic_creates_and_reads_a_batch(client_of, monkeypatch):
    """The fake accepts the SDK's requests, and the SDK reads its responses."""
    with FakeAnthropic() as vendor:
        monkeypatch.setattr(vendor, "results_at", vendor.url)
        client = client_of(vendor)
        requests = [
            {
                "custom_id": key,
                "params": {"model": "m", "max_tokens": 7, "messages": [{"role": "user", "content": prompt}]},
            }
            for key, prompt in (("a", "p1"), ("b", "p2"))
        ]
        batch = client.messages.batches.create(requests=requests)
        assert ("in_progress", 2) == (batch.processing_status, batch.request_counts.processing)
        batch = client.messages.batches.retrieve(batch.id)
        assert ("ended", 2) == (batch.processing_status, batch.request_counts.succeeded)
        results = client.messages.batches.results(batch.id)
        assert {each.custom_id: each.result.message.content[0].text for each in results} == ANSWERS
        assert [batch.id] == [each.id for each in client.messages.batches.list(limit=1000)]
        assert batch.id == client.messages.batches.cancel(batch.id).id


def test_sdk_of_google_creates_and_reads_a_batch(client_of):
    """The fake accepts the SDK's requests, and the SDK reads its responses."""
    with FakeGemini() as vendor:
        client = client_of(vendor)
        requests = [
            {"contents": [{"role": "user", "parts": [{"text": prompt}]}], "metadata": {"key": key}}
            for key, prompt in (("a", "p1"), ("b", "p2"))
        ]
        job = client.batches.create(model="m", src=requests, config={"display_name": "tag"})
        assert "JOB_STATE_RUNNING" == job.state.name
        job = client.batches.get(name=job.name)
        assert ("JOB_STATE_SUCCEEDED", "tag") == (job.state.name, job.display_name)
        results = job.dest.inlined_responses
        assert {each.metadata["key"]: each.response.text for each in results} == ANSWERS
        assert [job.name] == [each.name for each in client.batches.list(config={"page_size": 100})]
        client.batches.cancel(name=job.name)


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.__name__)
def test_sdk_reads_the_batches_of_a_job(vendor, client_of, tmp_path, monkeypatch):
    """Its states, its list and its results; one request is refused, and one expires."""
    hasten(monkeypatch.setattr, vendor)
    monkeypatch.setattr(vendor.api, "max_requests", 10)
    with vendor() as server:
        server.refusing = ("p3",)
        monkeypatch.setattr(server, "results_at", server.url, raising=False)
        journal = rxllm.Journal(tmp_path / "out.jsonl")
        job = rxllm.job(server.model(), journal, via="batch-api")
        with rxllm.from_iter(ROWS[:4]).pipe(job, rxllm.stream()) as results:
            (failed,) = [result for result in results if result.failure]
        assert ("row 3", 400) == (failed.id, failed.failure.status)
        client = client_of(server)
        texts = {"openai": of_openai, "anthropic": of_anthropic, "gemini": of_google}[server.name](client, server)
        assert ["A p0", "A p1", "A p2"] == sorted(texts)


def of_openai(client, vendor):
    """Return the texts of the answers of the only batch."""
    (batch,) = client.batches.list(limit=100)
    assert (3, 1) == (batch.request_counts.completed, batch.request_counts.failed)
    (error,) = map(json.loads, client.files.content(batch.error_file_id).text.splitlines())
    assert 400 == error["response"]["status_code"]
    results = map(json.loads, client.files.content(batch.output_file_id).text.splitlines())
    return [each["response"]["body"]["choices"][0]["message"]["content"] for each in results]


def of_anthropic(client, vendor):
    """Return the texts of the answers of the only batch."""
    (batch,) = client.messages.batches.list(limit=1000)
    results = [each.result for each in client.messages.batches.results(batch.id)]
    (error,) = [each.error.error.type for each in results if each.type == "errored"]
    assert error == "invalid_request_error"
    return [each.message.content[0].text for each in results if each.type == "succeeded"]


def of_google(client, vendor):
    """Return the texts of the answers of the only batch."""
    (job,) = client.batches.list(config={"page_size": 100})
    if not isinstance(vendor, FakeGeminiFiles):
        results = job.dest.inlined_responses
        assert [3] == [each.error.code for each in results if each.error]
        return [each.response.text for each in results if each.response]
    lines = map(json.loads, client.files.download(file=job.dest.file_name).splitlines())
    return [
        genai.types.GenerateContentResponse.model_validate(line["response"]).text
        for line in lines
        if "response" in line
    ]
