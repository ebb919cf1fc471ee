"""`lbt-sim models serve` from its start to its end, as a process, and runs beside it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Said, lasting, lbt_sim
from stubs import SCRIPT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="vLLM servers are looked after on Linux")

SCENARIO = """\
kind: scenario
version: 1
models: {{small: {{engine: vllm, model: "{folder}/tiny", device: cpu, cpu_cache: 1, command: {command}{options}}}}}
task: {{name: reviews, train: 40, held_out: 8}}
cast: {{students: [{{persona: literal}}, {{persona: sceptic}}]}}
method: {{rounds: 1, exemplars: 4, exam: 6, revise: {{operators: [choose], chosen: 2}}, select: {{budget: 24}}}}
"""


@pytest.fixture(autouse=True)
def folder(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a model's folder as far as anybody looks who does not load it."""
    monkeypatch.setenv("LBT_SIM_STATE", str(workspace / "state"))
    (workspace / "tiny").mkdir()
    (workspace / "tiny" / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (workspace / "tiny" / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return workspace


def write(folder: Path, name: str = "mine.yaml", **options: Any) -> None:
    said = "".join(f", {key}: {json.dumps(value)}" for key, value in options.items())
    command = json.dumps([sys.executable, str(SCRIPT)])
    (folder / name).write_text(SCENARIO.format(folder=folder, command=command, options=said), "utf-8")


def run(out: str, name: str = "mine.yaml") -> Said:
    return lbt_sim("run", name, "--out", out, "--json", "-q")


class Serving:
    """`models serve` as a process. What it says on standard output is read up to a line on demand."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "lbt_sim", "models", "serve", "mine.yaml"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said: list[str] = []

    def until(self, what: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if what in line:
                return line
        raise AssertionError(f"it never said {what!r}: {self.said} {self.process.communicate()[1]}")

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)
        return self.process.returncode


@pytest.fixture
def serve() -> Iterator[Callable[[], Serving]]:
    started: list[Serving] = []

    def begin() -> Serving:
        started.append(Serving())
        return started[-1]

    yield begin
    for one in started:
        one.process.kill()  # its guards end its servers
        one.process.communicate()


def servers(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (folder / "state").glob("*.json")]


def alive(group: int) -> bool:
    """Whether anybody of a process group lives."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def test_kept_servers_serve_runs_until_they_are_told_to_stop(serve: Callable[[], Serving], folder: Path) -> None:
    write(folder)
    keeping = serve()
    ready = keeping.until("ready: small (tiny@")
    url = re.search(r"http://127\.0\.0\.1:\d+/v1", ready)
    keeping.until("Ctrl-C")
    (kept,) = servers(folder)
    assert url is not None
    assert (kept["url"], kept["kept"], kept["ready"]) == (url[0], True, True)
    done = [run("one"), run("two")]
    assert [one.status for one in done] == [0, 0]
    assert lasting(done[0].result) == lasting(done[1].result)
    for name in ("one", "two"):
        detail = json.loads((folder / name / "manifest.json").read_text())["models"]["small"]["detail"]
        assert (detail["attached"], detail["servers"]) == (True, [{"how": "kept"}])
        assert not list((folder / name).glob("servers/*")), "a run keeps no log of a server that is not its own"
    assert servers(folder) == [kept], "runs left it as it was"
    assert keeping.end() == 0
    assert servers(folder) == []
    assert not alive(kept["pgid"])


def test_the_same_servers_are_kept_by_one_process_only(serve: Callable[[], Serving], folder: Path) -> None:
    write(folder)
    both = [serve(), serve()]
    until(lambda: any(one.process.poll() is not None for one in both))
    (refused,) = (one for one in both if one.process.poll() is not None)
    (keeping,) = (one for one in both if one is not refused)
    assert refused.process.returncode == 2
    assert "'small' is " in refused.process.communicate()[1]
    keeping.until("Ctrl-C")
    assert len(servers(folder)) == 1
    assert list((folder / "state" / "logs").glob("*/small.log"))
    again = lbt_sim("models", "serve", "mine.yaml")
    assert again.status == 2
    assert f"'small' is kept up already, by process {keeping.process.pid}" in again.err
    assert keeping.end() == 0
    assert not list((folder / "state" / "logs").glob("*")), "logs of what ended in order are not kept"


def test_a_kept_server_that_dies_in_a_run_is_brought_back_by_its_keeper(
    serve: Callable[[], Serving], folder: Path
) -> None:
    crash = json.dumps({"fault": "crash", "after": 25})
    write(folder, flags={"fault": crash, "once": str(folder / "crashed")})
    keeping = serve()
    keeping.until("Ctrl-C")
    done = run("run")
    assert (done.status, done.result["calls"]["failed"]) == (0, 0)
    keeping.until("answers again")
    assert any("ended with status 1; it is started anew" in line for line in keeping.said)
    assert keeping.end() == 0


def test_nothing_outlives_a_keeper_that_is_killed(serve: Callable[[], Serving], folder: Path) -> None:
    write(folder, flags={"child": True})
    keeping = serve()
    keeping.until("Ctrl-C")
    (kept,) = servers(folder)
    keeping.process.kill()
    until(lambda: not alive(kept["pgid"]))
    assert run("after").status == 0  # with a server of its own
    assert servers(folder) == []


def test_what_cannot_be_started_ends_the_command_with_what_the_log_says(
    serve: Callable[[], Serving], folder: Path
) -> None:
    write(folder, flags={"fail-start": "No available memory for the cache blocks."})
    keeping = serve()
    out, err = keeping.process.communicate(timeout=30)
    assert keeping.process.returncode == 2
    assert "No available memory for the cache blocks." in err
    assert "ready" not in out
    assert "Traceback" not in err
    assert servers(folder) == []


def test_a_scenario_without_vllm_has_nothing_to_serve() -> None:
    said = lbt_sim("models", "serve", "small.yaml")
    assert said.status == 2
    assert "none of its models is on the engine `vllm`" in said.err
    assert "--engine vllm" in said.err


def test_servers_that_run_already_need_not_be_kept(folder: Path) -> None:
    models = 'models: {small: {engine: vllm, model: tiny, urls: ["http://127.0.0.1:9/v1"]}}'
    (folder / "small.yaml").write_text(
        (folder / "small.yaml").read_text().replace("models: {small: {engine: simulated}}", models)
    )
    said = lbt_sim("models", "serve", "small.yaml")
    assert said.status == 2
    assert "names servers that run already" in said.err
