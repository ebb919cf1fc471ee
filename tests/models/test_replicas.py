"""Beyond one machine: runs on servers that run already, by their addresses or behind a balancer such as Ray Serve."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from commands import Said, lasting, lbt_sim
from stubs import Process, process

from lbt_sim.ledger import LedgerReader

SCENARIO = """\
kind: scenario
version: 1
models: {{small: {{model: tiny, {options}}}}}
task: {{name: reviews, train: 40, held_out: 12}}
cast: {{students: [{{persona: literal}}, {{persona: sceptic}}, {{persona: literal}}]}}
method: {{rounds: 2, exemplars: 4, exam: 6, revise: {{operators: [choose], chosen: 2}}, select: {{budget: 24}}}}
"""


@pytest.fixture
def two() -> Iterator[list[Process]]:
    with process() as first, process() as second:
        yield [first, second]


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LBT_SIM_STATE", str(tmp_path / "state"))


BOTH = {"concurrency": 2}
"""So narrow that neither has room for all, whichever the prompts are dealt out to: that hangs on the ports."""


def run(out: str, urls: list[str], **options: Any) -> Said:
    said = {"engine": "openai", "urls": urls, "retries": 3, "timeout": 20} | options
    shown = ", ".join(f"{key}: {json.dumps(value)}" for key, value in said.items() if value is not None)
    Path("mine.yaml").write_text(SCENARIO.format(options=shown), "utf-8")
    return lbt_sim("run", "mine.yaml", "--out", out, "--json", "-q")


def finishes(out: str) -> set[str]:
    with LedgerReader(Path(out)) as ledger:
        return {call.finish for call in ledger.calls()}


def test_a_run_uses_all_replicas(two: list[Process]) -> None:
    done = run("both", [one.url for one in two], **BOTH)
    assert done.status == 0
    assert done.result["calls"]["failed"] == 0
    assert all(one.stats["calls"] > 20 for one in two)
    assert sum(one.stats["calls"] for one in two) == done.result["calls"]["made"]


def test_a_replica_that_stops_in_the_middle_costs_no_call_and_changes_no_answer(two: list[Process]) -> None:
    whole = run("whole", [one.url for one in two], **BOTH)
    two[0].fault("crash", after=15)
    done = run("half", [one.url for one in two], **BOTH)
    assert two[0].process.wait(10) == 1
    assert (done.status, done.result["calls"]["failed"]) == (0, 0)
    assert finishes("half") == {"stop"}
    assert lasting(done.result) == lasting(whole.result)


def test_a_replica_that_is_not_there_from_the_beginning_is_passed_over(two: list[Process]) -> None:
    two[0].process.kill()
    two[0].process.wait(10)
    done = run("one", [one.url for one in two])
    assert (done.status, done.result["calls"]["failed"]) == (0, 0)
    assert two[1].stats["calls"] == done.result["calls"]["made"]


class Front:
    """A balancer as Ray Serve has one: one address, models and single chats alone, no tokenizer, no figures.

    Attributes:
        url: Its address, with `/v1`.
        asked: The paths that were asked for.
    """

    def __init__(self, behind: list[str]) -> None:
        self.url = ""
        self.asked: list[str] = []
        self._behind = itertools.cycle(behind)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(20)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_get("/v1/models", self._pass_on)
        app.router.add_post("/v1/chat/completions", self._pass_on)
        app.router.add_route("*", "/{rest:.*}", self._unknown)
        runner = web.AppRunner(app, shutdown_timeout=0.05, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        async with aiohttp.ClientSession() as self._session:
            self._ready.set()
            await self._end.wait()
            await runner.cleanup()

    async def _pass_on(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        url = next(self._behind).removesuffix("/v1") + request.path
        async with self._session.request(request.method, url, data=await request.read()) as answer:
            told = await answer.json()
        for entry in told.get("data", ()):
            del entry["max_model_len"]  # nobody but vLLM need tell it
        return web.json_response(told, status=answer.status)

    async def _unknown(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        return web.json_response({"detail": "Not Found"}, status=404)


@contextmanager
def front(behind: list[Process]) -> Iterator[Front]:
    balancer = Front([one.url for one in behind])
    balancer.start()
    try:
        yield balancer
    finally:
        balancer.stop()


def test_behind_a_balancer_both_engines_get_the_answers_that_they_get_from_a_server(two: list[Process]) -> None:
    straight = run("straight", [two[0].url])
    with front(two) as balancer:
        by_openai = run("openai", [balancer.url])
        by_vllm = run("vllm", [balancer.url], engine="vllm", timeout=None)
    for done in (by_openai, by_vllm):
        assert (done.status, done.result["calls"]["failed"]) == (0, 0)
        assert lasting(done.result) == lasting(straight.result)
    assert all(one.stats["calls"] > 20 for one in two)
    told = by_vllm.result["servers"]["small"]
    assert (told["prompt_tokens"], told["prefix_hit_rate"], told["in_flight_at_most"]) == (None, None, 64)
    can = json.loads((Path("vllm") / "manifest.json").read_text())["models"]["small"]["detail"]["can"]
    assert (can["batches"], can["counts"], can["context"], can["structured"]) == (False, False, None, True)


def test_behind_a_balancer_nothing_is_asked_for_time_and_again_that_it_does_not_have(two: list[Process]) -> None:
    with front(two) as balancer:
        assert run("vllm", [balancer.url], engine="vllm", timeout=None).status == 0
        unknown = [path for path in balancer.asked if path not in ("/v1/chat/completions", "/v1/models", "/metrics")]
    assert sorted(unknown) == ["/tokenize", "/tokenize", "/v1/chat/completions/batch", "/version"]


def test_a_policy_for_prompts_that_do_not_fit_is_refused_where_nobody_counts(two: list[Process]) -> None:
    with front(two) as balancer:
        options = f"engine: vllm, urls: [{json.dumps(balancer.url)}]"
        Path("mine.yaml").write_text(SCENARIO.format(options=options) + "too_long: drop_notes\n", "utf-8")
        refused = lbt_sim("run", "mine.yaml", "--out", "run", "--json", "-q")
    assert refused.status == 2
    assert "too_long" in refused.err
