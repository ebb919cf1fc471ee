"""YAML files by themselves, outside any scenario: which kind one is, and where what it names is looked up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from pydantic import BaseModel

from lbt_sim.errors import ScenarioError, nearest
from lbt_sim.library import FolderLayer, Layer, Library, Source, built_in
from lbt_sim.scenario.json_schema import SCHEMA_KINDS, SchemaKind
from lbt_sim.scenario.overrides import override
from lbt_sim.scenario.validation import show, validate_model
from lbt_sim.scenario.yaml import Document, read_text, read_yaml

__all__ = ["OwnFile", "file_kind", "own_file"]

Model = TypeVar("Model", bound=BaseModel)

_FOLDERS = ("agents", "classrooms")


def file_kind(name: str) -> SchemaKind:
    """What a file says that it is; a scenario where it says nothing, and for a name that is no file.

    Raises:
        ScenarioError: It cannot be read, or says something else.
    """
    path = Path(name).expanduser()
    if not (name.endswith((".yaml", ".yml")) or "/" in name) or not path.is_file():
        return "scenario"  # `load_scenario` looks names up, and says what is missing
    document = read_yaml(read_text(path, name), name)
    kind = document.value.get("kind", "scenario")
    if kind not in SCHEMA_KINDS:
        near = nearest(kind, SCHEMA_KINDS) if isinstance(kind, str) else None
        raise ScenarioError(
            f"{show(kind)} is not a kind of file" + (f"; did you mean '{near}'?" if near else ""),
            where=document.place(("kind",)),
            valid=SCHEMA_KINDS,
            remedy="Correct the kind. A file without one is a scenario.",
        )
    return cast(SchemaKind, kind)


@dataclass(frozen=True)
class OwnFile:
    """A file that was given by its path.

    Attributes:
        document: What it says, flags applied.
        source: Its text, and its path in the library.
        library: Where what it names is looked up: its own workspace, the working directory, the built-in library.
    """

    document: Document
    source: Source
    library: Library

    def model(self, model: type[Model]) -> Model:
        """The checked values.

        Raises:
            ScenarioError: Something does not fit.
        """
        return validate_model(self.document, model)


def own_file(name: str, sets: Sequence[str] = ()) -> OwnFile:
    """Reads a file by its path.

    Args:
        name: The path.
        sets: `key.path=value`, done in order.

    Raises:
        ScenarioError: It cannot be read, or is no YAML.
    """
    path, here = Path(name).expanduser(), Path.cwd().resolve()
    text = read_text(path, name)
    root = _workspace(path)
    layers: list[Layer] = [FolderLayer(here, "here"), built_in()]
    if root not in (here, built_in().root.resolve()):
        layers.insert(0, FolderLayer(root, f"beside {path.name}"))
    source = Source(path.resolve().relative_to(root).as_posix(), text, name)
    return OwnFile(override(read_yaml(text, name), sets), source, Library(layers))


def _workspace(path: Path) -> Path:
    """The folder that holds the file's `agents/` or `classrooms/`, or else the file's own folder."""
    folder = path.resolve().parent
    above = (parent for parent in (folder, *folder.parents) if parent.name in _FOLDERS)
    return next((parent.parent for parent in above), folder)
