"""What a study's report reads from its run folders: of many runs an even sample, and one run in full."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lbt_sim.errors import InputError
from lbt_sim.report.classroom_svg import Drawing, classroom_of, drawing
from lbt_sim.report.exam import ExamGrid, exam_grids
from lbt_sim.report.exemplars import Credits, credits_of_study, standings
from lbt_sim.report.lineage import Lineage, lineage
from lbt_sim.report.told import statuses
from lbt_sim.study.record import RunResult
from lbt_sim.study.results import StudyResults
from lbt_sim.transcript.read import RunRecord

__all__ = ["Exemplary", "Room", "Sample", "exemplary", "sample"]

_READ = 240
"""Run folders that are read; of more runs, these are spread evenly over conditions and seeds."""
_ROOMS = 12


@dataclass(frozen=True, slots=True)
class Room:
    """A distinct classroom, and the conditions that use it."""

    drawing: Drawing
    conditions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """What was found in the run folders that were read.

    Attributes:
        read: How many were.
        runs: Of how many runs.
        gone: Folders that could not be read.
        rooms: Distinct classrooms.
        more_rooms: How many of them are not drawn.
        credits: The exemplars' standing.
        candidates: (condition, what became of its runs' candidates).
    """

    read: int
    runs: int
    gone: int
    rooms: tuple[Room, ...]
    more_rooms: int
    credits: Credits | None
    candidates: tuple[tuple[str, Mapping[str, int]], ...]


@dataclass(frozen=True, slots=True)
class Exemplary:
    """One run in full: the median of the main comparison's first condition.

    Attributes:
        name: Its folder, relative to the study's.
        condition: Its condition.
        seed: Its seed.
        why: How it was chosen, in words.
        exams: Its exams.
        lineage: Its material.
    """

    name: str
    condition: str
    seed: int
    why: str
    exams: tuple[ExamGrid, ...]
    lineage: Lineage | None


def sample(results: StudyResults) -> Sample:
    """Reads an even part of the run folders, at least one of each condition."""
    chosen = _spread(results)
    rooms: dict[Any, tuple[Drawing, dict[str, None]]] = {}
    candidates: dict[str, Counter[str]] = {}
    found = []
    gone = 0
    for run in chosen:
        try:
            with RunRecord(results.folder / run.folder) as record:
                found.append(standings(record))
                candidates.setdefault(run.condition, Counter()).update(statuses(record))
                room = drawing(record.run)
                if room is not None:
                    rooms.setdefault(classroom_of(record.run), (room, {}))[1][run.condition] = None
        except InputError:  # a run that failed before it asked anything, or a folder that was taken away
            gone += 1
    shown = [Room(room, tuple(conditions)) for room, conditions in rooms.values()]
    return Sample(
        read=len(chosen) - gone,
        runs=len(results.runs),
        gone=gone,
        rooms=tuple(shown[:_ROOMS]),
        more_rooms=max(0, len(shown) - _ROOMS),
        credits=credits_of_study(found),
        candidates=tuple(candidates.items()),
    )


def _spread(results: StudyResults) -> list[RunResult]:
    """The runs that are read, in the study's order."""
    runs = list(results.runs.values())
    if len(runs) <= _READ:
        return runs
    first = {run.condition: number for number, run in reversed(list(enumerate(runs)))}
    chosen = {*(number * len(runs) // _READ for number in range(_READ)), *list(first.values())[:_READ]}
    return [runs[number] for number in sorted(chosen)]


def exemplary(results: StudyResults) -> Exemplary | None:
    """The run that is shown in full; None where none can be read."""
    names = [*(results.comparisons[0] if results.comparisons else ()), *(one.name for one in results.conditions)]
    for condition in dict.fromkeys(names):
        runs = [run for (name, _), run in results.runs.items() if name == condition and run.rounds]
        runs.sort(key=lambda run: (_last(run, results.metric), run.seed))
        for run in [runs[(len(runs) - 1) // 2], *runs] if runs else []:
            try:
                with RunRecord(results.folder / run.folder) as record:
                    why = f"the median of the {len(runs):,} runs of {condition} by their last held-out score"
                    return Exemplary(run.folder, condition, run.seed, why, tuple(exam_grids(record)), lineage(record))
            except InputError:
                continue
    return None


def _last(run: RunResult, metric: str) -> float:
    row = run.rounds[-1]
    value = row.f1 if metric == "f1" else row.accuracy
    return -1.0 if value is None else value
