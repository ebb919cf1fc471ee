"""Small studies on the simulated engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import SMALL_STUDY


@pytest.fixture
def write_study(tmp_path: Path) -> Callable[[str], str]:
    """Writes a study file: the small base, and what is given."""

    def write(rest: str, name: str = "mine") -> str:
        file = tmp_path / f"{name}.yaml"
        file.write_text(SMALL_STUDY + rest, encoding="utf-8")
        return str(file)

    return write
