"""Servers that are kept up for many runs: what `lbt-sim models serve` does until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname
from typing import Any

from filelock import FileLock, Timeout

from lbt_sim.concurrency import cancelled
from lbt_sim.errors import ModelUnavailable, Place
from lbt_sim.models.surroundings import Surroundings
from lbt_sim.models.vllm import records
from lbt_sim.models.vllm.fleet import Fleet
from lbt_sim.models.vllm.spec import VllmSpec

__all__ = ["Kept", "keep", "kept", "kept_logs"]

LOOK = 1.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A server that is up.

    Attributes:
        name: The entry under `models:` that it answers.
        model: What it serves.
        url: Its address, with `/v1`.
        served: What it calls the model.
        log: Its log file.
    """

    name: str
    model: str
    url: str
    served: str
    log: Path


def kept_logs() -> Path:
    """Where the logs of kept servers go: beside their records."""
    return records.state_folder() / "logs" / str(os.getpid())


async def keep(
    entries: Mapping[str, VllmSpec], tell: Callable[[str], None], ready: Callable[[list[Kept]], None]
) -> None:
    """Starts the servers of these entries, and keeps them up until SIGINT or SIGTERM.

    Args:
        entries: Name under `models:` -> its options.
        tell: Takes what happens to them.
        ready: Told once, when all of them answer.

    Raises:
        ModelUnavailable: One cannot be started, or is kept already; then none is.
        ServerLost: All of an entry died and cannot be brought back; the others are stopped too.
    """
    for name, spec in entries.items():
        if spec.urls:
            raise ModelUnavailable(
                f"'{name}' names servers that run already",
                where=Place(key=f"models.{name}.urls"),
                remedy="They need not be kept by lbt-sim: runs use them as they are.",
            )
    with _alone(entries):
        await asyncio.to_thread(records.sweep_logs, kept_logs().parent)
        await _keep(entries, tell, ready)
        records.remove_logs(kept_logs())  # after a failure they are what is wanted


@contextmanager
def _alone(entries: Mapping[str, VllmSpec]) -> Iterator[None]:
    """As long as these entries' servers are started and kept, nobody else of this user starts to keep them here.

    Raises:
        ModelUnavailable: Somebody does, or has.
    """
    with ExitStack() as held:
        for key, name in sorted({spec.server_key: name for name, spec in entries.items()}.items()):
            # The folder may be shared by machines, each of which may have servers of its own.
            file = re.sub(r"[^\w.-]+", "-", f"serve-{key}@{gethostname()}.lock")
            lock = FileLock(records.state_folder() / file, thread_local=False)
            try:
                held.enter_context(lock.acquire(timeout=0))
            except Timeout:
                raise _kept_already(name, key) from None
            if records.find_kept(key):
                raise _kept_already(name, key)
        yield


def _kept_already(name: str, key: str) -> ModelUnavailable:
    found = records.find_kept(key)
    what = f"is kept up already, by process {found[0].owner} ({found[0].url})" if found else "is being started already"
    return ModelUnavailable(
        f"'{name}' {what}" + ("" if found else ", by another `lbt-sim models serve`"),
        where=Place(key=f"models.{name}"),
        remedy="Runs use that one" + (". " if found else " once it is up. ") + "To start it anew, stop that process "
        "first.",
    )


async def _keep(
    entries: Mapping[str, VllmSpec], tell: Callable[[str], None], ready: Callable[[list[Kept]], None]
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        async with _serving(entries, tell, ready) as work:
            either: list[asyncio.Future[Any]] = [stopped, work]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
    finally:
        await cancelled([stopped])
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@asynccontextmanager
async def kept(entries: Mapping[str, VllmSpec], tell: Callable[[str], None]) -> AsyncIterator[None]:
    """Keeps up the servers of these entries as long as the context lasts; those that are kept already are left alone.

    Args:
        entries: Name under `models:` -> its options, none with `urls`.
        tell: Takes what happens to them.

    Raises:
        ModelUnavailable: One cannot be started.
    """
    missing = {name: spec for name, spec in entries.items() if not records.find_kept(spec.server_key)}
    if not missing:
        yield
        return
    up = asyncio.Event()
    with _alone(missing):
        await asyncio.to_thread(records.sweep_logs, kept_logs().parent)
        async with _serving(missing, tell, lambda servers: up.set()) as work:
            waiting = asyncio.ensure_future(up.wait())
            try:
                either: list[asyncio.Future[Any]] = [waiting, work]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    await work
            finally:
                await cancelled([waiting])
            yield  # one that is lost later is told by the runs that use it
        records.remove_logs(kept_logs())  # after a failure they are what is wanted


@asynccontextmanager
async def _serving(
    entries: Mapping[str, VllmSpec], tell: Callable[[str], None], ready: Callable[[list[Kept]], None]
) -> AsyncIterator[asyncio.Future[None]]:
    """The servers, being started and watched by a task that ends only when it fails; stopped at the end."""
    fleet = Fleet(Surroundings(logs=kept_logs(), tell=tell), kept=True)
    for name, spec in entries.items():
        fleet.join(name, spec)
    work = asyncio.ensure_future(_serve(fleet, entries, ready))
    try:
        yield work
    finally:
        await cancelled([work])
        for name in entries:
            await fleet.leave(name)


async def _serve(fleet: Fleet, entries: Mapping[str, VllmSpec], ready: Callable[[list[Kept]], None]) -> None:
    for name in entries:
        await fleet.open(name)
    ready(
        [Kept(name, fleet.model_of(name), s.url, s.served, s.log) for name in entries for s in fleet.servers_of(name)]
    )
    while True:
        for name in entries:
            servers = fleet.servers_of(name)
            if all(server.gone for server in servers):
                await servers[0].up()  # raises, and says why
        await asyncio.sleep(LOOK)
