"""Runs that are killed (SIGKILL) at random moments lose nothing: a small share of `benchmarks/kill.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_result_and_makes_no_committed_call_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    kill = __import__("kill")
    tally = kill.kill_runs(10, 3, tmp_path, seeds=1)
    assert tally.failures == []
    assert tally.kills >= 10
    assert max(tally.committed_at_kill) > 0, "no kill came after the first call"
    assert (tally.differing, tally.changed, tally.again, tally.other_tokens) == (0, 0, 0, 0)
    sys.modules.pop("kill")
