from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbt_sim.classroom import Classroom
from lbt_sim.errors import ClassroomError, Place

Build = Callable[..., Classroom]

TEACHES = {"from": "teacher", "to": "student", "kind": "teaches"}
TO_AIDES = {"from": "teacher", "to": "assistant", "kind": "teaches"}
AIDES = {"from": "assistant", "to": "student", "kind": "assists"}
TALK = {"among": "student", "kind": "discusses"}

KINDS = st.sampled_from(["teaches", "assists", "discusses"])
TARGETS = ["teacher", "assistant", "student", "first assistant", "last student", "student_1", "assistant_1"]
TOPOLOGIES = st.sampled_from(
    ["complete", "ring", "path", "star", "grid", {"groups": {"size": 2}}, {"erdos_renyi": {"p": 0.4}}]
)
RULES = st.one_of(
    st.fixed_dictionaries(
        {
            "from": st.sampled_from(TARGETS),
            "to": st.sampled_from(TARGETS),
            "kind": KINDS,
            "split": st.sampled_from(["all", "even"]),
        }
    ),
    st.fixed_dictionaries({"among": st.sampled_from(["assistant", "student"]), "kind": KINDS, "topology": TOPOLOGIES}),
)


# --- what rules draw ------------------------------------------------------------------------------------------------


def test_a_role_means_all_its_seats(build: Build) -> None:
    assert build(TEACHES).edges() == [("teacher_1", f"student_{n}", "teaches") for n in (1, 2, 3)]


def test_a_name_means_one_seat_and_first_and_last_one_of_a_role(build: Build) -> None:
    rules = [
        {"from": "teacher", "to": "first student", "kind": "teaches"},
        {"from": "student_1", "to": "last student", "kind": "discusses"},
        {"from": "teacher_1", "to": "student_2", "kind": "teaches"},
    ]
    room = build(*rules)
    assert room.pupils_of("teacher_1") == ("student_1", "student_2")
    assert room.peers_heard_by("student_3") == ("student_1",)


def test_talk_goes_both_ways(build: Build) -> None:
    room = build(TEACHES, {"from": "student_1", "to": "student_3", "kind": "discusses"})
    assert room.hears("student_1", "student_3")
    assert room.hears("student_3", "student_1")
    assert room.groups() == (("student_1", "student_3"), ("student_2",))


def test_material_runs_down_the_order_of_the_cast(build: Build) -> None:
    first = {"from": "teacher", "to": "first assistant", "kind": "teaches"}
    chain = {"among": "assistant", "kind": "assists", "topology": "path"}
    last = {"from": "last assistant", "to": "student", "kind": "assists"}
    room = build(first, chain, last, heads=(1, 4, 2))
    assert room.relay_order() == ("teacher_1", *(f"assistant_{n}" for n in (1, 2, 3, 4)))
    assert [room.teachers_of(f"assistant_{n}") for n in (2, 3, 4)] == [(f"assistant_{n}",) for n in (1, 2, 3)]
    assert room.teachers_of("student_2") == ("assistant_4",)


def test_seats_of_a_role_need_not_sit_side_by_side(build: Build) -> None:
    cast = [("ann", "student"), ("tess", "teacher"), ("bob", "student"), ("aide", "assistant"), ("cy", "student")]
    room = build(TEACHES, TO_AIDES, TALK | {"topology": "path"}, cast=cast)
    assert room.names == ("ann", "tess", "bob", "aide", "cy")
    assert room.peers_heard_by("bob") == ("ann", "cy")
    assert room.peers_heard_by("ann") == ("bob",)


@given(aides=st.integers(1, 6), students=st.integers(1, 20))
def test_an_even_split_is_even_and_in_turn(build: Build, aides: int, students: int) -> None:
    room = build(TO_AIDES, AIDES | {"split": "even"}, heads=(1, aides, students))
    shares = [len(room.pupils_of(name)) for name in room.by_role("assistant")]
    assert max(shares) - min(shares) <= 1
    assert sum(shares) == students
    for place, name in enumerate(room.by_role("student")):
        assert room.teachers_of(name) == (f"assistant_{place % aides + 1}",)


def test_an_edge_that_is_drawn_twice_is_there_once(build: Build) -> None:
    assert build(TEACHES, TEACHES).edges() == build(TEACHES).edges()


