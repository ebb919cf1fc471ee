"""Figures as people read them: scores as shares, differences in percentage points, p values, of how many."""

from __future__ import annotations

from lbt_sim.stats import Estimate

__all__ = ["interval_text", "of_how_many", "p_text", "points", "readable"]


def readable(value: float | None, digits: int = 2) -> str:
    """A score: `0.83`; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def points(value: float | None, *, signed: bool = True) -> str:
    """A difference of scores in percentage points: `+2.1`; a dash where there is none."""
    if value is None:
        return "–"
    shown = round(100 * value, 1) + 0.0  # a rounded loss of nothing is no loss
    text = f"{shown:+.1f}" if signed else f"{shown:.1f}"
    return text.replace("-", "−")


def p_text(value: float | None) -> str:
    """A p value: `0.034`, `< 0.001`; a dash where there is none."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def interval_text(low: float | None, high: float | None, *, in_points: bool = False, digits: int = 2) -> str:
    """`0.72 to 0.91`, or in points `−0.4 to +4.6`; `no interval` where there is too little to say."""
    if low is None or high is None:
        return "no interval"
    if in_points:
        return f"{points(low)} to {points(high)}"
    return f"{readable(low, digits)} to {readable(high, digits)}"


def of_how_many(estimate: Estimate) -> str:
    """What an estimate was computed from: `30 seeds, 200 problems`."""
    seeds = f"{estimate.seeds:,} seed{'' if estimate.seeds == 1 else 's'}"
    return f"{seeds}, {estimate.problems:,} problems" if estimate.problems else seeds
