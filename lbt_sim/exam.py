"""The exam: set by the examiner, sat by every student in isolation, graded. Nobody hears anybody."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lbt_sim.concurrency import cancelled
from lbt_sim.events import Event
from lbt_sim.grading.base import OUTCOMES, Grade
from lbt_sim.models.base import CallPath, Head, Reply
from lbt_sim.parsing import parse_exemplars
from lbt_sim.roles.agent import ClassroomAgent
from lbt_sim.roles.room import Context, Room
from lbt_sim.roles.values import Material, Notes
from lbt_sim.scenario.schema import ExamSpec
from lbt_sim.tasks.base import Problem
from lbt_sim.tasks.split import bare

__all__ = ["Exam", "Sitting", "examine", "not_shown", "set_exam", "sit"]


_NOT_AGAINST = {"correct", "failed"}
"""Outcomes of checks that do not speak against a written problem."""


@dataclass(frozen=True, slots=True)
class Exam:
    """The problems of one exam."""

    round: int
    problems: tuple[Problem, ...]
    set_by: str


@dataclass(frozen=True, slots=True)
class Sitting:
    """One agent's graded exam: `grades[i]` is for `problems[i]`.

    `certainty[i]` is the probability that the agent gave the right label among the labels, where the engine gives
    log-probabilities; None elsewhere.
    """

    who: str
    problems: tuple[Problem, ...]
    grades: tuple[Grade, ...]
    certainty: tuple[float | None, ...] = ()

    @property
    def outcomes(self) -> dict[str, int]:
        """How many answers there are of each outcome."""
        counted = Counter(grade.outcome for grade in self.grades)
        return {outcome: counted[outcome] for outcome in OUTCOMES}

    def as_data(self) -> dict[str, Any]:
        """Outcomes as letters, answers, and what each was read from, as events have them."""
        return {
            "outcomes": "".join(grade.outcome[0] for grade in self.grades),
            "answers": [grade.answer for grade in self.grades],
            "read_from": [grade.read_from for grade in self.grades],
        }

    @property
    def n(self) -> int:
        """Answers that came back: all but the failed ones."""
        return sum(grade.outcome != "failed" for grade in self.grades)

    @property
    def accuracy(self) -> float | None:
        """Share of correct among the answers that came back; invalid ones are not correct. None without any."""
        return self.outcomes["correct"] / self.n if self.n else None


async def set_exam(room: Room, spec: ExamSpec, round_: int, ctx: Context, beam: Sequence[Material] = ()) -> Exam:
    """The examiner sets the exam of a round from train problems, or writes it.

    A problem that stands in an exemplar or a lecture of the beam is not put: the students have seen its answer. Nor
    is one that is nearly a held-out problem.

    `fixed`: the same problems in every round. `sampled`: new ones each round. `written`: by the examiner's model,
    each checked before use; what it could not supply is sampled.
    """
    unseen = not_shown(room.teachable, beam)
    if spec.set_by == "fixed":
        problems = not_shown(_fixed(room, spec, ctx), beam)
    elif spec.set_by == "written":
        problems = await _written(room, spec, round_, unseen, beam, ctx)
    else:
        problems = _sampled(spec, round_, unseen, ctx)
    wanted = (spec.set_by == "fixed" and len(spec.ids)) or spec.problems
    if len(problems) < wanted:
        there = f"{len(problems)} that no exemplar shows could be had"
        text = f"exam of round {round_}: {wanted} problems are asked for, {there}"
        ctx.emit(Event(f"r{round_}/exam/short", "notice", {"text": text}))
    exam = Exam(round_, tuple(problems), spec.set_by)
    data = {
        "round": round_,
        "set_by": spec.set_by,
        "items": [p.id for p in problems],
        "questions": [p.question for p in problems],
        "answers": [p.answer for p in problems],
        "families": [p.family or "" for p in problems],
    }
    ctx.emit(Event(f"r{round_}/exam", "exam", data))
    return exam


def not_shown(problems: Sequence[Problem], materials: Sequence[Material]) -> list[Problem]:
    """The problems that no material shows: in an exemplar, or anywhere in a lecture."""
    shown = {bare(exemplar.question) for material in materials for exemplar in material.exemplars}
    lectures = [f" {bare(material.lecture)} " for material in materials if material.lecture]
    return [
        problem
        for problem in problems
        if (words := bare(problem.question)) not in shown and not any(f" {words} " in lecture for lecture in lectures)
    ]


def _fixed(room: Room, spec: ExamSpec, ctx: Context) -> list[Problem]:
    if spec.ids:
        by_id = {problem.id: problem for problem in room.task.train}
        return [by_id[id_] for id_ in spec.ids]
    return ctx.seeds.at("exam").rng().sample(room.teachable, min(spec.problems, len(room.teachable)))


def _sampled(spec: ExamSpec, round_: int, unseen: Sequence[Problem], ctx: Context) -> list[Problem]:
    return ctx.seeds.at("exam", round_).rng().sample(unseen, min(spec.problems, len(unseen)))


async def _written(
    room: Room, spec: ExamSpec, round_: int, unseen: Sequence[Problem], beam: Sequence[Material], ctx: Context
) -> list[Problem]:
    """Problems by the examiner's model that are well formed, new, not held out, and solved as they claim."""
    rng = ctx.seeds.at("exam", round_, "examples").rng()
    path = CallPath(round_, "set_exam", "")
    requests = [
        room.examiner.new_problems(path._replace(sample=n), 4, rng.sample(room.teachable, min(4, len(room.teachable))))
        for n in range(-(-spec.problems // 4))
    ]
    drafts: dict[str, Problem] = {}
    refused: Counter[str] = Counter()
    taken = {problem.question for problem in room.task.train}
    for reply in await room.examiner.write_many(requests):
        if reply.finish == "failed":
            refused["calls gave up"] += 1
            continue
        parsed = parse_exemplars(reply.text, room.task.labels)
        if isinstance(parsed, str):
            refused["malformed"] += 1
            continue
        for exemplar in parsed:
            if room.guard.leaks(exemplar.question):
                refused["held out"] += 1
            elif exemplar.question in taken or exemplar.question in drafts:
                refused["not new"] += 1
            else:
                problem = Problem(f"w{round_}_{len(drafts)}", exemplar.question, exemplar.answer)
                drafts[exemplar.question] = problem
    new = not_shown(list(drafts.values()), beam)
    refused["not new"] += len(drafts) - len(new)
    agreed, unchecked = await _checked(room, spec, round_, new)
    refused["not checked, since calls gave up"] = unchecked
    refused["examiner disagrees with itself"] = len(new) - len(agreed) - unchecked
    problems = agreed[: spec.problems]
    if len(problems) < spec.problems:
        missing = spec.problems - len(problems)
        why = ", ".join(f"{count} {reason}" for reason, count in refused.items() if count)
        text = (
            f"exam of round {round_}: {len(problems)} written problems passed the checks ({why or 'too few written'})"
        )
        text += f"; {missing} were sampled from train"
        ctx.emit(Event(f"r{round_}/exam", "notice", {"text": text}))
        problems += ctx.seeds.at("exam", round_, "fill").rng().sample(unseen, min(missing, len(unseen)))
    return problems


async def _checked(room: Room, spec: ExamSpec, round_: int, drafts: Sequence[Problem]) -> tuple[list[Problem], int]:
    """The drafts that the examiner, asked `checks` times, always solves as it said.

    And of how many others that is not known, because a call gave up and no other spoke against them.
    """
    requests = [
        request
        for sample in range(spec.checks)
        for request in room.examiner.solve(CallPath(round_, "set_exam/check", "", sample=sample), drafts, room.choices)
    ]
    replies = await room.examiner.write_many(requests)
    outcomes: dict[str, list[str]] = {draft.id: [] for draft in drafts}
    for sample in range(spec.checks):
        solved = replies[sample * len(drafts) : (sample + 1) * len(drafts)]
        answers = [(room.examiner.name, draft, reply) for draft, reply in zip(drafts, solved, strict=True)]
        grades = await room.grade(CallPath(round_, "set_exam/judge", "", sample=sample), answers)
        for draft, grade in zip(drafts, grades, strict=True):
            outcomes[draft.id].append(grade.outcome)
    agreed = [draft for draft in drafts if set(outcomes[draft.id]) == {"correct"}]
    unchecked = [
        draft for draft in drafts if "failed" in outcomes[draft.id] and set(outcomes[draft.id]) <= _NOT_AGAINST
    ]
    return agreed, len(unchecked)


async def examine(
    room: Room, exam: Exam, material: Material, lesson: AsyncIterator[tuple[str, Notes]], ctx: Context
) -> tuple[Sitting, ...]:
    """Every student sits the exam as soon as its notes are complete; sittings in seat order."""
    path = CallPath(exam.round, f"exam/{material.id}", "")

    async def one(name: str, notes: Notes) -> Sitting:
        student = room.students[name]
        kept = await student.notes_for_exam(path, notes, exam.problems, room.choices)
        sitting = await sit(room, student, student.head(kept), path, exam.problems)
        ctx.emit(Event(f"r{exam.round}/{material.id}/grades/{name}", "grades", _as_data(exam.round, material, sitting)))
        return sitting

    sittings: list[asyncio.Future[Sitting]] = []
    try:
        async for name, notes in lesson:
            sittings.append(asyncio.ensure_future(one(name, notes)))
        done = {sitting.who: sitting for sitting in await asyncio.gather(*sittings)}
    finally:
        await cancelled(sittings)
    return tuple(done[name] for name in room.students)


async def sit(room: Room, agent: ClassroomAgent, head: Head, path: CallPath, problems: Sequence[Problem]) -> Sitting:
    """One agent answers `problems`, all in flight at once, with `head` as its context; graded."""
    replies = await agent.write_many(agent.exam_requests(path, head, problems, room.choices))
    answers = [(agent.name, problem, reply) for problem, reply in zip(problems, replies, strict=True)]
    judged = path._replace(
        step=path.step.replace("exam/", "judge/") if path.step.startswith("exam/") else f"judge/{path.step}"
    )
    grades = await room.grade(judged, answers)
    certainty = tuple(
        _certainty(reply, problem, room.choices) for problem, reply in zip(problems, replies, strict=True)
    )
    return Sitting(agent.name, tuple(problems), tuple(grades), certainty)


def _certainty(reply: Reply, problem: Problem, choices: Sequence[str]) -> float | None:
    """The right label's share of the probability that the labels have together."""
    if reply.choice_logprobs is None:
        return None
    shares = {c: math.exp(p) for c, p in zip(choices, reply.choice_logprobs, strict=True) if p is not None}
    total = sum(shares.values())
    return shares.get(problem.answer, 0.0) / total if total else None


def _as_data(round_: int, material: Material, sitting: Sitting) -> Mapping[str, Any]:
    return {
        "round": round_,
        "material": material.id,
        "student": sitting.who,
        "items": [problem.id for problem in sitting.problems],
        **sitting.as_data(),
    }
