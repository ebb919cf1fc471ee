import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbt_sim.grading import Grade
from lbt_sim.grading.labels import LabelGrader
from lbt_sim.models.base import Reply
from lbt_sim.models.labels import LEAST_MASS
from lbt_sim.tasks.base import Problem

YES_NO = LabelGrader(("Yes", "No"))
PROBLEM = Problem("p", "Is it?", "Yes")


async def graded(grader, reply, answer="Yes"):
    return (await grader.grade([(Problem("p", "?", answer), reply)]))[0]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Yes", "Yes"),
        ("no.", "No"),
        ("**No**", "No"),
        ("  `YES`\n", "Yes"),
        ("“Yes.”", "Yes"),
        ("Answer: Yes", "Yes"),
        ("**Answer:** No", "No"),
        ("The answer is no", "No"),
        ("My first answer: Yes. On reflection, the final answer is: No.", "No"),
        ("Yes. There is no doubt about it.", "Yes"),
        ("No, although some would say yes.", "No"),
        ("There are reasons for yes and for no.\nStill, I have to choose.\n\nNo", "No"),
        ("I would say yes", "Yes"),
        ("Yes, yes, yes!", "Yes"),
        ("(No)", "No"),
        ("1. Yes", "Yes"),
        ("Yes and No", None),
        ("Yes, or no", None),
        ("Yes/No", None),
        ("Yes. No.", None),
        ("Yes\nNo", None),
        ("It could be yes but also no", None),
        ("Not yes", None),
        ("Nothing to know yesterday", None),
        ("", None),
        ("maybe", None),
    ],
)
async def test_label_is_read_from_text_only_where_it_is_clear(text, label):
    assert YES_NO.read(text) == label
    grade = await graded(YES_NO, Reply(text))
    expected = "invalid" if label is None else "correct" if label == "Yes" else "wrong"
    assert grade == Grade(expected, label, "" if label is None else "text")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("mostly true", "mostly true"),
        ("It is Mostly  True, I think", "mostly true"),
        ("true", "true"),
        ("not a fallacy", "not a fallacy"),
        ("This is not a fallacy.", "not a fallacy"),
        ("This is a fallacy.", "fallacy"),
        ("C++", "C++"),
        ("not true but false", "false"),
    ],
)
def test_longest_label_counts_and_a_negated_one_does_not(text, label):
    grader = LabelGrader(("true", "mostly true", "false", "fallacy", "not a fallacy", "C++"))
    assert grader.read(text) == label


@given(st.sampled_from(["Yes", "No"]), st.sampled_from(["{}", "**{}**", '"{}"', "Answer: {}", "{}.", "\n{}\n", "> {}"]))
def test_every_way_to_write_one_label_is_read_as_that_label(label, form):
    assert YES_NO.read(form.format(label.upper())) == label


@given(st.text())
def test_any_text_is_a_label_or_none(text):
    assert YES_NO.read(text) in ("Yes", "No", None)


async def test_log_probabilities_decide_before_the_text():
    assert await graded(YES_NO, Reply("No", choice_logprobs=(-0.1, -3.0))) == Grade("correct", "Yes", "logprobs")


@pytest.mark.parametrize(
    ("logprobs", "label", "source"),
    [
        ((None, -3.0), "No", "logprobs"),
        ((-1.0, -1.0), "Yes", "logprobs"),
        ((-math.inf, -math.inf), None, ""),
        ((math.nan, -3.0), "No", "logprobs"),
        ((None, None), None, ""),
        (None, None, ""),
    ],
    ids=["one missing", "tie", "impossible", "nan", "all missing", "none given"],
)
async def test_missing_and_equal_log_probabilities(logprobs, label, source):
    grade = await graded(YES_NO, Reply("hm", choice_logprobs=logprobs))
    assert (grade.answer, grade.read_from) == (label, source)


async def test_what_was_drawn_is_the_answer_however_unlikely():
    likely_no = (math.log(0.2), math.log(0.8))
    assert await graded(YES_NO, Reply("Yes", choice_logprobs=likely_no, drawn=True)) == Grade("correct", "Yes", "text")
    assert await graded(YES_NO, Reply("No", choice_logprobs=likely_no, drawn=True)) == Grade("wrong", "No", "text")


@pytest.mark.parametrize(("share", "label", "source"), [(LEAST_MASS * 1.01, "No", "logprobs"), (0.009, "Yes", "text")])
async def test_labels_that_are_next_to_impossible_as_a_first_token_are_read_from_the_text(share, label, source):
    reply = Reply("Well: yes", choice_logprobs=(math.log(share * 0.1), math.log(share * 0.9)))
    grade = await graded(YES_NO, reply)
    assert (grade.answer, grade.read_from) == (label, source)


@pytest.mark.parametrize("label", ["*", "“", "not fair", "(b)", "a_b"])
def test_a_reply_that_is_a_label_to_the_letter_is_that_label(label):
    assert LabelGrader((label, "fair")).read(label) == label


async def test_text_is_the_fallback_without_log_probabilities():
    assert await graded(YES_NO, Reply("No", choice_logprobs=(None, None))) == Grade("wrong", "No", "text")


async def test_broken_is_not_wrong():
    assert await graded(YES_NO, Reply("well, let me", finish="length")) == Grade("truncated")
    assert await graded(YES_NO, Reply("", finish="failed", error="503")) == Grade("failed")
    assert await graded(YES_NO, Reply("Yes", finish="failed")) == Grade("failed")
    assert await graded(YES_NO, Reply("Yes, bec", finish="length")) == Grade("correct", "Yes", "text")


async def test_order_is_kept_and_nothing_has_to_be_closed():
    replies = [Reply("Yes"), Reply("No"), Reply("?"), Reply("yes")]
    grades = await YES_NO.grade([(PROBLEM, reply) for reply in replies])
    assert [grade.outcome for grade in grades] == ["correct", "wrong", "invalid", "correct"]
    await YES_NO.close()


def test_ten_megabytes_of_text_are_read_at_their_ends():
    assert YES_NO.read("blah " * 2_000_000 + "\nNo") == "No"
    assert YES_NO.read("Yes. " + "blah " * 2_000_000) == "Yes"
