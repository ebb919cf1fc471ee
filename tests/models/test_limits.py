from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing

import pytest

from lbt_sim.models.base import ChatRequest, Reply
from lbt_sim.models.limits import Gate, Gates, Group, HeadQueue, in_completion_order, in_groups

Ask = Callable[..., ChatRequest]


async def test_replies_come_as_they_are_done_each_index_once(ask: Ask) -> None:
    gates = {name: asyncio.Event() for name in "abc"}

    async def create(request: ChatRequest) -> Reply:
        await gates[request.last].wait()
        return Reply(request.last)

    got = []
    gates["c"].set()
    async for index, reply in in_completion_order(create, [ask(name) for name in "abc"], Gate(3)):
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
    async for _ in in_completion_order(create, feed(), Gate(4)):
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

    async with aclosing(in_completion_order(create, [ask("slow"), ask("quick")], Gate(2))) as replies:
        assert (await anext(replies))[0] == 1
    assert cancelled == ["slow"]


async def test_a_bug_in_an_engine_is_raised_where_the_replies_are_awaited(ask: Ask) -> None:
    async def create(request: ChatRequest) -> Reply:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async for _ in in_completion_order(create, [ask()], Gate(2)):
            pass


async def test_no_requests_no_replies() -> None:
    async def create(request: ChatRequest) -> Reply:
        return Reply("x")

    assert [pair async for pair in in_completion_order(create, [], Gate(4))] == []


# --- one gate for all batches -------------------------------------------------------------------------------


