"""Servers of vendors' batch APIs, written by hand from their protocols. They count what is paid, and misbehave.

A batch is worked on while it is looked at: it ends after `looks` requests for its state. Its results come in disorder.

Sources: https://developers.openai.com/api/reference/resources/batches,
https://platform.claude.com/docs/en/api/messages/batches, https://ai.google.dev/api/batch-api.
"""

from __future__ import annotations

import collections
import json
import os
import re
import signal
from datetime import UTC, datetime
from urllib.parse import parse_qs, unquote

from protocols import Chat, Generate, Messages

import rxllm
from rxllm.jobs import confirming, patience
from rxllm.providers import _gemini_batches
from rxllm.providers._anthropic_batches import AnthropicBatches
from rxllm.providers._gemini_batches import GeminiBatches
from rxllm.providers._openai_batches import OpenAIBatches
from rxllm.testing import End, FakeServer, Reply

KEY = "a-secret-key"  # unless a test names another one
FILE = re.compile(rb"\r\n\r\n(\{.*\n)\r\n--", re.DOTALL)


class Batch:
    """A batch at a vendor.

    Attributes:
        id: its id.
        tag: the name that its creator gave it, if the protocol has one.
        file: the file of its requests, if there is one.
        outcomes: what becomes of each request: its key, its prompt, and a word.
        looks: the requests for its state until it ends.
        cancelled: whether it was cancelled.
        gone: whether its results are deleted.
        refusal: why it was refused as a whole, as a code and a message.
        lacks: results that the next readings leave out.
    """

    def __init__(self, id, tag, file, outcomes, looks):
        self.id = id
        self.tag = tag
        self.file = file
        self.outcomes = outcomes
        self.looks = looks
        self.cancelled = False
        self.gone = False
        self.refusal = None
        self.lacks = 0
        self.created_at = datetime.now(UTC)

    @property
    def ended(self):
        """Whether its results are complete."""
        return self.looks <= 0

    def count(self, *words):
        """Return the number of requests with one of these outcomes."""
        return sum(word in words for _, _, word in self.outcomes)

    def look(self):
        """Work on it."""
        self.looks -= 1

    def results(self):
        """Return the outcomes in disorder, with those that the protocol keeps."""
        lacks, self.lacks = self.lacks, 0
        return list(reversed(self.outcomes))[lacks:]


