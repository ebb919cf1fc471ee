"""Conditions' scores side by side: the same seeds, and where the problems are the same, the same answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from lbt_sim.stats import Scores
from lbt_sim.study.scores import ConditionScores, same_problems

__all__ = ["outcomes_of", "paired"]


def paired(
    conditions: Sequence[ConditionScores], seeds: Sequence[int], outcome: str, rounds: int
) -> tuple[list[Scores], bool]:
    """The scores of some conditions under the seeds that all have, and whether all seeds have the same problems.

    An answer that one of them lacks is left out of all, wherever they were asked the same.

    Args:
        conditions: Which.
        seeds: Seeds that each has.
        outcome: `last` or `area`.
        rounds: As in `ConditionScores.outcome`.
    """
    first = conditions[0]
    alike = np.array([len({one.runs[seed].problems for one in conditions}) == 1 for seed in seeds], dtype=bool)
    parts = [one.outcome(outcome, seeds, rounds) for one in conditions]
    parts = [part.without(*parts[:place], *parts[place + 1 :], seeds=alike) for place, part in enumerate(parts)]
    return parts, bool(alike.all()) and same_problems(first.runs[seed] for seed in seeds)


def outcomes_of(conditions: Sequence[ConditionScores], seeds: Sequence[int], outcome: str) -> dict[str, int]:
    """Outcome name -> how many of the answers that are compared had it, of all conditions together."""
    total: Counter[str] = Counter()
    for one in conditions:
        total.update(one.compared(outcome, seeds))
    return dict(total)
