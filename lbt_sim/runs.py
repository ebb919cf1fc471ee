"""A run and its folder: start, resume, replay, fork. Resume is executing again against the ledger.

A run folder holds `scenario.yaml` (every value, and the agents, templates and classroom that were used),
`run.sqlite` (calls and events) and `manifest.json` (versions, engine flags, seeds), and nothing that cannot be
derived from them.
"""

from __future__ import annotations

import json
import platform
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lbt_sim.errors import InputError, Place, RunLocked
from lbt_sim.events import Event, EventSink
from lbt_sim.grading.load import open_grader
from lbt_sim.ledger import LEDGER_FILE, Ledger, LedgerReader
from lbt_sim.methods.m3 import Start, m3
from lbt_sim.models.base import ChatModel, ModelInfo
from lbt_sim.models.recorded import Caller, Limits, Meter
from lbt_sim.models.registry import open_model
from lbt_sim.reporting import baselines
from lbt_sim.roles.room import Context, seat_room
from lbt_sim.roles.values import Material
from lbt_sim.scenario.load import dump_resolved, load_resolved
from lbt_sim.seeds import Seeds
from lbt_sim.setup import Prepared, models_needed, prepare
from lbt_sim.tasks.base import Exemplar

__all__ = ["MANIFEST_FILE", "SCENARIO_FILE", "Run", "RunFolder", "create_run", "fork_run", "open_run"]

SCENARIO_FILE, MANIFEST_FILE = "scenario.yaml", "manifest.json"
_PACKAGES = ("lbt-sim", "autogen-agentchat", "xllamacpp", "math-verify", "networkx", "pydantic", "jinja2")
_ALL_EDGES = 20_000
"""Above this many edges the `run` event tells how many there are, not which."""

Observe = Callable[[Meter, Caller], EventSink]


@dataclass(frozen=True)
class RunFolder:
    """A run on disk.

    Attributes:
        path: The folder.
        prepared: Its scenario, from the folder alone.
        manifest: What was recorded about it when it was made.
    """

    path: Path
    prepared: Prepared
    manifest: Mapping[str, Any]


def create_run(prepared: Prepared, out: Path | None, *, forked: Mapping[str, Any] | None = None) -> RunFolder:
    """Makes the folder of a new run. Nothing is left behind where it cannot be made.

    Raises:
        InputError: `out` holds something already, or cannot be written.
    """
    path = out or _free_folder(Path("runs"), f"{prepared.loaded.name}-{prepared.file.seed}")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(
            f"{path} is there already" + (" and holds a run" if (path / LEDGER_FILE).exists() else ""),
            where=Place(key="--out"),
            remedy=f"Continue it with `lbt-sim resume {path}`, or name another folder.",
        )
    manifest: dict[str, Any] = {
        "lbt_sim": _version("lbt-sim"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": prepared.file.seed,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: _version(name) for name in _PACKAGES},
        "task_sources": dict(prepared.task.sources),
        "models": {},
    }
    if forked is not None:
        manifest["forked"] = dict(forked)
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / SCENARIO_FILE).write_text(dump_resolved(prepared.loaded), encoding="utf-8")
        _write_manifest(path, manifest)
    except OSError as error:
        raise InputError(
            f"the run folder cannot be written: {error.strerror or error}",
            where=Place(str(path)),
            remedy="Name a folder that you may write to with --out.",
        ) from error
    return RunFolder(path, prepared, manifest)


def open_run(path: Path, *, sets: Sequence[str] = ()) -> RunFolder:
    """A run that was made before, from its folder alone.

    Args:
        path: The folder.
        sets: `budget.…` and `models.…` values to change; anything else would be another run (`fork_run`).

    Raises:
        InputError: It is no run folder, or its data have changed.
    """
    for entry in sets:
        if not entry.startswith(("budget.", "models.")):
            raise InputError(
                f"a run cannot be resumed with another {entry.split('=', 1)[0].split('.', 1)[0]}",
                where=Place(key=f"--set {entry}"),
                valid=["budget.…", "models.…"],
                remedy="`lbt-sim fork RUN --from-round K --set …` goes on from a round with a changed scenario.",
            )
    scenario, manifest = path / SCENARIO_FILE, path / MANIFEST_FILE
    for file in (scenario, manifest):
        if not file.is_file():
            raise InputError(
                f"{path} is not a run folder: {file.name} is missing",
                where=Place(str(path)),
                remedy="A run folder holds scenario.yaml, manifest.json and run.sqlite; `lbt-sim run` makes one in runs/.",
            )
    try:
        facts = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"the manifest is damaged: {error}", where=Place(str(manifest))) from error
    prepared = prepare(load_resolved(scenario.read_text(encoding="utf-8"), str(scenario), sets=sets))
    changed = [name for name, digest in prepared.task.sources.items() if facts["task_sources"].get(name) != digest]
    if changed:
        raise InputError(
            f"the data of this run have changed: {changed[0]}",
            where=Place(str(scenario), key="task"),
            remedy="Put the file back that the run was started with (its SHA-256 is in manifest.json), or start a new run.",
        )
    return RunFolder(path, prepared, facts)


