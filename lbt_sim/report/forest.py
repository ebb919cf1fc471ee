"""Forests: a row for each comparison, or each effect of a factor, its interval drawn on one common axis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from lbt_sim.stats import Estimate
from lbt_sim.study.analysis import Comparison, FactorEffect
from lbt_sim.study.words import readable

__all__ = ["Axis", "EffectRow", "Forest", "ForestRow", "Marks", "effect_forest", "forest"]

_EDGE = 3.0
"""Percent of the width that stay free on either side."""
_DOTTED, _DOTS = 200, 4_000
"""So many seeds of one comparison are drawn, and of all together; of more, none are."""
_REACH = 1.5
"""Dots widen the axis by at most so many times what the intervals take, on either side."""
_BIN, _STACK, _STEP = 1.3, 21.0, 4.4
"""Dots closer than so many percent of the width are stacked, at most so many pixels high and so far apart."""


@dataclass(frozen=True, slots=True)
class Axis:
    """The common axis, in points; places are percent of the width.

    Attributes:
        zero: Where no difference stands.
        ticks: (place, label).
        limits: Where the study's smallest effect stands, to either side of no difference; None: it names none.
        height: Of a row, in pixels.
        dotted: Whether any row has dots.
    """

    zero: float
    ticks: tuple[tuple[float, str], ...]
    limits: tuple[float, float] | None
    height: int
    dotted: bool


@dataclass(frozen=True, slots=True)
class Marks:
    """Where a row's marks stand, in percent of the width; None: not drawn.

    Attributes:
        value: Its difference.
        low: The interval's lower end.
        high: Its upper end.
        band: Left edge and width of what the study could hardly have found.
        dots: (place, pixels above the lowest) of each seed's difference.
        beyond: How many seeds lie outside the axis, left and right.
    """

    value: float | None
    low: float | None
    high: float | None
    band: tuple[float, float] | None = None
    dots: tuple[tuple[float, float], ...] = ()
    beyond: tuple[int, int] = (0, 0)

    @property
    def far(self) -> bool:
        """Whether any seed lies outside the axis."""
        return any(self.beyond)


@dataclass(frozen=True, slots=True)
class ForestRow:
    """A comparison, its marks, and its standardised difference in words."""

    comparison: Comparison
    marks: Marks
    effect: str

    @property
    def undrawn(self) -> bool:
        """Whether there are too many seeds for dots."""
        return bool(self.comparison.per_seed) and not self.marks.dots and not self.marks.far


@dataclass(frozen=True, slots=True)
class EffectRow:
    """An effect of a factor, or of two.

    Attributes:
        effect: The effect.
        marks: Its marks.
        name: The factor, or the two.
        levels: What is compared with what.
        shown: Whether Holm's p is below 0.05 and the interval excludes no difference.
    """

    effect: FactorEffect
    marks: Marks
    name: str
    levels: str
    shown: bool


Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Forest(Generic[Row]):
    """Rows in the analysis' order, on their axis."""

    rows: tuple[Row, ...]
    axis: Axis


def forest(comparisons: Sequence[Comparison], smallest: float | None = None) -> Forest[ForestRow] | None:
    """Places all comparisons on one axis; None where there are none.

    Args:
        comparisons: What was compared.
        smallest: The study's smallest effect, as a share.
    """
    if not comparisons:
        return None
    seeds = [[100 * (a - b) for _, a, b in one.per_seed] for one in comparisons]
    if sum(map(len, seeds)) > _DOTS:
        seeds = [[] for _ in seeds]
    dots = [each if len(each) <= _DOTTED else [] for each in seeds]
    scale = _scale([one.difference for one in comparisons], dots, smallest)
    rows = []
    for one, each in zip(comparisons, dots, strict=True):
        least = one.detectable
        band = None
        if least is not None:
            left = scale.place(-100 * least)
            band = (left, round(scale.place(100 * least) - left, 2))
        rows.append(ForestRow(one, scale.marks(one.difference, each, band), _effect(one)))
    highest = max((above for row in rows for _, above in row.marks.dots), default=None)
    return Forest(tuple(rows), scale.axis(smallest, highest))


