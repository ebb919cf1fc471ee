"""A program of its own between us and a server: it starts the server, and ends all of it when either of the two ends.

Run by its path with any Python, so it imports nothing of ours: `python -I -S guard.py PARENT LOG GRACE COMMAND…`. A
vLLM server is several processes, which live on as orphans when their first one is killed; and we may be killed
ourselves, in a way that leaves us no time to clean up. So the guard is what orphans below it fall back to
(`PR_SET_CHILD_SUBREAPER`): none can leave it, and once it has no children any more, nothing is left.

It ends the server when its standard input closes, when its parent is gone (another child of the parent may hold the
other end of that pipe), on SIGTERM or SIGINT, and when the server's first process ends: SIGTERM to its group, SIGKILL
to everything after `GRACE` seconds. If the guard itself is killed, the kernel kills the server's first process
(`PR_SET_PDEATHSIG`); the rest is swept by the next start (`records.py`).

On its standard output it says what happens, one JSON object a line: `{"pid": …, "pgid": …}` or `{"failed": "why"}`,
`{"exit": …, "signal": …}` when the first process has ended, `{"gone": true}` when nothing is left.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["main"]

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LOOK = 0.5
"""Seconds between two looks for the parent."""
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def prctl(option: int, value: int) -> None:
    """The system call; where there is none, the guard does with the process group alone."""
    try:
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
    except (AttributeError, OSError):
        return


def tell(**values: object) -> None:
    """A line to the parent, which may be gone."""
    try:
        os.write(1, json.dumps(values).encode() + b"\n")
    except OSError:
        return


class Guard:
    """One server, from its start to its end."""

    def __init__(self, parent: int, grace: float) -> None:
        self.parent = parent
        self.grace = grace
        self.first = 0
        self.ended = False  # its first process
        self.stopping = False
        self.wake, self._woken = os.pipe()
        for end in (self.wake, self._woken):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._woken)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in STOPPING:
            signal.signal(number, self._stop)

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def start(self, command: list[str]) -> bool:
        """Starts the server in a session of its own; says so, or why not."""
        guard = os.getpid()

        def before() -> None:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guard:
                os._exit(1)

        try:
            process = subprocess.Popen(  # noqa: S603 (the command is the user's)
                command,
                stdin=subprocess.DEVNULL,
                stdout=2,
                stderr=2,
                start_new_session=True,
                preexec_fn=before,
            )
        except (OSError, ValueError) as error:
            tell(failed=f"{command[0]}: {getattr(error, 'strerror', None) or error}")
            return False
        process.returncode = 0  # It is waited for here, with everything below it, not by `subprocess`.
        self.first = process.pid
        tell(pid=self.first, pgid=self.first)
        return True

    def watch(self) -> None:
        """Returns when the server is to be ended, or has."""
        waiting = select.poll()
        waiting.register(self.wake, select.POLLIN)
        waiting.register(0, select.POLLIN)
        while not (self.stopping or self.ended or os.getppid() != self.parent):
            for end, _ in waiting.poll(LOOK * 1000):
                if not os.read(end, 4096) and end == 0:
                    return
            self.reap()

    def end(self) -> None:
        """Ends all of it; returns when nothing is left."""
        self.signal_all(signal.SIGTERM)
        until = time.monotonic() + self.grace
        pause = 0.01
        while self.reap():
            if time.monotonic() >= until:
                self.signal_all(signal.SIGKILL)
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)

    def signal_all(self, number: int) -> None:
        """To the server's process group at once, then to each below us, who may have left it."""
        below = descendants()
        if self.first in below.values() or not below:  # Its number may be another's once it has no members.
            send(os.killpg, self.first, number)
        for pid in below:
            send(os.kill, pid, number)

    def reap(self) -> bool:
        """Buries the dead; whether anybody is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.first:
                self.ended = True
                code = os.waitstatus_to_exitcode(status)
                tell(exit=code if code >= 0 else None, signal=-code if code < 0 else None)


def send(how: Callable[[int, int], None], whom: int, number: int) -> None:
    """A signal to somebody who may be gone."""
    try:
        how(whom, number)
    except OSError:
        return


def descendants() -> dict[int, int]:
    """Everything below this process and its group, as `/proc` has it; nothing where there is no `/proc`."""
    children: dict[int, list[tuple[int, int]]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            above, group = map(int, stat.read_bytes().rpartition(b")")[2].split()[1:3])
        except (OSError, ValueError):
            continue
        children.setdefault(above, []).append((int(stat.parent.name), group))
    found: dict[int, int] = {}
    level = [os.getpid()]
    while level:
        below = [child for pid in level for child in children.get(pid, ()) if child[0] not in found]
        found.update(below)
        level = [pid for pid, _ in below]
    return found


def main(arguments: list[str]) -> int:
    """Guards one server."""
    parent, log, grace, *command = arguments
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(file, 2)
    os.close(file)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    guard = Guard(int(parent), float(grace))
    if not guard.start(command):
        return 1
    guard.watch()
    guard.end()
    tell(gone=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
