"""The log file of a server: its own lines, and ours that say why it was started."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from lbt_sim.errors import ModelUnavailable
from lbt_sim.models.vllm.log import explain, telling_lines

__all__ = ["LogFile"]

TAIL = 1 << 18
"""Bytes of its end that are read."""
_OURS = "[lbt-sim "


class LogFile:
    """A log that is added to, over all starts of a server."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = 0

    def begin(self, text: str) -> None:
        """Note that a start begins; `tail` is what comes from now on.

        Raises:
            ModelUnavailable: The file cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.note(text)
            self._start = self.path.stat().st_size
        except OSError as error:
            raise ModelUnavailable(f"The log {self.path} cannot be written: {error.strerror or error}") from None

    def note(self, text: str) -> None:
        """Add a line of ours."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with os.fdopen(os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as file:
            file.write(f"{_OURS}{now}] {text}\n")

    def tail(self) -> str:
        """What the server has written since its latest start, or the end of that."""
        try:
            with self.path.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(self._start, end - TAIL))
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(line for line in text.split("\n") if not line.startswith(_OURS))

    def account(self) -> str:
        """What it tells of a failure, and what to do."""
        text = self.tail()
        lines = [f"  {line}" for line in telling_lines(text)]
        return "\n  ".join(filter(None, [explain(text), *lines, f"The whole log: {self.path}"]))
