"""Scores of one report: accuracy, F1 and their 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["bootstrap_mean", "f1_interval", "f1_score", "wilson_interval"]

_Z = 1.959963984540054
RESAMPLES = 2_000


def wilson_interval(correct: int, n: int) -> tuple[float, float] | None:
    """Wilson's 95 % score interval of a proportion (1927); None for n = 0."""
    if n == 0:
        return None
    p = correct / n
    centre = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    # At the ends the bound is exact; rounding would leave it a hair inside.
    return (max(0.0, centre - half) if correct else 0.0), (min(1.0, centre + half) if correct < n else 1.0)


def f1_score(said: Sequence[bool], right: Sequence[bool]) -> float | None:
    """F1 of the positive class; None where it is undefined (nothing positive, said or right)."""
    hits = sum(s and r for s, r in zip(said, right, strict=True))
    errors = sum(s != r for s, r in zip(said, right, strict=True))
    return 2 * hits / (2 * hits + errors) if hits + errors else None


def f1_interval(said: Sequence[bool], right: Sequence[bool], seed: int = 0) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval of F1 over problems (2,000 resamples, seeded)."""
    if f1_score(said, right) is None:
        return None
    a, b = np.asarray(said, dtype=bool), np.asarray(right, dtype=bool)
    picks = np.random.default_rng(seed).integers(0, len(a), size=(RESAMPLES, len(a)))
    hits = (a & b)[picks].sum(axis=1)
    errors = (a != b)[picks].sum(axis=1)
    defined = hits + errors > 0
    scores = 2 * hits[defined] / (2 * hits[defined] + errors[defined])
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean over independent values (2,000 resamples, seeded)."""
    array = np.asarray(values, dtype=float)
    picks = np.random.default_rng(seed).integers(0, len(array), size=(RESAMPLES, len(array)))
    low, high = np.percentile(array[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
