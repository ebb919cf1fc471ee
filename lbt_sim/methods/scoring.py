"""How a candidate is scored: by its teachers' own answers, or by its students'."""

from __future__ import annotations

from collections.abc import Sequence

from lbt_sim.concurrency import together
from lbt_sim.exam import Exam, Sitting, examine, sit
from lbt_sim.lesson import teach
from lbt_sim.models.base import CallPath
from lbt_sim.roles.room import Context, Room
from lbt_sim.roles.values import Material
from lbt_sim.scenario.schema import LessonSpec, SelectSpec
from lbt_sim.selection import Scored, Scorer
from lbt_sim.tasks.base import Problem, Task

__all__ = ["scorer", "scoring_pool"]


def scoring_pool(task: Task, candidates: Sequence[Material]) -> list[Problem]:
    """Train problems that are in no candidate's exemplars: a material is not scored on what it shows."""
    shown = {exemplar.question for material in candidates for exemplar in material.exemplars}
    return [problem for problem in task.train if problem.question not in shown]


def scorer(room: Room, lesson: LessonSpec, spec: SelectSpec, round_: int, ctx: Context) -> Scorer:
    """The scorer that `select.by` names. With several teachers or students a problem counts as their majority has it."""

    async def by_teachers(material: Material, problems: Sequence[Problem]) -> list[Scored | None]:
        path = CallPath(round_, f"select/{material.id}", "")
        teachers = room.teachers.values()
        sittings = await together(sit(room, t, t.knowing(material), path, problems) for t in teachers)
        return [_scored(sittings, index, room.task) for index in range(len(problems))]

    async def by_students(material: Material, problems: Sequence[Problem]) -> list[Scored | None]:
        exam = Exam(round_, tuple(problems), "sampled")
        sittings = await examine(room, exam, material, teach(room, material, lesson, round_, ctx), ctx)
        return [_scored(sittings, index, room.task) for index in range(len(problems))]

    return by_teachers if spec.by == "teacher" else by_students


def _scored(sittings: Sequence[Sitting], index: int, task: Task) -> Scored | None:
    problem = sittings[0].problems[index]
    grades = [s.grades[index] for s in sittings if s.grades[index].outcome != "failed"]
    if not grades:
        return None
    is_positive = problem.answer == task.positive
    sure = [s.certainty[index] for s in sittings if s.grades[index].outcome != "failed"]
    probability = sum(
        float(g.outcome == "correct") if p is None else p for g, p in zip(grades, sure, strict=True)
    ) / len(grades)
    correct = 2 * sum(g.outcome == "correct" for g in grades) > len(grades)
    said = [g.answer == task.positive if g.answer is not None else not is_positive for g in grades]
    return Scored(correct, probability, 2 * sum(said) > len(said), is_positive)
