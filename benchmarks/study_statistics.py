"""Are a study's statistics right? Synthetic results with known effects, thousands of times; and how fast `analyse` is.

Answers are drawn from a logistic model: seeds, problems, seed by arm and problem by arm each have a normal effect of
their own (standard deviations below, in logits), so the true difference is known. Reported with 95 % Wilson intervals
over the simulations. `coverage`: how often 95 % intervals hold the truth, and how often a true null is rejected.
`holm`: how often a whole study (four arms, three comparisons, none of which differs) shows anything. `pairs`: how many
seeds the paired and the unpaired analysis need. `scale`: time and memory of `analyse` on 10,000 runs.

    uv run python benchmarks/study_statistics.py coverage holm pairs scale --simulations 2000
"""

from __future__ import annotations

import argparse
import math
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import stats

from lbt_sim.stats import Scores, contrast, paired_p, strata_of, wilson_interval
from lbt_sim.study.analyse import comparisons_of
from lbt_sim.study.analysis import analyse
from lbt_sim.study.record import ExamRecord, RoundRecord, RunResult, StudentExam
from lbt_sim.study.results import Condition, StudyResults


@dataclass(frozen=True)
class Design:
    """Two arms whose answers are right with logit `base` + effect + seed + problem + arm by seed + arm by problem."""

    seeds: int
    problems: int
    crossed: bool = True
    metric: str = "accuracy"
    effect: float = 0.0
    base: float = 0.5
    seed: float = 0.3
    problem: float = 1.0
    arm_seed: float = 0.25
    arm_problem: float = 0.0
    failing: float = 0.0
    balanced: bool = False

    @property
    def label(self) -> str:
        kind = "crossed" if self.crossed else "own problems"
        parts = [f"arm×seed {self.arm_seed:g}", f"arm×problem {self.arm_problem:g}"]
        parts += [f"effect {self.effect:g}"] if self.effect else []
        parts += [f"base {self.base:g}"] if self.base != 0.5 else []
        parts += [f"{self.failing:.0%} of answers failed"] if self.failing else []
        parts += ["half of the problems positive by design"] if self.balanced else []
        return f"{self.seeds} × {self.problems}, {kind}, {self.metric}: {', '.join(parts)}"


COVERAGE = [
    Design(10, 30),
    Design(10, 30, arm_seed=0, arm_problem=0),
    Design(10, 30, arm_problem=0.5),
    Design(10, 120, arm_seed=0.5, effect=0.3),
    Design(14, 60, effect=0.5, arm_problem=0.3),
    Design(30, 30, arm_problem=0.3),
    Design(30, 120, arm_seed=0),
    Design(30, 120),
    Design(30, 120, arm_problem=0.4, effect=0.3),
    Design(30, 60, base=2.5, arm_problem=0.3),
    Design(20, 60, failing=0.05),
    Design(10, 30, crossed=False),
    Design(30, 120, crossed=False, effect=0.3),
    Design(10, 60, metric="f1"),
    Design(30, 120, metric="f1", arm_problem=0.4, effect=0.3),
    Design(30, 60, crossed=False, metric="f1", effect=0.3),
    Design(30, 120, metric="f1", balanced=True),
]


HOLM = [Design(10, 60), Design(30, 120), Design(30, 60, arm_problem=0.4)]


def draw(design: Design, rng: np.random.Generator, effects: Sequence[float]) -> list[np.ndarray]:
    """For each arm, seeds × problems: whether each answer is right."""
    rows = 1 if design.crossed else design.seeds
    seed = rng.normal(0, design.seed, (design.seeds, 1))
    problem = rng.normal(0, design.problem, (rows, design.problems))
    arms = []
    for effect in effects:
        logit = design.base + effect + seed + problem
        logit = logit + rng.normal(0, design.arm_seed, (design.seeds, 1))
        logit = logit + rng.normal(0, design.arm_problem, (rows, design.problems))
        arms.append(rng.random(logit.shape) < 1 / (1 + np.exp(-logit)))
    return arms


def labels(design: Design, rng: np.random.Generator) -> np.ndarray:
    """Which problems are positive: each with probability one half, or every other one."""
    if design.balanced or design.metric == "accuracy":
        return (np.arange(design.problems) % 2 == 0)[None]
    return rng.random((1 if design.crossed else design.seeds, design.problems)) < 0.5


def scores(right: np.ndarray, positive: np.ndarray, design: Design, rng: np.random.Generator) -> Scores:
    """As the study layer makes them, where all answers are positive or negative."""
    back = rng.random(right.shape) >= design.failing
    if design.metric == "accuracy":
        return Scores((right & back)[None] * 1.0, back[None] * 1.0, back[None])
    hits = 2.0 * (right & positive & back)
    strata = strata_of(positive[0]) if design.crossed else None
    return Scores(hits[None], (hits + (~right & back))[None], back[None], strata)


