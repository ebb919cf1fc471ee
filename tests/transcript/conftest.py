"""A finished run, and consoles that write into memory."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from runs_by_hand import whole_run, write_run

from lbt_sim.transcript.theme import make_console


@pytest.fixture
async def run_folder(tmp_path: Path) -> Path:
    """A finished run."""
    return await write_run(tmp_path / "run", whole_run())


class Screen:
    """A console that writes into memory."""

    def __init__(self, *, color: bool, width: int, height: int) -> None:
        self.stream = StringIO()
        self.console: Console = make_console(self.stream, color=color, width=width)
        self.console.height = height

    @property
    def text(self) -> str:
        return self.stream.getvalue()


@pytest.fixture
def screen() -> Callable[..., Screen]:
    def make(*, color: bool = False, width: int = 100, height: int = 30) -> Screen:
        return Screen(color=color, width=width, height=height)

    return make
