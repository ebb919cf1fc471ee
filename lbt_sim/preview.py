"""What each agent would be sent, rendered on real problems of the task, with no model asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lbt_sim.errors import InputError, nearest
from lbt_sim.exam import Exam, Sitting, not_shown
from lbt_sim.feedback import Failure, failures_as_values, report_text
from lbt_sim.grading.base import Grade
from lbt_sim.lesson import presented
from lbt_sim.models.base import CallPath, ChatRequest, Purpose, Reply
from lbt_sim.roles.agent import ClassroomAgent
from lbt_sim.roles.room import Context, Room, seat_room
from lbt_sim.roles.teacher import Teacher
from lbt_sim.roles.values import Material, Notes
from lbt_sim.seeds import Seeds
from lbt_sim.setup import Prepared, uses_needed
from lbt_sim.tasks.base import Exemplar

__all__ = ["Preview", "exam_prompts", "preview", "rehearse"]


@dataclass(frozen=True, slots=True)
class Preview:
    """One prompt: who would be sent it, what for, and the request (its turns, sampling, choices)."""

    agent: str
    role: str
    use: str
    request: ChatRequest


class _NobodyAsked:
    """Stands where the way to the models is; a preview asks nobody."""

    def reads_facts(self, model: str) -> bool:
        return False

    def context(self, model: str) -> int | None:
        return None

    async def ask(self, model: str, request: ChatRequest) -> Reply:
        """What would be said: assistants who pass on in their own words are heard before anyone is shown."""
        return Reply(f"…the words of {request.path.agent}…")

    async def ask_many(self, model: str, requests: Sequence[ChatRequest]) -> list[Reply]:
        return [await self.ask(model, request) for request in requests]


async def preview(prepared: Prepared, agent: str | None = None) -> list[Preview]:
    """The prompts of a scenario, with the first exemplars and problems that its seed gives.

    Args:
        prepared: The scenario.
        agent: Only this agent's; None: the teacher's, one of each kind of student, and so on.

    Raises:
        InputError: Nobody in the room is called `agent`.
    """
    file, task = prepared.file, prepared.task
    ctx = Context(Seeds(file.seed), lambda event: None, _NobodyAsked())
    room = seat_room(prepared.classroom, prepared.seats, task, None, ctx)
    names = [seat.name for seat in prepared.seats]
    if agent is not None and agent not in names:
        close = nearest(agent, names)
        raise InputError(
            f"nobody in the room is called '{agent}'" + (f"; did you mean '{close}'?" if close else ""),
            valid=names,
            remedy="Name one of the agents.",
        )
    material = _first_material(room, prepared, ctx.seeds)
    heard = await presented(room, material, file.lesson, ctx)
    wanted = [agent] if agent is not None else _typical(prepared)
    return [shown for name in wanted for shown in _prompts_of(prepared, room, name, material, heard)]


async def exam_prompts(prepared: Prepared, items: int) -> list[ChatRequest]:
    """The first teacher's exam on train problems that its first exemplars do not show, at most `items` of them."""
    ctx = Context(Seeds(prepared.file.seed), lambda event: None, _NobodyAsked())
    room = seat_room(prepared.classroom, prepared.seats, prepared.task, None, ctx)
    material = _first_material(room, prepared, ctx.seeds)
    problems = not_shown(room.teachable, [material])[:items]
    path = CallPath(0, "preview", room.lead.name)
    return room.lead.exam_requests(path, room.lead.knowing(material), problems, prepared.task.labels)


def _first_material(room: Room, prepared: Prepared, seeds: Seeds) -> Material:
    """What the seed's first exemplars are; a lecture that is yet to be written is left open."""
    count = min(prepared.file.method.exemplars, len(room.teachable))
    chosen = seeds.at("start", 0).rng().sample(room.teachable, count)
    exemplars = tuple(Exemplar(p.question, p.answer, p.rationale, p.id) for p in chosen)
    lecture = "…the lecture that the teacher wrote…" if prepared.file.method.material == "lecture" else None
    return Material(() if lecture else exemplars, lecture, by=room.lead.name)


def rehearse(prepared: Prepared) -> Prepared:
    """Renders every prompt once, so that a mistake in a template shows before anything starts; `prepared` again.

    Raises:
        TemplateError: A template asks for something that its values have not.
    """
    asyncio.run(preview(prepared))
    return prepared


def _typical(prepared: Prepared) -> list[str]:
    """One seat for each different (agent, persona, model, knowledge)."""
    kinds = {
        (s.role, s.agent.title, s.persona and s.persona.title, s.model, repr(s.knowledge)): s.name
        for s in reversed(prepared.seats)
    }
    return [seat.name for seat in prepared.seats if seat.name in kinds.values()]


def _prompts_of(
    prepared: Prepared, room: Room, name: str, material: Material, heard: dict[str, Notes]
) -> Iterator[Preview]:
    everyone: dict[str, ClassroomAgent] = {
        **room.teachers,
        **room.assistants,
        **room.students,
        room.examiner.name: room.examiner,
    }
    agent = everyone[name]
    role = agent.seat.role
    uses = uses_needed(prepared.file, agent.seat, rubric=prepared.task.grader == "rubric")
    item = next(p for p in prepared.task.train if p.question not in {e.question for e in material.exemplars})
    path = CallPath(1, "preview", name)
    head = agent.knowing(material) if isinstance(agent, Teacher) else agent.head(heard.get(name, Notes()))
    choices = prepared.task.labels
    if role in ("teacher", "student"):
        yield Preview(name, role, "answer", agent.exam_requests(path, head, [item], choices)[0])
    if isinstance(agent, Teacher):
        count = prepared.file.method.exemplars
        failures = [Failure(item, (("student", None),))]
        shown = failures_as_values(failures)
        exam = Exam(1, (item,), "sampled")
        report = report_text(room, exam, [Sitting("student", (item,), (Grade("wrong"),))], failures)
        makers: dict[str, Callable[[], ChatRequest]] = {
            "write": lambda: agent.first_material(path, count, lecture=bool(material.lecture)),
            "reflect": lambda: agent.reflection(path, material, shown, report),
            "rewrite": lambda: agent.rewriting(path, material, shown, ["…its reflection…"], count),
            "repair": lambda: agent.repair(path, material, "…its reply…", "…what is wrong with it…", count),
            "choose": lambda: agent.choice(path, material, prepared.task.train[-3:], shown),
        }
        for use, make in makers.items():
            if use in uses:
                yield Preview(name, role, use, make())
    values: Mapping[str, Any] = {
        "exemplars": [],
        "heard": [],
        "number": 1,
        "turn": 1,
        "peers": ["a peer"],
        "pupils": ["a student"],
    }
    asking = {"asker": "a student", "question": "…a question…"}
    spoken: tuple[Purpose, ...] = ("ask", "discuss", "pass_on", "reply", "summarise")
    for use in spoken:
        if use in uses:
            yield Preview(name, role, use, agent.request(path, use, head, {**values, **asking}))
    if "set_exam" in uses:
        yield Preview(name, role, "set_exam", room.examiner.new_problems(path, 4, prepared.task.train[:4]))
    if "judge" in uses:
        yield Preview(name, role, "judge", room.examiner.judgement(path, head, "student", item, "…the answer…"))
