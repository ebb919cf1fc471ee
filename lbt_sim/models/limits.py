"""How many calls are in flight, and in what order they go."""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from itertools import count
from typing import Generic, Protocol, TypeVar, runtime_checkable

from lbt_sim.models.base import ChatRequest, Reply

__all__ = ["Gate", "Gates", "HeadQueue", "SharesGates", "in_completion_order"]

T = TypeVar("T")


class Gate:
    """Lets at most `limit` calls in at a time, whoever makes them. For one event loop.

    Who waits is let in by its place in the line. A batch keeps its place for all its calls: they share a prompt's
    head, which a prefix cache computes once when they follow each other, and a batch that came later waits.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._inside = 0
        self._line: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = count()

    @property
    def full(self) -> bool:
        """Whether the next one would have to wait."""
        return self._inside >= self.limit

    def place(self) -> int:
        """A place at the end of the line."""
        return next(self._numbers)

    async def enter(self, place: int) -> None:
        """Waits for room, and takes it; each time is to be followed by one `leave`."""
        if not self.full:  # then nobody waits either: whoever leaves lets in the next
            self._inside += 1
            return
        let_in = asyncio.get_running_loop().create_future()
        heapq.heappush(self._line, (place, next(self._numbers), let_in))
        try:
            await let_in
        except asyncio.CancelledError:
            if not let_in.cancelled():  # let in and cancelled at the same time
                self.leave()
            raise

    def leave(self) -> None:
        """Makes room for the next."""
        self._inside -= 1
        while self._line and not self.full:
            _, _, let_in = heapq.heappop(self._line)
            if not let_in.done():
                self._inside += 1
                let_in.set_result(None)

    async def __aenter__(self) -> None:
        await self.enter(self.place())

    async def __aexit__(self, *_: object) -> None:
        self.leave()


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

    The next request is taken from the iterable only once the gate has let it in: what was taken is in flight. Leaving
    the iterator (`aclosing`, cancellation) cancels what is in flight and starts nothing more.

    Args:
        create: Makes one call.
        requests: May end early: whoever feeds it stops it so.
        gate: One for all batches of a model.
    """
    done: asyncio.Queue[tuple[int, Reply] | BaseException | None] = asyncio.Queue()
    tasks: set[asyncio.Task[None]] = set()
    started = answered = 0

    async def work(index: int, request: ChatRequest) -> None:
        done.put_nowait((index, await create(request)))

    def ended(task: asyncio.Task[None]) -> None:
        # Here and not in `work`, which a cancelled task may never have begun.
        tasks.discard(task)
        gate.leave()
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            done.put_nowait(error)  # raised where the replies are awaited, so that none is missing unnoticed

    async def feed() -> None:
        nonlocal started
        place = gate.place()
        for index in count():
            await gate.enter(place)
            try:
                request = next(todo, None)
            except BaseException as error:
                gate.leave()
                done.put_nowait(error)
                return
            if request is None:
                gate.leave()
                done.put_nowait(None)
                return
            started = index + 1
            task = asyncio.create_task(work(index, request))
            tasks.add(task)
            task.add_done_callback(ended)

    todo = iter(requests)
    feeder = asyncio.create_task(feed())
    feeding = True
    try:
        while feeding or answered < started:
            result = await done.get()
            if result is None:
                feeding = False
            elif isinstance(result, BaseException):
                raise result
            else:
                answered += 1
                yield result
    finally:
        left = [feeder, *tasks]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


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
