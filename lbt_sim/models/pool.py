"""What several runs have in common while they are executed side by side: open models, and answers to equal calls.

A study executes runs of one seed together. Their arms have much in common (the first material's report, an exam of the
same student on the same material); such deterministic calls are made once, whoever asks first, and each run keeps the
answer in its own ledger, as shared.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from lbt_sim.concurrency import cancelled
from lbt_sim.errors import InputError, Place
from lbt_sim.ledger import LedgerReader
from lbt_sim.models.base import ChatModel, ModelInfo, Reply
from lbt_sim.models.registry import open_model
from lbt_sim.models.rows import from_row
from lbt_sim.models.surroundings import Surroundings
from lbt_sim.scenario.schema import ModelSpec

__all__ = ["MOST", "Content", "Lasting", "Pool", "Shelf"]

MOST = 16
"""Models that a shelf keeps open: as many as a worker executes runs side by side."""

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


@runtime_checkable
class Lasting(Protocol):
    """A model that may be costly to start again, and knows whether it is."""

    @property
    def lasting(self) -> bool:
        """Whether it is to stay open as long as anybody may need it."""
        ...


@dataclass(eq=False)
class _Open:
    """A model on a shelf: who uses it, and whether it is ready."""

    name: str
    model: ChatModel
    users: int = 0
    ready: asyncio.Future[ModelInfo] | None = None

    @property
    def spare(self) -> bool:
        """Whether it can be closed: nobody uses it, nothing waits for it, and it can be had again."""
        settled = self.ready is None or self.ready.done()
        return not self.users and settled and not (isinstance(self.model, Lasting) and self.model.lasting)


class Shelf:
    """Models that stay open from run to run. An async context manager.

    Models in use are open, and the latest others, up to `most` in all: a study may have hundreds, each with its weights
    or its caches. What is closed for a newer one is opened anew when it is asked for again; that is nothing for a
    simulated learner, some questions for a server that runs already (closing its model leaves it as it is), and seconds
    for weights in this process. Only models for which servers were started here (`Lasting`) are never closed for
    others: starting those takes minutes. They are few, since each needs room on a GPU.

    Args:
        surroundings: What the engines need; all models of a shelf share it.
        most: Models that are open; more only where more are used at once.
    """

    def __init__(self, surroundings: Surroundings, most: int = MOST) -> None:
        self._surroundings = surroundings
        self._most = most
        self._open: dict[str, _Open] = {}
        """By what they say, the latest last."""
        self._closing: set[asyncio.Future[None]] = set()

    async def __aenter__(self) -> Shelf:
        return self

    async def __aexit__(self, *error: object) -> None:
        for said in reversed(list(self._open)):
            await self._close(said)
        await asyncio.gather(*self._closing)

    @asynccontextmanager
    async def lent(self, name: str, spec: ModelSpec, place: Place) -> AsyncIterator[ChatModel]:
        """The model that says this, for one run; `name` is what it is called there, at `place`."""
        said = spec.model_dump_json()
        if said not in self._open:
            await self._make_room(1)
        if said not in self._open:  # else another run was faster
            self._open[said] = _Open(name, open_model(name, spec, place, self._surroundings))
        used = self._open[said]
        used.users += 1
        try:
            yield used.model
        finally:
            used.users -= 1
            if said in self._open:
                self._open[said] = self._open.pop(said)
            await self._make_room(0)

    async def ready(self, spec: ModelSpec, model: ChatModel) -> ModelInfo:
        """Gets it ready, once for all who use it; where that fails, whoever asks next tries anew."""
        used = self._open[spec.model_dump_json()]
        if used.ready is None or _failed(used.ready):
            used.ready = asyncio.ensure_future(model.ready())
        return await asyncio.shield(used.ready)

    async def _make_room(self, more: int) -> None:
        """Closes what can be spared, the oldest first, until so many more may be opened; and what never got ready."""
        for said, one in list(self._open.items()):
            broken = one.ready is not None and _failed(one.ready)
            if one.spare and said in self._open and (broken or len(self._open) + more > self._most):
                await self._close(said)

    async def _close(self, said: str) -> None:
        closing = asyncio.ensure_future(self._end(self._open.pop(said)))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        await asyncio.shield(closing)  # whoever asked for it may be cancelled, and it is to be closed to its end

    async def _end(self, one: _Open) -> None:
        if one.ready is not None:
            await cancelled([one.ready])
        try:
            await one.model.close()
        except Exception as error:  # whichever run happened to be here has nothing to do with it
            self._surroundings.tell(f"{one.name} cannot be closed ({type(error).__name__}: {error})")


def _failed(task: asyncio.Future[ModelInfo]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
