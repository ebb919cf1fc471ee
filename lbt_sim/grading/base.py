"""Grades: what became of an answer. Wrong is not broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from lbt_sim.models.base import Reply
from lbt_sim.tasks.base import Problem

__all__ = ["OUTCOMES", "Grade", "Grader", "Outcome"]

Outcome = Literal["correct", "wrong", "invalid", "truncated", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("correct", "wrong", "invalid", "truncated", "failed")


@dataclass(frozen=True, slots=True)
class Grade:
    """The outcome of one answer.

    Attributes:
        outcome: `invalid`: nothing could be read from the reply; `truncated`: cut off before an answer could
            be read; `failed`: the call gave up. None of them is a wrong answer, none is silently a zero.
        answer: The answer that was read (a label, a number as text, …), None where none could be.
        read_from: What it was read from: 'logprobs', 'text', 'judge', or '' where nothing was read.
    """

    outcome: Outcome
    answer: str | None = None
    read_from: str = ""


class Grader(Protocol):
    """Reads answers from replies and compares them with the right ones.

    `choices` are the labels to constrain an answer to (empty for open answers). `grade` keeps the order.
    """

    choices: tuple[str, ...]

    async def grade(self, answers: Sequence[tuple[Problem, Reply]]) -> list[Grade]:
        """Grades, in the order of `answers`."""
        ...

    async def close(self) -> None:
        """Ends whatever it started."""
        ...
