"""Means and paired differences of scores over seeds and problems, with intervals that count both.

A run is a seed, and what it is examined on are problems: both are drawn, and another draw of either would have given
another figure. So the interval comes from resampling both. Where every seed is examined on the same problems (crossed),
resampling both at once would count the noise of single answers three times and make intervals too wide (Owen, The
pigeonhole bootstrap, Annals of Applied Statistics 1 (2007), 386-411). Here it is counted once: seeds carry it, and the
deviations of the problems are shrunk by what of their variance single answers explain (by the two-way mean squares).
Where each seed has problems of its own, seeds alone are resampled: they carry everything.

Standard errors are the resamples', corrected for the few units that they are drawn from; the interval's ends lie
Student's t quantiles away, with Satterthwaite's degrees of freedom. Resamples are seeded: the same answers, the same
interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lbt_sim.stats.estimate import Estimate
from lbt_sim.stats.scores import wilson_interval

__all__ = ["Contrast", "Scores", "contrast", "per_seed", "student_t"]

Array = NDArray[np.float64]

DRAWS = 2_000
CHUNK = 250
"""Resamples that are in memory at a time, for each seed."""

LINEAR = 200
"""With more seeds ratios (F1, or accuracy where answers are missing) are linearised in resamples of the problems."""

TIE = 1e-6

ROUNDING = 1e-12
"""A spread that is rounding alone is none."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The answers of one condition: a score is sum(hits) / sum(base) over problems, then the mean over rounds.

    For accuracy a right answer has hits 1 and base 1, any other that came back 0 and 1. For F1 a hit has 2 and 2, an
    error 0 and 1, a true negative 0 and 0. What failed, or is not there, has 0 and 0.

    Attributes:
        hits: Rounds x seeds x problems.
        base: The same.
        answered: Whether an answer came back, the same shape.
        strata: Each problem's stratum, from 0, where how many there are of each is no accident (see `strata_of`), so
            that another draw of problems would have had as many.
    """

    hits: Array
    base: Array
    answered: NDArray[np.bool_]
    strata: NDArray[np.intp] | None = None

    def seeds(self, chosen: NDArray[np.intp] | NDArray[np.bool_]) -> Scores:
        """Of some of the seeds."""
        return Scores(self.hits[:, chosen], self.base[:, chosen], self.answered[:, chosen], self.strata)

    def without(self, *others: Scores, seeds: NDArray[np.bool_] | None = None) -> Scores:
        """Without the answers that any other lacks in a round that it has; all of them if it has other rounds.

        Args:
            others: Conditions with the same seeds.
            seeds: Whether the others were asked the same, for each seed; else its answers stay as they are.
        """
        kept = np.ones_like(self.answered)
        for other in others:
            if self.hits.shape == other.hits.shape:
                kept &= other.answered | ~other.answered.any(axis=2, keepdims=True)
        if seeds is not None:
            kept |= ~seeds[None, :, None]
        return Scores(self.hits * kept, self.base * kept, self.answered & kept, self.strata)


@dataclass(frozen=True, slots=True)
class _Part:
    """A condition's scores, and with which weight they go into a contrast."""

    weight: float
    scores: Scores


@dataclass(frozen=True, slots=True)
class Contrast:
    """A mean over seeds with its interval, and what the interval was made of.

    Attributes:
        estimate: The figure; None where no seed has it.
        per_seed: What it is the mean of; nan where a seed lacks it.
        error: Its standard error; None where there is nothing to vary.
        df: Degrees of freedom of the standard error.
        flips: Each seed's share in the figure, ties broken. Under the null that the figure is 0, each could have had
            the other sign: see `paired_p`.
        by_problem: Whether the standard error counts which problems were used, beyond the noise of answers.
    """

    estimate: Estimate | None
    per_seed: Array
    error: float | None = None
    df: float | None = None
    flips: Array | None = None
    by_problem: bool = False


def student_t(df: float, level: float = 0.95) -> float:
    """How many standard errors an interval reaches to each side."""
    from scipy import stats

    return float(stats.t.ppf(0.5 + level / 2, df))


def strata_of(positive: NDArray[np.bool_]) -> NDArray[np.intp] | None:
    """The strata of problems with labels: positive and negative, where they are balanced as well as can be.

    Then that is by design, or might as well be: F1 hangs on the share of positives, and with that drawn anew in each
    resample its interval would count a chance that there was not.

    Args:
        positive: Of each problem.

    Returns:
        None where they are not balanced, or too few.
    """
    count, positives = len(positive), int(positive.sum())
    return positive.astype(np.intp) if abs(2 * positives - count) <= 1 and count > 3 else None


def per_seed(scores: Scores) -> Array:
    """Each seed's score; nan where it is undefined in every round."""
    return _over_rounds(_ratio(scores.hits.sum(axis=2), scores.base.sum(axis=2)))


