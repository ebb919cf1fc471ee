"""Makes `rooms` importable from every folder of tests, and the same commands told wherever the tests are started."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def not_under_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if these tests were not started by `uv run`, which commands that are told would show."""
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