@lru_cache(maxsize=64)
def truth(design: Design, effect: float) -> float:
    """The expected score of an arm: by quadrature for accuracy, by many runs for F1."""
    spread = math.sqrt(design.seed**2 + design.problem**2 + design.arm_seed**2 + design.arm_problem**2)
    if design.metric == "accuracy":
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        return float(weights @ (1 / (1 + np.exp(-(design.base + effect + spread * nodes)))) / weights.sum())
    rng, total, blocks = np.random.default_rng(99), 0.0, 100
    many = replace(design, seeds=2_000, crossed=False)
    for _ in range(blocks):
        (right,) = draw(many, rng, [effect])
        one = scores(right, labels(many, rng), many, rng)
        total += float((one.hits.sum(axis=2) / one.base.sum(axis=2)).mean())
    return total / blocks


def share(hits: int, n: int) -> str:
    low, high = wilson_interval(hits, n) or (0.0, 0.0)
    return f"{hits / n:.1%} ({low:.1%} to {high:.1%})"


def coverage(designs: Sequence[Design], simulations: int) -> None:
    print("| seeds × problems, and effects in logits | the difference | one arm's score | a true null is rejected |")
    print("| --- | --- | --- | --- |")
    for number, design in enumerate(designs):
        rng = np.random.default_rng([7, number])
        true = truth(design, design.effect) - truth(design, 0.0)
        held = alone = rejected = 0
        for _ in range(simulations):
            positive = labels(design, rng)
            a, b = (scores(right, positive, design, rng) for right in draw(design, rng, (design.effect, 0.0)))
            found = contrast([a.without(b), b.without(a)], design.crossed)
            held += holds(found.estimate, true)
            alone += holds(contrast([a], design.crossed).estimate, truth(design, design.effect))
            if not design.effect:
                rejected += (paired_p(found) or 1.0) <= 0.05
        null = "–" if design.effect else share(rejected, simulations)
        print(f"| {design.label} | {share(held, simulations)} | {share(alone, simulations)} | {null} |", flush=True)


def holds(estimate: object, true: float) -> bool:
    # Where all seeds are alike there is no interval, and it counts as one that misses.
    low, high = getattr(estimate, "low", None), getattr(estimate, "high", None)
    return low is not None and high is not None and low <= true <= high


def study(design: Design, rng: np.random.Generator, effects: Sequence[float], rounds: int = 1) -> StudyResults:
    """A study's results: an arm for each effect; what is compared is each other with the last."""
    names = [f"arm{number}" for number in range(len(effects))]
    problems = tuple(f"{number:012x}" for number in range(design.problems))
    runs = {}
    start = draw(replace(design, arm_seed=0, arm_problem=0), rng, [0.0] * len(effects))
    # Rounds after the first are the last one's answers: more would not change what is compared.
    end = draw(design, rng, effects)
    for name, first, last in zip(names, start, end, strict=True):
        for seed in range(design.seeds):
            own = problems if design.crossed else tuple(f"{seed}-{one}" for one in problems)
            letters = [letters_of(first[seed]), *[letters_of(last[seed])] * rounds]
            reports = tuple(
                RoundRecord(number, f"m{number}", text, "", text.count("c") / len(text), None)
                for number, text in enumerate(letters)
            )
            runs[name, seed] = RunResult(name, seed, f"runs/{name}-{seed}", "done", None, own, rounds=reports)
    conditions = tuple(Condition(name, name) for name in names)
    pairs = tuple((name, names[-1]) for name in names[:-1])
    seeds = tuple(range(design.seeds))
    return StudyResults(Path("study"), "s", "S", "", conditions, seeds, pairs, "accuracy", "last", runs)


def letters_of(right: np.ndarray) -> str:
    return "".join("c" if one else "w" for one in right)


def holm(designs: Sequence[Design], simulations: int) -> None:
    print("| four arms that do not differ, three comparisons | any Holm p ≤ 0.05 | any `shown` |")
    print("| --- | --- | --- |")
    for number, design in enumerate(designs):
        rng = np.random.default_rng([8, number])
        rejected = shown = 0
        for _ in range(simulations):
            found = comparisons_of(study(design, rng, [0.0] * 4))
            rejected += any((one.p_holm or 1.0) <= 0.05 for one in found)
            shown += any(one.verdict == "shown" for one in found)
        print(f"| {design.label} | {share(rejected, simulations)} | {share(shown, simulations)} |", flush=True)


