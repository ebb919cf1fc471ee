"""Every call goes through the ledger: committed before it is used, never paid twice, shared only where equal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lbt_sim.errors import BudgetExhausted, CallsFailed, Interrupted, LbtError, LedgerMismatch, ReplayMiss
from lbt_sim.ledger import Ledger, LedgerReader
from lbt_sim.models.base import CallPath, ChatRequest, ModelInfo, Reply, Sampling
from lbt_sim.models.limits import Gate, in_completion_order
from lbt_sim.models.recorded import Caller, Limits

Ask = Callable[..., ChatRequest]
SAMPLED = Sampling(temperature=0.7)


class Model:
    """Answers what `reply` says; with `hold`, only those calls whose gate a test has opened."""

    reads_facts = False

    def __init__(self, reply: Callable[[ChatRequest], Reply | str] = lambda r: f"to {r.last}") -> None:
        self.reply = reply
        self.asked: list[ChatRequest] = []
        self.hold = False
        self.gate = Gate(4)
        self.gates: dict[str, asyncio.Event] = {}

    def open(self, *items: str) -> None:
        for item in items:
            self.gates.setdefault(item, asyncio.Event()).set()

    async def ready(self) -> ModelInfo:
        return ModelInfo("model:1")

    async def create(self, request: ChatRequest) -> Reply:
        self.asked.append(request)
        if self.hold:
            await self.gates.setdefault(request.path.item, asyncio.Event()).wait()
        reply = self.reply(request)
        return Reply(reply, prompt_tokens=10, completion_tokens=2) if isinstance(reply, str) else reply

    def create_many(self, requests: Iterable[ChatRequest]) -> AsyncIterator[tuple[int, Reply]]:
        return in_completion_order(self.create, requests, self.gate)

    async def close(self) -> None:
        pass


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    async with Ledger(tmp_path) as opened:
        yield opened


@pytest.fixture
def exam(ask: Ask) -> Callable[..., list[ChatRequest]]:
    """An exam's requests: item -> its question, the item itself unless another is given."""

    def make(*items: str, agent: str = "ann", last: str | None = None, **changes: Any) -> list[ChatRequest]:
        return [ask(last or item, path=CallPath(1, "exam", agent, item), **changes) for item in items]

    return make


def caller(model: Model, ledger: Ledger, identity: str = "model:1", *, replay: bool = False, **limits: Any) -> Caller:
    return Caller({"small": (model, ModelInfo(identity))}, ledger, Limits(**limits), replay=replay)


def kept(folder: Path) -> list[str]:
    with LedgerReader(folder) as found:
        return [row.item for row in found.calls()]


async def settled() -> None:
    """Gives everyone who can go on the time to do so."""
    for _ in range(20):
        await asyncio.sleep(0.001)


def texts(replies: Iterable[Reply]) -> list[str]:
    return [reply.text for reply in replies]


# --- committed before it is used ----------------------------------------------------------------------------


async def test_replies_come_in_the_order_of_the_requests_and_are_committed(
    model: Model, ledger: Ledger, exam: Any, tmp_path: Path
) -> None:
    model.hold = True
    model.open("a", "b", "c")
    asks = caller(model, ledger)
    assert texts(await asks.ask_many("small", exam("a", "b", "c"))) == ["to a", "to b", "to c"]
    assert sorted(kept(tmp_path)) == ["a", "b", "c"]
    assert (asks.meter.made, asks.meter.in_flight, asks.meter.planned) == (3, 0, 0)
    assert asks.meter.answered[1, "exam", "ann"] == 3
    assert await asks.ask_many("small", []) == []


async def test_an_answer_is_committed_when_it_comes_not_when_the_batch_is_done(
    model: Model, ledger: Ledger, exam: Any, tmp_path: Path
) -> None:
    model.hold = True
    model.open("a")
    task = asyncio.ensure_future(caller(model, ledger).ask_many("small", exam("a", "b")))
    await settled()
    assert kept(tmp_path) == ["a"]
    assert not task.done()
    model.open("b")
    await task


