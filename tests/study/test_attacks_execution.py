"""Studies whose workers, disks, ledgers and donors do what they should not: nothing hangs, nothing is told wrong."""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
import sqlite3
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lbt_sim.errors import LbtError, RunError
from lbt_sim.study import worker
from lbt_sim.study.execute import Execution, LocalWorkers, Outcome
from lbt_sim.study.folder import RESULTS_FILE, ResultsFile, StudyFolder, create_study, load_results
from lbt_sim.study.plan import load_study
from lbt_sim.study.record import RunResult
from lbt_sim.study.worker import Block, Worker

Write = Callable[..., str]
Hear = Callable[[int, Mapping[str, Any]], None]


def made(file: str, path: Path) -> StudyFolder:
    return create_study(load_study(file), path)


async def executed(study: StudyFolder, watch: Callable[[Mapping[str, Any]], None] = lambda event: None) -> Outcome:
    async with asyncio.timeout(60):
        return await Execution(study, LocalWorkers(1), watch).execute()


class Actors:
    """An executor whose workers tell what a script says of each run; they execute nothing."""

    workers = 1

    def __init__(self, play: Callable[[Block], list[Mapping[str, Any]]]) -> None:
        self.play = play
        self.blocks: list[Block] = []
        self.stops: list[bool] = []

    async def start(self, study: StudyFolder, hear: Hear) -> None:
        self.hear = hear
        hear(0, {"event": "ready"})

    def give(self, worker: int, block: Block) -> None:
        self.blocks.append(block)

        def tell() -> None:
            for event in self.play(block):
                self.hear(worker, event)

        asyncio.get_running_loop().call_soon(tell)

    def stop(self, *, cancel: bool) -> None:
        self.stops.append(cancel)

    async def close(self) -> None:
        pass


def ends(condition: str, seed: int, status: Any = "done", **counts: int) -> Mapping[str, Any]:
    error = None if status == "done" else "it broke"
    result = RunResult(condition, seed, f"runs/{condition}/{seed}", status, error, counts=counts)
    return {"event": "result", "condition": condition, "seed": seed, "result": result.as_data()}


async def played(study: StudyFolder, play: Callable[[Block], list[Mapping[str, Any]]]) -> tuple[Outcome, Actors]:
    actors = Actors(play)
    async with asyncio.timeout(10):
        return await Execution(study, actors).execute(), actors


def all_end(block: Block) -> list[Mapping[str, Any]]:
    return [*(ends(run.condition, run.seed, made=10) for run in block.runs), {"event": "block"}]


# --- what workers do ------------------------------------------------------------------------------------------


