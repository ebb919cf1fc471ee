"""The servers of a machine: who owns them, who may use them, and what is ended when their owner is dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from server_processes import marked, recorded, until

from lbt_sim.errors import ModelUnavailable
from lbt_sim.models.vllm import records
from lbt_sim.models.vllm.records import Record

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="vLLM servers are looked after on Linux"),
    pytest.mark.usefixtures("state"),
]

SLEEP = "import sys, time; print('here', flush=True); time.sleep(600)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP


def record(**changes: Any) -> Record:
    """A server of this process."""
    values: dict[str, Any] = {
        "token": os.urandom(8).hex(),
        "name": "tiny",
        "owner": os.getpid(),
        "owner_start": records.started(os.getpid()),
        "place": records.here(),
        "log": "/dev/null",
        "port": 1,
        "url": "http://127.0.0.1:1/v1",
        "served": "lbt-x",
        "api_key": "secret",
        "server_key": "key",
        "devices": ("cpu",),
        "adapters": {"lora": "/folder"},
        "kept": True,
        "started": "2030-01-01T00:00:00+00:00",
        "detail": {"version": "0.32.0", "flags": ["a"]},
        "ready": True,
    }
    return Record(**(values | changes))


def dead() -> dict[str, int]:
    """An owner that is no more."""
    process = subprocess.Popen([sys.executable, "-c", SLEEP], stdout=subprocess.DEVNULL)
    start = records.started(process.pid)
    assert start is not None
    process.kill()
    process.wait()
    return {"owner": process.pid, "owner_start": start}


Run = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Starts a process with a mark or without, its output in a log."""
    begun: list[subprocess.Popen[bytes]] = []

    def start(mark: str | None, code: str = SLEEP, log: Path = tmp_path / "log", **more: Any) -> Any:
        before = log.stat().st_size if log.exists() else 0
        environment = {**os.environ, **({records.MARK: mark} if mark else {})}
        with log.open("ab") as file:
            process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=file, **more)
        begun.append(process)
        until(lambda: log.stat().st_size > before)
        return process

    yield start
    for process in begun:
        process.kill()
        process.wait()


def test_record_is_kept_from_others_and_read_as_it_was_written(state: Path) -> None:
    one = record(kept=True)
    records.save(one)
    assert state.stat().st_mode & 0o777 == 0o700
    (file,) = recorded(state)
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(state.iterdir()) == [file]
    assert records.live() == [one]
    assert "secret" not in repr(one)
    records.remove(one)
    records.remove(one)
    assert records.live() == []


def test_folder_that_the_user_made_stays_as_it_is(state: Path) -> None:
    state.mkdir()
    state.chmod(0o755)
    assert records.state_folder() == state
    assert state.stat().st_mode & 0o777 == 0o755
    records.save(record())
    (file,) = recorded(state)
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_folder_that_others_may_write_to_is_refused_and_left_as_it_is(state: Path, mode: int) -> None:
    state.mkdir()
    state.chmod(mode)
    with pytest.raises(ModelUnavailable, match="can be written to by others") as caught:
        records.state_folder()
    assert f"chmod go-w {state}" in caught.value.remedy
    assert state.stat().st_mode & 0o7777 == mode


def test_usual_folder_is_closed_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LBT_SIM_STATE")
    monkeypatch.setattr("platformdirs.user_state_dir", lambda _: str(tmp_path / "usual"))
    folder = tmp_path / "usual" / "servers"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert records.state_folder() == folder
    assert folder.stat().st_mode & 0o777 == 0o700


def test_folder_that_cannot_be_had_is_told(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state.write_text("no folder")
    with pytest.raises(ModelUnavailable, match="cannot be recorded") as caught:
        records.save(record())
    assert "LBT_SIM_STATE" in caught.value.remedy
    state.unlink()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ModelUnavailable, match="is another user's"):
        records.state_folder()


def test_only_servers_that_are_kept_and_answer_are_found() -> None:
    for changes in ({"kept": False}, {"ready": False}, {"server_key": "another"}, dead(), {"place": "elsewhere  "}):
        records.save(record(**changes))
    one = record()
    records.save(one)
    assert records.find_kept("key") == [one]


def test_what_an_owner_left_is_ended_and_nothing_else(run: Run, state: Path) -> None:
    left, mine = record(**dead()), record()
    for one in (left, mine):
        records.save(one)
    ours = run(left.token)
    others = [run(mine.token), run(None), run("0123456789abcdef"), run(left.token + "0")]
    told: list[str] = []
    assert records.sweep(told.append) == [left]
    assert ours.wait() == -signal.SIGTERM
    assert [other.poll() for other in others] == [None] * 4
    assert told == ["ended the server tiny, which a run that was killed left behind (1 processes)"]
    assert records.live() == [mine]
    assert [path.stem for path in recorded(state)] == [mine.token]