async def test_half_characters_in_a_reply_read_the_same_now_and_after_a_resume(exam: Any, tmp_path: Path) -> None:
    model = Model(lambda _: Reply("x\udc00é\x00", reasoning="y\ud800", error="z\udfff"))
    async with Ledger(tmp_path) as ledger:
        now = await caller(model, ledger).ask_many("small", exam("a"))
    async with Ledger(tmp_path) as ledger:
        later = await caller(model, ledger).ask_many("small", exam("a"))
    assert now == later
    assert (now[0].text, now[0].reasoning, now[0].error) == ("x?é\x00", "y?", "z?")
    assert len(model.asked) == 1


# --- resume and replay --------------------------------------------------------------------------------------


async def test_a_resumed_run_makes_only_the_calls_that_are_missing(model: Model, exam: Any, tmp_path: Path) -> None:
    logprobs = (-0.1, None, float("-inf"))
    model.reply = lambda r: Reply("said", "length", logprobs, 7, 3, 2, "thought", seconds=0.5)
    async with Ledger(tmp_path) as ledger:
        before = await caller(model, ledger).ask_many("small", exam("a", "b", sampling=SAMPLED))
    model.asked.clear()
    async with Ledger(tmp_path) as ledger:
        asks = caller(model, ledger)
        after = await asks.ask_many("small", exam("a", "b", "c", sampling=SAMPLED))
    assert after[:2] == before
    assert [request.path.item for request in model.asked] == ["c"]
    assert (asks.meter.made, asks.meter.replayed) == (1, 2)


async def test_tokens_of_a_resumed_run_are_those_of_the_whole_run(model: Model, exam: Any, tmp_path: Path) -> None:
    async with Ledger(tmp_path) as ledger:
        await caller(model, ledger).ask_many("small", exam("a", "b"))
    async with Ledger(tmp_path) as ledger:
        asks = caller(model, ledger)
        await asks.ask_many("small", exam("a", "b", "c"))
    assert (asks.meter.prompt_tokens, asks.meter.completion_tokens) == (30, 6)


