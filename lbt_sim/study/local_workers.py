"""Workers as processes of this machine; one that dies is started anew."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from lbt_sim.study.folder import StudyFolder
from lbt_sim.study.worker import Block

__all__ = ["LocalWorkers"]

_FRUITLESS = 3
"""So often in a row a process may end before it told anything; then its place is lost."""


@dataclass
class LocalWorkers:
    """Worker processes on this machine; one that dies is started anew.

    Args:
        workers: How many.
    """

    workers: int = 1
    _processes: dict[int, asyncio.subprocess.Process] = field(default_factory=dict, init=False)
    _tasks: list[asyncio.Future[None]] = field(default_factory=list, init=False)
    _closing: bool = field(default=False, init=False)

    async def start(self, study: StudyFolder, hear: Callable[[int, Mapping[str, Any]], None]) -> None:
        """Starts the processes; each tells `ready` when it is."""
        self._tasks = [asyncio.ensure_future(self._live(number, study, hear)) for number in range(self.workers)]

    def give(self, worker: int, block: Block) -> None:
        """Writes the block to the worker's standard input."""
        self._order(worker, block.as_data())

    def stop(self, *, cancel: bool) -> None:
        """Tells all workers."""
        for worker in self._processes:
            self._order(worker, "cancel" if cancel else "drain")

    async def close(self) -> None:
        """Closes their inputs, and waits until they have ended."""
        self._closing = True
        for process in list(self._processes.values()):
            if process.stdin is not None:
                process.stdin.close()
        for process in list(self._processes.values()):
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _is_closing(self) -> bool:
        return self._closing

    def _order(self, worker: int, order: Any) -> None:
        process = self._processes.get(worker)
        if process is not None and process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(json.dumps(order).encode() + b"\n")

    async def _live(self, number: int, study: StudyFolder, hear: Callable[[int, Mapping[str, Any]], None]) -> None:
        """One worker's place: a process, and another one when that dies."""
        fruitless = 0
        while not self._closing:
            try:
                process = self._processes[number] = await _started(study)
            except OSError as error:
                hear(number, {"event": "lost", "why": error.strerror or str(error)})
                return
            if self._is_closing() and process.stdin is not None:  # meanwhile: `close` has not seen this one
                process.stdin.close()
            told = await _listen(process, lambda event: hear(number, event))
            code = await process.wait()
            if self._is_closing():
                return
            why = f"signal {-code}" if code < 0 else f"exit status {code}"
            fruitless = 0 if told else fruitless + 1
            hear(number, {"event": "lost" if fruitless == _FRUITLESS else "died", "why": why})
            if fruitless == _FRUITLESS:
                return


async def _started(study: StudyFolder) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "lbt_sim.study.worker",
        str(study.path),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 26,
        start_new_session=True,  # the terminal's Ctrl-C is for whoever gives the orders
    )


async def _listen(process: asyncio.subprocess.Process, hear: Callable[[Mapping[str, Any]], None]) -> int:
    """Hears what a process tells until it ends; how much that was."""
    told = 0
    assert process.stdout is not None  # noqa: S101 - it was asked for
    try:
        async for line in process.stdout:
            if line.endswith(b"\n"):  # else it was killed in the middle of it
                told += 1
                hear(json.loads(line))
    except ValueError:  # no JSON, or a line without an end: whoever writes that is not to be trusted with more
        with suppress(ProcessLookupError):
            process.kill()
    return told
