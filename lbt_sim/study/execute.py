"""Executing a study: its runs dealt out to workers, results kept as they come, at any moment resumable."""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from lbt_sim.errors import Place, RunError
from lbt_sim.executions import now
from lbt_sim.folders import locked
from lbt_sim.manifest import write_manifest
from lbt_sim.study.folder import ResultsFile, StudyFolder
from lbt_sim.study.plan import PlannedRun
from lbt_sim.study.record import RunResult
from lbt_sim.study.worker import Block

__all__ = ["Execution", "Executor", "LocalWorkers", "Outcome", "Watch"]

Key = tuple[str, int]
Watch = Callable[[Mapping[str, Any]], None]
"""Takes what happens, as workers tell it; never blocks."""

_DEATHS = 2
"""So often a run's worker may die before the run is given up."""
_LOCKED_DELAY = 5.0
_LOCKED_TIMES = 36
"""So often, so many seconds apart, a run is tried whose folder another process holds: a worker that counts as dead may
live on for a while, where its node was cut off."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an execution ended.

    Attributes:
        status: `done`: every run came to its end; `failed`: some stopped; `budget`: the study's budget is spent;
            `interrupted`.
        done: Runs that are done.
        failed: Runs that stopped.
        missing: Runs that were not made.
        seconds: Wall time of this execution.
    """

    status: Literal["done", "failed", "budget", "interrupted"]
    done: int
    failed: int
    missing: int
    seconds: float


class Executor(Protocol):
    """Where blocks are executed. Told what happens, in the order in which it happens, by `hear`."""

    @property
    def workers(self) -> int:
        """How many blocks it executes at once; known from `start` on."""
        ...

    async def start(self, study: StudyFolder, hear: Callable[[int, Mapping[str, Any]], None]) -> None:
        """Gets ready. `hear` takes the number of a worker and what it tells; `{event: died}` when one is lost."""
        ...

    def give(self, worker: int, block: Block) -> None:
        """Has a worker execute a block; it tells `block` when it is through."""
        ...

    def stop(self, *, cancel: bool) -> None:
        """Has all workers begin nothing more, or break off."""
        ...

    async def close(self) -> None:
        """Ends all workers; nothing is left running."""
        ...


