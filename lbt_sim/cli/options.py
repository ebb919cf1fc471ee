"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Data",
    "Engine",
    "ExecutorName",
    "Json",
    "LateSets",
    "Out",
    "Quiet",
    "RunPath",
    "Scenario",
    "Seed",
    "Sets",
    "Workers",
    "refuse_study",
]

Scenario = Annotated[
    str,
    typer.Argument(metavar="SCENARIO", help="A scenario's name, or the path of its YAML file.", show_default=False),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value: method.rounds=2. Can be repeated."),
]
LateSets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a budget or a model: budget.calls=5000. Can be repeated."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Where the run folder goes; without it runs/, named after the scenario."),
]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", min=0, help="The run's seed.")]
Engine = Annotated[str | None, typer.Option("--engine", metavar="NAME", help="Run every model on this engine.")]
Data = Annotated[
    list[Path] | None, typer.Option("--data", metavar="DIR", help="Look for data files here too. Can be repeated.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        help="With a study: processes that execute runs; without it one for each core where learners are simulated, "
        "else one.",
        show_default=False,
    ),
]
ExecutorName = Annotated[
    str, typer.Option("--executor", metavar="NAME", help="With a study: local, or ray (a Ray cluster; extra `ray`).")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, as the last line of standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors (and the JSON).")]


def refuse_study(path: Path, command: str) -> None:
    """Refuses a study's folder where one run is wanted.

    Raises:
        InputError: It is one; names one of its runs.
    """
    from lbt_sim.errors import InputError, Place

    if (path / "study.yaml").is_file():
        some = sorted(path.glob("runs/*/*/manifest.json"))
        example = some[0].parent if some else path / "runs" / "CONDITION" / "SEED"
        raise InputError(
            f"{path} is a study, and `{command}` takes one run",
            where=Place(key="RUN"),
            remedy=f"Name one of its runs: lbt-sim {command} {example}. Of the whole: lbt-sim report {path}.",
        )
