"""The engine `openai` against a real local HTTP server with faults."""

from __future__ import annotations

import asyncio
import json
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from lbt_sim.errors import Interrupted, ModelUnavailable
from lbt_sim.ledger import Ledger, LedgerReader
from lbt_sim.models.base import CallPath, ChatRequest, Head, ModelInfo, Reply, Sampling, Turn
from lbt_sim.models.limits import Gate, Gates
from lbt_sim.models.openai import OpenAIModel, OpenAISpec
from lbt_sim.models.openai_transport import _seconds
from lbt_sim.models.recorded import Caller
from lbt_sim.models.replica import QUARANTINE, Replica

Ask = Callable[..., ChatRequest]
Handler = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]
CHOICES = ("positive", "negative")


def completion(content: Any = "fine", logprobs: Any = None, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    usage = {"prompt_tokens": 10, "completion_tokens": 1}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}
    return {"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage, **more}


def first_tokens(**logprobs: Any) -> dict[str, Any]:
    top = [{"token": token, "logprob": value} for token, value in logprobs.items()]
    return {"content": [{**top[0], "top_logprobs": top}]}


class Server:
    """An OpenAI-compatible server whose answers a test decides."""

    def __init__(self) -> None:
        self.url = ""
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.running = 0
        self.most = 0
        self.chat: Handler = self.fine
        self.models: Callable[[], web.Response] = lambda: web.json_response(
            {"data": [{"id": "tiny", "root": "org/tiny"}]}
        )

    async def fine(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response(completion())

    def answer(self, *answers: Any) -> None:
        """Give these in turn, the last one for ever: a status, a body as text or bytes, or JSON."""
        rest = list(answers)

        async def chat(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
            answer = rest.pop(0) if len(rest) > 1 else rest[0]
            if isinstance(answer, web.Response):
                return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
            if isinstance(answer, int):
                return web.json_response({"error": {"message": "so it is"}}, status=answer)
            if isinstance(answer, (str, bytes)):
                return web.Response(body=answer, content_type="application/json")
            return web.json_response(answer)

        self.chat = chat

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            body = await request.json()
            self.bodies.append(body)
            self.headers.append(request.headers)
            return await self.chat(request, body)
        finally:
            self.running -= 1

    async def _models(self, request: web.Request) -> web.Response:
        self.headers.append(request.headers)
        return self.models()

    async def start(self) -> web.AppRunner:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        runner = web.AppRunner(app, shutdown_timeout=0.05, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        return runner


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    here = Server()
    runner = await here.start()
    yield here
    await runner.cleanup()


@pytest.fixture
async def connect(server: Server) -> AsyncIterator[Callable[..., Awaitable[OpenAIModel]]]:
    models: list[OpenAIModel] = []

    async def make(**options: Any) -> OpenAIModel:
        where = {} if "urls" in options else {"url": server.url}
        model = OpenAIModel(OpenAISpec(**({"model": "tiny", "timeout": 5, "retries": 2} | where | options)))
        models.append(model)
        await model.ready()
        return model

    yield make
    for model in models:
        await model.close()


Connect = Callable[..., Awaitable[OpenAIModel]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# --- what is sent, what is read ---------------------------------------------------------------------------


async def test_the_prompt_and_the_sampling_arrive_as_they_are(server: Server, connect: Connect, ask: Ask) -> None:
    model = await connect(extra={"chat_template_kwargs": {"thinking": False}})
    head = Head((Turn("system", 'Say "hi".'), Turn("user", "é\n"), Turn("assistant", "hi")))
    sampling = Sampling(temperature=0.7, top_p=0.9, top_k=20, max_tokens=33, stop=("END",))
    for last in ("one", "two"):  # the second finds the head already written
        assert (await model.create(ask(last, head=head, sampling=sampling))).text == "fine"
        assert server.bodies[-1] == {
            "model": "tiny",
            "messages": [
                {"role": "system", "content": 'Say "hi".'},
                {"role": "user", "content": "é\n"},
                {"role": "assistant", "content": "hi"},
                {"role": "user", "content": last},
            ],
            "temperature": 0.7,
            "top_p": 0.9,
            "top_k": 20,
            "max_tokens": 33,
            "stop": ["END"],
            "seed": 7,
            "chat_template_kwargs": {"thinking": False},
        }


async def test_a_prompt_with_lone_surrogates_still_arrives(server: Server, connect: Connect, ask: Ask) -> None:
    reply = await (await connect()).create(ask("a\ud800b\x00"))
    assert reply.finish == "stop"
    assert server.bodies[-1]["messages"][-1]["content"] == "a\ufffdb\ufffd"


async def test_the_reply_carries_tokens_and_time(connect: Connect, ask: Ask) -> None:
    reply = await (await connect()).create(ask())
    assert (reply.prompt_tokens, reply.completion_tokens) == (10, 1)
    assert reply.seconds > 0


async def test_choices_are_read_from_the_first_token(server: Server, connect: Connect, ask: Ask) -> None:
    server.answer(completion("The", first_tokens(The=-0.1, negative=-1.0, positive=-3.0)))
    reply = await (await connect()).create(ask(choices=CHOICES))
    assert (reply.text, reply.choice_logprobs, reply.finish) == ("negative", (-3.0, -1.0), "stop")
    assert len(server.bodies) == 1
    assert server.bodies[0]["max_tokens"] == 1
    assert server.bodies[0]["top_logprobs"] == 20


async def test_with_a_temperature_a_choice_is_drawn_by_the_seed(server: Server, connect: Connect, ask: Ask) -> None:
    server.answer(completion("positive", first_tokens(positive=math.log(0.5), negative=math.log(0.5))))
    model = await connect()

    async def draw() -> list[str]:
        warm = Sampling(temperature=1.0)
        return [(await model.create(ask(choices=CHOICES, sampling=warm, seed=seed))).text for seed in range(12)]

    drawn = await draw()
    assert drawn == await draw()
    assert set(drawn) == set(CHOICES)


async def test_without_a_choice_among_the_first_tokens_the_text_is_asked_for(
    server: Server, connect: Connect, ask: Ask
) -> None:
    server.answer(completion("Well", first_tokens(Well=-0.1)), completion("Well, positive."))
    reply = await (await connect()).create(ask(choices=CHOICES))
    assert (reply.text, reply.choice_logprobs) == ("Well, positive.", None)
    assert reply.prompt_tokens == 20  # both calls are counted
    assert [body["max_tokens"] for body in server.bodies] == [1, 8]


async def test_choices_that_are_next_to_impossible_as_a_first_token_are_read_from_the_text(
    server: Server, connect: Connect, ask: Ask
) -> None:
    looked = completion("<think>", first_tokens(**{"<think>": -0.001, "negative": -8.0, "positive": -9.0}))
    server.answer(looked, completion("I would call it positive."))
    reply = await (await connect()).create(ask(choices=CHOICES))
    assert (reply.text, reply.choice_logprobs) == ("I would call it positive.", None)
    assert (reply.prompt_tokens, reply.completion_tokens) == (20, 2)


async def test_what_one_reply_lacks_does_not_change_how_the_next_is_read(
    server: Server, connect: Connect, ask: Ask
) -> None:
    server.answer(completion("positive"))
    model = await connect()
    for _ in range(2):
        assert (await model.create(ask(choices=CHOICES))).text == "positive"
    assert ["logprobs" in body for body in server.bodies] == [True, False, True, False]


async def test_a_server_that_refuses_log_probabilities_is_asked_for_text(
    server: Server, connect: Connect, ask: Ask
) -> None:
    server.answer(400, completion("positive"))
    assert (await (await connect()).create(ask(choices=CHOICES))).text == "positive"


async def test_a_model_that_insists_on_log_probabilities_fails_without(
    server: Server, connect: Connect, ask: Ask
) -> None:
    server.answer(completion("positive"))
    reply = await (await connect(logprobs=True)).create(ask(choices=CHOICES))
    assert reply.finish == "failed"
    assert reply.error is not None
    assert "log-probabilities" in reply.error


async def test_choices_that_no_token_tells_apart_are_asked_for_as_text(
    server: Server, connect: Connect, ask: Ask
) -> None:
    server.answer(completion("10"))
    assert (await (await connect()).create(ask(choices=("1", "10")))).text == "10"
    assert len(server.bodies) == 1
    assert "logprobs" not in server.bodies[0]


async def test_nan_among_the_log_probabilities_is_as_if_absent(server: Server, connect: Connect, ask: Ask) -> None:
    text = json.dumps(completion("positive", first_tokens(positive=math.nan, negative=-0.5)))
    assert "NaN" in text
    server.answer(text)
    reply = await (await connect()).create(ask(choices=CHOICES))
    assert (reply.text, reply.choice_logprobs) == ("negative", (None, -0.5))


async def test_nul_and_surrogates_in_a_reply_do_not_come_through(server: Server, connect: Connect, ask: Ask) -> None:
    server.answer(json.dumps(completion("a\x00b\ud800c")))
    assert (await (await connect()).create(ask())).text == "a\ufffdb\ufffdc"


# --- faults -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [429, 500, 502, 503, 504, '{"choices": [{"mess', b"", b"\xff\xfe", "[" * 100_000])
async def test_what_may_pass_is_tried_again(server: Server, connect: Connect, ask: Ask, fault: Any) -> None:
    server.answer(fault, completion("fine"))
    reply = await (await connect()).create(ask())
    assert (reply.text, reply.finish) == ("fine", "stop")
    assert len(server.bodies) == 2


@pytest.mark.parametrize("fault", [500, '{"choices": [{"mess'])
async def test_what_does_not_pass_gives_up_and_says_why(server: Server, connect: Connect, ask: Ask, fault: Any) -> None:
    server.answer(fault)
    reply = await (await connect(retries=1)).create(ask())
    assert (reply.text, reply.finish, reply.transient) == ("", "failed", True)
    assert reply.error is not None
    assert server.url in reply.error
    assert len(server.bodies) == 2


@pytest.mark.parametrize(("status", "transient"), [(400, False), (401, True), (404, True), (413, False), (422, False)])
async def test_a_refusal_is_not_tried_again(
    server: Server, connect: Connect, ask: Ask, status: int, transient: bool
) -> None:
    server.answer(status)
    reply = await (await connect()).create(ask())
    assert (reply.finish, reply.transient, len(server.bodies)) == ("failed", transient, 1)
    assert reply.error is not None
    assert f"{status}: so it is" in reply.error


async def test_retry_after_is_obeyed(server: Server, connect: Connect, ask: Ask) -> None:
    times: list[float] = []
    loop = asyncio.get_running_loop()

    async def chat(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        times.append(loop.time())
        if len(times) == 1:
            return web.Response(status=429, headers={"Retry-After": "0.6"})
        return web.json_response(completion())

    server.chat = chat
    assert (await (await connect()).create(ask())).finish == "stop"
    assert times[1] - times[0] >= 0.55


@pytest.mark.parametrize(
    ("header", "expected"),
    [("", 0), ("2", 2), ("-5", 0), ("nan", 0), ("inf", 0), ("soon", 0), ("Wed, 01 Jan 2020 00:00:00 GMT", 0)],
)
def test_retry_after_in_any_form_is_no_trap(header: str, expected: float) -> None:
    assert _seconds(header) == expected


async def test_an_empty_reply_is_a_reply(server: Server, connect: Connect, ask: Ask) -> None:
    server.answer(completion(None))
    reply = await (await connect()).create(ask())
    assert (reply.text, reply.finish) == ("", "stop")


@pytest.mark.parametrize("answer", [{}, {"choices": []}, [], "null", {"error": {"message": "oh"}}])
async def test_json_that_is_no_completion_fails(server: Server, connect: Connect, ask: Ask, answer: Any) -> None:
    server.answer(answer)
    reply = await (await connect()).create(ask())
    assert reply.finish == "failed"
    assert reply.error is not None
    assert "no chat completion" in reply.error


@pytest.mark.parametrize("announced", [True, False])
async def test_ten_megabytes_of_text_are_not_read(server: Server, connect: Connect, ask: Ask, announced: bool) -> None:
    async def chat(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        text = json.dumps(completion("x" * 10_000_000)).encode()
        if announced:
            return web.Response(body=text, content_type="application/json")
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(text), 1 << 18):
            await response.write(text[start : start + (1 << 18)])
        return response

    server.chat = chat
    model = await connect()
    reply = await model.create(ask())
    assert reply.finish == "failed"
    assert reply.error is not None
    assert "8 MiB" in reply.error
    server.chat = server.fine
    assert (await model.create(ask())).text == "fine"


async def test_a_server_that_hangs_for_ever_is_given_up(server: Server, connect: Connect, ask: Ask) -> None:
    async def chat(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(3600)
        return web.Response()

    server.chat = chat
    reply = await (await connect(timeout=0.3, retries=1)).create(ask())
    assert (reply.finish, reply.transient) == ("failed", True)
    assert reply.error is not None
    assert "within 0.3 s" in reply.error


async def test_a_server_that_starts_to_answer_and_hangs_is_given_up(server: Server, connect: Connect, ask: Ask) -> None:
    async def chat(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"choices"')
        await asyncio.sleep(3600)
        return response

    server.chat = chat
    reply = await (await connect(timeout=0.3, retries=0)).create(ask())
    assert reply.finish == "failed"


@pytest.mark.parametrize("after", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"])
async def test_a_connection_that_breaks_is_made_again(server: Server, connect: Connect, ask: Ask, after: bytes) -> None:
    async def chat(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if len(server.bodies) == 1:
            assert request.transport is not None
            request.transport.write(after)
            request.transport.close()
            await asyncio.sleep(0)
            raise web.HTTPInternalServerError
        return web.json_response(completion())

    server.chat = chat
    assert (await (await connect()).create(ask())).text == "fine"


async def test_cancelling_a_call_frees_its_place(server: Server, connect: Connect, ask: Ask) -> None:
    started = asyncio.Event()

    async def chat(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        started.set()
        await asyncio.sleep(3600)
        return web.Response()

    server.chat = chat
    model = await connect(concurrency=1)
    task = asyncio.create_task(model.create(ask()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.chat = server.fine
    assert (await model.create(ask())).text == "fine"


async def test_a_closed_model_fails_its_calls(connect: Connect, ask: Ask) -> None:
    model = await connect()
    await model.close()
    assert (await model.create(ask())).finish == "failed"


# --- limits and replicas ----------------------------------------------------------------------------------


async def test_the_limit_of_calls_in_flight_is_kept(server: Server, connect: Connect, ask: Ask) -> None:
    async def chat(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(0.01)
        return web.json_response(completion(body["messages"][-1]["content"]))

    server.chat = chat
    model = await connect(concurrency=4)
    many = model.create_many([ask(str(n)) for n in range(20)])
    single = [asyncio.create_task(model.create(ask("x"))) for _ in range(6)]
    got = {index: reply.text async for index, reply in many}
    await asyncio.gather(*single)
    assert got == {n: str(n) for n in range(20)}
    assert server.most == 4


async def answered_slowly(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    await asyncio.sleep(0.01)
    return web.json_response(completion())


async def test_many_batches_together_keep_the_limit_and_take_on_no_more(
    server: Server, connect: Connect, ask: Ask
) -> None:
    server.chat = answered_slowly
    model = await connect(concurrency=4)
    ahead = most_ahead = 0

    def feed() -> Iterator[ChatRequest]:
        nonlocal ahead, most_ahead
        for _ in range(5):
            ahead += 1
            most_ahead = max(most_ahead, ahead)
            yield ask()

    async def batch() -> None:
        nonlocal ahead
        async for _ in model.create_many(feed()):
            ahead -= 1

    await asyncio.gather(*(batch() for _ in range(10)))
    assert len(server.bodies) == 50
    assert server.most == 4
    assert most_ahead <= 2 * 4  # what is in flight, and what has just been answered


async def test_models_at_one_server_keep_one_limit_the_smallest(server: Server, ask: Ask) -> None:
    server.chat = answered_slowly
    gates = Gates()
    options: list[dict[str, Any]] = [
        {"concurrency": 3},
        {"concurrency": 8, "timeout": 9},
        {"concurrency": 8, "url": server.url.replace("http://", "HTTP://") + "/"},
    ]
    models = [OpenAIModel(OpenAISpec(**({"model": "tiny", "url": server.url} | more))) for more in options]
    for model in models:
        model.share(gates)
    for model in models:
        await model.ready()

    async def batch(model: OpenAIModel) -> int:
        return len([reply async for _, reply in model.create_many([ask(str(n)) for n in range(8)])])

    assert await asyncio.gather(*map(batch, models)) == [8, 8, 8]
    for model in models:
        await model.close()
    assert server.most == 3


async def test_models_that_share_only_some_replicas_keep_the_limit_of_each(
    server: Server, connect: Connect, ask: Ask
) -> None:
    other = Server()
    runner = await other.start()
    server.chat = other.chat = answered_slowly
    gates = Gates()
    models = [
        OpenAIModel(OpenAISpec(model="tiny", urls=urls, concurrency=2))
        for urls in ([server.url], [server.url, other.url])
    ]
    for model in models:
        model.share(gates)
        await model.ready()

    async def batch(model: OpenAIModel) -> int:
        return len([reply async for _, reply in model.create_many([ask(str(n)) for n in range(12)])])

    assert await asyncio.gather(*map(batch, models)) == [12, 12]
    for model in models:
        await model.close()
    await runner.cleanup()
    assert (server.most, other.most) == (2, 2)


async def test_an_interrupt_lets_through_what_is_in_flight_and_no_batch_after_it(
    server: Server, connect: Connect, ask: Ask, tmp_path: Path
) -> None:
    full, release = asyncio.Event(), asyncio.Event()

    async def chat(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if server.running == 4:
            full.set()
        await release.wait()
        return web.json_response(completion())

    server.chat = chat
    model = await connect(concurrency=4)
    async with Ledger(tmp_path) as ledger:
        asks = Caller({"small": (model, await model.ready())}, ledger)
        warm = Sampling(temperature=1.0)
        exams = [
            [ask(sampling=warm, path=CallPath(1, "exam", f"s{who}", f"p{n}")) for n in range(6)] for who in range(10)
        ]
        tasks = [asyncio.create_task(asks.ask_many("small", exam)) for exam in exams]
        await full.wait()
        asks.draining = True
        release.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(error) for error in found} == {Interrupted}
    assert len(server.bodies) == 4
    with LedgerReader(tmp_path) as reader:
        assert reader.count() == 4


async def test_requests_with_one_head_stay_with_one_replica(server: Server, connect: Connect, ask: Ask) -> None:
    other = Server()
    runner = await other.start()
    model = await connect(urls=[server.url, other.url])
    heads = [Head((Turn("system", f"Lesson {n}"),)) for n in range(12)]
    for _ in range(3):
        for head in heads:
            await model.create(ask(head=head))
    await model.close()
    await runner.cleanup()
    seen = [{body["messages"][0]["content"] for body in place.bodies} for place in (server, other)]
    assert not seen[0] & seen[1]
    assert seen[0]
    assert seen[1]


async def test_a_replica_that_is_full_passes_calls_on(server: Server, connect: Connect, ask: Ask) -> None:
    other = Server()
    runner = await other.start()

    async def chat(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(0.02)
        return web.json_response(completion())

    server.chat = other.chat = chat
    model = await connect(urls=[server.url, other.url], concurrency=2)
    replies: list[Reply] = [reply async for _, reply in model.create_many([ask(str(n)) for n in range(8)])]
    await model.close()
    await runner.cleanup()
    assert {reply.finish for reply in replies} == {"stop"}
    assert (server.most, other.most) == (2, 2)


async def test_the_calls_of_a_dead_replica_go_to_the_next(server: Server, connect: Connect, ask: Ask) -> None:
    other = Server()
    runner = await other.start()
    model = await connect(urls=[server.url, other.url])
    await runner.cleanup()
    heads = [Head((Turn("system", f"Lesson {n}"),)) for n in range(8)]
    replies = [await model.create(ask(head=head)) for head in heads]
    assert {reply.finish for reply in replies} == {"stop"}
    assert len(server.bodies) == 8


def test_losing_a_replica_moves_only_its_own_heads() -> None:
    replicas = [Replica(f"http://host{n}/v1", Gate(1)) for n in range(4)]
    digests = [bytes([n]) * 16 for n in range(64)]
    before = {digest: min(replicas, key=lambda replica: replica.rank(digest)) for digest in digests}
    after = {digest: min(replicas[1:], key=lambda replica: replica.rank(digest)) for digest in digests}
    assert all(after[digest] is before[digest] for digest in digests if before[digest] is not replicas[0])
    assert QUARANTINE > 0


# --- getting ready ----------------------------------------------------------------------------------------


async def info_of(server: Server, **options: Any) -> ModelInfo:
    model = OpenAIModel(OpenAISpec(**({"url": server.url, "model": "tiny"} | options)))
    info = await model.ready()
    await model.close()
    return info


async def test_ready_tells_who_answers(server: Server) -> None:
    info = await info_of(server)
    assert (info.identity, info.server) == ("openai:tiny", server.url)
    assert info.detail["root"] == "org/tiny"
    assert (await info_of(server, extra={"min_p": 0.1})).identity.startswith("openai:tiny+")


async def test_whatever_changes_how_choices_are_read_makes_another_model(server: Server) -> None:
    identities = [(await info_of(server, logprobs=value)).identity for value in ("auto", True, False)]
    assert len(set(identities)) == 3
    assert (await info_of(server, timeout=9, concurrency=3)).identity == identities[0]


async def test_a_model_that_has_moved_is_the_same_model_on_another_server(server: Server) -> None:
    other = Server()
    runner = await other.start()
    here, there = await info_of(server), await info_of(other)
    both = [await info_of(server, url=None, urls=urls) for urls in ([server.url, other.url], [other.url, server.url])]
    await runner.cleanup()
    assert {info.identity for info in (here, there, *both)} == {"openai:tiny"}
    assert len({info.server for info in (here, there, *both)}) == 3
    assert both[0].server == both[1].server


@pytest.mark.parametrize(
    ("entry", "root"),
    [
        ({}, None),
        ({"root": "tiny"}, None),
        ({"root": None}, None),
        ({"root": "/models/tiny\ud800"}, "/models/tiny\ufffd"),
    ],
)
async def test_what_a_server_says_that_a_name_stands_for_is_recorded_and_no_part_of_it(
    server: Server, entry: dict[str, Any], root: str | None
) -> None:
    server.models = lambda: web.json_response({"data": [{"id": "tiny", **entry}]})
    info = await info_of(server)
    assert info.detail.get("root") == root
    assert info.identity == "openai:tiny"


async def test_nobody_there_is_said_with_a_command_to_try(connect: Connect) -> None:
    port = free_port()
    with pytest.raises(ModelUnavailable, match="cannot be reached") as caught:
        await connect(url=f"http://127.0.0.1:{port}")
    assert f"curl http://127.0.0.1:{port}/v1/models" in caught.value.remedy


async def test_a_server_that_does_not_answer_is_not_waited_for(server: Server, connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # connects, and says nothing
        port = listener.getsockname()[1]
        with pytest.raises(ModelUnavailable, match=r"within 0\.2 s"):
            await connect(url=f"http://127.0.0.1:{port}/v1", timeout=0.2)


async def test_one_replica_out_of_reach_is_told_and_no_obstacle(server: Server, ask: Ask) -> None:
    model = OpenAIModel(OpenAISpec(urls=[server.url, f"http://127.0.0.1:{free_port()}/v1"], model="tiny", retries=1))
    info = await model.ready()
    assert len(info.detail["out of reach"]) == 1
    replies = [await model.create(ask(head=Head((Turn("system", str(n)),)))) for n in range(6)]
    await model.close()
    assert {reply.finish for reply in replies} == {"stop"}


async def test_a_model_that_is_not_served_lists_those_that_are(connect: Connect) -> None:
    with pytest.raises(ModelUnavailable, match="did you mean 'tiny'") as caught:
        await connect(model="tinny")
    assert caught.value.valid == ("tiny",)


@pytest.mark.parametrize("status", [401, 403])
async def test_no_permission_names_the_key(
    server: Server, connect: Connect, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.models = lambda: web.Response(status=status)
    with pytest.raises(ModelUnavailable) as caught:
        await connect()
    assert "api_key_env" in caught.value.remedy
    monkeypatch.setenv("TOY_KEY", "s3cret")
    with pytest.raises(ModelUnavailable) as caught:
        await connect(api_key_env="TOY_KEY")
    assert "TOY_KEY" in caught.value.remedy
    assert "s3cret" not in str(caught.value)


async def test_the_key_is_sent_and_shown_nowhere(
    server: Server, connect: Connect, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_KEY", "s3cret\n")
    model = await connect(api_key_env="TOY_KEY")
    await model.create(ask())
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer s3cret"}
    assert "s3cret" not in repr(await model.ready())


@pytest.mark.parametrize("value", [None, "", "s3\ncret"])
async def test_a_key_that_is_not_there_or_no_key_is_said(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("TOY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("TOY_KEY", value)
    with pytest.raises(ModelUnavailable, match="TOY_KEY"):
        await connect(api_key_env="TOY_KEY")


async def test_a_server_without_a_list_of_models_is_tried_by_a_call(server: Server, connect: Connect) -> None:
    server.models = lambda: web.Response(status=404)
    await connect()
    assert len(server.bodies) == 1


async def test_an_address_where_nothing_is_served_is_said(server: Server, connect: Connect) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        await connect(url=server.url.replace("/v1", "/v2"))
    assert "/v1" in caught.value.remedy


async def test_a_redirect_is_not_followed(server: Server, connect: Connect) -> None:
    server.models = lambda: web.Response(status=302, headers={"Location": "http://elsewhere/v1"})
    with pytest.raises(ModelUnavailable, match="redirects to http://elsewhere"):
        await connect()


# --- options ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/v1/", "http://localhost:8000/v1"),
        ("https://host/openai/v1/chat/completions", "https://host/openai/v1"),
        ("HTTP://GPU1:80/v1", "http://gpu1/v1"),
        ("https://Host:443", "https://host/v1"),
        ("https://host:80", "https://host:80/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
    ],
)
def test_addresses_are_completed(url: str, expected: str) -> None:
    assert OpenAISpec(url=url, model="x").replicas == (expected,)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"url": "http://a", "urls": ["http://b"]},
        {"url": "localhost:8000"},
        {"url": "file:///etc/passwd"},
        {"url": "http://ann:s3cret@host/v1"},
        {"url": "http://host:port/v1"},
        {"url": "http://a", "timeout": 0},
        {"url": "http://a", "concurrency": 0},
        {"url": "http://a", "extra": {"messages": []}},
        {"url": "http://a", "extra": {"x": math.nan}},
        {"url": "http://a", "key": "s3cret"},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OpenAISpec(model="x", **options)
