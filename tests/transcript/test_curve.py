from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from runs_by_hand import report

from lbt_sim.transcript.curve import best_baseline, learning_curve
from lbt_sim.transcript.theme import Look

BASELINES = {"always_positive": {"accuracy": 0.5, "f1": 0.67}, "majority": {"accuracy": 0.6, "f1": 0.0}}
accuracies = st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=40)


@given(accuracies, st.integers(8, 80), st.integers(1, 20), st.booleans())
def test_the_curve_keeps_to_its_size(values, width, height, unicode):
    reports = {at: report(at, value) for at, value in enumerate(values)}
    lines = learning_curve(reports, BASELINES, width, height, Look(unicode))
    assert len(lines) <= height
    assert all(line.cell_len <= width for line in lines)
    assert unicode or all(line.plain.isascii() for line in lines)


def test_one_row_of_steps_between_the_first_and_the_last_value():
    lines = learning_curve({0: report(0, 0.55), 1: report(1, 0.65), 2: report(2, 0.85)}, BASELINES, 40, 4)
    assert [line.plain for line in lines] == ["0.55 ▁▃█ 0.85", "0.85 ±0.10 (95 %)", "majority 0.60"]


def test_where_there_is_room_the_interval_and_the_baseline_are_drawn():
    lines = learning_curve({0: report(0, 0.5), 1: report(1, 0.8)}, BASELINES, 40, 12)
    text = "\n".join(line.plain for line in lines)
    assert text.count("●") == 2
    assert "│" in text
    assert "┄" in text


def test_a_round_without_accuracy_is_not_a_zero():
    lines = learning_curve({0: report(0, None)}, {}, 40, 4)
    assert [line.plain for line in lines] == ["no report yet"]


def test_the_best_trivial_baseline_is_named():
    assert best_baseline(BASELINES) == ("majority", 0.6)
    assert best_baseline({"always_positive": None, "majority": {"accuracy": None}}) is None
