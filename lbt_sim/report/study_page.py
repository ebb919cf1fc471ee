"""Everything that the report of a study says, as values: HTML and Markdown are made from the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lbt_sim.report.charts import Curve, look
from lbt_sim.report.exam import ShareGrid, share_grid
from lbt_sim.report.exemplars import Credits
from lbt_sim.report.forest import EffectRow, Forest, ForestRow, effect_forest, forest
from lbt_sim.report.reproduce import Commands, go_on, study_commands, versions
from lbt_sim.report.run_page import Figure, Series
from lbt_sim.report.sample import Exemplary, Room, Sample, exemplary, sample
from lbt_sim.report.text import cut, middle
from lbt_sim.stats import Estimate
from lbt_sim.study.analysis import Analysis, Comparison, ConditionRow, Dose, MixedModel
from lbt_sim.study.results import StudyResults
from lbt_sim.study.words import interval_text, of_how_many, p_text, points, readable

__all__ = ["Cost", "DosePlot", "FailedRun", "Needed", "StudyPage", "study_page"]

_COLOURED = 8
"""Of more conditions only those of the main comparison are drawn with their bands in the common chart."""
_CURVES = 24
_FAILED = 40
_GRIDS = 24
_COUNTS = {
    "answers": "answers in all",
    "exam_answers": "exam answers",
    "select_answers": "to select",
    "report_answers": "held out",
    "calls": "calls asked for",
    "failed": "gave up",
    "prompt_tokens": "prompt tokens",
    "generated_tokens": "generated tokens",
    "completion_tokens": "completion tokens",
}
"""Counts that do not hang on who paid: the same each time. Who paid (`made`, `shared`) stands with the times."""

_MODEL = (
    "It is not what is concluded from. It looks at single answers of the last round, right or not, and lets seeds, "
    "problems and runs vary, but takes a condition to help equally on every problem: that some problems may favour one "
    "condition it does not count, so that its intervals are too narrow where they do. The paired differences count it "
    "where all pairs have the same problems. Where the two agree, the result does not hang on how it was computed. "
    "Where they disagree, the paired differences with Holm's correction hold; look then at the problems (some favour "
    "one condition), at the study's score, if that is not the last round's accuracy, and at pairs that were left out."
)


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A run that stopped."""

    condition: str
    seed: int
    error: str


@dataclass(frozen=True, slots=True)
class Cost:
    """A condition's mean counts of a run, in the order of the table's columns."""

    condition: str
    runs: int
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DosePlot:
    """Gain against one measure of diversity.

    Attributes:
        measure: Its name.
        about: What it is.
        groups: (look, points) of each condition that has any.
        names: The conditions' names, in the same order.
        slope: Gain for one unit.
        words: The slope with its interval, in words.
        correlation: Partial correlation, in words.
        p: Of the slope.
        p_holm: Corrected over the measures.
        points: How many runs.
    """

    measure: str
    about: str
    groups: tuple[tuple[Any, tuple[tuple[float, float], ...]], ...]
    names: tuple[str, ...]
    slope: Estimate | None
    words: str
    correlation: str
    p: float | None
    p_holm: float | None
    points: int


@dataclass(frozen=True, slots=True)
class Needed:
    """How many seeds it would take to find a true difference.

    Attributes:
        heads: The true differences, in words: the columns.
        rows: (comparison, for each difference how many seeds, in words).
    """

    heads: tuple[str, ...]
    rows: tuple[tuple[Comparison, tuple[str, ...]], ...]


@dataclass(frozen=True)
class StudyPage:
    """The report of a study; the templates say in which order."""

    name: str
    title: str
    description: str
    answer: str
    facts: tuple[str, ...]
    unfinished: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    figures: tuple[Figure, ...]
    series: tuple[Series, ...]
    more_series: int
    curve_rows: tuple[tuple[str, int, Estimate, Mapping[str, int]], ...]
    conditions: tuple[ConditionRow, ...]
    titles: Mapping[str, str]
    forest: Forest[ForestRow] | None
    corrected: str
    smallest_effect: float | None
    needed: Needed | None
    effects: Forest[EffectRow] | None
    doses: tuple[DosePlot, ...]
    dose_answers: tuple[Mapping[str, int], Mapping[str, int]]
    dose_legend: tuple[Series, ...]
    model: MixedModel | None
    model_words: str
    shares: tuple[ShareGrid, ...]
    more_shares: int
    exemplary: Exemplary | None
    rooms: tuple[Room, ...]
    credits: Credits | None
    sampled: Sample
    failed: tuple[FailedRun, ...]
    failed_in_all: int
    cost_heads: tuple[str, ...]
    costs: tuple[Cost, ...]
    commands: Commands
    made_with: tuple[tuple[str, str], ...]
    times: tuple[tuple[str, str], ...]


