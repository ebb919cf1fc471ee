from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lbt_sim.transcript.grid import exam_grid, fit, is_scaled, item_row, spread
from lbt_sim.transcript.theme import Look

letters = st.text("cwitfa.", max_size=90)
names = st.text(st.characters(exclude_categories=()), min_size=1, max_size=30)


@given(st.lists(st.tuples(names, letters), max_size=40), st.integers(16, 120), st.integers(1, 12), st.booleans())
def test_the_grid_keeps_to_its_size(rows, width, height, unicode):
    lines = exam_grid(rows, width, height, Look(unicode))
    assert len(lines) <= height
    assert all(line.cell_len <= width for line in lines)


def test_a_row_shows_marks_and_the_score():
    (row,) = exam_grid([("literal", "ccwi")], 60, 3)
    assert row.plain == "literal ■■□! 2/4  1!"


def test_failed_calls_are_not_in_the_score():
    (row,) = exam_grid([("a", "ccff")], 60, 3)
    assert "2/2" in row.plain


def test_what_is_answered_but_not_graded_has_no_score():
    (row,) = exam_grid([("a", "aa..")], 60, 3)
    assert row.plain.startswith("a ▒▒··")
    assert "/" not in row.plain


def test_a_thousand_students_are_a_summary_and_a_sample():
    rows = [(f"s{at}", "cccc" if at % 2 else "wwww") for at in range(1000)]
    lines = [line.plain for line in exam_grid(rows, 80, 8)]
    assert lines[0].startswith("all 1,000")
    assert "mean 0.50 (0.00–1.00)" in lines[0]
    assert lines[-1] == "… and 994 more"
    assert len(lines) == 8


def test_the_mean_says_of_how_many_while_grading_goes_on():
    rows = [("a", "cccc"), ("b", "aaaa"), ("c", "....")]
    assert "1 graded, mean 1.00" in exam_grid(rows, 80, 2)[0].plain


@given(letters, st.integers(7, 40))
def test_scaling_loses_no_kind_of_outcome(text, cells):
    shown = fit(text, cells)
    assert set(shown) == set(text)
    assert len(shown) == min(len(text), cells)


@given(st.integers(0, 200), st.integers(0, 50))
def test_a_spread_is_even_and_without_repeats(total, wanted):
    chosen = spread(total, wanted)
    assert len(chosen) == min(total, wanted)
    assert sorted(set(chosen)) == chosen


def test_a_row_says_whether_it_shows_items_or_shares():
    assert not is_scaled([("a", "c" * 24)], 60)
    assert is_scaled([("a", "c" * 100)], 60)


def test_the_share_who_got_an_item():
    assert item_row(["cw", "cc"]) == "█▅"
