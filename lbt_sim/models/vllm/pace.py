"""How many calls are in flight at a server: led by what the server says of itself, not by a guess.

A server computes many requests at once and queues the rest. Too few in flight leave it idle; too many wait in its
queue, where they can no longer be called back, and crowd prefixes out of its cache. So a few calls are to wait there,
never many: the limit grows while the server takes all that it is given, and shrinks to what it runs when it does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lbt_sim.models.vllm.metrics import Snapshot

__all__ = ["FIRST", "LEAST", "MOST", "Pace"]

FIRST = 64
"""Calls in flight until the server has said anything."""
LEAST = 4
MOST = 4096
_CACHE_FULL = 0.95
"""Share of the key-value cache above which more calls would only push each other out."""


@dataclass(slots=True)
class Pace:
    """The limit of calls in flight at one server.

    Attributes:
        limit: Calls in flight at most.
        most: A cap that the scenario sets.
        highest: The highest limit that was used.
    """

    limit: int = FIRST
    most: int = MOST
    highest: int = 0
    _pushed_back: int = 0
    _preempted: float = 0.0
    _rest: int = 0
    _first: int = field(init=False)

    def __post_init__(self) -> None:
        self.limit = self.highest = self._first = min(self.limit, self.most)

    def look(self, now: Snapshot, *, wanted: bool, pushed_back: int) -> int:
        """The limit from now on.

        Args:
            now: What the server says.
            wanted: Whether calls of ours wait for room.
            pushed_back: How often it has sent a call back so far (429, 503).
        """
        if now.running is None and now.waiting is None:
            return self._blind(wanted=wanted, pushed_back=pushed_back)
        preempted = now.preempted or 0.0
        crowded = preempted > self._preempted or (now.cache_use or 0.0) > _CACHE_FULL
        refused = pushed_back > self._pushed_back
        self._preempted, self._pushed_back = preempted, pushed_back
        running, waiting = int(now.running or 0), int(now.waiting or 0)
        spare = max(LEAST, running // 4)
        if refused:
            limit, self._rest = min(self.limit, max(running, self.limit // 2)), 4
        elif crowded and waiting:
            limit, self._rest = min(self.limit, running + LEAST), 4
        elif waiting > 2 * spare:
            limit = min(self.limit, running + spare)
        elif self._rest:
            limit, self._rest = self.limit, self._rest - 1
        elif wanted and waiting <= spare:
            limit = 2 * self.limit if not waiting else self.limit + spare
        else:
            limit = self.limit
        self.limit = max(min(LEAST, self.most), min(limit, self.most))
        self.highest = max(self.highest, self.limit)
        return self.limit

    def _blind(self, *, wanted: bool, pushed_back: int) -> int:
        """The limit where the server tells no figures: half when it sends calls back, then slowly up to what it was."""
        if pushed_back > self._pushed_back:
            self._pushed_back, self._rest = pushed_back, 4
            self.limit = max(min(LEAST, self.most), self.limit // 2)
        elif self._rest:
            self._rest -= 1
        elif wanted and self.limit < self._first:
            self.limit = min(self._first, self.limit + LEAST)
        return self.limit
