"""The only way to a model: every call goes through the ledger.

`Caller.ask_many` looks each call up by its path, then by its content, and only then pays for it. What comes back
is committed before it is returned. Resuming a run is executing it again against its ledger; replaying is the same
with models forbidden.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from lbt_sim.errors import BudgetExhausted, CallsFailed, Interrupted, LbtError, LedgerMismatch, Place, ReplayMiss
from lbt_sim.ledger import Ledger, PathTuple, StoredCall
from lbt_sim.models.base import CallPath, ChatModel, ChatRequest, ModelInfo, Reply
from lbt_sim.models.pool import Content, Pool
from lbt_sim.models.rows import Batch, as_row, from_row, received
from lbt_sim.models.tolerance import Tolerance

__all__ = ["Asks", "Caller", "Limits", "Meter"]


_CHARGED = frozenset({"answer", "judge", "pass_on"})
"""Calls whose failure students would pay for, however final it is: an item unanswered or not judged, material never
passed on. Who cannot ask or talk is silent, a summary that fails leaves the notes whole, and a failed writing step of
the teacher costs one candidate; these are counted in `failed`, and stop the run only where a later try may succeed."""

_ALONE = frozenset({"chat"})
"""Calls without which whoever asked cannot go on: an agent of AutoGen's in a team. A failure that is kept would come
again each time the run is resumed."""

_COUNT = "count"
"""The purpose of calls that only ask how long a prompt is. They are no answers of a model: no budget is charged for
them, the meter counts them apart, and one that gives up stops the run, since what is asked next hangs on it."""


class Asks(Protocol):
    """What an agent needs of whoever takes its calls to a model."""

    def reads_facts(self, model: str) -> bool:
        """Whether `model` is a rule-based engine."""
        ...

    def context(self, model: str) -> int | None:
        """Tokens that prompt and reply may have together with `model`; None: no limit, or not known."""
        ...

    async def ask(self, model: str, request: ChatRequest) -> Reply:
        """One call."""
        ...

    async def ask_many(self, model: str, requests: Sequence[ChatRequest]) -> list[Reply]:
        """Several calls; replies in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may spend. `failed` is the share of a step's calls that may give up; see `Tolerance`."""

    calls: int | None = None
    tokens: int | None = None
    failed: float = 0.05


@dataclass(slots=True)
class Meter:
    """What the calls have cost so far. Written by the caller, sampled by displays; nothing is decided by it.

    `made`, `replayed` and `shared` say where this execution's replies came from: a model, the ledger by their path,
    an identical call. `failed` and the tokens are those of made and replayed calls together, so that a resumed run
    tells what the whole run has cost; a fork tells of its own rounds. Shared replies cost nothing. Calls that only ask
    how long a prompt is are in none of these: `counted` is how many of them there were, wherever their replies came
    from.
    """

    made: int = 0
    replayed: int = 0
    shared: int = 0
    counted: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int | None = 0
    """None once an answer did not tell: a part is no sum."""
    completion_tokens: int = 0
    in_flight: int = 0
    planned: int = 0
    """Calls asked for and not yet answered, whether sent or waiting."""
    waited: float = 0.0
    """Seconds in which at least one call was in flight: the rest of a run's time is our own."""
    _since: float = 0.0
    started: float = field(default_factory=time.monotonic)
    answered: Counter[tuple[int, str, str]] = field(default_factory=Counter)
    """(round, step, agent) -> answers that are in, for the exam grid."""

    def depart(self) -> None:
        """A call goes out."""
        if not self.in_flight:
            self._since = time.monotonic()
        self.in_flight += 1

    def land(self, calls: int) -> None:
        """Calls are no longer in flight."""
        self.in_flight -= calls
        if calls and not self.in_flight:
            self.waited += time.monotonic() - self._since


@dataclass(frozen=True, slots=True)
class _Served:
    model: ChatModel
    info: ModelInfo


