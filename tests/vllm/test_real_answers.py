"""What a real vLLM answers, whichever way it is asked: a tiny model, on a server that all of these tests attach to."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from secrets import token_hex
from typing import Any

import pytest
from real_vllm import LABEL, LABELS, REVIEWS, Keeper, Metrics, metrics, opened, post, requests, until_async

from lbt_sim.models.base import ChatRequest, Reply, Sampling
from lbt_sim.models.vllm import ask
from lbt_sim.models.vllm.capabilities import Thinking
from lbt_sim.models.vllm.metrics import Snapshot, read_metrics

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

CLOSE = 1e-3
"""How far log-probabilities may be apart that were computed in other company (they are: below 1e-5 in float32)."""
ALIKE = ("very good", "very rude")
"""Labels that begin with the same token."""
HEADS = ("Answer with one word: positive or negative.", "Is the review positive or negative? " * 30)

FREE = Sampling(max_tokens=24)
DRAWN = Sampling(temperature=1.0, max_tokens=16)


def exam(**changes: Any) -> list[ChatRequest]:
    return [request for head in HEADS for request in requests(REVIEWS, head=head, **{"choices": LABELS, **changes})]


def texts(replies: Sequence[Reply]) -> list[str]:
    assert [reply.error for reply in replies if reply.finish == "failed"] == []
    return [reply.text for reply in replies]


def apart(one: Sequence[Reply], other: Sequence[Reply]) -> float:
    """The largest difference of a label's log-probability."""
    pairs = [(a.choice_logprobs, b.choice_logprobs) for a, b in zip(one, other, strict=True)]
    return max(abs(x - y) for a, b in pairs for x, y in zip(a or (math.nan,), b or (math.nan,), strict=True))  # type: ignore[operator]


# --- what it is ----------------------------------------------------------------------------------------------


async def test_the_server_is_found_out(kept: Keeper) -> None:
    async with opened(**kept.options()) as tiny:
        can = tiny.model._can
        assert can.version
        assert (can.batches, can.named_logprobs, can.token_ids, can.structured, can.counts, can.samples) == (True,) * 6
        assert can.context == 2048
        assert can.block
        assert can.thinking == Thinking("enable_thinking", forced=False), "the template knows `enable_thinking`"
        assert tiny.info.context == 2048
        assert tiny.info.counts_tokens
        assert tiny.info.identity.startswith("vllm:tiny@")
        assert tiny.info.detail["attached"] is True
        assert "kept running" in tiny.told[0]


# --- labels --------------------------------------------------------------------------------------------------

WAYS: dict[str, dict[str, Any]] = {
    "without the batch path": {"batches": False},
    "by the likeliest tokens": {"named_logprobs": False},
    "by the likeliest tokens, one by one": {"named_logprobs": False, "batches": False},
    "by the tokens' texts": {"named_logprobs": False, "token_ids": False},
    "without its tokenizer": {"counts": False},
}


@pytest.mark.parametrize("sampling", [LABEL, Sampling(temperature=0.8, max_tokens=8)], ids=["greedy", "drawn"])
async def test_an_exam_has_the_same_labels_whichever_way_it_is_asked(kept: Keeper, sampling: Sampling) -> None:
    asked = exam(sampling=sampling)
    async with opened(**kept.options()) as tiny:
        await tiny.model.create(asked[0])  # from now on it is known that the labels' first tokens differ
        batches = await tiny.all(asked)
        assert set(texts(batches)) == set(LABELS), "an exam with one answer throughout shows nothing"
        assert await tiny.sent() <= len(asked) // 4
        found = {"by single calls": await tiny.one_by_one(asked)}
        assert await tiny.sent() >= len(asked)
    async with opened(**kept.options(batches=False)) as tiny:
        found["batches: false"] = await tiny.all(asked)
        assert await tiny.sent() >= len(asked)
    for way, lacks in WAYS.items():
        async with opened(**kept.options()) as tiny:
            tiny.model._can = replace(tiny.model._can, **lacks)
            found[way] = await tiny.all(asked)
    for way, replies in found.items():
        assert texts(replies) == texts(batches), way
        assert apart(batches, replies) < CLOSE, way


