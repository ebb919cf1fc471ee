"""The report of a study: every figure with its interval and of how many, unfinished ones too, small and the same."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from commands import lbt_sim
from made import make_analysis
from pages import read, without_times

from lbt_sim.report import report_study
from lbt_sim.report.reproduce import study_commands
from lbt_sim.report.study_page import study_page
from lbt_sim.study.folder import create_study, load_results
from lbt_sim.study.plan import load_study
from lbt_sim.study.results import StudyResults

STUDY = """\
kind: study
version: 1
title: Two against one?
base: simulated
seeds: 2
arms:
  two: {students: [{persona: literal}, {persona: sceptic}]}
  one: {students: [{persona: literal}]}
compare: [[two, one]]
"""


@pytest.fixture(scope="module")
def text(results: StudyResults) -> str:
    return report_study(results, make_analysis(results))


def test_the_question_and_the_answer_come_first(results: StudyResults, text: str) -> None:
    page = read(text)
    head = text[text.index("<h1>") : text.index("<nav")]
    assert results.title in head
    assert make_analysis(results).answer in page.text
    assert head.index(results.title) < head.index("Diverse students against clones")


def test_the_page_has_every_section(text: str) -> None:
    page = read(text)
    expected = ["effects", "curves", "diversity", "exams", "classroom", "lineage", "exemplars", "failed", "cost"]
    assert page.of("section", "id") == [*expected, "reproduce", "times"]
    assert not page.wrong
    assert page.tags.count("caption") == page.tags.count("table")


def test_each_comparison_has_interval_p_pairs_and_the_smallest_effect(results: StudyResults, text: str) -> None:
    table = table_with(text, "Differences in percentage points")
    for one in make_analysis(results).comparisons:
        assert one.difference is not None
        row = next(row for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL) if f"against {one.b}<" in row)
        low, high = (f"{100 * value:+.1f}".replace("-", "−") for value in (one.difference.low, one.difference.high))  # type: ignore[operator]
        assert f"{low} to {high}" in row
        assert "0.200" in row
        assert ">3<" in row
        assert ">8.0<" in row
        assert "differ in: students, persona" in row
        assert "not shown" in row


def table_with(text: str, said: str) -> str:
    """The table whose caption has these words."""
    tables = re.findall(r"<table.*?</table>", text, re.DOTALL)
    return next(table for table in tables if said in table[: table.index("</caption>")])


def test_each_seeds_difference_is_a_dot(results: StudyResults, text: str) -> None:
    table = table_with(text, "Differences in percentage points")
    seeds = sum(len(one.per_seed) for one in make_analysis(results).comparisons)
    assert table.count('<circle class="dot"') == seeds > 0
    assert "mean of 3 seeds" in table
    assert "arrowhead" not in table
    assert "no dots are drawn" not in table


def test_how_many_seeds_it_would_take_is_a_table(text: str) -> None:
    table = table_with(text, "How many seeds it would take")
    assert re.findall(r"<th class=\"n\"[^>]*>(.*?)</th>", table) == ["1 point", "2 points", "5 points"]
    assert re.findall(r"<td class=\"n\">(.*?)</td>", table)[:3] == ["none would do", "1,234", "40"]
    assert "corrected for 2 comparisons" in table


def test_what_is_concluded_from_and_what_is_a_check_is_said(results: StudyResults, text: str) -> None:
    for page in (text, report_study(results, make_analysis(results), "md")):
        words = " ".join(page.split())
        assert "What is concluded from stands in this table" in words
        assert "with Holm's correction for all comparisons" in words.replace("&#39;", "'")
        check = words[words.index("A check beside them") :]
        assert "that some problems may favour one condition it does not count" in check
        assert "Where they disagree, the paired differences" in check


def test_the_smallest_effect_is_drawn_and_its_verdict_told(results: StudyResults, text: str) -> None:
    assert 'class="limit"' not in text
    analysis = make_analysis(results)
    first = replace(analysis.comparisons[0], verdict="equivalent")
    analysis = replace(analysis, comparisons=(first, *analysis.comparisons[1:]))
    given = replace(results, smallest_effect=0.02)
    table = table_with(report_study(given, analysis), "Differences in percentage points")
    assert table.count('class="limit"') == 2 * len(analysis.comparisons)
    assert '<span class="verdict equivalent">equivalent</span>' in table
    assert "2.0 points" in report_study(given, analysis, "md")


def test_effects_of_factors_have_their_own_forest(results: StudyResults, text: str) -> None:
    table = table_with(text, "Effects in percentage points")
    rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)[1:-1]
    assert len(rows) == 3
    assert "clones against diverse" in rows[0]
    assert "+1.1 to +5.1" in rows[0]
    assert "0.030" in rows[0]
    assert [row.startswith('<tr class="open">') for row in rows] == [False, True, True]
    assert "arm × exam" in rows[2]
    markdown = report_study(results, make_analysis(results), "md")
    assert "| arm | clones against diverse | +3.1 | +1.1 to +5.1 | 0.030 |" in markdown
    without = replace(make_analysis(results), effects=())
    assert "What each factor does" not in report_study(results, without)


def test_slopes_are_told_with_their_corrected_p(results: StudyResults, text: str) -> None:
    assert "p = 0.200, Holm p = 0.400" in text
    assert "Holm p = 0.400" in report_study(results, make_analysis(results), "md")


def test_no_figure_stands_with_a_bare_plus_minus(text: str) -> None:
    assert "±" not in read(text).text


def test_shares_of_exams_are_those_of_the_runs(results: StudyResults) -> None:
    grid = next(one for one in study_page(results, make_analysis(results)).shares if one.condition == "clones")
    student, cells = grid.rows[0]
    exams = [run.exams[0] for (name, _), run in results.runs.items() if name == "clones"]
    letters = "".join(one.outcomes for exam in exams for one in exam.students if one.student == student)
    assert cells[0] is not None
    assert (cells[0].correct, cells[0].n) == (letters.count("c"), len(letters))
    assert cells[0].n == 24  # three runs of eight problems


def test_rooms_of_the_same_shape_are_drawn_once(results: StudyResults) -> None:
    rooms = study_page(results, make_analysis(results)).rooms
    assert [room.conditions for room in rooms] == [("diverse", "clones"), ("one",)]


def test_the_run_in_full_is_the_median_of_the_first_condition(results: StudyResults) -> None:
    shown = study_page(results, make_analysis(results)).exemplary
    assert shown is not None
    ends = {seed: run.rounds[-1].accuracy for (name, seed), run in results.runs.items() if name == "diverse"}
    assert shown.condition == "diverse"
    assert ends[shown.seed] == sorted(ends.values())[1]  # type: ignore[type-var]


def test_where_equal_compute_was_not_met_is_told(results: StudyResults, text: str) -> None:
    assert results.notes[0] in text


# --- not finished ---------------------------------------------------------------------------------------------


def test_missing_and_failed_runs_are_told(results: StudyResults) -> None:
    runs = dict(results.runs)
    del runs["one", 2]
    runs["clones", 1] = replace(runs["clones", 1], status="failed", error="the server died", rounds=(), exams=())
    partial = replace(results, runs=runs)
    text = read(report_study(partial, make_analysis(partial))).text
    assert "1 of 9 runs are missing" in text
    assert "clones 1 the server died" in text
    assert "Runs that stopped: 1 of 1." in text
    assert "1 of 9 runs are missing" in report_study(partial, make_analysis(partial), "md")


def test_a_study_of_which_nothing_is_done_yet_is_reported(results: StudyResults) -> None:
    nothing = replace(results, runs={})
    for format_ in ("html", "md"):
        assert "9 of 9 runs are missing" in report_study(nothing, make_analysis(nothing), format_)


def test_a_study_folder_is_reported_before_its_first_run(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(STUDY, encoding="utf-8")
    folder = create_study(load_study(str(file)), tmp_path / "two").path
    assert lbt_sim("report", folder).status == 0
    text = read((folder / "report.html").read_text(encoding="utf-8")).text
    assert "Two against one?" in text
    assert "4 of 4 runs are missing" in text
    assert f"lbt-sim resume {folder}" in text


# --- how it is made again -------------------------------------------------------------------------------------


def begun(results: StudyResults, folder: Path, *command: str, named: str) -> StudyResults:
    return replace(results, folder=folder, facts={**results.facts, "command": list(command), "folder": named})


def test_commands_name_the_way_to_the_folder_and_how_lbt_sim_was_called(results: StudyResults, tmp_path: Path) -> None:
    made = begun(results, tmp_path / "runs" / "made", "uv", "run", "lbt-sim", "study", "made", named="runs/made")
    told = study_commands(made)
    assert told.place == "From the directory in which the study was begun."
    assert [command for _, command in told.rows] == [
        "uv run lbt-sim study made",
        "mkdir again && cp -r runs/made/study.yaml runs/made/conditions runs/made/manifest.json again/"
        " && uv run lbt-sim resume again",
        "uv run lbt-sim show runs/made/runs/diverse/0",
        "uv run lbt-sim report runs/made",
    ]
    missing = replace(made, runs={})
    assert "uv run lbt-sim resume runs/made" in study_page(missing, make_analysis(missing)).unfinished


@pytest.mark.parametrize("named", ["runs/other", "/elsewhere/made", None])
def test_commands_of_a_folder_that_was_moved_begin_where_it_lies(
    results: StudyResults, tmp_path: Path, named: str | None
) -> None:
    moved = begun(results, tmp_path / "made", "lbt-sim", "study", "made", named=named or "")
    told = study_commands(moved)
    assert told.place == "From the directory that holds the study's folder."
    assert told.rows[-1] == ("This report", "lbt-sim report made")
    assert told.rows[0] == ("The command that made it, from where it was given", "lbt-sim study made")


def test_the_same_plan_is_made_again_by_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.yaml").write_text(f"{STUDY}set: {{method.rounds: 1, task.held_out: 20}}\n", encoding="utf-8")
    assert lbt_sim("study", "two.yaml", "--out", "some/two", "--workers", "1", "--quiet").status == 0
    results = load_results(Path("some/two"))
    told = dict(study_commands(results).rows)
    made = next(title for title in told if title.startswith("The command that made it"))
    assert "--out has to name another" in made
    copy, _, resume = told["The same plan again, every run anew"].rpartition(" && ")
    subprocess.run(copy, shell=True, check=True)
    assert lbt_sim(*shlex.split(resume)[shlex.split(resume).index("lbt-sim") + 1 :], "--quiet").status == 0
    again = load_results(Path("again"))
    assert {key: run.rounds for key, run in again.runs.items()} == {
        key: run.rounds for key, run in results.runs.items()
    }
    assert Path(shlex.split(told["One of its runs, read"])[-1]).is_dir()


def test_run_folders_that_are_gone_are_counted(results: StudyResults, tmp_path: Path) -> None:
    moved = replace(results, folder=tmp_path / "made")
    text = read(report_study(moved, make_analysis(moved))).text
    assert "9 run folders could not be read" in text
    assert "No run folder can be read." in text


def test_a_study_without_comparisons_is_reported(results: StudyResults) -> None:
    alone = replace(results, comparisons=())
    assert "names no comparison" in report_study(alone, make_analysis(alone))


# --- the same, and small --------------------------------------------------------------------------------------


def test_the_same_results_give_the_same_bytes(results: StudyResults, text: str) -> None:
    assert report_study(results, make_analysis(results)) == text


def test_who_paid_and_when_stand_with_the_times_alone(results: StudyResults, text: str) -> None:
    runs = {
        key: replace(run, counts={**run.counts, "made": run.counts["made"] - 7, "shared": run.counts["shared"] + 7})
        for key, run in results.runs.items()
    }
    facts = {**results.facts, "created": "2027-01-01", "executions": [{"began": "x", "how": "interrupted"}]}
    other = replace(results, runs=runs, facts=facts)
    again = report_study(other, make_analysis(other))
    assert again != text
    assert without_times(again) == without_times(text)


def test_markdown_tells_the_same_story(results: StudyResults) -> None:
    text = report_study(results, make_analysis(results), "md")
    assert text.startswith(f"# {results.title}\n")
    assert "diverse − clones" in text
    assert "lbt-sim study made" in text
    assert "<" not in text.replace("< 0.001", "")


def test_thousands_of_runs_make_a_page_of_bounded_size(results: StudyResults) -> None:
    seeds = tuple(range(800))
    runs = {
        (name, seed): replace(results.runs[name, seed % 3], seed=seed)
        for name in ("diverse", "clones", "one")
        for seed in seeds
    }
    many = replace(results, seeds=seeds, runs=runs)
    text = report_study(many, make_analysis(many))
    assert len(text) < 400_000
    assert text.count("<use ") < 3000
    assert "Of the 240 run folders that were read, of 2400 runs." in read(text).text
    assert "Where there are very many seeds, no dots are drawn." in text
