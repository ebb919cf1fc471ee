"""What a classroom must be so that it can be taught in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lbt_sim.classroom.bits import closure, indices, mask_of
from lbt_sim.classroom.graph import EDGE_KINDS, Classroom, EdgeKind, Role
from lbt_sim.errors import ClassroomError

__all__ = ["check", "named"]

_MAY: dict[EdgeKind, tuple[tuple[Role, ...], tuple[Role, ...]]] = {
    "teaches": (("teacher", "assistant"), ("assistant", "student")),
    "assists": (("assistant",), ("assistant", "student")),
    "discusses": (("assistant", "student"), ("assistant", "student")),
}

_WHY: dict[EdgeKind, str] = {
    "teaches": "`teaches` runs from a teacher (or an assistant) to assistants and students; talk among students is "
    "`kind: discusses`.",
    "assists": "`assists` runs from an assistant to assistants and students; a teacher's edges are `kind: teaches`.",
    "discusses": "`discusses` joins students, or assistants and students; a teacher is joined by `kind: teaches`.",
}


def named(names: Iterable[str], limit: int = 8) -> str:
    """The names as a list in a sentence, cut off after `limit`."""
    known = list(names)
    more = f" and {len(known) - limit} more" if len(known) > limit else ""
    return ", ".join(known[:limit]) + more


def check(classroom: Classroom) -> None:
    """Raises a `ClassroomError` that names the seats, unless every student can be taught by someone.

    Checked: there are teachers and students; edges keep to their roles; nobody speaks to itself; material does not
    run in a circle; every assistant is taught; a path of edges leads from a teacher to every student.
    """
    _check_roles_present(classroom)
    _check_edges(classroom)
    _check_circle(classroom)
    _check_assistants(classroom)
    _check_reach(classroom)


def _mask(classroom: Classroom, roles: Sequence[Role]) -> int:
    return mask_of(number for number, seat in enumerate(classroom.seats) if seat.role in roles)


def _check_roles_present(classroom: Classroom) -> None:
    for role, key in (("teacher", "cast.teacher"), ("student", "cast.students")):
        if not _mask(classroom, (role,)):  # type: ignore[arg-type]
            raise ClassroomError(
                f"There is no {role} in the classroom.",
                remedy=f"Cast at least one under `{key}`, and give the classroom a seat for it.",
            )


def _check_edges(classroom: Classroom) -> None:
    everyone = (1 << len(classroom.seats)) - 1
    for kind, rows in zip(EDGE_KINDS, classroom.wires, strict=True):
        may_speak, may_hear = (_mask(classroom, roles) for roles in _MAY[kind])
        for number, row in enumerate(rows):
            speaker = classroom.seats[number]
            if row >> number & 1:
                raise ClassroomError(
                    f"'{speaker.name}' has an edge to itself ({kind}).",
                    remedy="Remove the edge: what one says, one knows.",
                )
            barred = row & (everyone if not may_speak >> number & 1 else ~may_hear)
            if barred:
                hearers = [f"{classroom.seats[i].name} ({classroom.seats[i].role})" for i in indices(barred)]
                raise ClassroomError(
                    f"'{speaker.name}' is a {speaker.role}: no edge of kind `{kind}` can run from it to "
                    f"{named(hearers)}.",
                    valid=EDGE_KINDS,
                    remedy=_WHY[kind],
                )


def _check_circle(classroom: Classroom) -> None:
    # Only assistants both hear and pass on material, so only they can stand in a circle.
    above: dict[str, list[str]] = {
        name: [source for source in classroom.teachers_of(name) if classroom.role_of(source) == "assistant"]
        for name in classroom.by_role("assistant")
    }
    waiting = dict(above)
    while free := [name for name, sources in waiting.items() if not any(source in waiting for source in sources)]:
        for name in free:
            del waiting[name]
    if not waiting:
        return
    walk = [next(iter(waiting))]
    while walk[-1] not in walk[:-1]:
        walk.append(next(source for source in waiting[walk[-1]] if source in waiting))
    circle = walk[walk.index(walk[-1]) :][::-1]
    raise ClassroomError(
        f"Material would run in a circle: {' → '.join(circle)}.",
        remedy="Remove one of these `teaches` or `assists` edges, or make them `discusses`.",
    )


def _check_assistants(classroom: Classroom) -> None:
    deaf = [name for name in classroom.by_role("assistant") if not classroom.teachers_of(name)]
    if deaf:
        raise ClassroomError(
            f"Nobody teaches {named(deaf)}: an assistant passes on what it hears, and would have nothing to say.",
            remedy="Add `{from: teacher, to: assistant, kind: teaches}`, or an `assists` edge from another assistant.",
        )


def _check_reach(classroom: Classroom) -> None:
    rows = [teaches | assists | talk for teaches, assists, talk in zip(*classroom.wires, strict=True)]
    missed = _mask(classroom, ("student",)) & ~closure(_mask(classroom, ("teacher",)), rows)
    if missed:
        names = [classroom.names[number] for number in indices(missed)]
        raise ClassroomError(
            f"No path of edges leads from a teacher to {named(names)}: unreachable, they would sit the exam untaught.",
            remedy="Add an edge to each, for example `{from: teacher, to: student, kind: teaches}`.",
        )
