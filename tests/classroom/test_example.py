"""Classrooms by themselves: whom an example cast seats."""

from __future__ import annotations

from typing import Any

import pytest

from lbt_sim.classroom import Classroom
from lbt_sim.classroom.example import example_cast, example_classroom
from lbt_sim.errors import ClassroomError, Place
from lbt_sim.scenario.schema import ClassroomFile
from lbt_sim.seeds import Seeds

TEACHES = {"from": "teacher", "to": "student", "kind": "teaches"}


def built(*edges: dict[str, Any], text: str = "", **keys: Any) -> Classroom:
    """The example of a classroom; every file that it names holds `text`."""
    file = ClassroomFile.model_validate({"edges": list(edges), **keys})
    return example_classroom(
        file, seed=Seeds(0), read_file=lambda _: text, place=lambda key: Place("room.yaml", 1, key)
    )


def test_declared_seats_are_taken_and_any_number_means_a_few() -> None:
    file = ClassroomFile.model_validate({"seats": {"teacher": 1, "assistant": "*", "student": "*"}})
    cast = example_cast(file, 3, lambda _: "")
    assert [name for name, _ in cast] == [
        "teacher",
        *(f"{r}_{n}" for r, k in (("assistant", 2), ("student", 3)) for n in range(1, k + 1)),
    ]
    assert built(TEACHES, seats={"teacher": 1, "student": 9}).by_role("student")[-1] == "student_9"


def test_seats_that_rules_name_are_there() -> None:
    room = built(TEACHES, {"from": "anna", "to": "ben", "kind": "discusses"}, seats={"teacher": 1, "student": 3})
    assert room.by_role("student") == ("anna", "ben", "student_1")


def test_what_was_meant_to_be_a_role_is_no_name() -> None:
    with pytest.raises(ClassroomError, match="did you mean 'student'"):
        built({"from": "teacher", "to": "studnet", "kind": "teaches"})


def test_a_topology_that_needs_more_students_gets_them() -> None:
    room = built(TEACHES, {"among": "student", "kind": "discusses", "topology": {"watts_strogatz": {"k": 10, "p": 0}}})
    assert len(room.by_role("student")) == 12


def test_a_topology_that_no_number_suits_is_refused_where_it_stands() -> None:
    with pytest.raises(ClassroomError) as caught:
        built(TEACHES, {"among": "student", "kind": "discusses", "topology": {"watts_strogatz": {"k": 99, "p": 0}}})
    assert caught.value.where == Place("room.yaml", 1, "edges[1].topology")
    assert "among 6 seats" in caught.value.what


def test_students_whom_a_rule_leaves_out_are_not_taken_away() -> None:
    with pytest.raises(ClassroomError, match="No path of edges"):
        built({"from": "teacher", "to": "first student", "kind": "teaches"})


@pytest.mark.parametrize(
    ("text", "students"),
    [
        ("anna ben\nben carl", {"anna", "ben", "carl"}),
        ("0 1\n6 7", {"student_1", "student_8"}),
        ('<graphml><graph edgedefault="undirected"><node id="a"/><node id="b"/><edge source="a" target="b"/></graph>'
         "</graphml>", {"a", "b"}),
    ],
)  # fmt: skip
def test_who_stands_in_the_file_of_a_rule_is_there(text: str, students: set[str]) -> None:
    room = built(TEACHES, {"among": "student", "kind": "discusses", "topology": {"file": "f"}}, text=text)
    assert students <= set(room.by_role("student"))


@pytest.mark.parametrize(
    ("text", "roles"),
    [
        ("0 1\n0 2", {"teacher": "teacher", "student_1": "student", "student_2": "student"}),
        ("teacher anna\nanna ben", {"teacher": "teacher", "anna": "student", "ben": "student"}),
        ("ruth anna teaches\nruth ida teaches\nida anna assists", {"ruth": "teacher", "ida": "assistant"}),
        ("ruth anna\nanna ben", {"ruth": "teacher", "ben": "student"}),
    ],
)
def test_a_file_with_the_whole_graph_says_who_is_there(text: str, roles: dict[str, str]) -> None:
    room = built(file="graph.txt", text=text)
    assert {name: room.role_of(name) for name in roles} == roles


def test_a_number_that_is_a_slip_takes_no_memory() -> None:
    with pytest.raises(ClassroomError, match="no seat number"):
        built(file="graph.txt", text="0 1\n1 99999999")
