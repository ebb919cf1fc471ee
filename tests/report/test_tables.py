"""Tidy tables: what a run or a study holds, once, with nulls for what is missing, and as its page says."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from commands import SMALL, lbt_sim
from made import make_analysis

from lbt_sim.errors import InputError
from lbt_sim.folders import create_run
from lbt_sim.ledger import LEDGER_FILE
from lbt_sim.report.table_findings import findings
from lbt_sim.report.table_schema import TABLES, TABLES_VERSION, columns_of, tables_page
from lbt_sim.report.tables import write_tables
from lbt_sim.scenario.load import load_scenario
from lbt_sim.setup import prepare
from lbt_sim.study.analysis import analyse
from lbt_sim.study.digest import digest
from lbt_sim.study.folder import ResultsFile, StudyFolder, create_study, load_results
from lbt_sim.study.plan import load_study
from lbt_sim.study.results import StudyResults
from lbt_sim.transcript.read import RunRecord

ROOT = Path(__file__).parents[2]
STUDY = """\
kind: study
version: 1
base: small.yaml
seeds: 2
arms:
  one: {students: [{persona: literal}]}
  two: {students: [{persona: literal}, {persona: sceptic}]}
factors: {method.rounds: [1, 2]}
"""
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, to be read only."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "small.yaml").write_text(SMALL, encoding="utf-8")
    said = lbt_sim("run", folder / "small.yaml", "--out", folder / "run", "--json", "-q")
    assert said.status == 0, said.err
    return folder / "run"


def made(folder: Path) -> StudyFolder:
    """A study of eight runs: one stopped and is failed, one was interrupted, one was not made."""
    (folder / "small.yaml").write_text(SMALL, encoding="utf-8")
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    study = create_study(load_study(str(folder / "study.yaml")), folder / "study")
    with ResultsFile(study.path) as results:
        for number, planned in enumerate(study.runs):
            path = study.path / planned.folder
            if number == 7:
                continue
            short = ["--set", "budget.calls=40"] if number in (5, 6) else []
            scenario = study.scenario_of(planned.condition)
            text = scenario.read_text(encoding="utf-8")
            kept = folder / "one.yaml"
            kept.write_text(re.split(r"^(?:resolved|library):", text, flags=re.MULTILINE)[0], encoding="utf-8")
            said = lbt_sim("run", kept, "--out", path, "--seed", planned.seed, "--json", "-q", *short)
            assert said.status == (3 if short else 0), said.err
            if number != 6:
                status, why = ("failed", "the budget is spent") if short else ("done", None)
                results.add(digest(path, planned.condition, planned.seed, planned.folder, status, why))  # type: ignore[arg-type]
    return study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """The study, to be read only."""
    return made(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def tables(study: StudyFolder, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Rows]:
    """The study's tables."""
    return read(study.path, tmp_path_factory.mktemp("out") / "tables")


def read(folder: Path, out: Path) -> dict[str, Rows]:
    files = write_tables(folder, out)
    assert [file.stem for file in files] == list(TABLES)
    return {file.stem: pq.read_table(file).to_pylist() for file in files}


def of(rows: Rows, **wanted: Any) -> Rows:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


# --- one run ------------------------------------------------------------------------------------------------


def test_a_runs_rounds_are_its_reports(run: Path, tmp_path: Path) -> None:
    rounds = read(run, tmp_path)["rounds"]
    with RunRecord(run) as record:
        reports = record.reports
    assert [row["round"] for row in rounds] == list(reports)
    for row in rounds:
        told = reports[row["round"]]
        assert (row["accuracy"], row["f1"]) == (told["teacher"]["accuracy"], told["teacher"]["f1"])
        assert [row["accuracy_low"], row["accuracy_high"]] == told["teacher"]["ci95"]["accuracy"]
        assert {name: row[name] for name in told["teacher"]["outcomes"]} == told["teacher"]["outcomes"]
        assert row["train"] == (told["train"] or {}).get("score")
        assert (row["teacher"], row["condition"], row["material"]) == ("teacher", None, told["material"])


