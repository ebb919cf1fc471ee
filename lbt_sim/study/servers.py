"""vLLM servers for a study: started once before its runs, which use them, and stopped after the last."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from lbt_sim.scenario.load import load_resolved
from lbt_sim.scenario.schema import ModelSpec
from lbt_sim.study.folder import StudyFolder

if TYPE_CHECKING:
    from lbt_sim.models.vllm.spec import VllmSpec

__all__ = ["models_of", "servers_for", "servers_wanted"]


def models_of(study: StudyFolder) -> dict[str, ModelSpec]:
    """Every model that any of the conditions has, once, by its name (numbered where two say different things)."""
    found: dict[str, ModelSpec] = {}
    said: set[str] = set()
    for one in study.conditions:
        file = study.scenario_of(one.name)
        for name, spec in load_resolved(study.read_scenario(one.name), str(file)).file.models.items():
            if spec.model_dump_json() in said:
                continue
            said.add(spec.model_dump_json())
            free, number = name, 1
            while free in found:
                number += 1
                free = f"{name}-{number}"
            found[free] = spec
    return found


def servers_wanted(study: StudyFolder) -> dict[str, VllmSpec]:
    """The entries on the engine `vllm` that name no servers which run already."""
    from lbt_sim.models.registry import check_model
    from lbt_sim.models.vllm.spec import VllmSpec

    specs = {name: spec for name, spec in models_of(study).items() if spec.engine == "vllm"}
    checked = {name: check_model(name, spec) for name, spec in specs.items()}
    return {name: spec for name, spec in checked.items() if isinstance(spec, VllmSpec) and not spec.urls}


@asynccontextmanager
async def servers_for(wanted: Mapping[str, VllmSpec], tell: Callable[[str], None]) -> AsyncIterator[None]:
    """Keeps up the vLLM servers that a study's runs need; nothing where there are none.

    Args:
        wanted: Entries by their names; see `servers_wanted`.
        tell: Takes what happens to them.

    Raises:
        ModelUnavailable: One cannot be started.
    """
    if not wanted:
        yield
        return
    from lbt_sim.models.vllm.keep import kept

    async with kept(wanted, tell):
        yield
