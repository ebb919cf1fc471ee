"""`lbt-sim report`: a run or a study as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["report"]


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN_OR_STUDY", help="A run folder or a study folder.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to; of parquet the folder for the tables.",
            show_default="report.html, report.md, tables in the folder",
        ),
    ] = None,
    format_: Annotated[
        Literal["html", "md", "parquet"],
        typer.Option("--format", help="One self-contained page, Markdown, or tidy tables."),
    ] = "html",
) -> None:
    """Report a run or a study: one file with figures, pictures, exams, lineage, failures, cost.

    The page opens offline, asks for nothing and runs nothing. Works on what is there when it is not finished.

    Example: lbt-sim report runs/quickstart-7 -o quickstart.html
    """
    from lbt_sim.report import write_report

    typer.echo(write_report(folder, out, format_))
