from __future__ import annotations

import os
from pathlib import Path

import pytest
from fake_machine import put_gpus, script

from lbt_sim.errors import ModelUnavailable
from lbt_sim.models.vllm.gpus import Holder, gpus, memory, numbered, told


def test_without_a_driver_there_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == []


def test_each_has_its_memory_and_who_holds_it_the_largest_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    apps = ["GPU-bbbb1111, 41, /usr/bin/python3, 300", "GPU-bbbb1111, 42, VLLM::EngineCore, 9000"]
    put_gpus(monkeypatch, tmp_path, apps=apps)
    first, second = gpus()
    assert (first.number, first.index, first.total_mib, first.free_mib, first.holders) == (0, 0, 80000, 79000, ())
    assert second.holders == (Holder(42, "VLLM::EngineCore", 9000), Holder(41, "python3", 300))
    assert told(second.holders) == "VLLM::EngineCore (process 42, 9000 MiB), python3 (process 41, 300 MiB)"
    assert first.device == "gpu-aaaa0000"


def test_what_a_container_is_not_told_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = ["0, GPU-a, NVIDIA GB10, [N/A], [N/A], [N/A]"]
    put_gpus(monkeypatch, tmp_path, lines, ["GPU-a, 7, [N/A], [N/A]"])
    (gpu,) = gpus()
    assert (gpu.total_mib, gpu.free_mib, gpu.mig) == (None, None, False)
    assert gpu.holders[0].used_mib is None
    assert "process 7" in told(gpu.holders)
    assert "cannot be seen" in told(())


def test_a_driver_that_does_not_know_mig_is_asked_without_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_gpus(monkeypatch, tmp_path)
    text = 'case "$1" in *mig*) echo "Field is not a valid field to query."; exit 2 ;; *compute*) ;;'
    script(tmp_path / "bin" / "nvidia-smi", f"{text} *) echo '3, GPU-c, Tesla K80, 11441, 11000' ;; esac\n")
    assert [(gpu.index, gpu.mig) for gpu in gpus()] == [(3, False)]


def test_a_driver_that_fails_is_told_and_one_without_gpus_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_gpus(monkeypatch, tmp_path)
    script(
        tmp_path / "bin" / "nvidia-smi", "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18\n"
    )
    with pytest.raises(ModelUnavailable, match="version mismatch"):
        gpus()
    script(tmp_path / "bin" / "nvidia-smi", "echo 'No devices were found'; exit 6\n")
    assert gpus() == []


def test_a_driver_that_never_answers_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_gpus(monkeypatch, tmp_path)
    script(tmp_path / "bin" / "nvidia-smi", "exec sleep 60\n")
    monkeypatch.setattr("lbt_sim.models.vllm.gpus.SECONDS", 0.2)
    with pytest.raises(ModelUnavailable, match="no answer"):
        gpus()


@pytest.mark.parametrize(
    ("visible", "indices"),
    [("1,0", [1, 0]), ("GPU-bbbb", [1]), ("", []), ("-1", []), ("NoDevFiles", []), ("1,-1,0", [1]), ("0,0", [0])],
)
def test_numbers_are_positions_in_what_is_visible(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, visible: str, indices: list[int]
) -> None:
    put_gpus(monkeypatch, tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [(gpu.number, gpu.index) for gpu in gpus()] == list(enumerate(indices))


@pytest.mark.parametrize(("visible", "what"), [("0,5", "'5'"), ("GPU-x", "'GPU-x'"), ("MIG-1/2", "MIG instance")])
def test_visible_devices_that_are_not_there_are_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, visible: str, what: str
) -> None:
    put_gpus(monkeypatch, tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(ModelUnavailable, match=what):
        gpus()


def test_a_number_that_is_not_there_lists_those_that_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_gpus(monkeypatch, tmp_path)
    assert [gpu.index for gpu in numbered([1, 0], gpus())] == [1, 0]
    with pytest.raises(ModelUnavailable, match="no GPU 2") as caught:
        numbered([0, 2], gpus())
    assert caught.value.valid == ("0 (NVIDIA H100 80GB HBM3)", "1 (NVIDIA H100 80GB HBM3)")


def test_the_machines_memory_names_who_holds_most() -> None:
    found = memory(10_000)
    assert found is not None
    assert 0 < found.available_mib <= found.total_mib
    assert os.getpid() in {holder.pid for holder in found.holders}
    sizes = [holder.used_mib or 0 for holder in found.holders]
    assert sizes == sorted(sizes, reverse=True)