def test_what_round_0_does_not_have_is_null(run: Path, tmp_path: Path) -> None:
    first, second = read(run, tmp_path)["rounds"][:2]
    names = ("train", "train_n", "rescored", "metric", "candidates", "kept")
    assert [first[name] for name in names] == [None] * len(names)
    assert None not in [second[name] for name in names]


def test_answers_give_the_scores_and_name_their_problems(run: Path, tmp_path: Path) -> None:
    found = read(run, tmp_path)
    problems = {row["problem"]: row for row in found["problems"]}
    assert len(problems) == len(found["problems"])
    for reported in found["rounds"]:
        answers = of(found["answers"], round=reported["round"])
        right = [row for row in answers if row["answer"] == problems[row["problem"]]["answer"]]
        assert len(answers) == 8
        assert {row["outcome"] for row in right} <= {"correct"}
        assert len(right) / len(answers) == reported["accuracy"]
        assert all(row["family"] == problems[row["problem"]]["family"] for row in answers)
        assert all((row["outcome"] == "correct") == (row["positive"] == row["said_positive"]) for row in answers)


def test_exam_answers_are_those_of_every_student_taught(run: Path, tmp_path: Path) -> None:
    found = read(run, tmp_path)
    with RunRecord(run) as record:
        grades = {number: record.grades(number) for number in record.exams}
        best = {number: record.reports[number]["students_material"] for number in record.exams}
    for number, by_material in grades.items():
        for material, sat in by_material.items():
            for one in sat:
                rows = of(found["exam_answers"], round=number, material=material, student=one["student"])
                assert "".join(row["outcome"][0] for row in rows) == one["outcomes"]
                assert [row["answer"] for row in rows] == one["answers"]
                assert {row["best"] for row in rows} == {material == best[number]}
    assert len(found["exam_answers"]) == sum(len(one) for sat in grades.values() for one in sat.values()) * 6
    asked = {row["problem"] for row in [*found["exam_answers"], *found["answers"]]}
    assert asked == {row["problem"] for row in found["problems"]}


def test_materials_have_their_lineage_and_scores(run: Path, tmp_path: Path) -> None:
    found = read(run, tmp_path)
    with RunRecord(run) as record:
        materials, selections = record.materials, record.selections
    assert [row["material"] for row in found["materials"]] == list(materials)
    for row in found["materials"]:
        data = materials[row["material"]]
        assert (row["parents"], row["operator"]) == (data["parents"], data["operator"])
        assert (row["exemplars"], row["lecture"]) == (data["exemplars"], None)
        standing = of(found["standings"], material=row["material"], round=row["first_scored"])
        assert [row["train"]] == [one["score"] for one in standing]
        made_in = {one["round"] for one in of(found["candidates"], material=row["material"], status="new")}
        assert row["round"] == min(made_in | (set() if row["parents"] else {0}))
    kept = {
        number: [row["material"] for row in sorted(rows, key=lambda row: row["place"])]
        for number in selections
        if (rows := [row for row in of(found["standings"], round=number) if row["place"] is not None])
    }
    assert kept == {number: selection["beam"] for number, selection in selections.items()}
    best = sum(row["best_in"] for row in found["materials"])
    assert best == len(found["rounds"])


def test_calls_add_up_to_the_runs_counts(run: Path, tmp_path: Path) -> None:
    found = read(run, tmp_path)
    (row,) = found["runs"]
    asked = [one for one in found["calls"] if one["purpose"] != "count"]
    for name in ("calls", "made", "shared", "failed", "prompt_tokens", "completion_tokens"):
        assert row[name] == sum(one[name] for one in asked), name
    assert (row["run"], row["status"], row["ledger"], row["students"]) == ("run", "done", True, 2)


