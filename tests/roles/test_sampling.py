"""How replies are drawn: each value by the scenario, else by the agent's file, else built in for that use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rooms import seated, seats_for, small_task

from lbt_sim.models.base import Sampling
from lbt_sim.scenario.schema import SamplingSpec


@pytest.mark.parametrize(
    ("use", "given", "drawn"),
    [
        ("answer", {}, Sampling(0.0, max_tokens=4)),
        ("answer", {"temperature": 0.5}, Sampling(0.5, max_tokens=4)),
        ("rewrite", {"max_tokens": 400}, Sampling(0.7, max_tokens=400)),
        ("discuss", {"top_k": 5}, Sampling(0.7, top_k=5, max_tokens=80)),
        ("choose", {"temperature": 0.0}, Sampling(0.0, max_tokens=4)),
    ],
)
async def test_what_is_not_given_stays_as_it_is_for_that_use(
    tmp_path: Path, use: str, given: dict[str, float], drawn: Sampling
) -> None:
    seats = seats_for([("teacher", "teacher"), ("ann", "student")], tmp_path)
    seats = [replace(seat, sampling={use: SamplingSpec.model_validate(given)}) for seat in seats]
    async with seated(tmp_path, lambda r: "yes", seats=seats) as here:
        assert here.room.lead.sampling(use) == drawn


async def test_an_open_answer_has_room(tmp_path: Path) -> None:
    seats = seats_for([("teacher", "teacher"), ("ann", "student")], tmp_path)
    seats = [replace(seat, sampling={"answer": SamplingSpec(temperature=0.2)}) for seat in seats]
    task = small_task(labels=(), positive=None, grader="exact")
    async with seated(tmp_path, lambda r: "yes", seats=seats, task=task) as here:
        assert here.room.lead.sampling("answer") == Sampling(0.2, max_tokens=256)
