"""Where agents, classrooms, scenarios and data are looked for, and what a run has read of them.

A library is a row of layers: what a run folder kept, beside the scenario, the working directory, what came with
lbt-sim. A relative path (`agents/student/answer.md.j2`) means the file in the first layer that has it, so a workspace
can replace a single template. Everything read is remembered: a run folder keeps it, and needs no other file later.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal, Protocol

from lbt_sim.errors import Place, ScenarioError, nearest
from lbt_sim.scenario.validation import show
from lbt_sim.scenario.yaml import MAX_BYTES, read_text

__all__ = [
    "KINDS",
    "DataFolder",
    "FolderLayer",
    "Kind",
    "Layer",
    "Library",
    "SnapshotLayer",
    "Source",
    "UnknownNameError",
    "beside",
    "built_in",
    "data_folders",
]

Kind = Literal["agents", "agents/personas", "classrooms", "scenarios", "scenarios/studies"]
KINDS: Mapping[Kind, str] = {
    "agents": "agent",
    "agents/personas": "persona",
    "classrooms": "classroom",
    "scenarios": "scenario",
    "scenarios/studies": "study",
}
"""Folder -> what one file in it is."""

DATA_VARIABLE = "LBT_SIM_DATA"

_FOLDERS = ("agents", "classrooms", "scenarios")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_MAX_OTHER = 10 << 20  # graphs may be larger than YAML


@dataclass(frozen=True, slots=True)
class Source:
    """A file of the library: its path there, its text, and the file as shown to people."""

    path: str
    text: str
    file: str


class UnknownNameError(ScenarioError):
    """A name that no layer of the library has."""

    def __init__(self, kind: Kind, name: str, names: Sequence[str], looked: str, where: Place | None) -> None:
        word = KINDS[kind]
        near = nearest(name, names)
        possible = _NAME.fullmatch(name)
        article = "an" if word[0] in "aeiou" else "a"
        plural = "studies" if word == "study" else f"{word}s"
        self.found = f"{plural.capitalize()} found: {', '.join(names) or 'none'}   ({looked})"
        super().__init__(
            f"{show(name)} is not {article} {word}" + (f"; did you mean '{near}'?" if near else ""),
            where=where,
            valid=names,
            remedy=f"Correct the name, or add {kind}/{name}.yaml." if possible else "Correct the name.",
        )

    def __str__(self) -> str:
        lines = [str(self.where)] if self.where and str(self.where) else []
        return "\n  ".join([*lines, self.what, self.found, self.remedy])


class Layer(Protocol):
    """One place to look in."""

    @property
    def label(self) -> str:
        """What to call the place in a message."""

    def read(self, path: str) -> Source | None:
        """The file at a relative path; None where there is none."""

    def names(self, folder: str) -> Iterable[str]:
        """Names of a folder's YAML files, without `.yaml`."""


@dataclass(frozen=True)
class FolderLayer:
    """A folder that has some of `agents/`, `classrooms/` and `scenarios/`."""

    root: Path
    label: str

    def read(self, path: str) -> Source | None:
        """The file, if it is there.

        Raises:
            ScenarioError: It is a link out of the folder, or cannot be read as text.
        """
        target = self.root / path
        if not target.is_file():
            return None
        file = _shown(target)
        if not target.resolve().is_relative_to(self.root.resolve()):
            raise ScenarioError(
                "this is a link that leads out of the workspace",
                where=Place(file),
                remedy="Put a copy of the file into the workspace.",
            )
        limit = MAX_BYTES if path.endswith((".yaml", ".yml", ".j2")) else _MAX_OTHER
        return Source(path, read_text(target, file, limit), file)

    def names(self, folder: str) -> Iterable[str]:
        """Names of the folder's YAML files."""
        at = self.root / folder
        return [file.stem for file in at.glob("*.yaml")] if at.is_dir() else []


@dataclass(frozen=True)
class SnapshotLayer:
    """Files that a run folder kept in its `scenario.yaml`."""

    files: Mapping[str, str]
    file: str
    label: str = "what the run kept"

    def read(self, path: str) -> Source | None:
        """The file, if the run kept it."""
        text = self.files.get(path)
        return None if text is None else Source(path, text, f"{self.file}[{path}]")

    def names(self, folder: str) -> Iterable[str]:
        """Names of the YAML files that were kept of a folder."""
        return [
            posixpath.basename(path).removesuffix(".yaml")
            for path in self.files
            if posixpath.dirname(path) == folder and path.endswith(".yaml")
        ]


