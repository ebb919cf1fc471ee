"""Revision: from feedback to candidates. Two operators for exemplars, `rewrite` and `choose`; lectures are rewritten.

`rewrite` is the paper's: the teacher reflects on a sample of failures, then writes the material anew. `choose`
needs no writing: exemplars are exchanged for problems that the teacher picks, by number, from a menu led by the
failures; a weak model can do it, and its reply cannot be malformed. With no operator there are no candidates: a
control.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lbt_sim.concurrency import together
from lbt_sim.events import Event
from lbt_sim.feedback import Failure, Feedback
from lbt_sim.models.base import CallPath, Reply
from lbt_sim.parsing import parse_exemplars
from lbt_sim.roles.room import Context, Room
from lbt_sim.roles.teacher import Teacher
from lbt_sim.roles.values import Material
from lbt_sim.scenario.schema import M3Spec
from lbt_sim.seeds import Seeds
from lbt_sim.tasks.base import Exemplar, Problem

__all__ = ["Candidate", "distinct", "first_beam", "revise"]

Status = Literal["new", "duplicate", "invalid", "failed", "leak"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a revision came to: a material, or why there is none."""

    operator: str
    by: str
    parent: str
    number: int
    material: Material | None
    status: Status = "new"
    why: str = ""


async def first_beam(room: Room, spec: M3Spec, ctx: Context) -> tuple[Material, ...]:
    """The initial material of round 0; the beam grows from it."""
    material = await _first_material(room, spec, 0, ctx)
    ctx.emit(Event(f"material/{material.id}", "material", material.as_data()))
    return (material,)


async def _first_material(room: Room, spec: M3Spec, index: int, ctx: Context) -> Material:
    """Initial material: sampled from train, or written by the teacher from the task alone.

    Where nothing usable was written, exemplars are sampled and a notice says so.
    """
    if spec.start == "written" or spec.material == "lecture":
        teacher = _turn_of(room, index)
        path = CallPath(0, "write", teacher.name, sample=index)
        lecture = spec.material == "lecture"
        reply = (await teacher.write_many([teacher.first_material(path, spec.exemplars, lecture=lecture)]))[0]
        draft = Material((), "" if lecture else None)
        read = await _read(room, teacher, path, draft, reply, spec.exemplars)
        if isinstance(read, Material):
            return read
        text = f"round 0: the material that {teacher.name} wrote is {read[0]} ({read[1]}); it was sampled from train"
        ctx.emit(Event(f"r0/write/{index}", "notice", {"text": text}))
    chosen = ctx.seeds.at("start", index).rng().sample(room.teachable, min(spec.exemplars, len(room.teachable)))
    exemplars = tuple(map(_exemplar, chosen))
    if spec.material == "lecture":
        lines = "\n".join(f"- {e.question} -> {e.answer}" for e in exemplars)
        return Material((), lines, (), "sampled", room.lead.name)
    return Material(exemplars, None, (), "sampled", room.lead.name)


async def revise(room: Room, feedback: Feedback, spec: M3Spec, round_: int, ctx: Context) -> list[Candidate]:
    """New candidates from one material and what was said about it."""
    steps = []
    if "rewrite" in spec.revise.operators:
        steps.append(_rewritten(room, feedback, spec, round_, ctx))
    if "choose" in spec.revise.operators and feedback.material.lecture is None:
        steps.append(_chosen(room, feedback, spec, round_, ctx))
    candidates = [candidate for made in await together(steps) for candidate in made]
    usable = [candidate for candidate in candidates if candidate.material is not None]
    if spec.revise.keep is not None and len(usable) > spec.revise.keep:
        kept = ctx.seeds.at("keep", round_, feedback.material.id).rng().sample(usable, spec.revise.keep)
        # What could not be used takes nobody's place, and stays to be counted.
        candidates = [c for c in candidates if c.material is None or any(c is one for one in kept)]
    return candidates


def distinct(beam: Sequence[Material], made: Sequence[Candidate], round_: int, ctx: Context) -> list[Material]:
    """The beam and every new material once; says of each candidate what became of it."""
    materials = {material.id: material for material in beam}
    for candidate in made:
        status = candidate.status
        if candidate.material is not None:
            if candidate.material.id in materials:
                status = "duplicate"
            else:
                materials[candidate.material.id] = candidate.material
                ctx.emit(Event(f"material/{candidate.material.id}", "material", candidate.material.as_data()))
        data = {
            "round": round_,
            "parent": candidate.parent,
            "operator": candidate.operator,
            "by": candidate.by,
            "status": status,
            "material": candidate.material.id if candidate.material else None,
            "why": candidate.why,
        }
        path = f"r{round_}/candidate/{candidate.parent}/{candidate.operator}/{candidate.number}"
        ctx.emit(Event(path, "candidate", data))
    return list(materials.values())


