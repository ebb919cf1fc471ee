"""How a candidate is scored: by its teachers' own answers, or by its students'."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from lbt_sim.concurrency import together
from lbt_sim.exam import Sitting, sit
from lbt_sim.lesson import teach
from lbt_sim.models.base import CallPath
from lbt_sim.roles.room import Context, Room
from lbt_sim.roles.values import Material, Notes
from lbt_sim.scenario.schema import LessonSpec, SelectSpec
from lbt_sim.selection import Scored, Scorer
from lbt_sim.tasks.base import Problem, Task

__all__ = ["scorer", "scoring_pool"]


def scoring_pool(task: Task, candidates: Sequence[Material]) -> list[Problem]:
    """Train problems that are in no candidate's exemplars: a material is not scored on what it shows."""
    shown = {exemplar.question for material in candidates for exemplar in material.exemplars}
    return [problem for problem in task.train if problem.question not in shown]


def scorer(room: Room, lesson: LessonSpec, spec: SelectSpec, round_: int, ctx: Context) -> Scorer:
    """The scorer that `select.by` names; with several teachers or students their majority counts."""
    silent = replace(ctx, emit=lambda event: None)  # the transcript tells of the round's lesson and exam

    async def by_teachers(material: Material, problems: Sequence[Problem]) -> list[Scored | None]:
        path = CallPath(round_, f"select/{material.id}", "")
        teachers = room.teachers.values()
        sittings = await together(sit(room, t, t.knowing(material), path, problems) for t in teachers)
        return [_scored(sittings, index, room.task) for index in range(len(problems))]

    lessons: dict[str, asyncio.Future[dict[str, Notes]]] = {}

    async def lesson_on(material: Material) -> dict[str, Notes]:
        return {name: notes async for name, notes in teach(room, material, lesson, round_, silent, "select/lesson")}

    async def by_students(material: Material, problems: Sequence[Problem]) -> list[Scored | None]:
        # Taught once, whatever number of blocks it is scored on. The beam is taught anew: its exam has been sat.
        if material.id not in lessons:
            lessons[material.id] = asyncio.ensure_future(lesson_on(material))
        notes = await lessons[material.id]
        path = CallPath(round_, f"select/{material.id}", "")
        students = room.students.values()
        sittings = await together(sit(room, s, s.head(notes[s.name]), path, problems) for s in students)
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
    votes = 2 * sum(said) - len(said)
    # A tie is an error, never a No.
    return Scored(correct, probability, votes > 0 if votes else not is_positive, is_positive)
