"""Weights fetched with a progress bar, before a run starts."""

from __future__ import annotations

from pathlib import Path

from lbt_sim.setup import Prepared, models_needed

__all__ = ["fetch", "fetch_models"]


def fetch_models(prepared: Prepared, *, quiet: bool = False) -> None:
    """Fetches the weights that the run needs and that are not here yet."""
    from lbt_sim.models.weights import KNOWN, locate

    for name in models_needed(prepared):
        spec = prepared.file.models[name]
        options = spec.model_extra or {}
        wanted = options.get("model")
        known = isinstance(wanted, str) and wanted in KNOWN
        ours = spec.engine == "llamacpp" or (spec.engine == "vllm" and not options.get("urls"))
        if ours and known and locate(str(wanted)) is None:
            fetch(str(wanted), quiet=quiet)


def fetch(name: str, *, quiet: bool = False) -> Path:
    """Fetches known weights; the bar is on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from lbt_sim.models.weights import pull

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bars:
        task = bars.add_task(f"fetching {name}", total=None)

        def progress(done: int, total: int | None) -> None:
            bars.update(task, completed=done, total=total)

        return pull(name, progress)