# --- rewrite ----------------------------------------------------------------------------------------------


async def _rewritten(room: Room, feedback: Feedback, spec: M3Spec, round_: int, ctx: Context) -> list[Candidate]:
    """Reflections, each on its own sample of failures; then rewrites, each from `mix` reflections."""
    material, revise_ = feedback.material, spec.revise
    shown = [_shown_failures(room, feedback, spec, round_, index, ctx) for index in range(revise_.reflections)]
    teachers = [_turn_of(room, index) for index in range(revise_.reflections)]
    told = feedback.report if revise_.feedback != "none" else ""
    step = f"reflect/{material.id}"
    reflections = await together(
        _one(teacher, teacher.reflection(CallPath(round_, step, teacher.name, sample=index), material, values, told))
        for index, (teacher, values) in enumerate(zip(teachers, shown, strict=True))
    )
    wanted = [(index, number) for index in range(revise_.reflections) for number in range(revise_.rewrites)]
    return await together(
        _rewrite(room, feedback, teachers[index], (reflections, shown), _mixed(index, number, spec), (round_, spec))
        for index, number in wanted
    )


def _mixed(index: int, number: int, spec: M3Spec) -> tuple[int, list[int]]:
    """A candidate's number, and the reflections that go into it: its own and the next `mix` - 1."""
    count = spec.revise.reflections
    mixed = [(index + offset) % count for offset in range(min(spec.revise.mix, count))]
    return index * spec.revise.rewrites + number, mixed


async def _rewrite(
    room: Room,
    feedback: Feedback,
    teacher: Teacher,
    grounds: tuple[Sequence[Reply], Sequence[Sequence[dict[str, Any]]]],
    plan: tuple[int, list[int]],
    when: tuple[int, M3Spec],
) -> Candidate:
    reflections, shown = grounds
    round_, spec = when
    number, mixed = plan
    usable = [reflections[index].text for index in mixed if reflections[index].finish != "failed"]
    parent = feedback.material
    if not usable:
        why = reflections[mixed[0]].error or "the reflection failed"
        return Candidate("rewrite", teacher.name, parent.id, number, None, "failed", why)
    failures = [values for index in mixed for values in shown[index]]
    path = CallPath(round_, f"rewrite/{parent.id}", teacher.name, sample=number)
    reply = await _one(teacher, teacher.rewriting(path, parent, failures, usable, spec.exemplars))
    read = await _read(room, teacher, path, parent, reply, spec.exemplars)
    if isinstance(read, Material):
        return Candidate("rewrite", teacher.name, parent.id, number, read)
    status, why = read
    return Candidate("rewrite", teacher.name, parent.id, number, None, status, why)


async def _read(
    room: Room, teacher: Teacher, path: CallPath, parent: Material, reply: Reply, count: int
) -> Material | tuple[Status, str]:
    """The material in a reply. What is malformed is repaired once; what then is, is `invalid`."""
    operator, parents = ("written", ()) if path.step == "write" else ("rewrite", (parent.id,))
    why = ""
    for attempt in range(2):
        if reply.finish == "failed":
            return "failed", reply.error or "the call gave up"
        read = _parsed(room, parent, reply, count)
        if isinstance(read, str):
            why = read
        else:
            exemplars, lecture = read
            leak = room.guard.leaks(lecture) if lecture is not None else _leak(room, exemplars)
            if leak:
                return "leak", f"it contains the held-out problem {leak.id}"
            return Material(exemplars, lecture, parents, operator, teacher.name)
        if attempt == 0:
            repair = path._replace(step=path.step.replace("rewrite", "repair").replace("write", "repair"))
            reply = await _one(teacher, teacher.repair(repair, parent, reply.text, why, count))
    return "invalid", why


def _parsed(room: Room, parent: Material, reply: Reply, count: int) -> tuple[tuple[Exemplar, ...], str | None] | str:
    if parent.lecture is not None:
        text = reply.text.strip()
        return ((), text) if text else "the lecture is empty"
    exemplars = parse_exemplars(reply.text, room.task.labels, count)
    return exemplars if isinstance(exemplars, str) else (tuple(exemplars), None)


def _leak(room: Room, exemplars: Sequence[Exemplar]) -> Problem | None:
    """The held-out problem that stands in an exemplar: in its question, its rationale, or an open answer."""
    said = (text for e in exemplars for text in (e.question, e.rationale, None if room.task.labels else e.answer))
    return next((leak for leak in map(room.guard.leaks, filter(None, said)) if leak), None)


