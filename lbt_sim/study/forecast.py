"""What a study will take, before anything is spent: runs, calls, tokens, time.

Calls are counted by rehearsing one seed of every condition on the simulated engine, which asks what any model would be
asked. Its tokens are words, so those of a language model are estimated; a pilot measures them, and the time.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lbt_sim.errors import LbtError
from lbt_sim.models.pool import Shelf
from lbt_sim.models.surroundings import Surroundings
from lbt_sim.scenario.load import dump_resolved, load_resolved
from lbt_sim.study.folder import StudyFolder, create_study
from lbt_sim.study.plan import Plan
from lbt_sim.study.record import RunResult
from lbt_sim.study.worker import Block, Worker

__all__ = ["Forecast", "Pilot", "forecast", "is_simulated", "pilot"]

_FREE = {"simulated", "scripted"}


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the study will take.

    Attributes:
        runs: All of them.
        seeds: Of each condition.
        counts: Condition -> what one run of it asks for; see `RunResult.counts`.
        paid: Calls of the whole study that a model has to answer: what several runs have in common counts once.
        calls: Calls of the whole study as if nothing was shared.
        seconds: Of one worker, for everything; None where it was not measured.
        how: What the time was measured on.
    """

    runs: int
    seeds: int
    counts: Mapping[str, Mapping[str, int]]
    paid: int
    calls: int
    seconds: float | None
    how: str

    def total(self, name: str) -> int:
        """A count over the whole study."""
        return self.seeds * sum(counts.get(name, 0) for counts in self.counts.values())


@dataclass(frozen=True, slots=True)
class Pilot:
    """What a pilot on the study's own models measured.

    Attributes:
        condition: Of which condition one round was run.
        calls: Calls made.
        seconds: Until its end, models being ready.
        prompt: Prompt tokens for each call.
        completion: Tokens generated for each call.
    """

    condition: str
    calls: int
    seconds: float
    prompt: float
    completion: float


def is_simulated(plan: Plan) -> bool:
    """Whether every model of the study is one of rules, so that a rehearsal is the real thing."""
    return all(spec.engine in _FREE for one in plan.conditions for spec in one.loaded.file.models.values())


def forecast(plan: Plan) -> Forecast:
    """Rehearses one seed of every condition on the simulated engine.

    Raises:
        LbtError: A rehearsal failed: so would the study.
    """
    with tempfile.TemporaryDirectory(prefix="lbt-sim-") as folder:
        study = _small(plan, Path(folder) / "study", engine="simulated")
        began = time.monotonic()
        results = asyncio.run(_rehearsed(study))
        seconds = time.monotonic() - began
    if wrong := [result for result in results if result.status == "failed"]:
        raise LbtError(
            f"a rehearsal of {wrong[0].condition} on the simulated engine failed: {wrong[0].error}",
            remedy="The study would fail in the same way.",
        )
    seeds = len(plan.file.seed_list)
    real = is_simulated(plan)
    return Forecast(
        runs=seeds * len(plan.conditions),
        seeds=seeds,
        counts={result.condition: result.counts for result in results},
        paid=seeds * sum(result.counts["made"] for result in results),
        calls=seeds * sum(result.counts["calls"] for result in results),
        seconds=seconds * seeds if real else None,
        how=f"one seed of each condition took {seconds:.1f} s here" if real else "",
    )


def pilot(plan: Plan) -> Pilot:
    """Runs one round of the first condition on the study's own models, and throws it away.

    Raises:
        LbtError: It failed.
    """
    first = next((one for one in plan.conditions if one.donor is None), plan.conditions[0])
    with tempfile.TemporaryDirectory(prefix="lbt-sim-") as folder:
        study = _small(replace(plan, conditions=(first,)), Path(folder) / "study", sets=["method.rounds=1"])
        told: list[Mapping[str, Any]] = []
        began: list[float] = []

        def emit(event: Mapping[str, Any]) -> None:
            told.append(event)
            if event["event"] == "progress" and event["made"] and not began:
                began.append(time.monotonic())

        started = time.monotonic()
        (result,) = asyncio.run(_rehearsed(study, emit))
        seconds = time.monotonic() - (began[0] if began else started)
    if result.status == "failed":
        raise LbtError(f"the pilot failed: {result.error}")
    made = max(1, result.counts["made"])
    return Pilot(
        first.condition.name,
        made,
        seconds,
        result.counts["prompt_tokens"] / max(1, result.counts["calls"]),
        result.counts["completion_tokens"] / max(1, result.counts["calls"]),
    )


def _small(plan: Plan, path: Path, *, engine: str | None = None, sets: list[str] | None = None) -> StudyFolder:
    """A study of one seed of every condition."""
    first = plan.file.seed_list[0]
    small = replace(plan, file=plan.file.model_copy(update={"seeds": [first]}))
    study = create_study(small, path)
    for one in plan.conditions:
        file = study.scenario_of(one.condition.name)
        loaded = load_resolved(file.read_text(encoding="utf-8"), str(file), engine=engine, sets=sets or ())
        file.write_text(dump_resolved(loaded), encoding="utf-8")
    return study


async def _rehearsed(study: StudyFolder, hear: Any = None) -> list[RunResult]:
    """Every run of a study of one seed; here a run may have its donor's failures of the same seed."""
    results: dict[str, RunResult] = {}

    def emit(event: Mapping[str, Any]) -> None:
        if event["event"] == "result":
            results[event["condition"]] = RunResult.from_data(event["result"])
        if hear is not None:
            hear(event)

    worker = Worker(study, emit)
    async with Shelf(Surroundings(logs=study.path / "servers")) as shelf:
        runs = list(study.runs)
        await worker.execute(Block(tuple(run for run in runs if run.donor is None)), shelf)
        await worker.execute(Block(tuple(run for run in runs if run.donor is not None)), shelf)
    return [results[one.name] for one in study.conditions]
