from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbt_sim import doctor
from lbt_sim.doctor import Finding, diagnose


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No model and no network: both have tests of their own."""
    monkeypatch.setenv("LBT_SIM_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_everything_is_looked_at_and_whatever_is_amiss_has_a_remedy() -> None:
    found = by_name(diagnose())
    assert {"Python", "SQLite", "terminal", "engine llamacpp", "engine openai", "GPU", "extra math"} <= set(found)
    assert found["Python"].status == "ok"
    assert all(finding.remedy for finding in found.values() if finding.status != "ok")


def test_a_model_that_was_not_fetched_is_missing_and_the_command_is_named() -> None:
    finding = by_name(diagnose())["model smollm2-135m"]
    assert finding.status == "missing"
    assert "lbt-sim models pull smollm2-135m" in finding.remedy


def test_a_damaged_model_is_broken(tmp_path: Path) -> None:
    (tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"GGUF and no more")
    assert by_name(diagnose())["model smollm2-135m"].status == "broken"


def test_a_file_that_is_no_model_does_not_answer(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF and no more")
    finding = doctor._canary(path)
    assert finding.status == "broken"
    assert finding.detail


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def bang() -> Iterator[Finding]:
        raise ZeroDivisionError("bang")

    monkeypatch.setattr(doctor, "_gpu", bang)
    finding = by_name(diagnose())["GPU"]
    assert (finding.status, "bang" in finding.detail) == ("broken", True)


def test_a_check_that_never_ends_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep() -> Iterator[Finding]:
        time.sleep(1.0)
        yield Finding("GPU", "ok", "")

    for name in ("_engines", "_llamacpp"):
        monkeypatch.setattr(doctor, name, lambda: iter(()))
    monkeypatch.setattr(doctor, "_gpu", sleep)
    assert "no answer within 0.3 s" in by_name(diagnose(0.3))["GPU"].detail


def test_the_data_folder_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LBT_SIM_DATA", str(tmp_path))
    assert by_name(diagnose())["LBT_SIM_DATA"].status == "ok"
    monkeypatch.setenv("LBT_SIM_DATA", str(tmp_path / "nowhere"))
    assert by_name(diagnose())["LBT_SIM_DATA"].status == "broken"
