"""Servers that misbehave: the run stops with the documented status, keeps what was answered, and goes on later."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from commands import Said, lasting, lbt_sim
from servers import Server, completion

from lbt_sim.ledger import LedgerReader

SCENARIO = """\
kind: scenario
version: 1
models: {{small: {{engine: openai, url: "{url}", model: tiny, retries: 0, timeout: 30, logprobs: false}}}}
task: {{name: reviews, train: 20, held_out: 6}}
method: {{rounds: 1, exemplars: 4, exam: 4, revise: {{operators: [choose], chosen: 1}}, select: {{budget: 8}}}}
"""


@pytest.fixture
def server(workspace: Path) -> Iterator[Server]:
    with Server() as running:
        (workspace / "mine.yaml").write_text(SCENARIO.format(url=running.url), encoding="utf-8")
        yield running


def run(*options: str, out: str = "run") -> Said:
    return lbt_sim("run", "mine.yaml", "--out", out, "--json", "-q", *options)


def committed() -> int:
    with LedgerReader(Path("run")) as ledger:
        return ledger.count()


async def says_429(_: Any) -> web.StreamResponse:
    return web.json_response({"error": {"message": "slow down"}}, status=429)


async def says_500(_: Any) -> web.StreamResponse:
    return web.Response(status=500, text="<html>oops</html>")


async def says_half_a_json(_: Any) -> web.StreamResponse:
    return web.Response(body=json.dumps(completion("yes"))[:40].encode(), content_type="application/json")


async def says_nothing_at_all(_: Any) -> web.StreamResponse:
    return web.Response(body=b"", content_type="application/json")


TEN_MB = json.dumps(completion("yes " * 2_500_000)).encode()


async def says_10_mb(_: Any) -> web.StreamResponse:
    return web.Response(body=TEN_MB, content_type="application/json")


async def says_no_completion(_: Any) -> web.StreamResponse:
    return web.json_response({"hello": ["world"]})


async def says_nothing_for_ever(_: Any) -> web.StreamResponse:
    await asyncio.sleep(3600)
    return web.Response()


Answer = Callable[[Any], Awaitable[web.StreamResponse]]
BROKEN: dict[Answer, str] = {
    says_429: "429: slow down",
    says_500: "500",
    says_half_a_json: "no JSON",
    says_nothing_at_all: "answered nothing",
    says_10_mb: "more than 8 MiB",
    says_no_completion: "no chat completion",
    says_nothing_for_ever: "did not answer within 1 s",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_server_stops_the_run_which_goes_on_when_it_is_mended(
    server: Server, workspace: Path, broken: Answer
) -> None:
    async def first_three(body: dict[str, Any]) -> web.StreamResponse:
        return await (server.fine(body) if server.asked <= 3 else broken(body))

    server.answer = first_three
    patience = ("--set", "models.small.timeout=1") if broken is says_nothing_for_ever else ()
    said = run(*patience)
    assert said.status == 3
    assert said.result["status"] == "failed"
    assert BROKEN[broken] in said.result["error"]
    assert "3 of 6 calls gave up" in said.err
    assert "Continue with: lbt-sim resume run" in said.err
    assert "Traceback" not in said.err
    assert committed() == 3
    server.answer = server.fine
    done = lbt_sim("resume", "run", "--json", "-q")
    assert done.status == 0, done.err
    assert done.result["calls"]["replayed"] == 3
    assert done.result["calls"]["failed"] == 0
    assert lasting(done.result) == lasting(run(out="whole").result)


def test_failures_that_a_scenario_tolerates_are_counted_apart_from_wrong_answers(
    server: Server, workspace: Path
) -> None:
    async def now_and_then(body: dict[str, Any]) -> web.StreamResponse:
        return await (says_500(body) if server.asked == 2 else server.fine(body))

    server.answer = now_and_then
    said = run("--set", "budget.failed=0.3", "--set", "method.rounds=0")
    assert said.status == 0
    teacher = said.result["rounds"][0]["teacher"]
    assert (teacher["n"], teacher["outcomes"]["failed"], said.result["calls"]["failed"]) == (5, 1, 1)
    again = lbt_sim("resume", "run", "--json", "-q", "--set", "budget.failed=0.3")
    assert lasting(again.result) == lasting(said.result)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [("", "invalid"), ("mumble " * 50, "invalid"), (None, "invalid"), ("\x00\ud800", "invalid")],
    ids=["empty", "mumbled", "null", "half a character"],
)
def test_what_cannot_be_read_is_invalid_and_the_run_goes_on(
    server: Server, workspace: Path, text: Any, outcome: str
) -> None:
    async def mumbles(_: Any) -> web.StreamResponse:
        return web.Response(body=json.dumps(completion(text)).encode(), content_type="application/json")

    server.answer = mumbles
    said = run()
    assert said.status == 0, said.err
    for row in said.result["rounds"]:
        assert row["teacher"]["outcomes"][outcome] == 6
        assert row["teacher"]["accuracy"] == 0.0
    assert lasting(lbt_sim("replay", "run", "--json", "-q").result) == lasting(said.result)
    assert lbt_sim("show", "run").status == 0


def test_an_answer_cut_off_is_told_as_truncated(server: Server, workspace: Path) -> None:
    async def cut_off(_: Any) -> web.StreamResponse:
        return web.json_response(completion("Well, let me thi", finish_reason="length"))

    server.answer = cut_off
    said = run("--set", "method.rounds=0")
    assert said.result["rounds"][0]["teacher"]["outcomes"]["truncated"] == 6


def test_nan_is_no_probability(server: Server, workspace: Path) -> None:
    async def nan(body: dict[str, Any]) -> web.StreamResponse:
        top = [{"token": "positive", "logprob": float("nan")}, {"token": "negative", "logprob": float("nan")}]
        logprobs = {"content": [{"token": "positive", "logprob": float("nan"), "top_logprobs": top}]}
        return web.Response(
            body=json.dumps(completion("positive", logprobs=logprobs)).encode(), content_type="application/json"
        )

    server.answer = nan
    said = run("--set", "models.small.logprobs=auto", "--set", "method.rounds=0")
    assert said.status == 0, said.err
    assert "NaN" not in said.out
    assert said.result["rounds"][0]["teacher"]["read_from"] == {"text": 6}


# --- before the first call ----------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda url: f"models.small.url=http://127.0.0.1:{free_port()}/v1", ["cannot be reached", "curl"]),
        (lambda url: "models.small.model=tinny", ["does not serve 'tinny'", "did you mean 'tiny'"]),
        (lambda url: f"models.small.url={url}/elsewhere", ["no OpenAI-compatible server", "address"]),
        (lambda url: "models.small.api_key_env=NO_SUCH_KEY", ["NO_SUCH_KEY is not set", "export"]),
    ],
    ids=["unreachable", "another model", "another address", "no key"],
)
def test_a_model_that_cannot_be_had_leaves_nothing_behind(
    server: Server, workspace: Path, change: Callable[[str], str], says: list[str]
) -> None:
    said = run("--set", change(server.url))
    assert (said.status, said.out) == (2, "")
    assert all(part in said.err for part in says), said.err
    assert not (workspace / "run").exists()
    assert run("--set", "method.rounds=0").status == 0  # the same folder, now that it can be had


def test_a_resumed_run_whose_server_is_gone_keeps_its_folder(server: Server, workspace: Path) -> None:
    assert run("--set", "budget.calls=6").status == 3
    gone = f"models.small.url=http://127.0.0.1:{free_port()}/v1"
    said = lbt_sim("resume", "run", "--json", "-q", "--set", gone)
    assert (said.status, committed()) == (2, 6)
    assert lbt_sim("resume", "run", "-q", "--set", "budget.calls=900").status == 0


def test_a_fork_whose_server_is_gone_leaves_nothing_behind(server: Server, workspace: Path) -> None:
    assert run().status == 0
    gone = f"models.small.url=http://127.0.0.1:{free_port()}/v1"
    fork = ("fork", "run", "--from-round", "1", "--out", "f", "-q")
    assert lbt_sim(*fork, "--set", gone).status == 2
    assert not (workspace / "f").exists()
    assert lbt_sim(*fork).status == 0


def test_replay_needs_no_server(server: Server, workspace: Path) -> None:
    whole = run()
    asked = server.asked
    scenario = workspace / "run" / "scenario.yaml"
    scenario.write_text(scenario.read_text().replace(server.url, f"http://127.0.0.1:{free_port()}/v1"))
    assert lasting(lbt_sim("replay", "run", "--json", "-q").result) == lasting(whole.result)
    assert server.asked == asked


@pytest.mark.parametrize(
    ("model", "says"),
    [("smolm2-135m", ["smollm2-135m"]), ("./mine.gguf", ["mine.gguf"])],
    ids=["unknown name", "no such file"],
)
def test_weights_that_are_not_there_are_told(workspace: Path, model: str, says: list[str]) -> None:
    models = f"models.small={{engine: llamacpp, model: '{model}'}}"
    said = lbt_sim("run", "small.yaml", "--out", "run", "--json", "--set", models)
    assert (said.status, said.out) == (2, "")
    assert all(part in said.err for part in says), said.err
    assert not (workspace / "run").exists()
