"""`lbt-sim validate`."""

from __future__ import annotations

import json
from typing import Annotated, Any

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
            filled = {f"task.{key}": getattr(task, key) for key in ("instruction", "labels", "positive", "grader")}
            for entry in loaded.origins:
                value, origin = entry.value, entry.origin
                if value is None and filled.get(entry.key):
                    value, origin = filled[entry.key], f"the task {task.name}"
                typer.echo(f"  {entry.key}: {_as_written(value)}   ({origin})")
    if wrong is not None:
        raise typer.Exit(wrong.status)


def _as_written(value: Any) -> str:
    """A value on one line, as one would write it in YAML."""
    if value is None:
        return "not set"
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_as_written, value))}]"
    return json.dumps(value)