def contrast(parts: Sequence[Scores], crossed: bool, weights: Sequence[float] | None = None) -> Contrast:
    """A weighted sum of conditions' mean scores, paired by seed: of one its mean, of two the first minus the second.

    Args:
        parts: Conditions, with the same seeds in the same order, and the same problems where `crossed`.
        crossed: Whether all seeds have the same problems.
        weights: One for each part; without them 1, or 1 and −1.

    Raises:
        ValueError: There is not one weight for each part.
    """
    given = [_Part(*one) for one in zip((1.0, -1.0)[: len(parts)] if weights is None else weights, parts, strict=True)]
    return _contrast(given, crossed)


def _contrast(parts: Sequence[_Part], crossed: bool) -> Contrast:
    values = np.sum([part.weight * per_seed(part.scores) for part in parts], axis=0)
    there = np.isfinite(values)
    if not there.any():
        return Contrast(None, values)
    parts = [_Part(part.weight, part.scores.seeds(there)) for part in parts]
    seeds, problems = parts[0].scores.hits.shape[1:]
    mean = float(values[there].mean())
    if seeds == 1:
        estimate = _one_run(parts, mean)
        return Contrast(estimate, values)
    spread = _spread_of(parts, values[there], crossed and problems > 1)
    if spread.error == 0:
        return Contrast(_constant(parts, mean, crossed), values, flips=spread.flips)
    reach = spread.error * student_t(spread.df)
    method = f"{spread.how}, Student's t with {spread.df:.0f} degrees of freedom"
    estimate = Estimate(mean, *_within(parts, mean, reach), method, seeds, problems)
    return Contrast(estimate, values, spread.error, spread.df, spread.flips, spread.by_problem)


def _within(parts: Sequence[_Part], value: float, reach: float) -> tuple[float, float]:
    """An interval's ends, no further than scores from 0 to 1 allow."""
    least, most = (sum(part.weight for part in parts if part.weight * sign > 0) for sign in (-1, 1))
    return max(least, value - reach), min(most, value + reach)


def _ratio(hits: Array, base: Array) -> Array:
    out: Array = np.full(np.broadcast_shapes(hits.shape, base.shape), np.nan)
    np.divide(hits, base, out=out, where=base > 0)
    return out


def _over_rounds(scores: Array) -> Array:
    # The mean over the first axis of what is defined; numpy's nanmean would warn where nothing is.
    defined = np.isfinite(scores)
    return _ratio(np.where(defined, scores, 0.0).sum(axis=0), defined.sum(axis=0).astype(float))


def _cells(parts: Sequence[_Part]) -> Array:
    """Seeds x problems: each problem's share in its seed's figure, so that a row's mean is that figure (linearised)."""
    total = np.zeros(parts[0].scores.hits.shape[1:])
    for weight, part in ((one.weight, one.scores) for one in parts):
        base = part.base.sum(axis=2, keepdims=True)
        score = _ratio(part.hits.sum(axis=2, keepdims=True), base)
        each = _ratio(np.full_like(base, part.hits.shape[2]), base)
        total += weight * _over_rounds(score + (part.hits - score * part.base) * each)
    return total


@dataclass(frozen=True, slots=True)
class _Spread:
    error: float
    df: float
    how: str
    flips: Array
    by_problem: bool = False


def _spread_of(parts: Sequence[_Part], values: Array, crossed: bool) -> _Spread:
    seeds, problems = parts[0].scores.hits.shape[1:]
    of_seeds = _spread(values[_picks(seeds)].mean(axis=1), seeds) if np.ptp(values) > ROUNDING else 0.0
    cells = _cells(parts)
    # Differences of counts tie often, and a test of tied sums rejects too rarely: ties are broken by the difference per
    # answer that differs at all, by too little to decide anything else.
    flips = values / seeds * (1 + TIE / np.maximum(np.abs(cells).mean(axis=1), TIE))
    if not crossed:
        return _Spread(of_seeds, seeds - 1, "cluster bootstrap over seeds", flips)
    how = "cluster bootstrap over seeds and problems"
    columns = cells.mean(axis=0) - cells.mean()
    by_seed = problems * float(values.var(ddof=1))
    strata = parts[0].scores.strata
    of_strata = problems - 1 if strata is None else problems - 2
    within = columns if strata is None else columns - (np.bincount(strata, columns) / np.bincount(strata))[strata]
    by_problem = seeds * float((within**2).sum()) / of_strata
    noise = float(((cells - values[:, None] - columns) ** 2).sum()) / ((seeds - 1) * (problems - 1))
    if by_problem <= noise * _by_chance(seeds, of_strata):
        return _Spread(of_seeds, seeds - 1, how, flips)
    kept = math.sqrt(1 - noise / by_problem)
    of_problems = _spread(_problem_draws(parts, cells), problems) * kept
    # Satterthwaite, for the sum of mean squares by_seed + by_problem - noise.
    spread = by_seed**2 / (seeds - 1) + by_problem**2 / of_strata + noise**2 / ((seeds - 1) * (problems - 1))
    df = max((by_seed + by_problem - noise) ** 2 / spread, min(seeds, problems) - 1)
    return _Spread(math.hypot(of_seeds, of_problems), df, how, flips, by_problem=True)


