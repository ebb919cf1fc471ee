"""Graphs from files: GraphML, or an edge list as text; read as data, checked, and matched to seats.

An edge list has one edge a line, `#` opens a comment:

    0 1                 # numbers from 0, or seat names; `discusses` goes both ways
    anna -> ben         # one way
    anna ben assists    # with a kind of its own, in a file that holds a whole classroom
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from lbt_sim.classroom.graph import EDGE_KINDS, ROLES, Seat
from lbt_sim.errors import ClassroomError, Place, nearest

__all__ = ["MAX_BYTES", "FileGraph", "Link", "Node", "match_nodes", "read_graph"]

MAX_BYTES = 10_000_000
"""Larger files are refused: a classroom of a thousand students who all talk with each other fits in as a rule."""

_DECLARATION = re.compile(r"<!(DOCTYPE|ENTITY)", re.IGNORECASE)
_KIND_IN_BRACES = re.compile(r"""["']kind["']\s*:\s*["'](\w+)["']""")


@dataclass(frozen=True, slots=True)
class Node:
    """A node as the file has it: `label` is its name where that differs from its id."""

    id: str
    role: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """An edge as the file has it.

    Attributes:
        source: Id of the node that speaks.
        target: Id of the node that hears.
        kind: The edge's kind, None where the file gives none.
        ordered: Whether the order of source and target means something.
        both_ways: Whether talk goes both ways.
        line: The line in the file, where known.
    """

    source: str
    target: str
    kind: str | None = None
    ordered: bool = True
    both_ways: bool = False
    line: int | None = None


@dataclass(frozen=True, slots=True)
class FileGraph:
    """Nodes and edges of a file, in the file's order.

    `aliases`: whether two ids may stand for one seat, as in an edge list that mixes names and numbers.
    """

    file: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    aliases: bool = False

    def place(self, line: int | None = None) -> Place:
        """Where to look, for an error."""
        return Place(file=self.file, line=line)


def read_graph(file: str, read_file: Callable[[str], str]) -> FileGraph:
    """Reads a graph from GraphML (`.graphml`, `.xml`, or anything that opens with `<`) or an edge list.

    Raises:
        ClassroomError: The file cannot be read, is over 10 MB, declares entities, or is not a graph.
    """
    where = Place(file=file)
    try:
        text = read_file(file)
    except (OSError, UnicodeError) as error:
        raise ClassroomError(
            f"The graph file '{file}' cannot be read: {error}.",
            where=where,
            remedy="Check the path: it is relative to the classroom file. The file must be UTF-8 text.",
        ) from error
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise ClassroomError(
            f"The graph file '{file}' is larger than {MAX_BYTES // 1_000_000} MB.",
            where=where,
            remedy="Draw dense graphs by an edge rule (`topology: complete`) in place of a file.",
        )
    text = text.removeprefix("\ufeff")
    if PurePath(file).suffix.lower() in {".graphml", ".xml"} or text.lstrip().startswith("<"):
        return _graphml(file, text)
    return _edge_list(file, text)


