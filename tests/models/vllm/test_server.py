"""The life of a vLLM server, with real processes: a stand-in for vLLM that fails in the ways that vLLM does."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from server_processes import STUB, about, marked, recorded, token_in, until

from lbt_sim.errors import ModelUnavailable, ServerLost
from lbt_sim.models.vllm import records, turns
from lbt_sim.models.vllm import server as server_module
from lbt_sim.models.vllm.launch import Launch
from lbt_sim.models.vllm.server import Rules, Server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="vLLM servers are looked after on Linux")


@dataclass
class Room:
    """Servers with what they told, and how busy they are made to believe that they are."""

    state: Path
    logs: Path
    told: list[str] = field(default_factory=list)
    in_flight: int = 0
    finished: int = 0
    servers: list[Server] = field(default_factory=list)

    def server(
        self, *flags: str, devices: tuple[str, ...] = ("cpu",), name: str = "tiny", kept: bool = False, **rules: Any
    ) -> Server:
        command = (sys.executable, str(STUB), "--model", "m", *flags)
        given = Rules(**({"patience": 60.0, "start_timeout": 20.0, "restarts": 3} | rules))
        server = Server(
            Launch(name, command, {"SAID": "so"}, devices, {}, {}),
            self.logs,
            given,
            tell=self.told.append,
            busy=lambda: (self.in_flight, self.finished),
            server_key="key",
            kept=kept,
        )
        self.servers.append(server)
        return server

    @property
    def processes(self) -> list[int]:
        return marked(token_in(self.state))


@pytest.fixture
async def room(state: Path, tmp_path: Path) -> AsyncIterator[Room]:
    room = Room(state, tmp_path / "logs")
    yield room
    for server in room.servers:
        await server.stop()
    assert not recorded(state), "a record outlived its server"
    assert len(asyncio.all_tasks()) == 1, "a task outlived its server"


async def call(server: Server, path: str = "/v1/chat/completions", **body: Any) -> int:
    """A call's status; 0 when the connection broke."""
    body = body or {"model": server.served, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    url = server.url.removesuffix("/v1") + path
    headers = {"Authorization": f"Bearer {server.api_key}"}
    try:
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(url, json=body, timeout=aiohttp.ClientTimeout(total=10)) as response,
        ):
            return response.status
    except (aiohttp.ClientError, TimeoutError):
        return 0


async def fault(server: Server, **what: Any) -> None:
    assert await call(server, "/stub/faults", **what) == 200


