"""A server of OpenAI's files and batches, written by hand from the protocol.

Source: https://platform.openai.com/docs/api-reference/batch.
"""

import collections
import json
import re
from urllib.parse import parse_qs

from rxllm.testing import FakeServer, Reply

FILE = re.compile(rb"\r\n\r\n(\{.*\n)\r\n--", re.DOTALL)


class FakeBatches:
    """``with FakeBatches() as server``: batches end at once, with their results in disorder.

    Attributes:
        paid: how often each prompt was answered.
        made: the batches, by their ids.
        expiring: how many answers of the first batch are left out, because its day is over.
        failing: prompts that are refused.
        lists: whether the list shows the batches.
        loses: how many answers to the creation of a batch get lost.
        refuses: whether batches are refused as a whole.
        requests: the methods and paths that were asked.
        cancelled: the ids of the batches that were cancelled.
    """

    def __init__(self):
        self.paid = collections.Counter()
        self.made = {}
        self.files = {}
        self.expiring = 0
        self.failing = ()
        self.lists = True
        self.loses = 0
        self.refuses = False
        self.requests = []
        self.cancelled = []
        self._server = FakeServer(self._reply)

    def __enter__(self):
        self._server.__enter__()
        self.url = f"{self._server.url}/v1"
        return self

    def __exit__(self, *error):
        self._server.__exit__(*error)

    def _reply(self, received):
        self.requests.append((received.method, received.path))
        assert "Bearer a-secret-key" == received.headers["authorization"]
        match received.method, received.path.removeprefix("/v1/").split("/"):
            case "POST", ["files"]:
                return self._upload(received)
            case "POST", ["batches"]:
                return self._create(received.json)
            case "GET", ["batches"]:
                return self._list(parse_qs(received.query))
            case "GET", ["batches", name] if name in self.made:
                return Reply.json(self.made[name])
            case "POST", ["batches", name, "cancel"] if name in self.made:
                self.cancelled.append(name)
                return Reply.json(self.made[name])
            case "GET", ["files", name, "content"]:
                return Reply(self.files[name], content_type="application/octet-stream")
        return Reply.json({"error": {"message": "unknown"}}, status=404)

    def _upload(self, received):
        assert received.headers["content-type"].startswith("multipart/form-data; boundary=")
        assert b'name="purpose"\r\n\r\nbatch\r\n' in received.body
        return Reply.json({"id": self._keep(FILE.search(received.body)[1])})

    def _keep(self, content):
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    def _create(self, fields):
        assert ("24h", "/v1/chat/completions") == (fields["completion_window"], fields["endpoint"])
        lines = [json.loads(line) for line in self.files[fields["input_file_id"]].splitlines()]
        name = f"batch_{len(self.made)}"
        batch = {"id": name, "metadata": fields["metadata"], "status": "completed"}
        self.made[name] = batch
        if self.refuses:
            batch.update(status="failed", errors={"data": [{"code": "token_limit_exceeded", "message": "too many"}]})
            return Reply.json(batch)
        expiring, self.expiring = self.expiring, 0
        answered, failed = [], []
        for place, line in enumerate(reversed(lines)):
            assert "stream" not in line["body"]
            (failed if self._fails(line, place < expiring) else answered).append(self._result(line, place < expiring))
        for field, results in (("output_file_id", answered), ("error_file_id", failed)):
            batch[field] = (
                self._keep("".join(json.dumps(each) + "\n" for each in results).encode()) if results else None
            )
        batch["status"] = "expired" if expiring else "completed"
        if self.loses:
            self.loses -= 1
            return Reply.json({"error": {"message": "the answer is lost"}}, status=500)
        return Reply.json(batch)

    def _fails(self, line, expires):
        return expires or line["body"]["messages"][-1]["content"] in self.failing

    def _result(self, line, expires):
        prompt = line["body"]["messages"][-1]["content"]
        result = {"id": "r", "custom_id": line["custom_id"], "response": None, "error": None}
        if expires:
            return {**result, "error": {"code": "batch_expired", "message": "expired"}}
        if prompt in self.failing:
            body = {"error": {"message": "bad prompt", "code": "bad"}}
            return {**result, "response": {"status_code": 400, "body": body}}
        self.paid[prompt] += 1
        message = {"role": "assistant", "content": f"A {prompt}"}
        body = {"id": "c", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        return {**result, "response": {"status_code": 200, "request_id": "q", "body": body}}

    def _list(self, query):
        names = [*self.made] if self.lists else []
        start = names.index(query["after"][0]) + 1 if "after" in query else 0
        page = [self.made[name] for name in names[start : start + 2]]  # small pages, so that there are several
        return Reply.json({"data": page, "has_more": start + 2 < len(names)})