def _graphml(file: str, text: str) -> FileGraph:
    declared = _DECLARATION.search(text)
    if declared:
        raise ClassroomError(
            f"'{file}' has a DOCTYPE or an entity declaration, which can pull in other files or grow without end.",
            where=Place(file=file, line=text.count("\n", 0, declared.start()) + 1),
            remedy="Remove the declaration: GraphML needs none.",
        )
    import networkx as nx

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ports and the like say nothing about who hears whom
            graph = nx.parse_graphml(text, edge_key_type=str, force_multigraph=True)
    except (SyntaxError, nx.NetworkXException, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ClassroomError(
            f"'{file}' is not a GraphML graph that can be read: {error}.",
            where=Place(file=file),
            remedy="Write it with networkx.write_graphml, or give an edge list (one edge a line).",
        ) from error
    node_default, edge_default = graph.graph.get("node_default", {}), graph.graph.get("edge_default", {})
    nodes = tuple(
        Node(
            str(node),
            _text(node_default | data, "role"),
            _text(data, "name") or _text(data, "label"),
        )
        for node, data in graph.nodes(data=True)
    )
    directed = graph.is_directed()
    links = tuple(
        Link(str(source), str(target), _text(edge_default | data, "kind"), ordered=directed, both_ways=not directed)
        for source, target, data in graph.edges(data=True)
    )
    return FileGraph(file, nodes, links)


def _text(data: Mapping[str, object], key: str) -> str | None:
    value = data.get(key)
    return None if value is None else str(value).strip() or None


def _edge_list(file: str, text: str) -> FileGraph:
    links: list[Link] = []
    for number, line in enumerate(text.splitlines(), 1):
        words, _, braces = line.partition("#")[0].partition("{")
        parts = words.replace(",", " ").split()
        if not parts and not braces:
            continue
        arrow = len(parts) > 1 and parts[1] == "->"
        if arrow:
            del parts[1]
        if not 2 <= len(parts) <= 3 or "->" in parts:
            raise ClassroomError(
                f"'{line.strip()[:80]}' is not an edge.",
                where=Place(file=file, line=number),
                valid=("FROM TO", "FROM -> TO", "FROM TO KIND"),
                remedy="Write one edge a line, as seat names or numbers from 0.",
            )
        written = _KIND_IN_BRACES.search(braces)
        kind = parts[2] if len(parts) == 3 else written.group(1) if written else None
        links.append(Link(parts[0], parts[1], kind, both_ways=not arrow, line=number))
    nodes = dict.fromkeys(end for link in links for end in (link.source, link.target))
    return FileGraph(file, tuple(map(Node, nodes)), tuple(links), aliases=True)


def _check_kinds(graph: FileGraph) -> None:
    """Raises a `ClassroomError` for an edge whose kind does not exist."""
    for link in graph.links:
        if link.kind is not None and link.kind not in EDGE_KINDS:
            close = nearest(link.kind, EDGE_KINDS)
            raise ClassroomError(
                f"'{link.kind}' is not a kind of edge" + (f"; did you mean '{close}'?" if close else "."),
                where=graph.place(link.line),
                valid=EDGE_KINDS,
                remedy=f"Correct the kind of the edge {link.source} to {link.target}.",
            )


def match_nodes(graph: FileGraph, seats: Sequence[Seat]) -> dict[str, int]:
    """Which of `seats` each node stands for: node id -> index.

    A node is matched by its id or name where a seat has that name; the others role by role, in order, where the
    file gives roles; else by their ids as seat numbers from 0.

    Raises:
        ClassroomError: A node stands for no seat, or the numbers of nodes and seats differ.
    """
    _check_kinds(graph)
    by_name = {seat.name: index for index, seat in enumerate(seats)}
    matched: dict[str, int] = {}
    rest: list[Node] = []
    for node in graph.nodes:
        index = by_name.get(node.id, by_name.get(node.label or ""))
        if index is None:
            rest.append(node)
        else:
            _check_role(graph, node, seats[index])
            matched[node.id] = index
    if any(node.role for node in rest):
        matched |= _by_role(graph, rest, seats, taken=set(matched.values()))
    elif all(node.id.isdecimal() and node.id.isascii() for node in rest):
        matched |= _by_number(graph, rest, seats)
    else:
        _refuse_names(graph, rest, seats)
    if not graph.aliases and len(set(matched.values())) < len(matched):
        raise ClassroomError(
            "Two nodes stand for the same seat.",
            where=graph.place(),
            remedy="Give each seat one node.",
        )
    return matched


def _check_role(graph: FileGraph, node: Node, seat: Seat) -> None:
    if node.role is not None and node.role != seat.role:
        raise ClassroomError(
            f"The file makes '{seat.name}' a {node.role}, the scenario casts it as a {seat.role}.",
            where=graph.place(),
            valid=ROLES,
            remedy="Correct the node's role, or rename the agent in the cast.",
        )


def _by_role(graph: FileGraph, nodes: Sequence[Node], seats: Sequence[Seat], taken: set[int]) -> dict[str, int]:
    for node in nodes:
        if node.role not in ROLES:
            what = f"'{node.role}' is not a role" if node.role else "it has no role"
            raise ClassroomError(
                f"Node '{node.id}' cannot be matched to a seat: {what}.",
                where=graph.place(),
                valid=ROLES,
                remedy="Give every node the attribute `role`, or the name of a seat as its id.",
            )
    matched: dict[str, int] = {}
    for role in ROLES:
        ids = [node.id for node in nodes if node.role == role]
        free = [index for index, seat in enumerate(seats) if seat.role == role and index not in taken]
        if len(ids) != len(free):
            placed = sum(1 for index in taken if seats[index].role == role)
            raise ClassroomError(
                f"The file has {len(ids) + placed} {role} seat(s), the scenario casts {len(free) + placed}.",
                where=graph.place(),
                remedy=f"Cast {len(ids) + placed}, or change the file.",
            )
        matched |= dict(zip(ids, free, strict=True))
    return matched


def _by_number(graph: FileGraph, nodes: Sequence[Node], seats: Sequence[Seat]) -> dict[str, int]:
    for node in nodes:
        if len(node.id) > 9 or int(node.id) >= len(seats):
            raise ClassroomError(
                f"There is no seat number {node.id[:20]}: there are {len(seats)}, counted from 0.",
                where=graph.place(_line_of(graph, node.id)),
                remedy="Cast as many as the file needs, or correct the number.",
            )
    return {node.id: int(node.id) for node in nodes}


def _refuse_names(graph: FileGraph, nodes: Sequence[Node], seats: Sequence[Seat]) -> None:
    stranger = next(node for node in nodes if not (node.id.isdecimal() and node.id.isascii()))
    names = [seat.name for seat in seats]
    close = nearest(stranger.id, names)
    raise ClassroomError(
        f"'{stranger.id[:80]}' names no seat" + (f"; did you mean '{close}'?" if close else "."),
        where=graph.place(_line_of(graph, stranger.id)),
        valid=names[:20],
        remedy="Name a seat, give its number from 0, or give every node the attribute `role`.",
    )


def _line_of(graph: FileGraph, node: str) -> int | None:
    return next((link.line for link in graph.links if node in (link.source, link.target)), None)
