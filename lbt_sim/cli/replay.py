"""`lbt-sim replay`."""

from __future__ import annotations

from lbt_sim.cli.options import Json, Quiet, RunPath

__all__ = ["replay"]


def replay(run: RunPath, as_json: Json = False, quiet: Quiet = False) -> None:
    """Execute a finished run again from its ledger alone; models are forbidden.

    Example: lbt-sim replay runs/quickstart-7 --json
    """
    from lbt_sim.cli.drive import drive
    from lbt_sim.runs import open_run

    drive(open_run(run), as_json=as_json, quiet=quiet, replay=True)