class Held:
    """A model whose calls are answered one at a time, as a test says."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.running: list[str] = []
        self.most = 0
        self._answers: dict[str, asyncio.Future[None]] = {}

    def feed(self, ask: Ask, *names: str) -> Iterator[ChatRequest]:
        for name in names:
            self.taken.append(name)
            yield ask(name)

    async def create(self, request: ChatRequest) -> Reply:
        self.running.append(request.last)
        self.most = max(self.most, len(self.running))
        try:
            await self._answers.setdefault(request.last, asyncio.get_running_loop().create_future())
        finally:
            self.running.remove(request.last)
        return Reply(request.last)

    async def answer(self) -> None:
        """Answers the call that has waited longest."""
        self._answers[self.running[0]].set_result(None)
        await settled()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def drained(replies: AsyncIterator[tuple[int, Reply]]) -> list[str]:
    return [reply.text async for _, reply in replies]


async def test_many_batches_together_keep_the_limit_of_one(ask: Ask) -> None:
    held, gate = Held(), Gate(4)
    names = [[f"{batch}{n}" for n in range(5)] for batch in "abcdef"]
    batches = [in_completion_order(held.create, held.feed(ask, *some), gate) for some in names]
    tasks = [asyncio.create_task(drained(batch)) for batch in batches]
    await settled()
    while held.running:
        assert len(held.taken) - len(held.running) == sum(future.done() for future in held._answers.values())
        await held.answer()
    assert [sorted(done) for done in await asyncio.gather(*tasks)] == names
    assert held.most == 4


async def test_a_batch_goes_through_the_gate_before_one_that_came_later(ask: Ask) -> None:
    held, gate = Held(), Gate(2)
    batches = [in_completion_order(held.create, held.feed(ask, *(f"{b}{n}" for n in range(3))), gate) for b in "abc"]
    tasks = [asyncio.create_task(drained(batch)) for batch in batches]
    await settled()
    while held.running:
        await held.answer()
    await asyncio.gather(*tasks)
    assert held.taken == ["a0", "a1", "a2", "b0", "b1", "b2", "c0", "c1", "c2"]


@pytest.mark.parametrize("turns", range(12))
@pytest.mark.parametrize("waits", [True, False])
async def test_a_batch_that_is_cancelled_at_any_moment_leaves_its_room_to_others(
    ask: Ask, waits: bool, turns: int
) -> None:
    held, gate = Held(), Gate(1)

    def batch(name: str) -> asyncio.Task[list[str]]:
        return asyncio.create_task(drained(in_completion_order(held.create, held.feed(ask, name), gate)))

    if waits:  # it is let in, and cancelled some turns of the loop later
        first = batch("first")
        await settled()
        dropped = batch("dropped")
        await settled()
        held._answers["first"].set_result(None)
    else:
        dropped = batch("dropped")
    for _ in range(turns):
        await asyncio.sleep(0)
    dropped.cancel()
    last = batch("last")
    await settled()
    await held.answer()
    assert await last == ["last"]
    assert not waits or await first == ["first"]
    assert not gate.full


async def test_a_call_that_is_cancelled_from_within_does_not_leave_anyone_waiting(ask: Ask) -> None:
    async def create(request: ChatRequest) -> Reply:
        raise asyncio.CancelledError

    gate = Gate(1)
    with pytest.raises(asyncio.CancelledError):
        await drained(in_completion_order(create, [ask()], gate))
    assert not gate.full


async def test_a_fault_of_whoever_feeds_is_raised_too(ask: Ask) -> None:
    def feed() -> Iterator[ChatRequest]:
        yield ask()
        raise ZeroDivisionError

    async def create(request: ChatRequest) -> Reply:
        return Reply("x")

    gate = Gate(1)
    with pytest.raises(ZeroDivisionError):
        await drained(in_completion_order(create, feed(), gate))
    assert not gate.full


def test_who_names_the_same_server_gets_the_same_gate_and_the_smallest_limit_holds() -> None:
    gates = Gates()
    one = gates.of("http://a/v1", limit=8)
    assert gates.of("http://a/v1", limit=32) is one
    assert one.limit == 8
    assert gates.of("http://a/v1", limit=4).limit == one.limit == 4
    assert gates.of("http://b/v1", limit=4) is not one


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


# --- groups -----------------------------------------------------------------------------------------------


async def grouped(requests: list[ChatRequest], gate: Gate, size: int) -> tuple[list[list[str]], list[int]]:
    """What went out together, and the indices of what came back."""
    sent: list[list[str]] = []

    async def create(group: Group) -> list[Reply]:
        sent.append([request.last for request in group])
        await asyncio.sleep(0)
        return [Reply(request.last) for request in group]

    def same(group: Group, request: ChatRequest) -> bool:
        return group[0].last[0] == request.last[0]

    async with aclosing(in_groups(create, requests, gate, same, lambda: size)) as replies:
        indices = [index async for index, reply in replies if reply.text == requests[index].last]
    assert gate.inside == 0
    return sent, indices


async def test_neighbours_that_go_together_make_groups(ask: Ask) -> None:
    names = ["a1", "a2", "a3", "b1", "b2", "a4"]
    sent, indices = await grouped([ask(name) for name in names], Gate(100), 4)
    assert sent == [["a1", "a2", "a3"], ["b1"], ["b2"], ["a4"]]
    assert sorted(indices) == list(range(6))


async def test_a_group_is_no_larger_than_the_room_there_is(ask: Ask) -> None:
    gate = Gate(3)
    sent, indices = await grouped([ask(f"a{n}") for n in range(10)], gate, 8)
    assert max(map(len, sent)) == 3
    assert sorted(indices) == list(range(10))


async def test_whoever_came_first_gets_all_the_room_that_it_wants() -> None:
    gate = Gate(8)
    await gate.enter(gate.place(), 8)
    first, second = gate.place(), gate.place()
    late, early = (asyncio.ensure_future(gate.enter(place, 6)) for place in (second, first))
    await asyncio.sleep(0)
    gate.leave(8)
    assert (await early, await late) == (6, 2)


async def test_all_or_nothing_waits_for_room_and_more_than_the_limit_goes_in_alone() -> None:
    gate = Gate(4)
    async with gate.room(2):
        entered = []

        async def large() -> None:
            async with gate.room(9):
                entered.append(gate.inside)

        task = asyncio.create_task(large())
        await asyncio.sleep(0)
        assert entered == []
    await task
    assert (entered, gate.inside) == ([9], 0)


async def test_a_waiter_that_is_cancelled_lets_those_behind_it_in() -> None:
    gate = Gate(4)
    await gate.enter(gate.place(), 3)
    large = asyncio.ensure_future(gate.enter(gate.place(), 4, all_=True))
    small = asyncio.ensure_future(gate.enter(gate.place()))
    await asyncio.sleep(0)
    assert not small.done()
    large.cancel()
    assert await small == 1
    assert gate.inside == 4


async def test_a_higher_limit_lets_in_at_once() -> None:
    gate = Gate(1)
    await gate.enter(gate.place())
    waiting = asyncio.ensure_future(gate.enter(gate.place(), 5))
    await asyncio.sleep(0)
    gate.limit = 4
    assert await waiting == 3


async def test_a_pause_after_a_group_holds_back_the_rest(ask: Ask) -> None:
    sent: list[int] = []
    first = asyncio.Event()

    async def create(group: Group) -> list[Reply]:
        sent.append(len(group))
        if len(sent) == 1:
            await asyncio.sleep(0.01)
            assert sent == [1]
            first.set()
        return [Reply("x") for _ in group]

    async def pause(group: Group) -> None:
        await first.wait()

    sizes = iter([1])
    groups = in_groups(create, [ask(str(n)) for n in range(9)], Gate(9), lambda *_: True, lambda: next(sizes, 8), pause)
    assert len([index async for index, _ in groups]) == 9
    assert sent == [1, 8]


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
@pytest.mark.parametrize("faulty", ["most", "joins", "pause", "requests"])
async def test_whatever_fails_while_it_is_fed_is_raised_and_leaves_the_gate_empty(
    ask: Ask, faulty: str, error: type[BaseException]
) -> None:
    ended = []

    async def create(group: Group) -> list[Reply]:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(len(group))
        return []

    def feed() -> Iterator[ChatRequest]:
        yield from (ask(str(n)) for n in range(3))
        if faulty == "requests":
            raise error
        yield from (ask(str(n)) for n in range(3, 9))

    sizes = iter([4])

    def most() -> int:
        if (size := next(sizes, None)) is None and faulty == "most":
            raise error
        return size or 2

    def joins(group: Group, request: ChatRequest) -> bool:
        if faulty == "joins" and request.last == "5":  # the first four are in flight, and one more is in hand
            raise error
        return True

    async def pause(group: Group) -> None:
        if faulty == "pause":
            raise error

    gate = Gate(9)
    async with asyncio.timeout(20):
        with pytest.raises(error):
            async for _ in in_groups(create, feed(), gate, joins, most, pause):
                pass
    assert gate.inside == 0
    assert not gate.awaited
    assert ended == ([] if faulty == "requests" else [4])


async def test_too_few_replies_to_a_group_are_a_bug_and_said(ask: Ask) -> None:
    async def create(group: Group) -> list[Reply]:
        return []

    with pytest.raises(RuntimeError, match="0 replies to 1 calls"):
        async for _ in in_groups(create, [ask()], Gate(1), lambda *_: True):
            pass
