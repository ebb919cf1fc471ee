"""How many calls are in flight, and in what order they go."""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from typing import Generic, Protocol, TypeVar, runtime_checkable

from lbt_sim.models.base import ChatRequest, Reply

__all__ = ["Gate", "Gates", "Group", "HeadQueue", "SharesGates", "in_completion_order", "in_groups"]

T = TypeVar("T")

Group = list[ChatRequest]
"""Requests that go out together."""


_ALL = 1 << 32
"""More than any limit: who wants so much room goes in when nobody is inside, and nobody after."""


class Gate:
    """Lets at most `limit` calls in at a time, whoever makes them. For one event loop.

    Who waits is let in by its place in the line. A batch keeps its place for all its calls: they share a prompt's
    head, which a prefix cache computes once when they follow each other, and a batch that came later waits.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside = 0
        self._line: list[_Waiter] = []
        self._numbers = count()

    @property
    def limit(self) -> int:
        """How many may be inside. Raised, it lets in at once; lowered, it sends nobody away."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit
        self._let_in()

    @property
    def inside(self) -> int:
        """How many calls are in."""
        return self._inside

    @property
    def full(self) -> bool:
        """Whether the next one would have to wait."""
        return self._inside >= self._limit

    @property
    def lone(self) -> bool:
        """Whether somebody is in alone."""
        return self._inside >= _ALL

    @property
    def awaited(self) -> bool:
        """Whether anybody waits."""
        return bool(self._line)

    def place(self) -> int:
        """A place at the end of the line."""
        return next(self._numbers)

    async def enter(self, place: int, most: int = 1, *, all_: bool = False) -> int:
        """Waits for room for one call, and takes it for up to `most`, as far as there is any.

        Args:
            place: The place in the line.
            most: How many calls want in.
            all_: Wait until there is room for all of them; more than the limit go in alone.

        Returns:
            How many calls were let in: so many are to `leave`.
        """
        waiter = _Waiter(place, next(self._numbers), most, most if all_ else 1)
        if not self._line and (taken := self._room_for(waiter)):
            self._inside += taken
            return taken
        let_in: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiter.let_in = let_in
        heapq.heappush(self._line, waiter)
        self._let_in()  # its place may be before all that wait
        try:
            return await let_in
        except asyncio.CancelledError:
            if let_in.done() and not let_in.cancelled():  # let in and cancelled at the same time
                self.leave(let_in.result())
            else:
                self._let_in()  # whoever stood behind may need less room
            raise

    def leave(self, calls: int = 1) -> None:
        """Makes room for the next."""
        self._inside -= calls
        self._let_in()

    def _let_in(self) -> None:
        while self._line:
            first = self._line[0]
            if first.let_in is None or first.let_in.done():
                heapq.heappop(self._line)
            elif taken := self._room_for(first):
                heapq.heappop(self._line)
                self._inside += taken
                first.let_in.set_result(taken)
            else:
                return

    def _room_for(self, waiter: _Waiter) -> int:
        """How many of the waiter's calls may go in now."""
        room = self._limit - self._inside
        if room >= waiter.least:
            return min(room, waiter.most)
        return waiter.least if not self._inside else 0

    @asynccontextmanager
    async def room(self, calls: int = 1) -> AsyncIterator[None]:
        """Room for so many calls, all of them at once."""
        taken = await self.enter(self.place(), calls, all_=True)
        try:
            yield
        finally:
            self.leave(taken)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Room for one call with no other inside."""
        async with self.room(_ALL):
            yield

    async def __aenter__(self) -> None:
        await self.enter(self.place())

    async def __aexit__(self, *_: object) -> None:
        self.leave()


@dataclass(order=True, slots=True)
class _Waiter:
    place: int
    number: int
    most: int
    least: int
    let_in: asyncio.Future[int] | None = field(default=None, compare=False)


class Gates:
    """The gates of a run's servers: models that ask the same server go through the same gate."""

    def __init__(self) -> None:
        self._gates: dict[tuple[str, ...], Gate] = {}

    def of(self, *key: str, limit: int) -> Gate:
        """The gate of that name. Where its users want different limits, the smallest holds."""
        gate = self._gates.setdefault(key, Gate(limit))
        gate.limit = min(gate.limit, limit)
        return gate


@runtime_checkable
class SharesGates(Protocol):
    """A model whose limits are those of a server, which other models may ask too."""

    def share(self, gates: Gates) -> None:
        """Takes its gates from `gates`. Called before `ready`."""
        ...


