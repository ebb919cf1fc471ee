"""What is reported of a round: the teacher's held-out score with its interval, and the trivial baselines.

Held-out problems are touched here and nowhere else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lbt_sim.concurrency import together
from lbt_sim.events import Event
from lbt_sim.exam import Sitting, sit
from lbt_sim.models.base import CallPath
from lbt_sim.roles.room import Context, Room
from lbt_sim.roles.teacher import Teacher
from lbt_sim.roles.values import Material
from lbt_sim.selection import Selection
from lbt_sim.stats import f1_interval, f1_score, wilson_interval
from lbt_sim.tasks.base import Task

__all__ = ["baselines", "report_round", "score"]


async def report_round(
    room: Room,
    round_: int,
    material: Material,
    ctx: Context,
    *,
    students: Sequence[Sitting] = (),
    taught: Material | None = None,
    selection: Selection | None = None,
) -> dict[str, Any]:
    """Examines every teacher on the held-out problems with `material` in mind: one entry of `rounds`.

    `teacher` is the first teacher's score; with several, `teachers` has each one's.

    Args:
        room: The room.
        round_: The round.
        material: The best material of the round.
        ctx: Events.
        students: The students' exam of this round.
        taught: What they had been taught for it: the best material of the round before.
        selection: How the material was selected, on train problems.
    """
    if round_ == 0:
        ctx.emit(Event("r0/held_out", "held_out", _problems(room.task)))
    path = CallPath(round_, "report", "")
    teachers = list(room.teachers.values())
    sittings = await together(_examined(room, teacher, material, path) for teacher in teachers)
    row: dict[str, Any] = {
        "round": round_,
        "teacher": score(sittings[0], room.task),
        "students": {s.who: {"n": s.n, "accuracy": _rounded(s.accuracy), "outcomes": s.outcomes} for s in students},
        "students_material": taught.id if taught else None,
        "material": material.id,
        "train": _on_train(selection, material),
    }
    if len(teachers) > 1:
        row["teachers"] = {sitting.who: score(sitting, room.task) for sitting in sittings}
    for sitting in sittings:
        data = {"round": round_, "material": material.id, "teacher": sitting.who, **sitting.as_data()}
        ctx.emit(Event(f"r{round_}/report/{sitting.who}", "reported", data))
    ctx.emit(Event(f"r{round_}/report", "report", row))
    return row


async def _examined(room: Room, teacher: Teacher, material: Material, path: CallPath) -> Sitting:
    problems = room.task.held_out
    notes = teacher.notes_on(material)
    kept = await teacher.notes_for_exam(path, notes, problems, room.choices, lecture=material.lecture)
    return await sit(room, teacher, teacher.knowing(material, kept), path, problems)


def _problems(task: Task) -> dict[str, Any]:
    return {
        "items": [problem.id for problem in task.held_out],
        "questions": [problem.question for problem in task.held_out],
        "answers": [problem.answer for problem in task.held_out],
        "families": [problem.family or "" for problem in task.held_out],
    }


def _on_train(selection: Selection | None, material: Material) -> dict[str, Any] | None:
    """What the material scored on train: when it was selected, and anew on problems that nothing was selected on."""
    if selection is None:
        return None
    standing = next(standing for standing in selection.standings if standing.material.id == material.id)
    again = selection.rescored
    return {
        "n": len(standing.answers),
        "score": _rounded(standing.score(selection.metric)) if standing.answers else None,
        "rescored": {"n": again[0], "score": _rounded(again[1])} if again else None,
    }


def score(sitting: Sitting, task: Task) -> dict[str, Any]:
    """n, accuracy, F1, 95 % intervals and outcome counts of one sitting.

    Calls that gave up are left out of n. An unreadable answer is not correct, and for F1 it is an error: said
    neither positive nor negative, it misses a positive problem and falsely alarms on a negative one.
    """
    answered = [(p, g) for p, g in zip(sitting.problems, sitting.grades, strict=True) if g.outcome != "failed"]
    interval = wilson_interval(sitting.outcomes["correct"], sitting.n)
    f1 = f1_ci = None
    if task.positive is not None:
        right = [p.answer == task.positive for p, _ in answered]
        said = [
            g.answer == task.positive if g.answer is not None else not r
            for (_, g), r in zip(answered, right, strict=True)
        ]
        f1, f1_ci = f1_score(said, right), f1_interval(said, right)
    return {
        "n": sitting.n,
        "accuracy": _rounded(sitting.accuracy),
        "f1": _rounded(f1),
        "ci95": {"accuracy": _pair(interval), "f1": _pair(f1_ci)},
        "outcomes": sitting.outcomes,
        "read_from": dict(sorted(Counter(g.read_from for g in sitting.grades if g.read_from).items())),
    }


def baselines(task: Task) -> Mapping[str, Mapping[str, float | None] | None]:
    """What always answering one thing scores on the held-out problems: the positive label, and train's majority.

    The majority is that of train, as someone who knows train alone would answer.
    """
    if not task.labels:
        return {"always_positive": None, "majority": None}
    majority = Counter(problem.answer for problem in task.train).most_common(1)[0][0]
    result: dict[str, Mapping[str, float | None] | None] = {}
    for name, label in (("always_positive", task.positive), ("majority", majority)):
        right = [problem.answer == task.positive for problem in task.held_out]
        said = [label == task.positive] * len(right)
        accuracy = sum(problem.answer == label for problem in task.held_out) / len(right)
        result[name] = {"accuracy": _rounded(accuracy), "f1": _rounded(f1_score(said, right))}
    return result


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _pair(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else [round(bound, 6) for bound in interval]
