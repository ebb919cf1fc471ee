"""The guard ends all of a server, however it or we come to an end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server_processes import marked, until

from lbt_sim.models.vllm import guard

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="vLLM servers are looked after on Linux")

FAMILY = """
import os, signal, subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
deaf = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]
subprocess.Popen(sleep)
if os.fork() == 0:
    os.setsid()
    subprocess.Popen(deaf)
    subprocess.Popen(sleep)
    os._exit(0)
print("here", os.getcwd(), flush=True)
time.sleep(600)
"""
"""A server with a child, and two that left its session and are orphans, one of which will not hear of SIGTERM."""


class Guarded:
    """A guard that runs."""

    def __init__(self, log: Path, command: list[str], parent: int | None = None, **more: Any) -> None:
        self.token = os.urandom(8).hex()
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, str(parent or os.getpid()), str(log), "0.3", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "LBT_SIM_SERVER": self.token},
            **more,
        )

    def told(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line: dict[str, Any] = json.loads(self.process.stdout.readline())
        return line

    def rest(self) -> list[dict[str, Any]]:
        assert self.process.stdout is not None
        return [json.loads(line) for line in self.process.stdout.read().splitlines()]

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process.wait(15)
        left = marked(self.token)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left, "processes of a server outlived the test"


Start = Callable[..., Guarded]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    begun: list[Guarded] = []

    def begin(*command: str, **more: Any) -> Guarded:
        begun.append(Guarded(tmp_path / "log", [*command], **more))
        return begun[-1]

    yield begin
    for one in begun:
        one.close()


def family(start: Start, **more: Any) -> tuple[Guarded, int]:
    """A guard and its server's group, once all of the server is there."""
    guarded = start(sys.executable, "-c", FAMILY, **more)
    told = guarded.told()
    until(lambda: len(marked(guarded.token)) == 5 and "here" in guarded.log.read_text())
    return guarded, told["pgid"]


def test_server_has_a_session_of_its_own_and_writes_into_the_log(start: Start) -> None:
    guarded, group = family(start)
    assert os.getpgid(group) == os.getsid(group) == group
    assert guarded.log.read_text() == f"here {Path.cwd()}\n"
    assert guarded.log.stat().st_mode & 0o077 == 0


def test_all_of_it_ends_when_the_pipe_closes(start: Start) -> None:
    guarded, _ = family(start)
    assert guarded.process.stdin is not None
    guarded.process.stdin.close()
    assert guarded.rest() == [{"exit": None, "signal": signal.SIGTERM}, {"gone": True}]
    assert marked(guarded.token) == []
    assert guarded.process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_of_it_ends_on_a_signal(start: Start, number: signal.Signals) -> None:
    guarded, _ = family(start)
    guarded.process.send_signal(number)
    assert guarded.rest()[-1] == {"gone": True}
    assert marked(guarded.token) == []


def test_all_of_it_ends_with_the_servers_first_process(start: Start) -> None:
    guarded, group = family(start)
    os.kill(group, signal.SIGKILL)
    assert guarded.rest() == [{"exit": None, "signal": signal.SIGKILL}, {"gone": True}]
    assert marked(guarded.token) == []


def test_how_it_ended_is_told(start: Start) -> None:
    guarded = start(sys.executable, "-c", "print('why'); raise SystemExit(7)")
    assert guarded.told()["pid"]
    assert guarded.rest() == [{"exit": 7, "signal": None}, {"gone": True}]
    assert guarded.log.read_text() == "why\n"


def test_command_that_cannot_be_started_is_told(start: Start) -> None:
    assert start("/no/such/program").rest() == [{"failed": "/no/such/program: No such file or directory"}]


def test_log_is_added_to(start: Start) -> None:
    for text in ("one", "two"):
        guarded = start(sys.executable, "-c", f"print({text!r})")
        guarded.rest()
    assert guarded.log.read_text() == "one\ntwo\n"


def test_parent_that_is_gone_ends_all_of_it_though_another_holds_the_pipe(start: Start) -> None:
    # The guard is told of a parent that is not its own, and we, who hold its pipe, live on.
    guarded = start(sys.executable, "-c", FAMILY, parent=os.getppid())
    assert guarded.rest()[-1] == {"gone": True}
    assert marked(guarded.token) == []


def test_first_process_is_killed_with_its_guard(start: Start) -> None:
    guarded, group = family(start)
    guarded.process.kill()
    until(lambda: group not in marked(guarded.token))
    for pid in marked(guarded.token):  # These are for `records.sweep`.
        os.kill(pid, signal.SIGKILL)
    until(lambda: not marked(guarded.token))


def test_it_imports_nothing_of_ours_and_little_else() -> None:
    code = f"import runpy, sys; runpy.run_path({guard.__file__!r}); print([m for m in sys.modules if 'lbt' in m])"
    shown = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"
