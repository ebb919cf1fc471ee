from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbt_sim.classroom import EDGE_KINDS, Classroom
from lbt_sim.classroom.draw import PICTURE_SEATS, draw, hearing_table

BuiltIn = Callable[..., Classroom]


def test_a_small_room_is_a_picture_and_its_edges_in_words(built_in: BuiltIn) -> None:
    assert draw(built_in("tutorial", 1, 0, 3), 60) == [
        "                        ● teacher_1",
        "                 ↙           ↓            ↘",
        "            [student_1   student_2]   student_3",
        "",
        "teaches    teacher_1 → student_1, student_2, student_3",
        "discusses  student_1 ↔ student_2",
    ]


def test_assistants_stand_in_layers_of_their_own(built_in: BuiltIn) -> None:
    lines = draw(built_in("assistant-chain", 1, 2, 2), 60)
    order = [next(i for i, line in enumerate(lines) if name in line) for name in ("● t", "assistant_1", "assistant_2")]
    assert order == [0, 2, 4]


def test_a_clique_is_one_sentence(built_in: BuiltIn) -> None:
    assert "student_1, student_2, student_3: all with each other" in "\n".join(draw(built_in("jigsaw", 1, 0, 3), 80))


def test_talk_one_way_points_one_way() -> None:
    seats = [("t", "teacher"), ("a", "student"), ("b", "student")]
    edges = [("t", "a", "teaches"), ("b", "a", "discusses")]
    assert draw(Classroom.from_edges(seats, edges), 40)[-1] == "discusses  b → a"


def test_a_room_too_wide_for_a_picture_is_told_in_words(built_in: BuiltIn) -> None:
    lines = draw(built_in("star", 1, 0, 10), 40)
    assert lines[0].startswith("seats      ● teacher_1, student_1,")


def test_a_large_room_is_figures_and_the_first_rows(built_in: BuiltIn) -> None:
    text = "\n".join(draw(built_in("small-world", 1, 0, 40), 80))
    assert "1 teacher · 40 students" in text
    assert "clustering" in text
    assert "diameter" in text
    assert "… and 29 more" in text


def test_a_very_dense_room_is_not_measured_but_named(built_in: BuiltIn) -> None:
    text = "\n".join(draw(built_in("seminar", 1, 0, 300), 80))
    assert "89,700 edges" in text
    assert "all with each other" in text


@pytest.mark.parametrize("students", [4, 40])
def test_without_utf8_all_is_ascii(built_in: BuiltIn, students: int) -> None:
    for name in ("assistants", "ring", "seminar"):
        heads = (1, 2, students) if name == "assistants" else (1, 0, students)
        lines = draw(built_in(name, *heads), 50, ascii_only=True)
        assert "\n".join(lines).isascii()
        assert max(map(len, lines)) <= 50


def test_the_hearing_table_has_a_row_for_each_seat(built_in: BuiltIn) -> None:
    room = built_in("jigsaw-assistants", 1, 2, 3)
    table = {row.seat: row for row in hearing_table(room)}
    assert tuple(table) == room.names
    assert table["student_1"].teachers == ("assistant_1",)
    assert table["student_1"].peers == ("student_2", "student_3")
    assert table["assistant_1"].teachers == ("teacher_1",)


@st.composite
def valid_rooms(draw_: st.DrawFn) -> Classroom:
    """Rooms without circles of material, up to and above the size of a picture."""
    size = draw_(st.integers(2, PICTURE_SEATS + 6))
    seats = [("t", "teacher"), *((f"s{i}", "student") for i in range(1, size))]
    names = [name for name, _ in seats]
    pairs = draw_(st.lists(st.tuples(st.sampled_from(names), st.sampled_from(names[1:])), max_size=30))
    return Classroom.from_edges(seats, [(a, b, EDGE_KINDS[0] if a == "t" else "discusses") for a, b in pairs if a != b])


@given(valid_rooms(), st.integers(24, 100), st.booleans())
def test_every_room_is_drawn_within_the_width(room: Classroom, width: int, plain: bool) -> None:
    lines = draw(room, width, ascii_only=plain)
    assert lines
    assert max(map(len, lines)) <= width
    if len(room.seats) <= PICTURE_SEATS and room.pupils_of("t"):
        assert all(any(name in line for line in lines) for name in room.pupils_of("t"))