class FakeVendor:
    """``with FakeOpenAI() as vendor``: a vendor's files and batches.

    Attributes:
        paid: how often each prompt was answered.
        made: the batches, by their ids.
        looks: the requests for its state until a batch ends.
        expiring: how many requests of the next batch are not answered, because its day is over.
        failing: how often the server fails at a prompt.
        refusing: prompts that are refused.
        odd: prompts whose answer is none of the protocol.
        loses: what happens to the responses to the next creations: "500", "cut", "reset" or "page"; the batch is made.
        drops: how many creations get a 500 and make no batch.
        hidden: how often the list does not show the batches yet.
        room: how many requests all open batches may have together; None if that is not limited.
        refuses: the code and the message with which batches are refused as a whole.
        lacks: how many results of the next batch are left out at its first reading.
        troubles: the responses to the next requests that do not create anything.
        requests: the methods and paths of all requests.
        cancelled: the ids of the batches that were cancelled.
        key: the key that the server wants.
    """

    name: str
    api: type
    variables: tuple[str, str]

    def __init__(self):
        self.paid = collections.Counter()
        self.made = {}
        self.files = {}
        self.looks = 1
        self.expiring = 0
        self.failing = collections.Counter()
        self.refusing = ()
        self.odd = ()
        self.loses = []
        self.drops = 0
        self.hidden = 0
        self.room = None
        self.refuses = None
        self.lacks = 0
        self.troubles = []
        self.requests = []
        self.cancelled = []
        self.key = KEY
        self._victim = None
        self._server = FakeServer(self.reply)

    def __enter__(self):
        self._server.__enter__()
        self.url = self._server.url
        return self

    def __exit__(self, *error):
        self._server.__exit__(*error)

    @property
    def environment(self):
        """The environment variables that name this server and its key."""
        return dict(zip(self.variables, (KEY, self.base), strict=True))

    @property
    def base(self):
        """The base_url of a model."""
        return self.url

    def answer_by(self, reply):
        """Answer requests by another function, which may call `reply`."""
        self._server.reply(reply)

    def kill(self, process, step):
        """Kill a process at its next request of a kind: "create", "created", "state" or "results"."""
        self._victim = process, step

    def _at(self, step):
        """Kill the process if it is its time; return whether it was."""
        if self._victim is None or self._victim[1] != step:
            return False
        os.kill(self._victim[0], signal.SIGKILL)
        self._victim = None
        return True

    def reply(self, received):
        """Return the response to a request."""
        self.requests.append((received.method, received.path))
        self._check(received)
        creates = self._creates(received)
        if self.troubles and not creates:
            return self.troubles.pop(0)
        return self._create(received) if creates else self._answer(received)

    def _create(self, received):
        """Create a batch, or misbehave."""
        if self._at("create"):
            return Reply([End.RST])
        if self.drops:
            self.drops -= 1
            return self._error(500, "internal error")
        tag, file, entries = self._read(received)
        waiting = sum(len(batch.outcomes) for batch in self.made.values() if not batch.ended)
        if self.room is not None and waiting + len(entries) > self.room:
            return self._full(entries)
        batch = self._made(tag, file, entries)
        self._at("created")
        match self.loses.pop(0) if self.loses else "":
            case "500":
                return self._error(500, "the answer is lost")
            case "cut":
                return Reply([b"{", End.FIN], content_type="application/json")
            case "reset":
                return Reply([End.RST])
            case "page":
                return Reply(b"<html>", content_type="application/json")
        return Reply.json(self._shown(batch))

    def _made(self, tag, file, entries):
        expiring, self.expiring = self.expiring, 0
        outcomes = [(key, prompt, self._outcome(prompt, place < expiring)) for place, (key, prompt) in entries]
        for _, prompt, word in outcomes:
            self.paid[prompt] += word == "answered"
        batch = Batch(self._id(), tag, file, outcomes, self.looks)
        batch.refusal, batch.lacks, self.lacks = self.refuses, self.lacks, 0
        if batch.refusal:
            self._unpay(batch, "answered", "refused")
        self.made[batch.id] = batch
        return batch

    def _outcome(self, prompt, expires):
        if expires:
            return "expired"
        if prompt in self.refusing:
            return "refused"
        if self.failing[prompt] > 0:
            self.failing[prompt] -= 1
            return "failed"
        return "answered"

    def _cancel(self, batch):
        """Cancel a batch: only its first request was answered."""
        self.cancelled.append(batch.id)
        if not batch.ended:
            batch.cancelled = True
            first, *others = batch.outcomes
            batch.outcomes = others
            self._unpay(batch, "answered", "cancelled")
            batch.outcomes = [first, *batch.outcomes]
            batch.looks = 0
        return Reply.json(self._shown(batch))

    def _unpay(self, batch, word, other):
        """Replace an outcome by one that costs nothing."""
        for _, prompt, found in batch.outcomes:
            self.paid[prompt] -= found == word
        batch.outcomes = [(key, prompt, other if found == word else found) for key, prompt, found in batch.outcomes]

    def _look(self, name):
        self._at("state")
        batch = self.made[name]
        batch.look()
        return Reply.json(self._shown(batch))

    def _listed(self):
        """Return the batches that the list shows, the newest first."""
        if self.hidden:
            self.hidden -= 1
            return []
        for batch in self.made.values():
            batch.look()
        return [*reversed(self.made.values())]

    def _results(self, batch):
        self._at("results")
        lines = [json.dumps(self._line(*outcome)) for outcome in batch.results() if self._keeps(outcome)]
        return Reply("".join(f"{line}\n" for line in lines).encode(), content_type="application/octet-stream")

    def _body(self, protocol, prompt):
        """Return the response of a model."""
        return {"odd": 1} if prompt in self.odd else json.loads(protocol.whole([f"A {prompt}"]))

    def _keeps(self, outcome):
        return True

    def _id(self):
        return f"batch_{len(self.made)}"

    def _full(self, entries):
        return self._error(429, "the queue is full")

    def _error(self, status, message):
        return Reply.json({"error": {"message": message}}, status=status)


