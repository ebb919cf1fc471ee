"""`lbt-sim schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["schema"]


def schema(
    kind: Annotated[str, typer.Argument(help="scenario, study, classroom, agent or persona.")] = "scenario",
    write: Annotated[
        Path | None, typer.Option("--write", metavar="DIR", help="Write all of them to DIR, for an editor.")
    ] = None,
) -> None:
    """Print the JSON Schema of a kind of file; editors complete and check YAML with it.

    Example: lbt-sim schema scenario > scenario.schema.json
    """
    from lbt_sim.scenario.json_schema import schema as of
    from lbt_sim.scenario.json_schema import write_schemas

    if write is not None:
        for file in write_schemas(write):
            typer.echo(str(file))
        return
    typer.echo(json.dumps(of(kind), indent=2, ensure_ascii=False))