def test_random_wiring_comes_from_the_seed_and_the_rule_only(build: Build) -> None:
    talk = TALK | {"topology": {"erdos_renyi": {"p": 0.5}}}
    assert build(TEACHES, talk, heads=(1, 0, 20)) == build(TEACHES, talk, heads=(1, 0, 20))
    assert build(TEACHES, talk, heads=(1, 0, 20)) != build(TEACHES, talk, heads=(1, 0, 20), seed=8)


def test_defaults_that_are_written_out_change_nothing(build: Build) -> None:
    spelled = {**TALK, "split": "all", "topology": {"name": "complete", "params": {}, "file": None}}
    taught = {**TEACHES, "among": None, "topology": {"name": "complete", "params": {}, "file": None}}
    assert build(taught, spelled) == build(TEACHES, TALK)


def test_a_thousand_students_who_all_talk_with_each_other(build: Build) -> None:
    room = build(TEACHES, TALK, heads=(1, 0, 1000))
    assert room.edge_counts() == {"teaches": 1000, "assists": 0, "discusses": 999_000}
    assert len(room.peers_heard_by("student_500")) == 999
    assert "student_500" not in room.peers_heard_by("student_500")


@given(
    rules=st.lists(RULES, max_size=3),
    heads=st.tuples(st.integers(1, 2), st.integers(0, 3), st.integers(1, 5)),
)
def test_what_is_built_can_be_taught_in(build: Build, rules: list[dict[str, Any]], heads: tuple[int, int, int]) -> None:
    try:
        room = build(*([TO_AIDES, TEACHES] if heads[1] else [TEACHES]), *rules, heads=heads)
    except ClassroomError:
        return
    graph = room.to_networkx()
    material = nx.DiGraph((a, b) for a, b, kind in room.edges() if kind != "discusses")
    assert nx.is_directed_acyclic_graph(material)
    assert nx.number_of_selfloops(graph) == 0
    for student in room.by_role("student"):
        assert set(room.by_role("teacher")) & nx.ancestors(graph, student)
    for assistant in room.by_role("assistant"):
        assert set(room.by_role("teacher")) & nx.ancestors(material, assistant)
    order = {name: place for place, name in enumerate(room.relay_order())}
    for source, target, kind in room.edges():
        assert kind != "discusses" or (target, source, kind) in room.edges()
        assert target not in order or kind == "discusses" or order[source] < order[target]


@given(
    students=st.integers(1, 6),
    taught=st.sets(st.integers(1, 6)),
    talk=st.sets(st.tuples(st.integers(1, 6), st.integers(1, 6))),
)
def test_only_rooms_with_an_unreachable_student_are_refused(
    build: Build, students: int, taught: set[int], talk: set[tuple[int, int]]
) -> None:
    taught = {n for n in taught if n <= students}
    talk = {(a, b) for a, b in talk if a != b and max(a, b) <= students}
    text = "\n".join([f"0 {n} teaches" for n in taught] + [f"{a} -> {b} discusses" for a, b in talk])
    graph = nx.DiGraph([(0, n) for n in taught] + list(talk))
    graph.add_node(0)
    missed = set(range(1, students + 1)) - nx.descendants(graph, 0)
    if missed:
        with pytest.raises(ClassroomError, match="No path of edges") as error:
            build(heads=(1, 0, students), file="g.txt", files={"g.txt": text})
        assert {n for n in range(1, 7) if f"student_{n}" in error.value.what} == missed
    else:
        room = build(heads=(1, 0, students), file="g.txt", files={"g.txt": text})
        assert len(room.edges()) == len(taught) + len(talk)


# --- graphs from files ----------------------------------------------------------------------------------------------


def test_a_file_wires_the_seats_of_a_rule_by_their_numbers_or_names(build: Build) -> None:
    talk = TALK | {"topology": {"file": "g.txt"}}
    both = build(TEACHES, talk, files={"g.txt": "0 1\nstudent_2 -> student_3"})
    assert both.peers_heard_by("student_1") == ("student_2",)
    assert both.peers_heard_by("student_3") == ("student_2",)
    assert both.peers_heard_by("student_2") == ("student_1",)


def test_a_directed_graphml_is_heard_one_way_and_an_undirected_both(build: Build) -> None:
    talk = TALK | {"topology": {"file": "g.graphml"}}
    for drawn, hears_back in ((nx.DiGraph([(0, 1)]), False), (nx.Graph([(0, 1)]), True)):
        room = build(TEACHES, talk, files={"g.graphml": "\n".join(nx.generate_graphml(drawn))})
        assert room.hears("student_2", "student_1")
        assert room.hears("student_1", "student_2") is hears_back


