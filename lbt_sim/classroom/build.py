"""From a classroom file and a cast to a classroom: seats are counted, rules are drawn, the result is checked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import cast as typed

from lbt_sim.classroom.bits import mask_of
from lbt_sim.classroom.checks import check
from lbt_sim.classroom.files import FileGraph, Link, match_nodes, read_graph
from lbt_sim.classroom.graph import EDGE_KINDS, ROLES, Classroom, EdgeKind, Role, Seat
from lbt_sim.classroom.topologies import wire
from lbt_sim.errors import ClassroomError, Place, nearest
from lbt_sim.scenario.schema import ClassroomFile, EdgeSpec, TopologySpec
from lbt_sim.seeds import Seeds

__all__ = ["build_classroom"]

_ONE = re.compile(r"^(first|last) (teacher|assistant|student)$")

_BY_ROLE: dict[Role, EdgeKind] = {"teacher": "teaches", "assistant": "assists", "student": "discusses"}
"""The kind of an edge that a file gives none for, by who speaks."""


def build_classroom(
    file: ClassroomFile,
    cast: Sequence[tuple[str, str]],
    *,
    seed: Seeds,
    read_file: Callable[[str], str],
    place: Callable[[str], Place] | None = None,
) -> Classroom:
    """The classroom in which this cast sits.

    Args:
        file: Seats and edge rules, or a file with the whole graph.
        cast: (name, role) of everyone but the examiner, in the order of the scenario; this is the order of the seats.
        seed: The node of the seed tree that random topologies are drawn from.
        read_file: Gives the text of a file that `file:` names, or raises.
        place: Key of the classroom (`edges[1].topology`) -> where it stands, for messages.

    Raises:
        ClassroomError: The cast does not fit the seats, a rule cannot be drawn, or somebody cannot be taught.
    """
    seats = _seat(cast)
    try:
        return _build(file, seats, seed, read_file)
    except ClassroomError as error:
        if place is not None:
            error.where = _placed(error.where, file, place)
        raise


def _placed(where: Place | None, file: ClassroomFile, place: Callable[[str], Place]) -> Place:
    """Where a mistake stands: a line of a graph file, a key of the classroom, or what draws its edges as a whole."""
    if where is not None and where.file:
        return where
    return place((where and where.key) or ("file" if file.file is not None else "edges"))


def _build(file: ClassroomFile, seats: tuple[Seat, ...], seed: Seeds, read_file: Callable[[str], str]) -> Classroom:
    # A file with the whole graph says itself how many seats there are. Defaults are told by their value, not by
    # being unset: a resolved scenario writes them out.
    if file.file is None or file.seats != ClassroomFile.model_fields["seats"].default:
        _count(file, seats)
    wiring = _Wiring(seats)
    if file.file is not None:
        if file.edges:
            raise ClassroomError(
                "The classroom has both `edges` and `file`.",
                where=Place(key="file"),
                remedy="`file` holds the whole graph: remove one of the two.",
            )
        _draw_file(read_graph(file.file, read_file), wiring)
    for number, rule in enumerate(file.edges):
        _Rule(rule, number, seed, read_file).draw(wiring)
    classroom = wiring.classroom(file.title)
    check(classroom)
    return classroom


def _seat(cast: Sequence[tuple[str, str]]) -> tuple[Seat, ...]:
    taken: set[str] = set()
    for name, role in cast:
        if role not in ROLES:
            raise ClassroomError(
                f"'{name}' is cast as '{role}', which has no seat in a classroom.",
                valid=ROLES,
                remedy="Cast it in one of these roles. The examiner needs no seat.",
            )
        if not name.isidentifier():
            raise ClassroomError(
                f"'{name}' cannot be the name of a seat.",
                remedy="Use letters, digits and underscores, and a letter first.",
            )
        if name in taken:
            raise ClassroomError(f"Two seats are named '{name}'.", remedy="Give each agent of the cast its own name.")
        if name in ROLES and name != role:
            raise ClassroomError(
                f"A {role} is named '{name}', which is another role: edge rules could mean either.",
                remedy="Give it another name in the cast.",
            )
        taken.add(name)
    return tuple(Seat(name, typed("Role", role)) for name, role in cast)


def _count(file: ClassroomFile, seats: Sequence[Seat]) -> None:
    found = Counter(seat.role for seat in seats)
    for role in ROLES:
        declared = file.seats.get(role, 0)
        if declared != "*" and declared != found[role]:
            key = {"teacher": "cast.teacher", "assistant": "cast.assistants", "student": "cast.students"}[role]
            raise ClassroomError(
                f"The classroom has {declared} {role} seat(s), the scenario casts {found[role]}.",
                where=Place(key=f"seats.{role}"),
                remedy=f'Cast {declared} under `{key}`, or write `{role}: "*"` for as many as are cast.',
            )


class _Wiring:
    """Edges while they are being drawn: a row of hearers for each kind and speaker."""

    def __init__(self, seats: tuple[Seat, ...]) -> None:
        self.seats = seats
        self.names = [seat.name for seat in seats]
        self.rows: dict[EdgeKind, list[int]] = {kind: [0] * len(seats) for kind in EDGE_KINDS}

    def role_seats(self, role: str) -> list[int]:
        return [number for number, seat in enumerate(self.seats) if seat.role == role]

    def join(self, kind: EdgeKind, speakers: Sequence[int], hearers: Sequence[int]) -> None:
        """Everyone of `speakers` to everyone of `hearers`, nobody to itself; talk goes both ways."""
        speaking, hearing = mask_of(speakers), mask_of(hearers)
        rows = self.rows[kind]
        for seat in speakers:
            rows[seat] |= hearing & ~(1 << seat)
        if kind == "discusses":
            for seat in hearers:
                rows[seat] |= speaking & ~(1 << seat)

    def draw_rows(self, kind: EdgeKind, among: Sequence[int], rows: Sequence[int]) -> None:
        """Neighbours among `among`, as rows over their places in it. Material runs down the order of the seats."""
        contiguous = among[-1] - among[0] == len(among) - 1
        for place, row in enumerate(rows):
            kept = row if kind == "discusses" else row >> place << place
            if contiguous:
                self.rows[kind][among[place]] |= kept << among[0]
            else:
                self.rows[kind][among[place]] |= mask_of(seat for at, seat in enumerate(among) if kept >> at & 1)

    def classroom(self, title: str) -> Classroom:
        teaches, assists, discusses = (tuple(self.rows[kind]) for kind in EDGE_KINDS)
        return Classroom(self.seats, (teaches, assists, discusses), title)


class _Rule:
    """One edge rule of a classroom file, with what it takes to draw it."""

    def __init__(self, spec: EdgeSpec, number: int, seed: Seeds, read_file: Callable[[str], str]) -> None:
        self.spec = spec
        self.key = f"edges[{number}]"
        self.rng = seed.at("edges", number).rng()
        self.read_file = read_file

    def draw(self, wiring: _Wiring) -> None:
        if self.spec.among is not None:
            self._refuse_beside_among()
            self._draw_among(wiring, self._select(self.spec.among, "among", wiring))
            return
        if self.spec.topology != TopologySpec(name="complete"):
            self._refuse("topology", "topology` goes with `among")
        if self.spec.from_ is None or self.spec.to is None:  # the schema has seen to it
            raise ValueError("an edge rule has neither `among` nor `from` and `to`")
        speakers = self._select(self.spec.from_, "from", wiring)
        hearers = self._select(self.spec.to, "to", wiring)
        if len(speakers) == 1 and speakers == hearers:
            raise ClassroomError(
                f"The rule joins '{wiring.names[speakers[0]]}' to itself.",
                where=Place(key=self.key),
                remedy="Name two different seats, or remove the rule.",
            )
        if self.spec.split == "even":
            for place, speaker in enumerate(speakers):
                wiring.join(self.spec.kind, [speaker], hearers[place :: len(speakers)])
        else:
            wiring.join(self.spec.kind, speakers, hearers)

    def _refuse_beside_among(self) -> None:
        if self.spec.split != "all":
            self._refuse("split", "split` goes with `from` and `to")
        for key, value in (("from", self.spec.from_), ("to", self.spec.to)):
            if value is not None:
                self._refuse(key, "from` goes with `to")

    def _refuse(self, key: str, belongs: str) -> None:
        raise ClassroomError(
            f"`{key}` means nothing in this rule.",
            where=Place(key=f"{self.key}.{key}"),
            remedy=f"`{belongs}`: remove it, or make two rules.",
        )

    def _select(self, what: str, key: str, wiring: _Wiring) -> list[int]:
        """The seats that a role, `first`/`last` of a role, or a name stands for."""
        one = _ONE.match(what)
        if what in ROLES or one:
            role = one.group(2) if one else what
            seats = wiring.role_seats(role)
            if not seats:
                raise ClassroomError(
                    f"The rule speaks of the role '{role}', and nobody is cast in it.",
                    where=Place(key=f"{self.key}.{key}"),
                    valid=sorted({seat.role for seat in wiring.seats}),
                    remedy=f"Cast at least one {role}, or choose a classroom without that role.",
                )
            if one:
                return [seats[0 if one.group(1) == "first" else -1]]
            return seats
        if what in wiring.names:
            return [wiring.names.index(what)]
        valid = [*ROLES, *(f"{place} {role}" for role in ROLES for place in ("first", "last")), *wiring.names[:20]]
        close = nearest(what, [*ROLES, *wiring.names])
        raise ClassroomError(
            f"'{what}' is neither a role nor a seat" + (f"; did you mean '{close}'?" if close else "."),
            where=Place(key=f"{self.key}.{key}"),
            valid=valid,
            remedy="Name a role, or one seat of the cast.",
        )

    def _draw_among(self, wiring: _Wiring, among: list[int]) -> None:
        topology = self.spec.topology
        if topology.file is not None:
            graph = read_graph(topology.file, self.read_file)
            within = [wiring.seats[seat] for seat in among]
            matched = {node: among[place] for node, place in match_nodes(graph, within).items()}
            for link in graph.links:
                if link.kind not in {None, self.spec.kind}:
                    raise ClassroomError(
                        f"The file has an edge of kind `{link.kind}`, the rule draws `{self.spec.kind}`.",
                        where=graph.place(link.line),
                        remedy="Leave the kind out of the file, or give the whole classroom as `file:`.",
                    )
                _draw_link(graph, link, self.spec.kind, matched, wiring)
            return
        where = Place(key=f"{self.key}.topology")
        rows = wire(topology.name or "", len(among), topology.params, self.rng, where)
        wiring.draw_rows(self.spec.kind, among, rows)


def _draw_file(graph: FileGraph, wiring: _Wiring) -> None:
    matched = match_nodes(graph, wiring.seats)
    for link in graph.links:
        ends = [wiring.seats[matched[end]].role for end in (link.source, link.target)]
        speaks = ends[0] if link.ordered else min(ends, key=ROLES.index)
        kind = typed("EdgeKind", link.kind) if link.kind else _BY_ROLE[speaks]
        _draw_link(graph, link, kind, matched, wiring)


def _draw_link(graph: FileGraph, link: Link, kind: EdgeKind, matched: dict[str, int], wiring: _Wiring) -> None:
    source, target = matched[link.source], matched[link.target]
    if source == target:
        raise ClassroomError(
            f"'{wiring.names[source]}' has an edge to itself.",
            where=graph.place(link.line),
            remedy="Remove the edge: what one says, one knows.",
        )
    if kind == "discusses":
        wiring.rows[kind][source] |= 1 << target
        if link.both_ways:
            wiring.rows[kind][target] |= 1 << source
        return
    if not link.ordered:
        # An undirected file does not say who teaches whom: roles do, and among equals the order of the seats.
        source, target = sorted((source, target), key=lambda seat: (ROLES.index(wiring.seats[seat].role), seat))
    wiring.rows[kind][source] |= 1 << target
