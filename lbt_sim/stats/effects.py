"""What is said of paired differences beside their mean: tests, corrected for how many; effect sizes; power."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lbt_sim.stats.estimate import Estimate
from lbt_sim.stats.paired import Contrast

__all__ = [
    "detectable_difference",
    "hedges_g",
    "holm",
    "mean_interval",
    "paired_p",
    "seeds_to_find",
    "sign_flip_p",
]

EXACT = 14
"""Up to so many pairs every one of the 2^n sign flips is tried, above it `FLIPS` drawn ones."""

FLIPS = 9_999

SIMULATED = 1_000
"""Sets of differences by which the permutation test's power is simulated."""

MOST_SEEDS = 100_000
"""More are not told: something else has to change."""


def sign_flip_p(differences: Sequence[float] | NDArray[np.float64]) -> float | None:
    """Two-sided p of the permutation test of paired differences: under the null each could have had the other sign.

    Exact up to 14 differences, above that by 9,999 seeded draws.

    Args:
        differences: One for each pair (seed).

    Returns:
        None with fewer than two.
    """
    from scipy import stats

    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return None
    if not values.any():
        return 1.0
    tested = stats.permutation_test(
        (values,),
        # Rounded: sums that are equal but for the order of their terms are ties, also where they are nearly 0.
        lambda x, axis: np.round(x.sum(axis=axis), 12),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2 ** len(values) if len(values) <= EXACT else FLIPS,
        batch=max(1, 2_000_000 // len(values)),
        rng=np.random.default_rng(0),
    )
    return float(tested.pvalue)


def paired_p(difference: Contrast) -> float | None:
    """Two-sided p of a paired difference: of the permutation test over seeds.

    That test speaks of other seeds on the same problems. Where it matters to the difference which problems were used, p
    is no smaller than that of the t test that belongs to the interval and speaks of other problems too.
    """
    from scipy import stats

    p = None if difference.flips is None else sign_flip_p(difference.flips)
    error, df = difference.error, difference.df
    if p is None or not difference.by_problem or difference.estimate is None or error is None or df is None:
        return p
    return max(p, 2 * float(stats.t.sf(abs(difference.estimate.value) / error, df)))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's correction over the p values that there are; the others stay None."""
    from statsmodels.stats.multitest import multipletests

    there = [p for p in ps if p is not None]
    corrected = iter(multipletests(there, method="holm")[1] if there else ())
    return [None if p is None else float(next(corrected)) for p in ps]


def mean_interval(values: Sequence[float] | NDArray[np.float64], how: str = "t interval over seeds") -> Estimate | None:
    """The mean of independent values with a t interval; None of no values, and no interval of one."""
    from scipy import stats

    array = np.asarray(values, dtype=float)
    n = len(array)
    if n == 0:
        return None
    mean = float(array.mean())
    if n == 1:
        return Estimate(mean, None, None, "one seed: no interval", 1)
    reach = float(stats.t.ppf(0.975, n - 1) * array.std(ddof=1) / math.sqrt(n))
    return Estimate(mean, mean - reach, mean + reach, how, n)


def hedges_g(differences: Sequence[float] | NDArray[np.float64]) -> Estimate | None:
    """Hedges' g of paired differences: mean over standard deviation, corrected for the bias of few pairs.

    The interval is that of the noncentral t distribution. Hedges, Distribution theory for Glass's estimator of effect
    size and related estimators, Journal of Educational Statistics 6 (1981), 107-128.

    Returns:
        None with fewer than three pairs (the correction is 0 with two), or where the differences do not vary.
    """
    from scipy.special import gammaln

    values = np.asarray(differences, dtype=float)
    n = len(values)
    # A spread that is rounding alone is none.
    if n < 3 or np.ptp(values) <= 1e-12:
        return None
    df = n - 1
    t = float(values.mean() / values.std(ddof=1) * math.sqrt(n))
    unbiased = math.exp(float(gammaln(df / 2) - gammaln((df - 1) / 2))) / math.sqrt(df / 2)
    factor = unbiased / math.sqrt(n)
    low, high = _noncentrality(t, df, 0.975), _noncentrality(t, df, 0.025)
    how = "noncentral t interval of Hedges' g of paired differences"
    return Estimate(t * factor, low * factor, high * factor, how, n)


def _noncentrality(t: float, df: int, share: float) -> float:
    """The noncentrality at which `share` of the distribution lies below t."""
    from scipy import optimize, stats

    def over(shift: float) -> float:
        return float(stats.nct.cdf(t, df, shift)) - share

    # Outwards from t by small steps: far from it scipy's distribution is not a number.
    step = math.copysign(0.25, over(t))
    end = t + step
    while over(end) * step > 0:
        step *= 1.5
        end += step
    return float(optimize.brentq(over, min(t, end), max(t, end), xtol=1e-10))


def detectable_difference(found: Contrast, power: float = 0.8, level: float = 0.05) -> float | None:
    """The smallest true difference that a study like this one finds with this power.

    It is found when both tests find it: the permutation test over seeds, and the t test that belongs to the interval.

    Args:
        found: The contrast, with the seeds that there were.
        power: How often it is found.
        level: How often a null is rejected.

    Returns:
        None where nothing is known of the error, or where no difference could ever be found: with few pairs no
        arrangement of signs is rare enough.
    """
    values = found.per_seed[np.isfinite(found.per_seed)]
    if found.error is None or found.df is None or len(values) < 2:
        return None
    by_signs = _found_by_signs(len(values), power, level)
    if by_signs is None:
        return None
    return max(found.error * _found_by_t(found.df, power, level), by_signs * float(values.std(ddof=1)))


def seeds_to_find(found: Contrast, difference: float, power: float = 0.8, level: float = 0.05) -> int | None:
    """How many seeds a study on the same problems would take to find a true difference.

    More seeds make that part of the error smaller which is between seeds; what hangs on the problems stays. How much
    seeds vary is itself known from few of them, so it is taken at the upper end of its one-sided 80 % interval (Browne,
    On the use of a pilot sample for sample size determination, Statistics in Medicine 14 (1995), 1933-1940).

    Args:
        found: The same contrast, with the seeds that there were.
        difference: The true difference, as a share.
        power: How often it is to be found.
        level: How often a null is rejected.

    Returns:
        None where no number up to 100,000 would do, or where too little is known of the error.
    """
    from scipy import stats

    values = found.per_seed[np.isfinite(found.per_seed)]
    if found.error is None or len(values) < 2:
        return None
    between, df = float(values.var(ddof=1)), len(values) - 1
    lasting = max(0.0, found.error**2 - between / len(values)) if found.by_problem else 0.0
    careful = between * df / float(stats.chi2.ppf(0.2, df))

    def finds(seeds: int) -> bool:
        by_signs = _found_by_signs(seeds, power, level)
        if by_signs is None:
            return False
        error = math.sqrt(careful / seeds + lasting)
        return max(error * _found_by_t(seeds - 1, power, level), by_signs * math.sqrt(careful)) <= difference

    if not finds(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS  # one that does not (it has no error at all), and one that does
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if finds(middle) else (middle, high)
    return high


@lru_cache(maxsize=4096)
def _found_by_t(df: float, power: float, level: float) -> float:
    """The true difference, in standard errors, that a two-sided t test finds with this power."""
    from scipy import optimize, stats

    bar = float(stats.t.ppf(1 - level / 2, df))

    def short_of(shift: float) -> float:
        # The other tail, a find of the wrong sign, adds less than a thousandth at any power that is asked for.
        return float(stats.nct.sf(bar, df, shift)) - power

    high = 1.0
    while short_of(high) < 0:
        high *= 1.2
    return float(optimize.brentq(short_of, 0.0, high, xtol=1e-10))


@lru_cache(maxsize=256)
def _found_by_signs(pairs: int, power: float, level: float) -> float | None:
    """The true difference, in standard deviations of a pair's, that the permutation test finds with this power.

    By simulation, of normal differences, while every arrangement of signs can be tried; with more pairs the test is as
    good as the t test, and this is 0. None where the least p of so many pairs is not below the level.
    """
    if 2 / 2**pairs >= level:
        return None
    if pairs > EXACT:
        return 0.0
    noise = np.random.default_rng(0).normal(size=(pairs, SIMULATED))
    signs = 1.0 - 2.0 * ((np.arange(2**pairs)[:, None] >> np.arange(pairs)) & 1)
    sums = signs @ noise
    shifts = signs.sum(axis=1)[:, None]

    def share(shift: float) -> float:
        reached = np.abs(sums + shift * shifts)
        as_far = (reached >= np.abs(noise.sum(axis=0) + shift * pairs) - 1e-9).mean(axis=0)
        return float((as_far < level).mean())

    low, high = 0.0, 1.0
    while share(high) < power:
        low, high = high, 2 * high
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if share(middle) >= power else (middle, high)
    return high
