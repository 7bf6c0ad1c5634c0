"""Durations as people read them, and the ticks of a time axis."""

from __future__ import annotations

from math import ceil, floor, log10

__all__ = ["seconds", "ticks"]

_MINUTES = (60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)


def seconds(value: float) -> str:
    """Return a duration in its unit, with up to three digits."""
    if value < 0.0005:
        return f"{value * 1e6:.0f} µs" if value > 0 else "0 s"
    if value < 0.9995:
        return f"{_short(value * 1000, 1 if value < 0.00995 else 0)} ms"
    if value < 59.95:
        return f"{_short(value, 2 if value < 9.995 else 1)} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def _short(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") if digits else f"{value:.0f}"


def ticks(span: float, most: int) -> list[tuple[float, str]]:
    """Return at most `most` round times from 0 to the span, each with its label."""
    least = span / max(most - 1, 1)
    power = 10.0 ** floor(log10(least))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= least * 0.999)
    if step > 30:
        step = next((minutes for minutes in _MINUTES if minutes >= least), 86400 * ceil(least / 86400))
    return [(step * number, seconds(step * number)) for number in range(floor(span / step * 1.0001) + 1)]
