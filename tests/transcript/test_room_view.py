from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs_by_hand import (
    STUDENTS,
    candidate_event,
    exam_event,
    grades_event,
    material_event,
    report_event,
    run_event,
    selection_event,
    utterance_event,
)

from lbt_sim.models.recorded import Meter
from lbt_sim.transcript.room import Pace, Room
from lbt_sim.transcript.room_view import RoomView
from lbt_sim.transcript.theme import Look


def busy_room(students=STUDENTS, text="Look at 'but'."):
    room, meter = Room(), Meter(made=1204, in_flight=48, planned=60)
    events = [run_event(students), material_event("m0"), report_event(0, 0.5), exam_event(1)]
    events += [utterance_event(1, "m0", text)]
    events += [grades_event(1, "m0", student, "ctif") for student in students[: len(students) // 2]]
    events += [candidate_event(1, "m0", 0, "new", "m1"), selection_event(1, {"m0": 0.5}, ["m0"])]
    for event in [*events, report_event(1, 0.7)]:
        room.take(event, meter)
    assert room.not_understood == 0
    return room, meter


def drawn(room, meter, width, height, look=Look()):  # noqa: B008
    return [line.plain for line in RoomView(look).draw(room, meter, Pace(), (width, height), room.clock())]


@pytest.mark.parametrize("students", [(), STUDENTS, tuple(f"s{at}" for at in range(1000))], ids=len)
@pytest.mark.parametrize("unicode", [True, False])
def test_the_view_fits_any_terminal(students, unicode):
    room, meter = busy_room(students)
    for width in (40, 60, 80, 111, 112, 140, 200):
        for height in (8, 10, 17, 24, 40, 70):
            lines = RoomView(Look(unicode)).draw(room, meter, Pace(), (width, height), room.clock())
            assert len(lines) == height
            assert all(line.cell_len <= width for line in lines), (width, height)
            assert unicode or all(line.plain.isascii() for line in lines)


def test_before_anything_has_happened():
    assert len(drawn(Room(), Meter(), 80, 24)) == 24


@pytest.mark.parametrize("size", [(80, 24), (140, 40)])
def test_what_a_researcher_looks_for_is_there(size):
    text = "\n".join(drawn(*busy_room(), *size))
    for part in ("a small run", "seed 7", "round 1 of 2", "1,204 calls", "48 in flight", "+12", "exam (4 items)"):
        assert part in text
    for part in ("● teacher", "literal   ■✂!✗", "0.70 ±0.10 (95 %)", "majority 0.60", "beam 1 · 1 candidate"):
        assert part in text
    assert "teacher → all  “Look at 'but'.”" in text


def test_many_students_are_a_summary_and_a_sample():
    text = "\n".join(drawn(*busy_room(tuple(f"s{at}" for at in range(1000))), 140, 40))
    assert "1,000 students" in text
    assert "1,000 edges teaches" in text
    assert "all 1,000" in text


def test_a_presentation_without_words_says_how_many_exemplars():
    room, meter = busy_room()
    room.take(utterance_event(1, "m0", "", exemplars=8), meter)
    assert any("(8 exemplars)" in line for line in drawn(room, meter, 80, 24))


def test_notices_and_what_was_not_understood_are_told():
    room, meter = busy_room()
    room.not_understood = 2
    assert drawn(room, meter, 80, 24)[-2:] == [
        " 2 rows were dropped",
        " 2 events were not understood by this view",
    ]


@given(st.text(st.characters(exclude_categories=()), max_size=200))
def test_no_text_breaks_a_line(text):
    room, meter = busy_room(text=text)
    lines = RoomView().draw(room, meter, Pace(), (80, 24), room.clock())
    assert len(lines) == 24
    assert all(line.cell_len <= 80 and line.plain.isprintable() for line in lines)
