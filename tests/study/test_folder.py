"""A study's folder: making one that was cut short, results that were edited."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import lbt_sim

from lbt_sim.errors import InputError
from lbt_sim.study import folder
from lbt_sim.study.folder import RESULTS_FILE, ResultsFile, StudyFolder, create_study, load_results
from lbt_sim.study.plan import load_study
from lbt_sim.study.record import RoundRecord, RunResult

Write = Callable[..., str]
ARMS = "arms: [several, one]\nseeds: 2\n"


def result(condition: str, seed: int) -> RunResult:
    rounds = (RoundRecord(0, "m0", "cw", "PN", 0.5, None), RoundRecord(1, "m1", "cc", "PP", 1.0, None))
    counts = {"made": 3}
    return RunResult(
        condition,
        seed,
        f"runs/{condition}/{seed}",
        "done",
        None,
        ("p1", "p2"),
        (True, False),
        ("", ""),
        rounds,
        (),
        counts,
    )


def filled(study: StudyFolder) -> Path:
    with ResultsFile(study.path) as file:
        for run in study.runs:
            file.add(result(run.condition, run.seed))
    return study.path / RESULTS_FILE


@pytest.mark.parametrize("at", ["conditions", "manifest.json", "study.yaml.part"])
def test_a_study_whose_making_was_killed_can_be_made_again(
    write_study: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    plan, out = load_study(write_study(ARMS)), tmp_path / "s"

    class KilledError(BaseException):
        pass

    def killed(*_: object) -> None:
        if at == "study.yaml.part":
            (out / at).write_text("cut", encoding="utf-8")
        elif at == "manifest.json":
            (out / "manifest.json.part").write_text("cut", encoding="utf-8")
        else:
            (out / "conditions" / "left.yaml").write_text("cut", encoding="utf-8")
        raise KilledError

    monkeypatch.setattr(folder, "_as_yaml" if at == "study.yaml.part" else "write_manifest", killed)
    with pytest.raises(KilledError):
        create_study(plan, out)
    monkeypatch.undo()
    made = create_study(plan, out)
    assert [run.seed for run in made.runs] == [1, 1, 2, 2]
    assert sorted(entry.name for entry in (out / "conditions").iterdir()) == ["one.yaml", "several.yaml"]
    with pytest.raises(InputError, match="holds a study"):
        create_study(plan, out)


def test_resume_of_a_study_whose_making_was_killed_names_the_command_to_give_again(
    write_study: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, out = load_study(write_study(ARMS)), tmp_path / "s"
    written = 0

    class KilledError(BaseException):
        pass

    dump = folder.dump_resolved

    def killed(*arguments: Any) -> str:
        nonlocal written
        written += 1
        if written == 2:
            raise KilledError
        return dump(*arguments)

    monkeypatch.setattr(folder, "dump_resolved", killed)
    with pytest.raises(KilledError):
        create_study(plan, out, command=["lbt-sim", "study", "mine.yaml", "--set", "title=A b"])
    monkeypatch.undo()
    said = lbt_sim("resume", out)
    assert said.status == 2
    assert "Nothing was lost" in said.err
    assert f"lbt-sim study mine.yaml --set 'title=A b' --out {out}" in said.err
    (out / "manifest.json").unlink()
    assert f"lbt-sim study STUDY --out {out}" in lbt_sim("resume", out).err
    create_study(plan, out)


def test_a_study_that_lacks_a_condition_says_so(write_study: Write, tmp_path: Path) -> None:
    create_study(load_study(write_study(ARMS)), tmp_path / "s")
    (tmp_path / "s/conditions/one.yaml").unlink()
    said = lbt_sim("resume", tmp_path / "s")
    assert said.status == 2
    assert "conditions/one.yaml" in said.err
    assert "lacks a condition" in said.err


def test_a_study_killed_before_its_folder_was_locked_can_be_made_again(write_study: Write, tmp_path: Path) -> None:
    (tmp_path / "s" / "conditions").mkdir(parents=True)
    assert len(create_study(load_study(write_study(ARMS)), tmp_path / "s").conditions) == 2


@pytest.mark.parametrize("there", ["notes.txt", "conditions/mine.txt", "conditions/deep/one.yaml"])
def test_a_folder_with_anything_else_is_left_alone(write_study: Write, tmp_path: Path, there: str) -> None:
    file = tmp_path / "s" / there
    file.parent.mkdir(parents=True)
    file.write_text("mine", encoding="utf-8")
    (tmp_path / "s" / ".lock").touch()
    with pytest.raises(InputError, match="is there already"):
        create_study(load_study(write_study(ARMS)), tmp_path / "s")
    assert file.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    "line", ["", "null", "3", '"a"', "[]", "{}", '{"of": 0}', '{"of": [], "seed": 1}', "[" * 99_999, '{"set": 1}', "\0"]
)
def test_results_after_a_damaged_line_are_taken_away(write_study: Write, tmp_path: Path, line: str) -> None:
    study = create_study(load_study(write_study(ARMS)), tmp_path / "s")
    file = filled(study)
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([*lines[:2], line, *lines[2:]]) + "\n", encoding="utf-8")
    assert list(load_results(study.path).runs) == [("several", 1)]
    filled(study)
    assert len(load_results(study.path).runs) == 4


@pytest.mark.parametrize(
    "change", [{"status": "odd"}, {"counts": None}, {"outcomes": 3}, {"rounds": [{}]}, {"exams": [1]}]
)
def test_a_line_that_is_no_record_is_damaged(write_study: Write, tmp_path: Path, change: dict[str, object]) -> None:
    study = create_study(load_study(write_study(ARMS)), tmp_path / "s")
    file = filled(study)
    lines = file.read_text(encoding="utf-8").splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), **change})
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert not load_results(study.path).runs


def test_the_last_of_several_lines_of_a_run_counts_and_runs_that_are_not_planned_do_not(
    write_study: Write, tmp_path: Path
) -> None:
    study = create_study(load_study(write_study(ARMS)), tmp_path / "s")
    with ResultsFile(study.path) as file:
        file.add(RunResult("one", 1, "runs/one/1", "failed", "it broke"))
        file.add(result("one", 99))
        file.add(result("gone", 1))
        file.add(result("one", 1))
    runs = load_results(study.path).runs
    assert {key: run.status for key, run in runs.items()} == {("one", 1): "done"}
