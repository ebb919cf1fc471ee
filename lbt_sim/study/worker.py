"""A worker: executes blocks of a study's runs, and tells what happens as JSON lines.

A block is some runs of one seed. They are executed side by side on models that stay open, and equal deterministic calls
of theirs are made once. One that fails does not stop the others. A worker ends when its standard input does: whoever
gave it work is gone.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lbt_sim.concurrency import cancelled
from lbt_sim.errors import InputError, Interrupted, LbtError, Place, RunLocked
from lbt_sim.events import Event, EventSink
from lbt_sim.ledger import LEDGER_FILE, LedgerReader
from lbt_sim.manifest import MANIFEST_FILE
from lbt_sim.models.pool import Pool, Shelf
from lbt_sim.models.recorded import Caller, Meter
from lbt_sim.models.surroundings import Surroundings
from lbt_sim.runs import Run, RunFolder, create_run, is_over, open_run
from lbt_sim.scenario.load import load_resolved
from lbt_sim.setup import prepare
from lbt_sim.study.digest import digest
from lbt_sim.study.folder import StudyFolder, open_study
from lbt_sim.study.plan import PlannedRun
from lbt_sim.study.record import RunResult

__all__ = ["Block", "Emit", "Worker", "main", "serve"]

Emit = Callable[[Mapping[str, Any]], None]
"""Takes what happens: JSON."""

_SIDE_BY_SIDE = 16
"""Runs of a block that are executed at once; they share models, and these have limits of their own."""
_LEDGERS = 64
"""Earlier runs' ledgers that are looked into. What arms have in common most of them hold, and each keeps files open."""
_TICK = 0.5


