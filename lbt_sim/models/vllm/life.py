"""Who looks after a server that calls go to: we ourselves, or the process that keeps it for many runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from lbt_sim.concurrency import cancelled
from lbt_sim.errors import ServerLost
from lbt_sim.models.vllm import records
from lbt_sim.models.vllm.lone import Lone
from lbt_sim.models.vllm.metrics import read_metrics
from lbt_sim.models.vllm.records import Record
from lbt_sim.models.vllm.server import Server

__all__ = ["Attached", "Managed"]

PAUSE = 0.1
"""Seconds between two looks at what another process does."""
LOOK = 30.0
"""Seconds for a question, at most: it may be busy."""


class Managed:
    """A server of this run's own."""

    def __init__(self, server: Server) -> None:
        self.server = server

    @property
    def url(self) -> str:
        """Its root now."""
        return self.server.url.removesuffix("/v1")

    @property
    def alive(self) -> bool:
        """Whether it is not just being started."""
        return self.server.alive

    @property
    def gone(self) -> bool:
        """Whether it cannot be brought back."""
        return self.server.gone

    @property
    def starts(self) -> int:
        """How often it was started."""
        return self.server.generation

    async def up(self) -> int:
        """Waits until it answers; how often it was started.

        Raises:
            ServerLost: It cannot be brought back.
        """
        return await self.server.up()

    async def lost(self, generation: int) -> bool:
        """Whether a call failed because the server did."""
        return await self.server.lost(generation)

    @asynccontextmanager
    async def suspecting(self) -> AsyncIterator[None]:
        """While a call is alone at it, a death of it may be that call's."""
        with self.server.suspecting():
            yield


class Attached:
    """A server that another process keeps, and starts anew when it dies: it is waited for, and never signalled.

    Args:
        record: What that process says of it.
        seconds: How long to wait for it.
    """

    def __init__(self, record: Record, seconds: float) -> None:
        self._record = record
        self._seconds = seconds
        self._generation = 1
        self._down = False
        self._gone: ServerLost | None = None
        self._lone = Lone(record.token)
        self._alone = False
        self._back: asyncio.Future[None] | None = None

    @property
    def url(self) -> str:
        """Its root now."""
        return self._record.url.removesuffix("/v1")

    @property
    def alive(self) -> bool:
        """Whether it answers, as far as is known."""
        return not self._down

    @property
    def gone(self) -> bool:
        """Whether it was waited for in vain."""
        return self._gone is not None

    @property
    def starts(self) -> int:
        """How often it was started, as far as was seen from here."""
        return self._generation

    async def up(self) -> int:
        """Waits until it answers again.

        Raises:
            ServerLost: Whoever kept it is gone, or it did not come back in time.
        """
        while True:
            while self._down:
                if self._gone is not None:
                    raise ServerLost(self._gone.what, remedy=self._gone.remedy)
                if self._back is None or self._back.done():
                    self._back = asyncio.ensure_future(self._wait())
                await asyncio.shield(self._back)
            if self._alone or not self._lone.held:
                return self._generation
            await asyncio.sleep(PAUSE)  # another run has a call alone there

    async def lost(self, generation: int) -> bool:
        """Whether a call failed because the server did."""
        if generation != self._generation or self._down:
            return True
        record = self._recorded()
        if record is not None and record.pgid == self._record.pgid and await self._answers():
            return False
        if generation == self._generation:
            self._down = True
        return True

    @asynccontextmanager
    async def suspecting(self) -> AsyncIterator[None]:
        """While a call is alone at it, among those of all runs: they wait, and its keeper knows."""
        while not self._lone.take():  # noqa: ASYNC110 (other processes set no events)
            await asyncio.sleep(PAUSE)
        self._alone = True
        try:
            await self._quiet()
            yield
            await self._noticed()
        finally:
            self._alone = False
            self._lone.give_back()

    async def _quiet(self) -> None:
        """Waits until what others have in flight there is done."""
        while not self._down and await self._in_flight():  # noqa: ASYNC110
            await asyncio.sleep(PAUSE)

    async def _noticed(self) -> None:
        """Waits until its keeper has seen that it died, if it did, and so with whose call."""
        while self._down and self._recorded() == self._record and not await self._answers():  # noqa: ASYNC110
            await asyncio.sleep(PAUSE)

    async def close(self) -> None:
        """Waits for it no longer."""
        if self._back is not None:
            await cancelled([self._back])

    async def _wait(self) -> None:
        try:
            await self._answer_again()
        except ServerLost as error:
            self._gone = error
            raise

    async def _answer_again(self) -> None:
        end = time.monotonic() + self._seconds
        while time.monotonic() < end:
            record = self._recorded()
            if record is None:
                raise ServerLost(
                    f"{self._record.name}: the server that was kept running is gone",
                    remedy="Start it again with `lbt-sim models serve`, or let the run start its own; what was "
                    "answered is kept.",
                )
            self._record = record
            if record.ready and await self._answers():
                self._generation, self._down = self._generation + 1, False
                return
            await asyncio.sleep(0.5)
        raise ServerLost(
            f"{self._record.name}: the server that is kept running has not answered for {self._seconds:g} s",
            remedy=f"Its log: {self._record.log}. What was answered is kept.",
        )

    def _recorded(self) -> Record | None:
        """What is said of it now; None where it is gone."""
        return next((record for record in records.live() if record.token == self._record.token), None)

    async def _in_flight(self) -> int:
        """Calls that it has, of all runs; 0 where it does not tell."""
        try:
            async with self._session() as session, session.get(f"{self.url}/metrics") as response:
                now = read_metrics(await response.text("utf-8", "replace"))
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0
        return int((now.running or 0) + (now.waiting or 0))

    def _session(self) -> aiohttp.ClientSession:
        headers = {"Authorization": f"Bearer {self._record.api_key}"}
        return aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=LOOK), trust_env=False)

    async def _answers(self) -> bool:
        """Whether it is there and calls its model as it did."""
        try:
            async with self._session() as session:
                async with session.get(f"{self.url}/health") as response:
                    if response.status != 200:
                        return False
                async with session.get(f"{self.url}/v1/models") as response:
                    told = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return False
        entries = told.get("data") if isinstance(told, dict) else None
        return isinstance(entries, list) and any(
            isinstance(entry, dict) and entry.get("id") == self._record.served for entry in entries
        )
