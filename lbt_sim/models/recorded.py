"""The only way to a model: every call goes through the ledger.

`Caller.ask_many` looks each call up by its path, then by its content, and only then pays for it. What comes back
is committed before it is returned. Resuming a run is executing it again against its ledger; replaying is the same
with models forbidden.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from lbt_sim.errors import BudgetExhausted, CallsFailed, Interrupted, LedgerMismatch, Place, ReplayMiss
from lbt_sim.ledger import Ledger, PathTuple, StoredCall
from lbt_sim.models.base import CallPath, ChatModel, ChatRequest, Finish, ModelInfo, Reply

__all__ = ["Asks", "Caller", "Limits", "Meter"]


class Asks(Protocol):
    """What an agent needs of whoever takes its calls to a model."""

    def reads_facts(self, model: str) -> bool:
        """Whether `model` is a rule-based engine."""
        ...

    async def ask(self, model: str, request: ChatRequest) -> Reply:
        """One call."""
        ...

    async def ask_many(self, model: str, requests: Sequence[ChatRequest]) -> list[Reply]:
        """Several calls; replies in their order."""
        ...



@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may spend. `failed` is the share of a batch's calls that may give up."""

    calls: int | None = None
    tokens: int | None = None
    failed: float = 0.05


@dataclass(slots=True)
class Meter:
    """What the calls have cost so far. Written by the caller, sampled by displays; nothing is decided by it."""

    made: int = 0
    replayed: int = 0
    shared: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    in_flight: int = 0
    planned: int = 0
    """Calls asked for and not yet answered, whether sent or waiting."""
    started: float = field(default_factory=time.monotonic)
    answered: Counter[tuple[int, str, str]] = field(default_factory=Counter)
    """(round, step, agent) -> answers that are in, for the exam grid."""


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
    """

    def __init__(
        self,
        models: Mapping[str, tuple[ChatModel, ModelInfo]],
        ledger: Ledger,
        limits: Limits = Limits(),
        *,
        replay: bool = False,
    ) -> None:
        self._models = {name: _Served(model, info) for name, (model, info) in models.items()}
        self._ledger = ledger
        self._limits = limits
        self._replay = replay
        self._in_flight: dict[bytes, asyncio.Future[Reply]] = {}
        self._paid = 0
        self._tokens = 0
        self._seen_before = ledger.committed_at_open > 0
        self.meter = Meter()
        self.draining = False
        """Set by the first interrupt: nothing new is sent, what is in flight is waited for and committed."""

    def reads_facts(self, model: str) -> bool:
        """Whether `model` is a rule-based engine."""
        return self._models[model].model.reads_facts

    async def ask(self, model: str, request: ChatRequest) -> Reply:
        """One call; see `ask_many`."""
        return (await self.ask_many(model, [request]))[0]

    async def ask_many(self, model: str, requests: Sequence[ChatRequest]) -> list[Reply]:
        """Replies in the order of `requests`, each committed.

        Raises:
            LedgerMismatch: The ledger holds a different call at a request's path.
            ReplayMiss: Models are forbidden and the ledger does not hold a call.
            BudgetExhausted: The budget does not allow the calls that are missing.
            CallsFailed: More of them gave up than is tolerated; these are not committed, so that resuming tries anew.
            Interrupted: The run is draining.
        """
        if not requests:
            return []
        batch = _Batch(requests, self._models[model].info.identity)
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
        finally:
            self.meter.planned -= len(requests) - batch.counted
        return batch.complete()

    def _take_recorded(self, batch: _Batch, found: Mapping[PathTuple, StoredCall]) -> None:
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
            batch.replies[index] = _reply(stored)
            if stored.shared:
                self.meter.shared += 1
            else:
                self.meter.replayed += 1
                self._pay(batch.reply(index))
            self._count_answer(batch, index)
        batch.open = still_open

    async def _share_or_pay(self, model: str, batch: _Batch) -> None:
        """Takes identical deterministic calls from the ledger or from those in flight; makes the rest."""
        # Looked at before waiting for the ledger: a call that is committed meanwhile is in one of the two.
        flying = {key: self._in_flight[key] for key in map(batch.key, batch.open) if key in self._in_flight}
        known = await self._known(batch)
        mine: dict[bytes, asyncio.Future[Reply]] = {}
        waiting: dict[int, asyncio.Future[Reply]] = {}
        pay: list[int] = []
        for index in batch.open:
            key = batch.key(index)
            if key in known:
                self._keep(batch, index, known[key], shared=True)
            elif batch.requests[index].deterministic and (future := flying.get(key) or self._in_flight.get(key)):
                waiting[index] = future
            else:
                if batch.requests[index].deterministic:
                    mine[key] = self._in_flight[key] = asyncio.get_running_loop().create_future()
                pay.append(index)
        try:
            failed = await self._make(model, batch, pay)
            self._refuse_failures(batch, failed)
            for index in failed:
                self._put(batch, index, shared=False)
            await self._ledger.flush()
            for index in pay:
                key = batch.key(index)
                if key in mine and not mine[key].done():
                    mine[key].set_result(batch.reply(index))
        finally:
            for key, future in mine.items():
                del self._in_flight[key]
                if not future.done():
                    future.cancel()
        for index, future in waiting.items():
            self._keep(batch, index, await future, shared=True)
        if waiting:
            await self._ledger.flush()

    async def _known(self, batch: _Batch) -> dict[bytes, Reply]:
        keys = list({batch.key(index) for index in batch.open if batch.requests[index].deterministic})
        if not keys:
            return {}
        return {
            key: _reply(call) for key, call in (await self._ledger.find_keys(keys)).items() if call.finish != "failed"
        }

    async def _make(self, model: str, batch: _Batch, pay: Sequence[int]) -> list[int]:
        """Makes the calls `pay`; commits the answered ones as they come and returns those that gave up."""
        if not pay:
            return []
        self._stop_if_draining()
        self._check_budget(len(pay))
        failed: list[int] = []
        sent = 0

        def feed() -> Iterator[ChatRequest]:
            nonlocal sent
            for index in pay:
                if self.draining:
                    return
                sent += 1
                self.meter.in_flight += 1
                yield batch.requests[index]

        answered = 0
        try:
            async for position, reply in self._models[model].model.create_many(feed()):
                index = pay[position]
                answered += 1
                self.meter.in_flight -= 1
                self.meter.made += 1
                batch.replies[index] = _clean(reply)
                self._pay(reply)
                self._count_answer(batch, index)
                if reply.finish == "failed":
                    self.meter.failed += 1
                    failed.append(index)
                else:
                    self._put(batch, index, shared=False)
        finally:
            self.meter.in_flight -= sent - answered
        if answered < len(pay):
            await self._ledger.flush()
            self._stop_if_draining()
            raise CallsFailed(
                f"{model} answered {answered} of {len(pay)} calls and stopped",
                remedy="This is a fault of the engine. `lbt-sim resume` tries the rest again.",
            )
        return failed

    def _refuse_failures(self, batch: _Batch, failed: Sequence[int]) -> None:
        """Raises when too many calls gave up: a broken server is not an answer."""
        if not failed:
            return
        graded = batch.requests[failed[0]].purpose == "answer"
        counted = [index for index in failed if graded or batch.reply(index).transient]
        if len(counted) > self._limits.failed * len(batch.requests):
            raise CallsFailed(
                f"{len(counted)} of {len(batch.requests)} calls gave up: {batch.reply(counted[0]).error}",
                where=Place(key=str(batch.requests[counted[0]].path)),
                remedy="What was answered is kept. When the model answers again, `lbt-sim resume` continues; "
                "`budget.failed` says how many may give up.",
            )

    def _check_budget(self, wanted: int) -> None:
        calls, tokens = self._limits.calls, self._limits.tokens
        spent_calls = calls is not None and self._paid + wanted > calls
        if spent_calls or (tokens is not None and self._tokens >= tokens):
            spent = f"{self._paid:,} of {calls:,} calls" if spent_calls else f"{self._tokens:,} of {tokens:,} tokens"
            raise BudgetExhausted(
                f"the budget is spent: {spent}, and the next step needs {wanted:,} calls",
                where=Place(key="budget"),
                remedy="Raise it and go on: `lbt-sim resume RUN --set budget.calls=…`.",
            )

    def _stop_if_draining(self) -> None:
        if self.draining:
            raise Interrupted("interrupted; everything answered so far is kept", remedy="`lbt-sim resume` continues.")

    def _pay(self, reply: Reply) -> None:
        self._paid += 1
        self._tokens += (reply.prompt_tokens or 0) + (reply.completion_tokens or 0)
        self.meter.prompt_tokens += reply.prompt_tokens or 0
        self.meter.cached_tokens += reply.cached_tokens or 0
        self.meter.completion_tokens += reply.completion_tokens or 0

    def _keep(self, batch: _Batch, index: int, reply: Reply, *, shared: bool) -> None:
        batch.replies[index] = reply
        self.meter.shared += shared
        self._count_answer(batch, index)
        self._put(batch, index, shared=shared)

    def _count_answer(self, batch: _Batch, index: int) -> None:
        batch.counted += 1
        self.meter.planned -= 1
        path = batch.requests[index].path
        self.meter.answered[path.round, path.step, path.agent] += 1

    def _put(self, batch: _Batch, index: int, *, shared: bool) -> None:
        self._ledger.put(_stored(batch, index, shared=shared))


class _Batch:
    """Requests on their way to replies."""

    def __init__(self, requests: Sequence[ChatRequest], identity: str) -> None:
        self.requests = requests
        self.identity = identity
        self.replies: list[Reply | None] = [None] * len(requests)
        self.open = list(range(len(requests)))
        self.counted = 0
        self._keys: list[bytes | None] = [None] * len(requests)

    def key(self, index: int) -> bytes:
        found = self._keys[index]
        if found is None:
            found = self._keys[index] = self.requests[index].key(self.identity)
        return found

    def reply(self, index: int) -> Reply:
        reply = self.replies[index]
        if reply is None:
            raise RuntimeError(f"no reply for {self.requests[index].path}")
        return reply

    def complete(self) -> list[Reply]:
        return [self.reply(index) for index in range(len(self.replies))]


def _clean(reply: Reply) -> Reply:
    """Text that SQLite and UTF-8 can hold: lone surrogates become question marks."""
    if reply.text.isascii() and (reply.reasoning is None or reply.reasoning.isascii()):
        return reply
    text, reasoning = (
        None if part is None else part.encode("utf-8", "replace").decode() for part in (reply.text, reply.reasoning)
    )
    return replace(reply, text=text or "", reasoning=reasoning)


def _stored(batch: _Batch, index: int, *, shared: bool) -> StoredCall:
    request, reply = batch.requests[index], batch.reply(index)
    path: CallPath = request.path
    return StoredCall(
        *path,
        batch.key(index),
        int(shared),
        batch.identity,
        request.purpose,
        repr(request.sampling),
        json.dumps(request.choices),
        request.head.digest,
        request.head.json,
        request.last,
        None if request.deterministic else request.seed,
        reply.text,
        reply.finish,
        None if reply.choice_logprobs is None else json.dumps(reply.choice_logprobs),
        reply.prompt_tokens,
        reply.cached_tokens,
        reply.completion_tokens,
        reply.reasoning,
        reply.error,
        reply.seconds,
    )


def _reply(call: StoredCall) -> Reply:
    finish: Finish = call.finish  # type: ignore[assignment]
    return Reply(
        text=call.text,
        finish=finish,
        choice_logprobs=None if call.logprobs is None else tuple(json.loads(call.logprobs)),
        prompt_tokens=call.prompt_tokens,
        cached_tokens=call.cached_tokens,
        completion_tokens=call.completion_tokens,
        reasoning=call.reasoning,
        error=call.error,
        transient=call.finish == "failed",
        seconds=call.seconds,
    )