def effect_forest(effects: Sequence[FactorEffect], smallest: float | None = None) -> Forest[EffectRow] | None:
    """The same of effects of factors, without dots."""
    if not effects:
        return None
    scale = _scale([one.difference for one in effects], [], smallest)
    rows = tuple(
        EffectRow(one, scale.marks(one.difference, ()), " × ".join(one.factors), _levels(one), _is_shown(one))
        for one in effects
    )
    return Forest(rows, scale.axis(smallest))


def _levels(one: FactorEffect) -> str:
    level, against = one.level[0], one.against[0]
    if len(one.factors) == 1:
        return f"{level} against {against}"
    return f"{level} against {against}, with {one.level[1]} rather than {one.against[1]}"


def _is_shown(one: FactorEffect) -> bool:
    found = one.difference
    if found is None or found.low is None or found.high is None or one.p_holm is None:
        return False
    return one.p_holm < 0.05 and not found.low <= 0 <= found.high


@dataclass(frozen=True, slots=True)
class _Scale:
    """From points to places."""

    low: float
    high: float
    step: float

    def place(self, value: float) -> float:
        inside = min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)
        return round(_EDGE + (100 - 2 * _EDGE) * inside, 2)

    def marks(self, found: Estimate | None, seeds: Sequence[float], band: tuple[float, float] | None = None) -> Marks:
        ends = (None, None, None) if found is None else (found.value, found.low, found.high)
        value, low, high = (None if end is None else self.place(100 * end) for end in ends)
        inside = [value for value in seeds if self.low <= value <= self.high]
        beyond = (sum(value < self.low for value in seeds), sum(value > self.high for value in seeds))
        return Marks(value, low, high, band, _stacked(map(self.place, inside)), beyond)

    def axis(self, smallest: float | None, highest: float | None = None) -> Axis:
        """The axis of rows whose dots reach so many pixels high; None: they have none."""
        ticks = [self.low + self.step * number for number in range(round((self.high - self.low) / self.step) + 1)]
        limits = None if smallest is None else (self.place(-100 * smallest), self.place(100 * smallest))
        labels = tuple((self.place(tick), _label(tick, self.step)) for tick in ticks)
        height = 34 if highest is None else 30 + round(highest)
        return Axis(self.place(0.0), labels, limits, height, dotted=highest is not None)


def _scale(estimates: Iterable[Estimate | None], dots: Sequence[Sequence[float]], smallest: float | None) -> _Scale:
    """Wide enough for the intervals and the smallest effect, and for the dots unless some lie far out."""
    ends = (end for one in estimates if one is not None for end in (one.value, one.low, one.high))
    values = [0.0, *(100 * end for end in ends if end is not None)]
    if smallest is not None:
        values += [-100 * smallest, 100 * smallest]
    low, high = min(values), max(values)
    if high - low < 1.0:
        low, high = low - 0.5, high + 0.5
    reach = _REACH * (high - low)
    seeds = [value for each in dots for value in each]
    low, high = max(min([low, *seeds]), low - reach), min(max([high, *seeds]), high + reach)
    step = _step(high - low)
    return _Scale(step * math.floor(low / step), step * math.ceil(high / step), step)


def _stacked(places: Iterable[float]) -> tuple[tuple[float, float], ...]:
    """Each dot at its place; those that would hide each other stand over one another."""
    bins: dict[int, list[float]] = {}
    for place in sorted(places):
        bins.setdefault(round(place / _BIN), []).append(place)
    dots = []
    for near in bins.values():
        apart = min(_STEP, _STACK / max(1, len(near) - 1))
        dots += [(place, round(apart * at, 1)) for at, place in enumerate(near)]
    return tuple(dots)


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
