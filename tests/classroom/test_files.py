from __future__ import annotations

from collections.abc import Callable

import networkx as nx
import pytest

from lbt_sim.classroom import Seat
from lbt_sim.classroom.files import MAX_BYTES, match_nodes, read_graph
from lbt_sim.errors import ClassroomError

SEATS = (Seat("tess", "teacher"), Seat("ann", "student"), Seat("bob", "student"))


def holding(text: str) -> Callable[[str], str]:
    return lambda _: text


def graphml(nodes: str, edges: str = "", directed: bool = True, keys: str = "") -> str:
    default = "directed" if directed else "undirected"
    return f"""<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
      <key id="r" for="node" attr.name="role" attr.type="string"/>
      <key id="n" for="node" attr.name="name" attr.type="string"/>
      <key id="k" for="edge" attr.name="kind" attr.type="string"/>{keys}
      <graph edgedefault="{default}">{nodes}{edges}</graph></graphml>"""


def node(name: str, role: str = "", label: str = "") -> str:
    role = f'<data key="r">{role}</data>' if role else ""
    label = f'<data key="n">{label}</data>' if label else ""
    return f'<node id="{name}">{role}{label}</node>'


def match(text: str, file: str = "g.graphml") -> dict[str, int]:
    return match_nodes(read_graph(file, holding(text)), SEATS)


def test_an_edge_list_is_read_line_by_line() -> None:
    text = "\ufeff# friends\nann bob\n\nann -> bob  # one way\n0, 1, teaches\n1 2 {}\n1 2 {'kind': 'assists', 'w': 2}\n"
    links = read_graph("friends.txt", holding(text)).links
    assert [(link.source, link.target, link.kind, link.both_ways, link.line) for link in links] == [
        ("ann", "bob", None, True, 2),
        ("ann", "bob", None, False, 4),
        ("0", "1", "teaches", True, 5),
        ("1", "2", None, True, 6),
        ("1", "2", "assists", True, 7),
    ]


@pytest.mark.parametrize("line", ["ann", "ann bob teaches loudly", "-> ann", "{}"])
def test_a_line_that_is_no_edge_is_named(line: str) -> None:
    with pytest.raises(ClassroomError, match="is not an edge") as error:
        read_graph("friends.txt", holding(f"ann bob\n{line}\n"))
    assert error.value.where is not None
    assert str(error.value.where) == "friends.txt:2"


def test_what_networkx_writes_is_read() -> None:
    drawn = nx.MultiDiGraph()
    drawn.add_node("a", role="teacher")
    drawn.add_edge("a", "b", kind="teaches")
    drawn.add_edge("a", "b", kind="discusses")
    graph = read_graph("x.graphml", holding("\n".join(nx.generate_graphml(drawn))))
    assert [(item.id, item.role) for item in graph.nodes] == [("a", "teacher"), ("b", None)]
    assert [(link.source, link.target, link.kind, link.both_ways) for link in graph.links] == [
        ("a", "b", "teaches", False),
        ("a", "b", "discusses", False),
    ]
    assert read_graph("x.txt", holding("\n".join(nx.generate_edgelist(nx.path_graph(3))))).links[1].target == "2"


def test_undirected_and_default_values_are_understood() -> None:
    keys = '<key id="d" for="edge" attr.name="kind" attr.type="string"><default>discusses</default></key>'
    graph = read_graph("x", holding(graphml("", '<edge source="a" target="b"/>', directed=False, keys=keys)))
    assert graph.links[0].kind == "discusses"
    assert graph.links[0].both_ways
    assert not graph.links[0].ordered


@pytest.mark.parametrize(
    "declaration",
    [
        '<!DOCTYPE graphml SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE g [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>',
        "<!doctype graphml>",
    ],
)
def test_a_doctype_is_refused(declaration: str) -> None:
    with pytest.raises(ClassroomError, match="DOCTYPE") as error:
        read_graph("x.graphml", holding(f'<?xml version="1.0"?>\n{declaration}\n' + graphml("")))
    assert error.value.where is not None
    assert error.value.where.line == 2


@pytest.mark.parametrize(
    "text", ["", "<graphml", "<html></html>", "not xml", "<graphml><graph><node/></graph></graphml>\0", "<a>&b;</a>"]
)
def test_what_is_not_graphml_is_refused(text: str) -> None:
    with pytest.raises(ClassroomError, match="not a GraphML graph") as error:
        read_graph("x.graphml", holding(text))
    assert error.value.remedy


def test_an_unsupported_hyperedge_is_refused() -> None:
    with pytest.raises(ClassroomError, match="hyperedges"):
        read_graph("x.graphml", holding(graphml(node("a"), "<hyperedge/>")))


def test_a_large_file_is_refused() -> None:
    with pytest.raises(ClassroomError, match="larger than 10 MB"):
        read_graph("x.txt", holding("#" + " " * MAX_BYTES))


def test_a_file_that_cannot_be_read_is_named() -> None:
    def missing(name: str) -> str:
        raise FileNotFoundError(name)

    def binary(_: str) -> str:
        return b"\xff".decode()

    for read in (missing, binary):
        with pytest.raises(ClassroomError, match=r"'lost\.txt' cannot be read"):
            read_graph("lost.txt", read)


def test_nodes_take_seats_by_name_then_by_role_in_order() -> None:
    assert match(graphml(node("x", "teacher") + node("bob", "student") + node("y", "student"))) == {
        "x": 0,
        "bob": 2,
        "y": 1,
    }
    assert match(graphml(node("n0", label="bob") + node("n1", label="tess"))) == {"n0": 2, "n1": 0}


def test_numbers_are_seats_from_0() -> None:
    assert match("0 1\n0 bob\nbob ann", "x.txt") == {"0": 0, "1": 1, "bob": 2, "ann": 1}


@pytest.mark.parametrize(
    ("text", "file", "says"),
    [
        ("0 3", "x.txt", "no seat number 3: there are 3"),
        ("0 99999999999999999999", "x.txt", "no seat number"),
        ("tess an", "x.txt", "'an' names no seat; did you mean 'ann'"),
        ("tess ann teeches", "x.txt", "'teeches' is not a kind of edge; did you mean 'teaches'"),
        (graphml(node("ann") + node("x", label="ann")), "x.graphml", "Two nodes stand for the same seat"),
        (graphml(node("ann", "teacher")), "x.graphml", "makes 'ann' a teacher, the scenario casts it as a student"),
        (graphml(node("a", "teacher") + node("b", "student")), "x.graphml", "has 1 student seat.*casts 2"),
        (graphml(node("a", "teacher") + node("b")), "x.graphml", "'b' cannot be matched.*no role"),
        (graphml(node("a", "teacher") + node("b", "pupil")), "x.graphml", "'b' cannot be matched.*'pupil'"),
    ],
)
def test_what_fits_no_seat_is_named(text: str, file: str, says: str) -> None:
    with pytest.raises(ClassroomError, match=says) as error:
        match(text, file)
    assert error.value.remedy
    assert error.value.where is not None
    assert error.value.where.file == file
