"""Slots and their queue, the prefix cache, and the clock."""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .answers import Reply
from .tokens import Prompt


class Uniques:
    """How many tokens there are to compute if nothing is computed twice."""

    def __init__(self, block: int) -> None:
        self._block = block
        self._roots: dict[int, dict[int, Any]] = {}
        self._inner: set[int] = set()
        self._last: set[int] = set()
        self._overlap = 0
        self._tails = 0
        self.tokens = 0

    @property
    def block_tokens(self) -> int:
        """The least that an endless cache of blocks computes: see the module's text."""
        return self._tails + self._block * (len(self._inner) - self._overlap)

    def add(self, prompt: Prompt, blocks: Sequence[int]) -> None:
        """Count a prompt."""
        self._count_tokens(prompt.root, prompt.ids)
        inner = (len(prompt.ids) - 1) // self._block
        self._tails += len(prompt.ids) - inner * self._block
        for block in reversed(blocks[:inner]):
            if block in self._inner:
                break  # then all before it are
            self._inner.add(block)
            self._overlap += block in self._last
        # A whole last block is computed by each prompt that ends with it, and then serves those that go on.
        if len(blocks) > inner and blocks[inner] not in self._last:
            self._last.add(blocks[inner])
            self._overlap += blocks[inner] in self._inner

    def _count_tokens(self, root: int, ids: tuple[int, ...]) -> None:
        """Into the trie, whose edges hold runs of tokens: first token -> [run, edges]."""
        edges: dict[int, Any] = self._roots.setdefault(root, {})
        at = 0
        while at < len(ids):
            found = edges.get(ids[at])
            if found is None:
                edges[ids[at]] = [ids[at:], {}]
                self.tokens += len(ids) - at
                return
            run, below = found
            if ids[at : at + len(run)] != run:
                same = next((i for i, (a, b) in enumerate(zip(run, ids[at:], strict=False)) if a != b), len(ids) - at)
                below = {run[same]: [run[same:], below]}
                edges[ids[at]] = [run[:same], below]
                run = run[:same]
            at += len(run)
            edges = below


class Ticket:
    """One request: it is answered when its last conversation is done."""

    __slots__ = ("done", "jobs", "left")

    def __init__(self, done: asyncio.Future[None]) -> None:
        self.done = done
        self.jobs: list[Job] = []
        self.left = 0


class Job:
    """One conversation, or one of n samples."""

    __slots__ = (
        "arrived", "blocks", "cached", "end", "finish", "output", "prefilled", "prompt", "sibling", "slot", "ticket",
        "timer",
    )  # fmt: skip

    def __init__(self, ticket: Ticket, prompt: Prompt, reply: Reply, blocks: list[int], *, sibling: bool) -> None:
        self.ticket, self.prompt, self.blocks, self.sibling = ticket, prompt, blocks, sibling
        self.output, self.finish = len(reply.tokens), reply.finish
        self.arrived = self.prefilled = self.end = 0.0
        self.cached = 0
        self.slot = False
        self.timer: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class Stats:
    """Counters."""

    calls: int = 0
    batches: int = 0
    conversations: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    computed_tokens: int = 0
    generated_tokens: int = 0
    most_running: int = 0
    refused: int = 0
    aborted: int = 0
    busy_seconds: float = 0.0


