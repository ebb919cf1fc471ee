"""The commands `study`, `resume` of a study and `validate` of one: what they print, and how they end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands import SMALL_STUDY, lbt_sim

from lbt_sim.study.folder import RESULTS_FILE, load_results

STUDY = SMALL_STUDY + "seeds: 2\narms: [several, one]\n"
QUICK = ("--workers", "1", "--no-report")
"""A worker takes a second to start, and a report two to be drawn."""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small study's file; commands are given beside it."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(STUDY, encoding="utf-8")
    return path


def test_validate_tells_what_a_study_will_take(file: Path) -> None:
    said = lbt_sim("validate", file)
    assert said.status == 0, said.err
    assert "4 runs: 2 conditions × 2 seeds" in said.out
    assert "time: about" in said.out
    assert "measured" in said.out
    assert not (file.parent / "runs").exists()  # nothing was made


def test_compute_that_will_not_be_equal_is_told_for_whom(file: Path) -> None:
    more = "equal_compute: true\n"
    file.write_text(STUDY.replace("[several, one]", "[several, no_revision]") + more, encoding="utf-8")
    said = lbt_sim("validate", file, "--set", "task.train=40", "--set", "method.select.budget=200")
    assert said.status == 0, said.err
    note = next(line for line in said.out.splitlines() if "compute is not equal" in line)
    assert "no_revision" in note
    assert "several" not in note.partition("at most;")[2]


def test_a_budget_that_will_not_suffice_is_told(file: Path) -> None:
    assert "will not suffice" in lbt_sim("validate", file, "--set", "budget.calls=5").out
    assert "will not suffice" not in lbt_sim("validate", file, "--set", "budget.calls=500000").out


def test_a_study_is_no_single_run(file: Path) -> None:
    said = lbt_sim("run", "diversity")
    assert said.status == 2
    assert "lbt-sim study diversity" in said.err


def test_f1_of_a_task_without_a_positive_label_is_refused(file: Path) -> None:
    sets = ("--set", "metric=f1", "--set", "task={name: arithmetic, train: 60, held_out: 20}")
    said = lbt_sim("validate", file, *sets)
    assert said.status == 2, said.out
    assert "F1 is of a positive label" in said.err


def test_what_was_forecast_is_what_it_takes(file: Path) -> None:
    from lbt_sim.study.forecast import forecast
    from lbt_sim.study.plan import load_study

    file.write_text(STUDY + "equal_compute: true\n")  # else a race may be over early with one seed and not another
    told = forecast(load_study(str(file)))
    assert lbt_sim("study", file, "--out", "s", "--quiet", *QUICK).status == 0
    runs = load_results(Path("s")).runs
    assert told.total("answers") == sum(run.counts["answers"] for run in runs.values())
    assert told.runs == len(runs)


def test_a_pilot_is_run_on_the_studys_own_models(file: Path) -> None:
    said = lbt_sim("validate", file, "--pilot")
    assert said.status == 0, said.err
    assert "one round of several" in said.out
    assert "tokens: about" in said.out


def test_validate_of_another_engine_does_not_guess_the_time(file: Path) -> None:
    models = "{sim: {engine: openai, url: 'http://127.0.0.1:9/v1', model: none}}"
    said = lbt_sim("validate", file, "--set", f"models={models}")
    assert said.status == 0, said.err
    assert "time: not measured" in said.out


def test_study_prints_what_it_found_and_writes_the_report(file: Path) -> None:
    said = lbt_sim("study", file, "--workers", "1")
    assert said.status == 0, said.err
    assert "one − several" in said.out  # with the first
    assert "2 paired seeds" in " ".join(said.out.split())
    assert (file.parent / "runs" / "mine" / "report.html").is_file()


def test_json_is_the_last_line_and_whole(file: Path) -> None:
    said = lbt_sim("study", file, "--json", "--out", "s", *QUICK)
    found: dict[str, Any] = said.result
    assert (found["status"], found["runs"]) == ("done", {"done": 4, "failed": 0, "missing": 0})
    assert found["comparisons"][0]["pairs"] == 2
    assert len(said.out.splitlines()) == 1
    assert not (Path("s") / "report.html").exists()


def test_failed_runs_end_with_status_3_and_are_told(file: Path) -> None:
    file.write_text(STUDY.replace("arms: [several, one]", "arms:\n  fails: {set: {budget.calls: 1}}\n  one:"))
    said = lbt_sim("study", file, "--out", "s", "--json", "--workers", "1")
    assert said.status == 3
    assert "2 runs failed" in said.err
    assert said.result["runs"] == {"done": 2, "failed": 2, "missing": 0}
    assert "budget" in (Path("s") / "report.html").read_text(encoding="utf-8")


def test_a_spent_budget_is_raised_by_resume(file: Path) -> None:
    assert lbt_sim("study", file, "--out", "s", "--set", "budget.calls=50", "--quiet", *QUICK).status == 3
    assert load_results(Path("s")).runs
    assert lbt_sim("resume", "s", "--set", "seeds=9").status == 2
    said = lbt_sim("resume", "s", "--set", "budget.calls=100000", "--json", "--workers", "1")
    assert said.status == 0, said.err
    assert said.result["runs"]["done"] == 4
    again = lbt_sim("resume", "s", "--json", "--workers", "1")
    assert again.status == 0
    assert again.result["comparisons"] == said.result["comparisons"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["study", "divesity"], "diversity"),
        (["study", "mine.yaml", "--executor", "slurm"], "ray"),
        (["study", "mine.yaml", "--out", "taken"], "taken"),
        (["study", "taken"], "taken"),
        (["study", "mine.yaml", "--set", "armz=1"], "armz"),
        (["study", "mine.yaml", "--engine", "nothing"], "simulated"),
    ],
)
def test_mistakes_end_with_status_2_and_leave_nothing(file: Path, arguments: list[str], says: str) -> None:
    (file.parent / "taken").mkdir()
    (file.parent / "taken" / "note").write_text("mine")
    said = lbt_sim(*arguments)
    assert said.status == 2
    assert says in said.err
    assert "Traceback" not in said.err
    assert sorted(path.name for path in file.parent.iterdir()) == ["mine.yaml", "taken"]


def test_ctrl_c_keeps_what_is_done_and_resume_ends_it(file: Path) -> None:
    file.write_text(STUDY.replace("seeds: 2", "seeds: 8"))
    command = [sys.executable, "-m", "lbt_sim", "study", str(file), "--out", "s", *QUICK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        results = Path("s") / RESULTS_FILE
        while process.poll() is None and not (results.exists() and results.stat().st_size):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "lbt-sim resume s" in err
    done = len(load_results(Path("s")).runs)
    assert 0 < done < 16
    said = lbt_sim("resume", "s", "--json", "--quiet", "--workers", "1")
    assert said.status == 0, said.err
    assert said.result["runs"]["done"] == 16


def test_commands_for_one_run_name_one_of_a_studys(file: Path) -> None:
    assert lbt_sim("study", file, "--out", "s", "--quiet", *QUICK).status == 0
    for command in (["show", "s"], ["replay", "s"], ["fork", "s", "--from-round", "1"]):
        said = lbt_sim(*command)
        assert said.status == 2
        assert "s/runs/" in said.err
        assert "lbt-sim report s" in said.err


def test_too_few_seeds_to_show_anything_are_told_beforehand(file: Path) -> None:
    assert "nothing can be shown" in lbt_sim("validate", file).out
    assert "nothing can be shown" not in lbt_sim("validate", file, "--set", "seeds=8").out
