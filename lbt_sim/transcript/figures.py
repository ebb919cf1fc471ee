"""Figures in words and small pictures: shares, counts, durations, bars, sparklines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from lbt_sim.transcript.theme import UNICODE, Look

__all__ = ["bar", "broken", "count", "duration", "half_width", "interval", "plural", "score", "share", "sparkline"]

_LEAST_SPAN = 0.2
"""A curve's height stands for at least this much, so that noise of a point or two is not drawn as a leap."""

_BROKEN = {"invalid": "i", "truncated": "t", "failed": "f"}


def share(value: float | None, n: int | None = None, *, look: Look = UNICODE) -> str:
    """An accuracy or F1: `0.83`, with a third digit where `n` problems can carry one, a dash where there is none."""
    if value is None:
        return look.glyph("dash")
    return f"{value:.3f}" if n is not None and n >= 1000 else f"{value:.2f}"


def score(letters: str) -> tuple[int, int]:
    """(correct, of how many) of an exam: calls that gave up are nobody's mistake and are left out, as in a report.

    Args:
        letters: A letter for each answer; see `theme.OUTCOMES`.
    """
    return letters.count("c"), len(letters) - letters.count("f")


def count(number: float) -> str:
    """A count with thousands separators; from a million on, in millions."""
    return f"{number:,.0f}" if number < 1e6 else f"{number / 1e6:,.2f} M"


def plural(number: int, noun: str) -> str:
    """`1 call`, `2 calls`."""
    return f"{count(number)} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Seconds in words: `0.4 s`, `41 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def interval(teacher: Mapping[str, Any], metric: str = "accuracy") -> tuple[float, float] | None:
    """The 95 % interval of a report's metric, None where it has none."""
    found = (teacher.get("ci95") or {}).get(metric)
    if not found or None in found:
        return None
    return float(found[0]), float(found[1])


def half_width(teacher: Mapping[str, Any], metric: str = "accuracy") -> float | None:
    """Half the width of the 95 % interval."""
    found = interval(teacher, metric)
    return None if found is None else (found[1] - found[0]) / 2


def broken(outcomes: Mapping[str, Any] | str, look: Look = UNICODE) -> Text:
    """What is neither right nor wrong, in short: `2! 1✗`; empty where all is well.

    Args:
        outcomes: Counts by name, or a letter for each answer.
        look: What the terminal can show.
    """
    row = Text(no_wrap=True)
    for name, letter in _BROKEN.items():
        number = outcomes.count(letter) if isinstance(outcomes, str) else int(outcomes.get(name) or 0)
        if number:
            row.append(" " if row else "").append(str(number), f"lbt.{name}").append_text(look.mark(letter))
    return row


def bar(fraction: float, width: int, look: Look = UNICODE, style: str = "lbt.bar") -> Text:
    """A bar of `width` cells, filled by `fraction`."""
    filled = round(min(max(fraction, 0.0), 1.0) * width)
    row = Text(no_wrap=True).append(look.glyph("full") * filled, style)
    return row.append(look.glyph("empty") * (width - filled), "lbt.unanswered")


def sparkline(values: Sequence[float | None], look: Look = UNICODE, *, scale: tuple[float, float] | None = None) -> str:
    """A step for each value; a space where there is none.

    Args:
        values: What to draw.
        look: What the terminal can show.
        scale: The values of the lowest and the highest step; by default the values' own range, at least 0.2.
    """
    there = [value for value in values if value is not None]
    if not there:
        return " " * len(values)
    low, high = scale or (min(there), max(max(there), min(there) + _LEAST_SPAN))
    steps = look.glyph("steps")
    top = len(steps) - 1
    return "".join(
        " " if value is None else steps[min(max(round((value - low) / (high - low) * top), 0), top)] for value in values
    )
