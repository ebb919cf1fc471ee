"""The rows that one run gives to each table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbt_sim.errors import InputError
from lbt_sim.grading.base import OUTCOMES
from lbt_sim.report.table_schema import COUNTS, LEVEL
from lbt_sim.study.digest import problem_name
from lbt_sim.study.record import RunResult
from lbt_sim.study.results import Condition
from lbt_sim.transcript.read import RunRecord

__all__ = ["Block", "RunOf", "blocks_of"]

Data = Mapping[str, Any]

_NAMES = {outcome[0]: outcome for outcome in OUTCOMES}
_SAID = {"P": True, "N": False}


@dataclass(frozen=True, slots=True)
class RunOf:
    """A run whose rows are wanted.

    Attributes:
        name: What `run` is.
        condition: Its condition; None for a run alone.
        seed: Its seed, where that is known.
        status: As `runs` has it.
        folder: Its folder.
        result: What is kept of it; None where nothing is.
    """

    name: str
    condition: Condition | None
    seed: int | None
    status: str
    folder: Path
    result: RunResult | None


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one table.

    Attributes:
        table: Its name.
        rows: How many.
        columns: Name -> a list with a value for each row, or the one value that all have. A list is never a value.
    """

    table: str
    rows: int
    columns: Data


def blocks_of(run: RunOf, known: set[str]) -> Iterator[Block]:
    """All rows of a run.

    Args:
        run: The run.
        known: Problems that `problems` has; those of this run are added.
    """
    whose: dict[str, Any] = {
        "run": run.name,
        "condition": run.condition.name if run.condition else None,
        "seed": run.seed,
    }
    found: list[Block] | None = None
    about: dict[str, Any] = {}
    if run.status != "missing":
        try:
            with RunRecord(run.folder) as record:
                about = _about(record)
                found = [*_recorded(record), *_problems(record, known)]
        except InputError:  # it asked nothing, or its ledger is gone or damaged: `ledger` tells
            found = None
    yield Block("runs", 1, {**whose, **_run(run), **about, "ledger": found is not None})
    if found is None:
        found = list(_kept(run.result)) if run.result is not None else []
    if run.result is not None:
        found += _diversity(run.result)
    for block in found:
        if block.rows:
            yield block if block.table == "problems" else Block(block.table, block.rows, {**whose, **block.columns})


# --- the run as a whole -------------------------------------------------------------------------------------


def _run(run: RunOf) -> dict[str, Any]:
    """What the study knows of a run."""
    row: dict[str, Any] = {"status": run.status}
    if run.condition is not None:
        row["arm"] = run.condition.arm or None
        row |= {f"{LEVEL}{factor}": level for factor, level in run.condition.levels.items()}
    if run.result is None:
        return row
    row["error"] = run.result.error
    row["reported_rounds"] = len(run.result.rounds)
    row |= {name: run.result.counts.get(name) for name in COUNTS}
    for who, counts in run.result.outcomes.items():
        row |= {f"{who}_{outcome}": counts.get(outcome) for outcome in OUTCOMES}
    return row


def _about(record: RunRecord) -> dict[str, Any]:
    """What the run says of itself."""
    run = record.run
    roles = [seat["role"] for seat in run.get("seats", ())]
    return {
        "title": run.get("title"),
        "task": (run.get("task") or {}).get("name"),
        "method": run.get("method"),
        "planned_rounds": run.get("rounds"),
        "students": roles.count("student") if roles else None,
        "teachers": roles.count("teacher") if roles else None,
    }


# --- from the ledger ----------------------------------------------------------------------------------------


def _recorded(record: RunRecord) -> Iterator[Block]:
    for number in record.reports:
        yield from _round(record, number)
    for number in record.exams:
        yield from _exam(record, number)
    yield _materials(record)
    for number in record.selections:
        yield _standings(record, number)
    yield from _candidates(record)
    yield _calls(record)


