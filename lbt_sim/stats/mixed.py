"""A linear mixed model of single answers: conditions fixed; seeds, problems and runs with random intercepts.

The model is `right = condition + seed + problem + run + rest`, where a run is a condition at a seed: without it the
answers of one run would count as independent, and intervals would come out far too narrow. statsmodels needs seconds
for a few thousand answers, and ever more with the number of random effects, so larger studies are fitted on some of
their seeds for the standard deviations. Their terms then come from the model of run means over all seeds, `mean =
condition + seed + rest`: where every run answered the same problems it gives the same terms and standard errors, since
seed and problem cancel out of a difference of conditions.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbt_sim.stats.estimate import Estimate
from lbt_sim.stats.paired import student_t

__all__ = ["MixedFit", "mixed_model"]

Array = NDArray[np.float64]

MOST_ANSWERS = 2_500
MOST_RUNS = 12_000
"""What one fit takes: answers, or run means."""


@dataclass(frozen=True, slots=True)
class MixedFit:
    """The fitted model.

    Attributes:
        terms: For each condition but the first its difference from the first.
        sd: `seed`, `problem`, `run`, `residual` -> standard deviation.
        answers: How many answers went in.
        note: What there is to say of the fit.
        covariance: Of the terms.
        df: Degrees of freedom of their intervals.
    """

    terms: tuple[Estimate, ...]
    sd: Mapping[str, float]
    answers: int
    note: str
    covariance: Array = field(compare=False)
    df: int

    def difference(self, a: int, b: int) -> Estimate:
        """Of one condition from another, by their places; the first is the one that terms are differences from."""
        weights = np.zeros(len(self.terms) + 1)
        weights[a], weights[b] = 1.0, -1.0
        weights = weights[1:]
        value = float(weights @ [term.value for term in self.terms])
        reach = student_t(self.df) * math.sqrt(max(0.0, float(weights @ self.covariance @ weights)))
        return replace(self.terms[0], value=value, low=value - reach, high=value + reach)


def mixed_model(right: Array, crossed: bool) -> MixedFit | None:
    """Fits it by REML.

    Args:
        right: Conditions x seeds x problems: 1, 0, or nan where nothing came back.
        crossed: Whether all seeds have the same problems; else each seed's are its own.

    Returns:
        None with fewer than two seeds that have every condition, with one problem, or where nothing varies.
    """
    whole = np.isfinite(right).any(axis=2).all(axis=0)
    right = right[:, whole]
    conditions, seeds, _ = right.shape
    right = right[:, :, np.isfinite(right).any(axis=(0, 1))]
    problems = right.shape[2]
    there = right[np.isfinite(right)]
    if seeds < 2 or problems < 2 or not np.ptp(there):
        return None
    notes = []
    sample = _sample(right)
    if sample.shape != right.shape:
        notes.append(
            f"standard deviations from {sample.shape[1]} of {seeds} seeds and {sample.shape[2]} of {problems} problems,"
            " drawn by a fixed seed"
        )
    fitted, said = _fit(*_answers(sample, crossed))
    notes += said
    if fitted is None:
        return None
    names = ("problem", "run", "seed")
    sd = {name: float(np.sqrt(max(0.0, value))) for name, value in zip(names, fitted.vcomp, strict=True)}
    sd["residual"] = float(np.sqrt(fitted.scale))
    notes += [
        f"the standard deviation of {name} is at its bound, 0" for name in names if sd[name] < 0.02 * sd["residual"]
    ]
    how = "mixed model of single answers"
    if sample.shape != right.shape and conditions > 1:
        kept = right[:, _some(seeds, max(2, MOST_RUNS // conditions))]
        seeds = kept.shape[1]
        fitted, said = _fit(*_run_means(kept))
        notes += said
        how = "mixed model of run means"
        notes.append(f"terms from the means of {conditions * seeds} runs")
        if fitted is None:
            return None
    reach = student_t((conditions - 1) * (seeds - 1)) if conditions > 1 else 0.0
    method = f"{how}, REML, Student's t with {(conditions - 1) * (seeds - 1)} degrees of freedom"
    terms = tuple(
        Estimate(float(value), float(value - reach * error), float(value + reach * error), method, seeds, problems)
        for value, error in zip(fitted.fe_params[1:], fitted.bse_fe[1:], strict=True)
    )
    order = {name: sd[name] for name in ("seed", "problem", "run", "residual")}
    covariance = np.asarray(fitted.cov_params())[1 : len(terms) + 1, 1 : len(terms) + 1]
    df = (conditions - 1) * (seeds - 1)
    return MixedFit(terms, order, int(np.isfinite(right).sum()), "; ".join(notes), covariance, df)


def _some(count: int, most: int) -> NDArray[np.intp]:
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def _sample(right: Array) -> Array:
    conditions, seeds, problems = right.shape
    # At least six seeds: their standard deviation is asked for. Problems are given up first where both are many.
    kept = _some(problems, max(2, MOST_ANSWERS // (conditions * min(6, seeds))))
    right = right[:, :, kept]
    return right[:, _some(seeds, max(2, MOST_ANSWERS // (conditions * len(kept))))]


Design = tuple[Array, Array, NDArray[np.intp], Any, Array]
"""Response, fixed effects, groups, variance components, where to begin."""


def _answers(right: Array, crossed: bool) -> Design:
    from statsmodels.regression.mixed_linear_model import VCSpec

    conditions, seeds, problems = right.shape
    condition, seed, problem = np.nonzero(np.isfinite(right))
    run = condition * seeds + seed
    groups = np.zeros(len(seed), dtype=np.intp) if crossed else seed
    names, matrices = ["problem", "run", "seed"], []
    for index, count in ((problem, problems), (run, conditions * seeds), (seed, seeds)):
        matrices.append([_dummies(index[groups == group], count) for group in sorted(set(groups.tolist()))])
    columns = [[[str(i) for i in range(matrix.shape[1])] for matrix in per_group] for per_group in matrices]
    y = right[np.isfinite(right)]
    return y, _fixed(condition, conditions), groups, VCSpec(names, columns, matrices), _begin(right)


def _run_means(right: Array) -> Design:
    from statsmodels.regression.mixed_linear_model import VCSpec

    there = np.isfinite(right)
    means = np.where(there, right, 0.0).sum(axis=2) / there.sum(axis=2)
    condition, seed = (axis.ravel() for axis in np.indices(means.shape))
    ones = [np.ones((len(means), 1))] * means.shape[1]
    components = VCSpec(["seed"], [[["0"]] * means.shape[1]], [ones])
    # Grouped by seed: the order of rows within a group is that of the conditions.
    rest = means - means.mean(axis=1, keepdims=True)
    within = float((rest - rest.mean(axis=0)).var())
    begin = np.array([max(float(rest.mean(axis=0).var()) / max(within, 1e-12), 1e-2)])
    return means.ravel(), _fixed(condition, len(means)), seed, components, begin


def _fixed(condition: NDArray[np.intp], conditions: int) -> Array:
    design = _dummies(condition, conditions)
    design[:, 0] = 1.0
    return design


def _dummies(index: NDArray[np.intp], count: int) -> Array:
    present = np.arange(count)[np.bincount(index, minlength=count) > 0]
    return np.asarray(index[:, None] == present[None, :], dtype=np.float64)


def _begin(right: Array) -> Array:
    """Variances of problem, run and seed by moments, as multiples of the residual's: a good place to begin."""
    conditions, seeds, problems = right.shape
    overall = np.nanmean(right)
    full = np.where(np.isfinite(right), right, overall)
    rest = full - full.mean(axis=(1, 2), keepdims=True)
    by_run, by_seed, by_problem = rest.mean(axis=2), rest.mean(axis=(0, 2)), rest.mean(axis=(0, 1))
    residual = float((rest - by_run[:, :, None] - by_problem).var()) or 1e-6
    of_problem = float(by_problem.var()) - residual / (conditions * seeds)
    of_run = float((by_run - by_seed).var()) - residual / problems
    of_seed = float(by_seed.var()) - max(of_run, 0.0) / conditions
    return np.maximum(np.array([of_problem, of_run, of_seed]) / residual, 1e-3)


def _fit(y: Array, fixed: Array, groups: NDArray[np.intp], components: Any, begin: Array) -> tuple[Any, Sequence[str]]:
    """The fit, None where there is none, and what it complained of."""
    from statsmodels.regression.mixed_linear_model import MixedLM, MixedLMParams
    from threadpoolctl import threadpool_limits

    first = np.linalg.lstsq(fixed, y, rcond=None)[0]
    # Matrices are small: a second thread costs more than it gives, and far more where it has to wait for a core.
    with threadpool_limits(1), warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        try:
            model = MixedLM(y, fixed, groups=groups, exog_vc=components)
            start = MixedLMParams.from_components(fe_params=first, vcomp=begin)
            fitted = model.fit(reml=True, start_params=start, method=["lbfgs", "powell"])
        except (np.linalg.LinAlgError, ValueError):
            return None, ()
    if not np.isfinite(fitted.bse_fe).all():
        return None, ()
    if not fitted.converged:
        reasons = {str(one.message).strip() for one in caught}
        return fitted, [f"the fit did not converge: {' '.join(sorted(reasons))}"]
    return fitted, ()
