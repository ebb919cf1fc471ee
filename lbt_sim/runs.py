"""Executing a run: new, resumed, replayed or forked, always the same way, against its folder's ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from lbt_sim.errors import (
    ClassroomError,
    InputError,
    Interrupted,
    LbtError,
    LedgerMismatch,
    ModelUnavailable,
    Place,
    ReplayMiss,
    RunError,
    RunSpoiled,
    ScenarioError,
    TaskError,
    TemplateError,
)
from lbt_sim.events import Event, EventSink
from lbt_sim.executions import Execution, How, models_of, now, recorded
from lbt_sim.folders import SCENARIO_FILE, SERVER_LOGS, RunFolder, create_run, fork_run, locked, open_run
from lbt_sim.grading.load import open_grader
from lbt_sim.ledger import LEDGER_FILE, Ledger, LedgerReader
from lbt_sim.manifest import MANIFEST_FILE, caught_up
from lbt_sim.methods.m3 import Start, m3
from lbt_sim.models.base import ChatModel, ModelInfo
from lbt_sim.models.determined import known
from lbt_sim.models.pool import Pool, Shelf
from lbt_sim.models.recorded import Caller, Limits, Meter
from lbt_sim.models.registry import open_model
from lbt_sim.models.surroundings import Figures, Surroundings
from lbt_sim.reporting import baselines
from lbt_sim.roles.room import Context, seat_room
from lbt_sim.roles.values import Material
from lbt_sim.scenario.schema import ModelSpec
from lbt_sim.seeds import Seeds
from lbt_sim.setup import Prepared, check_counting, models_needed
from lbt_sim.tasks.base import Exemplar

__all__ = ["MANIFEST_FILE", "SCENARIO_FILE", "Run", "RunFolder", "create_run", "fork_run", "is_over", "open_run"]

_ALL_EDGES = 20_000
"""Above this many edges the `run` event tells how many there are, not which."""
_LOOK = 10.0
"""Seconds in which the servers tell, at the end, what they did: who is interrupted does not wait for one that hangs."""

Observe = Callable[[Meter, Caller], EventSink]


def _nobody(text: str) -> None:
    """Hears it, and says nothing."""


@dataclass
class Run:
    """Executes a run folder: new, interrupted or finished, the same way.

    Args:
        folder: The run.
        observe: Makes the sinks that watch it (live view, plain lines) once meter and caller are there.
        replay: Models are forbidden; the ledger must hold every call.
        tell: Takes what a person should hear before there is anything to watch: that servers are being started.
        shelf: Models that are open for several runs; without it the run opens its own, and closes them.
        pool: Answers to equal calls that it has in common with other runs.
    """

    folder: RunFolder
    observe: Sequence[Observe] = ()
    replay: bool = False
    tell: Callable[[str], None] = _nobody
    shelf: Shelf | None = None
    pool: Pool | None = None
    caller: Caller | None = field(default=None, init=False)
    _emit: EventSink | None = field(default=None, init=False)
    _models: dict[str, ChatModel] = field(default_factory=dict, init=False)
    _infos: dict[str, ModelInfo] = field(default_factory=dict, init=False)

    async def execute(self) -> dict[str, Any]:
        """Runs to the end; the result as `--json` prints it.

        Raises:
            RunLocked: Another process works in the folder.
            ModelUnavailable: A model cannot be had; nothing was asked.
            InputError: Something else that was given is wrong; nothing was asked.
            RunError, Interrupted: It stopped; what was committed is kept.
        """
        with locked(self.folder.path):
            # Another process may have gone on with the run before it was locked.
            self.folder = replace(self.folder, manifest=caught_up(self.folder.path, self.folder.manifest))
            asks = not (self.replay or is_over(self.folder))
            try:
                return await self._execute(asks=asks)
            except ReplayMiss:
                if asks or self.replay:
                    raise
            # It is over, and yet something is missing: this version of the program asks more than that one did.
            return await self._execute(asks=True)

    async def _execute(self, *, asks: bool) -> dict[str, Any]:
        """Executes it with the folder locked; only where it asks models are they opened, and has it an entry."""
        began, started = now(), time.monotonic()
        prepared = self.folder.prepared
        async with AsyncExitStack() as stack:
            models = await self._open_models(stack, asks=asks)
            opened = time.monotonic()
            ledger = await stack.enter_async_context(Ledger(self.folder.path))
            limits = Limits(**prepared.file.budget.model_dump())
            self.caller = Caller(models, ledger, limits, replay=not asks, pool=self.pool)
            execution = Execution(self.folder.path, self.folder.manifest, began) if asks else None
            if execution is not None:
                execution.begin(self._infos, ledger.committed_at_open)
            error: BaseException | None = None
            try:
                check_counting(prepared, {name: info for name, (_, info) in models.items()})
                rounds = await self._story(stack, ledger)
            except BaseException as stopped:
                error = stopped
                raise
            finally:
                did = await self._ended(execution, (started, opened), error)
        return self._result(rounds, time.monotonic() - started, did)

    async def _story(self, stack: AsyncExitStack, ledger: Ledger) -> list[dict[str, Any]]:
        """The rounds, observed, up to the event that says that the run is done."""
        assert self.caller is not None  # noqa: S101 - `_execute` has just made it
        file = self.folder.prepared.file
        sinks = [make(self.caller.meter, self.caller) for make in self.observe]

        def emit(event: Event) -> None:
            ledger.put(event)
            for sink in sinks:
                sink(event)

        self._emit = emit
        try:
            rounds = await self._rounds(stack, Context(Seeds(file.seed), emit, self.caller, file.too_long))
        except InputError as error:
            if not (kept := _answered(self.caller.meter)):
                raise
            raise _stopped(error, kept) from error
        emit(Event("done", "done", {"status": "done"}))
        await ledger.flush()
        return rounds

    async def _rounds(self, stack: AsyncExitStack, ctx: Context) -> list[dict[str, Any]]:
        prepared = self.folder.prepared
        grader = None
        if prepared.task.grader != "rubric":
            grader = open_grader(prepared.task)
            stack.push_async_callback(grader.close)
        room = seat_room(prepared.classroom, prepared.seats, prepared.task, grader, ctx)
        ctx.emit(_run_event(prepared))
        rows, start = _start_of(self.folder) if "forked" in self.folder.manifest else ([], None)
        file = prepared.file
        async for row in m3(room, file.lesson, file.method, ctx, start, self.folder.donor):
            rows.append(row)
        return rows

    async def _open_models(self, stack: AsyncExitStack, *, asks: bool) -> dict[str, tuple[ChatModel, ModelInfo]]:
        """Opens the models; where nothing is asked, what they are is taken from the manifest.

        Entries under `models:` that say the same share one model: its weights, its cache, its limits. Others that
        ask the same server share its limits.
        """
        known_as = self.folder.manifest["models"] if asks else _models_at_the_end(self.folder)
        needed = models_needed(self.folder.prepared)
        surroundings = Surroundings(logs=self.folder.path / SERVER_LOGS, tell=self._told)
        by_name = {name: spec for name, spec in self.folder.prepared.file.models.items() if name in needed}
        models: dict[str, ChatModel] = {}
        self._models, self._infos = {}, {}
        for name, spec in by_name.items():
            # All are made before any gets ready: engines that start servers plan them together.
            if (said := spec.model_dump_json()) not in models:
                place = self.folder.prepared.loaded.place(f"models.{name}")
                if self.shelf is not None:
                    models[said] = await stack.enter_async_context(self.shelf.lent(name, spec, place))
                    continue  # what its servers did is told of all runs together
                models[said] = self._models[name] = open_model(name, spec, place, surroundings)
                stack.push_async_callback(models[said].close)
        opened: dict[str, tuple[ChatModel, ModelInfo]] = {}
        alike: dict[str, ModelInfo] = {}
        for name, spec in by_name.items():
            said, before = spec.model_dump_json(), known_as.get(name)
            if said not in alike:
                alike[said] = (
                    ModelInfo(before["identity"], before.get("detail", {}))
                    if before and not asks
                    else await self._ready(models[said], spec)
                )
            if asks:
                self._refuse_another(name, before, alike[said])
            opened[name] = (models[said], alike[said])
            self._infos[name] = alike[said]
        # The examiner's model is not opened where nothing is asked of it, yet its agent sits in the room.
        default = next(iter(opened.values()))
        return {name: opened.get(name, default) for name in self.folder.prepared.file.models}

    async def _ready(self, model: ChatModel, spec: ModelSpec) -> ModelInfo:
        """Gets a model ready; what is wrong with an option is told with its line in the scenario."""
        try:
            return await (model.ready() if self.shelf is None else self.shelf.ready(spec, model))
        except ModelUnavailable as error:
            if error.where is not None and error.where.file is None and (error.where.key or "").startswith("models."):
                error.where = self.folder.prepared.loaded.place(error.where.key or "")
            raise

    def _told(self, text: str) -> None:
        """Passes on what an engine says; once the run goes on it stands in its transcript too."""
        self.tell(text)
        if self._emit is not None:
            self._emit(Event(f"servers/{datetime.now(UTC).isoformat()}", "notice", {"text": text}))

    async def _ended(
        self, execution: Execution | None, clock: tuple[float, float], error: BaseException | None
    ) -> dict[str, Any]:
        """What this execution did, recorded; `clock` is when it started and had its models."""
        assert self.caller is not None  # noqa: S101 - `_execute` made it
        meter, ended = self.caller.meter, time.monotonic()
        started, opened = clock
        did: dict[str, Any] = {
            "time": {
                "starting": round(opened - started, 3),
                "waiting": round(meter.waited, 3),
                "own": round(max(0.0, ended - opened - meter.waited), 3),
            },
            "calls": {"made": meter.made, "replayed": meter.replayed, "shared": meter.shared},
            "servers": {},
        }
        if execution is None:
            return did
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._take_figures(did["servers"])
        finally:
            try:
                execution.end(_how(error), did, None if error is None else _why(error))
            except OSError as wrong:
                self.tell(f"what this execution did cannot be recorded: {wrong}")
        return did

    async def _take_figures(self, told: dict[str, Any]) -> None:
        """What the servers of the models did, put into `told` by the models' names as they tell it."""
        for name, model in self._models.items():
            if not isinstance(model, Figures):
                continue
            try:
                told[name] = dict(await model.figures())
            except Exception as error:  # the run is over, one way or the other: this is no reason to lose that
                self.tell(f"{name}: what its servers did cannot be told ({type(error).__name__}: {error})")
                continue
            if measured := known(self._infos[name]):
                told[name]["determinism"] = measured

    def _refuse_another(self, name: str, recorded: Mapping[str, Any] | None, info: ModelInfo) -> None:
        """Raises where calls were recorded with another model: before the manifest says that it was this one."""
        if recorded is None or recorded["identity"] == info.identity or not (self.folder.path / LEDGER_FILE).exists():
            return
        with LedgerReader(self.folder.path) as ledger:
            if not ledger.asked(recorded["identity"]):
                return
        raise LedgerMismatch(
            f"this run was made with {recorded['identity']}, and models.{name} is now {info.identity}",
            where=Place(str(self.folder.path), key=f"models.{name}"),
            remedy="Use the same model and options, or `lbt-sim fork` to go on from a round with another model.",
        )

    def _result(self, rounds: Sequence[Mapping[str, Any]], seconds: float, did: Mapping[str, Any]) -> dict[str, Any]:
        """What `--json` prints."""
        assert self.caller is not None  # noqa: S101 - `_execute` made it
        meter, prepared = self.caller.meter, self.folder.prepared
        return {
            "run": str(self.folder.path),
            "status": "done",
            "seconds": round(seconds, 3),
            "seed": prepared.file.seed,
            "rounds": list(rounds),
            "baselines": baselines(prepared.task),
            "notices": list(prepared.task.notices),
            "calls": {**did["calls"], "failed": meter.failed},
            "tokens": {
                "prompt": meter.prompt_tokens,
                "cached": meter.cached_tokens,
                "completion": meter.completion_tokens,
            },
            "time": did["time"],
            "servers": did["servers"],
            "executions": recorded(self.folder.path),
        }


