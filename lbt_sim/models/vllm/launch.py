"""How one server is started, as a value: planned first for all of them, so that nothing starts in vain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Launch"]


@dataclass(frozen=True, slots=True)
class Launch:
    """One vLLM server to be.

    Attributes:
        name: What it is called in messages, and its log file without `.log`: the model's name in the scenario, with
            the replica's number where there are several.
        argv: The whole command but for `--host`, `--port` and `--served-model-name`, which are added when it starts.
        environment: Variables on top of our own environment.
        devices: What it computes on: `gpu-<uuid>`, or `cpu`. Servers on the same device start one after the other.
        adapters: Served name -> folder of each LoRA adapter (their flags are in `argv` already).
        detail: For the manifest: versions, GPUs, flags, whatever says what exactly answers.
        needs: Device -> MiB of its memory that the server takes, where known: `Record.needs`.
        token: The server's in the records, where its memory is reserved there already; '' where it is not.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    devices: tuple[str, ...]
    adapters: Mapping[str, str]
    detail: Mapping[str, object]
    needs: Mapping[str, int] = field(default_factory=dict)
    token: str = ""
