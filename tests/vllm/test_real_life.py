"""The life of real vLLM servers: killed, left behind, shared; nothing is lost and nothing is left running."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import lbt_sim
from real_vllm import (
    GONE,
    REVIEWS,
    Command,
    Keeper,
    Open,
    group_members,
    marked,
    opened,
    process_called,
    records_in,
    requests,
    tokens_in,
    until,
    until_async,
)

from lbt_sim.errors import ServerLost
from lbt_sim.ledger import Ledger, LedgerReader, StoredCall
from lbt_sim.models.base import Sampling
from lbt_sim.models.recorded import Caller

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

ENGINE = "VLLM::Engine"
"""What vLLM calls the process that computes."""
LONG = Sampling(max_tokens=400)
"""Replies that take a while, so that there is a middle of an exam."""


def committed(folder: Path) -> dict[object, StoredCall]:
    with LedgerReader(folder) as ledger:
        return {call.path: call for call in ledger.calls()}


def caller(tiny: Open, ledger: Ledger) -> Caller:
    return Caller({"tiny": (tiny.model, tiny.info)}, ledger)


# --- servers that are kept -----------------------------------------------------------------------------------


def test_a_run_attaches_to_a_server_that_is_kept_and_leaves_it_alone(kept: Keeper, tmp_path: Path) -> None:
    before = kept.up()
    processes = marked([before.token])
    assert len(processes) >= 3, "the guard, the API server, the engine"
    done = lbt_sim("run", kept.scenario, "--out", tmp_path / "run", "--json", "-q")
    assert done.status == 0, done.err
    assert done.result["calls"]["failed"] == 0
    assert all(one["restarts"] == [] for one in done.result["servers"].values())
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    for name in ("tiny", "adapted"):
        assert manifest["models"][name]["detail"]["attached"] is True
        assert manifest["models"][name]["detail"]["servers"] == [{"how": "kept"}]
    assert not (tmp_path / "run" / "servers").exists(), "a run that starts no server keeps no log of one"
    assert kept.up() == before
    assert marked([before.token]) == processes
    replayed = lbt_sim("replay", tmp_path / "run", "--json", "-q")
    assert replayed.result["rounds"] == done.result["rounds"]


async def test_an_exam_in_which_the_engine_is_killed_is_answered_whole(kept: Keeper, tmp_path: Path) -> None:
    before = kept.up()
    asked = requests([f"{n}: {REVIEWS[n % len(REVIEWS)]}" for n in range(48)], sampling=LONG)
    async with Ledger(tmp_path) as ledger, opened(**kept.options(concurrency=8)) as tiny:
        exam = asyncio.ensure_future(caller(tiny, ledger).ask_many("tiny", asked))
        at_kill = await until_async(
            lambda: (found := committed(tmp_path)) and len(found) >= 12 and found, 120, "answers"
        )
        assert len(at_kill) < len(asked)
        assert not exam.done()
        engine = process_called(before.token, ENGINE)
        assert engine is not None
        os.kill(engine, signal.SIGKILL)
        replies = await exam
        rows = committed(tmp_path)
    assert [reply.error for reply in replies if reply.finish == "failed"] == []
    assert len(rows) == len(asked)
    assert {path: rows[path] for path in at_kill} == at_kill, "what was committed has changed"
    after = kept.up()
    assert (after.token, after.served) == (before.token, before.served)
    assert after.pgid != before.pgid
    assert not group_members(before.pgid), "processes of the server that was killed live on"
    assert "it is started anew (1 of 3)" in kept.said()


# --- starts that are broken off ------------------------------------------------------------------------------


@pytest.fixture
def starting(kept: Keeper, tmp_path: Path) -> Iterator[Command]:
    """`models serve` for a server of its own, whose engine is being started beside its API server."""
    text = kept.scenario.read_text().replace('"dtype"', '"length": 1024, "dtype"')
    (tmp_path / "other.yaml").write_text(text)
    state = tmp_path / "state"
    command = Command(tmp_path, "other", "models", "serve", "other.yaml", state=state, python=kept.python)

    def engine() -> Any:
        assert command.process.poll() is None, command.said()
        return len(marked(tokens_in(state))) >= 3

    until(engine, 120, "the start of its engine")
    yield command
    if command.process.poll() is None:
        command.terminate()


def test_a_start_that_is_told_to_end_leaves_nothing(starting: Command) -> None:
    tokens = tokens_in(starting.state)
    assert starting.terminate() == 0, starting.said()
    assert marked(tokens) == {}
    assert tokens_in(starting.state) == set()


def test_a_server_whose_first_process_is_killed_leaves_no_orphans(starting: Command) -> None:
    (record,) = records_in(starting.state)
    os.kill(record.pgid, signal.SIGKILL)
    assert starting.process.wait(60) == 2, starting.said()
    assert "SIGKILL" in starting.said()
    assert marked([record.token]) == {}
    assert group_members(record.pgid) == {}


# --- the end of whoever started it: the last test, since nothing is kept up afterwards -----------------------


async def test_nothing_of_a_server_is_left_15_seconds_after_its_owner_was_killed(kept: Keeper, tmp_path: Path) -> None:
    record = kept.up()
    asked = requests([f"{n}: {REVIEWS[n % len(REVIEWS)]}" for n in range(48)], sampling=LONG)
    async with Ledger(tmp_path) as ledger, opened(**kept.options(concurrency=8)) as tiny:
        exam = asyncio.ensure_future(caller(tiny, ledger).ask_many("tiny", asked))
        await until_async(lambda: len(committed(tmp_path)) >= 8, 120, "answers")
        assert len(marked([record.token])) >= 3
        assert kept.command is not None
        kept.command.kill()
        await until_async(lambda: not marked([record.token]) and not group_members(record.pgid), GONE, "their end")
        with pytest.raises(ServerLost, match="is gone"):
            await exam
        assert 8 <= len(committed(tmp_path)) < len(asked)
    # What it left on disk is no obstacle: a new one is started, and answers.
    assert tokens_in(kept.state) == {record.token}
