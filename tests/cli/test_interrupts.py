"""Ctrl-C once: what is in flight is finished; twice: it is cancelled; three times: the command leaves at once.

Real processes and signals. The model is a local server that answers when the test says so.
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import lasting, lbt_sim
from servers import Server

from lbt_sim.ledger import LedgerReader

SCENARIO = """\
kind: scenario
version: 1
models: {{small: {{engine: openai, url: "{url}", model: tiny, logprobs: false, retries: 0, timeout: 600}}}}
task: {{name: reviews, train: 20, held_out: 6}}
method: {{rounds: 1, exemplars: 4, exam: 4, revise: {{operators: [choose], chosen: 1}}, select: {{budget: 8}}}}
"""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts `lbt-sim run` over the server."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(SCENARIO.format(url=server.url), encoding="utf-8")
    processes: list[subprocess.Popen[str]] = []

    def begin(*options: str, code: str = "", **streams: Any) -> subprocess.Popen[str]:
        streams = streams or {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, *(["-c", code] if code else ["-m", "lbt_sim", "run", "mine.yaml", "--out", "run"])]
        command += options
        processes.append(subprocess.Popen(command, text=True, **streams))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def committed() -> int:
    with LedgerReader(Path("run")) as ledger:
        return ledger.count()


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def test_one_interrupt_finishes_what_is_in_flight_and_the_run_can_be_resumed(start: Start, server: Server) -> None:
    server.hold_after = 3
    process = start("--json")
    until(lambda: server.held == 3)  # of six held-out problems
    process.send_signal(signal.SIGINT)
    server.wait_for_line(process.stderr, "in flight")
    server.release()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out)["status"] == "interrupted"
    assert len(out.splitlines()) == 1
    assert "Continue with: lbt-sim resume run" in err
    assert "Traceback" not in err
    assert committed() == 6
    asked = server.asked
    done = lbt_sim("resume", "run", "--json", "-q")
    assert done.status == 0
    assert done.result["calls"]["replayed"] == 6
    assert server.asked - asked == done.result["calls"]["made"]
    whole = lbt_sim("run", "mine.yaml", "--out", "whole", "--json", "-q")
    assert lasting(done.result) == lasting(whole.result)


def test_two_interrupts_cancel_what_is_in_flight_and_keep_what_was_answered(start: Start, server: Server) -> None:
    server.hold_after = 3
    process = start("--json")
    until(lambda: server.held == 3)
    until(lambda: committed() == 3)
    for says in ("in flight", "Cancelling"):
        process.send_signal(signal.SIGINT)
        server.wait_for_line(process.stderr, says)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out)["status"] == "interrupted"
    assert "Traceback" not in err
    assert committed() == 3
    server.release()
    done = lbt_sim("resume", "run", "--json", "-q")
    assert (done.status, done.result["calls"]["replayed"]) == (0, 3)


def test_a_request_to_terminate_is_an_interrupt(start: Start, server: Server) -> None:
    server.hold_after = 0
    process = start("--json")
    until(lambda: server.held == 6)
    process.send_signal(signal.SIGTERM)
    server.wait_for_line(process.stderr, "in flight")
    server.release()
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, json.loads(out)["status"]) == (130, "interrupted")
    assert committed() == 6


HANGS = """
import asyncio, sys, time
from contextlib import suppress
from lbt_sim.cli import main
from lbt_sim.models import openai

async def close(self):
    while True:
        with suppress(asyncio.CancelledError):
            HANGS

openai.OpenAIModel.close = close
sys.argv = ["lbt-sim", "run", "mine.yaml", "--out", "run", "--json"]
main()
"""


@pytest.mark.parametrize("hangs", ["await asyncio.sleep(3600)", "time.sleep(3600)"])
def test_three_interrupts_leave_at_once_even_where_an_engine_hangs(start: Start, server: Server, hangs: str) -> None:
    server.hold_after = 3
    process = start(code=HANGS.replace("HANGS", hangs))
    until(lambda: server.held == 3)
    until(lambda: committed() == 3)
    for says in ("in flight", "Cancelling"):
        process.send_signal(signal.SIGINT)
        server.wait_for_line(process.stderr, says)
    time.sleep(0.3)  # until it hangs
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    server.release()
    done = lbt_sim("resume", "run", "--json", "-q")
    assert (done.status, done.result["calls"]["replayed"]) == (0, 3)


@pytest.mark.parametrize("interrupts", [1, 3])
def test_the_terminal_is_given_back_as_it_was(start: Start, server: Server, interrupts: int) -> None:
    server.hold_after = 0
    here, there = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    code = "" if interrupts == 1 else HANGS.replace("HANGS", "await asyncio.sleep(3600)").replace(', "--json"', "")
    process = start(code=code, stdin=there, stdout=there, stderr=there, env=environment)
    os.close(there)
    screen = Screen(here)
    until(lambda: server.held == 6)
    until(lambda: b"\x1b[?1049h" in screen.seen)
    for _ in range(interrupts):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    if interrupts == 1:
        server.release()
    assert process.wait(timeout=60) == 130
    screen.close()
    assert screen.seen.rfind(b"\x1b[?1049l") > screen.seen.rfind(b"\x1b[?1049h")
    assert screen.seen.rfind(b"\x1b[?25h") > screen.seen.rfind(b"\x1b[?25l")


class Screen:
    """Everything that a program writes to its terminal."""

    def __init__(self, descriptor: int) -> None:
        self.seen = b""
        self._descriptor = descriptor
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while True:
            ready, _, _ = select.select([self._descriptor], [], [], 0.1)
            if not ready:
                if self._stop.is_set():
                    return
                continue
            try:
                self.seen += os.read(self._descriptor, 65536)
            except OSError:  # the other side is closed
                return

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        os.close(self._descriptor)
