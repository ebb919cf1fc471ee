"""Servers that are kept up for many runs: runs attach to them, and never signal them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from fake_machine import adapter_folder, model_folder
from server_processes import marked, recorded, token_in
from stubs import SCRIPT, tell

from lbt_sim.errors import ModelUnavailable, ServerLost
from lbt_sim.ledger import Ledger
from lbt_sim.models.base import CallPath, ChatRequest, Head, ModelInfo, Turn
from lbt_sim.models.recorded import Caller
from lbt_sim.models.surroundings import Surroundings
from lbt_sim.models.vllm import fleet, plan, records
from lbt_sim.models.vllm.keep import Kept, keep
from lbt_sim.models.vllm.lone import Lone
from lbt_sim.models.vllm.model import VllmModel, VllmSpec

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="vLLM servers are looked after on Linux")

Ask = Callable[..., ChatRequest]
LABELS = ("positive", "negative")
HEAD = Head((Turn("system", "Answer with one word: positive or negative. " * 8),))


@pytest.fixture(autouse=True)
def room_enough(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine has of memory and GPUs is nothing to these tests."""
    monkeypatch.setattr(plan, "memory", lambda: None)
    monkeypatch.setattr(plan, "gpus", list)


class House:
    """Servers that are kept here, and runs that use them."""

    def __init__(self, folder: Path) -> None:
        self.told: list[str] = []
        self.heard: list[str] = []
        self.keeping: asyncio.Task[None] | None = None
        self._folder = folder
        self._tiny = model_folder(folder / "tiny")
        self._models: list[VllmModel] = []

    def spec(self, **options: Any) -> VllmSpec:
        command = [sys.executable, str(SCRIPT)]
        usual = {"model": str(self._tiny), "device": "cpu", "command": command, "retries": 0, "start_timeout": 20}
        return VllmSpec.model_validate(usual | options)

    async def keep(self, **entries: VllmSpec) -> list[Kept]:
        """Keeps servers up; returns when they answer."""
        ready: asyncio.Future[list[Kept]] = asyncio.get_running_loop().create_future()
        self.keeping = asyncio.create_task(keep(entries, self.told.append, ready.set_result))
        await asyncio.wait({ready, self.keeping}, return_when=asyncio.FIRST_COMPLETED)
        if self.keeping.done():
            ready.cancel()
            await self.keeping
        return ready.result()

    async def attach(self, spec: VllmSpec, name: str = "small") -> tuple[VllmModel, ModelInfo]:
        """A run's model, ready."""
        model = VllmModel(spec)
        self._models.append(model)
        model.settle(Surroundings(logs=self._folder / "run", tell=self.heard.append), name)
        return model, await model.ready()

    async def end(self) -> None:
        for model in self._models:
            await model.close()
        if self.keeping is not None:
            self.keeping.cancel()
            await asyncio.wait({self.keeping})


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    yield house
    await house.end()


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    (tmp_path / "ledger").mkdir()
    async with Ledger(tmp_path / "ledger") as ledger:
        yield ledger


def exam(ask: Ask, count: int) -> list[ChatRequest]:
    return [
        ask(f"Film {n} was seen.", path=CallPath(0, "exam", "ann", f"p{n}"), head=HEAD, choices=LABELS)
        for n in range(count)
    ]


async def test_a_run_uses_a_kept_server_and_leaves_it_alone(house: House, ask: Ask, state: Path) -> None:
    spec = house.spec()
    (kept,) = await house.keep(small=spec)
    token = token_in(state)
    for _ in range(2):
        model, info = await house.attach(spec)
        assert (await model.create(exam(ask, 1)[0])).text in LABELS
        assert (info.detail["attached"], info.detail["servers"]) == (True, [{"how": "kept"}])
        await model.close()
    assert token_in(state) == token
    assert kept.log.is_file()
    assert len(house.heard) == 2
    assert all(line.startswith("small: using the server that is kept running") for line in house.heard)
    assert (await asyncio.to_thread(tell, kept.url, "/stub/stats"))["calls"] > 2


async def test_a_kept_server_and_one_of_the_runs_own_are_the_same_model(house: House) -> None:
    spec = house.spec()
    own, apart = await house.attach(spec)
    await own.close()
    await house.keep(small=spec)
    _, attached = await house.attach(spec)
    assert attached.identity == apart.identity


async def test_an_entry_that_says_something_else_gets_a_server_of_its_own(house: House, state: Path) -> None:
    await house.keep(small=house.spec())
    model, info = await house.attach(house.spec(flags={"slots": 2}))
    assert info.detail["servers"] == [{"how": "started"}]
    assert len(recorded(state)) == 2
    await model.close()
    assert len(recorded(state)) == 1


async def test_a_kept_server_without_the_adapter_is_not_used_for_it(house: House, tmp_path: Path, ask: Ask) -> None:
    folder = str(adapter_folder(tmp_path / "tuned"))
    await house.keep(plain=house.spec())
    _, info = await house.attach(house.spec(lora=folder))
    assert info.detail["servers"] == [{"how": "started"}]


