"""Equal compute: every condition gives as many answers as the one that would give most.

Counted are, over a whole run, the students' exam answers (materials taught x students x problems) and the answers that
selection may spend. Reports on held-out problems are the same for all, and are not counted. What a run writes
(reflections, rewrites, choices, what is said in the lesson) follows from the method and the lesson, which equal compute
leaves as they are: where that differs, it is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lbt_sim.errors import Place, ScenarioError
from lbt_sim.scenario.load import LoadedScenario
from lbt_sim.scenario.schema import ScenarioFile
from lbt_sim.scenario.study import EqualComputeSpec
from lbt_sim.study.arms import heads

__all__ = ["Equalised", "Load", "equalised", "load_of"]


@dataclass(frozen=True, slots=True)
class Load:
    """What a whole run of a scenario asks for, as planned.

    Attributes:
        exam: Answers of students in exams.
        select: Answers that selection may spend.
        written: Calls in which the teacher writes or chooses.
        said: Calls in which students ask, are answered and talk.
    """

    exam: int
    select: int
    written: int
    said: int

    @property
    def answers(self) -> int:
        """All answers."""
        return self.exam + self.select


def load_of(file: ScenarioFile) -> Load:
    """What a run asks for when the beam gets as full as it may."""
    method, revise = file.method, file.method.revise
    students, taught = heads(file.cast), _taught(file)
    written = 0
    if "rewrite" in revise.operators:
        written += revise.reflections * (1 + revise.rewrites)
    if "choose" in revise.operators and method.material == "exemplars":
        written += revise.chosen * (1 + min(revise.swaps, method.exemplars)) // 2
    said = students * (2 * file.lesson.questions)
    said += students * file.lesson.discussion.turns * (file.lesson.discussion.mode == "talk")
    return Load(
        exam=taught * students * _problems(file),
        select=method.rounds * method.select.budget,
        written=taught * written,
        said=taught * said,
    )


def _taught(file: ScenarioFile) -> int:
    """How many materials are taught in a run: one in the first round, then the beam."""
    method = file.method
    beam = method.beam if method.revise.operators else 1
    return 1 + (method.rounds - 1) * beam if method.rounds else 0


def _problems(file: ScenarioFile) -> int:
    exam = file.method.exam
    return len(exam.ids) if exam.set_by == "fixed" and exam.ids else exam.problems


@dataclass(frozen=True)
class Equalised:
    """What is to be set in each scenario, and what there is to say."""

    sets: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]


def equalised(
    scenarios: Sequence[LoadedScenario], names: Sequence[str], spec: EqualComputeSpec, where: Place
) -> Equalised:
    """Makes the answers of a run equal.

    Args:
        scenarios: The conditions.
        names: What they are called.
        spec: Where the difference goes.
        where: Where the study says so.

    Raises:
        ScenarioError: It would undo what the study varies.
    """
    loads = [load_of(one.file) for one in scenarios]
    target = max(load.answers for load in loads)
    sets: list[dict[str, Any]] = []
    by, notes = _where_to(scenarios, spec, where)
    for scenario, load, name in zip(scenarios, loads, names, strict=True):
        file, missing, change = scenario.file, target - load.answers, dict[str, Any]()
        width = _taught(file) * heads(file.cast)
        fixed = file.method.exam.set_by == "fixed" and bool(file.method.exam.ids)
        if by == "exam" and missing and width and not fixed:
            most = _most_problems(scenario)
            longer = min(_problems(file) + missing // width, max(most, _problems(file)))
            if longer < _problems(file) + missing // width:
                notes.append(
                    f"{name}: train has no more than {most} problems for an exam; the rest of its answers "
                    "goes to selection"
                )
            missing -= (longer - _problems(file)) * width
            change["method.exam.problems"] = longer
        more, short = divmod(missing, max(1, file.method.rounds))
        change["method.select.budget"] = file.method.select.budget + more
        # Selection that is settled early would leave answers unspent.
        change["method.select.spend"] = "all"
        if short:
            notes.append(f"{name}: {short} of {target:,} answers cannot be given: no round can take them")
        sets.append(change)
    notes += _unequal(loads, names)
    return Equalised(tuple(sets), tuple(notes))


def _where_to(
    scenarios: Sequence[LoadedScenario], spec: EqualComputeSpec, where: Place
) -> tuple[Literal["exam", "select"], list[str]]:
    """Where the difference goes: never into what the study varies."""
    lengths = {_problems(one.file) for one in scenarios}
    budgets = {one.file.method.select.budget for one in scenarios}
    if len(lengths) == 1 and (spec.by == "exam" or len(budgets) == 1):
        return spec.by, []
    if len(budgets) > 1:
        varied = ["method.select.budget", *(["method.exam.problems"] if len(lengths) > 1 else [])]
        raise ScenarioError(
            f"equal compute would undo what this study varies: {' and '.join(varied)}",
            where=where,
            remedy="Leave equal_compute out: how much is asked for is then part of what is compared.",
        )
    return "select", ["exams differ in length by design, so what is missing of a condition's answers goes to selection"]


def _most_problems(scenario: LoadedScenario) -> int:
    """How many problems an exam can have: train without what is set aside and what the beam shows."""
    file = scenario.file
    if file.task.train is None:
        return 10**9  # known when the data are read; an exam that is short says so
    reserve = min(file.method.select.rescore, file.task.train // 5)
    return max(1, file.task.train - reserve - file.method.exemplars * file.method.beam)


def _unequal(loads: Sequence[Load], names: Sequence[str]) -> list[str]:
    """What stays different, and for whom."""
    notes = []
    for what, values in (
        ("writing calls of the teacher", [load.written for load in loads]),
        ("utterances in the lesson", [load.said for load in loads]),
    ):
        most = max(values)
        if less := [f"{name} {value}" for name, value in zip(names, values, strict=True) if value < most]:
            notes.append(f"{what} in a run, which equal compute cannot give: {most} at most; {', '.join(less)}")
    return notes
