"""A run folder's manifest: read, and written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lbt_sim.errors import InputError, Place

__all__ = ["MANIFEST_FILE", "installed", "read_manifest", "write_manifest"]

MANIFEST_FILE = "manifest.json"


def read_manifest(folder: Path) -> dict[str, Any]:
    """A run's manifest.

    Raises:
        InputError: There is none, or it is damaged.
    """
    file = folder / MANIFEST_FILE
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(facts, dict) or not all(isinstance(facts.get(k), dict) for k in ("task_sources", "models")):
            raise ValueError("it is not what lbt-sim writes")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"the manifest is damaged: {error}",
            where=Place(str(file)),
            remedy="Put the file back as it was. The calls are in run.sqlite: `lbt-sim show` still reads them.",
        ) from error
    return facts


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
