"""What a study found: every figure of its report, as values, with intervals and of how many they are.

`analyse` makes it from the results alone, and always the same from the same results: resamples are seeded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lbt_sim.stats import Estimate
from lbt_sim.study.results import StudyResults

__all__ = ["Analysis", "Comparison", "ConditionRow", "CurvePoint", "Dose", "FactorEffect", "MixedModel", "analyse"]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The teacher's mean held-out score of one condition after one round."""

    condition: str
    round: int
    score: Estimate
    outcomes: Mapping[str, int]
    """Outcome name -> how many held-out answers."""


@dataclass(frozen=True, slots=True)
class ConditionRow:
    """One condition as a whole.

    Attributes:
        condition: Its name.
        done: Runs that came to their end.
        failed: Runs that stopped.
        missing: Runs that were not made yet.
        start: Mean held-out score in round 0.
        end: Mean held-out score by the study's `outcome`.
        gain: `end` minus `start`, paired by seed.
        outcomes: Outcome name -> how many held-out answers, over all rounds.
        exam_outcomes: The same for the students' exam answers.
        counts: Mean per run of each of `RunResult.counts`.
        diversity: Measure -> mean over runs (each run's mean over its exams).
    """

    condition: str
    done: int
    failed: int
    missing: int
    start: Estimate | None
    end: Estimate | None
    gain: Estimate | None
    outcomes: Mapping[str, int]
    exam_outcomes: Mapping[str, int]
    counts: Mapping[str, float]
    diversity: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Condition `a` minus condition `b`, paired by seed and by problems.

    Attributes:
        a: A condition.
        b: What it is compared with.
        difference: Of the scores by the study's `outcome`; None with fewer than two pairs.
        p: Two-sided, of the permutation test of paired differences over seeds; where it matters which problems were
            used, no smaller than that of the interval's t test. None with fewer than two pairs.
        p_holm: Corrected over the study's comparisons (Holm).
        effect: The standardised difference: Hedges' g of paired differences over seeds.
        detectable: The smallest true difference that a study like this finds with 80 % power, tested at 5 % divided by
            the number of comparisons, as Holm's correction tests the first of them.
        seeds_needed: (true difference, how many seeds it would take to find it on the same problems, with the same
            power and correction; None where no number would do), of 1, 2 and 5 points and of `smallest_effect`.
        differs: In what the two conditions differ, in words: `students`, `feedback`.
        pairs: Seeds that both have.
        left_out: Planned seeds that one of the two lacks.
        crossed: Whether all pairs were examined on the same problems.
        per_seed: (seed, a's score, b's score).
        verdict: `shown`: Holm's p is below 0.05 and the interval excludes 0; `equivalent`: not shown, and the interval
            lies within the study's smallest effect on either side of 0; `not shown`.
    """

    a: str
    b: str
    difference: Estimate | None
    p: float | None
    p_holm: float | None
    effect: Estimate | None
    detectable: float | None
    pairs: int
    left_out: int
    crossed: bool
    per_seed: tuple[tuple[int, float, float], ...]
    verdict: str
    seeds_needed: tuple[tuple[float, int | None], ...] = ()
    differs: tuple[str, ...] = ()
    outcomes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FactorEffect:
    """A factor's effect averaged over all that is crossed with it, or how the effect of one hangs on another.

    Of one factor: the mean over conditions at `level` minus that at `against`, every other factor alike. Of two: the
    effect of the first at the second's level minus that at the second's `against`.

    Attributes:
        factors: One factor, or two; arms are the factor `arm`.
        level: A level of each.
        against: What it is compared with, of each.
        difference: Paired by seed; None with fewer than two seeds that have every condition.
        p: As in `Comparison`.
        p_holm: Corrected (Holm) over all effects of factors.
        conditions: How many conditions are in it.
        pairs: Seeds that have all of them.
        outcomes: As in `Comparison`, of all its conditions.
    """

    factors: tuple[str, ...]
    level: tuple[str, ...]
    against: tuple[str, ...]
    difference: Estimate | None
    p: float | None
    p_holm: float | None
    conditions: int
    pairs: int
    outcomes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dose:
    """The teacher's gain on a measure of its students' diversity, over runs, each seed its own intercept.

    Attributes:
        measure: A measure of `lbt_sim.stats.diversity`.
        slope: Gain for one unit of the measure; None where it does not vary.
        p: Of the slope; None as above.
        p_holm: Corrected (Holm) over the study's measures.
        correlation: Partial correlation, seeds taken out.
        points: (condition, seed, measure, gain).
    """

    measure: str
    slope: Estimate | None
    p: float | None
    p_holm: float | None
    correlation: float | None
    points: tuple[tuple[str, int, float, float], ...]


@dataclass(frozen=True, slots=True)
class MixedModel:
    """A linear mixed model of single answers, with random intercepts of seed, problem and run.

    A check beside the comparisons, which are what is concluded from: it has no effect of a problem under a condition,
    so where some problems favour one condition its intervals are narrower than they should be.

    Attributes:
        terms: `a − b` -> that difference, of each comparison; without any, of each condition from the first.
        sd: `seed`, `problem`, `run` (a condition at a seed), `residual` -> standard deviation.
        answers: How many answers went in.
        note: What there is to say: that it did not converge, that it was fitted on a sample.
    """

    terms: Mapping[str, Estimate]
    sd: Mapping[str, float]
    answers: int
    note: str = ""


@dataclass(frozen=True)
class Analysis:
    """Everything that a study's report says in figures.

    Attributes:
        answer: One sentence: the main comparison with its interval, and whether it is shown.
        conditions: In the study's order.
        curves: By condition, then round.
        comparisons: In the study's order.
        doses: One for each measure that varies.
        model: None where it could not be fitted.
        warnings: What a reader has to know: missing runs, few seeds, problems that differ between seeds.
        effects: Main effects of factors, then interactions of two; none where there are fewer than two factors.
    """

    answer: str
    conditions: tuple[ConditionRow, ...]
    curves: tuple[CurvePoint, ...]
    comparisons: tuple[Comparison, ...]
    doses: tuple[Dose, ...]
    model: MixedModel | None
    warnings: tuple[str, ...]
    effects: tuple[FactorEffect, ...] = ()


def analyse(results: StudyResults) -> Analysis:
    """Computes it all; runs and answers that failed or are missing are left out in pairs, and told in `warnings`."""
    from lbt_sim.study.analyse import analysis_of  # scipy and statsmodels come with it

    return analysis_of(results)
