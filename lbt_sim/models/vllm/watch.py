"""Whether a server of ours is dead or hung. A process that is, is condemned; whoever owns it starts another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from lbt_sim.models.vllm.probe import SILENT, Figures, Probe
from lbt_sim.models.vllm.process import Process

__all__ = ["Standstill", "before_death", "examine", "watch"]

HEALTH = 30.0
"""Seconds without an answer of `/health`, while calls fail, after which a server counts as dead."""
REFUSED = 3.0
"""The same, where its port refuses or it says itself that it is not well."""
SAMPLE = 1.0
"""Seconds between two looks at a server's counters, at most."""
READ = 5.0
"""Seconds for such a look, at most."""

_T = TypeVar("_T")


class Standstill:
    """For how long calls have waited at a server while none came back and its counters stood still.

    Args:
        most: Seconds between two looks that count at most. What took far longer was ours (a suspended machine, an event
            loop that was busy), not the server's.
    """

    def __init__(self, most: float = 2 * SAMPLE + READ) -> None:
        self._most = most
        self._idle = 0.0
        self._waited = False
        self._finished = -1
        self._figures: Figures | None = None
        self._last = time.monotonic()

    def seconds(self, busy: tuple[int, int], figures: Figures | None) -> float:
        """How long, as of this look; the next one begins anew where something has moved.

        Args:
            busy: Calls in flight, and calls that came back so far.
            figures: The server's counters; None where it does not tell them, which is no progress.
        """
        now = time.monotonic()
        passed, self._last = now - self._last, now
        in_flight, finished = busy
        waited, self._waited = self._waited, bool(in_flight)
        if not waited or finished != self._finished or (figures is not None and figures != self._figures):
            self._idle, self._finished, self._figures = 0.0, finished, figures or self._figures
        elif in_flight:
            self._idle += min(passed, self._most)
        return self._idle


async def watch(
    process: Process, probe: Probe, url: str, *, busy: Callable[[], tuple[int, int]], patience: float
) -> None:
    """Returns when a server is dead, or hung: calls wait, none finishes, and its counters stand still.

    Args:
        process: The server's.
        probe: Asks it.
        url: Its address.
        busy: Gives the calls in flight at it, and those that have finished so far.
        patience: Seconds of standing still that are borne.
    """
    pause = min(SAMPLE, patience / 5)
    standing = Standstill(2 * pause + READ)
    while not process.dead.is_set():
        in_flight, finished = busy()
        figures = await probe.figures(url, min(READ, patience)) if in_flight else None
        if standing.seconds((in_flight, finished), figures) >= patience:
            process.condemn(f"made no progress for {patience:g} s while calls waited")
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await process.dead.wait()


async def examine(process: Process, probe: Probe, url: str, *, patience: float) -> bool:
    """Whether a server at which a call failed is dead; quick when it is well.

    Args:
        process: The server's.
        probe: Asks it.
        url: Its address.
        patience: Seconds without an answer that are borne at most.
    """
    begun = time.monotonic()
    limit = min(HEALTH, patience)
    while not process.dead.is_set():
        left = begun + limit - time.monotonic()
        what = await before_death(process, probe.ill(url, max(0.1, left)))
        if what is None:
            break
        if time.monotonic() - begun >= (limit if what == SILENT else min(limit, REFUSED)):
            process.condemn(what)
        else:
            await asyncio.sleep(0.1)
    return process.dead.is_set()


async def before_death(process: Process, work: Coroutine[Any, Any, _T]) -> _T | None:
    """What the work gives, or None when the process is dead before."""
    task = asyncio.create_task(work)
    death = asyncio.create_task(process.dead.wait())
    try:
        await asyncio.wait({task, death}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        death.cancel()
        await asyncio.wait({task, death})