def test_a_whole_room_from_graphml_without_kinds_goes_by_roles(build: Build) -> None:
    drawn = nx.Graph([("z", "y"), ("y", "x"), ("x", "w")])  # undirected, and written from the students up
    roles = {"z": "student", "y": "student", "x": "assistant", "w": "teacher"}
    nx.set_node_attributes(drawn, roles, "role")
    room = build(heads=(1, 1, 2), file="g.graphml", files={"g.graphml": "\n".join(nx.generate_graphml(drawn))})
    assert room.edges() == [
        ("teacher_1", "assistant_1", "teaches"),
        ("assistant_1", "student_2", "assists"),
        ("student_1", "student_2", "discusses"),
        ("student_2", "student_1", "discusses"),
    ]


def test_a_room_written_by_us_reads_back_the_same(build: Build) -> None:
    room = build(TO_AIDES, AIDES, TALK | {"topology": "ring"}, heads=(1, 2, 4))
    text = "\n".join(nx.generate_graphml(room.to_networkx(), named_key_ids=True))
    assert build(heads=(1, 2, 4), file="g.graphml", files={"g.graphml": text}) == room


def test_a_whole_file_needs_no_seats(build: Build) -> None:
    default = {"teacher": 1, "student": "*"}
    text = "teacher_1 assistant_1\nassistant_1 student_1"
    assert len(build(heads=(1, 1, 1), seats=default, file="g.txt", files={"g.txt": text}).edges()) == 2


# --- what is refused ------------------------------------------------------------------------------------------------

CHAIN_BACK = {"from": "last assistant", "to": "first assistant", "kind": "assists"}
CHAIN = {"among": "assistant", "kind": "assists", "topology": "path"}


@pytest.mark.parametrize(
    ("rules", "heads", "says"),
    [
        ([], (1, 0, 3), "No path of edges leads from a teacher to student_1, student_2, student_3"),
        ([{"from": "teacher", "to": "student_2", "kind": "teaches"}], (1, 0, 2), "to student_1: unreachable"),
        ([], (1, 0, 20), "and 12 more"),
        ([TALK], (0, 0, 3), "There is no teacher"),
        ([TO_AIDES], (1, 1, 0), "There is no student"),
        ([TEACHES, AIDES], (1, 0, 3), r"edges\[1\].from.*'assistant', and nobody is cast"),
        ([TEACHES, AIDES], (1, 2, 3), "Nobody teaches assistant_1, assistant_2"),
        ([TEACHES, TO_AIDES, CHAIN, CHAIN_BACK], (1, 3, 1), "assistant_1 → assistant_2 → assistant_3 → assistant_1"),
        ([TEACHES, {**TALK, "kind": "teaches"}], (1, 0, 3), "'student_1' is a student.*`teaches`.*student_2"),
        ([TEACHES, {**TEACHES, "kind": "assists"}], (1, 0, 3), "'teacher_1' is a teacher.*`assists`"),
        ([TEACHES, {**TEACHES, "kind": "discusses"}], (1, 0, 3), "'teacher_1' is a teacher.*`discusses`"),
        ([TEACHES, {"among": "teacher", "kind": "teaches"}], (2, 0, 3), r"teacher_2 \(teacher\)"),
        (
            [TEACHES, {"from": "student_1", "to": "student_1", "kind": "discusses"}],
            (1, 0, 3),
            r"edges\[1\].*joins 'student_1' to itself",
        ),
        ([{**TEACHES, "to": "studend"}], (1, 0, 3), r"edges\[0\].to.*'studend'.*did you mean 'student'"),
        ([{**TEACHES, "topology": "ring"}], (1, 0, 3), r"edges\[0\].topology.*means nothing"),
        ([TEACHES, {**TALK, "split": "even"}], (1, 0, 3), r"edges\[1\].split.*means nothing"),
        ([TEACHES, {**TALK, "to": "student"}], (1, 0, 3), r"edges\[1\].to.*means nothing"),
        ([TEACHES, {**TALK, "topology": "rings"}], (1, 0, 3), r"edges\[1\].topology.*did you mean 'ring'"),
        ([TEACHES, {**TALK, "topology": {"file": "lost.txt"}}], (1, 0, 3), "lost.txt.*cannot be read"),
    ],
)
def test_a_room_that_cannot_be_taught_in_is_refused_by_name(
    build: Build, rules: list[dict[str, Any]], heads: tuple[int, int, int], says: str
) -> None:
    with pytest.raises(ClassroomError) as error:
        build(*rules, heads=heads)
    assert error.match(f"(?s){says}")
    assert error.value.remedy


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0 1\n1 1", "g.txt:2.*'student_2' has an edge to itself"),
        ("0 1 teaches", "g.txt:1.*kind `teaches`, the rule draws `discusses`"),
        ("0 5", "g.txt:1.*no seat number 5: there are 3"),
        ("0 teacher_1", "'teacher_1' names no seat"),
    ],
)
def test_a_file_that_does_not_fit_its_rule_is_refused(build: Build, text: str, says: str) -> None:
    with pytest.raises(ClassroomError) as error:
        build(TEACHES, TALK | {"topology": {"file": "g.txt"}}, files={"g.txt": text})
    assert error.match(f"(?s){says}")


