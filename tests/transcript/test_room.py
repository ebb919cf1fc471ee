from __future__ import annotations

import pytest
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

from lbt_sim.events import Event
from lbt_sim.models.recorded import Meter
from lbt_sim.transcript.room import Pace, Room


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def room_after(*events, meter=None, clock=None):
    room, meter = Room(clock or Clock()), meter or Meter()
    for event in events:
        room.take(event, meter)
    assert room.not_understood == 0
    return room


def test_events_make_the_state():
    room = room_after(
        run_event(),
        material_event("m0"),
        report_event(0, 0.5),
        exam_event(1),
        utterance_event(1, "m0", "Look.", exemplars=3),
        grades_event(1, "m0", "literal", "cwcc"),
        candidate_event(1, "m0", 0, "new", "m1"),
        selection_event(1, {"m0": 0.5, "m1": 0.75}, ["m1", "m0"]),
    )
    assert room.students == STUDENTS
    assert (room.round, room.stage, room.items) == (1, "held-out exam", 4)
    assert room.said[-1].text == "Look."
    assert room.candidates == {"new": 1}
    assert room.beam == ("m1", "m0")
    assert room.taught == ("m0",)


def test_an_event_that_makes_no_sense_is_counted_and_never_raises():
    room = Room()
    room.take(Event("r1/exam", "exam", {"round": 1}), Meter())
    room.take(Event("x", "grades", {}), Meter())
    assert room.not_understood == 2


def test_answers_that_are_in_fill_a_row_before_it_is_graded():
    meter = Meter()
    room = room_after(run_event(), material_event("m0"), report_event(0, 0.5), exam_event(1), meter=meter)
    meter.answered[1, "exam/m0", "literal"] = 3
    assert dict(room.outcomes(meter, "m0")) == {"literal": "aaa.", "sceptic-1": "....", "sceptic-2": "...."}
    room.take(grades_event(1, "m0", "literal", "ccwi"), meter)
    assert dict(room.outcomes(meter, "m0"))["literal"] == "ccwi"


def test_the_grid_follows_the_material_whose_exam_is_under_way():
    meter = Meter()
    beam = selection_event(1, {"m1": 0.7, "m2": 0.6}, ["m1", "m2"])
    room = room_after(run_event(rounds=3), material_event("m0"), beam, exam_event(2), meter=meter)
    assert room.focus(meter) == "m1"
    for student in STUDENTS:
        room.take(grades_event(2, "m1", student, "cccc"), meter)
    meter.answered[2, "exam/m2", "literal"] = 1
    assert room.focus(meter) == "m2"
    for student in STUDENTS:
        room.take(grades_event(2, "m2", student, "cccc"), meter)
    assert room.focus(meter) == "m1"


def test_the_last_exam_stays_until_the_next_round_begins():
    meter = Meter()
    room = room_after(run_event(), material_event("m0"), exam_event(1), grades_event(1, "m0", "literal", "cccc"))
    room.take(selection_event(1, {"m1": 0.75}, ["m1"]), meter)
    room.take(report_event(1, 0.6), meter)
    assert dict(room.outcomes(meter, "m0"))["literal"] == "cccc"
    room.take(exam_event(2), meter)
    assert room.taught == ("m1",)
    assert not room.grades


def test_progress_never_goes_back():
    meter, room, seen = Meter(), Room(Clock()), []
    events = [run_event(), material_event("m0"), report_event(0, 0.5)]
    for round_ in (1, 2):
        events += [exam_event(round_), utterance_event(round_, "m0", "x"), exam_event(round_)]
        events += [grades_event(round_, "m0", student, "cccc") for student in STUDENTS]
        events += [candidate_event(round_, "m0", 0, "new", "m1"), selection_event(round_, {"m0": 0.5}, ["m0"])]
        events += [report_event(round_, 0.6)]
    for event in events:
        room.take(event, meter)
        seen.append(room.fraction(meter))
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)


def test_time_left_comes_from_earlier_rounds():
    clock, meter = Clock(), Meter()
    room = room_after(run_event(rounds=3), material_event("m0"), report_event(0, 0.5), exam_event(1), clock=clock)
    assert room.seconds_left(clock.now) is None
    clock.now += 20
    meter.made = 50
    room.take(report_event(1, 0.6), meter)
    assert room.seconds_left(clock.now) == pytest.approx(40)
    room.take(exam_event(2), meter)
    assert room.seconds_left(clock.now + 5) == pytest.approx(35)


def test_rounds_read_from_the_ledger_tell_nothing_about_time():
    clock = Clock()
    room = room_after(run_event(rounds=3), exam_event(1), report_event(1, 0.6), exam_event(2), clock=clock)
    assert room.seconds_left(clock.now) is None


def test_pace_is_taken_over_the_last_seconds():
    pace, meter = Pace(), Meter()
    assert pace.per_second() == (0.0, 0.0)
    for second in range(30):
        meter.made, meter.prompt_tokens = second * 10 if second > 15 else 0, second * 100
        pace.sample(float(second), meter)
    calls, tokens = pace.per_second()
    assert calls == pytest.approx(10)
    assert tokens == pytest.approx(100)
