"""Being alone at a server that is kept for the runs of many processes.

A call of which a server may be dying is sent with no other beside it. That others are to wait is said by a file next to
the server's record; who keeps the server sees by it, too, that a death was that call's.
"""

from __future__ import annotations

import os
from pathlib import Path

from lbt_sim.models.vllm import records

__all__ = ["Lone"]


class Lone:
    """The mark of one server. It names the process that made it, and means nothing once that is dead.

    Args:
        token: The server's.
    """

    def __init__(self, token: str) -> None:
        self._path: Path = records.state_folder() / f"{token}.lone"

    @property
    def held(self) -> bool:
        """Whether a process that lives has a call alone there."""
        try:
            # A link is there with all that it says, or not at all.
            pid, _, since = str(self._path.readlink()).partition(" ")
            return records.started(int(pid)) == int(since)
        except (OSError, ValueError):
            return False

    def take(self) -> bool:
        """Makes the mark; False where it is held."""
        if self.held:
            return False
        self._path.unlink(missing_ok=True)
        try:
            self._path.symlink_to(f"{os.getpid()} {records.started(os.getpid()) or 0}")
        except FileExistsError:
            return False
        return True

    def give_back(self) -> None:
        """Removes it."""
        self._path.unlink(missing_ok=True)
