"""The processes of one server, under their guard."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lbt_sim.models.vllm import guard

__all__ = ["CannotStart", "Process"]

PATIENCE = 15.0
"""Seconds beyond the server's own that a guard may take to end it."""


class CannotStart(Exception):
    """The command is none that can be started."""


class Process:
    """A server that runs. Once it is dead it stays so; another one is another `Process`.

    Attributes:
        guard: The guard's number.
        pgid: The server's process group and session.
        dead: Set when the server's first process has ended, or was given up.
        why: Why it is dead, as the end of a sentence that begins with its name.
    """

    def __init__(self, guarding: asyncio.subprocess.Process, grace: float, died: Callable[[], None]) -> None:
        self.guard = guarding.pid
        self.pgid = 0
        self.dead = asyncio.Event()
        self.why = ""
        self._guarding = guarding
        self._grace = grace
        self._died = died
        self._gone = False
        self._failed: str | None = None
        self._begun = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def begin(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        grace: float,
        died: Callable[[], None],
    ) -> Process:
        """Start a server.

        Args:
            command: The server's.
            environment: All of its environment.
            log: The file that its output is added to.
            grace: Seconds that it has to end by itself, when it is to.
            died: Called at once when it is dead.

        Raises:
            CannotStart: There is no such program.
        """
        guarding = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), str(log), str(grace), *command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,  # An interrupt typed at the terminal is for us, who then end it in order.
        )
        process = cls(guarding, grace, died)
        try:
            await process._begun.wait()
            if not process.pgid:
                await process.end()
                raise CannotStart(process._failed or "its guard ended at once")
        except asyncio.CancelledError:
            await process.end()
            raise
        return process

    def condemn(self, why: str) -> None:
        """Take it for dead; `end` is still to come."""
        if not self.dead.is_set():
            self.why = why
            self.dead.set()
            self._died()

    async def end(self) -> bool:
        """End all of it, if it has not ended. Whether it is certain that nothing is left."""
        if self._guarding.stdin is not None:
            self._guarding.stdin.close()
        await asyncio.wait({self._reading}, timeout=self._grace + PATIENCE)
        if not self._reading.done():
            with suppress(ProcessLookupError):
                self._guarding.kill()
            await asyncio.wait({self._reading})
        return self._gone or self._failed is not None

    async def _read(self) -> None:
        """What the guard says, to its end."""
        try:
            while self._guarding.stdout is not None and (line := await self._guarding.stdout.readline()):
                self._take(json.loads(line))
        finally:
            self._begun.set()
            self.condemn("lost its guard")
            await self._guarding.wait()

    def _take(self, said: Mapping[str, object]) -> None:
        match said:
            case {"pid": int(), "pgid": int(pgid)}:
                self.pgid = pgid
                self._begun.set()
            case {"failed": str(why)}:
                self._failed = why
            case {"exit": int(code)}:
                self.condemn(f"ended with status {code}")
            case {"signal": int(number)}:
                self.condemn(f"was killed ({_name(number)})")
            case {"gone": True}:
                self._gone = True


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
