"""Executing a study: its runs dealt out to workers, results kept as they come, at any moment resumable."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from lbt_sim.errors import Place, RunError
from lbt_sim.executions import now
from lbt_sim.ledger import LEDGER_FILE
from lbt_sim.manifest import MANIFEST_FILE, write_manifest
from lbt_sim.study.folder import ResultsFile, StudyFolder, facts_of, locked_study
from lbt_sim.study.local_workers import LocalWorkers
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
        locked: Whether whoever executes holds the folder's lock already.
    """

    study: StudyFolder
    executor: Executor
    watch: Watch = lambda event: None
    locked: bool = False
    phase: Literal["before", "under way", "after"] = field(default="before", init=False)
    """Whether `execute` was called, and whether it has ended."""
    _results: ResultsFile = field(init=False)
    _waiting: deque[Block] = field(default_factory=deque, init=False)
    _given: dict[int, Block] = field(default_factory=dict, init=False)
    _deaths: Counter[Key] = field(default_factory=Counter, init=False)
    _ended: set[Key] = field(default_factory=set, init=False)
    _locked: Counter[Key] = field(default_factory=Counter, init=False)
    _put_off: dict[Key, asyncio.TimerHandle] = field(default_factory=dict, init=False)
    _idle: set[int] = field(default_factory=set, init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _todo: set[Key] = field(default_factory=set, init=False)
    _stopping: str = field(default="", init=False)
    _entered: list[Any] | None = field(default=None, init=False)
    """The executions before this one, as the manifest has them."""
    _broken: Exception | None = field(default=None, init=False)
    _lost: int = field(default=0, init=False)
    _why: str = field(default="", init=False)
    _spent: dict[Key, tuple[int, int]] = field(default_factory=dict, init=False)
    """Calls made, and tokens, of each run that came to an end, all its executions together."""

    def stop(self, *, cancel: bool = False) -> None:
        """Begins nothing more; with `cancel` what is in flight is broken off."""
        self._stopping = "interrupted"
        self.executor.stop(cancel=cancel)
        self._changed.set()

    async def execute(self) -> Outcome:
        """Executes what is not done yet.

        Raises:
            RunLocked: Another process works on the study.
            RunError: No worker can be started, or results cannot be kept.
        """
        began, started = now(), time.monotonic()
        self.phase = "under way"
        with ExitStack() as held:
            if not self.locked:
                held.enter_context(locked_study(self.study.path))
            self._results = held.enter_context(self._opened_results())
            todo = self._take_stock()
            try:
                if todo and not self._stopping:
                    self._record(began)  # one that is killed is told of too
                    self.watch({"event": "starting", "workers": self.executor.workers})
                    await self.executor.start(self.study, self._hear)
                    self._part(todo)
                    await self._deal()
            finally:
                for timer in self._put_off.values():
                    timer.cancel()
                await self.executor.close()
                self.phase = "after"
                outcome = self._outcome(time.monotonic() - started)
                self._record(began, outcome)
        return outcome

    def _opened_results(self) -> ResultsFile:
        try:
            return ResultsFile(self.study.path)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(
            f"results cannot be written: {error.strerror or error}",
            where=Place(str(error.filename or self.study.path)),
            remedy="Free disk space or mend the permissions. Every run keeps its answers in its own folder: "
            f"`lbt-sim resume {self.study.path}` reads them.",
        )

    # --- what is to be done -------------------------------------------------------------------------------

    def _take_stock(self) -> Sequence[PlannedRun]:
        """The runs that are not done."""
        for result in self._results.results.values():
            self._spend(result)
            if result.status == "done":
                self.watch({"event": "known", "result": result.as_data()})
        done = {key for key, result in self._results.results.items() if result.status == "done"}
        todo = [self._as_left(run) for run in self.study.runs if (run.condition, run.seed) not in done]
        gone = {run.donor for run in todo if run.donor in done and not self._is_there(*run.donor)}
        todo = [run for run in self.study.runs if (run.condition, run.seed) in gone] + todo
        self._ended = done - gone
        self._todo = {(run.condition, run.seed) for run in todo}
        self.watch({"event": "plan", "runs": len(todo), "done": len(done)})
        return todo

    def _as_left(self, run: PlannedRun) -> PlannedRun:
        """Without its donor where it was begun: what it needs of that lies in its own folder."""
        begun = run.donor is not None and (self.study.path / run.folder / MANIFEST_FILE).exists()
        return replace(run, donor=None) if begun else run

    def _is_there(self, condition: str, seed: int) -> bool:
        return (self.study.path / self.study.folder_of(condition, seed) / LEDGER_FILE).exists()

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
            if self._broken is not None:
                raise self._broken
            self._leave_out_orphans()
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
            if self._waiting or self._given or self._put_off:
                self._changed.clear()
                await self._changed.wait()
        if self._broken is not None:
            raise self._broken

    def _leave_out_orphans(self) -> None:
        """Gives up runs whose donor stopped: told only what it failed until then, they would be other runs."""
        for block in [one for one in self._waiting if self._ready(one)]:
            orphans = [run for run in block.runs if run.donor and self._results.results[run.donor].status == "failed"]
            for run in orphans:
                giver, seed = run.donor or ("", 0)
                self._give_up(run, f"the run that it is told the failures of stopped: {giver}, seed {seed}")
            if orphans:
                self._waiting.remove(block)
                if rest := tuple(run for run in block.runs if run not in orphans):
                    self._waiting.append(replace(block, runs=rest))

    # --- what workers tell ----------------------------------------------------------------------------------

    def _hear(self, worker: int, event: Mapping[str, Any]) -> None:
        """Never raises: who tells would end of it, and the study wait for ever."""
        try:
            self._take_note(worker, event)
        except OSError as error:
            self._broken = self._unwritable(error)
        except Exception as error:  # a bug, raised where somebody waits for it
            self._broken = error
        self._changed.set()

    def _take_note(self, worker: int, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        if kind == "ready":
            self._idle.add(worker)
        elif kind == "result":
            self._take(RunResult.from_data(event["result"]))
        elif kind == "interrupted" and "why" in event:
            self._try_later(worker, (event["condition"], event["seed"]), str(event["why"]))
        elif kind == "block":
            block = self._given.pop(worker, None)
            self._idle.add(worker)
            for run in self._open_of(block) if not self._stopping else ():
                self._give_up(run, "its worker broke off; what it printed may tell why")
        elif kind == "lost":
            self._lost += 1
            self._why = str(event.get("why", ""))
        elif kind == "died":
            self._idle.discard(worker)
            self._mourn(self._given.pop(worker, None), str(event.get("why", "")))
        self.watch({**event, "worker": worker})

    def _take(self, result: RunResult) -> None:
        self._results.add(result)
        self._ended.add((result.condition, result.seed))
        self._spend(result)

    def _spend(self, result: RunResult) -> None:
        # One that goes on tells of all its calls again: what it told before is replaced.
        tokens = result.counts.get("prompt_tokens", 0) + result.counts.get("completion_tokens", 0)
        self._spent[result.condition, result.seed] = result.counts.get("made", 0), tokens

    def _over_budget(self) -> bool:
        budget = self.study.study.get("budget") or {}
        calls, tokens = budget.get("calls"), budget.get("tokens")
        made, used = (sum(part) for part in zip((0, 0), *self._spent.values(), strict=True))
        return (calls is not None and made >= calls) or (tokens is not None and used >= tokens)

    def _open_of(self, block: Block | None) -> Sequence[PlannedRun]:
        """The runs of a block that have no result, and are not to be given out again."""
        again = {(run.condition, run.seed) for one in self._waiting for run in one.runs} | self._put_off.keys()
        runs = block.runs if block is not None else ()
        return [run for run in runs if (run.condition, run.seed) not in self._ended | again]

    def _mourn(self, block: Block | None, why: str) -> None:
        """A worker died: what it had not finished is given out again, each run alone; who dies again is given up."""
        for run in self._open_of(block):
            key = (run.condition, run.seed)
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
        status: Any = (
            self._stopping if self._stopping and self._todo - self._ended else "failed" if failed or missing else "done"
        )
        return Outcome(status, done, failed, missing, seconds)

    def _record(self, began: str, outcome: Outcome | None = None) -> None:
        """Puts this execution into the manifest, when it begins and when it has ended."""
        if self._entered is None:
            before = facts_of(self.study.path).get("executions")
            self._entered = list(before) if isinstance(before, list) else []
        entry: dict[str, Any] = {
            "began": began,
            "workers": self.executor.workers,
            "executor": type(self.executor).__name__,
            "cores": os.cpu_count(),
        }
        if outcome is not None:
            entry |= {"ended": now(), "seconds": round(outcome.seconds, 3), "how": outcome.status}
        with suppress(OSError):
            write_manifest(self.study.path, {**facts_of(self.study.path), "executions": [*self._entered, entry]})
