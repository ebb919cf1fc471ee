"""A finished run, and consoles that write into memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from runs_by_hand import Screen, whole_run, write_run


@pytest.fixture
async def run_folder(tmp_path: Path) -> Path:
    """A finished run."""
    return await write_run(tmp_path / "run", whole_run())


@pytest.fixture
def screen() -> Callable[..., Screen]:
    def make(*, color: bool = False, width: int = 100, height: int = 30) -> Screen:
        return Screen(color=color, width=width, height=height)

    return make
