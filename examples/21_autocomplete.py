"""Autocomplete: a pause in typing asks (`debounce`), and who types on no longer waits for that answer (`switch_map`).

The pause is counted on the loop of `rxllm.scheduler()`: inside asyncio the running one, in a script rxllm's own.
"""

import asyncio

import reactivex as rx
from reactivex import operators as ops

import rxllm


class Completer(rxllm.LLM):
    """Thinks the longer, the less it is told."""

    async def complete(self, request: rxllm.Request) -> str:
        """The first word that fits."""
        await asyncio.sleep(1 / len(request.text) ** 2)
        return next(word for word in ("sand", "seagull", "seashell") if word.startswith(request.text))


def autocomplete() -> rx.Observable[str]:
    keys = rx.from_marbles("s--------------------e-a-s-h|", timespan=0.02)
    asked = keys.pipe(ops.scan(lambda text, key: text + key), ops.debounce(0.15), ops.do_action(print))
    return asked.pipe(ops.switch_map(Completer()), ops.map(lambda chunk: f"→ {chunk}"))


if __name__ == "__main__":
    autocomplete().subscribe(print, scheduler=rxllm.scheduler())