def is_over(folder: RunFolder) -> bool:
    """Whether every call of the run is in its ledger: it came to its end, and nothing was changed since."""
    there = (folder.path / LEDGER_FILE).exists() and folder.manifest["models"].keys() >= set(
        models_needed(folder.prepared)
    )
    if folder.changed or not there:
        return False
    with LedgerReader(folder.path) as ledger:
        return any(True for _ in ledger.events("done"))


def _models_at_the_end(folder: RunFolder) -> Mapping[str, Any]:
    """The models as they were when the run came to its end: what hangs on their contexts was decided so."""
    done = [models for entry in recorded(folder.path) if entry.get("how") == "done" and (models := models_of(entry))]
    return {**folder.manifest["models"], **(done[-1] if done else {})}


def _how(error: BaseException | None) -> How:
    if error is None:
        return "done"
    stopped = isinstance(error, (Interrupted, asyncio.CancelledError, KeyboardInterrupt))
    return "interrupted" if stopped else "failed"


def _why(error: BaseException) -> str:
    return error.what if isinstance(error, LbtError) else f"{type(error).__name__}: {error}"


def _answered(meter: Meter) -> int:
    """How many calls this execution has had answers to, wherever those came from."""
    return meter.made + meter.replayed + meter.shared


def _stopped(error: InputError, kept: int) -> RunError:
    """What is told of something wrong that shows only when there are answers already."""
    told = f"What was answered so far is kept ({kept:,} call{'s' * (kept != 1)})."
    if not isinstance(error, (ScenarioError, TemplateError, TaskError, ClassroomError)):
        return RunError(error.what, where=error.where, valid=error.valid, remedy=f"{error.remedy}\n  {told}".strip())
    wrong = "template" if isinstance(error, TemplateError) else "file"
    again = f"The run folder has its own copy of the {wrong}, so resuming would end here again: correct it where it "
    remedy = f"{error.remedy}\n  {told} {again}came from, and start a new run."
    return RunSpoiled(error.what, where=error.where, valid=error.valid, remedy=remedy.strip())


