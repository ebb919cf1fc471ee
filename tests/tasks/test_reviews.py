import math
import re
from collections import Counter, defaultdict

import pytest

from lbt_sim.errors import TaskError
from lbt_sim.tasks.reviews import FAMILIES, LABELS, generate
from lbt_sim.tasks.split import HeldOutGuard


@pytest.fixture(scope="module")
def big():
    return generate(train=4000, held_out=1000, seed=0, options={})


def words(problem):
    return re.findall(r"[^\W\d_]+", problem.question.lower())[1:]


def test_same_seed_same_reviews_and_another_seed_others():
    first, again, other = (generate(train=50, held_out=20, seed=seed, options={}) for seed in (3, 3, 4))
    assert first == again
    assert {p.question for p in first.train} != {p.question for p in other.train}


def test_five_thousand_reviews_all_differ_and_are_short(big):
    problems = big.train + big.held_out
    assert len({problem.question for problem in problems}) == 5000
    assert len({problem.id for problem in problems}) == 5000
    lengths = [len(problem.question.split()) - 1 for problem in problems]
    assert min(lengths) >= 8
    assert max(lengths) <= 20


def test_reviews_are_whole_sentences(big):
    for problem in big.train + big.held_out:
        text = problem.question.removeprefix("Review: ")
        assert text[0].isupper(), text
        assert text.endswith("."), text
        assert not re.search(r"[{}]|  |\.\.|[.?!] [a-z]| [.,;:]", text), text


def test_families_have_their_share_and_each_is_balanced(big):
    for problems in (big.train, big.held_out):
        counts = Counter((problem.family, problem.answer) for problem in problems)
        for family, share in FAMILIES.items():
            assert counts[family, "positive"] == counts[family, "negative"] == round(share * len(problems) / 2)


@pytest.mark.parametrize(("train", "held_out"), [(1, 1), (7, 3), (33, 11)])
def test_odd_sizes_are_balanced_up_to_one(train, held_out):
    task = generate(train=train, held_out=held_out, seed=1, options={})
    for problems, size in ((task.train, train), (task.held_out, held_out)):
        labels = Counter(problem.answer for problem in problems)
        assert len(problems) == size
        assert abs(labels["positive"] - labels["negative"]) <= 1


def test_held_out_reviews_are_no_train_reviews_reworded():
    task = generate(train=400, held_out=200, seed=2, options={})
    guard = HeldOutGuard(task)
    assert [problem.question for problem in task.train if guard.leaks(problem.question)] == []


def bayes(train, test):
    """Accuracy per family of a naive Bayes classifier on single words."""
    counts = {label: Counter() for label in LABELS}
    for problem in train:
        counts[problem.answer].update(set(words(problem)))
    half = len(train) / 2
    hits = defaultdict(list)
    for problem in test:
        score = sum(
            math.log((counts["positive"][word] + 1) / (half + 2))
            - math.log((counts["negative"][word] + 1) / (half + 2))
            for word in set(words(problem))
        )
        hits[problem.family].append((score > 0) == (problem.answer == "positive"))
    return {family: sum(found) / len(found) for family, found in hits.items()}, sum(map(sum, hits.values())) / len(test)


def test_single_words_do_not_give_the_label_away(big):
    families, overall = bayes(big.train, big.held_out)
    assert overall < 0.8
    assert families["plain"] > 0.8, "what is plain can be learnt from words"
    assert max(families["negation"], families["mixed"], families["expectation"]) < 0.65, families


def test_aspects_and_domains_carry_no_label(big):
    counts = {label: Counter() for label in LABELS}
    for problem in big.train:
        counts[problem.answer].update(set(words(problem)))
    for subject in ("room", "waiter", "plot", "battery", "teacher", "carriage", "prose", "guide", "showers", "bread"):
        positive, negative = counts["positive"][subject], counts["negative"][subject]
        assert 0.6 < positive / negative < 1.6, (subject, positive, negative)


def test_given_shares_replace_all_shares():
    task = generate(train=30, held_out=10, seed=0, options={"irony": 0.5, "plain": 0.5})
    assert Counter(problem.family for problem in task.train) == {"irony": 15, "plain": 15}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"negations": 1}, "did you mean 'negation'"),
        ({"plain": 2}, "2 is not a share"),
        ({"plain": True}, "True is not a share"),
        ({"plain": "half"}, "'half' is not a share"),
        ({"plain": 0.0}, "Every family has share 0"),
    ],
)
def test_unusable_options_are_errors(options, says):
    with pytest.raises(TaskError, match=says):
        generate(train=5, held_out=5, seed=0, options=options)


def test_asking_for_more_than_can_be_written_says_how_many_there_are():
    with pytest.raises(TaskError, match=r"\d+ of 3000 could be made for held_out"):
        generate(train=5, held_out=3000, seed=0, options={"expectation": 1})
