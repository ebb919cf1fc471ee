"""Makes `rooms` importable from every folder of tests, and the same commands told wherever the tests are started."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# No test asserts a time: what is slow here is the machine, with other work.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

REQUIRED = "LBT_SIM_REQUIRE_VLLM"
"""Set to 1 where no test that is marked `vllm` may skip."""


@pytest.fixture(autouse=True)
def not_under_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if these tests were not started by `uv run`, which commands that are told would show."""
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where vLLM is required, a test that needs it fails in place of skipping, for whatever reason."""
    report = yield
    if report.skipped and item.get_closest_marker("vllm") and os.environ.get(REQUIRED) == "1":
        report.outcome = "failed"
        report.longrepr = f"skipped although {REQUIRED} is set: {report.longrepr}"
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`: the tests of a file follow each other in one process, sharing fixtures; so do all that need vLLM."""
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "vllm" if nodeid.startswith("tests/vllm/") else super()._split_scope(nodeid)

    return Scheduling(config, log)
