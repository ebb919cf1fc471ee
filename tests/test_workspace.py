"""`lbt-sim init`: a workspace in which everything that its README names works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from commands import lbt_sim


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new workspace as the working directory."""
    monkeypatch.chdir(tmp_path)
    made = lbt_sim("init", "my study")
    assert made.status == 0
    assert "cd 'my study' && lbt-sim run first" in made.out
    monkeypatch.chdir(tmp_path / "my study")
    return tmp_path / "my study"


def test_the_commands_of_its_readme_work(workspace: Path) -> None:
    commands = re.findall(r"^ +lbt-sim ([^#\n]+)", (workspace / "README.md").read_text(), re.MULTILINE)
    assert [shlex.split(command)[0] for command in commands] == ["validate", "prompts", "run", "show"]
    for command in commands:
        said = lbt_sim(*shlex.split(command))
        assert (said.status, said.err if command.startswith("validate") else "") == (0, "")


def test_what_is_changed_in_it_is_what_is_used(workspace: Path) -> None:
    (workspace / "agents" / "student" / "answer.md.j2").write_text("Mine: {{ question }}")
    assert "Mine: Review:" in lbt_sim("prompts", "first", "--agent", "curious_1").out


def test_a_folder_that_holds_something_is_left_alone(workspace: Path) -> None:
    before = sorted(workspace.rglob("*"))
    said = lbt_sim("init", ".")
    assert said.status == 2
    assert "not empty" in said.err
    assert sorted(workspace.rglob("*")) == before
