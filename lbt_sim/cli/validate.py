"""`lbt-sim validate`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from lbt_sim.cli.options import Data, Sets

__all__ = ["validate"]


def validate(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE…", help="Scenarios and studies by name; any of our YAML files by path.", show_default=False
        ),
    ],
    set_: Sets = None,
    data: Data = None,
    pilot: Annotated[
        bool, typer.Option("--pilot", help="With a study: measure one round of it on its own models. This costs calls.")
    ] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Print every value and where it comes from.")] = False,
) -> None:
    """Check files by their `kind`, and everything that they name. Nothing is run.

    A scenario with its agents, templates, classroom, data and models; a classroom, built with a few students; an
    agent with its templates; a persona. A study, with every scenario in it, and what it will take: runs, calls,
    tokens, time.

    Example: lbt-sim validate scenarios/mine.yaml --explain
    """
    from lbt_sim.check_file import check_file
    from lbt_sim.cli import print_error
    from lbt_sim.errors import LbtError
    from lbt_sim.study.check import check_study, is_study_file

    wrong: LbtError | None = None
    for file in files:
        try:
            if is_study_file(file):
                checked = check_study(file, sets=set_ or (), data=data or (), measure=pilot)
            else:
                checked = check_file(file, sets=set_ or (), data=data or ())
        except LbtError as error:
            print_error(error)
            wrong = error
            continue
        typer.echo(f"{file}: valid")
        for line in checked.lines:
            typer.echo(f"  {line}")
        for entry in checked.values if explain else ():
            origin = checked.kind if entry.origin == "scenario" else entry.origin  # written in the file itself
            typer.echo(f"  {entry.key}: {_as_written(entry.value)}   ({origin})")
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
    return json.dumps(value, ensure_ascii=False)
