"""Servers that the engine starts itself: shared, watched, started anew, ended; stand-ins for vLLM as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import lasting, lbt_sim
from fake_machine import adapter_folder, model_folder
from server_processes import marked, recorded, token_in
from stubs import SCRIPT, tell

from lbt_sim.errors import ModelUnavailable, ServerLost
from lbt_sim.ledger import Ledger, LedgerReader
from lbt_sim.models.base import CallPath, ChatRequest, Head, ModelInfo, Reply, Turn
from lbt_sim.models.recorded import Caller
from lbt_sim.models.surroundings import Surroundings
from lbt_sim.models.vllm import plan, records
from lbt_sim.models.vllm.model import VllmModel, VllmSpec

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="vLLM servers are looked after on Linux")

Ask = Callable[..., ChatRequest]
LABELS = ("positive", "negative")
COMMAND = [sys.executable, str(SCRIPT)]
HEAD = Head((Turn("system", "Answer with one word: positive or negative. " * 8),))


@pytest.fixture(autouse=True)
def room_enough(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine has of memory and GPUs is nothing to these tests."""
    monkeypatch.setattr(plan, "memory", lambda: None)
    monkeypatch.setattr(plan, "gpus", list)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "tiny")


class Run:
    """The models of one run.

    Attributes:
        told: What a person hears.
        models: By their names.
        infos: What they said when they got ready.
    """

    def __init__(self, folder: Path, tiny: Path) -> None:
        self.logs = folder / "run" / "servers"
        self.told: list[str] = []
        self.models: dict[str, VllmModel] = {}
        self.infos: dict[str, ModelInfo] = {}
        self._tiny = tiny

    async def open(self, **entries: dict[str, Any]) -> None:
        surroundings = Surroundings(logs=self.logs, tell=self.told.append)
        usual = {"model": str(self._tiny), "device": "cpu", "command": COMMAND, "retries": 0, "start_timeout": 30}
        for name, options in entries.items():
            self.models[name] = VllmModel(VllmSpec.model_validate(usual | options))
            self.models[name].settle(surroundings, name)
        for name, model in self.models.items():
            self.infos[name] = await model.ready()

    async def close(self) -> None:
        for model in self.models.values():
            await model.close()

    def urls(self, name: str) -> list[str]:
        """The addresses of an entry's servers."""
        party = self.models[name]._party
        assert party is not None
        return [station.life.url if station.life else station.url for station in party.stations]

    async def stats(self, name: str = "small", replica: int = 0) -> Any:
        return await asyncio.to_thread(tell, self.urls(name)[replica], "/stub/stats")

    async def fault(self, fault: str, **more: Any) -> None:
        await asyncio.to_thread(tell, self.urls("small")[0], "/stub/faults", {"fault": fault, **more})


@pytest.fixture
async def run(tmp_path: Path, tiny: Path, state: Path) -> AsyncIterator[Run]:
    run = Run(tmp_path, tiny)
    yield run
    await run.close()
    assert not recorded(state), "a record outlived its server"


@pytest.fixture
async def caller(run: Run, tmp_path: Path) -> AsyncIterator[Callable[[], Caller]]:
    """Makes what takes calls to the open models, through a ledger."""
    (tmp_path / "run").mkdir(exist_ok=True)
    async with Ledger(tmp_path / "run") as ledger:
        yield lambda: Caller({name: (model, run.infos[name]) for name, model in run.models.items()}, ledger)


def exam(ask: Ask, count: int, agent: str = "ann") -> list[ChatRequest]:
    return [
        ask(f"Film {n} was seen.", path=CallPath(0, "exam", agent, f"p{n}"), head=HEAD, choices=LABELS)
        for n in range(count)
    ]


