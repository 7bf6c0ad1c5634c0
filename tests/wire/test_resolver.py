"""Host names are looked up in threads of rxllm's own."""

import asyncio
import socket
import threading

import pytest

import rxllm
from rxllm.runtime.executor import EXECUTOR, MAX_THREADS
from rxllm.wire.resolver import Resolver


def test_cancelled_look_up_does_not_delay_the_end_of_asyncio_run(monkeypatch):
    """A program that cancels a request ends at once, although a look-up of a host name cannot be stopped."""
    begun, release, ended = threading.Event(), threading.Event(), []

    def hang(*_, **__):
        begun.set()
        ended.append(release.wait(30))
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    llm = rxllm.OpenAI("m", base_url="http://hangs.example/v1")

    async def give_up():
        request = asyncio.ensure_future(llm.ainvoke("hi"))
        await asyncio.to_thread(begun.wait, 5)
        request.cancel()
        await asyncio.wait([request])

    try:
        asyncio.run(give_up())
        assert ended == []
    finally:
        release.set()


async def test_names_of_many_hosts_need_few_threads(monkeypatch):
    """At most `MAX_THREADS` look-ups run at the same time. The others wait for a thread, and all of them run."""
    running, most, full, release = 0, 0, threading.Event(), threading.Event()
    lock = threading.Lock()

    def look_up(host, port, *_, **__):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == MAX_THREADS:
                full.set()
        release.wait(30)
        with lock:
            running -= 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{host}", port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    hosts = [str(number) for number in range(1, 2 * MAX_THREADS)]
    look_ups = [asyncio.ensure_future(Resolver().resolve(host, 80)) for host in hosts]
    assert await asyncio.to_thread(full.wait, 5)
    release.set()
    assert [f"127.0.0.{host}" for host in hosts] == [found[0]["host"] for found in await asyncio.gather(*look_ups)]
    assert most <= MAX_THREADS
    assert len(EXECUTOR._threads) <= MAX_THREADS


async def test_localhost_without_a_network_is_found(monkeypatch):
    """On a machine without a network, localhost has an address only if the look-up requests all addresses."""
    look_up = socket.getaddrinfo

    def without_network(*arguments, flags=0, **keywords):
        if flags & socket.AI_ADDRCONFIG:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(*arguments, flags=flags, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", without_network)
    assert "127.0.0.1" in [found["host"] for found in await Resolver().resolve("localhost", 80)]


async def test_unknown_name_is_a_transport_error(monkeypatch):
    """The message contains the reason."""

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(rxllm.TransportError, match="Name or service not known"):
        await rxllm.OpenAI("m", base_url="http://nobody.example/v1", max_retries=0).ainvoke("hi")


async def test_address_with_a_scope_keeps_it(monkeypatch):
    """A link-local IPv6 address is of no use without the name of its interface."""
    name = socket.if_indextoname(1)
    address = ("fe80::1", 80, 0, 1)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", address)])
    assert f"fe80::1%{name}" == (await Resolver().resolve("router.example", 80))[0]["host"]
