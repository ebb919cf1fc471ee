"""Runs that no study planned, as a study's results: conditions are found in their scenarios, pairs by their seeds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lbt_sim.errors import InputError, Place
from lbt_sim.folders import SCENARIO_FILE
from lbt_sim.ledger import LEDGER_FILE
from lbt_sim.manifest import MANIFEST_FILE, installed, read_manifest
from lbt_sim.study.differ import EQUALISED, differences
from lbt_sim.study.digest import digest
from lbt_sim.study.folder import StudyFolder, is_study, load_results, open_study
from lbt_sim.study.likeness import Scenarios, named
from lbt_sim.study.record import RunResult
from lbt_sim.study.results import Condition, StudyResults
from lbt_sim.transcript.read import RunRecord

__all__ = ["results_of"]

_TOLD = 3
"""So many folders are told by their names."""


@dataclass(frozen=True)
class _Found:
    """A run that was given.

    Attributes:
        path: Its folder.
        study: The study that it is of.
        hint: What that study calls its condition.
        kept: What that study keeps of it.
    """

    path: Path
    study: StudyFolder | None = None
    hint: str = ""
    kept: RunResult | None = None


@dataclass
class _Group:
    """A condition that was found: runs whose scenarios differ in the seed alone."""

    values: Mapping[str, Any]
    first: _Found
    runs: dict[int, tuple[_Found, RunResult]] = field(default_factory=dict)


@dataclass
class _LeftOut:
    """What is not compared, to be told."""

    unfinished: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)

    def notes(self) -> Iterator[str]:
        if self.unfinished:
            yield f"left out, not finished: {_some(self.unfinished)}"
        yield from self.unreadable
        if self.repeated:
            yield f"left out, another run's result once more: {_some(self.repeated)}"


def results_of(
    runs: Sequence[Path],
    *,
    metric: Literal["accuracy", "f1"] | None = None,
    outcome: Literal["last", "area"] | None = None,
) -> StudyResults:
    """The results of any runs, each condition to be compared with the first that is given.

    Runs whose scenarios differ only in the seed (or in title, description, budget, and which run's failures a control
    was given) are one condition. It is called by what distinguishes it, or as its study calls it.

    Args:
        runs: Run folders, study folders, folders that hold such.
        metric: What is compared; without it as the studies given have it, `accuracy` where they do not agree.
        outcome: Which of a run; likewise, `last`.

    Raises:
        InputError: A folder holds no run; two runs of one condition and seed differ; nothing is finished.
    """
    found = list(_without_repeats(one for path in runs for one in _given(path)))
    scenarios, left_out = Scenarios(), _LeftOut()
    groups: dict[Any, _Group] = {}
    for one in found:
        if not _finished(one, left_out):
            continue
        scenario = scenarios.of(one.path)
        # Which condition's failures a control was told of is known in its study alone.
        key = (scenario.key, one.study.path.resolve(), one.hint) if scenario.shuffled and one.study else scenario.key
        group = groups.setdefault(key, _Group(scenario.values, one))
        result = one.kept or digest(one.path, "", scenario.seed, "", "done")
        _take(group, scenario.seed, one, result, left_out)
    if not groups:
        raise InputError(
            "there is nothing to compare: none of these runs is finished",
            where=Place(_some([str(one.path) for one in found])),
            remedy="Finish them with `lbt-sim resume`.",
        )
    if metric == "f1" and not any(run.positive for group in groups.values() for _, run in group.runs.values()):
        raise InputError(
            "F1 is of a positive label, and the task of these runs has none",
            where=Place(key="--metric"),
            valid=["accuracy"],
            remedy="Compare by accuracy.",
        )
    return _results(list(groups.values()), [*left_out.notes(), *_versions(groups.values())], metric, outcome)


def _results(
    groups: Sequence[_Group],
    notes: Sequence[str],
    metric: Literal["accuracy", "f1"] | None,
    outcome: Literal["last", "area"] | None,
) -> StudyResults:
    conditions, more = _conditions(groups)
    first, *others = [one.name for one in conditions]
    seeds = sorted({seed for group in groups for seed in group.runs})
    folder = Path(os.path.commonpath([one.path.resolve() for group in groups for one, _ in group.runs.values()]))
    comparisons = tuple((name, first) for name in others)
    values = {one.name: group.values for one, group in zip(conditions, groups, strict=True)}
    studies = [one.study.study for group in groups for one, _ in group.runs.values() if one.study is not None]
    set_by_study = EQUALISED if any(one.get("equal_compute") for one in studies) else ()
    return StudyResults(
        folder=folder,
        name=folder.name,
        title=f"{len(conditions)} conditions compared" if others else "One condition",
        description="",
        conditions=tuple(conditions),
        seeds=tuple(seeds),
        comparisons=comparisons,
        metric=metric or _agreed(studies, "metric", "accuracy"),
        outcome=outcome or _agreed(studies, "outcome", "last"),
        runs={
            (condition.name, seed): replace(
                result, condition=condition.name, seed=seed, folder=os.path.relpath(one.path.resolve(), folder)
            )
            for condition, group in zip(conditions, groups, strict=True)
            for seed, (one, result) in sorted(group.runs.items())
        },
        smallest_effect=_agreed(studies, "smallest_effect", None),
        differs={(a, b): differences(values[a], values[b], set_by_study) for a, b in comparisons},
        planned=False,
        notes=(*notes, *more),
        facts={"lbt_sim": installed("lbt-sim")},
    )


def _agreed(studies: Sequence[Mapping[str, Any]], name: str, default: Any) -> Any:
    values = {study.get(name, default) for study in studies}
    return values.pop() if len(values) == 1 else default


# --- what is given ------------------------------------------------------------------------------------------


def _given(path: Path) -> Iterator[_Found]:
    """The runs in what was given.

    Raises:
        InputError: There are none.
    """
    found = list(_runs_in(path, set()))
    if not found:
        raise InputError(
            f"{path} holds no run" if path.is_dir() else f"there is no folder {path}",
            where=Place(key="RUN"),
            remedy="Give run folders, study folders, or folders that hold them: `lbt-sim run` prints where it puts "
            "a run (runs/… by default).",
        )
    yield from found


def _runs_in(path: Path, seen: set[Path]) -> Iterator[_Found]:
    """A run, a study's runs, or those in the folders below; each folder is entered once, wherever links lead."""
    place = path.resolve()
    if place in seen or not path.is_dir():
        return
    seen.add(place)
    if is_study(path):
        yield from _runs_of_study(path)
    elif (path / SCENARIO_FILE).is_file() and (path / MANIFEST_FILE).is_file():
        yield _Found(path)
    else:
        for below in _below(path):
            if not below.name.startswith("."):
                yield from _runs_in(below, seen)


