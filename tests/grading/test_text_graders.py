import pytest

from lbt_sim.grading import Grade
from lbt_sim.grading.text import KEPT, ExactGrader
from lbt_sim.models.base import Reply
from lbt_sim.tasks.base import Problem


async def graded(reply, answer="New York"):
    return (await ExactGrader().grade([(Problem("p", "?", answer), reply)]))[0]


@pytest.mark.parametrize(
    "text", ["New York", "new york.", " **New  York** ", "Answer: New York", "The answer is: new york!"]
)
async def test_case_space_and_outer_punctuation_do_not_count(text):
    assert (await graded(Reply(text))).outcome == "correct"


async def test_another_text_is_wrong_and_no_text_is_invalid():
    assert await graded(Reply("York")) == Grade("wrong", "York", "text")
    assert await graded(Reply("  \n")) == Grade("invalid")
    assert await graded(Reply("", finish="failed")) == Grade("failed")


async def test_a_text_that_was_cut_off_is_truncated():
    assert await graded(Reply("New Yor", finish="length")) == Grade("truncated")


async def test_a_grade_keeps_no_megabytes():
    grade = await graded(Reply("x" * 10_000_000))
    assert grade.outcome == "wrong"
    assert len(grade.answer) == KEPT
