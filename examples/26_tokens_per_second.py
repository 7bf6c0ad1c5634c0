"""Tokens per second, as a stream: the answer in windows of time, and how many chunks came in each.

Windows are counted on the loop of `rxllm.scheduler()`: inside asyncio the running one, in a script rxllm's own.
"""

from reactivex import Observable
from reactivex import operators as ops

import rxllm
from rxllm.testing import MarbleLLM

WINDOW = 0.2  # seconds


def speed(window: Observable[str]) -> Observable[str]:
    return window.pipe(ops.count(), ops.map(lambda count: f"{count / WINDOW:.0f} tokens a second"))


def tokens_per_second() -> Observable[str]:
    bursts = MarbleLLM("---------(a,b,c)-------------(d,e)---------------(f,g,h,i,|)", timespan=0.01)
    return bursts("The alphabet, please.").pipe(rxllm.text(), ops.window_with_time(WINDOW), ops.flat_map(speed))


if __name__ == "__main__":
    tokens_per_second().subscribe(print, scheduler=rxllm.scheduler())
