"""`lbt-sim fork`."""

from __future__ import annotations

from typing import Annotated

import typer

from lbt_sim.cli.options import Data, Engine, Json, Out, Quiet, RunPath, Sets

__all__ = ["fork"]


def fork(
    run: RunPath,
    from_round: Annotated[int, typer.Option("--from-round", metavar="K", min=1, help="The first round that is new.")],
    set_: Sets = None,
    engine: Engine = None,
    data: Data = None,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Go on from a round of a run with a changed scenario, in a new run folder.

    Rounds before K are taken from the run; the run itself is left as it is.

    Example: lbt-sim fork runs/quickstart-7 --from-round 2 --set method.beam=4
    """
    from lbt_sim.cli.drive import drive
    from lbt_sim.cli.fetch import fetch_models
    from lbt_sim.cli.options import refuse_study
    from lbt_sim.folders import fork_run, load_run_scenario, open_run
    from lbt_sim.preview import rehearse
    from lbt_sim.setup import prepare

    refuse_study(run, "fork")
    source = open_run(run)
    prepared = rehearse(prepare(load_run_scenario(run, sets=set_ or (), engine=engine, data=data or ())))
    fetch_models(prepared, quiet=quiet)
    drive(fork_run(source, prepared, from_round, out), as_json=as_json, quiet=quiet, new=True)
