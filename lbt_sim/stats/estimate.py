"""An estimate with its interval, and of how many it is."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Estimate"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure that is never told without its interval, what that interval is, and what it was computed from.

    Attributes:
        value: The point estimate.
        low: Lower end of the interval; None where there is too little to say.
        high: Upper end.
        method: How the interval was made, in words: `cluster bootstrap over seeds and problems`.
        seeds: How many seeds went into it.
        problems: How many problems; 0 where the figure is not one over problems.
        level: The interval's confidence level.
    """

    value: float
    low: float | None
    high: float | None
    method: str
    seeds: int
    problems: int = 0
    level: float = 0.95
