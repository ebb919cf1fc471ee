"""A classroom by itself: built with an example cast, where no scenario says who sits in it."""

from __future__ import annotations

from collections.abc import Callable

from lbt_sim.classroom.build import build_classroom
from lbt_sim.classroom.files import FileGraph, read_graph
from lbt_sim.classroom.graph import ROLES, Classroom, Role
from lbt_sim.errors import ClassroomError, Place, nearest
from lbt_sim.scenario.schema import ClassroomFile, EdgeSpec
from lbt_sim.seeds import Seeds

__all__ = ["example_cast", "example_classroom"]

_TRIED = (6, 1, 12, 24, 48)
"""Students that are seated on `"*"`, one after the other: `k: 8` needs nine, a file may be for three. With 1 there
are as many as the classroom names."""
_OTHERS = 2
"""Teachers or assistants on `"*"`."""
_HIGHEST = 10_000
"""A larger number of a seat is a slip."""
_SPEAKS: dict[str | None, Role] = {"teaches": "teacher", "assists": "assistant"}

ReadFile = Callable[[str], str]


def example_classroom(
    file: ClassroomFile, *, seed: Seeds, read_file: ReadFile, place: Callable[[str], Place]
) -> Classroom:
    """The classroom with as many seats as it declares, and a few where it takes any number.

    Args:
        file: Seats and edge rules, or a file with the whole graph.
        seed: For random topologies.
        read_file: Gives the text of a file that the classroom names, or raises.
        place: Key of the classroom -> where it stands, for messages.

    Raises:
        ClassroomError: It cannot be built with any of the numbers that were tried; as with the first.
    """
    errors: list[ClassroomError] = []
    for students in _TRIED:
        cast = example_cast(file, students, read_file)
        try:
            return build_classroom(file, cast, seed=seed, read_file=read_file, place=place)
        except ClassroomError as error:
            errors.append(error)
            if not (_about_numbers(error) and "*" in file.seats.values()):
                break
    raise errors[0]


def _about_numbers(error: ClassroomError) -> bool:
    """Whether it may be well with another number of seats: a topology, or a graph file, does not fit this one."""
    key = error.where.key if error.where else ""
    return key is None or key.endswith("topology")


def example_cast(file: ClassroomFile, students: int, read_file: ReadFile) -> list[tuple[str, str]]:
    """(name, role) of everyone who might sit here: those whom the classroom names, the others numbered.

    Args:
        file: Seats and edge rules, or a file with the whole graph.
        students: How many students, where the classroom takes any number.
        read_file: Gives the text of a file that the classroom names, or raises.
    """
    if file.file is not None and "*" in file.seats.values():
        return _cast_of(read_graph(file.file, read_file))
    cast: list[tuple[str, str]] = []
    for role in ROLES:
        names = _named(file, role, read_file)
        declared = file.seats.get(role, 0)
        count = max(students if role == "student" else _OTHERS, len(names)) if declared == "*" else declared
        cast += [(name, role) for name in list(dict.fromkeys([*names, *_numbered(role, count)]))[:count]]
    return cast


def _numbered(role: str, count: int) -> list[str]:
    return [role] if count == 1 else [f"{role}_{number}" for number in range(1, count + 1)]


def _named(file: ClassroomFile, role: Role, read_file: ReadFile) -> list[str]:
    """The seats of a role that rules, or the graph files of rules, name."""
    names: list[str] = []
    for rule in file.edges:
        ends = {rule.from_: _SPEAKS.get(rule.kind, "student"), rule.to: "student", rule.among: "student"}
        names += [end for end, of in ends.items() if end and of == role and _is_name(end)]
        if rule.topology.file is not None and rule.among == role:
            names += _nodes(read_graph(rule.topology.file, read_file), rule)
    return [name for name in dict.fromkeys(names) if name.isidentifier()]


def _is_name(end: str) -> bool:
    """Whether it is neither a role nor what was meant to be one (`studnet`), nor `first` or `last` of one."""
    return end.isidentifier() and nearest(end, ROLES) is None


def _nodes(graph: FileGraph, rule: EdgeSpec) -> list[str]:
    names = [node.label or node.id for node in graph.nodes]
    highest = max((int(name) for name in names if name.isdecimal() and len(name) <= len(str(_HIGHEST))), default=-1)
    return [name for name in names if not name.isdecimal()] + _numbered(rule.among or "", min(highest + 1, _HIGHEST))


def _cast_of(graph: FileGraph) -> list[tuple[str, str]]:
    """Those who sit in a whole graph: by role as it gives them, as they are called, or as they speak."""
    numbers = [int(node.id) for node in graph.nodes if node.id.isdecimal() and node.role is None]
    if len(numbers) == len(graph.nodes):
        seats = min(max(numbers, default=0), _HIGHEST)
        return [("teacher", "teacher"), *((name, "student") for name in _numbered("student", seats))]
    speaks = {link.source: _SPEAKS[link.kind] for link in graph.links if link.kind in _SPEAKS}
    cast: list[tuple[str, Role]] = []
    for number, node in enumerate(graph.nodes):
        given = next((role for role in ROLES if (node.role or node.id).startswith(role)), None)
        name = next((name for name in (node.label, node.id) if name and name.isidentifier()), f"seat_{number}")
        cast.append((name, given or speaks.get(node.id, "student")))
    if not any(role == "teacher" for _, role in cast) and not any(node.role for node in graph.nodes):
        cast[0] = (cast[0][0], "teacher")
    return [*sorted(cast, key=lambda seat: ROLES.index(seat[1]))]
