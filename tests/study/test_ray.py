"""Studies on a Ray cluster: a node that dies loses nothing, one that cannot work is named, nothing is left running."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from lbt_sim.errors import InputError, RunError
from lbt_sim.study import execute, nodes, ray_workers
from lbt_sim.study.execute import Execution, Executor, LocalWorkers, Outcome
from lbt_sim.study.folder import StudyFolder, create_study, load_results
from lbt_sim.study.plan import load_study
from lbt_sim.study.ray_workers import RayWorkers
from lbt_sim.study.record import RunResult

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (uv sync --extra ray)")
on_ray = [
    needs_ray,
    pytest.mark.slow,
    # Ray's own: files and sockets that it leaves to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning:ray", "ignore:.*:DeprecationWarning:ray"),
]

Write = Callable[..., str]
ARMS = "arms: [several, one]\nseeds: 3\n"
SLOW = "  models.sim.latency: 0.1\n" + ARMS


def made(file: str, path: Path) -> StudyFolder:
    return create_study(load_study(file), path)


async def executed(
    study: StudyFolder, executor: Executor, watch: Callable[[Mapping[str, Any]], None] = lambda event: None
) -> Outcome:
    async with asyncio.timeout(150):
        return await Execution(study, executor, watch).execute()


def lasting(study: StudyFolder) -> dict[tuple[str, int], RunResult]:
    """The results without who of several runs paid for what they have in common."""
    return {
        key: replace(run, counts={n: c for n, c in run.counts.items() if n not in ("made", "shared")})
        for key, run in load_results(study.path).runs.items()
    }


@pytest.fixture(scope="module")
def nodes_of_two() -> Iterator[Any]:
    """Two nodes of a CPU each on this machine, which listen on its loopback address only."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ray_workers._SETTINGS.items():
            patch.setenv(name, value)
        ray_workers._import_ray()
        from ray.cluster_utils import Cluster

        node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
        quick = {"initial_delay_ms": 1000, "period_ms": 500, "failure_threshold": 8}
        config = {f"health_check_{name}": value for name, value in quick.items()}
        with ray_workers._on_loopback():
            nodes_ = Cluster(initialize_head=True, head_node_args={**node, "_system_config": config})
            nodes_.second = nodes_.add_node(**node)
        yield nodes_
        nodes_.shutdown()


