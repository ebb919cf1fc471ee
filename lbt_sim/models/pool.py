"""What several runs have in common while they are executed side by side: open models, and answers to equal calls.

A study executes runs of one seed together. Their arms have much in common (the first material's report, an exam of the
same student on the same material); such deterministic calls are made once, whoever asks first, and each run keeps the
answer in its own ledger, as shared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from lbt_sim.errors import InputError, Place
from lbt_sim.ledger import LedgerReader
from lbt_sim.models.base import ChatModel, ModelInfo, Reply
from lbt_sim.models.registry import open_model
from lbt_sim.models.rows import from_row
from lbt_sim.models.surroundings import Surroundings
from lbt_sim.scenario.schema import ModelSpec

__all__ = ["Content", "Pool", "Shelf"]

Content = tuple[str, bytes]
"""Who answers, and a request's key: calls for which these are equal may share a reply."""


@dataclass
class Pool:
    """Equal deterministic calls of several runs.

    Attributes:
        ledgers: Those that earlier executions left: of runs that are finished, or were interrupted.
        in_flight: Calls that one of the runs is making; the others wait for its reply.
    """

    ledgers: Sequence[LedgerReader] = ()
    in_flight: dict[Content, asyncio.Future[Reply]] = field(default_factory=dict)
    _known: dict[Content, Reply] = field(default_factory=dict)

    def find(self, answerer: str, keys: Iterable[bytes]) -> dict[bytes, Reply]:
        """The replies that are known already, by key. A call that gave up is not among them: it may be tried anew."""
        found: dict[bytes, Reply] = {}
        rest: list[bytes] = []
        for key in keys:
            reply = self._known.get((answerer, key))
            if reply is None:
                rest.append(key)
            else:
                found[key] = reply
        for ledger in self.ledgers:
            if not rest:
                break
            try:
                calls = ledger.find_keys(rest, answerer)
            except InputError:  # damaged: whoever goes on with that run is told, the others do without
                self.ledgers = [one for one in self.ledgers if one is not ledger]
                continue
            for key, call in calls.items():
                if call.finish != "failed":
                    found[key] = self._known[answerer, key] = from_row(call)
            rest = [key for key in rest if key not in found]
        return found

    def keep(self, content: Content, reply: Reply) -> None:
        """Takes a reply that is committed."""
        self._known[content] = reply


class Shelf:
    """Models that stay open from run to run. An async context manager.

    Args:
        surroundings: What the engines need; all models of a shelf share it.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._stack = AsyncExitStack()
        self._open: dict[str, ChatModel] = {}
        self._ready: dict[str, asyncio.Future[ModelInfo]] = {}

    async def __aenter__(self) -> Shelf:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    def open(self, name: str, spec: ModelSpec, place: Place) -> ChatModel:
        """The model that says this; `name` is what it is called where it is first asked for."""
        said = spec.model_dump_json()
        if said not in self._open:
            self._open[said] = open_model(name, spec, place, self._surroundings)
            self._stack.push_async_callback(self._open[said].close)
        return self._open[said]

    async def ready(self, spec: ModelSpec, model: ChatModel) -> ModelInfo:
        """Gets it ready, once for all; where that fails, whoever asks next tries anew."""
        said = spec.model_dump_json()
        if said not in self._ready or _failed(self._ready[said]):
            self._ready[said] = asyncio.ensure_future(model.ready())
        return await asyncio.shield(self._ready[said])


def _failed(task: asyncio.Future[ModelInfo]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
