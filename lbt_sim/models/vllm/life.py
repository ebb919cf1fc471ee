"""Who looks after a server that calls go to: we ourselves, or the process that keeps it for many runs."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager, nullcontext

import aiohttp

from lbt_sim.concurrency import cancelled
from lbt_sim.errors import ServerLost
from lbt_sim.models.vllm import records
from lbt_sim.models.vllm.records import Record
from lbt_sim.models.vllm.server import Server

__all__ = ["Attached", "Managed"]


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

    def suspecting(self) -> AbstractContextManager[None]:
        """While a call is alone at it, a death of it may be that call's."""
        return self.server.suspecting()


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
        while self._down:
            if self._gone is not None:
                raise ServerLost(self._gone.what, remedy=self._gone.remedy)
            if self._back is None or self._back.done():
                self._back = asyncio.ensure_future(self._wait())
            await asyncio.shield(self._back)
        return self._generation

    async def lost(self, generation: int) -> bool:
        """Whether a call failed because the server did."""
        if generation != self._generation or self._down:
            return True
        if await self._answers():
            return False
        if generation == self._generation:
            self._down = True
        return True

    def suspecting(self) -> AbstractContextManager[None]:
        """Whoever keeps it counts its deaths, and knows nothing of our calls."""
        return nullcontext()

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
            record = next((r for r in records.live() if r.token == self._record.token), None)
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

    async def _answers(self) -> bool:
        """Whether it is there and calls its model as it did."""
        headers = {"Authorization": f"Bearer {self._record.api_key}"}
        limit = aiohttp.ClientTimeout(total=10)
        try:
            async with aiohttp.ClientSession(headers=headers, timeout=limit, trust_env=False) as session:
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
