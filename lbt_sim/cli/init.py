"""`lbt-sim init`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["init"]


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The new workspace.", show_default=False)],
) -> None:
    """Make a workspace: scenarios/, agents/ and classrooms/ of your own, with schemas for your editor.

    Example: lbt-sim init my-study
    """
    from lbt_sim.transcript.commands import command_line
    from lbt_sim.workspace import make_workspace

    for file in make_workspace(folder):
        typer.echo(str(file))
    typer.echo(f"\nNext: cd {shlex.quote(str(folder))} && {command_line('run', 'first')}")