async def test_kept_adapters_answer_runs_that_want_one_of_them(house: House, tmp_path: Path, ask: Ask) -> None:
    folder = str(adapter_folder(tmp_path / "tuned"))
    await house.keep(plain=house.spec(), tuned=house.spec(lora=folder))
    found = {}
    for name, spec in {"plain": house.spec(), "tuned": house.spec(lora=folder)}.items():
        model, info = await house.attach(spec, name)
        assert info.detail["servers"] == [{"how": "kept"}]
        found[name] = [(await model.create(request)).text for request in exam(ask, 20)]
    assert found["plain"] != found["tuned"]


async def test_all_replicas_are_kept_and_attached_to(house: House) -> None:
    spec = house.spec(replicas=2)
    assert len(await house.keep(small=spec)) == 2
    model, info = await house.attach(spec)
    assert info.detail["servers"] == [{"how": "kept"}] * 2
    assert (await model.figures())["replicas"] == 2


async def test_what_is_kept_already_is_not_kept_again(house: House, state: Path) -> None:
    spec = house.spec()
    (kept,) = await house.keep(small=spec)
    with pytest.raises(ModelUnavailable, match=f"kept up already, by process {os.getpid()} .{kept.url}"):
        await keep({"again": spec}, lambda _: None, lambda _: None)
    assert len(recorded(state)) == 1


async def test_what_is_being_started_is_not_started_by_another(house: House, state: Path) -> None:
    spec = house.spec()
    ready: list[list[Kept]] = []
    first, second = (asyncio.create_task(keep({"small": spec}, house.told.append, ready.append)) for _ in range(2))
    await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
    assert (first.done(), second.done()) == (False, True)
    with pytest.raises(ModelUnavailable, match="'small' is being started already") as caught:
        await second
    assert "once it is up" in caught.value.remedy
    first.cancel()
    await asyncio.wait({first})
    assert not recorded(state)
    (kept,) = await house.keep(small=spec)  # nothing of the two is in its way
    assert kept.name == "small"


async def test_logs_are_removed_when_all_ended_in_order_and_are_there_after_a_failure(
    house: House, state: Path
) -> None:
    with pytest.raises(ModelUnavailable, match="bad ended with status 1"):
        await house.keep(bad=house.spec(flags={"fail-start": "No available memory for the cache blocks."}))
    assert (state / "logs" / str(os.getpid()) / "bad.log").is_file()
    (kept,) = await house.keep(small=house.spec())
    assert kept.log.is_file()
    os.kill(os.getpid(), signal.SIGINT)
    assert house.keeping is not None
    await house.keeping
    assert not kept.log.parent.exists()


async def test_logs_of_a_keeper_that_is_long_dead_are_removed_at_the_next_start(house: House, state: Path) -> None:
    old = state / "logs" / str(1 << 30)  # no process has such a number
    old.mkdir(parents=True)
    os.utime(old, (0, 0))
    await house.keep(small=house.spec())
    assert not old.exists()


async def test_what_a_starting_server_takes_is_promised_to_it(house: House, state: Path) -> None:
    seen: list[tuple[str, Any]] = []

    def look(_: object) -> None:
        seen.extend((path.stem, json.loads(path.read_text())) for path in recorded(state))

    ready_now = asyncio.Event()
    keeping = asyncio.create_task(keep({"small": house.spec(cpu_cache=3)}, look, lambda _: ready_now.set()))
    waiting = asyncio.create_task(ready_now.wait())
    await asyncio.wait({keeping, waiting}, return_when=asyncio.FIRST_COMPLETED)
    look(None)
    for task in (keeping, waiting):
        task.cancel()
    await asyncio.wait({keeping, waiting})
    (first, planned), (last, ready) = seen[0], seen[-1]
    assert first == last, "the server has the record that was written when it was planned"
    assert planned["needs"] == ready["needs"] == {"cpu": 3 * 1024 + plan.OVERHEAD}
    assert (planned["port"], planned["ready"]) == (0, False)
    assert not recorded(state)


async def test_entries_that_share_servers_and_disagree_are_not_started(house: House, state: Path) -> None:
    with pytest.raises(ModelUnavailable, match="`patience` is 60 for the one and 180 for the other"):
        await house.keep(small=house.spec(patience=60), other=house.spec())
    assert not recorded(state)


async def test_servers_that_run_already_need_no_keeping(house: House) -> None:
    with pytest.raises(ModelUnavailable, match="names servers that run already"):
        await house.keep(small=VllmSpec(model="tiny", urls=["http://127.0.0.1:9/v1"]))


async def test_a_server_that_cannot_be_started_is_told_and_none_is_kept(house: House, state: Path) -> None:
    bad = house.spec(flags={"fail-start": "No available memory for the cache blocks."})
    with pytest.raises(ModelUnavailable, match="bad ended with status 1"):
        await house.keep(good=house.spec(), bad=bad)
    assert not recorded(state)


