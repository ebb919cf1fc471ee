"""`lbt-sim models list`, `lbt-sim models pull` and `lbt-sim models serve`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from lbt_sim.cli.options import Engine, Scenario, Sets

if TYPE_CHECKING:
    from lbt_sim.models.vllm.spec import VllmSpec

__all__ = ["app"]

app = typer.Typer(help="Engines and models.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """List engines, and the models that can be pulled.

    Example: lbt-sim models list
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lbt_sim.models.registry import ENGINES
    from lbt_sim.models.weights import KNOWN, locate

    console = Console(highlight=False)
    engines = Table("engine", "what", title="Engines", title_justify="left")
    for name, entry in sorted(ENGINES.items()):
        engines.add_row(name, Text(entry.summary))
    console.print(engines)
    weights = Table("model", "size, licence", "here", title="Models to pull", title_justify="left")
    for name, known in sorted(KNOWN.items()):
        path = locate(name)
        here = str(path) if path else f"no; lbt-sim models pull {name}"
        weights.add_row(name, f"{known.size / 1e6:.0f} MB, {known.licence}", Text(here))
    console.print(weights)


@app.command("pull")
def pull(name: Annotated[str, typer.Argument(help="A model of `lbt-sim models list`.", show_default=False)]) -> None:
    """Fetch a model, verify its checksum, and keep it.

    Example: lbt-sim models pull smollm2-135m
    """
    from lbt_sim.cli.fetch import fetch

    typer.echo(str(fetch(name)))


@app.command("serve")
def serve(scenario: Scenario, set_: Sets = None, engine: Engine = None) -> None:
    """Start the vLLM servers of a scenario and keep them up for many runs, until Ctrl-C.

    Runs whose models say the same use them, instead of starting their own, and leave them alone.

    Example: lbt-sim models serve quickstart --engine vllm
    """
    import asyncio

    from rich.console import Console
    from rich.text import Text

    from lbt_sim.errors import Place, ScenarioError
    from lbt_sim.models.registry import check_model
    from lbt_sim.models.vllm.keep import Kept, keep
    from lbt_sim.models.vllm.spec import VllmSpec
    from lbt_sim.scenario.load import load_scenario

    loaded = load_scenario(scenario, sets=set_ or (), engine=engine)
    entries: dict[str, VllmSpec] = {}
    for name, spec in loaded.file.models.items():
        if spec.engine == "vllm":
            checked = check_model(name, spec, loaded.place(f"models.{name}"))
            assert isinstance(checked, VllmSpec)  # noqa: S101 - for the type checker
            entries[name] = checked
    if not entries:
        raise ScenarioError(
            "none of its models is on the engine `vllm`",
            where=Place(loaded.source.file, key="models"),
            remedy="Set `engine: vllm` for the models that are to be served, or add `--engine vllm`.",
        )
    _fetch_known(entries)
    console = Console(highlight=False, soft_wrap=True)

    def ready(servers: list[Kept]) -> None:
        for server in servers:
            console.print(Text(f"ready: {server.name} ({server.model}) at {server.url} as {server.served}"))
            console.print(Text(f"       log: {server.log}"))
        console.print(Text("Runs whose models say the same use these servers now. Ctrl-C stops them."))

    asyncio.run(keep(entries, lambda text: console.print(Text(text)), ready))


def _fetch_known(entries: Mapping[str, VllmSpec]) -> None:
    """Fetches the weights that are not here yet."""
    from lbt_sim.cli.fetch import fetch
    from lbt_sim.models.weights import KNOWN, locate

    for spec in entries.values():
        if spec.model in KNOWN and locate(spec.model) is None:
            fetch(spec.model)
