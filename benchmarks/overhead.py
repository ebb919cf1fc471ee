"""What does the framework itself cost? CPU per message and per exam answer, beside AutoGen teams of the same size.

A classroom of N students (one teacher; students talk with two neighbours) on an engine that answers at once: every
student says something in every turn of the discussion, then sits an exam. Everything a run does is done: prompts are
rendered, calls and events are committed to a ledger on disk. Beside it, in the same process, AutoGen's round-robin
team and its star-shaped GraphFlow of N agents that answer at once too, and store nothing.

    uv run python benchmarks/overhead.py                     # 320 and 1,000 students; minutes, most of them AutoGen's
    uv run python benchmarks/overhead.py --complete 320      # besides, a room in which everyone hears everyone
    uv run python benchmarks/overhead.py 320 --repeats 3 --no-graphflow
    uv run python benchmarks/overhead.py 320 --profile       # where ours goes

CPU is that of the process with all its threads (`time.process_time`), so the ledger's writer and the live view's
painter are in it. The classrooms are repeated; an AutoGen team, whose costs are far above the noise, is run once, and
only its first messages are measured where all would take minutes (`units` says how many). Neither counts its start.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import io
import math
import os
import platform
import pstats
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from autogen_agentchat.agents import AssistantAgent, BaseChatAgent
from autogen_agentchat.base import ChatAgent, Response
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_agentchat.teams import BaseGroupChat, DiGraphBuilder, GraphFlow, RoundRobinGroupChat
from autogen_core import CancellationToken
from autogen_core.models import ChatCompletionClient, CreateResult, ModelFamily, ModelInfo, RequestUsage
from rich.console import Console

from lbt_sim.events import Event
from lbt_sim.exam import examine, set_exam
from lbt_sim.grading.load import open_grader
from lbt_sim.ledger import Ledger
from lbt_sim.lesson import teach
from lbt_sim.models import base
from lbt_sim.models.recorded import Caller
from lbt_sim.revision import first_beam
from lbt_sim.roles.room import Context, Room, seat_room
from lbt_sim.roles.values import Notes
from lbt_sim.scenario.load import load_scenario
from lbt_sim.seeds import Seeds
from lbt_sim.setup import Prepared, prepare
from lbt_sim.transcript.live import LiveRoom

SAID = "I look at the last words first: what stands after the “but” decides."
SCENARIO = """\
kind: scenario
version: 1
models: {{instant: {{engine: simulated}}}}
task: {{name: reviews, train: 200, held_out: 20}}
classroom: {classroom}
cast: {{students: [{{persona: literal, count: {students}}}]}}
lesson: {{discussion: {turns}}}
method: {{name: m3, exam: {items}}}
"""


class Instant:
    """A `ChatModel` that answers at once."""

    reads_facts = False

    async def ready(self) -> base.ModelInfo:
        return base.ModelInfo("instant:1")

    async def create(self, request: base.ChatRequest) -> base.Reply:
        if not request.choices:
            return base.Reply(SAID, prompt_tokens=200, completion_tokens=15)
        share = tuple(math.log(1 / len(request.choices)) for _ in request.choices)
        return base.Reply(request.choices[0], choice_logprobs=share, prompt_tokens=200, completion_tokens=1)

    async def create_many(self, requests: Iterable[base.ChatRequest]) -> AsyncIterator[tuple[int, base.Reply]]:
        for index, request in enumerate(requests):
            yield index, await self.create(request)

    async def close(self) -> None: ...


# --- ours -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cost:
    """What `units` of something (messages, answers) cost."""

    units: int
    cpu: float
    wall: float

    @property
    def ms(self) -> float:
        """CPU milliseconds a unit."""
        return 1000 * self.cpu / self.units


@dataclass(frozen=True, slots=True)
class Lesson:
    """One classroom's lesson and exam."""

    messages: Cost
    deliveries: int
    answers: Cost
    seating: float
    heads: int
    """Characters of all the students' exam prompts before the item."""


class Watch:
    """Measures a stretch of work: CPU of the whole process, and wall time."""

    def __enter__(self) -> Watch:
        gc.collect()
        self.cpu, self.wall = -time.process_time(), -time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu += time.process_time()
        self.wall += time.perf_counter()


