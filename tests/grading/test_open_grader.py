from dataclasses import replace

import pytest

from lbt_sim.errors import TaskError
from lbt_sim.grading import load, open_grader
from lbt_sim.grading.text import ExactGrader
from lbt_sim.tasks.base import Problem, Task

TASK = Task("t", "", ("Yes", "No"), "Yes", "labels", (Problem("t1", "q", "Yes"),), (Problem("h1", "r", "No"),))


def test_label_grader_offers_the_labels_as_choices_and_others_offer_none():
    assert open_grader(TASK).choices == ("Yes", "No")
    assert open_grader(replace(TASK, labels=(), grader="exact")).choices == ()


def test_number_grader_refuses_right_answers_that_are_no_numbers():
    task = replace(TASK, labels=(), grader="number", train=(Problem("t1", "q", "12 euros"), Problem("t2", "q", "many")))
    with pytest.raises(TaskError, match=r"t2 \('many'\), h1 \('No'\)"):
        open_grader(task)


def test_rubric_is_graded_by_the_judge_that_is_given():
    judge = ExactGrader()
    task = replace(TASK, labels=(), grader="rubric", rubric="It says why.")
    assert open_grader(task, judge) is judge
    with pytest.raises(TaskError, match="needs an examiner with a model"):
        open_grader(task)


def test_label_grader_needs_labels():
    with pytest.raises(TaskError, match="needs a label set"):
        open_grader(replace(TASK, labels=()))


def test_unknown_grader_lists_the_valid_ones():
    with pytest.raises(TaskError, match="did you mean 'exact'") as caught:
        open_grader(replace(TASK, grader="exakt"))
    assert caught.value.valid == load.GRADERS
