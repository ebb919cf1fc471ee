"""Statistics against published values and closed forms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbt_sim.stats import bootstrap_mean, f1_interval, f1_score, wilson_interval


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_has_the_published_values(correct: int, n: int, low: float, high: float) -> None:
    interval = wilson_interval(correct, n)
    assert interval == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_holds_the_proportion_and_mirrors(row: tuple[int, int]) -> None:
    correct, n = row
    interval, mirrored = wilson_interval(correct, n), wilson_interval(n - correct, n)
    assert interval is not None
    assert mirrored is not None
    low, high = interval
    assert 0 <= low <= correct / n <= high <= 1
    assert (low, high) == (pytest.approx(1 - mirrored[1]), pytest.approx(1 - mirrored[0]))


def test_no_answers_have_no_interval() -> None:
    assert wilson_interval(0, 0) is None


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_f1_is_the_harmonic_mean_of_precision_and_recall(pairs: list[tuple[bool, bool]]) -> None:
    said, right = [s for s, _ in pairs], [r for _, r in pairs]
    score = f1_score(said, right)
    if not any(said) and not any(right):
        assert score is None
        return
    hits = sum(s and r for s, r in pairs)
    precision, recall = hits / sum(said) if any(said) else 0.0, hits / sum(right) if any(right) else 0.0
    expected = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    assert score == pytest.approx(expected)


def test_f1_is_undefined_where_nothing_is_positive() -> None:
    assert f1_score([False, False], [False, False]) is None
    assert f1_score([], []) is None
    assert f1_interval([False], [False]) is None
    assert f1_score([True, False], [False, False]) == 0.0


def test_always_yes_on_a_share_of_positives_has_the_closed_form() -> None:
    for positives, n in ((542, 1000), (100, 1000), (1, 2)):
        share = positives / n
        right = [number < positives for number in range(n)]
        assert f1_score([True] * n, right) == pytest.approx(2 * share / (1 + share))


def test_the_f1_interval_is_seeded_and_holds_the_score() -> None:
    right = [number % 2 == 0 for number in range(200)]
    said = [value if number % 5 else not value for number, value in enumerate(right)]
    interval = f1_interval(said, right, seed=1)
    assert interval == f1_interval(said, right, seed=1)
    assert interval is not None
    assert interval[0] < f1_score(said, right) < interval[1]  # type: ignore[operator]
    # About as wide as a proportion of 0.8 among 200: ±5.5 points.
    assert 0.06 < interval[1] - interval[0] < 0.16


def test_a_perfect_score_has_no_width() -> None:
    assert f1_interval([True, False], [True, False]) == (1.0, 1.0)


def test_the_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    values = [number % 10 / 10 for number in range(400)]
    low, high = bootstrap_mean(values, seed=3)
    mean, deviation = 0.45, 0.2872
    half = 1.96 * deviation / 20
    assert low == pytest.approx(mean - half, abs=0.006)
    assert high == pytest.approx(mean + half, abs=0.006)
    assert bootstrap_mean(values, seed=3) == (low, high)