def prepared(students: int, turns: int, items: int, classroom: str = "ring") -> Prepared:
    """The benchmark's scenario, ready to run."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "overhead.yaml"
        file.write_text(SCENARIO.format(students=students, turns=turns, items=items, classroom=classroom))
        return prepare(load_scenario(file))


async def classroom(ready: Prepared, *, live: bool = False) -> Lesson:
    """One lesson and one exam, with a ledger of their own; `live`: drawn on a terminal of 120 by 40 besides."""
    model = Instant()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        async with Ledger(folder) as ledger:
            caller = Caller({"instant": (model, await model.ready())}, ledger)
            terminal = Console(file=io.StringIO(), force_terminal=True, width=120, height=40, color_system="256")
            view = stack.enter_context(LiveRoom(caller.meter, terminal)) if live else None
            deliveries = 0

            def emit(event: Event) -> None:
                nonlocal deliveries
                ledger.put(event)
                if view is not None:
                    view(event)
                if event.kind == "utterance" and event.data["kind"] == "discusses":
                    deliveries += len(event.data["hearers"])

            ctx = Context(Seeds(ready.file.seed), emit, caller)
            with Watch() as seating:
                room = seat_room(ready.classroom, ready.seats, ready.task, open_grader(ready.task), ctx)
                material = (await first_beam(room, ready.file.method, ctx))[0]
            emit(Event("run", "run", _run_data(room)))
            with Watch() as talking:
                notes = [pair async for pair in teach(room, material, ready.file.lesson, 1, ctx)]
                await ledger.flush()
            said = caller.meter.made
            exam = await set_exam(room, ready.file.method.exam, 1, ctx)
            with Watch() as sitting:
                await examine(room, exam, material, _given(notes), ctx)
                await ledger.flush()
            heads = sum(len(room.students[name].head(kept).json) for name, kept in notes)
    answered = caller.meter.made - said
    return Lesson(
        Cost(said, talking.cpu, talking.wall), deliveries, Cost(answered, sitting.cpu, sitting.wall), seating.cpu, heads
    )


async def _given(notes: Sequence[tuple[str, Notes]]) -> AsyncIterator[tuple[str, Notes]]:
    for pair in notes:
        yield pair


def _run_data(room: Room) -> dict[str, Any]:
    seats = [{"name": seat.name, "role": seat.role} for seat in room.classroom.seats]
    return {"title": "overhead", "rounds": 1, "seats": seats, "edges": [list(e) for e in room.classroom.edges()]}


# --- AutoGen ----------------------------------------------------------------------------------------------


class Echo(BaseChatAgent):
    """The least an AutoGen agent can be: it says the same thing at once."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "says the same thing")

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        return (TextMessage,)

    async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken) -> Response:
        return Response(chat_message=TextMessage(content=SAID, source=self.name))

    async def on_reset(self, cancellation_token: CancellationToken) -> None: ...


class InstantClient(ChatCompletionClient):
    """A model client that answers at once."""

    async def create(self, messages: Any, **_: Any) -> CreateResult:
        return CreateResult(finish_reason="stop", content=SAID, usage=RequestUsage(200, 15), cached=False)

    def create_stream(self, messages: Any, **_: Any) -> Any:
        raise NotImplementedError

    async def close(self) -> None: ...

    def actual_usage(self) -> RequestUsage:
        return RequestUsage(0, 0)

    total_usage = actual_usage

    def count_tokens(self, messages: Any, **_: Any) -> int:
        return 200

    def remaining_tokens(self, messages: Any, **_: Any) -> int:
        return 10_000

    @property
    def model_info(self) -> ModelInfo:
        return ModelInfo(
            vision=False, function_calling=False, json_output=False, family=ModelFamily.UNKNOWN, structured_output=False
        )

    capabilities = model_info


def assistant(name: str) -> AssistantAgent:
    """AutoGen's own agent, on a model that answers at once."""
    return AssistantAgent(name, model_client=InstantClient(), system_message="You are a student.")


def round_robin(students: int, make: Callable[[str], ChatAgent], messages: int) -> BaseGroupChat:
    """Everyone in turn; everyone hears everything."""
    agents = [make(f"s{number}") for number in range(students)]
    return RoundRobinGroupChat(agents, termination_condition=MaxMessageTermination(messages + 1))


def star(students: int, make: Callable[[str], ChatAgent]) -> BaseGroupChat:
    """A hub speaks, then every leaf once."""
    hub, *leaves = [make(f"s{number}") for number in range(students + 1)]
    graph = DiGraphBuilder()
    graph.add_node(hub)
    for leaf in leaves:
        graph.add_node(leaf)
        graph.add_edge(hub, leaf)
    return GraphFlow([hub, *leaves], graph.build(), termination_condition=MaxMessageTermination(2 * students + 10))


async def team(group: BaseGroupChat, messages: int) -> Cost:
    """What a team's messages cost, from the first agent's word to the last, or to the one after `messages` more.

    The team's start is not counted. A team that has more to say is cut off.
    """
    gc.collect()
    begun: tuple[float, float] | None = None
    now = (0.0, 0.0)
    seen = 0
    async for message in group.run_stream(task="Talk."):
        if isinstance(message, TextMessage) and message.source != "user":
            now = time.process_time(), time.perf_counter()
            begun = begun or now
            seen += 1
            if seen > messages:
                break
    if begun is None or seen < 2:
        raise RuntimeError("the team said nothing")
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    return Cost(seen - 1, now[0] - begun[0], now[1] - begun[1])


# --- the table --------------------------------------------------------------------------------------------


def spread(values: Sequence[float]) -> str:
    """Median and range; a single value as it is."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def row(what: str, units: int, values: Sequence[float], wall: float, baseline: float) -> None:
    """One line of the table: CPU ms a unit, wall ms a unit, and how many times our message's CPU that is."""
    ratio = statistics.median(values) / baseline
    print(f"| {what:<46} | {units:>7,} | {spread(values):>25} | {wall:>9.3f} | {ratio:>8,.1f} |", flush=True)


