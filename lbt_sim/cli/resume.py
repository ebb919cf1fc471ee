"""`lbt-sim resume`."""

from __future__ import annotations

from lbt_sim.cli.options import Json, LateSets, Quiet, RunPath

__all__ = ["resume"]


def resume(run: RunPath, set_: LateSets = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """Continue a run that was interrupted, failed or killed. No committed call is made again.

    Only `budget.…` and `models.…` can be changed on the way. A run that is finished is told again, without its models.

    Example: lbt-sim resume runs/quickstart-7 --set budget.calls=5000
    """
    from lbt_sim.cli.drive import drive
    from lbt_sim.cli.fetch import fetch_models
    from lbt_sim.runs import is_over, open_run

    folder = open_run(run, sets=set_ or ())
    if not is_over(folder):
        fetch_models(folder.prepared, quiet=quiet)
    drive(folder, as_json=as_json, quiet=quiet)
