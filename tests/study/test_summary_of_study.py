"""A study's findings on a terminal: points and shares, heads, names that fit, and what every terminal can show."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from lbt_sim.stats import Estimate
from lbt_sim.study.analysis import Analysis, Comparison, ConditionRow, FactorEffect
from lbt_sim.study.results import Condition, StudyResults
from lbt_sim.study.summary import print_findings
from lbt_sim.transcript.theme import make_console

DIFFERENCE = Estimate(-0.021, -0.054, 0.0121, "cluster bootstrap, Student's t with 7 degrees of freedom", 8, 60)
LONG = "three-different-students/method.exemplars=12"
UNBROKEN = "pneumonoultramicroscopicsilicovolcanoconiosispneumonoultra"


def row(name: str, *, failed: int = 0) -> ConditionRow:
    score = Estimate(0.6224, 0.5, 0.7, "m", 8, 60)
    outcomes = {"correct": 1100, "wrong": 97, "invalid": 2, "failed": 1}
    return ConditionRow(name, 8 - failed, failed, 0, score, score, replace(DIFFERENCE, value=0.1), outcomes, {}, {}, {})


def comparison(a: str, b: str, verdict: str = "not shown", difference: Estimate | None = DIFFERENCE) -> Comparison:
    return Comparison(a, b, difference, 0.3, 0.4321, None, 0.0812, 8, 0, True, (), verdict)


def effect(number: int) -> FactorEffect:
    return FactorEffect((f"factor{number}",), ("b",), ("a",), DIFFERENCE, 0.02, 0.0456, 4, 8)


def printed(*rows: ConditionRow | Comparison | FactorEffect, width: int = 80, encoding: str = "utf-8") -> str:
    """What is printed of these findings."""
    conditions = tuple(one for one in rows if isinstance(one, ConditionRow))
    analysis = Analysis(
        answer="It changed by −2.1 points.",
        conditions=conditions,
        curves=(),
        comparisons=tuple(one for one in rows if isinstance(one, Comparison)),
        doses=(),
        model=None,
        warnings=(),
        effects=tuple(one for one in rows if isinstance(one, FactorEffect)),
    )
    results = StudyResults(
        folder=Path("s"),
        name="s",
        title="Does it?",
        description="",
        conditions=tuple(Condition(one.condition, one.condition) for one in conditions),
        seeds=tuple(range(8)),
        comparisons=(),
        metric="f1",
        outcome="last",
        runs={},
    )
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_findings(make_console(stream, width=width), results, analysis)
    stream.seek(0)
    return stream.read()


def test_scores_are_shares_and_what_is_gained_is_in_points() -> None:
    text = printed(row("one"), comparison("one", "two"), effect(1))
    assert "0.622" in text
    assert "+10.0 (−5.4 to +1.2)" in text
    assert text.count("−2.1 (−5.4 to +1.2)") == 2
    assert " 8.1 " in text
    assert "0.021" not in text
    assert text.count("points\n") + text.count("points ") >= 3
    assert "mean held-out f1, as a share" in text


def test_every_column_has_a_head() -> None:
    lines = printed(comparison("one", "two", "shown")).splitlines()
    head = next(line for line in lines if line.startswith("comparison"))
    shown = next(line for line in lines if line.startswith("one − two"))
    assert head.split() == ["comparison", "pairs", "(95", "%", "interval)", "Holm", "p", "points", "verdict"]
    assert shown.index("shown") == head.index("verdict")


def test_degrees_of_freedom_of_one_comparison_are_not_told_as_those_of_all() -> None:
    text = printed(comparison("one", "two"), replace(comparison("one", "three"), difference=None))
    assert "degrees" not in text
    assert "each one's method is in the report" in " ".join(text.split())


def test_the_smallest_difference_says_for_how_many_comparisons_it_is_corrected() -> None:
    assert "corrected" not in printed(comparison("one", "two"))
    text = printed(comparison("one", "two"), comparison("one", "three"))
    assert "corrected for 2 comparisons" in " ".join(text.split())


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_names_are_broken_at_separators_and_lines_fit(width: int) -> None:
    lines = printed(row(LONG), comparison(LONG, "one-student/method.exemplars=4"), effect(1), width=width).splitlines()
    assert all(cell_len(line.rstrip()) <= width for line in lines)
    for piece in ("three-", "different-", "students/", "one-", "student/"):
        assert any(piece in line for line in lines), piece
    assert "(−5.4 to +1.2)" in "\n".join(lines)


def test_a_long_word_is_shortened_in_its_middle() -> None:
    text = printed(row(f"{UNBROKEN}-1"), row(f"{UNBROKEN}-2"))
    assert UNBROKEN not in text
    names = [line.split()[0] for line in text.splitlines() if line.startswith("pneumono")]
    assert [name.partition("…")[2][-7:] for name in names] == ["ultra-1", "ultra-2"]


def test_a_whole_name_stays_in_one_line_where_it_fits() -> None:
    assert f"{LONG} − one" in printed(comparison(LONG, "one"), width=120)


def test_what_is_not_known_is_a_dash() -> None:
    nothing = replace(comparison("one", "two", difference=None), p_holm=None, detectable=None, pairs=1)
    shown = next(line for line in printed(nothing).splitlines() if line.startswith("one − two"))
    assert shown.split()[3:] == ["1", "–", "–", "–", "not", "shown"]


def test_failed_and_missing_runs_stand_beside_those_that_are_done() -> None:
    assert "6, 2 failed" in printed(row("one", failed=2))
    assert "3 of 1,200" in printed(row("one"))


def test_of_many_effects_the_rest_is_counted() -> None:
    text = printed(*map(effect, range(20)))
    assert text.count("factor") >= 12
    assert "factor11 " in text
    assert "factor12 " not in text
    assert "8 more are in the report" in " ".join(text.split())


def test_a_terminal_without_unicode_gets_plain_signs() -> None:
    nothing = comparison("one", "two", difference=None)
    text = printed(row("one"), comparison("one", "three"), nothing, effect(1), encoding="ascii")
    assert "-2.1 (-5.4 to +1.2)" in text
    assert "one - three" in text
    assert text.isascii()
    assert "\\u" not in text


def test_a_name_cannot_act_on_the_terminal() -> None:
    text = printed(row("one\x1b[2J[bold]x[/bold]\n\nlast"), comparison("a\nb", "c"))
    assert "\x1b" not in text
    assert "[bold]x[/bold]" in text
    assert "a b − c" in text
