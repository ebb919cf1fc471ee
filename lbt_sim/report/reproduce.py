"""How a run or a study is made again: commands that work where they are said to, and with what it was made."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbt_sim.folders import SCENARIO_FILE
from lbt_sim.manifest import MANIFEST_FILE
from lbt_sim.study.results import StudyResults

__all__ = ["Commands", "go_on", "run_commands", "study_commands", "versions"]

Data = Mapping[str, Any]
_PROGRAM = "lbt-sim"


@dataclass(frozen=True, slots=True)
class Commands:
    """Commands to be copied.

    Attributes:
        place: From where they work, a sentence.
        rows: (what it does, the command).
    """

    place: str
    rows: tuple[tuple[str, str], ...]


def run_commands(folder: Path) -> Commands:
    """Of a run: its folder does not know from where it was made, nor how lbt-sim was called."""
    name = folder.resolve().name
    # A folder with scenario and manifest alone is a run that has asked nothing yet: resuming it asks everything.
    files = [f"{name}/{SCENARIO_FILE}", f"{name}/{MANIFEST_FILE}"]
    return Commands(
        f"From the directory that holds {name}; in a checkout of lbt-sim with uv run before it.",
        (
            ("The same again, asking the models anew", _again("cp", files, f"{_PROGRAM} resume again")),
            ("Every step again from the ledger, no model asked", shlex.join([_PROGRAM, "replay", name])),
            ("The transcript, in the terminal", shlex.join([_PROGRAM, "show", name])),
            ("This report", shlex.join([_PROGRAM, "report", name])),
        ),
    )


def study_commands(results: StudyResults) -> Commands:
    """Of a study: as it was called when it was made, from where it was made, unless its folder has moved since."""
    made, program = _command(results), _program(results)
    folder, moved = _folder(results)
    run = next(iter(results.runs.values()), None)
    # Its runs are read from where they are; who resumes without them makes them all anew, from the same plan.
    files = [f"{folder}/study.yaml", f"{folder}/conditions", f"{folder}/{MANIFEST_FILE}"]
    rows = [("The same plan again, every run anew", _again("cp -r", files, shlex.join([*program, "resume", "again"])))]
    if made:
        where = ", from where it was given" if moved else ""
        named = any(part.partition("=")[0] in {"--out", "-o"} for part in made)
        new = "; while its folder is there, --out has to name another" if named and not moved else ""
        rows.insert(0, (f"The command that made it{where}{new}", shlex.join(made)))
    if run is not None:
        rows.append(("One of its runs, read", shlex.join([*program, "show", f"{folder}/{run.folder}"])))
    rows.append(("This report", shlex.join([*program, "report", folder])))
    place = "that holds the study's folder" if moved else "in which the study was begun"
    return Commands(f"From the directory {place}.", tuple(rows))


def go_on(results: StudyResults) -> str:
    """The command that goes on with a study."""
    return shlex.join([*_program(results), "resume", _folder(results)[0]])


def _again(copy: str, files: Sequence[str], then: str) -> str:
    return f"mkdir again && {copy} {shlex.join([*files, 'again/'])} && {then}"


def _command(results: StudyResults) -> list[str]:
    said = results.facts.get("command")
    return [str(part) for part in said] if isinstance(said, (list, tuple)) else []


def _program(results: StudyResults) -> list[str]:
    """What stands before a subcommand: `lbt-sim`, or `uv run lbt-sim` in a checkout."""
    made = _command(results)
    return made[: made.index(_PROGRAM) + 1] if _PROGRAM in made else [_PROGRAM]


def _folder(results: StudyResults) -> tuple[str, bool]:
    """The study's folder as it was named when it was made; by its name alone where it has moved since."""
    there, said = results.folder.resolve(), results.facts.get("folder")
    if isinstance(said, str) and said:
        parts = tuple(part for part in Path(os.path.normpath(said)).parts if part != os.pardir)
        if there.parts[len(there.parts) - len(parts) :] == parts:
            return said, False
    return there.name, True


def versions(manifest: Data) -> list[tuple[str, str]]:
    """With which versions it was made, and on what problems, as the manifest says."""
    packages = manifest.get("packages")
    rows = [(key, str(manifest[key])) for key in ("lbt_sim", "python", "platform", "sqlite") if manifest.get(key)]
    if isinstance(packages, Mapping):
        told = ", ".join(f"{name} {version}" for name, version in packages.items() if version and name != "lbt-sim")
        rows.append(("packages", told))
    sources = manifest.get("task_sources")
    if isinstance(sources, Mapping):
        rows += [(f"problems: {name}", str(source)) for name, source in sources.items()]
    return rows
