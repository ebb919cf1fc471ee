"""How a candidate is scored: by its teachers' own answers, or by its students'."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lbt_sim.concurrency import together
from lbt_sim.events import Event
from lbt_sim.exam import Sitting, not_shown, sit
from lbt_sim.lesson import teach
from lbt_sim.models.base import CallPath
from lbt_sim.roles.agent import ClassroomAgent
from lbt_sim.roles.room import Context, Room
from lbt_sim.roles.values import Material, Notes
from lbt_sim.scenario.schema import LessonSpec, M3Spec, SelectSpec
from lbt_sim.selection import Scored, Scorer, Selection, keep_all, select
from lbt_sim.tasks.base import Problem, Task

__all__ = ["respondents", "scorer", "scoring_pool", "select_beam", "set_aside"]


async def select_beam(
    room: Room,
    lesson: LessonSpec,
    spec: M3Spec,
    candidates: Sequence[Material],
    reserve: Sequence[Problem],
    round_: int,
    ctx: Context,
) -> Selection:
    """The best of the candidates, scored on problems that none of them shows; `reserve` scores the winner anew.

    Where nothing is revised nothing is scored: the beam stays, in its order.
    """
    pool, kept = scoring_pool(room, candidates), not_shown(reserve, candidates)
    score, width = scorer(room, lesson, spec.select, round_, ctx, [*pool, *kept]), respondents(room, spec.select)
    if not spec.revise.operators:
        return await keep_all(candidates, pool, score, spec.select, round_, ctx, width=width)
    return await select(candidates, pool, score, spec.select, spec.beam, round_, ctx, width=width, reserve=kept)


def set_aside(room: Room, spec: SelectSpec, spared: Sequence[str], ctx: Context) -> tuple[Room, list[Problem]]:
    """The room without some train problems, and those: nothing is taught, examined or selected with them.

    Args:
        room: The room.
        spec: `rescore` says how many; it is at most a fifth of train.
        spared: Ids of problems that stay in the room.
        ctx: Seeds and events.
    """
    free = [problem for problem in room.teachable if problem.id not in spared]
    count = min(spec.rescore, len(room.task.train) // 5, len(free))
    if count < spec.rescore:
        text = f"the winners are scored anew on {count} problems in place of {spec.rescore}: train has no more to spare"
        ctx.emit(Event("r0/reserve", "notice", {"text": text}))
    reserve = ctx.seeds.at("reserve").rng().sample(free, count)
    kept = {problem.id for problem in reserve}
    train = tuple(problem for problem in room.task.train if problem.id not in kept)
    return replace(room, task=replace(room.task, train=train)), reserve


def respondents(room: Room, spec: SelectSpec) -> int:
    """How many answers it takes to score a material on one problem."""
    return len(room.teachers if spec.by == "teacher" else room.students)


def scoring_pool(room: Room, candidates: Sequence[Material]) -> list[Problem]:
    """Train problems that no candidate shows, nor are nearly held-out ones: what a material is scored on."""
    return not_shown(room.teachable, candidates)


def scorer(
    room: Room, lesson: LessonSpec, spec: SelectSpec, round_: int, ctx: Context, pool: Sequence[Problem]
) -> Scorer:
    """The scorer that `select.by` names; with several teachers or students their majority counts.

    `pool` is every problem that it may be asked to score on.
    """
    silent = replace(ctx, emit=lambda event: None)  # the transcript tells of the round's lesson and exam
    by_teachers = spec.by == "teacher"
    asked: Mapping[str, ClassroomAgent] = room.teachers if by_teachers else room.students
    minds: dict[str, asyncio.Future[list[Notes]]] = {}

    async def in_mind(material: Material) -> list[Notes]:
        """What everyone asked brings to the problems; the same for all of them, whatever block they come in."""
        if by_teachers:
            notes = {name: teacher.notes_on(material) for name, teacher in room.teachers.items()}
        else:
            lessons = teach(room, material, lesson, round_, silent, "select/lesson")
            notes = {name: heard async for name, heard in lessons}
        path, lecture = _path(round_, material), lecture_of(material)
        return await together(
            agent.notes_for_exam(path, notes[name], pool, room.choices, lecture=lecture)
            for name, agent in asked.items()
        )

    def lecture_of(material: Material) -> str | None:
        return material.lecture if by_teachers else None  # students have it in their notes

    async def score(material: Material, problems: Sequence[Problem]) -> list[Scored | None]:
        # Taught once, whatever number of blocks it is scored on. The beam is taught anew: its exam has been sat.
        if material.id not in minds:
            minds[material.id] = asyncio.ensure_future(in_mind(material))
        notes = await minds[material.id]
        path, lecture = _path(round_, material), lecture_of(material)
        sittings = await together(
            sit(room, agent, agent.head(kept, lecture=lecture), path, problems)
            for agent, kept in zip(asked.values(), notes, strict=True)
        )
        return [_scored(sittings, index, room.task) for index in range(len(problems))]

    return score


def _path(round_: int, material: Material) -> CallPath:
    return CallPath(round_, f"select/{material.id}", "")


def _scored(sittings: Sequence[Sitting], index: int, task: Task) -> Scored | None:
    problem = sittings[0].problems[index]
    grades = [s.grades[index] for s in sittings if s.grades[index].outcome != "failed"]
    if not grades:
        return None
    is_positive = problem.answer == task.positive
    sure = [s.certainty[index] for s in sittings if s.grades[index].outcome != "failed"]
    known = [p for p in sure if p is not None]
    probability = sum(known) / len(known) if known else None
    correct = 2 * sum(g.outcome == "correct" for g in grades) > len(grades)
    said = [g.answer == task.positive if g.answer is not None else not is_positive for g in grades]
    votes = 2 * sum(said) - len(said)
    # A tie is an error, never a No.
    return Scored(correct, probability, votes > 0 if votes else not is_positive, is_positive)