class FakeOpenAI(FakeVendor):
    """OpenAI's files and batches.

    Attributes:
        has_metadata: whether the server keeps metadata.
        fails_later: whether a full queue shows in the state of a batch instead of at its creation.
    """

    name = "openai"
    api = OpenAIBatches
    variables = ("OPENAI_API_KEY", "OPENAI_BASE_URL")

    def __init__(self):
        super().__init__()
        self.has_metadata = True
        self.fails_later = True

    @property
    def base(self):
        """The base_url of a model."""
        return f"{self.url}/v1"

    def model(self, **settings):
        """Return a model of this vendor."""
        return rxllm.OpenAI("m", **{"api_key": KEY, "base_url": self.base, "max_tokens": 7, **settings})

    def _check(self, received):
        assert f"Bearer {self.key}" == received.headers["authorization"]

    def _creates(self, received):
        return (received.method, received.path) == ("POST", "/v1/batches")

    def _answer(self, received):
        match received.method, unquote(received.path.removeprefix("/v1/")).split("/"):
            case "POST", ["files"]:
                assert received.headers["content-type"].startswith("multipart/form-data; boundary=")
                assert b'name="purpose"\r\n\r\nbatch\r\n' in received.body
                name = f"file-{len(self.files)}"
                self.files[name] = FILE.search(received.body)[1]
                return Reply.json({"id": name})
            case "GET", ["batches"]:
                return self._page(self._listed(), parse_qs(received.query))
            case "GET", ["batches", name] if name in self.made:
                return self._look(name)
            case "POST", ["batches", name, "cancel"] if name in self.made:
                return self._cancel(self.made[name])
            case "GET", ["files", name, "content"]:
                kind, _, batch = name.partition("-")
                return self._part(self.made[batch], kind)
        return self._error(404, "unknown")

    def _read(self, received):
        fields = received.json
        assert ("24h", "/v1/chat/completions") == (fields["completion_window"], fields["endpoint"])
        lines = [json.loads(line) for line in self.files[fields["input_file_id"]].splitlines()]
        assert 1 == len({line["body"]["model"] for line in lines})
        assert all("stream" not in line["body"] and "POST" == line["method"] for line in lines)
        assert all(fields["endpoint"] == line["url"] for line in lines)
        entries = [*enumerate((line["custom_id"], line["body"]["messages"][-1]["content"]) for line in lines)]
        return fields["metadata"]["rxllm"], fields["input_file_id"], entries

    def _full(self, entries):
        if not self.fails_later:
            return self._error(429, "too many enqueued tokens")
        batch = self._made("full", "", entries)
        batch.refusal = ("token_limit_exceeded", "Enqueued token limit reached")
        self._unpay(batch, "answered", "refused")
        batch.looks = 0
        return Reply.json(self._shown(batch))

    def _status(self, batch):
        if batch.refusal:
            return "failed"
        if batch.cancelled:
            return "cancelled"
        if not batch.ended:
            return "in_progress"
        return "expired" if batch.count("expired") else "completed"

    def _shown(self, batch):
        code, message = batch.refusal or (None, None)
        has = batch.ended and not batch.refusal
        good, bad = batch.count("answered"), len(batch.outcomes) - batch.count("answered")
        return {
            "id": batch.id,
            "object": "batch",
            "status": self._status(batch),
            "metadata": {"rxllm": batch.tag} if self.has_metadata else None,
            "input_file_id": batch.file,
            "output_file_id": f"out-{batch.id}" if has and good else None,
            "error_file_id": f"err-{batch.id}" if has and bad else None,
            "request_counts": {"total": len(batch.outcomes), "completed": good if has else 0, "failed": bad},
            "errors": {"data": [{"code": code, "message": message}]} if code else None,
        }

    def _page(self, batches, query):
        assert ["100"] == query["limit"]
        names = [batch.id for batch in batches]
        start = names.index(query["after"][0]) + 1 if "after" in query else 0
        page = batches[start : start + 2]  # small pages, so that there are several
        return Reply.json({"data": [*map(self._shown, page)], "has_more": start + 2 < len(batches)})

    def _part(self, batch, kind):
        if batch.gone:
            return self._error(404, "No such File object")
        whole, wanted = batch.outcomes, kind == "out"
        batch.outcomes = [each for each in whole if (each[2] == "answered") == wanted]
        reply = self._results(batch)
        batch.outcomes = whole
        return reply

    def _line(self, key, prompt, word):
        result = {"id": "r", "custom_id": key, "response": None, "error": None}
        match word:
            case "answered":
                body = self._body(Chat(), prompt)
                return {**result, "response": {"status_code": 200, "request_id": "q", "body": body}}
            case "refused":
                body = {"error": {"message": "bad prompt", "code": "bad"}}
                return {**result, "response": {"status_code": 400, "request_id": "q", "body": body}}
            case "failed":
                return {**result, "response": {"status_code": 500, "body": {"error": {"message": "oh"}}}}
        return {**result, "error": {"code": f"batch_{word}", "message": word}}


