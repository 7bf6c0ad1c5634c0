"""Alarms: one timer of asyncio for all alarms of one length."""

import asyncio
import threading

import rxllm
from rxllm.runtime.alarms import LENGTHS, Alarm, _Alarms
from rxllm.testing import on_virtual_time


@on_virtual_time
async def test_alarms_of_one_length_ring_at_their_times():
    """Also an alarm that another one sets, and the alarms after one that was disposed."""
    loop, scheduler, rung = asyncio.get_running_loop(), rxllm.scheduler(), []

    def ring(name):
        rung.append((name, loop.time()))
        if name == "a":
            Alarm(scheduler, 5.0, lambda: ring("of a"))

    Alarm(scheduler, 5.0, lambda: ring("a"))
    await asyncio.sleep(1)
    disposed = Alarm(scheduler, 5.0, lambda: ring("disposed"))
    await asyncio.sleep(1)
    Alarm(scheduler, 5.0, lambda: ring("b"))
    Alarm(scheduler, 1.0, lambda: ring("short"))
    disposed.dispose()
    await asyncio.sleep(20)
    assert [("short", 3), ("a", 5), ("b", 7), ("of a", 10)] == rung
    assert not [length for loop_of, length in LENGTHS if loop_of is loop]


@on_virtual_time
async def test_alarm_that_raises_is_reported_and_the_others_ring():
    """The exception goes to the loop's exception handler."""
    loop, scheduler, rung, reported = asyncio.get_running_loop(), rxllm.scheduler(), [], []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    Alarm(scheduler, 5.0, lambda: 1 // 0)
    Alarm(scheduler, 5.0, lambda: rung.append("b"))
    await asyncio.sleep(6)
    assert (["b"], [ZeroDivisionError]) == (rung, [type(error) for error in reported])


async def test_alarm_of_another_thread_rings_on_the_loop():
    """It is set, and may be disposed, by any thread."""
    scheduler, rung = rxllm.scheduler(), asyncio.Event()
    threads = []

    def ring():
        threads.append(threading.current_thread())
        rung.set()

    def set_alarms():
        Alarm(scheduler, 0.001, lambda: threads.append("disposed")).dispose()
        Alarm(scheduler, 0.001, ring)

    speaker = threading.Thread(target=set_alarms)
    speaker.start()
    speaker.join()  # meanwhile the loop cannot ring the first alarm before it is disposed
    await asyncio.wait_for(rung.wait(), 60)
    assert [threading.current_thread()] == threads


async def test_alarms_of_a_closed_loop_are_dropped():
    """The next alarm, on any loop, drops them."""

    async def main():
        Alarm(rxllm.scheduler(), 7.0, lambda: None)

    await asyncio.to_thread(asyncio.run, main())
    alarm = Alarm(rxllm.scheduler(), 8.0, lambda: None)
    assert [8.0] == [length for _, length in LENGTHS if length in (7.0, 8.0)]
    alarm.dispose()


@on_virtual_time
async def test_alarm_that_another_thread_disposes_while_it_is_set_does_not_ring(monkeypatch):
    """The thread has looked for it among the set ones before it was there."""
    rung, add = [], _Alarms.add

    def add_too_late(alarms, alarm):
        alarm.dispose()
        add(alarms, alarm)

    monkeypatch.setattr(_Alarms, "add", add_too_late)
    Alarm(rxllm.scheduler(), 5.0, lambda: rung.append("disposed"))
    await asyncio.sleep(10)
    assert [] == rung
