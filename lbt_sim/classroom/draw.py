"""The classroom as plain text for terminals: a picture where it is small, figures where it is large.

Lines hold no markup and no escapes; seat names are identifiers, so nothing in them can be one.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from rich.cells import cell_len, set_cell_size

from lbt_sim.classroom.graph import ROLES, Classroom, EdgeKind, Role

__all__ = ["PICTURE_SEATS", "HearingRow", "draw", "hearing_table"]

PICTURE_SEATS = 12
"""Up to so many seats are drawn; more are summarised."""

_TABLE_ROWS = 12
_MEASURED_EDGES = 20_000
_MEASURED_SEATS = 400
_GAPS = ("   ", "  ")
_MARKS: dict[Role, str] = {"teacher": "● ", "assistant": "○ ", "student": ""}
_PLAIN = str.maketrans(
    {"●": "*", "○": "o", "↘": "\\", "↓": "|", "↙": "/", "→": "->", "↔": "<->", "·": "-", "…": "~", "–": "-"}
)


@dataclass(frozen=True, slots=True)
class HearingRow:
    """Whom one seat hears: in the lesson from teachers and assistants, in the discussion from peers."""

    seat: str
    role: Role
    teachers: tuple[str, ...]
    peers: tuple[str, ...]


def hearing_table(classroom: Classroom) -> list[HearingRow]:
    """Who hears whom, a row for each seat, in seat order."""
    return [
        HearingRow(seat.name, seat.role, classroom.teachers_of(seat.name), classroom.peers_heard_by(seat.name))
        for seat in classroom.seats
    ]


def draw(classroom: Classroom, width: int = 80, *, ascii_only: bool = False) -> list[str]:
    """The classroom in lines of at most `width` characters.

    Up to `PICTURE_SEATS` seats: layers (teachers, assistants, students; `[…]` holds those who talk with each other)
    with arrows, then every edge in words. More seats: counts, degrees, groups, and the first rows of who hears whom.

    Args:
        classroom: What to draw.
        width: Characters a line; at least 24.
        ascii_only: For terminals whose encoding is not UTF-8.
    """
    width = max(width, 24)
    small = len(classroom.seats) <= PICTURE_SEATS
    above = _picture(classroom, width) if small else []
    rows = _edges_in_words(classroom) if small else _summary(classroom)
    if small and not above:
        rows.insert(0, ("seats", ", ".join(f"{_MARKS[seat.role]}{seat.name}" for seat in classroom.seats)))
    below = [] if small else ["", *_hearing_lines(classroom, width)]
    if ascii_only:
        # Arrows in words become longer, so rows are made plain before they are wrapped.
        above, below = list(map(_plain, above)), list(map(_plain, below))
        rows = [(head, _plain(text)) for head, text in rows]
    wrapped = [line for head, text in rows for line in _wrapped(head, text, width)]
    return [line.rstrip() for line in (*above, *wrapped, *below)]


def _plain(line: str) -> str:
    return line.translate(_PLAIN).encode("ascii", "replace").decode("ascii")


def _wrapped(head: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(f"{head:<10} {text}", width, subsequent_indent=" " * 11, break_on_hyphens=False)


# --- small: a picture -------------------------------------------------------------------------------------------


def _layers(classroom: Classroom) -> list[tuple[tuple[str, ...], ...]]:
    """Top to bottom; a layer is groups of names."""
    depth: dict[str, int] = {}
    for name in classroom.relay_order():
        depth[name] = 1 + max((depth[source] for source in classroom.teachers_of(name)), default=-1)
    rows: dict[int, list[tuple[str, ...]]] = {}
    for name, at in depth.items():
        rows.setdefault(at, []).append((name,))
    return [*(tuple(rows[at]) for at in sorted(rows)), classroom.groups()]


def _picture(classroom: Classroom, width: int) -> list[str]:
    """The layers with arrows between them; nothing where they do not fit into `width`."""
    layers = _layers(classroom)
    gap = next(
        (gap for gap in _GAPS if all(cell_len(_row(classroom, layer, gap)[0]) <= width for layer in layers)), None
    )
    if gap is None:
        return []
    centres: dict[str, int] = {}
    lines: list[str] = []
    for groups in layers:
        text, starts = _row(classroom, groups, gap)
        indent = (width - cell_len(text)) // 2
        here = {name: indent + start + size // 2 for name, (start, size) in starts.items()}
        arrows = {at: _arrows(classroom, name, at, centres) for name, at in here.items()}
        if any(arrows.values()):
            lines.append(_placed(arrows))
        lines.append(" " * indent + text)
        centres |= here
    return [*lines, ""]


def _row(classroom: Classroom, groups: Sequence[Sequence[str]], gap: str) -> tuple[str, dict[str, tuple[int, int]]]:
    """One layer as text, and where each name stands in it: (start, width)."""
    text = ""
    starts: dict[str, tuple[int, int]] = {}
    for group in groups:
        text += (gap if text else "") + ("[" if len(group) > 1 else "")
        for place, name in enumerate(group):
            text += gap if place else ""
            label = _MARKS[classroom.role_of(name)] + name
            starts[name] = (cell_len(text), cell_len(label))
            text += label
        text += "]" if len(group) > 1 else ""
    return text, starts


def _arrows(classroom: Classroom, name: str, at: int, centres: dict[str, int]) -> str:
    """From which sides `name` is taught: from the left, from above, from the right."""
    sides = [centres[source] - at for source in classroom.teachers_of(name)]
    return (
        ("↘" if any(side < -1 for side in sides) else "")
        + ("↓" if any(abs(side) <= 1 for side in sides) else "")
        + ("↙" if any(side > 1 for side in sides) else "")
    )


def _placed(arrows: dict[int, str]) -> str:
    line = ""
    for at, mark in sorted(arrows.items()):
        line += " " * (at - len(mark) // 2 - len(line)) + mark if mark else ""
    return line


def _edges_in_words(classroom: Classroom) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for kind in ("teaches", "assists"):
        hearers: dict[str, list[str]] = {}
        for source, target, found in classroom.edges():
            if found == kind:
                hearers.setdefault(source, []).append(target)
        rows += [(kind, f"{source} → {', '.join(targets)}") for source, targets in hearers.items()]
    return rows + [("discusses", sentence) for sentence in _talk_in_words(classroom)]


def _talk_in_words(classroom: Classroom) -> list[str]:
    """Cliques in one sentence each, all other talk pair by pair."""
    talk = {(source, target) for source, target, kind in classroom.edges() if kind == "discusses"}
    sentences: list[str] = []
    for group in classroom.groups():
        pairs = set(combinations(group, 2))
        if len(group) > 2 and all((a, b) in talk and (b, a) in talk for a, b in pairs):
            sentences.append(f"{', '.join(group)}: all with each other")
            talk -= pairs | {(b, a) for a, b in pairs}
    names = classroom.names
    marks = [
        f"{a} ↔ {b}" if both else f"{a} → {b}" if (a, b) in talk else f"{b} → {a}"
        for a, b in combinations(names, 2)
        if (both := {(a, b), (b, a)} <= talk) or (a, b) in talk or (b, a) in talk
    ]
    return [*sentences, *([" · ".join(marks)] if marks else [])]


# --- large: figures ---------------------------------------------------------------------------------------------


def _summary(classroom: Classroom) -> list[tuple[str, str]]:
    counts = " · ".join(
        f"{count} {role}{'' if count == 1 else 's'}" for role in ROLES if (count := len(classroom.by_role(role)))
    )
    edges = classroom.edge_counts()
    rows = [("seats", counts)]
    for kind in ("teaches", "assists"):
        if edges[kind]:
            speakers = sum(bool(row) for row in classroom.wires[("teaches", "assists").index(kind)])
            rows.append((kind, f"{edges[kind]:,} edges from {speakers} seat{'' if speakers == 1 else 's'}"))
    heard = [len(classroom.teachers_of(name)) for name in classroom.by_role("student")]
    rows.append(("", f"each student is taught by {_spread(heard)}"))
    if edges["discusses"]:
        rows += _talk_figures(classroom, edges)
    return rows


def _spread(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high} (mean {sum(values) / len(values):.1f})"


def _talk_figures(classroom: Classroom, edges: dict[EdgeKind, int]) -> list[tuple[str, str]]:
    groups = classroom.groups()
    peers = [len(classroom.peers_heard_by(name)) for name in classroom.by_role("student")]
    rows = [
        ("discusses", f"{edges['discusses']:,} edges; each student hears {_spread(peers)}"),
        ("groups", f"{len(groups)}, of {_spread([len(group) for group in groups])}"),
    ]
    if edges["discusses"] == sum(len(group) * (len(group) - 1) for group in groups):
        rows.append(("shape", "all with each other in every group"))
    elif edges["discusses"] <= _MEASURED_EDGES:
        rows.append(("shape", _shape(classroom, max(groups, key=len))))
    return rows


def _shape(classroom: Classroom, group: Sequence[str]) -> str:
    import networkx as nx

    graph: nx.Graph[str] = nx.Graph(classroom.to_networkx("discusses").subgraph(group))
    clustering = f"clustering {nx.average_clustering(graph):.2f}"
    if len(graph) > _MEASURED_SEATS:
        return clustering
    return f"{clustering} · diameter {nx.diameter(graph)} (of the largest group)"


def _hearing_lines(classroom: Classroom, width: int) -> list[str]:
    seat = min(max(map(cell_len, classroom.names)) + 2, width // 3)
    rest = (width - seat) // 2
    lines = [f"{'seat':<{seat}}{'is taught by':<{rest}}{'hears in discussion'}"]
    table = hearing_table(classroom)
    for row in table[:_TABLE_ROWS]:
        cells = ((row.seat, seat), (_listed(row.teachers), rest), (_listed(row.peers), width - seat - rest))
        lines.append("".join(_cut(text, size) for text, size in cells))
    if len(table) > _TABLE_ROWS:
        lines.append(f"… and {len(table) - _TABLE_ROWS} more")
    return [set_cell_size(line, width) for line in lines]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" … {len(names)} in all" if len(names) > 20 else "") if names else "–"


def _cut(text: str, size: int) -> str:
    return set_cell_size(text, size) if cell_len(text) < size else set_cell_size(text, size - 2) + "… "
