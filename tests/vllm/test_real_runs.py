"""A whole small run of M3 with a language model on a real vLLM server of its own, and again with the server killed."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from real_vllm import Command, group_members, marked, records_in, until

from lbt_sim.errors import InputError
from lbt_sim.ledger import LedgerReader, StoredCall

pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.slow]

SMALL = [
    "models.small.cpu_cache=1",
    "models.small.memory=0.3",
    "task.train=40",
    "task.held_out=12",
    "method.rounds=1",
    "method.exemplars=4",
    "method.exam=4",
    "method.revise.chosen=2",
    "method.select={budget: 24, block: 4, rescore: 0}",
]


@dataclass(frozen=True)
class Ran:
    """A run that ended well: its folder, its result, the marks of its servers."""

    folder: Path
    result: dict[str, Any]
    told: str

    @property
    def calls(self) -> dict[object, StoredCall]:
        with LedgerReader(self.folder) as ledger:
            return {call.path: call for call in ledger.calls()}

    @property
    def outcomes(self) -> Counter[str]:
        """Grades of all exams, the teacher's and the students', over all rounds."""
        exams = [one["teacher"] for one in self.result["rounds"]]
        exams += [student for one in self.result["rounds"] for student in one["students"].values()]
        return sum((Counter(one["outcomes"]) for one in exams), Counter())


def start(folder: Path, state: Path, python: str) -> Command:
    sets = [part for one in SMALL for part in ("--set", one)]
    arguments = ["run", "quickstart", "--engine", "vllm", "--out", "run", "--json", *sets]
    return Command(folder, "lbt-sim", *arguments, state=state, python=python)


def finish(command: Command, folder: Path) -> Ran:
    assert command.process.wait(300) == 0, command.said()
    told = command.said()
    return Ran(folder / "run", json.loads(told.splitlines()[-1]), told)


def committed(folder: Path) -> dict[object, StoredCall]:
    try:
        with LedgerReader(folder) as ledger:
            return {call.path: call for call in ledger.calls()}
    except InputError:
        return {}


@pytest.fixture(scope="module")
def whole(vllm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The run that nothing happens to."""
    folder = tmp_path_factory.mktemp("whole")
    state = folder / "state"
    command = start(folder, state, vllm_python)
    record = until(lambda: command.process.poll() is not None or next(iter(records_in(state)), None), 120, "a server")
    assert record is not True, command.said()
    ran = finish(command, folder)
    assert records_in(state) == []
    assert marked([record.token]) == {}, "the run has ended, and its server lives on"
    return ran


def test_a_small_run_of_m3_completes_on_a_server_of_its_own(whole: Ran) -> None:
    assert whole.result["status"] == "done"
    assert whole.result["calls"]["failed"] == 0
    assert {call.finish for call in whole.calls.values()} <= {"stop", "length"}
    assert whole.outcomes["failed"] == whole.outcomes["invalid"] == 0
    manifest = json.loads((whole.folder / "manifest.json").read_text())
    detail = manifest["models"]["small"]["detail"]
    assert detail["vllm"] == detail["can"]["version"]
    assert detail["servers"] == [{"how": "started"}]
    assert detail["VLLM_BATCH_INVARIANT"] == "0"
    figures = whole.result["servers"]["small"]
    assert figures["restarts"] == []
    assert 0 < figures["computed"] < figures["prompt_tokens"], "exams share their heads"
    assert (whole.folder / "servers" / "small.log").is_file()


def test_a_run_whose_server_is_killed_completes_and_charges_nobody(
    whole: Ran, vllm_python: str, tmp_path: Path
) -> None:
    state, folder = tmp_path / "state", tmp_path / "run"
    command = start(tmp_path, state, vllm_python)
    third = len(whole.calls) // 3

    def middle() -> dict[object, StoredCall]:
        assert command.process.poll() is None, command.said()
        found = committed(folder)
        return found if len(found) >= third else {}

    at_kill = until(middle, 300, "a third of the calls")
    assert len(at_kill) < len(whole.calls)
    (record,) = records_in(state)
    os.killpg(record.pgid, signal.SIGKILL)
    ran = finish(command, tmp_path)

    assert {path: ran.calls[path] for path in at_kill} == at_kill, "what was committed has changed"
    assert ran.calls.keys() == whole.calls.keys()
    assert ran.result["calls"]["failed"] == 0
    assert [call.path for call in ran.calls.values() if call.finish == "failed"] == []
    for broken in ("failed", "invalid", "truncated"):
        assert ran.outcomes[broken] <= whole.outcomes[broken], broken
    (why,) = ran.result["servers"]["small"]["restarts"]
    assert "SIGKILL" in why
    assert "it is started anew (1 of 3)" in ran.told
    assert marked([record.token]) == {}
    assert group_members(record.pgid) == {}