class FakeAnthropic(FakeVendor):
    """Anthropic's Message Batches.

    Attributes:
        results_at: the server that a batch names for its results. A model must not send its key there.
    """

    name = "anthropic"
    api = AnthropicBatches
    variables = ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL")
    results_at = "http://127.0.0.1:9"

    def model(self, **settings):
        """Return a model of this vendor."""
        return rxllm.Anthropic("m", **{"api_key": KEY, "base_url": self.base, "max_tokens": 7, **settings})

    def _check(self, received):
        assert (self.key, "2023-06-01") == (received.headers["x-api-key"], received.headers["anthropic-version"])

    def _creates(self, received):
        return (received.method, received.path) == ("POST", "/v1/messages/batches")

    def _answer(self, received):
        match received.method, received.path.removeprefix("/v1/messages/batches").split("/"):
            case "GET", [""]:
                return self._page(self._listed(), parse_qs(received.query))
            case "GET", ["", name] if name in self.made:
                return self._look(name)
            case "GET", ["", name, "results"] if name in self.made:
                batch = self.made[name]
                return self._error(404, "no results") if batch.gone or not batch.ended else self._results(batch)
            case "POST", ["", name, "cancel"] if name in self.made:
                return self._cancel(self.made[name])
        return self._error(404, "unknown")

    def _read(self, received):
        requests = received.json["requests"]
        keys = [request["custom_id"] for request in requests]
        assert len(keys) == len({*keys})
        assert all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", key) for key in keys)
        assert all({"model", "max_tokens", "messages"} <= request["params"].keys() for request in requests)
        assert all("stream" not in request["params"] for request in requests)
        prompts = [request["params"]["messages"][-1]["content"] for request in requests]
        texts = [prompt if isinstance(prompt, str) else prompt[0]["text"] for prompt in prompts]
        return "", "", [*enumerate(zip(keys, texts, strict=True))]

    def _made(self, tag, file, entries):
        batch = super()._made(tag, file, entries)
        assert self.refuses is None  # this vendor refuses requests only, each by itself
        return batch

    def _id(self):
        return f"msgbatch_{len(self.made)}"

    def _error(self, status, message):
        kind = {404: "not_found_error", 429: "rate_limit_error", 500: "api_error"}[status]
        return Reply.json({"type": "error", "error": {"type": kind, "message": message}}, status=status)

    def _shown(self, batch):
        words = {"succeeded": ("answered",), "errored": ("refused", "failed")}
        words |= {"canceled": ("cancelled",), "expired": ("expired",)}
        counts = {name: batch.count(*outcomes) if batch.ended else 0 for name, outcomes in words.items()}
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": "ended" if batch.ended else "canceling" if batch.cancelled else "in_progress",
            "request_counts": {"processing": 0 if batch.ended else len(batch.outcomes), **counts},
            "created_at": batch.created_at.isoformat().replace("+00:00", "Z"),
            "archived_at": batch.created_at.isoformat() if batch.gone else None,
            "cancel_initiated_at": batch.created_at.isoformat() if batch.cancelled else None,
            "results_url": f"{self.results_at}/v1/messages/batches/{batch.id}/results" if batch.ended else None,
        }

    def _page(self, batches, query):
        assert ["1000"] == query["limit"]
        names = [batch.id for batch in batches]
        start = names.index(query["after_id"][0]) + 1 if "after_id" in query else 0
        page = batches[start : start + 2]
        return Reply.json({"data": [*map(self._shown, page)], "has_more": start + 2 < len(batches)})

    def _line(self, key, prompt, word):
        match word:
            case "answered":
                result = {"type": "succeeded", "message": self._body(Messages(), prompt)}
            case "refused" | "failed":
                kind = {"refused": "invalid_request_error", "failed": "api_error"}[word]
                error = {"type": "error", "error": {"type": kind, "message": "bad prompt"}, "request_id": "q"}
                result = {"type": "errored", "error": error}
            case _:
                result = {"type": {"cancelled": "canceled"}.get(word, word)}
        return {"custom_id": key, "result": result}


