"""A run folder's manifest: read, and written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lbt_sim.errors import InputError, Place

__all__ = ["MANIFEST_FILE", "RESUMED_WITH", "as_model", "caught_up", "installed", "read_manifest", "write_manifest"]

MANIFEST_FILE = "manifest.json"
RESUMED_WITH = "resumed_with"
"""In the manifest: what `resume --set` changed, in order. It holds from then on."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """A run's manifest.

    Raises:
        InputError: There is none, or it is damaged.
    """
    file = folder / MANIFEST_FILE
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(facts, dict) or not _sound(facts):
            raise ValueError("it is not what lbt-sim writes")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"the manifest is damaged: {error}",
            where=Place(str(file)),
            remedy="Put the file back as it was. The calls are in run.sqlite: `lbt-sim show` still reads them.",
        ) from error
    return facts


def caught_up(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest as it is by now, with what a process that read it before wants to change: `RESUMED_WITH`.

    Args:
        folder: The run's, locked by this process.
        manifest: As it was read, before another process may have gone on with the run, and changed since.

    Raises:
        InputError: It is gone, or damaged.
    """
    facts = read_manifest(folder)
    there, wanted = facts.get(RESUMED_WITH, []), manifest.get(RESUMED_WITH, [])
    same = next((n for n, pair in enumerate(zip(there, wanted, strict=False)) if pair[0] != pair[1]), len(there))
    return {**facts, RESUMED_WITH: [*there, *wanted[same:]]} if wanted[same:] else facts


def as_model(value: Any) -> dict[str, Any] | None:
    """What a manifest says of a model, `identity` and `detail`; None where it is not what lbt-sim writes."""
    if not isinstance(value, dict) or not isinstance(value.get("identity"), str):
        return None
    return {"detail": {}, **value} if isinstance(value.get("detail", {}), dict) else None


def _sound(facts: Mapping[str, Any]) -> bool:
    """Whether what is needed to go on with the run is there. Executions are only told."""
    sources, models, sets = facts.get("task_sources"), facts.get("models"), facts.get(RESUMED_WITH, [])
    return (
        isinstance(sources, dict)
        and isinstance(models, dict)
        and all(as_model(model) is not None for model in models.values())
        and isinstance(sets, list)
        and all(isinstance(one, str) for one in sets)
    )


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest whole or not at all, whatever happens meanwhile."""
    part = folder / f"{MANIFEST_FILE}.part"
    with part.open("w", encoding="utf-8") as file:
        file.write(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())  # a run can only be resumed with its manifest, and this one takes the place of another
    part.replace(folder / MANIFEST_FILE)


def installed(package: str) -> str | None:
    """The version of a package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