async def happens(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 (processes set no events)
            await asyncio.sleep(0.02)


# --- sharing ----------------------------------------------------------------------------------------------


async def test_entries_that_say_the_same_share_one_server_that_the_last_one_stops(
    run: Run, ask: Ask, state: Path
) -> None:
    await run.open(teacher={"concurrency": 8}, student={"concurrency": 4})
    assert run.urls("teacher") == run.urls("student")
    token = token_in(state)
    await asyncio.gather(*(answers(model, exam(ask, 20)) for model in run.models.values()))
    assert (await run.stats("student"))["most_running"] <= 4
    await run.models["teacher"].close()
    assert (await run.models["student"].create(exam(ask, 1)[0])).text in LABELS
    await run.models["student"].close()
    assert marked(token) == []


async def answers(model: VllmModel, requests: list[ChatRequest]) -> list[Reply]:
    found = [pair async for pair in model.create_many(requests)]
    return [reply for _, reply in sorted(found, key=lambda pair: pair[0])]


async def test_entries_that_differ_in_their_adapter_share_one_server(run: Run, ask: Ask, tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "tuned")
    await run.open(plain={}, tuned={"lora": str(folder)})
    assert run.urls("plain") == run.urls("tuned")
    assert run.infos["tuned"].identity.startswith(run.infos["plain"].identity + "+lora:tuned@")
    plain, tuned = [await answers(run.models[name], exam(ask, 30)) for name in ("plain", "tuned")]
    assert all(reply.text in LABELS for reply in [*plain, *tuned])
    assert [reply.text for reply in plain] != [reply.text for reply in tuned]


async def test_entries_that_say_something_else_have_servers_of_their_own(run: Run, ask: Ask) -> None:
    await run.open(one={}, two={"flags": {"slots": 2}})
    assert run.urls("one") != run.urls("two")
    assert {path.name for path in run.logs.iterdir()} == {"one.log", "two.log"}


async def test_replicas_are_servers_of_their_own_and_all_are_used(run: Run, ask: Ask) -> None:
    await run.open(small={"replicas": 2})
    assert len(set(run.urls("small"))) == 2
    model = run.models["small"]
    for n in range(8):
        head = Head((Turn("system", f"Class {n}. Answer positive or negative."),))
        await answers(model, [replace(request, head=head) for request in exam(ask, 4)])
    own = [(await run.stats(replica=n))["calls"] for n in (0, 1)]
    assert min(own) > 12  # more than probing takes
    assert (await model.figures())["replicas"] == 2


# --- servers that die -------------------------------------------------------------------------------------


async def test_a_server_that_dies_in_an_exam_is_started_anew_and_nobody_is_charged(
    run: Run, ask: Ask, caller: Callable[[], Caller], tmp_path: Path
) -> None:
    await run.open(small={"flags": {"seconds": 0.005}, "concurrency": 8})
    wanted = [reply.text for reply in await answers(run.models["small"], exam(ask, 60))]
    await run.fault("crash", after=6)
    asks = caller()
    replies = await asks.ask_many("small", exam(ask, 60))
    assert [reply.text for reply in replies] == wanted
    assert (asks.meter.made, asks.meter.failed) == (60, 0)
    (why,) = (await run.models["small"].figures())["restarts"]
    assert why == "ended with status 1"
    assert run.told[-2:] == [f"small {why}; it is started anew (1 of 3)", "small answers again"]
    with LedgerReader(tmp_path / "run") as written:
        assert written.count() == 60


async def test_a_server_that_is_killed_with_all_calls_in_flight_answers_them_after(
    run: Run, ask: Ask, caller: Callable[[], Caller], state: Path
) -> None:
    await run.open(small={"batches": False, "flags": {"share-in-flight": True}})
    await run.fault("hang")
    asks = caller()
    work = asyncio.create_task(asks.ask_many("small", exam(ask, 20)))

    async def in_flight() -> bool:
        return bool((await run.stats())["running"] == 20)

    await happens(in_flight)
    record = json.loads(recorded(state)[0].read_text())
    await asyncio.to_thread(os.killpg, record["pgid"], signal.SIGKILL)
    assert all(reply.text in LABELS for reply in await work)
    assert (asks.meter.made, asks.meter.failed) == (20, 0)
    assert (await run.models["small"].figures())["restarts"] == ["was killed (SIGKILL)"]


async def test_a_server_that_hangs_in_an_exam_is_started_anew_and_nobody_is_charged(
    run: Run, ask: Ask, caller: Callable[[], Caller]
) -> None:
    await run.open(small={"patience": 1.0})
    await run.fault("hang")
    asks = caller()
    replies = await asks.ask_many("small", exam(ask, 30))
    assert all(reply.text in LABELS for reply in replies)
    assert (asks.meter.made, asks.meter.failed) == (30, 0)
    assert (await run.models["small"].figures())["restarts"] == ["made no progress for 1 s while calls waited"]


async def test_a_server_whose_engine_died_is_started_anew(run: Run, ask: Ask, caller: Callable[[], Caller]) -> None:
    await run.open(small={"patience": 1.0})
    await run.fault("engine_dead")
    asks = caller()
    replies = await asks.ask_many("small", exam(ask, 30))
    assert all(reply.text in LABELS for reply in replies)
    assert asks.meter.failed == 0
    (why,) = (await run.models["small"].figures())["restarts"]
    assert "503" in why


async def test_answers_that_break_off_are_asked_for_again_without_a_restart(
    run: Run, ask: Ask, caller: Callable[[], Caller]
) -> None:
    await run.open(small={"retries": 3})
    await run.fault("reset", count=2)
    asks = caller()
    assert all(reply.text in LABELS for reply in await asks.ask_many("small", exam(ask, 30)))
    assert asks.meter.failed == 0
    assert (await run.models["small"].figures())["restarts"] == []


async def test_a_server_that_cannot_be_brought_back_is_charged_to_nobody(
    run: Run, ask: Ask, caller: Callable[[], Caller], tmp_path: Path
) -> None:
    await run.open(small={"restarts": 0, "flags": {"seconds": 0.005}, "concurrency": 8})
    await run.fault("crash", after=6)
    asks = caller()
    with pytest.raises(ServerLost, match="small ended with status 1"):
        await asks.ask_many("small", exam(ask, 60))
    assert asks.meter.failed == 0
    with LedgerReader(tmp_path / "run") as written:
        kept = [call.finish for call in written.calls()]
    assert 0 < len(kept) < 60
    assert "failed" not in kept
    with pytest.raises(ServerLost):
        await run.models["small"].create(exam(ask, 1)[0])


# --- a call that its server dies of -----------------------------------------------------------------------


def poison(word: str, **more: Any) -> dict[str, Any]:
    """Flags of a stand-in that dies of requests with a word."""
    return {"fault": json.dumps({"fault": "poison", "word": word, "seconds": 0.05} | more), "seconds": 0.01}


@pytest.mark.parametrize("batches", [True, False], ids=["batches", "single"])
async def test_a_call_that_its_server_dies_of_fails_alone_and_the_others_are_answered(
    batches: bool, run: Run, ask: Ask, caller: Callable[[], Caller]
) -> None:
    requests = exam(ask, 40)
    await run.open(small={"flags": poison("Film 17 was"), "batches": batches, "restarts": 3})
    replies = await answers(run.models["small"], requests)
    assert [number for number, reply in enumerate(replies) if reply.finish == "failed"] == [17]
    assert replies[17].transient, "with another version or more memory it may be answered"
    assert "died 4 times with this call in flight, 2 of them with no other beside it" in (replies[17].error or "")
    assert len((await run.models["small"].figures())["restarts"]) == 4
    assert sum("by a call that was sent alone" in line for line in run.told) == 2, run.told
    assert (await run.models["small"].create(requests[0])).text == replies[0].text, "the server is there"


async def test_a_server_that_dies_of_every_call_is_given_up_and_not_charged_to_all_of_them(run: Run, ask: Ask) -> None:
    requests = exam(ask, 12)
    await run.open(small={"flags": poison("Film"), "restarts": 2})
    with pytest.raises(ServerLost):
        await answers(run.models["small"], requests)
    assert len((await run.models["small"].figures())["restarts"]) <= 10
    assert sum("by a call that was sent alone" in line for line in run.told) == 4, "twice as many as its own"


async def test_a_second_call_that_its_server_dies_of_fails_as_the_first_did(run: Run, ask: Ask) -> None:
    requests = exam(ask, 30)
    await run.open(small={"flags": poison("Film 1"), "restarts": 3, "batches": False})
    for group in (requests[3:9], [requests[1]], requests[20:25], [requests[12]], requests[5:8]):
        replies = await answers(run.models["small"], group)
        wanted = "failed" if len(group) == 1 else "stop"
        assert {reply.finish for reply in replies} == {wanted}


async def test_a_prompt_that_its_server_dies_of_when_it_counts_its_tokens_fails_alone(run: Run, ask: Ask) -> None:
    """Only long prompts are counted."""
    long = [replace(one, last=f"{one.last} " + "A word. " * 700) for one in exam(ask, 12)]
    await run.open(small={"flags": poison("Film 7 was", at="/tokenize"), "restarts": 3})
    replies = await answers(run.models["small"], long)
    assert [number for number, reply in enumerate(replies) if reply.finish == "failed"] == [7]


async def test_calls_that_were_in_flight_when_a_server_was_killed_twice_are_charged_to_nobody(
    run: Run, ask: Ask, state: Path
) -> None:
    await run.open(small={"flags": {"seconds": 0.8, "share-in-flight": True}, "batches": False})
    work = asyncio.create_task(answers(run.models["small"], exam(ask, 6)))
    for deaths in (1, 2):
        await happens(partial(in_flight, run, 6))
        record = json.loads(recorded(state)[0].read_text())
        await asyncio.to_thread(os.killpg, record["pgid"], signal.SIGKILL)
        await happens(partial(started_anew, run, deaths))
    assert all(reply.text in LABELS for reply in await work)
    assert (await run.stats())["most_running"] == 1, "after two deaths they go alone"


async def in_flight(run: Run, calls: int) -> bool:
    with contextlib.suppress(OSError):
        return bool((await run.stats())["running"] == calls)
    return False


async def started_anew(run: Run, times: int) -> bool:
    return len((await run.models["small"].figures())["restarts"]) >= times


# --- replicas ---------------------------------------------------------------------------------------------


async def test_a_replica_that_is_lost_for_good_is_told_and_the_other_answers(
    run: Run, ask: Ask, caller: Callable[[], Caller], state: Path
) -> None:
    await run.open(small={"replicas": 2, "restarts": 0, "concurrency": 4, "flags": {"seconds": 0.02}})
    record = next(one for one in map(json.loads, (file.read_text() for file in recorded(state))) if "1" in one["name"])
    asks = caller()
    work = asyncio.create_task(asks.ask_many("small", exam(ask, 120, "ann")))
    await happens(partial(answered, asks, 4))
    await asyncio.to_thread(os.killpg, record["pgid"], signal.SIGKILL)
    assert all(reply.text in LABELS for reply in await work)
    assert (asks.meter.made, asks.meter.failed) == (120, 0)
    await happens(partial(lost, run, 1))
    assert "small.1 was killed (SIGKILL): it is given up" in run.told
    assert (await run.models["small"].create(exam(ask, 1)[0])).text in LABELS


async def answered(asks: Caller, calls: int) -> bool:
    return asks.meter.made >= calls


async def lost(run: Run, servers: int) -> bool:
    return (await run.models["small"].figures()).get("lost") == servers


async def test_when_all_replicas_are_lost_the_run_ends(run: Run, ask: Ask) -> None:
    await run.open(small={"replicas": 2, "restarts": 0, "concurrency": 4})
    for url in run.urls("small"):
        await asyncio.to_thread(tell, url, "/stub/faults", {"fault": "crash", "after": 2})
    with pytest.raises(ServerLost, match="ended with status 1"):
        await answers(run.models["small"], exam(ask, 60))


# --- servers that do not start ----------------------------------------------------------------------------


async def test_a_server_that_does_not_start_tells_why_and_takes_the_others_with_it(
    run: Run, state: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelUnavailable, match="bad ended with status 1 before it answered") as refused:
        await run.open(good={}, bad={"flags": {"fail-start": "No available memory for the cache blocks."}})
    assert "No available memory for the cache blocks." in str(refused.value)
    assert "cpu_cache" in refused.value.remedy
    assert str(run.logs / "bad.log") in refused.value.remedy
    assert "No available memory" in (run.logs / "bad.log").read_text()
    assert not recorded(state)


async def test_a_server_that_starts_slowly_is_waited_for_as_long_as_the_scenario_says(run: Run, ask: Ask) -> None:
    await run.open(small={"flags": {"start-seconds": 0.5}})
    assert (await run.models["small"].create(exam(ask, 1)[0])).text in LABELS
    late = Run(run.logs.parents[1] / "late", Path(run.infos["small"].detail["weights"]["folder"]))
    with pytest.raises(ModelUnavailable, match=r"did not answer within 0\.3 s"):
        await late.open(slow={"flags": {"start-seconds": 20}, "start_timeout": 0.3})
    await late.close()


async def test_a_program_that_serves_another_model_is_not_taken_for_ours(run: Run) -> None:
    with pytest.raises(ModelUnavailable, match=r"is not who answers at .* 'other'"):
        await run.open(small={"flags": {"wrong-name": "other"}})


async def test_leaving_while_a_server_starts_leaves_nothing(run: Run, state: Path) -> None:
    work = asyncio.create_task(run.open(small={"flags": {"start-seconds": 20}}))

    async def started() -> bool:
        return bool(recorded(state)) and len(marked(token_in(state))) >= 2

    await happens(started)
    token = token_in(state)
    work.cancel()
    await asyncio.wait({work})
    assert work.cancelled()
    assert marked(token) == []


async def test_what_was_started_goes_into_the_manifest(run: Run, tiny: Path) -> None:
    await run.open(small={"flags": {"slots": 8}, "environment": {"VLLM_BATCH_INVARIANT": "1"}, "length": 2048})
    info = run.infos["small"]
    assert info.identity.startswith("vllm:tiny@")
    assert info.server == ""
    assert info.context == 2048
    detail = info.detail
    assert (detail["device"], detail["flags"], detail["VLLM_BATCH_INVARIANT"]) == ("cpu", {"slots": 8}, "1")
    assert detail["servers"] == [{"how": "started"}]
    assert detail["weights"]["folder"] == str(tiny)
    assert detail["can"]["version"] == "0.32.0"


# --- whole runs from the command line ---------------------------------------------------------------------

SCENARIO = """\
kind: scenario
version: 1
models: {{small: {{engine: vllm, model: "{model}", device: cpu, command: {command}, {options}}}}}
task: {{name: reviews, train: 40, held_out: 8}}
cast: {{students: [{{persona: literal}}, {{persona: sceptic}}]}}
method: {{rounds: 1, exemplars: 4, exam: 6, revise: {{operators: [choose], chosen: 2}}, select: {{budget: 24}}}}
"""


@pytest.fixture
def scenario(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes `mine.yaml` into the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(**options: Any) -> None:
        said = ", ".join(f"{key}: {json.dumps(value)}" for key, value in options.items())
        Path("mine.yaml").write_text(SCENARIO.format(model=tiny, command=json.dumps(COMMAND), options=said), "utf-8")

    return write


def finishes(folder: str = "run") -> list[str]:
    with LedgerReader(Path(folder)) as ledger:
        return [call.finish for call in ledger.calls()]


def test_a_run_whose_server_is_lost_can_be_resumed_and_ends_as_any_other(
    scenario: Callable[..., None], tmp_path: Path
) -> None:
    scenario(restarts=3)
    whole = lbt_sim("run", "mine.yaml", "--out", "whole", "--json", "-q")
    assert (whole.status, whole.result["calls"]["failed"]) == (0, 0)
    assert whole.result["servers"]["small"]["restarts"] == []
    crash = json.dumps({"fault": "crash", "after": 25})
    scenario(restarts=0, flags={"fault": crash, "once": str(tmp_path / "crashed")})
    lost = lbt_sim("run", "mine.yaml", "--out", "run", "--json", "-q")
    assert lost.status == 3
    assert "small ended with status 1" in lost.err
    assert "lbt-sim resume" in lost.err
    assert 0 < len(finishes()) < len(finishes("whole"))
    assert "failed" not in finishes()
    again = lbt_sim("resume", "run", "--json", "-q")
    assert again.status == 0
    assert again.result["calls"]["failed"] == 0
    assert lasting(again.result) == lasting(whole.result)


def test_what_a_run_left_behind_when_it_was_over_is_ended_when_it_is_resumed(
    scenario: Callable[..., None], state: Path, tmp_path: Path
) -> None:
    """It asks nothing any more, and starts no server; but it may have been killed before it had stopped its own."""
    scenario()
    assert lbt_sim("run", "mine.yaml", "--out", "run", "--json", "-q").status == 0
    assert not recorded(state)
    token, left = "0123456789abcdef", [sys.executable, "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(left, env={**os.environ, records.MARK: token}) as orphan:
        dead = {"token": token, "name": "small", "owner": 1, "owner_start": 1, "place": records.here(), "port": 1}
        more = {"log": "", "url": "", "served": "", "api_key": "", "server_key": "", "devices": [], "adapters": {}}
        file = state / f"{token}.json"
        file.write_text(json.dumps(dead | more | {"kept": False, "started": "2030-01-01T00:00:00+00:00"}))
        assert lbt_sim("resume", "run", "--json", "-q").status == 0
        assert orphan.wait(20) == -signal.SIGTERM
    assert not recorded(state)


def test_a_run_whose_server_dies_goes_on_and_tells_of_it(scenario: Callable[..., None], tmp_path: Path) -> None:
    crash = json.dumps({"fault": "crash", "after": 25})
    scenario(flags={"fault": crash, "once": str(tmp_path / "crashed")})
    done = lbt_sim("run", "mine.yaml", "--out", "run")
    assert done.status == 0
    assert "started anew: it ended with status 1" in done.out
    assert "failed" not in finishes()
    assert (tmp_path / "run" / "servers" / "small.log").is_file()


def test_a_run_whose_server_does_not_start_starts_nothing_and_its_folder_can_be_used_again(
    scenario: Callable[..., None], tmp_path: Path, state: Path
) -> None:
    scenario(flags={"fail-start": "No available memory for the cache blocks."})
    failed = lbt_sim("run", "mine.yaml", "--out", "run", "--json", "-q")
    assert failed.status == 2
    assert "No available memory for the cache blocks." in failed.err
    assert "Traceback" not in failed.err
    log = tmp_path / "run" / "servers" / "small.log"
    assert "No available memory" in log.read_text()
    assert not recorded(state)
    scenario()
    again = lbt_sim("run", "mine.yaml", "--out", "run", "--json", "-q")
    assert again.status == 0, again.err
    assert again.result["calls"]["failed"] == 0


# --- runs that are executed side by side ------------------------------------------------------------------


async def test_models_of_two_runs_may_have_one_name_and_the_later_is_opened_beside_the_other(
    tmp_path: Path, tiny: Path, ask: Ask, state: Path
) -> None:
    surroundings = Surroundings(logs=tmp_path / "servers")
    usual = {"device": "cpu", "command": COMMAND, "retries": 0, "start_timeout": 30}

    async def opened(folder: Path) -> tuple[VllmModel, ModelInfo]:
        model = VllmModel(VllmSpec.model_validate({**usual, "model": str(folder)}))
        model.settle(surroundings, "small")
        return model, await model.ready()

    first, one = await opened(tiny)
    second, other = await opened(model_folder(tmp_path / "other", (4.0, 5.0)))
    third, same = await opened(tiny)
    try:
        assert one.identity.startswith("vllm:tiny@")
        assert other.identity.startswith("vllm:other@")
        assert same.identity == one.identity
        assert len(recorded(state)) == 2
        for model in (first, second, third):
            assert (await model.create(exam(ask, 1)[0])).text in LABELS
        await first.close()
        assert (await third.create(exam(ask, 1)[0])).text in LABELS
        assert len(recorded(state)) == 2
    finally:
        for model in (first, second, third):
            await model.close()
    assert not recorded(state)
    again, info = await opened(tiny)  # after the last one the first begins anew
    assert info.identity == one.identity
    assert again.lasting
    await again.close()


async def test_a_later_model_whose_server_does_not_start_leaves_the_others_alone(
    tmp_path: Path, tiny: Path, ask: Ask, state: Path
) -> None:
    surroundings = Surroundings(logs=tmp_path / "servers")
    usual = {"model": str(tiny), "device": "cpu", "command": COMMAND, "retries": 0, "start_timeout": 30, "restarts": 0}
    good = VllmModel(VllmSpec.model_validate(usual))
    good.settle(surroundings, "small")
    await good.ready()
    bad = VllmModel(
        VllmSpec.model_validate({**usual, "flags": {"fail-start": "No available memory for the cache blocks."}})
    )
    bad.settle(surroundings, "small")
    try:
        with pytest.raises(ModelUnavailable):
            await bad.ready()
        await bad.close()
        assert (await good.create(exam(ask, 1)[0])).text in LABELS
        assert len(recorded(state)) == 1
    finally:
        await good.close()
    assert not recorded(state)
