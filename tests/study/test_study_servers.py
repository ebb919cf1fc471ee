"""Studies on vLLM: servers that are started for all runs, given up on Ctrl-C, and never started twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import SMALL_STUDY, lbt_sim
from stubs import SCRIPT

from lbt_sim.folders import locked
from lbt_sim.study.folder import load_results

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="vLLM servers are looked after on Linux")

ARMS = """\
seeds: 1
arms:
  one: {set: {models.sim: %s, method.revise.operators: [choose]}}
  other: {set: {models.sim: %s, method.revise.operators: [choose]}}
"""
STUDY = ["study", "mine.yaml", "--out", "s", "--workers", "1", "--no-report"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the folders of two models as far as anybody looks who does not load them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LBT_SIM_STATE", str(tmp_path / "state"))
    for name, size in (("tiny", 4), ("other", 8)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
        header = json.dumps({"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
        (tmp_path / name / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
    return tmp_path


def write(folder: Path, **flags: Any) -> None:
    entries = []
    for name in ("tiny", "other"):
        entry = {"engine": "vllm", "model": str(folder / name), "device": "cpu", "cpu_cache": 1, "flags": flags}
        entries.append(json.dumps({**entry, "command": [sys.executable, str(SCRIPT)]}))
    (folder / "mine.yaml").write_text(SMALL_STUDY + ARMS % tuple(entries), "utf-8")


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Gives a command in a process of its own."""
    processes: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "lbt_sim", *arguments]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()  # its guards end its servers
        process.communicate()


def servers(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (folder / "state").glob("*.json")]


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def test_conditions_whose_models_have_one_name_are_answered_by_their_own_servers(folder: Path) -> None:
    write(folder)
    said = lbt_sim(*STUDY, "--json")
    assert said.status == 0, said.err
    identities = {}
    for condition in ("one", "other"):
        manifest = json.loads((folder / "s" / "runs" / condition / "1" / "manifest.json").read_text())
        identities[condition] = manifest["models"]["sim"]["identity"].partition("@")[0]
    assert identities == {"one": "vllm:tiny", "other": "vllm:other"}
    assert servers(folder) == []
    assert "starting servers" in said.err
    again = lbt_sim("resume", "s", "--json")
    assert again.status == 0, again.err
    assert "starting servers" not in again.err  # nothing is left that would need them


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_while_servers_start_gives_them_up_and_the_study_can_be_resumed(
    folder: Path, start: Callable[..., subprocess.Popen[str]], times: int
) -> None:
    write(folder, **{"start-seconds": 600, "once": str(folder / "once")})
    process = start(*STUDY)
    until(lambda: (folder / "once").exists() and servers(folder))
    groups = [server["pgid"] for server in servers(folder) if server.get("pgid")]
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "lbt-sim resume s" in err
    assert groups
    until(lambda: not any(map(alive, groups)))
    assert servers(folder) == []
    assert load_results(folder / "s").runs == {}
    if times == 2:
        assert lbt_sim("resume", "s", "--workers", "1", "--json", "-q").result["runs"]["done"] == 2


def test_a_second_resume_is_refused_before_it_does_anything(folder: Path) -> None:
    write(folder)
    sets = ("--set", "budget.calls=1", "--set", "seeds=2")  # the second seed is not begun
    assert lbt_sim("study", "mine.yaml", "--out", "s", "-q", "--no-report", *sets).status == 3
    before = (folder / "s" / "study.yaml").read_bytes()
    with locked(folder / "s"):
        said = lbt_sim("resume", "s", "--set", "budget.calls=100000")
    assert said.status == 2
    assert "another process works on this study" in said.err
    assert (folder / "s" / "study.yaml").read_bytes() == before
    assert "starting" not in said.err
    assert servers(folder) == []
