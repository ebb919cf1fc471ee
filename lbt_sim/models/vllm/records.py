"""Which servers of ours run on this machine: a small file for each, so that the next start ends what a killed run left.

A server belongs to the process that started it. When that is dead, whatever is left of the server is ended, and only
that: numbers of processes are used again, so what counts is a mark in a process's environment, `LBT_SIM_SERVER`, or,
for a process that wrote over its environment, that it is of the server's session and writes into its log. A process
that cannot be looked into is not ours.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from socket import gethostname

import platformdirs
from pydantic import TypeAdapter

from lbt_sim.errors import ModelUnavailable

__all__ = ["GRACE", "MARK", "Record", "end", "find_kept", "here", "live", "remove", "remove_logs", "save", "saved",
    "sockets_folder", "started", "state_folder", "sweep", "sweep_logs"]  # fmt: skip

GRACE = 5.0
"""Seconds that a server has to end by itself."""
MARK = "LBT_SIM_SERVER"
"""The variable that holds a server's token in the environment of all its processes."""
LOGS_DAYS = 7.0
"""Days that the logs of a keeper that did not end in order are kept."""
_FORCE = 10.0
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Record:
    """A server of ours.

    Attributes:
        token: 16 hexadecimal digits, the value of its processes' mark.
        name: What it is called in messages.
        owner: The process that started it.
        owner_start: When that process started, in the clock ticks of `/proc`: numbers are used again.
        place: The machine, its boot and the namespace that the numbers of processes are of.
        log: Its log file.
        port: Where it listens, on 127.0.0.1; 0 while it is planned only.
        url: Its address, with `/v1`.
        served: What it calls its model.
        api_key: Its key.
        server_key: Equal for servers that answer the same entries of scenarios (`VllmSpec.server_key`).
        devices: What it computes on.
        adapters: Served name -> folder of each LoRA adapter.
        kept: Whether runs of other processes may use it.
        started: When it was started, as ISO 8601 in UTC.
        detail: What says which weights, versions and flags answer (`Launch.detail`).
        ready: Whether it answers.
        guard: The process that guards it, 0 before it has one.
        guard_start: When that process started.
        pgid: The server's process group and session.
        needs: Device -> MiB of its memory that it takes, where known; promised to it until it is ready.
        free_then: Device -> MiB that were free there for it when it was planned, where known (`reserve`).
    """

    token: str
    name: str
    owner: int
    owner_start: int
    place: str
    log: str
    port: int
    url: str
    served: str
    api_key: str = field(repr=False)
    server_key: str
    devices: tuple[str, ...]
    adapters: Mapping[str, str]
    kept: bool
    started: str
    detail: Mapping[str, object] = field(default_factory=dict)
    ready: bool = False
    guard: int = 0
    guard_start: int = 0
    pgid: int = 0
    needs: Mapping[str, int] = field(default_factory=dict)
    free_then: Mapping[str, int] = field(default_factory=dict)


_RECORD = TypeAdapter(Record)


def state_folder() -> Path:
    """The folder of the records: `$LBT_SIM_STATE`, or one in the user's folder for state; nobody else may write there.

    What is made here is for the user alone. A folder that the user made and named stays as it is: the files in it are
    for the user alone all the same.

    Raises:
        ModelUnavailable: It cannot be had, is another user's, or others may write to it.
    """
    chosen = os.environ.get("LBT_SIM_STATE")
    folder = Path(chosen).absolute() if chosen else Path(platformdirs.user_state_dir("lbt-sim")) / "servers"
    remedy = "Set the variable LBT_SIM_STATE to a folder that you may write to."
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.stat()
        if about.st_uid != os.geteuid():
            raise ModelUnavailable(f"{folder}, where servers are recorded, is another user's", remedy=remedy)
        if not chosen and stat.S_IMODE(about.st_mode) & 0o077:
            folder.chmod(0o700)
        elif stat.S_IMODE(about.st_mode) & 0o022:
            raise ModelUnavailable(
                f"{folder}, where servers are recorded, can be written to by others",
                remedy=f"Run `chmod go-w {shlex.quote(str(folder))}`, or set LBT_SIM_STATE to a folder that is not "
                "there yet: it is made for you alone.",
            )
    except OSError as error:
        what = f"Servers cannot be recorded in {folder}: {error.strerror or error}"
        raise ModelUnavailable(what, remedy=remedy) from None
    return folder


def here() -> str:
    """This machine, since it was started, as this process sees its processes."""
    boot, space = "", ""
    with suppress(OSError):
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    with suppress(OSError):
        space = str((_PROC / "self/ns/pid").readlink())
    return f"{gethostname()} {boot} {space}"


