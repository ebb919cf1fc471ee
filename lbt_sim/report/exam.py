"""Exams as tables: single problems of one run, shares over the runs of a study."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lbt_sim.report.text import share_interval
from lbt_sim.study.record import RunResult
from lbt_sim.transcript.read import RunRecord

__all__ = ["ExamGrid", "GridRow", "Problem", "ShareCell", "ShareGrid", "exam_grids", "share_grid"]

Data = Mapping[str, Any]

_PROBLEMS, _STUDENTS = 96, 48
"""So many columns and rows of single answers are shown; the rest is counted."""
_SHARE_STUDENTS, _SHARE_ROUNDS = 16, 24


@dataclass(frozen=True, slots=True)
class GridRow:
    """One student's exam: a letter for each problem of the grid, and how many of all it got right."""

    student: str
    letters: str
    correct: int
    n: int
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of an exam: its id, its text, the right answer, and who answered what else."""

    item: str
    question: str
    right: str
    right_by: int
    of: int
    others: tuple[tuple[str, str, str], ...]
    """(outcome's letter, answer, students)."""


@dataclass(frozen=True, slots=True)
class ExamGrid:
    """A round's exam of those who were taught with one material, the hardest problems first.

    Attributes:
        round: The round.
        material: What they were taught with.
        set_by: Who set the exam.
        rows: In seat order.
        problems: The columns.
        more_students: How many rows are left out.
        more_problems: How many columns are left out.
    """

    round: int
    material: str
    set_by: str
    rows: tuple[GridRow, ...]
    problems: tuple[Problem, ...]
    more_students: int
    more_problems: int


@dataclass(frozen=True, slots=True)
class ShareCell:
    """Correct of how many exam answers, over all runs; how many of them were broken; Wilson's 95 % interval."""

    correct: int
    n: int
    broken: int
    low: float | None
    high: float | None

    @property
    def share(self) -> float | None:
        """Correct of what came back; None where nothing did."""
        return self.correct / self.n if self.n else None


@dataclass(frozen=True, slots=True)
class ShareGrid:
    """A condition's students by rounds.

    Attributes:
        condition: Its name.
        runs: How many runs went in.
        rounds: The columns.
        rows: (student, a cell for each round; None: no exam).
        more: How many students are left out.
    """

    condition: str
    runs: int
    rounds: tuple[int, ...]
    rows: tuple[tuple[str, tuple[ShareCell | None, ...]], ...]
    more: int


def exam_grids(record: RunRecord) -> list[ExamGrid]:
    """Each round's exam of those taught with the best material, as far as it was sat."""
    grids = []
    for number, exam in sorted(record.exams.items()):
        grades = record.grades(number)
        if grades:
            material, sat = next(iter(grades.items()))
            grids.append(_grid(number, material, exam, sat))
    return grids


def _grid(number: int, material: str, exam: Data, sat: Sequence[Data]) -> ExamGrid:
    items = [str(item) for item in exam["items"]]
    by_item = [dict(zip(map(str, data["items"]), data["outcomes"], strict=False)) for data in sat]
    order = sorted(range(len(items)), key=lambda at: (sum(letters.get(items[at]) == "c" for letters in by_item), at))
    shown = order[:_PROBLEMS]
    rows = []
    for data, letters in zip(sat[:_STUDENTS], by_item, strict=False):
        correct, n, interval = share_interval([data["outcomes"]])
        low, high = interval or (None, None)
        rows.append(
            GridRow(str(data["student"]), "".join(letters.get(items[at], "-") for at in shown), correct, n, low, high)
        )
    return ExamGrid(
        number,
        material,
        str(exam.get("set_by", "")),
        tuple(rows),
        tuple(_problem(exam, sat, at) for at in shown),
        max(0, len(sat) - _STUDENTS),
        max(0, len(items) - _PROBLEMS),
    )


def _problem(exam: Data, sat: Sequence[Data], at: int) -> Problem:
    item = exam["items"][at]
    groups: dict[tuple[str, str], list[str]] = {}
    right = of = 0
    for data in sat:
        if item not in data["items"]:
            continue
        place = data["items"].index(item)
        letter, answer = data["outcomes"][place], data["answers"][place]
        of += letter != "f"
        if letter == "c":
            right += 1
        else:
            groups.setdefault((letter, "nothing that could be read" if answer is None else str(answer)), []).append(
                str(data["student"])
            )
    others = tuple((letter, answer, _names(who)) for (letter, answer), who in groups.items())
    return Problem(str(item), str(exam["questions"][at]), str(exam["answers"][at]), right, of, others)


def _names(who: Sequence[str]) -> str:
    return ", ".join(who[:6]) + (f" and {len(who) - 6:,} more" if len(who) > 6 else "")


def share_grid(condition: str, runs: Iterable[RunResult]) -> ShareGrid | None:
    """A condition's exams added over its runs; None where none was sat."""
    cells: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0, 0])
    students: dict[str, None] = {}
    rounds: set[int] = set()
    seen = 0
    for run in runs:
        seen += bool(run.exams)
        for exam in run.exams:
            rounds.add(exam.round)
            for student in exam.students:
                students[student.student] = None
                cell, letters = cells[student.student, exam.round], student.outcomes
                cell[0] += letters.count("c")
                cell[1] += len(letters) - letters.count("f")
                cell[2] += sum(map(letters.count, "itf"))
    if not seen:
        return None
    columns = tuple(sorted(rounds)[:_SHARE_ROUNDS])
    rows = tuple(
        (name, tuple(_cell(cells[name, number]) if (name, number) in cells else None for number in columns))
        for name in list(students)[:_SHARE_STUDENTS]
    )
    return ShareGrid(condition, seen, columns, rows, max(0, len(students) - _SHARE_STUDENTS))


def _cell(counts: Sequence[int]) -> ShareCell:
    from lbt_sim.stats import wilson_interval

    low, high = wilson_interval(counts[0], counts[1]) or (None, None)
    return ShareCell(counts[0], counts[1], counts[2], low, high)
