"""`RedisLog`: the answers of a relay in Redis, for the processes of many machines.

A conversation has a stream of entries, whose ids are the ids of the log, the lease of its producer, and a sign that it
is being read. Scripts change them, so that each change is atomic and may be sent twice. A channel tells each process
that has readers of the conversation of each change.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from ..misuse import MisuseError, shown
from ..runtime.forks import reset_in_child
from .logs import END, PAGE, Ending, Entry, Heard, Key, Listeners, Log, LogLost, Position, next_epoch

try:
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
except ImportError:
    raise ImportError("RedisLog needs redis: pip install 'rxllm[redis]'.") from None

__all__ = ["RedisLog"]

T = TypeVar("T")

_LIVE = 3600  # seconds after which Redis forgets an answer whose process has died
_TIMEOUT = 5.0  # seconds for one answer of Redis
_CONNECTIONS = 32
_PAUSE = 0.5  # seconds before the next attempt to listen

# Of each script, KEYS are the stream, the lease and the sign of readers. `last` gives the last id as two numbers.
_LAST = f"""
local END = '{END}'
local function last()
    local found = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
    if not found then return nil, nil end
    return string.match(found[1], '^(%d+)%-(%d+)$')
end
local epoch, seq = last()
"""
# ARGV: the new epoch, the lease in ms, the seconds of life in ms, the channel, the time as read in ms
_BEGIN = """
local latest = tonumber(ARGV[1])
if epoch then
    if seq ~= END then
        redis.call('XADD', KEYS[1], epoch .. '-' .. END, 'e', 'abort')
        redis.call('PUBLISH', ARGV[4], epoch)
    end
    if tonumber(epoch) >= latest then latest = tonumber(epoch) + 1 end
end
local id = string.format('%.0f-0', latest)
redis.call('XADD', KEYS[1], id, 'b', '')
redis.call('XTRIM', KEYS[1], 'MINID', id)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
redis.call('SET', KEYS[3], '1', 'PX', ARGV[5])
return string.format('%.0f', latest)
"""
# ARGV: the epoch, the first seq, the channel, the events
_APPEND = """
local first = tonumber(ARGV[2])
if epoch ~= ARGV[1] or seq == END or tonumber(seq) < first - 1 then return 0 end
for i = 4, #ARGV do
    local place = first + i - 4
    if place > tonumber(seq) then
        redis.call('XADD', KEYS[1], string.format('%s-%.0f', epoch, place), 'd', ARGV[i])
    end