def ours(students: int, args: argparse.Namespace) -> float:
    """Measures our classroom and prints its lines; the median CPU of a message, in ms."""
    ready = prepared(students, args.turns, args.items)
    asyncio.run(classroom(prepared(20, 1, 5), live=True))  # warms up imports and caches
    runs = {live: [asyncio.run(classroom(ready, live=live)) for _ in range(args.repeats)] for live in (False, True)}
    baseline = statistics.median(lesson.messages.ms for lesson in runs[False])
    for live, lessons in runs.items():
        name = "lbt-sim, live view on" if live else "lbt-sim"
        for kind in ("messages", "answers"):
            costs: list[Cost] = [getattr(lesson, kind) for lesson in lessons]
            wall = statistics.median(1000 * cost.wall / cost.units for cost in costs)
            what = f"{name}: {'message' if kind == 'messages' else 'exam answer'}"
            row(what, costs[0].units, [cost.ms for cost in costs], wall, baseline)
    lesson = runs[False][0]
    delivered = [1000 * lesson.messages.cpu / lesson.deliveries for lesson in runs[False]]
    wall = statistics.median(1000 * lesson.messages.wall / lesson.deliveries for lesson in runs[False])
    row("lbt-sim: delivery (a message to one hearer)", lesson.deliveries, delivered, wall, baseline)
    return baseline


def theirs(students: int, args: argparse.Namespace, baseline: float) -> None:
    """Measures AutoGen's teams of the same size and prints their lines."""
    for name, make in (("least agent", Echo), ("AssistantAgent", assistant)):
        cost = asyncio.run(team(round_robin(students, make, args.messages + 1), args.messages))
        row(f"AutoGen round robin, {name}: message", cost.units, [cost.ms], 1000 * cost.wall / cost.units, baseline)
    if not args.no_graphflow:
        cost = asyncio.run(team(star(students, Echo), args.star_messages))
        what = "AutoGen GraphFlow star, least agent: message"
        row(what, cost.units, [cost.ms], 1000 * cost.wall / cost.units, baseline)


def complete(students: int) -> None:
    """Everyone talks with everyone for two turns, then sits an exam: notes and prompts grow with the square."""
    lesson = asyncio.run(classroom(prepared(students, 2, 10, "seminar")))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    delivery = 1000 * lesson.messages.cpu / lesson.deliveries
    print(f"\nEveryone with everyone, {students} students, 2 turns, 10 items:")
    print(
        f"  {lesson.messages.units:,} messages, {lesson.deliveries:,} deliveries: {lesson.messages.cpu:.1f} s,", end=" "
    )
    print(f"{lesson.messages.ms:.2f} ms a message, {delivery:.4f} ms a delivery;")
    print(f"  {lesson.answers.units:,} answers: {lesson.answers.cpu:.1f} s, {lesson.answers.ms:.2f} ms an answer;")
    print(f"  exam prompts: {lesson.heads / students:,.0f} characters a student; peak memory {peak:,.0f} MiB")


def profile(students: int, args: argparse.Namespace) -> None:
    """Prints where the main thread's time goes in our classroom."""
    ready = prepared(students, args.turns, args.items)
    asyncio.run(classroom(ready))
    with cProfile.Profile() as profiler:
        asyncio.run(classroom(ready))
    pstats.Stats(profiler).sort_stats("tottime").print_stats(35)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("students", nargs="*", type=int, default=[320, 1000], help="sizes of the classroom")
    parser.add_argument("--repeats", type=int, default=5, help="runs of our classroom")
    parser.add_argument("--turns", type=int, default=2, help="how often each student speaks")
    parser.add_argument("--items", type=int, default=20, help="problems of the exam")
    parser.add_argument("--messages", type=int, default=40, help="messages measured of a round-robin team")
    parser.add_argument("--star-messages", type=int, default=320, help="messages measured of a GraphFlow, at most")
    parser.add_argument("--no-graphflow", action="store_true", help="leave out the slowest")
    parser.add_argument("--complete", type=int, default=0, metavar="N", help="also a room of N where all talk with all")
    parser.add_argument("--profile", action="store_true", help="only profile our classroom")
    args = parser.parse_args(arguments)
    if args.profile:
        for students in args.students:
            profile(students, args)
        return
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, {platform.system()}", end="; ")
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}", end=", ")
    print(f"autogen-agentchat {version('autogen-agentchat')}. Medians of {args.repeats} (range).")
    if args.complete:  # first, so that the peak of memory is its own
        complete(args.complete)
    for students in args.students:
        print(f"\n{students:,} students, {args.turns} turns, {args.items} items")
        print(f"| {'':<46} | {'units':>7} | {'CPU, ms a unit':>25} | {'wall, ms':>9} | {'ratio':>8} |")
        print(f"|{'-' * 48}|{'-' * 8}:|{'-' * 26}:|{'-' * 10}:|{'-' * 9}:|")
        theirs(students, args, ours(students, args))


if __name__ == "__main__":
    main()