class FakeGemini(FakeVendor):
    """Gemini's batches, which carry their requests."""

    name = "gemini"
    api = GeminiBatches
    variables = ("GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL")
    has_files = False

    def model(self, **settings):
        """Return a model of this vendor."""
        return rxllm.Gemini("m", **{"api_key": KEY, "base_url": self.base, "max_tokens": 7, **settings})

    def _check(self, received):
        assert self.key == received.headers["x-goog-api-key"]
        assert "key=" not in received.query

    def _creates(self, received):
        return received.path == "/v1beta/models/m:batchGenerateContent"

    def _answer(self, received):
        match received.method, unquote(received.path)[1:].split("/"):
            case "POST", ["upload", "v1beta", "files"]:
                return self._upload(received)
            case "GET", ["v1beta", "batches"]:
                return self._page(self._listed(), parse_qs(received.query))
            case "GET", ["v1beta", "batches", name] if f"batches/{name}" in self.made:
                return self._look(f"batches/{name}")
            case "POST", ["v1beta", "batches", name] if name.endswith(":cancel"):
                name = f"batches/{name.removesuffix(':cancel')}"
                if name not in self.made:
                    return self._error(404, "unknown")
                self._cancel(self.made[name])
                return Reply.json({})
            case "GET", ["v1beta", "files", name]:
                assert ("alt=media", ":download") == (received.query, name[-9:])
                batch = self.made[f"batches/{name[:-9]}"]
                return self._error(404, "no file") if batch.gone else self._results(batch)
        return self._error(404, "unknown")

    def _look(self, name):
        if self.made[name].ended and not self.has_files:  # the results are in the batch
            self._at("results")
        return super()._look(name)

    def _upload(self, received):
        assert "multipart" == received.headers["x-goog-upload-protocol"]
        kind, _, boundary = received.headers["content-type"].partition("; boundary=")
        assert "multipart/related" == kind
        _, about, content, end = received.body.split(f"--{boundary}".encode())
        assert b"--\r\n" == end
        assert "displayName" in json.loads(about.partition(b"\r\n\r\n")[2])["file"]
        head, _, lines = content.partition(b"\r\n\r\n")
        assert b"application/jsonl" in head
        name = f"files/{len(self.files)}"
        self.files[name] = lines
        return Reply.json({"file": {"name": name}})

    def _read(self, received):
        batch = received.json["batch"]
        place = batch["inputConfig"]
        file = place.get("fileName", "")
        assert self.has_files == bool(file)
        if file:
            items = [json.loads(line) for line in self.files[file].splitlines() if line]
            pairs = [(item["key"], item["request"]) for item in items]
        else:
            pairs = [(item["metadata"]["key"], item["request"]) for item in place["requests"]["requests"]]
        entries = [(key, request["contents"][-1]["parts"][0]["text"]) for key, request in pairs]
        return batch["displayName"], file, [*enumerate(entries)]

    def _made(self, tag, file, entries):
        expires, self.expiring = self.expiring, 0
        batch = super()._made(tag, file, entries)
        if expires:  # an expired batch has no results
            self._unpay(batch, "answered", "expired")
        return batch

    def _id(self):
        return f"batches/b{len(self.made)}"

    def _error(self, status, message):
        word = {404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL"}[status]
        return Reply.json({"error": {"code": status, "message": message, "status": word}}, status=status)

    def _status(self, batch):
        if not batch.ended:
            return "RUNNING"
        if batch.refusal:
            return "FAILED"
        if batch.cancelled:
            return "CANCELLED"
        return "EXPIRED" if batch.count("expired") else "SUCCEEDED"

    def _shown(self, batch):
        status = self._status(batch)
        shown = {
            "name": batch.id,
            "metadata": {
                "displayName": batch.tag,
                "state": f"BATCH_STATE_{status}",
                "batchStats": {"requestCount": str(len(batch.outcomes))},
            },
        }
        if status in ("SUCCEEDED", "CANCELLED"):
            shown["metadata"]["batchStats"]["successfulRequestCount"] = str(batch.count("answered"))
            if batch.file:
                output = {"responsesFile": f"files/{batch.id.removeprefix('batches/')}"}
            else:
                output = {
                    "inlinedResponses": {"inlinedResponses": [self._carried(batch, each) for each in batch.results()]}
                }
            shown["metadata"]["output"] = output  # Google sends it twice
            shown |= {"done": True, "response": output}
        elif status == "FAILED":
            shown |= {"done": True, "error": {"code": batch.refusal[0], "message": batch.refusal[1]}}
        elif status == "EXPIRED":
            shown["done"] = True
        return shown

    def _carried(self, batch, outcome):
        fields = self._line(*outcome)
        return {"metadata": {"key": fields.pop("key")}, **fields}

    def _page(self, batches, query):
        assert ["100"] == query["pageSize"]
        start = int(query["pageToken"][0]) if "pageToken" in query else 0
        page = {"operations": [*map(self._shown, batches[start : start + 2])]}
        return Reply.json(page if start + 2 >= len(batches) else {**page, "nextPageToken": str(start + 2)})

    def _line(self, key, prompt, word):
        match word:
            case "answered":
                return {"key": key, "response": self._body(Generate(), prompt)}
            case "refused":
                return {"key": key, "error": {"code": 3, "message": "bad prompt", "status": "INVALID_ARGUMENT"}}
            case "failed":
                return {"key": key, "error": {"code": 14, "message": "oh"}}
        return {"key": key, "error": {"code": 1, "message": word}}


class FakeGeminiFiles(FakeGemini):
    """Gemini's batches, whose requests and results are in files."""

    has_files = True


VENDORS = (FakeOpenAI, FakeAnthropic, FakeGemini, FakeGeminiFiles)

COUNT = 10
ROWS = [{"custom_id": f"row {number}", "prompt": f"p{number}"} for number in range(COUNT)]
PAID = {f"p{number}": 1 for number in range(COUNT)}
WHOLE = {f"row {number}": f"A p{number}" for number in range(COUNT)}
SIZE = 4  # rows in a batch


def hasten(patch, vendor):
    """Let jobs look again at once, let a batch hold few rows, and let Gemini's batches carry their requests or not.

    Args:
        patch: a function like setattr.
        vendor: the class of the fake vendor.
    """
    patch(patience, "POLL", (0.0,))
    patch(confirming, "FIND", 0.0)
    patch(confirming, "GRACE", 0.0)
    patch(vendor.api, "max_requests", SIZE)
    if getattr(vendor, "has_files", False):
        patch(_gemini_batches, "_WITHOUT_FILE", (0, 0))
