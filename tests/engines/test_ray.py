"""`map_prompts` with two workers of Ray, and a server that counts what is paid."""

import collections
import gc
import sys
import threading

import pytest
from deadly_store import Deadly
from extras import needs_ray
from waiting import wait_until

import rxllm
from rxllm import MisuseError
from rxllm.jobs.ray import map_prompts
from rxllm.testing import End, FakeServer, Reply

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray warns of its own settings, and of having few rows

COUNT = 40
CONCURRENCY = 4
REFUSED = {"bad": 400, "broken": 500}  # the statuses of these prompts
WORKERS = {"workers": 2, "concurrency": CONCURRENCY, "num_cpus": 0.5}  # two processors, of which reading needs one


class PayingServer(FakeServer):
    """A server of OpenAI's protocol that counts which prompts it answered. It refuses some.

    Attributes:
        paid: how often each prompt was paid.
        keys: the keys of the requests.
        hangs_after: how many prompts it answers; later requests get no response.
    """

    def __init__(self):
        super().__init__(self._reply)
        self.paid = collections.Counter()
        self.keys = set()
        self.hangs_after = None
        self._lock = threading.Lock()

    def model(self, **settings):
        """Return a model that asks this server."""
        return rxllm.OpenAI("m", api="chat", base_url=f"{self.url}/v1", max_retries=0, **settings)

    def _reply(self, received):
        text = received.json["messages"][-1]["content"]
        with self._lock:
            self.keys.add(received.headers["authorization"])
            if text in REFUSED:
                return Reply.json({"error": {"message": "No."}}, status=REFUSED[text])
            self.paid[text] += 1
            if self.hangs_after is not None and self.paid.total() > self.hangs_after:
                return Reply([End.HANG])
        choice = {"index": 0, "message": {"role": "assistant", "content": f"A {text}"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        return Reply.json({"id": "1", "model": "m", "choices": [choice], "usage": usage})


@pytest.fixture
def server():
    """The server."""
    with PayingServer() as server:
        yield server


@pytest.fixture
def store(tmp_path):
    """A store that the workers share."""
    return rxllm.SQLiteStore(tmp_path / "answers.db")


def rows(count=COUNT):
    """Return rows with a number and a prompt."""
    return [{"number": number, "prompt": f"p{number}"} for number in range(count)]


def answers(dataset):
    """Return the answers by the numbers of their rows."""
    found = dataset.take_all()
    assert len(found) == len({row["number"] for row in found})
    return {row["number"]: row["answer"] for row in found}


@needs_ray
def test_poisoned_rows_are_values_and_a_later_run_pays_nothing_again(ray_data, server, store):
    """A refused row, one at which the server breaks, and one without a prompt have a failure, and the others an answer.

    A later run asks for the failed ones only.
    """
    poisoned = [{"number": COUNT + place, "prompt": prompt} for place, prompt in enumerate(["bad", "broken", None])]
    ds = ray_data.from_items([*rows(), *poisoned], override_num_blocks=6)
    found = {row["number"]: row for row in map_prompts(ds, server.model(), store, **WORKERS).take_all()}
    assert found.keys() == set(range(COUNT + 3))
    assert {f"A p{number}" for number in range(COUNT)} == {found[number]["answer"] for number in range(COUNT)}
    assert all(found[number]["failure"] is None for number in range(COUNT))
    assert {"input_tokens": 3, "output_tokens": 2}.items() <= found[0]["usage"].items()
    refused, broken, without = (found[COUNT + place] for place in range(3))
    assert (None, "BadRequest", 400) == (refused["answer"], refused["failure"]["kind"], refused["failure"]["status"])
    assert ("ProviderError", 500) == (broken["failure"]["kind"], broken["failure"]["status"])
    assert "has no value in its column 'prompt'" in without["failure"]["message"]
    again = map_prompts(ds, server.model(), store, **WORKERS)
    assert {number: row["answer"] for number, row in found.items()} == answers(again)
    assert {f"p{number}": 1 for number in range(COUNT)} == server.paid
    assert {"Bearer sk-of-the-worker"} == server.keys


@needs_ray
@pytest.mark.parametrize(("after", "twice"), [(COUNT // 2, 0), (COUNT // 4, CONCURRENCY)])
def test_a_killed_worker_pays_at_most_what_was_in_flight_again(ray_data, server, tmp_path, after, twice):
    """Ray runs the block of a killed worker again. Answers that are stored are not paid again.

    A worker is killed when it has stored all answers of its block, or half of them.
    """
    store = Deadly(tmp_path / "answers.db", after)
    ds = ray_data.from_items(rows(), override_num_blocks=2)
    found = answers(map_prompts(ds, server.model(), store, **WORKERS))
    assert store.mark.exists()
    assert {number: f"A p{number}" for number in range(COUNT)} == found
    assert server.paid.total() - COUNT <= twice


@needs_ray
def test_a_dropped_iterator_ends_the_requests(ray_data, server, store):
    """Dropping the iterator of the rows closes all connections, and asks for nothing more."""
    server.hangs_after = 2 * CONCURRENCY
    ds = ray_data.from_items(rows(400), override_num_blocks=100)
    iterator = iter(map_prompts(ds, server.model(), store, **WORKERS).iter_rows())
    assert next(iterator)["answer"].startswith("A p")
    wait_until(lambda: server.paid.total() > server.hangs_after)
    del iterator
    gc.collect()
    wait_until(lambda: all(exchange.closed.is_set() for exchange in server.exchanges))
    assert server.paid.total() < 100


@needs_ray
def test_a_worker_without_a_key_says_so(ray_data, server, store):
    """A key is not pickled. A worker without one ends the job with a sentence, before it sends anything."""
    llm = rxllm.Anthropic("m", api_key="sk-of-the-driver", base_url=server.url)
    ds = ray_data.from_items(rows(4))
    with pytest.raises(Exception, match=r"pickling leaves out its api_key\. Set the environment variable"):
        map_prompts(ds, llm, store, num_cpus=0.5).take_all()
    assert [] == server.exchanges


@needs_ray
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ds": [1]}, "map_prompts takes a dataset"),
        ({"llm": "gpt"}, "A job takes a model"),
        ({"store": "answers.db"}, "cached takes a Store"),
        ({"store": rxllm.MemoryStore()}, "cannot share a MemoryStore"),
        ({"concurrency": 0}, "max_concurrency"),
        ({"prefix": 1}, "prefix must be text"),
        ({"llm": rxllm.limited(rxllm.Embedded(), rxllm.Limiter(concurrency=1))}, "A Limiter cannot be pickled"),
    ],
)
def test_wrong_arguments_are_refused_at_once(ray_data, store, change, message):
    """Each has a sentence, and no worker starts."""
    arguments = {"ds": ray_data.range(1), "llm": rxllm.Embedded(), "store": store, **change}
    with pytest.raises(MisuseError, match=message):
        map_prompts(**arguments)


def test_ray_is_named_where_it_is_missing(monkeypatch, store):
    """The sentence has the extra."""
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MisuseError, match=r"pip install 'rxllm\[ray\]'"):
        map_prompts([], rxllm.Embedded(), store)
