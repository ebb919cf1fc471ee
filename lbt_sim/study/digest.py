"""From a run folder to its record: what a study keeps of a run, derived from the run's own ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from lbt_sim.errors import InputError
from lbt_sim.grading.base import OUTCOMES
from lbt_sim.stats.diversity import diversity
from lbt_sim.study.record import ExamRecord, RoundRecord, RunResult, StudentExam
from lbt_sim.transcript.read import RunRecord

__all__ = ["digest", "problem_name"]

_LETTERS: Mapping[str, str] = {outcome[0]: outcome for outcome in OUTCOMES}
_ANSWERING = ("answer", "judge", "count")
"""Purposes of calls that write nothing: answers, judgements, and calls that only count tokens."""


def digest(
    folder: Path, condition: str, seed: int, relative: str, status: Literal["done", "failed"], error: str | None = None
) -> RunResult:
    """What is kept of a run.

    Args:
        folder: The run folder.
        condition: Its condition.
        seed: Its seed.
        relative: The folder as it is called in the study's.
        status: How it ended.
        error: Why it failed.
    """
    try:
        record = RunRecord(folder)
    except InputError:
        return RunResult(condition, seed, relative, status, error)  # it stopped before it asked anything
    with record:
        held_out = record.held_out
        positive = (record.run.get("task") or {}).get("positive")
        questions, answers = held_out.get("questions", []), held_out.get("answers", [])
        rounds = tuple(_round(record, number, positive) for number in record.reports)
        exams = tuple(_exam(record, number) for number in record.exams)
        return RunResult(
            condition=condition,
            seed=seed,
            folder=relative,
            status=status,
            error=error,
            problems=tuple(map(problem_name, questions, answers)),
            positive=tuple(answer == positive for answer in answers) if positive is not None else (),
            families=tuple(held_out.get("families", ())),
            rounds=rounds,
            exams=tuple(exam for exam in exams if exam.students),
            counts=_counts(record),
            outcomes=_outcomes(rounds, exams),
        )


def problem_name(question: str, answer: str) -> str:
    """Stands for a problem's content, whatever it is called in its run."""
    return blake2b(f"{question}\x00{answer}".encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def _round(record: RunRecord, number: int, positive: str | None) -> RoundRecord:
    report = record.reports[number]
    told = record.reported(number)
    answers: Sequence[str | None] = told[0]["answers"] if told else ()
    train = report.get("train") or {}
    tried, kept = record.candidate_counts().get(number, (0, 0))
    return RoundRecord(
        round=number,
        material=report["material"],
        outcomes=told[0]["outcomes"] if told else "",
        said="".join(map(_said(positive), answers)) if positive is not None else "",
        accuracy=report["teacher"]["accuracy"],
        f1=report["teacher"]["f1"],
        train=train.get("score"),
        rescored=(train.get("rescored") or {}).get("score"),
        candidates=tried,
        kept=kept,
    )


def _said(positive: str | None) -> Any:
    return lambda answer: "-" if answer is None else "P" if answer == positive else "N"


def _exam(record: RunRecord, number: int) -> ExamRecord:
    """The exam of those who were taught with the best material."""
    data = record.exams[number]
    grades = record.grades(number)
    best = next(iter(record.taught(number)), None)
    sat = grades.get(best or "", [])
    families = tuple(data.get("families", ()))
    measured = diversity([(one["outcomes"], one["answers"]) for one in sat], data["answers"], families) if sat else {}
    students = tuple(StudentExam(one["student"], one["outcomes"]) for one in sat)
    return ExamRecord(number, tuple(data["items"]), families, students, _rounded(measured))


def _rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 9) for name, value in values.items()}


def _outcomes(rounds: Sequence[RoundRecord], exams: Sequence[ExamRecord]) -> dict[str, dict[str, int]]:
    letters = {
        "teacher": Counter("".join(one.outcomes for one in rounds)),
        "students": Counter("".join(student.outcomes for exam in exams for student in exam.students)),
    }
    return {who: {name: counted[letter] for letter, name in _LETTERS.items()} for who, counted in letters.items()}


def _counts(record: RunRecord) -> dict[str, int]:
    """Calls and tokens as if nothing was shared; `made` and `shared` beside them."""
    counts: Counter[str] = Counter()
    for purpose, stage, calls, shared, failed, prompt, completion in record.spent():
        if purpose == "count":
            continue
        counts["calls"] += calls
        counts["shared"] += shared
        counts["made"] += calls - shared
        counts["failed"] += failed
        counts["prompt_tokens"] += prompt
        counts["completion_tokens"] += completion
        if purpose == "answer" and stage in ("exam", "select", "report"):
            counts[f"{stage}_answers"] += calls
            counts["answers"] += calls
        if purpose not in _ANSWERING:
            counts["written"] += calls
            counts["generated_tokens"] += completion
    names = (
        "calls", "made", "shared", "failed", "answers", "exam_answers", "select_answers", "report_answers", "written",
        "prompt_tokens", "generated_tokens", "completion_tokens",
    )  # fmt: skip
    return {name: counts[name] for name in names}
