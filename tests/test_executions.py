"""What each execution of a run did stands in its folder, however it ended, and is told together."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from commands import SMALL, Said, lasting, lbt_sim
from servers import Server
from stubs import process

from lbt_sim.errors import Interrupted, LbtError, LedgerMismatch
from lbt_sim.events import Event, EventSink
from lbt_sim.executions import recorded, together, unlike, version_of
from lbt_sim.folders import create_run, locked
from lbt_sim.ledger import LEDGER_FILE, LedgerReader
from lbt_sim.manifest import MANIFEST_FILE, RESUMED_WITH, read_manifest, write_manifest
from lbt_sim.models.determined import remember
from lbt_sim.models.recorded import Caller, Meter
from lbt_sim.models.vllm.model import VllmModel, VllmSpec
from lbt_sim.runs import Run, open_run
from lbt_sim.scenario.load import load_scenario
from lbt_sim.setup import prepare
from lbt_sim.transcript.servers import servers_told
from lbt_sim.transcript.theme import Look

ASKS = """\
kind: scenario
version: 1
models: {{small: {options}}}
task: {{name: reviews, train: 20, held_out: 6}}
method: {{rounds: 1, exemplars: 4, exam: 4, revise: {{operators: [choose], chosen: 1}}, select: {{budget: 8}}}}
"""


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LBT_SIM_STATE", str(tmp_path / "state"))
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    return tmp_path


def run(*options: object, scenario: str = "small.yaml") -> Said:
    return lbt_sim("run", scenario, "--out", "run", "--json", "-q", *options)


def resume(*options: object) -> Said:
    return lbt_sim("resume", "run", "--json", "-q", *options)


def entries() -> list[Any]:
    return list(recorded(Path("run")))


def ends() -> list[Any]:
    return [entry.get("how") for entry in entries()]


def committed() -> int:
    with LedgerReader(Path("run")) as ledger:
        return ledger.count()


def shown() -> str:
    said = lbt_sim("show", "run")
    assert said.status == 0, said.err
    return " ".join(said.out.split())


# --- an entry for each --------------------------------------------------------------------------------------


def test_an_execution_tells_when_it_was_how_it_ended_and_with_what() -> None:
    result = run().result
    (entry,) = entries()
    assert entry["how"] == "done"
    assert entry["error"] is None
    began, ended = (datetime.fromisoformat(entry[key]) for key in ("began", "ended"))
    assert began <= ended
    assert began.utcoffset() is not None
    assert entry["time"] == result["time"]
    assert entry["calls"] == {key: result["calls"][key] for key in ("made", "replayed", "shared")}
    assert entry["committed"] == 0
    manifest = read_manifest(Path("run"))
    assert entry["models"] == manifest["models"]
    assert entry["models"]["small"]["identity"].startswith("simulated:")
    assert entry["lbt_sim"] == manifest["lbt_sim"]
    assert result["executions"] == [entry]


def test_each_resume_has_an_entry_of_its_own_and_the_others_stay() -> None:
    run("--set", "budget.calls=100")
    (first,) = entries()
    assert (first["how"], "budget" in first["error"]) == ("failed", True)
    resume("--set", "budget.calls=150", "--set", "models.small.latency=0.0001")
    done = resume("--set", "budget.calls=5000", "--set", "models.small.latency=0").result
    assert ends() == ["failed", "failed", "done"]
    assert entries()[0] == first
    assert done["executions"] == entries()
    committed = [entry["committed"] for entry in entries()]
    assert committed == sorted(committed)
    assert committed[0] == 0 < committed[1]
    made = [entry["calls"]["made"] for entry in entries()]
    assert sum(made) == done["calls"]["made"] + done["calls"]["replayed"]
    told = shown()
    assert "executed 3 times: 2 failed, 1 done" in told


def test_who_could_not_begin_has_no_entry_and_changes_nothing() -> None:
    run("--set", "budget.calls=100")
    before = (Path("run") / MANIFEST_FILE).read_text(encoding="utf-8")
    assert resume("--set", "models.small.failures=0.1", "--set", "budget.calls=900").status == 3
    assert (Path("run") / MANIFEST_FILE).read_text(encoding="utf-8") == before


def test_replaying_and_forking_leave_the_entries_alone() -> None:
    run()
    before = (Path("run") / MANIFEST_FILE).read_text(encoding="utf-8")
    replayed = lbt_sim("replay", "run", "--json", "-q")
    assert replayed.result["executions"] == entries()
    assert replayed.result["servers"] == {}
    assert (Path("run") / MANIFEST_FILE).read_text(encoding="utf-8") == before
    forked = lbt_sim("fork", "run", "--from-round", 2, "--out", "forked", "--json", "-q").result
    (entry,) = forked["executions"]
    assert entry["committed"] > 0, "the copied calls are none of its own"
    assert (Path("run") / MANIFEST_FILE).read_text(encoding="utf-8") == before


async def executed(stop: Any) -> None:
    """A new run that `stop(caller)` is called in, after the first report."""
    folder = create_run(prepare(load_scenario("small.yaml")), Path("run"))

    def observe(_: Meter, caller: Caller) -> EventSink:
        def sink(event: Event) -> None:
            if event.kind == "report":
                stop(caller)

        return sink

    await Run(folder, [observe]).execute()


async def test_an_interrupted_execution_ends_as_such() -> None:
    def drain(caller: Caller) -> None:
        caller.draining = True

    with pytest.raises(Interrupted):
        await executed(drain)
    (entry,) = entries()
    assert (entry["how"], entry["calls"]["made"] > 0) == ("interrupted", True)
    assert "executed once: interrupted (" in shown()


async def test_a_cancelled_execution_ends_as_interrupted() -> None:
    task: asyncio.Task[None] = asyncio.create_task(executed(lambda _: task.cancel()))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ends() == ["interrupted"]


async def test_a_bug_of_ours_is_told_too() -> None:
    def bug(_: Caller) -> None:
        raise ZeroDivisionError("by nothing")

    with pytest.raises(ZeroDivisionError):
        await executed(bug)
    (entry,) = entries()
    assert (entry["how"], entry["error"]) == ("failed", "ZeroDivisionError: by nothing")


def test_one_that_is_killed_has_begun_and_not_ended() -> None:
    with Server() as server:
        options = f'{{engine: openai, url: "{server.url}", model: tiny, logprobs: false, retries: 0, timeout: 600}}'
        Path("asks.yaml").write_text(ASKS.format(options=options), encoding="utf-8")
        server.hold_after = 3
        command = [sys.executable, "-m", "lbt_sim", "run", "asks.yaml", "--out", "run", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
            assert started.stderr is not None
            server.wait_for_line(started.stderr, "run folder")
            while server.held < 3 or committed() < 3:
                assert started.poll() is None
            (entry,) = entries()
            assert "ended" not in entry
            assert "executed once: killed or still running" in shown()
            started.send_signal(signal.SIGKILL)
            started.communicate()
        server.release()
        assert resume().status == 0
    assert ends() == [None, "done"]
    assert entries()[0] == entry
    assert entries()[1]["committed"] == 3
    assert "executed 2 times: 1 killed or still running, 1 done" in shown()


def test_what_another_process_recorded_before_the_folder_was_locked_stays() -> None:
    run("--set", "budget.calls=100")
    folder = open_run(Path("run"), sets=["budget.calls=5000"])
    assert resume("--set", "budget.calls=120").status == 3
    asyncio.run(Run(folder).execute())
    assert ends() == ["failed", "failed", "done"]


def test_what_another_process_changed_before_the_folder_was_locked_stays_too() -> None:
    run("--set", "budget.calls=100")
    folders = [open_run(Path("run"), sets=sets) for sets in (["budget.calls=5000"], [])]
    assert resume("--set", "budget.calls=110", "--set", "budget.tokens=900000").status == 3
    assert resume("--set", "budget.calls=120").status == 3
    others = ["budget.calls=110", "budget.tokens=900000", "budget.calls=120"]
    for folder in folders:
        asyncio.run(Run(folder).execute())
        assert read_manifest(Path("run"))[RESUMED_WITH] == [*others, "budget.calls=5000"]
    assert open_run(Path("run")).prepared.file.budget.tokens == 900_000
    assert open_run(Path("run")).prepared.file.budget.calls == 5_000


def test_a_model_that_another_process_asked_before_the_folder_was_locked_is_kept_to() -> None:
    folder = create_run(prepare(load_scenario("small.yaml")), Path("run"))
    resume("--set", "models.small.failures=0.0001", "--set", "budget.calls=100")
    before = read_manifest(Path("run"))
    with pytest.raises(LedgerMismatch):
        asyncio.run(Run(folder).execute())
    assert read_manifest(Path("run")) == before


DAMAGE: dict[str, Any] = {
    "began": 3,
    "lbt_sim": [],
    "committed": "x",
    "models": ["x"],
    "calls": [1],
    "time": "x",
    "servers": [2],
    "how": {},
    "error": [3],
}
ODD: list[Any] = [3, "x", None, [1], {"a": 1}, float("nan"), float("inf"), 10**400, {"small": 3}, {"small": {}}]
FIGURES = ["prompt_tokens", "computed", "generated", "tokens_per_second", "requests", "in_flight_at_most", "restarts",
    "lost", "labels", "determinism", "prefix_hit_rate"]  # fmt: skip


def damaged(**changes: Any) -> None:
    """The only execution as somebody has changed it by hand."""
    manifest = read_manifest(Path("run"))
    manifest["executions"][0].update(changes)
    write_manifest(Path("run"), manifest)


def test_an_execution_that_is_damaged_stops_nobody() -> None:
    run("--set", "budget.calls=100")
    for key, value in DAMAGE.items():
        damaged(**{key: value})
        assert "executed once" in shown()
    assert resume("--set", "budget.calls=5000").status == 0
    assert entries()[0]["models"] == ["x"], "it is left as it was"


@pytest.mark.parametrize("models", [["x"], {"small": []}, {"small": {}}, {"small": {"identity": 3}}, "x", None])
def test_a_replay_takes_the_manifests_own_models_where_an_executions_are_damaged(models: Any) -> None:
    whole = run().result
    damaged(models=models)
    for command in ("replay", "resume"):
        said = lbt_sim(command, "run", "--json", "-q")
        assert said.status == 0, said.err
        assert lasting(said.result) == lasting(whole)
    assert "done" in shown()


@pytest.mark.parametrize("models", [{"small": []}, {"small": {}}, {"small": {"identity": "m", "detail": 3}}])
def test_models_of_which_it_is_not_known_what_they_were_are_told(models: Any) -> None:
    run()
    manifest = read_manifest(Path("run"))
    write_manifest(Path("run"), manifest | {"models": models})
    for command in ("replay", "resume"):
        said = lbt_sim(command, "run", "--json", "-q")
        assert said.status == 2
        assert "the manifest is damaged" in said.err
    assert "done" in shown()


def test_a_damaged_manifest_tells_of_none_and_the_run_is_still_shown() -> None:
    run()
    for text in ("{", "[]", '{"task_sources": {}, "models": {}, "executions": [3, "x"]}'):
        (Path("run") / MANIFEST_FILE).write_text(text, encoding="utf-8")
        assert entries() == []
        assert "done" in shown()


# --- a run that is over -------------------------------------------------------------------------------------


@pytest.fixture
def over() -> dict[str, Any]:
    """A finished run whose server is gone; its result."""
    with process() as stub:
        options = f'{{engine: vllm, urls: ["{stub.url}"], model: tiny, retries: 0}}'
        Path("asks.yaml").write_text(ASKS.format(options=options), encoding="utf-8")
        said = run(scenario="asks.yaml")
        assert said.status == 0, said.err
    return said.result


def test_resuming_a_finished_run_needs_no_model(over: dict[str, Any]) -> None:
    before = (Path("run") / MANIFEST_FILE).read_text(encoding="utf-8")
    done = resume()
    assert done.status == 0, done.err
    assert lasting(done.result) == lasting(over)
    assert done.result["calls"]["made"] == 0
    assert done.result["executions"] == over["executions"]
    assert (Path("run") / MANIFEST_FILE).read_text(encoding="utf-8") == before
    assert "prompt tokens sent" in lbt_sim("resume", "run").out


def test_with_other_models_it_does(over: dict[str, Any]) -> None:
    assert over["status"] == "done"
    refused = resume("--set", "models.small.concurrency=3")
    assert refused.status == 2, "its server is gone"
    assert lbt_sim("replay", "run", "--json", "-q").status == 0


def test_where_a_call_is_missing_nonetheless_it_is_made() -> None:
    whole = run().result
    with sqlite3.connect(Path("run") / LEDGER_FILE) as ledger:
        ledger.execute("DELETE FROM calls WHERE round = 3")
    ledger.close()
    assert lbt_sim("replay", "run", "--json", "-q").status == 3
    done = lbt_sim("resume", "run", "--json")
    assert done.status == 0, done.err
    assert lasting(done.result) == lasting(whole)
    assert done.result["calls"]["made"] > 0
    assert ends() == ["done", "done"]


def test_a_finished_run_in_which_another_process_works_is_refused() -> None:
    run()
    with locked(Path("run")):
        assert resume().status == 2


@pytest.mark.parametrize(("how", "status"), [("failed", 0), ("done", 3)])
def test_a_replay_takes_the_contexts_of_the_execution_that_came_to_the_end(how: str, status: int) -> None:
    Path("small.yaml").write_text(SMALL + "too_long: drop_notes\n", encoding="utf-8")
    assert run().status == 0
    manifest = read_manifest(Path("run"))
    small = manifest["models"]["small"]
    short = {"small": {**small, "detail": {**small["detail"], "context": 20, "counts_tokens": True}}}
    manifest["executions"].append({**manifest["executions"][0], "how": how, "models": short})
    manifest["models"] = short
    write_manifest(Path("run"), manifest)
    assert lbt_sim("replay", "run", "--json", "-q").status == status


# --- servers ------------------------------------------------------------------------------------------------


def test_what_servers_did_is_summed_over_the_executions_and_shown() -> None:
    with process() as stub:
        options = f'{{engine: vllm, urls: ["{stub.url}"], model: tiny, retries: 0}}'
        Path("asks.yaml").write_text(ASKS.format(options=options), encoding="utf-8")
        assert run("--set", "budget.calls=8", scenario="asks.yaml").status == 3
        done = resume("--set", "budget.calls=500", "--set", "models.small.concurrency=2")
        assert done.status == 0, done.err
    first, second = (entry["servers"]["small"] for entry in entries())
    assert second == done.result["servers"]["small"]
    assert min(first["prompt_tokens"], second["prompt_tokens"]) > 0
    total = together(entries())
    small = total["servers"]["small"]
    for key in ("prompt_tokens", "computed", "generated", "requests"):
        assert small[key] == first[key] + second[key]
    assert total["time"]["waiting"] == pytest.approx(sum(entry["time"]["waiting"] for entry in entries()))
    told = shown()
    assert "executed 2 times: 1 failed, 1 done" in told
    assert f"{small['prompt_tokens']:,} prompt tokens sent, {small['computed']:,} computed" in told
    assert "vLLM 0.32.0" in told
    assert "waiting on models" in told


def test_what_was_measured_of_a_model_stands_in_the_folder() -> None:
    with process() as stub:
        options = f'{{engine: vllm, urls: ["{stub.url}"], model: tiny, retries: 0}}'
        Path("asks.yaml").write_text(ASKS.format(options=options), encoding="utf-8")
        one = {"what": "alone, 8 at a time", "labels": 16, "labels_changed": 1, "texts": 16, "texts_changed": 5}

        async def measured() -> None:
            spec = load_scenario("asks.yaml").file.models["small"]
            model = VllmModel(VllmSpec.model_validate(spec.model_dump(exclude={"engine"})))
            remember(await model.ready(), [one])
            await model.close()

        asyncio.run(measured())
        assert run(scenario="asks.yaml").status == 0
    assert entries()[0]["servers"]["small"]["determinism"]["comparisons"] == [one]
    assert "alone, 8 at a time: 1 of 16 labels, 5 of 16 texts" in shown()


def test_a_model_whose_figures_cannot_be_had_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_: VllmModel) -> Any:
        raise LbtError("no figures today")

    monkeypatch.setattr(VllmModel, "figures", broken)
    with process() as stub:
        options = f'{{engine: vllm, urls: ["{stub.url}"], model: tiny, retries: 0}}'
        Path("asks.yaml").write_text(ASKS.format(options=options), encoding="utf-8")
        done = lbt_sim("run", "asks.yaml", "--out", "run", "--json")
    assert done.status == 0
    assert "no figures today" in done.err
    assert done.result["servers"] == {}


def test_tokens_of_which_a_part_is_unknown_are_not_told_as_cached() -> None:
    with process() as stub:
        options = f'{{engine: vllm, urls: ["{stub.url}"], model: tiny, retries: 0}}'
        Path("asks.yaml").write_text(ASKS.format(options=options), encoding="utf-8")
        result = run(scenario="asks.yaml").result
    assert result["tokens"]["prompt"] > 0
    assert result["tokens"]["cached"] is None, "what goes out in a batch does not tell"
    assert " cached)" not in shown()


# --- together -----------------------------------------------------------------------------------------------


def entry(**figures: Any) -> dict[str, Any]:
    return {
        "ended": "2026-11-24T12:00:00+00:00",
        "how": "done",
        "calls": {"made": 1},
        "time": {"starting": 1.0, "waiting": 2.0, "own": 0.5},
        "servers": {"small": figures},
    }


def of(*details: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry() | {"lbt_sim": "1", "models": {"small": {"identity": "m", "detail": detail}}} for detail in details]


def test_counts_are_summed_and_shares_are_those_of_the_sums() -> None:
    one = {"prompt_tokens": 100, "computed": 100, "generated": 0, "tokens_per_second": 10.0, "requests": 3}
    two = {"prompt_tokens": 300, "computed": 100, "generated": 0, "tokens_per_second": 30.0, "requests": 4}
    more = ({"restarts": ["a"], "in_flight_at_most": 64}, {"restarts": ["b"], "in_flight_at_most": 16})
    total = together([entry(**one, **more[0]), entry(**two, **more[1]), {"began": "2026"}])
    assert (total["executions"], total["ended"]) == (3, 2)
    assert total["time"] == {"starting": 2.0, "waiting": 4.0, "own": 1.0}
    small = total["servers"]["small"]
    assert (small["prompt_tokens"], small["computed"], small["requests"]) == (400, 200, 7)
    assert (small["prefix_hit_rate"], small["tokens_per_second"]) == (0.5, 20.0)
    assert (small["restarts"], small["in_flight_at_most"]) == (["a", "b"], 64)


def test_a_part_of_a_sum_is_no_sum() -> None:
    small = together([entry(requests=3, prompt_tokens=5, computed=5), entry(requests=4)])["servers"]["small"]
    assert (small["requests"], small["prompt_tokens"], small["prefix_hit_rate"]) == (7, None, None)


def test_of_one_execution_the_figures_are_its_own() -> None:
    figures = {"prompt_tokens": 7, "computed": 3, "prefix_hit_rate": 0.5714, "tokens_per_second": 0.0, "requests": 2}
    small = together([entry(**figures)])["servers"]["small"]
    assert {key: small[key] for key in figures} == figures


def test_what_was_measured_says_for_how_many_executions_it_holds() -> None:
    old, new = ({"date": date, "comparisons": []} for date in ("2026-11-01", "2026-11-24"))
    found = together([entry(determinism=old), entry(determinism=new), entry(determinism=new), entry(requests=1)])
    told = found["servers"]["small"]["determinism"]
    assert [(one["date"], one["executions"]) for one in told] == [("2026-11-01", 1), ("2026-11-24", 2)]


@pytest.mark.parametrize("key", FIGURES)
def test_figures_that_are_damaged_are_passed_over(key: str) -> None:
    good = {"prompt_tokens": 9, "computed": 3, "generated": 4, "tokens_per_second": 2.0, "in_flight_at_most": 2}
    for odd in ODD:
        for all_ in ([entry(**{key: odd})], [entry(**good), entry(**good | {key: odd})]):
            told = dict(servers_told(all_, Look()))
            assert "small" in told
        assert key == "in_flight_at_most" or "at most 2 calls in flight" in str(told["small"])


@pytest.mark.parametrize("key", DAMAGE)
def test_an_entry_that_is_damaged_is_told_all_the_same(key: str) -> None:
    good = of({"vllm": "0.32.0"})[0] | {"servers": {"small": {"requests": 2}}}
    for odd in ODD:
        told = dict(servers_told([good, good | {key: odd}], Look()))
        assert "executed" in told
        assert "requests" in str(told["small"])


def test_versions_and_flags_that_differ_are_named() -> None:
    old = {"vllm": "0.31.0", "flags": {"a": 1}, "length": 512, "servers": [1], "can": {"version": "0.31.0"}}
    new = {"vllm": "0.32.0", "flags": {"a": 2}, "length": None, "servers": [2], "can": {"version": "0.32.0"}}
    changes = ["small: vLLM 0.31.0, then 0.32.0", "small: flags", "small: length 512, then none"]
    assert unlike(of(old, old, new)) == changes
    assert unlike(of(old, old)) == []


def test_who_asked_nothing_is_not_compared() -> None:
    one, two = of({"length": 1}, {"length": 2})
    assert unlike([one, two | {"calls": {"made": 0}}]) == []
    assert unlike([one, {key: value for key, value in two.items() if key != "ended"}]) == ["small: length 1, then 2"]


def test_another_version_of_the_program_is_named() -> None:
    one, two = of({}, {})
    assert unlike([one, two | {"lbt_sim": "2"}]) == ["lbt_sim 1, then 2"]


@pytest.mark.parametrize(
    ("detail", "version"),
    [
        ({"vllm": "0.32.0", "can": {"version": "0.32.0+x"}}, "0.32.0"),
        ({"vllm": None, "can": {"version": "0.31.0"}}, "0.31.0"),
        ({"can": {"version": ""}}, None),
        ({}, None),
    ],
)
def test_a_server_that_was_not_started_by_us_tells_its_own_version(detail: Any, version: str | None) -> None:
    assert version_of(detail) == version
