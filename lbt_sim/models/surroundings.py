"""What engines need of the run that they work in: limits that they share, a place for logs, someone to tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from lbt_sim.models.limits import Gates

__all__ = ["Figures", "Settles", "Surroundings"]

T = TypeVar("T")


def _nobody(text: str) -> None:
    """Hears it, and says nothing."""


@dataclass(frozen=True)
class Surroundings:
    """A run, as its engines see it.

    Attributes:
        gates: The run's limits: models that ask the same server keep its limit together.
        logs: The folder for servers' logs; None: a temporary one.
        tell: Takes what a person should hear of: a server that is being started, or was started anew.
    """

    gates: Gates = field(default_factory=Gates)
    logs: Path | None = None
    tell: Callable[[str], None] = _nobody
    _shared: dict[str, object] = field(default_factory=dict)

    def of(self, name: str, make: Callable[[Surroundings], T]) -> T:
        """What an engine's models have in common in this run, made when the first asks for it."""
        if name not in self._shared:
            self._shared[name] = make(self)
        found: T = self._shared[name]  # type: ignore[assignment]
        return found


@runtime_checkable
class Settles(Protocol):
    """A model that wants to know in what run it is, and by what name, before anything gets ready."""

    def settle(self, surroundings: Surroundings, name: str) -> None:
        """Takes note. Called once, before `ready` of any of the run's models."""
        ...


@runtime_checkable
class Figures(Protocol):
    """A model whose servers tell what they did."""

    async def figures(self) -> Mapping[str, Any]:
        """Since it got ready; {} where it never did. JSON."""
        ...
