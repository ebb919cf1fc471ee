from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing

import pytest

from lbt_sim.models.base import ChatRequest, Reply
from lbt_sim.models.limits import HeadQueue, in_completion_order

Ask = Callable[..., ChatRequest]


async def test_replies_come_as_they_are_done_each_index_once(ask: Ask) -> None:
    gates = {name: asyncio.Event() for name in "abc"}

    async def create(request: ChatRequest) -> Reply:
        await gates[request.last].wait()
        return Reply(request.last)

    got = []
    gates["c"].set()
    async for index, reply in in_completion_order(create, [ask(name) for name in "abc"], 3):
        got.append((index, reply.text))
        gates["a" if "a" not in dict(map(reversed, got)) else "b"].set()
    assert got == [(2, "c"), (0, "a"), (1, "b")]


async def test_the_limit_holds_and_requests_are_taken_only_when_there_is_room(ask: Ask) -> None:
    taken, running, most = 0, 0, 0

    def feed() -> Iterator[ChatRequest]:
        nonlocal taken
        for _ in range(20):
            taken += 1
            yield ask()

    async def create(request: ChatRequest) -> Reply:
        nonlocal running, most
        running += 1
        most = max(most, running)
        assert taken <= 20
        await asyncio.sleep(0)
        running -= 1
        return Reply("x")

    done = 0
    async for _ in in_completion_order(create, feed(), 4):
        done += 1
        assert taken <= done + 8
    assert (done, taken, most) == (20, 20, 4)


async def test_leaving_early_cancels_what_is_in_flight(ask: Ask) -> None:
    cancelled = []

    async def create(request: ChatRequest) -> Reply:
        if request.last == "quick":
            return Reply("x")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(request.last)
            raise
        return Reply("never")

    async with aclosing(in_completion_order(create, [ask("slow"), ask("quick")], 2)) as replies:
        assert (await anext(replies))[0] == 1
    assert cancelled == ["slow"]


async def test_a_bug_in_an_engine_is_raised_where_the_replies_are_awaited(ask: Ask) -> None:
    async def create(request: ChatRequest) -> Reply:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async for _ in in_completion_order(create, [ask()], 2):
            pass


async def test_no_requests_no_replies() -> None:
    async def create(request: ChatRequest) -> Reply:
        return Reply("x")

    assert [pair async for pair in in_completion_order(create, [], 4)] == []


def test_requests_with_the_same_head_follow_each_other() -> None:
    queue: HeadQueue[int] = HeadQueue()
    for number, head in enumerate((b"a", b"b", b"a", b"b", b"a")):
        queue.put(head, number)
    order, last = [], None
    while len(queue):
        last, item = queue.get(last)
        order.append(item)
    assert order == [0, 2, 4, 1, 3]
    with pytest.raises(LookupError):
        queue.get()