async def happens(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 (processes set no events)
            await asyncio.sleep(0.02)


async def test_started_server_answers_under_a_random_name_and_its_key(room: Room) -> None:
    server = room.server()
    await server.start()
    assert server.url.startswith("http://127.0.0.1:")
    assert (await server.up(), server.alive, await call(server)) == (1, True, 200)
    assert len(server.served) == len("lbt-") + 16
    server.api_key, key = "another", server.api_key
    assert await call(server) == 401
    assert all(key not in about(pid, "cmdline") for pid in room.processes)
    assert any("SAID=so" in about(pid, "environ") for pid in room.processes)


async def test_stopping_leaves_nothing(room: Room) -> None:
    server = room.server("--child")
    await server.start()
    token = token_in(room.state)
    assert len(marked(token)) >= 3  # the guard, the server, its child
    await server.stop()
    assert marked(token) == []
    assert not recorded(room.state)
    assert not server.alive
    await server.stop()
    with pytest.raises(ServerLost, match="was stopped"):
        await server.up()
    assert await server.lost(1)


async def test_several_may_stop_it_at_once(room: Room) -> None:
    server = room.server()
    await server.start()
    await asyncio.gather(*(server.stop() for _ in range(3)))
    assert not recorded(room.state)


async def test_server_that_was_stopped_before_is_not_started(room: Room) -> None:
    server = room.server()
    await server.stop()
    with pytest.raises(ServerLost, match="was stopped"):
        await server.start()


async def test_stop_ends_a_start(room: Room) -> None:
    server = room.server("--start-seconds", "60")
    starting = asyncio.create_task(server.start())
    await happens(lambda: recorded(room.state) and len(room.processes) >= 2)
    token = token_in(room.state)
    await server.stop()
    with pytest.raises(ServerLost, match="was stopped"):
        await starting
    assert marked(token) == []


async def test_cancelled_start_leaves_nothing(room: Room) -> None:
    server = room.server("--start-seconds", "60")
    starting = asyncio.create_task(server.start())
    await happens(lambda: recorded(room.state) and len(room.processes) >= 2)
    token = token_in(room.state)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert marked(token) == []


async def test_server_that_ignores_sigterm_is_killed(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "GRACE", 0.3)
    server = room.server("--ignore-term", "--child")
    await server.start()
    token = token_in(room.state)
    await server.stop()
    assert marked(token) == []


@pytest.mark.parametrize(("devices", "together"), [(("gpu-a", "gpu-a"), 1), (("gpu-a", "gpu-b"), 2)])
async def test_servers_on_one_device_start_one_after_the_other(
    room: Room, devices: tuple[str, str], together: int
) -> None:
    servers = [
        room.server("--start-seconds", "0.7", devices=(device,), name=f"tiny-{number}")
        for number, device in enumerate(devices)
    ]
    starting = [asyncio.create_task(server.start()) for server in servers]
    most = 0
    while not all(task.done() for task in starting):
        most = max(most, sum(not record.ready for record in records.live()))
        await asyncio.sleep(0.02)
    assert most == together
    assert [await server.up() for server in servers] == [1, 1]


async def test_who_waits_for_a_device_is_told_for_whom(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SAY", 0.1)
    slow, waiting = room.server("--start-seconds", "0.7", name="slow"), room.server(name="waiting")
    first = asyncio.create_task(slow.start())
    await happens(lambda: recorded(room.state))
    await asyncio.gather(first, waiting.start())
    assert [line for line in room.told if line.startswith("waiting waits for cpu: slow (of process ")]


async def test_another_program_on_the_port_is_never_taken_for_ours(room: Room) -> None:
    server = room.server()
    port = server._reserve()
    handlers: list[Any] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        if await reader.read(4096):
            body = b'{"data": [{"id": "llama"}]}'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    stranger = await asyncio.start_server(answer, "127.0.0.1", port, reuse_address=True)
    async with stranger:
        await server.start()
        assert server.url != f"http://127.0.0.1:{port}/v1"
        assert await call(server) == 200
        assert server.restarts == []
    assert handlers, "nobody asked the other program"
    await asyncio.gather(*handlers)


async def test_programs_on_every_port_are_given_up(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    server = room.server()
    taken: list[socket.socket] = []
    reserve = Server._reserve

    def lose(self: Server) -> int:
        port = reserve(self)
        other = socket.socket()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        taken.append(other)
        return port

    monkeypatch.setattr(Server, "_reserve", lose)
    with pytest.raises(ModelUnavailable, match="other programs took 5 ports"):
        await server.start()
    assert len(taken) == 5
    for other in taken:
        other.close()


async def test_reserved_port_is_given_to_nobody_but_who_asks_for_it_as_vllm_does(room: Room) -> None:
    port = room.server()._reserve()
    only = (port | port << 16).to_bytes(4, sys.byteorder)
    for reuse in (0, 1):
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
            try:
                other.setsockopt(socket.IPPROTO_IP, 51, only)  # IP_LOCAL_PORT_RANGE: the kernel has this one to give
            except OSError:
                pytest.skip("needs Linux 6.3")
            with pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", 0))
    with socket.socket() as vllm:
        vllm.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        vllm.bind(("127.0.0.1", port))
        vllm.listen()
        with socket.create_connection(("127.0.0.1", port)):
            pass
    room.servers[0]._free_port()


async def test_server_that_answers_under_another_name_is_refused(room: Room) -> None:
    server = room.server("--wrong-name", "llama")
    with pytest.raises(ModelUnavailable, match="the models there are 'llama', and ours is 'lbt-"):
        await server.start()


async def test_what_the_log_tells_of_a_failed_start_is_shown(room: Room) -> None:
    why = "ValueError: No available memory for the cache blocks."
    server = room.server("--fail-start", why)
    with pytest.raises(ModelUnavailable, match="tiny ended with status 1 before it answered") as caught:
        await server.start()
    assert why in caught.value.remedy
    assert "raise `memory`" in caught.value.remedy
    assert str(server.log) in caught.value.remedy
    assert why in server.log.read_text()
    with pytest.raises(ServerLost):
        await server.up()


async def test_command_that_is_none_is_told(room: Room) -> None:
    server = room.server()
    server._launch = Launch("tiny", ("/no/such/vllm",), {}, (), {}, {})
    with pytest.raises(ModelUnavailable, match="/no/such/vllm: No such file or directory"):
        await server.start()


async def test_slow_start_is_waited_for_and_not_for_ever(room: Room) -> None:
    await room.server("--start-seconds", "1").start()
    token = token_in(room.state)
    with pytest.raises(ModelUnavailable, match=r"did not answer within 0\.5 s"):
        await room.server("--start-seconds", "60", start_timeout=0.5).start()
    assert token_in(room.state) == token


async def test_server_that_dies_is_started_anew_and_the_call_costs_nothing(room: Room) -> None:
    server = room.server("--child")
    await server.start()
    before, (served, key) = set(room.processes), (server.served, server.api_key)
    await fault(server, fault="crash", after=2)
    assert await call(server) == 200
    assert await call(server) == 0
    assert await server.lost(1)
    assert await server.up() == 2
    assert await server.lost(1), "what was sent to the one that died is sent again"
    assert await call(server) == 200
    assert not await server.lost(2)
    assert (server.served, server.api_key) == (served, key)
    assert server.restarts == ["ended with status 1"]
    assert any("tiny ended with status 1; it is started anew (1 of 3)" in line for line in room.told)
    assert "tiny ended with status 1" in server.log.read_text()
    after = set(room.processes)
    assert len(after) >= 3
    assert not before & after, "a child outlived the server that died"


async def test_nobody_is_told_that_a_dead_server_is_up(room: Room) -> None:
    server = room.server()
    await server.start()
    for generation in (1, 2):
        os.kill(records.live()[0].pgid, signal.SIGKILL)
        assert await call(server) == 0
        assert await server.lost(generation)
        assert await server.up() == generation + 1
    assert server.restarts == ["was killed (SIGKILL)"] * 2


async def test_server_whose_engine_is_dead_is_started_anew(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lbt_sim.models.vllm.watch.REFUSED", 0.3)
    server = room.server()
    await server.start()
    await fault(server, fault="engine_dead")
    assert await call(server) == 500
    assert all(await asyncio.gather(*(server.lost(1) for _ in range(20))))
    assert await server.up() == 2
    assert server.restarts == ["says that it is not well (/health answers 503)"]


async def test_server_that_hangs_is_started_anew(room: Room) -> None:
    server = room.server(patience=0.5)
    await server.start()
    await fault(server, fault="hang")
    room.in_flight = 1
    await happens(lambda: server.generation == 2)
    room.in_flight = 0
    assert await server.up() == 2
    assert await call(server) == 200
    assert server.restarts == ["made no progress for 0.5 s while calls waited"]


async def test_stopped_process_hangs_and_is_killed(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "GRACE", 0.3)
    server = room.server(patience=0.5)
    await server.start()
    os.kill(records.live()[0].pgid, signal.SIGSTOP)
    room.in_flight = 1
    await happens(lambda: server.generation == 2)
    room.in_flight = 0
    assert await call(server) == 200


async def test_server_that_gets_on_or_has_nothing_to_do_does_not_hang(room: Room) -> None:
    server = room.server(patience=0.4)
    await server.start()
    await asyncio.sleep(0.8)  # nothing to do
    room.in_flight = 1
    for _ in range(5):
        room.finished += 1  # calls finish
        await asyncio.sleep(0.15)
    for _ in range(5):
        assert await call(server) == 200  # counters grow
        await asyncio.sleep(0.15)
    room.in_flight = 0
    assert (server.generation, server.restarts) == (1, [])


async def test_restarts_are_capped(room: Room) -> None:
    server = room.server(restarts=1)
    await server.start()
    for _ in range(2):
        generation = await server.up()
        token = token_in(room.state)
        await fault(server, fault="crash", after=1)
        await call(server)
        assert await server.lost(generation)
    for _ in range(2):
        with pytest.raises(ServerLost, match="tiny ended with status 1, after one restart") as caught:
            await server.up()
    assert str(server.log) in caught.value.remedy
    assert marked(token) == []


async def test_restarts_are_forgiven_when_it_has_answered_for_long(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "FORGIVEN", 0.0)
    server = room.server(restarts=1)
    await server.start()
    for generation in (1, 2):
        await fault(server, fault="crash", after=1)
        await call(server)
        assert await server.lost(generation)
        assert await server.up() == generation + 1


async def test_server_that_cannot_be_started_anew_is_lost(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "PAUSE", 0.0)
    server = room.server(restarts=2)
    await server.start()
    server._launch = Launch("tiny", (*server._launch.argv, "--fail-start", "OSError: gone"), {}, (), {}, {})
    await fault(server, fault="crash", after=1)
    await call(server)
    assert await server.lost(1)
    with pytest.raises(ServerLost, match="tiny ended with status 1 before it answered, after 2 restarts") as caught:
        await server.up()
    assert "OSError: gone" in caught.value.remedy


async def test_stop_ends_a_restart(room: Room) -> None:
    server = room.server()
    await server.start()
    server._launch = Launch("tiny", (*server._launch.argv, "--start-seconds", "60"), {}, (), {}, {})
    token = token_in(room.state)
    await fault(server, fault="crash", after=1)
    await call(server)
    assert await server.lost(1)
    waiting = asyncio.create_task(server.up())
    await happens(lambda: len(marked(token)) >= 2)
    await server.stop()
    with pytest.raises(ServerLost, match="was stopped"):
        await waiting
    assert marked(token) == []


async def test_killed_guard_takes_nothing_along_that_lives_on(room: Room) -> None:
    server = room.server("--child")
    await server.start()
    before = set(room.processes)
    os.kill(records.live()[0].guard, signal.SIGKILL)
    await happens(lambda: server.generation == 2)
    assert server.restarts == ["lost its guard"]
    assert not before & set(room.processes)


async def test_kept_server_is_found_while_it_answers(room: Room) -> None:
    server = room.server(kept=True)
    await server.start()
    (found,) = records.find_kept("key")
    assert (found.url, found.served, found.api_key) == (server.url, server.served, server.api_key)
    assert records.find_kept("another") == []
    server._launch = Launch("tiny", (*server._launch.argv, "--start-seconds", "1"), {}, (), {}, {})
    await fault(server, fault="crash", after=1)
    await call(server)
    await happens(lambda: not records.find_kept("key"))
    await server.up()
    assert [record.token for record in records.find_kept("key")] == [found.token]


OWNER = """
import asyncio, pathlib, sys
from lbt_sim.models.vllm import server as server_module
from lbt_sim.models.vllm.launch import Launch
from lbt_sim.models.vllm.server import Rules, Server

async def main():
    server_module.GRACE = 1.0
    launch = Launch("owned", tuple(sys.argv[2:]), {}, ("cpu",), {}, {})
    logs = pathlib.Path(sys.argv[1])
    server = Server(launch, logs, Rules(60, 30, 3), tell=print, busy=lambda: (0, 0), server_key="k")
    await server.start()
    print("up", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


class Owner:
    """A process of its own that owns a server."""

    def __init__(self, state: Path, logs: Path, *flags: str) -> None:
        command = [sys.executable, str(STUB), "--model", "m", *flags]
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(logs), *command], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "up\n"
        (self.record,) = records.live()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def test_nothing_outlives_an_owner_that_is_killed(state: Path, tmp_path: Path) -> None:
    owner = Owner(state, tmp_path, "--child", "--ignore-term")
    assert len(marked(owner.record.token)) >= 3
    owner.kill()
    until(lambda: not marked(owner.record.token), seconds=15)
    assert [record.token for record in records.sweep(pytest.fail)] == [owner.record.token]
    assert not recorded(state)


def test_next_start_sweeps_what_is_left_when_the_guard_is_killed_too_and_only_ours(state: Path, tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    environments = [{}, {records.MARK: "0123456789abcdef"}, {"NOT_" + records.MARK: "x"}]
    decoys = [subprocess.Popen(sleep, env={**os.environ, **more}, start_new_session=True) for more in environments]
    try:
        owner = Owner(state, tmp_path, "--child")
        os.kill(owner.record.guard, signal.SIGSTOP)  # so that both die as one
        owner.kill()
        os.kill(owner.record.guard, signal.SIGKILL)
        until(lambda: owner.record.pgid not in marked(owner.record.token))
        assert marked(owner.record.token), "the server's child lives on"
        told: list[str] = []
        records.sweep(told.append)
        assert marked(owner.record.token) == []
        assert told == ["ended the server owned, which a run that was killed left behind (1 processes)"]
        assert [decoy.poll() for decoy in decoys] == [None] * 3
        assert records.sweep(told.append) == []
    finally:
        for decoy in decoys:
            decoy.kill()
            decoy.wait()


def test_loop_that_ends_without_stopping_leaves_nothing(state: Path, tmp_path: Path) -> None:
    async def forget() -> None:
        room = Room(state, tmp_path)
        await room.server("--child").start()
        tokens.append(token_in(state))

    tokens: list[str] = []
    asyncio.run(forget())
    until(lambda: not marked(tokens[0]))
