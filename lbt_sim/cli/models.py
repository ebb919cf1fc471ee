"""`lbt-sim models list` and `lbt-sim models pull`."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(help="Engines and models.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """List engines, and the models that can be pulled.

    Example: lbt-sim models list
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lbt_sim.models.registry import ENGINES
    from lbt_sim.models.weights import KNOWN, locate

    console = Console(highlight=False)
    engines = Table("engine", "what", title="Engines", title_justify="left")
    for name, entry in sorted(ENGINES.items()):
        engines.add_row(name, Text(entry.summary))
    console.print(engines)
    weights = Table("model", "size, licence", "here", title="Models to pull", title_justify="left")
    for name, known in sorted(KNOWN.items()):
        path = locate(name)
        here = str(path) if path else f"no; lbt-sim models pull {name}"
        weights.add_row(name, f"{known.size / 1e6:.0f} MB, {known.licence}", Text(here))
    console.print(weights)


@app.command("pull")
def pull(name: Annotated[str, typer.Argument(help="A model of `lbt-sim models list`.", show_default=False)]) -> None:
    """Fetch a model, verify its checksum, and keep it.

    Example: lbt-sim models pull smollm2-135m
    """
    from lbt_sim.cli.fetch import fetch

    typer.echo(str(fetch(name)))
