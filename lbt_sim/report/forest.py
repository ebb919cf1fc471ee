"""The forest of a study's comparisons: a row for each, its interval drawn on one common axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lbt_sim.report.text import readable
from lbt_sim.study.analysis import Comparison

__all__ = ["Forest", "ForestRow", "forest"]

_EDGE = 3.0
"""Percent of the width that stay free on either side."""


@dataclass(frozen=True, slots=True)
class ForestRow:
    """A comparison and where its marks stand, in percent of the width; None: not drawn.

    Attributes:
        comparison: The comparison.
        value: Its difference.
        low: The interval's lower end.
        high: Its upper end.
        band: Left edge and width of what the study could hardly have found.
        effect: The standardised difference, in words.
    """

    comparison: Comparison
    value: float | None
    low: float | None
    high: float | None
    band: tuple[float, float] | None
    effect: str


@dataclass(frozen=True, slots=True)
class Forest:
    """The rows, and the axis in points.

    Attributes:
        rows: In the study's order.
        zero: Where no difference stands.
        ticks: (place, label).
    """

    rows: tuple[ForestRow, ...]
    zero: float
    ticks: tuple[tuple[float, str], ...]


def forest(comparisons: Sequence[Comparison]) -> Forest | None:
    """Places all comparisons on one axis; None where there are none."""
    if not comparisons:
        return None
    values = [0.0]
    for one in comparisons:
        if one.difference is not None:
            drawn = (one.difference.value, one.difference.low, one.difference.high)
            values += [100 * value for value in drawn if value is not None]
    low, high = min(values), max(values)
    if high - low < 1.0:
        low, high = low - 0.5, high + 0.5
    step = _step(high - low)
    low, high = step * math.floor(low / step), step * math.ceil(high / step)

    def place(value: float) -> float:
        inside = min(max((value - low) / (high - low), 0.0), 1.0)
        return round(_EDGE + (100 - 2 * _EDGE) * inside, 2)

    def at(value: float | None) -> float | None:
        return None if value is None else place(100 * value)

    rows = []
    for one in comparisons:
        found, least = one.difference, one.detectable
        band = None if least is None else (place(-100 * least), round(place(100 * least) - place(-100 * least), 2))
        ends: list[float | None] = [None] * 3 if found is None else [found.value, found.low, found.high]
        rows.append(ForestRow(one, at(ends[0]), at(ends[1]), at(ends[2]), band, _effect(one)))
    ticks = [low + step * number for number in range(round((high - low) / step) + 1)]
    return Forest(tuple(rows), place(0.0), tuple((place(tick), _label(tick, step)) for tick in ticks))


def _step(span: float) -> float:
    """A round step that makes three to six parts of the span."""
    rough = span / 4
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)


def _label(tick: float, step: float) -> str:
    digits = next(digits for digits in range(4) if abs(round(step, digits) - step) < step / 1000 or digits == 3)
    return f"{tick:+.{digits}f}".replace("-", "−") if abs(tick) > step / 100 else "0"


def _effect(one: Comparison) -> str:
    if one.effect is None:
        return "–"
    found = one.effect
    interval = "" if found.low is None or found.high is None else f" ({readable(found.low)} to {readable(found.high)})"
    return readable(found.value) + interval
