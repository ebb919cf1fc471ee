"""Whole small runs on the embedded engine: stopped, resumed, replayed, with a real language model behind them."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import lasting, lbt_sim

from lbt_sim.ledger import LedgerReader

TINY = [
    "models.small.cache=false",  # what is in the prompt cache shows in the last digits of log-probabilities
    "task.train=40",
    "task.held_out=4",
    "method.rounds=1",
    "method.exemplars=2",
    "method.exam=2",
    "method.revise.chosen=1",
    "method.select={budget: 4, block: 2, rescore: 0}",
]


def answers(folder: Path) -> dict[tuple[object, ...], str]:
    with LedgerReader(folder) as ledger:
        return {(c.round, c.step, c.agent, c.item, c.sample): f"{c.text} {c.logprobs}" for c in ledger.calls()}


@pytest.mark.model
@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_result_of_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sets = [part for one in TINY for part in ("--set", one)]
    whole = lbt_sim("run", "quickstart", "--out", "whole", "--json", "-q", *sets)
    assert whole.status == 0, whole.err
    stopped = lbt_sim("run", "quickstart", "--out", "run", "--json", "-q", *sets, "--set", "budget.calls=6")
    assert stopped.status == 3
    before = answers(tmp_path / "run")
    assert 0 < len(before) < len(answers(tmp_path / "whole"))
    done = lbt_sim("resume", "run", "--json", "-q", "--set", "budget.calls=1000")
    assert done.status == 0, done.err
    assert lasting(done.result) == lasting(whole.result)
    assert answers(tmp_path / "run") == answers(tmp_path / "whole")
    assert before.items() <= answers(tmp_path / "run").items()
    replayed = lbt_sim("replay", "run", "--json", "-q")
    assert lasting(replayed.result) == lasting(done.result)
    assert replayed.result["calls"]["made"] == 0
