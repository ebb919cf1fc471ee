"""`lbt-sim study`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lbt_sim.cli.options import Data, Engine, ExecutorName, Json, Out, Quiet, Sets, Workers

__all__ = ["study"]


def study(
    file: Annotated[
        str,
        typer.Argument(metavar="STUDY", help="A study's name, or the path of its YAML file.", show_default=False),
    ],
    out: Out = None,
    workers: Workers = None,
    executor: ExecutorName = "local",
    set_: Sets = None,
    engine: Engine = None,
    data: Data = None,
    report: Annotated[bool, typer.Option(help="Write report.html into the study's folder.")] = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a study: every arm with every seed, compared seed by seed, with a report.

    `lbt-sim validate` tells beforehand how many runs and calls it takes. `lbt-sim resume` goes on with one that was
    stopped.

    Example: lbt-sim study diversity --workers 2 --set seeds=10
    """
    from lbt_sim.cli.drive_study import check_executor, drive_study, workers_of
    from lbt_sim.cli.fetch import fetch_models
    from lbt_sim.errors import InputError, Place
    from lbt_sim.folders import claimed
    from lbt_sim.study.folder import create_study, is_study
    from lbt_sim.study.plan import load_study
    from lbt_sim.study.ready import prepared_conditions
    from lbt_sim.transcript.commands import program
    from lbt_sim.transcript.figures import plural

    if is_study(Path(file)):
        raise InputError(
            f"{file} is a study that was begun",
            where=Place(key="STUDY"),
            remedy=f"Go on with it: lbt-sim resume {file}",
        )
    check_executor(executor)
    plan = load_study(file, sets=set_ or (), engine=engine, data=data or ())
    if not quiet:
        typer.echo(f"preparing {plural(len(plan.conditions), 'condition')}", err=True)
    for prepared in prepared_conditions(plan):
        fetch_models(prepared, quiet=quiet)
    folder = create_study(plan, out or claimed(Path("runs"), plan.name), command=[*program(), *sys.argv[1:]])
    drive_study(folder.path, workers_of(executor, workers), as_json=as_json, quiet=quiet, report=report)
