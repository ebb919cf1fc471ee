"""Other people's data, read where it is present beside the project; never copied into it."""

from pathlib import Path

import pytest

from lbt_sim.errors import TaskError
from lbt_sim.grading import open_grader
from lbt_sim.models.base import Reply
from lbt_sim.scenario.schema import TaskSpec
from lbt_sim.tasks import load_task

DATA = Path(__file__).parents[2].parent / "shared" / "data"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data beside the project")

FAULTY = {"question": "text", "answer": "label", "labels": {"1": "Yes", "0": "No"}}


def load(**spec):
    return load_task(TaskSpec(**spec), seed=0, find_data=lambda name: DATA / name)


def test_liar_has_no_overlap():
    task = load(jsonl=["liar_train.jsonl", "liar_test.jsonl"], **FAULTY)
    assert (len(task.train), len(task.held_out)) == (3681, 461)
    assert sum(p.answer == "Yes" for p in task.held_out) == 250
    assert task.notices == ()


def test_fallacies_overlap_and_have_to_be_dropped():
    files = ["fallacy_train.jsonl", "fallacy_dev.jsonl"]
    with pytest.raises(TaskError, match="18 train rows have a text that is held out too"):
        load(jsonl=files, **FAULTY)
    task = load(jsonl=files, duplicates="drop", **FAULTY)
    assert (len(task.train), len(task.held_out)) == (1849 - 18, 300)
    assert "2 texts have contradictory answers in train" in task.notices[0]


async def test_every_gsm8k_answer_is_a_number_that_grades_itself_correct():
    task = load(jsonl=["gsm8k_train.jsonl", "gsm8k_test.jsonl"], answer_pattern="#### (.*)", grader="number", train=500)
    assert (len(task.train), len(task.held_out)) == (500, 319)
    grader = open_grader(task)
    grades = await grader.grade([(p, Reply(f"{p.rationale}\n#### {p.answer}")) for p in task.held_out])
    assert {grade.outcome for grade in grades} == {"correct"}
