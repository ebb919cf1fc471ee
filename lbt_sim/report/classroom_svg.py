"""The classroom as a picture: who sits where, and who hears whom, from the edges alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lbt_sim.classroom.graph import Classroom
from lbt_sim.transcript.figures import plural

__all__ = ["Drawing", "Edge", "Place", "classroom_of", "drawing"]

_SEATS, _EDGES, _NAMED = 200, 1200, 28
"""A classroom with more seats or edges is told in numbers; of many seats the names stand in the tables only."""
_CENTRE_X, _WIDE = 260.0, 520
_NAME = 14


@dataclass(frozen=True, slots=True)
class Place:
    """A seat in the picture; `anchor` and `dx`, `dy` say where its name stands."""

    name: str
    short: str
    role: str
    about: str
    x: float
    y: float
    anchor: str
    dx: float
    dy: float


@dataclass(frozen=True, slots=True)
class Edge:
    """A line between two seats, ending at their rims; `both`: either hears the other."""

    kind: str
    path: str
    both: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """A classroom in the picture's units, and in words.

    Attributes:
        width: Of the picture; 0 where it is only told in words.
        height: The same.
        places: The seats.
        edges: Who hears whom.
        words: `1 teacher, 6 students; 6 teaches, 12 discusses`.
        named: Whether names stand beside the seats.
        radius: Of a seat.
    """

    width: int
    height: int
    places: tuple[Place, ...]
    edges: tuple[Edge, ...]
    words: str
    named: bool
    radius: float


def classroom_of(run: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes a classroom distinct: the roles of its seats and the edges among them; from a `run` event."""
    seats = [seat for seat in run.get("seats") or () if _sits(seat)]
    number = {str(seat["name"]): at for at, seat in enumerate(seats)}
    edges = sorted((number[source], number[target], kind) for source, target, kind in run.get("edges") or ())
    return tuple(str(seat["role"]) for seat in seats), tuple(edges), tuple(sorted(_counts(run).items()))


def drawing(run: Mapping[str, Any]) -> Drawing | None:
    """The classroom of a run, from its `run` event; None where that was not recorded."""
    seats = [seat for seat in run.get("seats") or () if _sits(seat)]
    if not seats:
        return None
    words = _words(seats, _counts(run))
    edges = [tuple(map(str, edge)) for edge in run.get("edges") or ()]
    if len(seats) > _SEATS or len(edges) > _EDGES or not edges:
        return Drawing(0, 0, (), (), words, named=False, radius=0)
    classroom = Classroom.from_edges([(str(seat["name"]), str(seat["role"])) for seat in seats], edges)
    spots, height = _layout(classroom)
    radius = 9.0 if len(seats) <= _NAMED else 5.0
    about = {str(seat["name"]): _about(seat) for seat in seats}
    places = tuple(_place(classroom, name, spots, about[name], radius) for name in classroom.names)
    named = len(seats) <= _NAMED
    return Drawing(_WIDE, height, places, tuple(_lines(edges, spots, radius)), words, named=named, radius=radius)


def _sits(seat: Mapping[str, Any]) -> bool:
    return seat.get("role") in {"teacher", "assistant", "student"}


def _counts(run: Mapping[str, Any]) -> dict[str, int]:
    return {str(kind): int(number) for kind, number in (run.get("edge_counts") or {}).items() if number}


def _words(seats: Sequence[Mapping[str, Any]], counts: Mapping[str, int]) -> str:
    roles = {role: sum(seat["role"] == role for seat in seats) for role in ("teacher", "assistant", "student")}
    people = ", ".join(plural(number, role) for role, number in roles.items() if number)
    return f"{people}; edges: " + ", ".join(f"{number:,} {kind}" for kind, number in counts.items())


def _about(seat: Mapping[str, Any]) -> str:
    parts = [str(seat["name"]), str(seat["role"]), f"model {seat.get('model')}"]
    return ", ".join([*parts, *([f"persona {seat['persona']}"] if seat.get("persona") else [])])


# --- where everyone sits ------------------------------------------------------------------------------------


def _layout(classroom: Classroom) -> tuple[dict[str, tuple[float, float]], int]:
    """Seat -> place, and the height: students round their teacher, or layers above groups."""
    groups = classroom.groups()
    talks = any(len(group) > 1 for group in groups)
    teachers, assistants = classroom.by_role("teacher"), classroom.by_role("assistant")
    if len(teachers) == 1 and not assistants and (not talks or len(groups) == 1):
        return _round_table(classroom, teachers[0])
    spots = _row(teachers, 36.0)
    y = 36.0
    if assistants:
        y += 84
        spots |= _row(assistants, y)
    placed, height = _clusters(classroom, groups, y + 64)
    return spots | placed, height


