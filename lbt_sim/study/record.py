"""What a study keeps of each run: its figures, answer by answer, without the transcript. All of it can be derived anew.

A record is a line of JSON in the study folder's `results.jsonl`. Outcomes are strings, a letter for each answer, in the
order of the problems: c(orrect), w(rong), i(nvalid), t(runcated), f(ailed: the call gave up, nobody's mistake).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["ExamRecord", "RoundRecord", "RunResult", "StudentExam"]


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """What was reported of a round: the teacher on the held-out problems.

    Attributes:
        round: From 0, the initial material.
        material: Id of the best material.
        outcomes: The first teacher's, a letter for each of the run's held-out `problems`.
        said: What it said where there is a positive label, for F1: P, N, or - (nothing readable); '' without labels.
        accuracy: Correct of what came back.
        f1: Of the positive class; None without one, or where it is undefined.
        train: The material's score on train problems when it was selected; None in round 0.
        rescored: Its score on train problems that nothing is selected on; None where it was not measured.
        candidates: Candidates tried.
        kept: How many new ones are in the beam.
    """

    round: int
    material: str
    outcomes: str
    said: str
    accuracy: float | None
    f1: float | None
    train: float | None = None
    rescored: float | None = None
    candidates: int = 0
    kept: int = 0


@dataclass(frozen=True, slots=True)
class StudentExam:
    """One student's exam: a letter for each item. What it answered is in the run's ledger."""

    student: str
    outcomes: str


@dataclass(frozen=True, slots=True)
class ExamRecord:
    """A round's exam, of those who were taught with the best material.

    Attributes:
        round: From 1.
        items: Problem ids.
        families: What kind of problem each is; '' where the task does not say.
        students: In seat order.
        diversity: Measure -> value over these students' answers; see `lbt_sim.stats.diversity`. Empty with fewer
            than two students.
    """

    round: int
    items: tuple[str, ...]
    families: tuple[str, ...]
    students: tuple[StudentExam, ...]
    diversity: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run of a study.

    Attributes:
        condition: The name of its condition: the arm, and the levels of the factors.
        seed: The run's seed.
        folder: The run folder, relative to the study's.
        status: `done`, or `failed` (it stopped; what it had answered is kept in its folder).
        error: Why it failed.
        problems: For each held-out problem a name that stands for its content: runs with equal `problems` were
            examined on the same ones. Several runs share most of them, so `results.jsonl` keeps each set once.
        positive: For each held-out problem whether its right answer is the positive label; empty without labels.
        families: For each held-out problem what kind it is; '' where the task does not say.
        rounds: Reported rounds, from 0.
        exams: The students' exams.
        counts: `calls` (asked for, whoever paid), `made` (paid by this run), `shared` (answered for another call or
            another run), `failed`, `answers` (by students and teachers, to exam, selection and report),
            `exam_answers`, `select_answers`, `report_answers`, `written` (calls that wrote something),
            `prompt_tokens`, `generated_tokens` (of calls that wrote), `completion_tokens` (of all), all counted as if
            nothing was shared.
        outcomes: Who -> outcome name -> how many answers, over all rounds: `teacher` (held out), `students` (exams).
    """

    condition: str
    seed: int
    folder: str
    status: Literal["done", "failed"]
    error: str | None = None
    problems: tuple[str, ...] = ()
    positive: tuple[bool, ...] = ()
    families: tuple[str, ...] = ()
    rounds: tuple[RoundRecord, ...] = ()
    exams: tuple[ExamRecord, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def as_data(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> RunResult:
        """From JSON.

        Raises:
            ValueError, KeyError, TypeError: It is no record.
        """
        if data["status"] not in ("done", "failed"):
            raise ValueError("it neither ended nor failed")
        return RunResult(
            **{
                **data,
                "problems": tuple(data["problems"]),
                "positive": tuple(data["positive"]),
                "families": tuple(data["families"]),
                "rounds": tuple(RoundRecord(**row) for row in data["rounds"]),
                "exams": tuple(_exam(row) for row in data["exams"]),
                "counts": dict(data["counts"]),
                "outcomes": dict(data["outcomes"]),
            }
        )


def _exam(row: Mapping[str, Any]) -> ExamRecord:
    students = tuple(StudentExam(**one) for one in row["students"])
    return ExamRecord(row["round"], tuple(row["items"]), tuple(row["families"]), students, dict(row["diversity"]))