def _below(path: Path) -> list[Path]:
    """What is in a folder, 10 after 9."""
    try:
        return sorted(path.iterdir(), key=lambda one: _natural(one.name))
    except OSError as error:
        raise InputError(
            f"the folder cannot be read: {error.strerror or error}",
            where=Place(str(path)),
            remedy="Mend its permissions, or leave it out.",
        ) from error


def _runs_of_study(path: Path) -> Iterator[_Found]:
    study, results = open_study(path), load_results(path)
    for condition in study.conditions:
        for seed in study.seeds:
            folder = path / study.folder_of(condition.name, seed)
            if (folder / SCENARIO_FILE).is_file() and (folder / MANIFEST_FILE).is_file():
                kept = results.runs.get((condition.name, seed))
                yield _Found(folder, study, condition.name, kept if kept and kept.status == "done" else None)


def _without_repeats(found: Iterator[_Found]) -> Iterator[_Found]:
    """Each folder once: `runs runs/a` names one of them twice."""
    seen: set[Path] = set()
    for one in found:
        place = one.path.resolve()
        if place not in seen:
            seen.add(place)
            yield one


def _finished(one: _Found, left_out: _LeftOut) -> bool:
    """Whether a run came to its end; else it is left out."""
    if one.kept is not None:
        return True
    try:
        if (one.path / LEDGER_FILE).is_file():
            with RunRecord(one.path) as record:
                if record.status == "done":
                    return True
        left_out.unfinished.append(str(one.path))
    except InputError as error:
        left_out.unreadable.append(f"left out: {one.path}: {error.what}")
    return False


def _take(group: _Group, seed: int, one: _Found, result: RunResult, left_out: _LeftOut) -> None:
    """Takes a run into its condition.

    Raises:
        InputError: There is a run of that condition and seed already, with another result.
    """
    if seed not in group.runs:
        group.runs[seed] = (one, result)
        return
    before, there = group.runs[seed]
    if _answers(result) != _answers(there):
        raise InputError(
            f"two runs of the same scenario with seed {seed} have different results: {before.path}, {one.path}",
            where=Place(str(one.path)),
            remedy="Which of them counts is for you to say: give one of the two. Their models, servers or versions "
            "may differ (manifest.json).",
        )
    left_out.repeated.append(str(one.path))


def _answers(result: RunResult) -> tuple[Any, ...]:
    """What has to be equal in two runs that are one: everything but what it cost."""
    return result.problems, result.rounds, result.exams, result.outcomes


# --- what conditions are called -----------------------------------------------------------------------------


def _conditions(groups: Sequence[_Group]) -> tuple[list[Condition], list[str]]:
    """Each condition with its name: as its study has it, else by what is different; and what there is to say."""
    derived = named([group.values for group in groups], [_folder_name(group) for group in groups])
    wanted = [group.first.hint or name for group, name in zip(groups, derived.names, strict=True)]
    conditions: list[Condition] = []
    for group, name in zip(groups, wanted, strict=True):
        planned = _planned(group)
        if wanted.count(name) > 1 and group.first.study is not None:
            name = f"{group.first.study.path.resolve().name}: {name}"
        free = _free(name, [one.name for one in conditions])
        conditions.append(Condition(free, planned.arm, planned.levels, planned.title or free))
    by_study = all(group.first.hint for group in groups)
    more = derived.unnamed if not by_study else ()
    return conditions, [f"the conditions differ in this too: {_some(more)}"] if more else []


def _planned(group: _Group) -> Condition:
    """What its study says of it."""
    study, hint = group.first.study, group.first.hint
    nothing = Condition("", "")
    return next((one for one in study.conditions if one.name == hint), nothing) if study is not None else nothing


def _folder_name(group: _Group) -> str:
    """The folder's name without the seed: `star-7` and `star/7` are both called `star`."""
    path, seed = group.first.path.resolve(), str(next(iter(group.runs)))
    return path.parent.name if path.name == seed else path.name.removesuffix(f"-{seed}") or path.name


def _free(name: str, taken: Sequence[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free


def _versions(groups: Iterable[_Group]) -> Iterator[str]:
    """A note where runs were made by different versions: then that is a difference too."""
    found = {str(read_manifest(one.path).get("lbt_sim")) for group in groups for one, _ in group.runs.values()}
    if len(found) > 1:
        yield f"the runs were made by different versions of lbt-sim: {', '.join(sorted(found, key=_natural))}"


def _natural(name: str) -> tuple[Any, ...]:
    """A key that puts 10 after 9."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name))


def _some(names: Sequence[str]) -> str:
    more = len(names) - _TOLD
    return ", ".join(names[:_TOLD]) + (f" and {more} more" if more > 0 else "")
