"""How near to what a vLLM server can do does a round of M3 get?

    python benchmarks/serving.py round                    # 2,581 calls on the latency model, beside other clients
    python benchmarks/serving.py sustained                # 100,000 answers: CPU of each
    python benchmarks/serving.py tokens                   # prompt tokens computed, against the least possible
    python benchmarks/serving.py real                     # a real vLLM: our order against item by item, one by one

The first three run against `stub_vllm.py`, a server of this project's own that models latency, slots, a prefix cache
and the cost of tokens. Ours is a whole run each time: scenario, prompts, ledger on disk, grading, selection.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import aiohttp

from lbt_sim.events import Event, EventSink
from lbt_sim.grading.load import open_grader
from lbt_sim.ledger import Ledger, LedgerReader
from lbt_sim.methods.m3 import m3
from lbt_sim.models.base import CallPath, ChatRequest, Head, ModelInfo, Reply, Sampling, Turn
from lbt_sim.models.recorded import Caller, Meter
from lbt_sim.models.surroundings import Surroundings
from lbt_sim.models.vllm.model import VllmModel
from lbt_sim.models.vllm.spec import VllmSpec
from lbt_sim.roles.room import Context, seat_room
from lbt_sim.runs import Run, create_run
from lbt_sim.scenario.load import load_scenario
from lbt_sim.seeds import Seeds
from lbt_sim.setup import prepare

HERE = Path(__file__).parent
NAME = "stub"
SCENARIO = """\
kind: scenario
version: 1
models: {{small: {model}}}
task: {{name: reviews, train: 700, held_out: 200}}
cast: {{students: [{{persona: literal}}, {{persona: sceptic}}]}}
method: {{preset: published-code, rounds: 1, select: {{rescore: 0}}}}
seed: {seed}
"""
CALLS = 2581
"""2 x 200 test answers, 2 students x 64 exam answers, 4 reflections, 4 rewrites, 5 candidates x 409 scoring answers."""


# --- the stub ---------------------------------------------------------------------------------------------


@contextmanager
def stub(*options: str) -> Iterator[str]:
    """A stub server in a process of its own; its address."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(HERE / "stub_vllm.py"), "--model", NAME, "--served-model-name", NAME]
    command += ["--host", "127.0.0.1", "--port", str(port), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit("the stub server did not start") from None
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait()


def stats_of(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/stub/stats") as answer:
        told: dict[str, Any] = json.load(answer)
    return told


# --- ours -------------------------------------------------------------------------------------------------


@dataclass
class Watch:
    """When a run's first and last event came: start-up is before the one, and the report of figures after the other."""

    wall: float = 0.0
    cpu: float = 0.0
    seconds: float = 0.0
    processor: float = 0.0

    def observe(self, meter: Meter, _: Caller) -> EventSink:
        self.meter = meter

        def see(event: Event) -> None:
            if event.kind == "run":
                self.wall, self.cpu = time.perf_counter(), time.process_time()
            elif event.kind == "done":
                self.seconds = time.perf_counter() - self.wall
                self.processor = time.process_time() - self.cpu

        return see


@dataclass(frozen=True)
class Row:
    """One measurement."""

    name: str
    calls: int
    seconds: float
    cpu: float
    requests: int = 0
    told: dict[str, Any] | None = None


def run_round(url: str, folder: Path, *, batches: bool, seed: int = 3, name: str = "") -> Row:
    """A round of the published code's size, as `lbt-sim run` makes it."""
    model = f"{{engine: vllm, model: {NAME}, urls: ['{url}/v1'], batches: {str(batches).lower()}}}"
    file = folder / "round.yaml"
    file.write_text(SCENARIO.format(model=model, seed=seed), encoding="utf-8")
    prepared = prepare(load_scenario(str(file)))
    out = folder / f"run-{random.randrange(10**9)}"
    watch = Watch()
    result = asyncio.run(Run(create_run(prepared, out), [watch.observe]).execute())
    calls = result["calls"]
    if calls["failed"] or calls["made"] + calls["shared"] != CALLS:
        raise SystemExit(f"the round is not what it should be: {calls}")
    told = {**result["servers"]["small"], "shared": calls["shared"], **result.get("time", {})}
    label = name or ("lbt-sim, batches" if batches else "lbt-sim, single calls")
    return Row(label, calls["made"], watch.seconds, watch.processor, told["requests"], told)


# --- others, on the same prompts --------------------------------------------------------------------------


def prompts_of(folder: Path) -> list[dict[str, Any]]:
    """The round's calls as bodies, in the order in which they were committed."""
    run = max(folder.glob("run-*"), key=lambda path: path.stat().st_mtime)
    with LedgerReader(run) as ledger:
        return [
            {
                "model": NAME,
                "messages": [
                    *({"role": role, "content": text} for role, text in json.loads(call.head_turns)),
                    {"role": "user", "content": call.last},
                ],
                "max_tokens": 1 if call.choices != "[]" else 300,
                "temperature": 0,
            }
            for call in ledger.calls()
            if not call.shared
        ]


def stages(bodies: Sequence[dict[str, Any]]) -> list[Sequence[dict[str, Any]]]:
    """The round's steps: each needs the one before."""
    ends = [200, 328, 332, 336, 336 + 2045, CALLS]
    return [bodies[a:b] for a, b in zip([0, *ends], ends, strict=False)]


async def in_stages(
    bodies: Sequence[dict[str, Any]], one: Callable[[dict[str, Any]], Awaitable[Any]], limit: int = 64
) -> None:
    slots = asyncio.Semaphore(limit)

    async def call(body: dict[str, Any]) -> None:
        async with slots:
            await one(body)

    for stage in stages(bodies):
        await asyncio.gather(*map(call, stage))


def timed(name: str, calls: int, work: Callable[[], None]) -> Row:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Row(name, calls, time.perf_counter() - wall, time.process_time() - cpu, calls)


def run_aiohttp(url: str, bodies: Sequence[dict[str, Any]]) -> Row:
    """The least that a client can do: nothing but the requests."""

    async def work() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def one(body: dict[str, Any]) -> None:
                async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
                    await answer.json()

            await in_stages(bodies, one)

    return timed("bare aiohttp, 64 at a time", len(bodies), lambda: asyncio.run(work()))


def run_openai(url: str, bodies: Sequence[dict[str, Any]]) -> Row | None:
    """OpenAI's own client."""
    try:
        from openai import AsyncOpenAI
    except ImportError:
        return None

    async def work() -> None:
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            await in_stages(bodies, lambda body: client.chat.completions.create(**body))

    return timed("openai client, 64 at a time", len(bodies), lambda: asyncio.run(work()))


def run_dspy(url: str, bodies: Sequence[dict[str, Any]]) -> Row | None:
    """DSPy's evaluation with 64 threads, each call made by its `LM` on the same messages (no signature around them)."""
    try:
        import dspy
    except ImportError:
        return None
    logging.getLogger("dspy").setLevel(logging.ERROR)
    lm = dspy.LM(f"openai/{NAME}", api_base=f"{url}/v1", api_key="none", cache=False, max_tokens=16, num_retries=0)

    class Ask(dspy.Module):  # type: ignore[misc]
        def forward(self, number: int) -> Any:
            lm(messages=bodies[number]["messages"])
            return dspy.Prediction(label="positive")

    def work() -> None:
        with dspy.context(lm=lm):
            done = 0
            for stage in stages(bodies):
                examples = [dspy.Example(number=done + n).with_inputs("number") for n in range(len(stage))]
                done += len(stage)
                evaluate = dspy.Evaluate(
                    devset=examples, metric=lambda *_: True, num_threads=64, display_progress=False
                )
                evaluate(Ask())

    return timed(f"DSPy {dspy.__version__} Evaluate, 64 threads", len(bodies), work)


def run_inspect(url: str, bodies: Sequence[dict[str, Any]]) -> Row | None:
    """inspect_ai's evaluation with 64 connections."""
    try:
        import inspect_ai
        from inspect_ai.dataset import MemoryDataset, Sample
        from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, GenerateConfig, get_model
        from inspect_ai.scorer import includes
    except ImportError:
        return None
    kinds = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
    config = GenerateConfig(max_connections=64, max_tokens=1, temperature=0)
    model = get_model(f"openai/{NAME}", base_url=f"{url}/v1", api_key="none", config=config)

    def work() -> None:
        for stage in stages(bodies):
            samples = [
                Sample(input=[kinds[m["role"]](content=m["content"]) for m in body["messages"]], target="positive")
                for body in stage
            ]
            task = inspect_ai.Task(dataset=MemoryDataset(samples), scorer=includes())
            with tempfile.TemporaryDirectory() as logs:
                inspect_ai.eval(task, model=model, log_dir=logs, display="none", max_samples=64)

    return timed(f"inspect_ai {inspect_ai.__version__}, 64 connections", len(bodies), work)


def measure_round(repeats: int, others: bool) -> None:
    with tempfile.TemporaryDirectory() as name, stub("--seconds", "0.05", "--slots", "64") as url:
        folder = Path(name)
        ours = [[run_round(url, folder, batches=batches) for batches in (True, False)] for _ in range(repeats)]
        bodies = prompts_of(folder)
        rows = [_median([pair[n] for pair in ours]) for n in (0, 1)]
        rows.append(_median([run_aiohttp(url, bodies) for _ in range(repeats)]))
        if others:
            found = [run(url, bodies) for run in (run_openai, run_dspy, run_inspect)]
            rows += [row for row in found if row is not None]
    least = CALLS / 64 * 0.05
    print(f"{CALLS:,} calls of 50 ms, 64 at a time; the server alone: {least:.2f} s. Median of {repeats}.")
    print(f"{'':<42} {'seconds':>8} {'calls a second':>15} {'CPU, ms a call':>15} {'requests':>9}")
    for row in rows:
        rate = row.calls / row.seconds
        print(f"{row.name:<42} {row.seconds:>8.2f} {rate:>15.0f} {1000 * row.cpu / row.calls:>15.3f} {row.requests:>9}")
    spread = {n: [round(pair[n].seconds, 2) for pair in ours] for n in (0, 1)}
    print(f"lbt-sim's repeats: batches {spread[0]}, single calls {spread[1]}")


def _median(rows: Sequence[Row]) -> Row:
    middle = sorted(rows, key=lambda row: row.seconds)[len(rows) // 2]
    return replace(middle, cpu=statistics.median(row.cpu for row in rows))


# --- 100,000 answers --------------------------------------------------------------------------------------


def requests_of(count: int, items: int) -> list[list[ChatRequest]]:
    """Exams of `items` items each, with heads as long as a set of eight exemplars makes them."""
    sampling, exams = Sampling(max_tokens=4), []
    for number in range(count // items):
        rng = random.Random(number)
        turns = [Turn("system", f"Say whether a review is positive or negative. You are student {number}.")]
        for shown in range(8):
            words = " ".join(rng.choices(["a", "joy", "bore", "film", "great", "dull", "scene"], k=20))
            turns += [Turn("user", words), Turn("assistant", ("positive", "negative")[shown % 2])]
        head = Head(tuple(turns))
        exams.append(
            [
                ChatRequest(
                    CallPath(1, "exam", f"s{number}", f"p{item}"),
                    head,
                    f"It was number {item} of {number}, and a fine one.",
                    sampling,
                    0,
                    ("positive", "negative"),
                    "answer",
                )
                for item in range(items)
            ]
        )
    return exams


def measure_sustained(answers: int, items: int) -> None:
    exams = requests_of(answers, items)
    print(f"{answers:,} answers, exams of {items} items, ledger on disk; a server with 512 slots that takes no time")
    print(f"{'':<24} {'seconds':>8} {'answers a second':>17} {'CPU, ms an answer':>18} {'answers per CPU second':>23}")
    for batches in (True, False):
        with tempfile.TemporaryDirectory() as name, stub("--seconds", "0", "--slots", "512") as url:

            async def work(folder: Path, at: str, batches: bool = batches) -> tuple[float, float]:
                model = VllmModel(VllmSpec(model=NAME, urls=[f"{at}/v1"], batches=batches))
                info = await model.ready()
                async with Ledger(folder) as ledger:
                    caller = Caller({"small": (model, info)}, ledger)
                    wall, cpu = time.perf_counter(), time.process_time()
                    for start in range(0, len(exams), 50):
                        await asyncio.gather(*(caller.ask_many("small", exam) for exam in exams[start : start + 50]))
                    seconds, processor = time.perf_counter() - wall, time.process_time() - cpu
                await model.close()
                if caller.meter.failed or caller.meter.made != answers:
                    raise SystemExit(f"not every answer came: {caller.meter}")
                return seconds, processor

            seconds, processor = asyncio.run(work(Path(name), url))
        how = "batches" if batches else "single calls"
        print(
            f"{how:<24} {seconds:>8.1f} {answers / seconds:>17,.0f} {1000 * processor / answers:>18.3f} "
            f"{answers / processor:>23,.0f}"
        )


# --- tokens -----------------------------------------------------------------------------------------------


def measure_tokens(cache: int) -> None:
    print(f"{'':<34} {'computed':>9} {'distinct':>9} {'ratio':>6} {'least':>9} {'ratio':>6} {'seconds':>8}")
    for block in (1, 16):
        options = ("--seconds", "0.01", "--seconds-per-prompt-token", "0.00005", "--slots", "64", "--block", str(block))
        options += ("--cache-tokens", str(cache))
        with tempfile.TemporaryDirectory() as name:
            for batches in (True, False):
                with stub(*options) as url:
                    before = stats_of(url)
                    row = run_round(url, Path(name), batches=batches)
                    _print_tokens(f"{row.name}, block {block}", stats_of(url), before, row.seconds)
            bodies = prompts_of(Path(name))
            with stub(*options) as url:
                row = run_aiohttp(url, bodies)
                _print_tokens(f"no warm-up, 64 at a time, block {block}", stats_of(url), None, row.seconds)
            with stub(*options) as url:
                row = run_aiohttp(url, _item_major(bodies))
                _print_tokens(f"item by item, 64 at a time, block {block}", stats_of(url), None, row.seconds)


def _item_major(bodies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Scoring in the other order: for each item all candidates, then the next item."""
    scoring = bodies[336 : 336 + 2045]
    by_item = sorted(range(len(scoring)), key=lambda n: (scoring[n]["messages"][-1]["content"], n))
    return [*bodies[:336], *(scoring[n] for n in by_item), *bodies[336 + 2045 :]]


def _print_tokens(name: str, after: dict[str, Any], before: dict[str, Any] | None, seconds: float) -> None:
    computed, distinct, least = (
        after[key] - (before or {}).get(key, 0) for key in ("computed_tokens", "unique_tokens", "unique_block_tokens")
    )
    print(
        f"{name:<34} {computed:>9,} {distinct:>9,} {computed / distinct:>6.3f} {least:>9,} {computed / least:>6.3f} "
        f"{seconds:>8.2f}"
    )


# --- a real server ----------------------------------------------------------------------------------------

REAL = """\
kind: scenario
version: 1
models: {{small: {model}}}
task: {{name: reviews, train: 300, held_out: 40, options: {{plain: 1.0}}}}
cast: {{students: [{{persona: literal}}, {{persona: sceptic}}]}}
method:
  rounds: 1
  exemplars: 8
  beam: 1
  exam: 16
  revise: {{operators: [choose], chosen: 4}}
  select: {{strategy: uniform, budget: 120, rescore: 0}}
seed: 7
"""


def measure_real(model: str, repeats: int, flags: dict[str, Any]) -> None:
    spec = VllmSpec(model=model, flags=flags, start_timeout=600)
    asyncio.run(_measure_real(spec, repeats))


async def _measure_real(spec: VllmSpec, repeats: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        surroundings = Surroundings(logs=folder / "servers", tell=lambda text: print(text, file=sys.stderr))
        engine = VllmModel(spec)
        engine.settle(surroundings, "small")
        info = await engine.ready()
        try:
            stages = await _recorded_stages(folder, engine, info)
            rows: dict[str, list[tuple[float, int, int]]] = {"ours": [], "item by item, one by one": []}
            for repeat in range(repeats):
                for how, found in rows.items():
                    engine.salt = f"{repeat} {how}"  # a cache of its own: nothing of the other way is in it
                    found.append(await _asked(engine, stages, one_by_one=how != "ours"))
        finally:
            await engine.close()
    calls = sum(len(group) for stage in stages for group in stage)
    print(f"{info.identity}, vLLM {info.detail['vllm']} on {info.detail['device']}, flags {spec.flags or 'none'}")
    print(f"one round, {calls} calls; median of {repeats}, cache cold each time, the two ways in turn")
    print(f"{'':<28} {'seconds':>8} {'(all)':>24} {'tokens sent':>12} {'computed':>9}")
    for how, found in rows.items():
        seconds, sent, computed = (statistics.median(column) for column in zip(*found, strict=True))
        every = ", ".join(f"{row[0]:.1f}" for row in found)
        print(f"{how:<28} {seconds:>8.1f} {every:>24} {sent:>12,.0f} {computed:>9,.0f}")


async def _recorded_stages(folder: Path, engine: VllmModel, info: ModelInfo) -> list[list[list[ChatRequest]]]:
    """The requests of a round as the run makes them: steps, and in each the exams of its agents."""
    file = folder / "real.yaml"
    file.write_text(REAL.format(model="{engine: scripted}"), encoding="utf-8")
    prepared = prepare(load_scenario(str(file)))
    seen: list[list[ChatRequest]] = []

    class Recording(Caller):
        async def ask_many(self, model: str, requests: Sequence[ChatRequest]) -> list[Reply]:
            seen.append(list(requests))
            return await super().ask_many(model, requests)

    async with Ledger(folder) as ledger:
        caller = Recording({"small": (engine, info)}, ledger)
        ctx = Context(Seeds(prepared.file.seed), lambda event: None, caller)
        room = seat_room(prepared.classroom, prepared.seats, prepared.task, open_grader(prepared.task), ctx)
        async for _ in m3(room, prepared.file.lesson, prepared.file.method, ctx):
            pass
    order = list(dict.fromkeys((group[0].path.round, group[0].path.step.split("/")[0]) for group in seen))
    return [[g for g in seen if (g[0].path.round, g[0].path.step.split("/")[0]) == step] for step in order]


async def _asked(
    engine: VllmModel, stages: Sequence[Sequence[Sequence[ChatRequest]]], *, one_by_one: bool
) -> tuple[float, int, int]:
    """Seconds, tokens sent and tokens computed of all stages."""
    before, begun = await engine.figures(), time.perf_counter()

    async def exam(group: Sequence[ChatRequest]) -> None:
        async for _, reply in engine.create_many(group):
            _good(reply)

    for stage in stages:
        if one_by_one:
            items = [list(request) for request in zip_longest(*stage)]
            for request in (one for item in items for one in item if one is not None):
                _good(await engine.create(request))
        else:
            await asyncio.gather(*map(exam, stage))
    seconds, after = time.perf_counter() - begun, await engine.figures()
    return seconds, after["prompt_tokens"] - before["prompt_tokens"], after["computed"] - before["computed"]


def _good(reply: Reply) -> None:
    if reply.finish == "failed":
        raise SystemExit(f"a call failed: {reply.error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    round_ = commands.add_parser("round")
    round_.add_argument("--repeats", type=int, default=5)
    round_.add_argument("--others", action="store_true", help="other clients too, where they are installed")
    sustained = commands.add_parser("sustained")
    sustained.add_argument("--answers", type=int, default=100_000)
    sustained.add_argument("--items", type=int, default=100)
    tokens = commands.add_parser("tokens")
    tokens.add_argument("--cache", type=int, default=1_000_000)
    real = commands.add_parser("real", help="needs vLLM: `lbt-sim doctor` says where it looks")
    real.add_argument("--model", default="smollm2-135m")
    real.add_argument("--repeats", type=int, default=3)
    real.add_argument("--flag", action="append", default=[], metavar="NAME=NUMBER", help="of vllm serve")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lbt-sim-state-") as state:
        os.environ.setdefault("LBT_SIM_STATE", state)
        _measure(asked)


def _measure(asked: argparse.Namespace) -> None:
    if asked.command == "round":
        measure_round(asked.repeats, asked.others)
    elif asked.command == "sustained":
        measure_sustained(asked.answers, asked.items)
    elif asked.command == "tokens":
        measure_tokens(asked.cache)
    elif asked.command == "real":
        flags = dict(flag.split("=", 1) for flag in asked.flag)
        measure_real(asked.model, asked.repeats, {name: int(value) for name, value in flags.items()})


if __name__ == "__main__":
    main()