def test_edges_and_a_file_exclude_each_other(build: Build) -> None:
    with pytest.raises(ClassroomError, match="both `edges` and `file`"):
        build(TEACHES, file="g.txt", files={"g.txt": "0 1"})


def test_a_whole_file_that_disagrees_with_its_seats_is_refused(build: Build) -> None:
    with pytest.raises(ClassroomError, match=r"has 8 student seat.*casts 3"):
        build(seats={"teacher": 1, "student": 8}, file="g.txt", files={"g.txt": "0 1"})


@pytest.mark.parametrize(
    ("seats", "heads", "says"),
    [
        ({"teacher": 1, "student": 5}, (1, 0, 3), "has 5 student seat.*casts 3"),
        ({"teacher": 2, "student": "*"}, (1, 0, 3), "has 2 teacher seat.*casts 1"),
        ({"teacher": 1, "student": "*"}, (1, 2, 3), "has 0 assistant seat.*casts 2"),
    ],
)
def test_a_cast_that_does_not_fit_the_seats_is_refused(
    build: Build, seats: dict[str, Any], heads: tuple[int, int, int], says: str
) -> None:
    with pytest.raises(ClassroomError, match=says) as error:
        build(TEACHES, seats=seats, heads=heads)
    assert error.value.where is not None
    assert str(error.value.where.key).startswith("seats.")


@pytest.mark.parametrize(
    ("cast", "says"),
    [
        ([("tess", "teacher"), ("eve", "examiner")], "'eve' is cast as 'examiner'"),
        ([("tess", "teacher"), ("a b", "student")], "'a b' cannot be the name of a seat"),
        ([("tess", "teacher"), ("tess", "student")], "Two seats are named 'tess'"),
        ([("tess", "teacher"), ("teacher", "student")], "named 'teacher', which is another role"),
    ],
)
def test_names_that_cannot_be_told_apart_are_refused(build: Build, cast: list[tuple[str, str]], says: str) -> None:
    with pytest.raises(ClassroomError, match=says):
        build(TEACHES, cast=cast)


def test_a_seat_may_be_called_by_its_role(build: Build) -> None:
    room = build(TEACHES, cast=[("teacher", "teacher"), ("student", "student"), ("student_2", "student")])
    assert Counter(kind for _, _, kind in room.edges()) == {"teaches": 2}


UNTAUGHT = {"from": "teacher", "to": "first student", "kind": "teaches"}


@pytest.mark.parametrize(
    ("edges", "keys", "where"),
    [
        ([TEACHES, {**TALK, "topology": "rign"}], {}, Place("room.yaml", 7, "edges[1].topology")),
        ([TEACHES], {"seats": {"teacher": 2, "student": "*"}}, Place("room.yaml", 7, "seats.teacher")),
        ([UNTAUGHT], {}, Place("room.yaml", 7, "edges")),
        ([], {"file": "g.txt", "files": {"g.txt": "0 1\n"}}, Place("room.yaml", 7, "file")),
        ([], {"file": "g.txt", "files": {"g.txt": "0 1\n0 anna\n"}}, Place("g.txt", 2)),
    ],
)
def test_a_mistake_stands_where_the_caller_says_that_its_key_stands(
    build: Build, edges: list[dict[str, Any]], keys: dict[str, Any], where: Place
) -> None:
    with pytest.raises(ClassroomError) as error:
        build(*edges, place=lambda key: Place("room.yaml", 7, key), **keys)
    assert error.value.where == where
