from __future__ import annotations

import pickle
from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbt_sim.classroom import EDGE_KINDS, ROLES, Classroom
from lbt_sim.errors import ClassroomError

SEATS = [("teacher", "teacher"), ("aide", "assistant"), ("ann", "student"), ("bob", "student"), ("cy", "student")]
EDGES = [
    ("teacher", "aide", "teaches"),
    ("teacher", "cy", "teaches"),
    ("aide", "ann", "assists"),
    ("ann", "bob", "discusses"),
    ("bob", "ann", "discusses"),
]


@pytest.fixture
def room() -> Classroom:
    return Classroom.from_edges(SEATS, EDGES)


@st.composite
def any_room(draw: st.DrawFn) -> Classroom:
    """Any graph at all, valid as a classroom or not."""
    size = draw(st.integers(1, 8))
    seats = [(f"s{i}", draw(st.sampled_from(ROLES))) for i in range(size)]
    seat = st.sampled_from([name for name, _ in seats])
    edges = draw(st.lists(st.tuples(seat, seat, st.sampled_from(EDGE_KINDS)), max_size=20))
    return Classroom.from_edges(seats, edges)


def test_everyone_is_asked_for_by_role_in_seat_order(room: Classroom) -> None:
    assert room.names == ("teacher", "aide", "ann", "bob", "cy")
    assert room.by_role("student") == ("ann", "bob", "cy")
    assert room.role_of("aide") == "assistant"


def test_material_and_talk_run_along_their_own_edges(room: Classroom) -> None:
    assert room.teachers_of("ann") == ("aide",)
    assert room.teachers_of("bob") == ()
    assert room.pupils_of("teacher") == ("aide", "cy")
    assert room.peers_heard_by("ann") == room.peers_hearing("ann") == ("bob",)
    assert room.audience("aide") == ("ann",)
    assert room.hears("ann", "aide")
    assert not room.hears("aide", "ann")


def test_talk_that_goes_one_way_is_heard_one_way() -> None:
    room = Classroom.from_edges(SEATS, [("ann", "bob", "discusses")])
    assert room.peers_heard_by("bob") == ("ann",)
    assert room.peers_heard_by("ann") == ()
    assert room.peers_hearing("ann") == ("bob",)


def test_questions_carry_words_up(room: Classroom) -> None:
    assert room.could_know("teacher") == frozenset()
    assert room.could_know("teacher", questions=True) == {"aide", "ann", "bob", "cy"}
    assert room.could_know("bob") == {"teacher", "aide", "ann"}


def test_groups_are_a_partition_of_the_students(room: Classroom) -> None:
    assert room.groups() == (("ann", "bob"), ("cy",))


def test_talk_with_an_assistant_does_not_make_two_students_a_group() -> None:
    talk = [("ann", "aide", "discusses"), ("aide", "bob", "discusses")]
    assert Classroom.from_edges(SEATS, talk).groups() == (("ann",), ("bob",), ("cy",))


def test_assistants_relay_after_those_they_hear() -> None:
    seats = [("a1", "assistant"), ("a2", "assistant"), ("t", "teacher"), ("s", "student")]
    edges = [("t", "a2", "teaches"), ("a2", "a1", "assists"), ("a1", "s", "assists")]
    assert Classroom.from_edges(seats, edges).relay_order() == ("t", "a2", "a1")


def test_a_stranger_is_named_with_the_nearest_seat(room: Classroom) -> None:
    with pytest.raises(ClassroomError, match=r"'anne' has no seat.*'ann'"):
        room.teachers_of("anne")


def test_a_room_survives_being_written_down(room: Classroom) -> None:
    seats = [(seat.name, seat.role) for seat in room.seats]
    assert Classroom.from_edges(seats, room.edges()) == room
    assert pickle.loads(pickle.dumps(room)) == room
    assert hash(room) == hash(Classroom.from_edges(SEATS, EDGES[::-1]))
    assert room != Classroom.from_edges(SEATS, EDGES[:-1])


@given(any_room())
def test_who_could_know_is_who_a_path_leads_from(room: Classroom) -> None:
    graph = room.to_networkx()
    upward = graph.copy()
    upward.add_edges_from((b, a) for a, b, kind in room.edges() if kind != "discusses")
    for name in room.names:
        assert room.could_know(name) == nx.ancestors(graph, name)
        assert room.could_know(name, questions=True) == nx.ancestors(upward, name)


@given(any_room())
def test_every_question_agrees_with_the_edges(room: Classroom) -> None:
    edges = room.edges()
    assert len(edges) == len(set(edges)) == sum(room.edge_counts().values())

    def ends(name: str, at: int, *kinds: str) -> tuple[Any, ...]:
        found = {edge[1 - at] for edge in edges if edge[at] == name and edge[2] in kinds}
        return tuple(seat for seat in room.names if seat in found)

    for name in room.names:
        assert room.pupils_of(name) == ends(name, 0, "teaches", "assists")
        assert room.teachers_of(name) == ends(name, 1, "teaches", "assists")
        assert room.peers_hearing(name) == ends(name, 0, "discusses")
        assert room.peers_heard_by(name) == ends(name, 1, "discusses")
        assert room.audience(name) == ends(name, 0, *EDGE_KINDS)
        for other in room.names:
            assert room.hears(other, name) == (other in room.audience(name))


@given(any_room())
def test_groups_are_networkx_components(room: Classroom) -> None:
    students = room.by_role("student")
    graph = nx.Graph(room.to_networkx("discusses").subgraph(students))
    assert {frozenset(group) for group in room.groups()} == set(map(frozenset, nx.connected_components(graph)))
