"""Runs and their folders: the same again, resumed, replayed, forked; what would make another run of it is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import SMALL, Said, lasting, lbt_sim

from lbt_sim.folders import MANIFEST_FILE, SCENARIO_FILE, create_run, locked, open_run
from lbt_sim.ledger import LEDGER_FILE, LedgerReader
from lbt_sim.scenario.load import load_scenario
from lbt_sim.setup import prepare


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished run, to be read only, and its result."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "small.yaml").write_text(SMALL, encoding="utf-8")
    said = lbt_sim("run", folder / "small.yaml", "--out", folder / "run", "--json", "-q")
    assert said.status == 0, said.err
    return folder / "run", said.result


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    return tmp_path


def run(*options: object, scenario: str = "small.yaml", out: str = "run") -> Said:
    return lbt_sim("run", scenario, "--out", out, "--json", "-q", *options)


def rows(folder: Path, before: int = 1000) -> list[Any]:
    with LedgerReader(folder) as ledger:
        return sorted(call._replace(seconds=0.0) for call in ledger.calls("c.round < ?", (before,)))


# --- the same again -----------------------------------------------------------------------------------------


def test_one_seed_one_result_in_any_process(workspace: Path) -> None:
    said = []
    for name, hashes in (("a", "1"), ("b", "2")):
        command = [sys.executable, "-m", "lbt_sim", "run", "small.yaml", "--out", name, "--json", "-q"]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": hashes}, capture_output=True, text=True, check=True
        )
        said.append(json.dumps(lasting(json.loads(done.stdout))))
    assert said[0] == said[1]
    assert rows(workspace / "a") == rows(workspace / "b")


def test_another_seed_is_another_run(finished: tuple[Path, dict[str, Any]]) -> None:
    assert lasting(run("--seed", 1).result) != lasting(finished[1]) | {"seed": 1}


def test_the_json_tells_what_was_asked_of_the_models(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, result = finished
    with LedgerReader(folder) as ledger:
        totals = ledger.totals()
    calls = result["calls"]
    assert (calls["made"] + calls["shared"], calls["shared"]) == (totals["calls"], totals["shared"])
    assert (calls["replayed"], calls["failed"]) == (0, 0)
    assert result["tokens"]["prompt"] == totals["prompt_tokens"]
    assert result["tokens"]["completion"] == totals["completion_tokens"]
    assert [row["round"] for row in result["rounds"]] == [0, 1, 2, 3]


def test_what_a_run_was_resumed_with_holds_from_then_on_and_is_recorded() -> None:
    run("--set", "budget.calls=60")
    assert lbt_sim("resume", "run", "-q", "--set", "budget.calls=100").status == 3
    again = lbt_sim("resume", "run", "-q")
    assert again.status == 3
    assert "100" in again.err
    assert lbt_sim("resume", "run", "-q", "--set", "budget.calls=5000").status == 0
    manifest = json.loads((Path("run") / MANIFEST_FILE).read_text(encoding="utf-8"))
    assert manifest["resumed_with"] == ["budget.calls=100", "budget.calls=5000"]
    assert lbt_sim("fork", "run", "--from-round", "1", "--out", "forked", "-q").status == 0


def test_a_folder_holds_three_files_and_a_lock(finished: tuple[Path, dict[str, Any]]) -> None:
    names = {entry.name for entry in finished[0].iterdir()} - {f"{LEDGER_FILE}-wal", f"{LEDGER_FILE}-shm"}
    assert names == {SCENARIO_FILE, MANIFEST_FILE, LEDGER_FILE, ".lock"}


# --- resume -------------------------------------------------------------------------------------------------


def test_a_run_that_the_budget_stopped_is_resumed_to_the_same_result(finished: tuple[Path, dict[str, Any]]) -> None:
    stopped = run("--set", "budget.calls=100")
    assert stopped.status == 3
    assert stopped.result["status"] == "failed"
    assert "budget" in stopped.result["error"]
    assert "Continue with: lbt-sim resume run" in stopped.err
    again = lbt_sim("resume", "run", "--json", "-q")
    assert again.status == 3  # the budget is part of the run
    done = lbt_sim("resume", "run", "--json", "-q", "--set", "budget.calls=5000")
    assert (done.status, done.err) == (0, "")
    assert lasting(done.result) == lasting(finished[1])
    calls, whole = done.result["calls"], finished[1]["calls"]
    assert 0 < calls["replayed"] <= 100
    assert calls["made"] + calls["replayed"] == whole["made"]
    assert done.result["tokens"] == finished[1]["tokens"]
    assert rows(Path("run")) == rows(finished[0])


def test_resuming_a_finished_run_makes_no_call(finished: tuple[Path, dict[str, Any]]) -> None:
    assert run().status == 0
    before = rows(Path("run"))
    done = lbt_sim("resume", "run", "--json", "-q")
    assert lasting(done.result) == lasting(finished[1])
    assert done.result["calls"]["made"] == 0
    assert done.result["tokens"] == finished[1]["tokens"]
    assert rows(Path("run")) == before


def test_a_resumed_run_tells_no_event_twice(finished: tuple[Path, dict[str, Any]]) -> None:
    run("--set", "budget.calls=100")
    lbt_sim("resume", "run", "-q", "--set", "budget.calls=5000")
    told = []
    for folder in (Path("run"), finished[0]):
        with LedgerReader(folder) as ledger:
            told.append(sorted((event.path, event.kind, json.dumps(event.data)) for event in ledger.events()))
    assert told[0] == told[1]


@pytest.mark.parametrize("change", ["method.rounds=9", "seed=3", "task.train=50", "cast.students=[{}]"])
def test_only_budget_and_models_can_change_on_the_way(change: str) -> None:
    run("--set", "budget.calls=100")
    said = lbt_sim("resume", "run", "--set", change)
    assert said.status == 2
    assert change.split("=")[0].split(".")[0] in said.err
    assert "budget.…" in said.err
    assert "fork" in said.err


def test_another_model_under_a_run_is_refused() -> None:
    run("--set", "budget.calls=100")
    said = lbt_sim("resume", "run", "--json", "-q", "--set", "models.small.failures=0.1", "--set", "budget.calls=900")
    assert said.status == 3
    assert "this run was made with simulated:1" in said.err
    assert "fork" in said.err
    assert lbt_sim("resume", "run", "--json", "-q", "--set", "budget.calls=900").status == 0


def test_a_finished_run_can_be_replayed_after_someone_tried_another_model(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    copy = shutil.copytree(finished[0], tmp_path / "copy")
    assert lbt_sim("resume", str(copy), "--json", "-q", "--set", "models.small.failures=0.5").status == 3
    assert lbt_sim("replay", str(copy), "--json", "-q").status == 0


def test_a_fork_cannot_change_what_is_held_out(finished: tuple[Path, dict[str, Any]]) -> None:
    said = lbt_sim("fork", str(finished[0]), "--from-round", "1", "--set", "task.seed=9", "--out", "other")
    assert said.status == 2
    assert "held-out" in said.err
    assert not Path("other").exists()


def test_how_fast_a_model_answers_may_change_on_the_way(finished: tuple[Path, dict[str, Any]]) -> None:
    run("--set", "budget.calls=100")
    changes = ("--set", "budget.calls=900", "--set", "models.small.latency=0.001")
    assert lasting(lbt_sim("resume", "run", "--json", "-q", *changes).result) == lasting(finished[1])


DATA = "models: {small: {engine: simulated}}\ntask: {jsonl: data.jsonl, labels: [a, b]}\n"


@pytest.fixture
def from_data(workspace: Path) -> Path:
    """A run over a data file that was stopped."""
    lines = [json.dumps({"question": f"word{n} is {'ab'[n % 2]}", "answer": "ab"[n % 2]}) for n in range(60)]
    (workspace / "data.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (workspace / "mine.yaml").write_text(
        f"kind: scenario\nversion: 1\n{DATA}method: {{rounds: 1, exemplars: 4, exam: 4}}\nbudget: {{calls: 20}}\n",
        encoding="utf-8",
    )
    assert run(scenario="mine.yaml").status == 3
    return workspace / "data.jsonl"


def test_changed_data_are_refused_and_the_right_ones_taken_again(from_data: Path) -> None:
    right = from_data.read_bytes()
    from_data.write_bytes(right.replace(b"word7 ", b"wort7 "))
    said = lbt_sim("resume", "run", "--set", "budget.calls=900")
    assert said.status == 2
    assert "the data of this run have changed" in said.err
    assert "data.jsonl" in said.err
    from_data.unlink()
    assert lbt_sim("resume", "run", "--set", "budget.calls=900").status == 2
    from_data.write_bytes(right)
    assert lbt_sim("resume", "run", "-q", "--set", "budget.calls=900").status == 0


def test_a_run_does_not_depend_on_its_scenarios_file(workspace: Path, finished: tuple[Path, dict[str, Any]]) -> None:
    run("--set", "budget.calls=100")
    (workspace / "small.yaml").unlink()
    done = lbt_sim("resume", "run", "--json", "-q", "--set", "budget.calls=900")
    assert lasting(done.result) == lasting(finished[1])


# --- replay -------------------------------------------------------------------------------------------------


def test_replay_makes_no_call_and_ends_with_the_same_result(finished: tuple[Path, dict[str, Any]]) -> None:
    run()
    replayed = lbt_sim("replay", "run", "--json", "-q")
    assert replayed.status == 0
    assert lasting(replayed.result) == lasting(finished[1])
    calls, whole = replayed.result["calls"], finished[1]["calls"]
    assert calls == {"made": 0, "replayed": whole["made"], "shared": whole["shared"], "failed": 0}
    assert replayed.result["tokens"] == finished[1]["tokens"]


def test_an_unfinished_run_cannot_be_replayed_but_resumed() -> None:
    run("--set", "budget.calls=100")
    said = lbt_sim("replay", "run", "--json", "-q")
    assert (said.status, said.out) == (2, "")
    assert "not come to its end" in said.err
    assert "lbt-sim resume run" in said.err


# --- fork ---------------------------------------------------------------------------------------------------


def test_a_fork_shares_the_rounds_before_and_differs_after(finished: tuple[Path, dict[str, Any]]) -> None:
    source, whole = finished
    before = rows(source)
    said = lbt_sim("fork", source, "--from-round", 2, "--set", "method.exam=9", "--out", "f", "--json", "-q")
    assert said.status == 0, said.err
    assert said.result["rounds"][:2] == whole["rounds"][:2]
    assert [row["round"] for row in said.result["rounds"]] == [0, 1, 2, 3]
    assert [student["n"] for student in said.result["rounds"][2]["students"].values()] == [9, 9]
    assert rows(Path("f"), before=2) == rows(source, before=2)
    assert rows(source) == before


def test_a_fork_that_changes_nothing_ends_like_its_source(finished: tuple[Path, dict[str, Any]]) -> None:
    for round_ in (1, 3):
        said = lbt_sim("fork", finished[0], "--from-round", round_, "--out", f"f{round_}", "--json", "-q")
        assert lasting(said.result) == lasting(finished[1])
        assert said.result["calls"]["made"] < finished[1]["calls"]["made"]
        assert rows(Path(f"f{round_}")) == rows(finished[0])


def test_a_fork_of_a_fork(finished: tuple[Path, dict[str, Any]]) -> None:
    lbt_sim("fork", finished[0], "--from-round", 2, "--set", "method.exam=9", "--out", "f", "-q")
    later = lbt_sim("fork", "f", "--from-round", 3, "--set", "method.rounds=4", "--out", "g", "--json", "-q")
    assert [row["round"] for row in later.result["rounds"]] == [0, 1, 2, 3, 4]
    assert rows(Path("g"), before=3) == rows(Path("f"), before=3)
    earlier = lbt_sim("fork", "g", "--from-round", 1, "--set", "method.exam=6", "--out", "h", "--json", "-q")
    assert earlier.result["rounds"][:4] == finished[1]["rounds"]


def test_a_fork_that_was_stopped_is_resumed_to_the_same_result(finished: tuple[Path, dict[str, Any]]) -> None:
    fork = ("fork", finished[0], "--from-round", 2, "--set", "method.exam=9", "--json", "-q")
    whole = lbt_sim(*fork, "--out", "f")
    copied = len(rows(finished[0], before=2))
    stopped = lbt_sim(*fork, "--out", "g", "--set", f"budget.calls={copied + 20}")
    assert stopped.status == 3
    done = lbt_sim("resume", "g", "--json", "-q", "--set", "budget.calls=5000")
    assert lasting(done.result) == lasting(whole.result)
    assert done.result["calls"]["replayed"] > 0
    assert done.result["tokens"] == whole.result["tokens"]
    assert lasting(lbt_sim("replay", "g", "--json", "-q").result) == lasting(whole.result)


@pytest.mark.parametrize("round_", [5, 9])
def test_a_fork_from_a_round_that_was_not_reached_lists_those_that_were(
    finished: tuple[Path, dict[str, Any]], workspace: Path, round_: int
) -> None:
    said = lbt_sim("fork", finished[0], "--from-round", round_, "--out", "f")
    assert said.status == 2
    assert "Valid: 1, 2, 3, 4" in said.err
    assert not (workspace / "f").exists()


# --- folders ------------------------------------------------------------------------------------------------


def test_a_folder_that_is_taken_is_refused_and_left_alone(workspace: Path) -> None:
    assert run("--set", "method.rounds=0").status == 0
    before = rows(workspace / "run")
    said = run("--seed", 4)
    assert said.status == 2
    assert "holds a run" in said.err
    assert "lbt-sim resume run" in said.err
    assert rows(workspace / "run") == before
    (workspace / "mine").mkdir()
    (workspace / "mine" / "scenario.yaml").write_text("my own", encoding="utf-8")
    assert run(out="mine").status == 2
    assert [entry.name for entry in (workspace / "mine").iterdir()] == ["scenario.yaml"]
    assert run(out="small.yaml").status == 2
    assert (workspace / "small.yaml").read_text(encoding="utf-8") == SMALL


def test_an_empty_folder_is_taken(workspace: Path) -> None:
    (workspace / "run").mkdir()
    assert run("--set", "method.rounds=0").status == 0


def test_without_a_name_runs_stand_side_by_side(workspace: Path) -> None:
    for _ in range(2):
        assert lbt_sim("run", "small.yaml", "--seed", 3, "-q", "--set", "method.rounds=0").status == 0
    assert sorted(folder.name for folder in (workspace / "runs").iterdir()) == ["small-3", "small-3-2"]


def test_a_folder_whose_making_was_cut_short_is_made_again(workspace: Path) -> None:
    assert run("--set", "method.rounds=0").status == 0
    (workspace / "run" / MANIFEST_FILE).unlink()  # written last: without it, it is no run yet
    assert lbt_sim("resume", "run").status == 2
    assert run().status == 0


def test_a_second_process_in_a_folder_is_refused(workspace: Path) -> None:
    run("--set", "method.rounds=0")
    before = rows(workspace / "run")
    with locked(workspace / "run"):
        for command in (("resume", "run"), ("replay", "run")):
            said = lbt_sim(*command, "--json")
            assert (said.status, said.out) == (2, "")
            assert "another process works in this run folder" in said.err
            assert "Wait for it" in said.err
        assert lbt_sim("show", "run").status == 0
    assert rows(workspace / "run") == before
    assert lbt_sim("resume", "run", "-q", "--set", "budget.calls=900").status == 0


def test_two_runs_that_start_at_once_in_a_folder_do_not_mix(workspace: Path) -> None:
    prepared = prepare(load_scenario("small.yaml"))
    (workspace / "run").mkdir()
    with locked(workspace / "run"):
        said = run()
    assert said.status == 2
    create_run(prepared, workspace / "run")
    said = run("--seed", 5)
    assert said.status == 2
    assert open_run(workspace / "run").prepared.file.seed == 0


def _nothing(folder: Path) -> None:
    for name in (SCENARIO_FILE, MANIFEST_FILE):
        (folder / name).unlink()


def _broken_manifest(folder: Path) -> None:
    (folder / MANIFEST_FILE).write_text('{"models": ', encoding="utf-8")


def _other_manifest(folder: Path) -> None:
    (folder / MANIFEST_FILE).write_text("[1, 2]", encoding="utf-8")


def _binary_scenario(folder: Path) -> None:
    (folder / SCENARIO_FILE).write_bytes(b"\xff\xfe\x00")


def _edited_scenario(folder: Path) -> None:
    file = folder / SCENARIO_FILE
    file.write_text(file.read_text(encoding="utf-8").replace("rounds: 3", "ruonds: 3"), encoding="utf-8")


def _no_database(folder: Path) -> None:
    (folder / LEDGER_FILE).write_bytes(b"not a database" * 1000)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_nothing, "not a run folder"),
        (_broken_manifest, "manifest is damaged"),
        (_other_manifest, "manifest is damaged"),
        (_binary_scenario, "cannot be read"),
        (_edited_scenario, "ruonds"),
        (_no_database, "cannot be opened"),
    ],
)
def test_a_damaged_run_folder_is_told(workspace: Path, harm: Any, says: str) -> None:
    run("--set", "budget.calls=30")
    for name in (f"{LEDGER_FILE}-wal", f"{LEDGER_FILE}-shm"):
        (workspace / "run" / name).unlink(missing_ok=True)
    harm(workspace / "run")
    for command in ("resume", "replay"):
        said = lbt_sim(command, "run", "--json", "-q")
        assert (said.status, said.out) == (2, "")
        assert says in said.err
    forked = lbt_sim("fork", "run", "--from-round", 1, "--out", "f")
    assert forked.status == 2
    assert not (workspace / "f" / MANIFEST_FILE).exists()
