"""A classroom simulator for learning by teaching: does a teacher get better by teaching?

The command line is `lbt-sim`. From Python, a run is four steps:

    prepared = prepare(load_scenario("quickstart", engine="simulated"))
    result = asyncio.run(Run(create_run(prepared, Path("runs/mine"))).execute())
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lbt_sim.runs import Run, create_run, open_run
    from lbt_sim.scenario.load import load_scenario
    from lbt_sim.setup import prepare

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "create_run", "load_scenario", "open_run", "prepare"]

_HOMES = {
    "Run": "lbt_sim.runs",
    "create_run": "lbt_sim.runs",
    "load_scenario": "lbt_sim.scenario.load",
    "open_run": "lbt_sim.runs",
    "prepare": "lbt_sim.setup",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: `lbt-sim --help` must not wait for all of them."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