@dataclass(frozen=True)
class Block:
    """Runs to be executed together.

    Attributes:
        runs: Of one seed.
        beside: Folders of other runs of this seed, whose answers to equal calls can be used.
    """

    runs: tuple[PlannedRun, ...]
    beside: tuple[str, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> Block:
        """From JSON."""
        runs = (PlannedRun(**{**row, "donor": tuple(row["donor"]) if row["donor"] else None}) for row in data["runs"])
        return Block(tuple(runs), tuple(data["beside"]))


@dataclass
class Worker:
    """Executes blocks of one study.

    Args:
        study: The study's folder.
        emit: Takes what happens.
    """

    study: StudyFolder
    emit: Emit
    stopping: bool = field(default=False, init=False)
    _active: dict[tuple[str, int], Run] = field(default_factory=dict, init=False)
    _scenarios: dict[str, str] = field(default_factory=dict, init=False)

    def drain(self) -> None:
        """Begins nothing more; what is in flight is waited for."""
        self.stopping = True
        for run in self._active.values():
            if run.caller is not None:
                run.caller.draining = True

    def _is_stopping(self) -> bool:
        return self.stopping

    async def execute(self, block: Block, shelf: Shelf) -> None:
        """Executes a block; tells `result` of each run that came to an end."""
        with ExitStack() as readers:
            pool = Pool(tuple(self._ledgers(block, readers)))
            gate = asyncio.Semaphore(_SIDE_BY_SIDE)
            ticker = asyncio.ensure_future(self._tick())
            tasks = [asyncio.ensure_future(self._one(run, shelf, pool, gate)) for run in block.runs]
            try:
                await asyncio.gather(*tasks)
            finally:
                await cancelled([*tasks, ticker])
                self._tell_progress()

    def _ledgers(self, block: Block, readers: ExitStack) -> Sequence[LedgerReader]:
        """The ledgers that earlier executions left of runs of this seed."""
        found: list[LedgerReader] = []
        for folder in dict.fromkeys([*block.beside, *(run.folder for run in block.runs)]):
            if len(found) < _LEDGERS and (self.study.path / folder / LEDGER_FILE).exists():
                with suppress(InputError):  # it was stopped before its first call, or is damaged: its own run tells
                    found.append(readers.enter_context(LedgerReader(self.study.path / folder)))
        return found

    async def _one(self, planned: PlannedRun, shelf: Shelf, pool: Pool, gate: asyncio.Semaphore) -> None:
        key = (planned.condition, planned.seed)
        async with gate:
            if self.stopping:
                return
            self._say("begin", key)
            try:
                await self._executed(planned, shelf, pool)
            except (Interrupted, asyncio.CancelledError):
                self._say("interrupted", key)
                if not self._is_stopping():  # the worker itself is broken off
                    raise
            except LbtError as error:
                if isinstance(error, RunLocked):
                    self._say("interrupted", key, why=str(error))
                else:
                    self._end(planned, " ".join(str(error).split()))
            except Exception as error:  # a bug, ours or an engine's: this run stops, the others go on
                traceback.print_exc()
                self._end(planned, f"{type(error).__name__}: {error}")
            else:
                self._end(planned, None)
            finally:
                self._active.pop(key, None)
                self._tell_progress()  # what its result tells is no longer under way

    async def _executed(self, planned: PlannedRun, shelf: Shelf, pool: Pool) -> None:
        key = (planned.condition, planned.seed)
        folder = self._folder(planned)
        if is_over(folder):
            return

        def observe(meter: Meter, caller: Caller) -> EventSink:
            def sink(event: Event) -> None:
                if event.kind == "report":
                    data = event.data
                    self._say("round", key, round=data["round"], accuracy=data["teacher"]["accuracy"])

            if self.stopping:
                caller.draining = True
            return sink

        run = self._active[key] = Run(
            folder, [observe], tell=lambda text: self._say("told", key, text=text), shelf=shelf, pool=pool
        )
        await run.execute()

    def _folder(self, planned: PlannedRun) -> RunFolder:
        """The run's folder, made from its condition's scenario where it is not there yet."""
        path = self.study.path / planned.folder
        if (path / MANIFEST_FILE).exists():
            there = open_run(path)
            if there.prepared.file.seed != planned.seed:
                raise InputError(
                    f"this folder holds a run with seed {there.prepared.file.seed}, not {planned.seed}",
                    where=Place(str(path)),
                    remedy="Put the study's own run back, or take the folder away: then it is run anew.",
                )
            return there
        file = self.study.scenario_of(planned.condition)
        if planned.condition not in self._scenarios:
            self._scenarios[planned.condition] = self.study.read_scenario(planned.condition)
        sets = [f"seed={planned.seed}"]
        if planned.donor is not None:
            donor = self.study.path / self.study.folder_of(*planned.donor)
            sets.append(f"method.revise.donor={json.dumps(str(donor))}")
        loaded = load_resolved(self._scenarios[planned.condition], str(file), sets=sets)
        path.mkdir(parents=True, exist_ok=True)
        return create_run(prepare(loaded), path)

    def _end(self, planned: PlannedRun, error: str | None) -> None:
        """Tells how a run ended, with all that is kept of it."""
        path = self.study.path / planned.folder
        status: Any = "done" if error is None else "failed"
        try:
            result = digest(path, planned.condition, planned.seed, planned.folder, status, error)
        except Exception as wrong:  # a damaged ledger may raise anything: this run failed, the others go on
            said = " ".join(str(wrong).split())
            if not isinstance(wrong, LbtError):
                traceback.print_exc()
                said = f"what it answered cannot be read ({type(wrong).__name__}: {said})"
            result = RunResult(planned.condition, planned.seed, planned.folder, "failed", error or said)
        self._say("result", (planned.condition, planned.seed), result=result.as_data())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self._tell_progress()

    def _tell_progress(self) -> None:
        meters = [run.caller.meter for run in self._active.values() if run.caller is not None]
        total = {name: sum(getattr(meter, name) for meter in meters) for name in ("made", "shared", "in_flight")}
        self.emit({"event": "progress", "active": len(self._active), **total})

    def _say(self, event: str, key: tuple[str, int], **more: Any) -> None:
        self.emit({"event": event, "condition": key[0], "seed": key[1], **more})


def main(folder: str) -> None:
    """Runs a worker process: blocks come in as JSON lines, what happens goes out as JSON lines."""
    # Whatever else prints must not get between the lines.
    out = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def emit(data: Mapping[str, Any]) -> None:
        line = json.dumps(data).encode() + b"\n"
        with suppress(BrokenPipeError):  # whoever listened is gone; that ends us by standard input
            while line:
                line = line[os.write(out, line) :]

    asyncio.run(_work(Path(folder), emit))


async def _work(folder: Path, emit: Emit) -> None:
    lines = asyncio.StreamReader(limit=1 << 26)
    loop = asyncio.get_running_loop()
    orders, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)

    async def next_order() -> Any:
        line = await lines.readline()
        return json.loads(line) if line else None

    try:
        await serve(folder, emit, next_order)
    finally:
        orders.close()


async def serve(folder: Path, emit: Emit, next_order: Callable[[], Awaitable[Any]]) -> None:
    """Carries out orders: blocks (as JSON has them), `drain`, `cancel`; None: whoever gave them is gone.

    Args:
        folder: The study's.
        emit: Takes what happens: `ready` first, `block` after each block.
        next_order: Waits for an order.
    """
    worker = Worker(open_study(folder), emit)
    surroundings = Surroundings(logs=folder / "servers", tell=lambda text: emit({"event": "told", "text": text}))
    async with Shelf(surroundings) as shelf:
        emit({"event": "ready"})
        task: asyncio.Future[None] | None = None
        while (order := await next_order()) is not None:
            if order == "drain":
                worker.drain()
            elif order == "cancel":
                worker.drain()
                if task is not None:
                    task.cancel()
            else:
                task = asyncio.ensure_future(_block(worker, Block.from_data(order), shelf, emit))
        # Nothing that is under way is wanted any more.
        worker.drain()
        if task is not None:
            await cancelled([task])


async def _block(worker: Worker, block: Block, shelf: Shelf, emit: Emit) -> None:
    try:
        await worker.execute(block, shelf)
    finally:
        with suppress(BrokenPipeError):
            emit({"event": "block"})


if __name__ == "__main__":
    main(sys.argv[1])
