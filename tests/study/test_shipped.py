"""Every shipped study runs, on simulated learners and small, from the command to the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lbt_sim.cli import app
from lbt_sim.library import built_in

ROOT = built_in().root
DATA = ROOT.parent / "shared" / "data"
STUDIES = sorted(path.stem for path in (ROOT / "scenarios" / "studies").glob("*.yaml"))
SMALL = (
    "seeds=2",
    "task.train=90",
    "task.held_out=12",
    "method.rounds=1",
    "method.exam.problems=4",
    "method.exemplars=6",
    "method.select.budget=16",
    "method.select.block=4",
    "method.select.rescore=4",
)


def test_the_studies_of_the_issue_are_here() -> None:
    assert {"diversity", "diversity-vllm", "topology", "topology-vllm", "paper-liar"} <= set(STUDIES)


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_a_shipped_study_runs_to_its_report(name: str, tmp_path: Path) -> None:
    data = []
    if name == "paper-liar":
        if not (DATA / "liar_train.jsonl").exists():
            pytest.skip("the LIAR data are not here")
        data = ["--data", str(DATA), "--set", "method.beam=2", "--set", "method.revise.reflections=2"]
    command = [
        "study",
        name,
        "--engine",
        "simulated",
        "--json",
        "--quiet",
        "--workers",
        "1",
        "--out",
        str(tmp_path / "s"),
        *data,
    ]
    command += [part for one in SMALL for part in ("--set", one)]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["status"] == "done"
    assert found["runs"]["done"] == 2 * len(found["conditions"])
    assert {one["pairs"] for one in found["comparisons"]} == {2}
    assert (tmp_path / "s" / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_simulated_diversity_study_is_large_enough() -> None:
    from lbt_sim.study.plan import load_study

    plan = load_study("diversity")
    assert len(list(plan.runs)) >= 200
    assert {one.condition.arm for one in plan.conditions} >= {"self", "one", "clones", "resample", "shuffled"}
    assert plan.file.equal_compute is not None
    assert load_study("topology").file.equal_compute is not None
    assert {one.condition.arm for one in load_study("topology").conditions} == {
        "star",
        "ring",
        "small-world",
        "jigsaw",
        "chain",
    }


def test_the_paper_study_has_its_repeats() -> None:
    from lbt_sim.study.plan import load_study

    plan = load_study("paper-liar")
    assert plan.file.seed_list == tuple(range(1, 15))
    assert plan.file.metric == "f1"
    assert {one.loaded.file.method.preset for one in plan.conditions} == {"paper"}
