"""One server as models see it, and the servers of one entry together: calls in flight, figures, how it is."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from lbt_sim.models.limits import Gate
from lbt_sim.models.replica import Replica
from lbt_sim.models.vllm.capabilities import Capabilities
from lbt_sim.models.vllm.life import Attached, Managed
from lbt_sim.models.vllm.metrics import Snapshot
from lbt_sim.models.vllm.pace import FIRST, MOST, Pace
from lbt_sim.models.vllm.watch import Standstill

__all__ = ["Party", "Station"]


@dataclass(eq=False)
class Station:
    """One server as models see it: where it is, how many calls it is given, what it has done.

    Attributes:
        name: What stands for it where prompts are dealt out over replicas: the same in every run.
        url: Its root, without `/v1`.
        served: What it calls its model.
        key: Its API key.
        life: Who looks after it; None of one that runs somewhere, by its address.
        most: The scenario's cap on calls in flight.
        patience: Seconds without any progress, while calls wait, after which one that nobody looks after is given up.
        kept: Whether it is kept for the calls of other processes: what is in flight is then known from itself.
        can: What it can.
        silent: Whether it has no figures to tell.
        away: Whether it runs somewhere, and was found not to answer, or to stand still: it is passed over.
    """

    name: str
    url: str
    served: str
    key: str | None = None
    life: Managed | Attached | None = None
    most: int = MOST
    patience: float = math.inf
    can: Capabilities = field(default_factory=Capabilities)
    gate: Gate = field(init=False)
    pace: Pace = field(init=False)
    replicas: list[Replica] = field(default_factory=list)
    done: Snapshot = field(default_factory=Snapshot)
    kept: bool = False
    silent: bool = False
    away: bool = False
    _last: Snapshot | None = None
    _unread: bool = False
    _standing: Standstill = field(default_factory=Standstill)

    def __post_init__(self) -> None:
        self.pace = Pace(min(FIRST, self.most), self.most)
        self.gate = Gate(self.pace.limit)

    def replica(self, adapter: str | None = None) -> Replica:
        """The server for one model's transport, answering with its own weights or with an adapter."""
        start = b'{"model":' + json.dumps(adapter or self.served).encode() + b","
        replica = Replica(self.url, self.gate, name=self.name, key=self.key, life=self.life, start=start)
        replica.down_until = math.inf if self.away else 0.0
        self.replicas.append(replica)
        return replica

    def busy(self) -> tuple[int, int]:
        """Calls in flight, and calls that came back: of a server that is kept, those of other processes."""
        if self.kept:
            last = self._last or Snapshot()
            in_flight = int((last.running or 0) + (last.waiting or 0))
            # One that does not even tell may hold any number of them.
            return max(in_flight, self._unread), int(last.finished or 0)
        return sum(r.calls for r in self.replicas), sum(r.finished for r in self.replicas)

    @property
    def gone(self) -> bool:
        """Whether it cannot be brought back."""
        return self.life is not None and self.life.gone

    @property
    def pushed_back(self) -> int:
        """How often it has sent calls back so far."""
        return sum(replica.pushed_back for replica in self.replicas)

    def look(self, now: Snapshot | None) -> None:
        """Takes note of what the server says of itself, and lets in as many calls as that suggests.

        Args:
            now: None where it does not tell: that it never did is one thing (`silent`), that it no longer does another.
        """
        self._unread = now is None and not self.silent
        if now is not None:
            if self._last is not None:
                self.done = self.done.plus(now.since(self._last))
            self._last = now
        if now is not None or self.silent:
            wanted = self.gate.full and not self.gate.lone
            self.gate.limit = self.pace.look(now or Snapshot(), wanted=wanted, pushed_back=self.pushed_back)
        if self.life is None and self.tells:
            self._give_up_where_it_stands_still(now)

    @property
    def tells(self) -> bool:
        """Whether it has ever told a figure."""
        return self._last is not None and self._last.finished is not None

    def _give_up_where_it_stands_still(self, now: Snapshot | None) -> None:
        """Breaks its calls off: they are sent again, to another replica where there is one.

        Only where there have been figures. Without them one long reply looks the same.
        """
        figures = None if now is None else (now.prompt_tokens, now.generated, now.finished)
        if self._standing.seconds(self.busy(), figures) >= self.patience:
            self.pass_over(f"made no progress for {self.patience:g} s while calls waited")

    def pass_over(self, why: str) -> None:
        """Breaks its calls off, and has them made elsewhere until it is `back`."""
        self.away = True
        for replica in self.replicas:
            replica.break_off(why)
            replica.down_until = math.inf

    def back(self) -> None:
        """It answers."""
        self.away = False
        for replica in self.replicas:
            replica.down_until = 0.0


class Party:
    """The servers that answer one entry of a scenario, and what is known of them.

    Attributes:
        stations: One for each replica.
        weights: The model's identity: name and revision or digest.
        answers_as: What the servers call the LoRA adapter, None without one.
        adapter: The LoRA adapter's identity, '' without one.
        detail: For the manifest.
        server: Addresses that the scenario gave, '' for servers of our own.
        gate: At which calls wait before they are taken on: as wide as the stations' gates together.
    """

    def __init__(
        self,
        stations: Sequence[Station],
        look: Callable[[Station], Awaitable[None]],
        *,
        weights: str,
        answers_as: str | None,
        adapter: str,
        detail: Mapping[str, Any],
        server: str,
    ) -> None:
        self.stations = tuple(stations)
        self._look = look
        self.weights, self.answers_as, self.adapter = weights, answers_as, adapter
        self.detail, self.server = dict(detail), server
        self.can = reduce(Capabilities.shared_with, (station.can for station in stations))
        self.gate = Gate(sum(station.gate.limit for station in stations))
        self._begun = time.monotonic()

    @property
    def starts(self) -> int:
        """How often the servers were started, all together: each time with an empty cache."""
        return sum(station.life.starts for station in self.stations if station.life)

    def widen(self) -> None:
        """Follows the limits of the stations that answer."""
        there = [station for station in self.stations if not station.gone] or self.stations
        self.gate.limit = sum(station.gate.limit for station in there)

    async def figures(self) -> dict[str, Any]:
        """What the servers did since they were opened for this run; for other runs too, where these share them."""
        await asyncio.gather(*(self._look(station) for station in self.stations))
        done = reduce(Snapshot.plus, (station.done for station in self.stations), Snapshot())
        seconds = time.monotonic() - self._begun
        sent, computed = done.prompt_tokens, done.computed
        restarts = [why for s in self.stations if isinstance(s.life, Managed) for why in s.life.server.restarts]
        gone = sum(station.gone for station in self.stations)
        return {
            "prompt_tokens": _whole(sent),
            "computed": _whole(computed),
            "prefix_hit_rate": round(1 - computed / sent, 4) if sent and computed is not None else None,
            "generated": _whole(done.generated),
            "tokens_per_second": round(((sent or 0) + (done.generated or 0)) / seconds, 1) if seconds else None,
            "preempted": _whole(done.preempted),
            "in_flight_at_most": sum(station.pace.highest for station in self.stations),
            "pushed_back": sum(station.pushed_back for station in self.stations),
            "restarts": restarts,
            "replicas": len(self.stations),
            **({"lost": gone} if gone else {}),
        }


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