def test_a_run_that_stopped_says_why(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    stopped = lbt_sim("run", tmp_path / "small.yaml", "--out", tmp_path / "run", "-q", "--set", "budget.calls=150")
    assert stopped.status == 3
    (row,) = read(tmp_path / "run", tmp_path / "tables")["runs"]
    assert row["status"] == "failed"
    assert "budget" in row["error"]
    assert 0 < row["reported_rounds"] < 4


def test_a_lecture_has_no_exemplars(tmp_path: Path) -> None:
    said = lbt_sim("run", "lecture", "--engine", "simulated", "--out", tmp_path / "run", "-q", "--set=method.rounds=1")
    assert said.status == 0, said.err
    materials = read(tmp_path / "run", tmp_path / "tables")["materials"]
    assert {row["exemplars"] is None for row in materials} == {True}
    assert all(row["lecture"] for row in materials)


def test_each_of_several_teachers_has_its_scores(tmp_path: Path) -> None:
    small = [f"--set={one}" for one in ("method.rounds=1", "task.held_out=8", "method.select.budget=20")]
    said = lbt_sim("run", "two-teachers", "--engine", "simulated", "--out", tmp_path / "run", "-q", *small)
    assert said.status == 0, said.err
    found = read(tmp_path / "run", tmp_path / "tables")
    with RunRecord(tmp_path / "run") as record:
        told = record.reports[1]["teachers"]
    rows = of(found["rounds"], round=1)
    assert [(row["teacher"], row["teacher_number"]) for row in rows] == [(name, n) for n, name in enumerate(told)]
    for row in rows:
        answers = of(found["answers"], round=1, teacher_number=row["teacher_number"])
        assert row["accuracy"] == told[row["teacher"]]["accuracy"] == len(of(answers, outcome="correct")) / 8


# --- a study ------------------------------------------------------------------------------------------------


def test_every_planned_run_has_a_row_whatever_became_of_it(study: StudyFolder, tables: Mapping[str, Rows]) -> None:
    rows = {row["run"]: row for row in tables["runs"]}
    planned = list(study.runs)
    assert set(rows) == {one.folder for one in planned}
    assert [rows[one.folder]["status"] for one in planned] == ["done"] * 5 + ["failed", "unfinished", "missing"]
    for one in planned:
        row, condition = rows[one.folder], next(c for c in study.conditions if c.name == one.condition)
        assert (row["condition"], row["seed"], row["arm"]) == (one.condition, one.seed, condition.arm)
        assert row["level.method.rounds"] == condition.levels["method.rounds"]
    assert [rows[one.folder]["error"] for one in planned] == [None] * 5 + ["the budget is spent", None, None]


def test_a_run_that_was_not_made_has_nulls_and_no_other_rows(study: StudyFolder, tables: Mapping[str, Rows]) -> None:
    missing = list(study.runs)[7].folder
    (row,) = of(tables["runs"], run=missing)
    assert {name for name, value in row.items() if value is not None} == {
        "run", "condition", "seed", "arm", "level.method.rounds", "status", "ledger",
    }  # fmt: skip
    assert [name for name in tables if name != "runs" and any(row.get("run") == missing for row in tables[name])] == []


def test_runs_that_stopped_have_what_they_answered(study: StudyFolder, tables: Mapping[str, Rows]) -> None:
    for one in list(study.runs)[5:7]:
        reported = of(tables["rounds"], run=one.folder)
        assert reported
        assert len(of(tables["answers"], run=one.folder)) == 8 * len(reported)


def test_diversity_is_null_where_it_is_undefined(tables: Mapping[str, Rows]) -> None:
    alone = [row for row in tables["diversity"] if row["students"] == 1 and row["measure"] == "disagreement"]
    several = [row for row in tables["diversity"] if row["students"] == 2 and row["measure"] == "disagreement"]
    assert alone
    assert {row["value"] for row in alone} == {None}
    assert several
    assert None not in {row["value"] for row in several}


def test_each_problem_stands_once_for_all_runs(tables: Mapping[str, Rows]) -> None:
    names = [row["problem"] for row in tables["problems"]]
    assert len(names) == len(set(names))
    assert set(names) == {row["problem"] for row in [*tables["answers"], *tables["exam_answers"]]}


def test_keys_tell_rows_apart(tables: Mapping[str, Rows]) -> None:
    for name, rows in tables.items():
        keys = [tuple(row[column] for column in TABLES[name].key) for row in rows]
        assert len(set(keys)) == len(keys) > 0, name


@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_a_run_without_its_ledger_keeps_what_the_results_have(harm: str, study: StudyFolder, tmp_path: Path) -> None:
    shutil.copytree(study.path, tmp_path / "study")
    one = next(iter(study.runs))
    ledger = tmp_path / "study" / one.folder / LEDGER_FILE
    ledger.unlink() if harm == "gone" else ledger.write_bytes(b"no database")
    whole, kept = read(study.path, tmp_path / "whole"), read(tmp_path / "study", tmp_path / "kept")
    (row,) = of(kept["runs"], run=one.folder)
    assert (row["ledger"], row["status"], row["task"]) == (False, "done", None)
    for name in ("accuracy", "n", "correct", "train", "kept", "teacher_number"):
        before = [row[name] for row in of(whole["rounds"], run=one.folder)]
        assert [row[name] for row in of(kept["rounds"], run=one.folder)] == before, name
    for name in ("problem", "outcome", "said_positive", "positive", "family"):
        before = [row[name] for row in of(whole["answers"], run=one.folder)]
        assert [row[name] for row in of(kept["answers"], run=one.folder)] == before, name
    assert {row["answer"] for row in of(kept["answers"], run=one.folder)} == {None}
    best = [row["outcome"] for row in of(whole["exam_answers"], run=one.folder, best=True)]
    assert [row["outcome"] for row in of(kept["exam_answers"], run=one.folder)] == best
    assert of(kept["diversity"], run=one.folder) == of(whole["diversity"], run=one.folder)
    assert of(kept["materials"], run=one.folder) == []
    others = [row for row in kept["answers"] if row["run"] != one.folder]
    assert others == [row for row in whole["answers"] if row["run"] != one.folder]


# --- the files ----------------------------------------------------------------------------------------------


def test_the_same_folder_gives_the_same_bytes(study: StudyFolder, tmp_path: Path) -> None:
    first, second = write_tables(study.path, tmp_path / "a"), write_tables(study.path, tmp_path / "b")
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_row_groups_are_cut_before_all_rows_are_held(
    study: StudyFolder, tables: Mapping[str, Rows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {name: type(table)(table.name, table.text, table.columns, table.key, 20) for name, table in TABLES.items()}
    monkeypatch.setattr("lbt_sim.report.tables.TABLES", small)
    files = {file.stem: file for file in write_tables(study.path, tmp_path)}
    assert pq.ParquetFile(files["answers"]).num_row_groups > 3
    assert {name: pq.read_table(file).to_pylist() for name, file in files.items()} == tables


def test_columns_tell_what_they_are_and_files_of_which_version(study: StudyFolder, tmp_path: Path) -> None:
    for file in write_tables(study.path, tmp_path):
        schema, table = pq.read_schema(file), TABLES[file.stem]
        assert schema.metadata[b"lbt_sim.tables_version"].decode() == TABLES_VERSION
        assert schema.metadata[b"lbt_sim.table"].decode() == file.stem
        columns = list(columns_of(table, ["method.rounds"]))
        assert schema.names == [column.name for column in columns]
        for column in columns:
            metadata = schema.field(column.name).metadata
            assert metadata[b"description"].decode() == column.text
            assert metadata.get(b"unit", b"").decode() == column.unit
        strings = [n for n, column in enumerate(columns) if column.type == "string"]
        group = pq.ParquetFile(file).metadata.row_group(0)
        assert all(group.column(number).has_dictionary_page for number in strings)


def test_half_characters_do_not_stop_it(tmp_path: Path, study: StudyFolder) -> None:
    shutil.copytree(study.path, tmp_path / "study")
    results = tmp_path / "study" / "results.jsonl"
    text = results.read_text(encoding="utf-8")
    assert "the budget is spent" in text
    results.write_text(text.replace("the budget is spent", r"the \ud800 budget"), encoding="utf-8")
    errors = [row["error"] for row in read(tmp_path / "study", tmp_path / "tables")["runs"] if row["error"]]
    assert errors == ["the ? budget"]


def test_a_folder_that_holds_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no ledger"):
        write_tables(tmp_path, tmp_path / "tables")
    assert not (tmp_path / "tables").exists()


def test_a_run_that_asked_nothing_is_refused_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    create_run(prepare(load_scenario(str(tmp_path / "small.yaml"))), tmp_path / "run")
    with pytest.raises(InputError, match="lbt-sim resume"):
        write_tables(tmp_path / "run", tmp_path / "tables")


def test_tables_are_written_all_or_none(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tables(run, tmp_path / "tables")
    before = {file.name: file.read_bytes() for file in (tmp_path / "tables").iterdir()}

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lbt_sim.report.tables.blocks_of", broken)
    with pytest.raises(InputError, match="No space left"):
        write_tables(run, tmp_path / "tables")
    assert {file.name: file.read_bytes() for file in (tmp_path / "tables").iterdir()} == before


def test_a_file_in_place_of_the_folder_is_told(run: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be written"):
        write_tables(run, tmp_path / "tables")
    assert (tmp_path / "tables").read_text(encoding="utf-8") == "mine"


# --- what a study found ---------------------------------------------------------------------------------------


def test_comparisons_and_effects_are_those_of_the_report(study: StudyFolder, tables: Mapping[str, Rows]) -> None:
    analysis = analyse(load_results(study.path))
    assert [(row["a"], row["b"]) for row in tables["comparisons"]] == [(one.a, one.b) for one in analysis.comparisons]
    for row, one in zip(tables["comparisons"], analysis.comparisons, strict=True):
        assert (row["pairs"], row["left_out"], row["p"], row["p_holm"]) == (one.pairs, one.left_out, one.p, one.p_holm)
        assert (row["verdict"], row["detectable"]) == (one.verdict, one.detectable)
        assert row["differs"] == list(one.differs) == ["students"]
        assert row["difference"] == (one.difference and one.difference.value)
        assert row["low"] == (one.difference and one.difference.low)
    told = [(row["factor"], row["level"], row["by_factor"], row["by_level"]) for row in tables["effects"]]
    assert told == [
        ("arm", "two", None, None),
        ("method.rounds", "2", None, None),
        ("arm", "two", "method.rounds", "2"),
    ]
    for row, effect in zip(tables["effects"], analysis.effects, strict=True):
        assert (row["conditions"], row["pairs"], row["p_holm"]) == (effect.conditions, effect.pairs, effect.p_holm)
        assert row["difference"] == (effect.difference and effect.difference.value)


def test_a_finding_keeps_its_interval_and_how_it_was_computed(results: StudyResults) -> None:
    analysis = make_analysis(results)
    rows = list(findings(analysis))
    (name, first), one = rows[0], analysis.comparisons[0]
    assert (name, one.difference is not None, one.effect is not None) == ("comparisons", True, True)
    assert (first["difference"], first["low"], first["high"], first["method"]) == (
        one.difference.value, one.difference.low, one.difference.high, one.difference.method,
    )  # fmt: skip
    assert (first["effect"], first["effect_low"], first["effect_high"]) == (0.4, -0.2, 1.0)
    effects = [row for name, row in rows if name == "effects"]
    assert [(row["difference"], row["low"], row["by_against"]) for row in effects] == [
        (0.031, 0.011, None),
        (0.031, -0.02, None),
        (None, None, "6"),
    ]
    for name, row in rows:
        assert set(row) == {column.name for column in TABLES[name].columns}


def test_a_run_has_no_comparisons(run: Path, tmp_path: Path) -> None:
    found = read(run, tmp_path)
    assert (found["comparisons"], found["effects"]) == ([], [])


# --- the page -----------------------------------------------------------------------------------------------


def test_the_page_is_up_to_date() -> None:
    written = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    assert written == tables_page(), "write it anew: python -m lbt_sim.report.tables > docs/tables.md"


def test_the_pages_examples_run(
    study: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tables(study.path, tmp_path / "tables")
    examples = re.findall(r"^```python\n(.*?)^```$", tables_page(), re.MULTILINE | re.DOTALL)
    said = []
    for example in examples:
        exec(compile(example, "docs/tables.md", "exec"), {})
        said.append(capsys.readouterr().out)
    first, second = said
    assert "one/rounds=1" in first
    assert second.startswith(repr(TABLES_VERSION.encode()))
    assert "correct of those that came back" in second