def fork_run(source: RunFolder, prepared: Prepared, from_round: int, out: Path | None) -> RunFolder:
    """A new run that shares rounds 0 to `from_round` - 1 with `source` and goes on with another scenario.

    Raises:
        InputError: `source` has not finished round `from_round` - 1.
    """
    with LedgerReader(source.path) as ledger:
        done = [int(event.data["round"]) for event in ledger.events("report")]
    if from_round < 1 or from_round - 1 not in done:
        raise InputError(
            f"{source.path} cannot be forked from round {from_round}",
            where=Place(key="--from-round"),
            valid=[str(round_ + 1) for round_ in sorted(done)],
            remedy="Fork from a round whose predecessor is finished.",
        )
    name = prepared.loaded.name
    target = out or _free_folder(Path("runs"), f"{name}-{prepared.file.seed}-fork{from_round}")
    folder = create_run(prepared, target, forked={"from": str(source.path), "round": from_round})
    _copy_rounds(source.path / LEDGER_FILE, folder.path, from_round)
    return folder


def _copy_rounds(source: Path, target: Path, before: int) -> None:
    """Copies calls and events of the rounds before `before` into the target's new ledger."""
    with LedgerReader(source.parent) as reader:
        calls = list(reader.calls("c.round < ?", (before,)))
        events = [e for e in reader.events() if e.kind == "material" or 0 <= _round_of(e) < before]
    kept = {id_ for e in events if e.kind == "selection" for id_ in [c["id"] for c in e.data["candidates"]]}
    kept |= {e.data["material"] for e in events if e.kind == "report"}

    ledger = Ledger(target)
    for call in calls:
        ledger.put(call)
    for event in events:
        if event.kind != "material" or event.data["id"] in kept:
            ledger.put(event)
    ledger.close()


def _round_of(event: Event) -> int:
    head = event.path.split("/", 1)[0]
    return int(head[1:]) if head[:1] == "r" and head[1:].isdigit() else -1


@dataclass
class Run:
    """Executes a run folder: new, interrupted or finished, the same way.

    Args:
        folder: The run.
        observe: Makes the sinks that watch it (live view, plain lines) once meter and caller are there.
        replay: Models are forbidden; the ledger must hold every call.
    """

    folder: RunFolder
    observe: Sequence[Observe] = ()
    replay: bool = False
    caller: Caller | None = field(default=None, init=False)

    async def execute(self) -> dict[str, Any]:
        """Runs to the end; the result as `--json` prints it.

        Raises:
            RunLocked: Another process works in the folder.
            ModelUnavailable: A model cannot be had; nothing was asked.
            RunError, Interrupted: It stopped; what was committed is kept.
        """
        started = time.monotonic()
        prepared = self.folder.prepared
        async with AsyncExitStack() as stack:
            stack.enter_context(_locked(self.folder.path))
            models = await self._open_models(stack)
            ledger = await stack.enter_async_context(Ledger(self.folder.path))
            limits = Limits(**prepared.file.budget.model_dump())
            self.caller = Caller(models, ledger, limits, replay=self.replay)
            sinks = [make(self.caller.meter, self.caller) for make in self.observe]

            def emit(event: Event) -> None:
                ledger.put(event)
                for sink in sinks:
                    sink(event)

            ctx = Context(Seeds(prepared.file.seed), emit, self.caller)
            rounds = await self._rounds(stack, ctx)
            emit(Event("done", "done", {"status": "done"}))
            await ledger.flush()
        return self._result(rounds, time.monotonic() - started)

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
        """Opens the models and records what they are; a replay takes their identities from the manifest."""
        manifest = dict(self.folder.manifest)
        needed = models_needed(self.folder.prepared)
        opened: dict[str, tuple[ChatModel, ModelInfo]] = {}
        for name, spec in self.folder.prepared.file.models.items():
            if name not in needed:
                continue
            model = open_model(name, spec, self.folder.prepared.loaded.place(f"models.{name}"))
            stack.push_async_callback(model.close)
            recorded = manifest["models"].get(name)
            if self.replay and recorded:
                opened[name] = (model, ModelInfo(recorded["identity"]))
            else:
                opened[name] = (model, await model.ready())
        if not self.replay:
            manifest["models"] = {n: {"identity": i.identity, "detail": dict(i.detail)} for n, (_, i) in opened.items()}
            _write_manifest(self.folder.path, manifest)
        # The examiner's model is not opened where nothing is asked of it, yet its agent sits in the room.
        default = next(iter(opened.values()))
        return {name: opened.get(name, default) for name in self.folder.prepared.file.models}

    def _result(self, rounds: Sequence[Mapping[str, Any]], seconds: float) -> dict[str, Any]:
        assert self.caller is not None  # noqa: S101 - execute set it
        meter, prepared = self.caller.meter, self.folder.prepared
        return {
            "run": str(self.folder.path),
            "status": "done",
            "seconds": round(seconds, 3),
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
        }


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


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keeps a second process out of the folder. The lock goes with the process, however it ends."""
    lock = FileLock(path / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunLocked(
            "another process works in this run folder",
            where=Place(str(path)),
            remedy="Wait for it, or stop it; `lbt-sim show` can be used meanwhile.",
        ) from None
    try:
        yield
    finally:
        lock.release()


def _free_folder(parent: Path, name: str) -> Path:
    """`parent/name`, numbered where that is taken."""
    path, number = parent / name, 1
    while path.exists():
        number += 1
        path = parent / f"{name}-{number}"
    return path


def _write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest whole or not at all."""
    part = path / f"{MANIFEST_FILE}.part"
    part.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path / MANIFEST_FILE)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
