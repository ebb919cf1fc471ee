"""Stand-ins for vLLM servers (`benchmarks/stub_vllm/`): on a test's own event loop, or as processes."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from aiohttp import web

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "stub_vllm.py"
CHAT, BATCH, TOKENIZE = "/v1/chat/completions", "/v1/chat/completions/batch", "/tokenize"


@cache
def module() -> ModuleType:
    """What the script runs, as a module."""
    spec = importlib.util.spec_from_file_location("stub_vllm_of_tests", SCRIPT.with_suffix("") / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found  # its parts find each other by it
    spec.loader.exec_module(found)
    return found


class Stub:
    """A stand-in that serves `tiny` on this event loop.

    Attributes:
        url: Its address, with `/v1`.
        asked: (path, body) of each POST, in order of arrival.
    """

    def __init__(self, *flags: str) -> None:
        self.url = ""
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._stub = module().Stub(module().arguments(["--model", "tiny", *flags]))
        self._handle = self._stub.handle
        self._stub.handle = self._record
        self._runner: web.ServerRunner | None = None

    async def start(self, port: int = 0) -> None:
        """Listen."""
        self._runner = module().runner_of(self._stub)
        assert self._runner is not None
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def stop(self) -> None:
        """Be gone: connections break, nobody listens. Any number of times."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @property
    def engine(self) -> Any:
        """What computes: `running`, `waiting`, `stats`, `uniques`."""
        return self._stub.engine

    @property
    def stats(self) -> Any:
        """Its counters."""
        return self._stub.engine.stats

    def fault(self, fault: str, **more: Any) -> None:
        """Switch a fault on, or all off with `none`."""
        self._stub.switch({"fault": fault, **more})

    def forget(self) -> None:
        """Count anew, with an empty prefix cache."""
        self._stub.engine.forget(keep_cache=False)
        self.asked.clear()

    def posts(self, *paths: str) -> list[dict[str, Any]]:
        """The bodies that were sent to these paths; without any, to those of chats."""
        return [body for path, body in self.asked if path in (paths or (CHAT, BATCH))]

    async def _record(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            self.asked.append((request.path, json.loads(await request.read())))
        answer: web.StreamResponse = await self._handle(request)
        return answer


@asynccontextmanager
async def here(*flags: str) -> AsyncIterator[Stub]:
    """A stand-in on this event loop."""
    stub = Stub(*flags)
    await stub.start()
    try:
        yield stub
    finally:
        await stub.stop()


class Process:
    """A stand-in that is a process. Attributes: its address, with `/v1`, and the process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stderr is not None
        said = ""
        for said in process.stderr:
            if found := re.search(r"Listening on (http://\S+)", said):
                self.url = f"{found[1]}/v1"
                return
        raise AssertionError(f"the stand-in did not start: {said}")

    @property
    def stats(self) -> dict[str, Any]:
        """Its counters."""
        return tell(self.url, "/stub/stats")

    def fault(self, fault: str, **more: Any) -> None:
        """Switch a fault on."""
        tell(self.url, "/stub/faults", {"fault": fault, **more})


@contextmanager
def process(*flags: str) -> Iterator[Process]:
    """A stand-in as a process that serves `tiny`."""
    command = [sys.executable, str(SCRIPT), "--model", "tiny", "--port", "0", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as started:
        try:
            yield Process(started)
        finally:
            started.kill()


def tell(url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """What a stand-in answers to GET, or to POST where there is a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url.removesuffix("/v1") + path, data)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return json.loads(answer.read())
