"""Memory that is promised to servers which do not hold it yet, so that no other run of the user counts it as free.

A server that was planned, or that loads its weights, does not show in what the driver and the kernel tell. So a plan
leaves a record for each of its servers at once; until a server answers, what it lacks of its share counts as held.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
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
            ModelUnavailable: Another one does not come to its end.
        """
        file = re.sub(r"[^\w.-]+", "-", f"plan@{gethostname()}.lock")
        try:
            with FileLock(records.state_folder() / file, timeout=SECONDS):
                yield
        except Timeout:
            raise ModelUnavailable(
                f"another run has been planning its servers for {SECONDS:.0f} s", remedy="End it, or try again."
            ) from None

    def take(self, launches: Mapping[str, Sequence[Launch]]) -> dict[str, list[Launch]]:
        """Reserves what these servers need; a server that is started from one of them takes its record over.

        Raises:
            ModelUnavailable: It cannot be written down.
        """
        return {name: [self._take(launch) for launch in several] for name, several in launches.items()}

    def _take(self, launch: Launch) -> Launch:
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
        )
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
    for record in _starting(ours, gpu.device):
        has = sum(holder.used_mib or 0 for holder, group in groups if group and group == record.pgid)
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