class Engine:
    """Slots, their queue, the prefix cache, and the clock."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self.capacity = args.cache_tokens // args.block
        self._cache: OrderedDict[int, None] = OrderedDict()
        self._waiting: deque[Job] = deque()
        self._stuck: list[tuple[Callable[[Job], None], Job]] = []
        self.running = self.waiting = self.held_blocks = 0
        self.finished: Counter[str] = Counter()
        self.hung = False
        self.extra_seconds = 0.0
        self.stats = Stats()
        self.uniques = Uniques(args.block)

    def has_room(self, conversations: int) -> bool:
        """Whether so many may be added."""
        free = max(0, self._args.slots - self.running)
        return self._args.queue is None or self.waiting + max(0, conversations - free) <= self._args.queue

    def submit(self, work: Iterable[tuple[Prompt, Reply]], *, siblings: bool) -> Ticket:
        """Take on a request."""
        loop = asyncio.get_running_loop()
        ticket, now = Ticket(loop.create_future()), loop.time()
        for number, (prompt, reply) in enumerate(work):
            blocks = prompt.blocks(self._args.block)
            job = Job(ticket, prompt, reply, blocks, sibling=siblings and number > 0)
            job.arrived = now
            ticket.jobs.append(job)
        ticket.left = len(ticket.jobs)
        for job in ticket.jobs:
            if self.running < self._args.slots and not self.waiting:
                self._start(job, now)
            else:
                self._waiting.append(job)
                self.waiting += 1
        return ticket

    def abort(self, ticket: Ticket) -> None:
        """Give up what is not done of a request; while it hangs, nothing is."""
        if self.hung:
            return
        for job in ticket.jobs:
            if job.finish == "done":
                continue
            self.stats.aborted += 1
            self.finished["abort"] += 1
            if job.slot:
                if job.timer is not None:
                    job.timer.cancel()
                self._leave(job, asyncio.get_running_loop().time())
            else:
                self.waiting -= 1  # it stays in the queue, and is passed over
                job.finish = "done"

    def resume(self) -> None:
        """Hang no more."""
        self.hung = False
        stuck, self._stuck = self._stuck, []
        for step, job in stuck:
            if job.finish != "done":
                step(job)

    def forget(self, *, keep_cache: bool) -> None:
        """Count anew."""
        self.stats, self.uniques = Stats(), Uniques(self._args.block)
        if not keep_cache:
            self._cache.clear()

    def _start(self, job: Job, at: float) -> None:
        args, stats = self._args, self.stats
        job.slot = True
        self.running += 1
        self.held_blocks += -(-(len(job.prompt.ids) + job.output) // args.block)
        stats.most_running = max(stats.most_running, self.running)
        stats.conversations += 1
        self.uniques.add(job.prompt, job.blocks)
        job.cached = args.block * self._reusable(job)
        if args.share_in_flight:
            self._keep(job.blocks)
        computed = len(job.prompt.ids) - job.cached
        job.prefilled = at + args.seconds + self.extra_seconds + computed * args.seconds_per_prompt_token
        job.end = job.prefilled + job.output * args.seconds_per_output_token
        stats.busy_seconds += job.end - at
        two = job.end > job.prefilled
        self._later(job.prefilled, self._prefilled if two else self._finished, job)

    def _reusable(self, job: Job) -> int:
        """Whole blocks that need not be computed: never the one with the last token."""
        inner = (len(job.prompt.ids) - 1) // self._args.block
        if not self.capacity:
            return 0
        found = inner if job.sibling else 0
        if not job.sibling:
            for block in job.blocks[:inner]:
                if block not in self._cache:
                    break
                found += 1
        for block in reversed(job.blocks[:found]):
            if block in self._cache:
                self._cache.move_to_end(block)
        return found

    def _keep(self, blocks: list[int]) -> None:
        cache = self._cache
        for block in reversed(blocks):  # a prefix is of use to more prompts than what follows it
            cache[block] = None
            cache.move_to_end(block)
        while len(cache) > self.capacity:
            cache.popitem(last=False)

    def _later(self, when: float, step: Callable[[Job], None], job: Job) -> None:
        job.timer = asyncio.get_running_loop().call_at(when, self._step, step, job)

    def _step(self, step: Callable[[Job], None], job: Job) -> None:
        job.timer = None
        if self.hung:
            self._stuck.append((step, job))
        else:
            step(job)

    def _prefilled(self, job: Job) -> None:
        self._count_prompt(job)
        self._later(job.end, self._generated, job)

    def _finished(self, job: Job) -> None:
        self._count_prompt(job)
        self._generated(job)

    def _count_prompt(self, job: Job) -> None:
        if not self._args.share_in_flight:
            self._keep(job.blocks)
        self.stats.prompt_tokens += len(job.prompt.ids)
        self.stats.cached_tokens += job.cached
        self.stats.computed_tokens += len(job.prompt.ids) - job.cached

    def _generated(self, job: Job) -> None:
        self.stats.generated_tokens += job.output
        self.finished[job.finish] += 1
        job.ticket.left -= 1
        if not job.ticket.left and not job.ticket.done.done():
            job.ticket.done.set_result(None)
        self._leave(job, job.end)

    def _leave(self, job: Job, at: float) -> None:
        """Its slot goes to the next one, at that time."""
        job.finish = "done"
        self.running -= 1
        self.held_blocks -= -(-(len(job.prompt.ids) + job.output) // self._args.block)
        while self._waiting and self.running < self._args.slots:
            following = self._waiting.popleft()
            if following.finish != "done":
                self.waiting -= 1
                self._start(following, max(at, following.arrived))
