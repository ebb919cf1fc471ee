"""What is seen to before a study begins: every condition checked to the last prompt."""

from __future__ import annotations

from lbt_sim.preview import rehearse
from lbt_sim.setup import Prepared, prepare
from lbt_sim.study.plan import Plan

__all__ = ["prepared_conditions"]


def prepared_conditions(plan: Plan) -> list[Prepared]:
    """Every condition with its seats, graph and problems, its prompts rendered once.

    Raises:
        InputError: Anything that would stop a run later and can be seen now.
    """
    return [rehearse(prepare(one.loaded)) for one in plan.conditions]
