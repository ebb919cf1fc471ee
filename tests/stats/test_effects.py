"""Effect sizes, power, corrections, doses and the mixed model, against closed forms and other implementations."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from lbt_sim.stats import (
    Contrast,
    detectable_difference,
    dose_response,
    hedges_g,
    holm,
    mean_interval,
    mixed_model,
    seeds_to_find,
    sign_flip_p,
)


def test_holm_by_hand() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]
    assert holm([]) == []
    assert holm([None]) == [None]


def test_hedges_g_by_hand() -> None:
    # Mean 2, standard deviation 1: d = 2; the correction with 2 degrees of freedom is gamma(1) / (1 * gamma(1/2)).
    found = hedges_g([1.0, 2.0, 3.0])
    assert found is not None
    assert found.value == pytest.approx(2 / math.sqrt(math.pi))
    assert found.seeds == 3


@pytest.mark.parametrize(("n", "mean"), [(10, 0.3), (30, -0.5), (1250, 1.0), (12, 8.0)])
def test_the_ends_of_gs_interval_are_where_the_noncentral_t_says(n: int, mean: float) -> None:
    values = np.random.default_rng(n).normal(mean, 1, n)
    found = hedges_g(values)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    t = values.mean() / values.std(ddof=1) * math.sqrt(n)
    to_shift = t / found.value
    assert stats.nct.cdf(t, n - 1, found.low * to_shift) == pytest.approx(0.975, abs=1e-6)
    assert stats.nct.cdf(t, n - 1, found.high * to_shift) == pytest.approx(0.025, abs=1e-6)


def test_no_spread_has_no_standardised_effect() -> None:
    assert hedges_g([0.1 + 0.2, 0.3, 0.3]) is None
    assert hedges_g([0.1, 0.2]) is None


def paired(values: np.ndarray) -> Contrast:
    """A contrast of these paired differences, each seed with problems of its own."""
    return Contrast(None, values, float(values.std(ddof=1)) / math.sqrt(len(values)), len(values) - 1)


@pytest.mark.parametrize("n", [30, 300])
def test_of_many_pairs_the_detectable_difference_is_that_of_the_t_test(n: int) -> None:
    found = paired(np.random.default_rng(n).normal(0, 2, n))
    expected = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8)
    assert detectable_difference(found) == pytest.approx(found.per_seed.std(ddof=1) * expected, rel=1e-4)


@pytest.mark.parametrize(("pairs", "level"), [(6, 0.05), (8, 0.01), (10, 0.01)])
def test_of_few_pairs_it_is_found_as_often_as_is_told_by_the_test_that_decides(pairs: int, level: float) -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(0, 1, pairs)
    least = detectable_difference(paired(values / values.std(ddof=1)), level=level)
    assert least is not None
    found = [(sign_flip_p(rng.normal(least, 1, pairs)) or 1) < level for _ in range(300)]
    assert 0.72 < np.mean(found) < 0.88
    assert least > TTestPower().solve_power(nobs=pairs, alpha=level, power=0.8)


@pytest.mark.parametrize(("pairs", "level"), [(4, 0.05), (5, 0.05), (6, 0.01), (7, 0.01)])
def test_where_no_arrangement_of_signs_is_rare_enough_nothing_is_detectable(pairs: int, level: float) -> None:
    values = np.random.default_rng(1).normal(0, 1, pairs)
    assert detectable_difference(paired(values), level=level) is None
    needed = seeds_to_find(paired(values), 50.0, level=level)
    assert needed is not None
    assert 2 / 2**needed < level <= 2 / 2**pairs


def test_seeds_are_counted_by_the_upper_end_of_how_much_they_may_vary() -> None:
    values = np.random.default_rng(0).normal(0.01, 0.05, 20)
    needed = seeds_to_find(paired(values), 0.02, level=0.01)
    careful = values.std(ddof=1) * math.sqrt(19 / stats.chi2.ppf(0.2, 19))
    assert needed == math.ceil(TTestPower().solve_power(effect_size=0.02 / careful, alpha=0.01, power=0.8))


def test_what_hangs_on_the_problems_no_number_of_seeds_finds() -> None:
    values = np.random.default_rng(0).normal(0.01, 0.05, 20)
    found = Contrast(None, values, error=0.03, df=19, by_problem=True)  # far more than the seeds' part
    assert seeds_to_find(found, 0.02) is None
    assert seeds_to_find(found, 0.2) is not None
    assert seeds_to_find(Contrast(None, values[:1]), 0.2) is None


def test_a_mean_has_its_t_interval() -> None:
    values = [0.2, 0.5, 0.3, 0.6]
    found = mean_interval(values)
    assert found is not None
    low, high = stats.ttest_1samp(values, 0).confidence_interval()
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert mean_interval([]) is None
    alone = mean_interval([0.5])
    assert alone is not None
    assert (alone.value, alone.low) == (0.5, None)


def test_the_dose_response_takes_out_what_a_seed_shares() -> None:
    rng = np.random.default_rng(0)
    seeds = np.repeat(np.arange(20), 4)
    dose = rng.random(80) + np.repeat(rng.normal(0, 5, 20), 4)
    # Seeds with high doses do badly for another reason; within a seed one unit gives 2.
    response = 2 * dose - 5 * np.repeat(dose.reshape(20, 4).mean(axis=1), 4) + rng.normal(0, 0.1, 80)
    found = dose_response(seeds.tolist(), dose.tolist(), response.tolist())
    assert found is not None
    assert found.slope.low is not None
    assert found.slope.high is not None
    assert found.slope.low < 2 < found.slope.high
    assert found.slope.value == pytest.approx(2, abs=0.15)
    assert found.slope.seeds == 20
    assert found.correlation is not None
    assert found.correlation > 0.95
    assert found.p is not None
    assert found.p < 1e-6


def test_the_slopes_error_is_that_of_the_sandwich() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(10, 3))
    y = 0.5 * x + rng.normal(size=(10, 3))
    found = dose_response(np.repeat(np.arange(10), 3).tolist(), x.ravel().tolist(), y.ravel().tolist())
    assert found is not None
    xc, yc = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    slope = (xc * yc).sum() / (xc**2).sum()
    scores = (xc * (yc - slope * xc)).sum(axis=1)
    error = math.sqrt((scores**2).sum() * 10 / 9) / (xc**2).sum()
    assert found.slope.value == pytest.approx(slope)
    assert found.slope.high == pytest.approx(slope + stats.t.ppf(0.975, 9) * error)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(slope) / error, 9))


def test_a_dose_that_does_not_vary_within_seeds_has_no_slope() -> None:
    assert dose_response([1, 1, 2, 2], [0.3, 0.3, 0.5, 0.5], [1, 2, 3, 4]) is None
    assert dose_response([], [], []) is None
    assert dose_response([1, 2, 3], [0.1, 0.2, 0.3], [1, 2, 3]) is None
    one_seed = dose_response([1, 1, 1, 2], [0.1, 0.2, 0.4, 0.3], [1, 2, 3, 4])
    assert one_seed is not None
    assert (one_seed.slope.low, one_seed.p) == (None, None)


def answers(crossed: bool, shape: tuple[int, int, int], effect: float = 0.1) -> Any:
    rng = np.random.default_rng(2)
    conditions, seeds, problems = shape
    by_problem = rng.normal(0, 0.2, (1 if crossed else seeds, problems))
    chance = 0.5 + rng.normal(0, 0.1, (seeds, 1)) + by_problem
    runs = rng.normal(0, 0.05, (conditions, seeds, 1))
    shifts = np.arange(conditions)[:, None, None] * effect
    return (rng.random(shape) < chance + runs + shifts).astype(float)


@pytest.mark.parametrize("crossed", [True, False])
def test_the_mixed_models_terms_are_the_plain_differences_where_nothing_is_missing(crossed: bool) -> None:
    right = answers(crossed, (3, 8, 20))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = mixed_model(right, crossed)
    assert found is not None
    for number, term in enumerate(found.terms, start=1):
        assert term.value == pytest.approx((right[number] - right[0]).mean(), abs=1e-4)
        assert found.difference(number, 0) == replace(
            term, low=pytest.approx(term.low), high=pytest.approx(term.high), value=pytest.approx(term.value)
        )
    between = found.difference(2, 1)
    assert between.value == pytest.approx((right[2] - right[1]).mean(), abs=1e-4)
    # In a balanced design every difference has the same standard error.
    assert between.high is not None
    assert found.terms[0].high is not None
    assert between.high - between.value == pytest.approx(found.terms[0].high - found.terms[0].value, rel=1e-3)
    # Condition by seed is the error of a difference: the closed form of the balanced design. It holds where runs vary,
    # and is a little above the fit's where their variance would come out below 0.
    means = right.mean(axis=2)
    rest = means - means.mean(axis=0) - means.mean(axis=1, keepdims=True) + means.mean()
    reach = stats.t.ppf(0.975, 14) * math.sqrt((rest**2).sum() / 14 * 2 / 8)
    high = found.terms[0].high
    assert high is not None
    assert high - found.terms[0].value == pytest.approx(reach, rel=0.02 if crossed else 0.06)
    assert set(found.sd) == {"seed", "problem", "run", "residual"}
    assert 0.1 < found.sd["problem"] < 0.35
    assert found.answers == 480


def test_a_large_mixed_model_is_fitted_on_a_sample_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    right = answers(True, (3, 16, 20))
    monkeypatch.setattr("lbt_sim.stats.mixed.MOST_ANSWERS", 480)
    found, again = mixed_model(right, True), mixed_model(right, True)
    assert found is not None
    assert found == again
    assert "8 of 16 seeds" in found.note
    assert "48 runs" in found.note
    assert found.terms[0].value == pytest.approx((right[1] - right[0]).mean(), abs=1e-4)
    assert found.terms[0].seeds == 16


def test_a_mixed_model_leaves_out_what_failed() -> None:
    right = answers(True, (2, 6, 15))
    right[0, 0, :5] = np.nan
    right[1, 3, 2] = np.nan
    found = mixed_model(right, True)
    assert found is not None
    assert found.answers == 2 * 6 * 15 - 6


def test_a_fit_that_does_not_converge_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from statsmodels.regression.mixed_linear_model import MixedLM

    whole = MixedLM.fit
    monkeypatch.setattr(MixedLM, "fit", lambda self, **kept: whole(self, **{**kept, "method": ["bfgs"], "maxiter": 1}))
    found = mixed_model(answers(True, (2, 6, 15)), True)
    assert found is not None
    assert "did not converge" in found.note


def test_there_is_no_model_of_too_little() -> None:
    assert mixed_model(np.ones((2, 5, 10)), True) is None  # nothing varies
    assert mixed_model(answers(True, (2, 1, 10)), True) is None
    assert mixed_model(answers(True, (2, 5, 1)), True) is None
    assert mixed_model(np.full((2, 5, 10), np.nan), True) is None
    alone = mixed_model(answers(True, (1, 6, 20)), True)
    assert alone is not None
    assert alone.terms == ()
