"""How different students are, measured on one exam.

Measures of pairs and of the cohort after Kuncheva and Whitaker, Measures of diversity in classifier ensembles and
their relationship with the ensemble accuracy, Machine Learning 51 (2003), 181-207, here of students in place of
classifiers. A failed call (letter f) is nobody's mistake: it is left out of the pairs it would be in, never counted as
wrong. What is undefined, such as a correlation with a student who got everything right, is None, never 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from types import MappingProxyType

__all__ = ["MEASURES", "diversity"]

MEASURES: Mapping[str, str] = MappingProxyType(
    {
        "disagreement": "share of problems that one of two students gets right and the other does not; mean over pairs",
        "answer_disagreement": "share of problems that two students answer differently; mean over pairs",
        "error_correlation": "correlation (phi) of two students' correctness; mean over the pairs that have one",
        "q_statistic": "Yule's Q of two students' correctness (-1 to 1); mean over the pairs that have one",
        "double_fault": "share of problems that two students both miss; mean over pairs",
        "answer_entropy": "entropy of the students' answers to a problem, as a share of the largest possible "
        "(0 all alike, 1 all different); mean over problems",
        "any_right": "share of problems that at least one student gets right",
        "mean_right": "share of problems that the mean student gets right, over the same problems as any_right",
        "failure_coverage": "kinds of mistakes (family, right answer, given answer) that were made, as a share of the "
        "most that these students could have made on this exam",
    }
)
"""Measure -> what it is, in a line."""

Student = tuple[str, Sequence[str | None]]
"""Outcome letters (c, w, i, t, f), and what was answered; None where nothing was readable."""

Table = tuple[int, int, int, int]
"""Of two students over the problems that both came back from: both right, first only, second only, neither."""


def diversity(
    students: Sequence[Student], right: Sequence[str], families: Sequence[str] = ()
) -> dict[str, float | None]:
    """Every one of `MEASURES` for one exam.

    Args:
        students: For each student the outcome letters and the answers, one for each problem.
        right: The right answers.
        families: What kind of problem each is; '' or nothing at all where that is not known.

    Returns:
        Measure -> value; None where it is undefined. Measures of pairs are undefined with fewer than two students.

    Raises:
        ValueError: Lengths differ.
    """
    families = tuple(families) or ("",) * len(right)
    lengths = {len(right), len(families), *(len(part) for student in students for part in student)}
    if len(lengths) > 1:
        raise ValueError(f"outcomes, answers, right answers and families differ in length: {sorted(lengths)}")
    read = [_read(student, right) for student in students]
    tables = [_table(a[0], b[0]) for a, b in combinations(students, 2)]
    return {
        "disagreement": _mean_of(tables, lambda n11, n10, n01, n00: _share(n10 + n01, n11 + n10 + n01 + n00)),
        "answer_disagreement": _mean([_differ(a, b) for a, b in combinations(read, 2)]),
        "error_correlation": _mean_of(tables, _phi),
        "q_statistic": _mean_of(
            tables, lambda n11, n10, n01, n00: _share(n11 * n00 - n10 * n01, n11 * n00 + n10 * n01)
        ),
        "double_fault": _mean_of(tables, lambda n11, n10, n01, n00: _share(n00, n11 + n10 + n01 + n00)),
        "answer_entropy": _mean([_entropy([answers[item] for answers in read]) for item in range(len(right))]),
        **_right(students),
        "failure_coverage": _coverage(students, right, families),
    }


def _read(student: Student, right: Sequence[str]) -> list[str | None]:
    # Right answers may be written in several ways (7, 7.0): as answers they are one.
    outcomes, answers = student
    rows = zip(outcomes, answers, right, strict=True)
    return [None if letter == "f" else correct if letter == "c" else answer for letter, answer, correct in rows]


def _table(a: str, b: str) -> Table:
    cells = Counter((x == "c", y == "c") for x, y in zip(a, b, strict=True) if "f" not in (x, y))
    return cells[True, True], cells[True, False], cells[False, True], cells[False, False]


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None


def _mean_of(tables: Sequence[Table], measure: Callable[[int, int, int, int], float | None]) -> float | None:
    return _mean([measure(*table) for table in tables])


def _phi(n11: int, n10: int, n01: int, n00: int) -> float | None:
    product = (n11 + n10) * (n01 + n00) * (n11 + n01) * (n10 + n00)
    return (n11 * n00 - n10 * n01) / math.sqrt(product) if product else None


def _differ(a: Sequence[str | None], b: Sequence[str | None]) -> float | None:
    both = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    return _share(sum(x != y for x, y in both), len(both))


def _entropy(answers: Sequence[str | None]) -> float | None:
    counts = Counter(answer for answer in answers if answer is not None)
    total = counts.total()
    if total < 2:
        return None
    return math.fsum(n / total * math.log(total / n) for n in counts.values()) / math.log(total)


def _right(students: Sequence[Student]) -> dict[str, float | None]:
    # A problem that a call failed on could have been got right: only those that all came back from are counted.
    columns = [column for column in zip(*(letters for letters, _ in students), strict=True) if "f" not in column]
    if not columns:
        return {"any_right": None, "mean_right": None}
    return {
        "any_right": sum("c" in column for column in columns) / len(columns),
        "mean_right": sum(column.count("c") for column in columns) / (len(columns) * len(students)),
    }


def _coverage(students: Sequence[Student], right: Sequence[str], families: Sequence[str]) -> float | None:
    # The most possible: in each group of problems that share family and right answer, no more kinds than answers that
    # came back, and no more than there are other answers in the exam (right to another problem, or given by someone).
    made: set[tuple[str, str, str]] = set()
    came_back: Counter[tuple[str, str]] = Counter()
    vocabulary = set(right)
    for student in students:
        for letter, answer, correct, family in zip(student[0], _read(student, right), right, families, strict=True):
            came_back[family, correct] += letter != "f"
            if letter == "w" and answer is not None:
                made.add((family, correct, answer))
                vocabulary.add(answer)
    return _share(len(made), sum(min(n, len(vocabulary) - 1) for n in came_back.values()))
