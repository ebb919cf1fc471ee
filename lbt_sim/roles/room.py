"""Everyone in place: the agents, the graph that they sit in, the task and its grader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lbt_sim.classroom import Classroom
from lbt_sim.events import EventSink
from lbt_sim.grading.base import Grade, Grader
from lbt_sim.models.base import CallPath, Reply
from lbt_sim.models.recorded import Asks
from lbt_sim.roles.agent import ClassroomAgent
from lbt_sim.roles.examiner import Examiner
from lbt_sim.roles.fitting import Fitting
from lbt_sim.roles.knowledge import Knowledge, families_of
from lbt_sim.roles.student import Assistant, Student
from lbt_sim.roles.teacher import Teacher
from lbt_sim.scenario.load import Seat
from lbt_sim.scenario.schema import TooLong
from lbt_sim.seeds import Seeds
from lbt_sim.tasks.base import Problem, Task
from lbt_sim.tasks.split import HeldOutGuard

__all__ = ["Context", "Room", "seat_room"]


@dataclass(frozen=True)
class Context:
    """What every step may use beside its inputs: seeds, the event sink, the way to the models."""

    seeds: Seeds
    emit: EventSink
    caller: Asks
    too_long: TooLong = "fail"
    """What happens to prompts that do not fit into a model's context."""


@dataclass(frozen=True)
class Room:
    """Agents in a classroom. Names are seats; the order is the scenario's."""

    classroom: Classroom
    task: Task
    teachers: Mapping[str, Teacher]
    assistants: Mapping[str, Assistant]
    students: Mapping[str, Student]
    examiner: Examiner
    grader: Grader | None
    """None where the examiner's model judges (grader `rubric`)."""
    guard: HeldOutGuard

    @property
    def lead(self) -> Teacher:
        """The first teacher: the one whose held-out accuracy is the run's result."""
        return next(iter(self.teachers.values()))

    @property
    def choices(self) -> tuple[str, ...]:
        """The labels that answers are constrained to; empty for open answers."""
        return self.grader.choices if self.grader else ()

    @cached_property
    def teachable(self) -> tuple[Problem, ...]:
        """Train problems that may become exemplars: those that are no held-out problem, nor nearly one."""
        return tuple(problem for problem in self.task.train if not self.guard.leaks(problem.question))

    async def grade(self, path: CallPath, answers: Sequence[tuple[str, Problem, Reply]]) -> list[Grade]:
        """Grades (student, problem, reply) by the task's grader, or by the examiner's model and the rubric."""
        if self.grader is None:
            return await self.examiner.judge(path, answers)
        return await self.grader.grade([(problem, reply) for _, problem, reply in answers])


def seat_room(classroom: Classroom, seats: Sequence[Seat], task: Task, grader: Grader | None, ctx: Context) -> Room:
    """Makes the agents and seats them."""
    fitting = Fitting(ctx.too_long, ctx.caller, ctx.emit)
    families = families_of(task) if any(seat.knowledge for seat in seats) else {}
    agents: dict[str, ClassroomAgent] = {}
    for seat in seats:
        common = (seat, task, ctx.caller, ctx.seeds, fitting)
        if seat.role in ("assistant", "student"):
            spec, who = seat.knowledge, seat.traits.mind or seat.name
            knows = Knowledge(spec, who, ctx.seeds, families) if spec else None
            agents[seat.name] = (Assistant if seat.role == "assistant" else Student)(*common, knows)
        else:
            agents[seat.name] = (Teacher if seat.role == "teacher" else Examiner)(*common)
    examiner = next(agent for agent in agents.values() if isinstance(agent, Examiner))
    return Room(
        classroom=classroom,
        task=task,
        teachers={name: agent for name, agent in agents.items() if isinstance(agent, Teacher)},
        assistants={name: agent for name, agent in agents.items() if isinstance(agent, Assistant)},
        students={n: a for n, a in agents.items() if isinstance(a, Student) and not isinstance(a, Assistant)},
        examiner=examiner,
        grader=grader,
        guard=HeldOutGuard(task),
    )
