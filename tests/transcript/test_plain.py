from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from runs_by_hand import (
    EVIL,
    STUDENTS,
    Screen,
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
from lbt_sim.transcript.plain import PlainLines


def lines_of(screen, *events, **options):
    made = screen(width=40)
    with PlainLines(made.console, **options) as lines:
        for event in events:
            lines(event)
    return made.text.splitlines()


def test_a_round_in_lines(screen):
    assert lines_of(
        screen,
        run_event(),
        material_event("m0"),
        exam_event(1),
        utterance_event(1, "m0", "Look."),
        grades_event(1, "m0", "literal", "ccif"),
        candidate_event(1, "m0", 0, "new", "m1"),
        candidate_event(1, "m0", 1, "duplicate", "m0"),
        candidate_event(1, "m0", 2, "new", "m2"),
        selection_event(1, {"m0": 0.5, "m1": 0.75, "m2": None}, ["m1", "m2"]),
        report_event(1, 0.6),
        Event("done", "done", {"status": "done"}),
    ) == [
        "a small run  seed 7  m3, 2 rounds  1 teacher, 3 students  reviews: 40 to teach, 10 held out",
        "note: 2 rows were dropped",
        "round 1  exam of 4 problems, sampled",
        "round 1  exam on m0: literal 2 of 3 correct  1! 1✗",
        "round 1  3 candidates: 2 new, 1 duplicate",
        "round 1  selected by race with 24 answers: m1 0.75, m2 –; the best, scored anew on 4: 0.50",
        "round 1  teacher on 10 held-out problems: accuracy 0.60 (95 % 0.50–0.70), F1 0.60  1!",
        "done",
    ]


def test_many_students_are_one_line(screen):
    students = tuple(f"s{at}" for at in range(8))
    graded = [grades_event(1, "m0", name, "cccc" if at % 2 else "wwwi") for at, name in enumerate(students)]
    lines = lines_of(screen, run_event(students), exam_event(1), *graded)
    assert lines[3:] == ["round 1  exam on m0: 8 students, mean 0.50 (0.00–1.00)  4!"]


def test_each_line_is_there_at_once(screen):
    made = screen()
    lines = PlainLines(made.console)
    lines(exam_event(1))
    assert made.text == "round 1  exam of 4 problems, sampled\n"


def test_quiet_is_silent(screen):
    assert lines_of(screen, run_event(), report_event(0, 0.5), quiet=True) == []


def test_no_colours_in_a_pipe(screen):
    assert "\x1b" not in "".join(lines_of(screen, run_event(), grades_event(1, "m0", STUDENTS[0], "ccif")))


def test_no_accuracy_is_a_dash(screen):
    (line,) = lines_of(screen, report_event(0, None))
    assert line.startswith("round 0  teacher on 10 held-out problems: accuracy –, F1 –")


def test_an_event_that_makes_no_sense_does_not_raise(screen):
    (line,) = lines_of(screen, Event("r1/exam", "exam", {}))
    assert line.startswith("exam at r1/exam cannot be told")


@given(st.one_of(st.just(EVIL), st.text(st.characters(exclude_categories=()), max_size=60)))
def test_no_text_acts_on_the_terminal(text):
    made = Screen(color=True, width=80, height=24)
    lines = PlainLines(made.console)
    for event in (
        Event("n", "notice", {"text": text}),
        grades_event(1, text, text, "cwif"),
        Event("done", "done", {"status": text}),
    ):
        lines(event)
    assert re.sub(r"\x1b\[[0-9;]*m|\n", "", made.text).isprintable()
