"""Grades labels: read from log-probabilities where the engine gives them and they say something, else from the text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from lbt_sim.grading.base import Grade
from lbt_sim.grading.text import clipped, marked
from lbt_sim.models.base import Reply
from lbt_sim.models.labels import LEAST_MASS, mass
from lbt_sim.tasks.base import Problem

__all__ = ["LabelGrader"]

_MARKS = re.compile(r"[*_`~\"“”„»«]+")
_NEGATED = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot|isn't|isn’t)\b)(?:\s+(?:a|an|the|at all|really|clearly))?\s*$"
)
_JOINS = re.compile(r"^[\s,;/|&-]*(?:(?:and|or|but|and/or)\b)?[\s,]*")
_STOPS = re.compile(r"^\s*(?:$|[.,:;!)\n–—-])")
_ALONE = re.compile(r"^[\s#>.\-(\[]*|[\s.!)\]]*$")


@dataclass(slots=True)
class LabelGrader:
    """Reads one of the task's labels.

    From log-probabilities: the likeliest label; of equally likely ones the first in the task's order. They are passed
    over where the reply was drawn (the answer is what was drawn, however unlikely) and where the labels together have
    less than `LEAST_MASS`.

    From text: the label that it is; else, in this order, each a whole word whatever its case, the longest label first
    ('true' does not hide in 'mostly true'):

    1. the label right after the last 'Answer:' or 'the answer is';
    2. a label alone on the first or the last line, or at the very beginning and followed by a stop ('No. There
       is …'); where beginning and end differ, the reply is invalid;
    3. the only label that is named at all. 'not positive' names nothing, and two labels are invalid.
    """

    choices: tuple[str, ...]
    _label: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _spelt: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        longest_first = sorted({_folded(label) for label in self.choices}, key=len, reverse=True)
        either = "|".join(re.escape(label).replace(r"\ ", r"\s+") for label in longest_first)
        self._label = re.compile(rf"(?<!\w)(?:{either})(?!\w)")
        self._spelt = {_folded(label): label for label in self.choices}

    async def grade(self, answers: Sequence[tuple[Problem, Reply]]) -> list[Grade]:
        """Grade each answer; the order is kept."""
        return [self._grade(problem, reply) for problem, reply in answers]

    async def close(self) -> None:
        """Nothing is held open."""

    def _grade(self, problem: Problem, reply: Reply) -> Grade:
        if reply.finish == "failed":
            return Grade("failed")
        answer, source = self._likeliest(reply), "logprobs"
        if answer is None:
            answer, source = self.read(reply.text), "text"
        if answer is None:
            return Grade("truncated" if reply.finish == "length" else "invalid")
        return Grade("correct" if answer == problem.answer else "wrong", answer, source)

    def _likeliest(self, reply: Reply) -> str | None:
        logprobs = reply.choice_logprobs or ()
        if reply.drawn or mass(logprobs) < LEAST_MASS:
            return None
        best, likeliest = -math.inf, None
        for label, logprob in zip(self.choices, logprobs, strict=False):
            # NaN compares false, and minus infinity is nobody's answer: neither is ever the best.
            if logprob is not None and logprob > best:
                best, likeliest = logprob, label
        return likeliest

    def read(self, text: str) -> str | None:
        """The label that `text` answers with, None where it is none or not clear."""
        if text in self.choices:  # as an engine picks it; what stands in a label may look like a mark to strip
            return text
        clean = _MARKS.sub("", clipped(text)).casefold().strip()
        for rest in marked(clean):
            if (label := self._leading(rest)) is not None:
                return label
        lines = clean.splitlines()
        if lines:
            first, last = self._alone(lines[0]) or self._leading(clean, stopped=True), self._alone(lines[-1])
            if first and last and first != last:
                return None
            if first or last:
                return first or last
        named = {
            self._name(match) for match in self._label.finditer(clean) if not _NEGATED.search(clean[: match.start()])
        }
        return named.pop() if len(named) == 1 else None

    def _name(self, match: re.Match[str]) -> str:
        return self._spelt[_folded(match[0])]

    def _alone(self, line: str) -> str | None:
        match = self._label.fullmatch(_ALONE.sub("", line))
        return None if match is None else self._name(match)

    def _leading(self, text: str, *, stopped: bool = False) -> str | None:
        """The label `text` begins with, unless another one follows at once ('Yes and no')."""
        start = re.match(r"[\s#>(\[]*", text)
        match = self._label.match(text, start.end() if start else 0)
        if match is None or (stopped and not _STOPS.match(text[match.end() :])):
            return None
        rest = text[match.end() :].lstrip(" .,:;!)")
        joined = _JOINS.match(rest)
        other = self._label.match(rest, joined.end() if joined else 0)
        return self._name(match) if other is None or self._name(other) == self._name(match) else None


def _folded(label: str) -> str:
    return " ".join(label.casefold().split())
