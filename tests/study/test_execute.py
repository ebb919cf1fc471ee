"""Studies are executed by worker processes: failures stay alone, kills lose nothing, equal calls are paid once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import SMALL_STUDY

from lbt_sim.ledger import LedgerReader
from lbt_sim.study.execute import Execution, LocalWorkers, Outcome
from lbt_sim.study.folder import RESULTS_FILE, StudyFolder, create_study, load_results, open_study
from lbt_sim.study.plan import load_study
from lbt_sim.study.record import RunResult

Write = Callable[..., str]
ARMS = "arms: [several, one, resample, shuffled]\nseeds: 3\n"


def made(file: str, path: Path) -> StudyFolder:
    return create_study(load_study(file), path)


async def executed(
    study: StudyFolder, workers: int = 1, watch: Callable[[Mapping[str, Any]], None] = lambda event: None
) -> Outcome:
    return await Execution(study, LocalWorkers(workers), watch).execute()


def lasting(study: StudyFolder) -> dict[tuple[str, int], RunResult]:
    """The results without who of several runs paid for what they have in common."""
    runs = load_results(study.path).runs
    return {
        key: replace(run, counts={n: c for n, c in run.counts.items() if n not in ("made", "shared")})
        for key, run in runs.items()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A study that nobody disturbed; it is read only."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "mine.yaml").write_text(SMALL_STUDY + ARMS, encoding="utf-8")
    study = made(str(folder / "mine.yaml"), folder / "s")
    asyncio.run(executed(study))
    return study


async def test_every_run_is_done_and_paired_by_problems(write_study: Write, tmp_path: Path) -> None:
    study = made(write_study(ARMS), tmp_path / "s")
    outcome = await executed(study, 2)
    assert (outcome.status, outcome.done, outcome.failed, outcome.missing) == ("done", 12, 0, 0)
    results = load_results(study.path)
    assert list(results.runs) == [(c.name, seed) for c in results.conditions for seed in (1, 2, 3)]
    for seed in (1, 2, 3):
        runs = [results.runs[c.name, seed] for c in results.conditions]
        assert len({run.problems for run in runs}) == 1
        assert len({run.rounds[0].outcomes for run in runs}) == 1  # round 0 is the same material
        assert all(len(run.rounds[0].outcomes) == 20 for run in runs)
        assert all(run.exams[0].diversity["disagreement"] is not None for run in runs if run.condition != "one")


def test_equal_calls_of_a_seed_are_paid_once(whole: StudyFolder) -> None:
    paid: dict[bytes, int] = {}
    asked = 0
    for seed in whole.seeds:
        for condition in whole.conditions:
            with LedgerReader(whole.path / whole.folder_of(condition.name, seed)) as ledger:
                for call in ledger.calls("c.seed IS NULL"):
                    asked += 1
                    paid[call.key] = paid.get(call.key, 0) + (not call.shared)
    assert asked > len(paid)
    # Two seeds are never executed together, and may pay for the same thing; the arms of one never do.
    assert sum(paid.values()) <= len(paid) * 1.05
    with LedgerReader(whole.path / whole.folder_of("several", 1)) as one:
        keys = {call.key for call in one.calls("c.step = 'report' AND c.round = 0")}
        first = sum(not call.shared for call in one.calls("c.step = 'report' AND c.round = 0"))
    for name in ("one", "resample", "shuffled"):
        with LedgerReader(whole.path / whole.folder_of(name, 1)) as other:
            rows = list(other.calls("c.step = 'report' AND c.round = 0"))
            assert {call.key for call in rows} == keys
            first += sum(not call.shared for call in rows)
    assert first == len(keys)


async def test_a_failing_arm_stops_no_other(write_study: Write, tmp_path: Path) -> None:
    study = made(write_study("arms:\n  fails: {set: {budget.calls: 1}}\n  one:\nseeds: 2\n"), tmp_path / "s")
    told: list[Mapping[str, Any]] = []
    outcome = await executed(study, 1, told.append)
    assert (outcome.status, outcome.done, outcome.failed) == ("failed", 2, 2)
    failed = load_results(study.path).runs["fails", 1]
    assert failed.status == "failed"
    assert "budget" in str(failed.error)
    assert failed.counts["made"] <= 1
    again = await executed(open_study(study.path))
    assert (again.status, again.done, again.failed) == ("failed", 2, 2)


async def test_a_worker_that_is_killed_loses_nothing(write_study: Write, tmp_path: Path, whole: StudyFolder) -> None:
    study = made(write_study(ARMS), tmp_path / "killed")
    workers = LocalWorkers(1)
    kills = 0

    def watch(event: Mapping[str, Any]) -> None:
        nonlocal kills
        if event["event"] == "round" and kills < 2 and event["round"] == kills:
            kills += 1
            os.kill(workers._processes[0].pid, signal.SIGKILL)

    outcome = await Execution(study, workers, watch).execute()
    assert kills == 2
    assert outcome.status == "done"
    assert lasting(study) == lasting(whole)


async def test_a_run_whose_worker_always_dies_is_given_up_alone(write_study: Write, tmp_path: Path) -> None:
    study = made(write_study("arms: [several, one]\nseeds: 2\n"), tmp_path / "s")
    workers = LocalWorkers(1)

    def watch(event: Mapping[str, Any]) -> None:
        if event["event"] == "begin" and (event["condition"], event["seed"]) == ("one", 1):
            os.kill(workers._processes[0].pid, signal.SIGKILL)

    outcome = await Execution(study, workers, watch).execute()
    assert (outcome.done, outcome.failed) == (3, 1)
    assert "died" in str(load_results(study.path).runs["one", 1].error)


async def test_an_interrupted_study_goes_on_and_ends_alike(
    write_study: Write, tmp_path: Path, whole: StudyFolder
) -> None:
    study = made(write_study(ARMS), tmp_path / "cut")
    for cancel in (False, True):
        execution = Execution(study, LocalWorkers(1), lambda event: None)

        def watch(event: Mapping[str, Any], execution: Execution = execution, cancel: bool = cancel) -> None:
            if event["event"] == "round":
                execution.stop(cancel=cancel)

        execution.watch = watch
        outcome = await execution.execute()
        assert outcome.status == "interrupted"
        assert outcome.missing > 0
    assert (await executed(study)).status == "done"
    assert lasting(study) == lasting(whole)


async def test_a_study_stops_when_its_budget_is_spent(write_study: Write, tmp_path: Path) -> None:
    study = made(write_study("arms: [several, one]\nseeds: 4\nbudget: {calls: 90}\n"), tmp_path / "s")
    outcome = await executed(study)
    assert outcome.status == "budget"
    assert outcome.done == 2  # what was begun is finished
    assert outcome.missing == 6


async def test_results_that_were_lost_are_read_anew_from_the_runs(write_study: Write, tmp_path: Path) -> None:
    study = made(write_study("arms: [several, one]\nseeds: 2\n"), tmp_path / "s")
    await executed(study)
    before = lasting(study)
    file = study.path / RESULTS_FILE
    file.write_bytes(file.read_bytes()[:-300])  # cut off in the middle of a line
    told: list[Mapping[str, Any]] = []
    assert (await executed(study, 1, told.append)).status == "done"
    assert lasting(study) == before
    assert not [event for event in told if event["event"] == "round"]  # nothing was run again
    assert all(json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())


async def test_a_worker_leaves_when_whoever_gave_it_work_is_gone(write_study: Write, tmp_path: Path) -> None:
    study = made(write_study(ARMS), tmp_path / "s")
    workers = LocalWorkers(1)
    told: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
    await workers.start(study, lambda worker, event: told.put_nowait(event))
    assert (await told.get())["event"] == "ready"
    process = workers._processes[0]
    assert process.stdin is not None
    process.stdin.close()
    assert await process.wait() == 0
    await workers.close()


@pytest.mark.parametrize("engine", ["nothing", "llamacpp"])
async def test_a_model_that_cannot_be_had_fails_its_runs_alone(write_study: Write, tmp_path: Path, engine: str) -> None:
    if engine == "nothing":
        models = "{sim: {engine: openai, url: 'http://127.0.0.1:9/v1', model: none, retries: 0, timeout: 2}}"
    else:
        models = f"{{sim: {{engine: llamacpp, model: {tmp_path / 'no.gguf'}}}}}"
    study = made(write_study(f"arms:\n  away: {{models: {models}}}\n  one:\nseeds: 1\n"), tmp_path / "s")
    outcome = await executed(study)
    assert (outcome.done, outcome.failed) == (1, 1)
    assert load_results(study.path).runs["away", 1].error
