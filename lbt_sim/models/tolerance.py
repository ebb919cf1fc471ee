"""How many calls of a step may give up before the run stops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from lbt_sim.models.base import CallPath

__all__ = ["LEAST", "Tolerance"]

LEAST = 2
"""Failures of a step below which no share of it stops a run: one call that gave up is not yet a broken server."""


class Tolerance:
    """Counts the calls of each step (of a round) and those that gave up.

    Too many are at least `LEAST` failures that are more than `share` of the step's calls. Its calls are all that have
    been asked for so far, answered or not: a step's batches are in flight together, and the first of them to end says
    little about the whole.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._asked: Counter[tuple[int, str]] = Counter()
        self._failed: Counter[tuple[int, str]] = Counter()

    def ask(self, paths: Iterable[CallPath]) -> None:
        """Takes account of calls that are asked for."""
        self._asked.update(path[:2] for path in paths)

    def fail(self, path: CallPath) -> None:
        """Takes account of a call that gave up."""
        self._failed[path[:2]] += 1

    def exceeded(self, path: CallPath, *, alone: bool = False) -> tuple[int, int] | None:
        """(failures, calls) of the path's step where these are too many, else None.

        Args:
            path: A call that gave up.
            alone: Whether it stands for itself, as if it were all of its step and one failure enough.
        """
        failed, asked = (1, 1) if alone else (self._failed[path[:2]], self._asked[path[:2]])
        return (failed, asked) if (alone or failed >= LEAST) and failed > self._share * asked else None
