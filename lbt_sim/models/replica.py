"""A server as calls see it: where it is, who looks after it, what is in flight, and how a call to it may fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from hashlib import blake2b
from typing import Protocol

from lbt_sim.models.limits import Gate

__all__ = ["CONVICTED", "QUARANTINE", "SUSPECT", "Failure", "Life", "Replica"]

SUSPECT = 2
"""Times that servers die with a call in flight, after which it is sent with no other beside it."""
CONVICTED = 2
"""Times that a server dies with one call and no other in flight, after which it is the call that cannot be answered."""
QUARANTINE = 5.0
"""Seconds during which a replica that cannot be reached is passed over, where there is another."""


class Failure(Exception):
    """An attempt failed.

    Attributes:
        retry: Whether to try again.
        transient: Whether a later run may succeed.
        status: The HTTP status, if there was one.
        after: Seconds that the server asks to wait.
        arrived: Whether the server may have got the call.
        deaths: How often a server died with these calls in flight.
    """

    def __init__(
        self,
        what: str,
        *,
        retry: bool = False,
        transient: bool = False,
        status: int = 0,
        after: float = 0.0,
        arrived: bool = True,
        deaths: int = 0,
    ) -> None:
        super().__init__(what)
        self.retry = retry
        self.transient = transient or retry
        self.status = status
        self.after = after
        self.arrived = arrived
        self.deaths = deaths


class Life(Protocol):
    """Whoever looks after a replica's server: starts it anew when it dies, and knows where it is."""

    @property
    def url(self) -> str:
        """Its base address now."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it answers, as far as is known: not while it is being started."""
        ...

    async def up(self) -> int:
        """Waits until it answers; how often it has been started.

        Raises:
            ServerLost: It cannot be brought back.
        """
        ...

    async def lost(self, generation: int) -> bool:
        """Whether a call to that start of it failed because the server did: then it is to be sent again."""
        ...

    def suspecting(self) -> AbstractAsyncContextManager[None]:
        """While a call is alone at the server: nobody else's is there, and what it dies of is not held against it."""
        ...


class Replica:
    """A server, its limit, and how it is.

    Args:
        url: Its base address.
        gate: Its limit.
        name: What stands for it where heads are dealt out; without it its address.
        key: Its API key, where it has one of its own.
        life: Who looks after it; its calls are then never charged for what the server does.
        start: What every call's body begins with at this one: servers may call the same model by different names.
    """

    def __init__(
        self,
        url: str,
        gate: Gate,
        *,
        name: str | None = None,
        key: str | None = None,
        life: Life | None = None,
        start: bytes = b"",
    ) -> None:
        self._url = url
        self.gate = gate
        self.life = life
        self.start = start
        self.headers = {"Authorization": f"Bearer {key}"} if key else None
        self.down_until = 0.0
        self.resume_at = 0.0
        self.calls = 0
        """Calls in flight."""
        self.finished = 0
        """Calls that came back, whatever they brought."""
        self.pushed_back = 0
        """How often it said that it has more than it wants."""
        self._name = (name or url).encode()
        self._clocks: set[asyncio.Timeout] = set()
        self._broken_off = ""

    @property
    def url(self) -> str:
        """Its base address."""
        return self.life.url if self.life else self._url

    @asynccontextmanager
    async def in_flight(self, calls: int) -> AsyncIterator[None]:
        """While calls are in flight: they are counted, and can be broken off.

        Raises:
            Failure: They were.
        """
        self.calls += calls
        clock = asyncio.timeout(None)
        self._clocks.add(clock)
        try:
            async with clock:
                yield
        except TimeoutError:
            raise Failure(f"{self.url} {self._broken_off}", retry=True) from None
        finally:
            self._clocks.discard(clock)
            self.calls -= calls
            self.finished += calls

    def break_off(self, why: str) -> None:
        """Ends all calls in flight as failed, and passes it over for a while: it hangs."""
        self._broken_off = why
        for clock in self._clocks:
            if not clock.expired():
                clock.reschedule(0.0)
        self.quarantine()

    def quarantine(self) -> None:
        """Pass it over for a while."""
        self.down_until = max(self.down_until, time.monotonic() + QUARANTINE)

    def rank(self, digest: bytes) -> bytes:
        """Rendezvous hashing: each head has its own order of replicas, and losing one moves only its heads."""
        return blake2b(self._name + digest, digest_size=8).digest()
