"""A study's results in memory: the conditions that were compared, and what came of each run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lbt_sim.study.record import RunResult

__all__ = ["Condition", "StudyResults"]


@dataclass(frozen=True, slots=True)
class Condition:
    """What is compared: an arm at given levels of the factors; run once with each seed.

    Attributes:
        name: `diverse`, or with factors `diverse/exam=12`. Unique in the study.
        arm: The arm; '' in a study that has factors alone.
        levels: Factor -> the name of its level.
        title: A few words for people: what is special about it.
    """

    name: str
    arm: str
    levels: Mapping[str, str] = field(default_factory=dict)
    title: str = ""


@dataclass(frozen=True)
class StudyResults:
    """Everything that statistics and reports are made from.

    Attributes:
        folder: The study folder.
        name: The study's name.
        title: Its title: the question.
        description: What it is about.
        conditions: In the study's order.
        seeds: All planned seeds.
        comparisons: (a, b): a minus b is asked for; the first is the study's main question.
        metric: What is compared.
        outcome: `last`: the score after the last round; `area`: the mean over
            the rounds from 1 on.
        runs: (condition, seed) -> result, of the runs that were begun and came to an end; the others are missing.
        smallest_effect: The smallest difference that matters, as a share; None where the study does not say.
        differs: (a, b) -> in what the two differ, in words: `students`, `feedback`.
        equal_compute: Whether every condition was to give as many answers.
        planned: Whether every condition was to be run with every seed: not so of runs that were put together.
        notes: What the plan had to say: where equal compute could not be had, and by how much.
        facts: How it was made, for the report's last section: `command`, `lbt_sim`, `python`, `created`, `engines`…
    """

    folder: Path
    name: str
    title: str
    description: str
    conditions: tuple[Condition, ...]
    seeds: tuple[int, ...]
    comparisons: tuple[tuple[str, str], ...]
    metric: Literal["accuracy", "f1"]
    outcome: Literal["last", "area"]
    runs: Mapping[tuple[str, int], RunResult]
    smallest_effect: float | None = None
    differs: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    equal_compute: bool = False
    planned: bool = True
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def condition(self, name: str) -> Condition:
        """The condition of that name."""
        return next(one for one in self.conditions if one.name == name)
