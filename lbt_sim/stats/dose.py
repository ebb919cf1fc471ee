"""How one figure of a run goes with another, with what all runs of a seed share taken out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lbt_sim.stats.estimate import Estimate

__all__ = ["Response", "dose_response"]


@dataclass(frozen=True, slots=True)
class Response:
    """A slope within seeds.

    Attributes:
        slope: Change of the response for one unit of the dose; its interval is cluster-robust by seed.
        p: Two-sided, of the slope; None where it has no interval.
        correlation: Of dose and response, each seed's mean taken out; None where the response does not vary.
    """

    slope: Estimate
    p: float | None
    correlation: float | None


def dose_response(seeds: Sequence[int], dose: Sequence[float], response: Sequence[float]) -> Response | None:
    """Least squares of response on dose with an intercept for each seed, standard errors clustered by seed.

    Args:
        seeds: Each run's seed.
        dose: Each run's dose.
        response: Each run's response.

    Returns:
        None where the dose does not vary within any seed.
    """
    _, group = np.unique(np.asarray(seeds, dtype=np.int64), return_inverse=True)
    x, y = _within(np.asarray(dose, dtype=float), group), _within(np.asarray(response, dtype=float), group)
    varies = np.bincount(group, x**2)[group] > 1e-18 if len(x) else np.zeros(0, dtype=bool)
    clusters = len(np.unique(group[varies]))
    if not clusters:
        return None
    # A seed whose runs all have one dose says nothing of the slope.
    x, y, group = x[varies], y[varies], group[varies]
    value = float(x @ y / (x @ x))
    correlation = float(x @ y / np.sqrt((x @ x) * (y @ y))) if y @ y > 1e-18 else None
    if clusters < 2 or float(((y - value * x) ** 2).sum()) <= 1e-18:
        return Response(
            Estimate(value, None, None, "too little that varies for an interval", clusters), None, correlation
        )
    from statsmodels.regression.linear_model import OLS

    fit = OLS(y, x).fit(cov_type="cluster", cov_kwds={"groups": group}, use_t=True)
    low, high = (float(end) for end in fit.conf_int()[0])
    how = "cluster-robust t interval by seed, least squares with an intercept for each seed"
    return Response(Estimate(value, low, high, how, clusters), float(fit.pvalues[0]), correlation)


def _within(values: NDArray[np.float64], group: NDArray[np.intp]) -> NDArray[np.float64]:
    if not len(values):
        return values
    return np.asarray(values - (np.bincount(group, values) / np.maximum(np.bincount(group), 1))[group])
