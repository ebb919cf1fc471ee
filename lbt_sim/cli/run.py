"""`lbt-sim run`."""

from __future__ import annotations

from lbt_sim.cli.options import Data, Engine, Json, Out, Quiet, Scenario, Seed, Sets

__all__ = ["run"]


def run(
    scenario: Scenario,
    out: Out = None,
    seed: Seed = None,
    set_: Sets = None,
    engine: Engine = None,
    data: Data = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a scenario, with a live view of the classroom on a terminal.

    Example: lbt-sim run quickstart --seed 3 --set method.rounds=2
    """
    from lbt_sim.cli.drive import drive
    from lbt_sim.cli.fetch import fetch_models
    from lbt_sim.errors import InputError, Place
    from lbt_sim.preview import rehearse
    from lbt_sim.runs import create_run
    from lbt_sim.scenario.load import load_scenario
    from lbt_sim.setup import prepare
    from lbt_sim.study.check import is_study_file

    if "/" not in scenario and not scenario.endswith((".yaml", ".yml")) and is_study_file(scenario):
        raise InputError(
            f"'{scenario}' is a study, which is many runs",
            where=Place(key="SCENARIO"),
            remedy=f"Give it to lbt-sim study {scenario}; lbt-sim validate {scenario} tells what it takes.",
        )
    loaded = load_scenario(scenario, sets=set_ or (), engine=engine, seed=seed, data=data or ())
    prepared = rehearse(prepare(loaded))
    fetch_models(prepared, quiet=quiet)
    drive(create_run(prepared, out), as_json=as_json, quiet=quiet, new=True)
