"""What a server can is found out by asking it, and what replicas have in common is what is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from stubs import Stub, here

from lbt_sim.models.replica import Failure
from lbt_sim.models.vllm.capabilities import Capabilities, Post, Thinking, probe


def asking(stub: Stub, session: aiohttp.ClientSession) -> Post:
    async def post(path: str, body: Mapping[str, Any] | None) -> Any:
        method = "GET" if body is None else "POST"
        async with session.request(method, stub.url.removesuffix("/v1") + path, json=body) as response:
            text = await response.text()
            if response.status != 200:
                raise Failure(text, status=response.status)
            return text if path == "/metrics" else json.loads(text)

    return post


async def found(*flags: str) -> Capabilities:
    async with here(*flags) as stub, aiohttp.ClientSession() as session:
        return await probe(asking(stub, session), "tiny")


async def test_all_that_a_server_can_is_found() -> None:
    assert await found() == Capabilities(
        version="0.32.0",
        context=4096,
        batches=True,
        named_logprobs=True,
        token_ids=True,
        structured=True,
        counts=True,
        samples=True,
        shares_in_flight=False,
        block=16,
        thinking=Thinking(),
    )


@pytest.mark.parametrize(
    ("flag", "lacking"),
    [
        ("--no-batch", {"batches": False, "shares_in_flight": None}),
        ("--no-logprob-ids", {"named_logprobs": False}),
        ("--no-structured", {"structured": False}),
        # Without the tokenizer nobody knows the tokens that could be named.
        ("--no-tokenize", {"counts": False, "named_logprobs": False}),
        ("--share-in-flight", {"shares_in_flight": True}),
        ("--thinking", {"thinking": Thinking("enable_thinking")}),
        ("--thinking --thinking-switch thinking", {"thinking": Thinking("thinking")}),
        ("--thinking --thinking-switch reasoning_effort", {"thinking": Thinking()}),
    ],
)
async def test_what_a_server_lacks_is_found_and_nothing_else(flag: str, lacking: dict[str, Any]) -> None:
    assert await found(*flag.split()) == replace(await found(), **lacking)


async def test_a_short_context_is_not_filled_to_find_out_about_the_cache() -> None:
    short = await found("--max-model-len", "80")
    assert (short.context, short.shares_in_flight, short.batches) == (80, None, True)


async def test_probing_generates_next_to_nothing() -> None:
    async with here() as stub, aiohttp.ClientSession() as session:
        await probe(asking(stub, session), "tiny")
        assert stub.stats.generated_tokens < 40
        assert stub.stats.calls < 10


async def test_a_template_that_opens_a_thought_for_good_is_seen() -> None:
    async with here() as stub, aiohttp.ClientSession() as session:
        ask = asking(stub, session)

        async def post(path: str, body: Mapping[str, Any] | None) -> Any:
            told = await ask(path, body)
            if path == "/tokenize" and body is not None and "messages" in body:
                told["token_strs"] += ["<think>", "\n"]
            return told

        assert (await probe(post, "tiny")).thinking == Thinking("", forced=True)


@pytest.mark.parametrize("closes", [True, False])
async def test_a_thought_that_the_switch_closes_is_not_forced(closes: bool) -> None:
    async with here() as stub, aiohttp.ClientSession() as session:
        ask = asking(stub, session)

        async def post(path: str, body: Mapping[str, Any] | None) -> Any:
            told = await ask(path, body)
            if path == "/tokenize" and body is not None and "messages" in body:
                off = body.get("chat_template_kwargs") == {"thinking": False}
                told["token_strs"] += ["<think>", "\n", *(["brief" if not closes else "</think>"] if off else [])]
            return told

        assert (await probe(post, "tiny")).thinking == Thinking("thinking", forced=not closes)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (Thinking("thinking"), Thinking("thinking"), Thinking("thinking")),
        (Thinking("thinking"), Thinking("enable_thinking"), Thinking()),
        (Thinking("thinking"), Thinking(), Thinking()),
        (Thinking("thinking", forced=True), Thinking("thinking"), Thinking("thinking", forced=True)),
    ],
)
def test_replicas_share_a_switch_that_both_know(one: Thinking, other: Thinking, both: Thinking) -> None:
    assert Capabilities(thinking=one).shared_with(Capabilities(thinking=other)).thinking == both
    assert Capabilities(thinking=other).shared_with(Capabilities(thinking=one)).thinking == both


def test_what_a_server_can_is_written_as_json() -> None:
    can = Capabilities(version="0.32.0", context=4096, thinking=Thinking("thinking"))
    assert json.loads(json.dumps(can.as_data())) == can.as_data()
    assert can.as_data()["thinking"] == {"switch": "thinking", "forced": False}


async def test_a_server_that_goes_away_meanwhile_is_no_server_that_can_nothing() -> None:
    async with here() as stub, aiohttp.ClientSession() as session:
        ask = asking(stub, session)

        async def post(path: str, body: Mapping[str, Any] | None) -> Any:
            if path.startswith("/v1/chat"):
                raise Failure("connection refused", retry=True)
            return await ask(path, body)

        with pytest.raises(Failure, match="refused"):
            await probe(post, "tiny")


def test_replicas_are_asked_for_what_all_of_them_can() -> None:
    able = Capabilities("0.32.0", 4096, True, True, True, True, True, True, True, 16, Thinking("enable_thinking"))
    less = replace(able, version="0.31.0", context=2048, batches=False, shares_in_flight=None, thinking=Thinking())
    both = able.shared_with(less)
    assert both == less.shared_with(able)
    assert both == replace(less, version="0.31.0, 0.32.0")
    thinker = replace(able, thinking=Thinking(forced=True))
    assert able.shared_with(thinker).thinking.forced
    assert able.shared_with(replace(able, context=None)).context == 4096
    assert able.shared_with(able) == able