def pairs(simulations: int) -> None:
    print("| each seed its own problems | seeds for 80 % power, paired | unpaired | factor | factor at equal width |")
    print("| --- | --- | --- | --- | --- |")
    designs = [
        Design(0, 60, crossed=False, effect=0.3, arm_seed=0.25),
        Design(0, 120, crossed=False, effect=0.3, arm_seed=0.25),
        Design(0, 120, crossed=False, effect=0.3, arm_seed=0.25, seed=0.6),
    ]
    for design in designs:
        needed = [
            smallest(lambda n, test=test, d=design: power(d, n, test, simulations)) for test in (paired, unpaired)
        ]
        wide = widths(design)
        print(
            f"| {design.problems} problems, seed {design.seed:g}, {design.label.split(': ')[1]} "
            f"| {needed[0]} | {needed[1]} | {needed[1] / needed[0]:.2f} | {wide:.2f} |",
            flush=True,
        )


def paired(design: Design, rng: np.random.Generator) -> float:
    positive = labels(design, rng)
    parts = [scores(right, positive, design, rng) for right in draw(design, rng, (design.effect, 0.0))]
    return paired_p(contrast(parts, crossed=False)) or 1.0


def unpaired(design: Design, rng: np.random.Generator) -> float:
    """Welch's t test of runs with seeds and problems of their own, as many in each arm as there are pairs."""
    arms = [draw(design, rng, [effect])[0].mean(axis=1) for effect in (design.effect, 0.0)]
    return float(stats.ttest_ind(*arms, equal_var=False).pvalue)


def power(design: Design, seeds: int, test: Callable[[Design, np.random.Generator], float], simulations: int) -> float:
    rng, sized = np.random.default_rng([9, seeds]), replace(design, seeds=seeds)
    return sum(test(sized, rng) <= 0.05 for _ in range(simulations)) / simulations


def smallest(power_at: Callable[[int], float], enough: float = 0.8) -> int:
    """The least number of seeds with enough power, by bisection."""
    low, high = 3, 8
    while power_at(high) < enough:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_at(middle) >= enough else (middle, high)
    return high


def widths(design: Design) -> float:
    """How many times the pairs' seeds the unpaired analysis needs for as narrow an interval: a ratio of variances."""
    rng, many = np.random.default_rng(10), replace(design, seeds=20_000)
    a, b = (right.mean(axis=1) for right in draw(many, rng, (design.effect, 0.0)))
    return float((a.var() + b.var()) / (a - b).var())


def scale(conditions: int, seeds: int, crossed: bool = True) -> None:
    rng = np.random.default_rng(3)
    design = Design(seeds, 120, crossed=crossed, arm_problem=0.2)
    results = with_exams(study(design, rng, [0.1 * number for number in range(conditions)], rounds=5), rng)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start, cpu = time.perf_counter(), time.process_time()
    analysis = analyse(results)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    kind = "crossed" if crossed else "own problems"
    print("| runs | seconds | of CPU | peak memory, GiB | of it before `analyse` |")
    print("| --- | --- | --- | --- | --- |")
    print(f"| {len(results.runs):,} ({kind}) | {seconds:.1f} | {cpu:.1f} | {peak:.2f} | {before:.2f} |")
    print(f"\n{analysis.answer}\n\nMixed model: {analysis.model.note if analysis.model else 'none'}", flush=True)


def with_exams(results: StudyResults, rng: np.random.Generator) -> StudyResults:
    """With five exams of 24 items by three students in each run."""
    items = tuple(f"p{number}" for number in range(24))
    runs = {}
    for key, run in results.runs.items():
        exams = []
        for round_ in range(1, 6):
            letters = ["".join(row) for row in rng.choice(list("ccwi"), size=(3, 24))]
            sat = tuple(StudentExam(f"s{number}", text) for number, text in enumerate(letters))
            measures = {"disagreement": float(rng.random()), "error_correlation": float(rng.random())}
            exams.append(ExamRecord(round_, items, ("",) * 24, sat, measures))
        runs[key] = replace(run, exams=tuple(exams))
    return replace(results, runs=runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=["coverage", "holm", "pairs", "scale", "scale-own"])
    parser.add_argument("--simulations", type=int, default=2_000)
    parser.add_argument(
        "--designs", default=f"0:{len(COVERAGE)}", help="which designs of coverage and holm: first:last"
    )
    args = parser.parse_args()
    first, last = map(int, args.designs.split(":"))
    for part in args.parts:
        start = time.perf_counter()
        print(f"\n{part}, {args.simulations} simulations\n")
        if part == "coverage":
            coverage(COVERAGE[first:last], args.simulations)
        elif part == "holm":
            holm(HOLM[first:last], args.simulations)
        elif part == "pairs":
            pairs(max(200, args.simulations // 2))
        else:
            scale(8, 1_250, crossed=part == "scale")
        print(f"\n{time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
