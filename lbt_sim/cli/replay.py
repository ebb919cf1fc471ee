"""`lbt-sim replay`."""

from __future__ import annotations

from lbt_sim.cli.options import Json, Quiet, RunPath

__all__ = ["replay"]


def replay(run: RunPath, as_json: Json = False, quiet: Quiet = False) -> None:
    """Execute a finished run again from its ledger alone; models are forbidden.

    Example: lbt-sim replay runs/quickstart-7 --json
    """
    from lbt_sim.cli.drive import drive
    from lbt_sim.cli.options import refuse_study
    from lbt_sim.errors import InputError, Place
    from lbt_sim.runs import open_run
    from lbt_sim.transcript.read import RunRecord

    refuse_study(run, "replay")
    folder = open_run(run)
    with RunRecord(folder.path) as record:
        if not record.status:
            remedy = f"Finish it first: lbt-sim resume {run}. What there is of it: lbt-sim show {run}."
            raise InputError("the run has not come to its end", where=Place(str(run)), remedy=remedy)
    drive(folder, as_json=as_json, quiet=quiet, replay=True)
