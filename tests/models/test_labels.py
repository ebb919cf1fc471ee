from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbt_sim.models.labels import distinct, mass, pick, read_choices, total

LABELS = ("positive", "negative", "mixed")


def test_a_token_that_is_a_choice_is_read_as_that_choice() -> None:
    assert read_choices([("negative", -0.1), ("positive", -2.5)], LABELS) == (-2.5, -0.1, None)


def test_white_space_before_a_token_is_not_part_of_it_and_both_forms_add_up() -> None:
    found = read_choices([("Yes", math.log(0.5)), (" Yes", math.log(0.25)), ("No", math.log(0.1))], ("Yes", "No"))
    assert found is not None
    assert found == pytest.approx((math.log(0.75), math.log(0.1)))


def test_case_matters() -> None:
    assert read_choices([("yes", -0.1)], ("Yes", "No")) is None


def test_the_beginning_of_one_choice_counts_for_it() -> None:
    assert read_choices([("pos", -0.3), ("neg", -1.5)], LABELS) == (-0.3, -1.5, None)


def test_a_single_letter_counts_only_where_nothing_longer_does() -> None:
    assert read_choices([("p", -0.1), ("pos", -3.0), ("n", -1.0)], LABELS) == (-3.0, -1.0, None)


def test_a_word_that_merely_shares_letters_counts_for_nothing() -> None:
    assert read_choices([("positively", -0.1), ("nothing", -0.2)], LABELS) is None


def test_a_token_that_begins_several_choices_is_not_guessed_about() -> None:
    choices = ("mostly-true", "mostly-false")
    assert read_choices([("mostly", -0.1), ("mostly-t", -5.0)], choices) is None
    assert read_choices([("mostly", -5.0), ("mostly-t", -0.1)], choices) == (-0.1, None)


def test_with_a_known_tokenizer_only_the_token_that_begins_a_choice_counts() -> None:
    first = {"neutral": "ne", "negative": "negative"}
    top = [("ne", -0.5), ("negative", -1.0), ("neu", -0.1)]
    assert read_choices(top, ("neutral", "negative"), first) == (-0.5, -1.0)


def test_values_that_are_no_numbers_are_passed_over() -> None:
    assert read_choices([("positive", math.nan), ("negative", -1.0)], LABELS) == (None, -1.0, None)


@pytest.mark.parametrize(
    ("choices", "first", "expected"),
    [
        ((), None, False),
        (("yes", "no"), None, True),
        (("1", "10"), None, False),
        (("yes", "yes"), None, False),
        (("yes", ""), None, False),
        (("1", "10"), {"1": "1", "10": "10"}, True),
        (("half-true", "half-false"), {"half-true": "half", "half-false": "half"}, False),
    ],
)
def test_choices_are_distinct_when_one_token_can_tell_them_apart(
    choices: tuple[str, ...], first: dict[str, str] | None, expected: bool
) -> None:
    assert distinct(choices, first) is expected


def test_the_mass_is_the_probability_of_all_choices_together() -> None:
    assert mass((math.log(0.5), math.log(0.25), None)) == pytest.approx(0.75)
    assert mass((math.nan, -math.inf, None)) == mass(()) == 0.0


def test_greedy_picks_the_likeliest_and_the_first_of_equals() -> None:
    assert pick(LABELS, (-2.0, -1.0, None), 0.0, seed=1) == "negative"
    assert pick(LABELS, (-1.0, -1.0, -1.0), 0.0, seed=1) == "positive"


def test_sampling_follows_the_softmax_and_depends_on_the_seed_alone() -> None:
    logprobs = (math.log(0.8), math.log(0.2), None)
    drawn = [pick(LABELS, logprobs, 1.0, seed) for seed in range(2000)]
    assert drawn == [pick(LABELS, logprobs, 1.0, seed) for seed in range(2000)]
    counts = Counter(drawn)
    assert counts["mixed"] == 0
    assert counts["positive"] / 2000 == pytest.approx(0.8, abs=0.04)


def test_several_tokens_of_a_choice_add_up_to_no_more_than_one() -> None:
    assert total([math.log(0.25), math.log(0.5)]) == pytest.approx(math.log(0.75))
    assert total([-0.1, -0.1]) == 0.0
    assert total([-math.inf, -math.inf]) == -math.inf
    assert total([-2.0]) == -2.0


def test_a_high_temperature_flattens() -> None:
    drawn = Counter(pick(LABELS, (-0.01, -5.0, None), 100.0, seed) for seed in range(1000))
    assert drawn["negative"] > 400


words = st.text("abcn ", min_size=1, max_size=5)


@given(st.lists(words, min_size=1, max_size=4, unique=True), st.lists(st.tuples(words, st.floats(-20, 0)), max_size=8))
def test_no_choice_is_ever_likelier_than_all_that_was_given(choices: list[str], top: list[tuple[str, float]]) -> None:
    found = read_choices(top, choices)
    total = sum(math.exp(value) for _, value in top)
    for value in found or ():
        assert value is None or (value <= 0 and math.exp(value) <= total + 1e-9)


@given(st.lists(words, min_size=2, max_size=4, unique=True), st.integers(0, 3))
def test_a_choice_that_comes_back_whole_is_found(choices: list[str], index: int) -> None:
    chosen = choices[index % len(choices)]
    found = read_choices([(chosen, -0.5)], choices)
    if distinct(choices):
        assert found == tuple(-0.5 if choice == chosen else None for choice in choices)


@given(st.lists(st.none() | st.floats(-50, 0), min_size=3, max_size=3), st.floats(0, 5), st.integers(0, 2**31 - 1))
def test_what_is_picked_has_a_probability(logprobs: list[float | None], temperature: float, seed: int) -> None:
    if any(value is not None for value in logprobs):
        assert logprobs[LABELS.index(pick(LABELS, logprobs, temperature, seed))] is not None
