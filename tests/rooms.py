"""Rooms for tests: a scenario as a mapping, a model that a test scripts, a real ledger, and everyone seated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from lbt_sim.classroom import Classroom
from lbt_sim.events import Event
from lbt_sim.grading.load import open_grader
from lbt_sim.ledger import Ledger
from lbt_sim.models.base import ChatModel, ChatRequest, ModelInfo, Reply
from lbt_sim.models.recorded import Caller, Limits
from lbt_sim.models.scripted import ScriptedModel
from lbt_sim.roles.room import Context, Room, seat_room
from lbt_sim.roles.values import Material
from lbt_sim.scenario.load import load_scenario
from lbt_sim.scenario.schema import TooLong
from lbt_sim.scenario.seats import Seat, resolve_agents
from lbt_sim.seeds import Seeds
from lbt_sim.setup import Prepared, prepare
from lbt_sim.tasks.base import Exemplar, Problem, Task

Handler = Callable[[ChatRequest], Reply | str]

LABELS = ("yes", "no")


def problems(prefix: str, count: int, start: int = 0) -> tuple[Problem, ...]:
    """Problems whose questions are all different and whose answers alternate."""
    return tuple(
        Problem(f"{prefix}{n}", f"{prefix}question{n}x of{n}x kind{n}x", LABELS[n % 2], family=f"family{n % 3}")
        for n in range(start, start + count)
    )


def small_task(train: int = 24, held_out: int = 8, **changes: Any) -> Task:
    """A task with labels."""
    held = problems("h", held_out, 1000)  # other numbers: else they would be the train problems, nearly
    task = Task("small", "Say yes or no.", LABELS, "yes", "labels", problems("t", train), held)
    return replace(task, **changes)


def material(count: int = 4, prefix: str = "x", lecture: str | None = None) -> Material:
    """Exemplars with a token of its own in each question, or a lecture."""
    if lecture is not None:
        return Material((), lecture, (), "written", "teacher")
    return Material(
        tuple(Exemplar(f"{prefix}exemplar{n}x", LABELS[n % 2]) for n in range(count)), None, (), "sampled", "teacher"
    )


def scenario_value(**changes: Any) -> dict[str, Any]:
    """The smallest scenario, changed at its top-level keys."""
    value: dict[str, Any] = {
        "kind": "scenario",
        "version": 1,
        "models": {"small": {"engine": "scripted"}},
        "task": {"name": "reviews", "train": 40, "held_out": 10},
        "cast": {"students": [{"name": "ann"}, {"name": "bob"}]},
        "method": {"rounds": 1},
    }
    return {**value, **changes}


def prepared(folder: Path, **changes: Any) -> Prepared:
    """A scenario, loaded and prepared from a file in `folder`."""
    file = folder / "scenario.yaml"
    file.write_text(yaml.safe_dump(scenario_value(**changes), sort_keys=False), encoding="utf-8")
    return prepare(load_scenario(str(file), cwd=folder))


_SEATS: dict[str, Seat] = {}


def seats_for(names: Iterable[tuple[str, str]], folder: Path) -> list[Seat]:
    """Seats of the library's own agents, one for each (name, role), and an examiner."""
    if not _SEATS:
        file = folder / "everyone.yaml"
        cast = {"teacher": {}, "assistants": [{}], "students": [{}], "examiner": {}}
        file.write_text(yaml.safe_dump(scenario_value(cast=cast)), encoding="utf-8")
        _SEATS.update({seat.role: seat for seat in resolve_agents(load_scenario(str(file), cwd=folder))})
    return [replace(_SEATS[role], name=name) for name, role in (*names, ("examiner", "examiner"))]


@dataclass
class Seated:
    """Everyone in place, what was asked, what was told."""

    room: Room
    ctx: Context
    caller: Caller
    ledger: Ledger
    model: ScriptedModel
    events: list[Event] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[Event]:
        """The events of a kind, in order."""
        return [event for event in self.events if event.kind == kind]

    def asked(self, purpose: str, agent: str | None = None) -> list[ChatRequest]:
        """What was asked for a purpose (of one agent)."""
        return [r for r in self.model.requests if r.purpose == purpose and agent in (None, r.path.agent)]


class Served(ScriptedModel):
    """A scripted model whose handler may be a coroutine function: it then decides when each call is answered."""

    async def create(self, request: ChatRequest) -> Reply:
        self.requests.append(request)
        reply = self._handler(request)
        if asyncio.iscoroutine(reply):
            reply = await reply
        return Reply(reply) if isinstance(reply, str) else reply  # type: ignore[arg-type]


@asynccontextmanager
async def seated(
    folder: Path,
    handler: Any,
    *,
    classroom: Classroom | None = None,
    seats: Iterable[Seat] | None = None,
    task: Task | None = None,
    seed: int = 0,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    model: ChatModel | None = None,
    detail: Mapping[str, Any] | None = None,
    too_long: TooLong = "fail",
    replay: bool = False,
) -> AsyncIterator[Seated]:
    """A room over the ledger in `folder`; `handler` answers every call, `detail` is what the model says of itself."""
    classroom = classroom or star("ann", "bob")
    seats = list(seats or seats_for([(seat.name, seat.role) for seat in classroom.seats], folder))
    scripted = Served(handler)
    served: ChatModel = model or scripted
    task = task or small_task()
    async with Ledger(folder) as ledger:
        info = await served.ready()
        names = {seat.model for seat in seats}
        info = ModelInfo(info.identity, detail or {})
        caller = Caller(dict.fromkeys(names, (served, info)), ledger, limits, replay=replay)
        events: list[Event] = []
        grader = None if task.grader == "rubric" else open_grader(task)

        def emit(event: Event) -> None:
            events.append(event)
            ledger.put(event)

        ctx = Context(Seeds(seed), emit, caller, too_long)
        room = seat_room(classroom, seats, task, grader, ctx)
        yield Seated(room, ctx, caller, ledger, scripted, events)
        if grader is not None:
            await grader.close()


def star(*students: str) -> Classroom:
    """One teacher, who teaches everyone."""
    return Classroom.from_edges(
        [("teacher", "teacher"), *((name, "student") for name in students)],
        [("teacher", name, "teaches") for name in students],
    )


def complete(*students: str) -> Classroom:
    """One teacher; everyone talks with everyone."""
    edges = [("teacher", name, "teaches") for name in students]
    edges += [(a, b, "discusses") for a in students for b in students if a != b]
    return Classroom.from_edges([("teacher", "teacher"), *((name, "student") for name in students)], edges)


def prompt(request: ChatRequest) -> str:
    """Every word of a request."""
    return "\n".join(turn.content for turn in request.turns)


def rightly(task: Task) -> Mapping[str, str]:
    """Question → right answer, for handlers that are to be right."""
    return {problem.question: problem.answer for problem in (*task.train, *task.held_out)}


def flat(groups: Iterable[Iterable[Any]]) -> Iterator[Any]:
    """Everything of every group."""
    for group in groups:
        yield from group


def below(folder: Path, name: str) -> Path:
    """A new folder."""
    (folder / name).mkdir()
    return folder / name
