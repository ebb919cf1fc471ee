"""From a study's results to what they say: conditions, curves, comparisons, doses, a mixed model, one sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lbt_sim.stats import (
    MEASURES,
    Contrast,
    Estimate,
    contrast,
    detectable_difference,
    dose_response,
    hedges_g,
    holm,
    mean_interval,
    mixed_model,
    paired_p,
    per_seed,
    seeds_to_find,
)
from lbt_sim.study.analysis import Analysis, Comparison, ConditionRow, CurvePoint, Dose, MixedModel
from lbt_sim.study.factors import factor_effects
from lbt_sim.study.pairing import outcomes_of, paired
from lbt_sim.study.record import RunResult
from lbt_sim.study.results import StudyResults
from lbt_sim.study.scores import OUTCOMES, ConditionScores, count_outcomes, same_problems, scores_of
from lbt_sim.study.telling import ALPHA, FEW, answer_of, warnings_of

__all__ = ["analysis_of", "comparisons_of"]

_TOLD = (0.01, 0.02, 0.05)
"""True differences for which it is told how many seeds it would take to find them."""


_NO_DIVERSITY = ("mean_right",)
"""Measured with the others, and no measure of how students differ."""


@dataclass(frozen=True, slots=True)
class _Study:
    results: StudyResults
    scores: Mapping[str, ConditionScores]
    rounds: int
    """The most rounds that any run has, round 0 not counted."""


def analysis_of(results: StudyResults) -> Analysis:
    """Computes it all: see `lbt_sim.study.analysis.analyse`."""
    study = _arrays(results)
    comparisons = _compare_all(study)
    conditions = tuple(_condition(study, one.name) for one in results.conditions)
    return Analysis(
        answer=answer_of(results, comparisons, conditions),
        conditions=conditions,
        curves=tuple(point for one in results.conditions for point in _curve(one.name, study.scores[one.name])),
        comparisons=comparisons,
        doses=tuple(_doses(study)),
        model=_model(study),
        warnings=warnings_of(results, study.scores, comparisons),
        effects=factor_effects(results, study.scores, study.rounds) if results.planned else (),
    )


def comparisons_of(results: StudyResults) -> tuple[Comparison, ...]:
    """The study's comparisons alone."""
    return _compare_all(_arrays(results))


def _arrays(results: StudyResults) -> _Study:
    runs = results.runs.values()
    problems = max((max(len(run.problems), *(len(one.outcomes) for one in run.rounds), 0) for run in runs), default=0)
    scores = {one.name: scores_of(results, one.name, problems) for one in results.conditions}
    return _Study(results, scores, max((len(one.letters) - 1 for one in scores.values()), default=0))


def _condition(study: _Study, name: str) -> ConditionRow:
    results, scores = study.results, study.scores[name]
    known = [results.runs[name, seed] for seed in results.seeds if (name, seed) in results.runs]
    runs, seeds = list(scores.runs.values()), list(scores.runs)
    start = end = gain = None
    if seeds:
        crossed = same_problems(runs)
        first, last = scores.at(0, seeds), scores.outcome(results.outcome, seeds, study.rounds)
        start, end = contrast([first], crossed).estimate, contrast([last], crossed).estimate
        gain = contrast([last.without(first), first.without(last)], crossed).estimate
    done = [run for run in known if run.status == "done"]
    return ConditionRow(
        condition=name,
        done=len(done),
        failed=len(known) - len(done),
        missing=len(results.seeds) - len(known),
        start=start,
        end=end,
        gain=gain,
        outcomes=_total(run.outcomes.get("teacher", {}) for run in done),
        exam_outcomes=_total(run.outcomes.get("students", {}) for run in done),
        counts={key: value / len(done) for key, value in sorted(_total(run.counts for run in done).items())},
        diversity=_diversity(runs),
    )


def _total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        for name, number in one.items():
            total[name] += number
    return dict(total)


def _mean_measures(run: RunResult) -> dict[str, float]:
    """Measure -> its mean over the run's exams, those left out where it is undefined."""
    found: dict[str, list[float]] = {}
    for exam in run.exams:
        for name, value in exam.diversity.items():
            if value is not None:
                found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def _diversity(runs: Sequence[RunResult]) -> dict[str, Estimate]:
    measured = [_mean_measures(run) for run in runs]
    means = {name: mean_interval([one[name] for one in measured if name in one]) for name in MEASURES}
    return {name: mean for name, mean in means.items() if mean is not None}


def _curve(name: str, scores: ConditionScores) -> Iterable[CurvePoint]:
    for round_ in range(len(scores.letters)):
        records = {seed: r for seed, run in scores.runs.items() for r in run.rounds if r.round == round_}
        if not records:
            continue
        point = contrast([scores.at(round_, list(records))], same_problems(scores.runs[seed] for seed in records))
        if point.estimate is not None:
            yield CurvePoint(name, round_, point.estimate, count_outcomes(records.values()))


def _compare(study: _Study, a: str, b: str) -> tuple[Comparison, Contrast | None]:
    """A comparison by itself, and the contrast that it was made from."""
    results, first, second = study.results, study.scores[a], study.scores[b]
    seeds = [seed for seed in first.runs if seed in second.runs]
    parts, crossed = paired([first, second], seeds, results.outcome, study.rounds)
    each = [per_seed(part) for part in parts]
    there = np.isfinite(each[0]) & np.isfinite(each[1])
    rows = tuple((seed, float(x), float(y)) for seed, x, y, kept in zip(seeds, *each, there, strict=True) if kept)
    found = contrast(parts, crossed) if len(rows) > 1 else None
    comparison = Comparison(
        a=a,
        b=b,
        difference=found.estimate if found else None,
        p=paired_p(found) if found else None,
        p_holm=None,
        effect=hedges_g(found.per_seed[there]) if found else None,
        detectable=None,
        pairs=len(rows),
        left_out=len(results.seeds) - len(rows),
        crossed=crossed,
        per_seed=rows,
        verdict="not shown",
        differs=results.differs.get((a, b), ()),
        outcomes=outcomes_of([first, second], [seed for seed, _, _ in rows], results.outcome),
    )
    return comparison, found


