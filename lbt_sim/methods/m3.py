"""M3: learning by teaching iteratively (Ning et al., NeurIPS 2024, arXiv 2406.14629, section 5).

The teacher teaches, the students sit an exam, their failures drive the revision of the material, and the material
on which the teacher itself does best is kept. No weights change: what the teacher learns is the material, which it
has in its own prompt when it is examined. Exams and scores use train problems, the report held-out ones.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from lbt_sim.concurrency import together
from lbt_sim.donor import Donor, suited
from lbt_sim.exam import Exam, Sitting, examine, set_exam
from lbt_sim.feedback import Feedback, OtherClass, give_feedback
from lbt_sim.lesson import teach
from lbt_sim.methods.scoring import select_beam, set_aside
from lbt_sim.reporting import report_round
from lbt_sim.revision import Candidate, distinct, first_beam, revise
from lbt_sim.roles.room import Context, Room
from lbt_sim.roles.values import Material, Utterance
from lbt_sim.scenario.schema import LessonSpec, M3Spec

__all__ = ["Start", "m3"]


@dataclass(frozen=True, slots=True)
class Start:
    """Where a forked run goes on: the last finished round and the beam that it left."""

    round: int
    beam: tuple[Material, ...]


async def m3(
    room: Room, lesson: LessonSpec, spec: M3Spec, ctx: Context, start: Start | None = None, donor: Donor | None = None
) -> AsyncIterator[dict[str, Any]]:
    """Runs M3; yields what is reported of each round, from round 0, the initial material.

    Args:
        room: Teachers, students and examiner in their classroom, with the task.
        lesson: What happens before each exam.
        spec: Rounds, beam, exam, revision, selection.
        ctx: Seeds, events, models.
        start: Where to go on; None: from the beginning.
        donor: Another run, of whose failures the teacher is told instead of its own class's (a control).
    """
    room, reserve = set_aside(room, spec.select, spec.exam.ids, ctx)
    donor = suited(donor, spec.revise, room, reserve)
    if start is None:
        start = Start(0, await first_beam(room, spec, ctx))
        yield await report_round(room, 0, start.beam[0], ctx)

    beam = start.beam
    for round_ in range(start.round + 1, spec.rounds + 1):
        exam = await set_exam(room, spec.exam, round_, ctx, beam)
        others = [donor.at(round_, place) if donor else None for place in range(len(beam))]
        made = await together(
            teach_and_revise(room, lesson, spec, exam, material, ctx, other)
            for material, other in zip(beam, others, strict=True)
        )
        # The beam stays among the candidates: where nothing new is better, nothing changes.
        candidates = distinct(beam, [candidate for _, revised in made for candidate in revised], round_, ctx)
        selection = await select_beam(room, lesson, spec, candidates, reserve, round_, ctx)
        students = made[0][0]  # those who were taught with the best of the beam
        yield await report_round(
            room, round_, selection.beam[0], ctx, students=students, taught=beam[0], selection=selection
        )
        beam = selection.beam


async def teach_and_revise(
    room: Room,
    lesson: LessonSpec,
    spec: M3Spec,
    exam: Exam,
    material: Material,
    ctx: Context,
    other: OtherClass | None = None,
) -> tuple[Sequence[Sitting], list[Candidate]]:
    """One material's lesson and exam, and what the teacher makes of it, or of what is told it of another class."""
    sittings, feedback = await teach_and_examine(room, lesson, exam, material, ctx, other)
    return sittings, await revise(room, feedback, spec, exam.round, ctx)


async def teach_and_examine(
    room: Room, lesson: LessonSpec, exam: Exam, material: Material, ctx: Context, other: OtherClass | None = None
) -> tuple[Sequence[Sitting], Feedback]:
    """One material's lesson, exam and feedback."""
    asked: dict[tuple[str, int], Utterance] = {}
    # Notes come as each student's get ready: the exam waits for nobody.
    notes = teach(room, material, lesson, exam.round, ctx, asked=asked)
    sittings = await examine(room, exam, material, notes, ctx)
    questions = [asked[key] for name in room.students for key in sorted(asked) if key[0] == name]
    return sittings, give_feedback(room, exam, material, sittings, ctx, questions, other)
