"""Commands given wrongly: status 2, what is wrong, what is right; nothing is touched."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import lbt_sim
from typer.main import get_command

from lbt_sim.cli import app
from lbt_sim.ledger import LEDGER_FILE

WRONG = {
    "no such command": ("rnu small.yaml", ["rnu"]),
    "no such option": ("run small.yaml --sede 3", ["--sede"]),
    "no scenario": ("run", ["Missing argument"]),
    "unknown scenario": ("run smal", ["smal"]),
    "no such file": ("run nowhere/mine.yaml", ["nowhere/mine.yaml"]),
    "a folder": ("run .", ["."]),
    "seed of words": ("run small.yaml --seed three", ["--seed", "integer"]),
    "negative seed": ("run small.yaml --seed -3", ["--seed"]),
    "seed too large": ("run small.yaml --seed 99999999999", ["seed", "99999999999"]),
    "set without a value": ("run small.yaml --set method.rounds", ["method.rounds", "key.path=value"]),
    "set of an unknown key": ("run small.yaml --set method.ruonds=3", ["--set method.ruonds=3", "rounds"]),
    "set of a wrong value": ("run small.yaml --set method.rounds=many", ["--set method.rounds=many"]),
    "unknown engine": ("run small.yaml --engine lamacpp", ["lamacpp", "llamacpp"]),
    "resume nothing": ("resume nowhere", ["not a run folder", "lbt-sim run"]),
    "resume a file": ("resume small.yaml", ["not a run folder"]),
    "replay nothing": ("replay nowhere", ["not a run folder"]),
    "fork nothing": ("fork nowhere --from-round 1", ["not a run folder"]),
    "fork from nowhere": ("fork nowhere", ["--from-round"]),
    "fork from round 0": ("fork nowhere --from-round 0", ["--from-round"]),
    "show nothing": ("show nowhere", ["no ledger in nowhere", "lbt-sim run"]),
    "show a folder": ("show .", ["no ledger", "run folder"]),
    "show a file": ("show small.yaml", ["no ledger"]),
    "validate nothing": ("validate", ["FILE"]),
    "prompts of nothing": ("prompts nowhere.yaml", ["nowhere.yaml"]),
    "unknown classroom": ("classroom stra", ["stra", "star"]),
    "unknown schema": ("schema scenari", ["scenari", "scenario"]),
    "unknown weights": ("models pull smolm", ["smolm", "smollm2-135m"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_command_says_what_is_right(workspace: Path, case: str) -> None:
    command, says = WRONG[case]
    before = sorted(workspace.rglob("*"))
    said = lbt_sim(*command.split())
    assert (said.status, said.out) == (2, "")
    assert all(part in said.err for part in says), said.err
    assert sorted(workspace.rglob("*")) == before


def every_command(group: Any, *above: str) -> Iterator[str]:
    """Each command, those of groups with the group's name before it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from every_command(command, *above, name)
        else:
            yield " ".join([*above, name])


COMMANDS = sorted(every_command(get_command(app)))


def test_there_are_commands() -> None:
    assert {"run", "classroom", "schema", "doctor", "models list", "models pull"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    said = lbt_sim(*command.split(), "--help")
    assert said.status == 0
    assert f"Example: lbt-sim {command}" in said.out


@pytest.mark.parametrize("out", ["small.yaml", "small.yaml/run", "/proc/nothing/run", "x" * 300])
def test_a_folder_that_cannot_be_made_is_told(workspace: Path, out: str) -> None:
    said = lbt_sim("run", "small.yaml", "--out", out, "--json")
    assert (said.status, said.out) == (2, "")
    assert "--out" in said.err
    assert "Traceback" not in said.err
    assert (workspace / "small.yaml").is_file()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_may_not_be_written_is_told(workspace: Path) -> None:
    (workspace / "closed").mkdir(mode=0o555)
    said = lbt_sim("run", "small.yaml", "--out", "closed/run")
    assert said.status == 2
    assert "Permission denied" in said.err


def test_a_lock_that_cannot_be_had_is_told(workspace: Path) -> None:
    lbt_sim("run", "small.yaml", "--out", "run", "-q", "--set", "method.rounds=0")
    (workspace / "run" / ".lock").unlink()
    (workspace / "run" / ".lock").mkdir()
    said = lbt_sim("resume", "run")
    assert said.status == 2
    assert "cannot be written" in said.err


def test_show_of_a_run_that_never_began_is_told(workspace: Path) -> None:
    lbt_sim("run", "small.yaml", "--out", "run", "-q", "--set", "method.rounds=0")
    for file in (workspace / "run").glob(f"{LEDGER_FILE}*"):
        file.unlink()
    said = lbt_sim("show", "run")
    assert said.status == 2
    assert "no ledger" in said.err
    assert lbt_sim("resume", "run", "-q").status == 0


FULL = """
import resource, signal, sys
from lbt_sim.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (BYTES, BYTES))
sys.argv = ["lbt-sim", *sys.argv[1:]]
main()
"""


def test_a_disk_that_takes_no_more_stops_the_run_which_goes_on_when_there_is_room(workspace: Path) -> None:
    """No file may grow beyond a limit: to SQLite that is a write that fails, as on a full disk."""
    code = FULL.replace("BYTES", "200_000")
    command = [sys.executable, "-c", code, "run", "small.yaml", "--out", "run", "--json", "-q"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 3, said.stderr
    assert "the ledger cannot be written" in said.stderr
    assert "Free disk space" in said.stderr
    assert "Traceback" not in said.stderr
    assert '"status": "failed"' in said.stdout
    done = lbt_sim("resume", "run", "--json", "-q")
    assert done.status == 0
    assert done.result["calls"]["replayed"] > 0


def test_a_disk_that_takes_nothing_is_told_before_anything_starts(workspace: Path) -> None:
    command = [sys.executable, "-c", FULL.replace("BYTES", "1"), "run", "small.yaml", "--out", "run", "--json", "-q"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (2, ""), said.stderr
    assert "cannot be written" in said.stderr
    assert "Traceback" not in said.stderr


def test_output_that_nobody_reads_any_more_is_no_error(workspace: Path) -> None:
    lbt_sim("run", "small.yaml", "--out", "run", "-q")
    command = f"{sys.executable} -m lbt_sim show run --calls --limit 0 --full | head -1"
    said = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert said.stderr == ""
