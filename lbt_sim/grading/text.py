"""Graders that read text: exact answers, and what all of them share: reply in, grade out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lbt_sim.grading.base import Grade
from lbt_sim.models.base import Reply
from lbt_sim.tasks.base import Problem
from lbt_sim.tasks.split import normalise

__all__ = ["ExactGrader", "TextGrader", "clipped", "marked"]

LONGEST = 20_000
"""Characters of a reply that are read: a runaway reply of megabytes costs no more than a long one."""

KEPT = 500
"""Characters of an answer that a grade keeps."""

_MARKER = re.compile(r"(?:####|\b(?:final\s+)?answer\b[\s*_`]*(?:\bis\b\s*:?|[:=]))[\s*_`]*", re.IGNORECASE)


def clipped(text: str) -> str:
    """The part of a reply that is read: all of it, or the beginning and the end of a very long one."""
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST // 2]}\n{text[-LONGEST // 2 :]}"


def marked(text: str) -> list[str]:
    """What follows each marker of a final answer ('Answer:', 'the answer is', '####'), last marker first."""
    # Most replies have none, and a search for a word is far cheaper than one for a pattern.
    if "####" not in text and "answer" not in text.casefold():
        return []
    return [text[match.end() :] for match in _MARKER.finditer(text)][::-1]


@dataclass(slots=True)
class TextGrader:
    """Grades by reading and comparing text; `read` and `same` say how.

    Attributes:
        read: Reply text and whether it was cut off -> the answer, None where none can be read.
        same: Whether an answer that was read (first) is the right one (second).
    """

    read: Callable[[str, bool], str | None]
    same: Callable[[str, str], bool]
    choices: tuple[str, ...] = ()

    async def grade(self, answers: Sequence[tuple[Problem, Reply]]) -> list[Grade]:
        """Grade each answer; the order is kept."""
        return [self._grade(problem, reply) for problem, reply in answers]

    async def close(self) -> None:
        """Nothing is held open."""

    def _grade(self, problem: Problem, reply: Reply) -> Grade:
        if reply.finish == "failed":
            return Grade("failed")
        cut = reply.finish == "length"
        answer = self.read(clipped(reply.text), cut)
        if answer is None:
            return Grade("truncated" if cut else "invalid")
        return Grade("correct" if self.same(answer, problem.answer) else "wrong", answer[:KEPT], "text")


def ExactGrader() -> TextGrader:  # noqa: N802
    """Right is what equals the answer: case, white space, and punctuation at the ends do not count."""
    return TextGrader(_whole, lambda found, right: normalise(found) == normalise(right))


def _whole(text: str, cut: bool) -> str | None:
    """The whole reply, or what follows its last 'Answer:'; a reply that was cut off has not said its answer."""
    answer = next((rest.strip() for rest in marked(text)), text.strip())
    return None if cut or not normalise(answer) else answer