def study_page(results: StudyResults, analysis: Analysis) -> StudyPage:
    """What there is to say, of a study that is finished or not."""
    series, more = _series(results, analysis)
    sampled = sample(results)
    shares = [
        grid
        for one in results.conditions[:_GRIDS]
        if (grid := share_grid(one.name, (r for (name, _), r in results.runs.items() if name == one.name)))
    ]
    failed = [run for run in results.runs.values() if run.status == "failed"]
    doses = tuple(_dose(results, dose) for dose in analysis.doses)
    return StudyPage(
        name=results.name,
        title=results.title or results.name,
        description=results.description,
        answer=analysis.answer,
        facts=tuple(_facts(results)),
        unfinished=_unfinished(results),
        warnings=analysis.warnings,
        notes=results.notes,
        figures=tuple(_figures(results, analysis)),
        series=series,
        more_series=more,
        curve_rows=tuple((p.condition, p.round, p.score, p.outcomes) for p in analysis.curves),
        conditions=analysis.conditions,
        titles={one.name: one.title for one in results.conditions if one.title != one.name},
        forest=forest(analysis.comparisons, results.smallest_effect),
        corrected=_corrected(analysis.comparisons),
        smallest_effect=results.smallest_effect,
        needed=_needed(analysis.comparisons),
        effects=effect_forest(analysis.effects, results.smallest_effect),
        doses=doses,
        dose_answers=(
            _total(r.exam_outcomes for r in analysis.conditions),
            _total(r.outcomes for r in analysis.conditions),
        ),
        dose_legend=_legend(results, doses),
        model=analysis.model,
        model_words=_MODEL,
        shares=tuple(shares),
        more_shares=max(0, len(results.conditions) - _GRIDS),
        exemplary=exemplary(results),
        rooms=sampled.rooms,
        credits=sampled.credits,
        sampled=sampled,
        failed=tuple(FailedRun(run.condition, run.seed, cut(run.error or "", 300)) for run in failed[:_FAILED]),
        failed_in_all=len(failed),
        cost_heads=tuple(_COUNTS.values()),
        costs=tuple(_cost(row) for row in analysis.conditions if row.counts),
        commands=study_commands(results),
        made_with=tuple(_made_with(results)),
        times=tuple(_times(results)),
    )


def _facts(results: StudyResults) -> list[str]:
    planned = len(results.conditions) * len(results.seeds)
    score = {"last": "after the last round", "area": "the mean of all rounds from 1 on"}[results.outcome]
    return [
        f"{len(results.conditions)} conditions × {len(results.seeds)} seeds = {planned:,} runs",
        f"score: held-out {results.metric}, {score}",
    ]


def _unfinished(results: StudyResults) -> str:
    planned = len(results.conditions) * len(results.seeds)
    missing = planned - len(results.runs)
    if not missing:
        return ""
    return (
        f"This study is not finished: {missing:,} of {planned:,} runs are missing. What follows is made from those "
        f"that are there; this goes on with it: {go_on(results)}"
    )


def _corrected(comparisons: Sequence[Comparison]) -> str:
    """With which correction the smallest detectable difference was computed."""
    tested = sum(one.p is not None for one in comparisons)
    return f", corrected for {tested:,} comparisons" if tested > 1 else ""


def _needed(comparisons: Sequence[Comparison]) -> Needed | None:
    """A column for each difference that any comparison has; None where none could be told."""
    told = [(one, dict(one.seeds_needed)) for one in comparisons]
    differences = sorted({difference for _, seeds in told for difference in seeds})
    if not differences:
        return None
    rows = tuple((one, tuple(_seeds(seeds, difference) for difference in differences)) for one, seeds in told)
    return Needed(tuple(f"{100 * one:g} point{'' if one == 0.01 else 's'}" for one in differences), rows)


def _seeds(needed: Mapping[float, int | None], difference: float) -> str:
    if difference not in needed:
        return "–"
    seeds = needed[difference]
    return "none would do" if seeds is None else f"{seeds:,}"


def _figures(results: StudyResults, analysis: Analysis) -> list[Figure]:
    """The main comparison, and both its sides."""
    if not analysis.comparisons:
        return []
    main = analysis.comparisons[0]
    rows = []
    by_name = {row.condition: row for row in analysis.conditions}
    for name in (main.a, main.b):
        end = by_name[name].end if name in by_name else None
        if end is not None:
            rows.append(Figure(middle(name, 48), readable(end.value), _interval(end)))
    if main.difference is not None:
        found = main.difference
        rows.append(Figure("Difference, in points", points(found.value), _interval(found, in_points=True)))
    if main.detectable is not None:
        told = f"at 80 % power and 5 %{_corrected(analysis.comparisons)}; {main.pairs:,} pairs of runs"
        rows.append(Figure("Smallest it could find", points(main.detectable, signed=False), told))
    return rows


def _interval(found: Estimate, *, in_points: bool = False) -> str:
    told = interval_text(found.low, found.high, in_points=in_points)
    level = f"{100 * found.level:.0f} % interval" if found.low is not None else ""
    return f"{level} {told}; {of_how_many(found)}; {found.method}".strip()


