"""The report of a run: what it says, of a finished run and of one that is not; the same bytes each time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import lbt_sim
from made import SMALL, cut_off, make_run
from pages import read, without_times

from lbt_sim.errors import InputError
from lbt_sim.report import report_run, write_report
from lbt_sim.report.run_page import run_page
from lbt_sim.runs import create_run
from lbt_sim.scenario.load import load_scenario
from lbt_sim.setup import prepare
from lbt_sim.transcript.read import RunRecord


def test_the_answer_comes_first_with_its_interval_and_of_how_many(run_folder: Path) -> None:
    with RunRecord(run_folder) as record:
        first, last = (record.reports[number]["teacher"]["accuracy"] for number in (0, 3))
    answer = run_page(run_folder).answer
    assert f"from {first:.2f} to {last:.2f}" in answer
    assert re.search(
        r"95 % interval [+−]?\d+\.\d to [+−]?\d+\.\d, bootstrap over the same 24 held-out problems", answer
    )
    text = read(report_run(run_folder)).text
    assert text.index(answer) < text.index("Learning curve Exams")


def test_every_round_stands_in_the_table_with_its_interval(run_folder: Path) -> None:
    page = run_page(run_folder)
    assert [row.round for row in page.rounds] == [0, 1, 2, 3]
    for row in page.rounds:
        assert re.fullmatch(r"0\.\d\d to [01]\.\d\d", row.interval)
        assert row.n == 24
        assert row.broken == "none"
    assert not page.rounds[0].students
    assert [(score.name, score.n) for score in page.rounds[1].students] == [("literal", 8), ("sceptic", 8)]


def test_the_page_has_every_section(run_folder: Path) -> None:
    page = read(report_run(run_folder))
    sections = [
        "curve",
        "exams",
        "classroom",
        "lineage",
        "exemplars",
        "transcript",
        "failed",
        "cost",
        "reproduce",
        "times",
    ]
    assert page.of("section", "id") == sections
    assert page.of("nav", "aria-label") == ["Contents"]
    assert page.tags.count("h1") == 1


def test_every_table_has_a_caption_and_every_picture_a_name(run_folder: Path) -> None:
    page = read(report_run(run_folder))
    assert page.tags.count("caption") == page.tags.count("table") > 8
    named = sum(
        name in {"aria-labelledby", "aria-label", "aria-hidden"} for tag, name, _ in page.attributes if tag == "svg"
    )
    assert named == page.tags.count("svg") > 3


def test_the_exam_is_drawn_answer_by_answer(run_folder: Path) -> None:
    page = run_page(run_folder)
    with RunRecord(run_folder) as record:
        sat = next(iter(record.grades(1).values()))
    grid = page.exams[0]
    for row, data in zip(grid.rows, sat, strict=True):
        assert sorted(row.letters) == sorted(data["outcomes"])
        assert (row.correct, row.n) == (data["outcomes"].count("c"), 8)
        assert row.low is not None
        assert row.high is not None
        assert row.low < row.correct / row.n < row.high or row.correct in {0, 8}
    assert [problem.right_by for problem in grid.problems] == sorted(problem.right_by for problem in grid.problems)


def test_broken_answers_are_shown_with_what_came_back(ill_folder: Path) -> None:
    failed = run_page(ill_folder).failures
    assert failed.broken > 10
    assert {one.outcome for one in failed.answers} == {"invalid", "truncated", "failed"}
    assert all("<script>" in one.said for one in failed.answers)
    assert "exam answers that could not be graded" in report_run(ill_folder).lower()


def test_texts_keep_their_lines(run_folder: Path) -> None:
    with RunRecord(run_folder) as record:
        feedback = next(iter(record.feedback(1).values()))["text"]
    assert "\n\n" in feedback
    assert feedback in "".join(read(report_run(run_folder)).texts)


def test_cost_is_what_the_ledger_holds(run_folder: Path) -> None:
    with RunRecord(run_folder) as record:
        calls = record.result()["calls"]
    cost = dict(run_page(run_folder).cost)
    assert cost["calls paid for"] == f"{calls['made']:,}"
    assert cost["held-out answers of teachers"] == "96"  # 24 problems, rounds 0 to 3
    assert cost["exam answers of students"] == f"{sum(_sat(run_folder)):,}"


def _sat(folder: Path) -> list[int]:
    with RunRecord(folder) as record:
        return [len(d["outcomes"]) for n in record.exams for sat in record.grades(n).values() for d in sat]


def test_the_command_that_reproduces_it_does(run_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(run_folder, tmp_path / run_folder.name)
    command = run_page(run_folder).commands.rows[0][1]
    assert command.endswith("&& lbt-sim resume again")
    start = command.removesuffix("lbt-sim resume again").removesuffix("&& ")
    subprocess.run(start, shell=True, check=True, cwd=tmp_path)
    assert lbt_sim("resume", tmp_path / "again", "--quiet").status == 0
    assert run_page(tmp_path / "again").rounds == run_page(run_folder).rounds


# --- not finished ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [-1, 0, 1])
def test_a_run_that_stopped_is_reported_as_far_as_it_went(run_folder: Path, tmp_path: Path, last: int) -> None:
    folder = cut_off(run_folder, tmp_path / "stopped", last)
    page = run_page(folder)
    assert "not finished" in page.unfinished
    assert [row.round for row in page.rounds] == list(range(last + 1))
    for format_ in ("html", "md"):
        assert "not finished" in report_run(folder, format_)
    assert not read(report_run(folder)).wrong


def test_a_run_that_asked_nothing_is_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = create_run(prepare(load_scenario("simulated", sets=SMALL)), tmp_path / "new").path
    with pytest.raises(InputError, match="asked nothing") as raised:
        report_run(folder)
    assert "lbt-sim resume" in raised.value.remedy
    said = lbt_sim("report", folder)
    assert said.status == 2
    assert not (folder / "report.html").exists()


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        said = lbt_sim("report", folder)
        assert said.status == 2
        assert "neither a run nor a study" in said.err


# --- the file -------------------------------------------------------------------------------------------------


def test_the_command_writes_the_file_and_says_where(run_folder: Path, tmp_path: Path) -> None:
    said = lbt_sim("report", run_folder, "-o", tmp_path / "page.html")
    assert said.status == 0
    assert said.out.strip() == str(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == report_run(run_folder)
    said = lbt_sim("report", run_folder, "--format", "md", "-o", tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text(encoding="utf-8").startswith("# Rule-based learners")


def test_tables_are_a_folder_of_files(run_folder: Path, tmp_path: Path) -> None:
    said = lbt_sim("report", run_folder, "--format", "parquet", "-o", tmp_path / "tables")
    assert said.status == 0
    assert said.out.strip() == str(tmp_path / "tables")
    assert len(list((tmp_path / "tables").glob("*.parquet"))) > 3


def test_without_a_file_it_lies_in_the_folder(run_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    assert write_report(tmp_path / "run") == tmp_path / "run" / "report.html"
    assert write_report(tmp_path / "run", format_="md") == tmp_path / "run" / "report.md"
    assert not list((tmp_path / "run").glob("*.part"))


def test_a_place_that_cannot_be_written_to_is_refused(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_report(run_folder, tmp_path / "nowhere" / "page.html")


def test_the_same_folder_gives_the_same_bytes_in_any_process_and_place(run_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(run_folder, tmp_path / run_folder.name)
    code = f"from lbt_sim.report import write_report; from pathlib import Path; write_report(Path('{run_folder.name}'))"
    environment = {**os.environ, "PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo", "UV_RUN_RECURSION_DEPTH": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    assert (tmp_path / run_folder.name / "report.html").read_bytes() == report_run(run_folder).encode()


def test_executed_again_only_the_times_differ(run_folder: Path, tmp_path: Path) -> None:
    again = make_run(tmp_path / run_folder.name, *SMALL)
    first, second = report_run(run_folder), report_run(again)
    assert without_times(first) == without_times(second)
    assert re.search(r"\d\d:\d\d:\d\d", first)
    assert not re.search(r"\d\d:\d\d:\d\d", without_times(first))


def test_a_page_is_small(run_folder: Path) -> None:
    assert len(report_run(run_folder)) < 150_000
