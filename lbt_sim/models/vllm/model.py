"""The engine `vllm`: whole exams asked of servers that look after themselves.

`fleet.py` has the servers, `ask.py` what is sent and read. Here requests are put into groups, sent, and sent alone
where a group is refused.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from lbt_sim.concurrency import cancelled
from lbt_sim.models import completions, labels
from lbt_sim.models.base import ChatRequest, Head, ModelInfo, Reply
from lbt_sim.models.limits import Group, in_groups
from lbt_sim.models.openai_transport import PUSHED_BACK, Limits, Transport
from lbt_sim.models.replica import SUSPECT, Failure
from lbt_sim.models.surroundings import Surroundings
from lbt_sim.models.vllm import ask
from lbt_sim.models.vllm.ask import Choices, Way
from lbt_sim.models.vllm.capabilities import Capabilities
from lbt_sim.models.vllm.fleet import Fleet
from lbt_sim.models.vllm.life import Managed
from lbt_sim.models.vllm.spec import VllmSpec
from lbt_sim.models.vllm.station import Party

__all__ = ["VllmModel", "VllmSpec"]

CHAT, BATCH, TOKENIZE = "/v1/chat/completions", "/v1/chat/completions/batch", "/tokenize"
CALL_SECONDS = 3600.0
"""A server that stands still is found out by its watch, not by a call's clock: this is for a call that was lost."""
LARGEST_GROUP = 64
_HEADS = 256
_HARMLESS = frozenset(
    {"max-num-seqs", "max-num-batched-tokens", "enforce-eager", "enable-prefix-caching", "block-size", "swap-space"}
    | {
        "enable-log-requests",
        "disable-log-requests",
        "max-log-len",
        "uvicorn-log-level",
        "max-parallel-loading-workers",
    }
)
"""Flags of a server that change how fast it answers, and of what it answers the last digits at most."""
_WARM = 4096


