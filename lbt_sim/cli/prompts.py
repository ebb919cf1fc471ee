"""`lbt-sim prompts`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from lbt_sim.cli.options import Data, Scenario, Seed, Sets

__all__ = ["prompts"]


def prompts(
    scenario: Scenario,
    agent: Annotated[str | None, typer.Option("--agent", metavar="NAME", help="Only this agent.")] = None,
    seed: Seed = None,
    set_: Sets = None,
    data: Data = None,
) -> None:
    """Show what each agent would be sent, on real problems of the task; no model is asked.

    Example: lbt-sim prompts quickstart --agent teacher
    """
    from rich.console import Console

    from lbt_sim.preview import preview
    from lbt_sim.scenario.load import load_scenario
    from lbt_sim.setup import prepare
    from lbt_sim.transcript.prompts import print_prompts

    loaded = load_scenario(scenario, sets=set_ or (), seed=seed, data=data or ())
    print_prompts(asyncio.run(preview(prepare(loaded), agent)), Console())