async def test_a_kept_server_that_dies_is_waited_for(house: House, ask: Ask, ledger: Ledger) -> None:
    spec = house.spec(flags={"seconds": 0.005}, concurrency=8)
    (kept,) = await house.keep(small=spec)
    model, info = await house.attach(spec)
    await asyncio.to_thread(tell, kept.url, "/stub/faults", {"fault": "crash", "after": 6})
    caller = Caller({"small": (model, info)}, ledger)
    replies = await caller.ask_many("small", exam(ask, 60))
    assert all(reply.text in LABELS for reply in replies)
    assert (caller.meter.made, caller.meter.failed) == (60, 0)
    assert house.told[-2:] == ["small ended with status 1; it is started anew (1 of 3)", "small answers again"]


@pytest.mark.parametrize("how", ["hang", "stopped"])
async def test_a_kept_server_that_hangs_is_started_anew_by_whoever_keeps_it(
    how: str, house: House, ask: Ask, ledger: Ledger, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "READ", 0.3)
    spec = house.spec(patience=1.0)
    (kept,) = await house.keep(small=spec)
    model, info = await house.attach(spec)
    if how == "hang":
        await asyncio.to_thread(tell, kept.url, "/stub/faults", {"fault": "hang"})
    else:
        os.killpg(json.loads(recorded(state)[0].read_text())["pgid"], signal.SIGSTOP)
    caller = Caller({"small": (model, info)}, ledger)
    replies = await caller.ask_many("small", exam(ask, 20))
    assert all(reply.text in LABELS for reply in replies)
    assert (caller.meter.made, caller.meter.failed) == (20, 0)
    assert "small made no progress for 1 s while calls waited; it is started anew (1 of 3)" in house.told


async def test_a_call_that_a_kept_server_dies_of_is_no_other_runs_fault_and_not_the_servers(
    house: House, ask: Ask, state: Path
) -> None:
    fault = json.dumps({"fault": "poison", "word": "Film 3 was", "seconds": 0.3})
    spec = house.spec(flags={"fault": fault, "seconds": 0.5}, batches=False)
    await house.keep(small=spec)
    (theirs, _), (ours, _) = await house.attach(spec), await house.attach(spec)
    requests = exam(ask, 8)
    work = [model.create(one) for model, one in [(theirs, requests[3]), *((ours, requests[n]) for n in (0, 1, 2))]]
    poison, *others = await asyncio.gather(*work)
    assert poison.finish == "failed"
    assert "2 of them with no other beside it" in (poison.error or "")
    assert [reply.finish for reply in others] == ["stop"] * 3
    assert sum("by a call that was sent alone" in line for line in house.told) == 2
    assert (await ours.create(requests[5])).finish == "stop", "it is still kept"
    assert not Lone(token_in(state)).held, "no mark is left"


async def test_the_mark_of_a_process_that_died_with_it_means_nothing(house: House, ask: Ask, state: Path) -> None:
    spec = house.spec()
    await house.keep(small=spec)
    (state / f"{token_in(state)}.lone").symlink_to("1 1")  # the first process never started at that time
    model, _ = await house.attach(spec)
    assert (await model.create(exam(ask, 1)[0])).text in LABELS


async def test_of_kept_replicas_those_that_are_left_are_used(house: House, ask: Ask, state: Path) -> None:
    spec = house.spec(replicas=2, restarts=0)
    await house.keep(small=spec)
    os.killpg(json.loads(recorded(state)[0].read_text())["pgid"], signal.SIGKILL)
    async with asyncio.timeout(20):
        while len(recorded(state)) > 1:  # noqa: ASYNC110 (processes set no events)
            await asyncio.sleep(0.05)
    model, info = await house.attach(spec)
    assert info.detail["servers"] == [{"how": "kept"}]
    assert (await model.create(exam(ask, 1)[0])).text in LABELS
    assert "1 of 2 servers, kept running" in house.heard[-1]
    assert house.keeping is not None
    assert not house.keeping.done(), "the other is kept up"


async def test_when_whoever_kept_it_is_gone_nobody_is_charged(house: House, ask: Ask, ledger: Ledger) -> None:
    spec = house.spec()
    await house.keep(small=spec)
    model, info = await house.attach(spec)
    assert house.keeping is not None
    house.keeping.cancel()
    await asyncio.wait({house.keeping})
    caller = Caller({"small": (model, info)}, ledger)
    with pytest.raises(ServerLost, match="the server that was kept running is gone"):
        await caller.ask_many("small", exam(ask, 10))
    assert caller.meter.failed == 0


async def test_a_program_that_took_a_kept_servers_place_is_not_taken_for_it(house: House, state: Path) -> None:
    spec = house.spec()
    await house.keep(small=spec)
    (file,) = recorded(state)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"served": "lbt-0000000000000000"}))
    with pytest.raises(ModelUnavailable, match="does not serve 'lbt-0000000000000000'"):
        await house.attach(spec)
    assert records.find_kept(spec.server_key), "what is not ours is not ended"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_keeping_in_order(number: signal.Signals, house: House, state: Path) -> None:
    await house.keep(small=house.spec())
    token = token_in(state)
    os.kill(os.getpid(), number)
    assert house.keeping is not None
    await house.keeping
    assert marked(token) == []
    assert not recorded(state)