class VllmModel:
    """A model on vLLM servers.

    Attributes:
        salt: When set, the prefix cache of this name is used, which nothing else fills.
    """

    reads_facts = False

    def __init__(self, spec: VllmSpec) -> None:
        self._spec = spec
        self._name = "vllm"
        self.salt: str | None = None
        self._fleet: Fleet | None = None
        self._party: Party | None = None
        self._transport: Transport | None = None
        self._can = Capabilities()
        self._written: OrderedDict[bytes, bytes] = OrderedDict()
        self._measured: OrderedDict[bytes, int] = OrderedDict()
        self._warm: OrderedDict[bytes, None] = OrderedDict()
        self._starts = 0
        self._choices: dict[tuple[str, ...], asyncio.Future[Choices]] = {}
        self._thin = 0
        self._labelled = 0
        self._groups = 0

    def settle(self, surroundings: Surroundings, name: str) -> None:
        """Joins the run's fleet, so that all of its servers are planned together. Before `ready`."""
        self._fleet = surroundings.of("vllm", Fleet)
        self._name = self._fleet.join(name, self._spec)

    async def ready(self) -> ModelInfo:
        """Start the run's servers, or find those that run, and see that they answer.

        Raises:
            ModelUnavailable: No vLLM, no weights, no room on the GPUs, or a server that does not come up.
        """
        if self._fleet is None:
            self.settle(Surroundings(), self._name)
        assert self._fleet is not None  # noqa: S101 - `settle` has just seen to it
        party = await self._fleet.open(self._name)
        replicas = [station.replica(party.answers_as) for station in party.stations]
        spec = self._spec
        limits = Limits(CALL_SECONDS, spec.retries, spec.patience, suspect=max(1, min(SUSPECT, spec.restarts)))
        self._transport, self._party, self._can = Transport(replicas, limits, None), party, party.can
        context = {"context": party.can.context} if party.can.context else {}
        detail = {**party.detail, "can": party.can.as_data(), **context, "counts_tokens": party.can.counts}
        detail["batches"] = self._spec.batches and party.can.batches
        return ModelInfo(_identity(self._spec, party), detail, server=party.server)

    async def create(self, request: ChatRequest) -> Reply:
        """One reply.

        Raises:
            ServerLost: The server died, and cannot be brought back.
        """
        return (await self._answer([request]))[0]

    async def create_many(self, requests: Iterable[ChatRequest]) -> AsyncIterator[tuple[int, Reply]]:
        """Many replies, asked for in groups of calls that share a prompt's head, as many at a time as the servers take.

        Raises:
            ServerLost: A server died, and cannot be brought back.
        """
        if self._party is None:
            for index, _ in enumerate(requests):
                yield index, _closed()
            return
        begun = False
        warmed: dict[bytes, asyncio.Event] = {}
        if self._starts != self._party.starts:  # with empty caches
            self._starts = self._party.starts
            self._warm.clear()

        def most() -> int:
            # The first of a prompt goes alone where the others would compute its head again beside it.
            return self._largest if begun or not self._warms_up else 1

        async def pause(group: Group) -> None:
            nonlocal begun
            begun, head = True, group[0].head.digest
            if self._warms_up and head not in self._warm:
                await warmed.setdefault(head, asyncio.Event()).wait()

        async def answer(group: Group) -> Sequence[Reply]:
            head = group[0].head.digest
            try:
                return await self._answer(group)
            finally:
                _remember(self._warm, head, None, _WARM)
                warmed.setdefault(head, asyncio.Event()).set()

        groups = in_groups(answer, requests, self._party.gate, self._joins, most, pause)
        async with aclosing(groups) as replies:
            async for pair in replies:
                yield pair

    async def close(self) -> None:
        """Close the connections; the last of the run's models to close stops the servers that it started."""
        await cancelled(list(self._choices.values()))
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            await fleet.leave(self._name)

    async def figures(self) -> Mapping[str, Any]:
        """What the servers did in this run: tokens sent, computed and generated, restarts, limits reached."""
        if self._party is None:
            return {}
        told = await self._party.figures()
        if self._labelled:
            told["labels"] = {"read": self._labelled, "thin": self._thin}
        return {**told, "requests": self._groups}

    @property
    def lasting(self) -> bool:
        """Whether servers were started for it: that takes minutes, and another time they may find no room."""
        return self._party is not None and any(isinstance(one.life, Managed) for one in self._party.stations)

    # --- groups -------------------------------------------------------------------------------------------

    @property
    def _warms_up(self) -> bool:
        """Whether a prompt's head is best computed once before all its items are sent."""
        return not self._can.shares_in_flight and self._can.block is not None

    @property
    def _largest(self) -> int:
        """How many calls may go out in one request: several requests are to be in flight at each server."""
        gate = self._party.gate.limit if self._party and self._spec.batches else 0
        return max(1, min(LARGEST_GROUP, gate // 4))

    def _joins(self, group: Group, request: ChatRequest) -> bool:
        """Whether a request goes out together with those before it."""
        if not self._spec.batches:
            return False
        known = self._choices.get(group[0].choices)
        if not group[0].choices:
            way = ask.way_of(group[0], None, self._can)
        elif known is not None and known.done() and not known.cancelled() and not known.exception():
            way = ask.way_of(group[0], known.result(), self._can)
        else:
            way = "constrain"  # the most that can be said before the tokenizer was asked
        return ask.together(group, request, way, self._can) is not None

    async def _answer(self, group: Sequence[ChatRequest]) -> list[Reply]:
        """The replies to a group, in its order."""
        started = time.perf_counter()
        if self._transport is None:
            return [_closed() for _ in group]
        try:
            choices = await self._known_choices(self._transport, group[0])
            way = ask.way_of(group[0], choices, self._can)
            refused = [None if way == "count" else await self._unfit(self._transport, one) for one in group]
            fitting = [one for one, no in zip(group, refused, strict=True) if no is None]
            answered = iter(await self._sent(self._transport, fitting, way, choices) if fitting else ())
            replies = [no or next(answered) for no in refused]
        except Failure as failure:
            replies = [_failed(failure) for _ in group]
        seconds = time.perf_counter() - started
        return [replace(reply, seconds=seconds) for reply in replies]

    async def _sent(
        self, transport: Transport, group: Sequence[ChatRequest], way: Way, choices: Choices | None
    ) -> list[Reply]:
        shape = ask.together(group[:1], group[1], way, self._can) if len(group) > 1 else None
        if shape is None:
            return list(await asyncio.gather(*(self._alone(transport, one, way, choices) for one in group)))
        path, read = (BATCH, ask.read_batch) if shape == "batch" else (CHAT, ask.read_samples)
        body = self._body(group, way, choices, shape)
        self._groups += 1
        deaths = 0
        try:
            data = await transport.post(path, body, group[0].head.digest, len(group))
            found = read(data, group, way, choices, self._can)
        except Failure as failure:
            if failure.status in PUSHED_BACK:  # it takes so many together never, or not now
                half = (len(group) + 1) // 2
                parts = [await self._sent(transport, part, way, choices) for part in (group[:half], group[half:])]
                return [reply for part in parts for reply in part]
            found, deaths = [None] * len(group), failure.deaths
        except completions.Malformed:
            # One of them may be what the server chokes on: the others are not to pay for it.
            found = [None] * len(group)
        self._weigh(reply for reply in found if reply is not None)
        missing = [one for one, reply in zip(group, found, strict=True) if reply is None]
        alone = iter(await asyncio.gather(*(self._alone(transport, one, way, choices, deaths) for one in missing)))
        return [reply or next(alone) for reply in found]

    async def _alone(
        self, transport: Transport, request: ChatRequest, way: Way, choices: Choices | None, deaths: int = 0
    ) -> Reply:
        """One call, and another way where the first tells no choice; its server has died of it, maybe, so often."""
        looked: list[Reply] = []
        ways: list[Way] = [way, "constrain" if self._can.structured else "text"]
        for try_ in dict.fromkeys(ways):
            path = TOKENIZE if try_ == "count" else CHAT
            self._groups += 1
            try:
                body = self._body([request], try_, choices)
                data = await transport.post(path, body, request.head.digest, deaths=deaths)
                reply = ask.read_alone(data, request, try_, choices, self._can)
            except Failure as failure:
                if try_ == "look" and failure.status in (400, 422):
                    continue  # it may be just this way that it refuses
                return _failed(failure)
            except completions.Malformed as error:
                return Reply("", "failed", error=f"the server's answer is not what was asked for: {error}")
            if reply is not None:
                self._weigh([reply])
                return completions.counted_with(reply, looked)
            looked = [completions.read_completion(data)]
        return Reply("", "failed", error="the server told no choice, whichever way it was asked")

    def _weigh(self, replies: Iterable[Reply]) -> None:
        """Takes note of labels that had hardly any of the probability: the model was about to say something else."""
        for reply in replies:
            if reply.choice_logprobs is not None:
                self._labelled += 1
                self._thin += labels.mass(reply.choice_logprobs) < labels.LEAST_MASS

    # --- bodies -------------------------------------------------------------------------------------------

    def _body(
        self, group: Sequence[ChatRequest], way: Way, choices: Choices | None, shape: ask.Shape = "alone"
    ) -> bytes:
        written = [self._messages(request) for request in (group if shape == "batch" else group[:1])]
        salt = None if way == "count" else self.salt
        thinking = self._spec.thinking
        return ask.body_of(group, written, way, choices, self._can, thinking=thinking, shape=shape, salt=salt)

    def _messages(self, request: ChatRequest) -> bytes:
        """The messages as JSON without brackets; the head's are written once and kept: they are most of it."""
        head = self._written.get(request.head.digest)
        if head is None:
            head = _remember(self._written, request.head.digest, _written(request.head), _HEADS)
        last = json.dumps({"role": "user", "content": completions.clean(request.last)})
        return head + last.encode()

    # --- what the tokenizer knows -------------------------------------------------------------------------

    async def _known_choices(self, transport: Transport, request: ChatRequest) -> Choices | None:
        """The request's choices with the tokens that begin them; asked once for each set of choices."""
        if not request.choices:
            return None
        known = self._choices.get(request.choices)
        if known is None or known.cancelled() or (known.done() and known.exception()):
            known = self._choices[request.choices] = asyncio.ensure_future(
                self._first_tokens(transport, request.choices)
            )
        return await asyncio.shield(known)

    async def _first_tokens(self, transport: Transport, choices: tuple[str, ...]) -> Choices:
        if not self._can.counts:
            return Choices.of(choices, None)
        plain = [await self._first_token(transport, choice) for choice in choices]
        spaced = [await self._first_token(transport, f" {choice}") for choice in choices]
        return Choices.of(choices, plain, spaced)

    async def _first_token(self, transport: Transport, text: str) -> int | None:
        said = {"prompt": completions.clean(text), "add_special_tokens": False, "return_token_strs": True}
        return ask.first_token(await transport.post(TOKENIZE, json.dumps(said).encode()[1:], b""), text)

    async def _unfit(self, transport: Transport, request: ChatRequest) -> Reply | None:
        """A failed reply where the request does not fit, or where that cannot be found out; the others go on."""
        try:
            return await self._too_long(transport, request)
        except Failure as failure:
            return _failed(failure)

    async def _too_long(self, transport: Transport, request: ChatRequest) -> Reply | None:
        """A failed reply where prompt and reply do not fit into the model's context; nothing is sent then.

        What is sure to fit by its bytes is not counted; else one prompt of each head is, and then its items by bytes.
        """
        most = ask.reply_tokens(request, self._can)
        room = None if self._can.context is None else self._can.context - most
        digest = request.head.digest
        if room is None or ask.most_tokens(request, self._measured.get(digest)) <= room or not self._can.counts:
            return None
        data = await transport.post(TOKENIZE, self._body([replace(request, purpose="count")], "count", None), digest)
        counted = ask.read_alone(data, request, "count", None, self._can)
        tokens = int(counted.text) if counted else 0
        _remember(self._measured, digest, tokens, _HEADS)
        if tokens <= room:
            return None
        told = (
            f"the prompt has {tokens:,} tokens and the reply may have {most:,}: more than the {self._can.context:,} of "
            "the model's context. Raise the model's `length`, teach with fewer exemplars, or let `too_long` leave "
            "something out"
        )
        return Reply("", "failed", error=told)


def _remember(kept: OrderedDict[bytes, Any], key: bytes, value: Any, most: int) -> Any:
    """Keeps a value, and of all of them the last `most`."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > most:
        kept.popitem(last=False)
    return value


def _written(head: Head) -> bytes:
    turns = ({"role": turn.role, "content": completions.clean(turn.content)} for turn in head.turns)
    return "".join(json.dumps(turn) + "," for turn in turns).encode()


def _identity(spec: VllmSpec, party: Party) -> str:
    """Who answers: whatever changes the replies is part of it, wherever it is served."""
    flags = {name: value for name, value in spec.flags.items() if name not in _HARMLESS}
    set_up = json.dumps([flags, spec.environment], sort_keys=True).encode() if flags or spec.environment else b""
    said = "".join(
        (
            f"+{party.adapter}" if party.adapter else "",
            f"+{blake2b(set_up, digest_size=4).hexdigest()}" if set_up else "",
            "" if spec.dtype == "auto" else f";{spec.dtype}",
            "" if spec.thinking else ";thinking=false",
        )
    )
    return f"vllm:{party.weights}{said}"


def _failed(failure: Failure) -> Reply:
    return Reply("", "failed", error=str(failure), transient=failure.transient)


def _closed() -> Reply:
    return Reply("", "failed", error="the model is not ready, or was closed", transient=True)
