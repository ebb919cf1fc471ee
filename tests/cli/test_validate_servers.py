"""`lbt-sim validate` tells what servers would not start with, at its line, and needs neither servers nor a vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import SMALL, lbt_sim


@pytest.fixture(autouse=True)
def no_vllm(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LBT_SIM_VLLM_PYTHON", str(workspace / "nowhere"))
    monkeypatch.setenv("LBT_SIM_CACHE", str(workspace / "cache"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def validate(folder: Path, *models: str) -> tuple[int, str]:
    text = SMALL.replace("models: {small: {engine: simulated}}\n", "\n".join(("models:", *models)) + "\n")
    (folder / "mine.yaml").write_text(text, "utf-8")
    said = lbt_sim("validate", "mine.yaml")
    return said.status, said.err


def test_weights_to_be_fetched_and_a_vllm_to_be_installed_are_no_mistakes(workspace: Path) -> None:
    small, large = "  small: {engine: vllm, model: smollm2-135m}", "  large: {engine: vllm, model: org/name, gpus: [7]}"
    assert validate(workspace, small, large) == (0, "")


def test_what_is_not_there_is_told_at_its_line(workspace: Path) -> None:
    status, err = validate(
        workspace,
        "  small:",
        "    engine: vllm",
        "    model: org/name",
        "    lora: adapters/tutor",
        "  large:",
        "    engine: vllm",
        "    model: ./nowhere",
        "    python: /nowhere/bin/python",
    )
    assert status == 2
    for part in (
        "mine.yaml:7  models.small.lora",
        "mine.yaml:10  models.large.model",
        "mine.yaml:11  models.large.python",
    ):
        assert part in err
    assert "3 mistakes" in err


def test_paths_and_variables_that_cannot_be_are_told_at_their_lines(workspace: Path) -> None:
    status, err = validate(
        workspace,
        "  small: {engine: vllm, model: ~nosuchuser/x}",
        "  large:",
        "    engine: vllm",
        "    model: org/name",
        f"    lora: {'a' * 300}",
    )
    assert status == 2
    assert "mine.yaml:4  models.small.model" in err
    assert "mine.yaml:8  models.large.lora" in err
    for environment in ('"A=B": "1"', 'A: "x\\0y"'):
        status, err = validate(
            workspace, "  small:", "    {engine: vllm, model: m, environment: {" + environment + "}}"
        )
        assert status == 2
        assert "mine.yaml:5  models.small.environment" in err


def test_entries_that_share_servers_and_disagree_are_told(workspace: Path) -> None:
    small = "  small: {engine: vllm, model: org/name, patience: 60}"
    status, err = validate(workspace, small, "  other: {engine: vllm, model: org/name}")
    assert status == 2
    assert "mine.yaml:5  models.other" in err
    assert "'small' and 'other' are answered by the same servers, and `patience` is 60 for the one and 180" in err


def test_variable_that_names_no_gpu_is_told(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "first")
    status, err = validate(workspace, "  small: {engine: vllm, model: org/name}")
    assert status == 2
    assert "CUDA_VISIBLE_DEVICES=first" in err
