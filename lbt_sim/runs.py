"""Executing a run: new, resumed, replayed or forked, always the same way, against its folder's ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lbt_sim.errors import (
    ClassroomError,
    InputError,
    LedgerMismatch,
    ModelUnavailable,
    Place,
    RunError,
    RunSpoiled,
    ScenarioError,
    TaskError,
    TemplateError,
)
from lbt_sim.events import Event, EventSink
from lbt_sim.folders import (
    MANIFEST_FILE,
    SCENARIO_FILE,
    SERVER_LOGS,
    RunFolder,
    create_run,
    fork_run,
    locked,
    open_run,
    write_manifest,
)
from lbt_sim.grading.load import open_grader
from lbt_sim.ledger import LEDGER_FILE, Ledger, LedgerReader
from lbt_sim.methods.m3 import Start, m3
from lbt_sim.models.base import ChatModel, ModelInfo
from lbt_sim.models.determined import known
from lbt_sim.models.recorded import Caller, Limits, Meter
from lbt_sim.models.registry import open_model
from lbt_sim.models.surroundings import Figures, Surroundings
from lbt_sim.reporting import baselines
from lbt_sim.roles.room import Context, seat_room
from lbt_sim.roles.values import Material
from lbt_sim.seeds import Seeds
from lbt_sim.setup import Prepared, check_counting, models_needed
from lbt_sim.tasks.base import Exemplar

__all__ = ["MANIFEST_FILE", "SCENARIO_FILE", "Run", "RunFolder", "create_run", "fork_run", "open_run"]

_ALL_EDGES = 20_000
"""Above this many edges the `run` event tells how many there are, not which."""

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
    """

    folder: RunFolder
    observe: Sequence[Observe] = ()
    replay: bool = False
    tell: Callable[[str], None] = _nobody
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
        started = time.monotonic()
        prepared = self.folder.prepared
        async with AsyncExitStack() as stack:
            stack.enter_context(locked(self.folder.path))
            models = await self._open_models(stack)
            opened = time.monotonic()
            check_counting(prepared, {name: info for name, (_, info) in models.items()})
            ledger = await stack.enter_async_context(Ledger(self.folder.path))
            limits = Limits(**prepared.file.budget.model_dump())
            self.caller = Caller(models, ledger, limits, replay=self.replay)
            sinks = [make(self.caller.meter, self.caller) for make in self.observe]

            def emit(event: Event) -> None:
                ledger.put(event)
                for sink in sinks:
                    sink(event)

            self._emit = emit
            ctx = Context(Seeds(prepared.file.seed), emit, self.caller, prepared.file.too_long)
            try:
                rounds = await self._rounds(stack, ctx)
            except InputError as error:
                if not (kept := _answered(self.caller.meter)):
                    raise
                raise _stopped(error, kept) from error
            emit(Event("done", "done", {"status": "done"}))
            await ledger.flush()
            ended = time.monotonic()
            figures = await self._figures()
        return self._result(rounds, (started, opened, ended), figures)

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
        async for row in m3(room, file.lesson, file.method, ctx, start):
            rows.append(row)
        return rows

    async def _open_models(self, stack: AsyncExitStack) -> dict[str, tuple[ChatModel, ModelInfo]]:
        """Opens the models and records what they are; a replay takes their identities from the manifest.

        Entries under `models:` that say the same share one model: its weights, its cache, its limits. Others that
        ask the same server share its limits.
        """
        manifest = dict(self.folder.manifest)
        needed = models_needed(self.folder.prepared)
        surroundings = Surroundings(logs=self.folder.path / SERVER_LOGS, tell=self._told)
        by_name = {name: spec for name, spec in self.folder.prepared.file.models.items() if name in needed}
        models: dict[str, ChatModel] = {}
        for name, spec in by_name.items():
            # All are made before any gets ready: engines that start servers plan them together.
            if (said := spec.model_dump_json()) not in models:
                place = self.folder.prepared.loaded.place(f"models.{name}")
                models[said] = self._models[name] = open_model(name, spec, place, surroundings)
                stack.push_async_callback(models[said].close)
        opened: dict[str, tuple[ChatModel, ModelInfo]] = {}
        alike: dict[str, ModelInfo] = {}
        for name, spec in by_name.items():
            said, recorded = spec.model_dump_json(), manifest["models"].get(name)
            if said not in alike:
                alike[said] = (
                    ModelInfo(recorded["identity"], recorded.get("detail", {}))
                    if self.replay and recorded
                    else await self._ready(models[said])
                )
            if not self.replay:
                self._refuse_another(name, recorded, alike[said])
            opened[name] = (models[said], alike[said])
            self._infos[name] = alike[said]
        if not self.replay:
            manifest["models"] = {n: {"identity": i.identity, "detail": dict(i.detail)} for n, (_, i) in opened.items()}
            write_manifest(self.folder.path, manifest)
        # The examiner's model is not opened where nothing is asked of it, yet its agent sits in the room.
        default = next(iter(opened.values()))
        return {name: opened.get(name, default) for name in self.folder.prepared.file.models}

    async def _ready(self, model: ChatModel) -> ModelInfo:
        """Gets a model ready; what is wrong with an option is told with its line in the scenario."""
        try:
            return await model.ready()
        except ModelUnavailable as error:
            if error.where is not None and error.where.file is None and (error.where.key or "").startswith("models."):
                error.where = self.folder.prepared.loaded.place(error.where.key or "")
            raise

    def _told(self, text: str) -> None:
        """Passes on what an engine says; once the run goes on it stands in its transcript too."""
        self.tell(text)
        if self._emit is not None:
            self._emit(Event(f"servers/{datetime.now(UTC).isoformat()}", "notice", {"text": text}))

    async def _figures(self) -> dict[str, Any]:
        """What the servers of the models did, by the models' names."""
        figures = {n: dict(await model.figures()) for n, model in self._models.items() if isinstance(model, Figures)}
        for name, told in figures.items():
            if measured := known(self._infos[name]):
                told["determinism"] = measured
        return figures

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

    def _result(
        self, rounds: Sequence[Mapping[str, Any]], clock: tuple[float, float, float], figures: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What `--json` prints; `clock` is when it started, had its models, and ended."""
        assert self.caller is not None  # noqa: S101 - execute set it
        meter, prepared = self.caller.meter, self.folder.prepared
        started, opened, ended = clock
        own = ended - opened - meter.waited
        return {
            "run": str(self.folder.path),
            "status": "done",
            "seconds": round(time.monotonic() - started, 3),
            "seed": prepared.file.seed,
            "rounds": list(rounds),
            "baselines": baselines(prepared.task),
            "notices": list(prepared.task.notices),
            "calls": {
                "made": meter.made,
                "replayed": meter.replayed,
                "shared": meter.shared,
                "failed": meter.failed,
            },
            "tokens": {
                "prompt": meter.prompt_tokens,
                "cached": meter.cached_tokens,
                "completion": meter.completion_tokens,
            },
            "time": {
                "starting": round(opened - started, 3),
                "waiting": round(meter.waited, 3),
                "own": round(max(0.0, own), 3),
            },
            "servers": dict(figures),
        }


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
                "persona": seat.persona.title if seat.persona else None,
            }
            for seat in prepared.seats
        ],
        "edges": [list(edge) for edge in classroom.edges()] if sum(counts.values()) <= _ALL_EDGES else [],
        "edge_counts": dict(counts),
        "baselines": baselines(task),
        "notices": list(task.notices),
    }
    return Event("run", "run", data)
