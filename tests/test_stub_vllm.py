"""The stand-in for vLLM keeps what it promises: answers, slots, its cache's figures, faults."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from stubs import SCRIPT, module

from lbt_sim.ledger_file import LEDGER_FILE
from lbt_sim.models.vllm.metrics import block_size, read_metrics
from lbt_sim.parsing import parse_exemplars
from tests.commands import lbt_sim

CHAT, BATCH = "/v1/chat/completions", "/v1/chat/completions/batch"
Chat = list[dict[str, str]]


@pytest.fixture(scope="module")
def stub() -> ModuleType:
    return module()


class Client:
    """Asks one stand-in."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self.session = url, session

    async def get(self, path: str) -> Any:
        async with self.session.get(self.url + path) as response:
            assert response.status == 200
            return await (response.json() if response.content_type == "application/json" else response.text())

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        async with self.session.post(self.url + path, json=body) as response:
            return response.status, await response.json()

    async def said(self, messages: Any, path: str = CHAT, **more: Any) -> Any:
        """A completion; greedy unless told otherwise."""
        body = {"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 1, **more}
        status, answer = await self.post(path, body)
        assert status == 200, answer
        return answer

    async def choice(self, messages: Chat, **more: Any) -> Any:
        return (await self.said(messages, **more))["choices"][0]

    async def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.get("/stub/stats")
        return found

    async def until(self, key: str, value: int) -> None:
        """Returns when a figure has become so large."""
        async with asyncio.timeout(20):
            while (await self.stats())[key] < value:
                pass

    async def fault(self, **what: Any) -> None:
        status, _ = await self.post("/stub/faults", what)
        assert status == 200

    async def health(self) -> int:
        async with self.session.get(self.url + "/health") as response:
            return response.status


@asynccontextmanager
async def running(stub: ModuleType, *flags: str) -> AsyncIterator[Client]:
    """A stand-in on this event loop."""
    server = stub.Stub(stub.arguments(["--model", "m", "--served-model-name", "tiny", *flags]))
    runner = stub.runner_of(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Client(f"http://127.0.0.1:{runner.addresses[0][1]}", session)
    finally:
        await runner.cleanup()


RUN = """\
kind: scenario
version: 1
models: {{small: {{engine: openai, url: "{url}/v1", model: tiny}}}}
task: {{name: reviews, train: 40, held_out: 8}}
classroom: star
cast: {{students: [{{persona: literal}}, {{persona: sceptic}}]}}
method:
  {{rounds: 2, exemplars: 4, beam: 2, exam: 6, start: written, revise: [rewrite, choose], select: {{budget: 40}}}}
"""


def user(text: str) -> Chat:
    return [{"role": "user", "content": text}]


def review(number: int) -> Chat:
    """An exam prompt with two exemplars."""
    return [
        {"role": "system", "content": "Decide whether it is positive or negative."},
        *user("It was fine."),
        {"role": "assistant", "content": "positive"},
        *user("It was not."),
        {"role": "assistant", "content": "negative"},
        *user(f"Case {number} was as one may like it."),
    ]


def words(count: int, begin: str = "a") -> Chat:
    """A prompt of 8 + `count` tokens: five around a user turn, three to begin the reply."""
    return user(" ".join(f"{begin}{chr(97 + place)}" for place in range(count)))


# --- tokens and answers -----------------------------------------------------------------------------------


async def test_tokens_give_the_text_back_and_are_the_same_in_every_server(stub: ModuleType) -> None:
    text = "Positively half-true, naïve\n\n  10 of positive things 🙂 <|im_end|>"
    async with running(stub) as one, running(stub) as other:
        body = {"model": "tiny", "prompt": text, "return_token_strs": True}
        (_, told), (_, again) = await one.post("/tokenize", body), await other.post("/tokenize", body)
        assert told == again
        assert "".join(told["token_strs"]) == text
        assert told["count"] == len(told["tokens"])
        _, label = await one.post("/tokenize", {"model": "tiny", "prompt": "positive"})
        assert label["count"] == 1


async def test_a_chat_has_the_tokens_that_tokenize_tells(stub: ModuleType) -> None:
    async with running(stub) as client:
        _, told = await client.post("/tokenize", {"model": "tiny", "messages": words(4)})
        assert told["count"] == 12
        assert (await client.said(words(4)))["usage"]["prompt_tokens"] == 12


async def test_answers_are_the_same_alone_in_a_batch_and_after_a_restart(stub: ModuleType) -> None:
    chats = [review(number) for number in range(12)]
    more: dict[str, Any] = {"logprobs": True, "top_logprobs": 20}
    async with running(stub) as client, running(stub) as other:
        alone = [await client.choice(chat, **more) for chat in chats]
        batch = (await other.said(chats, BATCH, **more))["choices"]
    assert [choice["index"] for choice in batch] == list(range(12))
    assert [choice["logprobs"] for choice in batch] == [choice["logprobs"] for choice in alone]
    answers = [choice["message"]["content"] for choice in alone]
    assert [choice["message"]["content"] for choice in batch] == answers
    assert set(answers) == {"positive", "negative"}


async def test_named_tokens_have_the_log_probabilities_of_the_whole_distribution(stub: ModuleType) -> None:
    async with running(stub) as client:
        ids = {}
        for word in ("positive", "negative", "yes", "zebra"):
            ids[word] = (await client.post("/tokenize", {"model": "tiny", "prompt": word}))[1]["tokens"][0]
        ways: list[dict[str, Any]] = [
            {"top_logprobs": 20},
            {"logprob_token_ids": list(ids.values()), "return_tokens_as_token_ids": True},
        ]
        top, named = [
            (await client.choice(review(1), logprobs=True, **way))["logprobs"]["content"][0]["top_logprobs"]
            for way in ways
        ]
    assert len(top) == 20
    by_text = {entry["token"]: entry["logprob"] for entry in top}
    by_id = {entry["token"]: entry["logprob"] for entry in named}
    assert set(by_id) == {f"token_id:{id_}" for id_ in ids.values()}
    for word in ("positive", "negative"):
        assert by_id[f"token_id:{ids[word]}"] == by_text[word]
        assert by_text[word] > by_id[f"token_id:{ids['zebra']}"]


async def test_a_label_may_come_after_a_space_which_takes_nothing_from_its_lead(stub: ModuleType) -> None:
    assert stub.encode(" 1") == (*stub.encode(" "), *stub.encode("1")), "there the space is a token of its own"
    async with running(stub) as client:
        first = (await client.choice(review(1), logprobs=True, top_logprobs=20))["logprobs"]["content"][0]
        found = {entry["token"]: entry["logprob"] for entry in first["top_logprobs"]}
        gaps = [found[label] - found[f" {label}"] for label in ("positive", "negative")]
        assert gaps == pytest.approx([3.0, 3.0])
        assert (await client.choice(review(1)))["message"]["content"] in ("positive", "negative")


async def test_log_probabilities_do_not_depend_on_temperature_and_samples_do_on_the_seed(stub: ModuleType) -> None:
    more: dict[str, Any] = {"temperature": 1.5, "logprobs": True, "top_logprobs": 20}
    async with running(stub) as client:
        samples = (await client.said(review(3), n=8, seed=40, **more))["choices"]
        alone = [await client.choice(review(3), seed=40 + number, **more) for number in range(8)]
        greedy = await client.choice(review(3), logprobs=True, top_logprobs=20)
    assert [one["message"] for one in samples] == [one["message"] for one in alone]
    assert [one["logprobs"] for one in samples] == [one["logprobs"] for one in alone]
    assert len({one["message"]["content"] for one in samples}) > 1
    told = {entry["token"]: entry["logprob"] for entry in greedy["logprobs"]["content"][0]["top_logprobs"]}
    for one in samples:
        first = one["logprobs"]["content"][0]
        assert told.get(first["token"], first["logprob"]) == first["logprob"]


async def test_a_held_reply_is_the_likeliest_of_the_choices(stub: ModuleType) -> None:
    held = {"structured_outputs": {"choice": ["negative", "positive"]}, "max_tokens": 8}
    async with running(stub) as client:
        for number in range(8):
            free = await client.choice(review(number))
            assert (await client.choice(review(number), **held))["message"] == free["message"]
        shared = {"structured_outputs": {"choice": ["mostly-true", "mostly-false"]}, "max_tokens": 8}
        texts = [(await client.choice(review(number), **shared))["message"]["content"] for number in range(8)]
        batch = (await client.said([review(number) for number in range(8)], BATCH, **shared))["choices"]
    assert set(texts) == {"mostly-true", "mostly-false"}
    assert [choice["message"]["content"] for choice in batch] == texts


async def test_a_reply_is_cut_at_its_limit_and_at_stop_strings(stub: ModuleType) -> None:
    async with running(stub, "--output-tokens", "6") as client:
        chat = user("Explain it in at most four sentences.")
        whole = await client.choice(chat, max_tokens=100, return_token_ids=True)
        assert (whole["finish_reason"], len(whole["token_ids"])) == ("stop", 7)  # with the end
        cut = await client.choice(chat, max_tokens=3, return_token_ids=True)
        assert (cut["finish_reason"], cut["token_ids"]) == ("length", whole["token_ids"][:3])
        text = whole["message"]["content"]
        stopped = await client.choice(chat, max_tokens=100, stop=[text.split()[2]])
        assert stopped["message"]["content"] == text[: text.find(text.split()[2])]
        assert stopped["stop_reason"] == text.split()[2]


async def test_an_adapter_answers_by_itself_and_shares_no_cache(stub: ModuleType) -> None:
    async with running(stub, "--lora-modules", "tuned=/some/folder", "--block", "4") as client:
        models = await client.get("/v1/models")
        assert [(model["id"], model["parent"]) for model in models["data"]] == [("tiny", None), ("tuned", "tiny")]
        await client.said(words(8))
        await client.said(words(8), model="tuned")
        assert (await client.stats())["computed_tokens"] == 32
        top: dict[str, Any] = {"logprobs": True, "top_logprobs": 20}
        own, tuned = await client.choice(words(8), **top), await client.choice(words(8), model="tuned", **top)
        assert own["logprobs"] != tuned["logprobs"]


@pytest.mark.parametrize(("parser", "switch"), [(True, "enable_thinking"), (False, "enable_thinking"), (True, "off")])
async def test_a_thinking_model_thinks_unless_told_not_to(stub: ModuleType, parser: bool, switch: str) -> None:
    flags = ["--thinking", "--thinking-switch", switch, *(["--reasoning-parser", "x"] if parser else [])]
    async with running(stub, *flags) as client:
        off: dict[str, Any] = {"chat_template_kwargs": {switch: False}}
        rendered = {"model": "tiny", "messages": review(1), "return_token_strs": True}
        _, told = await client.post("/tokenize", rendered | off)
        _, thinking = await client.post("/tokenize", rendered)
        assert "".join(told["token_strs"]) == "".join(thinking["token_strs"]) + "<think>\n\n</think>\n\n"
        at_once = await client.choice(review(1), **off)
        assert at_once["message"]["content"] in ("positive", "negative")
        first = (await client.choice(review(1), logprobs=True))["logprobs"]["content"][0]
        assert first["token"] == "<think>"
        message = (await client.choice(review(1), max_tokens=50))["message"]
        if parser:
            assert message["content"] in ("positive", "negative")
            assert message["reasoning"]
        else:
            assert message["reasoning"] is None
            assert message["content"].startswith("<think> ")
            assert message["content"].split("</think>")[1].strip() in ("positive", "negative")
        cut = (await client.choice(review(1), max_tokens=4))["message"]
        assert cut["content"] is None if parser else "</think>" not in cut["content"]


# --- writing ----------------------------------------------------------------------------------------------


async def test_exemplars_that_are_asked_for_can_be_read(stub: ModuleType) -> None:
    ask = "Students failed on:\n\n- It was - well - fine -> spam\n- Is it? -> ham\n- No label -> eggs\n\n"
    ask += "Write a better set of 4 examples. Keep some; each answer is one of spam, ham.\n\nWrite only a JSON list"
    async with running(stub) as client:
        texts = [
            (await client.choice(user(ask), max_tokens=2000, temperature=1, seed=seed))["message"]["content"]
            for seed in range(3)
        ]
    sets = [parse_exemplars(text, ["spam", "ham"]) for text in texts]
    for exemplars in sets:
        assert isinstance(exemplars, list)
        assert len(exemplars) == 4
        assert "It was - well - fine" in {exemplar.question for exemplar in exemplars}
    assert len(set(map(str, sets))) == 3


def test_a_run_that_rewrites_gets_material_to_use(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.yaml"
    with process() as started:
        scenario.write_text(RUN.format(url=address(started)))
        said = lbt_sim("run", scenario, "--out", tmp_path / "run", "--quiet", "--json")
    assert said.status == 0, said.err
    assert said.result["calls"]["failed"] == 0
    with closing(sqlite3.connect(tmp_path / "run" / LEDGER_FILE)) as ledger:
        rows = ledger.execute("SELECT data FROM events WHERE kind IN ('material', 'candidate')").fetchall()
    events = [json.loads(data) for (data,) in rows]
    assert {event.get("status") for event in events} <= {None, "new", "duplicate"}
    assert {event["operator"] for event in events} >= {"written", "rewrite", "choose"}


# --- time and slots ---------------------------------------------------------------------------------------


async def test_no_more_calls_run_than_there_are_slots_and_a_batch_takes_many(stub: ModuleType) -> None:
    async with running(stub, "--slots", "3", "--seconds", "0.01") as client:
        await asyncio.gather(*(client.said(review(number)) for number in range(10)))
        one = await client.stats()
        assert (one["most_running"], one["calls"], one["conversations"]) == (3, 10, 10)
        assert one["busy_seconds"] == pytest.approx(0.1)
        await client.post("/stub/reset", {})
        await client.said([review(number) for number in range(7)], BATCH)
        await client.said(review(0), n=4, temperature=1)
        two = await client.stats()
        assert (two["most_running"], two["calls"], two["batches"], two["conversations"]) == (3, 2, 1, 11)


async def test_who_came_first_is_served_first_at_the_time_the_model_says(stub: ModuleType) -> None:
    flags = ["--slots", "2", "--seconds", "0.01", "--seconds-per-prompt-token", "0.001", "--cache-tokens", "0"]
    engine = stub.Engine(stub.arguments(flags))
    template, order = stub.Template(thinking=False), []
    draw = stub.Draw(0.0, 0, 1, (), (), 1, apart=False)

    def job(count: int) -> Any:
        prompt = template.render(words(count), {})
        return engine.submit([(prompt, stub.reply_to(prompt, stub.First(prompt), draw, 0))], siblings=False)

    tickets = [job(count) for count in (12, 2, 2, 2)]  # 30, 20, 20, 20 ms
    for number, ticket in enumerate(tickets):
        ticket.done.add_done_callback(lambda _, number=number: order.append(number))
    await asyncio.gather(*(ticket.done for ticket in tickets))
    await asyncio.sleep(0)
    assert order == [1, 0, 2, 3]
    begin = tickets[0].jobs[0].arrived
    ends = [ticket.jobs[0].end - begin for ticket in tickets]
    assert ends == pytest.approx([0.03, 0.02, 0.04, 0.05], abs=0.002)  # all arrived within that


async def test_a_full_queue_refuses(stub: ModuleType) -> None:
    async with running(stub, "--slots", "1", "--queue", "1", "--seconds", "0.05") as client:
        body = {"model": "tiny", "messages": review(1), "max_tokens": 1}
        async with client.session.post(client.url + BATCH, json=body | {"messages": [review(1)] * 3}) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "1")
        statuses = [status for status, _ in await asyncio.gather(*(client.post(CHAT, body) for _ in range(4)))]
        assert sorted(statuses) == [200, 200, 503, 503]
        assert (await client.stats())["refused"] == 3


async def test_calls_of_a_client_that_left_are_given_up(stub: ModuleType) -> None:
    async with running(stub, "--slots", "1", "--seconds", "30") as client:
        calls = [asyncio.create_task(client.said(review(number))) for number in range(3)]
        await client.until("waiting", 2)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await client.until("aborted", 3)
        stats = await client.stats()
        assert (stats["running"], stats["waiting"]) == (0, 0)


# --- the prefix cache -------------------------------------------------------------------------------------


async def counted(client: Client, *chats: Chat) -> tuple[int, ...]:
    """Prompt, computed, unique and unique block tokens after these prompts, one after the other."""
    for chat in chats:
        await client.said(chat)
    stats = await client.stats()
    assert stats["prompt_tokens"] == stats["computed_tokens"] + stats["cached_tokens"]
    return tuple(stats[f"{name}_tokens"] for name in ("prompt", "computed", "unique", "unique_block"))


async def test_whole_blocks_are_reused_and_never_the_one_with_the_last_token(stub: ModuleType) -> None:
    async with running(stub, "--block", "4", "--enable-prompt-tokens-details") as client:
        first = words(8)  # 16 tokens: four blocks
        assert await counted(client, first) == (16, 16, 16, 16)
        assert await counted(client, first) == (32, 16 + 4, 16, 16 + 4)
        # The three tokens before the text and the first five words are shared: two blocks.
        fork = user(first[0]["content"][: 5 * 3 - 1] + " x y z")
        assert await counted(client, fork) == (48, 20 + 8, 16 + 8, 20 + 8)
        # It goes on where the first one ended: there all four blocks are of use. 12 tokens more.
        longer = [*first, {"role": "assistant", "content": "yes"}, *user("no")]
        answer = await client.said(longer)
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 16
        assert await counted(client) == (76, 28 + 12, 24 + 12, 28 + 12)


async def test_what_is_least_does_not_depend_on_the_order(stub: ModuleType) -> None:
    first = words(8)
    longer = [*first, {"role": "assistant", "content": "yes"}, *user("no")]
    for order in ([first, longer], [longer, first]):
        async with running(stub, "--block", "4") as client:
            _, computed, unique, least = await counted(client, *order)
            assert (unique, least) == (28, 28)
            assert computed == (28 if order[0] is first else 28 + 4)


async def test_salts_have_caches_of_their_own(stub: ModuleType) -> None:
    async with running(stub, "--block", "4") as client:
        for salt in ("a", "b", "a"):
            await client.said(words(8), cache_salt=salt)
        stats = await client.stats()
        assert (stats["computed_tokens"], stats["unique_tokens"]) == (16 + 16 + 4, 32)


@pytest.mark.parametrize(("capacity", "cached"), [(0, 0), (16, 0), (24, 8), (32, 12)])
async def test_the_least_recently_used_blocks_leave_deepest_first(stub: ModuleType, capacity: int, cached: int) -> None:
    async with running(stub, "--block", "4", "--cache-tokens", str(capacity)) as client:
        await counted(client, words(8, "a"), words(8, "b"), words(8, "a"))
        assert (await client.stats())["cached_tokens"] == cached


@pytest.mark.parametrize(("flags", "computed"), [([], 3 * 16), (["--share-in-flight"], 16 + 2 * 4)])
async def test_what_is_being_computed_is_of_use_when_it_is_done_or_at_once(
    stub: ModuleType, flags: Sequence[str], computed: int
) -> None:
    async with running(stub, "--block", "4", *flags) as client:
        await client.said([words(8)] * 3, BATCH)
        assert (await client.stats())["computed_tokens"] == computed
        await client.post("/stub/reset", {})
        await client.said(words(8), n=3, temperature=1)
        assert (await client.stats())["computed_tokens"] == 16 + 2 * 4


async def test_metrics_tell_the_same_as_the_stats(stub: ModuleType) -> None:
    async with running(stub, "--block", "4") as client:
        await counted(client, words(8), words(8))
        told = await client.get("/metrics")
    now = read_metrics(told)
    assert (now.prompt_tokens, now.computed, now.queried, now.hit) == (32, 20, 32, 12)
    assert (now.running, now.waiting, now.cache_use, now.preempted) == (0, 0, 0, 0)
    assert (now.generated, now.finished) == (2, 2)
    assert block_size(told) == 4


# --- what is refused --------------------------------------------------------------------------------------


async def test_the_key_guards_what_is_below_v1(stub: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    async with running(stub) as client:
        body = {"model": "tiny", "messages": review(1), "max_tokens": 1}
        assert (await client.post(CHAT, body))[0] == 401
        assert (await client.post("/tokenize", {"model": "tiny", "prompt": "x"}))[0] == 200
        assert await client.health() == 200
        client.session.headers["Authorization"] = "Bearer secret"
        assert (await client.post(CHAT, body))[0] == 200


@pytest.mark.parametrize(
    ("more", "status", "param"),
    [
        ({"model": "other"}, 404, "model"),
        ({"messages": [*words(12)] * 20}, 400, "input_tokens"),
        ({"max_tokens": 201}, 400, "max_tokens"),
        ({"logprobs": True, "top_logprobs": 21}, 400, "logprobs"),
        ({"logprob_token_ids": [1]}, 400, "logprob_token_ids"),
        ({"logprobs": True, "logprob_token_ids": [1 << 40]}, 400, "logprob_token_ids"),
        ({"n": 2, "temperature": 0}, 400, None),
        ({"messages": []}, 400, "body.messages"),
    ],
)
async def test_what_vllm_refuses_is_refused(
    stub: ModuleType, more: dict[str, Any], status: int, param: str | None
) -> None:
    async with running(stub, "--max-model-len", "200") as client:
        got, answer = await client.post(CHAT, {"model": "tiny", "messages": review(1), **more})
        assert (got, answer["error"]["code"], answer["error"]["param"]) == (status, status, param)
        batch = {"model": "tiny", "messages": [review(1), more.get("messages", review(2))], **more}
        if "messages" in more:
            batch["messages"] = [review(1), more["messages"]]
        assert (await client.post(BATCH, batch))[0] == status
        assert (await client.stats())["calls"] == 0


async def test_older_servers_lack_what_is_switched_off(stub: ModuleType) -> None:
    flags = ["--no-batch", "--no-tokenize", "--no-logprob-ids", "--no-structured"]
    async with running(stub, *flags, "--dtype", "float32", "--enforce-eager", "--seed=3") as client:
        body = {"model": "tiny", "messages": review(1), "max_tokens": 1}
        assert (await client.post(BATCH, body | {"messages": [review(1)]}))[0] == 404
        assert (await client.post("/tokenize", {"model": "tiny", "prompt": "x"}))[0] == 404
        assert (await client.post(CHAT, body | {"structured_outputs": {"choice": ["a", "b"]}}))[0] == 400
        more: dict[str, Any] = {"logprobs": True, "top_logprobs": 1}
        ignored = await client.choice(review(1), **more, logprob_token_ids=[1, 2, 3])
        assert ignored["logprobs"] == (await client.choice(review(1), **more))["logprobs"]


# --- faults -----------------------------------------------------------------------------------------------


async def test_a_hung_server_is_healthy_and_nothing_moves_until_it_goes_on(stub: ModuleType) -> None:
    async with running(stub, "--slots", "2") as client:
        await client.fault(fault="hang")
        before = await client.get("/metrics")
        calls = [asyncio.create_task(client.said(review(number))) for number in range(4)]
        await client.until("waiting", 2)
        assert await client.health() == 200
        still = (await client.get("/metrics")).splitlines()
        moved = set(still) - set(before.splitlines())
        assert {line.partition("{")[0] for line in moved} <= {
            "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
        }  # fmt: skip
        assert not any(call.done() for call in calls)
        await client.fault(fault="none")
        assert len(await asyncio.gather(*calls)) == 4


async def test_an_answer_breaks_off_as_often_as_told(stub: ModuleType) -> None:
    async with running(stub) as client:
        await client.fault(fault="reset", count=2)
        for _ in range(2):
            with pytest.raises(aiohttp.ClientError):
                await client.said(review(1))
        await client.fault(fault="half_json", count=1)
        with pytest.raises(json.JSONDecodeError):
            await client.said(review(1))
        await client.said(review(1))


async def test_errors_and_a_dead_engine_are_told(stub: ModuleType) -> None:
    async with running(stub) as client:
        body = {"model": "tiny", "messages": review(1), "max_tokens": 1}
        await client.fault(fault="error", status=503, count=1)
        assert [(await client.post(CHAT, body))[0] for _ in range(2)] == [503, 200]
        await client.fault(fault="engine_dead")
        status, answer = await client.post(CHAT, body)
        assert (status, "EngineDeadError" in answer["error"]["message"]) == (500, True)
        assert await client.health() == 503
        assert (await client.post("/stub/faults", {"fault": "typo"}))[0] == 400


# --- the process ------------------------------------------------------------------------------------------


@contextmanager
def process(*flags: str) -> Iterator[subprocess.Popen[str]]:
    """The program in a process group of its own, of which nothing is left."""
    command = [sys.executable, str(SCRIPT), "--served-model-name", "tiny", "--port", "0", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as started:
        try:
            yield started
        finally:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def address(started: subprocess.Popen[str], says: str = "Listening on ") -> str:
    """Where it listens, once it says so."""
    assert started.stderr is not None
    for line in started.stderr:
        if says in line:
            return line.rpartition(says)[2].strip()
    raise AssertionError("it ended")


def test_the_port_is_taken_before_anybody_listens_and_sigterm_ends_it() -> None:
    with process("--start-seconds", "60") as started:
        port = int(address(started, "has taken ").rpartition(":")[2])
        with socket.socket() as rival, pytest.raises(OSError, match="in use"):
            rival.bind(("127.0.0.1", port))
        with socket.socket() as client, pytest.raises(ConnectionRefusedError):
            client.connect(("127.0.0.1", port))
        started.terminate()
        assert started.wait(10) == 0


async def test_it_crashes_when_told_and_its_child_stays() -> None:
    with process("--child", "--fault", '{"fault": "crash", "after": 2}', "--ignore-term") as started:
        url = await asyncio.to_thread(address, started)
        started.terminate()  # which it ignores
        async with aiohttp.ClientSession() as session:
            client = Client(url, session)
            assert (await client.choice(review(1)))["message"]["content"]
            with pytest.raises(aiohttp.ClientError):
                await client.said(review(1))
        assert await asyncio.to_thread(started.wait, 10) == 1
        os.killpg(started.pid, 0)  # somebody is left


def test_a_start_fails_once(tmp_path: Path) -> None:
    once = ["--once", str(tmp_path / "once"), "--fail-start", "no memory left"]
    with process(*once) as started:
        assert started.stderr is not None
        assert "RuntimeError: no memory left" in started.stderr.read()
        assert started.wait(10) == 1
    with process(*once, "--child") as started:
        address(started)
        started.terminate()
        assert started.wait(10) == 0
        with pytest.raises(ProcessLookupError):
            os.killpg(started.pid, 0)  # an orderly end takes its child along