async def in_completion_order(
    create: Callable[[ChatRequest], Awaitable[Reply]], requests: Iterable[ChatRequest], gate: Gate
) -> AsyncIterator[tuple[int, Reply]]:
    """Make calls, as many at a time as `gate` lets in, and yield (index, reply) as each is done.

    As `in_groups`, with every request by itself.

    Args:
        create: Makes one call.
        requests: May end early: whoever feeds it stops it so.
        gate: One for all batches of a model.
    """

    async def alone(group: Group) -> list[Reply]:
        return [await create(group[0])]

    async with aclosing(in_groups(alone, requests, gate, lambda group, request: False)) as replies:
        async for pair in replies:
            yield pair


async def in_groups(
    create: Callable[[Group], Awaitable[Sequence[Reply]]],
    requests: Iterable[ChatRequest],
    gate: Gate,
    joins: Callable[[Group, ChatRequest], bool],
    most: Callable[[], int] = lambda: 1,
    pause: Callable[[Group], Awaitable[None]] | None = None,
) -> AsyncGenerator[tuple[int, Reply], None]:
    """Make calls in groups of neighbours, as many calls at a time as `gate` lets in; yield (index, reply) as they come.

    The next request is taken from the iterable only once the gate has let it in: what was taken is in flight. Leaving
    the iterator (`aclosing`, cancellation) cancels what is in flight and starts nothing more.

    Args:
        create: Makes a group's calls; replies in their order.
        requests: May end early: whoever feeds it stops it so.
        gate: One for all batches of a model.
        joins: Whether a request goes with the group that stands before it.
        most: How many calls may make a group now.
        pause: Awaited after a group was sent, before more is taken.
    """
    done: asyncio.Queue[list[tuple[int, Reply]] | BaseException | None] = asyncio.Queue()
    tasks: set[asyncio.Task[None]] = set()
    started = answered = 0

    async def work(first: int, group: Group) -> None:
        replies = await create(group)
        if len(replies) != len(group):
            raise RuntimeError(f"{len(replies)} replies to {len(group)} calls")
        done.put_nowait(list(enumerate(replies, first)))

    def ended(task: asyncio.Task[None], calls: int) -> None:
        # Here and not in `work`, which a cancelled task may never have begun.
        tasks.discard(task)
        gate.leave(calls)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            done.put_nowait(error)  # raised where the replies are awaited, so that none is missing unnoticed

    def send(group: Group) -> None:
        nonlocal started
        task = asyncio.create_task(work(started, group))
        started += len(group)
        tasks.add(task)
        task.add_done_callback(partial(ended, calls=len(group)))

    async def feed() -> None:
        place, over = gate.place(), False
        while not over:
            room = await gate.enter(place, max(1, most()))
            try:
                groups = _grouped(islice(todo, room), joins)
            except BaseException:
                gate.leave(room)
                raise
            unused = room - sum(map(len, groups))
            over = unused > 0
            if over:
                gate.leave(unused)
            for group in groups:
                send(group)
            if pause is not None and groups:
                await pause(groups[-1])

    def fed(task: asyncio.Task[None]) -> None:
        # Whatever ended it, even before it began: whoever awaits the replies must not wait for more.
        done.put_nowait(asyncio.CancelledError() if task.cancelled() else task.exception())

    todo = iter(requests)
    feeder = asyncio.create_task(feed())
    feeder.add_done_callback(fed)
    feeding = True
    try:
        while feeding or answered < started:
            result = await done.get()
            if result is None:
                feeding = False
            elif isinstance(result, BaseException):
                raise result
            else:
                for pair in result:
                    answered += 1
                    yield pair
    finally:
        left = [feeder, *tasks]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _grouped(requests: Iterable[ChatRequest], joins: Callable[[Group, ChatRequest], bool]) -> list[Group]:
    groups: list[Group] = []
    for request in requests:
        if groups and joins(groups[-1], request):
            groups[-1].append(request)
        else:
            groups.append([request])
    return groups


class HeadQueue(Generic[T]):
    """A queue that serves those with the same head one after another, heads in order of arrival.

    A prefix cache then computes each head once. Not safe for threads: guard it with a lock.
    """

    def __init__(self) -> None:
        self._heads: OrderedDict[bytes, deque[T]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, head: bytes, item: T) -> None:
        """Add an item behind those with the same head."""
        self._heads.setdefault(head, deque()).append(item)
        self._size += 1

    def get(self, last: bytes | None = None) -> tuple[bytes, T]:
        """The next item with head `last`, or, when there is none, the first of the oldest head.

        Raises:
            LookupError: The queue is empty.
        """
        if not self._size:
            raise LookupError("the queue is empty")
        head = last if last is not None and last in self._heads else next(iter(self._heads))
        items = self._heads[head]
        item = items.popleft()
        if not items:
            del self._heads[head]
        self._size -= 1
        return head, item
