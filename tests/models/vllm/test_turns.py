"""Servers on one device start one after the other; whoever waits is told for whom."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from lbt_sim.models.vllm import records, turns
from lbt_sim.models.vllm.launch import Launch
from lbt_sim.models.vllm.records import Record
from lbt_sim.models.vllm.reserve import Reservations
from lbt_sim.models.vllm.turns import turn

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="vLLM servers are looked after on Linux")


async def test_whoever_waits_is_told_who_starts_and_not_who_is_planned(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "SAY", 0.0)
    starting = Record(
        token="f" * 16, name="teacher", owner=os.getpid(), owner_start=records.started(os.getpid()) or 0,
        place=records.here(), log="", port=1, url="", served="", api_key="", server_key="", devices=("cpu",),
        adapters={}, kept=False, started="9",
    )  # fmt: skip
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        async with turn(["cpu"], "student", told.set_result):
            pass

    with Reservations() as reservations:
        reservations.take({"student": [Launch("student", (), {}, ("cpu",), {}, {})]})
        records.save(starting)
        async with turn(["cpu"], "teacher", pytest.fail):
            waiting = asyncio.create_task(wait())
            said = await told
        await waiting
    records.remove(starting)
    assert said == f"student waits for cpu: teacher (of process {os.getpid()}) is starting there"
