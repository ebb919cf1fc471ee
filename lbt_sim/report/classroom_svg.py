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
    """Seat -> place, and the height: rows where few sit, else rings round the teachers."""
    students = _beside_each_other(classroom)
    teachers, assistants = classroom.by_role("teacher"), classroom.by_role("assistant")
    talks = any(len(group) > 1 for group in classroom.groups())
    if not talks and len(students) <= (_IN_A_ROW if assistants else 3):
        rows = [row for row in (teachers, assistants, students) if row]
        spots = {name: spot for at, row in enumerate(rows) for name, spot in _row(row, 36.0 + 92 * at).items()}
        return spots, round(36 + 92 * (len(rows) - 1) + 48)
    return _rings(classroom, students)


_IN_A_ROW = 8


def _beside_each_other(classroom: Classroom) -> list[str]:
    """The students so that those of one assistant, and of one group, sit beside each other."""
    group = {name: at for at, names in enumerate(classroom.groups()) for name in names}
    first = {name: classroom.number(next(iter(classroom.teachers_of(name)), name)) for name in group}
    # A group that hears several assistants stays together, with the first of them.
    lead = {at: min(first[name] for name in names) for at, names in enumerate(classroom.groups())}
    return sorted(group, key=lambda name: (lead[group[name]], group[name], first[name], classroom.number(name)))


def _row(names: Sequence[str], y: float) -> dict[str, tuple[float, float]]:
    gap = min(150.0, (_WIDE - 90) / max(1, len(names) - 1))
    first = _CENTRE_X - gap * (len(names) - 1) / 2
    return {name: (first + gap * at, y) for at, name in enumerate(names)}


def _rings(classroom: Classroom, students: Sequence[str]) -> tuple[dict[str, tuple[float, float]], int]:
    """Students on a circle, with gaps between groups; assistants on a smaller one before their pupils."""
    assistants = classroom.by_role("assistant")
    radius = min(180.0, 92.0 + 3.4 * len(students) + (36.0 if assistants else 0.0))
    centre = radius + 44
    angles = _angles(classroom, students)
    spots = {name: _on(centre, radius, angle) for name, angle in angles.items()}
    inner = [_towards([angles[pupil] for pupil in classroom.pupils_of(name) if pupil in angles]) for name in assistants]
    known = [angle for angle in inner if angle is not None]
    if len(known) < len(assistants) or len({round(angle, 2) for angle in known}) < len(assistants):
        known = [-math.pi / 2 + 2 * math.pi * at / len(assistants) for at in range(len(assistants))]
    spots |= {name: _on(centre, 0.56 * radius, angle) for name, angle in zip(assistants, known, strict=True)}
    teachers = classroom.by_role("teacher")
    gap = min(56.0, 0.7 * radius / max(1, len(teachers) - 1))
    spots |= {name: (_CENTRE_X + gap * (at - (len(teachers) - 1) / 2), centre) for at, name in enumerate(teachers)}
    return spots, round(2 * centre)


def _angles(classroom: Classroom, students: Sequence[str]) -> dict[str, float]:
    """Round the circle from the top; a gap as wide as a seat between groups where there are several."""
    group = {name: at for at, names in enumerate(classroom.groups()) for name in names}
    parted = 1 < len(set(group.values())) < len(students)
    place, places = 0.0, list[float]()
    for before, name in zip([students[-1], *students], students, strict=False):
        place += 1.0 if places and parted and group[before] != group[name] else 0.0
        places.append(place)
        place += 1.0
    whole = place + (1.0 if parted else 0.0)
    start = -math.pi / 2 + (math.pi / whole if not parted and len(students) % 2 == 0 else 0.0)
    return {name: start + 2 * math.pi * at / whole for name, at in zip(students, places, strict=True)}


def _towards(angles: Sequence[float]) -> float | None:
    """The middle of directions; None where there are none, or where they point everywhere."""
    x, y = sum(map(math.cos, angles)), sum(map(math.sin, angles))
    return math.atan2(y, x) if math.hypot(x, y) > 0.1 else None


def _on(centre: float, radius: float, angle: float) -> tuple[float, float]:
    return _CENTRE_X + radius * math.cos(angle), centre + radius * math.sin(angle)


def _place(
    classroom: Classroom, name: str, spots: Mapping[str, tuple[float, float]], about: str, radius: float
) -> Place:
    """The seat, its name outside the circle that it sits on."""
    x, y = spots[name]
    role = classroom.role_of(name)
    short = name if len(name) <= _NAME else name[: _NAME - 1] + "…"
    ring = [spots[other] for other in classroom.by_role("student")] if role == "student" else []
    low, high = min((spot[1] for spot in ring), default=y), max((spot[1] for spot in ring), default=y)
    round_ = high - low > 1
    reach = max((abs(spot[0] - _CENTRE_X) for spot in ring), default=0.0) or 1.0
    side = (x - _CENTRE_X) / reach if round_ else 0.0
    if abs(side) > 0.35:
        to_right = side > 0
        dx = radius + 5 if to_right else -radius - 5
        return Place(name, short, role, about, _r(x), _r(y), "start" if to_right else "end", dx, 4)
    above = role != "student" or (round_ and y < (low + high) / 2)
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
