"""`lbt-sim classroom`."""

from __future__ import annotations

from typing import Annotated

import typer

from lbt_sim.cli.options import Seed

__all__ = ["classroom"]


def classroom(
    name: Annotated[str, typer.Argument(metavar="CLASSROOM", help="A classroom, or a scenario.", show_default=False)],
    students: Annotated[int, typer.Option("--students", min=1, help="How many students to seat.")] = 6,
    seed: Seed = None,
) -> None:
    """Draw a classroom's graph and list who hears whom.

    Example: lbt-sim classroom small-world --students 12
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lbt_sim.classroom.draw import draw, hearing_table
    from lbt_sim.setup import seat_classroom

    room = seat_classroom(name, students, seed or 0)
    console = Console()
    for line in draw(room, console.width, ascii_only="utf" not in console.encoding.lower()):
        console.print(Text(line), no_wrap=True, crop=True)
    table = Table("seat", "role", "is taught by", "hears", title="Who hears whom", title_justify="left")
    for row in hearing_table(room)[:40]:
        table.add_row(row.seat, row.role, Text(", ".join(row.teachers)), Text(", ".join(row.peers)))
    console.print(table)
    if len(room.seats) > 40:
        console.print(f"… and {len(room.seats) - 40} more seats")
