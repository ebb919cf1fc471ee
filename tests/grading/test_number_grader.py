import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbt_sim.grading import Grade
from lbt_sim.grading.numbers import NumberGrader, number, read_number
from lbt_sim.models.base import Reply
from lbt_sim.tasks.base import Problem


async def graded(reply, answer):
    return (await NumberGrader().grade([(Problem("p", "?", answer), reply)]))[0]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("42", "42"),
        ("It is 42.", "42"),
        ("-7", "-7"),
        ("−7 degrees", "-7"),
        ("5-3", "3"),
        ("from 10-15", "15"),
        ("$1,234.50", "1234.5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("1,234,567 people", "1234567"),
        ("12 345 people", "345"),
        ("12\u202f345 people", "12345"),
        ("25%", "25"),
        ("25 \\%", "25"),
        (".5", "0.5"),
        ("1e3", "1000"),
        ("2.5E-3", "0.0025"),
        ("3 × 10^4", "30000"),
        ("$3 \\times 10^{-2}$", "0.03"),
        ("1/2", "0.5"),
        ("3 1/2 hours", "3.5"),
        ("3½ hours", "3.5"),
        ("½", "0.5"),
        ("\\frac{3}{4}", "0.75"),
        ("\\dfrac{3}{4} of it", "0.75"),
        ("-\\frac{3}{4}", "-0.75"),
        ("$10{,}000$", "10000"),
        ("16km", "16"),
        ("First 3, then 5, so 8 apples", "8"),
        ("#### 72", "72"),
        ("#### $1,000\nIgnore the 5", "1000"),
        ("So \\boxed{18} dollars over 3 days", "18"),
        ("The answer is 8 because 3 + 5 is 8, not 9.", "8"),
        ("The answer is 5 + 3 = 8 apples.", "8"),
        ("The answer is 1 + 2 = 3 + 4 = 7.", "7"),
        ("**Answer:** 12 apples and 3 left", "12"),
        ("Final answer: x = 12", "12"),
        ("answer is 3. No, the answer is 4.", "4"),
        ("The answer is: twelve", None),
        ("I added 4 and 3. The answer is unclear.", None),
        ("no number", None),
        ("nan", None),
        ("inf", None),
        ("Infinity", None),
        ("1/0", None),
        ("", None),
    ],
)
def test_final_number_is_read(text, found):
    assert read_number(text) == found


@given(st.integers(-(10**30), 10**30))
def test_whole_numbers_are_read_exactly_with_and_without_separators(value):
    assert read_number(f"{value}") == str(value)
    assert read_number(f"That makes {value:,} in all.") == str(value)


@given(st.text(alphabet="0123456789.,/eE+-$% ^x{}\\frac", max_size=60))
def test_whatever_is_written_reading_never_fails(text):
    found = read_number(text)
    assert found is None or number(found) is not None


@pytest.mark.parametrize(
    ("text", "answer", "outcome"),
    [
        ("0.5", "1/2", "correct"),
        ("0.3333333", "1/3", "correct"),
        ("0.333", "1/3", "wrong"),
        ("1000001", "1000000", "wrong"),
        ("1000000.0", "1,000,000", "correct"),
        ("25%", "25", "correct"),
        ("25%", "0.25", "wrong"),
        ("$18.00", "18", "correct"),
        ("0", "0.0", "correct"),
        ("1e400", "5", "wrong"),
        ("9" * 300, "5", "wrong"),
    ],
)
async def test_same_number_however_it_is_written(text, answer, outcome):
    assert (await graded(Reply(text), answer)).outcome == outcome


async def test_absurd_exponents_and_lengths_are_no_numbers():
    assert (await graded(Reply("1e99999999"), "5")).outcome in ("invalid", "wrong")
    assert (await graded(Reply("9" * 1_000_000), "5")).outcome == "invalid"


async def test_cut_off_replies_count_only_where_the_answer_is_complete():
    assert await graded(Reply("First 3 + 4 = 7, then", finish="length"), "7") == Grade("truncated")
    assert await graded(Reply("The answer is 12", finish="length"), "12") == Grade("truncated")
    assert await graded(Reply("The answer is 12 apples, since", finish="length"), "12") == Grade(
        "correct", "12", "text"
    )
    assert await graded(Reply("", finish="failed"), "7") == Grade("failed")
