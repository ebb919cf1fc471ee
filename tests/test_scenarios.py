"""Every shipped scenario runs, on simulated learners and with a small budget; every built-in file is valid."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lbt_sim.cli import app
from lbt_sim.library import Library, built_in
from lbt_sim.scenario.schema import AgentFile, ClassroomFile, PersonaFile, ScenarioFile
from lbt_sim.scenario.validation import validate_model
from lbt_sim.scenario.yaml import read_yaml

ROOT = built_in().root
DATA = ROOT.parent / "shared" / "data"
SCENARIOS = sorted(path.stem for path in (ROOT / "scenarios").glob("*.yaml"))
TOPOLOGIES = ("assistant-chain", "jigsaw", "ring", "small-world", "star", "two-teachers")

FILES = {
    "m3-liar": ("liar_train.jsonl", "liar_test.jsonl"),
    "m3-fallacy": ("fallacy_train.jsonl", "fallacy_dev.jsonl"),
    "m3-gsm8k": ("gsm8k_train.jsonl", "gsm8k_test.jsonl"),
}
"""Scenario -> the files of others that it reads."""

SMALL = ("method.rounds=2", "method.exam.problems=5", "method.select.budget=32", "method.select.block=4")
FEW = ("task.train=60", "task.held_out=16")
FEW_MATERIALS = ("method.beam=2", "method.exemplars=6", "method.revise.reflections=2")

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a scenario on the simulated engine; its JSON result."""

    def execute(name: str, *sets: str, data: Path | None = None) -> dict[str, Any]:
        out = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        command = ["run", name, "--engine", "simulated", "--json", "--quiet", "--out", str(out)]
        command += [part for one in sets for part in ("--set", one)]
        command += ["--data", str(data)] if data else []
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert done.exit_code == 0
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result

    return execute


def assert_complete(result: Mapping[str, Any], held_out: int) -> None:
    """Every round is there, every held-out problem was answered, and no call gave up."""
    assert result["status"] == "done"
    assert [row["round"] for row in result["rounds"]] == [0, 1, 2]
    for row in result["rounds"]:
        assert row["teacher"]["n"] == held_out
        assert sum(row["teacher"]["outcomes"].values()) == held_out
        assert row["material"]
    assert not result["rounds"][0]["students"]
    assert all(row["students"] for row in result["rounds"][1:])
    assert result["calls"]["failed"] == 0


def test_the_scenarios_of_the_documentation_are_there() -> None:
    expected = {"quickstart", "m3-arithmetic", "m3-reviews", "lecture", "open-answers", "written-exam"}
    assert expected | set(FILES) | set(TOPOLOGIES) <= set(SCENARIOS)


@pytest.mark.parametrize("name", sorted(set(SCENARIOS) - set(FILES)))
def test_a_shipped_scenario_runs(name: str, run: Run) -> None:
    few = ("task.held_out=12",) if name == "open-answers" else FEW
    result = run(name, *SMALL, *few)
    assert_complete(result, 12 if name == "open-answers" else 16)


def written_rows(name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A few rows in the shape of a scenario's data."""
    if name == "m3-gsm8k":
        rows = [
            {
                "question": f"Mia has {n} pens and buys {n + 2} more. How many has she now?",
                "answer": f"She has {n} + {n + 2} = {2 * n + 2}.\n#### {2 * n + 2}",
            }
            for n in range(3, 63)
        ]
    else:
        claim = "The mayor of town {} says that taxes were halved" if name == "m3-liar" else "Dog {} bit me, so all do"
        rows = [{"label": n % 2, "text": f"{claim.format(n)} (source {n * n})"} for n in range(60)]
    return rows[:44], rows[44:]


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_scenario_on_data_of_others_runs_on_rows_of_that_shape(name: str, run: Run, tmp_path: Path) -> None:
    for file, rows in zip(FILES[name], written_rows(name), strict=True):
        (tmp_path / file).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert_complete(run(name, *SMALL, *FEW_MATERIALS, data=tmp_path), 16)


@pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data beside the project")
@pytest.mark.parametrize("name", sorted(FILES))
def test_a_scenario_on_data_of_others_runs_on_the_real_data(name: str, run: Run) -> None:
    result = run(name, *SMALL, *FEW_MATERIALS, "task.train=120", "task.held_out=60", data=DATA)
    assert_complete(result, 60)
    if name == "m3-gsm8k":
        assert result["baselines"] == {"always_positive": None, "majority": None}
    else:
        assert 0.2 < result["baselines"]["always_positive"]["f1"] < 0.9
    if name == "m3-fallacy":
        assert any("18 rows dropped from train" in notice for notice in result["notices"])


def test_without_the_data_the_message_says_how_to_name_their_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LBT_SIM_DATA", raising=False)
    with pytest.raises(Exception, match=r"liar_train\.jsonl.*\n.*--data DIR \(or set LBT_SIM_DATA\)"):
        CliRunner().invoke(app, ["run", "m3-liar", "--engine", "simulated"], catch_exceptions=False)


@pytest.mark.parametrize("name", ["ring", "jigsaw"])
def test_talk_carries_material_that_was_dealt_out(name: str, run: Run) -> None:
    """Students who are taught a part each know more of the easy reviews when they have talked."""
    sets = ("method.rounds=1", "method.exam.problems=150", "method.revise.chosen=1", "method.select.budget=16")
    silent = mean_of_students(run(name, *sets, "lesson.discussion.turns=0"))
    assert silent < mean_of_students(run(name, *sets, "lesson.discussion.turns=8")) - 0.04


def mean_of_students(result: Mapping[str, Any]) -> float:
    scores = [student["accuracy"] for student in result["rounds"][1]["students"].values()]
    return float(sum(scores) / len(scores))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_tells_what_to_look_at(name: str) -> None:
    text = (ROOT / "scenarios" / f"{name}.yaml").read_text(encoding="utf-8")
    file = validate_model(read_yaml(text, name), ScenarioFile)
    assert file.title
    assert file.description
    assert "look at" in (text.split("kind:")[0] + file.description).lower()
    assert f"`{name}`" in (ROOT / "scenarios" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("folder", "shape"), [("agents", AgentFile), ("agents/personas", PersonaFile), ("classrooms", ClassroomFile)]
)
def test_every_built_in_file_is_valid_and_in_its_folders_readme(folder: Any, shape: Any) -> None:
    library = Library([built_in()])
    names = library.names(folder)
    assert names
    readme = (ROOT / folder.split("/")[0] / "README.md").read_text(encoding="utf-8")
    for name in names:
        source = library.find(folder, name)
        checked = validate_model(read_yaml(source.text, source.file), shape)
        assert checked.title
        assert f"`{name}`" in readme
        for template in getattr(checked, "prompts", {}).values():
            assert library.read(template, base=source.path).text