def _round(record: RunRecord, number: int) -> Iterator[Block]:
    """A round's report, of each teacher, with the answers."""
    report = record.reports[number]
    train, selection = report.get("train") or {}, record.selections.get(number)
    tried, kept = record.candidate_counts().get(number, (None, None))
    shared = {
        "round": number,
        "material": report["material"],
        "train": train.get("score"),
        "train_n": train.get("n"),
        "rescored": (train.get("rescored") or {}).get("score"),
        "rescored_n": (train.get("rescored") or {}).get("n"),
        "metric": selection["metric"] if selection is not None and train else None,
        "candidates": tried,
        "kept": kept,
    }
    for place, told in enumerate(record.reported(number)):
        who = {"teacher": told["teacher"], "teacher_number": place}
        score = report.get("teachers", {}).get(told["teacher"], report["teacher"])
        yield Block("rounds", 1, {**shared, **who, **_score(score)})
        yield _answers(record, told, {"round": number, **who})


def _score(score: Data) -> dict[str, Any]:
    row: dict[str, Any] = {"n": score["n"], **score["outcomes"]}
    for name in ("accuracy", "f1"):
        low, high = score["ci95"][name] or (None, None)
        row |= {name: score[name], f"{name}_low": low, f"{name}_high": high}
    return row


def _answers(record: RunRecord, told: Data, which: Data) -> Block:
    held_out, positive = record.held_out, (record.run.get("task") or {}).get("positive")
    right, answers = held_out["answers"], list(told["answers"])
    columns = {
        **which,
        "number": list(range(len(answers))),
        "item": list(held_out["items"]),
        "problem": list(map(problem_name, held_out["questions"], right)),
        "family": _named(held_out.get("families")),
        "outcome": [_NAMES[letter] for letter in told["outcomes"]],
        "answer": answers,
        "read_from": _named(told.get("read_from")),
    }
    if positive is not None:
        columns["positive"] = [answer == positive for answer in right]
        columns["said_positive"] = [None if answer is None else answer == positive for answer in answers]
    return Block("answers", len(answers), columns)


def _exam(record: RunRecord, number: int) -> Iterator[Block]:
    """A round's exam, of the students of each material."""
    exam = record.exams[number]
    best = next(iter(record.taught(number)), None)
    problems = list(map(problem_name, exam["questions"], exam["answers"]))
    for material, sat in record.grades(number).items():
        for one in sat:
            columns = {
                "round": number,
                "material": material,
                "best": material == best,
                "student": one["student"],
                "number": list(range(len(problems))),
                "item": list(one["items"]),
                "problem": problems,
                "family": _named(exam.get("families")),
                "outcome": [_NAMES[letter] for letter in one["outcomes"]],
                "answer": list(one["answers"]),
                "read_from": _named(one.get("read_from")),
            }
            yield Block("exam_answers", len(problems), columns)


def _problems(record: RunRecord, known: set[str]) -> Iterator[Block]:
    """The problems that are not in the table yet; they are known once this is through."""
    found: dict[str, tuple[str, str, str | None]] = {}
    for asked in (record.held_out, *record.exams.values()):
        questions, answers = asked.get("questions", ()), asked.get("answers", ())
        families = _named(asked.get("families")) or [None] * len(questions)
        for question, answer, family in zip(questions, answers, families, strict=True):
            if (name := problem_name(question, answer)) not in known:
                found.setdefault(name, (question, answer, family))
    known.update(found)
    columns = {
        "problem": list(found),
        "question": [question for question, _, _ in found.values()],
        "answer": [answer for _, answer, _ in found.values()],
        "family": [family for _, _, family in found.values()],
    }
    yield Block("problems", len(found), columns)


def _materials(record: RunRecord) -> Block:
    made: dict[str, int] = {}
    for number, ones in sorted(record.candidates.items()):
        for one in ones:
            if one["status"] == "new":
                made.setdefault(one["material"], number)
    first: dict[str, tuple[int, Data]] = {}
    for number, selection in sorted(record.selections.items()):
        for standing in selection["candidates"]:
            first.setdefault(standing["id"], (number, standing))
    best = [report["material"] for report in record.reports.values()]
    rows = [
        {
            "material": name,
            "number": number,
            "round": made.get(name) if data["parents"] else 0,
            "kind": data["kind"],
            "operator": data["operator"],
            "parents": list(data["parents"]),
            "by": data["by"] or None,
            "exemplars": None if data["lecture"] is not None else list(data["exemplars"]),
            "lecture": data["lecture"],
            "best_in": best.count(name),
            **(_first(*first[name]) if name in first else {}),
        }
        for number, (name, data) in enumerate(record.materials.items())
    ]
    return _block("materials", rows)


