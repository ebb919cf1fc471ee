"""What a study's results say: pairing, what is left out, the sentence, degenerate studies."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lbt_sim.stats import wilson_interval
from lbt_sim.study.analysis import Analysis, analyse
from lbt_sim.study.record import ExamRecord, RoundRecord, RunResult, StudentExam
from lbt_sim.study.results import Condition, StudyResults
from lbt_sim.study.scores import scores_of

PROBLEMS = tuple(f"p{number}" for number in range(20))
NAMES = {"c": "correct", "w": "wrong", "i": "invalid", "t": "truncated", "f": "failed"}


def run(condition: str, seed: int, *rounds: str, **more: Any) -> RunResult:
    """A finished run with these outcome letters, round by round."""
    text = "".join(rounds)
    told = {
        "problems": PROBLEMS[: len(rounds[0])] if rounds else (),
        "counts": {"calls": 10 * (seed + 1)},
        "outcomes": {"teacher": {name: text.count(letter) for letter, name in NAMES.items()}, "students": {"wrong": 2}},
        **more,
    }
    said = told.pop("said", [""] * len(rounds))
    reports = tuple(RoundRecord(n, f"m{n}", letters, said[n], None, None) for n, letters in enumerate(rounds))
    return RunResult(condition, seed, f"runs/{condition}-{seed}", told.pop("status", "done"), rounds=reports, **told)


def drawn(chances: Mapping[str, tuple[float, ...]], seeds: int, **more: Any) -> list[RunResult]:
    """Runs whose answers are right with the chance of their condition and round."""
    rng = np.random.default_rng(0)
    found = []
    for name, chance in chances.items():
        for seed in range(seeds):
            letters = ["".join("c" if x < p else "w" for x in rng.random(20)) for p in chance]
            found.append(run(name, seed, *letters, **more))
    return found


def study(runs: list[RunResult], seeds: int = 10, **more: Any) -> StudyResults:
    """Conditions a (its title: A few) and b (Clones), and a compared with b."""
    told = {
        "conditions": (
            Condition("a", "a", title="Three different students"),
            Condition("b", "b", title="three clones"),
        ),
        "comparisons": (("a", "b"),),
        "metric": "accuracy",
        "outcome": "last",
        **more,
    }
    seeds_ = tuple(range(seeds))
    by_key = {(one.condition, one.seed): one for one in runs}
    return StudyResults(Path("s"), "s", "Does it help?", "", seeds=seeds_, runs=by_key, **told)


def quietly(results: StudyResults) -> Analysis:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return analyse(results)


@pytest.fixture(scope="module")
def shown() -> StudyResults:
    return study(drawn({"a": (0.5, 0.7, 0.9), "b": (0.5, 0.5, 0.55)}, 12), seeds=12)


def test_a_clear_difference_is_shown_in_a_sentence(shown: StudyResults) -> None:
    found = quietly(shown)
    main = found.comparisons[0]
    assert main.verdict == "shown"
    assert main.difference is not None
    assert main.difference.low is not None
    assert main.difference.high is not None
    per_seed = [x - y for _, x, y in main.per_seed]
    assert main.difference.value == pytest.approx(np.mean(per_seed))
    low, high = main.difference.low * 100, main.difference.high * 100
    assert found.answer == (
        "Three different students instead of three clones changed the teacher's held-out accuracy by "
        f"+{main.difference.value * 100:.1f} points (95 % interval +{low:.1f} to +{high:.1f}, 12 paired seeds, "
        "Holm p < 0.001): shown."
    )
    assert (main.pairs, main.left_out, main.crossed) == (12, 0, True)
    assert main.effect is not None
    assert main.detectable is not None
    assert 0 < main.detectable < 0.4


def test_a_difference_that_may_be_none_is_not_shown() -> None:
    found = quietly(study(drawn({"a": (0.5, 0.7), "b": (0.5, 0.7)}, 10)))
    assert found.comparisons[0].verdict == "not shown"
    assert "not shown; a true difference of" in found.answer
    assert "−" in found.answer  # the interval's lower end, with a real minus sign


def test_the_same_results_give_the_same_analysis(shown: StudyResults) -> None:
    assert analyse(shown) == analyse(shown)


def test_swapping_the_comparison_changes_signs_alone(shown: StudyResults) -> None:
    there = quietly(shown).comparisons[0]
    back = quietly(replace(shown, comparisons=(("b", "a"),))).comparisons[0]
    assert there.difference is not None
    assert back.difference is not None
    assert there.difference.value == pytest.approx(-back.difference.value)
    assert there.difference.low is not None
    assert there.difference.low == pytest.approx(-(back.difference.high or 0))
    assert there.p == back.p
    assert there.detectable == pytest.approx(back.detectable)
    assert [(s, y, x) for s, x, y in there.per_seed] == list(back.per_seed)


def test_curves_and_rows_hold_each_rounds_score_and_outcomes(shown: StudyResults) -> None:
    found = quietly(shown)
    assert [(point.condition, point.round) for point in found.curves] == [(c, r) for c in "ab" for r in range(3)]
    letters = "".join(shown.runs["a", seed].rounds[2].outcomes for seed in range(12))
    last = found.curves[2]
    assert last.score.value == pytest.approx(letters.count("c") / len(letters))
    assert last.outcomes == {
        "correct": letters.count("c"),
        "wrong": letters.count("w"),
        "invalid": 0,
        "truncated": 0,
        "failed": 0,
    }
    assert (last.score.seeds, last.score.problems) == (12, 20)
    row = found.conditions[0]
    assert row.end == last.score
    assert row.start == found.curves[0].score
    assert row.gain is not None
    assert row.gain.value == pytest.approx(found.curves[2].score.value - found.curves[0].score.value)
    assert row.counts == {"calls": pytest.approx(65)}
    assert row.exam_outcomes == {"wrong": 24}
    assert sum(row.outcomes.values()) == 12 * 3 * 20


def test_the_area_is_the_mean_over_rounds_from_1_on(shown: StudyResults) -> None:
    found = quietly(replace(shown, outcome="area"))
    rounds = [point.score.value for point in found.curves if point.condition == "a"]
    assert found.conditions[0].end is not None
    assert found.conditions[0].end.value == pytest.approx((rounds[1] + rounds[2]) / 2)
    assert "averaged over the rounds" in found.answer


def test_missing_and_failed_runs_are_left_out_in_pairs_and_told(shown: StudyResults) -> None:
    runs = dict(shown.runs)
    del runs["a", 0]
    runs["b", 1] = replace(runs["b", 1], status="failed", error="it stopped")
    found = quietly(replace(shown, runs=runs))
    main = found.comparisons[0]
    assert (main.pairs, main.left_out) == (10, 2)
    assert [seed for seed, _, _ in main.per_seed] == list(range(2, 12))
    a, b = found.conditions
    assert (a.done, a.failed, a.missing) == (11, 0, 1)
    assert (b.done, b.failed, b.missing) == (11, 1, 0)
    told = " ".join(found.warnings)
    assert "1 of 24 runs failed" in told
    assert "b seed 1" in told
    assert "1 of 24 runs were not made yet" in told


def test_answers_that_failed_are_never_wrong() -> None:
    runs = [run("a", seed, "cccw", "cccf") for seed in range(3)] + [run("b", seed, "cccw", "ccwc") for seed in range(3)]
    found = quietly(study(runs, seeds=3))
    # The fourth problem is left out of both: 3 of 3 against 2 of 3.
    assert found.comparisons[0].per_seed[0] == (0, 1.0, pytest.approx(2 / 3))
    assert found.curves[1].score.value == 1.0
    assert found.curves[1].outcomes["failed"] == 3
    assert any("3 of 48 held-out answers failed" in text for text in found.warnings)
    # Beside the difference: of both sides, in the round that is compared.
    assert found.comparisons[0].outcomes == {"correct": 18, "wrong": 3, "invalid": 0, "truncated": 0, "failed": 3}
    over_rounds = quietly(study(runs, seeds=3, outcome="area")).comparisons[0].outcomes
    assert over_rounds == found.comparisons[0].outcomes  # there is one round after round 0


def test_f1_counts_an_unreadable_answer_as_an_error() -> None:
    positive = (True, True, False, False)
    said = ["PPNN", "P-PN"]
    runs = [run(c, s, "cccc", "ciwc", said=said, positive=positive) for c in "ab" for s in range(2)]
    found = quietly(study(runs, seeds=2, metric="f1"))
    assert found.curves[0].score.value == 1
    assert found.curves[1].score.value == pytest.approx(2 / (2 + 2))  # one hit, one missed, one false alarm
    assert "held-out F1" in found.answer


def test_f1_knows_labels_that_are_balanced_by_design() -> None:
    half = tuple(number % 2 == 0 for number in range(20))
    runs = [replace(one, positive=half, problems=PROBLEMS) for one in drawn({"a": (0.5, 0.8)}, 3)]
    strata = scores_of(study(runs, metric="f1"), "a", 20).strata
    assert strata is not None
    assert strata.tolist() == [1, 0] * 10
    assert scores_of(study(runs), "a", 20).strata is None  # accuracy
    skewed = [replace(one, positive=(*half[:18], True, True)) for one in runs]
    assert scores_of(study(skewed, metric="f1"), "a", 20).strata is None
    own = [replace(one, problems=tuple(f"{one.seed}-{p}" for p in PROBLEMS)) for one in runs]
    assert scores_of(study(own, metric="f1"), "a", 20).strata is None


def test_problems_that_differ_between_seeds_are_nested_and_told() -> None:
    runs = [
        replace(one, problems=tuple(f"{one.seed}-{p}" for p in PROBLEMS))
        for one in drawn({"a": (0.5, 0.8), "b": (0.5, 0.5)}, 10)
    ]
    found = quietly(study(runs))
    main = found.comparisons[0]
    assert not main.crossed
    assert main.difference is not None
    assert "over seeds," in main.difference.method
    assert any("problems differ" in text for text in found.warnings)


def test_arms_with_different_problems_are_paired_by_seed_alone_and_told() -> None:
    runs = [
        replace(one, problems=tuple(f"{one.condition}-{p}" for p in PROBLEMS))
        for one in drawn({"a": (0.5, 0.8), "b": (0.5, 0.5)}, 10)
    ]
    found = quietly(study(runs))
    assert not found.comparisons[0].crossed
    assert any("different problems" in text for text in found.warnings)


def test_holm_is_over_all_comparisons(shown: StudyResults) -> None:
    more = [replace(one, condition="c") for one in drawn({"x": (0.5, 0.5, 0.6)}, 12)]
    runs = {**shown.runs, **{(one.condition, one.seed): one for one in more}}
    conditions = (*shown.conditions, Condition("c", "c"))
    found = quietly(replace(shown, runs=runs, conditions=conditions, comparisons=(("a", "b"), ("c", "b"))))
    first, second = found.comparisons
    assert first.p is not None
    assert second.p is not None
    assert first.p_holm == pytest.approx(min(1, 2 * first.p))
    assert second.p_holm == pytest.approx(second.p)
    assert found.model is not None
    assert list(found.model.terms) == ["a − b", "c − b"]
    for one, term in zip(found.comparisons, found.model.terms.values(), strict=True):
        assert one.difference is not None
        assert term.value == pytest.approx(one.difference.value, abs=1e-3)
    assert found.model.answers == 3 * 12 * 20


def test_what_could_be_found_is_told_for_as_many_comparisons_as_there_are(shown: StudyResults) -> None:
    alone = quietly(shown).comparisons[0]
    more = [replace(one, condition="c") for one in drawn({"x": (0.5, 0.5, 0.6)}, 12)]
    runs = {**shown.runs, **{(one.condition, one.seed): one for one in more}}
    conditions = (*shown.conditions, Condition("c", "c"))
    of_two = quietly(replace(shown, runs=runs, conditions=conditions, comparisons=(("a", "b"), ("c", "b")))).comparisons
    assert alone.detectable is not None
    assert of_two[0].detectable is not None
    assert of_two[0].detectable > alone.detectable
    needed = dict(alone.seeds_needed)
    assert list(needed) == [0.01, 0.02, 0.05]
    for true, seeds in of_two[0].seeds_needed:
        assert seeds is None or (fewer := needed[true]) is None or seeds > fewer


def test_a_null_that_bounds_the_effect_is_another_than_one_that_does_not() -> None:
    results = study(drawn({"a": (0.5, 0.6), "b": (0.5, 0.6)}, 20), seeds=20)
    open_, bounded = (quietly(replace(results, smallest_effect=one)) for one in (0.01, 0.5))
    assert open_.comparisons[0].verdict == "not shown"
    assert "neither a gain nor a loss of 1.0 points, which would matter here, is ruled out" in open_.answer
    assert bounded.comparisons[0].verdict == "equivalent"
    assert "a gain and a loss of 50.0 points, which would matter here, are ruled out: equivalent" in bounded.answer
    assert 0.5 in dict(bounded.comparisons[0].seeds_needed)


def test_it_is_told_which_way_a_difference_that_matters_is_ruled_out() -> None:
    results = study(drawn({"a": (0.5, 0.6), "b": (0.5, 0.6)}, 20), seeds=20)
    found = quietly(results).comparisons[0].difference
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high
    smaller, larger = sorted((-found.low, found.high))
    told = quietly(replace(results, smallest_effect=(smaller + larger) / 2)).answer
    gain, loss = ("gain", "loss") if found.high > -found.low else ("loss", "gain")
    assert f"a {loss} of" in told
    assert f"is ruled out, a {gain} is not" in told


def test_what_is_the_same_in_every_run_says_so() -> None:
    runs = [run(name, seed, "cw", "cc") for name in "ab" for seed in range(8)]
    found = quietly(study(runs, seeds=8))
    assert found.answer.endswith("not shown; it is the same in every run.")
    assert found.comparisons[0].detectable is None


def test_two_pairs_that_differ_by_rounding_alone_have_no_interval() -> None:
    runs = [run("a", 0, "cwwww", "ccwww"), run("a", 1, "ccwww", "cccww")]
    runs += [run("b", 0, "cwwww", "cwwww"), run("b", 1, "ccwww", "ccwww")]
    found = quietly(study(runs, seeds=2)).comparisons[0]
    assert found.difference is not None
    assert found.difference.value == pytest.approx(0.2)
    assert (found.difference.low, found.detectable, found.seeds_needed) == (None, None, ())


def test_compute_that_came_out_unequal_is_told(shown: StudyResults) -> None:
    counts = {"a": 100, "b": 90}
    runs = {key: replace(one, counts={"exam_answers": counts[key[0]]}) for key, one in shown.runs.items()}
    told = quietly(replace(shown, runs=runs, equal_compute=True)).warnings
    assert any("Compute is not equal" in text and "100 answers" in text and "b 90" in text for text in told)
    assert not any("Compute" in text for text in quietly(replace(shown, runs=runs)).warnings)


def test_one_seed_with_other_problems_is_alone_in_keeping_its_answers() -> None:
    runs = [run("a", seed, "cccw", "cccf") for seed in range(3)] + [run("b", seed, "cccw", "ccwc") for seed in range(3)]
    runs[0] = replace(runs[0], problems=("other", *PROBLEMS[1:4]))
    found = quietly(study(runs, seeds=3)).comparisons[0]
    # Where both were asked the same the fourth problem is left out of both; b keeps it where they were not.
    assert found.per_seed == ((0, 1.0, 0.75), (1, 1.0, pytest.approx(2 / 3)), (2, 1.0, pytest.approx(2 / 3)))


def test_f1_of_a_task_without_labels_is_no_number() -> None:
    found = quietly(study(drawn({"a": (0.5, 0.9), "b": (0.5, 0.5)}, 5), seeds=5, metric="f1"))
    assert found.conditions[0].end is None
    assert found.comparisons[0].difference is None


def test_what_is_shown_may_be_too_small_to_matter(shown: StudyResults) -> None:
    found = quietly(replace(shown, smallest_effect=0.9))
    assert found.comparisons[0].verdict == "shown"
    assert found.answer.endswith("shown, and smaller than the 90.0 points that matter here.")


def test_a_comparison_of_two_things_at_once_says_so(shown: StudyResults) -> None:
    found = quietly(replace(shown, differs={("a", "b"): ("students", "lesson", "feedback")}))
    assert found.comparisons[0].differs == ("students", "lesson", "feedback")
    assert any("differ in students, lesson and feedback; which of these it is" in text for text in found.warnings)
    alone = quietly(replace(shown, differs={("a", "b"): ("students",)}))
    assert not any("which of these" in text for text in alone.warnings)


def crossed(chances: Mapping[tuple[str, str], float], seeds: int) -> StudyResults:
    """Arms by exams: a study of two factors, each condition right with its chance after the last round."""
    conditions = tuple(Condition(f"{arm}/exam={n}", arm, {"exam": n}) for arm, n in chances)
    names = dict(zip(chances, conditions, strict=True))
    runs = drawn({names[key].name: (0.5, chance) for key, chance in chances.items()}, seeds)
    return study(runs, seeds, conditions=conditions, comparisons=())


def test_effects_of_factors_are_averaged_over_the_others_and_interactions_told() -> None:
    results = crossed({("a", "6"): 0.3, ("a", "12"): 0.4, ("b", "6"): 0.5, ("b", "12"): 0.9}, 20)
    found = {(one.factors, one.level, one.against): one for one in quietly(results).effects}
    assert list(found) == [
        (("arm",), ("b",), ("a",)),
        (("exam",), ("12",), ("6",)),
        (("arm", "exam"), ("b", "12"), ("a", "6")),
    ]
    ends = {row.condition: row.end.value for row in quietly(results).conditions if row.end is not None}
    a6, a12, b6, b12 = (ends[name] for name in ("a/exam=6", "a/exam=12", "b/exam=6", "b/exam=12"))
    by_hand = ((b6 + b12 - a6 - a12) / 2, (a12 + b12 - a6 - b6) / 2, b12 - b6 - a12 + a6)
    for one, value in zip(found.values(), by_hand, strict=True):
        assert one.difference is not None
        assert one.difference.value == pytest.approx(value)
        assert (one.conditions, one.pairs) == (4, 20)
        assert one.p is not None
        assert one.p_holm is not None
        assert one.p_holm >= one.p


def test_a_factor_is_averaged_over_the_combinations_that_are_there() -> None:
    chances = {("a", "6"): 0.3, ("a", "12"): 0.4, ("b", "6"): 0.9}
    found = quietly(crossed(chances, 10)).effects
    assert [(one.factors, one.conditions) for one in found] == [(("arm",), 2), (("exam",), 2)]
    assert quietly(crossed({("a", "6"): 0.3, ("a", "12"): 0.4}, 5)).effects == ()


def with_exams(one: RunResult, disagreement: float) -> RunResult:
    sat = (StudentExam("s1", "cw"), StudentExam("s2", "cc"))
    exams = tuple(
        ExamRecord(n, ("x", "y"), ("", ""), sat, {"disagreement": disagreement + d, "error_correlation": None})
        for n, d in ((1, -0.1), (2, 0.1))
    )
    return replace(one, exams=exams)


def test_gain_is_held_against_diversity_run_by_run(shown: StudyResults) -> None:
    rng = np.random.default_rng(1)
    runs = {
        key: with_exams(one, (0.4 if one.condition == "a" else 0.2) + 0.05 * rng.random())
        for key, one in shown.runs.items()
    }
    found = quietly(replace(shown, runs=runs))
    (dose,) = found.doses  # the correlation is undefined everywhere
    assert dose.measure == "disagreement"
    assert len(dose.points) == 24
    condition, seed, measure, gain = dose.points[0]
    assert (condition, seed) == ("a", 0)
    assert 0.4 <= measure <= 0.45
    outcomes = [record.outcomes.count("c") / 20 for record in shown.runs["a", 0].rounds]
    assert gain == pytest.approx(outcomes[2] - outcomes[0])
    assert dose.slope is not None
    assert dose.slope.value == pytest.approx(0.4 / 0.2, rel=0.5)
    assert dose.slope.low is not None
    assert dose.slope.low > 0
    assert found.conditions[1].diversity["disagreement"].value == pytest.approx(0.225, abs=0.01)


def test_a_study_without_any_run_says_so() -> None:
    found = quietly(study([]))
    assert found.curves == ()
    assert found.model is None
    assert found.answer == (
        "Three different students instead of three clones: nothing can be said yet, 0 of 10 seeds have both."
    )
    assert any("20 of 20 runs were not made yet" in text for text in found.warnings)
    assert quietly(study([], seeds=0)).comparisons[0].difference is None


def test_one_seed_has_scores_with_wilsons_interval_and_no_comparison() -> None:
    found = quietly(study([run("a", 0, "ccww", "cccw"), run("b", 0, "ccww", "cwww")], seeds=1))
    end = found.conditions[0].end
    assert end is not None
    assert (end.low, end.high) == wilson_interval(3, 4)
    main = found.comparisons[0]
    assert (main.difference, main.p, main.effect, main.verdict) == (None, None, None, "not shown")
    assert main.per_seed == ((0, 0.75, 0.25),)


def test_two_seeds_have_an_interval_and_show_nothing() -> None:
    runs = [run("a", seed, "ccww", "cccc"[: 3 + seed] + "w" * (1 - seed)) for seed in range(2)]
    runs += [run("b", seed, "ccww", "wwww") for seed in range(2)]
    found = quietly(study(runs, seeds=2))
    main = found.comparisons[0]
    assert main.difference is not None
    assert main.difference.low is not None
    assert main.p == pytest.approx(0.5)
    assert main.verdict == "not shown"
    assert any("no p after Holm can be below 0.5" in text for text in found.warnings)


def test_a_study_of_one_condition_tells_its_gain() -> None:
    runs = drawn({"a": (0.5, 0.9)}, 6)
    found = quietly(study(runs, seeds=6, conditions=(Condition("a", "a"),), comparisons=()))
    assert found.comparisons == ()
    assert found.answer.startswith("'a': the teacher's held-out accuracy changed by +")
    assert found.answer.endswith("nothing was compared.")


@pytest.mark.parametrize("outcome", ["last", "area"])
def test_runs_of_round_0_alone_have_their_score_and_no_gain(outcome: str) -> None:
    runs = drawn({"a": (0.5, 0.7, 0.9), "b": (0.5,)}, 10)
    found = quietly(study(runs, outcome=outcome))
    b = found.conditions[1]
    assert b.start is not None
    assert b.end is not None
    assert b.gain is not None
    assert b.end.value == pytest.approx(b.start.value)
    assert b.gain.value == 0
    assert found.comparisons[0].difference is not None
    assert any("different numbers of rounds (a: 2; b: 0)" in text for text in found.warnings)


def test_arms_that_never_differ_are_not_shown_to() -> None:
    runs = [run(c, seed, "ccww", "cccw") for c in "ab" for seed in range(8)]
    found = quietly(study(runs, seeds=8))
    main = found.comparisons[0]
    assert main.difference is not None
    assert (main.difference.value, main.difference.low, main.p, main.verdict) == (0, None, 1, "not shown")
    assert main.effect is None
    assert "no interval: all seeds alike" in found.answer


def test_runs_that_ended_without_a_report_are_told() -> None:
    runs = [*drawn({"a": (0.5, 0.9), "b": (0.5, 0.5)}, 9), replace(run("a", 9, "c"), rounds=())]
    found = quietly(study(runs))
    assert found.comparisons[0].pairs == 9
    assert any("without a report" in text for text in found.warnings)


def test_statistics_come_late() -> None:
    import subprocess
    import sys

    modules = "lbt_sim.study.analysis, lbt_sim.study.analyse"
    code = f"import sys, {modules}; print(*{{'scipy', 'statsmodels', 'pandas'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
