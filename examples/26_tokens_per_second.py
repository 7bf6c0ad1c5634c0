"""Tokens per second, as a stream: an answer in windows of time, here of a virtual event loop."""

from reactivex import Observable
from reactivex import operators as ops

import rxllm
from rxllm.testing import MarbleLLM, on_virtual_time

WINDOW = 0.2  # seconds


def speed(window: Observable[str]) -> Observable[str]:
    return window.pipe(ops.count(), ops.map(lambda count: f"{count / WINDOW:.0f} tokens a second"))


def tokens_per_second() -> Observable[str]:
    bursts = MarbleLLM("---------(a,b,c)-------------(d,e)---------------(f,g,h,i,|)", timespan=0.01)
    return bursts("The alphabet, please.").pipe(rxllm.text(), ops.window_with_time(WINDOW), ops.flat_map(speed))


@on_virtual_time
async def main() -> None:
    async for measured in tokens_per_second().pipe(rxllm.astream()):
        print(measured)


if __name__ == "__main__":
    main()
