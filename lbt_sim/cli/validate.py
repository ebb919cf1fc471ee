"""`lbt-sim validate`."""

from __future__ import annotations

from typing import Annotated

import typer

from lbt_sim.cli.options import Data, Sets

__all__ = ["validate"]


def validate(
    files: Annotated[list[str], typer.Argument(metavar="SCENARIO…", help="Names or files.", show_default=False)],
    set_: Sets = None,
    data: Data = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print every value and where it comes from.")] = False,
) -> None:
    """Check scenarios and everything that they name: agents, templates, classroom, data, models. Nothing is run.

    Example: lbt-sim validate scenarios/mine.yaml --explain
    """
    from lbt_sim.errors import LbtError
    from lbt_sim.preview import rehearse
    from lbt_sim.scenario.load import load_scenario
    from lbt_sim.setup import prepare

    wrong: LbtError | None = None
    for file in files:
        try:
            loaded = load_scenario(file, sets=set_ or (), data=data or ())
            prepared = rehearse(prepare(loaded))
        except LbtError as error:
            from lbt_sim.cli import print_error

            print_error(error)
            wrong = error
            continue
        people = ", ".join(seat.name for seat in prepared.seats)
        task = prepared.task
        typer.echo(f"{file}: valid")
        typer.echo(f"  task {task.name}: {len(task.train)} train, {len(task.held_out)} held out; in the room: {people}")
        for notice in task.notices:
            typer.echo(f"  note: {notice}")
        if explain:
            for entry in loaded.origins:
                typer.echo(f"  {entry.key} = {entry.value}   ({entry.origin})")
    if wrong is not None:
        raise typer.Exit(wrong.status)