def _series(results: StudyResults, analysis: Analysis) -> tuple[tuple[Series, ...], int]:
    """A curve for each condition, in order; those that are not compared first are quiet where there are many."""
    main = set(results.comparisons[0]) if results.comparisons else set()
    names = [one.name for one in results.conditions]
    if len(names) > _CURVES:  # the main ones are drawn in any case
        names = sorted(names, key=lambda name: name not in main)[:_CURVES]
        names.sort(key=[one.name for one in results.conditions].index)
    quiet = bool(main) and len(names) > 3
    found = []
    for number, one in enumerate(results.conditions):
        points_ = tuple(
            (p.round, p.score.value, p.score.low, p.score.high) for p in analysis.curves if p.condition == one.name
        )
        if one.name in names and points_:
            curve = Curve(look(number), points_, quiet=quiet and one.name not in main)
            last = next(p.score for p in reversed(analysis.curves) if p.condition == one.name)
            told = f"{readable(last.value)} ({interval_text(last.low, last.high)}, {of_how_many(last)})"
            found.append(Series(one.name, curve, told))
    return tuple(found), len(results.conditions) - len(names)


def _dose(results: StudyResults, dose: Dose) -> DosePlot:
    from lbt_sim.stats.diversity import MEASURES

    by_name: dict[str, list[tuple[float, float]]] = {}
    for condition, _, measure, gain in dose.points:
        by_name.setdefault(condition, []).append((measure, gain))
    numbers = {one.name: number for number, one in enumerate(results.conditions)}
    names = [name for name in numbers if name in by_name]
    return DosePlot(
        measure=dose.measure,
        about=MEASURES.get(dose.measure, ""),
        groups=tuple((look(numbers[name]), tuple(by_name[name])) for name in names),
        names=tuple(names),
        slope=dose.slope,
        words=_slope(dose),
        correlation=readable(dose.correlation),
        p=dose.p,
        p_holm=dose.p_holm,
        points=len(dose.points),
    )


def _slope(dose: Dose) -> str:
    """For a tenth of a unit: measures are shares and correlations, of which a whole unit hardly occurs."""
    if dose.slope is None:
        return "The measure does not vary: no slope."
    tenth = [None if value is None else value / 10 for value in (dose.slope.value, dose.slope.low, dose.slope.high)]
    p = "" if dose.p is None else f", p {_is(dose.p)}"
    p += "" if dose.p is None or dose.p_holm is None else f", Holm p {_is(dose.p_holm)}"
    interval = f"95 % interval {interval_text(tenth[1], tenth[2], in_points=True)}"
    return f"{points(tenth[0])} points for 0.1 more ({interval}{p}; {of_how_many(dose.slope)})."


def _is(p: float) -> str:
    return p_text(p) if p < 0.001 else f"= {p_text(p)}"


def _total(outcomes: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    total: Counter[str] = Counter()
    for one in outcomes:
        total.update(one)
    return total


def _legend(results: StudyResults, doses: Sequence[DosePlot]) -> tuple[Series, ...]:
    there = {name for dose in doses for name in dose.names}
    return tuple(
        Series(one.name, Curve(look(number), ()))
        for number, one in enumerate(results.conditions[:56])
        if one.name in there
    )


def _cost(row: ConditionRow) -> Cost:
    values = tuple(f"{row.counts[key]:,.0f}" if key in row.counts else "–" for key in _COUNTS)
    return Cost(row.condition, row.done, values)


# --- how it was made ----------------------------------------------------------------------------------------


def _made_with(results: StudyResults) -> list[tuple[str, str]]:
    seeds = [str(seed) for seed in results.seeds]
    told = ", ".join(seeds[:40]) + (f" and {len(seeds) - 40:,} more" if len(seeds) > 40 else "")
    rows = [("seeds", f"{len(seeds):,}: {told}"), *versions(results.facts)]
    engines = results.facts.get("engines")
    return [*rows, *([("engines", cut(str(engines), 2000))] if engines else [])]


def _times(results: StudyResults) -> list[tuple[str, str]]:
    """What hangs on when and by how many it was executed."""
    rows = [("created", str(results.facts.get("created", "?")))]
    executions = results.facts.get("executions")
    listed = [one for one in executions if isinstance(one, Mapping)] if isinstance(executions, list) else []
    for number, one in list(enumerate(listed, 1))[-40:]:
        end = f"to {one['ended']}, {one.get('how', '?')}" if "ended" in one else "on; it was killed, or goes on"
        told = f"{one.get('began', '?')} {end}"
        rows.append((f"execution {number}", f"{told}; {one.get('workers', '?')} workers ({one.get('executor', '?')})"))
    total: Counter[str] = Counter()
    for run in results.runs.values():
        total.update({key: run.counts.get(key, 0) for key in ("calls", "made", "shared")})
    rows.append(
        (
            "who paid",
            f"of {total['calls']:,} calls asked for, {total['made']:,} were paid for and {total['shared']:,} had been "
            "answered for another call or another run",
        )
    )
    return rows