@pytest.mark.parametrize(
    "change",
    [
        {"last": "another question"},
        {"sampling": Sampling(max_tokens=9)},
        {"choices": ("yes", "no")},
        {"sampling": SAMPLED},
        {"facts": {"number": 1}},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_another_call_at_a_recorded_path_is_refused(
    model: Model, exam: Any, tmp_path: Path, change: dict[str, Any]
) -> None:
    async with Ledger(tmp_path) as ledger:
        await caller(model, ledger).ask_many("small", exam("a"))
    async with Ledger(tmp_path) as ledger:
        with pytest.raises(LedgerMismatch, match="r1/exam/ann/a") as caught:
            await caller(model, ledger).ask_many("small", [replace(exam("a")[0], **change)])
    assert "fork" in caught.value.remedy
    assert len(model.asked) == 1


async def test_another_model_at_a_recorded_path_is_refused(model: Model, exam: Any, tmp_path: Path) -> None:
    async with Ledger(tmp_path) as ledger:
        await caller(model, ledger).ask_many("small", exam("a"))
    async with Ledger(tmp_path) as ledger:
        with pytest.raises(LedgerMismatch):
            await caller(model, ledger, "model:2").ask_many("small", exam("a"))


async def test_a_sampled_call_with_another_seed_is_another_call(model: Model, exam: Any, tmp_path: Path) -> None:
    async with Ledger(tmp_path) as ledger:
        await caller(model, ledger).ask_many("small", exam("a", sampling=SAMPLED, seed=1))
    async with Ledger(tmp_path) as ledger:
        with pytest.raises(LedgerMismatch):
            await caller(model, ledger).ask_many("small", exam("a", sampling=SAMPLED, seed=2))


async def test_replay_asks_no_model(model: Model, exam: Any, tmp_path: Path) -> None:
    async with Ledger(tmp_path) as ledger:
        before = await caller(model, ledger).ask_many("small", exam("a", "b"))
    model.asked.clear()
    async with Ledger(tmp_path) as ledger:
        assert await caller(model, ledger, replay=True).ask_many("small", exam("a", "b")) == before
        with pytest.raises(ReplayMiss, match="r1/exam/ann/c") as caught:
            await caller(model, ledger, replay=True).ask_many("small", exam("a", "c"))
        assert "resume" in caught.value.remedy
        with pytest.raises(ReplayMiss):  # nor is an identical call an excuse
            await caller(model, ledger, replay=True).ask_many("small", exam("c", last="a"))
    assert model.asked == []


@pytest.mark.parametrize("together", [True, False])
async def test_a_path_is_asked_once(model: Model, ledger: Ledger, exam: Any, tmp_path: Path, together: bool) -> None:
    asks = caller(model, ledger)
    twice = exam("a") + exam("a", last="something else")
    if not together:
        await asks.ask_many("small", twice[:1])
    with pytest.raises(LbtError, match="r1/exam/ann/a") as caught:
        await asks.ask_many("small", twice if together else twice[1:])
    assert "report it" in caught.value.remedy
    await ledger.flush()
    assert kept(tmp_path) == ([] if together else ["a"])


async def test_a_path_that_came_to_nothing_may_be_asked_again(
    model: Model, ledger: Ledger, exam: Any, tmp_path: Path
) -> None:
    model.hold = True
    model.open("a")
    asks = caller(model, ledger)
    task = asyncio.ensure_future(asks.ask_many("small", exam("a", "b")))
    await settled()
    task.cancel()
    await settled()
    model.open("b")
    assert texts(await asks.ask_many("small", exam("b"))) == ["to b"]
    with pytest.raises(LbtError, match="r1/exam/ann/a"):  # this one was answered
        await asks.ask_many("small", exam("a"))
    assert kept(tmp_path) == ["a", "b"]


# --- models behind servers -----------------------------------------------------------------------------------


def callers(ledger: Ledger, **served: tuple[Model, str]) -> Caller:
    """A caller of models that all have one identity: name -> the model and its server."""
    return Caller(
        {name: (model, ModelInfo("openai:m", {}, server)) for name, (model, server) in served.items()}, ledger
    )


async def test_equal_calls_to_two_servers_under_one_name_are_two_calls(ledger: Ledger, exam: Any) -> None:
    one, two = Model(lambda _: "one"), Model(lambda _: "two")
    asks = callers(ledger, one=(one, "http://a/v1"), two=(two, "http://b/v1"), again=(one, "http://a/v1"))
    assert texts(await asks.ask_many("one", exam("a", last="same"))) == ["one"]
    assert texts(await asks.ask_many("two", exam("b", last="same"))) == ["two"]
    assert texts(await asks.ask_many("again", exam("c", last="same"))) == ["one"]
    assert (len(one.asked), len(two.asked), asks.meter.shared) == (1, 1, 1)


async def test_equal_calls_in_flight_to_two_servers_are_two_calls(ledger: Ledger, exam: Any) -> None:
    one, two = Model(lambda _: "one"), Model(lambda _: "two")
    one.hold = True
    asks = callers(ledger, one=(one, "http://a/v1"), two=(two, "http://b/v1"))
    first = asyncio.ensure_future(asks.ask_many("one", exam("a", last="same")))
    await settled()
    async with asyncio.timeout(5):
        assert texts(await asks.ask_many("two", exam("b", last="same"))) == ["two"]
    one.open("a")
    assert texts(await first) == ["one"]


async def test_a_run_goes_on_when_its_server_has_moved(exam: Any, tmp_path: Path) -> None:
    model = Model()
    async with Ledger(tmp_path) as ledger:
        before = await callers(ledger, small=(model, "http://a/v1")).ask_many("small", exam("a", "b"))
    async with Ledger(tmp_path) as ledger:
        after = await callers(ledger, small=(model, "http://elsewhere/v1")).ask_many("small", exam("a", "b", "c"))
    assert after[:2] == before
    assert [request.path.item for request in model.asked] == ["a", "b", "c"]
    async with Ledger(tmp_path) as ledger:  # a replay knows the identity alone
        asks = Caller({"small": (model, ModelInfo("openai:m"))}, ledger, replay=True)
        assert await asks.ask_many("small", exam("a", "b", "c")) == after


async def test_a_reply_tells_whether_it_was_drawn_now_and_when_it_is_read_back(exam: Any, tmp_path: Path) -> None:
    requests = exam("greedy") + exam("drawn", sampling=SAMPLED)
    for _ in range(2):
        async with Ledger(tmp_path) as ledger:
            replies = await caller(Model(), ledger).ask_many("small", requests)
            assert [reply.drawn for reply in replies] == [False, True]


# --- identical deterministic calls --------------------------------------------------------------------------


async def test_identical_deterministic_calls_share_one_request_later(
    model: Model, ledger: Ledger, exam: Any, tmp_path: Path
) -> None:
    asks = caller(model, ledger)
    await asks.ask_many("small", exam("a", last="same"))
    assert texts(await asks.ask_many("small", exam("b", agent="bob", last="same"))) == ["to same"]
    assert len(model.asked) == 1
    assert (asks.meter.made, asks.meter.shared) == (1, 1)
    assert (asks.meter.prompt_tokens, asks.meter.completion_tokens) == (10, 2)
    assert kept(tmp_path) == ["a", "b"]


async def test_identical_deterministic_calls_share_one_request_in_flight(
    model: Model, ledger: Ledger, exam: Any
) -> None:
    model.hold = True
    asks = caller(model, ledger)
    tasks = [asyncio.ensure_future(asks.ask_many("small", exam(n, agent=n, last="same"))) for n in ("a", "b", "c")]
    await settled()
    assert len(model.asked) == 1
    model.open(model.asked[0].path.item)
    assert [texts(await task) for task in tasks] == [["to same"]] * 3
    assert (asks.meter.made, asks.meter.shared) == (1, 2)


async def test_identical_calls_within_a_batch_are_made_once(model: Model, ledger: Ledger, exam: Any) -> None:
    replies = await caller(model, ledger).ask_many("small", exam("a", "b", "c", last="same") + exam("d"))
    assert texts(replies) == ["to same"] * 3 + ["to d"]
    assert sorted(request.last for request in model.asked) == ["d", "same"]


async def test_two_batches_that_wait_for_each_other_both_end(model: Model, ledger: Ledger, exam: Any) -> None:
    asks = caller(model, ledger)
    one = exam("a1", last="one") + exam("a2", last="two")
    two = exam("b1", agent="bob", last="two") + exam("b2", agent="bob", last="one")
    async with asyncio.timeout(5):
        found = await asyncio.gather(asks.ask_many("small", one), asks.ask_many("small", two))
    assert [texts(replies) for replies in found] == [["to one", "to two"], ["to two", "to one"]]
    assert len(model.asked) == 2


async def test_a_shared_call_stays_shared_when_the_run_is_resumed(model: Model, exam: Any, tmp_path: Path) -> None:
    async with Ledger(tmp_path) as ledger:
        asks = caller(model, ledger)
        await asks.ask_many("small", exam("a", "b", last="same"))
    async with Ledger(tmp_path) as ledger:
        again = caller(model, ledger)
        await again.ask_many("small", exam("a", "b", last="same"))
    assert (again.meter.made, again.meter.replayed, again.meter.shared) == (0, 1, 1)
    assert again.meter.prompt_tokens == asks.meter.prompt_tokens == 10


async def test_sampled_calls_never_share(model: Model, ledger: Ledger, exam: Any) -> None:
    asks = caller(model, ledger)
    await asks.ask_many("small", exam("a", "b", last="same", sampling=SAMPLED))
    await asks.ask_many("small", exam("c", last="same", sampling=SAMPLED, seed=8))
    assert len(model.asked) == 3
    assert asks.meter.shared == 0


async def test_a_failure_is_not_shared(model: Model, ledger: Ledger, exam: Any, tmp_path: Path) -> None:
    model.reply = lambda r: Reply("", "failed", error="down") if len(model.asked) == 1 else "fine"
    replies = await caller(model, ledger, failed=0.5).ask_many("small", exam("a", "b", last="same"))
    assert [reply.finish for reply in replies] == ["failed", "stop"]
    assert sorted(kept(tmp_path)) == ["a", "b"]


async def test_when_whoever_pays_is_cancelled_those_who_wait_pay(model: Model, ledger: Ledger, exam: Any) -> None:
    model.hold = True
    asks = caller(model, ledger)
    first = asyncio.ensure_future(asks.ask_many("small", exam("a", last="same")))
    await settled()
    second = asyncio.ensure_future(asks.ask_many("small", exam("b", agent="bob", last="same")))
    await settled()
    first.cancel()
    await settled()
    model.open("b")
    assert texts(await second) == ["to same"]
    assert [request.path.item for request in model.asked] == ["a", "b"]
    assert asks.meter.in_flight == 0


# --- calls that give up -------------------------------------------------------------------------------------


def failing(*items: str, transient: bool = True) -> Callable[[ChatRequest], Reply | str]:
    return lambda r: Reply("", "failed", error="503", transient=transient) if r.path.item in items else "fine"


async def test_a_few_failures_are_data(model: Model, ledger: Ledger, exam: Any, tmp_path: Path) -> None:
    model.reply = failing("p3")
    asks = caller(model, ledger, failed=0.1)
    replies = await asks.ask_many("small", exam(*(f"p{n}" for n in range(10)), purpose="answer"))
    assert [reply.finish for reply in replies].count("failed") == 1
    assert asks.meter.failed == 1
    assert "p3" in kept(tmp_path)


async def test_a_failure_of_the_run_is_counted_in_the_resumed_run_too(model: Model, exam: Any, tmp_path: Path) -> None:
    model.reply = failing("p3")
    async with Ledger(tmp_path) as ledger:
        await caller(model, ledger).ask_many("small", exam("p1", "p3", purpose="answer"))
    async with Ledger(tmp_path) as ledger:
        again = caller(model, ledger)
        await again.ask_many("small", exam("p1", "p3", purpose="answer"))
        assert (again.meter.made, again.meter.failed) == (0, 1)
        model.reply = failing("p5")
        with pytest.raises(CallsFailed, match="2 of 3 calls gave up"):
            await again.ask_many("small", exam("p5", purpose="answer"))


async def test_more_failures_than_tolerated_stop_the_run_and_are_tried_anew(
    model: Model, exam: Any, tmp_path: Path
) -> None:
    model.reply = failing("p3", "p4")
    items = [f"p{n}" for n in range(10)]
    async with Ledger(tmp_path) as ledger:
        with pytest.raises(CallsFailed, match="2 of 10 calls gave up: 503") as caught:
            await caller(model, ledger, failed=0.1).ask_many("small", exam(*items, purpose="answer"))
    assert "resume" in caught.value.remedy
    assert sorted(kept(tmp_path)) == [item for item in items if item not in ("p3", "p4")]
    model.reply = lambda _: "fine"
    model.asked.clear()
    async with Ledger(tmp_path) as ledger:
        await caller(model, ledger).ask_many("small", exam(*items, purpose="answer"))
    assert sorted(request.path.item for request in model.asked) == ["p3", "p4"]


async def test_a_writing_step_that_can_never_be_answered_is_data_not_a_broken_server(
    model: Model, ledger: Ledger, exam: Any
) -> None:
    asks = caller(model, ledger)
    model.reply = failing("a", "b", transient=False)
    replies = await asks.ask_many("small", exam("a", "b", purpose="reflect"))
    assert [reply.finish for reply in replies] == ["failed"] * 2
    model.reply = failing("c", "d", transient=True)
    with pytest.raises(CallsFailed):
        await asks.ask_many("small", exam("c", "d", purpose="reflect"))


async def test_one_call_of_a_small_step_that_gave_up_does_not_stop_the_run(
    model: Model, ledger: Ledger, exam: Any
) -> None:
    asks = caller(model, ledger)
    model.reply = failing("ann", "bob")
    assert (await asks.ask_many("small", exam("ann", purpose="discuss")))[0].finish == "failed"
    with pytest.raises(CallsFailed, match="2 of 2 calls gave up: 503"):
        await asks.ask_many("small", exam("bob", purpose="discuss"))


async def test_the_share_that_may_give_up_is_of_the_whole_step_in_all_its_batches(
    model: Model, ledger: Ledger, exam: Any
) -> None:
    asks = caller(model, ledger, failed=0.1)
    model.hold = True
    model.reply = failing("ann1", "ann2", "bob1")
    batches = [exam(*(f"{who}{n}" for n in range(10)), agent=who, purpose="answer") for who in ("ann", "bob", "cy")]
    model.open(*(request.path.item for batch in batches for request in batch))
    replies = await asyncio.gather(*(asks.ask_many("small", batch) for batch in batches))
    assert [reply.finish for batch in replies for reply in batch].count("failed") == 3  # a tenth of thirty
    model.reply = failing("dan1")
    model.open("dan1")
    with pytest.raises(CallsFailed, match="4 of 31 calls gave up"):
        await asks.ask_many("small", exam("dan1", agent="dan", purpose="answer"))


async def test_each_step_and_round_has_a_share_of_its_own(model: Model, ledger: Ledger, ask: Ask) -> None:
    asks = caller(model, ledger)
    model.reply = lambda _: Reply("", "failed", error="503", transient=True)
    for path in (CallPath(1, "ask", "ann"), CallPath(1, "discuss", "ann"), CallPath(2, "ask", "ann")):
        assert (await asks.ask("small", ask(path=path, purpose="ask"))).finish == "failed"


async def test_judgements_that_give_up_are_charged_however_final(model: Model, ledger: Ledger, exam: Any) -> None:
    model.reply = failing("p1", "p2", transient=False)
    with pytest.raises(CallsFailed, match="2 of 4 calls gave up"):
        await caller(model, ledger).ask_many("small", exam("p1", "p2", "p3", "p4", purpose="judge"))


async def test_an_agent_of_a_team_that_cannot_go_on_without_its_reply_is_asked_again_later(
    model: Model, exam: Any, tmp_path: Path
) -> None:
    model.reply = failing("a")
    async with Ledger(tmp_path) as ledger:
        with pytest.raises(CallsFailed):
            await caller(model, ledger).ask_many("small", exam("a", purpose="chat"))
    assert kept(tmp_path) == []


async def test_identical_calls_that_fail_one_after_the_other_are_counted_together(
    model: Model, ledger: Ledger, exam: Any
) -> None:
    model.reply = lambda _: Reply("", "failed", error="503", transient=True)
    items = [f"p{n}" for n in range(20)]
    with pytest.raises(CallsFailed):
        await caller(model, ledger, failed=0.05).ask_many("small", exam(*items, last="same", purpose="answer"))
    assert len(model.asked) == 2


async def test_a_failed_batch_is_told_as_such_also_to_those_who_shared_it(
    model: Model, ledger: Ledger, exam: Any
) -> None:
    model.hold = True
    model.reply = lambda _: Reply("", "failed", error="503", transient=True)
    asks = caller(model, ledger)
    tasks = [asyncio.ensure_future(asks.ask_many("small", exam(n, agent=n, last="same"))) for n in ("a", "b")]
    await settled()
    model.open("a", "b")
    for task in tasks:
        with pytest.raises(CallsFailed):
            await task


# --- budgets ------------------------------------------------------------------------------------------------


async def test_the_budget_of_calls_is_never_overspent(model: Model, ledger: Ledger, exam: Any, tmp_path: Path) -> None:
    asks = caller(model, ledger, calls=5)
    await asks.ask_many("small", exam("a", "b", "c"))
    with pytest.raises(BudgetExhausted, match="3 of 5 calls, and the next step needs 3") as caught:
        await asks.ask_many("small", exam("d", "e", "f"))
    assert "budget.calls" in caught.value.remedy
    await asks.ask_many("small", exam("g", "h"))
    assert len(model.asked) == 5


async def test_batches_in_flight_count_against_the_budget(
    model: Model, ledger: Ledger, exam: Any, tmp_path: Path
) -> None:
    model.hold = True
    asks = caller(model, ledger, calls=5)
    first = asyncio.ensure_future(asks.ask_many("small", exam("a", "b", "c")))
    await settled()
    second = asyncio.ensure_future(asks.ask_many("small", exam("d", "e", "f", agent="bob")))
    await settled()
    assert len(model.asked) == 3
    model.open("a", "b", "c")
    await first
    with pytest.raises(BudgetExhausted):
        await second
    assert sorted(kept(tmp_path)) == ["a", "b", "c"]


async def test_what_is_in_flight_is_kept_when_the_budget_ends_the_run(
    model: Model, ledger: Ledger, exam: Any, tmp_path: Path
) -> None:
    model.hold = True
    asks = caller(model, ledger, calls=5)

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asks.ask_many("small", exam("a", "b", "c")))
            await settled()
            group.create_task(asks.ask_many("small", exam("d", "e", "f", agent="bob")))

    whole = asyncio.ensure_future(run())
    await settled()
    model.open("a", "b", "c")
    with pytest.raises(ExceptionGroup) as caught:
        await whole
    assert caught.group_contains(BudgetExhausted)
    await ledger.flush()
    assert sorted(kept(tmp_path)) == ["a", "b", "c"]


async def test_the_budget_counts_what_was_paid_before_the_resume(model: Model, exam: Any, tmp_path: Path) -> None:
    async with Ledger(tmp_path) as ledger:
        await caller(model, ledger).ask_many("small", exam("a", "b", "c"))
    async with Ledger(tmp_path) as ledger:
        asks = caller(model, ledger, calls=4)
        with pytest.raises(BudgetExhausted, match="3 of 4"):  # though it has replayed only one of them
            await asks.ask_many("small", exam("a", "d", "e"))
        await asks.ask_many("small", exam("a", "b", "c", "d"))


async def test_shared_calls_cost_nothing(model: Model, ledger: Ledger, exam: Any) -> None:
    asks = caller(model, ledger, calls=1)
    await asks.ask_many("small", exam("a", last="same"))
    await asks.ask_many("small", exam("b", "c", last="same"))
    assert len(model.asked) == 1


async def test_a_budget_of_tokens_stops_the_run(model: Model, exam: Any, tmp_path: Path) -> None:
    async with Ledger(tmp_path) as ledger:
        asks = caller(model, ledger, tokens=24)
        await asks.ask_many("small", exam("a", "b"))
        with pytest.raises(BudgetExhausted, match=r"24 of 24 tokens") as caught:
            await asks.ask_many("small", exam("c"))
        assert "budget.tokens" in caught.value.remedy
    async with Ledger(tmp_path) as ledger:
        with pytest.raises(BudgetExhausted):
            await caller(model, ledger, tokens=24).ask_many("small", exam("c"))


async def test_a_budget_of_tokens_that_is_spent_within_a_batch_ends_it_and_keeps_what_was_sent(
    model: Model, ledger: Ledger, exam: Any, tmp_path: Path
) -> None:
    asks = caller(model, ledger, tokens=60)  # five calls
    with pytest.raises(BudgetExhausted, match=r"of 60 tokens") as caught:
        await asks.ask_many("small", exam(*(f"p{n}" for n in range(120))))
    assert "budget.tokens" in caught.value.remedy
    assert 5 <= len(model.asked) < 5 + model.gate.limit
    assert sorted(kept(tmp_path)) == sorted(request.path.item for request in model.asked)
    assert asks.meter.in_flight == 0


async def test_a_budget_of_tokens_that_one_batch_spends_lets_what_others_sent_be_answered(
    model: Model, ledger: Ledger, exam: Any, tmp_path: Path
) -> None:
    model.hold = True
    model.open(*(f"p{n}" for n in range(20)))
    asks = caller(model, ledger, tokens=60)

    async def run() -> None:
        async with asyncio.TaskGroup() as group:  # the first error cancels the others, as in a run
            group.create_task(asks.ask_many("small", exam("slow", agent="bob")))
            group.create_task(asks.ask_many("small", exam(*(f"p{n}" for n in range(20)))))

    whole = asyncio.ensure_future(run())
    await settled()
    assert not whole.done()
    model.open("slow")
    with pytest.raises(ExceptionGroup) as caught:
        await whole
    assert caught.group_contains(BudgetExhausted)
    await ledger.flush()
    assert "slow" in kept(tmp_path)


# --- draining -----------------------------------------------------------------------------------------------


async def test_draining_sends_nothing_new_and_commits_what_is_in_flight(
    model: Model, ledger: Ledger, exam: Any, tmp_path: Path
) -> None:
    model.hold = True
    asks = caller(model, ledger)
    items = [f"p{n}" for n in range(10)]
    task = asyncio.ensure_future(asks.ask_many("small", exam(*items)))
    await settled()
    asks.draining = True
    model.open(*items)
    with pytest.raises(Interrupted):
        await task
    assert sorted(kept(tmp_path)) == ["p0", "p1", "p2", "p3"]  # the model takes four at a time
    assert asks.meter.in_flight == 0


async def test_a_step_that_ends_early_does_not_cut_off_what_others_have_in_flight(
    model: Model, ledger: Ledger, exam: Any, tmp_path: Path
) -> None:
    model.hold = True
    asks = caller(model, ledger)

    async def run() -> None:
        async with asyncio.TaskGroup() as group:  # the first error cancels the others, as in a run
            group.create_task(asks.ask_many("small", exam("slow")))
            group.create_task(asks.ask_many("small", exam("other", agent="bob")))
            await settled()
            asks.draining = True
            group.create_task(asks.ask_many("small", exam("new", agent="cy")))

    whole = asyncio.ensure_future(run())
    await settled()
    model.open("other")
    await settled()
    assert not whole.done()
    model.open("slow")
    with pytest.raises(ExceptionGroup) as caught:
        await whole
    assert caught.group_contains(Interrupted)
    await ledger.flush()
    assert sorted(kept(tmp_path)) == ["other", "slow"]


async def test_a_drained_run_still_replays_what_is_recorded(model: Model, exam: Any, tmp_path: Path) -> None:
    async with Ledger(tmp_path) as ledger:
        await caller(model, ledger).ask_many("small", exam("a"))
    async with Ledger(tmp_path) as ledger:
        asks = caller(model, ledger)
        asks.draining = True
        assert texts(await asks.ask_many("small", exam("a"))) == ["to a"]


async def test_an_engine_that_stops_early_is_a_fault_of_its_own(ledger: Ledger, exam: Any) -> None:
    class Lazy(Model):
        async def create_many(self, requests: Iterable[ChatRequest]) -> AsyncIterator[tuple[int, Reply]]:
            for index, _ in enumerate(requests):
                yield index, Reply("only one")
                return

    with pytest.raises(CallsFailed, match="answered 1 of 3"):
        await caller(Lazy(), ledger).ask_many("small", exam("a", "b", "c"))