def started(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did; None when it is dead."""
    about = _stat(pid)
    return about[1] if about else None


def save(record: Record) -> None:
    """Writes a record, in place of an older one of the same server: what was free when it was planned stays said."""
    path = state_folder() / f"{record.token}.json"
    if not record.free_then:
        record = next((replace(record, free_then=old.free_then) for old in saved([record.token])), record)
    new = path.with_name(f".{record.token}.{os.getpid()}.new")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(_RECORD.dump_json(record, indent=1))
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise ModelUnavailable(f"{path} cannot be written: {error.strerror or error}") from None


def sockets_folder(token: str) -> Path:
    """Where a server's processes keep the sockets by which they talk to each other: a killed one leaves them there."""
    return Path(tempfile.gettempdir()) / f"lbt-sim-{token}"  # short: a socket's path may have some hundred bytes


def remove(record: Record) -> None:
    """Forgets a server, and removes what it left behind."""
    shutil.rmtree(sockets_folder(record.token), ignore_errors=True)
    with suppress(OSError):
        (state_folder() / f"{record.token}.json").unlink(missing_ok=True)


def live() -> list[Record]:
    """The servers whose owners live, of all runs on this machine, the oldest first."""
    place = here()
    found = [record for record in _records() if record.place == place and _owned(record)]
    return sorted(found, key=lambda record: (record.started, record.token))


def saved(tokens: Iterable[str]) -> list[Record]:
    """The records of these tokens, as they are now."""
    wanted = set(tokens)
    return [record for record in _records() if record.token in wanted] if wanted else []


def find_kept(server_key: str) -> list[Record]:
    """The servers that answer and that runs of other processes may use, for entries with that key."""
    return [record for record in live() if record.kept and record.ready and record.server_key == server_key]


def sweep(tell: Callable[[str], None]) -> list[Record]:
    """Ends what is left of servers whose owners are dead, and forgets them.

    Servers of other machines that share the folder are left alone, those of this one before it was last started are
    forgotten. It may be done by several processes at once. It takes `GRACE` seconds and more where something is left.

    Args:
        tell: Takes a line about each server of which something was left.

    Returns:
        The servers that are forgotten now.
    """
    place = here()
    swept = []
    for record in _records():
        if record.place == place:
            if _owned(record) or not _clear(record, tell):
                continue
        elif not _before_boot(record.place, place):
            continue
        remove(record)
        swept.append(record)
    return swept


def sweep_logs(folder: Path) -> None:
    """Removes the logs of keepers that are long dead: the folders in `folder`, called by their processes' numbers.

    Not those that were written to within `LOGS_DAYS` days.
    """
    oldest = time.time() - LOGS_DAYS * 86_400
    for one in folder.glob("[0-9]*"):
        with suppress(OSError, ValueError):
            written = max(path.stat().st_mtime for path in (one, *one.iterdir()))
            if written < oldest and started(int(one.name)) is None:
                remove_logs(one)


def remove_logs(folder: Path) -> None:
    """Removes a folder of logs, unless a server that is recorded writes there."""
    if all(Path(record.log).parent != folder for record in _records()):
        shutil.rmtree(folder, ignore_errors=True)


def end(record: Record, grace: float = GRACE) -> tuple[int, int]:
    """Ends all processes of a server: SIGTERM, after `grace` seconds SIGKILL, until there is none.

    Returns:
        How many processes it had when this began, and how many cannot be ended.
    """
    left = list(_processes(record))
    had = len(left)
    begun = time.monotonic()
    number = signal.SIGTERM
    signalled: set[int] = set()
    while left:
        spent = time.monotonic() - begun
        if spent >= grace:
            number = signal.SIGKILL
        if spent >= grace + _FORCE:
            break
        for pid in left:
            if number == signal.SIGKILL or pid not in signalled:
                signalled.add(pid)
                _signal(record, pid, number)
        time.sleep(0.05)
        left = list(_processes(record))
    return had, len(left)


def _clear(record: Record, tell: Callable[[str], None]) -> bool:
    had, left = end(record)
    if left:
        tell(f"{left} processes of the server {record.name}, which a run left behind, cannot be ended")
    elif had:
        tell(f"ended the server {record.name}, which a run that was killed left behind ({had} processes)")
    return not left


def _records() -> Iterator[Record]:
    for path in state_folder().glob("*.json"):
        # It may be gone by now, or not be ours: another version's, or no record at all.
        with suppress(OSError, ValueError):
            record = _RECORD.validate_json(path.read_bytes())
            if record.token == path.stem and re.fullmatch(r"[0-9a-f]{16}", record.token):
                yield record


def _owned(record: Record) -> bool:
    return started(record.owner) == record.owner_start


def _before_boot(then: str, now: str) -> bool:
    """Whether `then` is the same machine before it was last started."""
    was, is_ = then.split(" "), now.split(" ")
    return len(was) == len(is_) and was[0] == is_[0] and was[1] != is_[1]


def _processes(record: Record) -> Iterator[int]:
    """The processes of a server that live."""
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _belongs(int(entry.name), record):
            yield int(entry.name)


def _belongs(pid: int, record: Record) -> bool:
    about = _stat(pid)
    if about is None:
        return False
    try:
        marks = [one for one in (_PROC / str(pid) / "environ").read_bytes().split(b"\0") if one.startswith(_PREFIX)]
    except OSError:
        return False
    if marks:
        return marks == [_PREFIX + record.token.encode()]
    return record.pgid == about[0] and any(_writes(pid, end, record.log) for end in (1, 2))


_PREFIX = MARK.encode() + b"="


def _writes(pid: int, end: int, log: str) -> bool:
    """Whether a process's standard output or error is that file."""
    with suppress(OSError):
        return (_PROC / str(pid) / "fd" / str(end)).samefile(log)
    return False


def _stat(pid: int) -> tuple[int, int] | None:
    """A process's session and start; None when it is dead, waited for or not."""
    try:
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else (int(fields[3]), int(fields[19]))
    except (OSError, ValueError, IndexError):
        return None


def _signal(record: Record, pid: int, number: int) -> None:
    """Signals a process, having looked again whether it is still the one."""
    with suppress(OSError):
        if not hasattr(os, "pidfd_open"):
            os.kill(pid, number)
            return
        handle = os.pidfd_open(pid)
        try:
            if _belongs(pid, record):
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)
