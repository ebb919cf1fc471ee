"""The classroom: seats, and the directed edges that decide who hears whom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, cast, get_args

from lbt_sim.classroom.bits import closure, indices, mask_of, pick, transpose
from lbt_sim.errors import ClassroomError, nearest

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["EDGE_KINDS", "ROLES", "Classroom", "EdgeKind", "Role", "Seat"]

Role = Literal["teacher", "assistant", "student"]
EdgeKind = Literal["teaches", "assists", "discusses"]
ROLES: tuple[Role, ...] = get_args(Role)
EDGE_KINDS: tuple[EdgeKind, ...] = get_args(EdgeKind)

Rows = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Seat:
    """A place in the room and who sits there."""

    name: str
    role: Role


@dataclass(frozen=True)
class Classroom:
    """Seats in a fixed order and the edges among them. All names that it returns are in seat order.

    An edge runs from the one who speaks to the one who hears. Build one with `build_classroom`, or with
    `Classroom.from_edges` from seats and edges that were written down before.

    Attributes:
        seats: Who is in the room.
        wires: For each of `EDGE_KINDS`, a row for each seat: bit `j` of row `i` is the edge from seat `i` to `j`.
        title: A name for people.
    """

    seats: tuple[Seat, ...]
    wires: tuple[Rows, Rows, Rows] = field(repr=False)
    title: str = ""
    _asked: dict[tuple[str, str], tuple[str, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False, hash=False
    )

    @classmethod
    def from_edges(
        cls, seats: Iterable[tuple[str, str]], edges: Iterable[Sequence[str]], *, title: str = ""
    ) -> Classroom:
        """The classroom with these (name, role) seats and (from, to, kind) edges, taken as they are, unchecked."""
        placed = tuple(Seat(name, cast("Role", role)) for name, role in seats)
        number = {seat.name: at for at, seat in enumerate(placed)}
        wires = {kind: [0] * len(placed) for kind in EDGE_KINDS}
        for source, target, kind in edges:
            wires[cast("EdgeKind", kind)][number[source]] |= 1 << number[target]
        return cls(placed, (tuple(wires["teaches"]), tuple(wires["assists"]), tuple(wires["discusses"])), title)

    # --- who is there ---------------------------------------------------------------------------------------

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every seat's name."""
        return tuple(seat.name for seat in self.seats)

    @cached_property
    def _number(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    def number(self, name: str) -> int:
        """The seat's number from 0; a `ClassroomError` for a name that is not in the room."""
        try:
            return self._number[name]
        except KeyError:
            close = nearest(name, self.names)
            raise ClassroomError(
                f"'{name}' has no seat in this classroom" + (f"; did you mean '{close}'?" if close else "."),
                valid=self.names[:20],
                remedy="Name one of the seats.",
            ) from None

    def role_of(self, name: str) -> Role:
        """The role of who sits there."""
        return self.seats[self.number(name)].role

    def by_role(self, role: Role) -> tuple[str, ...]:
        """The names of those with this role."""
        return pick(self.names, self._mask(role))

    def _mask(self, role: Role) -> int:
        return mask_of(number for number, seat in enumerate(self.seats) if seat.role == role)

    # --- who hears whom -------------------------------------------------------------------------------------

    @cached_property
    def _down(self) -> Rows:
        return tuple(teaches | assists for teaches, assists in zip(self.wires[0], self.wires[1], strict=True))

    @cached_property
    def _up(self) -> Rows:
        return transpose(self._down)

    @property
    def _talk(self) -> Rows:
        return self.wires[2]

    @cached_property
    def _talk_in(self) -> Rows:
        return transpose(self._talk)

    @cached_property
    def _reach(self) -> Rows:
        return tuple(down | talk for down, talk in zip(self._down, self._talk, strict=True))

    @cached_property
    def _reach_in(self) -> Rows:
        return tuple(up | talk for up, talk in zip(self._up, self._talk_in, strict=True))

    @cached_property
    def _reach_in_with_questions(self) -> Rows:
        return tuple(heard | down for heard, down in zip(self._reach_in, self._down, strict=True))

    def _ask(self, what: str, rows: Rows, name: str) -> tuple[str, ...]:
        known = self._asked.get((what, name))
        if known is None:
            known = self._asked[what, name] = pick(self.names, rows[self.number(name)])
        return known

    def teachers_of(self, name: str) -> tuple[str, ...]:
        """Who teaches or assists `name`."""
        return self._ask("teachers", self._up, name)

    def pupils_of(self, name: str) -> tuple[str, ...]:
        """Whom `name` teaches or assists."""
        return self._ask("pupils", self._down, name)

    def peers_heard_by(self, name: str) -> tuple[str, ...]:
        """Whom `name` hears in a discussion."""
        return self._ask("heard", self._talk_in, name)

    def peers_hearing(self, name: str) -> tuple[str, ...]:
        """Who hears `name` in a discussion."""
        return self._ask("hearing", self._talk, name)

    def audience(self, name: str) -> tuple[str, ...]:
        """Everyone at the end of an edge of any kind from `name`."""
        return self._ask("audience", self._reach, name)

    def hears(self, hearer: str, speaker: str) -> bool:
        """Whether an edge of any kind runs from `speaker` to `hearer`."""
        return bool(self._reach[self.number(speaker)] >> self.number(hearer) & 1)

    def could_know(self, name: str, *, questions: bool = False) -> frozenset[str]:
        """Everyone else whose words some path of edges could have carried to `name`.

        Args:
            name: The one who hears.
            questions: Whether students may ask: `teaches` and `assists` edges then carry words both ways.
        """
        seat = self.number(name)
        rows = self._reach_in_with_questions if questions else self._reach_in
        return frozenset(pick(self.names, closure(1 << seat, rows) & ~(1 << seat)))

    # --- the shape of it ------------------------------------------------------------------------------------

    def relay_order(self) -> tuple[str, ...]:
        """Teachers, then assistants, so that everyone stands after those whom it hears material from.

        Ties are in seat order. Raises `ValueError` where assistants teach in a circle.
        """
        teachers, waiting = self._mask("teacher"), self._mask("assistant")
        order = list(pick(self.names, teachers))
        while waiting:
            free = next((seat for seat in indices(waiting) if not self._up[seat] & waiting), None)
            if free is None:
                raise ValueError("teaches and assists edges run in a circle")
            waiting ^= 1 << free
            order.append(self.names[free])
        return tuple(order)

    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The students who can reach each other by talk among students: a partition of all students."""
        students = self._mask("student")
        rows = [(out | heard) & students for out, heard in zip(self._talk, self._talk_in, strict=True)]
        found: list[tuple[str, ...]] = []
        while students:
            group = closure(students & -students, rows)
            students &= ~group
            found.append(pick(self.names, group))
        return tuple(found)

    def edge_counts(self) -> dict[EdgeKind, int]:
        """How many directed edges there are of each kind."""
        return {kind: sum(map(int.bit_count, rows)) for kind, rows in zip(EDGE_KINDS, self.wires, strict=True)}

    def edges(self) -> list[tuple[str, str, EdgeKind]]:
        """Every edge as (from, to, kind): by speaker, then kind, then hearer, in seat order."""
        return [
            (name, target, kind)
            for number, name in enumerate(self.names)
            for kind, rows in zip(EDGE_KINDS, self.wires, strict=True)
            for target in pick(self.names, rows[number])
        ]

    def to_networkx(self, *kinds: EdgeKind) -> nx.MultiDiGraph[str]:
        """The graph for analysis: nodes with `role`, edges with `kind` as key and attribute.

        Args:
            kinds: The edge kinds to take; none: all.
        """
        import networkx as nx

        graph: nx.MultiDiGraph[str] = nx.MultiDiGraph()
        graph.add_nodes_from((seat.name, {"role": seat.role}) for seat in self.seats)
        for source, target, kind in self.edges():
            if not kinds or kind in kinds:
                graph.add_edge(source, target, key=kind, kind=kind)
        return graph
