import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbt_sim.errors import TaskError
from lbt_sim.tasks.base import Problem, Task
from lbt_sim.tasks.split import HeldOutGuard, Placed, keep_apart, normalise, same_problem, within_split


def rows(file, *pairs):
    return [
        Placed(Problem(f"t{number}", question, answer), f"{file}:{number}")
        for number, (question, answer) in enumerate(pairs, 1)
    ]


def task_of(*questions):
    held_out = tuple(Problem(f"h{number}", question, "Yes") for number, question in enumerate(questions, 1))
    return Task("t", "", ("Yes", "No"), "Yes", "labels", train=(), held_out=held_out)


@pytest.mark.parametrize("variant", ["Is it  SO?", "is it so", " «Is it so!» ", "Is it so?", "is\nit\tso..."])
def test_same_text_whatever_case_space_width_and_outer_punctuation(variant):
    assert same_problem(Problem("a", "Is it so?", "Yes"), Problem("b", variant, "No"))


def test_inner_punctuation_and_signs_tell_texts_apart():
    assert normalise("3 + 4") != normalise("3 - 4")
    assert normalise("?!") == "?!"


@given(st.text())
def test_normalising_twice_changes_nothing_more_at_the_ends(text):
    once = normalise(text)
    assert once == once.strip()
    assert normalise(f"  {text}\n") == once


def test_text_in_both_splits_is_an_error_that_names_the_rows():
    train, held = rows("a", ("one", "1"), ("Two!", "2")), rows("b", ("two", "2"))
    with pytest.raises(TaskError, match=r"1 train row has .* a:2 = b:1") as caught:
        keep_apart(train, held, "error")
    assert "duplicates: drop" in caught.value.remedy


def test_long_list_of_rows_is_cut_and_counted():
    pairs = [(f"question {number}", "x") for number in range(25)]
    with pytest.raises(TaskError, match=r"25 train rows .* a:10 = b:10; and 15 more\."):
        keep_apart(rows("a", *pairs), rows("b", *pairs), "error")


def test_dropping_takes_the_rows_out_of_train_and_says_how_many():
    train, held = rows("a", ("one", "1"), ("two", "2"), ("TWO", "2")), rows("b", ("two", "2"))
    kept, notices = keep_apart(train, held, "drop")
    assert [row.problem.question for row in kept] == ["one"]
    assert notices == ["2 rows dropped from train, held out too: a:2 = b:1; a:3 = b:1."]


STORY = "The quick brown fox jumps over the lazy dog and then has lunch with the {n} geese of the farmer next door"


def test_near_duplicate_across_splits_is_noticed_unless_the_numbers_differ():
    near = STORY.format(n=4).replace("quick", "quik")
    kept, notices = keep_apart(rows("a", (near, "x")), rows("b", (STORY.format(n=4), "x")), "error")
    assert len(kept) == 1
    assert "a:1 ~ b:1" in notices[0]
    assert keep_apart(rows("a", (near, "x")), rows("b", (STORY.format(n=5), "x")), "error")[1] == []


def test_contradictions_and_repetitions_within_a_split_are_told_apart():
    notices = within_split(rows("a", ("one", "Yes"), ("two", "No"), ("One.", "No"), ("two", "No")), "train")
    assert notices == [
        "1 text has contradictory answers in train: a:1 = a:3.",
        "1 text stands more than once in train: a:2 = a:4.",
    ]
    assert within_split(rows("a", ("one", "Yes"), ("two", "No")), "train") == []


LONG = "Review: the porter carried all of our heavy bags up four flights of stairs"


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        LONG.upper() + "!",
        LONG.removeprefix("Review: "),
        LONG.replace("carried all", "carried, all"),
        LONG.replace("heavy", "heavvy"),
        f"Think of this one: '{LONG.removeprefix('Review: ')}'. It is positive.",
        f"First look at the verbs.\n{LONG.replace('flights', 'flight')}\nThat is positive.",
    ],
)
def test_guard_finds_a_held_out_problem_in_what_a_teacher_wrote(text):
    guard = HeldOutGuard(task_of("Review: something else altogether happened to us there", LONG))
    assert guard.leaks(text).id == "h2"
    assert guard.leaks(text).id == "h2", "and again out of its memory"


def test_guard_finds_the_statement_of_a_question_that_has_several_lines():
    statement = "Statement: The city has built more bridges than any other in Europe.\nParty: none\nContext: a speech"
    guard = HeldOutGuard(task_of("Statement: Another thing was said.\nParty: none\nContext: radio", statement))
    assert guard.leaks("The city has built more bridges than any other in Europe. Answer: Yes").id == "h2"


@pytest.mark.parametrize(
    "text",
    ["", "Review:", "Review: the porter dropped our bags and laughed at us", "it", "A review says what someone felt."],
)
def test_guard_lets_other_texts_pass(text):
    assert HeldOutGuard(task_of("Review: fine", "Review: is it?", LONG)).leaks(text) is None


def test_guard_lets_the_same_story_with_new_numbers_pass():
    guard = HeldOutGuard(task_of(STORY.format(n=12), "Another one with 3 in it"))
    assert guard.leaks(STORY.format(n=13)) is None
    assert guard.leaks(STORY.format(n=12)).id == "h1"
