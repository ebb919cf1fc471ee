"""`lbt-sim compare`: any runs, compared condition by condition, paired by seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lbt_sim.cli.options import Json

__all__ = ["compare"]


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="Run folders, study folders, or folders that hold them.", show_default=False
        ),
    ],
    metric: Annotated[
        Literal["accuracy", "f1"] | None,
        typer.Option(help="The teacher's held-out score to compare.", show_default="the study's, or accuracy"),
    ] = None,
    outcome: Annotated[
        Literal["last", "area"] | None,
        typer.Option(
            help="Which of a run: after its last round, or the mean over its rounds.",
            show_default="the study's, or last",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare runs: those whose scenarios differ only in the seed are one condition, paired with others by seed.

    Each condition is compared with the first that is given. Runs that are not finished are left out, and told.

    Example: lbt-sim compare runs/star-* runs/ring-*
    """
    from lbt_sim.study.adhoc import results_of
    from lbt_sim.study.analysis import analyse

    results = results_of(runs, metric=metric, outcome=outcome)
    analysis = analyse(results)
    if as_json:
        import json

        typer.echo(json.dumps(_as_json(results, analysis), ensure_ascii=False))
        return
    from rich.text import Text

    from lbt_sim.study.summary import print_findings
    from lbt_sim.transcript.theme import dressed, look_of, make_console

    console = make_console()
    print_findings(console, results, analysis)
    look = look_of(dressed(console))
    for note in results.notes:
        console.print(Text(f"note: {look.plain(note)}", "lbt.notice"))


def _as_json(results: Any, analysis: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "metric": results.metric,
        "outcome": results.outcome,
        "seeds": list(results.seeds),
        "runs": {
            one.name: {str(seed): run.folder for (name, seed), run in results.runs.items() if name == one.name}
            for one in results.conditions
        },
        "answer": analysis.answer,
        "conditions": [asdict(row) for row in analysis.conditions],
        "comparisons": [asdict(row) for row in analysis.comparisons],
        "effects": [asdict(row) for row in analysis.effects],
        "warnings": list(analysis.warnings),
        "notes": list(results.notes),
    }