@pytest.fixture
def cluster(nodes_of_two: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A cluster of another's, to be joined. A later test kills one of its nodes."""
    for name, value in ray_workers._SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_ADDRESS", nodes_of_two.address)
    return nodes_of_two


class TestOnRay:
    pytestmark = on_ray

    async def test_a_node_that_does_not_see_the_folder_is_named(
        self, cluster: Any, write_study: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made(write_study(ARMS), tmp_path / "s")
        monkeypatch.chdir(tmp_path)
        study = replace(load(tmp_path / "s"), path=Path("/proc/self/cwd/s"))  # another folder for each process
        with pytest.raises(InputError, match=r"the Ray node .*127\.0\.0\.1.* does not see the study's folder"):
            await executed(study, RayWorkers())
        assert not list((tmp_path / "s").glob(".ray-*"))
        monkeypatch.setattr(nodes.lbt_sim, "__version__", "0.0.1")
        with pytest.raises(InputError, match=r"the Ray node .* has lbt_sim .*, not 0\.0\.1"):
            await executed(load(tmp_path / "s"), RayWorkers())

    async def test_a_node_that_is_killed_loses_nothing(self, cluster: Any, write_study: Write, tmp_path: Path) -> None:
        whole = made(write_study(ARMS), tmp_path / "whole")
        undisturbed = asyncio.ensure_future(executed(whole, LocalWorkers(1)))
        study = made(write_study(SLOW, "slow"), tmp_path / "killed")
        told: list[Mapping[str, Any]] = []
        kill: list[asyncio.Future[None]] = []

        def watch(event: Mapping[str, Any]) -> None:
            told.append(event)
            if event["event"] == "round" and not kill:
                kill.append(asyncio.ensure_future(asyncio.to_thread(cluster.remove_node, cluster.second, False)))

        workers = RayWorkers()
        outcome = await executed(study, workers, watch)
        await kill[0]
        await undisturbed
        assert workers.workers == 2  # the CPUs of the cluster
        died = [event["worker"] for event in told if event["event"] == "died"]
        assert len(died) >= 1
        assert (outcome.status, outcome.done) == ("done", 6)
        assert lasting(study) == lasting(whole)
        assert cluster.head_node.any_processes_alive()  # another's cluster is left alone

    async def test_a_cluster_of_our_own_is_for_this_machine_and_ends(
        self, write_study: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAY_ADDRESS", "local")
        study = made(write_study("arms: [several, one]\nseeds: 2\n"), tmp_path / "s")
        workers, pids, addresses = RayWorkers(1), set[int](), set[str]()
        others, first = below(os.getpid()), True
        execution = Execution(study, workers)

        def watch(event: Mapping[str, Any]) -> None:
            nonlocal first
            if event["event"] == "round" and first:
                first = False
                pids.update(workers._pids, below(os.getpid()) - others)
                addresses.update(node["NodeManagerAddress"] for node in workers._ray.nodes())
                execution.stop(cancel=False)

        execution.watch = watch
        async with asyncio.timeout(100):
            outcome = await execution.execute()
        assert outcome.status == "interrupted"
        assert outcome.missing > 0
        assert addresses == {"127.0.0.1"}
        assert len(pids) > 2
        assert not [pid for pid in pids if alive(pid)]
        assert (await executed(study, LocalWorkers(1))).status == "done"


async def test_without_ray_the_command_says_how_to_get_it(
    write_study: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ray_workers._SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="Ray is not installed") as told:
        await executed(made(write_study(ARMS), tmp_path / "s"), RayWorkers(1))
    assert "uv sync --extra ray" in told.value.remedy


@needs_ray
@pytest.mark.parametrize(
    ("address", "kind", "said"),
    [
        ("127.0.0.1:1", RunError, "no Ray cluster can be reached"),
        ("ray://127.0.0.1:10001", InputError, "is not the address of a Ray cluster"),
        ("nowhere", InputError, "is not the address of a Ray cluster"),
    ],
)
async def test_a_cluster_that_is_not_there_is_told(
    address: str,
    kind: type[Exception],
    said: str,
    write_study: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in ray_workers._SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(kind, match=said):
        await executed(made(write_study(ARMS), tmp_path / "s"), RayWorkers(1))


async def test_a_run_whose_folder_is_held_is_tried_again(
    write_study: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "_LOCKED_DELAY", 0.2)
    study = made(write_study("arms: [one]\nseeds: 1\n"), tmp_path / "s")
    folder = study.path / study.folder_of("one", 1)
    folder.mkdir(parents=True)
    lock = FileLock(folder / ".lock")
    held = 0

    def watch(event: Mapping[str, Any]) -> None:
        nonlocal held
        if event["event"] == "interrupted":
            held += 1
            if held == 2:
                lock.release()

    with lock:
        outcome = await executed(study, LocalWorkers(1), watch)
    assert held == 2
    assert outcome.status == "done"


async def test_a_run_whose_folder_stays_held_is_given_up(
    write_study: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "_LOCKED_DELAY", 0.1)
    monkeypatch.setattr(execute, "_LOCKED_TIMES", 2)
    study = made(write_study("arms: [one, several]\nseeds: 1\n"), tmp_path / "s")
    folder = study.path / study.folder_of("one", 1)
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"):
        outcome = await executed(study, LocalWorkers(1))
    assert (outcome.done, outcome.failed) == (1, 1)
    assert "another process works" in str(load_results(study.path).runs["one", 1].error)


def load(path: Path) -> StudyFolder:
    from lbt_sim.study.folder import open_study

    return open_study(path)


def below(pid: int) -> set[int]:
    """All processes that a process started, and those that they did."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, size = {pid}, 0
    while len(found) > size:
        size = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found - {pid}


def alive(pid: int) -> bool:
    """Whether it runs; one that has ended, and that nobody has taken note of yet, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
