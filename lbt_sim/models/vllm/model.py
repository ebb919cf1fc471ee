"""The engine `vllm`: whole exams asked of servers that look after themselves."""

from __future__ import annotations

from lbt_sim.models.vllm.spec import VllmSpec

__all__ = ["VllmModel", "VllmSpec"]


class VllmModel:
    """A model on vLLM servers."""

    def __init__(self, spec: VllmSpec) -> None:
        self._spec = spec
