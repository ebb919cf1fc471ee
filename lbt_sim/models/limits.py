"""How many calls are in flight, and in what order they go."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from operator import length_hint
from typing import Generic, TypeVar

from lbt_sim.models.base import ChatRequest, Reply

__all__ = ["HeadQueue", "in_completion_order"]

T = TypeVar("T")


async def in_completion_order(
    create: Callable[[ChatRequest], Awaitable[Reply]], requests: Iterable[ChatRequest], limit: int
) -> AsyncIterator[tuple[int, Reply]]:
    """Make calls, at most `limit` at a time, and yield (index, reply) as each is done.

    The next request is taken from the iterable only when there is room for it. Leaving the iterator (`aclosing`,
    cancellation) cancels what is in flight and starts nothing more.
    """
    todo = iter(enumerate(requests))
    done: asyncio.Queue[tuple[int, Reply] | BaseException | None] = asyncio.Queue()

    async def work() -> None:
        try:
            for index, request in todo:
                done.put_nowait((index, await create(request)))
            done.put_nowait(None)
        except BaseException as error:  # raised where the replies are awaited, so that none is missing unnoticed
            done.put_nowait(error)
            if not isinstance(error, Exception):
                raise

    size = min(limit, length_hint(requests, limit))
    workers = [asyncio.create_task(work()) for _ in range(max(1, size))]
    try:
        left = len(workers)
        while left:
            result = await done.get()
            if result is None:
                left -= 1
            elif isinstance(result, BaseException):
                raise result
            else:
                yield result
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


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
