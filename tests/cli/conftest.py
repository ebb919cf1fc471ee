"""A workspace of one's own, in which commands are given."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import SMALL


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with `small.yaml` in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LBT_SIM_DATA", raising=False)
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    return tmp_path