def _start_of(folder: RunFolder) -> tuple[list[dict[str, Any]], Start]:
    """A fork's finished rounds, and the beam that it goes on with, from the copied events."""
    last = int(folder.manifest["forked"]["round"]) - 1
    with LedgerReader(folder.path) as ledger:
        rows = [dict(event.data) for event in ledger.events("report") if event.data["round"] <= last]
        materials = {event.data["id"]: _material(event.data) for event in ledger.events("material")}
        chosen = [event.data["beam"] for event in ledger.events("selection") if event.data["round"] == last]
    rows.sort(key=lambda row: int(row["round"]))
    beam = chosen[0] if chosen else [rows[-1]["material"]]
    return rows, Start(last, tuple(materials[id_] for id_ in beam))


def _material(data: Mapping[str, Any]) -> Material:
    exemplars = tuple(Exemplar(**values) for values in data["exemplars"])
    return Material(exemplars, data["lecture"], tuple(data["parents"]), data["operator"], data["by"])


def _run_event(prepared: Prepared) -> Event:
    file, task, classroom = prepared.file, prepared.task, prepared.classroom
    counts = classroom.edge_counts()
    data = {
        "title": file.title or prepared.loaded.name,
        "seed": file.seed,
        "method": file.method.name,
        "rounds": file.method.rounds,
        "task": {
            "name": task.name,
            "labels": list(task.labels),
            "positive": task.positive,
            "grader": task.grader,
            "train": len(task.train),
            "held_out": len(task.held_out),
        },
        "seats": [
            {
                "name": seat.name,
                "role": seat.role,
                "model": seat.model,
                "engine": file.models[seat.model].engine,
                "persona": seat.persona.title if seat.persona else None,
                **({"mind": seat.traits.mind} if seat.traits.mind else {}),
                **({"knowledge": seat.knowledge.model_dump()} if seat.knowledge else {}),
            }
            for seat in prepared.seats
        ],
        "edges": [list(edge) for edge in classroom.edges()] if sum(counts.values()) <= _ALL_EDGES else [],
        "edge_counts": dict(counts),
        "baselines": baselines(task),
        "notices": list(task.notices),
    }
    return Event("run", "run", data)