@lru_cache(maxsize=64)
def _by_chance(seeds: int, df: int) -> float:
    """What the mean square of problems, over that of single answers, exceeds in 15 % of cases without any effect.

    Below it the two are pooled (Bancroft, Analysis and inference for incompletely specified models, Biometrics 20
    (1964), 427-442): adding whatever lies above 1 would make intervals too wide where problems have no effect. At this
    level simulated intervals come closest to 95 %, with an effect, without one, and with a small one.
    """
    from scipy import stats

    return float(stats.f.ppf(0.85, df, (seeds - 1) * df))


def _spread(draws: Array, units: int) -> float:
    # A resample of n units varies as if it had been drawn from n - 1.
    return float(draws[np.isfinite(draws)].std()) * math.sqrt(units / (units - 1))


@lru_cache(maxsize=8)
def _picks(units: int) -> NDArray[np.int32]:
    return np.random.default_rng(0).integers(0, units, size=(DRAWS, units), dtype=np.int32)


@lru_cache(maxsize=8)
def _weights(units: int, seed: int = 1) -> Array:
    """Problems x resamples: how often each was drawn."""
    equal = np.full(units, 1 / units)
    return np.random.default_rng(seed).multinomial(units, equal, size=DRAWS).T.astype(float)


def _weights_within(strata: NDArray[np.intp]) -> Array:
    """The same, as many drawn from each stratum as there are."""
    weights = np.zeros((len(strata), DRAWS))
    for number, count in enumerate(np.bincount(strata)):
        weights[strata == number] = _weights(int(count), 1 + number)
    return weights


def _problem_draws(parts: Sequence[_Part], cells: Array) -> Array:
    """The figure in each resample of the problems, all seeds kept."""
    strata = parts[0].scores.strata
    weights = _weights(cells.shape[1]) if strata is None else _weights_within(strata)
    plain = all(
        (part.scores.base == part.scores.base[:, :, :1]).all() for part in parts
    )  # nothing is missing: just a mean
    if plain or len(cells) > LINEAR:
        return np.asarray(cells.mean(axis=0) @ weights / len(weights))
    draws = []
    for start in range(0, DRAWS, CHUNK):
        some = weights[:, start : start + CHUNK]
        ratios = ((one.weight, _ratio(one.scores.hits @ some, one.scores.base @ some)) for one in parts)
        scores = sum(weight * _over_rounds(ratio) for weight, ratio in ratios)
        draws.append(_over_rounds(np.asarray(scores)))
    return np.concatenate(draws)


def _one_run(parts: Sequence[_Part], value: float) -> Estimate:
    problems = parts[0].scores.hits.shape[2]
    if _is_share(parts):
        return _wilson(parts, value, 1, "Wilson interval over the problems of one run")
    draws = _problem_draws(parts, _cells(parts)) if problems > 1 else np.zeros(1)
    if problems < 2 or np.ptp(draws) <= ROUNDING:
        return Estimate(value, None, None, "one run, nothing that varies", 1, problems)
    reach = _spread(draws, problems) * student_t(problems - 1)
    how = "bootstrap over the problems of one run"
    return Estimate(value, *_within(parts, value, reach), how, 1, problems)


def _constant(parts: Sequence[_Part], value: float, crossed: bool) -> Estimate:
    seeds, problems = parts[0].scores.hits.shape[1:]
    if _is_share(parts):
        return _wilson(parts, value, seeds, "all seeds alike: Wilson interval over problems", crossed)
    return Estimate(value, None, None, "all seeds alike: nothing to resample", seeds, problems)


def _is_share(parts: Sequence[_Part]) -> bool:
    # Accuracy of one round: what Wilson's interval is for. Another base than answers is that of F1.
    scores = parts[0].scores
    return len(parts) == 1 and len(scores.hits) == 1 and bool((scores.base == scores.answered).all())


def _wilson(parts: Sequence[_Part], value: float, seeds: int, how: str, crossed: bool = True) -> Estimate:
    problems = parts[0].scores.hits.shape[2]
    answers = int(parts[0].scores.answered.sum())
    n = min(problems, answers) if crossed else answers
    interval = wilson_interval(round(value * n), n)
    low, high = interval or (None, None)
    return Estimate(value, low, high, how, seeds, problems)