def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Workers are started with a program that counts how often it was (`$n`), and does `script` first."""
    file = tmp_path / "python"
    count = tmp_path / "count"
    text = f"#!/bin/bash\nn=$(cat {count} 2>/dev/null || echo 0); n=$((n + 1)); echo $n > {count}\n"
    file.write_text(f'{text}{script}\nexec {sys.executable} "$@"\n', encoding="utf-8")
    file.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(file))


async def test_a_worker_killed_in_the_middle_of_a_line_is_a_death_like_any(
    write_study: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = made(write_study("arms: [several, one]\nseeds: 1\n"), tmp_path / "s")
    python(
        tmp_path, monkeypatch, """[ $n = 1 ] && { echo '{"event": "ready"}'; printf '{"event": "res'; kill -9 $$; }"""
    )
    told: list[Mapping[str, Any]] = []
    outcome = await executed(study, told.append)
    assert (outcome.status, outcome.done) == ("done", 2)
    assert [event["why"] for event in told if event["event"] == "died"] == ["signal 9"]


async def test_a_worker_killed_before_it_is_ready_is_started_anew(
    write_study: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = made(write_study("arms: [several, one]\nseeds: 1\n"), tmp_path / "s")
    python(tmp_path, monkeypatch, "[ $n -le 2 ] && kill -9 $$")
    outcome = await executed(study)
    assert (outcome.status, outcome.done) == ("done", 2)


async def test_workers_that_can_never_start_end_the_study(
    write_study: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = made(write_study("arms: [several, one]\nseeds: 1\n"), tmp_path / "s")
    python(tmp_path, monkeypatch, "exit 3")
    with pytest.raises(RunError, match=r"no worker can be started [(]exit status 3"):
        await executed(study)
    assert 2 <= int((tmp_path / "count").read_text()) <= 5


async def test_a_program_that_is_not_there_ends_the_study(
    write_study: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = made(write_study("arms: [several, one]\nseeds: 1\n"), tmp_path / "s")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(RunError, match="no worker can be started"):
        await executed(study)


async def test_a_run_that_nobody_tells_of_is_told_as_failed_and_its_followers_too(
    write_study: Write, tmp_path: Path
) -> None:
    study = made(write_study("arms: [several, one, shuffled]\nseeds: 2\n"), tmp_path / "s")

    def play(block: Block) -> list[Mapping[str, Any]]:
        return [*(ends(r.condition, r.seed) for r in block.runs if r.condition != "several"), {"event": "block"}]

    outcome, _ = await played(study, play)
    assert (outcome.status, outcome.done, outcome.failed, outcome.missing) == ("failed", 2, 4, 0)


# --- what comes to light in a run's folder ----------------------------------------------------------------------


async def test_a_run_that_cannot_be_read_fails_alone(
    write_study: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = made(write_study("arms: [several, one]\nseeds: 1\n"), tmp_path / "s")
    honest = worker.digest

    def digest(path: Path, condition: str, *rest: Any) -> RunResult:
        if condition == "several":
            raise sqlite3.OperationalError("disk I/O error")
        return honest(path, condition, *rest)

    monkeypatch.setattr(worker, "digest", digest)
    told: list[Mapping[str, Any]] = []
    from lbt_sim.models.pool import Shelf
    from lbt_sim.models.surroundings import Surroundings

    async with Shelf(Surroundings()) as shelf:
        await Worker(study, told.append).execute(Block(tuple(study.runs)), shelf)
    ended = {event["condition"]: event["result"]["status"] for event in told if event["event"] == "result"}
    assert ended == {"several": "failed", "one": "done"}


def damage(file: Path) -> None:
    """Leaves a database that can be opened, and whose calls cannot be read."""
    for tail in ("-wal", "-shm"):
        file.with_name(file.name + tail).unlink(missing_ok=True)
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    file.write_bytes(content)


async def test_a_damaged_ledger_fails_its_own_run_alone(write_study: Write, tmp_path: Path) -> None:
    study = made(write_study("arms: [several, one]\nseeds: 1\n"), tmp_path / "s")
    await executed(study)
    (study.path / RESULTS_FILE).unlink()
    damage(study.path / "runs/several/1/run.sqlite")
    shutil.rmtree(study.path / "runs/one/1")
    outcome = await executed(study)
    assert (outcome.done, outcome.failed) == (1, 1)
    runs = load_results(study.path).runs
    assert runs["one", 1].status == "done"
    assert "ledger" in str(runs["several", 1].error)


async def test_a_folder_of_another_seed_is_not_taken_for_the_run(write_study: Write, tmp_path: Path) -> None:
    study = made(write_study("arms: [one]\nseeds: 2\n"), tmp_path / "s")
    await executed(study)
    (study.path / RESULTS_FILE).unlink()
    shutil.rmtree(study.path / "runs/one/2")
    shutil.copytree(study.path / "runs/one/1", study.path / "runs/one/2")
    outcome = await executed(study)
    assert (outcome.done, outcome.failed) == (1, 1)
    assert "seed" in str(load_results(study.path).runs["one", 2].error)


# --- donors -----------------------------------------------------------------------------------------------------


async def test_nobody_is_told_the_failures_of_a_run_that_stopped_halfway(write_study: Write, tmp_path: Path) -> None:
    study = made(write_study("arms: [several, shuffled]\nseeds: 2\n"), tmp_path / "s")

    def play(block: Block) -> list[Mapping[str, Any]]:
        stops = [(run.condition, run.seed) == ("several", 2) for run in block.runs]
        told = [ends(r.condition, r.seed, "failed" if s else "done") for r, s in zip(block.runs, stops, strict=True)]
        return [*told, {"event": "block"}]

    outcome, actors = await played(study, play)
    runs = load_results(study.path).runs
    assert [runs[key].status for key in (("several", 1), ("several", 2), ("shuffled", 1), ("shuffled", 2))] == [
        "done",
        "failed",
        "failed",  # its donor is several, seed 2
        "done",
    ]
    assert "several, seed 2" in str(runs["shuffled", 1].error)
    assert ("shuffled", 1) not in [(run.condition, run.seed) for block in actors.blocks for run in block.runs]
    assert (outcome.done, outcome.failed) == (2, 2)
    again, _ = await played(study, all_end)
    assert (again.status, again.done) == ("done", 4)


async def test_a_donor_that_was_deleted_is_run_anew(write_study: Write, tmp_path: Path) -> None:
    study = made(write_study("arms: [several, shuffled]\nseeds: 2\n"), tmp_path / "s")
    await executed(study)
    before = load_results(study.path).runs
    lines = (study.path / RESULTS_FILE).read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if '"condition":"shuffled","seed":1' not in line]
    assert len(kept) == len(lines) - 1
    (study.path / RESULTS_FILE).write_text("".join(kept), encoding="utf-8")
    shutil.rmtree(study.path / "runs/shuffled/1")
    shutil.rmtree(study.path / "runs/several/2")
    outcome = await executed(study)
    assert (outcome.status, outcome.done) == ("done", 4)
    after = load_results(study.path).runs
    assert [run.rounds for run in after.values()] == [run.rounds for run in before.values()]


# --- results and budget -----------------------------------------------------------------------------------------


async def test_a_full_disk_ends_the_study_with_what_is_wrong(
    write_study: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = made(write_study("arms: [several, one]\nseeds: 2\n"), tmp_path / "s")

    def full(self: ResultsFile, result: RunResult) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(self._path))

    monkeypatch.setattr(ResultsFile, "add", full)
    with pytest.raises(LbtError, match="No space left"):
        await played(study, all_end)
    monkeypatch.undo()
    outcome, _ = await played(study, all_end)
    assert outcome.status == "done"


async def test_what_a_failed_run_cost_is_not_charged_twice(write_study: Write, tmp_path: Path) -> None:
    study = made(write_study("arms: [several, one]\nseeds: 2\nbudget: {calls: 100}\n"), tmp_path / "s")

    def play(block: Block) -> list[Mapping[str, Any]]:
        told = [ends(r.condition, r.seed, "failed", made=20) for r in block.runs]
        return [*told, {"event": "block"}]

    first, _ = await played(study, play)
    assert (first.status, first.done, first.failed) == ("failed", 0, 4)
    # A run that is resumed tells of all its calls again, those of before among them: 80 in all.
    second, actors = await played(
        study, lambda block: [*(ends(r.condition, r.seed, made=20) for r in block.runs), {"event": "block"}]
    )
    assert second.status == "done"
    assert actors.stops == []


async def test_an_interrupted_repair_of_failed_runs_is_interrupted(write_study: Write, tmp_path: Path) -> None:
    study = made(write_study("arms: [one]\nseeds: 2\n"), tmp_path / "s")
    await played(study, lambda block: [*(ends(r.condition, r.seed, "failed") for r in block.runs), {"event": "block"}])
    actors = Actors(lambda block: [{"event": "interrupted", "condition": "one", "seed": 1}, {"event": "block"}])
    execution = Execution(study, actors)
    execution.watch = lambda event: execution.stop() if event["event"] == "interrupted" else None
    async with asyncio.timeout(10):
        outcome = await execution.execute()
    assert outcome.status == "interrupted"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"executions": 3}', None])
async def test_a_damaged_manifest_of_a_study_stops_nothing(
    write_study: Write, tmp_path: Path, text: str | None
) -> None:
    study = made(write_study("arms: [one]\nseeds: 1\n"), tmp_path / "s")
    manifest = study.path / "manifest.json"
    if text is None:
        manifest.unlink()
    else:
        manifest.write_text(text, encoding="utf-8")
    outcome, _ = await played(study, all_end)
    assert outcome.status == "done"
    assert load_results(study.path).runs["one", 1].status == "done"
    assert len(json.loads(manifest.read_text(encoding="utf-8"))["executions"]) == 1


async def test_an_execution_that_was_killed_stands_in_the_manifest(write_study: Write, tmp_path: Path) -> None:
    study = made(write_study("arms: [one]\nseeds: 1\n"), tmp_path / "s")
    seen: list[Any] = []

    def play(block: Block) -> list[Mapping[str, Any]]:
        seen.append(json.loads((study.path / "manifest.json").read_text(encoding="utf-8"))["executions"])
        return all_end(block)

    await played(study, play)
    [[begun]] = seen
    assert "began" in begun
    assert "ended" not in begun
    [ended] = json.loads((study.path / "manifest.json").read_text(encoding="utf-8"))["executions"]
    assert (ended["began"], ended["how"]) == (begun["began"], "done")
