"""Servers on the same device start one after the other, over all runs of a user on a machine.

A starting server looks how much memory is free and takes its share; two that look at once take it twice.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from socket import gethostname

from filelock import FileLock, Timeout

from lbt_sim.models.vllm import records

__all__ = ["turn"]

LOOK = 0.2
"""Seconds between two looks whether the device is free."""
SAY = 10.0
"""Seconds of waiting after which it is said."""


@asynccontextmanager
async def turn(devices: Iterable[str], name: str, tell: Callable[[str], None]) -> AsyncIterator[None]:
    """Hold devices for a server that starts; waits while another one starts there.

    Args:
        devices: The devices' names.
        name: The server's.
        tell: Takes a line about whom it waits for.
    """
    held: list[FileLock] = []
    try:
        for device in sorted(set(devices)):  # In one order, so that two never wait for each other.
            lock = await _hold(device, name, tell)
            held.append(lock)
        yield
    finally:
        for lock in reversed(held):
            lock.release()


async def _hold(device: str, name: str, tell: Callable[[str], None]) -> FileLock:
    # The folder may be shared by machines, which have devices of the same names.
    file = re.sub(r"[^\w.-]+", "-", f"{device}@{gethostname()}.lock")
    lock = FileLock(records.state_folder() / file, thread_local=False)
    since: float | None = time.monotonic()
    while True:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if since is not None and time.monotonic() - since >= SAY:
                tell(f"{name} waits for {device}: {_starter(device)} is starting there")
                since = None
            await asyncio.sleep(LOOK)
        else:
            return lock


def _starter(device: str) -> str:
    """Who starts on a device, as the records have it."""
    for record in records.live():
        if device in record.devices and record.port and not record.ready:  # without a port it is planned only
            return f"{record.name} (of process {record.owner})"
    return "another server"
