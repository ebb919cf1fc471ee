"""Charts, classrooms and lineages: what they hold, that they can stand in one page, that they are always the same."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pages import read

from lbt_sim.report.charts import Curve, Level, curves, look, panels, scatter
from lbt_sim.report.classroom_svg import classroom_of, drawing
from lbt_sim.report.forest import effect_forest, forest
from lbt_sim.report.lineage import lineage
from lbt_sim.stats import Estimate
from lbt_sim.study.analysis import Comparison, FactorEffect
from lbt_sim.transcript.read import RunRecord

CURVES = [
    Curve(look(number), tuple((n, 0.5 + 0.1 * n, 0.4 + 0.1 * n, 0.6 + 0.1 * n) for n in range(4)), quiet=number == 2)
    for number in range(3)
]


def test_a_chart_has_no_colour_font_or_date_of_its_own() -> None:
    for svg in (
        curves(CURVES, "a", "title", levels=[Level(0.5)]),
        panels(CURVES, "b", "title"),
        scatter([(look(0), [(0.1, 0.2), (0.3, 0.1)])], (1.0, -1.0, 2.0), "c", "title", ("x", "y")),
    ):
        assert not re.search(r"#[0-9a-fA-F]{6}\b", svg)
        assert "var(--s0)" in svg
        assert "font-family" not in svg
        assert "<metadata" not in svg
        assert "http" not in svg.replace("http://www.w3.org/", "")


def test_the_same_values_give_the_same_bytes() -> None:
    assert curves(CURVES, "a", "title") == curves(CURVES, "a", "title")
    assert curves(CURVES, "a", "title") != curves(CURVES[:2], "a", "title")


def test_pictures_do_not_share_ids() -> None:
    first, second = (read(curves(CURVES, name, "title")).ids for name in ("one", "two"))
    assert first
    assert not set(first) & set(second)
    page = read(curves(CURVES, "one", "title"))
    links = [value for _, name, value in page.attributes if name == "href"]
    assert links
    assert {link[1:] for link in links} <= set(page.ids)


def test_a_title_is_escaped() -> None:
    assert "<script>" not in curves(CURVES, "a", "<script>")
    assert "&lt;script&gt;" in curves(CURVES, "a", "<script>")


def bands(svg: str) -> int:
    return len(re.findall(r'id="[a-z]+-FillBetweenPolyCollection_', svg))


def test_a_quiet_curve_has_no_band_in_the_common_chart_and_one_in_its_panel() -> None:
    assert bands(curves(CURVES, "a", "t")) == 2
    assert bands(panels(CURVES, "b", "t")) == 3


def test_near_series_differ_in_more_than_colour() -> None:
    looks = [look(number) for number in range(56)]
    assert len({(one.colour, one.marker) for one in looks}) == 56
    for one, other in pairwise(looks):
        assert one.marker != other.marker
        assert one.dash != other.dash


def test_of_many_points_an_even_part_is_drawn() -> None:
    many = [(n / 10_000, 0.1) for n in range(10_000)]
    svg = scatter([(look(0), many)], None, "c", "t", ("x", "y"))
    assert 100 < svg.count("<use ") < 700


# --- the classroom --------------------------------------------------------------------------------------------


def room(students: int, edges: list[list[str]], assistants: int = 0) -> dict[str, Any]:
    seats = [{"name": "teacher", "role": "teacher", "model": "m", "persona": None}]
    seats += [{"name": f"a{n}", "role": "assistant", "model": "m", "persona": None} for n in range(assistants)]
    seats += [{"name": f"s{n}", "role": "student", "model": "m", "persona": "p"} for n in range(students)]
    seats.append({"name": "examiner", "role": "examiner", "model": "m", "persona": None})
    counts: dict[str, int] = {}
    for *_, kind in edges:
        counts[kind] = counts.get(kind, 0) + 1
    return {"seats": seats, "edges": edges, "edge_counts": counts}


def star(students: int) -> list[list[str]]:
    return [["teacher", f"s{n}", "teaches"] for n in range(students)]


@pytest.mark.parametrize("students", [1, 3, 4, 7, 12, 40])
def test_everyone_has_a_place_of_their_own_inside_the_picture(students: int) -> None:
    ring = [[f"s{n}", f"s{(n + 1) % students}", "discusses"] for n in range(students) if students > 2]
    found = drawing(room(students, star(students) + ring))
    assert found is not None
    spots = {(place.x, place.y) for place in found.places}
    assert len(spots) == students + 1
    assert all(0 < x < found.width and 0 < y < found.height for x, y in spots)
    assert len(found.edges) == students + len(ring)


def test_assistants_sit_between_the_teacher_and_their_pupils() -> None:
    edges = [["teacher", "a0", "teaches"], ["teacher", "a1", "teaches"]]
    edges += [[f"a{n % 2}", f"s{n}", "assists"] for n in range(6)]
    edges += [["s0", "s2", "discusses"], ["s2", "s0", "discusses"], ["s1", "s3", "discusses"]]
    found = drawing(room(6, edges, assistants=2))
    assert found is not None
    spot = {place.name: (place.x, place.y) for place in found.places}
    assert math.dist(spot["teacher"], spot["a0"]) < math.dist(spot["teacher"], spot["s0"])
    for mine, other in (("a0", "a1"), ("a1", "a0")):
        pupils = [f"s{n}" for n in range(6) if f"a{n % 2}" == mine]
        near, far = (sum(math.dist(spot[name], spot[pupil]) for pupil in pupils) for name in (mine, other))
        assert near < far
    talk = [edge for edge in found.edges if edge.kind == "discusses"]
    assert sorted(edge.both for edge in talk) == [False, True]


def test_a_group_sits_beside_each_other() -> None:
    talk = [[f"s{a}", f"s{b}", "discusses"] for a, b in ((0, 3), (3, 6), (1, 4), (4, 7), (2, 5), (5, 8))]
    found = drawing(room(9, star(9) + talk))
    assert found is not None
    spot = {place.name: (place.x, place.y) for place in found.places}
    for group in ((0, 3, 6), (1, 4, 7), (2, 5, 8)):
        inside = max(math.dist(spot[f"s{group[at]}"], spot[f"s{group[at + 1]}"]) for at in range(2))
        others = [n for n in range(9) if n not in group]
        assert inside < min(math.dist(spot[f"s{a}"], spot[f"s{b}"]) for a in group for b in others)


def test_a_few_with_assistants_sit_in_rows() -> None:
    edges = [["teacher", "a0", "teaches"], ["teacher", "a1", "teaches"]]
    edges += [[f"a{n % 2}", f"s{n}", "assists"] for n in range(4)]
    found = drawing(room(4, edges, assistants=2))
    assert found is not None
    rows = {place.name: place.y for place in found.places}
    assert rows["teacher"] < rows["a0"] == rows["a1"] < rows["s0"] == rows["s3"]
    across = {place.name: place.x for place in found.places}
    assert max(across["s0"], across["s2"]) < min(across["s1"], across["s3"])


def test_a_large_classroom_is_told_in_words() -> None:
    found = drawing(room(300, star(300)))
    assert found is not None
    assert found.width == 0
    assert found.words == "1 teacher, 300 students; edges: 300 teaches"


def test_classrooms_are_distinct_by_shape_not_by_names() -> None:
    named = room(2, star(2))
    other = {**named, "seats": [{**seat, "name": seat["name"].upper()} for seat in named["seats"]]}
    other["edges"] = [[a.upper(), b.upper(), kind] for a, b, kind in named["edges"]]
    assert classroom_of(named) == classroom_of(other)
    assert classroom_of(named) != classroom_of(room(2, [*star(2), ["s0", "s1", "discusses"]]))


# --- the lineage ----------------------------------------------------------------------------------------------


def test_the_way_leads_from_the_first_material_to_the_last_best(run_folder: Path) -> None:
    with RunRecord(run_folder) as record:
        found = lineage(record)
        best = record.selections[3]["beam"][0]
        assert found is not None
        way = [node for node in found.nodes if node.best]
        assert [column.round for column in found.columns] == [0, 1, 2, 3]
        assert len(way) == 4  # one in each round
        assert way[-1].id == best
        for number, selection in record.selections.items():
            x = next(column.x for column in found.columns if column.round == number)
            kept = {node.id for node in found.nodes if node.x == x and node.kept}
            assert kept == set(selection["beam"])
            assert sum(node.x == x for node in found.nodes) == len(selection["candidates"])
    assert all(0 < node.x < found.width and 0 < node.y < found.height for node in found.nodes)
    assert sum(link.best for link in found.links) == 3


def test_a_step_tells_what_was_exchanged(run_folder: Path) -> None:
    with RunRecord(run_folder) as record:
        found = lineage(record)
        assert found is not None
        assert found.steps
        for step in found.steps:
            child, parent = (
                {e["question"] for e in record.materials[name]["exemplars"]} for name in (step.child, step.parent)
            )
            assert {change.text for change in step.changes if change.sign == "+"} == child - parent
            assert {change.text for change in step.changes if change.sign == "-"} == parent - child


# --- the forest -----------------------------------------------------------------------------------------------


def comparison(value: float | None, half: float = 0.02, seeds: Sequence[float] = ()) -> Comparison:
    difference = None if value is None else Estimate(value, value - half, value + half, "m", 9)
    each = tuple((number, 0.5 + one, 0.5) for number, one in enumerate(seeds))
    return Comparison("a", "b", difference, 0.1, 0.2, None, 0.03, 9, 0, True, each, "not shown")


def test_marks_stand_in_order_on_one_axis() -> None:
    found = forest([comparison(0.05), comparison(-0.01), comparison(None)])
    assert found is not None
    first, second, third = (row.marks for row in found.rows)
    assert first.low is not None
    assert first.value is not None
    assert first.high is not None
    assert second.value is not None
    assert 0 < second.value < found.axis.zero < first.low < first.value < first.high < 100
    assert (third.value, third.low) == (None, None)
    places = [place for place, _ in found.axis.ticks]
    assert places == sorted(places)
    assert {label: place for place, label in found.axis.ticks}["0"] == found.axis.zero


@pytest.mark.parametrize("value", [0.0, 0.0004, 0.003, 0.02, 0.3])
def test_the_axis_is_labelled_with_what_it_is(value: float) -> None:
    found = forest([comparison(value, half=value / 2)])
    assert found is not None
    labels = [float(label.replace("−", "-")) for _, label in found.axis.ticks]
    steps = [b - a for a, b in pairwise(labels)]
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert steps[0] > 0


def test_no_comparison_no_forest() -> None:
    assert forest([]) is None
    assert effect_forest([]) is None


def test_each_seed_is_a_dot_where_its_difference_stands() -> None:
    seeds = [0.04, -0.02, 0.04, 0.0, 0.04]
    found = forest([comparison(0.02, half=0.04, seeds=seeds), comparison(0.0, half=0.05)])
    assert found is not None
    dots = found.rows[0].marks.dots
    (left, low), (right, high) = found.axis.ticks[0], found.axis.ticks[-1]
    points = (float(low.replace("−", "-")), float(high.replace("−", "-")))
    told = [points[0] + (place - left) / (right - left) * (points[1] - points[0]) for place, _ in dots]
    assert sorted(told) == pytest.approx(sorted(100 * one for one in seeds), abs=0.01)
    above = sorted(height for place, height in dots if place == max(dots)[0])
    assert above == [0, pytest.approx(above[1]), pytest.approx(2 * above[1])]  # equal ones stand over one another
    assert above[1] >= 4
    assert max(height for _, height in dots) < found.axis.height - 20
    assert found.rows[1].marks.dots == ()


def test_far_seeds_are_told_at_the_edge_and_do_not_shrink_the_intervals() -> None:
    near = forest([comparison(0.0, half=0.02, seeds=[0.01, -0.01])])
    far = forest([comparison(0.0, half=0.02, seeds=[0.01, -0.01, -0.9, 0.8, 0.9])])
    assert near is not None
    assert far is not None
    assert near.rows[0].marks.beyond == (0, 0)
    assert (near.rows[0].marks.far, far.rows[0].marks.far) == (False, True)
    marks = far.rows[0].marks
    assert marks.beyond == (1, 2)
    assert len(marks.dots) == 2
    assert marks.low is not None
    assert marks.high is not None
    assert marks.high - marks.low > 15


def test_of_very_many_seeds_none_is_drawn() -> None:
    some = comparison(0.0, seeds=[0.01, -0.01] * 100)
    for found, dots in (
        (forest([some]), 200),
        (forest([replace(some, per_seed=(*some.per_seed, (900, 0.5, 0.5)))]), 0),
        (forest([some] * 30), 0),
    ):
        assert found is not None
        assert [len(row.marks.dots) for row in found.rows] == [dots] * len(found.rows)
        assert [row.undrawn for row in found.rows] == [not dots] * len(found.rows)


def test_the_smallest_effect_is_two_lines_around_no_difference() -> None:
    found = forest([comparison(0.0, half=0.001)], smallest=0.02)
    assert found is not None
    assert found.axis.limits is not None
    left, right = found.axis.limits
    assert 0 < left < found.axis.zero < right < 100
    assert found.axis.zero - left == pytest.approx(right - found.axis.zero)
    without = forest([comparison(0.0)])
    assert without is not None
    assert without.axis.limits is None


def test_an_effect_is_filled_where_it_is_shown_after_correction() -> None:
    def effect(low: float, p_holm: float | None) -> FactorEffect:
        return FactorEffect(("exam",), ("12",), ("6",), Estimate(0.03, low, 0.06, "m", 9), 0.01, p_holm, 4, 9)

    found = effect_forest([effect(0.01, 0.04), effect(0.01, 0.06), effect(-0.01, 0.04), effect(0.01, None)])
    assert found is not None
    assert [row.shown for row in found.rows] == [True, False, False, False]
    assert found.rows[0].levels == "12 against 6"
    both = effect_forest([FactorEffect(("arm", "exam"), ("one", "12"), ("two", "6"), None, None, None, 4, 1)])
    assert both is not None
    assert (both.rows[0].name, both.rows[0].levels) == ("arm × exam", "one against two, with 12 rather than 6")
    assert both.rows[0].marks.value is None
