"""Memory that is promised to servers which do not hold it yet: no other run plans with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_machine import cpu_interpreter, interpreter, model_folder, put_gpus
from server_processes import recorded

from lbt_sim.errors import ModelUnavailable
from lbt_sim.models.vllm import install, records, reserve
from lbt_sim.models.vllm.gpus import Holder, Memory
from lbt_sim.models.vllm.launch import Launch
from lbt_sim.models.vllm.plan import OVERHEAD, Wanted, plan
from lbt_sim.models.vllm.reserve import Reservations, with_servers_on_cpu
from lbt_sim.models.vllm.spec import VllmSpec

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="vLLM servers are looked after on Linux"),
    pytest.mark.usefixtures("machine"),
]

ONE_GPU = ["0, GPU-aaaa0000, NVIDIA H100, 80000, 79000, Disabled"]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: Path) -> None:
    """One free GPU, and vLLM for it."""
    put_gpus(monkeypatch, tmp_path, ONE_GPU)
    interpreter(tmp_path / "usual" / "bin" / "python")
    monkeypatch.delenv(install.VARIABLE, raising=False)
    monkeypatch.setattr(install, "default_environment", lambda: tmp_path / "usual")
    monkeypatch.setattr(install, "_own", lambda: install.Problem("own", "no vLLM"))
    model_folder(tmp_path / "model")


def planned(
    folder: Path, reservations: Reservations | None = None, name: str = "a", **options: Any
) -> Sequence[Launch]:
    spec = VllmSpec.model_validate({"model": str(folder / "model")} | options)
    return plan([Wanted(name, spec, {})], lambda _: None, reservations)[name]


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        planned(folder, name="b", **options)
    return caught.value.what


def taken_over(launch: Launch, **changes: Any) -> records.Record:
    """The record of the server that is started from a launch."""
    (record,) = records.saved([launch.token])
    record = replace(record, port=1, **changes)
    records.save(record)
    return record


# --- a plan and another ------------------------------------------------------------------------------------


def test_what_one_run_plans_with_is_not_free_for_another(tmp_path: Path, state: Path) -> None:
    with Reservations() as reservations:
        planned(tmp_path, reservations)
        what = refused(tmp_path)
        assert "has 7,000 of 80,000 MiB free" in what
        assert f"held by a, a server of lbt-sim that is starting (process {os.getpid()}, 72000 MiB)" in what
        assert "has 7,000 of 80,000" in refused(tmp_path, gpus=[0])
        planned(tmp_path, memory=0.05)
    assert not recorded(state)
    planned(tmp_path)


def test_a_plan_for_itself_alone_reserves_nothing(tmp_path: Path, state: Path) -> None:
    (launch,) = planned(tmp_path)
    assert launch.token == ""
    assert dict(launch.needs) == {"gpu-aaaa0000": 72_000}
    assert not state.exists() or not recorded(state)


def test_another_gpu_is_taken_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_gpus(monkeypatch, tmp_path)
    with Reservations() as one, Reservations() as other:
        (first,), (second,) = planned(tmp_path, one), planned(tmp_path, other)
    assert {*first.devices, *second.devices} == {"gpu-aaaa0000", "gpu-bbbb1111"}


def test_replicas_and_their_gpus_are_each_reserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_gpus(monkeypatch, tmp_path)
    with Reservations() as reservations:
        planned(tmp_path, reservations, tensor_parallel=2, replicas=2, memory=0.4)
        what = refused(tmp_path, memory=0.3, gpus=[1])
    assert "has 15,500 of 80,000 MiB free" in what
    assert all(f"a.{number}, a server of lbt-sim that is starting" in what for number in (1, 2))


def test_of_plans_at_the_same_moment_one_gets_the_memory(tmp_path: Path) -> None:
    begin, results = threading.Barrier(4), list[str]()
    everybody_planned = threading.Barrier(4)

    def run(number: int) -> None:
        with Reservations() as reservations:
            begin.wait()
            try:
                planned(tmp_path, reservations, name=f"run{number}")
                results.append("planned")
            except ModelUnavailable as error:
                results.append(error.what)
            everybody_planned.wait()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count("planned") == 1
    assert sum("a server of lbt-sim that is starting" in result for result in results) == 3


def test_a_plan_that_is_refused_leaves_nothing(tmp_path: Path, state: Path) -> None:
    with Reservations() as reservations:
        with pytest.raises(ModelUnavailable):
            planned(tmp_path, reservations, gpus=[3])
        assert not recorded(state)


def test_a_plan_that_ends_after_it_was_given_up_reserves_nothing(tmp_path: Path, state: Path) -> None:
    reservations = Reservations()
    with reservations:
        pass
    assert planned(tmp_path, reservations)
    assert not recorded(state)


def test_a_plan_that_never_ends_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "SECONDS", 0.05)
    with (
        Reservations().turn(),
        pytest.raises(ModelUnavailable, match="another run has been planning"),
        Reservations() as reservations,
    ):
        planned(tmp_path, reservations)


def test_a_plan_that_is_given_up_waits_no_longer_for_another() -> None:
    waiting, told = Reservations(), list[str]()

    def wait() -> None:
        try:
            with waiting.turn():
                told.append("planned")
        except ModelUnavailable as error:
            told.append(error.what)

    with Reservations().turn():
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        thread.join(2 * reserve.LOOK)
        assert thread.is_alive()
        with waiting:
            pass
        thread.join(reserve.SECONDS / 4)
        assert not thread.is_alive()
    assert "another run has been planning" in told[0]


DIES = """
import sys
from lbt_sim.models.vllm.launch import Launch
from lbt_sim.models.vllm.reserve import Reservations
Reservations().__enter__().take({"a": [Launch("a", (), {}, ("gpu-aaaa0000",), {}, {}, {"gpu-aaaa0000": 72000})]})
print("reserved", flush=True)
sys.stdin.read()
"""


def test_what_a_dead_run_reserved_is_free_again(tmp_path: Path, state: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", DIES], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"reserved\n"
        assert f"(process {run.pid}, 72000 MiB)" in refused(tmp_path)
        run.kill()
        run.wait()
    planned(tmp_path)
    records.sweep(pytest.fail)
    assert not recorded(state)


# --- a server that starts ----------------------------------------------------------------------------------


def test_until_a_server_answers_its_share_is_held_less_what_shows_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Reservations() as reservations:
        (launch,) = planned(tmp_path, reservations)
        record = taken_over(launch, pgid=os.getpgrp())
    assert records.saved([launch.token]) == [record], "it is the server's now"
    assert dict(record.free_then) == {"gpu-aaaa0000": 79_000}
    records.save(replace(record, free_then={}))
    assert records.saved([launch.token]) == [record], "what was free is known to the plan alone"
    assert "has 7,000 of 80,000" in refused(tmp_path)
    apps = [f"GPU-aaaa0000, {os.getpid()}, VLLM::EngineCore, 30000"]
    put_gpus(monkeypatch, tmp_path, ["0, GPU-aaaa0000, NVIDIA H100, 80000, 49000, Disabled"], apps)
    what = refused(tmp_path)
    assert "has 7,000 of 80,000 MiB free" in what
    assert f"a, a server of lbt-sim (process {os.getpid()}, 30000 MiB)" in what
    assert f"a, a server of lbt-sim that is starting (process {os.getpgrp()}, 42000 MiB)" in what
    records.save(replace(record, ready=True))
    planned(tmp_path, memory=0.6)
    records.remove(record)


HIDDEN: list[list[str]] = [[], [f"GPU-aaaa0000, {os.getpid()}, [N/A], [N/A]"], ["GPU-aaaa0000, 4194999, python, 36000"]]
"""What the driver tells of who computes, in containers: nobody, no sizes, the numbers of processes outside."""


@pytest.mark.parametrize("apps", HIDDEN)
def test_where_the_driver_tells_no_sizes_what_a_starting_server_has_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apps: list[str]
) -> None:
    def free(mib: int) -> None:
        put_gpus(monkeypatch, tmp_path, [f"0, GPU-aaaa0000, NVIDIA H100, 80000, {mib}, Disabled"], apps)

    free(79_000)
    with Reservations() as one, Reservations() as two:
        (launch,) = planned(tmp_path, one, memory=0.45)
        first = taken_over(launch, pgid=os.getpgrp())
        (launch,) = planned(tmp_path, two, memory=0.25)
        second = taken_over(launch, pgid=os.getpgrp())
    for now in (79_000, 60_000, 43_000, 30_000, 23_000):  # the first takes 36,000 MiB, then the second 20,000
        free(now)
        assert "has 23,000 of 80,000 MiB free" in refused(tmp_path, memory=0.3)
        planned(tmp_path, memory=0.28)
    records.save(replace(second, ready=True))
    assert "has 23,000 of 80,000 MiB free" in refused(tmp_path, memory=0.3)
    free(59_000)  # the first died, and is started anew
    assert "has 23,000 of 80,000 MiB free" in refused(tmp_path, memory=0.3)
    free(15_000)  # somebody else took 8,000
    planned(tmp_path, memory=0.18)
    for record in (first, second):
        records.remove(record)


def test_replicas_that_are_planned_together_are_told_apart_though_the_driver_tells_no_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Reservations() as reservations:
        launches = planned(tmp_path, reservations, replicas=2, memory=0.4)
        there = [taken_over(launch, pgid=os.getpgrp()) for launch in launches]
    put_gpus(monkeypatch, tmp_path, ["0, GPU-aaaa0000, NVIDIA H100, 80000, 47000, Disabled"])
    assert "has 15,000 of 80,000 MiB free" in refused(tmp_path, memory=0.3)
    for record in there:
        records.remove(record)


def test_records_of_earlier_versions_hold_nothing(tmp_path: Path, state: Path) -> None:
    with Reservations() as reservations:
        (launch,) = planned(tmp_path, reservations)
        record = taken_over(launch)
    (file,) = recorded(state)
    said: Mapping[str, Any] = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in said.items() if key != "needs"}))
    planned(tmp_path)
    records.remove(record)


# --- the CPU -----------------------------------------------------------------------------------------------


@pytest.fixture
def on_cpu(machine: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_gpus(monkeypatch, tmp_path, [])
    cpu_interpreter(tmp_path / "usual" / "bin" / "python")
    there = Memory(16_000, 9_000, (Holder(1 << 30, "firefox", 5_000),))
    monkeypatch.setattr("lbt_sim.models.vllm.plan.memory", lambda: there)


@pytest.mark.usefixtures("on_cpu")
def test_memory_of_the_machine_is_reserved_too(tmp_path: Path) -> None:
    with Reservations() as reservations:
        planned(tmp_path, reservations, cpu_cache=3)
        what = refused(tmp_path, cpu_cache=3)
        need = 3 * 1024 + OVERHEAD
        assert f"{9_000 - need:,} of 16,000 MiB of memory are available" in what
        assert f"a, a server of lbt-sim that is starting (process {os.getpid()}, {need} MiB)" in what
        assert "firefox" in what
    planned(tmp_path, cpu_cache=3)


def test_what_a_starting_server_has_of_the_machines_memory_counts_once(tmp_path: Path) -> None:
    code = "held = bytearray(200 << 20); print('held', flush=True); import sys; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"held\n"
        with Reservations() as reservations:
            launch = Launch("a", (), {}, ("cpu",), {}, {}, {"cpu": 1_000})
            (launch,) = reservations.take({"a": [launch]})["a"]
            record = taken_over(launch, pgid=server.pid)
        seen = with_servers_on_cpu(Memory(16_000, 9_000, (Holder(server.pid, "python", 200),)), records.live())
        records.remove(record)
        server.kill()
    named, promised = seen.holders
    assert named == Holder(server.pid, "a, a server of lbt-sim", 200)
    assert promised.used_mib is not None
    assert 0 < promised.used_mib <= 800
    assert seen.available_mib == 9_000 - promised.used_mib
