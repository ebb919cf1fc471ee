"""Graders that an installed package adds are named in a scenario like the built-in ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import SMALL, lbt_sim

OPEN = "task: {jsonl: data.jsonl, grader: GRADER}"
MODULE = """\
from lbt_sim.errors import Place, TaskError
from lbt_sim.grading.base import Grade

class Lenient:
    choices = ()

    async def grade(self, answers):
        return [Grade("correct", reply.text, "text") for _, reply in answers]

    async def close(self):
        pass

def lenient(task):
    return Lenient()

def broken(task):
    raise ValueError("no dictionary")

def picky(task):
    raise TaskError("answers must rhyme", where=Place(key="task.answer"))
"""


@pytest.fixture
def scenario(workspace: Path) -> Callable[[str], str]:
    """Writes a scenario of open answers with a grader; its file."""

    def write(grader: str) -> str:
        rows = [{"question": f"question number {n}", "answer": f"answer{n}"} for n in range(40)]
        (workspace / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        text = SMALL.replace("task: {name: reviews, train: 40, held_out: 8}", OPEN.replace("GRADER", grader))
        (workspace / "small.yaml").write_text(text, encoding="utf-8")
        return "small.yaml"

    return write


@pytest.fixture
def package(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that adds graders."""
    folder = tmp_path_factory.mktemp("site")
    about = folder / "rhymes-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: rhymes\nVersion: 1.0\n", encoding="utf-8")
    names = ("lenient", "broken", "picky")
    points = "\n".join(f"{name} = rhymes_graders:{name}" for name in names)
    (about / "entry_points.txt").write_text(f"[lbt_sim.graders]\n{points}\n", encoding="utf-8")
    (folder / "rhymes_graders.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)


@pytest.mark.usefixtures("package")
def test_a_run_is_graded_by_the_grader_of_a_package(scenario: Callable[[str], str]) -> None:
    said = lbt_sim("run", scenario("lenient"), "--out", "run", "--json", "-q", "--set", "method.rounds=0")
    assert said.status == 0, said.err
    assert said.result["rounds"][0]["teacher"]["accuracy"] == 1.0


def test_an_unknown_grader_is_refused_where_it_is_named(scenario: Callable[[str], str]) -> None:
    said = lbt_sim("run", scenario("exakt"), "--out", "run")
    assert (said.status, said.out) == (2, "")
    assert "small.yaml:4  task.grader" in said.err
    assert "'exakt' is not a grader; did you mean 'exact'?" in said.err
    assert "Valid: exact, labels, math, number, rubric" in said.err


def with_labels(folder: Path, grader: str) -> str:
    """A scenario whose task has labels; its file."""
    rows = [{"question": f"question number {n}", "answer": ("yes", "no")[n % 2]} for n in range(40)]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    task = f"task: {{jsonl: data.jsonl, labels: [yes, no], grader: {grader}}}"
    text = SMALL.replace("task: {name: reviews, train: 40, held_out: 8}", task)
    (folder / "small.yaml").write_text(text, encoding="utf-8")
    return "small.yaml"


def test_an_unknown_grader_of_a_task_with_labels_is_told_as_such(workspace: Path) -> None:
    said = lbt_sim("validate", with_labels(workspace, "lables"))
    assert said.status == 2
    assert "small.yaml:4  task.grader" in said.err
    assert "did you mean 'labels'?" in said.err


@pytest.mark.usefixtures("package")
def test_a_packages_grader_may_grade_a_task_with_labels(workspace: Path) -> None:
    said = lbt_sim("validate", with_labels(workspace, "lenient"), "--explain")
    assert (said.status, said.err) == (0, "")
    assert "task.grader: lenient" in said.out


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("grader", "says"),
    [
        ("lenint", ["small.yaml:4  task.grader", "did you mean 'lenient'?", "broken, exact, labels, lenient, math"]),
        ("broken", ["small.yaml:4  task.grader", "rhymes_graders:broken", "ValueError: no dictionary", "Reinstall"]),
        ("picky", ["small.yaml:4  task.answer", "answers must rhyme"]),
    ],
)
def test_what_is_wrong_with_a_packages_grader_is_told(
    scenario: Callable[[str], str], grader: str, says: list[str]
) -> None:
    said = lbt_sim("validate", scenario(grader))
    assert said.status == 2
    for part in says:
        assert part in said.err


def test_right_answers_that_do_not_suit_a_grader_are_told_with_the_tasks_place(scenario: Callable[[str], str]) -> None:
    said = lbt_sim("validate", scenario("number"))
    assert said.status == 2
    assert "small.yaml:4  task" in said.err
    assert "Right answers that are no number" in said.err


@pytest.mark.usefixtures("package")
def test_editors_complete_the_graders_that_are_there_and_take_any_other() -> None:
    task = json.loads(lbt_sim("schema", "scenario").out)["$defs"]["TaskSpec"]
    names, *others = task["properties"]["grader"]["anyOf"]
    assert {"labels", "exact", "number", "math", "rubric", "lenient"} <= set(names["enum"])
    assert {"type": "string"} in others
