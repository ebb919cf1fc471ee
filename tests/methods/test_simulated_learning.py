"""Over ten seeds the simulated classroom's teacher gets better at held-out problems: shown, not hoped."""

from __future__ import annotations

import asyncio
import math
import statistics
from pathlib import Path
from typing import Any

import pytest

from lbt_sim.runs import Run, create_run
from lbt_sim.scenario.load import load_scenario
from lbt_sim.setup import prepare

SEEDS = range(10)
T_9 = 2.262
"""The 97.5 % quantile of Student's t with 9 degrees of freedom."""


def gains(folder: Path, *sets: str) -> list[float]:
    """Held-out accuracy of the last round minus round 0, by seed."""
    found = []
    for seed in SEEDS:
        prepared = prepare(load_scenario("simulated", sets=[f"seed={seed}", *sets]))
        result: dict[str, Any] = asyncio.run(Run(create_run(prepared, folder / str(seed))).execute())
        curve = [row["teacher"]["accuracy"] for row in result["rounds"]]
        found.append(curve[-1] - curve[0])
    return found


@pytest.mark.slow
def test_held_out_accuracy_rises_from_round_0_to_the_last(tmp_path: Path) -> None:
    gained = gains(tmp_path)
    half = T_9 * statistics.stdev(gained) / math.sqrt(len(gained))
    assert statistics.mean(gained) - half > 0, f"{statistics.mean(gained):+.3f} ± {half:.3f}: {gained}"
