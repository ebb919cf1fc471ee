"""LoRA adapters: folders that PEFT wrote, checked before a server is started with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lbt_sim.errors import ModelUnavailable
from lbt_sim.models.vllm.fingerprint import read_folder, read_json
from lbt_sim.models.vllm.spec import path_of

__all__ = ["Adapter", "flags", "read"]

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as the largest rank."""

_REFUSED = {
    "use_dora": "DoRA",
    "lora_bias": "biases (`lora_bias`)",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "replicated layers",
    "use_bdlora": "block-diagonal LoRA",
    "use_qalora": "QALoRA",
}
"""Key of an adapter's configuration -> what vLLM cannot do with it."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        folder: Where it is.
        identity: `lora:<name of the folder>@<hash>`.
        rank: The largest rank of any of its matrices.
        base: The model that it was trained on, as its configuration says; '' where it does not.
    """

    folder: Path
    identity: str
    rank: int
    base: str


def read(folder: str) -> Adapter:
    """Looks at an adapter.

    Raises:
        ModelUnavailable: The folder holds none, or one that vLLM cannot use.
    """
    path = path_of(folder).absolute()
    configuration = path / "adapter_config.json"
    if not configuration.is_file():
        raise ModelUnavailable(
            f"{path} is not a LoRA adapter: " + ("no adapter_config.json" if path.is_dir() else "no such folder"),
            remedy="Name the folder that `save_pretrained` of PEFT wrote.",
        )
    said = read_json(configuration)
    kind = said.get("peft_type", "LORA")
    if kind != "LORA":
        raise ModelUnavailable(f"{path} is an adapter of the kind {kind}", remedy="vLLM serves LoRA adapters only.")
    refused = [what for key, what in _REFUSED.items() if said.get(key)]
    refused += [f"`bias: {said['bias']}`"] if said.get("bias", "none") != "none" else []
    saved = set(said.get("modules_to_save") or ()) - {"classifier", "score"}
    refused += [f"modules saved whole ({', '.join(sorted(saved))})"] if saved else []
    if refused:
        raise ModelUnavailable(
            f"{path}: vLLM cannot serve an adapter with {', '.join(refused)}",
            remedy="Merge it into its model (PEFT's `merge_and_unload`), and name the merged folder as `model`.",
        )
    ranks = [said.get("r"), *dict(said.get("rank_pattern") or {}).values()]
    if not all(isinstance(rank, int) and 0 < rank <= RANKS[-1] for rank in ranks):
        raise ModelUnavailable(f"{configuration}: vLLM takes ranks (`r`) from 1 to {RANKS[-1]}", remedy="Correct it.")
    contents = read_folder(path, ("adapter_model.safetensors", "adapter_model.bin"))
    base = str(said.get("base_model_name_or_path") or "")
    return Adapter(path, f"lora:{path.name}@{contents.digest}", max(int(rank) for rank in ranks if rank), base)


def flags(adapters: Mapping[str, Adapter]) -> list[str]:
    """VLLM's flags that serve these adapters, by their served names."""
    if not adapters:
        return []
    rank = next(rank for rank in RANKS if rank >= max(adapter.rank for adapter in adapters.values()))
    modules = [json.dumps({"name": name, "path": str(adapter.folder)}) for name, adapter in adapters.items()]
    count = str(len(adapters))
    return ["--enable-lora", "--lora-modules", *modules, "--max-lora-rank", str(rank), "--max-loras", count]
