"""A run's transcript, failures and cost, as a report tells them: bounded, with what is left out counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lbt_sim.executions import Entry, models_of, together, unlike, version_of
from lbt_sim.report.text import cut
from lbt_sim.transcript.figures import duration
from lbt_sim.transcript.read import CallFilter, RunRecord

__all__ = [
    "BrokenAnswer",
    "Failures",
    "Lesson",
    "Reflection",
    "Utterance",
    "executions_told",
    "failures",
    "lessons",
    "models_told",
    "reflections",
    "statuses",
]

Data = Mapping[str, Any]

_UTTERANCES, _REFLECTIONS = 60, 12
"""So many are told of one lesson, and of one round."""
_LESSONS = 8
_ROUNDS = 40
_TEXT = 1500
_BROKEN = 16
_WHY = 12


@dataclass(frozen=True, slots=True)
class Utterance:
    """Who said what to whom."""

    speaker: str
    role: str
    hearers: str
    kind: str
    text: str
    exemplars: int


@dataclass(frozen=True, slots=True)
class Lesson:
    """What was said with one material in one round, and what the teacher was told of the exam after it."""

    round: int
    material: str
    utterances: tuple[Utterance, ...]
    more: int
    feedback: str
    failures: int
    other: str
    """Whose class the feedback is about, where that is not this one."""


@dataclass(frozen=True, slots=True)
class Reflection:
    """What the teacher made of failures."""

    agent: str
    material: str
    text: str


@dataclass(frozen=True, slots=True)
class BrokenAnswer:
    """An exam answer that could not be graded, and what came back."""

    round: int
    student: str
    item: str
    outcome: str
    said: str


@dataclass(frozen=True, slots=True)
class Failures:
    """What went wrong in a run.

    Attributes:
        notices: What was worth telling, each once, with how often.
        candidates: (round, status -> how many).
        why: Reasons of invalid, failed and leaking candidates, with how often.
        answers: Some of the exam answers that could not be graded.
        broken: How many such answers there are in the exams shown.
        calls: Calls that gave up, of all kinds.
    """

    notices: tuple[tuple[str, int], ...]
    candidates: tuple[tuple[int, Mapping[str, int]], ...]
    why: tuple[tuple[str, int], ...]
    answers: tuple[BrokenAnswer, ...]
    broken: int
    calls: int


def lessons(record: RunRecord) -> dict[int, tuple[Lesson, ...]]:
    """Round -> its lessons, best material first; of a long run the last rounds."""
    told = {}
    for number in [number for number in record.rounds if number][-_ROUNDS:]:
        said, feedback = record.utterances(number), record.feedback(number)
        names = [name for name in record.taught(number) if name in said or name in feedback]
        rows = [_lesson(record, number, name, said.get(name, []), feedback.get(name)) for name in names[:_LESSONS]]
        if rows:
            told[number] = tuple(rows)
    return told


def _lesson(record: RunRecord, number: int, material: str, said: list[Data], feedback: Data | None) -> Lesson:
    rows = tuple(
        Utterance(
            str(one["speaker"]),
            str(record.seats.get(one["speaker"], {}).get("role", "")),
            _names(one["hearers"]),
            str(one["kind"]),
            cut(str(one["text"]), _TEXT),
            int(one.get("exemplars") or 0),
        )
        for one in said[:_UTTERANCES]
    )
    heard: Data = (feedback or {}).get("told") or feedback or {}
    text = cut(str(heard.get("text", "")), 2 * _TEXT)
    other = f"another run's class: {heard['run']}" if "run" in heard else ""
    failed = len(heard.get("failures") or ())
    return Lesson(number, material, rows, max(0, len(said) - _UTTERANCES), text, failed, other)


def _names(names: list[str]) -> str:
    return ", ".join(map(str, names[:6])) + (f" and {len(names) - 6:,} more" if len(names) > 6 else "")


def reflections(record: RunRecord, number: int) -> tuple[tuple[Reflection, ...], int]:
    """The first reflections of a round, and how many more there are."""
    which = CallFilter(round=number, step="reflect/*")
    total = record.count(which)
    if not total:
        return (), 0
    rows = tuple(
        Reflection(
            call.agent, call.step.removeprefix("reflect/"), cut(call.text or call.error or "(an empty reply)", _TEXT)
        )
        for call in record.calls(which, limit=_REFLECTIONS)
    )
    return rows, total - len(rows)


def statuses(record: RunRecord) -> Counter[str]:
    """What became of a run's candidates: status -> how many."""
    return Counter(str(row["status"]) for rows in record.candidates.values() for row in rows)


def failures(record: RunRecord) -> Failures:
    """Everything that did not go as it should."""
    why = Counter(
        cut(str(row["why"]), 200)
        for rows in record.candidates.values()
        for row in rows
        if row["status"] not in {"new", "duplicate"} and row.get("why")
    )
    broken = list(_broken(record))
    return Failures(
        notices=tuple(Counter(cut(text, 400) for text in record.notices()).most_common(40)),
        candidates=tuple(
            (number, Counter(str(row["status"]) for row in rows)) for number, rows in sorted(record.candidates.items())
        ),
        why=tuple(why.most_common(_WHY)),
        answers=tuple(_answer(record, *one) for one in broken[:_BROKEN]),
        broken=len(broken),
        calls=int(record.result()["calls"]["failed"]),
    )


def _broken(record: RunRecord) -> Iterator[tuple[int, str, Data, int]]:
    """(round, material, graded exam, place) of each exam answer that could not be graded."""
    for number in record.exams:
        for material, sat in record.grades(number).items():
            for data in sat:
                places = (at for at, letter in enumerate(data["outcomes"]) if letter in "itf")
                yield from ((number, material, data, at) for at in places)


def _answer(record: RunRecord, number: int, material: str, data: Data, at: int) -> BrokenAnswer:
    student, item = str(data["student"]), str(data["items"][at])
    calls = list(record.calls(CallFilter(number, student, item, material, "exam/*"), limit=1))
    said = (calls[0].text or calls[0].error or "(an empty reply)") if calls else "(its call is not in the ledger)"
    outcome = {"i": "invalid", "t": "truncated", "f": "failed"}[data["outcomes"][at]]
    return BrokenAnswer(number, student, item, outcome, cut(said, 300))


# --- with what it was made ----------------------------------------------------------------------------------


def models_told(executions: list[Entry], manifest: Data) -> list[tuple[str, str]]:
    """(name, what it is) of each model, and in what the executions were not alike."""
    last = executions[-1] if executions else manifest
    rows = []
    for name, model in models_of(last).items():
        version = version_of(model["detail"])
        rows.append((name, str(model["identity"]) + (f", vLLM {version}" if version else "")))
    changes = unlike(executions) if executions else []
    return [*rows, *([("not alike in all executions", "; ".join(changes))] if changes else [])]


def executions_told(executions: list[Entry]) -> list[tuple[str, str]]:
    """When it ran and how long: what differs from one execution of the same run to the next."""
    rows = []
    for number, one in enumerate(executions, 1):
        how = str(one.get("how") or "killed, or still running")
        error = f": {one['error']}" if one.get("error") else ""
        rows.append((f"execution {number}", f"{one.get('began', '?')} to {one.get('ended') or '?'}, {how}{error}"))
    if executions:
        time = together(executions)["time"]
        parts = [f"{duration(time[key])} {words}" for key, words in _TIMES.items()]
        rows.append(("time together", ", ".join(parts)))
    return rows


_TIMES = {"waiting": "waiting on models", "own": "of the program's own", "starting": "until models were ready"}
