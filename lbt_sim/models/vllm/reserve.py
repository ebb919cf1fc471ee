"""Memory that is promised to servers which do not hold it yet, so that no other run of the user counts it as free.

A server that was planned, or that loads its weights, does not show in what the driver and the kernel tell. So a plan
leaves a record for each of its servers at once; until a server answers, what it lacks of its share counts as held.

Where the driver does not tell who holds how much, as in containers, what is free is taken to have fallen, since a
server was planned, by what that server has by now: whoever else came or went meanwhile is not told from it.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname
from types import TracebackType

from filelock import FileLock, Timeout

from lbt_sim.errors import LbtError, ModelUnavailable
from lbt_sim.models.vllm import records
from lbt_sim.models.vllm.gpus import MIB, Gpu, Holder, Memory
from lbt_sim.models.vllm.launch import Launch
from lbt_sim.models.vllm.records import Record

__all__ = ["Reservations", "servers", "with_servers", "with_servers_on_cpu"]

SECONDS = 120.0
"""Another plan looks at the machine and decides meanwhile: as long as a slow driver takes."""
LOOK = 0.2
"""Seconds of waiting between two looks whether the plan is still wanted."""


class Reservations:
    """What one plan has reserved, for the time until its servers are up; a context manager.

    Once it is left, nothing is reserved any more, not even by a plan that still goes on in another thread.
    """

    def __init__(self) -> None:
        self._held: dict[str, Record] = {}
        self._over = False
        self._lock = threading.Lock()

    def __enter__(self) -> Reservations:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._over = True
            for record in records.saved(self._held):
                if not record.port:  # else a server has taken it over
                    records.remove(record)
            self._held.clear()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """From looking at the machine to `take`: no two plans do that at once.

        Raises:
            ModelUnavailable: Another one does not come to its end, or these reservations were left meanwhile.
        """
        file = re.sub(r"[^\w.-]+", "-", f"plan@{gethostname()}.lock")
        lock = FileLock(records.state_folder() / file)
        self._wait_for(lock)
        try:
            yield
        finally:
            lock.release()

    def _wait_for(self, lock: FileLock) -> None:
        """Not in one go: whoever is interrupted gives the plan up, and the program ends only after this thread."""
        since = time.monotonic()
        while True:
            try:
                lock.acquire(timeout=min(LOOK, SECONDS))
            except Timeout:
                what = f"another run has been planning its servers for {time.monotonic() - since:.0f} s"
                if self._over or time.monotonic() - since >= SECONDS:
                    raise ModelUnavailable(what, remedy="End it, or try again.") from None
            else:
                return

    def take(
        self, launches: Mapping[str, Sequence[Launch]], free: Mapping[str, int | None] | None = None
    ) -> dict[str, list[Launch]]:
        """Reserves what these servers need; a server that is started from one of them takes its record over.

        Args:
            launches: Entry -> its servers.
            free: Device -> MiB that were free there when this was planned, less what is promised to others.

        Raises:
            ModelUnavailable: It cannot be written down.
        """
        left = {device: mib for device, mib in (free or {}).items() if mib is not None}
        return {name: [self._take(launch, left) for launch in several] for name, several in launches.items()}

    def _take(self, launch: Launch, left: dict[str, int]) -> Launch:
        launch = replace(launch, token=secrets.token_hex(8))
        record = Record(
            token=launch.token,
            name=launch.name,
            owner=os.getpid(),
            owner_start=records.started(os.getpid()) or 0,
            place=records.here(),
            log="",
            port=0,
            url="",
            served="",
            api_key="",
            server_key="",
            devices=launch.devices,
            adapters={},
            kept=False,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            needs=dict(launch.needs),
            free_then={device: left[device] for device in launch.needs if device in left},
        )
        for device, mib in record.free_then.items():
            left[device] = mib - record.needs[device]  # what is free for the next one
        with self._lock:
            if not self._over:
                self._held[launch.token] = record
                records.save(record)
        return launch


def servers() -> list[Record]:
    """The servers of this user's runs here, up or not; none where they cannot be known."""
    with suppress(LbtError, OSError):
        return records.live()
    return []


def with_servers(gpu: Gpu, ours: Sequence[Record]) -> Gpu:
    """A GPU with its holders by the names of the servers that they are of, less what is promised to servers of ours."""
    groups = [(holder, _group(holder.pid)) for holder in gpu.holders]
    names = _names(ours)
    holders = [_named(holder, names.get(group)) for holder, group in groups]
    free = gpu.free_mib
    blind = not groups or any(group is None or holder.used_mib is None for holder, group in groups)
    for record in _starting(ours, gpu.device):
        has = sum(holder.used_mib or 0 for holder, group in groups if group and group == record.pgid)
        if blind and not has and gpu.free_mib is not None:
            has = _fallen(record, gpu.device, gpu.free_mib, ours)
        if (lacks := record.needs[gpu.device] - has) > 0:
            holders.append(_promised(record, lacks))
            free = None if free is None else max(0, free - lacks)
    return replace(gpu, holders=tuple(holders), free_mib=free)


def with_servers_on_cpu(memory: Memory, ours: Sequence[Record]) -> Memory:
    """The same of the machine's own memory."""
    names = _names(ours)
    holders = [_named(holder, names.get(_group(holder.pid))) for holder in memory.holders]
    free = memory.available_mib
    for record in _starting(ours, "cpu"):
        if (lacks := record.needs["cpu"] - _resident(record.pgid)) > 0:
            holders.append(_promised(record, lacks))
            free = max(0, free - lacks)
    return replace(memory, holders=tuple(holders), available_mib=free)


def _starting(ours: Sequence[Record], device: str) -> Iterator[Record]:
    return (record for record in ours if not record.ready and device in record.needs)


def _fallen(record: Record, device: str, free: int, ours: Sequence[Record]) -> int:
    """By how much less is free than when a server was planned, without what those took that were planned after it.

    Those that were planned before it had their shares subtracted from what was free for it, whether they held them or
    not, so that of several that are starting each has what fell below its own mark.
    """
    then = record.free_then.get(device)
    if then is None:
        return 0
    up = [one for one in ours if one.ready and one.free_then.get(device, then) < then]
    return max(0, then - free - sum(one.needs.get(device, 0) for one in up))


def _names(ours: Sequence[Record]) -> dict[int | None, str]:
    return {record.pgid: f"{record.name}, a server of lbt-sim" for record in ours if record.pgid}


def _named(holder: Holder, name: str | None) -> Holder:
    return holder if name is None else replace(holder, name=name)


def _promised(record: Record, mib: int) -> Holder:
    return Holder(record.pgid or record.owner, f"{record.name}, a server of lbt-sim that is starting", mib)


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def _resident(group: int) -> int:
    """MiB that a process group's processes have of their own; files that they map can be had back at any time."""
    if not group:
        return 0
    pages = 0
    for folder in Path("/proc").glob("[0-9]*"):
        if _group(int(folder.name)) == group:
            with suppress(OSError, ValueError, IndexError):  # it ended meanwhile
                resident, shared = (folder / "statm").read_text().split()[1:3]
                pages += int(resident) - int(shared)
    return pages * os.sysconf("SC_PAGE_SIZE") // MIB