class Caller:
    """Asks models, through the ledger.

    Args:
        models: Name under `models:` → the open model and what it said of itself when it got ready.
        ledger: Where calls are committed.
        limits: The run's budget.
        replay: Whether models are forbidden: a call that the ledger does not hold raises `ReplayMiss`.
        pool: Answers that this run has in common with others; without it, only with itself.
    """

    def __init__(
        self,
        models: Mapping[str, tuple[ChatModel, ModelInfo]],
        ledger: Ledger,
        limits: Limits = Limits(),
        *,
        replay: bool = False,
        pool: Pool | None = None,
    ) -> None:
        self._models = {name: _Served(model, info) for name, (model, info) in models.items()}
        self._ledger = ledger
        self._limits = limits
        self._replay = replay
        self._pool = pool
        self._in_flight: dict[Content, asyncio.Future[Reply]] = {} if pool is None else pool.in_flight
        self._asked: set[CallPath] = set()
        self._tolerance = Tolerance(limits.failed)
        self._paid = ledger.paid_at_open
        """Calls that count against the budget: those in the ledger, those made, and those about to be."""
        self._tokens = ledger.tokens_at_open
        self._idle = asyncio.Event()
        self._idle.set()
        self._seen_before = ledger.committed_at_open > 0
        self.meter = Meter()
        self.draining = False
        """Set by the first interrupt: nothing new is sent, what is in flight is waited for and committed."""

    def reads_facts(self, model: str) -> bool:
        """Whether `model` is a rule-based engine."""
        return self._models[model].model.reads_facts

    def context(self, model: str) -> int | None:
        """Tokens that prompt and reply may have together with `model`; None: no limit, or not known."""
        return self._models[model].info.context

    async def ask(self, model: str, request: ChatRequest) -> Reply:
        """One call; see `ask_many`."""
        return (await self.ask_many(model, [request]))[0]

    async def ask_many(self, model: str, requests: Sequence[ChatRequest]) -> list[Reply]:
        """Replies in the order of `requests`, each committed.

        Raises:
            LedgerMismatch: The ledger holds a different call at a request's path.
            ReplayMiss: Models are forbidden and the ledger does not hold a call.
            BudgetExhausted: The budget does not allow the calls that are missing, or not all of them.
            CallsFailed: More of the step's gave up than is tolerated; this batch's are not committed, so that
                resuming tries them anew.
            Interrupted: The run is draining.
            LbtError: A path was asked for before.
        """
        if not requests:
            return []
        self._claim(requests)
        batch = Batch(requests, self._models[model].info)
        self.meter.planned += len(requests)
        try:
            if self._seen_before:
                self._take_recorded(batch, await self._ledger.find(request.path for request in requests))
            if batch.open and self._replay:
                raise ReplayMiss(
                    "replay needs a call that the ledger does not hold",
                    where=Place(str(self._ledger.file), key=str(requests[batch.open[0]].path)),
                    remedy="The run was not finished, or was made by another version: `lbt-sim resume` completes it.",
                )
            if batch.open:
                await self._share_or_pay(model, batch)
        except BaseException:
            self._asked.difference_update(batch.unwritten())  # nobody has had their replies: they may be asked anew
            raise
        finally:
            self.meter.planned -= len(requests) - batch.counted
        return batch.complete()

    def _claim(self, requests: Sequence[ChatRequest]) -> None:
        """Refuses a path that was asked for before: it is the call's identity, and its row would be taken."""
        for request in requests:
            if request.path in self._asked:
                raise LbtError(
                    f"two calls have the same path in the run: {request.path}",
                    remedy="This is a bug of lbt-sim or of a package that extends it: please report it. "
                    "What was answered so far is kept.",
                )
            self._asked.add(request.path)
        self._tolerance.ask(request.path for request in requests)

    def _take_recorded(self, batch: Batch, found: Mapping[PathTuple, StoredCall]) -> None:
        still_open = []
        for index in batch.open:
            stored = found.get(batch.requests[index].path)
            if stored is None:
                still_open.append(index)
                continue
            if stored.key != batch.key(index):
                raise LedgerMismatch(
                    "the run now asks something else here than what the ledger holds",
                    where=Place(str(self._ledger.file), key=str(batch.requests[index].path)),
                    remedy="The scenario, its data or this program changed under the run: use `lbt-sim fork` "
                    "to go on with a changed scenario, or the version named in manifest.json.",
                )
            batch.replies[index] = from_row(stored)
            if stored.finish == "failed" and batch.requests[index].purpose in _CHARGED:
                self._tolerance.fail(batch.requests[index].path)
            self._take_account(batch, index, "shared" if stored.shared else "replayed")
        batch.open = still_open

    async def _share_or_pay(self, model: str, batch: Batch) -> None:
        """Takes identical deterministic calls from the ledger or from those in flight; makes the rest."""
        while batch.open:
            # Looked at before waiting for the ledger: a call that is committed meanwhile is in one of the two.
            flying = {key: self._in_flight[key] for key in map(batch.content, batch.open) if key in self._in_flight}
            known = await self._known(batch)
            mine: dict[Content, asyncio.Future[Reply]] = {}
            waiting: dict[int, asyncio.Future[Reply]] = {}
            pay: list[int] = []
            for index in batch.open:
                key = batch.content(index)
                if batch.key(index) in known:
                    self._keep_shared(batch, index, known[batch.key(index)])
                elif batch.requests[index].deterministic and (future := flying.get(key) or self._in_flight.get(key)):
                    waiting[index] = future
                else:
                    if batch.requests[index].deterministic:
                        mine[key] = self._in_flight[key] = asyncio.get_running_loop().create_future()
                    pay.append(index)
            await self._pay(model, batch, pay, mine)
            batch.open = await self._wait(batch, waiting)

    async def _pay(
        self, model: str, batch: Batch, pay: Sequence[int], mine: Mapping[Content, asyncio.Future[Reply]]
    ) -> None:
        """Makes the calls `pay`; those who wait for one of `mine` get it once it is committed."""
        try:
            failed = await self._make(model, batch, pay)
            self._refuse_failures(batch, failed)
            for index in failed:
                self._put(batch, index, shared=False)
            await self._ledger.flush()
            for index in pay:
                key = batch.content(index)
                if key in mine and not mine[key].done():
                    mine[key].set_result(batch.reply(index))
                    if self._pool is not None and batch.reply(index).finish != "failed":
                        self._pool.keep(key, batch.reply(index))
        finally:
            for key, future in mine.items():
                del self._in_flight[key]
                future.cancel()

    async def _wait(self, batch: Batch, waiting: Mapping[int, asyncio.Future[Reply]]) -> list[int]:
        """Takes the replies of identical calls in flight; returns those whose call came to nothing: to be made anew.

        A failure is not shared: whether a call gave up would else depend on which of two came first.
        """
        left: list[int] = []
        for index, future in waiting.items():
            if not future.done():
                await asyncio.wait([future])  # unlike awaiting it: that it is cancelled does not cancel us
            if future.cancelled() or future.result().finish == "failed":
                left.append(index)
            else:
                self._keep_shared(batch, index, future.result())
        if len(left) < len(waiting):
            await self._ledger.flush()
        return left

    async def _known(self, batch: Batch) -> dict[bytes, Reply]:
        keys = list({batch.key(index) for index in batch.open if batch.requests[index].deterministic})
        if not keys:
            return {}
        found = await self._ledger.find_keys(keys, batch.answerer)
        known = {key: from_row(call) for key, call in found.items() if call.finish != "failed"}
        if self._pool is not None:
            known |= self._pool.find(batch.answerer, [key for key in keys if key not in known])
        return known

    async def _make(self, model: str, batch: Batch, pay: Sequence[int]) -> list[int]:
        """Makes the calls `pay`; commits the answered ones as they come and returns those that gave up."""
        if not pay:
            return []
        await self._stop_if_draining()
        await self._reserve(_charged(batch, pay))
        failed: list[int] = []
        sent = answered = 0

        def feed() -> Iterator[ChatRequest]:
            nonlocal sent
            for index in pay:
                if self.draining or self._tokens_spent():
                    return
                sent += 1
                self.meter.depart()
                self._idle.clear()
                yield batch.requests[index]

        try:
            async for position, reply in self._models[model].model.create_many(feed()):
                index = pay[position]
                answered += 1
                self._landed(1)
                batch.replies[index] = reply = received(batch.requests[index], reply)
                self._tokens += (reply.prompt_tokens or 0) + (reply.completion_tokens or 0)
                self._take_account(batch, index, "made")
                if reply.finish == "failed":
                    failed.append(index)
                else:
                    self._put(batch, index, shared=False)
        finally:
            self._landed(sent - answered)
            self._paid -= _charged(batch, [index for index in pay if batch.replies[index] is None])
        if answered < len(pay):
            await self._ledger.flush()
            await self._stop_if_draining()
            if answered == sent and self._tokens_spent():
                await self._stop_as_spent(len(pay) - answered)
            raise CallsFailed(
                f"{model} answered {answered} of {len(pay)} calls and stopped",
                remedy="This is a fault of the engine. `lbt-sim resume` tries the rest again.",
            )
        return failed

    def _refuse_failures(self, batch: Batch, failed: Sequence[int]) -> None:
        """Raises when too many calls gave up: a broken server is not an answer."""
        charged = [
            index for index in failed if batch.requests[index].purpose in _CHARGED or batch.reply(index).transient
        ]
        for index in failed:
            if batch.requests[index].purpose == _COUNT:
                raise CallsFailed(
                    f"it could not be found out how long a prompt is: {batch.reply(index).error}",
                    where=Place(key=str(batch.requests[index].path)),
                    remedy="What was answered is kept. When the model answers again, `lbt-sim resume` continues.",
                )
        for index in charged:
            self._tolerance.fail(batch.requests[index].path)
        for index in charged:
            alone = batch.requests[index].purpose in _ALONE and batch.reply(index).transient
            if too_many := self._tolerance.exceeded(batch.requests[index].path, alone=alone):
                failures, calls = too_many
                raise CallsFailed(
                    f"{failures} of {calls} calls gave up: {batch.reply(index).error}",
                    where=Place(key=str(batch.requests[index].path)),
                    remedy="What was answered is kept. When the model answers again, `lbt-sim resume` continues; "
                    "`budget.failed` says how many of a step may give up.",
                )

    async def _reserve(self, wanted: int) -> None:
        """Counts calls against the budget before they are sent: other batches are being sent meanwhile."""
        if self._calls_spent(wanted) or self._tokens_spent():
            await self._stop_as_spent(wanted)
        self._paid += wanted

    def _calls_spent(self, wanted: int) -> bool:
        return self._limits.calls is not None and self._paid + wanted > self._limits.calls

    def _tokens_spent(self) -> bool:
        return self._limits.tokens is not None and self._tokens >= self._limits.tokens

    async def _stop_as_spent(self, wanted: int) -> None:
        """Raises `BudgetExhausted` for `wanted` calls that are not made."""
        limit = "calls" if self._calls_spent(wanted) else "tokens"
        await self._idle.wait()  # what others have in flight is paid for too, and raising here would cancel it
        spent = self._paid if limit == "calls" else self._tokens
        raise BudgetExhausted(
            f"the budget is spent: {spent:,} of {getattr(self._limits, limit):,} {limit}, and the next step needs "
            f"{wanted:,} calls",
            where=Place(key="budget"),
            remedy=f"Raise it and go on: `lbt-sim resume RUN --set budget.{limit}=…`.",
        )

    async def _stop_if_draining(self) -> None:
        if self.draining:
            await self._idle.wait()  # raising here would cancel what others have in flight
            raise Interrupted("interrupted; everything answered so far is kept", remedy="`lbt-sim resume` continues.")

    def _landed(self, calls: int) -> None:
        """Takes account of calls that are no longer in flight."""
        self.meter.land(calls)
        if not self.meter.in_flight:
            self._idle.set()

    def _take_account(self, batch: Batch, index: int, source: Literal["made", "replayed", "shared"]) -> None:
        """Meters a reply that is in."""
        request, reply = batch.requests[index], batch.reply(index)
        batch.counted += 1
        self.meter.planned -= 1
        if request.purpose == _COUNT:
            self.meter.counted += 1
            return
        self.meter.made += source == "made"
        self.meter.replayed += source == "replayed"
        self.meter.shared += source == "shared"
        self.meter.answered[request.path[:3]] += 1
        if source == "shared":
            return
        self.meter.failed += reply.finish == "failed"
        self.meter.prompt_tokens += reply.prompt_tokens or 0
        if reply.prompt_tokens and reply.cached_tokens is None:
            self.meter.cached_tokens = None
        elif self.meter.cached_tokens is not None:
            self.meter.cached_tokens += reply.cached_tokens or 0
        self.meter.completion_tokens += reply.completion_tokens or 0

    def _keep_shared(self, batch: Batch, index: int, reply: Reply) -> None:
        batch.replies[index] = reply
        self._take_account(batch, index, "shared")
        self._put(batch, index, shared=True)

    def _put(self, batch: Batch, index: int, *, shared: bool) -> None:
        batch.written[index] = True
        self._ledger.put(as_row(batch, index, shared=shared))


def _charged(batch: Batch, indices: Iterable[int]) -> int:
    """How many of these calls count against the budget."""
    return sum(batch.requests[index].purpose != _COUNT for index in indices)
