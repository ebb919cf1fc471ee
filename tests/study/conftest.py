"""Small studies on the simulated engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

SMALL = """\
kind: study
version: 1
title: Does it matter?
base: simulated
set:
  task.train: 80
  task.held_out: 20
  method.rounds: 1
  method.exemplars: 6
  method.exam: {problems: 6}
  method.revise.chosen: 3
  method.select: {budget: 32, block: 8, rescore: 4}
"""


@pytest.fixture
def write_study(tmp_path: Path) -> Callable[[str], str]:
    """Writes a study file: the small base, and what is given."""

    def write(rest: str, name: str = "mine") -> str:
        file = tmp_path / f"{name}.yaml"
        file.write_text(SMALL + rest, encoding="utf-8")
        return str(file)

    return write
