"""The engine `vllm` against stand-ins: the same answers on every path, faults that cost nobody anything."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from stubs import BATCH, CHAT, TOKENIZE, Stub, here

from lbt_sim.errors import Interrupted, ModelUnavailable
from lbt_sim.ledger import Ledger, LedgerReader
from lbt_sim.models.base import CallPath, ChatRequest, Head, ModelInfo, Reply, Sampling, Turn
from lbt_sim.models.recorded import Caller
from lbt_sim.models.surroundings import Surroundings
from lbt_sim.models.vllm import fleet
from lbt_sim.models.vllm.model import VllmModel, VllmSpec
from lbt_sim.models.vllm.pace import FIRST

Ask = Callable[..., ChatRequest]
Start = Callable[..., Awaitable[Stub]]


class Ready(VllmModel):
    """A model that is ready, with what it said then."""

    info: ModelInfo


Connect = Callable[..., Awaitable[Ready]]

LABELS = ("positive", "negative")
ALIKE = ("mostly true", "mostly false")
"""Labels that begin with the same token."""
TEACHES = Head(
    (
        Turn("system", "Answer with one word: positive or negative. " + "It is about films of all kinds. " * 12),
        Turn("user", "A dull one."),
        Turn("assistant", "negative"),
        Turn("user", "A bright one."),
        Turn("assistant", "positive"),
    )
)
RATES = Head(
    (
        Turn("system", "Rate the claim."),
        Turn("user", "Taxes fell."),
        Turn("assistant", "mostly true"),
        Turn("user", "Taxes rose."),
        Turn("assistant", "mostly false"),
    )
)
WRITE = "Write only the lesson, in at most five sentences, number {}."
WARM = Sampling(temperature=0.8, max_tokens=12)


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LBT_SIM_STATE", str(tmp_path / "state"))


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def begin(*flags: str) -> Stub:
            return await stack.enter_async_context(here(*flags))

        yield begin


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """A model that is ready, on stand-ins that have forgotten how they were probed."""
    models: list[VllmModel] = []

    async def make(*stubs: Stub, **options: Any) -> Ready:
        urls = [stub.url for stub in stubs]
        model = Ready(VllmSpec(**({"model": "tiny", "urls": urls, "retries": 2} | options)))
        models.append(model)
        model.info = await model.ready()
        for stub in stubs:
            stub.forget()
        return model

    yield make
    for model in models:
        await model.close()


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    (tmp_path / "run").mkdir()
    async with Ledger(tmp_path / "run") as ledger:
        yield ledger


def exam(
    ask: Ask, count: int, head: Head = TEACHES, choices: tuple[str, ...] = LABELS, **more: Any
) -> list[ChatRequest]:
    """An exam of so many items."""
    return [
        ask(f"Film {n} was seen.", path=CallPath(0, "exam", "ann", f"p{n}"), head=head, choices=choices, **more)
        for n in range(count)
    ]


def writing(ask: Ask, count: int, **more: Any) -> list[ChatRequest]:
    more = {"sampling": Sampling(max_tokens=32)} | more
    return [ask(WRITE.format(n), path=CallPath(0, "teach", "tom", f"w{n}"), head=TEACHES, **more) for n in range(count)]


def samples(ask: Ask, count: int, **more: Any) -> list[ChatRequest]:
    """So many replies to one prompt, with seeds that follow each other."""
    request = ask(WRITE.format("one"), head=TEACHES, sampling=replace(WARM, max_tokens=32), **more)
    path = request.path
    return [replace(request, path=path._replace(sample=n), seed=request.seed + n) for n in range(count)]


async def all_of(model: VllmModel, requests: list[ChatRequest]) -> list[Reply]:
    """The replies in the order of the requests; each index once."""
    found = [pair async for pair in model.create_many(requests)]
    assert sorted(index for index, _ in found) == list(range(len(requests)))
    return [reply for _, reply in sorted(found, key=lambda pair: pair[0])]


def said(replies: list[Reply]) -> list[tuple[str, str, Any]]:
    """What of replies must be the same on every path."""
    logprobs = [r.choice_logprobs and tuple(p and round(p, 6) for p in r.choice_logprobs) for r in replies]
    return [(r.text, r.finish, found) for r, found in zip(replies, logprobs, strict=True)]


async def called(model: Ready, ledger: Ledger, requests: list[ChatRequest]) -> tuple[Caller, list[Reply]]:
    """The replies as a run gets them."""
    caller = Caller({"small": (model, model.info)}, ledger)
    return caller, await caller.ask_many("small", requests)


# --- the same answers on every path -----------------------------------------------------------------------

PATHS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "single calls": ((), {"batches": False}),
    "no batches": (("--no-batch",), {}),
    "no named tokens": (("--no-logprob-ids",), {}),
    "no tokenizer": (("--no-tokenize",), {}),
    "no constraints": (("--no-structured",), {}),
    "none of it": (("--no-batch", "--no-logprob-ids", "--no-tokenize", "--no-structured"), {}),
    "a shared prefix in flight": (("--share-in-flight",), {}),
}


@pytest.fixture
def everything(ask: Ask) -> dict[str, list[ChatRequest]]:
    """One batch of each kind of request."""
    return {
        "labels": exam(ask, 20),
        "labels drawn": [replace(r, seed=100 + n) for n, r in enumerate(exam(ask, 20, sampling=WARM))],
        "labels alike": exam(ask, 8, RATES, ALIKE),
        "texts": writing(ask, 6),
        "texts drawn": writing(ask, 4, sampling=WARM),
        "samples": samples(ask, 5),
    }


@pytest.mark.parametrize("path", PATHS)
async def test_answers_are_the_same_on_every_path(
    path: str, start: Start, connect: Connect, everything: dict[str, list[ChatRequest]]
) -> None:
    flags, options = PATHS[path]
    usual, other = await connect(await start()), await connect(await start(*flags), **options)
    for kind, requests in everything.items():
        wanted = await all_of(usual, requests)
        assert all(reply.finish != "failed" for reply in wanted), kind
        assert said(await all_of(other, requests)) == said(wanted), kind


async def test_a_batch_answers_as_its_calls_do_one_by_one(
    start: Start, connect: Connect, everything: dict[str, list[ChatRequest]]
) -> None:
    model = await connect(await start())
    for kind, requests in everything.items():
        assert said([await model.create(r) for r in requests]) == said(await all_of(model, requests)), kind


async def test_an_exam_goes_out_in_few_requests_and_no_token_too_many(start: Start, connect: Connect, ask: Ask) -> None:
    stub = await start()
    replies = await all_of(await connect(stub), exam(ask, 49))
    assert len(stub.posts()) == 4  # one to warm the cache, then groups of sixteen
    assert [len(body["messages"]) for body in stub.posts(BATCH)] == [16, 16, 16]
    assert stub.stats.conversations == stub.stats.generated_tokens == 49
    assert {reply.text for reply in replies} == set(LABELS)
    assert sum(reply.prompt_tokens or 0 for reply in replies) == stub.stats.prompt_tokens
    assert sum(reply.completion_tokens or 0 for reply in replies) == 49


async def test_labels_that_begin_alike_are_held_to_the_choices(start: Start, connect: Connect, ask: Ask) -> None:
    stub = await start()
    replies = await all_of(await connect(stub), exam(ask, 12, RATES, ALIKE))
    assert {reply.text for reply in replies} == set(ALIKE)
    assert all(body["structured_outputs"] == {"choice": list(ALIKE)} for body in stub.posts())
    assert all(reply.choice_logprobs is None for reply in replies)


async def test_the_tokenizer_is_asked_once_for_each_label(start: Start, connect: Connect, ask: Ask) -> None:
    stub = await start()
    model = await connect(stub)
    await asyncio.gather(*(all_of(model, exam(ask, 5)) for _ in range(3)))
    assert [body["prompt"] for body in stub.posts(TOKENIZE)] == [*LABELS, *(f" {label}" for label in LABELS)]


async def test_labels_are_drawn_by_the_seed_of_the_request(start: Start, connect: Connect, ask: Ask) -> None:
    model = await connect(await start())
    request = ask(head=TEACHES, choices=LABELS, sampling=Sampling(temperature=2.0, max_tokens=8))
    drawn = [(await model.create(replace(request, seed=seed))).text for seed in range(40)]
    assert Counter(drawn).keys() == set(LABELS)
    assert drawn == [(await model.create(replace(request, seed=seed))).text for seed in range(40)]


async def test_samples_of_a_prompt_are_one_request(start: Start, connect: Connect, ask: Ask) -> None:
    stub = await start("--share-in-flight")
    model = await connect(stub)
    replies = await all_of(model, samples(ask, 5))
    (body,) = stub.posts()
    assert (body["n"], body["seed"]) == (5, 7)
    assert len({reply.text for reply in replies}) == 5
    assert [reply.cached_tokens for reply in replies[1:]] == [reply.prompt_tokens for reply in replies[1:]]
    assert sum(reply.completion_tokens or 0 for reply in replies) == stub.stats.generated_tokens


# --- models that think ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [(), ("--reasoning-parser", "qwen3"), ("--reasoning-parser", "x", "--reasoning-field", "reasoning_content")],
    ids=["in the text", "apart", "apart, as older versions call it"],
)
async def test_a_thinking_model_labels_at_once_and_writes_with_its_thought_apart(
    flags: tuple[str, ...], start: Start, connect: Connect, ask: Ask
) -> None:
    stub = await start("--thinking", *flags)
    model, unthinking = await connect(stub), await connect(await start())
    labels = await all_of(model, exam(ask, 8))
    assert all(reply.text in LABELS and reply.reasoning is None for reply in labels)
    assert all(body["chat_template_kwargs"] == {"enable_thinking": False} for body in stub.posts())
    assert stub.stats.generated_tokens == 8
    stub.forget()
    for requests in (writing(ask, 4), samples(ask, 3)):
        written = await all_of(model, requests)
        assert all(reply.reasoning and "think>" not in reply.reasoning + reply.text for reply in written)
        assert [reply.text for reply in written] == [r.text for r in await all_of(unthinking, requests)]
    assert not any("chat_template_kwargs" in body for body in stub.posts())


async def test_thinking_can_be_switched_off_for_writing_too(start: Start, connect: Connect, ask: Ask) -> None:
    stub = await start("--thinking")
    model = await connect(stub, thinking=False)
    assert all(reply.reasoning is None and reply.text for reply in await all_of(model, writing(ask, 3)))
    assert model.info.identity.endswith("thinking=false")


async def test_a_thought_that_is_cut_off_says_nothing(start: Start, connect: Connect, ask: Ask) -> None:
    model = await connect(await start("--thinking"))
    (reply,) = await all_of(model, writing(ask, 1, sampling=Sampling(max_tokens=5)))
    assert (reply.text, reply.finish) == ("", "length")
    assert reply.reasoning


# --- lengths ----------------------------------------------------------------------------------------------


async def test_a_prompt_that_does_not_fit_is_refused_before_it_is_sent(
    start: Start, connect: Connect, ask: Ask
) -> None:
    stub = await start("--max-model-len", "256")
    model = await connect(stub)
    long = ask("word " * 400, head=TEACHES, choices=LABELS)
    reply = await model.create(long)
    assert (reply.finish, reply.transient, stub.stats.calls) == ("failed", False, 0)
    counted = await model.create(replace(long, purpose="count", choices=()))
    assert f"the prompt has {int(counted.text)} tokens" in (reply.error or "")
    assert "256" in (reply.error or "")
    assert stub.stats.calls == 0


async def test_a_prompt_fits_to_the_last_token(start: Start, connect: Connect, ask: Ask) -> None:
    stub = await start("--max-model-len", "256")
    model = await connect(stub)
    request = writing(ask, 1)[0]
    tokens = int((await model.create(replace(request, purpose="count"))).text)
    exact = replace(request, sampling=Sampling(max_tokens=256 - tokens))
    assert (await model.create(exact)).finish == "stop"
    one_more = replace(request, sampling=Sampling(max_tokens=257 - tokens))
    assert (await model.create(one_more)).finish == "failed"
    assert stub.stats.calls == 1


async def test_counting_gives_the_number_of_tokens_that_the_server_computes(
    start: Start, connect: Connect, ask: Ask
) -> None:
    stub = await start("--thinking")
    model = await connect(stub)
    assert model.info.counts_tokens
    for request in (exam(ask, 1)[0], writing(ask, 1)[0]):
        counted = await model.create(replace(request, purpose="count"))
        answered = await model.create(request)
        assert int(counted.text) == answered.prompt_tokens
    assert stub.stats.calls == 2, "one attempt, and one more"


async def test_what_does_not_fit_takes_nothing_from_the_others(start: Start, connect: Connect, ask: Ask) -> None:
    stub = await start("--max-model-len", "256")
    model = await connect(stub)
    requests = exam(ask, 12)
    requests[7] = replace(requests[7], last="word " * 400)
    replies = await all_of(model, requests)
    assert [n for n, reply in enumerate(replies) if reply.finish == "failed"] == [7]
    assert stub.stats.conversations == 11


async def test_a_conversation_that_the_server_refuses_takes_nothing_from_its_batch(
    start: Start, connect: Connect, ask: Ask
) -> None:
    stub = await start("--max-model-len", "256", "--no-tokenize")  # nobody can tell beforehand
    model = await connect(stub)
    requests = exam(ask, 12)
    requests[7] = replace(requests[7], last="word " * 400)
    replies = await all_of(model, requests)
    assert [n for n, reply in enumerate(replies) if reply.finish == "failed"] == [7]
    assert "maximum context length" in (replies[7].error or "")
    assert not replies[7].transient
    assert len(stub.posts(BATCH)) == 1


# --- faults -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [{"fault": "reset"}, {"fault": "half_json"}, {"fault": "error", "status": 500}, {"fault": "error", "status": 502}],
    ids=["reset", "half a JSON", "500", "502"],
)
async def test_errors_that_pass_cost_no_call(
    fault: dict[str, Any], start: Start, connect: Connect, ask: Ask, ledger: Ledger, tmp_path: Path
) -> None:
    stub = await start()
    model = await connect(stub)
    requests = exam(ask, 20)
    wanted = [reply.text for reply in await all_of(model, requests)]
    stub.fault(**fault, count=2)
    caller, replies = await called(model, ledger, requests)
    assert [reply.text for reply in replies] == wanted
    assert (caller.meter.made, caller.meter.failed) == (20, 0)
    with LedgerReader(tmp_path / "run") as written:
        assert written.count() == 20


@pytest.mark.parametrize("status", ["503", "429"])
async def test_a_server_that_is_full_slows_us_down_and_fails_no_call(
    status: str, start: Start, connect: Connect, ask: Ask, ledger: Ledger
) -> None:
    flags = ("--slots", "4", "--queue", "8", "--refuse-status", status, "--seconds", "0.02")
    stub = await start(*flags)
    model = await connect(stub, retries=0)
    caller, replies = await called(model, ledger, exam(ask, 40))
    assert stub.stats.refused
    assert all(reply.text in LABELS for reply in replies)
    assert (caller.meter.made, caller.meter.failed) == (40, 0)
    assert model._party is not None
    assert model._party.stations[0].pace.limit < FIRST
    told = await model.figures()
    assert told["pushed_back"] == stub.stats.refused


async def test_a_server_of_another_model_is_refused_with_what_it_serves(start: Start, connect: Connect) -> None:
    stub = await start("--served-model-name", "other")
    with pytest.raises(ModelUnavailable, match="does not serve 'tiny'") as refused:
        await connect(stub)
    assert refused.value.valid == ("other",)


async def test_a_server_that_is_not_there_is_refused(start: Start, connect: Connect) -> None:
    stub = await start()
    await stub.stop()
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        await connect(stub)


async def test_an_unwanted_key_is_refused(start: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = await start("--api-key", "secret")
    with pytest.raises(ModelUnavailable, match="401"):
        await connect(stub)
    monkeypatch.setenv("TINY_KEY", "secret")
    await connect(stub, api_key_env="TINY_KEY")
    monkeypatch.delenv("TINY_KEY")
    with pytest.raises(ModelUnavailable, match="TINY_KEY is not set"):
        await connect(stub, api_key_env="TINY_KEY")


async def test_calls_to_a_server_that_went_away_may_succeed_later(start: Start, connect: Connect, ask: Ask) -> None:
    stub = await start()
    model = await connect(stub, retries=1)
    await stub.stop()
    replies = await all_of(model, [*exam(ask, 3), *writing(ask, 1)])
    assert all(reply.finish == "failed" and reply.transient and reply.error for reply in replies)


async def test_a_model_that_is_closed_answers_nothing(start: Start, connect: Connect, ask: Ask) -> None:
    model = await connect(await start())
    await model.close()
    replies = [await model.create(ask()), *await all_of(model, exam(ask, 2))]
    assert all(reply.finish == "failed" and reply.transient for reply in replies)


# --- order ------------------------------------------------------------------------------------------------


async def test_a_prompts_head_is_computed_once(start: Start, connect: Connect, ask: Ask) -> None:
    stub = await start()
    model = await connect(stub)
    await asyncio.gather(*(all_of(model, exam(ask, 40, head)) for head in (TEACHES, RATES)))
    assert stub.stats.conversations == 80
    assert stub.stats.computed_tokens <= 1.1 * stub.engine.uniques.block_tokens
    assert stub.stats.computed_tokens < 0.5 * stub.stats.prompt_tokens


async def happens(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (a stand-in sets no events)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("flags", "first"), [((), 1), (("--share-in-flight",), 20)], ids=["alone", "all at once"])
async def test_the_first_call_goes_alone_only_where_the_others_would_compute_its_head_again(
    flags: tuple[str, ...], first: int, start: Start, connect: Connect, ask: Ask
) -> None:
    stub = await start(*flags)
    model = await connect(stub)
    stub.fault("hang")
    work = asyncio.create_task(all_of(model, exam(ask, 20)))
    await happens(lambda: stub.stats.conversations >= first)
    await asyncio.sleep(0.1)
    assert stub.stats.conversations == first
    stub.fault("none")
    assert len(await work) == 20


async def test_who_leaves_early_sends_no_more_and_gives_up_what_is_in_flight(
    start: Start, connect: Connect, ask: Ask
) -> None:
    stub = await start("--slots", "4", "--seconds", "0.02")
    model = await connect(stub, concurrency=8)
    async with aclosing(model.create_many(exam(ask, 200))) as replies:  # type: ignore[type-var]
        async for _ in replies:
            if stub.stats.conversations > 8:
                break
    await happens(lambda: not stub.engine.running)  # what was on its way has come too
    await asyncio.sleep(0.2)
    arrived = stub.stats.conversations
    await happens(lambda: not stub.engine.running)
    await asyncio.sleep(0.1)
    assert stub.stats.conversations == arrived < 40
    assert stub.stats.aborted


async def test_a_feed_that_ends_early_is_sent_and_no_more(start: Start, connect: Connect, ask: Ask) -> None:
    stub = await start("--seconds", "0.01")
    model = await connect(stub, concurrency=8)
    taken, stopped = 0, False

    def feed() -> Iterator[ChatRequest]:
        nonlocal taken
        for request in exam(ask, 200):
            if stopped:
                return
            taken += 1
            yield request

    answered = 0
    async for _ in model.create_many(feed()):
        answered += 1
        stopped = answered >= 10
    assert answered == taken == stub.stats.conversations < 40


async def test_a_run_that_is_interrupted_keeps_what_was_in_flight(
    start: Start, connect: Connect, ask: Ask, ledger: Ledger, tmp_path: Path
) -> None:
    stub = await start("--seconds", "0.01")
    model = await connect(stub, concurrency=8)
    caller = Caller({"small": (model, model.info)}, ledger)
    work = asyncio.create_task(caller.ask_many("small", exam(ask, 200)))
    await happens(lambda: caller.meter.made > 10)
    caller.draining = True
    with pytest.raises(Interrupted):
        await work
    assert caller.meter.failed == 0
    with LedgerReader(tmp_path / "run") as written:
        assert written.count() == stub.stats.conversations == caller.meter.made < 200


async def test_no_more_calls_are_in_flight_than_the_scenario_allows(start: Start, connect: Connect, ask: Ask) -> None:
    stub = await start("--seconds", "0.005")
    model = await connect(stub, concurrency=6)
    await asyncio.gather(*(all_of(model, exam(ask, 30, head)) for head in (TEACHES, RATES)))
    assert stub.stats.most_running == 6
    assert (await model.figures())["in_flight_at_most"] == 6


# --- several servers, several entries ---------------------------------------------------------------------


def heads(count: int) -> list[Head]:
    return [Head((Turn("system", f"Class {n}. Answer positive or negative."),)) for n in range(count)]


async def test_a_head_stays_with_its_replica_and_all_replicas_are_used(
    start: Start, connect: Connect, ask: Ask
) -> None:
    stubs = [await start(), await start()]
    model = await connect(*stubs)
    for head in heads(12):
        for _ in range(2):
            await all_of(model, exam(ask, 6, head))
    at = [{body_head(body) for body in stub.posts()} for stub in stubs]
    assert all(at)
    assert len(at[0]) + len(at[1]) == len(at[0] | at[1]) == 12


def body_head(body: dict[str, Any]) -> str:
    """The system turn of a request, alone or in a batch."""
    messages = body["messages"]
    first = messages[0] if isinstance(messages[0], list) else messages
    text: str = first[0]["content"]
    return text


async def test_another_connection_deals_heads_out_in_the_same_way(start: Start, connect: Connect, ask: Ask) -> None:
    stubs = [await start(), await start()]
    seen = []
    for _ in range(2):
        model = await connect(*stubs)
        for head in heads(10):
            await all_of(model, exam(ask, 2, head))
        seen.append([{body_head(body) for body in stub.posts()} for stub in stubs])
        await model.close()
    assert seen[0] == seen[1]


async def test_calls_at_a_server_that_stands_still_are_broken_off_and_sent_to_the_other(
    start: Start, connect: Connect, ask: Ask
) -> None:
    first, second = await start("--seconds", "0.005"), await start("--seconds", "0.005")
    model = await connect(first, second, concurrency=4, patience=0.6, retries=3)
    first.fault("hang")
    replies = await all_of(model, exam(ask, 40))
    assert {reply.finish for reply in replies} == {"stop"}
    assert second.stats.conversations == 40
    assert first.stats.conversations, "the first was asked"


async def test_a_server_that_stands_still_costs_its_calls_as_many_attempts_as_the_scenario_says(
    start: Start, connect: Connect, ask: Ask
) -> None:
    stub = await start()
    model = await connect(stub, patience=0.4, retries=1)
    stub.fault("hang")
    reply = await model.create(exam(ask, 1)[0])
    assert (reply.finish, reply.transient) == ("failed", True)
    assert "made no progress for 0.4 s while calls waited" in (reply.error or "")
    assert stub.stats.calls == 2
    stub.fault("none")
    assert (await model.create(exam(ask, 1)[0])).text in LABELS


async def test_a_long_call_is_not_taken_for_a_server_that_stands_still(
    start: Start, connect: Connect, ask: Ask
) -> None:
    stub = await start("--seconds-per-output-token", "0.05", "--output-tokens", "40")
    model = await connect(stub, patience=0.5, retries=0)
    reply = await model.create(ask("Tell all.", sampling=Sampling(temperature=0.0, max_tokens=40)))
    assert reply.finish in ("stop", "length")


async def test_a_server_that_had_nothing_to_do_does_not_stand_still(start: Start, connect: Connect, ask: Ask) -> None:
    stub = await start("--seconds", "0.3")
    model = await connect(stub, patience=2.0, retries=0)
    assert (await model.create(exam(ask, 1)[0])).finish == "stop"
    await asyncio.sleep(2.5)
    assert (await model.create(exam(ask, 1)[0])).finish == "stop"


@pytest.mark.parametrize("figures", ["none of vLLM's", "forbidden", "broken"])
async def test_a_server_without_usable_figures_is_not_taken_for_one_that_stands_still(
    figures: str, connect: Connect, ask: Ask
) -> None:
    stub = Stub()
    handle = stub._stub.handle

    async def other(request: web.BaseRequest) -> web.StreamResponse:
        if request.path != "/metrics":
            answer: web.StreamResponse = await handle(request)
            return answer
        status = {"forbidden": 403, "broken": 500}.get(figures, 200)
        return web.Response(text="# HELP other_total of another program\nother_total 3.0\n", status=status)

    stub._stub.handle = other
    await stub.start()
    try:
        model = await connect(stub, patience=0.5, retries=0)
        stub.fault("slow", seconds=1.5)
        assert (await model.create(exam(ask, 1)[0])).finish == "stop"
    finally:
        await stub.stop()


async def test_a_server_that_stood_still_is_asked_again_once_it_answers_and_not_before(
    start: Start, connect: Connect, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "BACK", 0.2)
    monkeypatch.setattr(fleet, "PROBE_SECONDS", 0.4)
    stubs = [await start(), await start()]
    model = await connect(*stubs, patience=0.6, retries=0)
    stubs[0].fault("hang")
    for head in heads(12):
        replies = await all_of(model, exam(ask, 2, head))
        assert {reply.finish for reply in replies} == {"stop"}, "the other answers, at no attempt's cost"
    assert [r.down_until for r in model._transport.replicas] == [math.inf, 0.0]  # type: ignore[union-attr]
    stubs[0].fault("none")
    await happens(lambda: model._transport.replicas[0].down_until == 0.0)  # type: ignore[union-attr]
    before = stubs[0].stats.conversations
    for head in heads(12):
        await all_of(model, exam(ask, 2, head))
    assert stubs[0].stats.conversations > before


@asynccontextmanager
async def telling(*stubs: Stub) -> AsyncIterator[tuple[Ready, list[str]]]:
    """A model that is ready, of calls that are tried once, and what a person hears."""
    told: list[str] = []
    model = Ready(VllmSpec(model="tiny", urls=[stub.url for stub in stubs], retries=0))
    model.settle(Surroundings(tell=told.append), "small")
    try:
        await model.ready()
        yield model, told
    finally:
        await model.close()


async def test_a_server_that_comes_back_with_another_model_is_passed_over(
    start: Start, connect: Connect, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "BACK", 0.1)
    first, away, other = await start(), await start(), await start("--wrong-name", "large")
    port = int(away.url.removesuffix("/v1").rsplit(":", 1)[1])
    await away.stop()
    async with telling(away, first) as (model, told):
        await other.stop()
        await other.start(port)
        await happens(lambda: len(told) > 1)
        assert "does not serve 'tiny'; it is still passed over" in told[1]
        for head in heads(12):
            assert {reply.finish for reply in await all_of(model, exam(ask, 2, head))} == {"stop"}


async def test_an_address_where_nobody_answers_yet_is_passed_over(
    start: Start, connect: Connect, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "BACK", 0.1)
    first, away = await start(), await start()
    port = int(away.url.removesuffix("/v1").rsplit(":", 1)[1])
    await away.stop()
    async with telling(away, first) as (model, told):
        assert {reply.finish for reply in await all_of(model, exam(ask, 20))} == {"stop"}
        assert "cannot be reached" in told[0]
        assert "passed over until it answers" in told[0]
        await away.start(port)
        await happens(lambda: told[1:] == [f"small: {away.url.removesuffix('/v1')} answers again"])
        before = away.stats.conversations
        for head in heads(12):
            await all_of(model, exam(ask, 2, head))
        assert away.stats.conversations > before


async def test_where_no_address_answers_the_run_does_not_begin(start: Start, connect: Connect) -> None:
    first, second = await start(), await start()
    await first.stop()
    await second.stop()
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        await connect(first, second)


async def test_a_server_without_figures_that_sends_calls_back_gets_fewer(
    start: Start, connect: Connect, ask: Ask
) -> None:
    stub = await start("--seconds", "0.02", "--slots", "4", "--queue", "4", "--no-metrics")
    model = await connect(stub, batches=False)
    assert {reply.finish for reply in await all_of(model, exam(ask, 300))} == {"stop"}
    party = model._party
    assert party is not None
    assert party.stations[0].silent
    assert party.stations[0].gate.limit < FIRST


async def test_when_a_replica_goes_away_the_other_takes_over(
    start: Start, connect: Connect, ask: Ask, ledger: Ledger
) -> None:
    stubs = [await start("--seconds", "0.01"), await start("--seconds", "0.01")]
    model = await connect(*stubs, concurrency=8)
    caller = Caller({"small": (model, model.info)}, ledger)
    work = [
        asyncio.create_task(
            caller.ask_many("small", [replace(r, path=r.path._replace(agent=f"a{n}")) for r in exam(ask, 40, head)])
        )
        for n, head in enumerate(heads(6))
    ]
    await happens(lambda: min(stub.stats.conversations for stub in stubs) > 10)
    await stubs[0].stop()
    replies = [reply for batch in await asyncio.gather(*work) for reply in batch]
    assert len(replies) == 240
    assert all(reply.text in LABELS for reply in replies)
    assert (caller.meter.made, caller.meter.failed) == (240, 0)


async def together(stub: Stub, **entries: dict[str, Any]) -> dict[str, VllmModel]:
    """Entries of one scenario on one server, ready."""
    surroundings = Surroundings()
    models = {
        name: VllmModel(VllmSpec(**({"model": "tiny", "urls": [stub.url]} | options)))
        for name, options in entries.items()
    }
    for name, model in models.items():
        model.settle(surroundings, name)
    return models


@pytest.mark.parametrize("order", [("plain", "tuned"), ("tuned", "plain")], ids=" then ".join)
async def test_entries_that_differ_in_their_adapter_share_a_server_and_its_limit(
    order: tuple[str, str], start: Start, ask: Ask, ledger: Ledger
) -> None:
    stub = await start("--lora-modules", "tuned=/adapters/tuned", "--seconds", "0.005")
    options = {"plain": {}, "tuned": {"lora": "tuned"}}
    models = await together(stub, **{name: {"concurrency": 8 + 4 * n} | options[name] for n, name in enumerate(order)})
    try:
        infos = {name: await model.ready() for name, model in models.items()}
        assert infos["plain"].identity != infos["tuned"].identity
        stub.forget()
        caller = Caller({name: (models[name], infos[name]) for name in order}, ledger)
        by_name = {name: [replace(r, path=r.path._replace(agent=name)) for r in exam(ask, 40)] for name in order}
        replies = await asyncio.gather(*(caller.ask_many(name, by_name[name]) for name in order))
        assert [reply.text for reply in replies[0]] != [reply.text for reply in replies[1]]
        assert Counter(body["model"] for body in stub.posts()).keys() == {"tiny", "tuned"}
        assert stub.stats.conversations == 80
        assert stub.stats.most_running <= 8
    finally:
        for model in models.values():
            await model.close()


async def test_an_adapter_that_the_server_does_not_have_is_refused(start: Start) -> None:
    stub = await start()
    models = await together(stub, plain={}, tuned={"lora": "tuned"})
    try:
        with pytest.raises(ModelUnavailable, match="does not serve 'tuned'"):
            await models["plain"].ready()
    finally:
        for model in models.values():
            await model.close()


async def test_a_salt_makes_a_prefix_cache_of_its_own(start: Start, connect: Connect, ask: Ask) -> None:
    stub = await start()
    model = await connect(stub)
    texts = [reply.text for reply in await all_of(model, exam(ask, 10))]
    cold = stub.stats.computed_tokens
    model.salt = "another"
    assert [reply.text for reply in await all_of(model, exam(ask, 10))] == texts
    assert stub.stats.computed_tokens >= 1.5 * cold


# --- what is told -----------------------------------------------------------------------------------------


async def test_the_figures_are_those_of_the_servers(start: Start, connect: Connect, ask: Ask) -> None:
    stubs = [await start(), await start()]
    model = await connect(*stubs)
    before = await model.figures()
    await asyncio.gather(*(all_of(model, exam(ask, 20, head)) for head in (TEACHES, *heads(5))))
    told = await model.figures()
    computed, sent = (sum(getattr(s.stats, key) for s in stubs) for key in ("computed_tokens", "prompt_tokens"))
    assert told["prompt_tokens"] == sent
    assert told["computed"] == computed
    assert told["prefix_hit_rate"] == round(1 - computed / sent, 4)
    assert told["generated"] == sum(stub.stats.generated_tokens for stub in stubs) == 120
    assert told["requests"] - before["requests"] == sum(len(stub.posts()) for stub in stubs)
    assert (told["replicas"], told["restarts"], told["pushed_back"]) == (2, [], 0)
    assert told["labels"] == {"read": 120, "thin": 0}
    assert told["in_flight_at_most"] == 2 * FIRST


async def test_labels_that_had_hardly_any_probability_are_counted(start: Start, connect: Connect, ask: Ask) -> None:
    model = await connect(await start())
    replies = await all_of(model, [*exam(ask, 5), *exam(ask, 7, choices=("zebra", "quartz"))])
    assert all(reply.text in ("zebra", "quartz") for reply in replies[5:])
    assert (await model.figures())["labels"] == {"read": 12, "thin": 7}


async def test_what_the_server_is_goes_into_the_manifest(start: Start, connect: Connect) -> None:
    stub = await start("--max-model-len", "2048")
    info = (await connect(stub)).info
    assert (info.identity, info.context, info.counts_tokens) == ("vllm:tiny", 2048, True)
    assert info.server == stub.url
    assert info.detail["can"]["version"] == "0.32.0"
    assert info.detail["servers"] == [{"how": "given", "url": stub.url.removesuffix("/v1")}]
    assert info.detail["batches"] is True


async def test_only_chats_and_questions_about_them_are_sent(start: Start, connect: Connect, ask: Ask) -> None:
    stub = await start()
    await all_of(await connect(stub), [*exam(ask, 4), *writing(ask, 4)])
    assert {path for path, _ in stub.asked} <= {CHAT, BATCH, TOKENIZE}
