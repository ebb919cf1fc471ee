"""Runs that no study planned: which are one condition, what conditions are called, what is compared and what is not."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from commands import SMALL, lbt_sim

from lbt_sim.errors import InputError
from lbt_sim.folders import create_run
from lbt_sim.ledger import LEDGER_FILE
from lbt_sim.scenario.load import load_scenario
from lbt_sim.setup import prepare
from lbt_sim.study.adhoc import results_of
from lbt_sim.study.digest import digest
from lbt_sim.study.folder import ResultsFile, load_results
from lbt_sim.study.likeness import named

TINY = SMALL.replace("rounds: 3", "rounds: 1")
STUDY = """\
kind: study
version: 1
base: tiny.yaml
seeds: 2
metric: f1
outcome: area
arms:
  several: {}
  shuffled: {}
factors: {method.exam: [4, 6]}
"""


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    return tmp_path


_MADE: dict[tuple[object, ...], Path] = {}


@pytest.fixture(scope="module", autouse=True)
def _kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs that several tests want are made once, and copied."""
    _MADE[()] = tmp_path_factory.mktemp("made")
    yield
    _MADE.clear()


def run(name: str, seed: int = 1, *sets: str, status: int = 0) -> Path:
    """A run in the folder of that name."""
    key = (seed, *sets)
    alone = any("own-" in one or "jsonl" in one for one in sets)  # they hang on files of one test
    if key not in _MADE or alone:
        _MADE[key] = _MADE[()] / f"{len(_MADE)}-{seed}" if not alone else Path(name)
        said = lbt_sim("run", "tiny.yaml", "--out", _MADE[key], "--seed", seed, "-q", *(f"--set={one}" for one in sets))
        assert said.status == status, said.err
    if not alone:
        shutil.copytree(_MADE[key], name)
    return Path(name)


def names(*runs: Path) -> list[str]:
    return [one.name for one in results_of(runs).conditions]


# --- conditions ---------------------------------------------------------------------------------------------


def test_runs_that_differ_in_the_seed_alone_are_one_condition() -> None:
    results = results_of([run(f"star-{seed}", seed) for seed in (3, 1)])
    assert [one.name for one in results.conditions] == ["star"]
    assert (results.seeds, list(results.runs), results.comparisons) == ((1, 3), [("star", 1), ("star", 3)], ())


def test_what_changes_no_answer_makes_no_other_condition() -> None:
    runs = [run("a-1", 1), run("a-2", 2, "title=Another", "description=x", "budget.calls=9000")]
    runs.append(run("a-3", 3, "cast.students=[{persona: literal, count: 1}, {persona: sceptic}]"))
    assert names(*runs) == ["a"]


def test_each_condition_is_compared_with_the_first_that_is_given() -> None:
    star, ring = run("a-1"), run("b-1", 1, "classroom=ring", "lesson.discussion=1")
    more = run("c-1", 1, "classroom=seminar", "lesson.discussion=1")
    results = results_of([ring, more, star])
    assert results.comparisons == (("classroom=seminar", "classroom=ring"), ("classroom=star", "classroom=ring"))


def test_runs_hold_what_their_ledgers_hold() -> None:
    star, ring = run("in/a-1"), run("in/b-1", 1, "classroom=ring")
    results = results_of([star, ring])
    found = results.runs["classroom=ring", 1]
    assert found == digest(ring, "classroom=ring", 1, "b-1", "done")
    assert found.rounds
    assert (results.folder / found.folder).samefile(ring)


def test_conditions_are_named_by_their_students() -> None:
    first, second = run("a-1"), run("b-1", 1, "cast.students=[{persona: literal, count: 3}]")
    assert names(first, second) == ["cast.students=literal+sceptic", "cast.students=literal×3"]


def test_as_many_keys_name_a_condition_as_tell_it_apart() -> None:
    runs = [
        run(f"{exam}{shown}", 1, f"method.exam={exam}", f"method.exemplars={shown}")
        for exam in (4, 6)
        for shown in (2, 4)
    ]
    assert names(*runs) == [
        f"method.exemplars={shown}, method.exam.problems={exam}" for exam in (4, 6) for shown in (2, 4)
    ]


def test_what_differs_without_being_in_a_name_is_told() -> None:
    first = run("a-1")
    second = run("b-1", 1, "method.exam=4", "method.exemplars=2")
    results = results_of([first, second])
    (note,) = results.notes
    assert [one.name for one in results.conditions] == ["method.exemplars=4", "method.exemplars=2"]
    assert note == "the conditions differ in this too: method.exam.problems"


def test_long_names_give_way_to_the_folders() -> None:
    many = ", ".join(["{persona: literal}", "{persona: sceptic}"] * 4)
    first, second = run("few-1"), run("many/1", 1, f"cast.students=[{many}]")
    assert names(first, second) == ["cast.students=literal+sceptic", "many"]


