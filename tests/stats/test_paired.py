"""Paired differences: closed forms, invariances, degenerate inputs, and a small check of calibration."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from lbt_sim.stats import Scores, contrast, f1_score, paired_p, per_seed, sign_flip_p, strata_of, wilson_interval

Array = np.ndarray


def accuracy(right: Array, back: Array | None = None) -> Scores:
    """One round, seeds × problems of 1 and 0; `back`: what came back."""
    back = np.ones(right.shape, dtype=bool) if back is None else back
    return Scores((right * back)[None].astype(float), back[None].astype(float), back[None])


def arms(seed: int, shape: tuple[int, int], by_problem: float = 0.0, effect: float = 0.0) -> tuple[Array, Array]:
    """Two arms of a logistic model with effects of seed, problem, and their interactions with the arm."""
    rng = np.random.default_rng(seed)
    base = 0.5 + rng.normal(0, 0.3, (shape[0], 1)) + rng.normal(0, 1, (1, shape[1]))
    found = []
    for shift in (effect, 0.0):
        logit = base + shift + rng.normal(0, 0.25, (shape[0], 1)) + rng.normal(0, by_problem, (1, shape[1]))
        found.append((rng.random(shape) < 1 / (1 + np.exp(-logit))).astype(float))
    return found[0], found[1]


def test_with_own_problems_the_interval_is_that_of_a_paired_t_test() -> None:
    a, b = arms(1, (12, 40))
    found = contrast([accuracy(a), accuracy(b)], crossed=False)
    differences = (a - b).mean(axis=1)
    error = differences.std(ddof=1) / math.sqrt(12)
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(differences.mean())
    assert found.df == 11
    assert found.error == pytest.approx(error, rel=0.05)  # the resamples are 2,000
    reach = stats.t.ppf(0.975, 11) * error
    assert found.estimate.high == pytest.approx(differences.mean() + reach, abs=0.05 * reach)
    assert (found.estimate.seeds, found.estimate.problems) == (12, 40)


def test_with_common_problems_the_variance_is_that_of_the_two_way_model() -> None:
    a, b = arms(2, (20, 50), by_problem=1.0)
    found = contrast([accuracy(a), accuracy(b)], crossed=True)
    cells = a - b
    rows, columns = cells.mean(axis=1), cells.mean(axis=0)
    rest = cells - rows[:, None] - columns + cells.mean()
    noise = (rest**2).sum() / (19 * 49)
    variance = rows.var(ddof=1) / 20 + columns.var(ddof=1) / 50 - noise / 1000
    assert found.by_problem
    assert found.error == pytest.approx(math.sqrt(variance), rel=0.05)
    assert found.df is not None
    assert 19 <= found.df <= 19 + 49


def test_common_problems_that_have_no_effect_cost_nothing() -> None:
    # Every column has the same mean: less than chance, so only seeds count.
    cells = np.array([[1.0, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]])
    both = [accuracy(cells), accuracy(np.zeros_like(cells))]
    assert contrast(both, crossed=True).error == contrast(both, crossed=False).error


def test_one_arm_over_common_problems_varies_with_the_problems() -> None:
    easy = np.tile([1.0] * 6 + [0.0] * 6, (10, 1))
    easy[np.arange(10), np.arange(10)] = 1 - easy[np.arange(10), np.arange(10)]
    wide, narrow = contrast([accuracy(easy)], True).estimate, contrast([accuracy(easy)], False).estimate
    assert wide is not None
    assert narrow is not None
    assert wide.high is not None
    assert narrow.high is not None
    assert wide.high - wide.value > 3 * (narrow.high - narrow.value)


BINARY = hnp.arrays(
    float, st.tuples(st.just(2), st.integers(2, 6), st.integers(2, 8)), elements=st.sampled_from([0.0, 1.0])
)


@given(BINARY, st.booleans())
@settings(max_examples=60)
def test_swapping_the_arms_changes_the_sign_alone(both: Array, crossed: bool) -> None:
    there = contrast([accuracy(both[0]), accuracy(both[1])], crossed)
    back = contrast([accuracy(both[1]), accuracy(both[0])], crossed)
    a, b = there.estimate, back.estimate
    assert a is not None
    assert b is not None
    assert a.value == pytest.approx(-b.value)
    assert (a.low is None) == (b.low is None)
    if a.low is not None and b.high is not None:
        assert a.low == pytest.approx(-b.high, abs=1e-9)
    assert paired_p(there) == pytest.approx(paired_p(back))


@given(BINARY, st.booleans())
@settings(max_examples=60)
def test_the_order_of_seeds_does_not_change_the_figure_and_the_test(both: Array, crossed: bool) -> None:
    there = contrast([accuracy(both[0]), accuracy(both[1])], crossed)
    back = contrast([accuracy(both[0, ::-1]), accuracy(both[1, ::-1])], crossed)
    assert there.per_seed == pytest.approx(back.per_seed[::-1])
    if not there.by_problem:
        assert paired_p(there) == pytest.approx(paired_p(back))


def test_problems_that_failed_in_both_arms_change_nothing() -> None:
    a, b = arms(3, (10, 30))
    more = np.hstack([a, np.ones((10, 5))]), np.hstack([b, np.zeros((10, 5))])
    back = np.hstack([np.ones((10, 30), dtype=bool), np.zeros((10, 5), dtype=bool)])
    plain = contrast([accuracy(a), accuracy(b)], crossed=False)
    failed = contrast([accuracy(more[0], back), accuracy(more[1], back)], crossed=False)
    assert plain.estimate is not None
    assert failed.estimate is not None
    assert (failed.estimate.value, failed.estimate.low) == (plain.estimate.value, plain.estimate.low)
    assert paired_p(plain) == paired_p(failed)


def test_an_answer_that_failed_in_one_arm_is_left_out_of_the_other() -> None:
    a, b = np.array([[1.0, 1, 0, 1]]), np.array([[1.0, 0, 0, 1]])
    back = np.array([[True, False, True, True]])
    first, second = accuracy(a), accuracy(b, back)
    assert per_seed(first.without(second)) == pytest.approx([2 / 3])
    assert per_seed(second.without(first)) == pytest.approx([2 / 3])


def test_a_round_that_the_other_arm_does_not_have_is_kept() -> None:
    ones = np.ones((2, 1, 3))
    two_rounds = Scores(ones, ones, ones.astype(bool))
    only_first = ones * np.array([1.0, 0.0])[:, None, None]
    one_round = Scores(only_first, only_first, only_first.astype(bool))
    assert two_rounds.without(one_round).answered.all()


def test_a_seed_without_any_answer_is_left_out() -> None:
    a, b = arms(4, (8, 20))
    back = np.ones(a.shape, dtype=bool)
    back[3] = False
    found = contrast([accuracy(a, back), accuracy(b, back)], crossed=True)
    kept = np.arange(8) != 3
    assert found.estimate is not None
    assert found.estimate.seeds == 7
    assert found.estimate.value == pytest.approx((a - b)[kept].mean())
    assert np.isnan(found.per_seed[3])


def test_f1_is_that_of_each_seed_averaged() -> None:
    rng = np.random.default_rng(5)
    said, right = rng.random((6, 30)) < 0.6, rng.random(30) < 0.5
    hits, error = said & right, said != right
    scores = Scores(2.0 * hits[None], (2.0 * hits + error)[None], np.ones((1, 6, 30), dtype=bool))
    expected = [f1_score(row.tolist(), right.tolist()) for row in said]
    assert per_seed(scores) == pytest.approx(expected)
    found = contrast([scores], crossed=True).estimate
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high


def test_resampled_f1_agrees_with_resampling_the_rows_themselves() -> None:
    rng = np.random.default_rng(6)
    right = np.arange(60) % 2 == 0
    skill = np.where(right, 0.9, 0.6) - 0.4 * (np.arange(60) % 7 == 0)
    said = np.where(rng.random((25, 60)) < skill, right, ~right)
    hits, error = said & right, said != right
    found = contrast([Scores(2.0 * hits[None], (2.0 * hits + error)[None], np.ones((1, 25, 60), dtype=bool))], True)
    draws = []
    for _ in range(600):
        picks = rng.integers(0, 60, 60)
        h, e = hits[:, picks].sum(axis=1), error[:, picks].sum(axis=1)
        draws.append((2 * h / (2 * h + e)).mean())
    assert found.by_problem
    # The problems' part, of which the noise of answers is a part that counts once.
    assert found.error == pytest.approx(np.std(draws), rel=0.25)


def test_linearised_resamples_are_close_to_whole_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = arms(10, (20, 60), by_problem=1.0)
    back = np.random.default_rng(11).random(a.shape) > 0.1
    for parts in ([accuracy(a, back), accuracy(b, back)], [accuracy(a, back)]):
        whole = contrast(parts, crossed=True)
        with monkeypatch.context() as patch:
            patch.setattr("lbt_sim.stats.paired.LINEAR", 0)
            linear = contrast(parts, crossed=True)
        assert whole.by_problem
        assert whole.error != linear.error
        assert whole.error == pytest.approx(linear.error, rel=0.03)


def test_the_mean_over_rounds_is_the_mean_of_the_rounds() -> None:
    hits = np.array([[[1.0, 0, 0, 0]], [[1, 1, 1, 0]]])
    scores = Scores(hits, np.ones_like(hits), np.ones(hits.shape, dtype=bool))
    assert per_seed(scores) == pytest.approx([(0.25 + 0.75) / 2])


def test_one_run_has_wilsons_interval() -> None:
    found = contrast([accuracy(np.array([[1.0] * 15 + [0.0] * 5]))], crossed=True).estimate
    assert found is not None
    assert (found.low, found.high) == wilson_interval(15, 20)
    assert "one run" in found.method


def test_seeds_that_are_all_alike_have_no_zero_width_interval() -> None:
    all_right = contrast([accuracy(np.ones((5, 10)))], crossed=True).estimate
    assert all_right is not None
    assert (all_right.low, all_right.high) == wilson_interval(10, 10)
    same = contrast([accuracy(np.ones((5, 10)))] * 2, crossed=True)
    assert same.estimate is not None
    assert (same.estimate.value, same.estimate.low, same.estimate.high) == (0, None, None)
    assert paired_p(same) == 1


def test_nothing_that_came_back_has_no_figure() -> None:
    found = contrast([accuracy(np.ones((3, 4)), np.zeros((3, 4), dtype=bool))], crossed=True)
    assert found.estimate is None


def test_a_condition_against_nothing_is_the_condition() -> None:
    a, _ = arms(7, (10, 30))
    alone, against = contrast([accuracy(a)], True), contrast([accuracy(a), accuracy(np.zeros_like(a))], True)
    assert alone.estimate is not None
    assert against.estimate is not None
    assert alone.estimate.low == pytest.approx(against.estimate.low)


def test_sign_flips_are_all_tried_where_they_are_few() -> None:
    values = np.array([0.3, -0.1, 0.25, 0.4, 0.05, 0.2])
    sums = [abs(np.dot(signs, values)) for signs in product((1, -1), repeat=6)]
    assert sign_flip_p(values) == pytest.approx(np.mean(np.array(sums) >= abs(values.sum()) - 1e-12))


def test_drawn_sign_flips_come_close_to_all_of_them() -> None:
    values = np.random.default_rng(8).normal(0.4, 1, 16)
    signs = 1 - 2 * ((np.arange(2**16)[:, None] >> np.arange(16)) & 1)
    exact = np.mean(np.abs(signs @ values) >= abs(values.sum()) - 1e-12)
    assert sign_flip_p(values) == pytest.approx(exact, abs=0.012)


def test_too_few_pairs_have_no_p() -> None:
    assert sign_flip_p([]) is None
    assert sign_flip_p([0.3]) is None
    assert sign_flip_p([0.1] * 5) == pytest.approx(2 / 32)


@pytest.mark.parametrize(("effect", "shown"), [(0.0, False), (0.3, False), (0.5, True), (0.8, True)])
def test_where_problems_matter_p_and_interval_agree(effect: float, shown: bool) -> None:
    a, b = arms(9, (30, 40), by_problem=1.0, effect=effect)
    found = contrast([accuracy(a), accuracy(b)], crossed=True)
    p, seeds_alone = paired_p(found), sign_flip_p(found.per_seed)
    assert found.by_problem
    assert p is not None
    assert seeds_alone is not None
    assert (p <= 0.05) is shown
    assert (seeds_alone <= 0.05) is (effect > 0), "seeds alone would show the 0.3, too"
    assert found.estimate is not None
    assert found.estimate.low is not None
    assert found.estimate.high is not None
    assert (found.estimate.low <= 0 <= found.estimate.high) is not shown


@pytest.mark.parametrize(("crossed", "by_problem"), [(False, 0.0), (True, 0.0), (True, 0.6)])
def test_intervals_hold_the_truth_and_the_test_its_level(crossed: bool, by_problem: float) -> None:
    held = rejected = 0
    for seed in range(200):
        a, b = arms(1000 + seed, (10, 40), by_problem)
        found = contrast([accuracy(a), accuracy(b)], crossed)
        assert found.estimate is not None
        assert found.estimate.low is not None
        assert found.estimate.high is not None
        held += found.estimate.low <= 0 <= found.estimate.high
        rejected += (paired_p(found) or 1) <= 0.05
    # Within three standard errors of 200 draws; the benchmark does 2,000 for each of many designs.
    assert 0.90 <= held / 200 <= 0.995
    assert 0.005 <= rejected / 200 <= 0.10


def test_problems_left_out_of_account_would_show_what_is_not_there() -> None:
    alone = counted = 0
    for seed in range(100):
        a, b = arms(2000 + seed, (11, 20), by_problem=1.2)
        found = contrast([accuracy(a), accuracy(b)], crossed=True)
        alone += (sign_flip_p(found.per_seed) or 1) <= 0.05
        counted += (paired_p(found) or 1) <= 0.05
    assert alone > 20  # far above 5 % of 100: seeds alone do not know how the problems fell
    assert counted < 13


def test_weighted_parts_are_the_contrast_of_their_sums() -> None:
    (a, b), (c, d) = arms(3, (12, 30), by_problem=0.8), arms(4, (12, 30), by_problem=0.8)
    parts = [accuracy(one) for one in (a, b, c, d)]
    found = contrast(parts, True, [1.0, -1.0, -1.0, 1.0])  # an interaction: the difference of two differences
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx((a - b - c + d).mean())
    halves = contrast(parts, True, [0.5, -0.5, 0.5, -0.5])
    assert halves.estimate is not None
    assert halves.estimate.value == pytest.approx(((a + c) / 2 - (b + d) / 2).mean())
    alone, twice = contrast([accuracy(a), accuracy(b)], True), contrast([*parts[:2], *parts[:2]], True, [0.5, -0.5] * 2)
    assert alone.error == pytest.approx(twice.error)
    assert alone.df == pytest.approx(twice.df)
    assert paired_p(alone) == paired_p(twice)


def test_every_part_has_its_weight() -> None:
    with pytest.raises(ValueError, match="longer"):
        contrast([accuracy(np.ones((2, 3)))] * 2, True, [1.0])


def test_an_interval_ends_where_weighted_scores_do() -> None:
    rng = np.random.default_rng(5)
    parts = [accuracy((rng.random((3, 4)) < chance).astype(float)) for chance in (0.9, 0.1, 0.1, 0.9)]
    found = contrast(parts, False, [1.0, -1.0, -1.0, 1.0]).estimate
    assert found is not None
    assert found.high == 2.0


def f1_scores(right: Array, positive: Array, *, stratified: bool) -> Scores:
    """F1 of answers that are all positive or negative."""
    hits = 2.0 * (right * positive)
    strata = strata_of(positive) if stratified else None
    return Scores(hits[None], (hits + (1 - right))[None], np.ones((1, *right.shape), dtype=bool), strata)


def test_a_balance_by_design_is_not_drawn_anew() -> None:
    right, _ = arms(6, (20, 60))
    positive = np.arange(60) % 2 == 0
    free, fixed = (contrast([f1_scores(right, positive, stratified=one)], True) for one in (False, True))
    assert free.error is not None
    assert fixed.error is not None
    assert fixed.error < free.error
    assert fixed.estimate is not None
    assert free.estimate is not None
    assert fixed.estimate.value == free.estimate.value


def test_strata_are_of_balanced_labels_alone() -> None:
    assert strata_of(np.array([True, False] * 10)) is not None
    assert strata_of(np.array([True] * 6 + [False] * 5)) is not None
    assert strata_of(np.array([True] * 7 + [False] * 5)) is None
    assert strata_of(np.array([True, False])) is None
