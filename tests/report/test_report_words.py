"""Figures and texts in words, and which exemplars are ranked."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from lbt_sim.report import text
from lbt_sim.report.exemplars import credits_of, credits_of_study, standings
from lbt_sim.stats import Estimate
from lbt_sim.study import words
from lbt_sim.transcript.read import RunRecord


def test_figures_in_words() -> None:
    assert words.points(0.0213) == "+2.1"
    assert words.points(-0.0213) == "−2.1"
    assert words.points(-0.0004) == words.points(-0.0) == "+0.0"
    assert words.points(None) == "–"
    assert words.p_text(0.0004) == "< 0.001"
    assert words.p_text(0.034) == "0.034"
    assert words.interval_text(-0.004, 0.046, in_points=True) == "−0.4 to +4.6"
    assert words.interval_text(None, 0.1) == "no interval"
    assert words.of_how_many(Estimate(0.1, None, None, "m", 1)) == "1 seed"
    assert words.of_how_many(Estimate(0.1, None, None, "m", 30, 1200)) == "30 seeds, 1,200 problems"
    assert text.broken({"correct": 3, "invalid": 2, "failed": 1}) == "2 invalid, 1 failed"
    assert text.broken({"correct": 3}) == "none"


def test_answers_that_did_not_come_back_are_left_out_of_a_share() -> None:
    correct, n, interval = text.share_interval(["ccwf", "itf"])
    assert (correct, n) == (2, 5)
    assert interval is not None
    assert text.share_interval(["ff"]) == (0, 0, None)


@given(st.text())
def test_markdown_of_any_text_is_one_line_without_markup(said: str) -> None:
    shown = text.as_markdown(said)
    assert "\n" not in shown
    bare = shown.replace("\\\\", "")
    for mark in "<>|`*[]#&":
        at = -1
        while (at := bare.find(mark, at + 1)) >= 0:
            assert bare[at - 1] == "\\" or bare.startswith(("&#58;", "&#46;"), at) or bare[at - 1] == "&", shown


@pytest.mark.parametrize(
    "said", ["- item", "1. item", "+ item", "===", "---", "  indented", "http://x.example", "www.x.example"]
)
def test_markdown_begins_no_list_heading_or_link(said: str) -> None:
    shown = text.as_markdown(said)
    assert shown[0] != " "
    assert shown != said
    assert "://" not in shown
    assert "www." not in shown


@given(st.text())
def test_any_text_for_html_holds_nothing_that_hides(said: str) -> None:
    assert text.as_html(said) == text.as_html(text.as_html(said))
    assert not set(text.as_html(said)) & {"\x00", "\x1b", "\u202e", "\u200b", "\u2066"}


@given(st.text())
def test_a_long_name_keeps_both_its_ends(said: str) -> None:
    shown = text.middle(said, 20)
    assert len(shown) <= 20
    assert shown == said or (said.startswith(shown[:10]) and said.endswith(shown[-9:]))
    assert text.middle("three-different-students/exemplars=4", 20) == "three-diff…emplars=4"


@given(st.text())
def test_a_name_can_be_broken_and_is_otherwise_itself(said: str) -> None:
    shown = text.as_name(said, 60)
    assert Markup(shown.replace("<wbr>", "")).unescape() == text.as_html(text.middle(said, 60))
    assert text.as_name("a/b=1.5<b>", 60) == "a/<wbr>b=1.<wbr>5&lt;b&gt;"


# --- exemplars ------------------------------------------------------------------------------------------------


def test_an_exemplar_is_credited_with_what_its_materials_scored_above_their_selections(run_folder: Path) -> None:
    with RunRecord(run_folder) as record:
        found = standings(record)
        key = max(found, key=lambda one: (len(found[one]), one))
        expected = []
        for name, material in record.materials.items():
            if key not in {(e["question"], e["answer"]) for e in material["exemplars"]}:
                continue
            above = []
            for selection in record.selections.values():
                scores = {row["id"]: row["score"] for row in selection["candidates"] if (row["score"] or -1) >= 0}
                if name in scores:
                    above.append(scores[name] - fmean(scores.values()))
            if above:
                expected.append(fmean(above))
        assert sorted(found[key]) == pytest.approx(sorted(expected))
        ranked = credits_of(record)
    assert ranked is not None
    assert ranked.best[0].value >= ranked.best[-1].value >= ranked.worst[-1].value >= ranked.worst[0].value
    assert all(credit.of >= 2 for credit in (*ranked.best, *ranked.worst))
    assert ranked.ranked <= ranked.seen


def test_in_a_study_each_run_counts_once() -> None:
    good, bad = ("good", "yes"), ("bad", "no")
    runs = [{good: [0.1, 0.3], bad: [-0.1]} for _ in range(6)] + [{("once", "yes"): [0.9]}]
    found = credits_of_study(runs)
    assert found is not None
    assert [(one.question, one.of, round(one.value, 6)) for one in found.best] == [("good", 6, 0.2)]
    assert [one.question for one in found.worst] == ["bad"]
    assert (found.ranked, found.seen) == (2, 3)
    assert found.best[0].low == pytest.approx(0.2)


def test_nothing_scored_nothing_ranked() -> None:
    assert credits_of_study([]) is None
