from __future__ import annotations

import pytest

from lbt_sim.transcript.figures import bar, broken, count, duration, half_width, plural, score, share, sparkline
from lbt_sim.transcript.theme import Look


def test_no_value_is_a_dash_and_never_zero():
    assert share(None) == "–"
    assert share(0.0) == "0.00"
    assert share(None, look=Look(unicode=False)) == "-"


def test_a_third_digit_only_where_the_problems_can_carry_one():
    assert share(0.8333, 120) == "0.83"
    assert share(0.8333, 2000) == "0.833"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.43, "0.4 s"), (41.2, "41 s"), (59.9, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_counts():
    assert count(1204) == "1,204"
    assert count(12_345_678) == "12.35 M"
    assert plural(1, "call") == "1 call"
    assert plural(1204, "call") == "1,204 calls"


def test_half_width_of_the_interval():
    assert half_width({"ci95": {"accuracy": [0.5, 0.7]}}) == pytest.approx(0.1)
    assert half_width({"ci95": {"accuracy": None}}) is None
    assert half_width({}) is None


def test_calls_that_gave_up_are_left_out_of_a_score():
    assert score("ccwf") == (2, 3)


def test_what_is_broken_stands_with_its_mark():
    assert broken("cwii").plain == "2!"
    assert broken({"correct": 3, "invalid": 0, "truncated": 1, "failed": 2}).plain == "1✂ 2✗"
    assert not broken("ccww")


def test_a_bar_is_filled_by_its_fraction():
    assert bar(0.5, 10).plain == "▇▇▇▇▇░░░░░"
    assert bar(7.0, 4).plain == "▇▇▇▇"
    assert bar(-1.0, 4).plain == "░░░░"


def test_a_sparkline_rises_with_its_values():
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([0.2, None, 0.4]) == "▁ █"
    assert sparkline([None, None]) == "  "


def test_noise_of_a_point_is_not_drawn_as_a_leap():
    assert sparkline([0.61, 0.62]) == "▁▁"
