"""A real vLLM for tests: where it is, a tiny model for it, a server that many tests attach to, and what runs of it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

from lbt_sim.errors import ModelUnavailable
from lbt_sim.models.base import CallPath, ChatRequest, Head, ModelInfo, Reply, Sampling, Turn
from lbt_sim.models.surroundings import Surroundings
from lbt_sim.models.vllm import records
from lbt_sim.models.vllm.install import VARIABLE, find
from lbt_sim.models.vllm.model import VllmModel, VllmSpec
from lbt_sim.models.vllm.records import Record

REQUIRED = "LBT_SIM_REQUIRE_VLLM"
"""Set to 1 where these tests have to run: a vLLM that is missing or broken is a failure then."""
MAKER = Path(__file__).with_name("tiny_llama.py")
START = 300.0
"""Seconds that are waited for a server, at most; it takes 40 to 60 on two cores."""
GONE = 15.0
"""Seconds after which nothing is left of a server whose owner was killed: this is promised."""
LABELS = ("positive", "negative")
LABEL = Sampling(max_tokens=8)


# --- where it is ---------------------------------------------------------------------------------------------


def the_python(environment: Mapping[str, str]) -> str:
    """The interpreter of the environment that holds vLLM; without one the test skips, or fails where it has to run."""
    required = environment.get(REQUIRED) == "1"
    if not environment.get(VARIABLE):
        how = f"make an environment with scripts/vllm-cpu, and set {VARIABLE} to the path that it prints"
        _give_up(f"needs vLLM: {how}", fail=required)
    try:
        return find(VllmSpec(model="tiny", python=environment[VARIABLE])).python
    except ModelUnavailable as error:
        _give_up(f"{VARIABLE}={environment[VARIABLE]}: {error}", fail=True)


def _give_up(why: str, *, fail: bool) -> NoReturn:
    if fail:
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


def make_tiny(python: str, folder: Path) -> None:
    """Writes the tiny model and its adapter."""
    made = subprocess.run([python, "-I", str(MAKER), str(folder)], capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr


# --- what runs -----------------------------------------------------------------------------------------------


def marked(tokens: Iterable[str]) -> dict[int, str]:
    """The live processes that carry the marks of these servers, with what each is called."""
    marks = {f"{records.MARK}={token}".encode() for token in tokens}
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and marks & set((entry / "environ").read_bytes().split(b"\0")):
                found[int(entry.name)] = (entry / "comm").read_text().strip()
    return found


def group_members(pgid: int) -> dict[int, str]:
    """The live processes of a group, marked or not."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if not entry.name.isdigit():
                continue
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == pgid and fields[0] not in "ZX":
                found[int(entry.name)] = (entry / "comm").read_text().strip()
    return found


def process_called(token: str, name: str) -> int | None:
    """The number of a server's process that is called so."""
    return next((pid for pid, comm in marked([token]).items() if comm.startswith(name)), None)


def tokens_in(state: Path) -> set[str]:
    """The marks of the servers that are recorded there."""
    return {path.stem for path in state.glob("*.json")}