def _shown(path: Path) -> str:
    """A path as people see it: relative where it lies in the working directory."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def built_in() -> FolderLayer:
    """The library that comes with lbt-sim: inside the installed package, or the folders of an editable checkout."""
    package = Path(str(files("lbt_sim")))
    checkout = package.parent
    project = checkout / "pyproject.toml"
    if project.is_file() and re.search(r'^name = "lbt-sim"$', project.read_text(encoding="utf-8"), re.MULTILINE):
        return FolderLayer(checkout, "the built-in library")
    return FolderLayer(package / "_library", "the built-in library")


def beside(file: Path) -> Path:
    """The workspace of a scenario's file: the folder that holds `scenarios/`, or else the file's own folder."""
    folder = file.resolve().parent
    above = (parent for parent in (folder, *folder.parents) if parent.name == "scenarios")
    return next((parent.parent for parent in above), folder)


class Library:
    """The layers, in the order in which they are searched, and the folders for data.

    Args:
        layers: Where to look; the first that has a file wins.
        data: Where to look for data files.
        known_data: Data file -> where it was found in an earlier run.
    """

    def __init__(
        self, layers: Sequence[Layer], *, data: Sequence[DataFolder] = (), known_data: Mapping[str, str] | None = None
    ) -> None:
        self.layers = tuple(layers)
        self.data = tuple(data)
        self.data_found = dict(known_data or {})
        self._read: dict[str, Source] = {}

    def names(self, kind: Kind) -> list[str]:
        """Every name of a kind, sorted."""
        return sorted({name for layer in self.layers for name in layer.names(kind)})

    def find(self, kind: Kind, name: str, *, where: Place | None = None) -> Source:
        """The YAML file of that kind and name.

        Args:
            kind: The folder.
            name: The file's name without `.yaml`.
            where: Where the name stands, for the error.

        Raises:
            UnknownNameError: No layer has it; lists the names that there are.
        """
        name = name.removesuffix(".yaml")
        source = self._look(f"{kind}/{name}.yaml") if _NAME.fullmatch(name) else None
        if source is None:
            looked = ", then ".join(dict.fromkeys(_looked(kind, layer) for layer in self.layers))
            raise UnknownNameError(kind, name, self.names(kind), looked, where)
        return source

    def read(self, path: str, *, base: str = "", where: Place | None = None) -> Source:
        """A file that another one names: a template beside an agent, a graph beside a classroom.

        Args:
            path: The path as written.
            base: The library path of the file that names it; `path` is relative to its folder.
            where: Where the path stands, for the error.

        Raises:
            ScenarioError: No layer has it, or it leads out of the workspace.
        """
        joined = posixpath.normpath(posixpath.join(posixpath.dirname(base), path))
        if posixpath.isabs(path) or "\\" in path or ":" in path or joined.split("/")[0] in ("..", ".", ""):
            raise ScenarioError(
                f"{show(path)} leads out of the workspace",
                where=where,
                remedy=f"Put the file into the workspace and write its path relative to {base or 'its root'}.",
            )
        source = self._look(joined)
        if source is None:
            looked = ", then ".join(dict.fromkeys(layer.label for layer in self.layers))
            raise ScenarioError(
                f"the file {show(joined)} is not there   ({looked})",
                where=where,
                remedy="Correct the path, or add the file.",
            )
        return source

    def _look(self, path: str) -> Source | None:
        if path not in self._read:
            source = next((found for layer in self.layers if (found := layer.read(path))), None)
            if source is None:
                return None
            self._read[path] = source
        return self._read[path]

    def snapshot(self) -> dict[str, str]:
        """Path -> text of every file that was read."""
        return {path: self._read[path].text for path in sorted(self._read)}

    def data_file(self, name: str, trusted: bool = False, *, where: Place | None = None) -> Path:
        """The path of a data file that a task names.

        Args:
            name: The file as written.
            trusted: Whether the user gave the name on the command line: then it may be any path.
            where: Where the name stands, for the error.

        Raises:
            ScenarioError: It is not there, or the scenario names a file outside its folders.
        """
        path = Path(name).expanduser() if trusted else Path(name)
        if not trusted and (path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name):
            raise ScenarioError(
                f"{show(name)} leads out of the workspace",
                where=where,
                remedy="Write the file's name alone, and pass the folder that holds it: --data DIR.",
            )
        known = self.data_found.get(name)
        places = [Path(known)] if known else []
        places += [path] if path.is_absolute() else [one for folder in self.data if (one := folder.file(path, trusted))]
        for place in places:
            if place.is_file():
                self.data_found[name] = str(place.resolve())
                return place
        looked = ", ".join(dict.fromkeys(_shown(folder.root) for folder in self.data))
        raise ScenarioError(
            f"the data file {show(name)} is not there" + ("" if path.is_absolute() else f"   (looked in: {looked})"),
            where=where,
            remedy=f"Pass the folder that holds it: --data DIR (or set {DATA_VARIABLE}).",
        )


def _looked(kind: str, layer: Layer) -> str:
    return f"{kind}/ {layer.label}" if layer.label == "here" else layer.label


@dataclass(frozen=True, slots=True)
class DataFolder:
    """A folder that data files are looked for in. One that the user named may hold links to elsewhere."""

    root: Path
    named_by_user: bool = False

    def file(self, path: Path, trusted: bool) -> Path | None:
        """The path below this folder; None where a link leads out of it."""
        target = self.root / path
        if trusted or self.named_by_user or target.resolve().is_relative_to(self.root.resolve()):
            return target
        return None


def data_folders(scenario: Path | None, cwd: Path, given: Sequence[Path | str] = ()) -> list[DataFolder]:
    """Where data files are looked for: beside the scenario, the working directory, its `data/`, then what was given.

    Args:
        scenario: The folder of the scenario's file.
        cwd: The working directory.
        given: The folders given with `--data`; those of the variable LBT_SIM_DATA come after them.
    """
    variable = [part for part in os.environ.get(DATA_VARIABLE, "").split(os.pathsep) if part]
    own = [DataFolder(root) for root in (*([scenario] if scenario else []), cwd, cwd / "data")]
    return own + [DataFolder(Path(root).expanduser(), named_by_user=True) for root in (*given, *variable)]