@dataclass
class Execution:
    """One execution of a study.

    Args:
        study: The folder.
        executor: Where its runs are executed.
        watch: Takes what happens.
    """

    study: StudyFolder
    executor: Executor
    watch: Watch = lambda event: None
    _results: ResultsFile = field(init=False)
    _waiting: deque[Block] = field(default_factory=deque, init=False)
    _given: dict[int, Block] = field(default_factory=dict, init=False)
    _deaths: Counter[Key] = field(default_factory=Counter, init=False)
    _ended: set[Key] = field(default_factory=set, init=False)
    _locked: Counter[Key] = field(default_factory=Counter, init=False)
    _put_off: dict[Key, asyncio.TimerHandle] = field(default_factory=dict, init=False)
    _idle: set[int] = field(default_factory=set, init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _stopping: str = field(default="", init=False)
    _lost: int = field(default=0, init=False)
    _why: str = field(default="", init=False)
    _made: int = field(default=0, init=False)
    _tokens: int = field(default=0, init=False)

    def stop(self, *, cancel: bool = False) -> None:
        """Begins nothing more; with `cancel` what is in flight is broken off."""
        self._stopping = "interrupted"
        self.executor.stop(cancel=cancel)
        self._changed.set()

    async def execute(self) -> Outcome:
        """Executes what is not done yet.

        Raises:
            RunLocked: Another process works on the study.
        """
        began, started = now(), time.monotonic()
        with locked(self.study.path), ResultsFile(self.study.path) as self._results:
            todo = self._take_stock()
            try:
                if todo:
                    await self.executor.start(self.study, self._hear)
                    self._part(todo)
                    await self._deal()
            finally:
                for timer in self._put_off.values():
                    timer.cancel()
                await self.executor.close()
                outcome = self._outcome(time.monotonic() - started)
                self._record(began, outcome)
        return outcome

    # --- what is to be done -------------------------------------------------------------------------------

    def _take_stock(self) -> Sequence[PlannedRun]:
        """The runs that are not done."""
        for result in self._results.results.values():
            self._spend(result)
            if result.status == "done":
                self.watch({"event": "known", "result": result.as_data()})
        done = {key for key, result in self._results.results.items() if result.status == "done"}
        self._ended = set(done)
        todo = [run for run in self.study.runs if (run.condition, run.seed) not in done]
        self.watch({"event": "plan", "runs": len(todo), "done": len(done)})
        return todo

    def _part(self, todo: Sequence[PlannedRun]) -> None:
        """Makes blocks of runs: by seed, those that need no other run's failures first."""
        first: dict[int, list[PlannedRun]] = {}
        second: dict[int, list[PlannedRun]] = {}
        for run in todo:
            (first if run.donor is None else second).setdefault(run.seed, []).append(run)
        # Runs of a seed share calls; they are parted only where there would else be workers without any.
        parts = math.ceil(self.executor.workers / max(1, len(first) or len(second)))
        for group in (first, second):
            for seed, runs in group.items():
                size = math.ceil(len(runs) / parts)
                beside = tuple(self.study.folder_of(one.name, seed) for one in self.study.conditions)
                for start in range(0, len(runs), size):
                    self._waiting.append(Block(tuple(runs[start : start + size]), beside))

    def _ready(self, block: Block) -> bool:
        return all(run.donor is None or run.donor in self._ended for run in block.runs)

    async def _deal(self) -> None:
        """Gives blocks to idle workers until all is done, or nothing more is to be begun."""
        while self._waiting or self._given or self._put_off:
            if self._over_budget() and not self._stopping:
                self._stopping = "budget"
                self.executor.stop(cancel=False)
            if not self._stopping:
                for worker in sorted(self._idle):
                    block = next((one for one in self._waiting if self._ready(one)), None)
                    if block is None:
                        break
                    self._waiting.remove(block)
                    self._idle.discard(worker)
                    self._given[worker] = block
                    self.executor.give(worker, block)
            elif not self._given:
                return
            if self._lost == self.executor.workers:
                raise RunError(
                    f"no worker can be started ({self._why})",
                    where=Place(str(self.study.path)),
                    remedy="What they said stands above. When it is mended, `lbt-sim resume` continues the study.",
                )
            self._changed.clear()
            await self._changed.wait()

    # --- what workers tell ----------------------------------------------------------------------------------

    def _hear(self, worker: int, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        if kind == "ready":
            self._idle.add(worker)
        elif kind == "result":
            self._take(RunResult.from_data(event["result"]))
        elif kind == "interrupted" and "why" in event:
            self._try_later(worker, (event["condition"], event["seed"]), str(event["why"]))
        elif kind == "block":
            self._given.pop(worker, None)
            self._idle.add(worker)
        elif kind == "lost":
            self._lost += 1
            self._why = str(event.get("why", ""))
        elif kind == "died":
            self._idle.discard(worker)
            self._mourn(self._given.pop(worker, None), str(event.get("why", "")))
        self.watch({**event, "worker": worker})
        self._changed.set()

    def _take(self, result: RunResult) -> None:
        self._results.add(result)
        self._ended.add((result.condition, result.seed))
        self._spend(result)

    def _spend(self, result: RunResult) -> None:
        self._made += result.counts.get("made", 0)
        self._tokens += result.counts.get("prompt_tokens", 0) + result.counts.get("completion_tokens", 0)

    def _over_budget(self) -> bool:
        budget = self.study.study.get("budget") or {}
        calls, tokens = budget.get("calls"), budget.get("tokens")
        return (calls is not None and self._made >= calls) or (tokens is not None and self._tokens >= tokens)

    def _mourn(self, block: Block | None, why: str) -> None:
        """A worker died: what it had not finished is given out again, each run alone; who dies again is given up."""
        for run in block.runs if block is not None else ():
            key = (run.condition, run.seed)
            if key in self._ended or key in self._put_off:
                continue
            self._deaths[key] += 1
            if self._deaths[key] >= _DEATHS and len(block.runs if block else ()) == 1:
                self._give_up(run, f"its worker died {self._deaths[key]} times ({why})")
            else:
                self._waiting.append(Block((run,), block.beside if block else ()))

    def _try_later(self, worker: int, key: Key, why: str) -> None:
        """Another process holds a run's folder: it is given out again when that may be over, and at last given up."""
        block = self._given[worker]
        run = next(run for run in block.runs if (run.condition, run.seed) == key)
        self._locked[key] += 1
        if self._locked[key] > _LOCKED_TIMES:
            self._give_up(run, " ".join(why.split()))
            return

        def again() -> None:
            del self._put_off[key]
            self._waiting.append(Block((run,), block.beside))
            self._changed.set()

        self._put_off[key] = asyncio.get_running_loop().call_later(_LOCKED_DELAY, again)

    def _give_up(self, run: PlannedRun, error: str) -> None:
        failed = RunResult(run.condition, run.seed, run.folder, "failed", error)
        self._take(failed)
        self.watch({"event": "result", "condition": run.condition, "seed": run.seed, "result": failed.as_data()})

    # --- the end --------------------------------------------------------------------------------------------

    def _outcome(self, seconds: float) -> Outcome:
        planned = {(run.condition, run.seed) for run in self.study.runs}
        known = {key: result.status for key, result in self._results.results.items() if key in planned}
        done, failed = (sum(status == one for status in known.values()) for one in ("done", "failed"))
        missing = len(planned) - len(known)
        status: Any = self._stopping if missing and self._stopping else "failed" if failed or missing else "done"
        return Outcome(status, done, failed, missing, seconds)

    def _record(self, began: str, outcome: Outcome) -> None:
        """Puts this execution into the manifest."""
        with suppress(OSError):
            facts = read_manifest_of(self.study.path)
            entry = {
                "began": began,
                "ended": now(),
                "seconds": round(outcome.seconds, 3),
                "how": outcome.status,
                "workers": self.executor.workers,
                "executor": type(self.executor).__name__,
                "cores": os.cpu_count(),
            }
            write_manifest(self.study.path, {**facts, "executions": [*facts.get("executions", []), entry]})


def read_manifest_of(path: Path) -> dict[str, Any]:
    """A study's manifest."""
    facts: dict[str, Any] = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    return facts


@dataclass
class LocalWorkers:
    """Worker processes on this machine; one that dies is started anew.

    Args:
        workers: How many.
    """

    workers: int = 1
    _processes: dict[int, asyncio.subprocess.Process] = field(default_factory=dict, init=False)
    _tasks: list[asyncio.Future[None]] = field(default_factory=list, init=False)
    _closing: bool = field(default=False, init=False)

    async def start(self, study: StudyFolder, hear: Callable[[int, Mapping[str, Any]], None]) -> None:
        """Starts the processes; each tells `ready` when it is."""
        self._tasks = [asyncio.ensure_future(self._live(number, study, hear)) for number in range(self.workers)]

    def give(self, worker: int, block: Block) -> None:
        """Writes the block to the worker's standard input."""
        self._order(worker, block.as_data())

    def stop(self, *, cancel: bool) -> None:
        """Tells all workers."""
        for worker in self._processes:
            self._order(worker, "cancel" if cancel else "drain")

    async def close(self) -> None:
        """Closes their inputs, and waits until they have ended."""
        self._closing = True
        for process in self._processes.values():
            if process.stdin is not None:
                process.stdin.close()
        for process in self._processes.values():
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _is_closing(self) -> bool:
        return self._closing

    def _order(self, worker: int, order: Any) -> None:
        process = self._processes.get(worker)
        if process is not None and process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(json.dumps(order).encode() + b"\n")

    async def _live(self, number: int, study: StudyFolder, hear: Callable[[int, Mapping[str, Any]], None]) -> None:
        """One worker's place: a process, and another one when that dies."""
        while not self._closing:
            process = self._processes[number] = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "lbt_sim.study.worker",
                str(study.path),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=1 << 26,
                start_new_session=True,  # the terminal's Ctrl-C is for whoever gives the orders
            )
            assert process.stdout is not None and process.stdin is not None  # noqa: S101, PT018 - they were asked for
            if self._is_closing():  # meanwhile: `close` has not seen this one
                process.stdin.close()
            told = 0
            async for line in process.stdout:
                told += 1
                hear(number, json.loads(line))
            code = await process.wait()
            if self._is_closing():
                return
            why = f"signal {-code}" if code < 0 else f"exit status {code}"
            hear(number, {"event": "died" if told else "lost", "why": why})
            if not told:
                return  # it cannot even start: another one could not either
