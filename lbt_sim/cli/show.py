"""`lbt-sim show`: the transcript of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["show"]


def show(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)],
    round_: Annotated[int | None, typer.Option("--round", help="This round in full.", show_default=False)] = None,
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="What this agent was sent and said.", show_default=False)
    ] = None,
    item: Annotated[
        str | None, typer.Option(metavar="ID", help="What everyone answered to this item.", show_default=False)
    ] = None,
    material: Annotated[
        str | None, typer.Option(metavar="ID", help="This teaching material and its lineage.", show_default=False)
    ] = None,
    calls: Annotated[bool, typer.Option("--calls", help="The calls: every prompt and its reply.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="At most so many calls, utterances, failures; 0: all.")] = 20,
    skip: Annotated[int, typer.Option(min=0, help="Leave out so many calls first.")] = 0,
    full: Annotated[bool, typer.Option("--full", help="Long and repeated texts in full.")] = False,
    color: Annotated[
        bool | None,
        typer.Option("--color/--no-color", help="Colours also into a pipe, or none.", show_default="on a terminal"),
    ] = None,
) -> None:
    """Read a run: all of it in short, or one round, agent, item or material. The options combine.

    Works beside a run that is still going on, and on one that failed.

    Example: lbt-sim show runs/quickstart-7 --round 2 --agent teacher --color | less -R
    """
    from lbt_sim.cli.options import refuse_study
    from lbt_sim.transcript.show import ShowOptions, show_run
    from lbt_sim.transcript.theme import make_console

    refuse_study(run, "show")
    options = ShowOptions(round_, agent, item, material, calls, limit, skip, full)
    show_run(run, make_console(color=color), options)
