"""vLLM servers for a study: started once before its runs, which use them, and stopped after the last."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from lbt_sim.scenario.load import load_resolved
from lbt_sim.scenario.schema import ModelSpec
from lbt_sim.study.folder import StudyFolder

__all__ = ["models_of", "servers_for"]


def models_of(study: StudyFolder) -> dict[str, ModelSpec]:
    """Every model that any of the conditions has, once, by its name (numbered where two say different things)."""
    found: dict[str, ModelSpec] = {}
    said: set[str] = set()
    for one in study.conditions:
        file = study.scenario_of(one.name)
        for name, spec in load_resolved(file.read_text(encoding="utf-8"), str(file)).file.models.items():
            if spec.model_dump_json() in said:
                continue
            said.add(spec.model_dump_json())
            free, number = name, 1
            while free in found:
                number += 1
                free = f"{name}-{number}"
            found[free] = spec
    return found


@asynccontextmanager
async def servers_for(study: StudyFolder, tell: Callable[[str], None]) -> AsyncIterator[None]:
    """Keeps up the vLLM servers that the study's runs need; nothing where there are none.

    Args:
        study: The study.
        tell: Takes what happens to them.

    Raises:
        ModelUnavailable: One cannot be started.
    """
    specs = {name: spec for name, spec in models_of(study).items() if spec.engine == "vllm"}
    if not specs:
        yield
        return
    from lbt_sim.models.registry import check_model
    from lbt_sim.models.vllm.keep import kept
    from lbt_sim.models.vllm.spec import VllmSpec

    checked: Mapping[str, VllmSpec] = {
        name: spec for name, one in specs.items() if isinstance(spec := check_model(name, one), VllmSpec)
    }
    async with kept({name: spec for name, spec in checked.items() if not spec.urls}, tell):
        yield
