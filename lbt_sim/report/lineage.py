"""Where the material comes from: a graph by rounds, and what changed from parent to child on the way to the best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lbt_sim.report.text import cut
from lbt_sim.transcript.diff import exemplar_changes, lecture_changes
from lbt_sim.transcript.material import origin
from lbt_sim.transcript.read import RunRecord

__all__ = ["Change", "Column", "Lineage", "Link", "Node", "Step", "lineage"]

Data = Mapping[str, Any]

_STEP_X, _STEP_Y, _TOP, _LEFT = 150, 22, 44, 64
_NODES = 40
"""Candidates drawn of one round; those of the beam always are, and of the others the best."""
_STEPS = 40
_TEXT = 1200


@dataclass(frozen=True, slots=True)
class Node:
    """A material in the picture.

    Attributes:
        id: Its name.
        x: Place, in the picture's units.
        y: The same.
        score: Its score in the selection of its round, on train problems; None: not scored.
        n: On how many answers.
        kept: Whether the beam of its round holds it.
        best: Whether it is on the way to the last round's best material.
        percent: How strong its colour is: from the lowest score of the picture, 8, to the highest, 100.
    """

    id: str
    x: int
    y: int
    score: float | None
    n: int
    kept: bool
    best: bool
    percent: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """From parent to child, or (stays) from a material to itself in the next round's beam."""

    path: str
    best: bool
    stays: bool


@dataclass(frozen=True, slots=True)
class Column:
    """A round's heading: where it stands, and what became of its candidates."""

    round: int
    x: int
    words: str
    left_out: int


@dataclass(frozen=True, slots=True)
class Change:
    """A line of a diff: `-`, `+` or `=`, and its text."""

    sign: str
    text: str
    answer: str = ""
    rationale: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """A child against its parent."""

    child: str
    parent: str
    round: int
    origin: str
    score: str
    best: bool
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Lineage:
    """The picture and the steps.

    Attributes:
        width: Of the picture.
        height: The same.
        nodes: Everything drawn.
        links: Between them.
        columns: A heading for each round.
        steps: Changes on the way to the best, then of the other materials that were kept.
        more: How many further steps are left out.
    """

    width: int
    height: int
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    columns: tuple[Column, ...]
    steps: tuple[Step, ...]
    more: int


def lineage(record: RunRecord) -> Lineage | None:
    """The lineage of a run's material; None where no material was made."""
    if not record.materials:
        return None
    way = _way(record)
    spans = _spans(record, way)
    placed: dict[tuple[str, int], Node] = {}
    columns = []
    for number in [0, *sorted(record.selections)]:
        nodes, left_out = _column(record, number, spans)
        placed |= {(node.id, number): node for node in nodes}
        columns.append(Column(number, _x(number), _became(record, number), left_out))
    placed = _shaded(placed)
    links = _links(record, placed)
    rows = Counter(number for _, number in placed)
    steps = _steps(record, way)
    return Lineage(
        width=_x(columns[-1].round) + 110,
        height=_TOP + _STEP_Y * max(rows.values(), default=1) + 34,
        nodes=tuple(placed.values()),
        links=tuple(links),
        columns=tuple(columns),
        steps=tuple(steps[:_STEPS]),
        more=max(0, len(steps) - _STEPS),
    )


def _x(number: int) -> int:
    return _LEFT + _STEP_X * number


def _best(record: RunRecord) -> str | None:
    """The material of the last report, or of the last beam, or the first."""
    if record.selections:
        beam = record.selections[max(record.selections)]["beam"]
        return str(beam[0]) if beam else None
    reports = list(record.reports.values())
    return str(reports[-1]["material"]) if reports else next(iter(record.materials), None)


def _way(record: RunRecord) -> list[str]:
    """From the first material to the best, by first parents."""
    name, way = _best(record), list[str]()
    while name is not None and name in record.materials and name not in way:
        way.append(name)
        parents = record.materials[name].get("parents") or []
        name = str(parents[0]) if parents else None
    return way[::-1]


def _spans(record: RunRecord, way: Sequence[str]) -> dict[str, range]:
    """Of each material on the way, the rounds in which it is the one that leads on: until its child is made."""
    rounds = [0, *sorted(record.selections)]
    first = {}
    for name in way:
        made = [
            n for n in sorted(record.selections) if any(row["id"] == name for row in record.selections[n]["candidates"])
        ]
        first[name] = 0 if not record.materials[name].get("parents") or not made else made[0]
    ends = [*(first[name] for name in way[1:]), max(rounds) + 1]
    return {name: range(first[name], end) for name, end in zip(way, ends, strict=True)}


