"""What a factor does, averaged over the others, and whether that hangs on another: main effects and interactions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lbt_sim.stats import contrast, holm, paired_p
from lbt_sim.study.analysis import FactorEffect
from lbt_sim.study.pairing import outcomes_of, paired
from lbt_sim.study.results import Condition, StudyResults
from lbt_sim.study.scores import ConditionScores

__all__ = ["factor_effects"]

ARM = "arm"
"""What arms are called as a factor."""
_MOST = 100
"""So many effects are told; of more, interactions are left out."""

Cell = tuple[str, ...]
"""A level of each factor."""


@dataclass(frozen=True)
class _Effect:
    """Which cells go into an effect, each with its weight."""

    factors: tuple[str, ...]
    level: tuple[str, ...]
    against: tuple[str, ...]
    weights: Mapping[Cell, float]


def factor_effects(
    results: StudyResults, scores: Mapping[str, ConditionScores], rounds: int
) -> tuple[FactorEffect, ...]:
    """Every factor's levels against its first one, and every two factors' interaction.

    Each is a mean over those combinations of the other factors that have all its conditions, with equal weights.

    Args:
        results: The study.
        scores: Each condition's.
        rounds: The most rounds that any run has.

    Returns:
        None at all where fewer than two factors have more than one level: then comparisons say it.
    """
    coordinates = {one.name: _coordinates(one) for one in results.conditions}
    levels: dict[str, dict[str, None]] = {}
    for of_one in coordinates.values():
        for factor, level in of_one.items():
            levels.setdefault(factor, {})[level] = None
    varied = {factor: list(names) for factor, names in levels.items() if len(names) > 1}
    if len(varied) < 2:
        return ()
    cells = {tuple(of_one.get(factor, "") for factor in varied): name for name, of_one in coordinates.items()}
    mains = [one for number in range(len(varied)) for one in _effects(cells, varied, (number,))]
    crossed = [one for two in itertools.combinations(range(len(varied)), 2) for one in _effects(cells, varied, two)]
    wanted = mains + (crossed if len(mains) + len(crossed) <= _MOST else [])
    found = [_estimated(results, scores, rounds, one, cells) for one in wanted]
    corrected = holm([one.p for one in found])
    return tuple(replace(one, p_holm=p) for one, p in zip(found, corrected, strict=True))


def _coordinates(condition: Condition) -> dict[str, str]:
    return {**({ARM: condition.arm} if condition.arm else {}), **condition.levels}


def _effects(
    cells: Mapping[Cell, str], varied: Mapping[str, Sequence[str]], places: tuple[int, ...]
) -> Iterator[_Effect]:
    """The effects of the factors at these places: each of their levels but the first, where it can be had."""
    names = list(varied)
    against = tuple(varied[names[place]][0] for place in places)
    for level in itertools.product(*(varied[names[place]][1:] for place in places)):
        weights: dict[Cell, float] = {}
        whole = 0
        for cell in cells:
            if any(cell[place] != one for place, one in zip(places, level, strict=True)):
                continue
            # The corners: each factor at its level or at its first one, with the sign of how many are at the first.
            corners = {_at(cell, places, chosen): sign for chosen, sign in _corners(level, against)}
            if corners.keys() <= cells.keys():
                weights |= corners
                whole += 1
        if whole:
            shared = {cell: weight / whole for cell, weight in weights.items()}
            yield _Effect(tuple(names[place] for place in places), level, against, shared)


def _corners(level: Cell, against: Cell) -> Iterator[tuple[Cell, float]]:
    for picks in itertools.product((False, True), repeat=len(level)):
        yield tuple(b if pick else a for a, b, pick in zip(level, against, picks, strict=True)), (-1.0) ** sum(picks)


def _at(cell: Cell, places: Sequence[int], chosen: Cell) -> Cell:
    changed = dict(zip(places, chosen, strict=True))
    return tuple(changed.get(place, one) for place, one in enumerate(cell))


def _estimated(
    results: StudyResults,
    scores: Mapping[str, ConditionScores],
    rounds: int,
    effect: _Effect,
    cells: Mapping[Cell, str],
) -> FactorEffect:
    conditions = [scores[cells[cell]] for cell in effect.weights]
    seeds = [seed for seed in conditions[0].runs if all(seed in one.runs for one in conditions)]
    told = FactorEffect(
        effect.factors,
        effect.level,
        effect.against,
        None,
        None,
        None,
        len(conditions),
        len(seeds),
        outcomes_of(conditions, seeds, results.outcome),
    )
    if len(seeds) < 2:
        return told
    parts, crossed = paired(conditions, seeds, results.outcome, rounds)
    found = contrast(parts, crossed, list(effect.weights.values()))
    return replace(told, difference=found.estimate, p=paired_p(found))