def test_owner_whose_number_was_given_to_another_is_dead() -> None:
    one = record(owner_start=1)
    records.save(one)
    assert records.live() == []
    assert records.sweep(pytest.fail) == [one]


def test_owner_that_nobody_has_waited_for_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert records.started(process.pid) is None
    process.wait()


def test_process_that_wrote_over_its_environment_is_known_by_session_and_log(run: Run, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    ours = run(None, log=log, start_new_session=True)
    elsewhere = run(None, log=tmp_path / "other.log", start_new_session=True)
    same_log = run(None, log=log, start_new_session=True)
    marked_otherwise = run("0123456789abcdef", log=log, start_new_session=True)
    one = record(pgid=ours.pid, log=str(log))
    assert records.end(one) == (1, 0)
    assert ours.wait() == -signal.SIGTERM
    assert records.end(replace(one, pgid=elsewhere.pid)) == (0, 0)
    assert records.end(replace(one, pgid=marked_otherwise.pid)) == (0, 0)
    assert [process.poll() for process in (elsewhere, same_log, marked_otherwise)] == [None] * 3


def test_process_that_ignores_sigterm_is_killed(run: Run) -> None:
    one = record()
    process = run(one.token, DEAF)
    assert records.end(one, grace=0.2) == (1, 0)
    assert process.wait() == -signal.SIGKILL


def test_two_sweeps_at_once_do_no_harm(run: Run, state: Path) -> None:
    left = [record(**dead()) for _ in range(3)]
    processes = []
    for one in left:
        records.save(one)
        processes += [run(one.token), run(one.token)]
    threads = [threading.Thread(target=records.sweep, args=([].append,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not recorded(state)
    assert [process.wait() for process in processes] == [-signal.SIGTERM] * 6
    assert not any(marked(one.token) for one in left)


def test_records_of_other_machines_are_left_and_those_before_a_reboot_forgotten(state: Path) -> None:
    host, _, space = records.here().split(" ")
    elsewhere = record(place=f"another 1234 {space}", **dead())
    container = record(place=records.here() + "0", **dead())
    before = record(place=f"{host} 1234 {space}")
    for one in (elsewhere, container, before):
        records.save(one)
    assert records.live() == []
    assert records.sweep(pytest.fail) == [before]
    assert {path.stem for path in recorded(state)} == {elsewhere.token, container.token}


def test_what_is_no_record_is_left_alone(state: Path) -> None:
    one = record(**dead())
    records.save(one)
    (file,) = recorded(state)
    texts = ["", "{", "[]", file.read_text(), file.read_text().replace('"owner": ', '"owner": "x')]
    for number, text in enumerate(texts):
        (state / f"other-{number}.json").write_text(text)
    assert records.sweep(pytest.fail) == [one]
    assert len(recorded(state)) == len(texts)


# --- logs of keepers ---------------------------------------------------------------------------------------


def logs_of(folder: Path, pid: int, days: float = 0.0) -> Path:
    """The logs that a keeper of that number left so many days ago."""
    logs = folder / "logs" / str(pid)
    logs.mkdir(parents=True)
    (logs / "small.log").write_text("ready")
    then = time.time() - days * 86_400
    for path in (logs / "small.log", logs):
        os.utime(path, (then, then))
    return logs


def test_logs_of_keepers_that_are_long_dead_are_removed(state: Path) -> None:
    numbers = [dead()["owner"] for _ in range(3)]
    old, recent, named = logs_of(state, numbers[0], 8), logs_of(state, numbers[1], 6), logs_of(state, numbers[2], 8)
    mine = logs_of(state, os.getpid(), 8)
    (state / "logs" / "1x").mkdir()
    records.save(record(place="another  ", log=str(named / "small.log")))
    records.sweep_logs(state / "logs")
    assert [path.exists() for path in (old, recent, named, mine, state / "logs" / "1x")] == [False, *[True] * 4]


def test_logs_that_were_written_to_lately_are_kept(state: Path) -> None:
    old = logs_of(state, dead()["owner"], 8)
    (old / "small.log").touch()
    records.sweep_logs(state / "logs")
    assert old.exists()
    records.remove_logs(old)
    assert not old.exists()


def test_logs_that_a_server_writes_are_not_removed(state: Path) -> None:
    logs = logs_of(state, os.getpid())
    one = record(log=str(logs / "small.log"))
    records.save(one)
    records.remove_logs(logs)
    assert logs.exists()
    records.remove(one)
    records.remove_logs(logs)
    assert not logs.exists()
