"""`lbt-sim doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from lbt_sim.cli.options import Engine, Sets
from lbt_sim.errors import InputError

__all__ = ["doctor"]


def doctor(
    determinism: Annotated[
        str | None,
        typer.Option(metavar="SCENARIO", help="Measure its models: how often does a greedy answer change?"),
    ] = None,
    items: Annotated[
        int | None, typer.Option(min=2, help="With --determinism: how many of its exam prompts; 32 without it.")
    ] = None,
    set_: Sets = None,
    engine: Engine = None,
) -> None:
    """Say what works on this machine, what is missing, and how to get it.

    With --determinism the models of a scenario are asked the same prompts with a cold and a warm cache, and one or many
    at a time. What is found is printed, and stands with the figures of the runs that ask these models later.

    Example: lbt-sim doctor --determinism quickstart --engine vllm
    """
    if determinism is not None:
        _measure(determinism, items or 32, set_ or [], engine)
        return
    if items or set_ or engine:
        raise InputError(
            "--items, --set and --engine say what --determinism measures",
            remedy="Name a scenario: lbt-sim doctor --determinism quickstart",
        )
    from rich.console import Console
    from rich.text import Text

    from lbt_sim.doctor import diagnose

    console = Console(highlight=False)
    marks = {"ok": ("✓", "green"), "missing": ("–", "yellow"), "broken": ("✗", "red")}
    broken = False
    for finding in diagnose():
        mark, style = marks[finding.status]
        line = Text.assemble((f"{mark} ", style), (finding.name, "bold"), f"  {finding.detail}")
        console.print(line, soft_wrap=True)
        if finding.remedy and finding.status != "ok":
            for part in finding.remedy.splitlines():
                console.print(Text(f"    {part.strip()}"), soft_wrap=True)
        broken |= finding.status == "broken"
    if broken:
        raise typer.Exit(2)


def _measure(scenario: str, items: int, sets: list[str], engine: str | None) -> None:
    import asyncio

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lbt_sim.cli.fetch import fetch_models
    from lbt_sim.determinism import measure
    from lbt_sim.scenario.load import load_scenario
    from lbt_sim.setup import prepare

    console = Console(highlight=False)
    prepared = prepare(load_scenario(scenario, sets=sets, engine=engine))
    fetch_models(prepared)
    found = asyncio.run(measure(prepared, items, lambda text: console.print(Text(text), soft_wrap=True)))
    for name, comparisons in found.items():
        columns = ("compared", "labels that changed", "texts that changed", "largest difference of a log-probability")
        table = Table(*columns, title=Text(f"{name}: greedy answers"), title_justify="left")
        for one in comparisons:
            largest = "–" if one.largest is None else f"{one.largest:.2g}"
            changed = (f"{one.labels_changed} of {one.labels}", f"{one.texts_changed} of {one.texts}")
            table.add_row(Text(one.what), *changed, largest)
        console.print(table)
    if not found:
        console.print("Its models are rules: they compute nothing that could differ.")
