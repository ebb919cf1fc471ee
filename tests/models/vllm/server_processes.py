"""What runs of a server, as the kernel has it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path

STUB = Path(__file__).parents[3] / "benchmarks" / "stub_vllm.py"


def marked(token: str) -> list[int]:
    """The live processes that hold a server's mark, guards and all."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if f"LBT_SIM_SERVER={token}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def about(pid: int, what: str) -> str:
    """A file that the kernel has about a process."""
    return Path(f"/proc/{pid}/{what}").read_text(errors="replace")


def recorded(folder: Path) -> list[Path]:
    """The records there."""
    return list(folder.glob("*.json"))


def token_in(folder: Path) -> str:
    """The token of the only server that is recorded there."""
    (path,) = recorded(folder)
    token: str = json.loads(path.read_text())["token"]
    return token


def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Waits for something that is to happen."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