def _compare_all(study: _Study) -> tuple[Comparison, ...]:
    """With all that hangs on how many comparisons there are: Holm's p, verdicts, and what could be found."""
    made = [_compare(study, a, b) for a, b in study.results.comparisons]
    corrected = holm([one.p for one, _ in made])
    # Holm tests the first of them at this level; what is found at it is found whatever the others are.
    level = ALPHA / max(1, sum(one.p is not None for one, _ in made))
    return tuple(
        replace(
            one,
            p_holm=p,
            verdict=_verdict(one.difference, p, study.results.smallest_effect),
            detectable=_detectable(found, level),
            seeds_needed=_seeds_needed(found, level, study.results.smallest_effect),
        )
        for (one, found), p in zip(made, corrected, strict=True)
    )


def _detectable(found: Contrast | None, level: float) -> float | None:
    least = None if found is None else detectable_difference(found, level=level)
    return least if least is not None and least < 1 else None  # no scores lie further apart


def _seeds_needed(found: Contrast | None, level: float, smallest: float | None) -> tuple[tuple[float, int | None], ...]:
    if found is None or found.error is None or int(np.isfinite(found.per_seed).sum()) < FEW:
        return ()  # so few say next to nothing of how much seeds vary
    wanted = sorted({*_TOLD, *([] if smallest is None else [smallest])})
    return tuple((one, seeds_to_find(found, one, level=level)) for one in wanted)


def _verdict(difference: Estimate | None, p: float | None, smallest: float | None) -> str:
    if _is_shown(difference, p):
        return "shown"
    if smallest is None or difference is None or difference.low is None or difference.high is None:
        return "not shown"
    return "equivalent" if -smallest <= difference.low and difference.high <= smallest else "not shown"


def _is_shown(difference: Estimate | None, p: float | None) -> bool:
    if difference is None or difference.low is None or difference.high is None or p is None:
        return False
    return p < ALPHA and not difference.low <= 0 <= difference.high


def _doses(study: _Study) -> Iterable[Dose]:
    """Gain on each measure that varies, one point for each run."""
    points: dict[str, list[tuple[str, int, float, float]]] = {
        name: [] for name in MEASURES if name not in _NO_DIVERSITY
    }
    for name, scores in study.scores.items():
        seeds = list(scores.runs)
        if not seeds:
            continue
        first, last = scores.at(0, seeds), scores.outcome(study.results.outcome, seeds, study.rounds)
        gains = per_seed(last.without(first)) - per_seed(first.without(last))
        for (seed, run), gain in zip(scores.runs.items(), gains, strict=True):
            for measure, value in _mean_measures(run).items():
                if measure in points and np.isfinite(gain):
                    points[measure].append((name, seed, value, float(gain)))
    varying: dict[str, list[tuple[str, int, float, float]]] = {}
    for name, rows in points.items():
        # With two labels students that disagree answer differently: one measure under two names counts once.
        if len({value for _, _, value, _ in rows}) > 1 and rows not in varying.values():
            varying[name] = rows
    found = {
        name: dose_response([row[1] for row in rows], [row[2] for row in rows], [row[3] for row in rows])
        for name, rows in varying.items()
    }
    corrected = holm([None if one is None else one.p for one in found.values()])
    for (name, one), p_holm in zip(found.items(), corrected, strict=True):
        drawn = tuple(varying[name])
        if one is None or one.slope.low is None:
            yield Dose(name, None, None, None, None, drawn)
        else:
            yield Dose(name, one.slope, one.p, p_holm, one.correlation, drawn)


def _model(study: _Study) -> MixedModel | None:
    """Of the answers in each run's last round, right or not, whatever the study's metric and outcome are."""
    names = [name for name, scores in study.scores.items() if scores.runs]
    if not names:
        return None
    seeds = [seed for seed in study.results.seeds if all(seed in study.scores[name].runs for name in names)]
    if len(seeds) < 2:
        return None
    right = np.stack([_last_right(study.scores[name], seeds) for name in names])
    runs = [study.scores[name].runs[seed] for name in names for seed in seeds]
    fitted = mixed_model(right, same_problems(runs))
    if fitted is None:
        return None
    notes = ["of right answers in the last round", fitted.note]
    places = {name: place for place, name in enumerate(names)}
    # Beside each comparison that is concluded from; without any, of each condition from the first.
    pairs = [pair for pair in study.results.comparisons if places.keys() >= set(pair)] or [
        (n, names[0]) for n in names[1:]
    ]
    terms = {f"{a} − {b}": fitted.difference(places[a], places[b]) for a, b in pairs} if fitted.terms else {}
    return MixedModel(terms, fitted.sd, fitted.answers, "; ".join(note for note in notes if note))


def _last_right(scores: ConditionScores, seeds: Sequence[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    rows = np.array([scores.rows[seed] for seed in seeds])
    letters = scores.letters[scores.last[rows], rows]
    failed = ord(next(letter for letter, name in OUTCOMES.items() if name == "failed"))
    return np.where((letters == 0) | (letters == failed), np.nan, (letters == ord("c")).astype(float))
