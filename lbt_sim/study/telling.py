"""What a study found in a sentence, and what a reader has to know beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lbt_sim.stats import Estimate
from lbt_sim.study.analysis import Comparison, ConditionRow
from lbt_sim.study.results import StudyResults
from lbt_sim.study.scores import ConditionScores, same_problems
from lbt_sim.study.words import interval_text, points

__all__ = ["ALPHA", "EQUAL", "FEW", "answer_of", "floor_of", "seeds_needed", "warnings_of"]

ALPHA = 0.05
EQUAL = 0.99
"""Below this share of the most answers that any condition gives, compute is told to be unequal."""
FEW = 8
"""Below so many pairs an interval is told to be unreliable."""


def answer_of(results: StudyResults, comparisons: Sequence[Comparison], conditions: Sequence[ConditionRow]) -> str:
    """The main comparison with its interval, and whether it is shown; without one, the first condition's gain."""
    what = f"the teacher's held-out {'F1' if results.metric == 'f1' else 'accuracy'}"
    if results.outcome == "area":
        what += ", averaged over the rounds,"
    if comparisons:
        left = len(results.conditions) * len(results.seeds) - len(results.runs) if results.planned else 0
        begun = f"So far, {left} runs being missing: " if left and results.runs else ""
        said = _compared(results, comparisons[0], what)
        return begun + (said[:1].lower() + said[1:] if begun else said)
    for row in conditions:
        if row.gain is not None:
            return (
                f"{_first_upper(_title(results, row.condition))}: {what} changed by {points(row.gain.value)} points "
                f"from round 0 ({_interval(row.gain)}, {_count(row.gain.seeds, 'seed')}); nothing was compared."
            )
    return "Nothing is known yet: no run has come to its end."


def _compared(results: StudyResults, main: Comparison, what: str) -> str:
    pair = f"{_first_upper(_title(results, main.a))} instead of {_title(results, main.b)}"
    if main.difference is None:
        return f"{pair}: nothing can be said yet, {main.pairs} of {len(results.seeds)} seeds have both."
    p = "" if main.p_holm is None else f", Holm p {_p(main.p_holm)}"
    return (
        f"{pair} changed {what} by {points(main.difference.value)} points "
        f"({_interval(main.difference)}, {_count(main.pairs, 'paired seed')}{p}): {_concluded(results, main)}."
    )


def _concluded(results: StudyResults, main: Comparison) -> str:
    """The verdict, and what it leaves open: a null that bounds the effect is another than one that does not."""
    found, smallest = main.difference, results.smallest_effect
    inside = (
        smallest is not None
        and found is not None
        and found.low is not None
        and found.high is not None
        and -smallest <= found.low
        and found.high <= smallest
    )
    if main.verdict == "shown":
        return (
            f"shown, and smaller than the {100 * smallest:.1f} points that matter here"
            if inside and smallest
            else "shown"
        )
    if found is not None and found.low is None and not found.value:
        return "not shown; it is the same in every run"
    if smallest is not None and found is not None and found.low is not None and found.high is not None:
        return f"not shown; {_ruled_out(found.low, found.high, smallest)}"
    if main.detectable is None:
        return "not shown"
    return f"not shown; a true difference of {100 * main.detectable:.1f} points would most likely have been"


def _ruled_out(low: float, high: float, smallest: float) -> str:
    """What of the difference that matters is left open, each way for itself."""
    matters = f"of {100 * smallest:.1f} points, which would matter here,"
    gain, loss = high >= smallest, low <= -smallest
    if gain and loss:
        return f"neither a gain nor a loss {matters} is ruled out"
    if not gain and not loss:
        return f"a gain and a loss {matters} are ruled out: equivalent"
    still, out = ("gain", "loss") if gain else ("loss", "gain")
    return f"a {out} {matters} is ruled out, a {still} is not"


def _title(results: StudyResults, name: str) -> str:
    title = results.condition(name).title.strip().rstrip(".")
    return title[:1].lower() + title[1:] if title and not title[:2].isupper() else title or f"'{name}'"


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"no interval: {estimate.method}"
    return f"95 % interval {interval_text(estimate.low, estimate.high, in_points=True)}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def floor_of(pairs: int, comparisons: int) -> float:
    """The least p that the permutation test can give for the first of so many comparisons, after Holm."""
    return float(min(1.0, comparisons * 2 / 2**pairs))


def seeds_needed(comparisons: int) -> int:
    """How many pairs it takes so that one of so many comparisons can be shown at all."""
    return next(pairs for pairs in range(2, 64) if floor_of(pairs, comparisons) < ALPHA)


def warnings_of(
    results: StudyResults, scores: Mapping[str, ConditionScores], comparisons: Sequence[Comparison]
) -> tuple[str, ...]:
    """Missing and failed runs, few seeds, unequal compute, problems or rounds that differ, answers that failed."""
    compute = _compute(results) if results.equal_compute else ()
    return (*_runs(results), *_pairs(results, scores, comparisons), *compute, *_rounds(scores), *_answers(results))


