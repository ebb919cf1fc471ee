"""Entries under `models:` that the same vLLM servers answer, and the servers that do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from lbt_sim.errors import Place
from lbt_sim.models.openai import api_key
from lbt_sim.models.vllm.check import at
from lbt_sim.models.vllm.life import Managed
from lbt_sim.models.vllm.pace import MOST
from lbt_sim.models.vllm.server import Server
from lbt_sim.models.vllm.spec import VllmSpec, path_of
from lbt_sim.models.vllm.station import Station

__all__ = ["Group", "adapter_name", "told"]


def adapter_name(spec: VllmSpec) -> str | None:
    """What servers call an entry's LoRA adapter; None without one."""
    if spec.lora is None or spec.urls:
        return spec.lora  # servers that run already have names for theirs
    return "lora-" + blake2b(str(path_of(spec.lora).resolve()).encode(), digest_size=6).hexdigest()


@dataclass
class Group:
    """Entries that the same servers answer."""

    name: str
    spec: VllmSpec
    members: dict[str, VllmSpec] = field(default_factory=dict)
    stations: list[Station] = field(default_factory=list)
    servers: list[Server] = field(default_factory=list)
    detail: Mapping[str, Any] = field(default_factory=dict)
    opening: asyncio.Future[None] | None = None
    """Opens it, with others; None before, and where that failed."""
    verified: set[str] = field(default_factory=set)
    """Names of the model and its adapters that the servers are known to answer to."""

    @property
    def most(self) -> int:
        """The smallest of the members' caps on calls in flight."""
        return min((spec.concurrency or MOST for spec in self.members.values()), default=MOST)

    @property
    def adapters(self) -> dict[str, str]:
        """Served name -> folder, of all members' adapters."""
        found: dict[str, str] = {}
        for entry, spec in self.members.items():
            with at(entry, "lora"):
                if spec.lora and not spec.urls and (name := adapter_name(spec)):
                    found[name] = spec.lora
        return found

    def follow_caps(self) -> None:
        """Follows the caps of those that it has now."""
        for station in self.stations:
            pace = station.pace
            pace.most = self.most
            pace.limit = station.gate.limit = min(pace.limit, pace.most)

    def given(self, number: int, url: str) -> Station:
        """A server that runs somewhere, by its address."""
        spec = self.spec
        key = api_key(spec.api_key_env, Place(key=f"models.{self.name}.api_key_env"))
        root = url.removesuffix("/v1")
        return Station(str(number), root, spec.model, key, most=self.most, patience=spec.patience)


def told(station: Station) -> dict[str, Any]:
    """How a server was come by: started here, kept by others, given by its address."""
    how = "started" if isinstance(station.life, Managed) else "kept" if station.life else "given"
    return {"how": how} | ({"url": station.url} if how == "given" else {})