def _round_table(classroom: Classroom, teacher: str) -> tuple[dict[str, tuple[float, float]], int]:
    students = [name for name in classroom.names if name != teacher]
    radius = min(170.0, 92.0 + 3.2 * len(students))
    centre = radius + 42
    if len(students) <= 3 and not classroom.edge_counts()["discusses"]:
        return {teacher: (_CENTRE_X, 36.0), **_row(students, 128.0)}, 176
    start = -math.pi / 2 + (math.pi / len(students) if len(students) % 2 == 0 else 0.0)
    spots = {teacher: (_CENTRE_X, centre)} | {
        name: (
            _CENTRE_X + radius * math.cos(start + 2 * math.pi * at / len(students)),
            centre + radius * math.sin(start + 2 * math.pi * at / len(students)),
        )
        for at, name in enumerate(students)
    }
    return spots, round(2 * centre)


def _row(names: Sequence[str], y: float) -> dict[str, tuple[float, float]]:
    gap = min(150.0, (_WIDE - 90) / max(1, len(names) - 1)) if len(names) > 1 else 0.0
    first = _CENTRE_X - gap * (len(names) - 1) / 2
    return {name: (first + gap * at, y) for at, name in enumerate(names)}


def _clusters(
    classroom: Classroom, groups: Sequence[Sequence[str]], top: float
) -> tuple[dict[str, tuple[float, float]], int]:
    """Groups of students as circles, as many beside each other as fit."""
    if all(len(group) == 1 for group in groups):
        names = [group[0] for group in groups]
        rows = [names[at : at + 6] for at in range(0, len(names), 6)]
        spots: dict[str, tuple[float, float]] = {}
        for number, row in enumerate(rows):
            spots |= _row(row, top + 24 + 62 * number)
        return spots, round(top + 24 + 62 * (len(rows) - 1) + 44)
    across = min(len(groups), 3 if max(map(len, groups)) <= 6 else 2 if max(map(len, groups)) <= 12 else 1)
    radii = [0.0 if len(group) == 1 else min(140.0, 34.0 + 6.0 * len(group)) for group in groups]
    cell = (_WIDE - 40) / across
    spots, y = {}, top
    for start in range(0, len(groups), across):
        beside = list(zip(groups[start : start + across], radii[start : start + across], strict=True))
        tall = max(radius for _, radius in beside)
        for at, (group, radius) in enumerate(beside):
            middle = _CENTRE_X + cell * (at - (len(beside) - 1) / 2)
            for place, name in enumerate(group):
                angle = -math.pi / 2 + 2 * math.pi * place / len(group)
                spots[name] = (middle + radius * math.cos(angle), y + tall + radius * math.sin(angle))
        y += 2 * tall + 66
    return spots, round(y)


def _place(
    classroom: Classroom, name: str, spots: Mapping[str, tuple[float, float]], about: str, radius: float
) -> Place:
    """The seat, its name outside the circle that it sits on."""
    x, y = spots[name]
    role = classroom.role_of(name)
    short = name if len(name) <= _NAME else name[: _NAME - 1] + "…"
    alike = [spots[other] for other in classroom.by_role("student")] if role == "student" else []
    side = 0.0
    if len(alike) > 3:
        group = next(group for group in classroom.groups() if name in group)
        ring = [spots[other] for other in group] if len(group) > 2 else alike
        centre = sum(spot[0] for spot in ring) / len(ring)
        flat = max(spot[1] for spot in ring) - min(spot[1] for spot in ring) < 1
        reach = max(abs(spot[0] - centre) for spot in ring) or 1.0
        side = 0.0 if flat else (x - centre) / reach
    if abs(side) > 0.35:
        to_right = side > 0
        dx = radius + 5 if to_right else -radius - 5
        return Place(name, short, role, about, _r(x), _r(y), "start" if to_right else "end", dx, 4)
    above = role != "student" or (len(alike) > 3 and y < sum(spot[1] for spot in alike) / len(alike) - 1)
    return Place(name, short, role, about, _r(x), _r(y), "middle", 0, -radius - 7 if above else radius + 15)


def _lines(edges: Sequence[tuple[str, ...]], spots: Mapping[str, tuple[float, float]], radius: float) -> list[Edge]:
    there = {(source, target, kind) for source, target, kind in edges}
    found = []
    for source, target, kind in edges:
        both = (target, source, kind) in there
        if both and source > target:
            continue  # drawn once, with a head at each end
        (x1, y1), (x2, y2) = spots[source], spots[target]
        length = math.hypot(x2 - x1, y2 - y1) or 1.0
        ux, uy = (x2 - x1) / length, (y2 - y1) / length
        start, end = radius + 3, radius + 5
        points = (x1 + ux * start, y1 + uy * start, x2 - ux * end, y2 - uy * end)
        found.append(Edge(kind, "M{} {}L{} {}".format(*map(_r, points)), both))
    return found


def _r(value: float) -> float:
    return round(value, 1)
