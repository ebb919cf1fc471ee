"""Measures of diversity against examples computed by hand, and against a slow second implementation."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbt_sim.stats import MEASURES, diversity

Student = tuple[str, list[str | None]]


def student(letters: str, wrong: str = "B", right: str = "A") -> Student:
    """Who answers `right` where it is right and `wrong` where not."""
    return letters, [right if x == "c" else wrong if x == "w" else None for x in letters]


def test_two_students_by_hand() -> None:
    # Both right 4, only the first 2, only the second 1, neither 3.
    found = diversity([student("ccccccwwww"), student("ccccwwcwww")], ["A"] * 10)
    assert found["disagreement"] == pytest.approx(0.3)
    assert found["answer_disagreement"] == pytest.approx(0.3)
    assert found["double_fault"] == pytest.approx(0.3)
    assert found["q_statistic"] == pytest.approx((4 * 3 - 2 * 1) / (4 * 3 + 2 * 1))
    assert found["error_correlation"] == pytest.approx((12 - 2) / math.sqrt(6 * 4 * 5 * 5))
    assert found["any_right"] == pytest.approx(0.7)
    assert found["mean_right"] == pytest.approx(0.55)
    assert found["answer_entropy"] == pytest.approx(0.3)  # 1 where the two differ, 0 where not


def test_pairs_are_averaged() -> None:
    # Disagreements 2/4, 4/4 and 2/4; phi of the opposite pair -1; Q undefined nowhere.
    found = diversity([student("ccww"), student("cwcw"), student("wwcc")], ["A"] * 4)
    assert found["disagreement"] == pytest.approx((2 / 4 + 4 / 4 + 2 / 4) / 3)
    assert found["error_correlation"] == pytest.approx((0 + -1 + 0) / 3)
    assert found["q_statistic"] == pytest.approx((0 + -1 + 0) / 3)


def test_clones_differ_in_nothing() -> None:
    found = diversity([student("ccwc")] * 3, ["A"] * 4)
    assert found == {
        "disagreement": 0,
        "answer_disagreement": 0,
        "error_correlation": pytest.approx(1),
        "q_statistic": 1,
        "double_fault": 0.25,
        "answer_entropy": 0,
        "any_right": 0.75,
        "mean_right": 0.75,
        "failure_coverage": 1,
    }


def test_students_who_miss_the_same_in_other_words_differ_in_answers_alone() -> None:
    found = diversity([student("cw", wrong="B"), student("cw", wrong="C")], ["A", "A"])
    assert (found["disagreement"], found["answer_disagreement"]) == (0, 0.5)


def test_right_answers_written_in_two_ways_are_one_answer() -> None:
    found = diversity([("cc", ["7", "8"]), ("cc", ["7.0", "8"])], ["7", "8"])
    assert (found["answer_disagreement"], found["answer_entropy"]) == (0, 0)


def test_entropy_of_three_answers_by_hand() -> None:
    found = diversity([student("c"), student("c"), student("w")], ["A"])
    two, one = 2 / 3, 1 / 3
    assert found["answer_entropy"] == pytest.approx(-(two * math.log(two) + one * math.log(one)) / math.log(3))
    assert diversity([student("c"), student("w"), student("w", wrong="C")], ["A"])["answer_entropy"] == pytest.approx(1)


def test_kinds_of_mistakes_are_told_apart_by_family_right_and_given_answer() -> None:
    right, families = ["P", "P", "N", "N"], ["plain", "irony", "plain", "irony"]
    # Four groups of one problem each, one other answer: four kinds. Both miss irony that is P; one misses plain N.
    students = [("cwcc", ["P", "N", "N", "N"]), ("cwwc", ["P", "N", "P", "N"])]
    assert diversity(students, right, families)["failure_coverage"] == pytest.approx(2 / 4)
    # Without families only P for N and N for P are left, and both were made.
    assert diversity(students, right)["failure_coverage"] == 1
    # Numbers: any other answer is a kind of its own; two problems, two students: four kinds at most.
    numbers = [("ww", ["3", "4"]), ("ww", ["3", "9"])]
    assert diversity(numbers, ["5", "6"])["failure_coverage"] == pytest.approx(3 / 4)


def test_what_is_undefined_is_none() -> None:
    constant = diversity([student("ccc"), student("cwc")], ["A"] * 3)
    assert constant["error_correlation"] is None
    assert constant["q_statistic"] is None
    alone = diversity([student("cw")], ["A", "A"])
    assert alone["disagreement"] is None
    assert alone["answer_entropy"] is None
    assert alone["any_right"] == 0.5
    assert set(diversity([], [])) == set(MEASURES)
    assert set(diversity([], []).values()) == {None}


def test_an_unreadable_answer_is_not_right_but_no_answer_either() -> None:
    found = diversity([student("ci"), student("cw")], ["A", "A"])
    assert found["double_fault"] == 0.5
    assert found["answer_disagreement"] == 0  # over the one problem on which both can be read
    assert found["failure_coverage"] == 1  # the one mistake made is the only one possible with answers A and B


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        diversity([("cc", ["A"])], ["A", "A"])


LETTERS = st.sampled_from("cwitf")


@st.composite
def exams(draw: st.DrawFn) -> tuple[list[Student], list[str], list[str]]:
    n = draw(st.integers(1, 8))
    right = draw(st.lists(st.sampled_from("AB"), min_size=n, max_size=n))
    families = draw(st.lists(st.sampled_from(["", "x"]), min_size=n, max_size=n))
    students: list[Student] = []
    for _ in range(draw(st.integers(1, 4))):
        letters = draw(st.text(LETTERS, min_size=n, max_size=n))
        other = draw(st.lists(st.sampled_from("CD"), min_size=n, max_size=n))
        answers = [r if x == "c" else o if x == "w" else None for x, r, o in zip(letters, right, other, strict=True)]
        students.append((letters, answers))
    return students, right, families


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def slow(students: list[Student], right: list[str], families: list[str]) -> dict[str, float | None]:
    """The definitions, written as loops; correlation by moments, entropy in bits."""
    n = len(right)
    values: dict[str, list[float]] = {name: [] for name in MEASURES}
    for (a, said_a), (b, said_b) in combinations(students, 2):
        common = [i for i in range(n) if a[i] != "f" and b[i] != "f"]
        x, y = [float(a[i] == "c") for i in common], [float(b[i] == "c") for i in common]
        if common:
            values["disagreement"].append(sum(abs(p - q) for p, q in zip(x, y, strict=True)) / len(common))
            values["double_fault"].append(sum((1 - p) * (1 - q) for p, q in zip(x, y, strict=True)) / len(common))
            mx, my = sum(x) / len(x), sum(y) / len(y)
            cov = sum((p - mx) * (q - my) for p, q in zip(x, y, strict=True))
            vx, vy = sum((p - mx) ** 2 for p in x), sum((q - my) ** 2 for q in y)
            if 0 < sum(x) < len(x) and 0 < sum(y) < len(y):
                values["error_correlation"].append(cov / math.sqrt(vx * vy))
            alike = sum(p == q == 1 for p, q in zip(x, y, strict=True)) * sum(
                p == q == 0 for p, q in zip(x, y, strict=True)
            )
            apart = sum(p > q for p, q in zip(x, y, strict=True)) * sum(p < q for p, q in zip(x, y, strict=True))
            if alike + apart:
                values["q_statistic"].append((alike - apart) / (alike + apart))
        read = [i for i in range(n) if said_a[i] is not None and said_b[i] is not None]
        if read:
            values["answer_disagreement"].append(sum(said_a[i] != said_b[i] for i in read) / len(read))
    for i in range(n):
        given = [said[i] for _, said in students if said[i] is not None]
        if len(given) > 1:
            shares = [given.count(answer) / len(given) for answer in set(given)]
            values["answer_entropy"].append(-sum(p * math.log2(p) for p in shares) / math.log2(len(given)))
        column = [letters[i] for letters, _ in students]
        if "f" not in column:
            values["any_right"].append(float("c" in column))
            values["mean_right"].append(column.count("c") / len(column))
    result = {name: mean(found) for name, found in values.items()}
    wrong = [(i, said[i]) for letters, said in students for i in range(n) if letters[i] == "w"]
    vocabulary = set(right) | {answer for _, answer in wrong}
    groups = set(zip(families, right, strict=True))
    possible = 0
    for group in groups:
        back = sum(letters[i] != "f" for letters, _ in students for i in range(n) if (families[i], right[i]) == group)
        possible += min(back, len(vocabulary - {group[1]}))
    made = len({(families[i], right[i], answer) for i, answer in wrong})
    result["failure_coverage"] = made / possible if possible else None
    return result


@given(exams())
def test_it_agrees_with_the_definitions_written_as_loops(exam: tuple[list[Student], list[str], list[str]]) -> None:
    found, expected = diversity(*exam), slow(*exam)
    assert set(found) == set(MEASURES)
    for name in MEASURES:
        assert found[name] == (None if expected[name] is None else pytest.approx(expected[name], abs=1e-12)), name


@given(exams())
def test_the_order_of_students_and_a_failed_problem_change_nothing(
    exam: tuple[list[Student], list[str], list[str]],
) -> None:
    students, right, families = exam
    found = diversity(students, right, families)
    more = [(letters + "f", [*said, None]) for letters, said in reversed(students)]
    again = diversity(more, [*right, "A"], [*families, ""])
    for name in MEASURES:
        if name != "failure_coverage":  # a right answer more can be one that could have been given
            assert again[name] == (None if found[name] is None else pytest.approx(found[name], abs=1e-12)), name