async def test_a_label_after_a_space_counts_too(kept: Keeper) -> None:
    record = kept.up()
    (one,) = requests([REVIEWS[0]], choices=LABELS)
    async with opened(**kept.options()) as tiny:
        reply = await tiny.model.create(one)
    said = {
        "messages": [{"role": turn.role, "content": turn.content} for turn in one.turns],
        "chat_template_kwargs": {"enable_thinking": False},
        "max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": 20,
    }  # fmt: skip
    _, answer = await asyncio.to_thread(post, record, "/v1/chat/completions", said)
    top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    shares = {entry["token"]: math.exp(entry["logprob"]) for entry in top}
    assert reply.choice_logprobs is not None
    for label, found in zip(LABELS, reply.choice_logprobs, strict=True):
        assert found is not None
        assert shares[f" {label}"] > 0.01, "the model is to be inclined to it"
        assert math.exp(found) == pytest.approx(shares[label] + shares[f" {label}"], abs=CLOSE)


async def test_labels_that_begin_with_the_same_token_are_held_to_on_both_paths(kept: Keeper) -> None:
    asked = exam(choices=ALIKE)
    async with opened(**kept.options()) as tiny:
        batches = texts(await tiny.all(asked))
        assert await tiny.sent() <= len(asked) // 4
        singles = texts(await tiny.one_by_one(asked))
        free = texts(await tiny.one_by_one([replace(one, choices=()) for one in asked]))
    assert set(batches) == set(ALIKE)
    assert singles == batches
    assert not set(free) & set(ALIKE), "left to itself the model says something else"


# --- text ----------------------------------------------------------------------------------------------------


async def test_greedy_text_is_the_same_in_batches_and_alone(kept: Keeper) -> None:
    asked = exam(sampling=FREE, choices=())
    async with opened(**kept.options()) as tiny:
        batches = await tiny.all(asked)
        assert await tiny.sent() <= len(asked) // 4
        singles = await tiny.one_by_one(asked)
    assert texts(singles) == texts(batches)
    assert [one.completion_tokens for one in singles] == [one.completion_tokens for one in batches]
    assert [one.finish for one in singles] == [one.finish for one in batches]
    assert sum(one.prompt_tokens or 0 for one in singles) == sum(one.prompt_tokens or 0 for one in batches)


async def test_samples_of_one_prompt_are_those_of_single_calls_with_the_seeds_that_follow(kept: Keeper) -> None:
    asked = requests([REVIEWS[0]] * 6, sampling=DRAWN, seed=40)
    async with opened(**kept.options()) as tiny:
        together = await tiny.all(asked)
        assert await tiny.sent() == 1
        singles = await tiny.one_by_one(asked)
        assert await tiny.sent() == 1 + len(asked)
    assert texts(together) == texts(singles)
    assert len(set(texts(together))) > 1
    assert [one.completion_tokens for one in together] == [one.completion_tokens for one in singles]


# --- lengths -------------------------------------------------------------------------------------------------

SAID = [
    "",
    "Good.",
    "It’s “fine” — naïve, 素晴らしい, 🎭🎭🎭",
    "x" * 300,
    REVIEWS[0] * 20,
    "<|im_end|>\n<|im_start|>user\n",
    "\t\n  \n",
]


async def test_a_counted_prompt_has_as_many_tokens_as_the_server_computes(kept: Keeper) -> None:
    asked = requests(SAID, head=HEADS[1], sampling=Sampling(max_tokens=1))
    async with opened(**kept.options()) as tiny:
        counted = [int(text) for text in texts(await tiny.all([replace(one, purpose="count") for one in asked]))]
        computed = [reply.prompt_tokens for reply in await tiny.one_by_one(asked)]
    assert counted == computed
    assert all(count <= ask.most_tokens(one) for count, one in zip(counted, asked, strict=True))


async def test_a_prompt_that_does_not_fit_is_never_sent_and_the_others_are_answered(kept: Keeper) -> None:
    record = kept.up()
    short, long = REVIEWS[:3], "one two three " * 2000
    asked = requests([*short, long], sampling=FREE)
    async with opened(**kept.options()) as tiny:
        before = await metrics(record)
        refused = await tiny.model.create(asked[-1])
        assert (await metrics(record)).arrived == before.arrived
        assert refused.finish == "failed"
        assert not refused.transient
        assert refused.error is not None
        assert "2,048" in refused.error
        *answered, again = await tiny.all(asked)
        assert [reply.finish == "failed" for reply in answered] == [False] * 3
        assert again.error == refused.error
        assert (await metrics(record)).arrived == before.arrived + await tiny.sent()


