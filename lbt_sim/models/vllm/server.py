"""One vLLM server of ours, from its start to its end: started, watched, started anew when it dies or hangs, stopped.

Ready means that a call came back; hung means that calls wait and nothing moves, whatever `/health` says.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from lbt_sim.errors import LbtError, ModelUnavailable, ServerLost
from lbt_sim.models.replica import CONVICTED, SUSPECT
from lbt_sim.models.vllm import records
from lbt_sim.models.vllm.launch import Launch
from lbt_sim.models.vllm.logfile import LogFile
from lbt_sim.models.vllm.lone import Lone
from lbt_sim.models.vllm.probe import Probe, Stranger, Unfit
from lbt_sim.models.vllm.process import CannotStart, Process
from lbt_sim.models.vllm.records import Record
from lbt_sim.models.vllm.turns import turn
from lbt_sim.models.vllm.watch import before_death, examine, watch

__all__ = ["FORGIVEN", "GRACE", "PORTS", "Rules", "Server"]

FORGIVEN = 600.0
"""Seconds of having answered after which earlier restarts are forgiven."""
GRACE = records.GRACE
"""Seconds that a server has to end by itself."""
PORTS = 5
"""Ports that are tried when others take them under our hands."""
PAUSE = 1.0
"""Seconds between two attempts to bring a server back."""

_TAKEN = re.compile(r"address already in use(?!\.? retrying)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rules:
    """How long and how often.

    Attributes:
        patience: Seconds without progress, while calls wait, after which it counts as hung.
        start_timeout: Seconds that a start may take, once it is its turn.
        restarts: How often it is started anew.
    """

    patience: float
    start_timeout: float
    restarts: int


class _PortTaken(Exception):
    """Another program was faster."""


class Server:
    """One vLLM server that we start, watch and stop. Lives on one event loop.

    Attributes:
        url: Its address, with `/v1`; it may change when it is started anew.
        served: What it calls its model: random, so that no other program is taken for it.
        api_key: Its key, which stands in its environment only.
        generation: 1 after the first start, one more after each further one.
        restarts: Why it was started anew, each time.
    """

    def __init__(
        self,
        launch: Launch,
        logs: Path,
        rules: Rules,
        *,
        tell: Callable[[str], None],
        busy: Callable[[], tuple[int, int]],
        server_key: str,
        kept: bool = False,
    ) -> None:
        """Plan a server; nothing is started.

        Args:
            launch: How it is started.
            logs: The folder of its log.
            rules: How long and how often.
            tell: Takes a line about what happens to it.
            busy: Gives the calls in flight at it, and those that have finished so far.
            server_key: What finds it, where it is kept.
            kept: Whether runs of other processes may use it.
        """
        self.url = ""
        self.served = f"lbt-{secrets.token_hex(8)}"
        self.api_key = secrets.token_urlsafe(24)
        self.generation = 0
        self.restarts: list[str] = []
        self._log = LogFile(logs.absolute() / (re.sub(r"[^\w.@+-]+", "-", launch.name) + ".log"))
        self._launch = launch
        self._rules = rules
        self._tell = tell
        self._busy = busy
        self._server_key = server_key
        self._kept = kept
        self._record: Record | None = None
        self._port: socket.socket | None = None
        self._process: Process | None = None
        self._probe: Probe | None = None
        self._spent = 0
        self._excused = 0
        self._suspected = False
        self._since = 0.0
        self._failure: LbtError | None = None
        self._settled = asyncio.Event()  # it answers, or never will
        self._ending = False
        self._life: asyncio.Task[None] | None = None
        self._examination: asyncio.Task[bool] | None = None

    @property
    def log(self) -> Path:
        """Its log file."""
        return self._log.path

    @property
    def alive(self) -> bool:
        """Whether it answers, as far as is known."""
        return self._settled.is_set() and self._failure is None

    @property
    def gone(self) -> bool:
        """Whether it is known that it will not answer any more."""
        return self._failure is not None

    @contextmanager
    def suspecting(self) -> Iterator[None]:
        """While a call is alone at it: what it dies of now is that call, and counts by itself among the restarts."""
        self._suspected = True
        try:
            yield
        finally:
            self._suspected = self._suspected and not self.alive  # it died, and its life has not taken note yet

    async def start(self) -> None:
        """Start it, once; returns when it answers.

        Raises:
            ModelUnavailable: It does not come up; says what its log tells.
        """
        if self._ending:
            raise self._stopped()
        self._life = asyncio.create_task(self._live())
        try:
            await self._settled.wait()
        except asyncio.CancelledError:
            await self.stop()
            raise
        if self._failure is not None:
            await self.stop()
            raise self._failure

    async def up(self) -> int:
        """The generation that answers; waits while it is being started anew.

        Raises:
            ServerLost: It cannot be brought back, or was stopped.
        """
        await self._settled.wait()
        if self._failure is not None:
            raise ServerLost(self._failure.what, remedy=self._failure.remedy)
        return self.generation

    async def lost(self, generation: int) -> bool:
        """Whether it is the server's own failure that a call failed, with a broken connection or a 5xx.

        Then the call costs nothing: it is to be sent again after `up`. A server that is found dead is started anew.

        Args:
            generation: What `up` gave before the call was sent.
        """
        if generation != self.generation or not self.alive or self._process is None or self._probe is None:
            return True
        if self._examination is None or self._examination.done():
            self._examination = asyncio.create_task(
                examine(self._process, self._probe, self.url, patience=self._rules.patience)
            )
        examination = self._examination
        await asyncio.wait({examination})
        return examination.cancelled() or examination.result()

    async def stop(self) -> None:
        """Stop it: in order, then by force. Nothing is left of it. Any number of times, at any moment."""
        if self._life is None:
            self._ending = True
            self._fail(self._stopped())
            return
        if not self._ending:  # A second cancellation would break off the ending.
            self._ending = True
            self._life.cancel()
        await asyncio.wait({self._life})
        self._fail(self._stopped())
        if not self._life.cancelled():
            self._life.exception()  # It is told by `up`.

    # Its life: one task, so that there is one place where it starts and one where it ends.

    async def _live(self) -> None:
        try:
            probe = self._probe = Probe(self.served, self.api_key, frozenset(self._launch.adapters))
            process = await self._bring_up(probe)
            while True:
                await watch(process, probe, self.url, busy=self._busy, patience=self._rules.patience)
                process = await self._revive(probe, process.why)
        except LbtError as error:
            self._fail(error)
            if self.generation:  # else whoever started it is told
                self._tell(f"{error.what}: it is given up")
        except asyncio.CancelledError:
            self._fail(self._stopped())
        except BaseException as error:
            self._fail(ServerLost(f"{self._launch.name} cannot be kept running: {type(error).__name__}: {error}"))
            raise
        finally:
            self._ending = True
            await self._close()

    async def _bring_up(self, probe: Probe) -> Process:
        """One start, on another port where ours is taken.

        Raises:
            ModelUnavailable: It does not come up. What was started has ended.
        """
        async with turn(self._launch.devices, self._launch.name, self._tell):
            for _ in range(PORTS):
                try:
                    process = await self._start_on(self._reserve(), probe)
                except (_PortTaken, ModelUnavailable) as error:
                    await self._end()
                    self._free_port()
                    if isinstance(error, ModelUnavailable):
                        raise
                else:
                    self.generation += 1
                    self._since = time.monotonic()
                    self._settled.set()
                    return process
        raise ModelUnavailable(
            f"{self._launch.name} cannot be started: other programs took {PORTS} ports one after the other",
            remedy=f"The whole log: {self.log}",
        )

    async def _start_on(self, port: int, probe: Probe) -> Process:
        self.url = f"http://127.0.0.1:{port}/v1"
        command = [*self._launch.argv, "--host", "127.0.0.1", "--port", str(port), "--served-model-name", self.served]
        self._log.begin(f"start {self.generation + 1} on port {port}: " + " ".join(command))
        token = self._remember(port)
        sockets = records.sockets_folder(token)
        environment = {
            "VLLM_RPC_BASE_PATH": str(sockets),
            **os.environ,
            **self._launch.environment,
            "VLLM_API_KEY": self.api_key,
            records.MARK: token,
            # vLLM's processes name themselves, which would otherwise write over the mark (PyPI: setproctitle).
            "SPT_NOENV": "1",
        }
        try:
            sockets.mkdir(mode=0o700, exist_ok=True)
            process = await Process.begin(command, environment, self.log, grace=GRACE, died=self._unsettle)
        except (CannotStart, OSError) as error:
            raise ModelUnavailable(f"{self._launch.name} cannot be started: {error}") from None
        self._process = process
        self._remember(port)
        failure = ""
        try:
            async with asyncio.timeout(self._rules.start_timeout):
                await before_death(process, probe.ready(self.url))
        except TimeoutError:
            failure = f"did not answer within {self._rules.start_timeout:g} s"
        except (Stranger, Unfit) as error:
            failure = str(error)
        if failure or process.dead.is_set():
            await self._end()  # It may still say why.
            if _TAKEN.search(self._log.tail()) or await _listens(port):
                raise _PortTaken
            what = f"{self._launch.name} {failure or process.why + ' before it answered'}"
            raise ModelUnavailable(what, remedy=self._log.account())
        self._remember(port, ready=True)
        return process

    async def _revive(self, probe: Probe, why: str) -> Process:
        """Starts it anew.

        Raises:
            ServerLost: It has been so often enough.
        """
        name, most = self._launch.name, self._rules.restarts
        if time.monotonic() - self._since >= FORGIVEN:
            self._spent = self._excused = 0
        excused = (self._suspected or self._lone_elsewhere()) and self._excused < CONVICTED * most
        self._suspected = False
        while excused or self._spent < most:
            if excused:
                self._excused += 1
                if (
                    self._excused % CONVICTED == 0
                ):  # that call has failed by now, and the deaths before were its doing too
                    self._spent = max(0, self._spent - SUSPECT)
            else:
                self._spent += 1
            self.restarts.append(why)
            times = "by a call that was sent alone" if excused else f"{self._spent} of {most}"
            self._tell(f"{name} {why}; it is started anew ({times})")
            excused = False
            with suppress(OSError):
                self._log.note(f"{name} {why}")
            await self._end()
            try:
                process = await self._bring_up(probe)
            except ModelUnavailable as error:
                why = error.what.removeprefix(f"{name} ")
                await asyncio.sleep(PAUSE)
            else:
                self._tell(f"{name} answers again")
                return process
        times = {0: "", 1: ", after one restart"}.get(most, f", after {most} restarts")
        await self._end()
        raise ServerLost(f"{name} {why}{times}", remedy=self._log.account())

    def _lone_elsewhere(self) -> bool:
        """Whether another process has a call alone at it, where it is kept for many."""
        return self._kept and self._record is not None and Lone(self._record.token).held

    # What it holds.

    def _reserve(self) -> int:
        """A port that the kernel gives nobody else.

        Bound and not listened on, with SO_REUSEADDR as vLLM binds it, so that vLLM can bind it too.
        """
        if self._port is None:
            self._port = socket.socket()
            self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._port.bind(("127.0.0.1", 0))
        number: int = self._port.getsockname()[1]
        return number

    def _free_port(self) -> None:
        if self._port is not None:
            self._port.close()
            self._port = None

    def _remember(self, port: int, *, ready: bool = False) -> str:
        """Writes down what runs, before it is started, so that nothing is ever unknown. The token of its mark."""
        if self._record is None:
            self._record = Record(
                token=self._launch.token or secrets.token_hex(8),
                name=self._launch.name,
                owner=os.getpid(),
                owner_start=records.started(os.getpid()) or 0,
                place=records.here(),
                log=str(self.log),
                port=port,
                url=self.url,
                served=self.served,
                api_key=self.api_key,
                server_key=self._server_key,
                devices=self._launch.devices,
                adapters=dict(self._launch.adapters),
                kept=self._kept,
                started=datetime.now(UTC).isoformat(timespec="seconds"),
                detail=dict(self._launch.detail),
                needs=dict(self._launch.needs),
            )
        process = self._process
        guard = process.guard if process else 0
        self._record = replace(
            self._record,
            port=port,
            url=self.url,
            ready=ready,
            guard=guard,
            guard_start=(records.started(guard) or 0) if guard else 0,
            pgid=process.pgid if process else 0,
        )
        records.save(self._record)
        return self._record.token

    def _unsettle(self) -> None:
        """From the moment it is dead nobody is told that it is up."""
        if self._failure is None:
            self._settled.clear()

    def _stopped(self) -> ServerLost:
        return ServerLost(f"{self._launch.name} was stopped")

    def _fail(self, error: LbtError) -> None:
        self._failure = self._failure or error
        self._settled.set()

    async def _end(self) -> None:
        """Ends what runs of it."""
        process, self._process = self._process, None
        if process is None or self._record is None:
            return
        if not await process.end():
            _, left = await asyncio.to_thread(records.end, self._record, GRACE)
            if left:
                self._tell(f"{left} processes of {self._launch.name} cannot be ended (process group {process.pgid})")

    async def _close(self) -> None:
        try:
            if self._examination is not None:
                self._examination.cancel()
                await asyncio.wait({self._examination})
            await self._end()
        finally:
            self._free_port()
            if self._record is not None:
                records.remove(self._record)
                Lone(self._record.token).give_back()
            if self._probe is not None:
                await self._probe.close()


async def _listens(port: int) -> bool:
    """Whether anybody does, when ours has ended."""
    try:
        async with asyncio.timeout(1.0):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True