def _shaded(placed: Mapping[tuple[str, int], Node]) -> dict[tuple[str, int], Node]:
    scores = [node.score for node in placed.values() if node.score is not None]
    low, high = min(scores, default=0.0), max(scores, default=1.0)
    span = (high - low) or 1.0
    return {
        key: node if node.score is None else replace(node, percent=round(8 + 92 * (node.score - low) / span))
        for key, node in placed.items()
    }


def _column(record: RunRecord, number: int, spans: Mapping[str, range]) -> tuple[list[Node], int]:
    """The materials of a round, the best on top: roots in round 0, later what was selected among."""
    selection = record.selections.get(number)
    if selection is None:
        roots = [name for name, data in record.materials.items() if not data.get("parents")]
        first = roots[:_NODES]
        nodes = [Node(name, _x(0), _y(at), None, 0, True, 0 in spans.get(name, ())) for at, name in enumerate(first)]
        return nodes, len(roots) - len(first)
    beam = list(selection["beam"])
    rows = {str(row["id"]): row for row in selection["candidates"]}
    order = sorted(rows, key=lambda name: (beam.index(name) if name in beam else len(beam), -(_score(rows[name]) or 0)))
    shown = order[: max(_NODES, len(beam))]
    nodes = [
        Node(
            name,
            _x(number),
            _y(at),
            _score(rows[name]),
            int(rows[name]["n"]),
            name in beam,
            number in spans.get(name, ()),
        )
        for at, name in enumerate(shown)
    ]
    return nodes, len(order) - len(shown)


def _y(at: int) -> int:
    return _TOP + 14 + _STEP_Y * at


def _score(row: Data) -> float | None:
    score = row.get("score")
    return float(score) if score is not None and score >= 0 else None


def _became(record: RunRecord, number: int) -> str:
    statuses = Counter(str(row["status"]) for row in record.candidates.get(number, []))
    return ", ".join(f"{count} {status}" for status, count in statuses.items())


def _links(record: RunRecord, placed: Mapping[tuple[str, int], Node]) -> list[Link]:
    """Each new material's line from its parent in the round before, and the lines of those that stay."""
    found = []
    for (name, number), node in placed.items():
        before = placed.get((name, number - 1))
        if before is not None:
            found.append(Link(_path(before, node), node.best and before.best, stays=True))
            continue
        for parent in record.materials.get(name, {}).get("parents") or ():
            source = placed.get((str(parent), number - 1))
            if source is not None:
                found.append(Link(_path(source, node), node.best and source.best, stays=False))
    # What leads to the best is drawn over the rest.
    return sorted(found, key=lambda link: link.best)


def _path(source: Node, target: Node) -> str:
    middle = (source.x + target.x) // 2
    return f"M{source.x} {source.y}C{middle} {source.y} {middle} {target.y} {target.x} {target.y}"


def _steps(record: RunRecord, way: Sequence[str]) -> list[Step]:
    """Every kept material that has a parent, those on the way to the best first."""
    made: dict[str, tuple[int, str]] = {}
    for number, selection in sorted(record.selections.items()):
        rows = {str(row["id"]): row for row in selection["candidates"]}
        for name in selection["beam"]:
            row = rows.get(name, {})
            score = _score(row)
            said = f"{score:.2f} on {int(row['n']):,} train answers" if score is not None else "not scored"
            made.setdefault(name, (number, said))
    kept = [name for name in way if name in made] + [name for name in made if name not in way]
    steps = []
    for name in kept:
        data = record.materials.get(name)
        parents = [str(p) for p in (data or {}).get("parents") or () if p in record.materials]
        if data is not None and parents:
            number, said = made[name]
            changes = _changes(record.materials[parents[0]], data)
            steps.append(Step(name, parents[0], number, origin(data), said, name in way, changes))
    return steps


def _changes(before: Data, after: Data) -> tuple[Change, ...]:
    if (before.get("lecture") is None) != (after.get("lecture") is None):
        return (Change("=", "of another kind: a lecture and exemplars cannot be compared"),)
    if after.get("lecture") is not None:
        told = lecture_changes(str(before["lecture"]), str(after["lecture"]))
        return tuple(Change(sign, f"{text} sentences kept" if sign == "=" else cut(text, _TEXT)) for sign, text in told)
    found = exemplar_changes(before.get("exemplars") or [], after.get("exemplars") or [])
    rows = [_line("-", exemplar) for exemplar in found.removed]
    rows += [_line("+", exemplar) for exemplar in found.added]
    for old, new in found.altered:
        rows += [_line("-", old), _line("+", new)]
    order = ", in another order" if found.reordered else ""
    return (*rows, Change("=", f"{found.kept} kept{order}"))


def _line(sign: str, exemplar: Data) -> Change:
    rationale = exemplar.get("rationale")
    return Change(
        sign,
        cut(str(exemplar.get("question", "")), _TEXT),
        cut(str(exemplar.get("answer", "")), 200),
        cut(str(rationale), _TEXT) if rationale else "",
    )