def test_another_prompt_is_another_condition() -> None:
    first = run("a-1")
    shutil.copytree(first, "b-1")
    scenario = Path("b-1/scenario.yaml")
    text = scenario.read_text(encoding="utf-8")
    assert "You are a careful examiner." in text
    scenario.write_text(text.replace("You are a careful examiner.", "You are strict."), encoding="utf-8")
    found = names(first, Path("b-1"))
    assert all(name.startswith("file agents/examiner/system.md.j2=") for name in found)
    assert len(set(found)) == 2


def test_a_fork_is_another_condition_than_a_run_from_the_start() -> None:
    first = run("a-1", 1, "method.rounds=2")
    said = lbt_sim("fork", first, "--from-round", 2, "--out", "b-1", "-q", "--set", "method.exam=4")
    assert said.status == 0, said.err
    whole = run("c-1", 1, "method.rounds=2", "method.exam=4")
    results = results_of([first, Path("b-1"), whole])
    assert len(results.conditions) == 3


def test_other_data_are_another_condition(workspace: Path) -> None:
    rows = [{"question": f"Is {n} even?", "answer": "yes" if n % 2 == 0 else "no"} for n in range(60)]
    task = "task={jsonl: numbers.jsonl, labels: ['yes', 'no'], positive: 'yes', train: 40, held_out: 8}"
    for name, told in (("a-1", rows), ("b-1", rows[::-1])):
        (workspace / "numbers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told), encoding="utf-8")
        run(name, 1, task)
    assert len(names(Path("a-1"), Path("b-1"))) == 2


def test_a_controls_donor_makes_no_other_condition() -> None:
    for seed in (1, 2):
        run(f"own-{seed}", seed)
    told = [
        run(f"told-{seed}", seed, "method.revise.feedback=shuffled", f"method.revise.donor=own-{donor}")
        for seed, donor in ((1, 2), (2, 1))
    ]
    results = results_of([Path("own-1"), Path("own-2"), *told])
    assert [one.name for one in results.conditions] == [
        "method.revise.feedback=failures",
        "method.revise.feedback=shuffled",
    ]
    assert len(results.runs) == 4


def test_names_that_nothing_tells_apart_are_the_folders() -> None:
    assert named([{"a": 1}, {"a": 1}], ["x", "y"]).names == ("x", "y")


def test_keys_that_all_have_name_before_those_that_some_lack() -> None:
    found = named([{"few": 1, "longer": 10}, {"longer": 20}], ["x", "y"])
    assert (found.names, found.unnamed) == (("longer=10", "longer=20"), ("few",))


# --- what is left out, what is refused ----------------------------------------------------------------------


def test_unfinished_runs_are_left_out_and_told(workspace: Path) -> None:
    done, stopped = run("a-1"), run("a-2", 2, "budget.calls=20", status=3)
    begun = create_run(prepare(load_scenario(str(workspace / "tiny.yaml"), seed=3)), Path("a-3")).path
    results = results_of([done, stopped, begun])
    assert list(results.runs) == [("a", 1)]
    assert results.notes == (f"left out, not finished: {stopped}, {begun}",)


def test_a_run_whose_ledger_is_damaged_is_left_out_and_told() -> None:
    first, second = run("a-1"), run("a-2", 2)
    (second / LEDGER_FILE).write_bytes(b"no database")
    results = results_of([first, second])
    assert list(results.runs) == [("a", 1)]
    (note,) = results.notes
    assert note.startswith("left out: a-2: the ledger")


def test_a_folder_counts_once_however_often_it_is_given(workspace: Path) -> None:
    first = run("in/a-1")
    results = results_of([first, Path("in"), workspace / "in" / "a-1"])
    assert (len(results.runs), results.notes) == (1, ())


def test_a_run_once_more_with_the_same_result_is_left_out_and_told() -> None:
    first, again = run("a-1"), run("again")
    results = results_of([first, again])
    assert results.runs["a", 1].folder == "."  # the first one's
    assert results.notes == ("left out, another run's result once more: again",)


def test_a_run_once_more_with_another_result_is_refused() -> None:
    first, again = run("a-1"), run("again")
    with closing(sqlite3.connect(again / LEDGER_FILE)) as ledger, ledger:
        (data,) = ledger.execute("SELECT data FROM events WHERE path = 'r1/report/teacher'").fetchone()
        told = json.loads(data)
        told["outcomes"] = "".join("w" if letter == "c" else "c" for letter in told["outcomes"])
        ledger.execute("UPDATE events SET data = ? WHERE path = 'r1/report/teacher'", (json.dumps(told),))
    with pytest.raises(InputError, match="seed 1 have different results: a-1, again"):
        results_of([first, again])


def test_nothing_finished_is_refused() -> None:
    stopped = run("a-1", 1, "budget.calls=20", status=3)
    with pytest.raises(InputError, match="none of these runs is finished"):
        results_of([stopped])


@pytest.mark.parametrize(
    ("given", "said"), [("nowhere", "there is no folder nowhere"), ("empty", "empty holds no run")]
)
def test_what_holds_no_run_is_refused(given: str, said: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(InputError, match=said):
        results_of([run("a-1"), Path(given)])


def test_runs_of_different_versions_are_told() -> None:
    first, second = run("a-1"), run("a-2", 2)
    manifest = second / "manifest.json"
    facts = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps({**facts, "lbt_sim": "0.0.1"}), encoding="utf-8")
    (note,) = results_of([first, second]).notes
    assert note.startswith("the runs were made by different versions of lbt-sim: 0.0.1, ")


# --- folders and studies ------------------------------------------------------------------------------------


def test_a_folder_stands_for_the_runs_in_it_in_the_order_of_their_numbers() -> None:
    for seed in (10, 9):
        run(f"in/ring-{seed}", seed, "classroom=ring")
        run(f"in/deep/star-{seed}", seed)
    (Path("in") / "notes").mkdir()
    results = results_of([Path("in")])
    assert results.comparisons == (("classroom=ring", "classroom=star"),)
    assert results.seeds == (9, 10)


OF_STUDY = "several/exam=6"
"""The condition of the study in which runs of `tiny.yaml` as it is belong."""


@pytest.fixture
def study(workspace: Path) -> Path:
    """A study of eight runs, executed."""
    if (key := ("study",)) not in _MADE:
        _MADE[key] = _MADE[()] / "study"
        said = lbt_sim("study", "study.yaml", "--out", _MADE[key], "-q", "--workers", 1, "--no-report")
        assert said.status == 0, said.err
    shutil.copytree(_MADE[key], "study")
    return Path("study")


def test_a_study_keeps_its_names_metric_and_results(study: Path) -> None:
    results, planned = results_of([study]), load_results(study)
    assert results.conditions == planned.conditions
    assert (results.metric, results.outcome, results.seeds) == ("f1", "area", planned.seeds)
    assert results.runs == {key: replace(one, folder=results.runs[key].folder) for key, one in planned.runs.items()}
    first = planned.conditions[0].name
    assert results.comparisons == tuple((one.name, first) for one in planned.conditions[1:])
    assert results_of([study], metric="accuracy", outcome="last").metric == "accuracy"


def test_a_run_of_the_same_scenario_joins_the_studys_condition(study: Path) -> None:
    results = results_of([study, run("more", 7)])
    assert results.conditions == load_results(study).conditions
    assert (results.seeds, results.runs[OF_STUDY, 7].status) == ((1, 2, 7), "done")


def test_a_run_that_the_study_did_not_get_done_is_not_compared_though_its_folder_is_there(study: Path) -> None:
    stopped = replace(load_results(study).runs[OF_STUDY, 1], status="failed", error="it stopped")
    with ResultsFile(study) as file:
        file.add(stopped)
    with closing(sqlite3.connect(study / stopped.folder / LEDGER_FILE)) as ledger, ledger:
        ledger.execute("DELETE FROM events WHERE kind = 'done'")
    results = results_of([study])
    assert (OF_STUDY, 1) not in results.runs
    assert results.notes == (f"left out, not finished: {study / stopped.folder}",)


# --- the command --------------------------------------------------------------------------------------------


def test_the_command_prints_what_it_found() -> None:
    for seed in (1, 2):
        run(f"star-{seed}", seed)
        run(f"ring-{seed}", seed, "classroom=ring")
    stopped = run("star-3", 3, "budget.calls=20", status=3)
    said = lbt_sim("compare", "star-1", "star-2", stopped, "ring-1", "ring-2")
    assert said.status == 0, said.err
    out = " ".join(said.out.split())
    assert "2 conditions compared" in out
    assert "2 paired seeds" in out
    assert "note: left out, not finished: star-3" in out


def test_the_command_gives_json() -> None:
    for seed in (1, 2):
        run(f"star-{seed}", seed)
        run(f"ring-{seed}", seed, "classroom=ring")
    said = lbt_sim("compare", "star-1", "star-2", "ring-1", "ring-2", "--json", "--metric", "f1")
    assert said.status == 0, said.err
    (line,) = said.out.splitlines()
    found = json.loads(line)
    assert (found["metric"], found["outcome"], found["seeds"]) == ("f1", "last", [1, 2])
    (comparison,) = found["comparisons"]
    assert (comparison["a"], comparison["b"], comparison["pairs"]) == ("classroom=ring", "classroom=star", 2)
    assert found["runs"]["classroom=ring"] == {"1": "ring-1", "2": "ring-2"}


def test_one_condition_alone_is_told_without_a_comparison() -> None:
    said = lbt_sim("compare", run("star-1"), run("star-2", 2), "--json")
    assert said.status == 0, said.err
    assert (said.result["comparisons"], [row["done"] for row in said.result["conditions"]]) == ([], [2])


def test_the_command_refuses_what_is_no_run() -> None:
    said = lbt_sim("compare", "nowhere")
    assert said.status == 2
    assert "there is no folder nowhere" in said.err