# --- choose -----------------------------------------------------------------------------------------------


async def _chosen(room: Room, feedback: Feedback, spec: M3Spec, round_: int, ctx: Context) -> list[Candidate]:
    """Candidates that differ from the material by a few exchanged exemplars."""
    return await together(_choose(room, feedback, spec, round_, number, ctx) for number in range(spec.revise.chosen))


async def _choose(room: Room, feedback: Feedback, spec: M3Spec, round_: int, number: int, ctx: Context) -> Candidate:
    """Exchanges 1 to `swaps` exemplars, one after the other; which seat is exchanged is drawn, what for is chosen."""
    parent = feedback.material
    teacher = _turn_of(room, number)
    rng = ctx.seeds.at("choose", round_, parent.id, number).rng()
    failures = _shown_failures(room, feedback, spec, round_, number, ctx)
    exemplars = list(parent.exemplars)
    # How many does not hang on the material: runs of one seed write equally often, whatever they have come to.
    swaps = ctx.seeds.at("swaps", round_, number).rng().randint(1, min(spec.revise.swaps, len(exemplars)))
    places = rng.sample(range(len(exemplars)), swaps)
    for swap, place in enumerate(places):
        menu = _menu(room, feedback, exemplars, spec, ctx.seeds.at("menu", round_, parent.id, number, swap))
        if not menu:
            break
        path = CallPath(round_, f"choose/{parent.id}", teacher.name, item=str(number), sample=swap)
        current = Material(tuple(exemplars), None, (parent.id,), "choose", teacher.name)
        reply = await _one(teacher, teacher.choice(path, current, menu, failures))
        if reply.finish == "failed":
            return Candidate("choose", teacher.name, parent.id, number, None, "failed", reply.error or "")
        said = reply.text.strip()
        if said not in (numbers := [str(n) for n in range(1, len(menu) + 1)]):
            why = f"it chose {said[:20]!r} of 1 to {len(menu)}"
            return Candidate("choose", teacher.name, parent.id, number, None, "invalid", why)
        exemplars[place] = _exemplar(menu[numbers.index(said)])
    material = Material(tuple(exemplars), None, (parent.id,), "choose", teacher.name)
    return Candidate("choose", teacher.name, parent.id, number, material)


def _menu(room: Room, feedback: Feedback, exemplars: Sequence[Exemplar], spec: M3Spec, seeds: Seeds) -> list[Problem]:
    """What may be put in: the failures first, filled up from train; without feedback all from train.

    Exam problems written by the examiner are offered too: their answers were checked.
    """
    rng = seeds.rng()
    taken = {exemplar.question for exemplar in exemplars}
    teachable = {problem.question for problem in room.teachable}
    failed = [f.problem for f in feedback.failures if f.problem.question not in taken]
    failed = [p for p in failed if p.question in teachable or not room.guard.leaks(p.question)]
    led = rng.sample(failed, min(len(failed), spec.revise.menu)) if spec.revise.feedback != "none" else []
    shown = {problem.question for problem in led} | taken
    rest = [problem for problem in room.teachable if problem.question not in shown]
    menu = led + rng.sample(rest, min(len(rest), spec.revise.menu - len(led)))
    rng.shuffle(menu)
    return menu


# --- both -------------------------------------------------------------------------------------------------


def _shown_failures(
    room: Room, feedback: Feedback, spec: M3Spec, round_: int, index: int, ctx: Context
) -> list[dict[str, Any]]:
    """The failures of one reflection, drawn from those of all students; without feedback, train problems."""
    rng = ctx.seeds.at("failures", round_, feedback.material.id, index).rng()
    if spec.revise.feedback == "none":
        drawn = rng.sample(room.teachable, min(spec.revise.failures, len(room.teachable)))
        return [Failure(problem, ()).as_values() for problem in drawn]
    pool = [failure for failure in feedback.failures for _ in failure.given]
    rng.shuffle(pool)  # a problem that many students failed is likelier to be shown, as in pooled failures
    first = list({failure.problem.id: failure for failure in pool}.values())
    return [failure.as_values() for failure in first[: spec.revise.failures]]


def _turn_of(room: Room, index: int) -> Teacher:
    """Several teachers take turns."""
    teachers = list(room.teachers.values())
    return teachers[index % len(teachers)]


async def _one(teacher: Teacher, request: Any) -> Reply:
    return (await teacher.write_many([request]))[0]


def _exemplar(problem: Problem) -> Exemplar:
    return Exemplar(problem.question, problem.answer, problem.rationale, problem.id)