def records_in(state: Path) -> list[Record]:
    """The servers that are recorded there."""
    found = []
    for path in sorted(state.glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            said = json.loads(path.read_text())
            said["devices"] = tuple(said["devices"])
            found.append(Record(**said))
    return found


def until(condition: Callable[[], Any], seconds: float, what: str = "it") -> Any:
    """Waits for something that is to happen, and gives it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.05)
    return found


async def until_async(condition: Callable[[], Any], seconds: float, what: str = "it") -> Any:
    """As `until`, while other things go on."""
    return await asyncio.to_thread(until, condition, seconds, what)


def _die_with_us() -> None:
    # SIGTERM when this process ends, however it does: nothing is to outlive the tests.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


# --- a server that is kept up --------------------------------------------------------------------------------


class Command:
    """`lbt-sim …` as a process of its own, with its output in a file."""

    def __init__(self, folder: Path, name: str, *arguments: str, state: Path, python: str) -> None:
        self.state = state
        self.output = folder / f"{name}.out"
        environment = {**os.environ, "LBT_SIM_STATE": str(state), VARIABLE: python, "PYTHONUNBUFFERED": "1"}
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lbt_sim", *arguments],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_us,
            )

    def said(self) -> str:
        """What it has printed."""
        return self.output.read_text(errors="replace")

    def says(self, what: str, seconds: float = START) -> str:
        """Waits until it has printed `what`; what it has printed then."""

        def found() -> str:
            text = self.said()
            assert what in text or self.process.poll() is None, text
            return text if what in text else ""

        said: str = until(found, seconds, f"{what!r} from {self.process.args!r}: {self.said()}")
        return said

    def kill(self) -> None:
        """With SIGKILL."""
        self.process.kill()
        self.process.wait()

    def terminate(self, seconds: float = 60.0) -> int:
        """With SIGTERM; its exit status."""
        self.process.terminate()
        return self.process.wait(seconds)


class Keeper:
    """The tiny model, kept up by `lbt-sim models serve`: tests attach to it, and it is started when one needs it."""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder = folder
        self.python = python
        self.state = folder / "state"
        self.scenario = folder / "tiny.yaml"
        self.seen: set[str] = set()
        self.command: Command | None = None
        self.broken = False

    def write(self) -> None:
        """Makes the models, and the scenario that is served."""
        make_tiny(self.python, self.folder)
        tiny = {"engine": "vllm", **self.options()}
        models = {"tiny": tiny, "adapted": {**tiny, "lora": self.adapter}}
        self.scenario.write_text(SCENARIO.replace("{models}", json.dumps(models)), "utf-8")

    @property
    def adapter(self) -> str:
        """The adapter's folder."""
        return str(self.folder / "adapter")

    def options(self, **more: Any) -> dict[str, Any]:
        """What the scenario says of the server; `memory` is for GPUs, `cpu_cache` for the CPU."""
        server = {"model": str(self.folder / "tiny"), "dtype": "float32", "memory": 0.2, "cpu_cache": 1}
        return {**server, **more}

    def said(self) -> str:
        """What whoever keeps it has printed."""
        return self.command.said() if self.command else ""

    def up(self) -> Record:
        """The server, which answers."""
        if self.command is None or self.command.process.poll() is not None:
            assert not self.broken, "the tiny model's server cannot be started, as an earlier test told"
            self.broken = True
            self.command = self.run("serve", "models", "serve", str(self.scenario))
            self.command.says("ready: adapted")
            self.broken = False
        record = self.record()
        assert record is not None
        return record

    def record(self) -> Record | None:
        """What is recorded of it, once it answers."""
        found = [one for one in records_in(self.state) if one.name == "tiny" and one.ready]
        self.seen |= tokens_in(self.state)
        return found[0] if found else None

    def run(self, name: str, *arguments: str) -> Command:
        """A further command, where it finds the server."""
        return Command(self.folder, name, *arguments, state=self.state, python=self.python)

    def stop(self) -> None:
        """In order, where it still runs; asserts that nothing is left."""
        self.seen |= tokens_in(self.state)
        if self.command is not None and self.command.process.poll() is None:
            assert self.command.terminate() == 0, self.command.said()
        left = marked(self.seen)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not left, f"processes of the kept server are left: {left}"


SCENARIO = """\
kind: scenario
version: 1
models: {models}
task: {name: reviews, train: 40, held_out: 8}
classroom: star
cast:
  teacher: {agent: teacher, model: tiny}
  students: [{persona: literal, model: tiny}, {persona: sceptic, model: adapted}]
method: {rounds: 1, exemplars: 2, beam: 1, exam: 4, revise: {operators: [choose], chosen: 1}, select: {budget: 12}}
"""


# --- asking it -----------------------------------------------------------------------------------------------


@dataclass
class Open:
    """A model that is ready.

    Attributes:
        model: The model.
        info: What it said of itself.
        told: What a person would have been told.
    """

    model: VllmModel
    info: ModelInfo
    told: list[str]

    async def all(self, requests: Sequence[ChatRequest]) -> list[Reply]:
        """Replies in the requests' order, asked as a whole exam is."""
        replies: dict[int, Reply] = {}
        async for index, reply in self.model.create_many(requests):
            assert index not in replies
            replies[index] = reply
        return [replies[index] for index in range(len(requests))]

    async def one_by_one(self, requests: Iterable[ChatRequest]) -> list[Reply]:
        """Replies to calls of which each waits for the one before."""
        return [await self.model.create(request) for request in requests]

    async def sent(self) -> int:
        """Requests sent to the server so far, whatever number of calls they held."""
        return int((await self.model.figures())["requests"])


@asynccontextmanager
async def opened(name: str = "tiny", **options: Any) -> AsyncIterator[Open]:
    """A model, ready, and closed in the end."""
    told: list[str] = []
    model = VllmModel(VllmSpec(**options))
    model.settle(Surroundings(tell=told.append), name)
    try:
        yield Open(model, await model.ready(), told)
    finally:
        await model.close()


def requests(
    items: Iterable[str],
    *,
    head: str = "Answer with one word: positive or negative.",
    sampling: Sampling = LABEL,
    seed: int = 7,
    agent: str = "ann",
    **changes: Any,
) -> list[ChatRequest]:
    """An exam's requests: one for each item, in the order of their seeds."""
    turns = Head((Turn("system", head),))
    return [
        ChatRequest(CallPath(1, "exam", agent, f"p{n}"), turns, item, sampling, seed + n, **changes)
        for n, item in enumerate(items)
    ]


THINGS = ("film", "soup", "chair", "phone", "hotel", "book", "play", "song", "train", "coat", "lamp", "game")
REVIEWS = [f"The {thing} was {how}." for thing in THINGS for how in ("lovely and cheap", "broken and dear")]


class Metrics:
    """What a server says of itself, and how many requests have arrived at it."""

    def __init__(self, record: Record) -> None:
        with urllib.request.urlopen(record.url.removesuffix("/v1") + "/metrics", timeout=30) as response:
            self.text = response.read().decode()

    def total(self, name: str, **labels: str) -> float:
        """The sum of a figure over all that carry these labels."""
        found = re.findall(rf"^{re.escape(name)}(?:{{(.*)}})? (\S+)$", self.text, re.MULTILINE)
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(float(value) for told, value in found if all(one in told for one in wanted))

    @property
    def arrived(self) -> float:
        """Requests for replies that it has answered or refused."""
        paths = ("/v1/chat/completions", "/v1/chat/completions/batch")
        return sum(self.total("http_requests_total", handler=path) for path in paths)


async def metrics(record: Record) -> Metrics:
    """Its figures now."""
    return await asyncio.to_thread(Metrics, record)


def post(record: Record, path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
    """A request past our own code: status and JSON."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {record.api_key}"}
    url = record.url.removesuffix("/v1") + path
    asked = urllib.request.Request(url, json.dumps({"model": record.served, **body}).encode(), headers)
    try:
        with urllib.request.urlopen(asked, timeout=120) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
