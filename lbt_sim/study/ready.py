"""What is seen to before a study begins: every condition checked to the last prompt."""

from __future__ import annotations

from lbt_sim.errors import ScenarioError
from lbt_sim.preview import rehearse
from lbt_sim.setup import Prepared, prepare
from lbt_sim.study.plan import Plan

__all__ = ["prepared_conditions"]


def prepared_conditions(plan: Plan) -> list[Prepared]:
    """Every condition with its seats, graph and problems, its prompts rendered once.

    Raises:
        InputError: Anything that would stop a run later and can be seen now.
    """
    prepared = [rehearse(prepare(one.loaded)) for one in plan.conditions]
    if plan.file.metric == "f1":
        for condition, one in zip(plan.conditions, prepared, strict=True):
            if one.task.positive is None:
                raise ScenarioError(
                    f"F1 is of a positive label, and the task of {condition.condition.name} has none",
                    where=plan.document.place(("metric",)),
                    valid=["accuracy"],
                    remedy="Compare by accuracy, or give the task labels.",
                )
    return prepared
