import re

import pytest

from lbt_sim.errors import TaskError
from lbt_sim.tasks.arithmetic import FAMILIES, generate, variants
from lbt_sim.tasks.split import normalise
from lbt_sim.tasks.stories import STORIES


@pytest.fixture(scope="module")
def task():
    return generate(train=900, held_out=300, seed=0, options={})


def worked(expression):
    """Value of 'a + b + c', 'a - b', 'a * b' or 'a / b' over whole numbers."""
    numbers = [int(part) for part in re.findall(r"\d+", expression)]
    first, rest = numbers[0], numbers[1:]
    for sign, value in zip(re.findall(r" ([-+*/]) ", expression), rest, strict=True):
        if sign == "/":
            assert first % value == 0, expression
        first = {"+": first + value, "-": first - value, "*": first * value, "/": first // value}[sign]
    return first


def test_there_are_at_least_two_dozen_stories_of_one_to_four_steps():
    assert len(FAMILIES) >= 24
    assert {story.steps for story in STORIES.values()} == {1, 2, 3, 4}


def test_every_equation_of_a_solution_holds_and_the_answer_is_its_result(task):
    for problem in task.train:
        equations = re.findall(r"(\d+(?: [-+*/] \d+)+) = (\d+)", problem.rationale)
        assert equations, problem
        assert all(worked(left) == int(right) for left, right in equations), problem
        assert int(problem.answer) > 0
        assert problem.answer in {right for _, right in equations}, problem


def test_a_solution_uses_no_number_out_of_nowhere(task):
    for problem in task.train:
        known = {*re.findall(r"\d+", problem.question), "2"}
        if problem.family == "phone_plan":  # cents become euros in words
            known.add(re.search(r"cents, (\d+) euros", problem.rationale)[1])
        for left, right in re.findall(r"(\d+(?: [-+*/] \d+)+) = (\d+)", problem.rationale):
            assert set(re.findall(r"\d+", left)) <= known, problem
            known.add(right)
        assert problem.answer in known


def test_splits_go_through_all_stories_and_share_no_text(task):
    assert {p.family for p in task.train} == {p.family for p in task.held_out} == set(FAMILIES)
    assert len({normalise(p.question) for p in task.train + task.held_out}) == 1200


def test_same_seed_same_problems():
    make = lambda seed: generate(train=40, held_out=10, seed=seed, options={})  # noqa: E731
    assert make(5) == make(5)
    assert make(5).train != make(6).train


def test_variants_are_the_same_story_with_new_numbers(task):
    problem = task.train[0]
    found = variants(problem.family, 20, seed=1, apart_from=[problem.question])
    bare = lambda text: re.sub(r"\d+", "#", text)  # noqa: E731
    assert {variant.family for variant in found} == {problem.family}
    assert len({variant.question for variant in found} | {problem.question}) == 21
    assert len({len(bare(variant.question).split()) for variant in found}) <= 2
    assert variants(problem.family, 20, seed=1, apart_from=[problem.question]) == found


def test_variants_of_an_unknown_family_are_refused():
    with pytest.raises(TaskError, match="'trys' is not a family"):
        variants("trys", 1, seed=0)


def test_options_choose_stories():
    assert {p.family for p in generate(train=5, held_out=5, seed=0, options={"family": "trays"}).train} == {"trays"}
    easy = generate(train=60, held_out=5, seed=0, options={"steps": 1})
    assert {STORIES[p.family].steps for p in easy.train} == {1}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"family": "tray"}, "did you mean 'trays'"),
        ({"stories": 1}, "'stories' is not an option"),
        ({"steps": 9}, "9 is not a number of steps"),
        ({"steps": "two"}, "'two' is not a number of steps"),
        ({"family": "trays", "steps": 1}, "takes more than 1 steps"),
    ],
)
def test_unusable_options_are_errors(options, says):
    with pytest.raises(TaskError, match=says):
        generate(train=5, held_out=5, seed=0, options=options)


def test_a_story_that_is_used_up_says_so():
    with pytest.raises(TaskError, match="no new numbers left"):
        generate(train=10**5, held_out=5, seed=0, options={"family": "fence"})
