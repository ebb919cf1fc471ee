"""A scenario that has been read, completed and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lbt_sim.errors import Place, ScenarioError
from lbt_sim.library import Library, Source
from lbt_sim.scenario.presets import Explained, explain
from lbt_sim.scenario.schema import ClassroomFile, ScenarioFile
from lbt_sim.scenario.validation import validate_model
from lbt_sim.scenario.yaml import Document, KeyPath, parse_path, read_yaml

__all__ = ["LoadedScenario", "Room", "classroom_of", "read_classroom", "resolve_classroom"]


@dataclass(frozen=True)
class LoadedScenario:
    """A scenario with everything that it says and everything that it leaves to defaults.

    Attributes:
        file: The checked values.
        library: Where its agents and classrooms are looked up, and what has been read of them.
        name: What the scenario is called: its file's name without `.yaml`.
        source: The file that it was read from.
        document: What is written there, flags applied, with line numbers.
        presets: Key path -> the preset that gave the value.
        from_run: Whether it was read from a run folder; its data files may then stand anywhere.
    """

    file: ScenarioFile
    library: Library
    name: str
    source: Source
    document: Document
    presets: Mapping[KeyPath, str]
    from_run: bool = False

    @property
    def origins(self) -> list[Explained]:
        """Every value, by dotted key, with where it comes from; what `validate --explain` prints."""
        return explain(self.file, self.document, self.presets)

    def place(self, key: str | Sequence[str | int]) -> Place:
        """Where a key stands: file and line, or the flag that set it."""
        return self.document.place(parse_path(key) if isinstance(key, str) else key)

    def error(
        self, key: str | Sequence[str | int], what: str, valid: Sequence[str] = (), remedy: str = ""
    ) -> ScenarioError:
        """An error about the value of a key."""
        return ScenarioError(what, where=self.place(key), valid=valid, remedy=remedy)

    def data_file(self, name: str) -> Path:
        """The path of a data file that `task` names. Any path is taken from `--set` and from a run folder.

        Raises:
            ScenarioError: It is not there, or the scenario names a file outside its folders.
        """
        key: KeyPath = ("task",)
        for field, given in (("jsonl", self.file.task.jsonl), ("csv", self.file.task.csv)):
            if given == name:
                key = ("task", field)
            elif isinstance(given, list) and name in given:
                key = ("task", field, given.index(name))
        trusted = self.from_run or self.document.flag(key) is not None
        return self.library.data_file(name, trusted, where=self.place(key))


@dataclass(frozen=True)
class Room:
    """The classroom that a scenario names or holds.

    Attributes:
        file: Seats and edge rules.
        read_file: Gives the text of a graph file that it names, looked up beside it.
        place: Gives the place of a key of the classroom.
    """

    file: ClassroomFile
    read_file: Callable[[str], str]
    place: Callable[[str], Place]


def resolve_classroom(loaded: LoadedScenario) -> Room:
    """The scenario's classroom, from the library or from the scenario itself.

    Raises:
        ScenarioError: There is no such classroom, or its file has mistakes.
    """
    named = loaded.file.classroom
    if isinstance(named, str):
        return read_classroom(loaded.library, loaded.library.find("classrooms", named, where=loaded.place("classroom")))
    return _room(loaded.library, named, loaded.document, ("classroom",), "classrooms/")


def read_classroom(library: Library, source: Source) -> Room:
    """A classroom from its own file.

    Raises:
        ScenarioError: The file has mistakes.
    """
    return classroom_of(library, source, read_yaml(source.text, source.file))


def classroom_of(library: Library, source: Source, document: Document) -> Room:
    """A classroom from its own file, which was read already.

    Raises:
        ScenarioError: The file has mistakes.
    """
    return _room(library, validate_model(document, ClassroomFile), document, (), source.path)


def _room(library: Library, file: ClassroomFile, document: Document, prefix: KeyPath, base: str) -> Room:

    def place(key: str) -> Place:
        return document.place((*prefix, *parse_path(key)))

    def read_file(name: str) -> str:
        keys = ["file", *(f"edges[{number}].topology.file" for number in range(len(file.edges)))]
        paths = [(*prefix, *parse_path(key)) for key in keys]
        where = next((document.place(path) for path in paths if document.at(path) == name), place(""))
        return library.read(name, base=base, where=where).text

    return Room(file, read_file, place)
