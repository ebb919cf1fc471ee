"""A process of its own in which math-verify reads and compares: it may hang, crash or be killed.

Run by path, not as a module, so that it needs nothing of this package and nothing in the working directory can
stand in for a library. Speaks JSON lines: {"gold": …, "answer": …} in, {"outcome": …, "read": …} out.

Importing the libraries takes seconds, so this process imports them once and forks the one that computes: when that
one dies of an answer, the next is there within milliseconds.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

__all__ = ["main"]

KEPT = 200
"""Characters of an expression that go back."""


_LIMITS: dict[int, str] = {signal.SIGPROF: "timeout", signal.SIGALRM: "stalled"}
"""What the child was ended for, by the signal that ended it."""


def main(seconds: float, patience: float, memory: int) -> None:
    """Answer requests until standard input ends.

    Args:
        seconds: Processor time for one request; then the computing process is ended ('timeout'). Not time by the
            clock, which depends on what else the machine does: the same request is to end the same way again.
        patience: Seconds by the clock for one request, for what waits and computes nothing; then it is ended too
            ('stalled').
        memory: Bytes of address space; beyond it a request fails with 'memory'.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not look like a reply
    logging.disable(logging.CRITICAL)
    _limit_memory(memory)
    import math_verify  # noqa: F401  (before the fork, and before the first request is timed)

    print(json.dumps({"outcome": "ready"}), file=replies, flush=True)
    child: _Child | None = None
    for line in sys.stdin:
        child = child or _fork(seconds, patience, replies)
        reply = child.ask(line)
        if not reply.endswith("\n"):
            reply, child = json.dumps({"outcome": child.end()}) + "\n", None
        print(reply, end="", file=replies, flush=True)


@dataclass(frozen=True, slots=True)
class _Child:
    """The process that computes, and our ends of its pipes."""

    pid: int
    requests: IO[str]
    replies: IO[str]

    def ask(self, line: str) -> str:
        """The reply to a request, '' or a part of one where the child has died of it."""
        try:
            self.requests.write(line)
            self.requests.flush()
        except BrokenPipeError:
            return ""
        return self.replies.readline()

    def end(self) -> str:
        """What the child died of."""
        self.replies.close()
        with suppress(BrokenPipeError):
            self.requests.close()
        _, status = os.waitpid(self.pid, 0)
        killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        return _LIMITS.get(killed_by, "crash")


def _fork(seconds: float, patience: float, replies: IO[str]) -> _Child:
    there, requests = os.pipe()
    answers, back = os.pipe()
    pid = os.fork()
    if pid == 0:
        # What the parent holds open must not stay open in an orphan: its readers would wait for it.
        for fd in (requests, answers, replies.fileno()):
            os.close(fd)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        try:
            _compute(os.fdopen(there), os.fdopen(back, "w"), seconds, patience)
        finally:
            os._exit(0)
    os.close(there)
    os.close(back)
    return _Child(pid, os.fdopen(requests, "w"), os.fdopen(answers))


def _compute(requests: IO[str], replies: IO[str], seconds: float, patience: float) -> None:
    # The timers end the process in the kernel: a handler in Python would not run while C code computes, and an
    # orphan must not go on burning a core.
    timers = ((signal.ITIMER_PROF, signal.SIGPROF, seconds), (signal.ITIMER_REAL, signal.SIGALRM, patience))
    for _, number, _ in timers:
        signal.signal(number, signal.SIG_DFL)
    for line in requests:
        request = json.loads(line)
        for timer, _, limit in timers:
            signal.setitimer(timer, limit)
        try:
            reply = _compare(request["gold"], request["answer"])
        except MemoryError:
            reply = {"outcome": "memory"}
        except Exception as error:  # whatever the libraries raise is this answer's outcome, not the run's end
            reply = {"outcome": "error", "read": type(error).__name__}
        finally:
            for timer, _, _ in timers:
                signal.setitimer(timer, 0)
        print(json.dumps(reply), file=replies, flush=True)


def _limit_memory(memory: int) -> None:
    import resource

    for limit, value in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        try:
            resource.setrlimit(limit, (value, value))
        except (ValueError, OSError):  # not every system has each limit; the time limit remains
            continue


def _compare(gold: str, answer: str) -> dict[str, Any]:
    from math_verify import parse, verify

    # The library's own time limit is an alarm in Python; ours replaces it.
    right = parse(gold if "$" in gold or "\\boxed" in gold else f"${gold}$", parsing_timeout=None)
    found = parse(answer, parsing_timeout=None)
    if not found:
        return {"outcome": "unread"}
    # The last element is the text that was read, the first what it was read as.
    read = next((part for part in reversed(found) if isinstance(part, str)), str(found[0]))
    same = bool(right) and bool(verify(right, found, timeout_seconds=None))
    return {"outcome": "same" if same else "different", "read": read[:KEPT]}


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
