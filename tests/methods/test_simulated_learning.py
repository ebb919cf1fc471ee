"""Over many seeds the simulated classroom's teacher gets better at held-out problems, and so does its control.

Each seed is run twice from the same round 0: led by the failures, and told of random problems instead
(`method.revise.feedback=none`). That both rise is what there is to show: selection alone teaches, so a gain by itself
says nothing about feedback (docs/measurements.md).
"""

from __future__ import annotations

import asyncio
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lbt_sim.folders import RunFolder, load_run_scenario
from lbt_sim.ledger import LedgerReader
from lbt_sim.runs import Run, create_run, fork_run
from lbt_sim.scenario.load import load_scenario
from lbt_sim.setup import prepare

SEEDS = range(24)
T_23 = 2.069
"""The 97.5 % quantile of Student's t with 23 degrees of freedom."""


@dataclass(frozen=True)
class Arm:
    """One run: held-out accuracy by round, and its calls after round 0 by (round, purpose)."""

    curve: Sequence[float]
    calls: Mapping[tuple[int, str], int]

    @property
    def gain(self) -> float:
        return self.curve[-1] - self.curve[0]


def executed(folder: RunFolder) -> Arm:
    result: dict[str, Any] = asyncio.run(Run(folder).execute())
    with LedgerReader(folder.path) as ledger:
        calls = Counter((call.round, call.purpose) for call in ledger.calls("c.round >= 1"))
    return Arm([row["teacher"]["accuracy"] for row in result["rounds"]], calls)


def pair(folder: Path, seed: int) -> tuple[Arm, Arm]:
    """A run, and its control: a fork from round 1 without feedback."""
    led = create_run(prepare(load_scenario("simulated", sets=[f"seed={seed}"])), folder / f"{seed}")
    arm = executed(led)
    without = prepare(load_run_scenario(led.path, sets=["method.revise.feedback=none"]))
    return arm, executed(fork_run(led, without, 1, folder / f"{seed}-control"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Arm, Arm]]:
    folder = tmp_path_factory.mktemp("learning")
    return [pair(folder, seed) for seed in SEEDS]


def least(gains: Sequence[float]) -> float:
    """The lower end of the mean's 95 % interval."""
    return statistics.mean(gains) - T_23 * statistics.stdev(gains) / math.sqrt(len(gains))


@pytest.mark.slow
def test_held_out_accuracy_rises_from_round_0_to_the_last(pairs: list[tuple[Arm, Arm]]) -> None:
    gains = [led.gain for led, _ in pairs]
    assert least(gains) > 0, gains


@pytest.mark.slow
def test_it_rises_in_the_control_too(pairs: list[tuple[Arm, Arm]]) -> None:
    gains = [control.gain for _, control in pairs]
    assert least(gains) > 0, gains


@pytest.mark.slow
def test_the_control_starts_at_the_same_place_and_then_goes_its_own_way(pairs: list[tuple[Arm, Arm]]) -> None:
    assert all(led.curve[0] == control.curve[0] for led, control in pairs)
    assert any(led.curve != control.curve for led, control in pairs)


@pytest.mark.slow
def test_the_control_makes_the_same_kinds_of_calls_and_as_many(pairs: list[tuple[Arm, Arm]]) -> None:
    for led, control in pairs:
        assert set(led.calls) == set(control.calls)
    for purpose in ("answer", "choose"):
        made = [
            sum(n for arm in arms for (_, what), n in arm.calls.items() if what == purpose)
            for arms in zip(*pairs, strict=True)
        ]
        assert made[1] == pytest.approx(made[0], rel=0.05)
