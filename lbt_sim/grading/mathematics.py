"""Grades mathematics by math-verify (extra `math`) in a process that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lbt_sim.errors import InputError, RunError
from lbt_sim.grading.base import Grade
from lbt_sim.grading.text import KEPT, clipped
from lbt_sim.models.base import Reply
from lbt_sim.tasks.base import Problem
from lbt_sim.tasks.split import normalise

__all__ = ["MathGrader"]

WORKER = Path(__file__).with_name("worker.py")
MEMORY = 2 * 1024**3
STARTING = 120.0
"""Seconds in which the worker has to be up: importing the libraries on a busy machine."""


class MathGrader:
    """Right is what is mathematically the same: 1/2 and 0.5, x+1 and 1+x.

    Answers are read and compared in a worker process, started when first needed. An answer on which it computes
    longer than `seconds`, needs too much memory, or crashes is `invalid` (read from 'timeout', 'memory', 'crash'):
    `9**9**9**9` costs `seconds`, not the run. They are seconds of the processor and not of the clock, so that an
    answer has the same grade on a busy machine as on an idle one, and when the run is resumed.

    Args:
        seconds: Processor time for one answer.
        patience: Seconds by the clock after which a worker that neither answers nor computes is given up. The answer
            is then put once more, to a new one, before it counts as 'timeout': the machine may have been at a stop.

    Raises:
        InputError: math-verify is not installed.
    """

    choices: tuple[str, ...] = ()

    def __init__(self, *, seconds: float = 5.0, patience: float = 120.0) -> None:
        if find_spec("math_verify") is None:
            what = "The grader `math` needs the package `math-verify`, which is not installed."
            remedy = "Install the extra: `uv sync --extra math`, or `pip install 'lbt-sim[math]'`."
            raise InputError(what, remedy=remedy)
        self._seconds = seconds
        self._patience = patience
        self._worker: asyncio.subprocess.Process | None = None
        self._alone = asyncio.Lock()

    async def grade(self, answers: Sequence[tuple[Problem, Reply]]) -> list[Grade]:
        """Grade each answer; the order is kept."""
        return [await self._grade(problem, reply) for problem, reply in answers]

    async def close(self) -> None:
        """End the worker; nothing is left running."""
        async with self._alone:
            await self._end()

    async def _grade(self, problem: Problem, reply: Reply) -> Grade:
        if reply.finish == "failed":
            return Grade("failed")
        unread = Grade("truncated" if reply.finish == "length" else "invalid")
        text = clipped(reply.text).strip()
        if not text:
            return unread
        # A cut-off text is read only where it has boxed its answer: what stands last in it is an intermediate result.
        if reply.finish == "length" and "\\boxed{" not in text:
            return unread
        if normalise(text) == normalise(problem.answer):
            return Grade("correct", text[:KEPT], "text")
        request = {"gold": problem.answer, "answer": text}
        found = await self._ask(request)
        if found["outcome"] == "stalled":
            found = await self._ask(request)
        match found["outcome"]:
            case "same":
                return Grade("correct", found["read"], "text")
            case "different":
                return Grade("wrong", found["read"], "text")
            case "timeout" | "memory" | "crash" as why:
                return Grade("invalid", None, why)
            case "stalled":
                return Grade("invalid", None, "timeout")
            case _:
                return unread

    async def _ask(self, request: dict[str, str]) -> dict[str, Any]:
        async with self._alone:
            worker = self._worker or await self._start()
            try:
                reply = await self._exchange(worker, request)
            except BaseException:
                # Cancelled in mid-exchange: the worker's next line would answer the wrong question.
                await self._end()
                raise
            if reply is not None:
                return reply
            crashed = worker.stdout is not None and worker.stdout.at_eof()
            await self._end()
            return {"outcome": "crash" if crashed else "stalled"}

    async def _exchange(self, worker: asyncio.subprocess.Process, request: dict[str, str]) -> dict[str, Any] | None:
        """The worker's reply, None where it has ended or does not answer."""
        line = b""
        # The worker keeps the limits itself; a second more, and we end it.
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(self._patience + 1.0):
                assert worker.stdin is not None  # noqa: S101  (for the type checker: both are pipes)
                assert worker.stdout is not None  # noqa: S101
                worker.stdin.write(json.dumps(request).encode() + b"\n")
                await worker.stdin.drain()
                line = await worker.stdout.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    async def _start(self) -> asyncio.subprocess.Process:
        # -P: no module of the working directory stands in for a library's. A session of its own: an interrupt at
        # the terminal is ours to handle, and answers in flight are still graded while the run drains.
        self._worker = worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            str(WORKER),
            str(self._seconds),
            str(self._patience),
            str(MEMORY),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        line = b""
        try:
            assert worker.stdout is not None  # noqa: S101
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STARTING):
                    line = await worker.stdout.readline()
        except BaseException:
            await self._end()
            raise
        if not line:
            await self._end()
            what = "The process that grades mathematics does not start."
            remedy = f"Try it by hand: {sys.executable} -c 'import math_verify'; then `lbt-sim resume`."
            raise RunError(what, remedy=remedy)
        return worker

    async def _end(self) -> None:
        """End the worker and wait until it has ended."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        if worker.stdin is not None:
            worker.stdin.close()
        # An idle worker ends when its input does. Else kill its session: it, and the process that computes for it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await worker.wait()
                return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        await worker.wait()