def _compute(results: StudyResults) -> Iterable[str]:
    """Whether every condition gave as many answers as was planned: counted in what was run."""
    asked: dict[str, list[int]] = {}
    for (name, _), run in results.runs.items():
        if run.status == "done":
            given = run.counts.get("exam_answers", 0) + run.counts.get("select_answers", 0)
            asked.setdefault(name, []).append(given)
    means = {name: sum(given) / len(given) for name, given in asked.items()}
    most = max(means.values(), default=0.0)
    if less := [f"{name} {mean:,.0f}" for name, mean in means.items() if mean < EQUAL * most]:
        yield (
            f"Compute is not equal, though it was asked for: {most:,.0f} answers in exams and selection of a run at "
            f"most; {', '.join(less)}."
        )


def _runs(results: StudyResults) -> Iterable[str]:
    planned = len(results.conditions) * len(results.seeds)
    names = [one.name for one in results.conditions]
    known = [results.runs[name, seed] for name in names for seed in results.seeds if (name, seed) in results.runs]
    failed = [run for run in known if run.status != "done"]
    if failed:
        some = ", ".join(f"{run.condition} seed {run.seed}" for run in failed[:5]) + (", …" if len(failed) > 5 else "")
        yield f"{len(failed)} of {planned} runs failed and are left out, with their pairs: {some}."
    if planned > len(known) and results.planned:
        yield f"{planned - len(known)} of {planned} runs were not made yet."
    empty = sum(run.status == "done" and not run.rounds for run in known)
    if empty:
        yield f"{_count(empty, 'run')} ended without a report and left out."


def _pairs(
    results: StudyResults, scores: Mapping[str, ConditionScores], comparisons: Sequence[Comparison]
) -> Iterable[str]:
    hopeless = bool(comparisons) and floor_of(max(one.pairs for one in comparisons), len(comparisons)) >= ALPHA
    said: dict[str, list[str]] = {}
    for one in comparisons:
        name = f"{one.a} against {one.b}"
        if one.pairs < 2:
            said.setdefault(f"{_count(one.pairs, 'seed')} with both; an interval needs at least 2", []).append(name)
        elif one.pairs < 6 and not hopeless:
            least = f"with {one.pairs} pairs the permutation test cannot give less than p = {2 / 2**one.pairs:.3g}"
            said.setdefault(least, []).append(name)
        elif one.pairs < FEW:
            said.setdefault(f"{one.pairs} pairs are few, and intervals rough", []).append(name)
        first, second = scores[one.a].runs, scores[one.b].runs
        both = [seed for seed in first if seed in second]
        if any(first[seed].problems != second[seed].problems for seed in both):
            said.setdefault("examined on different problems, so paired by seed alone", []).append(name)
        if len(one.differs) > 1:
            several = f"they differ in {_listed(one.differs)}; which of these it is cannot be told"
            said.setdefault(several, []).append(name)
    for what, names in said.items():
        yield f"{_some(names) if len(names) < len(comparisons) or len(names) == 1 else 'Every comparison'}: {what}."
    if hopeless and (most := max(one.pairs for one in comparisons)) >= 2:
        yield (
            f"With {most} pairs and {_count(len(comparisons), 'comparison')} no p after Holm can be below "
            f"{floor_of(most, len(comparisons)):.3g}: whatever the difference, nothing can be shown. It takes "
            f"{seeds_needed(len(comparisons))} seeds at least."
        )
    if not same_problems(run for one in scores.values() for run in one.runs.values()):
        yield "Held-out problems differ between runs: intervals resample seeds, each with its own problems."


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _rounds(scores: Mapping[str, ConditionScores]) -> Iterable[str]:
    ended: dict[tuple[int, ...], list[str]] = {}
    for name, one in scores.items():
        if one.runs:
            ended.setdefault(tuple(sorted(set(one.last.tolist()))), []).append(name)
    if len({number for numbers in ended for number in numbers}) > 1:
        each = "; ".join(f"{_some(names)}: {', '.join(map(str, numbers))}" for numbers, names in ended.items())
        yield f"Runs end after different numbers of rounds ({each}); what is compared is each one's own last."


def _answers(results: StudyResults) -> Iterable[str]:
    totals = {"failed": 0, "unreadable": 0}
    answers = 0
    for run in results.runs.values():
        if run.status == "done":
            letters = "".join(record.outcomes for record in run.rounds)
            answers += len(letters)
            totals["failed"] += letters.count("f")
            totals["unreadable"] += letters.count("i") + letters.count("t")
    if totals["failed"]:
        yield f"{totals['failed']} of {answers} held-out answers failed and are left out, with their pairs."
    if totals["unreadable"] > 0.05 * answers:
        yield f"{totals['unreadable']} of {answers} held-out answers could not be read; they count as not right."