end
redis.call('PUBLISH', ARGV[3], '')
return 1
"""
# ARGV: the epoch, the ending, its data, the channel, how long to keep it in ms, whether only without a lease
_END = """
if epoch ~= ARGV[1] or seq == END then return 0 end
if ARGV[6] == '1' and redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('XADD', KEYS[1], epoch .. '-' .. END, 'e', ARGV[2], 'd', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('DEL', KEYS[2])
redis.call('PUBLISH', ARGV[4], epoch)
return 1
"""
# ARGV: the epoch, the lease in ms, the seconds of life in ms
_RENEW = """
if epoch ~= ARGV[1] or seq == END then return 0 end
redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return redis.call('EXISTS', KEYS[3])
"""


class RedisLog(Log):
    """Keeps the answers in Redis 6.2 or later, so that readers may come back to any process.

    Args:
        client: the address of the server, such as ``redis://host:6379/0``, or an asyncio client of the package
            ``redis``, which answers in bytes.
        prefix: the beginning of all keys.
        lease: the seconds after which an answer counts as interrupted if its producer gives no sign of life.
        keep: the seconds for which an answer can be read after its end.

    Raises:
        MisuseError: `client` is neither an address nor a client.
    """

    def __init__(self, client: str | Redis, *, prefix: str = "rxllm", lease: float = 5.0, keep: float = 600.0) -> None:
        if not isinstance(client, (str, Redis)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise MisuseError(f"RedisLog needs an address such as redis://localhost, or a client, not {shown(client)}.")
        self._given = client
        self._prefix = prefix
        self.lease = lease
        self.keep = keep
        reset_in_child(self._reset)

    def _reset(self) -> None:
        """Forget the connections and the task of the parent in a forked child. A client of the program's stays."""
        # The package's own types leave out what its arguments and answers are.
        self._redis: Any = _client(self._given) if isinstance(self._given, str) else self._given
        self._listeners = Listeners()
        self._hearer: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._channels: Any = self._redis.pubsub()
        script: Callable[[str], Any] = self._redis.register_script
        self._begin, self._append = script(_LAST + _BEGIN), script(_LAST + _APPEND)
        self._end_once, self._renew = script(_LAST + _END), script(_LAST + _RENEW)

    def __repr__(self) -> str:
        return f"RedisLog(prefix={self._prefix!r})"

    async def begin(self, key: Key, attended: float) -> int:
        """Begin an answer."""
        times = _ms(self.lease), _ms(_LIVE)
        return int(
            await _reached(self._begin(self._keys(key), [next_epoch(0), *times, self._channel(key), _ms(attended)]))
        )

    async def append(self, key: Key, epoch: int, first: int, events: Sequence[bytes]) -> bool:
        """Add events."""
        arguments = [epoch, first, self._channel(key), *events]
        return bool(await _reached(self._append(self._keys(key), arguments)))

    async def end(self, key: Key, epoch: int, ending: Ending, data: bytes = b"") -> None:
        """End an answer, unless it has ended."""
        await self._end(key, epoch, ending, data, unleased=0)

    async def settle(self, key: Key, epoch: int) -> bool:
        """End the answer as interrupted if its lease has run out."""
        return await self._end(key, epoch, "interrupted", b"", unleased=1)

    async def _end(self, key: Key, epoch: int, ending: Ending, data: bytes, *, unleased: int) -> bool:
        arguments = [epoch, ending, data, self._channel(key), _ms(self.keep), unleased]
        return bool(await _reached(self._end_once(self._keys(key), arguments)))

    async def read(self, key: Key, after: Position) -> Sequence[Entry] | None:
        """Return the entries that follow."""
        stream = self._keys(key)[0]
        found = await _reached(self._redis.xrange(stream, f"({after}", f"{after.epoch}-{END}", PAGE))
        if not found:
            latest = await self.latest(key)
            return None if latest is None or latest.epoch != after.epoch else []
        return [_entry(name, fields) for name, fields in found]

    async def latest(self, key: Key) -> Position | None:
        """Return the id of the last entry."""
        found = await _reached(self._redis.xrevrange(self._keys(key)[0], count=1))
        return Position.parse(found[0][0].decode()) if found else None

    async def attend(self, keys: Collection[Key], seconds: float) -> None:
        """Let the answers count as read."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.set(self._keys(key)[2], 1, px=_ms(seconds))
            await _reached(pipeline.execute())

    async def renew(self, answers: Collection[tuple[Key, int]]) -> Collection[tuple[Key, int]]:
        """Renew the leases. Return the answers that have no reader, and those that have ended."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key, epoch in answers:
                await self._renew(self._keys(key), [epoch, _ms(self.lease), _ms(_LIVE)], pipeline)
            results = await _reached(pipeline.execute())
        return [pair for pair, result in zip(answers, results, strict=True) if not result]

    @asynccontextmanager
    async def listening(self, key: Key, heard: Heard) -> AsyncGenerator[None]:
        """Let a function hear the changes."""
        if self._hearer is None:
            self._hearer = asyncio.create_task(self._hear(), name="rxllm log listener")
        is_first = self._listeners.add(key, heard)
        try:  # a reader may leave while Redis does not answer
            if is_first:
                with suppress(LogLost):
                    await self._channel_command(self._channels.subscribe, self._channel(key))
            yield
        finally:
            if self._listeners.remove(key, heard):
                with suppress(LogLost):
                    await self._channel_command(self._channels.unsubscribe, self._channel(key))

    async def aclose(self) -> None:
        """Close the connections."""
        if self._hearer is not None:
            self._hearer.cancel()
            await asyncio.wait([self._hearer])
            self._hearer = None
        await self._channels.aclose()
        await self._redis.aclose()

    async def _channel_command(self, command: Callable[[str], Awaitable[None]], channel: str) -> None:
        async with self._one_at_a_time:  # else each of two would open the connection, and one of them be lost
            await _reached(command(channel))

    async def _hear(self) -> None:
        """Pass on what the channels say. After a lost connection every listener looks for itself."""
        own = self._prefix + ":"  # always subscribed, so that there is always a connection to read
        while True:
            try:
                await self._channel_command(self._channels.subscribe, own)
                while True:
                    message = await _reached(self._channels.get_message(timeout=None))
                    if message is not None and message["channel"] != own.encode():
                        ended = message["data"] if message["type"] == "message" else b""
                        self._listeners.tell(self._key(message["channel"]), int(ended) if ended else None)
            except LogLost:
                self._listeners.tell_all()
                await asyncio.sleep(_PAUSE)

    def _keys(self, key: Key) -> list[str]:
        # Braces: in a cluster the keys of a conversation are on one node, as a script needs them.
        stream = f"{self._prefix}:{{{quote(key[0], safe='')}/{quote(key[1], safe='')}}}"
        return [stream, stream + ":lease", stream + ":read"]

    def _channel(self, key: Key) -> str:
        return self._keys(key)[0]

    def _key(self, channel: bytes) -> Key:
        owner, _, name = channel.decode().removeprefix(self._prefix + ":{").removesuffix("}").partition("/")
        return unquote(owner), unquote(name)


def _client(address: str) -> Redis:
    connections: Any = BlockingConnectionPool  # a burst of readers must not open a connection each
    timeouts = {"timeout": _TIMEOUT, "socket_timeout": _TIMEOUT, "socket_connect_timeout": _TIMEOUT}
    retry = Retry(NoBackoff(), 1)  # over a new connection; for longer losses the relay is patient
    return Redis.from_pool(connections.from_url(address, max_connections=_CONNECTIONS, retry=retry, **timeouts))


def _entry(id: bytes, fields: dict[bytes, bytes]) -> Entry:
    epoch, _, seq = id.partition(b"-")
    ending: Any = fields[b"e"].decode() if b"e" in fields else None
    return Entry(Position(int(epoch), int(seq)), fields.get(b"d", b""), ending)


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


async def _reached(call: Awaitable[T]) -> T:
    """Return the answer of Redis.

    Raises:
        LogLost: there is none, or it is an error: the server is full, is loading, or has become a replica.
    """
    try:
        return await call
    except (RedisError, OSError) as error:
        raise LogLost(str(error)) from error