def _first(round_: int, standing: Data) -> dict[str, Any]:
    return {"first_scored": round_, "train": standing["score"] if standing["n"] else None, "train_n": standing["n"]}


def _standings(record: RunRecord, number: int) -> Block:
    selection = record.selections[number]
    places = {name: place for place, name in enumerate(selection["beam"])}
    rows = [
        {
            "round": number,
            "material": one["id"],
            "n": one["n"],
            "correct": one["correct"] if one["n"] else None,
            "score": one["score"] if one["n"] else None,
            "metric": selection["metric"],
            "dropped": one["dropped"],
            "place": places.get(one["id"]),
        }
        for one in selection["candidates"]
    ]
    return _block("standings", rows)


def _candidates(record: RunRecord) -> Iterator[Block]:
    for number, ones in record.candidates.items():
        rows = [
            {
                "round": number,
                "number": place,
                **{name: one[name] for name in ("parent", "operator", "status", "material")},
                "by": one["by"] or None,
                "why": one["why"] or None,
            }
            for place, one in enumerate(ones)
        ]
        yield _block("candidates", rows)


def _calls(record: RunRecord) -> Block:
    rows = [
        {
            "purpose": purpose,
            "stage": stage,
            "calls": calls,
            "made": calls - shared,
            "shared": shared,
            "failed": failed,
            "prompt_tokens": prompt,
            "completion_tokens": completion,
        }
        for purpose, stage, calls, shared, failed, prompt, completion in record.spent()
    ]
    return _block("calls", rows)


# --- from what the study keeps ------------------------------------------------------------------------------


def _kept(result: RunResult) -> Iterator[Block]:
    """Rows of a run whose ledger cannot be read, as far as the study's results have them."""
    for one in result.rounds:
        counts = {outcome: one.outcomes.count(letter) for letter, outcome in _NAMES.items()}
        which = {"round": one.round, "teacher_number": 0}
        row = {
            **which,
            **(counts | {"n": len(one.outcomes) - counts["failed"]} if one.outcomes else {}),
            "material": one.material,
            "accuracy": one.accuracy,
            "f1": one.f1,
            "train": one.train,
            "rescored": one.rescored,
            "candidates": one.candidates if one.round else None,
            "kept": one.kept if one.round else None,
        }
        yield Block("rounds", 1, row)
        columns = {
            **which,
            "number": list(range(len(one.outcomes))),
            "problem": list(result.problems),
            "family": _named(result.families),
            "outcome": [_NAMES[letter] for letter in one.outcomes],
            "positive": list(result.positive) or None,
            "said_positive": [_SAID.get(letter) for letter in one.said] or None,
        }
        yield Block("answers", len(one.outcomes), columns)
    for exam in result.exams:
        for student in exam.students:
            sat = {
                "round": exam.round,
                "best": True,
                "student": student.student,
                "number": list(range(len(exam.items))),
                "item": list(exam.items),
                "family": _named(exam.families),
                "outcome": [_NAMES[letter] for letter in student.outcomes],
            }
            yield Block("exam_answers", len(exam.items), sat)


def _diversity(result: RunResult) -> Iterator[Block]:
    for exam in result.exams:
        columns = {
            "round": exam.round,
            "measure": list(exam.diversity),
            "value": list(exam.diversity.values()),
            "students": len(exam.students),
            "items": len(exam.items),
        }
        if exam.diversity:
            yield Block("diversity", len(exam.diversity), columns)


def _named(values: Sequence[str] | None) -> list[str | None] | None:
    """Names, null for those that are not known; None where none is told at all."""
    return [value or None for value in values] if values else None


def _block(table: str, rows: Sequence[Data]) -> Block:
    return Block(
        table, len(rows), {name: [row.get(name) for row in rows] for name in {n: 0 for row in rows for n in row}}
    )
