"""`lbt-sim resume`."""

from __future__ import annotations

from lbt_sim.cli.options import ExecutorName, Json, LateSets, Quiet, RunPath, Workers

__all__ = ["resume"]


def resume(
    run: RunPath,
    set_: LateSets = None,
    workers: Workers = None,
    executor: ExecutorName = "local",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Continue a run or a study that was interrupted, failed or killed. No committed call is made again.

    Only `budget.…` and `models.…` can be changed on the way. A run that is finished is told again, without its models.

    Example: lbt-sim resume runs/quickstart-7 --set budget.calls=5000
    """
    from lbt_sim.cli.drive import drive
    from lbt_sim.cli.fetch import fetch_models
    from lbt_sim.runs import is_over, open_run
    from lbt_sim.study.folder import is_study, is_study_begun

    if is_study(run) or is_study_begun(run):
        from lbt_sim.cli.drive_study import drive_study, workers_of

        drive_study(run, workers_of(executor, workers), sets=set_ or (), as_json=as_json, quiet=quiet)
        return
    folder = open_run(run, sets=set_ or ())
    if not is_over(folder):
        fetch_models(folder.prepared, quiet=quiet)
    drive(folder, as_json=as_json, quiet=quiet)
