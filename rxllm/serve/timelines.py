"""The timelines of the latest answers, for the page that shows them."""

from __future__ import annotations

from collections import OrderedDict

from ..pictures.timeline import Timeline
from .logs import Key

__all__ = ["Timelines"]

_KEPT = 100  # timelines
_WIDTH = 670  # pixels


class Timelines:
    """The timelines of the latest answers of this process."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Key, int], Timeline] = OrderedDict()

    def add(self, key: Key, epoch: int, timeline: Timeline) -> None:
        """Keep the timeline of an answer."""
        self._kept[key, epoch] = timeline
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    def drawn(self, key: Key, epoch: int) -> dict[str, str] | None:
        """Return the picture and its description; None if this process no longer has the timeline."""
        timeline = self._kept.get((key, epoch))
        return None if timeline is None else {"svg": timeline.svg(_WIDTH), "description": timeline.description}