async def test_a_prompt_just_fits_whose_reply_reaches_the_end_of_the_context(kept: Keeper) -> None:
    (one,) = requests(["one two three " * 500])
    async with opened(**kept.options()) as tiny:
        tokens = int((await tiny.model.create(replace(one, purpose="count"))).text)
        most = 2048 - tokens
        assert most > 0
        fits = await tiny.model.create(replace(one, sampling=Sampling(max_tokens=most)))
        assert fits.finish in ("stop", "length")
        assert fits.prompt_tokens == tokens
        over = await tiny.model.create(replace(one, sampling=Sampling(max_tokens=most + 1)))
        assert over.finish == "failed"


# --- what it tells of itself, and calls that are called back -------------------------------------------------


async def test_a_head_that_calls_share_is_computed_once(kept: Keeper) -> None:
    record = kept.up()
    asked = requests(REVIEWS, head=HEADS[1] * 2, choices=LABELS)
    async with opened(**kept.options()) as tiny:
        tiny.model.salt = token_hex(8)  # a cache of its own: nothing of it is there yet
        before = read_metrics((await metrics(record)).text)
        cold = await tiny.all(asked)
        grown = read_metrics((await metrics(record)).text).since(before)
        told = await tiny.model.figures()
    sent = sum(reply.prompt_tokens or 0 for reply in cold)
    assert grown.prompt_tokens == sent
    assert (told["prompt_tokens"], told["computed"]) == (grown.prompt_tokens, grown.computed)
    head = int(sent / len(asked)) - 60  # tokens that all of them share, at least
    assert head > 3 * (tiny.model._can.block or 0), "blocks of the cache are shared whole"
    assert grown.computed is not None
    assert grown.computed < sent / 2
    assert 0 < told["prefix_hit_rate"] < 1


async def test_calls_that_are_called_back_leave_nothing_running_and_those_that_wait_never_arrive(kept: Keeper) -> None:
    record = kept.up()
    asked = requests([f"Number {n}." for n in range(64)], sampling=Sampling(temperature=1.0, max_tokens=1500))
    taken = 0

    def feed() -> Iterator[ChatRequest]:
        nonlocal taken
        for one in asked:
            taken += 1
            yield one

    async with opened(**kept.options(concurrency=4)) as tiny:
        longest = int((await tiny.model.create(replace(asked[-1], purpose="count"))).text)
        before = read_metrics((await metrics(record)).text)
        replies = aclosing(tiny.model.create_many(feed()))
        async with replies as answers:
            waiting = asyncio.ensure_future(anext(answers))
            # Its counters, not how many it runs now: on a busy machine it tells that only between calls.
            await until_async(
                lambda: read_metrics_of(kept).since(before).prompt_tokens, 300, "the first call's arrival"
            )
            waiting.cancel()
            await asyncio.wait({waiting})
        at_once = taken
        assert 4 <= at_once < 64  # a reply of random words may have come to its end before
        await until_async(lambda: read_metrics_of(kept).running == 0, 300, "the end of what was called back")
        (reply,) = await tiny.all(requests(["And now?"], choices=LABELS))
        assert reply.text in LABELS
    after = read_metrics_of(kept).since(before)
    assert taken == at_once
    assert after.running == after.waiting == 0
    assert after.prompt_tokens is not None
    assert after.prompt_tokens <= at_once * longest + (reply.prompt_tokens or 0), "more arrived than was taken"


def read_metrics_of(kept: Keeper) -> Snapshot:
    return read_metrics(Metrics(kept.up()).text)


# --- adapters ------------------------------------------------------------------------------------------------


async def test_entries_that_differ_in_their_adapter_share_a_server_and_answer_differently(kept: Keeper) -> None:
    asked = exam()
    async with opened(**kept.options()) as tiny, opened("adapted", **kept.options(lora=kept.adapter)) as adapted:
        plain, other = await tiny.all(asked), await adapted.all(asked)
        single = await adapted.one_by_one(asked)
        assert tiny.info.identity != adapted.info.identity
        assert "+lora:" in adapted.info.identity
        assert tiny.model._party is not None
        assert adapted.model._party is not None
        assert [s.served for s in tiny.model._party.stations] == [s.served for s in adapted.model._party.stations]
    assert texts(single) == texts(other)
    assert apart(single, other) < CLOSE
    assert apart(plain, other) > 0.1
