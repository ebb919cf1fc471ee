"""Workers on a Ray cluster: each place is an actor on some node that carries out what a worker process would.

Runs are executed in the study's folder, which all nodes have to see; nothing but orders and tidings goes over Ray. An
actor whose node or process dies is made anew, on whatever node has a CPU to spare; what it had not finished goes on
from the ledgers in the folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lbt_sim.errors import InputError, Place, RunError
from lbt_sim.study.folder import StudyFolder, load_results
from lbt_sim.study.nodes import check_nodes
from lbt_sim.study.worker import Block, serve

__all__ = ["RayWorkers"]

Hear = Callable[[int, Mapping[str, Any]], None]

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Else a driver under `uv run` has every worker make its own environment from the project's folder.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # workers without GPUs of their own see those of the node
}
_ADDRESS = "RAY_ADDRESS"
_LOOPBACK = "127.0.0.1"
_STORE = 100 << 20
"""Bytes of shared memory for a cluster of our own: only tidings go through it."""
_FRUITLESS = 3
"""So often in a row an actor may end before it is ready; then its place is lost."""
_PATIENCE = 30.0
"""Seconds after which it is told that a worker still waits for a CPU."""
_GRACE = 10.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class RayWorkers:
    """Workers on the Ray cluster that RAY_ADDRESS names, or that was started here with `ray start`; else on our own.

    Args:
        number: How many; None: one for each CPU of the cluster.
    """

    number: int | None = None
    _ray: Any = field(default=None, init=False)
    _thread: ThreadPoolExecutor | None = field(default=None, init=False)
    _joined: bool = field(default=False, init=False)
    _own: bool = field(default=False, init=False)
    _actors: dict[int, Any] = field(default_factory=dict, init=False)
    _over: set[str] = field(default_factory=set, init=False)
    _pids: set[int] = field(default_factory=set, init=False)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list, init=False)
    _stopping: bool = field(default=False, init=False)
    _closing: bool = field(default=False, init=False)

    @property
    def workers(self) -> int:
        """How many blocks are executed at once; 0 where that is not known before `start`."""
        return self.number or 0

    async def start(self, study: StudyFolder, hear: Hear) -> None:
        """Connects, or starts a cluster; checks that all nodes see the study's folder; has the workers come up.

        Raises:
            InputError: Ray is not installed, or a node lacks the folder or this version of lbt_sim.
            RunError: The cluster cannot be reached or started.
        """
        self._ray = _import_ray()
        # Ray's processes end with the thread that started them, so it has to live as long as they are needed.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ray")
        await self._in_thread(self._connect)
        _restore_signals()
        nodes = await self._in_thread(lambda: _with_cpus(self._ray))
        await self._in_thread(lambda: check_nodes(self._ray, study.path, nodes))
        self.number = self.number or max(1, int(sum(node["Resources"]["CPU"] for node in nodes)))
        self._over = {run.folder for run in load_results(study.path).runs.values() if run.status == "done"}
        place = self._ray.remote(_Seat)
        self._tasks = [asyncio.create_task(self._live(number, place, study, hear)) for number in range(self.number)]

    def give(self, worker: int, block: Block) -> None:
        """Sends the block to the worker's actor."""
        # SQLite cannot read what another machine is writing: answers are taken from runs that are over.
        beside = tuple(folder for folder in block.beside if folder in self._over)
        self._order(worker, replace(block, beside=beside).as_data())

    def stop(self, *, cancel: bool) -> None:
        """Tells all actors."""
        self._stopping = True
        for worker in self._actors:
            self._order(worker, "cancel" if cancel else "drain")

    async def close(self) -> None:
        """Ends the actors, and the cluster where it is our own; another's is left as it is."""
        self._closing = True
        if self._thread is None:
            return
        ends = [asyncio.wrap_future(actor.end.remote().future()) for actor in self._actors.values()]
        if ends:
            await asyncio.wait(ends, timeout=_GRACE)
        for end in ends:
            if end.done():
                end.exception()
            else:
                end.cancel()
        for actor in list(self._actors.values()):
            self._end(actor)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._joined:
            await self._in_thread(self._ray.shutdown)
            _restore_signals()
        self._thread.shutdown(wait=False)
        if self._own:
            await _gone(self._pids)

    # --- the cluster ----------------------------------------------------------------------------------------

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return  # whoever uses us as a library has connected already
        address = os.environ.get(_ADDRESS, "")
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "lbt-sim"}
        try:
            if address in ("", "local") and self._start_own(address or None, quiet):
                self._own = self._joined = True
                return
            with _reachable(self._ray, address):
                self._ray.init(address=address or "auto", **quiet)
            self._joined = True
        except Exception as error:  # Ray raises whatever it likes
            if isinstance(error, (InputError, RunError)):
                raise
            raise RunError(
                f"the Ray cluster cannot be joined: {_first_line(error)}",
                where=Place(key=f"{_ADDRESS}={address}" if address else "--executor ray"),
                remedy=f"`ray status` tells whether it runs. {_ADDRESS}=local starts one on this machine alone.",
            ) from error

    def _start_own(self, address: str | None, quiet: Mapping[str, Any]) -> bool:
        """Starts a cluster on this machine; False where one runs that was started with `ray start`."""
        with _on_loopback(), suppress(ValueError):  # so Ray tells that there is one, and takes no CPUs for it
            self._ray.init(
                address=address,
                num_cpus=self.number or os.cpu_count() or 1,
                include_dashboard=False,
                object_store_memory=_STORE,
                _node_ip_address=_LOOPBACK,
                **quiet,
            )
            return True
        return False

    # --- a worker's place -----------------------------------------------------------------------------------

    def _order(self, worker: int, order: Any) -> None:
        if (actor := self._actors.get(worker)) is not None:
            actor.order.remote(json.dumps(order))

    def _end(self, actor: Any) -> None:
        with suppress(Exception):  # it is dead, or nobody knows
            self._ray.kill(actor)

    def _is_closing(self) -> bool:
        return self._closing

    async def _live(self, number: int, place: Any, study: StudyFolder, hear: Hear) -> None:
        """One worker's place: an actor, and another one when that dies."""
        fruitless = 0
        while not self._closing and not self._stopping:
            options = {"num_cpus": 1, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
            actor = self._actors[number] = place.options(**options).remote(str(study.path.absolute()))
            told = 0
            try:
                waiting = _tell_waiting(number, hear)
                try:
                    self._pids.add(await actor.pid.remote())
                finally:
                    waiting.cancel()
                while True:
                    for line in await actor.news.remote():
                        told += 1
                        event = json.loads(line)
                        if event["event"] == "result":
                            self._over.add(event["result"]["folder"])
                        hear(number, event)
            except self._ray.exceptions.RayError as error:
                why = _why(error)
            finally:
                self._actors.pop(number, None)
                self._end(actor)
            if self._is_closing():
                return
            fruitless = 0 if told else fruitless + 1
            hear(number, {"event": "lost" if fruitless == _FRUITLESS else "died", "why": why})
            if fruitless == _FRUITLESS:
                return


class _Seat:
    """The actor: a worker in a process on some node. Ray calls its methods side by side, in one event loop."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._lines: deque[str] = deque()
        self._told = asyncio.Event()
        self._orders: asyncio.Queue[Any] = asyncio.Queue()
        self._life: asyncio.Future[None] | None = None

    async def pid(self) -> int:
        """Of its process; answers when it runs."""
        return os.getpid()

    async def news(self) -> list[str]:
        """What was told since the last call, as JSON; waits until there is something."""
        if self._life is None:
            self._life = asyncio.ensure_future(serve(self._folder, self._emit, self._orders.get))
            self._life.add_done_callback(lambda _: self._told.set())
        await self._told.wait()
        self._told.clear()
        if self._life.done() and not self._lines:
            self._life.result()  # raises what it ended of
            raise RuntimeError("the worker has ended")
        lines = list(self._lines)
        self._lines.clear()
        if self._life.done():
            self._told.set()
        return lines

    async def order(self, order: str) -> None:
        """Takes a block, `drain` or `cancel`, as JSON."""
        self._orders.put_nowait(json.loads(order))

    async def end(self) -> None:
        """Ends its worker, with all models and servers."""
        self._orders.put_nowait(None)
        if self._life is not None:
            await asyncio.wait([self._life])

    def _emit(self, data: Mapping[str, Any]) -> None:
        self._lines.append(json.dumps(data))
        self._told.set()


# --- helpers ----------------------------------------------------------------------------------------------------


def _import_ray() -> Any:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise InputError(
            "Ray is not installed",
            where=Place(key="--executor ray"),
            remedy="Install it: uv sync --extra ray. `--executor local` needs nothing.",
        ) from error
    return ray


def _with_cpus(ray: Any) -> list[Mapping[str, Any]]:
    """The living nodes that can have workers."""
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if not nodes:
        raise RunError(
            "no node of the Ray cluster has a CPU for a worker",
            where=Place(key="--executor ray"),
            remedy="Add nodes: ray start --address HOST:PORT.",
        )
    return nodes


@contextmanager
def _reachable(ray: Any, address: str) -> Iterator[None]:
    """Says so where nobody listens: Ray itself would try for minutes, and might then end the process.

    Raises:
        InputError: The address is none, or one for Ray's remote client.
        RunError: Nobody listens there.
    """
    if address in ("", "auto"):
        yield
        return
    host, _, number = address.rpartition(":")
    host, port = host.strip("[]"), int(number) if number.isdigit() else -1
    if not host or not 0 < port < 1 << 16 or "://" in host:
        raise InputError(
            f"'{address}' is not the address of a Ray cluster",
            where=Place(key=_ADDRESS),
            valid=["HOST:PORT", "auto", "local"],
            remedy="Give the command on one of the cluster's nodes; there, RAY_ADDRESS=auto finds it.",
        )
    if wrong := _refused(host, port):
        raise RunError(
            f"no Ray cluster can be reached: {wrong}",
            where=Place(key=f"{_ADDRESS}={address}"),
            remedy=f"`ray status` tells whether it runs. {_ADDRESS}=local starts one on this machine alone.",
        )
    # Ray takes this machine's outward address for its loopback one, where a cluster of one machine may not listen.
    inward = host in (_LOOPBACK, "localhost", "::1") and _refused(ray.util.get_node_ip_address(), port)
    with _on_loopback() if inward else nullcontext():
        yield


def _refused(host: str, port: int) -> str:
    """Why nobody can be reached there; '' where somebody can."""
    try:
        socket.create_connection((host, port), timeout=10).close()
    except OSError as error:
        return str(error.strerror or error)
    return ""


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Has Ray take the loopback address as its own, as it does on systems on which it is for one machine only."""
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _restore_signals() -> None:
    """Puts Python's own handlers back: Ray puts others under them, which print where the process stood and end it."""
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)


def _tell_waiting(number: int, hear: Hear) -> asyncio.TimerHandle:
    text = f"worker {number + 1} waits for a free CPU in the Ray cluster"
    return asyncio.get_running_loop().call_later(_PATIENCE, lambda: hear(number, {"event": "told", "text": text}))


async def _gone(pids: set[int]) -> None:
    """Waits until processes of this machine have ended, which they do when Ray does; ends those that do not."""
    for _ in range(50):
        if not any(_is_alive(pid) for pid in pids):
            return
        await asyncio.sleep(0.1)
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # the number is another's by now
    return True


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _why(error: BaseException) -> str:
    """What an actor ended of, in a line."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return " ".join(str(cause).split()) or type(cause).__name__
    text = str(error)
    for line in text.splitlines():
        if "node" in line and ("died" in line or "dead" in line or "terminated" in line):
            return "its node died"
    return f"Ray: {_first_line(error)}"
