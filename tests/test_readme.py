"""Every command in the documentation runs, in the order in which it stands, in one fresh directory.

Commands that would ask a language model are run on simulated learners; a test that is marked `model` runs the first
one on the embedded model.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from commands import lbt_sim
from typer.main import get_command

from lbt_sim.cli import app
from lbt_sim.grading import OUTCOMES
from lbt_sim.models.registry import ENGINES
from lbt_sim.roles.uses import USES
from lbt_sim.scenario.load import load_scenario
from lbt_sim.scenario.presets import PRESETS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "scenarios/README.md",
    "agents/README.md",
    "classrooms/README.md",
    "docs/serving.md",
    "docs/studies.md",
)

BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
ELSEWHERE = {"./check"}
"""Commands that are not run here: the one that runs this test."""


def commands(text: str) -> list[tuple[str, int]]:
    """Each command of the fenced blocks, and the exit status that is said to follow."""
    found = []
    for block in BLOCK.finditer(text):
        if block["language"] in ("console", "bash", "sh"):
            for line in block["body"].splitlines():
                if line.startswith("$ "):
                    command, _, comment = line[2:].partition("  #")
                    status = re.search(r"exit status (\d+)", comment)
                    found.append((command.strip(), int(status[1]) if status else 0))
    return found


SMALL = ("method.rounds=2", "method.select.budget=32", "task.held_out=20")
"""What the studies of the documentation are given besides: they are to run, not to find anything."""


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands are given, on a screen of 120 columns; processes that they start end at a warning, too."""
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_of_a_document_run_one_after_the_other(document: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for command, status in commands((ROOT / document).read_text(encoding="utf-8")):
        if command in ELSEWHERE:
            continue
        words = shlex.split(command)
        if words[0] == "cd":
            monkeypatch.chdir(words[1])
            continue
        words = words[2:] if words[:2] == ["uv", "run"] else words
        assert words[0] == "lbt-sim", command
        if words[1] == "run" and not {"--engine", "--out"} & set(words):
            # `--out` too: the next command may run the same scenario in the folder of that name.
            words += ["--engine", "simulated", "--out", "asked"]
        if words[1] == "study":
            words += [f"--set={one}" for one in ("seeds=2", *SMALL)]
        said = lbt_sim(*words[1:])
        assert said.status == status, f"{command}\n{said.out}\n{said.err}"
        assert "Traceback" not in said.err


def test_the_readme_has_commands_to_run() -> None:
    found = [command for command, _ in commands(README)]
    assert found[:2] == ["uv run lbt-sim run quickstart", "./check"]
    assert len(found) > 10


@pytest.mark.model
@pytest.mark.slow
def test_the_first_command_runs_on_the_embedded_model() -> None:
    """As it stands in the README but for its size: one round, few held-out problems."""
    few = ("rounds=1", "exam=2", "revise.chosen=2", "select.budget=8")
    sets = [f"--set={one}" for one in ("task.held_out=4", *(f"method.{one}" for one in few))]
    said = lbt_sim("run", "quickstart", "--json", *sets)
    assert said.status == 0, said.err
    assert [row["teacher"]["n"] for row in said.result["rounds"]] == [4, 4]
    assert all(row["teacher"]["read_from"] == {"logprobs": 4} for row in said.result["rounds"])


def test_the_scenario_in_the_readme_is_valid(tmp_path: Path) -> None:
    blocks = [b["body"] for b in BLOCK.finditer(README) if b["language"] == "yaml"]
    (block,) = [body for body in blocks if body.startswith("kind: scenario")]
    file = tmp_path / "shown.yaml"
    file.write_text(block, encoding="utf-8")
    assert load_scenario(str(file)).file.method.rounds == 4


def test_the_models_in_the_readme_are_those_of_the_papers_scenario() -> None:
    (block,) = [b["body"] for b in BLOCK.finditer(README) if b["body"].startswith("models:")]
    shown = yaml.safe_load(block)["models"]
    liar = load_scenario(str(ROOT / "scenarios" / "m3-liar.yaml")).file.models
    assert shown == {name: spec.model_dump() for name, spec in liar.items()}


def test_every_engine_preset_command_and_outcome_is_in_the_readme() -> None:
    names = {*ENGINES, *PRESETS, *OUTCOMES}
    names |= set(get_command(app).commands)  # type: ignore[attr-defined]
    assert {name for name in names if not re.search(rf"`{re.escape(name)}[ `]", README)} == set()


def test_the_table_of_prompts_is_what_templates_may_name() -> None:
    text = (ROOT / "agents" / "README.md").read_text(encoding="utf-8").partition("## Prompts")[2]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:3] == "| `"]
    assert {use.strip("`"): set(re.findall(r"`(\w+)`", names)) for use, _, names in rows} == USES
    who = {use.strip("`"): set(re.findall("all|teacher|assistant|student|examiner", roles)) for use, roles, _ in rows}
    assert (who["discuss"], who["summarise"]) == ({"student", "assistant"}, {"student"})


def test_a_run_that_stopped_prints_what_the_readme_says() -> None:
    said = lbt_sim("run", "simulated", "--json", "-q", "--set", "budget.calls=1")
    assert said.status == 3
    assert list(said.result) == ["run", "status", "error"]
    assert "prints `run`, `status` (`failed`, `interrupted`) and `error` alone" in " ".join(README.split())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert ((ROOT / document).parent / target).exists(), target
